"""Diagnostics of a solution: coverage of the latent space, holes, blur, overlap (T15).

The functions of a `FixedPoint` stream over the rows of the data. `report` summarises their results as text.

Examples
--------
>>> from constrained_vae import solve
>>> s = solve([[-1.0], [1.0]], beta=0.1, n_tiles=4)
>>> round(marginal_kl(s), 6), active_tiles(s)
(0.143841, array([0, 1, 2, 3]))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import xlogy

from ._utils import tables
from ._utils.arrays import FloatArray
from ._utils.checks import check_instance, check_positive
from .data.prepared import Block
from .problems.posterior import Tiles, responsibilities
from .results.fixed_point import FixedPoint
from .solvers.masses import log_coverage_of
from .spectral.random_walk import eigengap, overlap_matrix, spectrum

__all__ = ["Blur", "Report", "active_tiles", "blur", "coverage", "holes", "marginal_kl", "overlap_matrix", "report"]

_HOLE_COVERAGE = 0.5  # a tile is a hole if its coverage m / pi is below this
_MAX_LISTED = 12  # reconstructions in the table of a report


def marginal_kl(solution: FixedPoint) -> float:
    """KL(m || pi) in nats: the cost of covering the prior unevenly, zero at the global optimum (T15).

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.

    Returns
    -------
    float
        Nats, at least 0.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> round(marginal_kl(solve([[-1.0], [1.0]], beta=0.1, n_tiles=3, weights=[0.5, 0.5])), 3)
    0.059
    """
    return _checked(solution).marginal_kl


def coverage(solution: FixedPoint) -> FloatArray:
    """m_a / pi_a of every tile, (K,): 1 where the marginal posterior equals the prior, NaN where the prior is 0.

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.

    Returns
    -------
    (K,) array
        Ratios, at least 0.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> coverage(solve([[-1.0], [1.0]], beta=0.1, n_tiles=2)).round(3)
    array([1., 1.])
    """
    masses = _checked(solution).tiling.masses
    return np.divide(solution.marginal, masses, out=np.full(len(masses), np.nan), where=masses > 0)


def holes(solution: FixedPoint, threshold: float = _HOLE_COVERAGE) -> npt.NDArray[np.intp]:
    """Tiles whose m_a is below `threshold` times their prior mass, (n,): regions of the prior with few data.

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.
    threshold : float
        Share of the prior mass, positive.

    Returns
    -------
    (n,) array of int
        Indices of tiles.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> s = solve([[-1.0], [1.0]], beta=0.1, n_tiles=2)
    >>> holes(s), holes(s, threshold=1.1)
    (array([], dtype=int64), array([0, 1]))
    """
    return np.flatnonzero(coverage(solution) < check_positive(threshold, "threshold"))


def active_tiles(solution: FixedPoint, threshold: float = _HOLE_COVERAGE) -> npt.NDArray[np.intp]:
    """Tiles with prior mass that are not holes, (n,).

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.
    threshold : float
        Share of the prior mass, positive.

    Returns
    -------
    (n,) array of int
        Indices of tiles.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> active_tiles(solve([[-1.0], [1.0]], beta=0.1, n_tiles=2))
    array([0, 1])
    """
    return np.flatnonzero(coverage(solution) >= check_positive(threshold, "threshold"))


@dataclass(frozen=True, eq=False)
class Blur:
    """The number of data points that a reconstruction averages, and its distance from them; a value per tile.

    Attributes
    ----------
    entropy : (K,) array
        -sum_i w_ia log w_ia in nats, where w_ia are the weights of the data in a reconstruction; NaN for a dead tile.
    distance : (K,) array
        Distance from the nearest data point of positive weight, in units of x.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> blur(solve([[-1.0], [1.0]], beta=2.0, n_tiles=2)).entropy.round(6)  # log 2
    array([0.693147, 0.693147])
    """

    entropy: FloatArray
    distance: FloatArray

    @property
    def n_points(self) -> FloatArray:
        """exp(entropy), the effective number of data points in a reconstruction, (K,)."""
        return np.exp(self.entropy)


def blur(solution: FixedPoint) -> Blur:
    """Entropy of the weights of every tile, and distance of its reconstruction from the nearest data point.

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.

    Returns
    -------
    Blur
        A value per tile, (K,).

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> found = blur(solve([[-1.0], [1.0]], beta=2.0, n_tiles=2))  # above the transition: one mean
    >>> found.n_points.round(6), found.distance.round(6)
    (array([2., 2.]), array([1., 1.]))
    """
    tied, index = _checked(solution).tied(), solution.distinct.index
    # -sum_i w log w = log m - sum_i (rho q) log(rho q) / m.
    mass, products = tied.problem.total(_entropies, *tied.code)
    alive = mass > 0
    scale = np.where(alive, mass, 1.0)
    entropy = np.where(alive, np.log(scale) - products / scale, np.nan).clip(min=0)
    return Blur(entropy[index], _nearest(tied)[index])


def _nearest(tied: FixedPoint) -> FloatArray:
    """Distance of every reconstruction from the nearest data point, (k,).

    The nearest point is found with matrix products; its distance is computed from differences, which is more accurate.
    """
    psi, _ = tied.code
    nearest = tied.problem.data.each(_nearest_of, psi, columns=len(psi))
    squares, points = (np.stack(part) for part in zip(*nearest, strict=True))
    chosen = points[squares.argmin(axis=0), np.arange(len(psi))]
    return tied.frame.scale * np.linalg.norm(chosen - psi, axis=1)


def _nearest_of(block: Block, psi: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Squared distance (k,) of each psi from the nearest point of positive weight in a block, and that point (k, D)."""
    x = block.x[block.rho > 0]
    if not len(x):
        return np.full(len(psi), np.inf), np.zeros_like(psi)
    squares = np.square(x).sum(axis=1) - 2 * psi @ x.T
    nearest = squares.argmin(axis=1)
    return squares[np.arange(len(psi)), nearest] + np.square(psi).sum(axis=1), x[nearest]


def _entropies(block: Block, tiles: Tiles) -> tuple[FloatArray, FloatArray]:
    """Masses m (k,), and sum_i (rho_i q_ia) log(rho_i q_ia) (k,)."""
    joint = responsibilities(block, tiles)
    return joint.sum(axis=0), xlogy(joint, joint).sum(axis=0)


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """Summary of a solution: printed as text, and shown as a table in a notebook.

    Attributes
    ----------
    title : str
        Temperature, and numbers of points, dimensions and tiles.
    facts : tuple of (str, str)
        Names and values.
    header : tuple of str
        Names of the columns.
    rows : tuple of tuple of str
        The distinct reconstructions of largest marginal mass.
    omitted : int
        Number of distinct reconstructions that are not in `rows`.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> report(solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)).facts[1]
    ('rate', '0.5903 nats')
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    omitted: int

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.facts)
        facts = [f"{name:<{width}}  {value}" for name, value in self.facts]
        more = [f"and {self.omitted} more"] if self.omitted else []
        return "\n".join([self.title, *facts, "", tables.as_text(self._columns), *more])

    def _repr_html_(self) -> str:
        more = f"<p>and {self.omitted} more</p>" if self.omitted else ""
        return tables.as_html(self.title, self._columns, self.facts) + more

    @property
    def _columns(self) -> tables.Columns:
        return {name: [row[i] for row in self.rows] for i, name in enumerate(self.header)}


def report(solution: FixedPoint, threshold: float = _HOLE_COVERAGE) -> Report:
    """A readable summary: rate, marginal KL, holes, blur, and the distinct reconstructions.

    With free masses it also has the largest log c = log(m / pi) of all tiles, however light (T14). The masses are at
    their optimum if it is 0; a positive number is the rate at which the mass of a tile would grow from map to map.

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.
    threshold : float
        Share of its prior mass below which a tile is a hole, as in `holes`.

    Returns
    -------
    Report
        Information in nats, distances in units of x unless the report says otherwise.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> report(solve([[-1.0], [1.0]], beta=0.5, n_tiles=2))
    beta = 0.5: 2 data points in 1 dimension, 2 tiles
    status              converged: the estimated error is below the tolerance
    rate                0.5903 nats
    distortion          0.08319 (units of x^2)
    free energy         0.6735 nats
    marginal KL         0 nats
    reconstructions     2 distinct; 2 clusters by the eigengap of the overlap
    holes (m < 0.5 pi)  0 of 2 tiles, prior mass 0
    blur                1.108 points averaged, nearest point 0.0425 of the data's radius away
    <BLANKLINE>
    reconstruction  tiles  prior mass  posterior mass  coverage  points averaged  nearest point
                 0      1         0.5             0.5         1            1.108         0.0425
                 1      1         0.5             0.5         1            1.108         0.0425
    """
    solution, sites = _checked(solution), solution.distinct
    threshold = check_positive(threshold, "threshold")
    found, empty = blur(solution), holes(solution, threshold)
    assert sites.marginal is not None
    first = np.unique(sites.index, return_index=True)[1]  # a tile of every reconstruction
    points, distance = found.n_points[first], found.distance[first]
    n, dim = solution.x.shape
    order = np.argsort(-sites.marginal, kind="stable")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = sites.marginal / sites.masses
    # Means over the marginal posterior; the mean of the number of points is geometric.
    averaged = float(np.exp(np.nansum(sites.marginal * np.log(points))))
    away = float(sites.marginal @ distance) / solution.frame.scale
    return Report(
        title=f"beta = {solution.beta:.6g}: {n} data points in {dim} dimension{'s' * (dim > 1)}, "
        f"{len(solution.tiling)} tiles",
        facts=(
            ("status", solution.ending),
            ("rate", f"{solution.rate:.4g} nats"),
            ("distortion", f"{solution.distortion:.4g} (units of x^2)"),
            ("free energy", f"{solution.free_energy:.4g} nats"),
            ("marginal KL", f"{solution.marginal_kl:.4g} nats"),
            *_optimality(solution),
            (
                "reconstructions",
                f"{len(sites)} distinct; {eigengap(spectrum(solution))} clusters by the eigengap of the overlap",
            ),
            (
                f"holes (m < {threshold:g} pi)",
                f"{len(empty)} of {len(solution.tiling)} tiles, prior mass {solution.tiling.masses[empty].sum():.3g}",
            ),
            ("blur", f"{averaged:.4g} points averaged, nearest point {away:.3g} of the data's radius away"),
        ),
        header=(
            "reconstruction",
            "tiles",
            "prior mass",
            "posterior mass",
            "coverage",
            "points averaged",
            "nearest point",
        ),
        rows=tuple(
            (
                str(a),
                str(sites.counts[a]),
                *(f"{v[a]:.3g}" for v in (sites.masses, sites.marginal, ratio)),
                f"{points[a]:.4g}",
                f"{distance[a]:.3g}",
            )
            for a in order[:_MAX_LISTED]
        ),
        omitted=max(0, len(sites) - _MAX_LISTED),
    )


def _optimality(solution: FixedPoint) -> list[tuple[str, str]]:
    """The largest log c of all tiles and the tile, where masses are free; 1e-15 and less is rounding of 0."""
    if not solution.masses_free:
        return []
    log_c = log_coverage_of(solution.problem, *solution.code, np.arange(len(solution.tiling)))
    return [("largest log c", f"{log_c.max():.2g} nats, at tile {log_c.argmax()}")]


def _checked(solution: FixedPoint) -> FixedPoint:
    check_instance(solution, "solution", FixedPoint, "solve(x)")
    return solution
