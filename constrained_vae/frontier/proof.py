"""Branch and bound in up to three dimensions: a proven upper bound of log c over all points (T14).

Maxima of c lie in the convex hull of the data. The box of the data is halved along its longest sides, and a part is
finished if its upper bound is below the ceiling, which is `accuracy` above the largest value found. All rounding is on
the safe side: the multiplier is lowered and the shares of the data are raised by more than the rounding of energies and
of Z, so that the function that is bounded is nowhere below c.

The bound of a box with centre y and half-diagonal R comes from an expansion of log c at y. With the mean mu and the
covariance S of the data under their shares u_i at y, its gradient is g = 2 lambda (mu - y) and its Hessian is
(2 lambda)^2 S - 2 lambda. R^3 times a third derivative anywhere in the box is a third cumulant of
X = 2 lambda R e.(x - mu), with a unit vector e, under shares that are proportional to u_i exp(s X_i), |s| <= 1. Their
normalisation is at least 1, by Jensen's inequality. So with the tilted moments M_k = sum_i u_i t_i^k exp(t_i), where
t_i = 2 lambda R ||x_i - mu||,

    |E X| <= M_2,    E|X|^3 <= M_3,    R^3 |third derivative| <= (M_3^(1/3) + M_2)^3.

A box that is too large for this has the sum whose terms have the least distances from the box.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._utils import deadline
from .._utils.arrays import FloatArray
from ..backends import compiled
from ..backends.expansions import Expansions

_MAX_BOXES = 2**22  # number of boxes after which branch and bound gives up
_WORK = 2**27  # boxes times rows between two looks at the deadline
_MAX_HALVINGS = 60  # number of halvings, of all axes together, after which branch and bound gives up
_EPS = float(np.finfo(np.float64).eps)


def supremum(
    points: FloatArray,
    log_shares: FloatArray,
    rounding: FloatArray,
    lam: float,
    height: float,
    where: FloatArray,
    accuracy: float,
) -> tuple[float, FloatArray]:
    """An upper bound of log c, higher by `accuracy` than the largest value found, and the point (D,) of that value.

    Parameters
    ----------
    points : (N, D) array
        The data, in the frame.
    log_shares, rounding : (N,) arrays
        log rho_i - log Z_i, and bounds of their rounding errors.
    lam : float
        The multiplier lambda.
    height, where : float and (D,) array
        The largest value known, and its point.
    accuracy : float
        In nats. The bound is infinite if it would need too many boxes.
    """
    backend = compiled()
    near = getattr(backend, "order", lambda x: None)(points)  # rows beside each other, of which most are left out
    if near is not None:
        points, log_shares, rounding = points[near], log_shares[near], rounding[near]
    raised, lowered = outward(points, log_shares, rounding, lam)
    ceiling = height + accuracy
    low, high = points.min(axis=0), points.max(axis=0)
    span, dim = high - low, points.shape[1]
    margin = 4 * _EPS * np.maximum(np.abs(low), np.abs(high))  # rounding of the centres
    boxes, count = np.zeros((1, dim), dtype=np.int64), 0  # numbers of the boxes of a level along every axis
    halvings = np.zeros(dim, dtype=np.int64)
    while halvings.sum() <= _MAX_HALVINGS:
        count += len(boxes)
        if count > _MAX_BOXES:
            break
        side = span / 2**halvings
        half = side / 2 + margin
        left = []
        size = max(1, _WORK // len(points))
        for i in range(0, len(boxes), size):
            deadline.check()
            part = boxes[i : i + size]
            centres = low + side * (part + 0.5)
            found = backend.expansions(points, raised, lowered, centres, half)
            best = int(found.values.argmax())
            if found.values[best] > height:
                height, where = float(found.values[best]), centres[best]
                ceiling = max(ceiling, height + accuracy)
            left.append(part[~(upper_bounds(found, len(points), lowered, half) <= ceiling)])
        boxes = np.concatenate(left)
        if not len(boxes):
            return ceiling, where
        long = (side > side.max() / 2) | (side.max() == 0)  # so that a box never becomes much longer than wide
        boxes = ((1 + long) * boxes[:, None] + _corners(long)).reshape(-1, dim)
        halvings += long
    return np.inf, where


def outward(points: FloatArray, log_shares: FloatArray, rounding: FloatArray, lam: float) -> tuple[FloatArray, float]:
    """Shares and a multiplier whose log c, as it is computed, is nowhere below the exact one of the data.

    A point x of the frame has an error of 4 eps ||x||, which changes H = lambda d^2 by at most
    8 eps sqrt(lambda) ||x|| sqrt(H) + 16 eps^2 lambda ||x||^2; and 2 sqrt(H) <= 1 + H. The squared distance and the
    difference of share and energy have relative errors of D + 4 roundings.
    """
    reach = np.sqrt(lam) * np.linalg.norm(points, axis=1)
    raised = log_shares + rounding + 4 * _EPS * (reach + 4 * _EPS * reach**2 + np.abs(log_shares) + 1)
    return raised, lam * (1 - _EPS * (points.shape[1] + 8 + 4 * float(reach.max())))


def upper_bounds(found: Expansions, rows: int, lam: float, half: FloatArray) -> FloatArray:
    """Upper bounds (n,) of log c of so many rows in boxes with half sides (D,); infinite or NaN where there is none."""
    stiffness, radius = 2 * lam, float(np.linalg.norm(half))
    second, third = found.moments.T
    with np.errstate(over="ignore", invalid="ignore"):
        # In units of the half-diagonal.
        slopes = stiffness * radius * found.shifts
        bends = (stiffness * radius) ** 2 * found.covariances
        bends[:, np.arange(len(half)), np.arange(len(half))] -= stiffness * radius**2
        finite = np.isfinite(third)
        h, axes = np.linalg.eigh(np.where(finite[:, None, None], bends, 0.0))
        g = np.abs(np.einsum("nd,nde->ne", slopes, axes))
        inside = g < -h  # the largest value of g t + h t^2 / 2 for |t| <= 1
        rise = np.where(inside, g**2 / np.where(inside, -2 * h, 1.0), g + h / 2).sum(axis=1)
        skew = (np.cbrt(third) + second) ** 3 / 6
        # Every sum has at most one rounding per row, and its terms have the rounding of an energy.
        spread = np.square(found.shifts).sum(axis=1) + np.trace(found.covariances, axis1=1, axis2=2)
        size = 1 + stiffness * radius * np.sqrt(spread)
        slack = _EPS * (64 + rows + 16 * (lam * spread + np.abs(found.values))) * size**2
        near = np.where(finite, found.values + rise + skew + slack, np.inf)
        near = np.fmin(near, found.outer + _EPS * (64 + rows + 16 * np.abs(found.outer)))
        return np.logaddexp(near, found.rest)


def _corners(axes: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Corners (n, D) of the unit cube that differ along some axes only."""
    grid = np.meshgrid(*[np.arange(1 + axis) for axis in axes], indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, len(axes))
