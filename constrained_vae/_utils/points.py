"""Files of data points and images: .npy, .npz and .csv; what is wrong with one is told with row and column."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import numpy as np

from .checks import shown
from .files import check_size, naming, open_archive, read_array


def read_points(path: Path, part: str = "train") -> dict[str, Any]:
    """The array `x` of a .npy, .npz or .csv file, with `weights` and `labels` if a .npz file has them.

    A .npz file may have a training and a test part, of which one is read.

    Raises
    ------
    ValueError
        If the file contains anything other than finite real numbers, or has another suffix.
    TooLargeError
        If the arrays are larger than the memory of the machine.
    OSError
        If the file cannot be read.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"path must be that of a .npy, .npz or .csv file, or of images, got {shown(str(path))}")
    wanted, read = _READERS[path.suffix]
    with open(path, "rb") as file, naming(f"{path} must hold {wanted}"):
        arrays = read(file, part)
        for name, array in arrays.items():
            _check_finite(array, name)
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
            names = {x: "x", "weights": "weights", labels: "labels"}
            found = archive.read([name for name in names if name in archive])
            return {names[name]: array for name, array in found.items()}
    if len(archive.names) == 1 and part == "train":
        return {"x": archive.read(archive.names)[archive.names[0]]}
    raise ValueError(f"it holds {', '.join(archive.names) or 'nothing'}, and none of {', '.join(_NAMES[part])}")


def _from_csv(file: IO[bytes], part: str) -> dict[str, Any]:
    # Spreadsheets begin the file with a mark; comments may have any encoding.
    with TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape") as text:
        try:
            if next(_cells(text), None) is not None:
                text.seek(0)
                x = np.loadtxt(text, delimiter=",", ndmin=2)
                if np.isfinite(x).all():
                    return {"x": x}
        except ValueError:
            pass  # of NumPy, which counts neither comments nor empty lines
        text.seek(0)
        raise ValueError(_fault(text))


def _fault(text: IO[str]) -> str:
    """What is wrong with the first row that is no row of finite numbers."""
    first = None  # number of the first row, and of its columns
    for row, cells in _cells(text):
        first = first or (row, len(cells))
        for column, cell in enumerate(cells, 1):
            place = f"at row {row}, column {column} (counted from 1, like a spreadsheet)"
            if not cell:
                return f"there is an empty field {place}"
            if not _is_finite(cell):
                return f"got {cell[:40]!r} {place}"
        if len(cells) != first[1]:
            return f"row {row} (counted from 1) has {len(cells)} columns, and row {first[0]} has {first[1]}"
    return "it cannot be read as a table" if first else "it is empty"


def _cells(text: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """Number, counted from 1, and cells of every row that is neither empty nor a comment."""
    for row, line in enumerate(text, 1):
        if line := line.partition("#")[0].strip():
            yield row, [cell.strip() for cell in line.split(",")]


def _is_finite(cell: str) -> bool:
    try:
        return cell.isascii() and "_" not in cell and math.isfinite(float(cell))
    except ValueError:
        return False


def _check_finite(array: np.ndarray, name: str) -> None:
    """Raise ValueError for the first number of an array that is not finite."""
    if not (finite := np.isfinite(array)).all():
        place = np.argwhere(~finite)[0] + 1
        named = dict(zip(("row", "column"), place, strict=False)) if array.ndim <= 2 else {"index": tuple(place)}
        where = ", ".join(f"{axis} {number}" for axis, number in named.items())
        raise ValueError(f"{name} must be finite, got {array[tuple(place - 1)]} at {where} (counted from 1)")


# Names that the array x and the labels have in a .npz file.
_NAMES = {
    "train": {"x": "labels", "x_train": "y_train", "images": "labels"},
    "test": {"x_test": "y_test"},
}
_READERS: dict[str, tuple[str, Callable[[IO[bytes], str], dict[str, Any]]]] = {
    ".npy": ("an array of numbers", _from_npy),
    ".npz": ("an array x of numbers, or one array alone", _from_npz),
    ".csv": ("numbers separated by commas, without a header", _from_csv),
}
SUFFIXES = tuple(_READERS)
