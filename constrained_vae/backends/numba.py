"""The CPU backend: (T1), (T5) and the weighted statistics of (T4) in one pass over the rows, compiled by Numba.

The sizes N, K, S alone determine how the work is divided, not the number of threads, and the contributions of several
threads are added in a fixed order. Therefore the bits are the same in every run, with any number of threads. There are
three kernels:

- `few`, for few statistics: it computes, exponentiates and sums the K energies of a row while they lie in the fastest
  cache. The rows are divided into chunks, each of which adds into its own accumulators.
- `many`, for many statistics: it passes blocks of rows through two matrix products, in chunks as above.
- `_shared`, for much work if memory or rows do not suffice for two chunks (few tiles) or four (many tiles): the threads
  share one block of rows after another, and one accumulator. They multiply by pieces of the tiles, encode pieces of the
  rows, and multiply again.

At low temperature two more leave out the tiles that cannot count: `pruning` in few dimensions, `neighbours` in many.

With float32 statistics these quantities are float32: the energies, their exponentials, and their sums over the tiles of
a row and over a few hundred rows. Sums over more rows are float64.

An encoder entry below exp(-650) of the largest in its row (float32: exp(-60)) is exactly zero. Therefore no denormal
number arises (processors are tens of times slower on these), and such a tile adds exactly zero to its mass and to the
energy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from .._utils.arrays import Array
from .._utils.blas import single_threaded
from .._utils.chunks import FEW, SMALL, of_few, of_many, of_shared
from .._utils.device import check_on_host
from .._utils.scratch import empty
from ..equations import Expectations
from . import descent, pruning
from .arithmetic import frozen
from .boxes import expansions as expansions, polynomials as polynomials, proof_rows as proof_rows
from .compilation import ParallelKernel, jit
from .coverage import coverage as coverage, log_sums as log_sums
from .dense_kernels import Arrays, encode, few, many
from .moments import are_few as are_few, deviation_moments as deviation_moments
from .neighbours import Neighbours
from .overlaps import overlaps as overlaps

_SORTED_STATISTICS = 4  # largest S for which rows are sorted; at S = 5 pruning gains only a factor 1.4 to 2
_QUICK = 4  # size in units of SMALL up to which one thread in `steps` is as fast as two threads and the Python code
_WORTH_SORTING = 512  # smallest number of rows that are sorted


def expectations(
    statistics: Array,
    offset: Array,
    weights: Array,
    v: Array,
    b: Array,
    log_masses: Array,
    quadratic: float | None = None,
    kept: Neighbours | None = None,
) -> Expectations:
    """Expectations of all rows; `constrained_vae.backends` documents the arguments.

    Parameters
    ----------
    statistics : (N, S) array
        If they are float32, the computation is in float32, otherwise in float64. Contiguous statistics and offset of
        that dtype and contiguous float64 weights are not copied.
    offset, weights : (N,) arrays
    v : (K, S) array
    b, log_masses : (K,) arrays
    quadratic : float, optional
        Multiplier lambda of a squared distance. With up to eight statistics the energies are then computed from
        differences, with an error of eps lambda R ||phi - psi||, where R is the radius of the data; the error of the
        linear form is eps lambda R^2.
    kept : Neighbours, optional
        Lists of near tiles for these statistics, from `keep`: with them a squared distance costs less at low
        temperature. Contiguous read-only statistics must be those that `keep` was given.

    Returns
    -------
    Expectations
        Mass and sums in the dtype of the computation; free energy and energy are floats, in nats.
    """
    if not (type(statistics) is type(offset) is type(weights) is type(v) is type(b) is type(log_masses) is np.ndarray):
        check_on_host(statistics=statistics, offset=offset, weights=weights, v=v, b=b, log_masses=log_masses)
    real = np.float32 if statistics.dtype == np.float32 else np.float64
    phi, s, rho = frozen(statistics, real), frozen(offset, real), frozen(weights, np.float64)
    b, log_pi = frozen(b, real), frozen(log_masses, real)
    if phi.shape[1] <= FEW and phi.size * len(b) < SMALL - 8 * len(phi) * len(b):
        mass, sums = np.empty(len(b), real), np.empty((len(b), phi.shape[1]), real)
        totals = _few_alone(phi, s, rho, frozen(v, real), b, log_pi, real(quadratic or 0), mass, sums)
        return Expectations(mass, sums, *totals)
    near = None
    if kept is not None and quadratic and kept.phi is phi:
        near = single_threaded(kept.expectations, rho, frozen(v / (2 * quadratic), real), log_pi, quadratic)
    if near is not None:
        mass, sums, totals = near
        totals = totals[None]
    elif phi.shape[1] <= FEW:
        mass, sums, totals = _with_few(phi, s, rho, v, b, log_pi, quadratic)
    else:
        mass, sums, totals = single_threaded(_with_many, phi, s, rho, v, b, log_pi)
    free_energy, energy = totals[0].tolist() if len(totals) == 1 else totals.sum(axis=0).tolist()
    return Expectations(mass.astype(real), sums.astype(real, order="C"), free_energy, energy)


def are_quick(N: int, K: int, S: int) -> bool:
    """Whether a map is so small that `steps` saves time; one thread computes it."""
    return N * K * (S + 8) < _QUICK * SMALL


def steps(data: Arrays, lam: float, history: Arrays, *rest: Any) -> descent.Steps | None:
    """Accelerated steps in one call, see `descent`."""
    (N, S), K = data[0].shape, len(rest[1][0])
    rows = 0 if S <= FEW else of_many(N, K, S, 8)[1]
    return descent.steps(data, lam, rows, history, *rest)


def order(phi: Array) -> Array | None:
    """An order of the rows in which neighbours lie together, so that `pruning` can skip tiles; None if S > 4."""
    return None if phi.shape[1] > _SORTED_STATISTICS or len(phi) < _WORTH_SORTING else pruning.order(phi)


def keep(phi: Array) -> Neighbours | None:
    """What the kernel keeps between maps of the same rows: lists of near tiles, unless `pruning` does without them."""
    return Neighbours(phi) if phi.shape[1] > _SORTED_STATISTICS else None


def _with_few(phi: Array, s: Array, rho: Array, v: Array, b: Array, log_pi: Array, quadratic: float | None) -> Arrays:
    """Mass (K,), sums (K, S), and contributions (., 2) to free energy and energy."""
    (N, S), K, real = phi.shape, len(b), phi.dtype.type
    multiplier = real(quadratic or 0)
    tiles = np.empty((S + S % 2, K), real)  # `few` takes statistics in pairs
    tiles[S:] = 0
    np.divide(v.T, 2 * quadratic if quadratic and multiplier > 0 else 1, out=tiles[:S], casting="same_kind")
    if multiplier > 0 and (pruned := pruning.expectations(phi, rho, tiles, log_pi, multiplier)) is not None:
        total, parts = pruned
        return total[S], total[:S].T, parts[None]
    chunks = of_few(N, K, S, np.dtype(real).itemsize)
    sums, totals = np.zeros((chunks, S + 1, K)), np.zeros((chunks, 2))
    arguments = phi, s, rho, tiles, b, log_pi, multiplier
    if chunks == 1:
        few(*arguments, sums[0], totals[0])
    else:
        _few_parallel(*arguments, sums, totals)
    return _added(sums, totals)


def _with_many(phi: Array, s: Array, rho: Array, v: Array, b: Array, log_pi: Array) -> Arrays:
    """The same quantities as `_with_few`, always computed from the linear form."""
    (N, S), K, real = phi.shape, len(b), phi.dtype.type
    data = phi, s, rho
    chunks, rows = of_many(N, K, S, np.dtype(real).itemsize)
    if not chunks:
        scratch, mass, sums, totals = _shared_arrays(N, K, S, real)
        _shared(data, (frozen(v, real), b, log_pi), scratch, mass, sums, totals)
        return mass, sums, totals
    tiles = np.array(v.T, real, order="C"), b, log_pi
    scratch, sums, totals = _many_arrays(chunks, rows, K, S, real)
    if chunks == 1:
        many(data, tiles, tuple(array[0] for array in scratch), sums[0], totals[0])
    else:
        _many_parallel(data, tiles, scratch, sums, totals)
    return _added(sums, totals)


def _added(sums: Array, totals: Array) -> Arrays:
    """Mass (K,), sums (K, S) and totals; the accumulators (chunks, S + 1, K) are added in order, in place."""
    for chunk in sums[1:]:
        sums[0] += chunk
    return sums[0, -1], sums[0, :-1].T, totals


def _many_arrays(chunks: int, rows: int, K: int, S: int, real: type) -> tuple[Arrays, Array, Array]:
    """Scratch and accumulators of `many`, separate for every chunk."""
    shapes = {"encoder": (rows, K), "scaled": (rows, S + 1), "product": (S + 1, K)}
    scratch: Arrays = tuple(empty(name, (chunks, *shape), real) for name, shape in shapes.items())
    sums = empty("sums", (chunks, S + 1, K), np.float64)
    sums[:] = 0
    return scratch, sums, np.zeros((chunks, 2))


def _shared_arrays(N: int, K: int, S: int, real: type) -> tuple[Arrays, Array, Array, Array]:
    """Scratch and accumulators of `_shared`."""
    pieces, size, tasks, rows, teams = of_shared(N, K, S, np.dtype(real).itemsize)
    shapes = (pieces, rows * size), (teams, K), (tasks, size, S)
    return tuple(np.empty(shape, real) for shape in shapes), np.zeros(K), np.zeros((K, S)), np.zeros((teams, 2))


@jit
def _few_alone(
    phi: Array, s: Array, rho: Array, v: Array, b: Array, log_pi: Array, lam: float, mass: Array, found: Array
) -> tuple[float, float]:
    """All rows on one thread, for small problems: write mass (K,) and sums (K, S), return free energy and energy.

    No array is returned: Numba makes one by a call into Python, in which it would lose a Ctrl-C.
    """
    K, S = v.shape
    scale = 2 * lam if lam > 0 else phi.dtype.type(1)
    tiles = np.zeros((S + S % 2, K), phi.dtype)
    for a in range(K):
        for d in range(S):
            tiles[d, a] = v[a, d] / scale
    sums, totals = np.zeros((S + 1, K)), np.zeros(2)
    few(phi, s, rho, tiles, b, log_pi, lam, sums, totals)
    for a in range(K):
        mass[a] = sums[S, a]
        for d in range(S):
            found[a, d] = sums[d, a]
    return totals[0], totals[1]


@ParallelKernel
def _few_parallel(
    phi: Array, s: Array, rho: Array, tiles: Array, b: Array, log_pi: Array, lam: float, sums: Array, totals: Array
) -> None:
    N, chunks = len(phi), len(totals)
    for c in prange(chunks):
        i, j = c * N // chunks, (c + 1) * N // chunks
        few(phi[i:j], s[i:j], rho[i:j], tiles, b, log_pi, lam, sums[c], totals[c])


@ParallelKernel
def _many_parallel(data: Arrays, tiles: Arrays, scratch: Arrays, sums: Array, totals: Array) -> None:
    (phi, s, rho), (q, scaled, product) = data, scratch
    N, chunks = len(phi), len(totals)
    for c in prange(chunks):
        i, j = c * N // chunks, (c + 1) * N // chunks
        many((phi[i:j], s[i:j], rho[i:j]), tiles, (q[c], scaled[c], product[c]), sums[c], totals[c])


@ParallelKernel
def _shared(data: Arrays, tiles: Arrays, scratch: Arrays, mass: Array, sums: Array, totals: Array) -> None:
    """Add all rows into mass (K,) and sums (K, S); each task owns some tiles, each team some rows of every block.

    q[p] holds the columns of a block's q that belong to piece p of the tiles, contiguously, row after row.
    """
    (phi, s, rho), (v, b, log_pi), (q, H, product) = data, tiles, scratch
    N, K, pieces, teams, tasks, size = len(phi), len(b), len(q), len(H), len(product), product.shape[1]
    blocks = -(-N // (q.shape[1] // size))
    for block in range(blocks + 1):
        last, start, stop = max(0, block - 1) * N // blocks, block * N // blocks, min(N, (block + 1) * N // blocks)
        for task in prange(tasks):  # sums the block before, and begins with this block
            for p in range(task * pieces // tasks, (task + 1) * pieces // tasks):
                a, z = p * size, min(K, (p + 1) * size)
                if start > last:
                    _spend_piece(phi[last:start], q[p], product[task, : z - a], mass[a:z], sums[a:z])
                if stop > start:
                    _multiply_piece(phi[start:stop], v[a:z], q[p])
        if stop > start:
            for team in prange(teams):
                i, j = team * (stop - start) // teams, (team + 1) * (stop - start) // teams
                _encode_rows(s[start:stop], rho[start:stop], b, log_pi, q, size, i, j, H[team], totals[team])


@jit
def _multiply_piece(phi: Array, v: Array, q: Array) -> None:
    n, k = len(phi), len(v)
    np.dot(phi, v.T, q[: n * k].reshape(n, k))


@jit
def _encode_rows(
    s: Array, rho: Array, b: Array, log_pi: Array, q: Array, size: int, first: int, last: int, H: Array, totals: Array
) -> None:
    """Turn phi_i . v_a into rho_i q_ia in the rows first, ..., last - 1 of a block; H (K,) is scratch for one row."""
    K = len(b)
    for i in range(first, last):
        for p in range(len(q)):
            a, z = p * size, min(K, (p + 1) * size)
            part, energies, intercepts = q[p, i * (z - a) : (i + 1) * (z - a)], H[a:z], b[a:z]
            for t in range(z - a):
                energies[t] = (s[i] - intercepts[t]) - part[t]
        factor = encode(H, log_pi, rho[i], totals)
        for p in range(len(q)):
            a, z = p * size, min(K, (p + 1) * size)
            part, entries = q[p, i * (z - a) : (i + 1) * (z - a)], H[a:z]
            for t in range(z - a):
                part[t] = factor * entries[t]


@jit
def _spend_piece(phi: Array, q: Array, product: Array, mass: Array, sums: Array) -> None:
    """Add rho_i q_ia to the mass (k,), and rho_i q_ia phi_i to the sums (k, S), of the tiles of a piece."""
    n, (k, S) = len(phi), sums.shape
    weighted = q[: n * k].reshape(n, k)
    for i in range(n):
        for a in range(k):
            mass[a] += weighted[i, a]
    np.dot(weighted.T, phi, product)
    for a in range(k):
        for d in range(S):
            sums[a, d] += product[a, d]
