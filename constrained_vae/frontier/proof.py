"""Branch and bound in up to three dimensions, of few points in up to six: a proven upper bound of log c (T14).

Maxima of c lie in the convex hull of the data. The box of the data is halved along its longest side, and a part is
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

from typing import NamedTuple

import numpy as np

from .._utils import deadline
from .._utils.arrays import FloatArray
from ..backends import compiled, reference
from ..backends.expansions import Expansions
from .local_polynomials import Peak
from .quadratics import along_axes, least_shifts, rises_along_axes

MOST_DIMENSIONS = 3  # in which a proof is tried
_FEW, _FEW_DIMENSIONS = 32, 6  # points of which a proof is tried in more dimensions, and these
_MAX_BOXES, _MAX_FEW_BOXES = 2**22, 2**19  # boxes after which branch and bound gives up; those of few points
_WORK = 2**27  # boxes times rows between two looks at the deadline
_SLOW_WORK = 2**19  # the same with the reference backend
_MAX_HALVINGS = 30  # number of halvings for each axis, or for two if there is one, after which it gives up
_MAX_HALVINGS_OF_AXIS = 62  # since boxes have numbers of 64 bits
_MAX_PAIRS = 2**35  # boxes times rows after which it gives up in three dimensions
_LARGEST = 2**24  # entries of the data of which a singular value decomposition is computed
_FLAT = 1e-6  # nats: lambda times the largest squared distance from a space up to which the data count as flat
_EPS = float(np.finfo(np.float64).eps)


class Cover(NamedTuple):
    """Boxes (n, D) from `low` to `high`, bounds (n,) of log c, and shifts (n,) for `verify.py`, NaN for a wide box."""

    low: FloatArray
    high: FloatArray
    bounds: FloatArray
    shifts: FloatArray


def supremum(
    points: FloatArray,
    log_shares: FloatArray,
    rounding: FloatArray,
    lam: float,
    height: float,
    where: FloatArray,
    accuracy: float,
    error: float = 4.0,
    covers: list[Cover] | None = None,
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
    error : float
        Error of a point relative to its norm, in units of eps; 4 for a point that was moved to the frame.
    covers : list, optional
        Boxes that cover the data are appended to it, with their bounds.
    """
    backend = compiled() if points.shape[1] <= MOST_DIMENSIONS else reference
    near = getattr(backend, "order", lambda x: None)(points)  # rows beside each other, of which most are left out
    if near is not None:
        points, log_shares, rounding = points[near], log_shares[near], rounding[near]
    raised, lowered = outward(points, log_shares, rounding, lam, error)
    if not lowered > 0:  # the rounding of the data exceeds the resolution
        return np.inf, where
    peak, rows = Peak(height, where, accuracy), backend.proof_rows(points, raised, lowered)
    size = max(1, (_SLOW_WORK if backend is reference else _WORK) // len(points))
    low, high = points.min(axis=0), points.max(axis=0)
    span, dim = high - low, points.shape[1]
    margin = 4 * _EPS * np.maximum(np.abs(low), np.abs(high))  # rounding of the centres
    boxes, count = np.zeros((1, dim), dtype=np.int64), 0  # numbers of the boxes of a level along every axis
    most = _MAX_BOXES if dim <= MOST_DIMENSIONS else _MAX_FEW_BOXES
    if dim == MOST_DIMENSIONS:
        most = min(most, _MAX_PAIRS // len(points))
    halvings = np.zeros(dim, dtype=np.int64)
    while halvings.sum() <= _MAX_HALVINGS * max(dim, 2) and halvings.max() <= _MAX_HALVINGS_OF_AXIS:
        count += len(boxes)
        if count > most:
            break
        side = span / 2**halvings
        half = side / 2 + margin
        if covers is None and peak.pays(len(points), lowered, half):
            boxes = boxes[~peak.shown(backend, rows, low + side * (boxes + 0.5), half)]
        else:
            left = []
            for i in range(0, len(boxes), size):
                deadline.check()
                part = boxes[i : i + size]
                centres = low + side * (part + 0.5)
                found = backend.expansions(rows, centres, half)
                peak.rise(found.values, centres)
                bounds = upper_bounds(found, len(points), lowered, half)
                open_ones = ~(bounds <= peak.ceiling)
                left.append(part[open_ones])
                if covers is not None:
                    done = part[~open_ones]
                    start, end = (np.where(k == 2**halvings, high, low + side * k) for k in (done, done + 1))
                    finished = Expansions(*(column[~open_ones] for column in found))
                    shifts, rises = least_shifts(*_quadratic(finished, lowered, half))
                    bounds = upper_bounds(finished, len(points), lowered, half, rises)
                    shifts[~np.isfinite(finished.moments[:, 1])] = np.nan
                    covers.append(Cover(start, end, bounds, shifts / (half @ half)))
            boxes = np.concatenate(left)
        if not len(boxes):
            return peak.ceiling, peak.where
        axis = int(side.argmax())
        boxes = np.repeat(boxes, 2, axis=0)
        boxes[:, axis] *= 2
        boxes[1::2, axis] += 1
        halvings[axis] += 1
    return np.inf, peak.where


def of_flat(
    x: FloatArray,
    log_shares: FloatArray,
    rounding: FloatArray,
    lam: float,
    height: float,
    where: FloatArray,
    accuracy: float,
) -> tuple[float, FloatArray]:
    """`supremum` of data x (N, D) near a space of few dimensions through the origin; infinite for other data.

    The space has three dimensions, or up to six for few points.

    An orthogonal projection P makes no distance longer, so that c(y) is at most the sum over P x_i at P y, for any data
    and any P: the supremum over the space is a bound. It is too large by at most lambda times the largest squared
    distance of a point from the space.
    """
    if x.size > _LARGEST:
        return np.inf, where
    all_axes = np.linalg.svd(x, full_matrices=False)[2]
    for dim in range(MOST_DIMENSIONS, (_FEW_DIMENSIONS if len(x) <= _FEW else MOST_DIMENSIONS) + 1):
        axes = all_axes[:dim]
        flat = x @ axes.T
        if lam * np.square(x - flat @ axes).sum(axis=1).max() <= _FLAT:
            break
    else:
        return np.inf, where
    # The axes are orthonormal to some eps, and every coordinate of a point is a sum with D roundings.
    roundings = 4.0 + 4 * x.shape[1]
    shorter = lam * (1 - 4 * roundings * _EPS)
    bound, top = supremum(flat, log_shares, rounding, shorter, height, axes @ where, accuracy, roundings)
    return bound, top @ axes


def outward(
    points: FloatArray, log_shares: FloatArray, rounding: FloatArray, lam: float, error: float = 4.0
) -> tuple[FloatArray, float]:
    """Shares and a multiplier whose log c, as it is computed, is nowhere below the exact one of the data.

    A point x of the frame has an error of e = 4 eps ||x||, which changes H = lambda d^2 by at most
    2 sqrt(lambda) e sqrt(H) + lambda e^2; and 2 sqrt(H) <= 1 + H. The squared distance and the difference of share and
    energy have relative errors of D + 4 roundings.
    """
    off = error * np.sqrt(lam) * np.linalg.norm(points, axis=1)
    raised = log_shares + rounding + _EPS * (off + _EPS * off**2 + 4 * np.abs(log_shares) + 4)
    return raised, lam * (1 - _EPS * (points.shape[1] + 8 + float(off.max())))


def upper_bounds(
    found: Expansions, rows: int, lam: float, half: FloatArray, rises: FloatArray | None = None
) -> FloatArray:
    """Upper bounds (n,) of log c of so many rows in boxes with half sides (D,); infinite or NaN where there is none.

    The quadratic part rises along each of its axes as far as R, unless bounds `rises` (n,) of it in a ball are given.
    """
    stiffness, radius = 2 * lam, float(np.linalg.norm(half))
    second, third = found.moments.T
    with np.errstate(over="ignore", invalid="ignore"):
        if rises is None:
            g, h = _quadratic(found, lam, half)
            rises = rises_along_axes(g, h)
        skew = (np.cbrt(third) + second) ** 3 / 6
        # Every sum has at most one rounding per row, and its terms have the rounding of an energy.
        spread = np.square(found.shifts).sum(axis=1) + np.trace(found.covariances, axis1=1, axis2=2)
        size = 1 + stiffness * radius * np.sqrt(spread)
        slack = _EPS * (64 + rows + 16 * (lam * spread + np.abs(found.values))) * size**2
        near = np.where(np.isfinite(third), found.values + rises + skew + slack, np.inf)
        near = np.fmin(near, found.outer + _EPS * (64 + rows + 16 * np.abs(found.outer)))
        return np.logaddexp(near, found.rest)


def _quadratic(found: Expansions, lam: float, half: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slopes and bends (n, D) of log c along the axes of the bends, in units of the half-diagonal."""
    stiffness, radius, dim = 2 * lam, float(np.linalg.norm(half)), len(half)
    bends = (stiffness * radius) ** 2 * found.covariances
    bends[:, np.arange(dim), np.arange(dim)] -= stiffness * radius**2
    return along_axes(stiffness * radius * found.shifts, bends, np.isfinite(found.moments[:, 1]))
