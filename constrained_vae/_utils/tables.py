"""Columns of numbers side by side: for a notebook, for a terminal, as a data frame."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

Columns = Mapping[str, Any]  # arrays or sequences of one length, by their names

_SHOWN = 12  # rows; of a longer table the first and the last


def as_html(title: str, columns: Columns) -> str:
    """A compact HTML table under a title."""

    def line(cells: list[str], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(map(line, _rows(columns)))
    return f"<p><b>{html.escape(title)}</b></p><table>{line(list(columns), 'th')}{body}</table>"


def as_text(columns: Columns) -> str:
    """An aligned table of plain text."""
    rows = [list(columns), *_rows(columns)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows)


def as_frame(columns: Columns) -> Any:
    """A pandas data frame; ImportError where pandas is not installed."""
    try:
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
