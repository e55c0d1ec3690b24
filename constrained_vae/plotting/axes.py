"""The temperature axis, and lines at critical temperatures."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from .arguments import axes_or_new, temperatures
from .style import (
    CRITICAL,
)


def temperature_axis(ax: Axes) -> Axes:
    """Make the abscissa a logarithmic axis of temperatures, with readable ticks."""
    ax.set(xscale="log", xlabel=r"temperature $\beta$")
    return readable_ticks(ax)


def readable_ticks(ax: Axes) -> Axes:
    """Ticks of a logarithmic abscissa that are short and do not overlap."""
    low, high = ax.dataLim.intervalx
    ax.xaxis.set_major_locator(
        LogLocator(subs=(1,) if high > 1000 * low else (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 5, 7))
    )
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    return ax


def critical_lines(critical: Iterable[float], ax: Axes | None) -> Axes:
    """Grey lines at exact critical temperatures, on the given Axes or on new ones."""
    ax = axes_or_new(ax)
    for number, beta in enumerate(temperatures(critical, "critical")):
        ax.axvline(beta, color=CRITICAL, lw=1.0, zorder=0, label="" if number else r"exact $\beta_c$")
    return ax
