"""One map by every method: this project and alternatives, each written as a good user of its library would write it.

A method prepares a `Case` and returns a function without arguments. This function computes one map and returns a
dictionary of arrays of its library, with those of the following results that it computes:

    mass (K,)        marginal posterior m_a = sum_i rho_i q_ia
    sums (K, D)      sum_i rho_i q_ia x_i;   or decoder (K, D), their ratios
    free_energy, energy

Preparation (copies, compilation, the choice of a block size) is not timed. A method raises `MissingError` if its
library or device is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Map = Callable[[], dict[str, Any]]

_WHOLE = 2**27  # entries of the largest (N, K) array that is made whole, 1 GB of float64; larger ones are in blocks
_BLOCKS = tuple(2**n for n in (16, 17, 18, 19, 20, 22))  # entries of a block; the fastest size is taken
_TRIAL = 2**23  # entries of the map that finds the fastest size


class MissingError(Exception):
    """A method cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Case:
    """Gaussian data and tiles at K of the points, energies lambda ||x - psi||^2 with lambda = 2 / D, equal masses.

    In any dimension a tile is then about four nats nearer to its own point than to other points. So no method computes
    with denormal numbers, and no tile of k-means is empty.
    """

    x: np.ndarray
    psi: np.ndarray
    dtype: np.dtype[Any]

    @classmethod
    def make(cls, N: int, K: int, D: int, dtype: str) -> Case:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(N, D))
        return cls(x, x[np.resize(rng.permutation(N), K)], np.dtype(dtype))

    @property
    def multiplier(self) -> float:
        return 2 / self.x.shape[1]

    @property
    def weights(self) -> np.ndarray:
        return np.full(len(self.x), 1 / len(self.x))

    def rows(self) -> list[np.ndarray]:
        """phi (N, S), s (N,), rho (N,) of the linear form (T4)."""
        return self._cast(self.x, self.multiplier * (self.x**2).sum(axis=1), self.weights)

    def tiles(self) -> list[np.ndarray]:
        """v (K, S), b (K,), log pi (K,)."""
        K, lam = len(self.psi), self.multiplier
        return self._cast(2 * lam * self.psi, -lam * (self.psi**2).sum(axis=1), np.full(K, -np.log(K)))

    def _cast(self, *arrays: np.ndarray) -> list[np.ndarray]:
        return [np.ascontiguousarray(array, self.dtype) for array in arrays]


def _backend(name: str) -> Callable[[Case, int], Map]:
    def prepare(case: Case, threads: int) -> Map:
        from constrained_vae.backends import BackendNotAvailableError, get_backend

        try:
            expectations = get_backend(name).expectations
        except BackendNotAvailableError as error:
            raise MissingError(str(error)) from error
        phi, s, rho = case.rows()
        arguments = [phi, s, rho, *case.tiles()]
        if name == "cupy":
            arguments = _on_gpu([phi, s, rho.astype(np.float64), *case.tiles()])  # types used without a copy
        return lambda: vars(expectations(*arguments, quadratic=case.multiplier))

    return prepare


def _mixture(case: Case, threads: int) -> Map:
    """E-step and M-step of scikit-learn, which also estimate K variances.

    `fit` with one iteration is not used, since it computes the E-step twice.
    """
    from sklearn.mixture import GaussianMixture

    K, x = len(case.psi), case.rows()[0]
    mixture = GaussianMixture(K, covariance_type="spherical")
    weights = np.full(K, 1 / K, case.dtype)
    means, precisions = case.psi.astype(case.dtype), np.full(K, np.sqrt(2 * case.multiplier), case.dtype)
    # Difference of the mean log density and the mean log partition function, -F.
    constant = x.shape[1] / 2 * np.log(case.multiplier / np.pi)

    def evaluate() -> dict[str, Any]:
        mixture.weights_, mixture.means_, mixture.precisions_cholesky_ = weights, means, precisions
        log_density, log_encoder = mixture._e_step(x)
        mixture._m_step(x, log_encoder)
        return {"mass": mixture.weights_, "decoder": mixture.means_, "free_energy": constant - log_density}

    return evaluate


def _kmeans(case: Case, threads: int) -> Map:
    """One Lloyd step, the limit of large lambda: nearest tiles and new means, without exponentials or F.

    The step is called directly, since `fit` with one iteration adds preparation and a second search for nearest tiles.
    """
    from threadpoolctl import threadpool_limits

    try:
        from sklearn.cluster._kmeans import lloyd_iter_chunked_dense
    except ImportError as error:
        raise MissingError(f"this version of scikit-learn has its Lloyd step elsewhere ({error})") from error
    x, _, rho = case.rows()
    psi = case.psi.astype(case.dtype)
    decoder, mass, shift = np.empty_like(psi), np.empty(len(psi), case.dtype), np.empty(len(psi), case.dtype)
    labels = np.empty(len(x), np.int32)
    threadpool_limits(1, user_api="blas")  # as in KMeans, which runs chunks in threads

    def evaluate() -> dict[str, Any]:
        lloyd_iter_chunked_dense(x, rho, psi, decoder, mass, labels, shift, threads)
        return {"mass": mass, "decoder": decoder}

    return evaluate


def _import_torch(threads: int) -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingError(f"PyTorch is not installed ({error}): pip install 'constrained-vae[bench]'") from error
    torch.set_num_threads(threads)
    return torch


def _torch(case: Case, threads: int, device: str = "cpu") -> Map:
    """logsumexp and softmax of the whole (N, K) array, or of blocks of 1 GB."""
    torch = _import_torch(threads)

    def part(phi: Any, s: Any, rho: Any, v: Any, b: Any, log_masses: Any) -> tuple[Any, ...]:
        logits = torch.addmm(b + log_masses, phi, v.T)
        log_Z = torch.logsumexp(logits, 1) - s
        q = torch.softmax(logits, 1).mul_(rho[:, None])
        return q.sum(0), q.T @ phi, -(rho @ log_Z), rho @ s

    return _torch_map(torch, case, part, _WHOLE, device)


def _torch_blocks(case: Case, threads: int) -> Map:
    """One exponential per entry, in place, in blocks of the fastest size."""
    torch = _import_torch(threads)

    def part(phi: Any, s: Any, rho: Any, v: Any, b: Any, log_masses: Any) -> tuple[Any, ...]:
        q = torch.addmm(b + log_masses, phi, v.T)
        top = q.amax(1)
        Z = q.sub_(top[:, None]).exp_().sum(1)
        w = rho / Z
        return w @ q, q.T @ (w[:, None] * phi), rho @ (s - top - Z.log()), rho @ s

    def in_blocks(case: Case, block: int) -> Map:
        return _torch_map(torch, case, part, block)

    return in_blocks(case, _fastest(case, in_blocks))


def _torch_map(torch: Any, case: Case, part: Callable[..., tuple[Any, ...]], block: int, device: str = "cpu") -> Map:
    rows, tiles = ([torch.from_numpy(a).to(device) for a in arrays] for arrays in (case.rows(), case.tiles()))
    n = max(1, block // len(case.psi))
    pieces = list(zip(*(array.split(n) for array in rows), strict=True))

    def evaluate() -> dict[str, Any]:
        total = part(*pieces[0], *tiles)
        for piece in pieces[1:]:
            total = tuple(a + b for a, b in zip(total, part(*piece, *tiles), strict=True))
        return _linear(*total, *tiles[:2])

    return evaluate


def _jax(case: Case, threads: int) -> Map:
    """Compiled logsumexp and softmax of the whole (N, K) array, or of blocks of 1 GB."""
    jax = import_jax()
    jnp = jax.numpy

    def part(phi: Any, s: Any, rho: Any, v: Any, b: Any, log_masses: Any) -> tuple[Any, ...]:
        logits = phi @ v.T + (b + log_masses)
        log_Z = jax.nn.logsumexp(logits, axis=1)
        q = jnp.exp(logits - log_Z[:, None]) * rho[:, None]
        return q.sum(axis=0), q.T @ phi, rho @ (s - log_Z), rho @ s

    return _jax_map(jax, case, part, _WHOLE)


def _jax_blocks(case: Case, threads: int) -> Map:
    """Compiled, one exponential per entry, mass and sums from one matrix product, in blocks of the fastest size."""
    jax = import_jax()
    jnp = jax.numpy

    def part(phi: Any, s: Any, rho: Any, v: Any, b: Any, log_masses: Any) -> tuple[Any, ...]:
        logits = phi @ v.T + (b + log_masses)
        top = logits.max(axis=1)
        q = jnp.exp(logits - top[:, None])
        Z = q.sum(axis=1)
        sums = q.T @ ((rho / Z)[:, None] * jnp.concatenate([phi, jnp.ones_like(phi[:, :1])], axis=1))
        return sums[:, -1], sums[:, :-1], rho @ (s - top - jnp.log(Z)), rho @ s

    def in_blocks(case: Case, block: int) -> Map:
        return _jax_map(jax, case, part, block)

    return in_blocks(case, _fastest(case, in_blocks))


def import_jax() -> Any:
    try:
        import jax
    except ImportError as error:
        raise MissingError(f"JAX is not installed ({error}): pip install 'constrained-vae[bench]'") from error
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    return jax


def _jax_map(jax: Any, case: Case, part: Callable[..., tuple[Any, ...]], block: int) -> Map:
    (N, K), tiles = (len(case.x), len(case.psi)), case.tiles()
    blocks = -(-N // max(1, block // K))
    n = -(-N // blocks)
    # Rows that fill the last block have weight zero.
    rows = [
        np.pad(a, [(0, blocks * n - N)] + [(0, 0)] * (a.ndim - 1)).reshape(blocks, n, *a.shape[1:]) for a in case.rows()
    ]

    def evaluate(rows: list[Any], tiles: list[Any]) -> dict[str, Any]:
        def add(total: Any, piece: Any) -> tuple[Any, None]:
            return jax.tree.map(jax.numpy.add, total, part(*piece, *tiles)), None

        total = part(*(a[0] for a in rows), *tiles)
        if blocks > 1:
            total, _ = jax.lax.scan(add, total, [a[1:] for a in rows])
        return _linear(*total, *tiles[:2])

    arguments = jax.device_put((rows, tiles))
    compiled = jax.jit(evaluate).lower(*arguments).compile()
    return lambda: dict(jax.block_until_ready(compiled(*arguments)))


def _linear(mass: Any, sums: Any, free_energy: Any, offset: Any, v: Any, b: Any) -> dict[str, Any]:
    """The results with the expected energy, which is linear in them (T4): sum_i rho_i s_i - m . b - <sums, v>."""
    return {"mass": mass, "sums": sums, "free_energy": free_energy, "energy": offset - mass @ b - (sums * v).sum()}


def _fastest(case: Case, prepare: Callable[[Case, int], Map]) -> int:
    """The block size with the fastest map of the first rows, by the best of three runs each."""
    some = Case(case.x[: max(1, _TRIAL // len(case.psi))], case.psi, case.dtype)
    entries = len(some.x) * len(some.psi)

    def best(block: int) -> float:
        evaluate = prepare(some, block)
        evaluate()
        return min(wall_clock(evaluate) for _ in range(3))

    return min([block for block in _BLOCKS if block < entries] or [entries], key=best)


def _on_gpu(arrays: list[np.ndarray]) -> list[Any]:
    try:
        import cupy
    except ImportError as error:
        raise MissingError(f"CuPy is not installed ({error}): pip install 'constrained-vae[gpu-cuda12]'") from error
    try:
        return [cupy.asarray(array) for array in arrays]
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise MissingError(f"CuPy finds no usable GPU ({error})") from error


def _cupy_composition(case: Case, threads: int) -> Map:
    """The equations as array functions of CuPy, in blocks of rows: the reference backend on the device."""
    from constrained_vae.backends import reference

    arguments = _on_gpu([*case.rows(), *case.tiles()])
    return lambda: vars(reference.expectations(*arguments))


def _torch_cuda(case: Case, threads: int) -> Map:
    if not _import_torch(threads).cuda.is_available():
        raise MissingError("PyTorch finds no usable GPU")
    return _torch(case, threads, "cuda")


def wall_clock(evaluate: Callable[[], object]) -> float:
    start = time.perf_counter()
    evaluate()
    return time.perf_counter() - start


def _cupy_events(evaluate: Callable[[], object]) -> float:
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    evaluate()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(start, end)) / 1e3


def _torch_events(evaluate: Callable[[], object]) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    evaluate()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


@dataclass(frozen=True)
class Method:
    """A method: its preparation of a map, its package, and its function that measures the seconds of a map."""

    prepare: Callable[[Case, int], Map]
    package: str
    seconds: Callable[[Callable[[], object]], float] = wall_clock

    @property
    def on_gpu(self) -> bool:
        return self.seconds is not wall_clock


METHODS = {
    "numba": Method(_backend("numba"), "numba"),
    "reference": Method(_backend("reference"), "numpy"),
    "mixture": Method(_mixture, "scikit-learn"),
    "kmeans": Method(_kmeans, "scikit-learn"),
    "torch": Method(_torch, "torch"),
    "torch-blocks": Method(_torch_blocks, "torch"),
    "jax": Method(_jax, "jax"),
    "jax-blocks": Method(_jax_blocks, "jax"),
    "cupy": Method(_backend("cupy"), "cupy", _cupy_events),
    "cupy-composition": Method(_cupy_composition, "cupy", _cupy_events),
    "torch-cuda": Method(_torch_cuda, "torch", _torch_events),
}
