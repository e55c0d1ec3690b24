"""Table: named columns of numbers or texts, in which cells may be missing, from files and data frames."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .checks import shown
from .messages import logger

# Cells of a file that stand for a missing value; those of pandas, and the sign of the UCI repository.
_MISSING = frozenset(["", "#N/A N/A", *"NA N/A n/a #N/A #NA <NA> NaN nan -NaN -nan NULL null None ?".split()])


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length.

    Attributes
    ----------
    columns : sequence of (N,) arrays
        Numbers (float64, NaN where a cell is missing), or objects: texts and other things, None where one is missing.
    names : tuple of str, or None
        Names of the columns, all different; None if the table has no header.
    rows : (N,) int array, or None
        Numbers of the rows in messages: lines of a file, counted from 1. None if rows are counted from 0.
    index : int or None
        The column that names the rows and is no feature.
    """

    columns: Sequence[npt.NDArray[Any]]
    names: tuple[str, ...] | None = None
    rows: npt.NDArray[np.intp] | None = None
    index: int | None = None

    def __len__(self) -> int:
        return len(self.columns[0])

    def find(self, wanted: Any, name: str) -> int:
        """The column of a name, or of a number counted from 1; ValueError names the argument that asks for it."""
        names, count = self.names or (), len(self.columns)
        if isinstance(wanted, (str, int, np.integer)):
            if str(wanted) in names:
                return names.index(str(wanted))
            if str(wanted).isdecimal() and 1 <= int(wanted) <= count:
                return int(wanted) - 1
        known = (
            f"{', '.join(names[:20])}{', ...' if count > 20 else ''}, or" if names else "there is no header, so one of"
        )
        raise ValueError(
            f"{name} must name columns of the table, got {shown(wanted)}: {known} the numbers 1 to {count}"
        )

    def called(self, column: int) -> str:
        """The column in words for a message."""
        return f"column {column + 1}" if self.names is None else f"column {self.names[column]!r}"

    def place(self, row: int, column: int) -> str:
        """A cell in words for a message."""
        if self.rows is None:
            return f"row {row} (counted from 0), {self.called(column)}"
        return f"row {self.rows[row]}, {self.called(column)} (counted from 1, like a spreadsheet)"

    def lacking(self, column: int) -> npt.NDArray[np.bool_]:
        """Where the cells of a column are missing, (N,)."""
        cells = self.columns[column]
        return np.isnan(cells) if cells.dtype.kind == "f" else np.array([cell is None for cell in cells], dtype=bool)

    def numbers(self, column: int) -> npt.NDArray[np.float64]:
        """The numbers of a column, NaN where one is missing; ValueError for a cell that is no finite number."""
        cells = self.columns[column]
        if cells.dtype.kind == "f":
            odd = np.isinf(cells)
        else:
            odd = np.array([cell is not None and as_number(cell) is None for cell in cells], dtype=bool)
        if not odd.any():
            return np.array([np.nan if cell is None else as_number(cell) for cell in cells], dtype=np.float64)
        row, name = int(odd.argmax()), self.called(column).removeprefix("column ")
        raise ValueError(
            f"features must be finite numbers, got {shown(cells[row])} at {self.place(row, column)}: correct the cell, "
            f"leave the column out with drop=[{name}], or take it as labels={name} (in a shell --drop, --labels)"
        )

    def classes(self, column: int) -> tuple[npt.NDArray[np.int64], tuple[str, ...] | None]:
        """The classes of a column (N,), which must have no missing cell: whole numbers, or numbers of sorted texts."""
        cells = self.columns[column]
        if cells.dtype.kind == "f":
            if not (np.abs(cells) < 2**53).all() or (cells != np.rint(cells)).any():
                row = int((cells != np.rint(cells)).argmax())
                raise ValueError(
                    f"labels must be whole numbers or texts, got {cells[row]} at {self.place(row, column)}"
                )
            return cells.astype(np.int64), None
        texts = np.array([str(cell) for cell in cells])
        known, codes = np.unique(texts, return_inverse=True)
        return codes.astype(np.int64), tuple(map(str, known))

    def left_out(self, rows: npt.NDArray[np.bool_]) -> Table:
        """The table without these rows."""
        kept = ~rows
        numbers = np.arange(len(self)) if self.rows is None else self.rows
        return Table([column[kept] for column in self.columns], self.names, numbers[kept], self.index)


def as_number(cell: Any) -> float | None:
    """A cell as a finite number; None if it is none. Truth values count as 0 and 1."""
    if isinstance(cell, str):
        if not cell.isascii() or "_" in cell:
            return None
    elif type(cell) is np.timedelta64 or not isinstance(cell, (numbers.Real, np.bool_)):
        return None
    try:
        number = float(cell)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def is_missing(text: str) -> bool:
    """Whether a cell of a file, without spaces around it, stands for a missing value."""
    return text in _MISSING


def column_of(cells: Iterable[Any]) -> npt.NDArray[Any]:
    """Cells, None where one is missing, as a column of numbers if all are, else of objects."""
    cells = list(cells)
    found = [math.nan if cell is None else as_number(cell) for cell in cells]
    if None not in found:
        return np.array(found, dtype=np.float64)
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    return column


def unique_names(names: Iterable[Any]) -> tuple[str, ...]:
    """Names of columns as texts; the second "a" becomes "a.1"."""
    found: dict[str, None] = {}
    for given in names:
        name, count = str(given), 0
        while name in found:
            count += 1
            name = f"{given}.{count}"
        found[name] = None
    return tuple(found)


def lacking_rows(table: Table, used: Sequence[int], policy: str) -> npt.NDArray[np.bool_]:
    """The rows in which a used column has no value, (N,), to be left out; ValueError if the policy is "error"."""
    lacking = {column: table.lacking(column) for column in used}
    rows = np.logical_or.reduce(list(lacking.values()))
    if not rows.any():
        return rows
    row = int(rows.argmax())
    column = next(column for column in used if lacking[column][row])
    if policy == "error":
        raise ValueError(
            f"a cell is missing at {table.place(row, column)}, and {rows.sum()} of {len(rows)} rows lack one: fill in "
            "values, or leave such rows out with missing='drop' (in a shell --missing drop)"
        )
    if rows.all():
        empty = [table.called(column) for column in used if lacking[column].all()]
        raise ValueError(
            f"every row lacks a cell{f', and {empty[0]} is empty: leave it out' if empty else ''}, so none is left"
        )
    logger.info("%d of %d rows with missing cells are left out", rows.sum(), len(rows))
    return rows


def counts_rows(column: npt.NDArray[Any], least: int = 5) -> bool:
    """Whether a column is n, n + 1, n + 2, ..., as numbers of rows are; of a few rows one cannot tell."""
    if column.dtype.kind != "f" or len(column) < least:
        return False
    return bool(column[0] == np.rint(column[0]) and (np.diff(column) == 1).all())
