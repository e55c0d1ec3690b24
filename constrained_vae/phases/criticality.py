"""Which reconstruction splits next, and the first critical temperature of a data set (T9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.arrays import FloatArray
from .._utils.checks import check_instance
from ..objectives.base import Objective
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..solvers.split_condition import split_condition


@dataclass(frozen=True, eq=False)
class NearestSplit:
    """Which reconstruction of a solution is nearest to splitting, along which axis, and at what temperature (T9).

    Attributes
    ----------
    beta : float
        Temperature at which it would split if its responsibilities stayed as they are: exact at a transition, and for
        the collapsed solution at any temperature.
    eigenvalue : float
        Of lambda grad^2 f Cov there: it is stable iff this is below 1.
    reconstruction : int
        Which of the distinct reconstructions of the solution.
    direction : (D,) array
        Unit vector, in the coordinates of the objective (those of x for the Gaussian decoder).

    Examples
    --------
    >>> import constrained_vae as cv
    >>> cv.nearest_split(cv.solve([[-1.0], [1.0]], beta=1.5, tiling=cv.Tiling.uniform(2))).direction
    array([1.])
    """

    beta: float
    eigenvalue: float
    reconstruction: int
    direction: FloatArray


def nearest_split(solution: FixedPoint) -> NearestSplit:
    """The reconstruction nearest to splitting, of those with two tiles or more, or of all if there are none (T9).

    With free masses every reconstruction may split while there are fewer of them than tiles. One pass over the data.

    Parameters
    ----------
    solution : FixedPoint
        Of any objective.

    Returns
    -------
    NearestSplit
        Which, at which temperature, and along which axis.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> from constrained_vae import Tiling, solve
    >>> round(nearest_split(solve([[-2.0], [2.0]], beta=5.0, tiling=Tiling.uniform(2))).beta, 9)
    4.0
    """
    check_instance(solution, "solution", FixedPoint, "solve(x)")
    sites, problem = solution.distinct, solution.problem
    able = sites.can_split(solution.masses_free)
    among = able if able.any() else None
    condition = split_condition(problem, solution.frame.inward(sites.decoder), sites.log_masses, among)
    return NearestSplit(solution.beta * condition.eigenvalue, condition.eigenvalue, condition.site, condition.axis)


def first_critical_beta(
    x: Any, objective: Objective | None = None, *, weights: Any = None, backend: str = "auto"
) -> float:
    """First critical temperature in closed form: where the collapsed solution splits (T9).

    Gaussian decoder: top eigenvalue of the data covariance over sigma^2. Bernoulli decoder: top eigenvalue of
    G^-1/2 Cov G^-1/2 with G = diag(mean (1 - mean)); for 0/1 data that of the correlation matrix, hence at least 1.
    Constraints: that of A^-1 B at the one reconstruction of all data that is found downhill from their mean.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    objective : Objective, optional
        `ELBO()` by default; its beta plays no part.
    weights : (N,) array_like, optional
        Data weights, uniform by default.
    backend : {"auto", "numba", "cupy", "reference"}
        Where to compute.

    Returns
    -------
    float
        beta; 0 if all points coincide.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> first_critical_beta([[-2.0], [2.0]])
    4.0
    """
    return critical_beta(Problem.make(x, objective, weights, backend, None))


def critical_beta(problem: Problem) -> float:
    """`first_critical_beta` for a problem at hand."""
    # At the collapsed solution the responsibilities do not depend on beta, and the eigenvalue goes as 1 / beta.
    return problem.objective.beta * split_condition(problem, problem.collapsed[None], np.zeros(1)).top
