"""Continuation of a branch of solutions in temperature: prediction, correction, and splits by one protocol (T13).

Cooling holds coincident tiles together, so that the branch is smooth between its transitions. Where an eigenvalue of
the split condition (T9) is above 1, the temperature at which it passed 1 is located first. Then the reconstruction is
split into two equal halves along its unstable axis, a little below that temperature. The branch therefore does not
depend on the temperatures at which it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.interpolate import KroghInterpolator
from scipy.optimize import brentq

from .._utils import deadline
from .._utils.arrays import FloatArray
from .._utils.lost import LostError
from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from ..solvers.convergence import ACCEPTABLE_TOL
from ..solvers.loop import iterate
from ..solvers.options import Options
from ..solvers.point import normalised
from ..solvers.split_condition import SplitCondition, split_condition
from .tangent import tangent

_SPLIT_OFFSET = 1e-3  # relative distance below its temperature at which a split is carried out (T13)
_GROWTH_TOL = 1e-9  # log of an eigenvalue that is 1 to the accuracy of a solution
_EXTRAPOLATED = 6  # number of states from which a growth is extrapolated
_SIMULTANEOUS_TOL = 1e-8  # relative difference of the temperatures of splits that are simultaneous by symmetry


@dataclass(frozen=True, eq=False)
class State:
    """The branch at one temperature: solution, sites of tiles that are held together, split condition if known."""

    beta: float
    sites: Sites
    solution: FixedPoint
    condition: SplitCondition | None

    @property
    def after(self) -> State:
        """The state from which the branch continues, as for a `Split`."""
        return self

    @property
    def log_beta(self) -> float:
        """log beta, the coordinate in which roots are found: its accuracy is the relative accuracy of beta."""
        return float(np.log(self.beta))

    @property
    def growth(self) -> float:
        """Log of the largest eigenvalue of the split condition: negative where the state is stable."""
        return float(np.log(max(self.condition.eigenvalue, 1e-12))) if self.condition else -np.inf

    @property
    def acceptable(self) -> bool:
        """Whether the solution converged, or is accurate enough to be of use."""
        solution = self.solution
        return solution.converged or bool(solution.error_estimate <= ACCEPTABLE_TOL * solution.frame.scale)


@dataclass(frozen=True, eq=False)
class Split:
    """One transition on the way down.

    Attributes
    ----------
    beta : float
        Temperature of the transition.
    at : State
        The unsplit branch at that temperature, or as near above it as it is stable.
    bracket : (State, State)
        The unstable and the stable state between which the transition was located.
    after : State
        The split branch below the transition, at a relative distance of 1e-3, or half way to the next transition if
        that is nearer.
    """

    beta: float
    at: State
    bracket: tuple[State, State]
    after: State


@dataclass(frozen=True, eq=False)
class Continuation:
    """Continuation of one problem in temperature.

    If `predict` is true, a step of Euler's method along the tangent of the branch (T11) precedes every correction. It
    saves a few of the about ten maps per temperature, most of which certify the error. Where maps are fast, it takes
    more time than it saves.
    """

    problem: Problem
    tiling: Tiling
    options: Options
    predict: bool = False
    accuracy: float = 1e-5  # of the log temperature of a split, far below _SPLIT_OFFSET

    def collapsed(self, beta: float) -> State:
        """The state with all tiles at the mean: above the first transition, the branch that cooling follows."""
        return self.solve(beta, self.mean)

    @property
    def mean(self) -> Sites:
        """All tiles at the mean of the data."""
        mean = np.repeat(self.problem.data.mean[None], len(self.tiling), axis=0)
        return Sites.of_tiles(mean, self.tiling.masses)

    def solve(
        self,
        beta: float,
        sites: Sites,
        predicted: Sites | None = None,
        split: bool = False,
        rough: float | None = None,
    ) -> State:
        """The state at a temperature, solved from given sites; sites may split only if `split` is true.

        With `rough` the state is on the way to another one: it has a residual of that, in units of stiffness^-1/2, and
        its error is not estimated. Raises `TimeUp` if the deadline passes before the solution has converged, and
        `LostError` if the cluster with the data is lost.
        """
        problem, options = self.problem_at(beta), self.options.varied(split=split)
        if rough is not None:
            resolved = min(1.0, problem.framed.stiffness**-0.5 / problem.data.radius)
            options = options.varied(rough=True, tol=rough * resolved)
        solution, sites, condition = iterate(problem, self.tiling, sites, options, predicted)
        if solution.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        if solution.status is Status.LOST:
            raise LostError(solution.ending)
        if solution.status is Status.BUDGET_USED:
            deadline.check()
        return State(beta, sites, solution, condition)

    def unfinished(self, beta: float, sites: Sites) -> FixedPoint:
        """What there is at a temperature when the time is up: the point after one map from given sites."""
        options = self.options.varied(max_maps=1, split=False)
        with deadline.finishing():
            solution, *_ = iterate(self.problem_at(beta), self.tiling, sites, options)
        return replace(solution, status=Status.BUDGET_USED)

    def problem_at(self, beta: float) -> Problem:
        """The problem at a temperature."""
        return self.problem.at(self.problem.objective.at(beta))

    def _without(self, state: State, site: int) -> State:
        """The same state with the split condition of all sites except one."""
        among = state.sites.can_split(self.options.free)
        among[site] = False
        problem, sites = self.problem_at(state.beta), state.sites
        return replace(state, condition=split_condition(problem, sites.decoder, sites.log_masses, among))

    def step(self, state: State, beta: float, split: bool = False) -> State:
        """The state at another temperature."""
        return self.solve(beta, state.sites, self.predicted(state, beta), split)

    def predicted(self, state: State, beta: float) -> Sites | None:
        """The sites after a step of Euler's method from a state; None where the branch has no derivative."""
        if not self.predict or len(state.sites) == 1:
            return None
        along, sites = tangent(state.solution), state.sites
        if along.critical or len(along.sites) != len(sites):
            return None
        # The solution orders its distinct reconstructions by their first tiles, the state orders its sites by history.
        number = along.sites.index[np.unique(sites.index, return_index=True)[1]]
        length = state.beta * np.log(beta / state.beta)  # the step is linear in log beta
        objective, scale = self.problem.framed, self.problem.data.frame.scale
        decoder = sites.decoder + length / scale * along.decoder[number]
        predicted = replace(sites, decoder=objective.reconstructions(objective.coordinates(decoder)))
        if self.options.free:
            log_masses = normalised(sites.log_masses + length * along.log_marginal[number])
            predicted = predicted.with_masses(np.exp(log_masses))
        return predicted

    def extrapolated(self, path: Sequence[State], log_beta: float) -> Sites | None:
        """The sites on the polynomial through a path of states; None for a single site, which stays at the mean."""
        sites, objective = path[-1].sites, self.problem.framed  # coordinates are the same at every beta
        if len(sites) == 1:
            return None
        places = np.array([state.log_beta for state in path])
        apart = places[:, None] - places + np.diag(np.full(len(places), np.inf))
        weights = [np.prod(np.delete((log_beta - places) / row, n)) for n, row in enumerate(apart)]  # of Lagrange

        def at(values: list[FloatArray]) -> FloatArray:
            return np.asarray(np.tensordot(weights, values, axes=1))

        found = at([objective.coordinates(state.sites.decoder) for state in path])
        predicted = replace(sites, decoder=objective.reconstructions(found))
        if self.options.free:
            predicted = predicted.with_masses(np.exp(normalised(at([state.sites.log_masses for state in path]))))
        return predicted

    def cool(self, state: State, beta: float) -> Iterator[Split | State]:
        """Follow the branch down to a temperature: yield the splits on the way, then the state at that temperature."""
        while True:
            below = self.step(state, beta)
            if below.growth <= 0:
                yield below
                return
            if state.growth > 0:  # the start is unstable itself
                yield self.solve(beta, below.sites, split=True)
                return
            split = self.split(state, below)
            yield split
            state = split.after
            if state.beta <= beta:  # the requested temperature is within _SPLIT_OFFSET of the transition
                yield self.solve(beta, state.sites)
                return

    def split(self, above: State, below: State) -> Split:
        """The transition between a stable and an unstable state, and the state after it."""
        at = self.root(lambda state: state.growth, above, below, accuracy=self.accuracy)[-1][0]
        beta = at.beta
        critical = at.solution.status is Status.CRITICAL and not at.acceptable
        if critical or abs(at.growth) > max(_GROWTH_TOL, 4 * self.accuracy):
            beta, at = self._from_above(above, at)
        assert at.condition is not None  # the growth of a state without a condition has no root
        site = at.condition.site
        if self.options.free:
            at = replace(at, sites=with_spare_tiles(at.sites, site))
        # If another reconstruction splits within _SPLIT_OFFSET, the split is carried out half way to that temperature.
        # If symmetry makes several sites split at once, they are split together.
        kicked = self.solve(beta * (1 - _SPLIT_OFFSET), at.sites)
        if len(kicked.sites) == len(at.sites):

            def growth_of_others(state: State) -> float:
                return self._without(state, site).growth

            if growth_of_others(kicked) > 0 > growth_of_others(at):
                following = self.root(growth_of_others, at, kicked, accuracy=self.accuracy)[-1][0].beta
                if following < beta * (1 - _SIMULTANEOUS_TOL):
                    kicked = self.solve(float(np.sqrt(beta) * np.sqrt(following)), at.sites)
        return Split(beta, at, (below, above), self.solve(kicked.beta, kicked.sites, split=True))

    def _from_above(self, above: State, found: State) -> tuple[float, State]:
        """A transition at which the sites become unstable, too, so that the branch cannot be solved below it.

        The growth is then extrapolated, as a polynomial, from stable states above a temperature found by bisection.
        Returns the temperature, and the nearest of these states.
        """
        beta, nearest, state = found.beta, found, above
        for _ in range(2):  # the second time with temperatures that approach the transition itself
            distance, stable = max(above.log_beta - np.log(beta), _SPLIT_OFFSET), []
            for n in range(_EXTRAPOLATED):
                state = self.step(state, beta * float(np.exp(distance / 2**n)))
                if state.growth < 0 and state.solution.converged and len(state.sites) == len(found.sites):
                    stable.append(state)
            if len(stable) < 3:
                break
            growth, places = (np.array([getattr(state, name) for state in stable]) for name in ("growth", "log_beta"))
            root = float(KroghInterpolator(growth, places)(0.0))
            if not found.log_beta - distance < root < stable[-1].log_beta:
                break
            beta, nearest = float(np.exp(root)), stable[-1]
        return beta, nearest

    def root(
        self,
        value: Callable[[State], float],
        hot: State,
        cold: State,
        *,
        accuracy: float,
        start_from: Literal["nearest", "hotter", "colder"] = "nearest",
    ) -> list[tuple[State, float]]:
        """Find by Brent's method where a value of states is zero, between two states at which its signs differ.

        Parameters
        ----------
        value : callable
            State -> float.
        hot, cold : State
            States at which the value has different signs.
        accuracy : float
            Accuracy of the log temperature.
        start_from : {"nearest", "hotter", "colder"}
            The known state from which a new state is solved: the nearest one, or the nearest hotter or colder one.

        Returns
        -------
        list of (State, float)
            Every evaluated state with its value, including the two given states. The root is the last.
        """
        known = {state.log_beta: (state, value(state)) for state in (hot, cold)}

        def at(log_beta: float) -> float:
            if log_beta not in known:
                side = {"nearest": 0.0, "hotter": 1.0, "colder": -1.0}[start_from]
                others = [other for other in known if side * (other - log_beta) >= 0]
                nearest = known[min(others, key=lambda other: abs(other - log_beta))][0]
                state = self.step(nearest, float(np.exp(log_beta)))
                known[log_beta] = state, value(state)
            return known[log_beta][1]

        root = brentq(at, cold.log_beta, hot.log_beta, xtol=accuracy, rtol=4 * np.finfo(float).eps)
        at(root)
        last = known.pop(root)
        return [*known.values(), last]


def with_spare_tiles(sites: Sites, site: int) -> Sites:
    """Free masses: the same sites, with at least four tiles at one of them as far as other sites have spare tiles."""
    index = sites.index.copy()
    while (counts := np.bincount(index, minlength=len(sites)))[site] < 4:
        counts[site] = 0
        if counts.max() < 2:
            break
        index[np.flatnonzero(index == counts.argmax())[-1]] = site
    return replace(sites, index=index).with_masses(sites.masses)
