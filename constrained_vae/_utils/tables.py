"""Tables of named columns: as HTML for notebooks, as text for terminals, as data frames."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .interrupts import deferred_interrupts

Columns = Mapping[str, Any]  # arrays or sequences of the same length, by their names

_SHOWN = 12  # rows that are shown; a longer table shows only its first and last rows


def as_html(title: str, columns: Columns, facts: Iterable[tuple[str, str]] = ()) -> str:
    """A title and a compact HTML table; between them a table of facts (name and value) if there are any."""

    def table(rows: Iterable[Iterable[str]], head: Iterable[str] | None = None) -> str:
        lines = ([] if head is None else [_line(head, "th")]) + [_line(row) for row in rows]
        return f"<table>{''.join(lines)}</table>" if lines else ""

    shown = table(_rows(columns), columns) if columns else ""
    return f"<p><b>{html.escape(title)}</b></p>{table(facts)}{shown}"


def _line(cells: Iterable[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def as_text(columns: Columns) -> str:
    """An aligned table of plain text."""
    rows = [list(columns), *_rows(columns)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows)


def as_frame(columns: Columns) -> Any:
    """A pandas data frame; ImportError where pandas is not installed."""
    try:
        with deferred_interrupts():
            import pandas
    except ImportError as error:
        raise ImportError("to_frame() needs the package pandas, which is not installed: pip install pandas") from error
    return pandas.DataFrame(dict(columns))


def _rows(columns: Columns) -> list[list[str]]:
    rows = list(zip(*columns.values(), strict=True))
    half = _SHOWN // 2
    ends = rows if len(rows) <= _SHOWN else [*rows[:half], ("…",) * len(columns), *rows[-half:]]
    return [[_cell(value) for value in row] for row in ends]


def _cell(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:.6g}"
    return str(value)
