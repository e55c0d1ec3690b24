"""The floor: a lower bound of the seconds of one map, from rates of operations measured with all threads.

    floor = N K / (exponentials per second) + N K * operations per entry / (operations per second)

Exponentials are computed by the function of our kernel, on buffers that fit into the fastest cache. With many
statistics the operations are the flops 2 S + 2 (S + 1) of the two matrix products. Their rate is measured on the same
products with this K and S: it is the best of row blocks of several heights with single-threaded BLAS, and of all rows
with threaded BLAS. With few statistics an entry takes at least 3 D + 1 operations: a subtraction and a multiply-add for
each term of the distance, and a multiply-add for each of the D + 1 weighted sums. Their rate is measured on
multiply-adds in registers. The maximum, the partition function and the expected energy are not counted, since a kernel
may hide their cost.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, prange

from constrained_vae._utils.chunks import FEW
from constrained_vae.backends.arithmetic import exp

from ._methods import wall_clock

_RESIDENT = 2048  # numbers in the buffer of a thread: 16 KB of float64
_LENGTH = 16  # multiply-adds of a number between its load and its store

_jit = functools.partial(njit, cache=True, error_model="numpy")


def floor(N: int, K: int, D: int, dtype: str, threads: int) -> dict[str, Any]:
    """Seconds of the floor on the CPU, and the rates (per second) in it."""
    exp_rate = _exp_rate(np.dtype(dtype), threads)
    if D <= FEW:
        kind, operations, rate = "multiply-adds", 3 * D + 1, _multiply_add_rate(np.dtype(dtype), threads)
    else:
        kind, operations = "flops of matrix products", 4 * D + 2
        rate = _product_rate(N, K, D, np.dtype(dtype), threads)
    seconds = N * K / exp_rate + N * K * operations / rate
    return {"seconds": seconds, "exp_rate": exp_rate, "operation": kind, "operation_rate": rate}


def _rate(work: float, evaluate: Callable[[], object], timings: int = 9) -> float:
    evaluate()
    return work / statistics.median(wall_clock(evaluate) for _ in range(timings))


def _exp_rate(dtype: np.dtype[Any], threads: int, times: int = 20_000) -> float:
    buffers = np.full((threads, _RESIDENT), -0.5, dtype)
    return _rate(times * buffers.size, lambda: _exponentials(buffers, times))


@_jit(parallel=True)
def _exponentials(buffers: Any, times: int) -> None:
    for t in prange(len(buffers)):
        buffer = buffers[t]
        for _ in range(times):
            for a in range(len(buffer)):
                buffer[a] = -exp(buffer[a])  # tends to its fixed point -0.567; the compiler cannot remove a step


def _multiply_add_rate(dtype: np.dtype[Any], threads: int, times: int = 10_000) -> float:
    buffers = np.full((threads, _RESIDENT), 0.5, dtype)
    chains = _CHAINS_64 if dtype == np.float64 else _CHAINS_32
    return _rate(times * _LENGTH * buffers.size, lambda: chains(buffers, times))


def _chains(real: Any) -> Callable[[Any, int], None]:
    half = real(0.5)
    factors = (half,) * _LENGTH  # a tuple, since Numba unrolls loops over tuples

    @_jit(parallel=True, fastmath={"contract"})
    def chains(buffers: Any, times: int) -> None:
        for t in prange(len(buffers)):
            buffer = buffers[t]
            for _ in range(times):
                for a in range(len(buffer)):
                    y = buffer[a]
                    for factor in factors:
                        y = y * factor + half  # tends to 1
                    buffer[a] = y

    run: Callable[[Any, int], None] = chains
    return run


_CHAINS_64, _CHAINS_32 = _chains(np.float64), _chains(np.float32)


def _product_rate(N: int, K: int, S: int, dtype: np.dtype[Any], threads: int) -> float:
    """Flops per second of (n, S) (S, K) followed by (S + 1, n) (n, K)."""
    import scipy.linalg  # noqa: F401  Numba multiplies with SciPy's BLAS
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(0)
    v = rng.normal(size=(S, K)).astype(dtype)

    def operands(n: int, copies: int) -> list[np.ndarray]:
        phi, weighted = rng.normal(size=(copies, n, S)), rng.normal(size=(copies, n, S + 1))
        results = [np.empty((copies, n, K), dtype), np.empty((copies, S + 1, K), dtype)]
        return [phi.astype(dtype), weighted.astype(dtype), *results]

    rates = []
    with threadpool_limits(1, user_api="blas"):
        for n in {min(n, N) for n in (64, 128, 256, 512)}:
            blocks = operands(n, threads)
            times = max(1, int(2e8 / (n * K * (4 * S + 2))))
            work = times * threads * n * K * (4 * S + 2)
            rates.append(_rate(work, lambda b=blocks, m=times: _products(v, *b, m), 5))  # type: ignore[misc]
    n = max(1, min(N, 2**23 // K))
    phi, weighted, q, sums = (array[0] for array in operands(n, 1))

    def threaded() -> None:
        np.matmul(phi, v, out=q)
        np.matmul(weighted.T, q, out=sums)

    rates.append(_rate(n * K * (4 * S + 2), threaded, 5))
    return max(rates)


@_jit(parallel=True)
def _products(v: Any, phi: Any, weighted: Any, q: Any, sums: Any, times: int) -> None:
    for t in prange(len(phi)):
        for _ in range(times):
            np.dot(phi[t], v, q[t])
            np.dot(weighted[t].T, q[t], sums[t])


def gpu_floor(N: int, K: int, D: int, dtype: str) -> dict[str, Any]:
    """The floor on the GPU, from the exponential of CuPy, multiply-adds in registers, and cuBLAS."""
    import cupy

    from ._methods import _cupy_events

    def rate(work: float, evaluate: Callable[[], object]) -> float:
        evaluate()
        return work / statistics.median(_cupy_events(evaluate) for _ in range(9))

    def chain(step: str) -> float:
        body = f"T z = x; for (int i = 0; i < 256; ++i) z = {step}; y = z;"
        kernel, x = cupy.ElementwiseKernel("T x", "T y", body), cupy.full(2**22, 0.5, dtype)
        return rate(256 * x.size, lambda: kernel(x))

    exp_rate = chain("exp(-z)")
    if D <= FEW:
        kind, operations, operation_rate = "multiply-adds", 3 * D + 1, chain("fma(z, (T)0.5, (T)0.5)")
    else:
        kind, operations, n = "flops of matrix products", 4 * D + 2, min(N, 2**26 // K)
        phi, v, q = (cupy.random.standard_normal(shape).astype(dtype) for shape in ((n, D), (K, D), (n, K)))
        weighted = cupy.random.standard_normal((n, D + 1)).astype(dtype)
        operation_rate = rate(n * K * operations, lambda: (phi @ v.T, weighted.T @ q))
    seconds = N * K / exp_rate + N * K * operations / operation_rate
    return {"seconds": seconds, "exp_rate": exp_rate, "operation": kind, "operation_rate": operation_rate}
