"""Hypothesis strategies: small problems with well-scaled numbers, generic enough to have no accidental saddles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Small:
    """A small problem with a start; all arrays are read-only.

    x (N, D) within [-1, 1], or {0, 1} and between for the Bernoulli likelihood; weights (N,) and masses (K,) within a
    factor of five of each other, summing to 1; start (K, D); beta.
    """

    x: np.ndarray
    weights: np.ndarray
    masses: np.ndarray
    start: np.ndarray
    beta: float

    def __post_init__(self) -> None:
        for name in ("x", "weights", "masses", "start"):
            array = np.array(getattr(self, name), dtype=float)
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def lam(self) -> float:
        return 1 / (2 * self.beta)

    @property
    def spread(self) -> float:
        """tr Cov(x)."""
        mean = self.weights @ self.x
        return float(self.weights @ np.square(self.x - mean).sum(axis=1))

    @property
    def energies(self) -> float:
        """Largest lambda (|x|^2 + |psi|^2) about the mean: the terms that cancel in an energy of the linear form."""
        mean = self.weights @ self.x
        reach = [np.square(points - mean).sum(axis=1).max() for points in (self.x, self.start)]
        return self.lam * float(sum(reach))

    def rounding(self, n_maps: int) -> float:
        """What rounding of the input may grow to after some maps, relative to the size of the problem.

        One map rounds each energy by (D + 3) eps of its terms, and each sum over points or tiles by their number. The
        Jacobian is 2 lambda times covariances under the encoder, at most lambda diameter^2 / 2 in the spectral norm.
        """
        diameter = 2 * float(np.sqrt(np.square(self.x - self.x.mean(axis=0)).sum(axis=1).max()))
        growth = max(1.0, self.lam * diameter**2 / 2) ** n_maps
        return EPS * growth * (16 + len(self.x) + len(self.masses) + (self.x.shape[1] + 3) * self.energies)

    def with_(self, **changes: object) -> Small:
        return replace(self, **changes)


def _shares(draw: st.DrawFn, n: int) -> np.ndarray:
    shares = np.array(draw(st.lists(st.floats(0.2, 1.0), min_size=n, max_size=n)))
    return shares / shares.sum()


@st.composite
def small_problems(
    draw: st.DrawFn, bernoulli: bool = False, least_tiles: int = 1, relative_beta: tuple[float, float] = (0.15, 2.0)
) -> Small:
    """Problems of N <= 12 points, D <= 3, K <= 6 tiles; beta relative to the first critical one (T9).

    Points lie on a coarse grid, so duplicates and symmetric sets do occur, but not all in one place; the start is
    generic, for a start on a symmetry axis would only ever test saddles.
    """
    n, dim, k = draw(st.integers(2, 12)), draw(st.integers(1, 3)), draw(st.integers(least_tiles, 6))
    grid = st.integers(0, 4).map(lambda j: j / 4) if bernoulli else st.integers(-8, 8).map(lambda j: j / 8)
    row = st.lists(grid, min_size=dim, max_size=dim).map(tuple)
    x = np.array(draw(st.lists(row, min_size=n, max_size=n).filter(lambda rows: len(set(rows)) > 1)))
    weights, masses = _shares(draw, n), _shares(draw, k)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if bernoulli:
        start = rng.uniform(0.05, 0.95, size=(k, dim))
        beta = draw(st.floats(*relative_beta))  # the first critical beta is about 1 for 0/1 data
    else:
        start = rng.uniform(-1, 1, size=(k, dim))
        mean = weights @ x
        top = np.linalg.eigvalsh((weights[:, None] * (x - mean)).T @ (x - mean))[-1]
        beta = draw(st.floats(*relative_beta)) * float(top)
    return Small(x, weights, masses, start, beta)
