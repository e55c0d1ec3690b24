"""A naive follower of branches under a squared error: plain maps in small steps of the temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_JITTER = 1e-7  # displacement of the tiles before every temperature, in units of the radius of the data


@dataclass(frozen=True, eq=False)
class NaiveBranch:
    """Solutions along temperatures, in their order.

    Attributes
    ----------
    betas : (n,) array
        Temperatures.
    decoder : (n, K, D) array
        Reconstructions of the tiles, in units of x.
    marginal : (n, K) array
        Marginal posterior of the tiles.
    masses : (n, K) array
        Prior masses of the tiles.
    distortion, free_energy : (n,) arrays
        E||x - psi||^2, in squared units of x, and F, in nats.
    converged : (n,) bool array
        Whether the last step of the map was below the tolerance.

    Examples
    --------
    >>> import numpy as np
    >>> halves = np.full((2, 2), 0.5)
    >>> branch = NaiveBranch(
    ...     betas=np.array([2.0, 0.5]),
    ...     decoder=np.array([[[0.0], [0.0]], [[-1.0], [1.0]]]),
    ...     marginal=halves,
    ...     masses=halves,
    ...     distortion=np.array([1.0, 0.0]),
    ...     free_energy=np.zeros(2),
    ...     converged=np.ones(2, dtype=bool),
    ... )
    >>> branch.n_distinct()
    array([1, 2])
    """

    betas: npt.NDArray[np.float64]
    decoder: npt.NDArray[np.float64]
    marginal: npt.NDArray[np.float64]
    masses: npt.NDArray[np.float64]
    distortion: npt.NDArray[np.float64]
    free_energy: npt.NDArray[np.float64]
    converged: npt.NDArray[np.bool_]

    def n_distinct(self, tolerance: float = 1e-3, mass: float = 1e-6) -> npt.NDArray[np.intp]:
        """Number of groups of tiles (n,), in each of which neighbours are nearer than a share of the radius of x.

        Tiles with less than `mass` of the marginal posterior are left out.
        """
        scale = tolerance * np.sqrt(self.distortion.max())
        return np.array([_groups(psi[m > mass], scale) for psi, m in zip(self.decoder, self.marginal, strict=True)])


def naive_branch(
    x: npt.ArrayLike,
    betas: npt.ArrayLike,
    decoder: npt.ArrayLike,
    masses: npt.ArrayLike,
    *,
    weights: npt.ArrayLike | None = None,
    free: bool = False,
    sigma: float = 1.0,
    tol: float = 1e-9,
    max_maps: int = 20_000,
    seed: int = 0,
) -> NaiveBranch:
    """Follow a branch of fixed points by plain maps (T1)-(T3), every temperature from the solution before it.

    Before every temperature the tiles are displaced a little at random, so that coincident tiles can separate. There is
    no acceleration, no tie and no test of stability: only the equations. The maps end when a step is below `tol`, so
    that a solution near a transition is less accurate than that.

    Parameters
    ----------
    x : (N, D) array_like
        Data.
    betas : (n,) array_like
        Temperatures, in the order in which they are solved.
    decoder, masses : (K, D) and (K,) array_like
        Reconstructions and prior masses of the tiles at the start.
    weights : (N,) array_like, optional
        Data weights, uniform by default.
    free : bool
        Whether the masses follow the marginal posterior.
    sigma : float
        Standard deviation of the decoder.
    tol : float
        Largest last step, in units of the radius of the data.
    max_maps : int
        Largest number of maps at a temperature.
    seed : int
        Seed of the displacements.

    Returns
    -------
    NaiveBranch
        The solutions; `converged` says where the last step was below `tol`.

    Examples
    --------
    >>> import numpy as np
    >>> found = naive_branch([[-1.0], [1.0]], [0.9, 0.95, 1.05], [[-0.5], [0.5]], [0.5, 0.5])  # they meet at 1
    >>> found.n_distinct()
    array([2, 2, 1])
    """
    points = np.asarray(x, dtype=np.float64)
    rho = np.full(len(points), 1.0) if weights is None else np.asarray(weights, dtype=np.float64)
    rho = rho / rho.sum()
    centre = rho @ points
    points = points - centre
    radius = float(np.sqrt(rho @ (points**2).sum(axis=1)))
    rng = np.random.default_rng(seed)
    psi, pi = np.asarray(decoder, dtype=np.float64) - centre, np.asarray(masses, dtype=np.float64)
    rows: list[tuple[Any, ...]] = []
    for beta in np.asarray(betas, dtype=np.float64):
        psi = psi + _JITTER * radius * rng.standard_normal(psi.shape)
        step, count = np.inf, 0
        while step > tol * radius and count < max_maps:
            m, means, distortion, free_energy = _map(points, rho, psi, pi, 1 / (2 * sigma**2 * beta))
            change = np.abs(means - psi).max(axis=1)
            step, count = float(np.where(m > 1e-12, change, 0.0).max()), count + 1
            if free:
                step, pi = max(step, radius * float(np.abs(m - pi).max())), m
            psi = means
        rows.append((beta, psi + centre, m, pi, distortion, free_energy, step <= tol * radius))
    return NaiveBranch(*(np.array(column) for column in zip(*rows, strict=True)))


def _map(x: Any, rho: Any, psi: Any, pi: Any, lam: float) -> tuple[Any, Any, float, float]:
    """Marginal posterior, weighted means of the data, distortion and free energy at given reconstructions."""
    square = np.square(x[:, None] - psi).sum(axis=2)
    with np.errstate(divide="ignore", under="ignore"):
        logits = np.log(pi) - lam * square
        top = logits.max(axis=1, keepdims=True)
        q = np.exp(logits - top)
    total = q.sum(axis=1, keepdims=True)
    weighted = rho[:, None] * q / total
    m = weighted.sum(axis=0)
    alive = m > 0
    means = np.where(alive[:, None], weighted.T @ x / np.where(alive, m, 1.0)[:, None], psi)
    return m, means, float((weighted * square).sum()), float(-rho @ (top + np.log(total))[:, 0])


def _groups(points: Any, tolerance: float) -> int:
    """Number of connected groups of points whose neighbours are within a distance."""
    if not len(points):
        return 0
    near = np.square(points[:, None] - points).sum(axis=2) <= tolerance**2
    group = np.arange(len(points))
    for i in range(len(points)):
        found = np.unique(group[near[i]])
        group[np.isin(group, found)] = found[0]
    return len(np.unique(group))
