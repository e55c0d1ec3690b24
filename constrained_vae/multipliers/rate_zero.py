"""The state at rate zero, with which a search for multipliers begins: all multipliers are zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from .._utils import deadline
from .._utils.arrays import FloatArray
from .._utils.device import to_host
from ..latent.sites import Sites
from ..phases.continuation import State
from .search import KKT_TOL, Search, values


def at_rate_zero(search: Search) -> State:
    """The state with zero multipliers: the limit of small ones, or the state of the anchor if there is one."""
    given, data = search.objective, search.problem.data
    ones = replace(given, multipliers=(1.0 / len(given.constraints),) * len(given.constraints))
    zeros = replace(given, multipliers=(0.0,) * len(given.constraints))
    mean = Sites.of_tiles(data.mean[None].repeat(len(search.tiling), 0), search.tiling.masses)
    state = search.solve(zeros if given.anchor else ones, mean, split=False)
    if given.anchor:
        return state
    known: dict[str, Any] = {"objective": zeros, "free_energy": 0.0, "energy": 0.0}
    if len(given.constraints) > 1 and not (values(state) <= 0).all() and not deadline.passed():
        with deadline.finishing():
            known |= _one_for_all(search, state)
    return replace(state, solution=replace(state.solution, **known))


def _one_for_all(search: Search, state: State) -> dict[str, Any]:
    """Changes of the result if one reconstruction meets all constraints, by a minimax search; {} otherwise."""
    problem, objective = search.problem, search.objective.in_frame(search.problem.data.frame)
    mean_statistic, move = problem.data.mean_statistic, problem.data.to_device
    at = move(state.sites.decoder[:1]), move(np.zeros(1))
    expectations = problem.expectations(*at)
    mass, sums = np.ones(1), to_host(expectations.sums)
    scales = search.sizes(state)

    def worst(u: FloatArray) -> FloatArray:  # t - C_k(psi) / scale_k for u = (psi, t)
        return u[-1] - objective.expected(mean_statistic, mass, sums, u[None, :-1]) / scales

    def slopes(u: FloatArray) -> FloatArray:
        down = -objective.expected_slopes(mass, sums, u[None, :-1])[:, 0] / scales[:, None]
        return np.column_stack([down, np.ones(len(down))])

    start = np.append(state.sites.decoder[0], (values(state) / scales).max())
    low, high = (np.broadcast_to(bound, len(start) - 1) for bound in objective.bounds)
    found = minimize(
        lambda u: u[-1],
        start,
        jac=lambda u: np.append(np.zeros(len(u) - 1), 1.0),
        method="SLSQP",
        bounds=[*zip(low, high, strict=True), (None, None)],
        constraints={"type": "ineq", "fun": worst, "jac": slopes},
        options={"maxiter": 200},
    )
    psi = found.x[None, :-1]
    expected = objective.expected(mean_statistic, mass, sums, psi)
    if not (expected <= KKT_TOL * scales).all():
        return {}
    return {
        "decoder": problem.data.frame.outward(psi).repeat(len(search.tiling), axis=0),
        "expected": tuple(expected.tolist()),
        "distortion": problem.distortion(move(psi), at[1], expectations),
    }
