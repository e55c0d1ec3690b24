"""The least rate at which constraints hold: a state at which they hold with room to spare is relaxed on its branch."""

from __future__ import annotations

import numpy as np

from ..phases.continuation import State
from ..results.status import Status
from .newton import Newton
from .search import Search

_RATE_TOL = 1e-6  # difference of rates, relative to them, that is none


def relaxed(search: Search) -> tuple[Status, State | None]:
    """Lower the rate of the best state, at which all constraints hold, until they just hold or its branch ends.

    A state at which constraints hold with room to spare solves the problem whose thresholds are its E[C_k]. On a branch
    dR = -sum_k lambda_k dE[C_k] (T7), so that relaxing these thresholds lowers the rate. If the branch ends before all
    constraints just hold, the thresholds are relaxed one after the other, while the others are held. Returns MET, or
    JUMP with the state beyond the end of the branch.
    """
    start, count = best(search), len(search.scales)
    newton = Newton(search, start, np.zeros(count), on_branch=True)
    status = newton.run()
    if status is Status.MET and newton.here.solution.rate <= best(search).solution.rate * (1 + _RATE_TOL):
        search.here = newton.here
        return Status.MET, None
    other, nearest_first = newton.other, np.argsort(-search.c(start))
    for order in (nearest_first, nearest_first[::-1]):
        here = start
        for k in order:
            held = np.where(np.arange(count) == k, 0.0, np.minimum(search.c(here), 0))
            newton = Newton(search, here, held, on_branch=True)
            newton.run()
            here, other = newton.here, newton.other or other
    search.here = best(search)
    return Status.JUMP, other


def best(search: Search) -> State:
    """The best state, of which there is one."""
    assert search.best is not None
    return search.best
