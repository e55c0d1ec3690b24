"""Plots of solutions, branches and frontiers with matplotlib.

Every function draws on the Axes `ax`, or on new Axes if `ax` is None, and returns them. The colours are those of Okabe
and Ito, which colour-blind readers can tell apart. Curves are arrays of points; a row of NaN begins a new piece.

Examples
--------
>>> from constrained_vae import plotting
>>> ax = plotting.distortion(np.array([0.5, 1.0, 2.0]), np.array([0.1, 1.0, 1.0]), critical=[1.0])
>>> ax.get_xscale()
'log'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.markers import CARETDOWN, CARETUPBASE
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from ._utils.arrays import FloatArray
from ._utils.checks import (
    check_array,
    check_count,
    check_data,
    check_instance,
    check_moderate,
    check_sequence,
    check_text,
    check_weights,
    real_array,
    shown,
)
from .data.rows import blocks_of
from .frontier.rate_distortion import RateDistortionCurve
from .phases.branch import Branch
from .phases.lineages import Lineages, lineages
from .phases.transitions import Transition
from .results.fixed_point import FixedPoint

DATA, TRAJECTORY, FIXED_POINT, CURVE, CRITICAL = "#0072B2", "0.55", "#D55E00", "black", "0.7"
COOLING, HEATING, UNSTABLE, PREDICTED = "#0072B2", "#D55E00", "#D55E00", "#F0E442"
BAND, MODELS = "#56B4E9", ("#D55E00", "#009E73", "#CC79A7", "#0072B2", "#E69F00")

_TRIANGLE: dict[str, Any] = {"marker": CARETDOWN, "color": FIXED_POINT, "ms": 6, "ls": "none"}
_NO_CURVE = np.empty((0, 2))
_NAMED_LEAVES = 12  # largest number of leaves of a tree that are labelled with their shares
_BAND_POINTS = 400  # distortions at which a band is drawn, in addition to those that were solved


def flow(points: FloatArray, paths: FloatArray, fixed_points: FloatArray, ax: Axes | None = None) -> Axes:
    """Data in the plane, trajectories of the reconstructions, and the fixed points where these end.

    Parameters
    ----------
    points : (N, 2) array
        Data, drawn in blue.
    paths : (T, K, 2) array
        Iterates of every reconstruction, drawn in grey.
    fixed_points : (k, 2) array
        Fixed points, drawn in red.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Examples
    --------
    >>> points = np.array([[0.0, 0.0], [2.0, 1.0]])
    >>> flow(points, points[None], points.mean(axis=0, keepdims=True)).get_aspect()
    1.0
    """
    points, fixed_points = _points(points, "points"), _points(fixed_points, "fixed_points")
    paths = _finite(paths, "paths", 3)
    if paths.shape[2] != 2:
        raise ValueError(f"paths must have shape (n, K, 2), got shape {paths.shape}")
    ax = _axes(ax)
    ax.plot(paths[:, :, 0], paths[:, :, 1], color=TRAJECTORY, lw=0.5, alpha=0.7, zorder=2)
    ax.scatter(points[:, 0], points[:, 1], s=5, color=DATA, alpha=0.6, linewidths=0, zorder=1, label="data")
    style: dict[str, Any] = {"s": 26, "color": FIXED_POINT, "edgecolors": "white", "linewidths": 0.6}
    ax.scatter(fixed_points[:, 0], fixed_points[:, 1], zorder=3, label="fixed points", **style)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.12 * (high - low).max() or 1.0
    ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), aspect="equal")
    return ax


def reconstructions(solution: FixedPoint, ax: Axes | None = None) -> Axes:
    """Data and reconstructions of a solution, with the trajectories of the iterates if these were recorded.

    Data of more than two dimensions are projected onto their first two principal axes.

    Parameters
    ----------
    solution : FixedPoint
        Solution of `solve`; the trajectories are recorded with `record=True`.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> reconstructions(solve([[0.0, 1.0], [2.0, 0.0]], beta=0.5, n_tiles=2)).get_xlabel()
    'coordinate 1  (units of $x$)'
    """
    check_instance(solution, "solution", FixedPoint, "solve(x)")
    x = np.concatenate([np.asarray(block, dtype=np.float64) for _, block in blocks_of(solution.x)])
    dim, name = x.shape[1], "coordinate"
    mean: FloatArray = np.zeros(dim)
    axes: FloatArray = np.eye(2, dim)
    if dim > 2:
        name, (mean, axes) = "principal component", principal_axes(x, solution.weights)
        axes = np.concatenate([axes, np.zeros((2 - len(axes), dim))])  # a single point has one axis
    iterates = np.empty((0, 1, dim)) if solution.trajectory is None else solution.trajectory
    points, paths, ends = ((part - mean) @ axes.T for part in (x, iterates, solution.distinct.decoder))
    ax = flow(points, paths, ends, ax)
    ax.set(**{f"{axis}label": f"{name} {n}  (units of $x$)" for n, axis in enumerate("xy"[: min(dim, 2)], start=1)})
    return ax


def principal_axes(x: FloatArray, weights: FloatArray | None = None, count: int = 2) -> tuple[FloatArray, FloatArray]:
    """Mean (D,) and first principal axes (count, D) of the data, with positive largest components.

    There are fewer than `count` axes if the data have fewer points or dimensions.

    Examples
    --------
    >>> mean, axes = principal_axes(np.array([[0.0, 1.0], [4.0, 1.0]]), count=1)
    >>> mean.tolist(), axes.tolist()
    ([2.0, 1.0], [[1.0, 0.0]])
    """
    x = check_data(x)
    rho = check_weights(weights, len(x))
    count = check_count(count, "count")
    mean, root = rho @ x, np.sqrt(rho)
    axes = np.linalg.svd(root[:, None] * (x - mean), full_matrices=False)[2][:count]
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    return mean, axes * np.where(largest < 0, -1.0, 1.0)[:, None]


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
    ax = _critical_lines([t.beta for t in found], ax)
    shaded = [t for t in found if t.kind == "first-order" and np.isfinite(t.heating_end)]
    hottest = 1.25 * max([found[0].beta, *(t.heating_end for t in shaded)])
    betas = [hottest, *(t.beta for t in found), 0.8 * found[-1].beta]
    ax.step(betas, [found[0].n_before, found[0].n_before, *(t.n_after for t in found)], color=CURVE, lw=1.2)
    for number, t in enumerate(shaded):
        label = "" if number else "hysteresis"
        ax.axvspan(t.beta, t.heating_end, color=PREDICTED, alpha=0.35, lw=0, zorder=0, label=label)
    ax.set_ylabel("distinct reconstructions")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return _temperature_axis(ax)


def training(history: Any, ax: Axes | None = None) -> Axes:
    """Distortion, KL and multipliers against the steps of training.

    Parameters
    ----------
    history : History
        Attribute `history` of the result of `geco.train`.
    ax : Axes, optional
        Axes to draw on; new Axes by default.
    """
    ax = _axes(ax)
    if not hasattr(history, "multipliers"):
        raise ValueError(f"history must be the history of a run, such as train(x, ...).history, got {shown(history)}")
    curves = {r"distortion (units of $x^2$)": history.distortion, "KL (nats)": history.kl}
    curves |= {rf"$\lambda$ of {_literal(name)}": values for name, values in history.multipliers.items()}
    for color, (label, values) in zip(cycle([CURVE, *MODELS]), curves.items()):
        ax.plot(np.arange(len(history)), values, color=color, lw=0.8, label=label)
    ax.set(yscale="log", xlabel="step")
    return ax


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
    betas, values = _pairs(betas, values)
    detected = _temperatures(detected, "detected")
    ax = _critical_lines(critical, ax)
    ax.plot(betas, values, color=CURVE, lw=1.2)
    if len(detected):
        ax.plot(detected, np.interp(detected, betas, values), **_TRIANGLE, label=r"detected $\beta_c$")
    ax.set_ylabel(r"$\mathrm{E}\,\|x-\psi\|^2$  (units of $x^2$)")
    return _temperature_axis(ax)


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
    betas, values = _pairs(betas, values)
    numbered = _table(peaks, "peaks", empty=True)
    ax = _critical_lines(critical, ax)
    height = np.abs(values)
    ax.plot(betas, height, color=CURVE, lw=1.0)
    for rank, (beta, peak) in enumerate(numbered, start=1):
        ax.plot(beta, peak, **_TRIANGLE)
        name = rf"$\beta_c^{rank}$"
        ax.annotate(name, (beta, peak), (0, 7), textcoords="offset points", ha="center", fontsize="small")
    ax.set_ylabel(r"$|\mathrm{d}^2 \mathrm{E}\,\|x-\psi\|^2 / \mathrm{d}\beta^2|$  (units of $x^2$)")
    top = np.nanmax(height, initial=0.0)
    if top > 0:  # values below 1e-5 of the highest peak are not shown: most are rounding
        ax.set_yscale("log")
        ax.set_ylim(max(np.nanmin(height), 1e-5 * top), 5 * top)
    return _temperature_axis(ax)


def bifurcation(
    stable: FloatArray, unstable: FloatArray = _NO_CURVE, critical: Iterable[float] = (), ax: Axes | None = None
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
    stable, unstable = _curve(stable, "stable"), _curve(unstable, "unstable")
    ax = _critical_lines(critical, ax)
    ax.plot(*stable.T, color=CURVE, lw=1.2, zorder=3, label="stable")
    ax.plot(*unstable.T, ":", color=UNSTABLE, lw=1.2, zorder=2, label="unstable")
    ax.set_ylabel(r"coordinate of $\psi$  (units of $x$)")
    return _temperature_axis(ax)


def split_condition(
    stable: FloatArray, unstable: FloatArray = _NO_CURVE, critical: Iterable[float] = (), ax: Axes | None = None
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
    stable, unstable = _curve(stable, "stable"), _curve(unstable, "unstable")
    ax = _critical_lines(critical, ax)
    ax.axhline(1.0, color=CRITICAL, lw=0.8, zorder=0)
    ax.plot(*stable.T, color=CURVE, lw=1.2, zorder=3)
    ax.plot(*unstable.T, ":", color=UNSTABLE, lw=1.2, zorder=2)
    below = np.clip(1 - np.min(stable[:, 1], initial=1.0, where=stable[:, 1] > 0), 0.01, 1.0)
    ax.set(ylim=(1 - 1.1 * below, 1 + 0.6 * below), ylabel="split condition")
    return _temperature_axis(ax)


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
        Computed temperature at which the heating branch ends, drawn as a triangle on the axis.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Examples
    --------
    >>> curve = np.array([[2.0, 1.0], [1.0, 0.5]])
    >>> len(hysteresis(curve, curve[::-1], interval=(1.2, 1.6)).lines)  # cooling and heating
    2
    """
    cooling, heating = _curve(cooling, "cooling"), _curve(heating, "heating")
    ax = _axes(ax)
    if interval is not None:
        interval = tuple(check_array(interval, "interval", (2,)).tolist())
        ax.axvspan(*interval, color=PREDICTED, alpha=0.35, lw=0, zorder=0, label="predicted interval")
    ax.plot(*heating.T, color=HEATING, lw=1.4, label="heating")
    ax.plot(*cooling.T, "--", color=COOLING, lw=1.4, label="cooling")
    if heating_end is not None:
        (heating_end,) = _temperatures([heating_end], "heating_end")
        style: dict[str, Any] = {"marker": CARETUPBASE, "ms": 6, "clip_on": False, "ls": "none", "zorder": 4}
        ax.plot(heating_end, 0, color=HEATING, transform=ax.get_xaxis_transform(), label="heating ends", **style)
    ax.set_ylabel(r"$\mathrm{E}\,\|x-\psi\|^2$  (units of $x^2$)")
    return _temperature_axis(ax)


def merging_tree(tree: Branch | Lineages, critical: Iterable[float] = (), ax: Axes | None = None) -> Axes:
    """Dendrogram of a branch: reconstructions at the lowest temperature, and where they merge on heating.

    A merge is drawn in the middle, on the logarithmic scale, of the grid step in which it happens. The width of a line
    grows with the share of the data that the reconstruction holds. Up to twelve leaves are labelled with their shares.

    Parameters
    ----------
    tree : Branch or Lineages
        Branch, or the result of `lineages` for a branch.
    critical : iterable of float
        Exact critical temperatures, drawn as grey lines.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Raises
    ------
    ValueError
        If the branch is empty.

    Examples
    --------
    >>> from constrained_vae import sweep
    >>> ax = merging_tree(sweep([[-3.0], [3.0]], betas=[12.0, 6.0], n_tiles=2))
    >>> [tick.get_text() for tick in ax.get_yticklabels()]  # shares of the data
    ['50%', '50%']
    """
    tree = lineages(tree) if isinstance(tree, Branch) else tree
    check_instance(tree, "tree", Lineages, "sweep(x)")
    ax = _critical_lines(critical, ax)
    order = [leaf for root in tree.roots for leaf in root]
    # For every group of leaves: beta at which its line begins, height of the line, and share of the data.
    nodes: dict[tuple[int, ...], tuple[float, float, float]]
    nodes = {(leaf,): (float(tree.betas[0]), float(i), float(tree.shares[leaf])) for i, leaf in enumerate(order)}

    def line(group: tuple[int, ...], end: float) -> None:
        begin, height, share = nodes[group]
        ax.plot([begin, end], [height, height], color=CURVE, lw=0.5 + 4 * share, solid_capstyle="butt", zorder=2)

    for merge in tree.merges:
        for part in merge.parts:
            line(part, merge.beta)
        heights = [nodes[part][1] for part in merge.parts]
        ax.plot([merge.beta] * 2, [min(heights), max(heights)], color=CURVE, lw=1.0, zorder=2)
        share = sum(nodes[part][2] for part in merge.parts)
        nodes[merge.leaves] = (merge.beta, (min(heights) + max(heights)) / 2, share)
    for root in tree.roots:
        line(root, float(tree.betas[-1]))
    ax.set(ylim=(-0.6, len(order) - 0.4))
    if len(order) <= _NAMED_LEAVES:
        ax.set_yticks(range(len(order)), [f"{tree.shares[leaf]:.0%}" for leaf in order])
        ax.set_ylabel("reconstructions\n(share of the data)")
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(order)} reconstructions")
    return _temperature_axis(ax)


def rate_distortion(
    curve: RateDistortionCurve,
    models: Mapping[str, FloatArray] | None = None,
    unit: str = "units of $x^2$",
    ax: Axes | None = None,
) -> Axes:
    """Rate-distortion function of a data set between certified bounds, with models of the same data (T22).

    The line is the upper bound, which some code attains. The band extends from the upper to the lower bound; no code is
    below the band. If some of its bounds are not proven, its label says that it is heuristic.

    Parameters
    ----------
    curve : RateDistortionCurve
        Result of `rate_distortion`, in nats.
    models : mapping of str to (n, 2) array, optional
        Names of models, and their points (distortion, rate in nats).
    unit : str
        Unit of the distortion, for the label of the axis; with a Bernoulli decoder it is nats.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> curve = cv.rate_distortion([[-1.0], [1.0]], betas=[0.9, 0.5])
    >>> rate_distortion(curve, {"a model": np.array([0.5, 0.7])}).get_ylabel()
    'rate $R$  (nats)'
    """
    check_instance(curve, "curve", RateDistortionCurve, "rate_distortion(x)")
    check_text(unit, "unit")
    if models is not None and not isinstance(models, Mapping):
        raise ValueError(f"models must be a dict of names and points (distortion, rate), got {shown(models)}")
    ax = _axes(ax)
    solved = curve.distortion[curve.distortion > 0]
    D = np.union1d(np.geomspace(solved.min(), max(solved.max(), curve.ends[0, 0]), _BAND_POINTS), solved)
    above = curve.bound_above(D)
    band = "certified band" if curve.rigorous.all() else "heuristic band"
    ax.fill_between(D, curve.bound_below(D), above, color=BAND, lw=0, zorder=2, label=band)
    ax.plot(D, above, color=CURVE, lw=1.2, zorder=3, label="frontier $R(D)$")
    for number, (name, points) in enumerate((models or {}).items()):
        marker: dict[str, Any] = {"marker": "os^Dv"[number % 5], "color": MODELS[number % len(MODELS)], "ls": "none"}
        points = _table(np.atleast_2d(real_array(points, f"models[{name!r}]", "points")), f"models[{name!r}]")
        ax.plot(*points.T, **marker, ms=3, zorder=4, label=_literal(name))
    ax.set(xscale="log", xlabel=f"distortion $D$  ({unit})", ylabel="rate $R$  (nats)")
    return ax


def _temperature_axis(ax: Axes) -> Axes:
    ax.set(xscale="log", xlabel=r"temperature $\beta$")
    low, high = ax.dataLim.intervalx
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 5, 7)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    return ax


def _critical_lines(critical: Iterable[float], ax: Axes | None) -> Axes:
    ax = _axes(ax)
    for number, beta in enumerate(_temperatures(critical, "critical")):
        ax.axvline(beta, color=CRITICAL, lw=1.0, zorder=0, label="" if number else r"exact $\beta_c$")
    return ax


# --- arguments --------------------------------------------------------------------------------------------------------


def _axes(ax: Axes | None) -> Axes:
    """The given Axes, or new ones."""
    if ax is None:
        return plt.subplots()[1]
    check_instance(ax, "ax", Axes, "plt.subplots()[1]")
    return ax


def _finite(values: Any, name: str, ndim: int) -> FloatArray:
    """Numbers that Matplotlib can draw: NaN begins a new piece, and the largest has a representable square."""
    array = np.asarray(real_array(values, name, f"an array of {ndim} axes"), dtype=np.float64)
    if array.ndim != ndim:
        raise ValueError(f"{name} must be an array of {ndim} axes, got shape {array.shape}")
    return check_moderate(array, name)


def _table(values: Any, name: str, empty: bool = False) -> FloatArray:
    """Points (n, 2)."""
    if empty and isinstance(values, (list, tuple)) and not len(values):
        return _NO_CURVE
    array = _finite(values, name, 2)
    if array.shape[1] < 2 or not (empty or len(array)):
        raise ValueError(f"{name} must have shape (n, 2), got shape {array.shape}")
    return array


def _points(values: Any, name: str) -> FloatArray:
    """Points (n, 2) or (n, 1) without gaps."""
    return check_moderate(check_array(values, name, (None, None)), name)


def _temperatures(values: Any, name: str) -> FloatArray:
    """Temperatures (n,), which a logarithmic axis can show."""
    listed = isinstance(values, Iterable) and not isinstance(values, (str, bytes, dict, set, np.ndarray))
    array = _finite(list(values) if listed else values, name, 1)
    if (array <= 0).any():
        raise ValueError(f"{name} must be positive temperatures, got {array[array <= 0][0]:g}")
    return array


def _curve(values: Any, name: str) -> FloatArray:
    """Points (n, 2) whose first column are temperatures."""
    array = _table(values, name, empty=True)
    _temperatures(array[:, 0], name)
    return array


def _pairs(betas: Any, values: Any) -> tuple[FloatArray, FloatArray]:
    betas, values = _temperatures(betas, "betas"), _finite(values, "values", 1)
    if len(betas) != len(values) or not len(betas):
        raise ValueError(f"values must be one per temperature in betas, got {len(values)} for {len(betas)}")
    return betas, values


def _literal(name: Any) -> str:
    """A name as text for a picture, in which a dollar does not begin a formula."""
    return "".join(letter if letter.isprintable() else " " for letter in str(name)).replace("$", r"\$")
