"""The cooling branch with all its events: splits, mergers of reconstructions, and folds, where the state jumps.

Splits are found by their condition (T9). All other events show themselves in the distortion or in the number of
reconstructions. Between events D is a smooth function of log beta with a known derivative (T11), and Simpson's rule

    D(c) - D(a) = (h / 6) (D'(a) + 4 D'(b) + D'(c)) + O(h^5),    h = c - a,    b = (a + c) / 2,

holds over every step. Where it does not, the step is halved until either it holds or the step is negligible: then the
state has jumped. The rule is needed only where D is not the continuation of a polynomial through the last states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from scipy.interpolate import KroghInterpolator

from .continuation import Continuation, Split, State
from .tangent import tangent

_MAX_STEP = 0.03  # longest step of log beta on the way to the next split
_UNEXPLAINED = 2e-7, 3e-9  # an unexplained change, relative to D and to the variance, that is no jump
_POINTS = 4, 6  # fewest and most states through which D is extrapolated
_UNEXPLAINED_F = 1e-9  # the same for F, relative to 1 + |F|
_EPS = float(np.finfo(np.float64).eps)
_JUMP_STEP = 1e-8  # step of log beta below which a change is a jump
_BESIDE = 1e-6  # relative distance from a jump of the states before and after it: at a jump convergence is slow


@dataclass(frozen=True, eq=False)
class Jump:
    """A merger of reconstructions, or a fold, on the way down.

    Attributes
    ----------
    beta : float
        The temperature of the jump, to a relative accuracy of 1e-8.
    at, after : State
        The states before and after it, at a relative distance of 1e-6.
    """

    beta: float
    at: State
    after: State

    @property
    def kind(self) -> str:
        """Whether the number of reconstructions falls, "merger", or not, "fold"."""
        return "merger" if len(self.after.sites) < len(self.at.sites) else "fold"


@dataclass(eq=False)
class Cooling:
    """The cooling branch from one temperature down to another.

    Attributes
    ----------
    branch : Continuation
    path : list of State
        The last states since an event, hottest first.
    """

    branch: Continuation
    path: list[State] = field(default_factory=list)
    _slopes: WeakKeyDictionary[State, float] = field(default_factory=WeakKeyDictionary)

    def events(self, start: float, end: float) -> Iterator[Split | Jump | State]:
        """Follow the branch down, in steps that are shorter near the next split, as far as energies are resolved."""
        state = self.branch.collapsed(start)
        while state.beta > end and self.resolved(state.beta):
            # The eigenvalue is proportional to 1 / beta if a reconstruction keeps its data, else it grows more slowly.
            step = np.clip(-1.01 * state.growth, _MAX_STEP / 10, _MAX_STEP)
            for step_or_split in self.branch.cool(state, max(end, state.beta * float(np.exp(-step)))):
                if isinstance(step_or_split, State) and step_or_split.beta >= state.beta:
                    continue  # a split has gone beyond that temperature
                reached = step_or_split if isinstance(step_or_split, State) else step_or_split.at
                found = self.smooth(state, reached)
                event = step_or_split if found is reached else found
                state = event.after
                self.path = [*self.path[1 - _POINTS[1] :], state] if event is state else [state]
                yield event
                if found is not reached:
                    break

    def resolved(self, beta: float) -> bool:
        """Whether the rounding of energies, eps times those across the data, is below one nat at a temperature."""
        problem = self.branch.problem_at(beta)
        return _EPS * problem.framed.stiffness * problem.data.radius**2 < 1

    def smooth(self, hot: State, cold: State) -> State | Jump:
        """The first jump between two states, or the state at the end of the smooth branch from the hotter one.

        That state is the given one unless the branch goes on where the long step to the given one has left it.
        """
        length = hot.log_beta - cold.log_beta
        same = len(hot.sites) == len(cold.sites)
        if same and (self.continues(cold) or not (hot.acceptable and cold.acceptable)):
            return cold  # an inaccurate solution, which is reported elsewhere, says nothing about D
        if same and self.explained(hot, cold):
            return cold
        if length <= _JUMP_STEP:
            return self.jump(hot, cold)
        middle = self.branch.step(hot, float(np.sqrt(hot.beta) * np.sqrt(cold.beta)))
        if same and len(middle.sites) == len(hot.sites) and self.explained(hot, cold, middle):
            return cold
        half = self.smooth(hot, middle)
        return half if isinstance(half, Jump) else self.smooth(half, self.branch.step(half, cold.beta))

    def continues(self, cold: State) -> bool:
        """Whether D lies on the polynomial through the last states."""
        if len(self.path) < _POINTS[0] or cold.beta >= self.path[-1].beta:
            return False
        places, values = zip(*((state.log_beta, state.solution.distortion) for state in self.path), strict=True)
        expected = float(KroghInterpolator(np.array(places), np.array(values))(cold.log_beta))
        return abs(cold.solution.distortion - expected) <= self.tolerance(cold)

    def tolerance(self, state: State) -> float:
        """Largest unexplained change of D, in squared units of x."""
        relative, absolute = _UNEXPLAINED
        return relative * state.solution.distortion + absolute * self.branch.problem.data.frame.scale**2

    def explained(self, hot: State, cold: State, middle: State | None = None) -> bool:
        """Whether the change of D between two states follows from its derivatives; without a middle, trapezoidally.

        For an energy that is not a Bregman divergence, F and dF / d log beta = -E[H] replace D and its derivative.
        """
        problem = self.branch.problem
        weights = ((hot, 1 / 2), (cold, 1 / 2)) if middle is None else ((hot, 1 / 6), (middle, 2 / 3), (cold, 1 / 6))
        length = cold.log_beta - hot.log_beta
        if not problem.bregman:
            change = cold.solution.free_energy - hot.solution.free_energy
            expected = -length * sum(weight * state.solution.energy for state, weight in weights)
            return abs(change - expected) <= _UNEXPLAINED_F * (1 + abs(hot.solution.free_energy))
        change = cold.solution.distortion - hot.solution.distortion
        expected = length * sum(weight * self.slope(state) for state, weight in weights)
        return abs(change - expected) <= self.tolerance(hot)

    def slope(self, state: State) -> float:
        """dD / d log beta, in squared units of x."""
        if state not in self._slopes:
            self._slopes[state] = state.beta * tangent(state.solution).distortion
        return self._slopes[state]

    def jump(self, hot: State, cold: State) -> Jump:
        """The jump between two states at almost the same temperature; splits of an unstable state belong to it."""
        before = self.branch.step(hot, hot.beta * (1 + _BESIDE))
        after = self.branch.step(cold, cold.beta * (1 - _BESIDE))
        if after.growth > 0:
            after = self.branch.solve(after.beta, after.sites, split=True)
        return Jump(cold.beta, before if len(before.sites) == len(hot.sites) else hot, after)
