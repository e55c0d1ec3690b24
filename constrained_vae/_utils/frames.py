"""Tables from data frames of pandas, polars and other libraries, and from files that pandas reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .checks import shown
from .columns import Table, column_of, unique_names
from .files import parsing
from .interrupts import deferred_interrupts

_READERS = {  # the functions of pandas, and the package that each of them needs
    ".parquet": ("read_parquet", "pyarrow"),
    ".xlsx": ("read_excel", "openpyxl"),
    ".xls": ("read_excel", "xlrd"),
    ".ods": ("read_excel", "odfpy"),
}
_OTHERS = (".xls", ".ods")  # whose package is not in the extra `tables`
SUFFIXES = tuple(_READERS)


def read_frame(path: Path) -> Table:
    """The table of a file that pandas reads; of a spreadsheet the first sheet, whose first row is the header.

    Raises
    ------
    ImportError
        If pandas, or what it needs for this kind of file, is not installed.
    ValueError
        If the file is damaged or empty.
    """
    reader, package = _READERS[path.suffix]
    with open(path, "rb") as file:
        try:
            with deferred_interrupts():
                import pandas
            frame = _read(getattr(pandas, reader), file, f"it is no {path.suffix} file, or only a part of one")
        except ImportError:
            extra = f"pandas {package}" if path.suffix in _OTHERS else "'constrained-vae[tables]'"
            raise ImportError(f"{path} needs the packages pandas and {package}: pip install {extra}") from None
    table = table_of(frame)
    if path.suffix == ".parquet":
        return table
    unnamed = str(frame.columns[0]).startswith("Unnamed: ") and len(frame.columns) > 1
    return Table(table.columns, table.names, np.arange(2, 2 + len(table)), 0 if unnamed else None)


def _read(read: Any, file: Any, damaged: str) -> Any:
    """What a reader makes of a file; ImportError if it lacks a package, and ValueError if the file is damaged."""
    missing = False
    with parsing(damaged):
        try:
            frame = read(file)
        except ImportError:
            missing = True
    if missing:
        raise ImportError
    return frame


def is_frame(value: Any) -> bool:
    """Whether a value is a table with names of its columns: a data frame, a mapping, or an array of records."""
    if isinstance(value, Mapping) or (isinstance(value, np.ndarray) and value.dtype.names):
        return True
    columnar = hasattr(value, "iloc") or hasattr(value, "get_columns") or hasattr(value, "column_names")
    return not isinstance(value, type) and (hasattr(value, "__dataframe__") or (columnar and hasattr(value, "columns")))


def own_weights(x: Any, weights: Any) -> Any:
    """The weights if they are given; else those of a `DataSet`, if it has some."""
    return x.weights if weights is None and is_data_set(x) else weights


def is_data_set(value: Any) -> bool:
    """Whether a value is a `DataSet`, which knows its columns and weights."""
    return all(hasattr(value, name) for name in ("x", "weights", "columns", "image_shape"))


def column_names(value: Any) -> tuple[str, ...] | None:
    """Names of the columns of a `DataSet` or data frame, if all are texts; None for other names and other values."""
    found = getattr(value, "columns", None) if is_data_set(value) or is_frame(value) else None
    found = getattr(value, "column_names", found)  # of PyArrow, whose columns are arrays
    try:
        names = list(found) if found is not None else []
    except TypeError:
        return None
    return unique_names(names) if names and all(isinstance(name, str) for name in names) else None


def table_of(frame: Any) -> Table:
    """The table of a data frame of pandas or polars, a mapping from names to columns, or an array.

    Raises
    ------
    ValueError
        If the value is nothing of this kind, or its columns differ in length.
    """
    if isinstance(frame, Table):
        return frame
    if not is_frame(frame):
        array = np.asarray(frame)
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2 or array.dtype.kind not in "biufO":
            raise ValueError(
                f"frame must be a data frame, a mapping from names to columns, or an (N, D) array, got {shown(frame)}"
            )
        if not array.size:
            raise ValueError(f"frame must have at least one row and one column, got shape {array.shape}")
        return Table([_cells(column) for column in array.T])
    names, columns = zip(*_columns(frame), strict=True) if _count(frame) else ((), ())
    if not columns or not len(columns[0]):
        raise ValueError(f"frame must have at least one row and one column, got {shown(frame)}")
    if len({len(column) for column in columns}) > 1:
        raise ValueError("columns must be equally long, got " + ", ".join(str(len(column)) for column in columns))
    return Table([_cells(column) for column in columns], unique_names(names))


def _count(frame: Any) -> int:
    return len(frame.dtype.names) if isinstance(frame, np.ndarray) else len(list(_columns(frame)))


def _columns(frame: Any) -> Iterator[tuple[Any, Any]]:
    """Names and columns; one-dimensional, of any library."""
    if isinstance(frame, Mapping):
        yield from frame.items()
    elif isinstance(frame, np.ndarray):
        yield from ((name, frame[name]) for name in frame.dtype.names or ())
    elif hasattr(frame, "iloc"):  # of pandas, where two columns may have the same name
        yield from ((name, frame.iloc[:, j]) for j, name in enumerate(frame.columns))
    elif hasattr(frame, "get_columns"):  # of polars
        yield from ((column.name, column) for column in frame.get_columns())
    else:  # of pyarrow and others
        yield from _columns(frame.to_pandas() if hasattr(frame, "to_pandas") else _interchanged(frame))


def _interchanged(frame: Any) -> Any:
    with deferred_interrupts():
        from pandas.api.interchange import from_dataframe
    return from_dataframe(frame)


def _cells(column: Any) -> npt.NDArray[Any]:
    """A column as numbers, with NaN where one is missing, or as objects, with None there."""
    if hasattr(column, "to_numpy"):
        dtype = str(getattr(column, "dtype", ""))
        if dtype.startswith(("datetime", "timedelta", "Datetime", "Duration", "Date")):
            column = [None if value != value or value is None else str(value) for value in column]
        else:
            column = column.to_numpy()
    array = np.asarray(column)
    if array.ndim != 1:
        raise ValueError(f"columns must have one axis, got one of shape {array.shape}")
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    if array.dtype.kind in "mM":
        return column_of(map(str, array))
    return column_of(None if _is_null(value) else value for value in array.tolist())


def _is_null(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN
    except (TypeError, ValueError):  # pandas.NA, which is neither
        return True
