"""Files of arrays of data points and images, .npy and .npz; what is wrong with one is told with row and column."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from . import delimited, frames
from .checks import shown
from .columns import Table
from .files import NUMBERS, check_size, naming, open_archive, read_array


def suffix_of(path: Path) -> str:
    """The suffix of a file by which its reader is found, such as ".csv.gz"."""
    return next((suffix for suffix in delimited.SUFFIXES if path.name.lower().endswith(suffix)), path.suffix)


def read_table(path: Path) -> Table:
    """The table of a file of text, a .parquet file or a spreadsheet; ValueError begins with the path."""
    read = frames.read_frame if path.suffix in frames.SUFFIXES else delimited.read_delimited
    with naming(f"{path} must hold a table"):
        return read(path)


def read_points(path: Path, part: str = "train", missing: bool = False) -> dict[str, Any]:
    """The array `x` of a .npy or .npz file, with `weights`, `labels` and `classes` if a .npz file has them.

    A .npz file may have a training and a test part, of which one is read. The entries of x may be missing (NaN) if the
    argument says so.

    Raises
    ------
    ValueError
        If the file contains anything other than finite real numbers, or texts as labels, or has another suffix.
    TooLargeError
        If the arrays are larger than the memory of the machine.
    OSError
        If the file cannot be read.
    """
    if path.suffix not in _READERS:
        raise ValueError(f"path must be that of {KINDS}, or of images, got {shown(str(path))}")
    wanted, read = _READERS[path.suffix]
    with open(path, "rb") as file, naming(f"{path} must hold {wanted}"):
        arrays = read(file, part)
        if arrays.get("labels", np.empty(0)).dtype.kind == "U":
            known, arrays["labels"] = np.unique(arrays["labels"], return_inverse=True)
            arrays["classes"] = tuple(map(str, known))
        for name, array in arrays.items():
            if name != "classes":
                _check_finite(array, name, missing and name == "x")
        labels = np.asarray(arrays.get("labels", ()), dtype=np.float64)
        if not (np.abs(labels) < 2**53).all() or (labels != np.rint(labels)).any():
            raise ValueError("labels must be whole numbers")
        if labels.ndim == 2 and labels.shape[1] == 1:  # a column, as some archives have it
            arrays["labels"] = labels[:, 0]
    return arrays


def has_part(path: Path, part: str) -> bool:
    """Whether a .npz file has an array of points of a part, "train" or "test"."""
    with open(path, "rb") as file, naming(f"{path} must hold {_READERS['.npz'][0]}"):
        archive = open_archive(file)
        return any(x in archive for x in _NAMES[part])


def _from_npy(file: IO[bytes], part: str) -> dict[str, Any]:
    size = os.fstat(file.fileno()).st_size
    check_size(size, "; open it as a memory map, numpy.load(path, mmap_mode='r')")
    return {"x": read_array(file, size, "it")}


def _from_npz(file: IO[bytes], part: str) -> dict[str, Any]:
    archive = open_archive(file)
    for x, labels in _NAMES[part].items():
        if x in archive:
            label = next((name for name in labels if name in archive), None)
            found = archive.read([name for name in (x, "weights") if name in archive])
            if label is not None:
                found |= archive.read([label], kinds=f"{NUMBERS}U")
            return {{x: "x", label: "labels"}.get(name, name): array for name, array in found.items()}
    if len(archive.names) == 1 and part == "train":
        return {"x": archive.read(archive.names)[archive.names[0]]}
    raise ValueError(f"it holds {', '.join(archive.names) or 'nothing'}, and none of {', '.join(_NAMES[part])}")


def _check_finite(array: np.ndarray, name: str, missing: bool) -> None:
    """Raise ValueError for the first number of an array that is not finite; if it may be missing, nor NaN."""
    if not (finite := np.isfinite(array) | (np.isnan(array) & missing)).all():
        place = np.argwhere(~finite)[0] + 1
        named = dict(zip(("row", "column"), place, strict=False)) if array.ndim <= 2 else {"index": tuple(place)}
        where = ", ".join(f"{axis} {number}" for axis, number in named.items())
        raise ValueError(f"{name} must be finite, got {array[tuple(place - 1)]} at {where} (counted from 1)")


_LABELS = ("labels", "y", "target")
# Names that the array x and the labels may have in a .npz file.
_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {"x": _LABELS, "X": _LABELS, "data": _LABELS, "x_train": ("y_train",), "images": _LABELS},
    "test": {"x_test": ("y_test",)},
}
_READERS: dict[str, tuple[str, Callable[[IO[bytes], str], dict[str, Any]]]] = {
    ".npy": ("an array of numbers", _from_npy),
    ".npz": ("an array x of numbers, or one array alone", _from_npz),
}
SUFFIXES = (*_READERS, *delimited.SUFFIXES, *frames.SUFFIXES)
KINDS = "a table (.csv, .tsv, .txt, also .gz, .parquet, .xlsx), a .npy or a .npz file"
