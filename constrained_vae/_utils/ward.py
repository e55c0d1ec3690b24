"""Ward's hierarchy of points."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import cdist

from . import deadline
from .arrays import FloatArray


def ward_tree(points: FloatArray) -> FloatArray:
    """The linkage matrix (n - 1, 4) of at least two points (n, D), as SciPy's `linkage(points, "ward")` returns it.

    The distances, which take nearly all of the time, are computed row by row; raises `TimeUp` if the deadline passes.
    """
    rows = []
    for i in range(len(points) - 1):
        deadline.check()
        rows.append(cdist(points[i : i + 1], points[i + 1 :])[0])
    return np.asarray(linkage(np.concatenate(rows), "ward"))
