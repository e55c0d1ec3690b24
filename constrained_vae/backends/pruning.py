"""Pruned CPU kernel for squared distances at low temperature: it skips the tiles that cannot matter to a run of rows.

Let l_a(x) = log pi_a - lambda ||x - psi_a||^2, and let B be the bounding box of a run of 64 consecutive rows (or of
eight runs, which are searched first). For any two tiles l_a - l_b is linear in x, so its maximum over B is known
exactly: in every coordinate it lies at one end of B. Since Z(x) >= exp l_b(x), the encoder entries of tile a satisfy

    q_ia <= exp gap_a,    gap_a = max_B (l_a - l_b),    b the tile whose smallest l_b over B is largest.

Tile a is skipped in B if gap_a < limit_a, where limit_a <= log(tol / K). So a row loses at most the share tol of Z_i.
Compared with the sums over all tiles, with W = sum_i rho_i and L = log(K / tol),

    0 <= F' - F <= 2 tol W;
    |E' - E| <= tol (W L + max(2 E, sum_i rho_i max(-log Z_i, 0))), because -q log q <= (tol / K) L for every skipped
        entry, and H = log pi_a - log q - log Z_i;
    the entries that are kept grow by a factor of at most 1 / (1 - tol);
    a tile loses at most W exp limit_a of its mass, and at most that times the radius of the data of its sums.

The last bound is too weak for a tile of little mass, whose reconstruction is the ratio of two small sums. Therefore the
limit of a tile is multiplied by four if W exp limit_a is more than 2^12 tol times its mass, and only these tiles are
summed again. This is repeated until no such tile is left, or until the limit is that below which every kernel returns
exactly zero (exp(-650), float32 exp(-60)). With tol = 2^-60 (float32: 2^-33) skipping then changes masses and
reconstructions by less than 2^-48 (2^-21), relative, and F and E by less than a quarter of an eps. The rounding of the
energies, exponentials and sums is larger than that.

The boxes are computed in every call. The rows may have any order, but only in that of `order` are the boxes small.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from .._utils.arrays import Array
from .arithmetic import add, exp, frozen, maximum, multiply_add
from .compilation import ParallelKernel, jit

_RUN = 64  # rows per run; a multiple of the length of the longest vector register
_GROUP = 8  # runs per group, whose common box is searched first
_SMALL = 2**20  # N K below which pruning does not pay
_SHORT = 8 * _RUN  # number of rows below which pruning does not pay
_SAMPLES = 16  # largest number of runs that are searched to estimate whether pruning pays
_PAYS = 0.65  # pruning pays if less than this share of the pairs (row, tile) is kept
_RECOMPUTED_COST = 2.4  # relative cost of a pair whose exponential is computed twice, since the buffer is too small
_BUFFER = 2**19  # bytes of the exponentials of a run
_MEMORY = 15_000_000  # bytes of all arrays of a map together, in addition to 4 K S numbers
_CHUNKS = 64  # largest number of chunks, and so of cores that can share the work


def order(statistics: Array) -> Array:
    """An order of the rows in which every run of 64 rows, counted from the first row, lies close together.

    It is the order of the leaves of a k-d tree, whose nodes are cut across their widest coordinate. It takes about half
    a second for 10^6 rows in two dimensions, and memory for a copy of the statistics.

    Parameters
    ----------
    statistics : (N, S) array

    Returns
    -------
    (N,) array of int
        A permutation, the same in every run.
    """
    columns = np.array(statistics.T, order="C")
    permutation = np.arange(columns.shape[1])
    nodes = [(0, len(permutation))]
    while nodes:
        i, j = nodes.pop()
        if j - i <= _RUN:
            continue
        node = columns[:, i:j]
        widths = [float(x.max() - x.min()) for x in node]
        widest = max(range(len(widths)), key=widths.__getitem__)
        if not widths[widest] > 0:
            continue
        # The left part has 2^n whole runs, so that groups of runs are nodes of the tree, too.
        left = _RUN * 2 ** (-(-(j - i) // _RUN) - 1).bit_length() // 2
        ranks = np.argpartition(node[widest], left)
        permutation[i:j] = permutation[i:j][ranks]
        for x in node:
            x[:] = x[ranks]
        nodes += [(i, i + left), (i + left, j)]
    return permutation


def expectations(phi: Array, rho: Array, tiles: Array, log_pi: Array, lam: Any) -> tuple[Array, Array] | None:
    """The sums of a map with energies lambda ||phi_i - psi_a||^2, or None if pruning would not pay.

    Parameters
    ----------
    phi : (N, S) array
        float64 or float32, the precision of the computation.
    rho : (N,) array
        Weights, non-negative, float64.
    tiles : (S + S % 2, K) array
        Reconstructions psi, transposed, with a last row of zeros if S is odd.
    log_pi : (K,) array
        Log masses, at most zero.
    lam : float
        Multiplier lambda > 0.

    Returns
    -------
    ((S + 1, K) array, (2,) array) or None
        In float64: sum_i rho_i q_ia (phi_i, 1); free energy and energy in nats.
    """
    N, K = len(phi), len(log_pi)
    if N * K < _SMALL or N < _SHORT or not _chunks(phi, K):
        return None
    alive = ~np.isneginf(log_pi)
    if not alive.any():
        return None
    whole = bool(alive.all())
    if not whole:
        tiles, log_pi = np.ascontiguousarray(tiles[:, alive]), log_pi[alive]
    arguments = _arguments(phi, rho, tiles, log_pi, lam)
    if not _cost(*arguments, _limits(phi, log_pi), max(1, min(_SAMPLES, N // _SHORT))) < _PAYS:
        return None
    sums, totals = _pruned(*arguments)
    if not whole:
        part, sums = sums, np.zeros((len(sums), K))
        sums[:, alive] = part
    return sums, totals


def _arguments(phi: Array, rho: Array, tiles: Array, log_pi: Array, lam: Any) -> tuple[Any, ...]:
    """The arguments of the kernels, converted to fixed types, so that every kernel is compiled once per precision."""
    real = phi.dtype.type
    return frozen(phi, real), frozen(rho, np.float64), frozen(tiles, real), frozen(log_pi, real), real(lam)


def _tolerance(phi: Array) -> tuple[float, float]:
    """The share `tol` of Z_i that a row may lose, and the argument below which `exp` returns zero."""
    return (2.0**-33, -60.0) if phi.dtype == np.float32 else (2.0**-60, -650.0)


def _limits(phi: Array, log_pi: Array) -> Array:
    """The initial limits: whole numbers, which both precisions represent exactly."""
    K = len(log_pi)
    return np.full(K, -math.ceil(math.log(K / _tolerance(phi)[0])), phi.dtype)


def _chunks(phi: Array, K: int) -> int:
    """Number of chunks of the rows, from the sizes alone; 0 if there is not enough memory for one."""
    (N, S), size = phi.shape, phi.itemsize
    shared = K * (16 * (S + 1) + (2 * S + 5) * size + 2)  # sums of a pass, their total, tiles, limits, flags
    each = K * (8 * (S + 1) + (S + 5) * size + 8) + min(K * _RUN * size, _BUFFER)
    return max(0, min(_CHUNKS, -(-N // (_GROUP * _RUN)), (_MEMORY + 4 * K * S * size - shared) // each))


def _pruned(phi: Array, rho: Array, tiles: Array, log_pi: Array, lam: Any) -> tuple[Array, Array]:
    """The sums of `expectations`, whether pruning pays or not; all prior masses must be positive."""
    (_, S), K = phi.shape, len(log_pi)
    tolerance, zero = _tolerance(phi)
    limits, wanted = _limits(phi, log_pi), np.ones(K, np.bool_)
    weight, chunks = rho.sum(), max(1, _chunks(phi, K))
    sums, totals = np.zeros((chunks, S + 1, K)), np.zeros((chunks, 2))
    _chunks_parallel(phi, rho, tiles, log_pi, lam, limits, wanted, sums, totals)
    result, total = sums.sum(axis=0), totals.sum(axis=0)
    while True:
        lost = weight * np.exp(limits.astype(np.float64))
        wanted = wanted & (lost > 2**12 * tolerance * result[S]) & (limits > zero)
        if not wanted.any():
            return result, total
        limits[wanted] = np.maximum(4 * limits[wanted], zero)
        sums[:] = 0
        _chunks_parallel(phi, rho, tiles, log_pi, lam, limits, wanted, sums, totals)
        result[:, wanted] = sums.sum(axis=0)[:, wanted]


@jit
def _cost(phi: Array, rho: Array, tiles: Array, log_pi: Array, lam: float, limits: Array, samples: int) -> float:
    """Share of the pairs (row, tile) that is kept, from evenly spaced runs; recomputed pairs count more."""
    (N, S), K = phi.shape, len(log_pi)
    box, scratch, kept = np.empty((2, S), phi.dtype), np.empty((2, K), phi.dtype), np.empty(K, np.int32)
    cost = 0.0
    for sample in range(samples):
        i = (2 * sample + 1) * (N // _RUN) // (2 * samples) * _RUN
        surround(phi[i : i + _RUN], box)
        n = _search(box, tiles, log_pi, lam, limits, scratch, kept)
        cost += n if n * _RUN * phi.itemsize <= _BUFFER else _RECOMPUTED_COST * n
    return cost / (samples * K)


@ParallelKernel
def _chunks_parallel(
    phi: Array,
    rho: Array,
    tiles: Array,
    log_pi: Array,
    lam: float,
    limits: Array,
    wanted: Array,
    sums: Array,
    totals: Array,
) -> None:
    for c in prange(len(totals)):
        # prange counts in unsigned numbers, for which Numba would compile `_chunk` a second time.
        _chunk(np.int64(c), len(totals), phi, rho, tiles, log_pi, lam, limits, wanted, sums[c], totals[c])


@jit
def _chunk(
    c: int,
    chunks: int,
    phi: Array,
    rho: Array,
    tiles: Array,
    log_pi: Array,
    lam: float,
    limits: Array,
    wanted: Array,
    sums: Array,
    totals: Array,
) -> None:
    """Add the groups c, c + chunks, ... of runs into totals (2,) and, for the tiles wanted (K,), sums (S + 1, K)."""
    (N, S), K = phi.shape, len(log_pi)
    box, scratch = np.empty((2, S), phi.dtype), np.empty((2, K), phi.dtype)
    group, run = np.empty(K, np.int32), np.empty(K, np.int32)  # numbers of the tiles kept
    near, near_log_pi, near_limits = np.empty(S * K, phi.dtype), np.empty(K, phi.dtype), np.empty(K, phi.dtype)
    q = np.empty((min(K, _BUFFER // (_RUN * phi.itemsize)), _RUN), phi.dtype)
    for start in range(c * _GROUP * _RUN, N, chunks * _GROUP * _RUN):
        stop = min(start + _GROUP * _RUN, N)
        surround(phi[start:stop], box)
        n = _search(box, tiles, log_pi, lam, limits, scratch, group)
        if not _any(wanted, group[:n]):
            continue
        psi = near[: S * n].reshape(S, n)
        for j in range(n):
            a = group[j]
            near_log_pi[j], near_limits[j] = log_pi[a], limits[a]
            for d in range(S):
                psi[d, j] = tiles[d, a]
        for i in range(start, stop, _RUN):
            end = min(i + _RUN, stop)
            surround(phi[i:end], box)
            m = _search(box, psi, near_log_pi[:n], lam, near_limits[:n], scratch, run)
            for j in range(m):
                run[j] = group[run[j]]
            if _any(wanted, run[:m]):
                _run(phi[i:end], rho[i:end], tiles, log_pi, lam, run[:m], wanted, q, sums, totals)


@jit
def _any(flags: Array, indices: Array) -> bool:
    for a in indices:
        if flags[a]:
            return True
    return False


@jit
def surround(phi: Array, box: Array) -> None:
    """Write the bounding box of the rows: lower ends to box[0], upper ends to box[1]."""
    for d in range(phi.shape[1]):
        low = high = phi[0, d]
        for i in range(1, len(phi)):
            low, high = min(low, phi[i, d]), max(high, phi[i, d])
        box[0, d], box[1, d] = low, high


@jit
def _search(box: Array, tiles: Array, log_pi: Array, lam: float, limits: Array, scratch: Array, kept: Array) -> int:
    """The number n of tiles with gap_a >= limit_a; kept[:n] are their numbers. A tile whose gap is NaN is kept, too.

    A bound of the rounding error is added to gap_a. Let y_a be the distance from psi_a to the farthest corner of the
    box. The term of a coordinate is a product of two factors below y_a + y_b, with at most 4 roundings of eps / 2
    relative to these factors. Hence the error of the sum of S terms, times lambda, is below
    (S + 12) eps lambda (y_a^2 + y_b^2).
    """
    S, K = box.shape[1], len(log_pi)
    real = tiles.dtype.type
    least, gap = scratch[0, :K], scratch[1, :K]
    least[:] = 0
    gap[:] = 0
    for d in range(S):
        low, high = box[0, d], box[1, d]
        for a in range(K):
            y = maximum(tiles[d, a] - low, high - tiles[d, a])
            least[a] += y * y
    best = real(-np.inf)
    for a in range(K):
        least[a] = log_pi[a] - lam * least[a]  # the smallest l_a over the box
        best = maximum(best, least[a])
    b = 0
    for a in range(K):
        if least[a] == best:
            b = a
            break
    for d in range(S):
        low, high, z = box[0, d], box[1, d], tiles[d, b]
        for a in range(K):
            y = tiles[d, a]
            gap[a] += maximum((y - z) * ((high - y) + (high - z)), (y - z) * ((low - y) + (low - z)))
    rounding = real((S + 12) * np.finfo(tiles.dtype).eps)
    n = 0
    for a in range(K):
        kept[n] = a
        # Since log pi <= 0, -least is at least lambda times the squared distance.
        n += not ((log_pi[a] - log_pi[b]) + lam * gap[a] - rounding * (least[a] + best) < limits[a])
    return n


@jit
def _run(
    phi: Array,
    rho: Array,
    tiles: Array,
    log_pi: Array,
    lam: float,
    kept: Array,
    wanted: Array,
    q: Array,
    sums: Array,
    totals: Array,
) -> None:
    """Add one run of up to 64 rows with the tiles kept; rows that fill up the run have weight zero.

    The innermost loops are over rows, not over tiles, of which there are few. Therefore no loop has a remainder, and
    the sum and the maximum over tiles need no reduction within a vector. (The bound of the loops is not a constant,
    since the compiler would then unroll them, which takes long and gains no speed.) q (., 64) holds all energies and
    exponentials if it is large enough, otherwise they are computed again each time.
    """
    (N, S), K = phi.shape, len(kept)
    real = phi.dtype.type
    fits = K <= len(q)
    x = np.zeros((len(tiles), _RUN), phi.dtype)  # phi, padded to pairs of coordinates
    scaled = np.zeros((S + 1, _RUN), phi.dtype)  # rho_i e^t_i / Z_i (phi_i, 1)
    t = np.full(_RUN, -np.inf, phi.dtype)  # the largest log pi_a - H_ia of a row
    Z, energy = np.zeros(_RUN, phi.dtype), np.zeros(_RUN, phi.dtype)  # up to the factor e^t
    for d in range(S):
        for i in range(len(t)):
            x[d, i] = phi[min(i, N - 1), d]
    for j in range(K):
        a, H = kept[j], q[j if fits else 0]
        _energies(x, tiles, a, lam, H)
        for i in range(len(t)):
            t[i] = maximum(t[i], log_pi[a] - H[i])
    for j in range(K):
        a, H = kept[j], q[j if fits else 0]
        if not fits:
            _energies(x, tiles, a, lam, H)
        for i in range(len(t)):
            h = H[i]
            p = exp((log_pi[a] - h) - t[i])
            Z[i] += p
            energy[i] += p * h if p > 0 else real(0)
            H[i] = p
    for i in range(N):
        totals[0] -= rho[i] * (np.float64(t[i]) + math.log(np.float64(Z[i])))
        totals[1] += rho[i] * (np.float64(energy[i]) / np.float64(Z[i]))
        scaled[S, i] = rho[i] / Z[i]
    for d in range(S):
        for i in range(len(t)):
            scaled[d, i] = x[d, i] * scaled[S, i]
    for j in range(K):
        a, p = kept[j], q[j if fits else 0]
        if not wanted[a]:
            continue
        if not fits:
            _energies(x, tiles, a, lam, p)
            for i in range(len(t)):
                p[i] = exp((log_pi[a] - p[i]) - t[i])
        for d in range(S + 1):
            total = real(0)
            for i in range(len(t)):
                total = add(total, scaled[d, i] * p[i])
            sums[d, a] += total


@jit
def _energies(x: Array, tiles: Array, a: int, lam: float, H: Array) -> None:
    """Write H_ia = lambda ||phi_i - psi_a||^2 of 64 rows x (S, 64) and one tile to H (64,)."""
    for i in range(len(H)):
        y, z = x[0, i] - tiles[0, a], x[1, i] - tiles[1, a]
        H[i] = multiply_add(z, z, y * y)
    for d in range(2, len(x), 2):
        for i in range(len(H)):
            y, z = x[d, i] - tiles[d, a], x[d + 1, i] - tiles[d + 1, a]
            H[i] = multiply_add(z, z, multiply_add(y, y, H[i]))
    for i in range(len(H)):
        H[i] *= lam
