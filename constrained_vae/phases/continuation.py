"""A branch of solutions followed in temperature: predicted, corrected, and split by one protocol where it must (T13).

On the way down coincident tiles are held together, so that the branch is smooth between its transitions. Where an
eigenvalue of the split condition (T9) is found above 1, the temperature at which it passed 1 is located first; then the
reconstruction is split into two equal halves along its unstable axis a little below that temperature. What follows does
not depend on the temperatures at which one happened to look.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from ..solvers.loop import iterate
from ..solvers.options import Options
from ..solvers.split_condition import SplitCondition, split_condition
from .jacobian import tangent

_KICK = 1e-3  # a split is carried out this far, relatively, below its temperature (T13)
_TOGETHER = 1e-8  # relative distance of temperatures of splits that symmetry makes one


@dataclass(frozen=True, eq=False)
class State:
    """The branch at one temperature: sites of tiles that are held together, and their split condition, if known."""

    beta: float
    sites: Sites
    solution: FixedPoint
    condition: SplitCondition | None

    @property
    def after(self) -> State:
        """Where the branch goes on, as from a `Split`."""
        return self

    @property
    def log_beta(self) -> float:
        """The coordinate in which an eigenvalue 1 is looked for, and relative accuracy is absolute."""
        return float(np.log(self.beta))

    @property
    def growth(self) -> float:
        """Log of the largest eigenvalue of a split: negative where the state is stable."""
        return float(np.log(max(self.condition.eigenvalue, 1e-12))) if self.condition else -np.inf


@dataclass(frozen=True, eq=False)
class Split:
    """One transition on the way down.

    Attributes
    ----------
    at : State
        The branch at the very temperature, unsplit.
    bracket : (State, State)
        The unstable and the stable state between which it was isolated.
    after : State
        Below, split; at a relative distance of 1e-3, or half way to the next transition if that is nearer.
    """

    at: State
    bracket: tuple[State, State]
    after: State


@dataclass(frozen=True, eq=False)
class Continuation:
    """How one problem is followed; `objective` is in the units of the data.

    `predict` takes Euler's step along the tangent of the branch (T11) before every correction. It saves a few of the
    ten or so maps of a temperature, most of which certify the error; where maps are fast it costs more time than that.
    """

    problem: Problem
    objective: Objective
    tiling: Tiling
    options: Options
    predict: bool = False
    accuracy: float = 1e-5  # of the log temperature of a split, far less than the kick

    def collapsed(self, beta: float) -> State:
        """The state with all tiles at the mean; the branch of every cooling, above the first transition."""
        mean = np.repeat(self.problem.mean[None], len(self.tiling), axis=0)
        return self.solve(beta, Sites.of_tiles(mean, self.tiling.masses))

    def solve(self, beta: float, sites: Sites, predicted: Sites | None = None, split: bool = False) -> State:
        """The state at a temperature from given sites, none of which may split unless told so."""
        now = self.objective.at(beta)
        options = replace(self.options, split=split)
        solution, sites, condition = iterate(self.problem.at(now), now, self.tiling, sites, options, predicted)
        if solution.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return State(beta, sites, solution, condition)

    def _without(self, state: State, site: int) -> State:
        """The same with the split condition of all sites but one."""
        among = state.sites.can_split(self.options.free)
        among[site] = False
        problem = self.problem.at(self.objective.at(state.beta))
        sites = state.sites
        return replace(state, condition=split_condition(problem, sites.decoder, sites.log_masses, among))

    def step(self, state: State, beta: float, split: bool = False) -> State:
        """The state at another temperature."""
        predicted = self._predicted(state, beta) if self.predict and len(state.sites) > 1 else None
        return self.solve(beta, state.sites, predicted, split)

    def _predicted(self, state: State, beta: float) -> Sites | None:
        """Euler's step from a state, None where the branch has no derivative."""
        along, sites = tangent(state.solution), state.sites
        if along.critical or len(along.sites) != len(sites):
            return None
        # The solution numbers its distinct reconstructions by their first tiles, these sites by their history.
        number = along.sites.index[np.unique(sites.index, return_index=True)[1]]
        length = state.beta * np.log(beta / state.beta)  # straight in log beta
        objective, scale = self.problem.objective, self.problem.rows.frame.scale
        decoder = sites.decoder + length / scale * along.decoder[number]
        predicted = replace(sites, decoder=objective.reconstructions(objective.coordinates(decoder)))
        if self.options.free:
            masses = sites.masses * np.exp(length * along.log_marginal[number])
            predicted = predicted.with_masses(masses / masses.sum())
        return predicted

    def cool(self, state: State, beta: float) -> Iterator[Split | State]:
        """Follow the branch down to a temperature: the splits on the way, then the state there."""
        while True:
            below = self.step(state, beta)
            if below.growth <= 0:
                yield below
                return
            if state.growth > 0:  # a start that is unstable itself
                yield self.solve(beta, below.sites, split=True)
                return
            split = self.split(state, below)
            yield split
            state = split.after
            if state.beta <= beta:  # within the kick
                yield self.solve(beta, state.sites)
                return

    def split(self, above: State, below: State) -> Split:
        """The transition between a stable and an unstable state, and the state after it."""
        at = self._root(above, below)
        assert at.condition is not None  # or it would not have grown
        site = at.condition.site
        if self.options.free:
            at = replace(at, sites=_provided(at.sites, site))
        # Where another reconstruction splits within the kick, the kick goes half the way there. (Symmetry makes several
        # split at once; then so it be.)
        kicked = self.solve(at.beta * (1 - _KICK), at.sites)
        if len(kicked.sites) == len(at.sites):
            rest, rest_kicked = self._without(at, site), self._without(kicked, site)
            if rest_kicked.growth > 0 > rest.growth:
                following = self._root(rest, rest_kicked, without=site).beta
                if following < at.beta * (1 - _TOGETHER):
                    kicked = self.solve(float(np.sqrt(at.beta * following)), at.sites)
        return Split(at, (below, above), self.solve(kicked.beta, kicked.sites, split=True))

    def _root(self, above: State, below: State, without: int | None = None) -> State:
        """The state at which the largest eigenvalue of a split, one site perhaps left out, is 1."""
        known = {above.log_beta: above, below.log_beta: below}

        def growth(log_beta: float) -> float:
            if log_beta not in known:
                state = self.step(known[min(known, key=lambda other: abs(other - log_beta))], float(np.exp(log_beta)))
                known[log_beta] = state if without is None else self._without(state, without)
            return known[log_beta].growth

        root = brentq(growth, below.log_beta, above.log_beta, xtol=self.accuracy, rtol=4 * np.finfo(float).eps)
        growth(root)
        return known[root]


def _provided(sites: Sites, site: int) -> Sites:
    """Free masses: the same sites, with four tiles at one of them if others can spare any; only their count changes."""
    index = sites.index.copy()
    while (counts := np.bincount(index, minlength=len(sites)))[site] < 4:
        counts[site] = 0
        if counts.max() < 2:
            break
        index[np.flatnonzero(index == counts.argmax())[-1]] = site
    return replace(sites, index=index).with_masses(sites.masses)
