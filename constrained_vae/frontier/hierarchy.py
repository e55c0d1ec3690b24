"""Means of groups of points at all scales: where maxima of the coverage are sought besides at the points themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._utils.arrays import FloatArray
from .._utils.ward import ward_tree

_MAX_LEAVES = 1500  # leaves of a tree, whose cost grows as their square


def group_means(points: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted means (m, D) of the groups in a Ward tree of points (n, D): all pairs that are joined, up to all points.

    Of more than 1500 points every n-th is a leaf of the tree, and represents the points up to the next leaf's.
    """
    leaves = np.unique(np.linspace(0, len(points), _MAX_LEAVES, endpoint=False).astype(np.intp))
    n = len(leaves)
    nodes = np.empty((2 * n - 1, points.shape[1]))
    mass = np.empty(2 * n - 1)
    nodes[:n], mass[:n] = points[leaves], np.maximum(np.add.reduceat(weights, leaves), np.finfo(np.float64).tiny)
    if n > 1:
        for j, (a, b) in enumerate(ward_tree(nodes[:n])[:, :2].astype(np.intp), start=n):
            mass[j] = mass[a] + mass[b]
            nodes[j] = nodes[a] + mass[b] / mass[j] * (nodes[b] - nodes[a])
    return nodes[n:]


def means_of_groups(
    points: FloatArray, weights: FloatArray, group: npt.NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Weighted means (m, D) and weights (m,) of groups of points (n, D), which have the numbers `group` (n,)."""
    total: FloatArray = np.bincount(group, weights).astype(np.float64, copy=False)
    sums = np.stack([np.bincount(group, weights * column) for column in points.T], axis=1)
    return sums / total[:, None], total
