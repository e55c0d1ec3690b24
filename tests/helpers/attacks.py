"""Codes that may be better than a bound claims: random ones, centroids of Ward trees and of k-means, coarse grids.

All is computed in NumPy and SciPy, without the package. Every code is improved by some plain maps of positions and
masses, which never raise F (T6).
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

_MAPS = 12  # plain maps that improve a code
_GRID = 3  # points of a coarse grid along every axis


def free_energy(x, rho, psi, masses, lam):
    """F of a code (k, D) with masses, in nats, from differences."""
    with np.errstate(divide="ignore"):
        return float(-rho @ logsumexp(np.log(masses) - lam * cdist(x, psi, "sqeuclidean"), axis=1))


def improved(x, rho, psi, masses, lam, maps=_MAPS):
    """The least F of a code after some plain maps of positions and masses."""
    for _ in range(maps):
        logits = np.log(masses) - lam * cdist(x, psi, "sqeuclidean")
        q = rho[:, None] * np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        masses = q.sum(axis=0)
        alive = masses > 1e-12
        q, masses = q[:, alive], masses[alive]
        psi, masses = (q.T @ x) / masses[:, None], masses / masses.sum()
    return free_energy(x, rho, psi, masses, lam)


def codes(x, rho, rng):
    """Codes (name, psi, masses) for data x (n, D) with weights rho."""
    n, dim = x.shape

    def grouped(labels):
        masses = np.bincount(labels, rho)
        sums = np.stack([np.bincount(labels, rho * column) for column in x.T], axis=1)
        return sums[masses > 0] / masses[masses > 0, None], masses[masses > 0]

    yield "the data", x, rho
    tree = linkage(x, "ward")
    for k in range(1, n + 1):
        labels = fcluster(tree, k, "maxclust") - 1
        yield f"Ward, {k}", *grouped(labels)
        few = rng.choice(n, k, replace=False)
        yield f"random points, {k}", x[few], np.full(k, 1 / k)
        centroids, masses = x[few], None
        for _ in range(10):  # Lloyd's algorithm; a centroid without points is left out
            centroids, masses = grouped(cdist(x, centroids, "sqeuclidean").argmin(axis=1))
        yield f"k-means, {k}", centroids, masses
    k = int(rng.integers(1, 2 * n))
    yield "random places", rng.uniform(x.min(axis=0), x.max(axis=0), size=(k, dim)), rng.dirichlet(np.ones(k))
    axes = [np.linspace(low, high, _GRID) for low, high in zip(x.min(axis=0), x.max(axis=0), strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, dim)
    yield "a grid", grid, np.full(len(grid), 1 / len(grid))


def best_attack(x, rho, lam, rng):
    """The least F of all codes, as they are and improved, and the name of the code."""
    return min(
        (min(free_energy(x, rho, psi, masses, lam), improved(x, rho, psi, masses, lam)), name)
        for name, psi, masses in codes(x, rho, rng)
    )


def _orbit(points, dim, kind):
    """Points with their mirror images: through the origin, in every axis, or under cyclic permutations of the axes."""
    if kind == "centre":
        return np.concatenate([points, -points])
    if kind == "axes":
        signs = np.stack(np.meshgrid(*[[1.0, -1.0]] * dim), axis=-1).reshape(-1, dim)
        return (points[:1, None] * signs).reshape(-1, dim)
    return np.concatenate([np.roll(points, shift, axis=1) for shift in range(dim)])


@st.composite
def data_sets(draw, most=10, dims=(1, 4)):
    """Data (n, D) and weights (n,): generic, on a coarse grid with duplicates, symmetric, or one-hot in far blocks."""
    dim, n = draw(st.integers(*dims)), draw(st.integers(2, most))
    kind = draw(st.sampled_from(["generic", "grid", "centre", "axes", "cyclic", "one-hot"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "one-hot":
        x = np.concatenate([np.eye(dim), np.eye(dim)])
        x = np.column_stack([x, np.repeat([0.0, draw(st.sampled_from([3.0, 50.0]))], dim)])
    else:
        x = rng.normal(size=(n, dim)) if kind != "grid" else rng.integers(-2, 3, size=(n, dim)).astype(float)
        x = x if kind in ("generic", "grid") else _orbit(x[: max(1, most // (2 * dim))], dim, kind)
    if np.ptp(x, axis=0).max() == 0:
        x[0] += 1
    weights = np.ones(len(x)) if draw(st.booleans()) else 10 ** rng.uniform(draw(st.sampled_from([-1, -6])), 0, len(x))
    return x, weights / weights.sum()
