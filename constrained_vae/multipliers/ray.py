"""Annealing of multipliers in fixed ratios, a ray, until the worst constraint just holds.

Annealing starts from a single reconstruction and cools: every state is solved from a hotter state, so that the result
does not depend on the temperatures at which the ray is computed. A continuous split on the way (T9) is followed. A
split across which the constraint jumps over its threshold is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..latent.sites import Sites
from ..phases.continuation import Continuation, Split, State

JUMP_TOL = 1e-4  # difference of E[C], in units of the scales, between neighbouring states that is a jump
_MAX_HEATINGS = 60  # number of times that the start is heated by a factor 4
_COOLING_STEPS = (0.02, 0.2)  # shortest and longest step of the log temperature
_PLATEAU_TOL = 1e-10  # least decrease of the violation per decade of temperature; less of it is a plateau
_NO_SPLIT_TOL = 1e-3  # eigenvalue of the split condition below which no split is near
_START_BETAS = np.geomspace(1e3, 1e-6, 28)  # temperatures for a given start, in nats per scale of a constraint
_APPROACH_TOL = 1e-6  # tolerance before the root is bracketed, also that of the log temperature of a split
_ZERO_TOL = 1e-8  # violation that counts as zero
_MIN_BETA_RATIO = 1e-12  # lowest temperature, relative to that of the start

Measure = Callable[[State], float]


@dataclass(frozen=True, eq=False)
class Crossing:
    """The end of a ray: the state at which a measure of states, positive at the start, is zero.

    Attributes
    ----------
    state : State
        The state at zero; the state beyond a jump; or the coldest state if zero was not reached.
    before : State or None
        For a jump, the state on the other side, at about the same temperature.
    reached : bool
        Whether zero was reached.
    """

    state: State
    before: State | None = None
    reached: bool = True


def start(path: Continuation, beta: float) -> State:
    """The collapsed state at the first of the temperatures beta, 4 beta, 16 beta, ... at which it is stable."""
    for _ in range(_MAX_HEATINGS):
        state = path.collapsed(beta)
        if state.growth < 0:
            return state
        beta *= 4
    raise ValueError(
        "reconstructions do not collapse at any temperature: the anchor alone splits them, give a smaller anchor"
    )


def crossing(path: Continuation, hot: State, measure: Measure, seen: Callable[[State], None]) -> Crossing:
    """Cool from a state of positive measure until the measure is not positive, and find the root.

    `seen` is called with every state. The accuracy of the path holds for the root; cooling towards it is less accurate.
    """
    tol = max(path.options.tol, _APPROACH_TOL)
    way = replace(path, options=replace(path.options, tol=tol), accuracy=_APPROACH_TOL)

    def measured(state: State) -> float:
        seen(state)
        return measure(state)

    highest = measured(hot)
    if highest <= 0:  # a single reconstruction meets the constraints by its position
        cold = hot
        for _ in range(_MAX_HEATINGS):
            hot = path.collapsed(4 * hot.beta)
            if measured(hot) > 0:
                return _root(path, hot, cold, measured)
            cold = hot
        return Crossing(cold)
    first, history = hot.beta, [(np.log(hot.beta), highest)]
    while True:
        step = float(np.clip(-1.01 * hot.growth, *_COOLING_STEPS))
        for event in way.cool(hot, hot.beta * float(np.exp(-step))):
            at = event.at if isinstance(event, Split) else event
            if measured(at) <= 0:
                return _root(path, hot, at, measured)
            if isinstance(event, Split) and measured(event.after) <= 0:
                cold, above = event.bracket
                return _across(path, path.split(above, cold), measured)
            hot = event.after
        history.append((np.log(hot.beta), measure(hot)))
        decade = [value for log_beta, value in history if log_beta > history[-1][0] + np.log(10)]
        plateau = bool(decade) and decade[-1] - history[-1][1] <= _PLATEAU_TOL * max(abs(history[0][1]), 1.0)
        no_split = hot.growth < np.log(_NO_SPLIT_TOL)
        if (plateau and no_split) or hot.beta < _MIN_BETA_RATIO * first or (not hot.solution.converged and plateau):
            return Crossing(hot, reached=False)


def crossing_from(path: Continuation, sites: Sites, measure: Measure, seen: Callable[[State], None]) -> Crossing:
    """The crossing on the branch from given sites, started at the hottest temperature at which they stay distinct.

    It is for energies with more than one minimum, whose collapsed state never splits into the other minima.
    """
    last = hot = path.solve(_START_BETAS[0], sites)
    seen(hot)
    for beta in _START_BETAS[1:]:
        if len(hot.solution.distinct) > 1:
            break
        last, hot = hot, path.solve(beta, sites)
        seen(hot)
    if measure(hot) > 0:
        return crossing(path, hot, measure, seen)
    cold = hot  # the constraints hold strictly: heat while the reconstructions are distinct
    while len(hot.solution.distinct) > 1 and hot.beta < _START_BETAS[0]:
        hot = path.step(cold, 1.1 * cold.beta)
        seen(hot)
        if measure(hot) > 0:
            break
        cold = hot
    if measure(hot) > 0 and len(hot.solution.distinct) > 1:
        return _root(path, hot, cold, measure, heating=True)
    return Crossing(cold, before=hot if measure(hot) > 0 else last)


def _across(path: Continuation, split: Split, measure: Measure) -> Crossing:
    """The crossing between a split and the state a little below it: on the split branch, or a jump."""
    top = path.step(split.after, split.beta)
    if measure(top) <= 0:
        return Crossing(top, before=split.at)
    return _root(path, top, split.after, measure, heating=True)


def _root(path: Continuation, hot: State, cold: State, measure: Measure, heating: bool = False) -> Crossing:
    """The state between two states of one branch at which the measure is zero to rounding, or a jump.

    States are solved from the nearest hotter state or, on the branch below a split (`heating`), the nearest colder one.
    """
    seen = [(hot, measure(hot)), (cold, measure(cold))]
    if seen[1][1] < 0 < seen[0][1]:
        seen = path.root(measure, hot, cold, accuracy=1e-15, start_from="colder" if heating else "hotter")
    state, left = min(seen, key=_size)
    over, under = [pair for pair in seen if pair[1] > 0], [pair for pair in seen if pair[1] <= 0]
    if abs(left) <= _ZERO_TOL or not (over and under) or min(over, key=_size)[1] - min(under, key=_size)[1] <= JUMP_TOL:
        return Crossing(state)
    return Crossing(min(under, key=_size)[0], before=min(over, key=_size)[0])


def _size(pair: tuple[State, float]) -> float:
    return abs(pair[1])
