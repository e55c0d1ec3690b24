"""The lower convex hull of points of the plane of distortion and rate: what time-sharing of codes reaches."""

from __future__ import annotations

import numpy as np

from .._utils.arrays import FloatArray


def time_sharing(points: FloatArray, distortion: FloatArray) -> FloatArray:
    """Least rate (...) at distortions (...), in nats, by sharing between codes (n, 2) of distortion and rate.

    It is infinite below the least distortion of a code.
    """
    points = points[np.lexsort(points.T[::-1])]
    hull: list[FloatArray] = []
    for point in points:
        while len(hull) > 1 and _turns_up(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    D, R = np.array(hull).T
    falling = np.concatenate([[True], np.diff(R) < 0])
    return np.interp(distortion, D[falling], R[falling], left=np.inf)


def _turns_up(a: FloatArray, b: FloatArray, c: FloatArray) -> bool:
    """Whether b lies on or above the line from a to c."""
    return bool((b[0] - a[0]) * (c[1] - a[1]) <= (c[0] - a[0]) * (b[1] - a[1]))
