"""CPU kernels of the coverage (T14): the E-step with the roles of data and reconstructions exchanged.

`coverage` computes log c(y) = log sum_i exp(a_i - H(x_i, y)) of many points y, and the means of the statistics under
the shares of its terms. It takes the rows in chunks, which lie in a fast cache, for some points at a time. Sums over
the rows of a chunk are vectorised; a larger term in a later chunk scales the earlier sums down.

For a squared distance in up to four dimensions a batch of points leaves out the runs of 64 rows that cannot matter to
it. Let B be the bounding box of the points, C that of a run, and W the sum of exp a_i over the run. Then

    W exp(-lambda max |x - y|^2) <= its terms of c <= W exp(-lambda min |x - y|^2),        x in C, y in B.

A run is left out if its upper bound is below the largest lower bound of all R runs by the factor R 2^60. So a point
loses at most the share 2^-60 of c. The bounds are close if the rows are in the order of `pruning.order`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from .._utils.arrays import Array, FloatArray
from .._utils.blas import single_threaded
from ..equations import is_steep
from . import pruning
from .arithmetic import add, assign, exp, frozen, maximum, multiply_add
from .compilation import ParallelKernel, jit

_FEW = 8  # most statistics for which differences, or sums of products, are faster than matrix products
_SORTED = 4  # most statistics for which runs are left out
BATCH = 16  # points that share a list of runs
RUN = 64  # rows of a run
_ROWS = 512  # rows of a chunk at most: the depth of its sums
_CHUNK_ENTRIES = 2**15  # statistics of a chunk at most
_PRODUCT = 64  # points of a matrix product
LOST = 60 * math.log(2)


def coverage(
    statistics: Array,
    offset: Array,
    log_shares: Array,
    v: Array,
    b: Array,
    quadratic: float | None = None,
    with_means: bool = True,
) -> tuple[FloatArray, FloatArray | None]:
    """log c (n,) and means (n, S) of the statistics; `constrained_vae.backends` documents the arguments."""
    phi, v, b = (np.ascontiguousarray(array, np.float64) for array in (statistics, v, b))
    lam = float(quadratic or 0.0)
    (_, S), n = phi.shape, len(v)
    differences = lam > 0 and (S <= _FEW or is_steep(offset, lam))
    shares = np.asarray(log_shares if differences else log_shares - offset, np.float64)
    values, means = np.empty(n), np.empty((n, S if with_means else 0))
    arguments = frozen(phi, np.float64), frozen(shares, np.float64)
    if not differences and S > _FEW:
        single_threaded(_products, *arguments, frozen(v, np.float64), frozen(b, np.float64), values, means)
        return values, means if with_means else None
    points = v / (2 * lam) if differences else v
    ranks = pruning.order(points) if differences and S <= _SORTED else np.arange(n)
    lam = lam if differences else 0.0
    boxes, weights = runs_of(*arguments, lam if S <= _SORTED else 0.0)
    chunk = max(RUN, min(_ROWS, _CHUNK_ENTRIES // (S + S % 2) // RUN * RUN))
    _sums(*arguments, points, b, lam, ranks, boxes, weights, chunk, values, means)
    return values, means if with_means else None


def log_sums(phi: Array, log_shares: Array, lam: float, points: Array) -> FloatArray:
    """log c (n,) of an energy lambda ||x - y||^2; rows (N, S) and points (n, S) are in orders as of `pruning.order`."""
    n = len(points)
    rows = frozen(phi, np.float64), frozen(log_shares, np.float64)
    values = np.empty(n)
    places = np.ascontiguousarray(points, np.float64), np.empty(n), lam, np.arange(n)
    _sums(*rows, *places, *runs_of(*rows, lam), _ROWS, values, np.empty((n, 0)))
    return values


def runs_of(phi: Array, shares: Array, lam: float) -> tuple[Array, Array]:
    """Bounding boxes (R, 2, S) and log weights (R,) of runs of rows; one run without a box if lam is not positive."""
    count = -(-len(phi) // RUN) if lam > 0 else 1
    boxes, weights = np.empty((count, 2, phi.shape[1])), np.empty(count)
    if lam > 0:
        _surround_runs(phi, shares, boxes, weights)
    return boxes, weights


@jit
def _surround_runs(phi: Array, shares: Array, boxes: Array, weights: Array) -> None:
    N = len(phi)
    for r in range(len(boxes)):
        i, j = r * RUN, min((r + 1) * RUN, N)
        pruning.surround(phi[i:j], boxes[r])
        top = shares[i]
        for k in range(i + 1, j):
            top = max(top, shares[k])
        total = 0.0
        for k in range(i, j):
            total += math.exp(shares[k] - top)
        weights[r] = top + math.log(total) if total > 0 else -np.inf


@jit
def near_runs(box: Array, lam: float, boxes: Array, weights: Array, lost: float, kept: Array) -> tuple[int, float]:
    """The number of runs that matter in a box (2, S), whose numbers are kept[:n]; log of a bound of all others' sum.

    All that are left out have less than the share exp(-lost) of c. The bound is raised by 1e-3, far more than it is
    rounded.
    """
    count, S = len(boxes), box.shape[1]
    best = -np.inf
    for r in range(count):
        far = 0.0
        for d in range(S):
            y = max(boxes[r, 1, d] - box[0, d], box[1, d] - boxes[r, 0, d])
            far += y * y
        best = max(best, weights[r] - lam * far)
    limit = best - math.log(count) - lost
    n, rest = 0, 0.0
    for r in range(count):
        near = 0.0
        for d in range(S):
            y = max(0.0, max(boxes[r, 0, d] - box[1, d], box[0, d] - boxes[r, 1, d]))
            near += y * y
        upper = weights[r] - lam * near * (1 - 1e-14)
        kept[n] = r
        if upper < limit:
            rest += math.exp(upper - limit)
        else:
            n += 1
    return n, limit + math.log(rest) + 1e-3 if rest > 0 else -np.inf


@ParallelKernel
def _sums(
    phi: Array,
    shares: Array,
    points: Array,
    b: Array,
    lam: float,
    ranks: Array,
    boxes: Array,
    weights: Array,
    chunk: int,
    values: Array,
    means: Array,
) -> None:
    n = len(points)
    for batch in prange(-(-n // BATCH)):
        start = np.int64(batch) * BATCH
        _sums_of_batch(phi, shares, points, b, lam, ranks[start : start + BATCH], boxes, weights, chunk, values, means)


@jit
def _sums_of_batch(
    phi: Array,
    shares: Array,
    points: Array,
    b: Array,
    lam: float,
    ranks: Array,
    boxes: Array,
    weights: Array,
    chunk: int,
    values: Array,
    means: Array,
) -> None:
    """log c and means of the points of these ranks: chunks of rows that matter are copied by columns, and summed."""
    (N, S), n = phi.shape, len(ranks)
    wide = S + S % 2
    kept = np.zeros(len(boxes), np.int64)
    runs, size = 1, N  # without boxes all rows are one run
    some, y = points[ranks], np.zeros((n, wide))
    for q in range(n):
        assign(y[q], some[q])
    if len(boxes) > 1:
        box = np.empty((2, S))
        pruning.surround(some, box)
        runs, size = near_runs(box, lam, boxes, weights, LOST, kept)[0], RUN
    tops, totals, sums = np.full(n, -np.inf), np.zeros(n), np.zeros((n, wide))
    x, a, logits = np.zeros((wide, chunk)), np.empty(chunk), np.empty(chunk)
    held = 0
    for r in range(runs):
        i = kept[r] * size
        stop = min(i + size, N)
        while i < stop:
            taken = min(stop - i, chunk - held)
            for k in range(taken):
                a[held + k] = shares[i + k]
                for d in range(S):
                    x[d, held + k] = phi[i + k, d]
            held += taken
            i += taken
            if held == chunk or (r == runs - 1 and i == stop):
                for q in range(n):
                    shift = 0.0 if lam > 0 else b[ranks[q]]
                    tops[q], totals[q] = _add_chunk(
                        x, a, held, y[q], lam, shift, logits, tops[q], totals[q], sums[q], means.shape[1]
                    )
                held = 0
    for q in range(n):
        values[ranks[q]] = tops[q] + math.log(totals[q])
        for d in range(means.shape[1]):
            means[ranks[q], d] = sums[q, d] / totals[q]


@jit
def _add_chunk(
    x: Array,
    a: Array,
    count: int,
    y: Array,
    lam: float,
    shift: float,
    logits: Array,
    top: float,
    total: float,
    sums: Array,
    columns: int,
) -> tuple[float, float]:
    """Add the terms of a chunk of rows x (S, .) to the sums of a point; the new largest logit, and the new sum."""
    wide = len(y)
    if lam > 0:
        for d in range(0, wide, 2):
            y0, y1, first = y[d], y[d + 1], d == 0
            for i in range(count):
                z0, z1 = x[d, i] - y0, x[d + 1, i] - y1
                h = multiply_add(z1, z1, z0 * z0)
                logits[i] = h if first else logits[i] + h
        for i in range(count):
            logits[i] = a[i] - lam * logits[i]
    else:
        for i in range(count):
            logits[i] = a[i] + shift
        for d in range(0, wide, 2):
            y0, y1 = y[d], y[d + 1]
            for i in range(count):
                logits[i] = multiply_add(x[d + 1, i], y1, multiply_add(x[d, i], y0, logits[i]))
    highest = top
    for i in range(count):
        highest = maximum(highest, logits[i])
    if highest > top:
        shrink = math.exp(top - highest)
        total *= shrink
        for d in range(columns):
            sums[d] *= shrink
    part = 0.0
    for i in range(count):
        p = exp(logits[i] - highest)
        part = add(part, p)
        logits[i] = p
    for d in range(columns):
        weighted = 0.0
        for i in range(count):
            weighted = add(weighted, logits[i] * x[d, i])
        sums[d] += weighted
    return highest, total + part


@ParallelKernel
def _products(phi: Array, shares: Array, v: Array, b: Array, values: Array, means: Array) -> None:
    n = len(v)
    for block in prange(-(-n // _PRODUCT)):
        i = np.int64(block) * _PRODUCT
        j = min(i + _PRODUCT, n)
        _product_of_block(phi, shares, v[i:j], b[i:j], values[i:j], means[i:j])


@jit
def _product_of_block(phi: Array, shares: Array, v: Array, b: Array, values: Array, means: Array) -> None:
    """log c and means of some points by matrix products with chunks of rows."""
    N, n, columns = len(phi), len(v), means.shape[1]
    tops, totals = np.full(n, -np.inf), np.zeros(n)
    sums = np.zeros((n, columns))
    scratch, product = np.empty(n * _ROWS), np.empty((n, columns))
    for i in range(0, N, _ROWS):
        j = min(i + _ROWS, N)
        count = j - i
        logits = scratch[: n * count].reshape(n, count)
        np.dot(v, phi[i:j].T, logits)
        for q in range(n):
            row, highest = logits[q], tops[q]
            for k in range(count):
                row[k] += shares[i + k] + b[q]
            for k in range(count):
                highest = maximum(highest, row[k])
            if highest > tops[q]:
                shrink = math.exp(tops[q] - highest)
                totals[q] *= shrink
                for d in range(columns):
                    sums[q, d] *= shrink
                tops[q] = highest
            part = 0.0
            for k in range(count):
                p = exp(row[k] - highest)
                part = add(part, p)
                row[k] = p
            totals[q] += part
        if columns:
            np.dot(logits, phi[i:j], product)
            for q in range(n):
                for d in range(columns):
                    sums[q, d] += product[q, d]
    for q in range(n):
        values[q] = tops[q] + math.log(totals[q])
        for d in range(columns):
            means[q, d] = sums[q, d] / totals[q]
