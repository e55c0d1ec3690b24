"""Files of named arrays, refused where they hold something else."""

import numpy as np
import pytest

from constrained_vae._utils.files import read_npz
from constrained_vae._utils.writing import write_npz


def test_header_and_arrays_come_back(tmp_path):
    write_npz(tmp_path / "any.name", {"kind": "thing", "n": 3}, {"a": np.arange(3.0)})
    header, arrays = read_npz(tmp_path / "any.name", "thing")
    assert header == {"kind": "thing", "n": 3}
    assert list(arrays) == ["a"]
    np.testing.assert_array_equal(arrays["a"], [0, 1, 2])


def test_other_files_are_refused(tmp_path):
    write_npz(tmp_path / "plain", None, {"a": np.zeros(2)})
    write_npz(tmp_path / "list", [1, 2], {})
    write_npz(tmp_path / "thing", {"kind": "thing"}, {})
    (tmp_path / "text").write_text("text")
    for name in ("plain", "list", "thing", "text"):
        with pytest.raises(ValueError, match=f"{name} does not hold a saved state of things$"):
            read_npz(tmp_path / name, "other", "state of things")
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "nowhere", "thing")
