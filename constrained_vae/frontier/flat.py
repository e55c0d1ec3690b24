"""A proof of sup log c beyond the plane: in three dimensions, or where the data lie in a space of at most three (T14).

Maxima of c lie in the convex hull of the data. An orthogonal projection P makes no distance longer, so that
c(y) <= sum_i (rho_i / Z_i) exp(-lambda ||P x_i - P y||^2): the supremum over the projected space is a bound, for any
data and any P. It is tight where the data are near the space, lambda times their squared distance from it being small.
"""

from __future__ import annotations

import numpy as np

from .._utils.arrays import FloatArray
from .cover import cover

_MOST_DIMENSIONS = 3
_PLANE = 1e-10  # nats: lambda times the largest squared distance from the space, above which no proof is tried
_ACCURACY = 1e-6  # least accuracy of the proof, in nats
_PAIRS = 2**27  # pairs of a box and a data point that are looked at, before the proof is given up
_MOST_BOXES = 2**17
_FAR = 50.0  # nats of energy beyond which a point does not matter to c
_LARGEST = 2**24  # entries of the data of which a singular value decomposition is computed
_EPS = float(np.finfo(np.float64).eps)


def bound(x: FloatArray, log_w: FloatArray, lam: float, height: float, accuracy: float) -> float:
    """A bound of log c(y) = log sum_i exp(log_w_i - lam ||x_i - y||^2) near the largest value known, or infinity.

    It is at most `height` plus the accuracy or 1e-6 nats, whichever is larger. It is infinite if the data x (N, D) are
    not within rounding of a space of three dimensions, there are too many boxes, or log c is larger somewhere.
    """
    if x.size > _LARGEST:
        return np.inf
    centred = x - x.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:_MOST_DIMENSIONS] if x.shape[1] > 1 else np.eye(1)
    flat = centred @ axes.T
    apart = np.square(centred - flat @ axes).sum(axis=1).max()
    if lam * apart > _PLANE:
        return np.inf
    # Distances of the projected points are good to some eps of the extent; near points are at most a few nats away.
    size = lam * float(np.square(centred).sum(axis=1).max())
    rounding = 64 * _EPS * (1 + np.sqrt(size * _FAR)) * x.shape[1]
    most = min(_MOST_BOXES, _PAIRS // len(x))
    found = cover(flat, log_w, lam, max(height, 0.0) + max(accuracy, _ACCURACY), most)
    return np.inf if found is None else float(found.bounds.max()) + rounding
