"""Search: how `solve_constrained` solves states at given multipliers, and what it has seen of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from .._utils import deadline
from .._utils.arrays import FloatArray
from .._utils.lost import LostError
from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..objectives.lagrangian import Lagrangian
from ..phases.continuation import State
from ..problems.problem import Problem
from ..results.status import Status
from ..solvers.loop import iterate
from ..solvers.options import Options
from ..solvers.pose import Posed

KKT_TOL = 1e-9  # requested KKT residual


@dataclass(eq=False)
class Search:
    """The states of a search in y_k = lambda_k scale_k and c_k = E[C_k] / scale_k, and the best of them so far."""

    posed: Posed  # with all multipliers 1
    options: Options
    bar: Any
    here: State | None = None  # the last state
    best: State | None = None  # of the states at which all constraints hold, that of least rate
    least: FloatArray = field(default_factory=lambda: np.empty(0))  # least E[C_k] of all states
    scales: FloatArray = field(default_factory=lambda: np.empty(0))
    unfinished: bool = False  # whether a solution of the search used up its budget

    @property
    def problem(self) -> Problem:
        """The problem with all multipliers 1."""
        return self.posed.problem

    @property
    def tiling(self) -> Tiling:
        """The latent tiles."""
        return self.posed.tiling

    @property
    def objective(self) -> Lagrangian:
        """The Lagrangian with all multipliers 1."""
        return cast(Lagrangian, self.problem.objective)

    def begin(self, zero: State) -> None:
        """Begin with the state at rate zero, which sets the scales."""
        self.here, self.least, self.scales = zero, values(zero), self.sizes(zero)

    def sizes(self, zero: State) -> FloatArray:
        """The units of the violations of the constraints, from a state at rate zero."""
        largest = np.maximum(np.abs(values(zero)), np.abs([c.allowance for c in self.objective.constraints]))
        return np.where(largest > 0, largest, 1.0)

    def seen(self, state: State) -> None:
        """Record a state; raises `TimeUp` if the time is used up."""
        self.least = np.minimum(self.least, values(state))
        self.here = state
        if self.feasible(state) and (self.best is None or state.solution.rate < self.best.solution.rate):
            self.best = state
        self.bar.update()
        self.bar.set_postfix_str(f"violation {self.violation(state):.1e}", refresh=False)
        self.unfinished |= state.solution.status is Status.BUDGET_USED
        deadline.check()

    def c(self, state: State) -> FloatArray:
        """E[C_k] of a state in units of the scales."""
        return values(state) / self.scales

    def y(self, state: State) -> FloatArray:
        """The multipliers of a state, in units of 1 / scale."""
        return cast(Lagrangian, state.solution.objective).values * self.scales

    def violation(self, state: State) -> float:
        """The largest of c."""
        return float(self.c(state).max())

    def feasible(self, state: State) -> bool:
        """Whether a state is a stable solution at which all constraints hold."""
        return state.acceptable and state.growth <= 0 and self.violation(state) <= KKT_TOL

    def at(self, y: FloatArray, near: State, split: bool = True) -> State:
        """The state at other multipliers, solved from the sites of a state nearby."""
        state = self.solve(replace(self.objective, multipliers=tuple(y / self.scales)), near.sites, split)
        self.seen(state)
        return state

    def solve(self, objective: Lagrangian, sites: Sites, split: bool = True) -> State:
        """The state under other multipliers, solved from given sites."""
        options = replace(self.options, split=split)
        solution, sites, condition = iterate(self.problem.at(objective), self.tiling, sites, options)
        if solution.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        if solution.status is Status.LOST:
            raise LostError(solution.ending)
        return State(1.0, sites, solution, condition)


def values(state: State) -> FloatArray:
    """E[C_k] of a state."""
    return np.array(state.solution.expected)
