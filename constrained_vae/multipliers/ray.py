"""Along a ray of multipliers, cooled from where all is one reconstruction: where the worst constraint just holds.

The direction is fixed: a state is always reached from a hotter one, so that what is found does not depend on where one
happened to look. A split on the way (T9) that is continuous is crossed; one that jumps over the threshold is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..latent.sites import Sites
from ..phases.continuation import Continuation, Split, State

_HOT = 60  # times that the start is heated by 4 before it is given up
_STEPS = (0.02, 0.2)  # least and longest step of the log temperature
_STILL = 1e-10  # fall of the measure within a factor of ten of the temperature that is none any more
_ASLEEP = 1e-3  # eigenvalue of a split below which none is near
_DATA = np.geomspace(1e3, 1e-6, 28)  # temperatures, in nats for the scale of a constraint, tried from a given start
_LOOSE = 1e-6  # tolerance on the way, and accuracy of the log temperature of a split
_APART = 1e-4  # difference of the measure between neighbours that is a jump
_ZERO = 1e-8  # measure that counts as zero
_COLDEST = 1e-12  # temperature, relative to that of the start

Measure = Callable[[State], float]


@dataclass(frozen=True, eq=False)
class Crossing:
    """Where a measure of states, positive at the start, came down to zero.

    Attributes
    ----------
    state : State
        There; beyond a jump; or, where it was not reached, the coldest state.
    before : State or None
        Of a jump, the state on the other side, at the same temperature.
    reached : bool
    """

    state: State
    before: State | None = None
    reached: bool = True


def start(path: Continuation, beta: float) -> State:
    """The collapsed state at this temperature, or at the first of four times as much and so on where it is stable."""
    for _ in range(_HOT):
        state = path.collapsed(beta)
        if state.growth < 0:
            return state
        beta *= 4
    raise ValueError(
        "reconstructions do not collapse at any temperature: the anchor is too large, it splits them alone"
    )


def crossing(path: Continuation, hot: State, measure: Measure, seen: Callable[[State], None]) -> Crossing:
    """Cool from a state of positive measure until it is not, and find the root; `seen` is told of every state.

    Only at the end does it take the accuracy of the path: on the way there less will do.
    """
    way = replace(path, options=replace(path.options, tol=max(path.options.tol, _LOOSE)), accuracy=_LOOSE)

    def measured(state: State) -> float:
        seen(state)
        return measure(state)

    highest = measured(hot)
    if highest <= 0:  # it holds where all is one reconstruction, of which only the place is paid for
        cold = hot
        for _ in range(_HOT):
            hot = path.collapsed(4 * hot.beta)
            if measured(hot) > 0:
                return _root(path, hot, cold, measured)
            cold = hot
        return Crossing(cold)
    first, history = hot.beta, [(np.log(hot.beta), highest)]
    while True:
        step = float(np.clip(-1.01 * hot.growth, *_STEPS))
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
        still = bool(decade) and decade[-1] - history[-1][1] <= _STILL * max(abs(history[0][1]), 1.0)
        asleep = hot.growth < np.log(_ASLEEP)
        if (still and asleep) or hot.beta < _COLDEST * first or (not hot.solution.converged and still):
            return Crossing(hot, reached=False)


def crossing_from(path: Continuation, sites: Sites, measure: Measure, seen: Callable[[State], None]) -> Crossing:
    """The crossing on the branch to which given sites lead, at the hottest temperature that leaves them apart.

    For energies with more than one minimum, whose collapsed state never splits into the others.
    """
    last = hot = path.solve(_DATA[0], sites)
    seen(hot)
    for beta in _DATA[1:]:
        if len(hot.solution.distinct) > 1:
            break
        last, hot = hot, path.solve(beta, sites)
        seen(hot)
    if measure(hot) > 0:
        return crossing(path, hot, measure, seen)
    cold = hot  # this holds more than it should: heat it while its parts are apart
    while len(hot.solution.distinct) > 1 and hot.beta < _DATA[0]:
        hot = path.step(cold, 1.1 * cold.beta)
        seen(hot)
        if measure(hot) > 0:
            break
        cold = hot
    if measure(hot) > 0 and len(hot.solution.distinct) > 1:
        return _root(path, hot, cold, measure, heating=True)
    return Crossing(cold, before=hot if measure(hot) > 0 else last)


def _across(path: Continuation, split: Split, measure: Measure) -> Crossing:
    """The crossing between a split and the state a little below: on the split branch, or a jump."""
    top = path.step(split.after, split.at.beta)
    if measure(top) <= 0:
        return Crossing(top, before=split.at)
    return _root(path, top, split.after, measure, heating=True)


def _root(path: Continuation, hot: State, cold: State, measure: Measure, heating: bool = False) -> Crossing:
    """The state between two of one branch at which the measure is zero, to rounding; a jump where it never is.

    It is reached from the nearest hotter one, or, close to a split, from the nearest colder one.
    """
    seen = [(hot, measure(hot)), (cold, measure(cold))]
    if seen[1][1] < 0 < seen[0][1]:
        seen = path.root(measure, hot, cold, accuracy=1e-15, start_from="colder" if heating else "hotter")
    state, left = min(seen, key=_size)
    over, under = [pair for pair in seen if pair[1] > 0], [pair for pair in seen if pair[1] <= 0]
    if abs(left) <= _ZERO or not (over and under) or min(over, key=_size)[1] - min(under, key=_size)[1] <= _APART:
        return Crossing(state)
    return Crossing(min(under, key=_size)[0], before=min(over, key=_size)[0])


def _size(pair: tuple[State, float]) -> float:
    return abs(pair[1])
