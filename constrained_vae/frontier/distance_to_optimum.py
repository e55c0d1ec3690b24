"""certify(): the distance of a solution to the global optimum, by the supremum of the coverage (T14)."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace

import numpy as np

from .._utils import deadline
from .._utils.checks import check_instance, check_time_limit
from ..backends import BackendNotAvailableError, get_backend
from ..latent.sites import Sites
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import NotConvergedWarning
from ..solvers.convergence import Convergence
from .certificate import Certificate
from .data_passes import DataPasses

_PROOF_TOL = 1e-8  # accuracy of the proof, in nats
_MANY = 1000  # data of which certificates are worth the compilation of kernels, which is once for an installation


def certify(solution: FixedPoint, *, time_limit: float | None = None) -> Certificate:
    """Bound how far F of a solution is above the global optimum (T14).

    The solution need not have converged, and its masses may be fixed or free. F is computed anew in float64. The upper
    bound is F as the solution states it, if the two agree to the rounding of float64; otherwise, as for a solution in
    float32, it is the new value.

    Parameters
    ----------
    solution : FixedPoint
        A solution of an `ELBO`.
    time_limit : float, optional
        Budget in seconds, kept as in `solve`.

    Returns
    -------
    Certificate
        Bounds of the global optimum, in nats, and whether they are proven. If the time is up during the proof, they are
        heuristic; if it is up before, the lower bound is proven and poor: c at any y is at most its sum with every
        energy at its minimum.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint, or its decoder is not finite.

    Warns
    -----
    NotConvergedWarning
        If the time is up.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> certify(solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)).gap < 1e-7
    True
    """
    check_instance(solution, "solution", FixedPoint, "solve(x)")
    if not np.isfinite(solution.decoder).all():
        raise ValueError("solution must have finite reconstructions, but its decoder holds NaN or infinite numbers")
    time_limit = check_time_limit(time_limit)
    problem = _compiled(solution.problem)
    data = DataPasses(problem)
    sites = Sites.of_tiles(solution.code[0], solution.tiling.masses)  # exactly coincident tiles
    found = None
    try:
        with deadline.within(time_limit):
            found, coverage, tops, _ = data.look(sites.decoder, sites.masses)
            found = data.proven(found, coverage, np.concatenate([sites.decoder, tops]), _PROOF_TOL)
    except deadline.TimeUp:
        found = found or data.glance(sites.decoder, sites.masses)
        warnings.warn(f"time_limit={time_limit:g}: no better bound was found", NotConvergedWarning, stacklevel=2)
    found = replace(found, solution=solution)
    difference = abs(solution.free_energy - found.upper)
    if not difference <= Convergence(problem, 0.0, True).slack(found.upper):
        return found
    rounding = found.rounding + difference
    lower = min(solution.free_energy, found.lower)
    rigorous = found.rigorous and rounding <= found.gap
    return Certificate(solution.free_energy, lower, found.where, rigorous, rounding, solution)


def _compiled(problem: Problem) -> Problem:
    """The problem on the compiled backend, if it has so many data that compilation pays and there is the backend."""
    if len(problem.data) < _MANY:
        return problem
    with contextlib.suppress(BackendNotAvailableError):
        return replace(problem, data=replace(problem.data, backend=get_backend()))
    return problem
