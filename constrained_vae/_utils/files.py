"""Reading of files: archives of named arrays (.npz) with an optional JSON header, and tables of data points."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np


def read_npz(
    path: str | PathLike[str], kind: str, description: str | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a file whose header has this kind.

    Raises
    ------
    ValueError
        If the file holds something else; the message names the description, by default the kind.
    OSError
        If the file cannot be opened.
    """
    header: Any = None
    with open(path, "rb") as stream:
        try:
            with np.load(stream) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(str(arrays.pop("header")))
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
            pass  # not such a file: refused below
    if not isinstance(header, dict) or header.get("kind") != kind:
        raise ValueError(f"{path} does not hold a saved {description or kind}")
    return header, arrays


def read_points(path: Path) -> dict[str, Any]:
    """The points `x` of a .npy, .npz or .csv file, with `weights` and `labels` if a .npz file has them.

    Raises
    ------
    ValueError
        If the file contains anything other than numbers, or has another suffix.
    OSError
        If the file cannot be read.
    """
    if path.suffix not in _READERS:
        raise ValueError(f"{path} must be a .npy, .npz or .csv file")
    wanted, read = _READERS[path.suffix]
    try:
        with open(path, "rb") as file:
            arrays = read(file)
        arrays["x"] = x = np.asarray(arrays["x"])
        if x.dtype.kind not in "biufc":
            raise ValueError(f"it holds {x.dtype}")
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must hold {wanted}: {error}") from None
    return arrays


def _from_npy(file: IO[bytes]) -> dict[str, Any]:
    return {"x": np.lib.format.read_array(file, allow_pickle=False)}


def _from_npz(file: IO[bytes]) -> dict[str, Any]:
    with np.load(file) as arrays:
        if "x" in arrays.files:
            return {name: arrays[name] for name in ("x", "weights", "labels") if name in arrays.files}
        if len(arrays.files) == 1:
            return {"x": arrays[arrays.files[0]]}
        raise ValueError(f"it holds {', '.join(arrays.files) or 'nothing'}")


def _from_csv(file: IO[bytes]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # NumPy's warning about an empty file, which is refused later
        return {"x": np.loadtxt(file, delimiter=",", ndmin=2)}


_READERS: dict[str, tuple[str, Callable[[IO[bytes]], dict[str, Any]]]] = {
    ".npy": ("an array of numbers", _from_npy),
    ".npz": ("an array x of numbers, or one array alone", _from_npz),
    ".csv": ("numbers separated by commas, without a header", _from_csv),
}
