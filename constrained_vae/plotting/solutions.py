"""Pictures of data and reconstructions."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .._utils.arrays import FloatArray
from .._utils.checks import (
    check_count,
    check_data,
    check_instance,
    check_weights,
)
from .._utils.frames import own_weights
from ..data.partitions import taken
from ..data.rows import blocks_of
from ..results.fixed_point import FixedPoint
from .arguments import (
    all_points,
    axes_or_new,
    drawable,
    literal,
)
from .style import (
    DATA,
    FIXED_POINT,
    TRAJECTORY,
)


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

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If the points or the paths do not have these shapes.

    Examples
    --------
    >>> points = np.array([[0.0, 0.0], [2.0, 1.0]])
    >>> flow(points, points[None], points.mean(axis=0, keepdims=True)).get_aspect()
    1.0
    """
    points, fixed_points = all_points(points, "points"), all_points(fixed_points, "fixed_points")
    paths = drawable(paths, "paths", 3)
    if paths.shape[2] != 2:
        raise ValueError(f"paths must have shape (n, K, 2), got shape {paths.shape}")
    ax = axes_or_new(ax)
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

    Data of more than two dimensions are projected onto their first two principal axes. Columns that have names give
    them to the axes.

    Parameters
    ----------
    solution : FixedPoint
        Solution of `solve`; the trajectories are recorded with `record=True`.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> reconstructions(solve([[0.0, 1.0], [2.0, 0.0]], beta=0.5, n_tiles=2)).get_xlabel()
    'coordinate 1  (units of $x$)'
    """
    check_instance(solution, "solution", FixedPoint, "solve(x)")
    x = all_rows(solution)
    dim, name = x.shape[1], "coordinate"
    mean: FloatArray = np.zeros(dim)
    axes: FloatArray = np.eye(2, dim)
    if dim > 2:
        name, (mean, axes) = "principal component", principal_axes(x, solution.weights)
        axes = np.concatenate([axes, np.zeros((2 - len(axes), dim))])  # a single point has one axis
    iterates = np.empty((0, 1, dim)) if solution.trajectory is None else solution.trajectory
    points, paths, ends = ((part - mean) @ axes.T for part in (x, iterates, solution.distinct.decoder))
    ax = flow(points, paths, ends, ax)
    labels = [f"{name} {n}  (units of $x$)" for n in (1, 2)]
    if solution.names is not None and dim <= 2:
        labels = [*map(literal, solution.names)]
    ax.set(**{f"{axis}label": label for axis, label in zip("xy"[: min(dim, 2)], labels, strict=False)})
    return ax


def all_rows(solution: FixedPoint) -> FloatArray:
    """The data of a solution (N, D), in float64."""
    return np.concatenate([np.asarray(block, dtype=np.float64) for _, block in blocks_of(taken(solution.x))])


def principal_axes(x: FloatArray, weights: FloatArray | None = None, count: int = 2) -> tuple[FloatArray, FloatArray]:
    """Mean (D,) and first principal axes (count, D) of the data, with positive largest components.

    There are fewer than `count` axes if the data have fewer points or dimensions.

    Parameters
    ----------
    x : (N, D) array
        Data.
    weights : (N,) array, optional
        Weights of the data; uniform by default.
    count : int
        Number of axes.

    Returns
    -------
    mean : (D,) array
        Weighted mean.
    axes : (count, D) array
        Orthonormal rows, of the largest variance first.

    Raises
    ------
    ValueError
        If x is no finite (N, D) array, or `count` is no whole number from 1 to D.

    Examples
    --------
    >>> mean, axes = principal_axes(np.array([[0.0, 1.0], [4.0, 1.0]]), count=1)
    >>> mean.tolist(), axes.tolist()
    ([2.0, 1.0], [[1.0, 0.0]])
    """
    weights = own_weights(x, weights)
    x = check_data(x)
    rho = check_weights(weights, len(x))
    count = check_count(count, "count")
    mean, root = rho @ x, np.sqrt(rho)
    axes = np.linalg.svd(root[:, None] * (x - mean), full_matrices=False)[2][:count]
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    return mean, axes * np.where(largest < 0, -1.0, 1.0)[:, None]
