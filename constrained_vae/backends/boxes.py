"""CPU kernels of log c in boxes around points (T14), for branch and bound in up to three dimensions.

As in `coverage`, the boxes of a batch leave out the runs of 64 rows that cannot matter to any of them. Here their sum
is bounded, and the bound is a part of the result. The bounds that follow are derived in `frontier.proof` and in
`frontier.local_polynomials`, the remainder of a polynomial in docs/theory.md (T14, proof for many data).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from .._utils.arrays import Array, FloatArray
from .._utils.blas import single_threaded
from .arithmetic import add, assign, exp, frozen, maximum, multiply_add
from .compilation import ParallelKernel, jit
from .coverage import BATCH, LOST, RUN, near_runs, runs_of
from .expansions import Expansions, Polynomials, ProofRows
from .pruning import surround

_SYMMETRIC = np.array([4, 5, 6, 5, 7, 8, 6, 8, 9])  # where a symmetric matrix has its entries in a row of results
_MAX_EXPONENT = 600.0  # a moment that is larger by its exponential is of no use
_CUBIC = 0.5  # radius of a box, in units of the resolution, up to which its expansion is of use
_POLYNOMIAL_LOST = 34 * math.log(2)  # a smaller share of c is left out of its polynomial, and enters the bound
_CHUNK = 256  # rows whose powers lie in a fast cache


def proof_rows(statistics: Array, log_shares: Array, lam: float) -> ProofRows:
    """Rows and runs of a proof, in three dimensions; `constrained_vae.backends` documents the arguments."""
    phi, shares = frozen(_padded(statistics), np.float64), frozen(log_shares, np.float64)
    return ProofRows(phi, shares, float(lam), runs_of(phi, shares, lam))


def expansions(rows: ProofRows, points: Array, half: Array) -> Expansions:
    """What branch and bound needs of log c in boxes; `constrained_vae.backends` documents the arguments."""
    n, dim = points.shape
    found = np.zeros((n, 14))
    _expanded(*_arguments(rows, points, half), found)
    covariances = found[:, _SYMMETRIC].reshape(n, 3, 3)[:, :dim, :dim]
    return Expansions(found[:, 0], found[:, 1 : 1 + dim], covariances, found[:, 10:12], found[:, 12], found[:, 13])


def polynomials(rows: ProofRows, points: Array, half: Array, degree: int) -> Polynomials:
    """Polynomials of c in boxes in one or two dimensions; `constrained_vae.backends` documents the arguments."""
    n, dim = points.shape
    found, coefficients = np.zeros((n, 4)), np.zeros((n, degree + 1, 1 if dim == 1 else degree + 1))
    single_threaded(_multiplied, *_arguments(rows, points, half), found, coefficients)
    return Polynomials(found[:, 0], coefficients, *found[:, 1:].T)


def _arguments(rows: ProofRows, points: Array, half: Array) -> tuple[Any, ...]:
    """Rows, their shares, centres, lambda, half sides, and the runs of the rows, all in three dimensions."""
    return rows.statistics, rows.log_shares, _padded(points), rows.lam, _padded(half), *rows.runs


def _padded(points: Array) -> FloatArray:
    """Points (..., D) with zeros in further dimensions, up to the third."""
    padded = np.zeros((*points.shape[:-1], 3))
    padded[..., : points.shape[-1]] = points
    return padded


@ParallelKernel
def _expanded(
    phi: Array, shares: Array, y: Array, lam: float, half: Array, boxes: Array, weights: Array, found: Array
) -> None:
    n = len(y)
    for batch in prange(-(-n // BATCH)):
        i = np.int64(batch) * BATCH
        j = min(i + BATCH, n)
        _expand_batch(phi, shares, y[i:j], lam, half, boxes, weights, found[i:j])


@jit
def _expand_batch(
    phi: Array, shares: Array, y: Array, lam: float, half: Array, boxes: Array, weights: Array, found: Array
) -> None:
    """Write value, shift (3), covariance (6), tilted moments (2), outer bound and log of the rest of every box."""
    x, a, count, rest = _rows_near(phi, shares, y, lam, half, boxes, weights, LOST)
    u, w = np.empty(len(a)), np.empty(len(a))
    radius = math.sqrt(half[0] * half[0] + half[1] * half[1] + half[2] * half[2])
    for q in range(len(y)):
        out = found[q]
        out[13] = rest
        if 2 * lam * radius * radius > _CUBIC * _CUBIC:
            _expand_wide(x[0], x[1], x[2], a, u, count, y[q], lam, half, out)
        else:
            _expand_narrow(x[0], x[1], x[2], a, u, w, count, y[q], lam, radius, out)


@jit
def _rows_near(
    phi: Array, shares: Array, y: Array, lam: float, half: Array, boxes: Array, weights: Array, lost: float
) -> tuple[Array, Array, int, float]:
    """Columns (3, .) of the rows that matter in boxes around y, and their shares; their number; log of the rest."""
    N = len(phi)
    box = np.empty((2, 3))
    surround(y, box)
    for d in range(3):
        box[0, d] -= half[d]
        box[1, d] += half[d]
    kept = np.empty(len(boxes), np.int64)
    runs, rest = near_runs(box, lam, boxes, weights, lost, kept)
    x, a = np.empty((3, runs * RUN)), np.empty(runs * RUN)
    count = 0
    for r in range(runs):
        for i in range(kept[r] * RUN, min((kept[r] + 1) * RUN, N)):
            x[0, count], x[1, count], x[2, count], a[count] = phi[i, 0], phi[i, 1], phi[i, 2], shares[i]
            count += 1
    return x, a, count, rest


@jit
def _log_total(u: Array, count: int) -> float:
    """Replace logits by exponentials relative to the largest; log of their sum."""
    top, total = -np.inf, 0.0
    for i in range(count):
        top = maximum(top, u[i])
    for i in range(count):
        p = exp(u[i] - top)
        total = add(total, p)
        u[i] = p
    return top + math.log(total)


@jit
def _expand_wide(
    x: Array, y: Array, z: Array, a: Array, u: Array, count: int, centre: Array, lam: float, half: Array, out: Array
) -> None:
    """The value, and the sum with every row at its least distance from the box."""
    x0, y0, z0 = centre
    for i in range(count):
        dx, dy, dz = x[i] - x0, y[i] - y0, z[i] - z0
        u[i] = a[i] - lam * multiply_add(dz, dz, multiply_add(dy, dy, dx * dx))
    out[0] = _log_total(u, count)
    for i in range(count):
        dx, dy = maximum(abs(x[i] - x0) - half[0], 0.0), maximum(abs(y[i] - y0) - half[1], 0.0)
        dz = maximum(abs(z[i] - z0) - half[2], 0.0)
        u[i] = a[i] - lam * multiply_add(dz, dz, multiply_add(dy, dy, dx * dx))
    out[12] = _log_total(u, count)
    out[10] = out[11] = np.inf


@jit
def _expand_narrow(
    x: Array,
    y: Array,
    z: Array,
    a: Array,
    u: Array,
    w: Array,
    count: int,
    centre: Array,
    lam: float,
    radius: float,
    out: Array,
) -> None:
    """The value and the moments of the rows under their responsibilities; no outer bound."""
    x0, y0, z0 = centre
    for i in range(count):
        dx, dy, dz = x[i] - x0, y[i] - y0, z[i] - z0
        u[i] = w[i] = a[i] - lam * multiply_add(dz, dz, multiply_add(dy, dy, dx * dx))
    out[0] = _log_total(u, count)
    total = mx = my = mz = 0.0
    for i in range(count):
        total = add(total, u[i])
        mx = add(mx, u[i] * (x[i] - x0))
        my = add(my, u[i] * (y[i] - y0))
        mz = add(mz, u[i] * (z[i] - z0))
    mx, my, mz = mx / total, my / total, mz / total
    xx = xy = xz = yy = yz = zz = 0.0
    steep, highest = 2 * lam * radius, -np.inf
    for i in range(count):
        dx, dy, dz = (x[i] - x0) - mx, (y[i] - y0) - my, (z[i] - z0) - mz
        px, py, pz = u[i] * dx, u[i] * dy, u[i] * dz
        xx, xy, xz = add(xx, px * dx), add(xy, px * dy), add(xz, px * dz)
        yy, yz, zz = add(yy, py * dy), add(yz, py * dz), add(zz, pz * dz)
        t = steep * math.sqrt(multiply_add(dz, dz, multiply_add(dy, dy, dx * dx)))
        w[i] += t - out[0]
        u[i] = t
        highest = maximum(highest, w[i])
    third = second = 0.0
    for i in range(count):
        p, t = exp(w[i] - highest), u[i]
        second = add(second, p * t * t)
        third = add(third, p * t * t * t)
    growth = math.exp(highest) if highest < _MAX_EXPONENT else np.inf
    out[1], out[2], out[3] = mx, my, mz
    out[4], out[5], out[6] = xx / total, xy / total, xz / total
    out[7], out[8], out[9] = yy / total, yz / total, zz / total
    out[10], out[11] = growth * second, growth * third
    out[12] = np.inf


@ParallelKernel
def _multiplied(
    phi: Array,
    shares: Array,
    y: Array,
    lam: float,
    half: Array,
    boxes: Array,
    weights: Array,
    found: Array,
    coefficients: Array,
) -> None:
    n = len(y)
    for batch in prange(-(-n // BATCH)):
        i = np.int64(batch) * BATCH
        j = min(i + BATCH, n)
        _multiply_batch(phi, shares, y[i:j], lam, half, boxes, weights, found[i:j], coefficients[i:j])


@jit
def _multiply_batch(
    phi: Array,
    shares: Array,
    y: Array,
    lam: float,
    half: Array,
    boxes: Array,
    weights: Array,
    found: Array,
    coefficients: Array,
) -> None:
    """Write value, remainder, size, log of the rest, and coefficients, of every box.

    With t_d = 2 lambda h_d (x_d - y_d), c(y + h z) / c(y) is the mean of exp(t.z) under the shares of the rows at y,
    times exp(-lambda |h z|^2). The coefficient of z_0^k z_1^l is the mean of t_0^k t_1^l / (k! l!).
    """
    x, a, count, rest = _rows_near(phi, shares, y, lam, half, boxes, weights, _POLYNOMIAL_LOST)
    terms, across = coefficients.shape[1:]
    u, w = np.empty(len(a)), np.empty(len(a))
    s, t, lost = np.zeros(_CHUNK), np.zeros(_CHUNK), np.empty(_CHUNK)
    powers, others, product = np.ones((terms, _CHUNK)), np.empty((across, _CHUNK)), np.empty_like(coefficients[0])
    steep0, steep1 = 2 * lam * half[0], 2 * lam * half[1]
    for q in range(len(y)):
        x0, y0 = y[q, 0], y[q, 1]
        for i in range(count):
            dx, dy = x[0, i] - x0, x[1, i] - y0
            u[i] = w[i] = a[i] - lam * multiply_add(dy, dy, dx * dx)
        found[q, 0], found[q, 3] = _log_total(u, count), rest
        total = remainder = size = 0.0
        for first in range(0, count, _CHUNK):
            rows = min(_CHUNK, count - first)
            assign(others[0], u[first : first + rows])
            others[0, rows:] = 0.0
            for i in range(rows):
                s[i], t[i] = steep0 * (x[0, first + i] - x0), steep1 * (x[1, first + i] - y0)
            part = reach = rise = highest = 0.0
            for i in range(rows):
                part = add(part, others[0, i])
                lost[i] = (w[first + i] - found[q, 0]) + (abs(s[i]) + abs(t[i]))
                highest = maximum(highest, lost[i])
            growth = math.exp(highest) if highest < _MAX_EXPONENT else np.inf
            for i in range(rows):
                lost[i] = exp(lost[i] - highest)
                reach = add(reach, lost[i])
            for k in range(1, terms):
                for i in range(_CHUNK):
                    powers[k, i] = powers[k - 1, i] * s[i] / k
            for k in range(1, across):
                for i in range(_CHUNK):
                    others[k, i] = others[k - 1, i] * t[i] / k
            for k in range(1, terms + 1):
                for i in range(rows):
                    lost[i] *= (abs(s[i]) + abs(t[i])) / k
            for i in range(rows):
                rise = add(rise, lost[i])
            np.dot(powers, others.T, product)
            for k in range(terms):
                for m in range(across):
                    coefficients[q, k, m] += product[k, m]
            total, remainder, size = total + part, remainder + growth * rise, size + growth * reach
        for k in range(terms):
            for m in range(across):
                coefficients[q, k, m] /= total
        found[q, 1], found[q, 2] = remainder, size
