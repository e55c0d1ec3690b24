"""Annealing: the cooling branch at requested temperatures, with its splits located to a resolution (T9), (T13).

A split is where the growth, the logarithm of the largest eigenvalue of the split condition, passes zero. As a function
of log beta the growth is nearly a straight line, and secants find its root from states that are rough: as accurate as
the root requires. Tiles are held together down to one resolution below the root. There every reconstruction past its
condition is split, so that splits within one resolution are taken together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .._utils.blas import single_threaded
from ..solvers.split_condition import is_small
from ..solvers.splits import kicks
from .continuation import Continuation, State, with_spare_tiles

DEFAULT_RESOLUTION = 1e-3
_SLOPES = 0.05, 2.0  # least and largest fall of the growth with log beta; a reconstruction that keeps its data has 1
_LEAST_STEP = 3  # in units of the resolution: just after a split the growth is too near zero to tell anything
_OFF = 0.5  # a split is carried out this near to the place for it, in units of the resolution
_BISECTED, _PATIENCE = 3, 12  # every so many secants, a bisection, and after so many nothing else: the branch may jump
# Largest residuals of rough states, in units of stiffness^-1/2, which is the width of a reconstruction that splits.
_HELD = 0.03  # times the resolution: an error of the growth that is small beside it
_SPLIT = 0.01  # times resolution^1.5: a kick of sqrt(resolution) / 2 leaves a residual of resolution^1.5 / 2
_POINTS = 3  # most states from which the next one is extrapolated


@dataclass(eq=False)
class Annealing:
    """The cooling branch, followed from one requested temperature to the next.

    Attributes
    ----------
    branch : Continuation
    resolution : float
        Accuracy of log beta of a split.
    report : callable
        Called with every state on the way.
    path : list of State
        The last states since a split.
    slope : float
        How fast the growth falls with log beta.
    unsplit : State or None
        The state that was split last in `states`, if it was in the last step.
    """

    branch: Continuation
    resolution: float = DEFAULT_RESOLUTION
    report: Callable[[State], None] = lambda state: None
    path: list[State] = field(default_factory=list)
    slope: float = 1.0
    unsplit: State | None = None

    def cool(self, state: State, beta: float) -> State:
        """The state at a colder temperature, after all splits on the way."""
        if is_small(self.branch.problem):  # the threads of BLAS are limited once for all solutions
            return single_threaded(self._cool, state, beta)
        return self._cool(state, beta)

    def _cool(self, state: State, beta: float) -> State:
        if not self.path or self.path[-1] is not state:
            self.path = [state]
        end = float(np.log(beta))
        while state.growth <= 0:
            place = self.place(state)
            below = self.reached(float(np.exp(place))) if place > end else self.reached(beta, rough=False)
            if below.growth > 0:
                state = self.split(self.located(state, below))
                if state.log_beta <= end:  # the requested temperature is within the resolution of a split
                    return self.branch.solve(beta, state.sites)
            elif place <= end:
                return below
            else:
                self.learn(state, below)
                state = below
        return self.branch.solve(beta, state.sites, split=True)  # the state is unstable, and could not be split

    def states(self, state: State, longest: float) -> Iterator[State]:
        """Rough stable states further and further down, at most `longest` apart in log beta; a split is one step."""
        self.path = [state]
        while True:
            below = self.reached(float(np.exp(max(self.place(state), state.log_beta - longest))))
            self.unsplit = None
            if below.growth > 0:
                self.unsplit = self.located(state, below) if state.growth <= 0 else below
                below = self.split(self.unsplit)
            elif np.isfinite([state.growth, below.growth]).all():  # known, since no budget was used up
                self.learn(state, below)
            state = below
            yield state

    def place(self, state: State) -> float:
        """log beta at which the next split is carried out, a resolution below its root, as a stable state tells it."""
        to_root = min(state.growth / self.slope, -_LEAST_STEP * self.resolution)
        return state.log_beta + to_root - self.resolution

    def learn(self, hot: State, cold: State) -> None:
        """Take the slope from two states."""
        self.slope = float(np.clip((cold.growth - hot.growth) / (hot.log_beta - cold.log_beta), *_SLOPES))

    def located(self, hot: State, cold: State) -> State:
        """The unstable state at which a split is carried out, from a stable state and an unstable one below it."""
        count = 0
        while (width := hot.log_beta - cold.log_beta) > self.resolution:
            self.learn(hot, cold)
            root = cold.log_beta + width * cold.growth / (cold.growth - hot.growth)
            place, count = root - self.resolution, count + 1
            jumped = hot.growth == -np.inf or count > _PATIENCE  # only halves of the range are sure to end
            if abs(place - cold.log_beta) <= _OFF * self.resolution and not jumped:
                break
            place = place if count % _BISECTED and not jumped else cold.log_beta + width / 2
            state = self.reached(float(np.exp(place)))
            if state.growth > 0:
                cold = state
            elif state.log_beta > cold.log_beta:
                hot = state
            else:  # stable again
                break
        return cold

    def split(self, state: State) -> State:
        """The state after all splits at the temperature of an unstable state."""
        branch, condition, objective = self.branch, state.condition, self.branch.problem.framed
        assert condition is not None  # the growth of a state without a condition is not positive
        sites = with_spare_tiles(state.sites, condition.site) if branch.options.free else state.sites
        kicked = next(kicks(sites, condition, objective, branch.options.free), None)
        after = branch.solve(state.beta, sites, kicked, split=True, rough=_SPLIT * self.resolution**1.5)
        self.path = [after]
        self.report(after)
        return after

    def reached(self, beta: float, rough: bool = True) -> State:
        """The state at a temperature, from the extrapolated path or from the nearest state on it."""
        log_beta = float(np.log(beta))
        nearest = min(self.path, key=lambda state: abs(state.log_beta - log_beta))
        predicted = (
            self.branch.extrapolated(self.path, log_beta)
            if len(self.path) > 1
            else self.branch.predicted(nearest, beta)
        )
        state = self.branch.solve(beta, nearest.sites, predicted, rough=_HELD * self.resolution if rough else None)
        if not np.array_equal(state.sites.index, nearest.sites.index):
            self.path = []
        self.path = [*self.path[1 - _POINTS :], state]
        self.report(state)
        return state
