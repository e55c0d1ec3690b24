"""Folders of Parquet or Zarr as data that are read in blocks by Dask, here or by the workers of a cluster.

This module imports nothing heavy, so that `--help` is fast.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MISSING = "a folder of Parquet or Zarr and --scheduler need Dask: pip install 'constrained-vae[dask]'"


@dataclass(frozen=True, eq=False)
class Folder:
    """What commands know of a `DataSet`, for data of a folder."""

    name: str
    x: Any
    columns: tuple[str, ...] | None = None
    labels: Any = None
    weights: None = None
    classes: None = None
    image_shape: None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return int(self.x.shape[0]), int(self.x.shape[1])


def kind_of(path: Path) -> str | None:
    """Whether a path is a folder of "parquet" files, or of a "zarr" array; None if it is neither."""
    if not path.is_dir():
        return None
    if any((path / name).exists() for name in ("zarr.json", ".zarray")):
        return "zarr"
    return "parquet" if next(path.glob("**/*.parquet"), None) is not None else None


def connected(address: str | None, stack: ExitStack) -> None:
    """Have a cluster compute, until the stack ends; ValueError if it does not answer."""
    if address is None:
        return
    try:
        from distributed import Client
    except ImportError:
        raise ImportError(_MISSING) from None
    try:
        stack.enter_context(Client(address, timeout="10s"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--scheduler {address} does not answer: start one with `dask scheduler` ({error})") from None


def read(path: Path, kind: str, choice: Mapping[str, Any]) -> Folder:
    """The data of a folder; the choice is that of `datasets.load`."""
    try:
        import dask.array as da
        import dask.dataframe as dd
    except ImportError:
        raise ImportError(_MISSING) from None
    from ..data.graphs import array_of

    table: Any = dd.read_parquet(str(path)) if kind == "parquet" else None
    array: Any = da.from_zarr(str(path)) if table is None else None
    names = [str(n) for n in range(1, array.shape[-1] + 1)] if table is None else [str(name) for name in table.columns]
    labels = _places([choice["labels"]] if choice["labels"] else [], names)
    left_out = {*_places(choice["drop"], names), *labels}
    features = _places(choice["columns"], names) if choice["columns"] else range(len(names))
    features = [place for place in features if place not in left_out]
    if not features:
        raise ValueError(f"{path} has no columns left of {', '.join(names[:5])}: name some with --columns")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*unknown length", UserWarning)
        if table is not None:
            table = table[[table.columns[place] for place in (*features, *labels)]]
            if choice["missing"] == "drop":
                table = table.dropna()
            classes = table[table.columns[-1]].compute().to_numpy() if labels else None
            array, columns = array_of(table[list(table.columns[: len(features)])], str(path))
        else:
            classes = array[:, labels[0]].compute() if labels else None
            array, columns = array_of(array[:, features] if len(features) < len(names) else array, str(path))
    if choice["standardize"]:
        array = (array - array.mean(axis=0)) / _positive(array.std(axis=0))
    return Folder(path.name, array, columns, classes)


def _positive(scale: Any) -> Any:
    """Standard deviations; 1 for a column that is constant."""
    import dask.array as da

    return da.where(scale > 0, scale, 1.0)


def _places(wanted: Any, names: list[str]) -> list[int]:
    """The places of columns that are named, or numbered from 1."""
    found = []
    for name in wanted:
        if name in names:
            found.append(names.index(name))
        elif name.isdigit() and 1 <= int(name) <= len(names):
            found.append(int(name) - 1)
        else:
            raise ValueError(f"there is no column {name!r}: the columns are {', '.join(names[:20])}")
    return found
