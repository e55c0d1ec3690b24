"""Hypothesis strategies: small, well-scaled problems whose start is generic, so that it does not lie on a saddle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .closed_forms import EPS, FloatArray

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the strategies of constrained_vae.testing need Hypothesis, which is in the extra `test`: "
        "pip install 'constrained-vae[test]' (closed forms and the naive oracle work without Hypothesis)",
        name=error.name,
    ) from error


@dataclass(frozen=True, eq=False)
class SmallProblem:
    """A small problem with a start and with sigma = 1; all arrays are read-only copies.

    Attributes
    ----------
    x : (N, D) array
        Data in [-1, 1]; for the Bernoulli likelihood in [0, 1].
    weights : (N,) array
        Data weights of sum 1; their ratios are at most five.
    masses : (K,) array
        Prior masses of sum 1; their ratios are at most five.
    start : (K, D) array
        Initial reconstructions.
    beta : float
        Temperature; with sigma = 1 it equals theta.

    Examples
    --------
    >>> import numpy as np
    >>> p = SmallProblem(np.array([[-1.0], [1.0]]), np.full(2, 0.5), np.ones(1), np.zeros((1, 1)), beta=1.0)
    >>> p.x.shape, len(p.masses)
    ((2, 1), 1)
    """

    x: FloatArray
    weights: FloatArray
    masses: FloatArray
    start: FloatArray
    beta: float

    def __post_init__(self) -> None:
        for name in ("x", "weights", "masses", "start"):
            array = np.array(getattr(self, name), dtype=float)
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def multiplier(self) -> float:
        """Multiplier lambda = 1 / (2 beta) of the squared error (T3)."""
        return 1 / (2 * self.beta)

    @property
    def spread(self) -> float:
        """Total variance of the data, tr Cov(x)."""
        mean = self.weights @ self.x
        return float(self.weights @ np.square(self.x - mean).sum(axis=1))

    @property
    def energies(self) -> float:
        """Largest lambda (|x|^2 + |psi|^2) about the mean: size of the terms that cancel in the linear form."""
        mean = self.weights @ self.x
        reach = [np.square(points - mean).sum(axis=1).max() for points in (self.x, self.start)]
        return self.multiplier * float(sum(reach))

    def rounding(self, n_maps: int) -> float:
        """Bound of the rounding error after some maps, to be used as a tolerance.

        One map rounds each energy by (D + 3) eps of its terms, and each sum over points or tiles by their number times
        eps. The Jacobian is 2 lambda times covariances under the encoder; its spectral norm is at most
        lambda diameter^2 / 2.

        Parameters
        ----------
        n_maps : int
            Number of maps.

        Returns
        -------
        float
            The error, relative to the size of the problem, which is about 1.
        """
        diameter = 2 * float(np.sqrt(np.square(self.x - self.x.mean(axis=0)).sum(axis=1).max()))
        growth = max(1.0, self.multiplier * diameter**2 / 2) ** n_maps
        return EPS * growth * (16 + len(self.x) + len(self.masses) + (self.x.shape[1] + 3) * self.energies)


def _shares(draw: st.DrawFn, n: int) -> FloatArray:
    shares = np.array(draw(st.lists(st.floats(0.2, 1.0), min_size=n, max_size=n)))
    return shares / shares.sum()


@st.composite
def small_problems(
    draw: st.DrawFn, bernoulli: bool = False, least_tiles: int = 1, relative_beta: tuple[float, float] = (0.15, 2.0)
) -> SmallProblem:
    """Problems of N <= 12 points in D <= 3 dimensions, with K <= 6 tiles.

    The points lie on a coarse grid, so that duplicates and symmetric sets occur, but at least two points differ. The
    start is generic, since a start on a symmetry axis would test saddles only.

    Parameters
    ----------
    bernoulli : bool
        Whether data and start are in [0, 1], for a Bernoulli likelihood.
    least_tiles : int
        Smallest number of tiles.
    relative_beta : (float, float)
        Range of beta relative to the first critical beta (T9), for the Bernoulli likelihood relative to 1.

    Returns
    -------
    strategy of SmallProblem
        Argument for `hypothesis.given`.

    Raises
    ------
    ModuleNotFoundError
        On import, if Hypothesis is not installed.

    Examples
    --------
    >>> from hypothesis import find, settings
    >>> problem = find(small_problems(), lambda p: True, settings=settings(max_examples=5))
    >>> len(problem.x) <= 12, len(problem.masses) <= 6
    (True, True)
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
    return SmallProblem(x, weights, masses, start, beta)
