"""The CPU backend: (T1), (T5) and the weighted statistics of (T4) in one pass over the rows, compiled by Numba.

Rows are cut into chunks, as many as the sizes N, K, S ask for, never as there are threads. Each chunk adds into float64
accumulators of its own, and these are added up in order: the bits are the same run after run, on any number of threads.
With few statistics (`_few`) a row's K energies are computed, exponentiated and spent while they lie in the fastest
cache; with many (`_many`) blocks of rows go through two matrix products. With float32 statistics the energies and their
exponentials are float32, and their sums over the tiles of a row; whatever is summed over rows is float64.

An encoder entry below exp(-650) of the largest in its row (float32: exp(-60)) is exactly zero. So no denormal number
arises, on which processors are tens of times slower, and such a tile adds exactly nothing to its mass or to the energy.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload

from .._blas import single_threaded_blas
from ..equations import Array, Expectations

_FEW = 8  # statistics up to which differences cost little more than matrix products: equal at 5, 1.1 times at 8
_SMALL = 2**19  # N K (S + 8) below which one thread does it all, about 0.1 ms: launching the others takes as long
_CHUNKS = 64  # at most; so many cores can share the work

_jit = functools.partial(njit, cache=True, nogil=True, error_model="numpy")


def expectations(
    statistics: Array,
    offset: Array,
    weights: Array,
    v: Array,
    b: Array,
    log_masses: Array,
    quadratic: float | None = None,
) -> Expectations:
    """Expectations of all rows; see `constrained_vae.backends` for the contract.

    Parameters
    ----------
    statistics : (N, S) array
        float32 statistics are computed with in float32, all others in float64. Statistics and offset of that dtype,
        float64 weights, contiguous all, are not copied.
    offset, weights : (N,) arrays
    v : (K, S) array
    b, log_masses : (K,) arrays
    quadratic : float, optional
        Multiplier lambda of a squared distance. With up to eight statistics its energies are summed from differences,
        to eps lambda R ||phi - psi||, R the radius of the data; the linear form is good to eps lambda R^2.

    Returns
    -------
    Expectations
        Mass and sums in the dtype of the computation; free energy and energy are floats, in nats.
    """
    real = np.float32 if statistics.dtype == np.float32 else np.float64
    phi, s, rho = _frozen(statistics, real), _frozen(offset, real), _frozen(weights, np.float64)
    (N, S), K = phi.shape, len(b)
    few, multiplier = S <= _FEW, real(quadratic or 0)
    tiles = np.zeros((S + S % 2 if few else S, K), real)  # `_few` takes statistics in pairs
    tiles[:S] = v.T / (2 * quadratic) if few and quadratic and multiplier > 0 else v.T
    chunks = _chunks(N, K, S, few)
    sums, totals = np.zeros((chunks, S + 1, K)), np.zeros((chunks, 2))
    arguments = [phi, s, rho, tiles, np.array(b, real), np.array(log_masses, real), multiplier]
    with contextlib.nullcontext() if few else single_threaded_blas():
        if chunks == 1:
            (_few if few else _many)(*arguments, sums[0], totals[0])
        else:
            (_few_parallel if few else _many_parallel)(*arguments, sums, totals)
    total, (free_energy, energy) = sums.sum(axis=0), totals.sum(axis=0)
    return Expectations(total[S].astype(real), total[:S].T.astype(real, order="C"), float(free_energy), float(energy))


def _frozen(array: Array, real: type) -> Array:
    """A contiguous read-only view, so that one compiled kernel serves writable and read-only inputs, uncopied."""
    view: Array = np.ascontiguousarray(array, real).view()
    view.flags.writeable = False
    return view


def _chunks(N: int, K: int, S: int, few: bool) -> int:
    """How many chunks the rows are cut into, from the sizes alone; a power of two is shared well by most cores."""
    if N * K * (S + 8) < _SMALL:
        return 1
    rows = 64 if few else 160  # at least; clearing and adding up a chunk's accumulators costs some percent of these
    memory = max(4, 2**25 // (K * (S + 1)))  # 256 MB of accumulators, or four of them
    return 2 ** (max(1, min(_CHUNKS, memory, N // rows)).bit_length() - 1)


@_jit(parallel=True)
def _few_parallel(
    phi: Array, s: Array, rho: Array, tiles: Array, b: Array, log_pi: Array, lam: float, sums: Array, totals: Array
) -> None:
    N, chunks = len(phi), len(totals)
    for c in prange(chunks):
        i, j = c * N // chunks, (c + 1) * N // chunks
        _few(phi[i:j], s[i:j], rho[i:j], tiles, b, log_pi, lam, sums[c], totals[c])


@_jit(parallel=True)
def _many_parallel(
    phi: Array, s: Array, rho: Array, tiles: Array, b: Array, log_pi: Array, lam: float, sums: Array, totals: Array
) -> None:
    N, chunks = len(phi), len(totals)
    for c in prange(chunks):
        i, j = c * N // chunks, (c + 1) * N // chunks
        _many(phi[i:j], s[i:j], rho[i:j], tiles, b, log_pi, lam, sums[c], totals[c])


@_jit()
def _few(
    phi: Array, s: Array, rho: Array, tiles: Array, b: Array, log_pi: Array, lam: float, sums: Array, totals: Array
) -> None:
    """Adds the rows phi (n, S) into sums (S + 1, K), the mass last, and totals (2,); tiles are psi or v, (S, K)."""
    (N, S), K = phi.shape, len(b)
    x = np.zeros(len(tiles), phi.dtype)  # phi_i, padded to pairs
    q = np.zeros((4, K), phi.dtype)  # H_ia, then q_ia up to a factor, of four rows, which are spent together below
    scaled = np.empty((4, S + 1), phi.dtype)  # that factor times rho_i (phi_i, 1)
    for start in range(0, N, 4):
        for r in range(4):
            i, H = start + r, q[r]
            if i >= N:  # what fills up the last four rows weighs nothing
                scaled[r] = 0
                continue
            for d in range(S):
                x[d] = phi[i, d]
            if lam > 0:  # H_ia = lambda ||phi_i - psi_a||^2
                H[:] = 0
                for d in range(0, S, 2):
                    for a in range(K):
                        y, z = x[d] - tiles[d, a], x[d + 1] - tiles[d + 1, a]
                        H[a] = _multiply_add(z, z, _multiply_add(y, y, H[a]))
                for a in range(K):
                    H[a] *= lam
            else:  # H_ia = s_i - b_a - phi_i . v_a
                for a in range(K):
                    H[a] = s[i] - b[a]
                for d in range(0, S, 2):
                    for a in range(K):
                        H[a] = _multiply_add(-x[d + 1], tiles[d + 1, a], _multiply_add(-x[d], tiles[d, a], H[a]))
            scaled[r, S] = _encode(H, log_pi, rho[i], totals)
            for d in range(S):
                scaled[r, d] = scaled[r, S] * x[d]
        for d in range(S + 1):
            w0, w1, w2, w3 = scaled[0, d], scaled[1, d], scaled[2, d], scaled[3, d]
            for a in range(K):
                two = _multiply_add(w1, q[1, a], w0 * q[0, a])
                sums[d, a] += _multiply_add(w3, q[3, a], _multiply_add(w2, q[2, a], two))


@_jit()
def _many(
    phi: Array, s: Array, rho: Array, tiles: Array, b: Array, log_pi: Array, lam: float, sums: Array, totals: Array
) -> None:
    """As `_few`, from the linear form alone: tiles are v, and lam is not looked at."""
    (N, S), K = phi.shape, len(b)
    blocks = -(-N // min(512, max(64, 2**18 // K)))  # a block of q has about 2^18 entries
    rows = -(-N // blocks)
    q = np.empty((rows, K), phi.dtype)  # phi_i . v_a, then H_ia, then q_ia up to a factor
    scaled = np.empty((rows, S + 1), phi.dtype)  # that factor times rho_i (phi_i, 1)
    product = np.empty((S + 1, K), phi.dtype)
    for block in range(blocks):
        start, stop = block * N // blocks, (block + 1) * N // blocks
        n = stop - start
        np.dot(phi[start:stop], tiles, q[:n])
        for r in range(n):
            i, H = start + r, q[r]
            for a in range(K):
                H[a] = (s[i] - b[a]) - H[a]
            scaled[r, S] = _encode(H, log_pi, rho[i], totals)
            for d in range(S):
                scaled[r, d] = scaled[r, S] * phi[i, d]
        np.dot(scaled[:n].T, q[:n], product)
        for d in range(S + 1):
            for a in range(K):
                sums[d, a] += product[d, a]


@_jit()
def _encode(H: Array, log_pi: Array, rho: float, totals: Array) -> Any:
    """One row of (T1): H_a becomes q_a Z / e^t, t the largest of log pi_a - H_a; returns rho e^t / Z.

    Adds -rho log Z to the free energy, totals[0], and rho sum_a q_a H_a to the energy, totals[1].
    """
    real, K = H.dtype.type, len(H)
    t = real(-np.inf)
    for a in range(K):
        t = _max(t, log_pi[a] - H[a])
    Z = energy = real(0)
    for a in range(K):
        h = H[a]
        q = _exp((log_pi[a] - h) - t)  # rounded as above: exp(0) = 1 at the largest, however large H is
        Z = _add(Z, q)
        energy = _add(energy, q * h if q > 0 else real(0))
        H[a] = q
    totals[0] -= rho * (np.float64(t) + math.log(np.float64(Z)))
    totals[1] += rho * (np.float64(energy) / np.float64(Z))
    return real(rho / Z)


@njit(fastmath={"reassoc"})
def _add(x: Any, y: Any) -> Any:
    """x + y in a sum that may be taken in any order, so that it can be vectorised; all else is IEEE arithmetic."""
    return x + y


@njit(fastmath={"contract"})
def _multiply_add(x: Any, y: Any, z: Any) -> Any:
    """x y + z, rounded once where the processor can."""
    return x * y + z


@intrinsic
def _max(context: Any, x: Any, y: Any) -> Any:
    """The larger of x and y by LLVM's maxnum, the one spelling of a maximum over an array that is vectorised."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        real = arguments[0].type
        maxnum = builder.module.declare_intrinsic("llvm.maxnum", [real], ir.FunctionType(real, [real, real]))
        return builder.call(maxnum, arguments)

    return x(x, x), generate


def _exp(x: Any) -> Any:
    """exp(x), x <= 0, to 2 eps, zero below exp(-650) (float32: exp(-60)); in compiled code only."""
    raise NotImplementedError


@overload(_exp, jit_options={"fastmath": {"contract"}})
def _exp_of_type(x: Any) -> Any:
    return {types.float64: _EXP_64, types.float32: _EXP_32}[x]


def _exponential(real: Any, integer: Any, mantissa: int, bias: int, degree: int, lowest: float) -> Callable[[Any], Any]:
    """exp(x) = 2^k exp(r), k = round(x / log 2), |r| <= log(2) / 2: no branch and no table, so it is vectorised.

    Taylor's polynomial of degree 13 (float32: 7) leaves out less than 5e-18 (6e-9) on that interval.
    """
    log2e, least, zero = real(1 / math.log(2)), real(lowest), real(0)
    # Adding this rounds to an integer, and leaves the integer in the last bits of the sum.
    rounder = real(1.5 * 2.0**mantissa)
    # log 2 in two parts, the first with so few bits that k times it is exact (Cody and Waite).
    log2, scale = Decimal(2).ln(), 2 ** (mantissa - 12)
    high = real(round(log2 * scale) / scale)
    low = real(log2 - Decimal(float(high)))
    first, *others = (real(1 / math.factorial(n)) for n in range(degree, -1, -1))
    rest = tuple(others)

    def exp(x: Any) -> Any:
        shifted = x * log2e + rounder
        k = shifted - rounder
        r = (x - k * high) - k * low
        p = first
        for coefficient in rest:
            p = p * r + coefficient
        power = integer((real(shifted).view(integer) + bias) << mantissa).view(real)  # 2^k from its bits
        return zero if x < least else p * power

    return exp


_EXP_64 = _exponential(np.float64, np.int64, mantissa=52, bias=1023, degree=13, lowest=-650.0)
_EXP_32 = _exponential(np.float32, np.int32, mantissa=23, bias=127, degree=7, lowest=-60.0)
