"""Compiled passes of `neighbours`: the pairs (row, tile) that count, found from lists or from a look at all tiles.

Rows are taken in blocks. For every row of a block, tiles are chosen that may count: from its list, or from distances to
all tiles by a matrix product. `_settle` then computes the energies of the chosen tiles and keeps the pairs that count.
Which tiles are chosen does not matter as long as those that count are among them: the sums have the same bits with any
lists.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numba import prange

from .._utils.arrays import Array
from .arithmetic import add, assign, exp, maximum, multiply_add
from .compilation import ParallelKernel, jit

BLOCK = 512  # rows per block
_LOOK = 64  # rows per matrix product with all tiles
_SHORT, _LONGER = 24, 1.5  # tiles of a list: so many, and so many for every pair that counts
_UP, _DOWN = 1 + 2.0**-20, 1 - 2.0**-20  # for numbers that are rounded to float32, and then added once
_TINY = 1e-35  # above the rounding of denormal numbers in float32

Arrays: TypeAlias = tuple[Array, ...]
Numbers: TypeAlias = tuple[float, ...]


@ParallelKernel
def map_parallel(
    data: Arrays,
    tiles: Arrays,
    lists: Arrays,
    state: Arrays,
    moved: Arrays,
    numbers: Numbers,
    build: bool,
    sums: Array,
    mass: Array,
    totals: Array,
) -> None:
    """Add all rows into sums (chunks, K, S), mass (chunks, K), totals (chunks, 4): F, E, rows looked at, and failures.

    A map fails if too many pairs count, or if energies are not finite.
    """
    N, chunks = len(data[0]), len(totals)
    for c in prange(chunks):
        i, j = np.int64(c) * N // chunks, (np.int64(c) + 1) * N // chunks
        _chunk(i, j, data, tiles, lists, state, moved, numbers, build, sums[c], mass[c], totals[c])


@jit
def _chunk(
    begin: int,
    end: int,
    data: Arrays,
    tiles: Arrays,
    lists: Arrays,
    state: Arrays,
    moved: Arrays,
    numbers: Numbers,
    build: bool,
    sums: Array,
    mass: Array,
    totals: Array,
) -> None:
    (phi, squares, rho), (psi, tile_squares, log_pi, gap) = data, tiles
    first, length, beyond, ids, distances = lists
    margin, reach, best, peak, factor = state
    delta, step, mobile, mobile_psi = moved
    rest, lam, cut, top, slack = numbers
    (N, S), K = phi.shape, len(psi)
    most = min(BLOCK, end - begin)
    # The pairs of a block; more of them would mean that lists do not pay.
    size = most * (K // 4) + K + 4
    chosen, q, logits = np.empty(size, np.uint16), np.empty(size, psi.dtype), np.empty(K + 4, psi.dtype)
    place, count, missed = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    Z, energy = np.empty(most), np.empty(most)
    near = np.empty((most if len(mobile) else 0, len(mobile)), psi.dtype)
    points, products = np.empty((min(_LOOK, most), S), psi.dtype), np.empty((min(_LOOK, most), K), psi.dtype)
    width = len(ids) // N
    used, excess = begin * width, 1.0
    for start in range(begin, end, most):
        stop = min(start + most, end)
        n: Any = np.int64(0)  # for the type of a plain 0 Numba would compile all callees a second time
        n_missed = n
        if len(mobile):
            np.dot(phi[start:stop], mobile_psi.T, near[: stop - start])
        for i in range(start, stop):
            r = i - start
            place[r], count[r] = n, 0
            if rho[i] == 0:
                continue
            if length[i] < 0:
                missed[n_missed] = i
                n_missed += 1
                continue
            if n + K + 4 > size:
                totals[3] += 1
                return
            b = np.int64(best[i])
            away = np.float64(reach[i]) + np.float64(step[b])
            nats = _nats(np.float64(log_pi[b]) - lam * (away * away), top, cut, slack)
            R, m = _radius(nats, lam), n
            for j in range(first[i], first[i] + length[i]):
                a = ids[j]
                chosen[m] = a
                m += not (distances[j] - delta[a] > R)
            if len(mobile):
                m = _add_mobile(squares[i], near, r, mobile, tile_squares, gap, lam, nats, chosen, n, m)
            kept, t, Z[r], energy[r], b, lowest = _settle(phi, i, psi, log_pi, lam, cut, chosen, q, logits, n, m)
            R = _radius(_nats(np.float64(t), top, cut, slack), lam)
            margin[i] = beyond[i] - R
            if kept > 0 and beyond[i] - rest > R:
                count[r], peak[i], best[i], reach[i] = kept, t, b, _radius(np.float64(lowest), lam)
                n += kept
            else:
                missed[n_missed] = i
                n_missed += 1
        totals[2] += n_missed
        for group in range(0, n_missed, _LOOK):
            here = min(_LOOK, n_missed - group)
            for g in range(here):
                assign(points[g], phi[missed[group + g]])
            np.dot(points[:here], psi.T, products[:here])
            for g in range(here):
                i = missed[group + g]
                r = i - start
                if n + K + 4 > size:
                    totals[3] += 1
                    return
                # ||x||^2 + ||psi||^2 - 2 x . psi is too small by at most twice what was taken off the squares.
                doubt = 3 * slack * (np.float64(squares[i]) + np.float64(tile_squares[K]))
                least = _distances(products, g, squares[i], tile_squares, gap, lam)
                nats = _nats(top - np.float64(least) - lam * doubt, top, cut, slack)
                limit = nats * (1 + excess) if build else nats
                within = _within(products, g, limit / lam, chosen, n)
                if build:
                    first[i] = used
                    room = min(end * width - used, K // 4)
                    length[i], taken, excess = _list(
                        products, g, nats / lam, excess, chosen, n, within, ids, distances, used, room
                    )
                    beyond[i] = np.float32(math.sqrt(nats / lam * (1 + taken)) * _DOWN)
                    used += max(length[i], 0)
                m = n
                for j in range(n, within):
                    a = chosen[j]
                    chosen[m] = a
                    m += not (lam * products[g, a] + gap[a] > nats)
                kept, t, Z[r], energy[r], b, lowest = _settle(phi, i, psi, log_pi, lam, cut, chosen, q, logits, n, m)
                if kept == 0:  # energies that are not finite
                    totals[3] += 1
                    return
                margin[i] = beyond[i] - _radius(_nats(np.float64(t), top, cut, slack), lam)
                place[r], count[r], peak[i], best[i], reach[i] = n, kept, t, b, _radius(np.float64(lowest), lam)
                n += kept
        for r in range(stop - start):
            i, n = start + r, place[r]
            if count[r] == 0:
                continue
            totals[0] -= rho[i] * (np.float64(peak[i]) + math.log(Z[r]))
            totals[1] += rho[i] * (energy[r] / Z[r])
            factor[i] = rho[i] / Z[r]
            for j in range(n, n + count[r]):
                a, w = chosen[j], factor[i] * q[j]
                mass[a] += w
                for d in range(S):
                    sums[a, d] = multiply_add(w, phi[i, d], sums[a, d])


@jit
def _nats(t: float, top: float, cut: float, slack: float) -> float:
    """How large lambda d^2 + gap_a can be for a tile that counts, where log pi_b - H_b is at least t for some tile b.

    log pi_a - H_a >= t - cut means H_a + gap_a <= top - t + cut, gap_a = top - log pi_a, up to rounding: the energy has
    a relative error of (S + 4) eps, and each sum is rounded once more. `slack` is (S + 16) eps.
    """
    return (top - t + cut) * (1 + slack) + slack * (abs(t) + abs(top) + cut)


@jit
def _radius(nats: float, lam: float) -> Any:
    """The distance at which lambda d^2 is so large, rounded up."""
    return np.float32(math.sqrt(nats / lam) * _UP + _TINY)


@jit
def _add_mobile(
    square: float,
    near: Array,
    r: int,
    mobile: Array,
    squares: Array,
    gap: Array,
    lam: float,
    nats: float,
    ids: Array,
    n: int,
    m: int,
) -> int:
    """Append the mobile tiles that may count to ids[n:m], and sort these; near[r] are products with the row."""
    before = m
    for k in range(len(mobile)):
        a = mobile[k]
        ids[m] = a
        m += not (lam * ((square + squares[a]) - 2 * near[r, k]) + gap[a] > nats)
    for j in range(before, m):  # insertion: both parts are in order, and the second one is short
        a, k = ids[j], j
        while k > n and ids[k - 1] > a:
            ids[k] = ids[k - 1]
            k -= 1
        ids[k] = a
    return m


@jit
def _settle(
    phi: Array,
    i: int,
    psi: Array,
    log_pi: Array,
    lam: float,
    cut: float,
    ids: Array,
    q: Array,
    logits: Array,
    n: int,
    m: int,
) -> tuple[int, float, float, float, Any, float]:
    """Energies of the chosen tiles ids[n:m]; keep those with log pi - H >= t - cut, and write q Z / e^t for these.

    Returns the number that is kept, t, Z / e^t, the energy times Z / e^t, and the tile of the largest with its energy.
    """
    S, real = phi.shape[1], psi.dtype.type
    t, best, lowest, kept = real(-np.inf), np.int64(0), real(0), n
    for j in range(m, n + (m - n + 3) // 4 * 4):  # whole groups of four, all computed in one way
        ids[j] = ids[n]
    for j in range(n, m, 4):
        a, b, c, e = np.int64(ids[j]), np.int64(ids[j + 1]), np.int64(ids[j + 2]), np.int64(ids[j + 3])
        s0 = s1 = s2 = s3 = real(0)
        for d in range(S):
            x = phi[i, d]
            y0, y1, y2, y3 = x - psi[a, d], x - psi[b, d], x - psi[c, d], x - psi[e, d]
            s0, s1, s2, s3 = add(s0, y0 * y0), add(s1, y1 * y1), add(s2, y2 * y2), add(s3, y3 * y3)
        q[j], q[j + 1], q[j + 2], q[j + 3] = lam * s0, lam * s1, lam * s2, lam * s3
    for j in range(n, m):
        logit = log_pi[ids[j]] - q[j]
        if logit > t:
            t, best, lowest = logit, np.int64(ids[j]), q[j]
    for j in range(n, m):
        a, H = ids[j], q[j]
        ids[kept], q[kept], logits[kept - n] = a, H, log_pi[a] - H
        kept += logits[kept - n] - t >= -cut
    Z = energy = real(0)
    for j in range(kept - n):
        H = q[n + j]
        p = exp(logits[j] - t)
        Z = add(Z, p)
        energy = add(energy, p * H if p > 0 else real(0))
        q[n + j] = p
    return kept - n, t, Z, energy, best, lowest


@jit
def _distances(products: Array, g: int, square: float, squares: Array, gap: Array, lam: float) -> Any:
    """Turn products of row g with all tiles into lower bounds of d^2, and return the least lambda d^2 + gap."""
    least = products.dtype.type(np.inf)
    for a in range(products.shape[1]):
        d2 = (square + squares[a]) - 2 * products[g, a]
        products[g, a] = d2
        least = -maximum(-least, -(lam * d2 + gap[a]))
    return least


@jit
def _within(d2: Array, g: int, limit: float, ids: Array, n: int) -> int:
    """Write the tiles with d2[g] up to a limit to ids[n:m], and return m."""
    for a in range(d2.shape[1]):
        ids[n] = a
        n += not (d2[g, a] > limit)
    return n


@jit
def _list(
    d2: Array,
    g: int,
    needed: float,
    excess: float,
    chosen: Array,
    n: int,
    m: int,
    ids: Array,
    distances: Array,
    used: int,
    room: int,
) -> tuple[int, float, float]:
    """Write the list of a row from the tiles chosen[n:m], whose d2 is at most needed (1 + excess).

    Returns its length, its own excess, and the excess with which the next row begins. The list is longer than needed,
    since it then lasts longer. Its length is -1 if the room does not suffice for what is needed.
    """
    count = 0
    for j in range(n, m):
        count += d2[g, chosen[j]] <= needed
    wanted = min(room, _SHORT + int(_LONGER * count))
    if count > wanted:
        return -1, excess, excess
    length, following = m - n, excess
    growth = 1.05 if length < 0.75 * wanted else 1.0 if length <= wanted else 0.95
    while length > wanted:
        excess *= 0.8
        if excess < 1e-3:
            return -1, 0.0, growth * following
        length = 0
        for j in range(n, m):
            length += d2[g, chosen[j]] <= needed * (1 + excess)
    k = used
    for j in range(n, m):
        square = np.float64(d2[g, chosen[j]])
        if square <= needed * (1 + excess):
            ids[k], distances[k] = chosen[j], np.float32(math.sqrt(max(square, 0.0)) * _DOWN)
            k += 1
    return k - used, excess, following * growth


@ParallelKernel
def columns_parallel(
    phi: Array,
    psi: Array,
    log_pi: Array,
    lam: float,
    wanted: Array,
    peak: Array,
    factor: Array,
    sums: Array,
    mass: Array,
) -> None:
    """Sums (chunks, n, S) and mass (chunks, n) of some tiles over all rows, where t and rho / Z are known."""
    N, chunks = len(phi), len(mass)
    for c in prange(chunks):
        for i in range(np.int64(c) * N // chunks, (np.int64(c) + 1) * N // chunks):
            if factor[i] > 0:
                _columns(phi, i, psi, log_pi, lam, wanted, peak[i], factor[i], sums[c], mass[c])


@jit
def _columns(
    phi: Array,
    i: int,
    psi: Array,
    log_pi: Array,
    lam: float,
    wanted: Array,
    peak: float,
    factor: float,
    sums: Array,
    mass: Array,
) -> None:
    for k in range(len(wanted)):
        a, square = wanted[k], psi.dtype.type(0)
        for d in range(phi.shape[1]):
            y = phi[i, d] - psi[a, d]
            square = add(square, y * y)
        w = factor * exp((log_pi[a] - lam * square) - peak)
        if w > 0:
            mass[k] += w
            for d in range(phi.shape[1]):
                sums[k, d] = multiply_add(w, phi[i, d], sums[k, d])
