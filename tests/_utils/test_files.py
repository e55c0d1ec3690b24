"""Files of named arrays: whole or not there at all, and refused where they hold something else."""

import os

import numpy as np
import pytest

from constrained_vae._utils.files import read_npz, without_addresses, write_npz


def test_header_and_arrays_come_back(tmp_path):
    write_npz(tmp_path / "any.name", {"kind": "thing", "n": 3}, {"a": np.arange(3.0)})
    header, arrays = read_npz(tmp_path / "any.name", "thing")
    assert header == {"kind": "thing", "n": 3}
    assert list(arrays) == ["a"]
    np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
    assert os.listdir(tmp_path) == ["any.name"]


def test_other_files_are_refused(tmp_path):
    write_npz(tmp_path / "plain", None, {"a": np.zeros(2)})
    write_npz(tmp_path / "list", [1, 2], {})
    write_npz(tmp_path / "thing", {"kind": "thing"}, {})
    (tmp_path / "text").write_text("text")
    for name in ("plain", "list", "thing", "text"):
        with pytest.raises(ValueError, match=f"{name} does not hold a saved state of things$"):
            read_npz(tmp_path / name, "other", )
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "nowhere", "thing")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_npz(path, {"kind": "old"}, {})

    def full(*arguments, **options):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space left"):
        write_npz(path, {"kind": "new"}, {})
    assert read_npz(path, "old")[0] == {"kind": "old"}
    assert os.listdir(tmp_path) == ["file"]


def test_links_stay_links_and_folders_are_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for kind in ("first", "second"):
        write_npz(tmp_path / "link", {"kind": kind}, {})
    assert (tmp_path / "link").is_symlink()
    assert read_npz(tmp_path / "file", "second")[0] == {"kind": "second"}
    with pytest.raises(IsADirectoryError):
        write_npz(tmp_path, {"kind": "first"}, {})


def test_addresses_are_left_out():
    assert without_addresses("<function f at 0x7f00aa>") == "<function f>"
