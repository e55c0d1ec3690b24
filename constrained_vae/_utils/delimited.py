"""Tables of text: values separated by commas, semicolons, tabs, bars or spaces, with or without a header.

A file gives the same numbers whatever is installed, since no other reader is asked: the parsers of data frames differ
in which texts count as missing, and some do not round a number to the nearest one.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import warnings
import zlib
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .columns import Table, as_number, column_of, counts_rows, is_missing, unique_names
from .messages import logger

SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_SEPARATORS = ("\t", ";", ",", "|", " ")  # the first that gives all rows of a sample equally many cells
_SAMPLE = 50  # rows from which separator and header are found

Row = tuple[int, list[str]]  # its last line in the file, counted from 1, and its cells


def read_delimited(path: Path) -> Table:
    """The table of a file of text, packed with gzip or not.

    Empty lines, and what follows a # at the beginning of a line or behind a row of numbers, are no part of it. The
    first row is the header if it has no number, or if a text stands above numbers. A first column without a name, as
    data frames are written, is the index. Where semicolons separate, a number may have a decimal comma.

    Raises
    ------
    ValueError
        If there is no table in the file; the message names the row, counted from 1.
    OSError
        If the file cannot be read.
    """
    with _opened(path) as text:
        try:
            return _read(text)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise ValueError("it is no gzip file, or only a part of one") from None


def _opened(path: Path) -> TextIOWrapper:
    # Spreadsheets begin the file with a mark; comments may have any encoding.
    binary: IO[bytes] = gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # type: ignore[assignment]
    return TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _read(text: TextIOWrapper) -> Table:
    if "\0" in text.read(1000):
        raise ValueError("it is no text in UTF-8, but a spreadsheet, an archive or UTF-16: save it as CSV in UTF-8")
    separator = _separator(text)
    sample = list(itertools.islice(_records(text, separator), _SAMPLE))
    if not sample:
        raise ValueError("it is empty")
    comma = separator == ";"
    header = _has_header([[_dotted(cell) if comma else cell for cell in cells] for _, cells in sample])
    line, names = sample[0] if header else (0, None)
    if names is not None and len(sample) == 1:
        raise ValueError(f"it has a header, {', '.join(names)[:80]}, and no rows")
    found = _only_numbers(text, separator, line)
    if found is not None and (names is None or len(names) == found.shape[1]):
        _warn_of_numbers_of_columns(found, names)
        return _named(list(found.T), names, np.arange(line + 1, line + 1 + len(found)))
    records = _records(text, separator)
    if header:
        next(records)
    cells, lines = _equally_long(records, sample[header])
    columns = [_column(column, comma) for column in cells]
    return _named(columns, names, lines)


# --- rows -------------------------------------------------------------------------------------------------------------


def _separator(text: TextIOWrapper) -> str:
    """The first separator that gives all rows of a sample two or more cells, equally many; else the most regular."""
    regular: dict[str, float] = {}
    for separator in _SEPARATORS:
        try:
            counts = [len(cells) for _, cells in itertools.islice(_records(text, separator), _SAMPLE)]
        except ValueError:
            continue
        usual = max(set(counts), key=counts.count, default=0)
        if usual > 1:
            short = counts[0] == usual - 1 > 1  # a header without a name for the index, as R writes it
            regular[separator] = (counts.count(usual) + short) / len(counts)
    return max(regular, key=lambda separator: regular[separator], default=",")


def _records(text: TextIOWrapper, separator: str) -> Iterator[Row]:
    """The rows of the file with their cells, without spaces around these."""
    text.seek(0)
    lines = _Lines(text, separator)
    rows = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for cells in rows:
            yield lines.number, [cell.strip() for cell in cells]
    except csv.Error:
        raise ValueError(
            f"at row {lines.number} (counted from 1) a quote has no end, or more than a separator follows it"
        ) from None


class _Lines:
    """The lines of a file that are neither empty nor comments; `number` is that of the last one, counted from 1."""

    def __init__(self, text: TextIOWrapper, separator: str) -> None:
        self.number = 0
        self._text, self._separator = text, separator
        self._quoted = False  # whether the next line begins inside of a quoted cell

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        for line in self._text:
            self.number += 1
            if not self._quoted:
                line = self._without_comment(line).strip(" \r\n" if self._separator == "\t" else None)
                if not line.strip():
                    continue
                line += "\n"
            self._quoted ^= line.count('"') % 2 == 1
            return line
        raise StopIteration

    def _without_comment(self, line: str) -> str:
        """The line up to a # at its beginning or behind numbers alone; a # in a text belongs to the text."""
        before, sign, _ = line.partition("#")
        cells = before.replace('"', "").split(None if self._separator == " " else self._separator)
        comment = sign and (not before.strip() or all(as_number(cell.strip()) is not None for cell in cells))
        return before if comment else line


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first of some rows is a header.

    It has no number, or in a column a text stands above numbers. Frames without names of columns write 0, 1, 2, ...
    behind an empty cell.
    """
    first, *others = rows
    texts = [bool(cell) and as_number(cell) is None and not is_missing(cell) for cell in first]
    if not first[0] and [*first[1:]] == [str(number) for number in range(len(first) - 1)]:
        return True
    if all(text or not cell for text, cell in zip(texts, first, strict=True)):
        return any(texts)

    def numeric(column: int) -> bool:
        cells = [row[column] for row in others if column < len(row) and not is_missing(row[column])]
        return bool(cells) and all(as_number(cell) is not None for cell in cells)

    return any(text and numeric(column) for column, text in enumerate(texts))


def _equally_long(records: Iterator[Row], first: Row) -> tuple[list[tuple[str, ...]], npt.NDArray[np.intp]]:
    """The cells of every column, and the line of every row; ValueError for a row of another length than the first."""
    lines, rows = [], []
    for line, cells in records:
        if len(cells) != len(first[1]):
            raise ValueError(
                f"row {line} (counted from 1) has {len(cells)} columns, and row {first[0]} has {len(first[1])}"
            )
        lines.append(line)
        rows.append(cells)
    return list(zip(*rows, strict=True)), np.array(lines, dtype=np.intp)


# --- columns ----------------------------------------------------------------------------------------------------------


def _only_numbers(text: TextIOWrapper, separator: str, skipped: int) -> npt.NDArray[np.float64] | None:
    """The rows below some lines as numbers, (N, D), if all are finite; else None."""
    text.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a file without rows
            found = np.loadtxt(
                text, delimiter=None if separator == " " else separator, skiprows=skipped, quotechar='"', ndmin=2
            )
    except (ValueError, IndexError):
        return None
    return found if found.size and np.isfinite(found).all() else None


def _column(cells: Sequence[str], decimal_comma: bool) -> npt.NDArray[Any]:
    found = column_of(None if is_missing(cell) else cell for cell in cells)
    if decimal_comma and found.dtype == object:
        dotted = column_of(cell and _dotted(cell) for cell in found)
        found = dotted if dotted.dtype != object else found
    return found


def _dotted(cell: str) -> str:
    """A number with a decimal comma as one with a point."""
    return cell.replace(",", ".") if cell.count(",") == 1 and "." not in cell else cell


def _named(columns: Sequence[npt.NDArray[Any]], names: Sequence[str] | None, lines: npt.NDArray[np.intp]) -> Table:
    """The table of these columns; columns without a name and without a cell are left out."""
    if names is None:
        return Table(columns, rows=lines)
    if len(names) == len(columns) - 1:
        names = ["", *names]
    if len(names) != len(columns):
        raise ValueError(f"its header has {len(names)} columns, and row {lines[0]} (counted from 1) has {len(columns)}")
    kept = [j for j, (name, column) in enumerate(zip(names, columns, strict=True)) if name or not _is_empty(column)]
    names, columns = [names[j] for j in kept], [columns[j] for j in kept]
    index = 0 if not names[0] and len(names) > 1 else None
    if index is not None:
        logger.info("the first column has no name and is taken as the index of the rows, which is left out")
        if columns[0].dtype.kind == "f" and not counts_rows(columns[0], 1):
            warnings.warn(
                "the first column has no name, so it is left out as an index, but it does not count the rows: give it "
                "a name in the header to use it",
                stacklevel=2,
            )
    return Table(columns, unique_names(name or f"column {j + 1}" for j, name in enumerate(names)), lines, index)


def _warn_of_numbers_of_columns(found: npt.NDArray[np.float64], names: Sequence[str] | None) -> None:
    """Warn if the first row is 0, 1, 2, ..., which may be the header of a frame without names."""
    if names is None and found.shape[1] > 2 and (found[0] == np.arange(found.shape[1])).all():
        if (found[1:] != np.rint(found[1:])).any():
            warnings.warn(
                "the first row is 0, 1, 2, ... and is read as a point: if it is a header, name the columns in it",
                stacklevel=2,
            )


def _is_empty(column: npt.NDArray[Any]) -> bool:
    return column.dtype.kind == "f" and bool(np.isnan(column).all())
