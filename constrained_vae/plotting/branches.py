"""Pictures of branches and transitions: a quantity against temperature."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.markers import CARETUPBASE
from matplotlib.ticker import MaxNLocator

from .._utils.arrays import FloatArray
from .._utils.checks import check_array, check_instance, check_number, check_sequence
from ..phases.branch import Branch
from ..phases.criticality import critical_beta
from ..phases.peaks import second_derivative as differences
from ..phases.suggest import Suggestions
from ..phases.transition_list import Transition
from .arguments import (
    NO_CURVE,
    along,
    axes_or_new,
    betas_and_values,
    curve_points,
    literal,
    table,
    temperatures,
)
from .axes import critical_lines, temperature_axis
from .solutions import all_rows, principal_axes
from .style import (
    BAND,
    BAND_TEXT,
    COOLING,
    CRITICAL,
    CURVE,
    FIXED_POINT,
    HEATING,
    PREDICTED,
    TRIANGLE,
    UNSTABLE,
)


def phases(branch: Branch, critical: Any = None, ax: Axes | None = None) -> Axes:
    """Distortion of a branch, and at the right its second derivative in log beta, with critical temperatures.

    Parameters
    ----------
    branch : Branch
        Result of `sweep`.
    critical : (n,) array_like, optional
        Critical temperatures, drawn as grey lines; by default the first one, which is exact (T9).
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If `branch` is not a Branch or is empty, or a temperature is not positive.

    Examples
    --------
    >>> from constrained_vae import sweep
    >>> phases(sweep([[-3.0], [3.0]], betas=[12.0, 10.0, 8.0, 6.0, 4.0], n_tiles=2)).get_xscale()
    'log'
    """
    check_instance(branch, "branch", Branch, "sweep(x)")
    points = along(branch, "distortion")
    if critical is None:
        first = critical_beta(branch[0].problem)
        critical = [first] if points[0, 0] <= first <= points[-1, 0] else []
    ax = axes_or_new(ax)
    if len(points) >= 3:
        right = ax.twinx()
        height = np.abs(differences(np.log(points[:, 0]), points[:, 1]))
        right.fill_between(points[:, 0], height, color=BAND, alpha=0.6, lw=0)
        right.set_ylabel(r"$|\mathrm{d}^2 D / \mathrm{d}(\log\beta)^2|$  (units of $x^2$)", color=BAND_TEXT)
        right.set_ylim(bottom=0)
        ax.set_zorder(right.get_zorder() + 1)
        ax.patch.set_visible(False)
    ax = distortion(branch, critical=critical, ax=ax)
    if len(list(critical)):
        ax.legend(frameon=False, fontsize="small")
    return ax


def staircase(found: Sequence[Transition], ax: Axes | None = None) -> Axes:
    """Number of distinct reconstructions on the cooling branch against temperature.

    Parameters
    ----------
    found : sequence of Transition
        Result of `transitions`. Grey lines mark the temperatures; the hysteresis of first-order transitions is shaded.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

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
    branch: Branch | FloatArray,
    values: FloatArray | None = None,
    critical: Iterable[float] = (),
    detected: Sequence[float] | FloatArray = (),
    ax: Axes | None = None,
) -> Axes:
    """Expected reconstruction error against temperature, with the critical temperatures.

    Parameters
    ----------
    branch : Branch or (n,) array
        Result of `sweep`, or ascending temperatures.
    values : (n,) array, optional
        E||x - psi||^2 at these temperatures, in squared units of x.
    critical : iterable of float
        Exact critical temperatures, drawn as grey lines.
    detected : sequence of float
        Detected critical temperatures, drawn as triangles on the curve.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If there is not one value per temperature, or a temperature is not positive.

    Examples
    --------
    >>> distortion(np.array([0.5, 1.0, 2.0]), np.array([0.1, 1.0, 1.0]), critical=[1.0]).get_xscale()
    'log'
    """
    if isinstance(branch, Branch):
        branch, values = along(branch, "distortion").T
    betas, values = betas_and_values(branch, values)
    detected = temperatures(detected, "detected")
    ax = critical_lines(critical, ax)
    ax.plot(betas, values, color=CURVE, lw=1.2)
    if len(detected):
        ax.plot(detected, np.interp(detected, betas, values), **TRIANGLE, label=r"detected $\beta_c$")
    ax.set_ylabel(r"$\mathrm{E}\,\|x-\psi\|^2$  (units of $x^2$)")
    return temperature_axis(ax)


def suggestions(found: Suggestions, ax: Axes | None = None) -> Axes:
    """Distortion against temperature, with the plateaus that stand out shaded and labelled.

    Parameters
    ----------
    found : Suggestions
        Result of `suggest`. A dot marks the suggested temperature of every plateau.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If `found` does not come from `suggest`.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> ax = suggestions(cv.suggest(cv.datasets.four_clusters(80).x))
    >>> [text.get_text() for text in ax.texts]  # numbers of reconstructions, widest plateau first
    ['4', '2', '3']
    """
    check_instance(found, "found", Suggestions, "suggest(x)")
    ax = distortion(found.branch, critical=[found.first_critical_beta], ax=ax)
    for number, plateau in enumerate(found.plateaus):
        label = "" if number else "plateaus that stand out"
        ax.axvspan(plateau.low, plateau.high, color=PREDICTED, alpha=0.35, lw=0, zorder=0, label=label)
        ax.plot(plateau.beta, plateau.distortion, "o", color=FIXED_POINT, ms=5, zorder=4)
        place = ax.get_xaxis_transform()
        middle = float(np.sqrt(plateau.low * plateau.high))
        ax.text(middle, 0.97, str(plateau.n_reconstructions), transform=place, ha="center", va="top")
    ax.set_yscale("log")
    return ax


def second_derivative(
    branch: Branch | FloatArray,
    values: FloatArray | None = None,
    peaks: Sequence[tuple[float, float]] | None = None,
    critical: Iterable[float] = (),
    ax: Axes | None = None,
) -> Axes:
    """Magnitude of the second derivative of the distortion against temperature, with its peaks.

    Parameters
    ----------
    branch : Branch or (n,) array
        Result of `sweep`, whose derivative is taken by differences on its grid (T12), or temperatures.
    values : (n,) array, optional
        d^2 D / d beta^2 at these temperatures (NaN at the ends), in squared units of x.
    peaks : sequence of (beta, height), optional
        Detected peaks, highest first, drawn as numbered triangles; by default those of a branch, `Branch.peaks`.
    critical : iterable of float
        Exact critical temperatures, drawn as grey lines.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If there is not one value per temperature, or a temperature is not positive.

    Examples
    --------
    >>> second_derivative(np.array([0.5, 1.0, 2.0]), np.array([np.nan, -2.0, np.nan]), [(1.0, 2.0)]).get_yscale()
    'log'
    """
    if isinstance(branch, Branch):
        found = branch.peaks() if peaks is None and len(branch) >= 5 else []
        peaks = [(peak.beta, peak.height) for peak in found] if peaks is None else peaks
        known, distortions = along(branch, "distortion").T
        branch, values = known, np.full(len(known), np.nan)
        values = differences(known, distortions) if len(known) >= 3 else values
    betas, values = betas_and_values(branch, values)
    numbered = table(() if peaks is None else peaks, "peaks", empty=True)
    ax = critical_lines(critical, ax)
    height = np.abs(values)
    ax.plot(betas, height, color=CURVE, lw=1.0)
    for rank, (beta, peak) in enumerate(numbered, start=1):
        ax.plot(beta, peak, **TRIANGLE)
        name = rf"$\beta_c^{rank}$"
        ax.annotate(name, (beta, peak), (0, 7), textcoords="offset points", ha="center", fontsize="small")
    ax.set_ylabel(r"$|\mathrm{d}^2 \mathrm{E}\,\|x-\psi\|^2 / \mathrm{d}\beta^2|$  (units of $x^2$)")
    top = np.nanmax(height, initial=0.0)
    height = height[np.isfinite(height)]
    if top > 0:  # values below 1e-5 of the highest peak are not shown: most are rounding
        ax.set_yscale("log")
        ax.set_ylim(max(height.min(), 1e-5 * top), 5 * top)
    return temperature_axis(ax)


def bifurcation(
    stable: Branch | FloatArray, unstable: FloatArray = NO_CURVE, critical: Iterable[float] = (), ax: Axes | None = None
) -> Axes:
    """A coordinate of the reconstructions against temperature; stable branches are solid, unstable branches dotted.

    Parameters
    ----------
    stable : Branch or (n, 2) array
        Result of `sweep`, of whose distinct reconstructions the coordinate along the first principal axis of the data
        is drawn, less that of the mean if the data have several dimensions; or points (beta, coordinate in units of x).
    unstable : (n, 2) array
        Points of unstable branches.
    critical : iterable of float
        Critical temperatures, drawn as grey lines.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If the points do not have shape (n, 2), or a temperature is not positive.

    Examples
    --------
    >>> bifurcation(np.array([[0.5, -0.96], [1.0, 0.0]]), np.array([[0.5, 0.0], [1.0, 0.0]])).get_xscale()
    'log'
    """
    name = r"coordinate of $\psi$"
    if isinstance(stable, Branch):
        if np.shape(stable[0].x)[1] > 1:
            name = r"principal component 1 of $\psi$"
        elif (own := stable[0].names) is not None:
            name = rf"{literal(own[0])}, of $\psi$"
        points = _coordinates(stable)
        ax = critical_lines(critical, axes_or_new(ax))
        ax.plot(*points.T, ".", color=CURVE, ms=2, label="stable")
        stable = NO_CURVE
    ax, _ = _solid_and_dotted(stable, unstable, critical, ax, ("stable", "unstable"))
    ax.set_ylabel(rf"{name}  (units of $x$)")
    return temperature_axis(ax)


def split_condition(
    stable: Branch | FloatArray, unstable: FloatArray = NO_CURVE, critical: Iterable[float] = (), ax: Axes | None = None
) -> Axes:
    """Largest eigenvalue of the split condition (T9) against temperature, with a line at 1, where branches split.

    Parameters
    ----------
    stable : Branch or (n, 2) array
        Result of `sweep`, or points (beta, eigenvalue) of the curves, which set the range of the axis.
    unstable : (n, 2) array
        Points of unstable branches, drawn dotted.
    critical : iterable of float
        Critical temperatures, drawn as grey lines.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If the points do not have shape (n, 2), or the branch is empty.

    Examples
    --------
    >>> split_condition(np.array([[1.0, 1.0], [2.0, 0.5]])).get_ylabel()
    'split condition'
    """
    if isinstance(stable, Branch):
        stable = along(stable, "split_condition")
    ax, stable = _solid_and_dotted(stable, unstable, critical, ax)
    ax.axhline(1.0, color=CRITICAL, lw=0.8, zorder=0)
    below = np.clip(1 - np.min(stable[:, 1], initial=1.0, where=stable[:, 1] > 0), 0.01, 1.0)
    ax.set(ylim=(1 - 1.1 * below, 1 + 0.6 * below), ylabel="split condition")
    return temperature_axis(ax)


def _coordinates(branch: Branch) -> FloatArray:
    """Points (beta, coordinate of a distinct reconstruction along the first principal axis), of all solutions."""
    if not len(branch):
        return NO_CURVE
    x = all_rows(branch[0])
    mean, axis = principal_axes(x, branch[0].weights, 1)
    mean, axis = (np.zeros(1), np.ones((1, 1))) if x.shape[1] == 1 else (mean, axis)
    projected = [(s.distinct.decoder - mean) @ axis[0] for s in branch]
    return np.column_stack([np.repeat(branch.betas, list(map(len, projected))), np.concatenate(projected)])


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
    cooling: Branch | FloatArray,
    heating: Branch | FloatArray,
    interval: tuple[float, float] | None = None,
    heating_end: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Distortion on cooling and on heating against temperature; the two curves differ in the interval of hysteresis.

    Parameters
    ----------
    cooling, heating : Branch or (n, 2) array
        The two results of ``sweep(x, direction="both")``, or points (beta, E||x - psi||^2 in squared units of x).
    interval : (float, float), optional
        Predicted ends of the hysteresis (T13); the interval is shaded.
    heating_end : float, optional
        Computed temperature at which the heating branch ends, drawn as a triangle on the axis unless it is infinite.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If the points do not have shape (n, 2), or a temperature is not positive.

    Examples
    --------
    >>> curve = np.array([[2.0, 1.0], [1.0, 0.5]])
    >>> len(hysteresis(curve, curve[::-1], interval=(1.2, 1.6)).lines)  # cooling and heating
    2
    """
    cooling, heating = (along(b, "distortion") if isinstance(b, Branch) else b for b in (cooling, heating))
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
