"""The GPU backend: (T1), (T5) and the weighted statistics of (T4) by the CUDA kernels of `kernels.cu`.

Arrays on the GPU and the result stay there, so that the host waits for the device only when a number is read. NumPy
arrays are moved to the GPU in row blocks, so that they may be larger than its memory. With few statistics two fused
passes do the work; with many statistics cuBLAS multiplies row blocks of bounded size. Logits and exponentials have the
precision of the statistics; sums over many rows are double. The bits are the same in every run on one model of GPU, and
with few statistics on all models.
"""

from __future__ import annotations

import functools
import importlib.resources
import math
import os
from typing import Any

import cupy
import numpy as np

from .. import equations
from .._utils import memory
from .._utils.arrays import Array, FloatArray
from .._utils.checks import TooLargeError
from .._utils.device import on_host, to_host
from ..equations import Expectations, is_steep
from .boxes import expansions as expansions, polynomials as polynomials, proof_rows as proof_rows
from .geometry import COLLECT_THREADS, COLUMN_THREADS, THREADS, arguments, geometry, options

_TRANSFER = 2**28  # bytes of NumPy statistics that are moved to the GPU at a time


def expectations(
    statistics: Array,
    offset: Array,
    weights: Array,
    v: Array,
    b: Array,
    log_masses: Array,
    quadratic: float | None = None,
) -> Expectations:
    """Expectations of all rows; `constrained_vae.backends` documents the arguments.

    Parameters
    ----------
    statistics : (N, S) array
        A NumPy or CuPy array, like all other arguments. If the statistics are float32, the computation is in float32,
        otherwise in float64. C-contiguous CuPy arrays of that dtype (weights: float64) are not copied.
    offset, weights : (N,) arrays
    v : (K, S) array
    b, log_masses : (K,) arrays
    quadratic : float, optional
        Multiplier lambda of a squared distance. With up to sixteen statistics the energies are then computed from
        differences, with an error of eps lambda R ||phi - psi||, where R is the radius of the data. The linear form is
        faster; its error is eps lambda R^2.

    Returns
    -------
    Expectations
        Mass and sums as CuPy arrays in the dtype of the computation; free energy and energy (nats) as CuPy scalars in
        float64.

    Raises
    ------
    ValueError
        If an array is neither a NumPy nor a CuPy array, lies on a GPU that is not the current one, does not hold real
        numbers, or has a shape that does not match; or if matrix products are set to reduced precision (TF32).
    TooLargeError
        If the memory of the GPU is too small.
    """
    rows, tiles = (statistics, offset, weights), (v, b, log_masses)
    N, K, S = _sizes(rows, tiles)
    real = np.dtype(np.float32 if statistics.dtype == np.float32 else np.float64)
    count = max(1, _TRANSFER // (S * real.itemsize)) if isinstance(statistics, np.ndarray) else N
    try:
        job = _Map(min(N, count), tiles, real, quadratic)
        for start in range(0, N, count):
            job.add(*(array[start : start + count] for array in rows))
        return job.result()
    except cupy.cuda.memory.OutOfMemoryError as error:
        free, total = (size / 1e9 for size in cupy.cuda.runtime.memGetInfo())
        raise TooLargeError(
            f"a map of {N} rows, {K} tiles and {S} statistics in {real} does not fit into the memory of the GPU, of "
            f"whose {total:.3g} GB {free:.3g} GB are free ({error}): pass NumPy arrays or a memory map, which are "
            "moved in row blocks; or add up the results of row blocks; or choose float32 or fewer tiles"
        ) from error


def coverage(
    statistics: Array,
    offset: Array,
    log_shares: Array,
    v: Array,
    b: Array,
    quadratic: float | None = None,
    with_means: bool = True,
) -> tuple[FloatArray, FloatArray | None]:
    """log c (n,) and means (n, S) of the statistics, on the host; `constrained_vae.backends` documents the arguments.

    Matrix products and elementwise operations compute it, in blocks of points that fit into the memory of the GPU.
    """
    there = np.dtype(np.float64)
    phi, s, shares, v, b = (_on_device(array, there) for array in (statistics, offset, log_shares, v, b))
    steep = is_steep(s, quadratic)
    count = memory.rows_of_block(len(phi))
    values, means = [], []
    for start in range(0, len(v), count):
        part = slice(start, start + count)
        if quadratic and steep:
            H = cupy.zeros((len(v[part]), len(phi)))
            for d in range(phi.shape[1]):
                H += (v[part, d, None] / (2 * quadratic) - phi[:, d]) ** 2
            H *= quadratic
        else:
            H = s - b[part, None] - v[part] @ phi.T
        value, terms = equations.coverage(H, shares)
        values.append(to_host(value))
        if with_means:
            means.append(to_host(terms @ phi))
    return np.concatenate(values), np.concatenate(means) if with_means else None


def to_device(array: Array) -> Array:
    """The array on the current GPU, C-contiguous, in its own dtype; not copied if it is there already."""
    return _on_device(array, array.dtype)


def free_memory() -> int:
    """Bytes available for new arrays on the current GPU: free memory and unused memory of CuPy's pool."""
    pool = cupy.get_default_memory_pool()
    free = cupy.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
    return int(min(free, pool.get_limit() - pool.used_bytes()) if pool.get_limit() else free)


class _Map:
    """One map on the GPU: the tiles are prepared once, then blocks of at most N rows are added."""

    def __init__(self, N: int, tiles: tuple[Array, Array, Array], real: np.dtype[Any], quadratic: float | None) -> None:
        K, S = self.shape = tiles[0].shape
        self.real = real
        self.plan = geometry(N, K, S, real.itemsize)
        self.fused = self.plan.rows == 0
        if not self.fused:
            _refuse_reduced_precision()
        # Units as in `kernels.cu`: bits, hence the division by log 2; a squared distance is in units of 1 / u.
        self.unit, divisor, self.differences = 1.0, math.log(2), False
        if self.fused and quadratic:
            u = float(real.type(math.sqrt(quadratic / math.log(2))))
            if 0 < u < math.inf:
                self.unit, divisor, self.differences = u, 2 * (quadratic / u), True
        self.sums = cupy.zeros((S + 1) * K + 2)  # of phi and 1 over q; free energy and energy
        self.tiles = cupy.empty((self.plan.words + 1, self.plan.padded), real)
        v, b, log_masses = (_on_device(array, real) for array in tiles)
        sizes = K, self.plan.padded, S, self.plan.words
        self.launch(
            "pack", -(-self.plan.padded // 256), 256, *sizes, v, b, log_masses, divisor, self.differences, self.tiles
        )

    def launch(self, name: str, grid: int | tuple[int, int], threads: int, *values: Any) -> None:
        kernel = _kernel(options(self.plan, self.real, self.differences), name)
        kernel(grid if isinstance(grid, tuple) else (grid,), (threads,), arguments(*values))

    def collect(self, name: str, partial: Array, height: int, width: int, total: Array) -> None:
        """Add the sum over the first axis of partial, cut to (height, width), to total (height, width)."""
        self.launch(name, -(-height * width // 32), COLLECT_THREADS, *partial.shape, height, width, partial, total)

    def add(self, phi: Array, s: Array, rho: Array) -> None:
        """Add a block of rows."""
        phi, s, rho = _on_device(phi, self.real), _on_device(s, self.real), _on_device(rho, np.dtype(np.float64))
        totals = cupy.empty((self.plan.encode_blocks, 1, 2))
        if self.fused:
            self._two_passes(phi, s, rho, totals)
            self.collect("collect", totals, 1, 2, self.sums[-2:])
            return
        for start in range(0, len(phi), self.plan.rows):
            block = slice(start, start + self.plan.rows)
            self._two_products(phi[block], s[block], rho[block], totals)
            self.collect("collect", totals, 1, 2, self.sums[-2:])

    def _two_passes(self, phi: Array, s: Array, rho: Array, totals: Array) -> None:
        plan, N, (K, S) = self.plan, len(phi), self.shape
        reference, scale = cupy.empty(N, self.real), cupy.empty(N, self.real)
        rest = (self.unit, reference, scale)
        self.launch("encode", len(totals), THREADS, N, plan.padded, plan.team, phi, s, rho, self.tiles, *rest, totals)
        partial = cupy.empty((plan.accumulate_grid[0], S + 1, plan.padded))
        self.launch(
            "accumulate",
            plan.accumulate_grid,
            COLUMN_THREADS,
            N,
            plan.padded,
            plan.column_team,
            phi,
            self.tiles,
            *rest,
            partial,
        )
        self.collect("collect", partial, S + 1, K, self.sums)

    def _two_products(self, phi: Array, s: Array, rho: Array, totals: Array) -> None:
        plan, n, (K, S) = self.plan, len(phi), self.shape
        shares = -(-n // plan.share)
        wide = cupy.zeros((shares * plan.share, plan.words), self.real)  # rows (phi, 1, 0, ...), then rows of zeros
        wide[:n, :S] = phi
        wide[:n, S] = 1
        logits = cupy.dot(wide, self.tiles[: plan.words])
        self.launch(
            "encode_products", len(totals), THREADS, n, *logits.shape, plan.team, s, rho, self.tiles[-1], logits, totals
        )
        # One product per share of the rows: many products keep the device busy, and short sums are accurate.
        left = wide.reshape(shares, plan.share, plan.words).transpose(0, 2, 1)
        partial = cupy.matmul(left, logits.reshape(shares, plan.share, plan.padded))
        self.collect("collect_products", partial, S + 1, K, self.sums)

    def result(self) -> Expectations:
        K, S = self.shape
        sums = self.sums[:-2].reshape(S + 1, K)
        return Expectations(
            sums[S].astype(self.real),
            sums[:S].T.astype(self.real, order="C"),
            self.sums[-2],
            self.sums[-1],
        )


@functools.cache
def _kernel(compiler_options: tuple[str, ...], name: str) -> Any:
    return _module(compiler_options).get_function(name)


@functools.cache
def _module(compiler_options: tuple[str, ...]) -> Any:
    """The kernels, compiled once per process for given macros; CuPy caches the binary for other processes."""
    source = importlib.resources.files(__package__).joinpath("kernels.cu").read_text(encoding="utf-8")
    return cupy.RawModule(code=source, options=compiler_options)


def _sizes(rows: tuple[Array, Array, Array], tiles: tuple[Array, Array, Array]) -> tuple[int, int, int]:
    """N, K, S, after a check of the kind and shape of every array: kernels would read past the end of a short array."""
    arrays = dict(zip(("statistics", "offset", "weights", "v", "b", "log_masses"), (*rows, *tiles), strict=True))
    statistics, b = rows[0], tiles[1]
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray | cupy.ndarray):
            raise ValueError(f"{name} must be a NumPy or CuPy array, got {type(array).__name__}")
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
        if isinstance(array, cupy.ndarray) and array.device.id != cupy.cuda.Device().id:
            raise ValueError(
                f"{name} lies on GPU {array.device.id}, but GPU {cupy.cuda.Device().id} is the current one: move the "
                f"array, or compute inside `with cupy.cuda.Device({array.device.id}):`"
            )
    if statistics.ndim != 2 or b.ndim != 1 or 0 in (*statistics.shape, *b.shape):
        raise ValueError(
            f"statistics must have shape (N, S) and b shape (K,), nothing zero; got {statistics.shape} and {b.shape}"
        )
    (N, S), (K,) = statistics.shape, b.shape
    for name, shape in {"offset": (N,), "weights": (N,), "v": (K, S), "log_masses": (K,)}.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} with {N} rows, {K} tiles and {S} statistics, got {arrays[name].shape}"
            )
    return N, K, S


def _on_device(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array on the current GPU, C-contiguous, of that dtype; not copied if it is so already."""
    if on_host(array):
        return cupy.asarray(np.ascontiguousarray(array, dtype))  # CuPy lacks some dtypes of NumPy
    return cupy.ascontiguousarray(array, dtype)


def _refuse_reduced_precision() -> None:
    """Raise ValueError if a variable is set that makes CuPy or cuBLAS round float32 factors from 24 to 11 bits."""
    for name in ("CUPY_TF32", "NVIDIA_TF32_OVERRIDE"):
        if os.environ.get(name, "0") not in ("", "0"):
            raise ValueError(f"{name} rounds the factors of matrix products to 11 bits, which is too few: unset it")
