"""The CPU backend: (T1), (T5) and the weighted statistics of (T4) in one pass over the rows, compiled by Numba.

Rows are cut into chunks, as many as the sizes N, K, S ask for, never as the threads do; each chunk adds into float64
accumulators of its own and these are added up in order. So the bits are the same run after run, on any number of
threads. Few statistics: `_few`, where a row's K energies are computed, exponentiated and spent while they are in the
first-level cache. Many statistics: `_many`, where blocks of rows go through two matrix products. With float32
statistics the energies and exponentials are float32, everything summed over rows is float64.

A posterior mass below exp(-650) of the row's largest (float32: exp(-60)) is exactly zero, so that no denormal number,
fifty times slower than others, ever arises; such a tile adds exactly nothing to the energy either.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload
from numpy.polynomial import Chebyshev, Polynomial

from ..equations import Array, Expectations

FEW = 12  # up to so many statistics the direct kernel is the faster one (measured: analysis/benchmarks/step.py)
_CHUNKS = 64  # at most; enough to keep as many cores busy
_TINY = 2**17  # N K (S + 8) below which a parallel launch costs more than it saves
_ROWS = 4  # rows spent together, to load and store each accumulator once for all of them

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
        float32 statistics are computed with in float32, anything else in float64; nothing is copied that is
        contiguous and of that dtype (weights: float64) already.
    offset, weights : (N,) arrays
    v : (K, S) array
    b, log_masses : (K,) arrays
    quadratic : float, optional
        Multiplier lambda of a squared distance. With few statistics the energies are then summed from differences,
        accurate to eps H where the linear form is accurate to eps lambda R^2 only.

    Returns
    -------
    Expectations
        Mass and sums in the dtype of the computation; free energy and energy in nats, float64.
    """
    real = np.float32 if statistics.dtype == np.float32 else np.float64
    phi, s, rho = _frozen(statistics, real), _frozen(offset, real), _frozen(weights, np.float64)
    (N, S), K = phi.shape, len(b)
    few = S <= FEW
    if few and quadratic:
        tiles, multiplier = np.array(v.T / (2 * quadratic), real, order="C"), real(quadratic)
    else:
        tiles, multiplier = np.array(v.T, real, order="C"), real(0)
    chunks = _chunks(N, K, S, few)
    sums = np.zeros((chunks, S + 1, K) if few else (chunks, K, S + 1))
    totals = np.zeros((chunks, 2))
    arguments = (phi, s, rho, tiles, np.array(b, real), np.array(log_masses, real))
    if few:
        if chunks == 1:
            _few(*arguments, multiplier, sums[0], totals[0])
        else:
            _few_parallel(*arguments, multiplier, sums, totals)
    else:
        with _single_threaded_blas():
            if chunks == 1:
                _many(*arguments, sums[0], totals[0])
            else:
                _many_parallel(*arguments, sums, totals)
    total = sums.sum(axis=0) if chunks > 1 else sums[0]
    free_energy, energy = totals.sum(axis=0)
    if few:
        total = total.T
    return Expectations(
        total[:, S].astype(real), total[:, :S].astype(real, order="C"), float(free_energy), float(energy)
    )


def _frozen(array: Array, real: type) -> Array:
    """A contiguous read-only view: one specialisation of a kernel serves writable and read-only inputs, uncopied."""
    view = np.ascontiguousarray(array, real).view()
    view.flags.writeable = False
    return view


def _chunks(N: int, K: int, S: int, few: bool) -> int:
    """How many chunks the rows are cut into: a function of the sizes alone."""
    if N * K * (S + 8) < _TINY:
        return 1
    rows = 64 if few else 512  # rows whose work outweighs clearing and adding the (K, S) accumulators of a chunk
    return max(1, min(_CHUNKS, N // rows, max(4, 2**25 // (K * (S + 1)))))


@functools.cache
def _blas() -> Any:
    import scipy.linalg  # noqa: F401  (Numba multiplies with SciPy's BLAS: the controller must find it loaded)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _single_threaded_blas() -> contextlib.AbstractContextManager[Any]:
    """BLAS limited to one thread, as the parallelism is over chunks."""
    return _blas().limit(limits=1)


@intrinsic
def _max(typing_context, x, y):  # type: ignore[no-untyped-def]
    """max(x, y) as LLVM's maxnum, the one spelling of a maximum whose reduction is vectorised."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        real = arguments[0].type
        maxnum = builder.module.declare_intrinsic("llvm.maxnum", [real], ir.FunctionType(real, [real, real]))
        return builder.call(maxnum, arguments)

    return x(x, x), generate


@njit(fastmath={"reassoc"})
def _add(x, y):  # type: ignore[no-untyped-def]
    """x + y in a sum over tiles whose order the compiler may choose, which vectorises it; all else is IEEE."""
    return x + y


@njit(fastmath={"contract"})
def _multiply_add(x, y, z):  # type: ignore[no-untyped-def]
    """x y + z, rounded once where the machine can."""
    return x * y + z


def _exp(x: float) -> float:
    """exp(x) for x <= 0 in compiled code, zero below exp(-650) (float32: exp(-60)); relative error about eps."""
    raise NotImplementedError


@overload(_exp, jit_options={"fastmath": {"contract"}})
def _exp_of(x):  # type: ignore[no-untyped-def]
    return _exp32 if x == types.float32 else _exp64


def _exponential(real: Any, integer: Any, mantissa: int, bias: int, degree: int, lowest: float) -> Callable[..., Any]:
    """exp(x) = 2^k exp(r), k = round(x / log 2), |r| <= log(2)/2, by integer arithmetic and a polynomial: no branch."""
    zero, flush = real(0), real(lowest)
    log2e, half = real(1 / math.log(2)), math.log(2) / 2
    # Adding 1.5 * 2^mantissa rounds to an integer, and leaves it in the last bits of the number.
    rounder = real(1.5 * 2.0**mantissa)
    # log 2 in two parts, the first so short that k times it is exact (Cody and Waite).
    places = 2.0 ** (mantissa - 12)
    high = real(round(math.log(2) * places) / places)
    low = real(math.log(2) - float(high))
    c = tuple(Chebyshev.interpolate(np.exp, degree, [-half, half]).convert(kind=Polynomial).coef.astype(real)[::-1])
    first, rest = c[0], c[1:]

    def exp(x):  # type: ignore[no-untyped-def]
        shifted = x * log2e + rounder
        k = shifted - rounder
        r = (x - k * high) - k * low
        p = first
        for coefficient in rest:
            p = p * r + coefficient
        power = integer((real(shifted).view(integer) + bias) << mantissa).view(real)
        return zero if x < flush else p * power

    return exp


_exp64 = _exponential(np.float64, np.int64, 52, 1023, 11, -650.0)
_exp32 = _exponential(np.float32, np.int32, 23, 127, 6, -60.0)


@_jit()
def _few(phi, offset, weights, tiles, b, log_masses, multiplier, sums, totals):  # type: ignore[no-untyped-def]
    """Rows phi (n, S) against tiles (S, K), added into sums (S + 1, K), the mass last, and totals (F, energy)."""
    (N, S), K = phi.shape, len(b)
    q = np.empty((_ROWS, K), phi.dtype)  # H_ia, then q_ia up to a factor, of the rows in hand
    scaled = np.empty((_ROWS, S + 1), phi.dtype)  # that factor times rho_i (phi_i, 1)
    for start in range(0, N, _ROWS):
        for r in range(_ROWS):
            i, H = start + r, q[r]
            if i >= N:  # the last rows are padded with weight zero
                H[:] = 0
                scaled[r] = 0
                continue
            if multiplier > 0:  # H_ia = lambda ||phi_i - psi_a||^2
                H[:] = 0
                for d in range(S):
                    for a in range(K):
                        delta = phi[i, d] - tiles[d, a]
                        H[a] = _multiply_add(delta, delta, H[a])
                for a in range(K):
                    H[a] *= multiplier
            else:  # H_ia = s_i - b_a - phi_i . v_a
                for a in range(K):
                    H[a] = offset[i] - b[a]
                for d in range(S):
                    for a in range(K):
                        H[a] = _multiply_add(-phi[i, d], tiles[d, a], H[a])
            scaled[r, S] = _encode(H, log_masses, weights[i], totals)
            for d in range(S):
                scaled[r, d] = scaled[r, S] * phi[i, d]
        for d in range(S + 1):
            w0, w1, w2, w3 = scaled[0, d], scaled[1, d], scaled[2, d], scaled[3, d]
            for a in range(K):
                sums[d, a] += _multiply_add(
                    w0, q[0, a], _multiply_add(w1, q[1, a], _multiply_add(w2, q[2, a], w3 * q[3, a]))
                )


@_jit()
def _many(phi, offset, weights, tiles, b, log_masses, sums, totals):  # type: ignore[no-untyped-def]
    """Rows phi (n, S) against tiles (S, K), added into sums (K, S + 1), the mass last, and totals (F, energy)."""
    (N, S), K = phi.shape, len(b)
    rows = max(16, min(N, 2**17 // K))
    q = np.empty((rows, K), phi.dtype)
    scaled = np.empty((rows, S + 1), phi.dtype)
    product = np.empty((K, S + 1), phi.dtype)
    for start in range(0, N, rows):
        n = min(rows, N - start)
        np.dot(phi[start : start + n], tiles, q[:n])
        for r in range(n):
            i, H = start + r, q[r]
            for a in range(K):
                H[a] = (offset[i] - b[a]) - H[a]
            scaled[r, S] = _encode(H, log_masses, weights[i], totals)
            for d in range(S):
                scaled[r, d] = scaled[r, S] * phi[i, d]
        np.dot(q[:n].T, scaled[:n], product)
        for a in range(K):
            for d in range(S + 1):
                sums[a, d] += product[a, d]


@_jit()
def _encode(H, log_masses, rho, totals):  # type: ignore[no-untyped-def]
    """Replaces a row's H by q times Z / exp(top) (T1), adds to F and the energy (T5), returns rho exp(top) / Z."""
    real, K = H.dtype.type, len(H)
    top = real(-np.inf)
    for a in range(K):
        top = _max(top, log_masses[a] - H[a])
    Z = energy = real(0)
    for a in range(K):
        h = H[a]
        q = _exp((log_masses[a] - h) - top)
        Z = _add(Z, q)
        energy = _add(energy, q * h if q > 0 else real(0))
        H[a] = q
    totals[0] -= rho * (np.float64(top) + math.log(np.float64(Z)))
    totals[1] += rho * (np.float64(energy) / np.float64(Z))
    return real(rho / Z)


@_jit(parallel=True)
def _few_parallel(phi, offset, weights, tiles, b, log_masses, multiplier, sums, totals):  # type: ignore[no-untyped-def]
    N, chunks = len(phi), len(totals)
    for c in prange(chunks):
        i, j = c * N // chunks, (c + 1) * N // chunks
        _few(phi[i:j], offset[i:j], weights[i:j], tiles, b, log_masses, multiplier, sums[c], totals[c])


@_jit(parallel=True)
def _many_parallel(phi, offset, weights, tiles, b, log_masses, sums, totals):  # type: ignore[no-untyped-def]
    N, chunks = len(phi), len(totals)
    for c in prange(chunks):
        i, j = c * N // chunks, (c + 1) * N // chunks
        _many(phi[i:j], offset[i:j], weights[i:j], tiles, b, log_masses, sums[c], totals[c])
