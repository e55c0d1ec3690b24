"""The least rate at which constraints hold: a state at which they hold with room to spare is relaxed on its branch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..phases.continuation import State
from ..results.status import Status
from .constrained_fixed_point import kkt_residual
from .newton import Newton
from .search import Search

_RATE_TOL = 1e-6  # difference of rates, relative to them, that is none
_HELD_TOL = 1e-4  # accuracy, in units of the scales, to which constraints are held
_END_TOL = 2e-3  # accuracy, in units of the scales, to which the E[C_k] at the end of a branch is found


def relaxed(search: Search) -> tuple[Status, State | None]:
    """Lower the rate of the best state, at which all constraints hold, until they just hold or its branch ends.

    A state at which constraints hold with room to spare solves the problem whose thresholds are its E[C_k]. On a branch
    dR = -sum_k lambda_k dE[C_k] (T7), so that relaxing these thresholds lowers the rate. If the branch ends before all
    constraints just hold, the thresholds are relaxed one after the other, while the others are held. Returns MET, or
    JUMP with the state beyond the end of the branch.
    """
    exchange_tiles(search)
    here, other = best(search), None
    if met(search, here):
        return Status.MET, None
    order = np.argsort(-search.c(here))  # the nearest threshold first
    for k in [*order, *order]:  # the second time those that can be relaxed when others have been
        here, beyond = relax_one(search, here, k)
        if beyond is not None and not search.feasible(beyond):
            other = beyond
    if kkt_residual(search.y(here), search.c(here)) <= 2 * _HELD_TOL and met(search, here):
        return Status.MET, None
    search.here = best(search)
    return Status.JUMP, other


def met(search: Search, start: State) -> bool:
    """Whether all constraints just hold on the branch of a state, and nowhere else at less rate."""
    newton = Newton(search, start, np.zeros(len(search.scales)), on_branch=True)
    if newton.run() is not Status.MET or newton.here.solution.rate > best(search).solution.rate * (1 + _RATE_TOL):
        return False
    search.here = newton.here
    return True


def relax_one(search: Search, here: State, k: int) -> tuple[State, State | None]:
    """Relax one threshold as far as the branch goes, in steps; returns its end and a state beyond it."""
    held, other = np.minimum(search.c(here), -_HELD_TOL), None
    at = held[k]
    step, successes = -at, 0
    while at < 0 and step > _END_TOL:
        held[k] = at + step if at + step < -_END_TOL else 0.0
        newton = Newton(search, here, held.copy(), on_branch=True, tol=_HELD_TOL)
        if newton.run() is Status.MET:
            here, at, successes = newton.here, held[k], successes + 1
            step *= 2 if successes > 1 else 1
        else:
            step, successes, other = step / 2, 0, newton.other or other
    return here, other


def exchange_tiles(search: Search) -> None:
    """Fixed masses: give tiles of the site that uses its prior mass least to the one that lacks it, as the rate falls.

    dF = -sum_a (m_a / pi_a) dpi_a (T14). A split makes halves, whatever mass the two sides then have.
    """
    for _ in range(0 if search.options.free else len(search.tiling)):
        state = best(search)
        sites, index, ones = state.sites, state.sites.index.copy(), np.ones(len(state.sites))
        marginal = np.bincount(index, weights=state.solution.marginal)
        used = np.divide(marginal, sites.masses, out=ones, where=sites.masses > 0)
        giver, taker = np.where(sites.counts > 1, used, np.inf).argmin(), used.argmax()
        if sites.counts[giver] == 1 or giver == taker:
            return
        index[np.flatnonzero(index == giver)[-1]] = taker
        search.at(search.y(state), replace(state, sites=replace(sites, index=index, marginal=None)))
        if state is best(search):
            return


def best(search: Search) -> State:
    """The best state, of which there is one."""
    assert search.best is not None
    return search.best
