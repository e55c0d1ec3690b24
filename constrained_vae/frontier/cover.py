"""Boxes that cover the data, each with a bound of log c: branch and bound whose steps can be checked one by one (T14).

On a box with centre y_0 and half-diagonal r, log c has one of two bounds, as `verify.py` proves them. By the corners:
log c(y) + lambda ||y - y_0||^2 is convex. By the centre: with d = x - y_0 under the responsibilities of y_0, m = E d,
M = E d d^T, K = E (2 lambda ||d||)^3 exp(2 lambda ||d|| r) / 6 and A = (lambda - K r + s) I - 2 lambda^2 M positive
definite, log c <= log c(y_0) + lambda^2 m^T A^-1 m + s r^2 for every shift s >= 0. Near a maximum the second bound has
an error of the third order in r only, so that a box around it need not be small.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from .._utils import deadline, memory
from .._utils.arrays import FloatArray

_MOST_BOXES = 2**20  # that are looked at before branch and bound gives up
_FACTORS = np.array([0.0, 1e-2, 0.1, 0.5, 1.0, 2.0, 4.0, 16.0, 64.0])  # shifts that are tried, beyond the least
_LEAST = 1e-3  # the least step of a shift, in units of lambda
_MARGIN = 1e-6  # the least eigenvalue that A may have, in units of lambda
_SLACK = 1e-10  # relative rounding of bounds
_MAX_EXPONENT = 500.0  # a bound with a larger one is of no use


@dataclass(frozen=True, eq=False)
class Cover:
    """Boxes (n, D) from `low` to `high`, bounds (n,) of log c, and shifts (n,): NaN for a bound by the corners."""

    low: FloatArray
    high: FloatArray
    bounds: FloatArray
    shifts: FloatArray


def cover(x: FloatArray, log_w: FloatArray, lam: float, ceiling: float, most: int = _MOST_BOXES) -> Cover | None:
    """Boxes that cover the points x (N, D), in which log c = log sum_i exp(log_w_i - lam ||x_i - y||^2) <= ceiling.

    The bounding box of the data is halved along its longest side until every part has such a bound. The result is None
    if log c is above the ceiling at a place that was looked at, or there are more than `most` boxes. Raises `TimeUp` if
    the deadline passes.
    """
    low, high = x.min(axis=0)[None], x.max(axis=0)[None]
    found: list[tuple[FloatArray, ...]] = []
    count, rows = 0, max(memory.rows_of_block(len(x)) // 4, 1)
    while len(low):
        count += len(low)
        if count > most:
            return None
        open_boxes = []
        for i in range(0, len(low), rows):
            deadline.check()
            part = low[i : i + rows], high[i : i + rows]
            bounds, shifts, values = _bounds(x, log_w, lam, *part, ceiling)
            if values.max() > ceiling:
                return None
            done = bounds <= ceiling
            found.append((part[0][done], part[1][done], bounds[done], shifts[done]))
            open_boxes.append(~done)
        rest = np.concatenate(open_boxes)
        low, high = _halves(low[rest], high[rest])
    return Cover(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _halves(low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both halves of every box, which is cut through the middle of its longest side."""
    index, axis = np.arange(len(low)), (high - low).argmax(axis=1)
    middle = (low[index, axis] + high[index, axis]) / 2
    below, above = high.copy(), low.copy()
    below[index, axis] = above[index, axis] = middle
    return np.concatenate([low, above]), np.concatenate([below, high])


def _bounds(
    x: FloatArray, log_w: FloatArray, lam: float, low: FloatArray, high: FloatArray, ceiling: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bounds (n,) of log c in boxes, their shifts (n,), and log c at the centres (n,)."""
    centre = (low + high) / 2
    r = np.sqrt(np.square(np.maximum(high - centre, centre - low)).sum(axis=1))
    bounds, shifts, values = _by_the_centre(x, log_w, lam, centre, r)
    rest = np.flatnonzero(bounds > ceiling)
    if len(rest):
        by_corners = _by_the_corners(x, log_w, lam, low[rest], high[rest]) + lam * r[rest] ** 2
        better = by_corners < bounds[rest]
        bounds[rest[better]], shifts[rest[better]] = by_corners[better], np.nan
    return bounds + _SLACK * (1 + np.abs(bounds)), shifts, values


def _by_the_corners(x: FloatArray, log_w: FloatArray, lam: float, low: FloatArray, high: FloatArray) -> FloatArray:
    """The largest log c at the corners of boxes, (n,)."""
    dim, top = x.shape[1], np.full(len(low), -np.inf)
    for k in range(2**dim):
        corner = np.where([(k >> j) & 1 for j in range(dim)], high, low)
        squares = sum(np.square(x[:, j] - corner[:, j, None]) for j in range(dim))
        top = np.maximum(top, logsumexp(log_w - lam * squares, axis=1))
    return top


def _by_the_centre(
    x: FloatArray, log_w: FloatArray, lam: float, centre: FloatArray, r: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bounds (n,) by expansions about the centres of boxes of half-diagonals r, their shifts, and log c there."""
    dim = x.shape[1]
    d = [x[:, j] - centre[:, j, None] for j in range(dim)]
    squares = np.asarray(sum(np.square(part) for part in d))
    u = log_w - lam * squares
    values = logsumexp(u, axis=1)
    u -= values[:, None]
    s = 2 * lam * np.sqrt(squares)
    reach = s * r[:, None]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        third = (np.exp(np.minimum(u + reach, _MAX_EXPONENT)) * s**3).sum(axis=1) / 6 * r
        third[(u + reach).max(axis=1) > _MAX_EXPONENT] = np.inf
        u = np.exp(u)
    mean = np.stack([(u * part).sum(axis=1) for part in d], axis=1)
    A = np.empty((len(centre), dim, dim))
    for j, k in np.ndindex(dim, dim):
        A[:, j, k] = -2 * lam**2 * (u * d[j] * d[k]).sum(axis=1)
    usable = third < _MAX_EXPONENT * lam
    # In the eigenvectors of A the quadratic form has one term for each of them, whatever the shift.
    eigenvalues, vectors = np.linalg.eigh(A)
    eigenvalues = eigenvalues + (lam - np.where(usable, third, 0.0))[:, None]
    slopes = lam**2 * np.square(np.einsum("njk,nj->nk", vectors, mean))
    least = np.maximum(_MARGIN * lam - eigenvalues[:, 0], 0.0)
    step = np.maximum(least, _LEAST * lam)
    trials = least + _FACTORS[:, None] * step  # (trials, n)
    moved = eigenvalues + trials[..., None]
    forms = (slopes / moved).sum(axis=2)
    rounding = 1e-13 * forms * (lam + np.abs(A).sum(axis=(1, 2))) / moved[..., 0]
    bounds = values + forms + trials * r**2 + rounding
    best, index = bounds.argmin(axis=0), np.arange(len(r))
    return np.where(usable, bounds[best, index], np.inf), trials[best, index], values


def scaled(*arrays: FloatArray) -> tuple[int, list[FloatArray]]:
    """Arrays of points in a unit near their extent, which is a power of two, so that no digit changes; its exponent."""
    origin = arrays[0][0]
    extent = max(float(np.abs(array - origin).max()) for array in arrays)
    unit = int(np.frexp(max(extent, 1e-290))[1])
    return unit, [np.ldexp(array, -unit) for array in arrays]


def box_list(found: Cover, unit: int) -> tuple[list[list[float]], list[float | None]]:
    """Boxes as rows of low and high corners in units of x, and shifts as numbers or None, as a file has them."""
    boxes: npt.NDArray[np.float64] = np.ldexp(np.concatenate([found.low, found.high], axis=1), unit)
    return boxes.tolist(), [None if np.isnan(s) else float(s) for s in found.shifts]
