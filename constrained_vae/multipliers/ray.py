"""Multipliers in fixed ratios, a ray, until the worst constraint just holds.

Annealing starts from a single reconstruction and cools: every state is solved from a hotter state, so that the result
does not depend on the temperatures at which the ray is computed. A continuous split on the way (T9) is followed. A
split across which the constraint jumps over its threshold is reported. From given sites there is no annealing: the
temperature moves while they converge.

The first splits are located as accurately as in `sweep`, since they decide most about the minimum that is reached. With
every reconstruction the resolution doubles. Most solutions of a fine ray are near a split, where convergence is slow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..latent.sites import Sites
from ..phases.annealing import DEFAULT_RESOLUTION, Annealing
from ..phases.continuation import Continuation, Split, State

JUMP_TOL = 1e-4  # difference of E[C], in units of the scales, between neighbouring states that is a jump
_MAX_HEATINGS = 60  # number of times that the start is heated by a factor 4
_LONGEST_STEP = 0.5  # of the log temperature
_COARSEST = 0.1  # resolution of splits between many reconstructions
_FINER = 10  # factor between the resolutions at which a crossing near a split is sought
_ROUGH = 3e-5  # residual, in units of stiffness^-1/2, of solutions that only bracket a root
_ABOVE_LEAST = 0.05  # where given sites cannot meet a threshold: part of the range of the measure above its least value
_FIRST_MOVE = 0.2  # of the log temperature from a given start
_NEAR = 1e-4  # move of the log temperature towards a root below which solutions are accurate
_AT_REST, _RESOLVED = 1e-11, 1e-8  # moves at which a root is found: always, and where moves no longer become shorter
_MAX_MOVES = 20  # number of moves to a root
_MAX_FAILURES = 5  # number of ranges in which no root is found before a jump is all that is sought
_PLATEAU_TOL = 1e-10  # least decrease of the violation per decade of temperature; less of it is a plateau
_NO_SPLIT_TOL = 1e-3  # eigenvalue of the split condition below which no split is near
_START_BETAS = np.geomspace(1e3, 1e-6, 28)  # temperatures for a given start, in nats per scale of a constraint
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

    `seen` is called with every state. The way down is rough, and splits are located roughly, the step that crosses zero
    is not. If no root is found in this step, because a split is in it, it is repeated with that split located better.
    """

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
    first, history, above = hot.beta, [(hot.log_beta, highest)], hot
    annealing, coarsest = Annealing(path), _COARSEST
    states = annealing.states(hot, _LONGEST_STEP)
    while True:
        doublings = min(len(hot.sites) - 1, 10)  # at 10 the coarsest is exceeded
        annealing.resolution = min(DEFAULT_RESOLUTION * 2.0**doublings, coarsest)
        below = next(states)
        if measure(below) <= 0:
            root = _root_within(path, hot, below, annealing.unsplit, measured)
            if root is not None:
                return Crossing(root)
            hot = path.solve(hot.beta, hot.sites)
            if annealing.resolution > DEFAULT_RESOLUTION:
                coarsest = max(annealing.resolution / _FINER, DEFAULT_RESOLUTION)
                hot = hot if measured(hot) > 0 else above
                states = annealing.states(hot, _LONGEST_STEP)
                continue
            found, below = _located(path, hot, below.beta, measured)
            if found is not None:
                return found
            states = annealing.states(below, _LONGEST_STEP)
        else:
            seen(below)
        above, hot = hot, below
        history.append((hot.log_beta, measure(hot)))
        decade = [value for log_beta, value in history if log_beta > history[-1][0] + np.log(10)]
        plateau = bool(decade) and decade[-1] - history[-1][1] <= _PLATEAU_TOL * max(abs(history[0][1]), 1.0)
        no_split = hot.growth < np.log(_NO_SPLIT_TOL)
        if (plateau and no_split) or hot.beta < _MIN_BETA_RATIO * first or (not hot.solution.converged and plateau):
            hot = path.solve(hot.beta, hot.sites)
            return Crossing(hot, reached=measured(hot) <= 0)


def _root_within(path: Continuation, hot: State, cold: State, unsplit: State | None, measure: Measure) -> State | None:
    """The crossing between two states of the rough way, of which the colder one may have been split; None if not found.

    It is above the split if the unsplit state is beyond it. Otherwise it is on the split branch, if it is where the
    unsplit state is unstable: else the branch jumps.
    """
    if unsplit is None or measure(unsplit) <= 0:
        return _root_between(path, hot, unsplit or cold, measure)
    root = _root_between(path, hot, cold, measure)
    unstable = root is not None and path.solve(root.beta, unsplit.sites, rough=_ROUGH).growth > 0
    return root if unstable else None


def _located(path: Continuation, hot: State, beta: float, measure: Measure) -> tuple[Crossing | None, State]:
    """The crossing between an accurate state and a lower temperature, or None with an accurate state before it."""
    for event in path.cool(hot, beta):
        at = event.at if isinstance(event, Split) else event
        if measure(at) <= 0:
            return _root(path, hot, at, measure), at
        if isinstance(event, Split) and measure(event.after) <= 0:
            below, above = event.bracket
            return _across(path, path.split(above, below), measure), at
        hot = event.after
    return None, hot


def _root_between(path: Continuation, hot: State, cold: State, measure: Measure) -> State | None:
    """The stable state between two rough states at which the measure is zero; None if it is not found, as at a jump.

    The temperature moves after every solution, which starts on the polynomial through the last ones. Solutions are
    rough until the temperature hardly moves, and accurate then, so that sites which only seemed apart are tied.
    """
    same = np.array_equal(hot.sites.index, cold.sites.index)
    way, state, value = Annealing(path, path=[hot, cold] if same else [cold]), cold, measure(cold)
    low, high = cold.log_beta, hot.log_beta
    slope, rough, last = (measure(hot) - value) / (high - low), True, np.inf
    for _ in range(_MAX_MOVES):
        low, high = (low, state.log_beta) if value > 0 else (state.log_beta, high)
        move = -value / slope if slope > 0 else np.nan
        resolved = abs(move) <= _AT_REST or last <= abs(move) <= max(_RESOLVED, path.options.tol)
        if resolved and not rough:
            stable = state.solution.converged and state.growth <= 0
            return state if stable and abs(value) <= _ZERO_TOL else None
        if not low <= state.log_beta + move <= high and not abs(move) <= _NEAR:
            move = (low + high) / 2 - state.log_beta
        was_rough, rough, last = rough, rough and abs(move) > _NEAR, abs(move)
        state = way.reached(float(np.exp(state.log_beta + move)), rough=rough)
        before, value = value, measure(state)
        if rough == was_rough and move:
            slope = (value - before) / move
    return None


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


def crossing_near(path: Continuation, sites: Sites, measure: Measure, seen: Callable[[State], None]) -> Crossing:
    """The crossing nearest to given sites: the temperature moves while they converge, and there is no annealing.

    The first temperature is the one at which the measure is zero for these sites, before any map.
    """

    def measured_at(log_beta: float) -> float:
        return measure(State(beta := float(np.exp(log_beta)), sites, path.unfinished(beta, sites), None))

    low, high = (float(np.log(_START_BETAS[n])) for n in (-1, 0))
    least, most = measured_at(low), measured_at(high)
    goal = 0.0 if least <= 0 else least + _ABOVE_LEAST * (most - least)  # these sites may be too few or too far apart
    while high - low > _FIRST_MOVE:
        middle = (low + high) / 2
        low, high = (middle, high) if measured_at(middle) <= goal else (low, middle)
    state = path.solve(float(np.exp(low)), sites, split=True, rough=_ROUGH)
    hot: State | None = None
    cold: State | None = None
    move, values, rough, failures = _FIRST_MOVE, [most], True, 0
    while True:
        value = measure(state)
        if value > 0 and not rough:
            seen(state)
        hot, cold, values = (state, cold, [*values, value]) if value > 0 else (hot, state, [*values, value])
        if not (hot and cold):
            log_beta, move = state.log_beta + (-move if hot else move), 2 * move
            plateau = hot and move > 4 and abs(values[-2] - value) <= _PLATEAU_TOL * max(abs(most), 1.0)
            if plateau or abs(log_beta - low) > -np.log(_MIN_BETA_RATIO):
                state = path.solve(state.beta, state.sites, split=True)
                seen(state)
                return Crossing(state, reached=measure(state) <= 0)
        elif failures < _MAX_FAILURES and (root := _root_between(path, hot, cold, measure)) is not None:
            return Crossing(root)
        elif rough:  # a rough state may be beside a saddle, on a side on which no stable state is
            rough, hot, cold = False, None, None
            log_beta, move = state.log_beta, _FIRST_MOVE
        elif (width := hot.log_beta - cold.log_beta) <= _RESOLVED:
            return _root(path, hot, cold, measure)
        else:
            log_beta, failures = cold.log_beta + width / 2, failures + 1
        near = cold or state  # on the branch on which the threshold is met, also where another one is stable, too
        state = path.solve(float(np.exp(log_beta)), near.sites, split=True, rough=_ROUGH if rough else None)


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
