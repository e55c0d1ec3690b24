"""The reconstruction that splits next, and the first critical temperature of a data set (T9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._utils.arrays import FloatArray
from .._utils.checks import check_instance
from ..data.rows import RowBlocks
from ..objectives.base import Objective
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..solvers.split_condition import split_condition


@dataclass(frozen=True, eq=False)
class NearestSplit:
    """The reconstruction of a solution that is nearest to splitting, its axis, and its critical temperature (T9).

    Attributes
    ----------
    beta : float
        Temperature at which the reconstruction would split if its responsibilities did not change with the temperature.
        It is exact at a transition, and for the collapsed solution at any temperature.
    eigenvalue : float
        Largest eigenvalue of lambda grad^2 f Cov of the reconstruction, which is stable if this is below 1.
    reconstruction : int
        Number of the reconstruction among the distinct reconstructions of the solution.
    direction : (D,) array
        Unit vector of the axis, in the coordinates of the objective (those of x for the Gaussian decoder).

    Examples
    --------
    >>> import constrained_vae as cv
    >>> cv.nearest_split(cv.solve([[-1.0], [1.0]], beta=1.5, n_tiles=2)).direction
    array([1.])
    """

    beta: float
    eigenvalue: float
    reconstruction: int
    direction: FloatArray


def nearest_split(solution: FixedPoint) -> NearestSplit:
    """Find the reconstruction that is nearest to splitting (T9).

    Only reconstructions with two or more tiles can split; with free masses all can, if there are more tiles than
    reconstructions. If none can split, all are considered. The function makes one pass over the data.

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.

    Returns
    -------
    NearestSplit
        The reconstruction, its temperature and its axis.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> round(nearest_split(solve([[-2.0], [2.0]], beta=5.0, n_tiles=2)).beta, 9)
    4.0
    """
    check_instance(solution, "solution", FixedPoint, "solve(x)")
    sites, problem = solution.distinct, solution.problem
    able = sites.can_split(solution.masses_free)
    among = able if able.any() else None
    condition = split_condition(problem, solution.frame.inward(sites.decoder), sites.log_masses, among)
    return NearestSplit(solution.beta * condition.eigenvalue, condition.eigenvalue, condition.site, condition.axis)


def first_critical_beta(
    x: npt.ArrayLike | RowBlocks,
    objective: Objective | None = None,
    *,
    sigma: float | None = None,
    weights: npt.ArrayLike | None = None,
    backend: str = "auto",
) -> float:
    """First critical temperature, at which the collapsed solution splits, in closed form (T9).

    For the Gaussian decoder it is the largest eigenvalue of the covariance of the data, divided by sigma^2. For the
    Bernoulli decoder it is the largest eigenvalue of G^-1/2 Cov G^-1/2 with G = diag(mean (1 - mean)); for 0/1 data
    this is the correlation matrix, so that the result is at least 1. For counts and compositions it is the same with
    G = diag(mean). For constraints it is the largest eigenvalue of
    A^-1 B (T9) with beta = 1 at the collapsed reconstruction, which is found by descent from the mean of the data.

    Parameters
    ----------
    x : (N, D) array_like, memory map, RowBlocks, or Dask array or dataframe
        Data.
    objective : Objective, optional
        `ELBO()` by default. Its beta is ignored.
    sigma : float, optional
        Standard deviation of the Gaussian decoder, in units of x; short for an ELBO with it. 1 by default.
    weights : (N,) array_like, optional
        Data weights, uniform by default.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.

    Returns
    -------
    float
        The critical beta; 0 if all points coincide.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> first_critical_beta([[-2.0], [2.0]])
    4.0
    """
    return critical_beta(Problem.make(x, objective, weights, backend, sigma=sigma))


def critical_beta(problem: Problem) -> float:
    """`first_critical_beta` of a problem."""
    # At the collapsed solution the responsibilities do not depend on beta. The eigenvalue is proportional to 1 / beta.
    return problem.objective.beta * split_condition(problem, problem.collapsed[None], np.zeros(1)).top
