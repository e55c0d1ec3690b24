"""Newton's method for several thresholds: a safeguarded search for multipliers that satisfy the KKT conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from .._utils.arrays import FloatArray
from ..phases.continuation import State
from ..results.status import Status
from ..solvers.convergence import ACCEPTABLE_TOL
from .constrained_fixed_point import kkt_residual
from .ray import JUMP_TOL
from .search import KKT_TOL, Search

_SLOPE_STEP = 1e-3  # largest step of log lambda in differences for derivatives of E[C]
_MAX_LOG_STEP = 1.0  # longest step of log lambda
_INACTIVE_TOL = 0.01  # nats of lambda_k E[C_k] up to which the multiplier of a constraint that holds may be set to 0
_MIN_LOG_STEP = 1e-7  # shortest step of log lambda; a difference across it is a jump
_MIN_MULTIPLIER = 1e-8  # least multiplier, relative to the start, of a constraint that must remain active
_MAX_MULTIPLIER = 1e8  # multiplier, relative to the start, above which the thresholds are out of reach
_PARTS = 0.5 ** np.arange(12)  # parts of the way to the thresholds that are tried
_MAX_ENDS = 1  # number of steps beyond the end of a branch that are shortened; the next one ends the search
_MAX_STEPS = 200  # budget of Newton steps
_MAX_STEPS_ON_BRANCH = 30  # the same on a branch
_MAX_FALLS = 10  # number of falls of the dual value; more of them are an oscillation across a kink


@dataclass(eq=False)
class Newton:
    """Newton's method from one state towards c_k <= threshold_k, in y_k = lambda_k scale_k and c_k = E[C_k] / scale_k.

    dc / dy is symmetric, and negative semi-definite on a stable branch. The Newton step is bounded in log y. A
    multiplier that it would make negative is 0 until its constraint is violated. A step is accepted if the KKT residual
    falls or the dual value rises. `on_branch` forbids steps to another branch, unless the rate is less there.
    """

    search: Search
    here: State
    thresholds: FloatArray  # of c; 0 for those of the user
    on_branch: bool = False
    tol: float = KKT_TOL  # requested KKT residual
    other: State | None = None  # the state beyond the end of the branch, if that ends the search
    falls: int = 0  # number of steps with which the dual value fell
    radius: float = _MAX_LOG_STEP  # longest step of log y
    ends: int = 0  # number of steps that have left the branch

    def __post_init__(self) -> None:
        self.y = self.search.y(self.here)
        self.most = max(float(self.y.max()), 1.0)

    def run(self) -> Status:
        """Take steps until the KKT conditions hold, or no step is accepted; `here` and `other` are the end."""
        returns = np.zeros(len(self.y), dtype=int)
        for _ in range(_MAX_STEPS_ON_BRANCH if self.on_branch else _MAX_STEPS):
            c = self.excess(self.here)
            back = (self.y == 0) & (c > self.tol)
            if back.any():
                self.y, returns = np.where(back, 0.01 * self.y.max(), self.y), returns + back
                self.here = self.search.at(self.y, self.here)
                continue
            if kkt_residual(self.y, c) <= self.tol:
                return Status.MET
            if (self.y > _MAX_MULTIPLIER * self.most).any():
                return Status.UNREACHABLE
            target = self.target(c)
            kept = (returns > 1) | self.holding(target)
            other = self.line_search(np.maximum(target, np.where(kept, _MIN_MULTIPLIER * self.most, 0.0)))
            if other is not None:
                return self.ended(other, kkt_residual(self.y, c))
        return Status.BUDGET_USED

    def excess(self, state: State) -> FloatArray:
        """c of a state above the thresholds."""
        return self.search.c(state) - self.thresholds

    def ended(self, other: State, residual: float) -> Status:
        """The status where no step is accepted, although a state is known at nearly the same multipliers."""
        apart = np.abs(self.excess(other) - self.excess(self.here)).max()
        if apart > JUMP_TOL:
            self.other = other
            return Status.JUMP
        # The arithmetic allows no better state.
        return Status.MET if residual <= ACCEPTABLE_TOL else Status.CRITICAL

    def target(self, c: FloatArray) -> FloatArray:
        """The end of the Newton step; 0 where the step would make y negative."""
        y = self.y
        paid = np.flatnonzero(y > 0)
        slopes = np.stack([self.slope(k)[paid] for k in paid.tolist()])
        # The target >= 0 maximises the model c d - d A d / 2 with d = target - y and A = -dc/dy = L^2, so that L target
        # is as near as possible to L y + c / L.
        curvature, axes = np.linalg.eigh(-(slopes + slopes.T) / 2)
        least = 1e-3 * np.abs(c[paid]).max() / y[paid].max()  # for a smaller dc/dy only the bound of the step matters
        root = np.sqrt(np.maximum(np.abs(curvature), max(1e-12 * np.abs(curvature).max(), least, 1e-300)))
        L, inverse = (axes * root) @ axes.T, (axes / root) @ axes.T
        target, low, high = np.zeros_like(y), y * np.exp(-self.radius), y * np.exp(self.radius)
        # On a branch it is a part of the way to the thresholds that is not too long; those passed are restored first.
        for part in _PARTS if self.on_branch else (1.0,):
            wanted = np.where(c > 0, c, part * c)[paid]
            target[paid] = nnls(L, L @ y[paid] + inverse @ wanted)[0]
            if (np.clip(target, low, high) == target).all():
                break
        bounded = np.clip(target, low, high)
        return np.where((target == 0) & (c < 0) & (-y * c < _INACTIVE_TOL) & target.any(), 0.0, bounded)

    def slope(self, k: int) -> FloatArray:
        """dc / dy_k, by a difference on the branch: its step is shorter near the end of the branch, or downwards."""
        longest = min(_SLOPE_STEP, 0.1 * self.radius)
        for step in (longest, -longest, 0.01 * longest, -0.01 * longest):
            nearby = self.y.copy()
            nearby[k] *= 1 + step
            state = self.search.at(nearby, self.here, split=False)
            if self.same_branch(state, nearby - self.y):
                break
        return (self.search.c(state) - self.search.c(self.here)) / (nearby[k] - self.y[k])

    def same_branch(self, state: State, shift: FloatArray) -> bool:
        """Whether a state may be on the branch of this one: on a branch the dual value is concave with the slope c."""
        rise = state.solution.lagrangian - self.here.solution.lagrangian
        low, high = self.search.c(state) @ shift, self.search.c(self.here) @ shift
        return bool(low - self.noise <= rise <= high + self.noise)

    def reversible(self, state: State) -> bool:
        """Whether the way back from a state leads here, so that both are on one branch."""
        back = self.search.at(self.y, state)
        return bool(np.abs(self.search.c(back) - self.search.c(self.here)).max() <= JUMP_TOL)

    def cheaper(self, state: State) -> bool:
        """Whether all constraints hold at a state of less rate: it is better on any branch."""
        return self.search.feasible(state) and state.solution.rate < self.here.solution.rate

    @property
    def noise(self) -> float:
        """Rounding of the dual value."""
        return KKT_TOL * (1 + abs(self.here.solution.lagrangian))

    def holding(self, y: FloatArray) -> Any:
        """The constraints without which no minimiser exists, so that their multipliers must stay positive."""
        given = self.search.objective
        bounded = np.array([c.bounded for c in given.constraints])
        return bounded & (given.box is None and not given.anchor and not (bounded & (y > 0)).any())

    def line_search(self, target: FloatArray) -> State | None:
        """Go to a better state between here and the target; return a state across a jump if there is none."""
        shift, residual = target - self.y, kkt_residual(self.y, self.excess(self.here))
        while True:
            there = self.y + shift
            state = self.search.at(there, self.here)
            stays = not self.on_branch or (self.same_branch(state, shift) and self.reversible(state))
            better = stays and self.better(state, shift, kkt_residual(there, self.excess(state)), residual)
            if better or (self.on_branch and self.cheaper(state)):
                self.here, self.y = state, there
                return None
            length = float((np.abs(shift) / np.where(self.y > 0, self.y, 1.0)).max())
            if not stays:
                self.radius, self.ends = length / 4, self.ends + 1
            if length <= _MIN_LOG_STEP or self.ends > _MAX_ENDS:
                return state
            shift = shift / 4

    def better(self, state: State, shift: FloatArray, left: float, residual: float) -> bool:
        """Whether the KKT residual of a state is less, or its dual value larger.

        The dual value is concave on a branch. A rise by more than its slope predicts belongs to another branch.
        """
        rise = state.solution.lagrangian - self.here.solution.lagrangian - self.thresholds @ shift
        less = left < residual or (rise > 0 and left < 2 * residual)
        if self.on_branch:
            return bool(less)
        falls = rise < -self.noise  # for example because a better branch was found
        if not less or rise > self.excess(self.here) @ shift + self.noise or (falls and self.falls == _MAX_FALLS):
            return False
        self.falls += int(falls)
        return True


def met_together(search: Search, start: State) -> tuple[Status, State | None]:
    """Meet all constraints together from a state at which one does not hold; the state is left in `here`."""
    newton = Newton(search, start, np.zeros(len(search.scales)))
    status = newton.run()
    if newton.other is None:
        search.here = newton.here
        return status, None
    search.here, other = sorted((newton.here, newton.other), key=search.violation)
    # If no mixture of both sides meets all constraints, they are not optimal: the dual value rises on.
    first, second = search.c(search.here), search.c(other)
    shares = np.linspace(0, 1, 1001)[:, None]
    mixed = (shares * first + (1 - shares) * second).max(axis=1).min()
    return (Status.UNREACHABLE if mixed > JUMP_TOL else Status.JUMP), other
