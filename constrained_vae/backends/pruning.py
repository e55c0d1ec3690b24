"""The CPU map of squared distances at low temperature: tiles that cannot matter to a run of rows are left out of it.

Let l_a(x) = log pi_a - lambda ||x - psi_a||^2, and let B be the box around a run of 64 consecutive rows (or around
eight runs, searched first). For any two tiles l_a - l_b is linear in x, so its largest value over B is known exactly:
coordinate by coordinate, at one end of B. Since Z(x) >= exp l_b(x), the encoder entries of tile a in B are at most

    q_ia <= exp gap_a,    gap_a = max_B (l_a - l_b),    b the tile whose least l_b over B is largest.

Tile a is left out of B where gap_a < limit_a, and limit_a <= log(tol / K). So a row loses at most the share tol of Z_i,
and against the sums over all tiles, with W = sum_i rho_i and L = log(K / tol),

    0 <= F' - F <= 2 tol W;
    |E' - E| <= tol (W L + max(2 E, sum_i rho_i max(-log Z_i, 0))), because -q log q <= (tol / K) L for every entry
        left out, and H = log pi_a - log q - log Z_i;
    what is kept grows, by a factor of at most 1 / (1 - tol) in every row;
    a tile loses at most W exp limit_a of its mass, and of its sums that times the radius of the data.

The last is too much for a tile of little mass, whose reconstruction is the ratio of two small sums. Therefore tiles
for which W exp limit_a is more than 2^12 tol times their mass get four times the limit, and these tiles, no others,
are summed again, until there are none or the limit is where every kernel says exactly zero (exp(-650), float32
exp(-60)). With tol = 2^-60 (float32: 2^-33) a mass and a reconstruction are then good to 2^-48 (2^-21) as if nothing
had been left out, and F and E to a quarter of an eps; the energies, exponentials and sums are rounded by more.

Boxes are made anew in each call: rows may come in any order, but only `order` makes the boxes small.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from .._utils.arrays import Array
from .arithmetic import _add, _exp, _frozen, _jit, _max, _multiply_add

_RUN = 64  # rows; a multiple of the longest vector
_GROUP = 8  # runs whose common box is tried first
_SMALL = 2**20  # N K below which it is not worth the search
_SHORT = 8 * _RUN  # rows below which neither
_SAMPLES = 16  # runs that are searched to see whether it pays, at most
_PAYS = 0.65  # share of the pairs (row, tile) left, below which the search and smaller loops are paid for
_TWICE = 2.4  # cost of a pair where the exponentials do not fit in the buffer and are taken twice
_BUFFER = 2**19  # bytes of the exponentials of a run
_MEMORY = 15_000_000  # bytes, besides 4 K S numbers, of all arrays of a map together
_CHUNKS = 64  # at most; so many cores can share the work


def order(statistics: Array) -> Array:
    """An order of the rows in which every 64 consecutive ones, from the first on, lie close together.

    The leaves of a k-d tree, whose nodes are cut across their widest coordinate. About half a second for 10^6 rows in
    two dimensions; one more copy of the statistics is held.

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
        # A power of two of whole runs on the left: so groups of runs are nodes, too.
        left = _RUN * 2 ** (-(-(j - i) // _RUN) - 1).bit_length() // 2
        ranks = np.argpartition(node[widest], left)
        permutation[i:j] = permutation[i:j][ranks]
        for x in node:
            x[:] = x[ranks]
        nodes += [(i, i + left), (i + left, j)]
    return permutation


def expectations(phi: Array, rho: Array, tiles: Array, log_pi: Array, lam: Any) -> tuple[Array, Array] | None:
    """The sums of the map with energies lambda ||phi_i - psi_a||^2, or None where leaving out tiles would not pay.

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
        float64: sum_i rho_i q_ia (phi_i, 1); free energy and energy in nats.
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
    """All of one type, so that one compiled kernel serves them."""
    real = phi.dtype.type
    return _frozen(phi, real), _frozen(rho, np.float64), _frozen(tiles, real), _frozen(log_pi, real), real(lam)


def _tolerance(phi: Array) -> tuple[float, float]:
    """What a row may lose of Z_i, and the logarithm below which `_exp` is zero."""
    return (2.0**-33, -60.0) if phi.dtype == np.float32 else (2.0**-60, -650.0)


def _limits(phi: Array, log_pi: Array) -> Array:
    """The limits to begin with: whole numbers, and so exact in either precision."""
    K = len(log_pi)
    return np.full(K, -math.ceil(math.log(K / _tolerance(phi)[0])), phi.dtype)


def _chunks(phi: Array, K: int) -> int:
    """How many chunks the rows are cut into, from the sizes alone; as many as the memory admits, 0 if none."""
    (N, S), size = phi.shape, phi.itemsize
    shared = K * (16 * (S + 1) + (2 * S + 5) * size + 2)  # sums of a pass and their total; tiles, limits, flags
    each = K * (8 * (S + 1) + (S + 5) * size + 8) + min(K * _RUN * size, _BUFFER)
    return max(0, min(_CHUNKS, -(-N // (_GROUP * _RUN)), (_MEMORY + 4 * K * S * size - shared) // each))


def _pruned(phi: Array, rho: Array, tiles: Array, log_pi: Array, lam: Any) -> tuple[Array, Array]:
    """As `expectations`, whether it pays or not; no mass is zero."""
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


@_jit()
def _cost(phi: Array, rho: Array, tiles: Array, log_pi: Array, lam: float, limits: Array, samples: int) -> float:
    """Share of the pairs (row, tile) left in some runs, evenly spread; a pair taken twice counts accordingly."""
    (N, S), K = phi.shape, len(log_pi)
    box, scratch, kept = np.empty((2, S), phi.dtype), np.empty((2, K), phi.dtype), np.empty(K, np.int32)
    cost = 0.0
    for sample in range(samples):
        i = (2 * sample + 1) * (N // _RUN) // (2 * samples) * _RUN
        _surround(phi[i : i + _RUN], box)
        n = _search(box, tiles, log_pi, lam, limits, scratch, kept)
        cost += n if n * _RUN * phi.itemsize <= _BUFFER else _TWICE * n
    return cost / (samples * K)


@_jit(parallel=True)
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
        _chunk(c, len(totals), phi, rho, tiles, log_pi, lam, limits, wanted, sums[c], totals[c])


@_jit()
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
    """Adds groups c, c + chunks, ... of runs into sums (S + 1, K), where wanted (K,), and totals (2,)."""
    (N, S), K = phi.shape, len(log_pi)
    box, scratch = np.empty((2, S), phi.dtype), np.empty((2, K), phi.dtype)
    group, run = np.empty(K, np.int32), np.empty(K, np.int32)  # tiles kept
    near, near_log_pi, near_limits = np.empty(S * K, phi.dtype), np.empty(K, phi.dtype), np.empty(K, phi.dtype)
    q = np.empty((min(K, _BUFFER // (_RUN * phi.itemsize)), _RUN), phi.dtype)
    for start in range(c * _GROUP * _RUN, N, chunks * _GROUP * _RUN):
        stop = min(start + _GROUP * _RUN, N)
        _surround(phi[start:stop], box)
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
            _surround(phi[i:end], box)
            m = _search(box, psi, near_log_pi[:n], lam, near_limits[:n], scratch, run)
            for j in range(m):
                run[j] = group[run[j]]
            if _any(wanted, run[:m]):
                _run(phi[i:end], rho[i:end], tiles, log_pi, lam, run[:m], wanted, q, sums, totals)


@_jit()
def _any(flags: Array, indices: Array) -> bool:
    for a in indices:
        if flags[a]:
            return True
    return False


@_jit()
def _surround(phi: Array, box: Array) -> None:
    """The box of the rows: lower ends box[0], upper ends box[1]."""
    for d in range(phi.shape[1]):
        low = high = phi[0, d]
        for i in range(1, len(phi)):
            low, high = min(low, phi[i, d]), max(high, phi[i, d])
        box[0, d], box[1, d] = low, high


@_jit()
def _search(box: Array, tiles: Array, log_pi: Array, lam: float, limits: Array, scratch: Array, kept: Array) -> int:
    """How many tiles have gap_a >= limit_a, and which, in kept[:n]; those whose gap is not a number are kept, too.

    To gap_a is added what its rounding may take away. With y_a the distance from psi_a to the farthest corner of the
    box, the term of a coordinate is a product of two factors below y_a + y_b, with 4 roundings of eps / 2 at most
    relative to these; so the sum of S terms, times lambda, errs by less than (S + 12) eps lambda (y_a^2 + y_b^2).
    """
    S, K = box.shape[1], len(log_pi)
    real = tiles.dtype.type
    least, gap = scratch[0, :K], scratch[1, :K]
    least[:] = 0
    gap[:] = 0
    for d in range(S):
        low, high = box[0, d], box[1, d]
        for a in range(K):
            y = _max(tiles[d, a] - low, high - tiles[d, a])
            least[a] += y * y
    best = real(-np.inf)
    for a in range(K):
        least[a] = log_pi[a] - lam * least[a]  # of l_a over the box
        best = _max(best, least[a])
    b = 0
    for a in range(K):
        if least[a] == best:
            b = a
            break
    for d in range(S):
        low, high, z = box[0, d], box[1, d], tiles[d, b]
        for a in range(K):
            y = tiles[d, a]
            gap[a] += _max((y - z) * ((high - y) + (high - z)), (y - z) * ((low - y) + (low - z)))
    rounding = real((S + 12) * np.finfo(tiles.dtype).eps)
    n = 0
    for a in range(K):
        kept[n] = a
        # log pi <= 0, so that -least is at least lambda times the square of the distance.
        n += not ((log_pi[a] - log_pi[b]) + lam * gap[a] - rounding * (least[a] + best) < limits[a])
    return n


@_jit()
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
    """One run of up to 64 rows with the tiles kept; what fills it up weighs nothing.

    The innermost loops are over rows, not over tiles, of which there are few: no loop has a remainder, and sums over
    tiles and their maximum need no sum or maximum within a vector. (Their bound is not a constant, for the compiler
    would unroll them, slowly and to no gain.) q (., 64) holds all energies and exponentials, if it can; otherwise they
    are computed anew each time.
    """
    (N, S), K = phi.shape, len(kept)
    real = phi.dtype.type
    fits = K <= len(q)
    x = np.zeros((len(tiles), _RUN), phi.dtype)  # phi, padded to pairs
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
            t[i] = _max(t[i], log_pi[a] - H[i])
    for j in range(K):
        a, H = kept[j], q[j if fits else 0]
        if not fits:
            _energies(x, tiles, a, lam, H)
        for i in range(len(t)):
            h = H[i]
            p = _exp((log_pi[a] - h) - t[i])
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
                p[i] = _exp((log_pi[a] - p[i]) - t[i])
        for d in range(S + 1):
            total = real(0)
            for i in range(len(t)):
                total = _add(total, scaled[d, i] * p[i])
            sums[d, a] += total


@_jit()
def _energies(x: Array, tiles: Array, a: int, lam: float, H: Array) -> None:
    """H_ia = lambda ||phi_i - psi_a||^2 of 64 rows x (S, 64) and one tile."""
    for i in range(len(H)):
        y, z = x[0, i] - tiles[0, a], x[1, i] - tiles[1, a]
        H[i] = _multiply_add(z, z, y * y)
    for d in range(2, len(x), 2):
        for i in range(len(H)):
            y, z = x[d, i] - tiles[d, a], x[d + 1, i] - tiles[d + 1, a]
            H[i] = _multiply_add(z, z, _multiply_add(y, y, H[i]))
    for i in range(len(H)):
        H[i] *= lam
