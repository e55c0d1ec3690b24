"""Nucleation: the temperature at which one reconstruction of all data ceases to be globally optimal (T16)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._utils.arrays import FloatArray
from ..data.rows import RowBlocks
from ..objectives.elbo import ELBO
from ..phases.criticality import critical_beta
from ..problems.problem import Problem
from .optimum import collapsed_coverage

_NUCLEATION_TOL = 1e-12  # log c above which a second reconstruction helps
_NUCLEATION_BETA_TOL = 1e-10  # relative accuracy of the temperature of nucleation


def nucleation_beta(
    x: npt.ArrayLike | RowBlocks,
    objective: ELBO | None = None,
    *,
    weights: npt.ArrayLike | None = None,
    backend: str = "auto",
) -> float:
    """Temperature 1 / (2 sigma^2 lambda*) below which one reconstruction is not globally optimal (T16).

    At this temperature a second reconstruction appears with zero mass. It is at least `first_critical_beta`, where the
    collapsed solution splits, and above it for almost every sample. Between these temperatures the collapsed solution
    is metastable: [first_critical_beta, nucleation_beta] is the interval of hysteresis of free masses. The supremum of
    c is the largest of the maxima that are found by ascent from the data, which is not a proof.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    objective : ELBO, optional
        `ELBO()` by default; its beta is ignored.
    weights : (N,) array_like, optional
        Data weights, uniform by default.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.

    Returns
    -------
    float
        The beta of nucleation.

    Raises
    ------
    ValueError
        For bad input, and if all points coincide, so that nucleation never happens.

    Examples
    --------
    >>> nucleation_beta([[-1.0], [1.0]], weights=[0.1, 0.9])  # 2 (1 - 2 p) / log((1 - p) / p) (docs/theory.md, 5)
    0.728191...
    """
    return nucleation(Problem.make(x, objective, weights, backend, kind=ELBO))


def hysteresis_interval(
    x: npt.ArrayLike | RowBlocks,
    objective: ELBO | None = None,
    *,
    weights: npt.ArrayLike | None = None,
    backend: str = "auto",
) -> tuple[float, float]:
    """The temperatures between which the collapsed solution is stable and not globally optimal (T13), (T16).

    On cooling, the collapsed solution splits at the lower temperature, `first_critical_beta`. On heating, the global
    optimum of free masses is the collapsed solution from the upper temperature, `nucleation_beta`, on. The two are
    equal if the transition is continuous.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    objective : ELBO, optional
        `ELBO()` by default; its beta is ignored.
    weights : (N,) array_like, optional
        Data weights, uniform by default.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.

    Returns
    -------
    (float, float)
        The lower and the upper beta.

    Raises
    ------
    ValueError
        For bad input, and if all points coincide.

    Examples
    --------
    >>> hysteresis_interval([[-1.0], [1.0]], weights=[0.1, 0.9])
    (0.36, 0.728191...)
    """
    problem = Problem.make(x, objective, weights, backend, kind=ELBO)
    return critical_beta(problem), nucleation(problem)


def nucleation(problem: Problem) -> float:
    """`nucleation_beta` of a problem."""
    low = critical_beta(problem)
    if not low > 0:
        raise ValueError("all points coincide, so that one reconstruction is always optimal")

    points: FloatArray | None = None

    def nucleated(beta: float) -> bool:
        """Whether c exceeds 1 at a maximum, found from the data or from the maxima at the last such beta."""
        nonlocal points
        coverage, data = collapsed_coverage(problem.at(problem.objective.at(beta)))
        tops, heights = coverage.maxima(data if points is None else points)
        exceeds = bool(heights[0] > _NUCLEATION_TOL)
        if exceeds:
            points = tops
        return exceeds

    high = 1.01 * low
    if not nucleated(high):
        low, high = low, high
    else:
        while nucleated(high):
            low, high = high, 1.5 * high
    while high > low * (1 + _NUCLEATION_BETA_TOL):
        middle = float(np.sqrt(low) * np.sqrt(high))
        low, high = (middle, high) if nucleated(middle) else (low, middle)
    return float(np.sqrt(low) * np.sqrt(high))
