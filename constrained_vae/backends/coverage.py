"""CPU kernels of the coverage (T14): the E-step with the roles of data and reconstructions exchanged.

`coverage` computes log c(y) = log sum_i exp(a_i - H(x_i, y)) of many points y, and the means of the statistics under
the shares of its terms. `expansions` computes what branch and bound needs in boxes around points, in up to three
dimensions. Both take the rows in chunks, which lie in a fast cache, for some points at a time. Sums over the rows of a
chunk are vectorised; a larger term in a later chunk scales the earlier sums down.

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
from .arithmetic import add, exp, frozen, maximum, multiply_add
from .compilation import ParallelKernel, jit
from .expansions import Expansions

_FEW = 8  # most statistics for which differences, or sums of products, are faster than matrix products
_SORTED = 4  # most statistics for which runs are left out
_BATCH = 16  # points that share a list of runs
_RUN = 64  # rows of a run
_ROWS = 512  # rows of a chunk at most: the depth of its sums
_CHUNK_ENTRIES = 2**15  # statistics of a chunk at most
_PRODUCT = 64  # points of a matrix product
_SYMMETRIC = np.array([4, 5, 6, 5, 7, 8, 6, 8, 9])  # where a symmetric matrix has its entries in a row of results
_LOST = 60 * math.log(2)
_MAX_EXPONENT = 600.0  # a moment that is larger by its exponential is of no use
_CUBIC = 0.5  # radius of a box, in units of the resolution, up to which its expansion is of use


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
    boxes, weights = _runs(*arguments, lam if S <= _SORTED else 0.0)
    chunk = max(_RUN, min(_ROWS, _CHUNK_ENTRIES // (S + S % 2) // _RUN * _RUN))
    _sums(*arguments, points, b, lam, ranks, boxes, weights, chunk, values, means)
    return values, means if with_means else None


def expansions(statistics: Array, log_shares: Array, lam: float, points: Array, half: Array) -> Expansions:
    """What branch and bound needs of log c in boxes; `constrained_vae.backends` documents the arguments."""
    n, dim = points.shape
    phi, y, sides = np.zeros((len(statistics), 3)), np.zeros((n, 3)), np.zeros(3)
    phi[:, :dim], y[:, :dim], sides[:dim] = statistics, points, half
    rows = frozen(phi, np.float64), frozen(np.asarray(log_shares, np.float64), np.float64)
    boxes, weights = _runs(*rows, lam)
    found = np.zeros((n, 14))
    _expanded(*rows, y, float(lam), sides, boxes, weights, found)
    covariances = found[:, _SYMMETRIC].reshape(n, 3, 3)[:, :dim, :dim]
    return Expansions(found[:, 0], found[:, 1 : 1 + dim], covariances, found[:, 10:12], found[:, 12], found[:, 13])


def _runs(phi: Array, shares: Array, lam: float) -> tuple[Array, Array]:
    """Bounding boxes (R, 2, S) and log weights (R,) of runs of rows; one run without a box if lam is not positive."""
    count = -(-len(phi) // _RUN) if lam > 0 else 1
    boxes, weights = np.empty((count, 2, phi.shape[1])), np.empty(count)
    if lam > 0:
        _surround_runs(phi, shares, boxes, weights)
    return boxes, weights


@jit
def _surround_runs(phi: Array, shares: Array, boxes: Array, weights: Array) -> None:
    N = len(phi)
    for r in range(len(boxes)):
        i, j = r * _RUN, min((r + 1) * _RUN, N)
        for d in range(phi.shape[1]):
            low = high = phi[i, d]
            for k in range(i + 1, j):
                low, high = min(low, phi[k, d]), max(high, phi[k, d])
            boxes[r, 0, d], boxes[r, 1, d] = low, high
        top = shares[i]
        for k in range(i + 1, j):
            top = max(top, shares[k])
        total = 0.0
        for k in range(i, j):
            total += math.exp(shares[k] - top)
        weights[r] = top + math.log(total) if total > 0 else -np.inf


@jit
def _near(box: Array, lam: float, boxes: Array, weights: Array, kept: Array) -> tuple[int, float]:
    """The number of runs that matter in a box (2, S), whose numbers are kept[:n]; log of a bound of all others' sum.

    The bound is raised by 1e-3, far more than it is rounded.
    """
    count, S = len(boxes), box.shape[1]
    best = -np.inf
    for r in range(count):
        far = 0.0
        for d in range(S):
            y = max(boxes[r, 1, d] - box[0, d], box[1, d] - boxes[r, 0, d])
            far += y * y
        best = max(best, weights[r] - lam * far)
    limit = best - math.log(count) - _LOST
    n, lost = 0, 0.0
    for r in range(count):
        near = 0.0
        for d in range(S):
            y = max(0.0, max(boxes[r, 0, d] - box[1, d], box[0, d] - boxes[r, 1, d]))
            near += y * y
        upper = weights[r] - lam * near * (1 - 1e-14)
        kept[n] = r
        if upper < limit:
            lost += math.exp(upper - limit)
        else:
            n += 1
    return n, limit + math.log(lost) + 1e-3 if lost > 0 else -np.inf


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
    for batch in prange(-(-n // _BATCH)):
        start = np.int64(batch) * _BATCH
        _sums_of_batch(phi, shares, points, b, lam, ranks[start : start + _BATCH], boxes, weights, chunk, values, means)


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
    if len(boxes) > 1:
        box = np.empty((2, S))
        for d in range(S):
            low = high = points[ranks[0], d]
            for q in range(1, n):
                low, high = min(low, points[ranks[q], d]), max(high, points[ranks[q], d])
            box[0, d], box[1, d] = low, high
        runs, size = _near(box, lam, boxes, weights, kept)[0], _RUN
    y = np.zeros((n, wide))
    for q in range(n):
        for d in range(S):
            y[q, d] = points[ranks[q], d]
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


@ParallelKernel
def _expanded(
    phi: Array, shares: Array, y: Array, lam: float, half: Array, boxes: Array, weights: Array, found: Array
) -> None:
    n = len(y)
    for batch in prange(-(-n // _BATCH)):
        i = np.int64(batch) * _BATCH
        j = min(i + _BATCH, n)
        _expand_batch(phi, shares, y[i:j], lam, half, boxes, weights, found[i:j])


@jit
def _expand_batch(
    phi: Array, shares: Array, y: Array, lam: float, half: Array, boxes: Array, weights: Array, found: Array
) -> None:
    """Write value, shift (3), covariance (6), tilted moments (2), outer bound and log of the rest of every box."""
    N = len(phi)
    box = np.empty((2, 3))
    for d in range(3):
        low = high = y[0, d]
        for q in range(1, len(y)):
            low, high = min(low, y[q, d]), max(high, y[q, d])
        box[0, d], box[1, d] = low - half[d], high + half[d]
    kept = np.empty(len(boxes), np.int64)
    runs, rest = _near(box, lam, boxes, weights, kept)
    x, a, u, w = np.empty((3, runs * _RUN)), np.empty(runs * _RUN), np.empty(runs * _RUN), np.empty(runs * _RUN)
    count = 0
    for r in range(runs):
        for i in range(kept[r] * _RUN, min((kept[r] + 1) * _RUN, N)):
            x[0, count], x[1, count], x[2, count], a[count] = phi[i, 0], phi[i, 1], phi[i, 2], shares[i]
            count += 1
    radius = math.sqrt(half[0] * half[0] + half[1] * half[1] + half[2] * half[2])
    for q in range(len(y)):
        out = found[q]
        out[13] = rest
        if 2 * lam * radius * radius > _CUBIC * _CUBIC:
            _expand_wide(x[0], x[1], x[2], a, u, count, y[q], lam, half, out)
        else:
            _expand_narrow(x[0], x[1], x[2], a, u, w, count, y[q], lam, radius, out)


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
