"""Axes in, Axes out: the pictures of a branch and of a solution. Nothing else of the package imports matplotlib.

Colours are those of Okabe and Ito, which colour-blind readers tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ._checks import FloatArray

DATA, TRAJECTORY, FIXED_POINT, CURVE, CRITICAL = "#0072B2", "0.55", "#D55E00", "black", "0.7"


def flow(points: FloatArray, paths: FloatArray, fixed_points: FloatArray, ax: Axes | None = None) -> Axes:
    """Data, trajectories of the reconstructions, and the fixed points where they end, in the plane.

    Parameters
    ----------
    points : (N, 2) array
        Data, blue.
    paths : (T, K, 2) array
        Iterates of every reconstruction, grey.
    fixed_points : (k, 2) array
        Red.
    ax : Axes, optional
        New ones by default.
    """
    ax = plt.subplots()[1] if ax is None else ax
    ax.plot(paths[:, :, 0], paths[:, :, 1], color=TRAJECTORY, lw=0.5, alpha=0.7, zorder=2)
    ax.scatter(points[:, 0], points[:, 1], s=5, color=DATA, alpha=0.6, linewidths=0, zorder=1, label="data")
    style: dict[str, Any] = {"s": 26, "color": FIXED_POINT, "edgecolors": "white", "linewidths": 0.6}
    ax.scatter(fixed_points[:, 0], fixed_points[:, 1], zorder=3, label="fixed points", **style)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.12 * (high - low).max() or 1.0
    ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), aspect="equal")
    return ax


def distortion(betas: FloatArray, values: FloatArray, critical: Iterable[float] = (), ax: Axes | None = None) -> Axes:
    """Expected reconstruction error against temperature, with grey lines at critical temperatures.

    Parameters
    ----------
    betas, values : (n,) arrays
        Temperatures, and E||x - psi||^2 in squared units of x.
    critical : iterable of float
        Critical temperatures.
    ax : Axes, optional
        New ones by default.
    """
    ax = _critical_lines(critical, ax)
    ax.plot(betas, values, color=CURVE, lw=1.2)
    ax.set_ylabel(r"$\mathrm{E}\,\|x-\psi\|^2$  (units of $x^2$)")
    return _temperature_axis(ax)


def second_derivative(
    betas: FloatArray, values: FloatArray, peaks: Sequence[tuple[float, float]] = (), ax: Axes | None = None
) -> Axes:
    """Magnitude of the second derivative of the distortion, with its peaks marked.

    Parameters
    ----------
    betas, values : (n,) arrays
        Temperatures, and d^2 D / d beta^2 (NaN at the ends).
    peaks : sequence of (beta, height)
        The detected kinks, highest first.
    ax : Axes, optional
        New ones by default.
    """
    ax = _critical_lines([beta for beta, _ in peaks], ax)
    height = np.abs(values)
    ax.plot(betas, height, color=CURVE, lw=1.0)
    for rank, (beta, peak) in enumerate(peaks, start=1):
        ax.plot(beta, peak, "v", color=FIXED_POINT, ms=5)
        name = rf"$\beta_c^{rank}$"
        ax.annotate(name, (beta, peak), (0, 5), textcoords="offset points", ha="center", fontsize="small")
    ax.set_ylabel(r"$|\mathrm{d}^2 \mathrm{E}\,\|x-\psi\|^2 / \mathrm{d}\beta^2|$  (units of $x^2$)")
    top = np.nanmax(height, initial=0.0)
    if top > 0:  # five decades below the highest peak all is rounding or of no interest
        ax.set_yscale("log")
        ax.set_ylim(max(np.nanmin(height), 1e-5 * top), 5 * top)
    return _temperature_axis(ax)


def _temperature_axis(ax: Axes) -> Axes:
    ax.set(xscale="log", xlabel=r"temperature $\beta$")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    return ax


def _critical_lines(critical: Iterable[float], ax: Axes | None) -> Axes:
    ax = plt.subplots()[1] if ax is None else ax
    for beta in critical:
        ax.axvline(beta, color=CRITICAL, lw=1.0, zorder=0)
    return ax
