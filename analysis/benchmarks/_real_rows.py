"""Peers and single calls of `real`: k-means, mixtures, Blahut-Arimoto on a grid, and problems beside the sweeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import constrained_vae as cv

from ._methods import MissingError

LAMBDAS = 100.0, 300.0, 1000.0, 3000.0, 1e4  # of the physics data, in units of the points
_SIDE, _GRID_SECONDS = 60, 60.0  # of Blahut-Arimoto
_MARGIN = 1e-6  # nats, a gap at which Blahut-Arimoto has converged


def plane(path: str | None) -> np.ndarray:
    """The plane of the physics data, or without a path a small set like it: most points near an axis, with tails."""
    if path is not None:
        with np.load(path) as arrays:
            return np.asarray(arrays["ppzee2"], dtype=np.float64)
    rng = np.random.default_rng(0)
    return np.column_stack([rng.exponential(0.1, 200), rng.normal(0.0, 0.02, 200)])


def kmeans(x: np.ndarray, n_tiles: int, tol: float = 1e-4) -> np.ndarray:
    """Centres of k-means."""
    _sklearn()
    from sklearn.cluster import KMeans

    centres: np.ndarray = KMeans(n_tiles, n_init=1, tol=tol, random_state=0).fit(x).cluster_centers_
    return centres


def mixture(x: np.ndarray, n_tiles: int) -> np.ndarray:
    """Means of a mixture of spherical Gaussians, whose widths are fitted too."""
    _sklearn()
    from sklearn.mixture import GaussianMixture

    means: np.ndarray = GaussianMixture(n_tiles, covariance_type="spherical", random_state=0).fit(x).means_
    return means


PEERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"KMeans": kmeans, "GaussianMixture": mixture}


def _sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingError("scikit-learn is not installed: pip install scikit-learn") from error


def blahut_arimoto(x: np.ndarray, lam: float, side: int = _SIDE, seconds: float = _GRID_SECONDS) -> dict[str, Any]:
    """The optimal masses on a grid that spans the points, until the gap on the grid is small or the time is up.

    F and the gap are in nats. The gap is max log c, with c_a = m_a / pi_a: no masses on this grid have a lower F than
    F minus the gap.
    """
    began = time.process_time()
    low, high = x.min(axis=0), x.max(axis=0)
    axes = [np.linspace(a, b, side) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, x.shape[1])
    energies = np.square(x).sum(axis=1)[:, None] - 2 * x @ grid.T + np.square(grid).sum(axis=1)
    energies *= lam
    least = energies.min(axis=1)
    kernel = np.exp(least[:, None] - energies)
    masses, count, gap = np.full(len(grid), 1 / len(grid)), 0, np.inf
    while gap > _MARGIN and time.process_time() - began < seconds:
        partition = kernel @ masses
        c = (1 / partition) @ kernel / len(x)
        masses, count, gap = masses * c, count + 1, float(np.log(c.max()))
    free_energy = float((least - np.log(kernel @ masses)).mean())
    return {"seconds": time.process_time() - began, "maps": count, "free_energy": free_energy, "gap": gap}


def certified(x: np.ndarray, lam: float) -> dict[str, Any]:
    """The certified optimum at a multiplier."""
    began = time.process_time()
    s = cv.global_solution(x, beta=0.5 / lam, gap=1e-5, on_failure="return")
    return {
        "seconds": time.process_time() - began,
        "free_energy": s.free_energy,
        "gap": s.certificate.gap,
        "rigorous": bool(s.certificate.rigorous),
    }


def bumps() -> cv.FixedPoint:
    """Two Gaussian bumps as weights of a grid, at a twentieth of the first critical temperature, with free masses."""
    axis = np.linspace(-3, 3, 30)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    weights = sum(np.exp(-np.square(x - [centre, 0.0]).sum(axis=1) / (2 * 0.4**2)) for centre in (-1.5, 1.5))
    weights /= weights.sum()
    beta = 0.05 * cv.first_critical_beta(x, weights=weights)
    return cv.solve(x, beta=beta, n_tiles=32, weights=weights, masses="free", on_failure="return")


def many_rows() -> np.ndarray:
    """50 000 rows in 64 dimensions, around a hundred centres."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(100, 64))[rng.integers(100, size=50_000)] + rng.normal(size=(50_000, 64))


def solve_many_rows() -> cv.FixedPoint:
    """64 tiles at a tenth of the first critical temperature."""
    x = many_rows()
    return cv.solve(x, beta=0.1 * cv.first_critical_beta(x), n_tiles=64, tol=1e-6, on_failure="return")


def zeros_and_a_one(merged: bool = False) -> cv.RateDistortionCurve:
    """R(D) of 4999 zeros and a one, or of their two weighted points."""
    if merged:
        return cv.rate_distortion([[0.0], [1.0]], weights=[0.9998, 0.0002])
    return cv.rate_distortion(np.eye(5000, 1))


CALLS: dict[str, tuple[Callable[[], Any], Callable[[], Any] | None]] = {
    "two bumps on a grid, solve": (bumps, None),
    "4999 zeros and a one, R(D)": (zeros_and_a_one, None),
    "their two weighted points, R(D)": (lambda: zeros_and_a_one(merged=True), None),
    "50 000 x 64, solve; KMeans": (solve_many_rows, lambda: kmeans(many_rows(), 64)),
}
