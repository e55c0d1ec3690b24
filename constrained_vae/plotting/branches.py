"""Pictures of branches and transitions: a quantity against temperature."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.markers import CARETUPBASE
from matplotlib.ticker import MaxNLocator

from .._utils.arrays import FloatArray
from .._utils.checks import check_array, check_number, check_sequence
from ..phases.transitions import Transition
from .arguments import (
    NO_CURVE,
    axes_or_new,
    betas_and_values,
    curve_points,
    table,
    temperatures,
)
from .axes import critical_lines, temperature_axis
from .style import (
    COOLING,
    CRITICAL,
    CURVE,
    HEATING,
    PREDICTED,
    TRIANGLE,
    UNSTABLE,
)


def staircase(found: Sequence[Transition], ax: Axes | None = None) -> Axes:
    """Number of distinct reconstructions on the cooling branch against temperature.

    Parameters
    ----------
    found : sequence of Transition
        Result of `transitions`. Grey lines mark the temperatures; the hysteresis of first-order transitions is shaded.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Raises
    ------
    ValueError
        If there is no transition.

    Examples
    --------
    >>> from constrained_vae import transitions
    >>> found = transitions([[-3.0], [3.0]], beta_range=(1, 20), n_tiles=2)
    >>> staircase(found).get_ylabel()
    'distinct reconstructions'
    """
    found = check_sequence(found, "found", Transition)
    if not found:
        raise ValueError("found has no transition to draw: look for transitions in a wider range of temperatures")
    ax = critical_lines([t.beta for t in found], ax)
    shaded = [t for t in found if t.kind == "first-order" and np.isfinite(t.heating_end)]
    hottest = 1.25 * max([found[0].beta, *(t.heating_end for t in shaded)])
    betas = [hottest, *(t.beta for t in found), 0.8 * found[-1].beta]
    ax.step(betas, [found[0].n_before, found[0].n_before, *(t.n_after for t in found)], color=CURVE, lw=1.2)
    for number, t in enumerate(shaded):
        label = "" if number else "hysteresis"
        ax.axvspan(t.beta, t.heating_end, color=PREDICTED, alpha=0.35, lw=0, zorder=0, label=label)
    ax.set_ylabel("distinct reconstructions")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return temperature_axis(ax)


def distortion(
    betas: FloatArray,
    values: FloatArray,
    critical: Iterable[float] = (),
    detected: Sequence[float] | FloatArray = (),
    ax: Axes | None = None,
) -> Axes:
    """Expected reconstruction error against temperature, with the critical temperatures.

    Parameters
    ----------
    betas, values : (n,) arrays
        Ascending temperatures, and E||x - psi||^2 in squared units of x.
    critical : iterable of float
        Exact critical temperatures, drawn as grey lines.
    detected : sequence of float
        Detected critical temperatures, drawn as triangles on the curve.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Examples
    --------
    >>> distortion(np.array([0.5, 1.0, 2.0]), np.array([0.1, 1.0, 1.0]), critical=[1.0]).get_xscale()
    'log'
    """
    betas, values = betas_and_values(betas, values)
    detected = temperatures(detected, "detected")
    ax = critical_lines(critical, ax)
    ax.plot(betas, values, color=CURVE, lw=1.2)
    if len(detected):
        ax.plot(detected, np.interp(detected, betas, values), **TRIANGLE, label=r"detected $\beta_c$")
    ax.set_ylabel(r"$\mathrm{E}\,\|x-\psi\|^2$  (units of $x^2$)")
    return temperature_axis(ax)


def second_derivative(
    betas: FloatArray,
    values: FloatArray,
    peaks: Sequence[tuple[float, float]] = (),
    critical: Iterable[float] = (),
    ax: Axes | None = None,
) -> Axes:
    """Magnitude of the second derivative of the distortion against temperature, with its peaks.

    Parameters
    ----------
    betas, values : (n,) arrays
        Temperatures, and d^2 D / d beta^2 (NaN at the ends) in squared units of x.
    peaks : sequence of (beta, height)
        Detected peaks, highest first, drawn as numbered triangles.
    critical : iterable of float
        Exact critical temperatures, drawn as grey lines.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Examples
    --------
    >>> second_derivative(np.array([0.5, 1.0, 2.0]), np.array([np.nan, -2.0, np.nan]), [(1.0, 2.0)]).get_yscale()
    'log'
    """
    betas, values = betas_and_values(betas, values)
    numbered = table(peaks, "peaks", empty=True)
    ax = critical_lines(critical, ax)
    height = np.abs(values)
    ax.plot(betas, height, color=CURVE, lw=1.0)
    for rank, (beta, peak) in enumerate(numbered, start=1):
        ax.plot(beta, peak, **TRIANGLE)
        name = rf"$\beta_c^{rank}$"
        ax.annotate(name, (beta, peak), (0, 7), textcoords="offset points", ha="center", fontsize="small")
    ax.set_ylabel(r"$|\mathrm{d}^2 \mathrm{E}\,\|x-\psi\|^2 / \mathrm{d}\beta^2|$  (units of $x^2$)")
    top = np.nanmax(height, initial=0.0)
    if top > 0:  # values below 1e-5 of the highest peak are not shown: most are rounding
        ax.set_yscale("log")
        ax.set_ylim(max(np.nanmin(height), 1e-5 * top), 5 * top)
    return temperature_axis(ax)


def bifurcation(
    stable: FloatArray, unstable: FloatArray = NO_CURVE, critical: Iterable[float] = (), ax: Axes | None = None
) -> Axes:
    """A coordinate of the reconstructions against temperature; stable branches are solid, unstable branches dotted.

    Parameters
    ----------
    stable, unstable : (n, 2) arrays
        Points (beta, coordinate in units of x) of the curves.
    critical : iterable of float
        Critical temperatures, drawn as grey lines.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Examples
    --------
    >>> bifurcation(np.array([[0.5, -0.96], [1.0, 0.0]]), np.array([[0.5, 0.0], [1.0, 0.0]])).get_xscale()
    'log'
    """
    ax, _ = _solid_and_dotted(stable, unstable, critical, ax, ("stable", "unstable"))
    ax.set_ylabel(r"coordinate of $\psi$  (units of $x$)")
    return temperature_axis(ax)


def split_condition(
    stable: FloatArray, unstable: FloatArray = NO_CURVE, critical: Iterable[float] = (), ax: Axes | None = None
) -> Axes:
    """Largest eigenvalue of the split condition (T9) against temperature, with a line at 1, where branches split.

    Parameters
    ----------
    stable, unstable : (n, 2) arrays
        Points (beta, eigenvalue) of the curves, drawn as in `bifurcation`. The stable curves set the range of the axis.
    critical : iterable of float
        Critical temperatures, drawn as grey lines.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Examples
    --------
    >>> split_condition(np.array([[1.0, 1.0], [2.0, 0.5]])).get_ylabel()
    'split condition'
    """
    ax, stable = _solid_and_dotted(stable, unstable, critical, ax)
    ax.axhline(1.0, color=CRITICAL, lw=0.8, zorder=0)
    below = np.clip(1 - np.min(stable[:, 1], initial=1.0, where=stable[:, 1] > 0), 0.01, 1.0)
    ax.set(ylim=(1 - 1.1 * below, 1 + 0.6 * below), ylabel="split condition")
    return temperature_axis(ax)


def _solid_and_dotted(
    stable: FloatArray,
    unstable: FloatArray,
    critical: Iterable[float],
    ax: Axes | None,
    labels: tuple[str, str] = ("", ""),
) -> tuple[Axes, FloatArray]:
    """Draw stable curves solid and unstable ones dotted, over critical temperatures; the Axes and the stable points."""
    stable, unstable = curve_points(stable, "stable"), curve_points(unstable, "unstable")
    ax = critical_lines(critical, ax)
    ax.plot(*stable.T, color=CURVE, lw=1.2, zorder=3, label=labels[0])
    ax.plot(*unstable.T, ":", color=UNSTABLE, lw=1.2, zorder=2, label=labels[1])
    return ax, stable


def hysteresis(
    cooling: FloatArray,
    heating: FloatArray,
    interval: tuple[float, float] | None = None,
    heating_end: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Distortion on cooling and on heating against temperature; the two curves differ in the interval of hysteresis.

    Parameters
    ----------
    cooling, heating : (n, 2) arrays
        Points (beta, E||x - psi||^2 in squared units of x), in the order in which they were solved.
    interval : (float, float), optional
        Predicted ends of the hysteresis (T13); the interval is shaded.
    heating_end : float, optional
        Computed temperature at which the heating branch ends, drawn as a triangle on the axis unless it is infinite.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Examples
    --------
    >>> curve = np.array([[2.0, 1.0], [1.0, 0.5]])
    >>> len(hysteresis(curve, curve[::-1], interval=(1.2, 1.6)).lines)  # cooling and heating
    2
    """
    cooling, heating = curve_points(cooling, "cooling"), curve_points(heating, "heating")
    ax = axes_or_new(ax)
    if interval is not None:
        interval = tuple(check_array(interval, "interval", (2,)).tolist())
        ax.axvspan(*interval, color=PREDICTED, alpha=0.35, lw=0, zorder=0, label="predicted interval")
    ax.plot(*heating.T, color=HEATING, lw=1.4, label="heating")
    ax.plot(*cooling.T, "--", color=COOLING, lw=1.4, label="cooling")
    if (
        heating_end is not None
        and check_number(heating_end, "heating_end", "a temperature", lambda b: not b <= 0) < np.inf
    ):
        (heating_end,) = temperatures([heating_end], "heating_end")
        style: dict[str, Any] = {"marker": CARETUPBASE, "ms": 6, "clip_on": False, "ls": "none", "zorder": 4}
        ax.plot(heating_end, 0, color=HEATING, transform=ax.get_xaxis_transform(), label="heating ends", **style)
    ax.set_ylabel(r"$\mathrm{E}\,\|x-\psi\|^2$  (units of $x^2$)")
    return temperature_axis(ax)
