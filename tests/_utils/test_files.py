"""Files of named arrays, refused where they hold something else."""

import json
import zipfile

import numpy as np
import pytest

from constrained_vae._utils.files import FORMAT, check_contents, entry, naming, one_line, read_npz
from constrained_vae._utils.memory import physical
from constrained_vae._utils.writing import write_npz


def header(kind, **more):
    return {"kind": kind, "format": FORMAT, **more}


def test_header_and_arrays_come_back(tmp_path):
    write_npz(tmp_path / "any.name", header("thing", n=3), {"a": np.arange(3.0), "b": np.float32(1), "c": np.ones(1)})
    found, arrays = read_npz(tmp_path / "any.name", "thing", ["a"], ["b", "z"])
    assert found == header("thing", n=3)
    assert list(arrays) == ["a", "b"]
    assert arrays["b"].dtype == np.float32
    np.testing.assert_array_equal(arrays["a"], [0, 1, 2])


def test_other_files_are_refused(tmp_path):
    write_npz(tmp_path / "plain", None, {"a": np.zeros(2)})
    write_npz(tmp_path / "list", [1, 2], {})
    write_npz(tmp_path / "thing", header("thing"), {})
    write_npz(tmp_path / "nothing", header("other"), {})
    write_npz(tmp_path / "text", header("other"), {"a": np.array("text")})
    write_npz(tmp_path / "old", header("other", format=0), {"a": np.zeros(2)})
    write_npz(tmp_path / "new", header("other", format=FORMAT + 1), {"a": np.zeros(2)})
    write_npz(tmp_path / "floats", header("other", format=1.0), {"a": np.zeros(2)})
    (tmp_path / "words").write_text("words")
    for name, message in {
        "plain": "it has no header",
        "list": "kind in its header must be of type str, got None",
        "thing": "it is the file of a thing",
        "nothing": "the array 'a' is missing",
        "text": "the array 'a' holds text instead of real numbers",
        "old": "it has format 0, this version reads format 1",
        "new": r"it has format 2, this version reads format 1 \(a newer version of constrained_vae wrote it",
        "floats": "format in its header must be of type int, got 1.0",
        "words": "it is no .npz file",
    }.items():
        with pytest.raises(ValueError, match=f"{name} does not hold a saved other: {message}"):
            read_npz(tmp_path / name, "other", ["a"])
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "nowhere", "thing", [])


def test_members_may_not_be_doubled_or_compressed_by_methods_without_a_limit(tmp_path):
    write_npz(tmp_path / "file", header("thing"), {"a": np.zeros(2)})
    with zipfile.ZipFile(tmp_path / "file") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "file", "w", zipfile.ZIP_LZMA) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match="'header' is encrypted, or compressed by another method than deflate"):
        read_npz(tmp_path / "file", "thing", ["a"])
    write_npz(tmp_path / "file", header("thing"), {"a": np.zeros(2), "b": np.zeros(2)})
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes().replace(b"b.npy", b"a.npy"))
    with pytest.raises(ValueError, match="the array 'a' is there twice"):
        read_npz(tmp_path / "file", "thing", ["a"])


def test_entries_of_headers_have_types():
    record = json.loads('{"i": 3, "f": 0.5, "b": true, "s": "x", "d": {}, "large": 1e999, "n": 99999999999999999999}')
    assert (entry(record, "i", int), entry(record, "i", float), entry(record, "f", float)) == (3, 3.0, 0.5)
    assert (entry(record, "b", bool), entry(record, "s", str), entry(record, "d", dict)) == (True, "x", {})
    assert entry(record, "large", float) == np.inf
    for name, kind in (("b", int), ("b", float), ("f", int), ("n", int), ("n", float), ("i", bool), ("x", str)):
        with pytest.raises(ValueError, match=f"{name} in its header must be of type {kind.__name__}, got"):
            entry(record, name, kind)
    with pytest.raises(ValueError, match="x in its header"):
        entry([1], "x", int)


def test_arrays_are_checked():
    check_contents(np.ones((2, 3)), "a", (None, 3), 1.0)
    for array, shape, least, message in (
        (np.ones(2), (3,), 0.0, r"a must have the shape \(3,\), got \(2,\)"),
        (np.ones(2), (None, 2), 0.0, r"a must have the shape \(any, 2\), got \(2,\)"),
        (np.array([1, np.nan]), (2,), 0.0, "a must be finite, got nan"),
        (np.array([1, -2]), (None,), -1.0, r"a must be at least -1.0, got -2"),
    ):
        with pytest.raises(ValueError, match=message):
            check_contents(array, "a", shape, least)


def test_messages_are_one_line_and_not_too_long():
    assert one_line("two\n lines") == "two lines"
    assert len(one_line("9" * 10_000)) < 500
    with pytest.raises(ValueError, match=r"^the file: two lines$"), naming("the file"):
        raise ValueError("two\nlines")


def test_the_memory_of_the_machine_is_known():
    assert physical() > 2**28
