"""solve_constrained(): the multipliers that meet given thresholds, which GECO finds by gradient steps (T5), (T7).

The dual problem is to find multipliers lambda >= 0 with E[C_k] <= 0 and lambda_k E[C_k] = 0 for every constraint. On a
branch of stable fixed points the Lagrangian is concave in lambda with the slope E[C], so that a larger multiplier means
a smaller E[C].

First a ray of multipliers is annealed until the worst constraint just holds. For one constraint this is the answer. For
several constraints, safeguarded Newton steps of the dual problem in log lambda start from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, nnls
from tqdm.auto import tqdm

from .._utils import deadline
from .._utils.arrays import FloatArray
from .._utils.checks import check_flag, check_time_limit
from .._utils.device import to_host
from ..data.rows import RowBlocks
from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..objectives.constraints import Constraint
from ..objectives.lagrangian import Lagrangian
from ..phases.continuation import Continuation, State
from ..problems.problem import Problem
from ..results.status import Status
from ..solvers.convergence import ACCEPTABLE_TOL
from ..solvers.loop import iterate
from ..solvers.options import Options
from ..solvers.pose import Posed, pose
from ..solvers.solve import initial_sites, report_failure
from .constrained_fixed_point import ConstrainedFixedPoint, kkt_residual
from .ray import JUMP_TOL, Crossing, crossing, crossing_from, start

_KKT_TOL = 1e-9  # requested KKT residual
_SLOPE_STEP = 1e-3  # step of log lambda in differences for derivatives of E[C]
_MAX_LOG_STEP = 1.0  # longest step of log lambda
_INACTIVE_TOL = 0.01  # nats of lambda_k E[C_k] up to which the multiplier of a constraint that holds may be set to 0
_MIN_LOG_STEP = 1e-7  # shortest step of log lambda; a difference across it is a jump
_MIN_MULTIPLIER = 1e-8  # least multiplier, relative to the end of the ray, of a constraint that must remain active
_MAX_MULTIPLIER = 1e8  # multiplier, relative to the end of the ray, above which the thresholds are out of reach
_MAX_STEPS = 200  # budget of Newton steps
_MAX_FALLS = 10  # number of falls of the dual value; more of them are an oscillation across a kink


def solve_constrained(
    x: npt.ArrayLike | RowBlocks,
    constraints: Constraint | Sequence[Constraint],
    *,
    n_tiles: int | None = None,
    tiling: Tiling | None = None,
    weights: npt.ArrayLike | None = None,
    masses: str = "fixed",
    box: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    anchor: float = 0.0,
    accelerate: str = "lbfgs",
    tol: float = 1e-10,
    max_maps: int = 100_000,
    time_limit: float | None = None,
    backend: str = "auto",
    dtype: npt.DTypeLike | None = None,
    progress: bool = False,
    on_failure: str = "warn",
) -> ConstrainedFixedPoint:
    """Find multipliers lambda >= 0 with E[C_k] <= 0 and lambda_k E[C_k] = 0, and the solution at these multipliers.

    The multipliers are annealed. Those of the constraints that do not hold at rate zero grow from zero in a fixed
    ratio, and solutions are followed and split as in `sweep`. For one constraint the threshold is met by a bracketed
    root. Several constraints are met by Newton steps from there.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    constraints : constraint or sequence of them
        `RE`, `FRE`, `CLA`, `PNCC`, or any other `Constraint`.
    box, anchor
        As for `Lagrangian`; the multiplier of the anchor is not annealed.
    n_tiles, tiling, weights, masses, accelerate, tol, max_maps, backend, dtype
        As for `solve`; `max_maps` holds for each solution.
    time_limit : float, optional
        Budget of the whole search in seconds, kept as in `solve`.
    progress : bool
        Show a progress bar.
    on_failure : {"warn", "raise", "return"}
        What to do if the constraints are not met. The result then has the last solution of the search, also after
        Ctrl-C or when the time is used up. With "raise", Ctrl-C raises KeyboardInterrupt.

    Returns
    -------
    ConstrainedFixedPoint
        Solution with `.multipliers`, `.constraint_values`, `.active`, and a `.status`: MET; SLACK, if all constraints
        hold at rate zero; UNREACHABLE with these tiles; or JUMP, if a first-order transition skips a threshold.

    Raises
    ------
    ValueError
        For bad input.
    NotConvergedError
        If the constraints are not met, with ``on_failure="raise"``.

    Examples
    --------
    >>> from constrained_vae import RE
    >>> s = solve_constrained([[-1.0], [1.0]], RE.from_squared_error(0.75), n_tiles=2)
    >>> round(s.multipliers["RE"], 9)  # m^2 = 1/4 and lambda = artanh(m) / (2 m) (docs/theory.md section 5)
    0.549306144
    """
    progress = check_flag(progress, "progress")
    constraints = tuple(constraints) if isinstance(constraints, Sequence) else (constraints,)
    objective = Lagrangian(constraints, [1.0] * len(constraints), box=box, anchor=anchor)
    posed = pose(
        x,
        objective,
        n_tiles=n_tiles,
        tiling=tiling,
        weights=weights,
        masses=masses,
        backend=backend,
        dtype=dtype,
        on_failure=on_failure,
    )
    options = Options(posed.free, accelerate, tol, max_maps)
    bar = tqdm(disable=not progress, desc="multipliers", unit=" solutions")
    with deadline.within(check_time_limit(time_limit)), bar:
        solution = _Search(posed, options, bar).run()
    report_failure(solution, on_failure, stacklevel=3)
    return solution


@dataclass(frozen=True, eq=False, repr=False)
class _Ray(Lagrangian):
    """A Lagrangian whose temperature changes the multipliers of the constraints, but not that of the anchor."""

    def at(self, beta: float) -> Lagrangian:
        return Lagrangian(self.constraints, np.array(self.multipliers) / beta, box=self.box, anchor=self.anchor)


@dataclass(eq=False)
class _Search:
    """The search for the multipliers: its current state, and the least values of the constraints so far."""

    posed: Posed  # with all multipliers 1
    options: Options
    bar: Any
    here: State | None = None
    least: FloatArray = field(default_factory=lambda: np.empty(0))
    scales: FloatArray = field(default_factory=lambda: np.empty(0))
    falls: int = 0  # number of steps with which the dual value fell
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

    def run(self) -> ConstrainedFixedPoint:
        """The whole search."""
        zero = self.at_rate_zero()
        self.here, self.least, self.scales = zero, values(zero), self.sizes(zero)
        broken = values(zero) > _KKT_TOL * self.scales
        if not broken.any():
            return self.package(Status.SLACK)
        try:
            return self.package(*self.search(broken))
        except KeyboardInterrupt:
            return self.package(Status.INTERRUPTED)
        except deadline.TimeUp:
            return self.package(Status.BUDGET_USED)

    def search(self, broken: Any) -> tuple[Status, State | None]:
        found = self.anneal(broken)
        self.here = found.state
        if len(self.scales) == 1 and found.before is not None:
            return Status.JUMP, found.before
        if len(self.scales) == 1:
            return Status.MET if found.reached else Status.UNREACHABLE, None
        return self.newton()

    def seen(self, state: State) -> None:
        """Record a state; raises `TimeUp` if the time is used up."""
        self.least = np.minimum(self.least, values(state))
        self.here = state
        self.bar.update()
        self.bar.set_postfix_str(f"violation {self.violation(state):.1e}", refresh=False)
        self.unfinished |= state.solution.status is Status.BUDGET_USED
        deadline.check()

    def sizes(self, state: State) -> FloatArray:
        """The units of the violations of the constraints, from a state at rate zero."""
        largest = np.maximum(np.abs(values(state)), np.abs([c.allowance for c in self.objective.constraints]))
        return np.where(largest > 0, largest, 1.0)

    def violation(self, state: State) -> float:
        return float((values(state) / self.scales).max())

    # --- one ray ---------------------------------------------------------------------------------------------------

    def at_rate_zero(self) -> State:
        """The state with zero multipliers: the limit of small ones, or the state of the anchor if there is one."""
        given = self.objective
        ones = replace(given, multipliers=(1.0 / len(given.constraints),) * len(given.constraints))
        zeros = replace(given, multipliers=(0.0,) * len(given.constraints))
        objective = zeros if given.anchor else ones
        state = self.state(
            objective,
            Sites.of_tiles(self.problem.data.mean[None].repeat(len(self.tiling), 0), self.tiling.masses),
            False,
        )
        if given.anchor:
            return state
        known: dict[str, Any] = {"objective": zeros, "free_energy": 0.0, "energy": 0.0}
        if len(given.constraints) > 1 and not (values(state) <= 0).all() and not deadline.passed():
            with deadline.finishing():
                known |= self.one_for_all(state)
        return replace(state, solution=replace(state.solution, **known))

    def one_for_all(self, state: State) -> dict[str, Any]:
        """Changes of the result if one reconstruction meets all constraints, by a minimax search; {} otherwise."""
        problem, objective = self.problem, self.objective.in_frame(self.problem.data.frame)
        mean_statistic, move = problem.data.mean_statistic, problem.data.to_device
        at = move(state.sites.decoder[:1]), move(np.zeros(1))
        expectations = problem.expectations(*at)
        mass, sums = np.ones(1), to_host(expectations.sums)
        scales = self.sizes(state)

        def worst(u: FloatArray) -> FloatArray:  # t - C_k(psi) / scale_k for u = (psi, t)
            return u[-1] - objective.expected(mean_statistic, mass, sums, u[None, :-1]) / scales

        def slopes(u: FloatArray) -> FloatArray:
            down = -objective.expected_slopes(mass, sums, u[None, :-1])[:, 0] / scales[:, None]
            return np.column_stack([down, np.ones(len(down))])

        start = np.append(state.sites.decoder[0], (values(state) / scales).max())
        low, high = (np.broadcast_to(bound, len(start) - 1) for bound in objective.bounds)
        found = minimize(
            lambda u: u[-1],
            start,
            jac=lambda u: np.append(np.zeros(len(u) - 1), 1.0),
            method="SLSQP",
            bounds=[*zip(low, high, strict=True), (None, None)],
            constraints={"type": "ineq", "fun": worst, "jac": slopes},
            options={"maxiter": 200},
        )
        psi = found.x[None, :-1]
        expected = objective.expected(mean_statistic, mass, sums, psi)
        if not (expected <= _KKT_TOL * scales).all():
            return {}
        return {
            "decoder": problem.data.frame.outward(psi).repeat(len(self.tiling), axis=0),
            "expected": tuple(expected.tolist()),
            "distortion": problem.distortion(move(psi), at[1], expectations),
        }

    def anneal(self, broken: Any) -> Crossing:
        """Anneal the multipliers of the constraints that do not hold at rate zero, in inverse ratio of their scales."""
        given = self.objective
        bounded = any(c.bounded for c, is_broken in zip(given.constraints, broken, strict=True) if is_broken)
        if not (given.box or given.anchor or bounded):
            broken = np.ones_like(broken)  # the broken constraints alone have no minimiser
        direction = np.where(broken, 1 / self.scales, 0.0)
        ray = _Ray(given.constraints, direction, box=given.box, anchor=given.anchor)
        path = Continuation(self.problem.at(ray), self.tiling, self.options, accuracy=1e-10)
        worst = np.flatnonzero(broken)

        def measure(state: State) -> float:
            return float((values(state) / self.scales)[worst].max())

        def from_data() -> Crossing:
            sites = initial_sites(self.posed, "data", 0)
            return crossing_from(path, sites, measure, self.seen)

        # Minimisers may lie in corners of the box, where sites never split: tiles start at data, with tiny multipliers.
        if given.box and not (given.anchor or bounded):
            return from_data()
        found = crossing(path, start(path, 1.0), measure, self.seen)
        convex = all(c.quadratic for c in given.constraints)
        return found if found.reached or convex else from_data()

    # --- Newton's method -------------------------------------------------------------------------------------------

    def newton(self) -> tuple[Status, State | None]:
        """Meet all constraints together from the end of the ray, in y_k = lambda_k scale_k and c_k = E[C_k] / scale_k.

        dc / dy is symmetric, and negative semi-definite on a stable branch. The Newton step is bounded in log y. A
        multiplier that it would make negative is 0 until its constraint is violated. A step is accepted if the KKT
        residual falls or the dual value rises.
        """
        assert self.here is not None
        here, y = self.here, self.paid_at(self.here)
        most = max(y.max(), 1.0)
        returns = np.zeros(len(y), dtype=int)
        for _ in range(_MAX_STEPS):
            c = values(here) / self.scales
            back = (y == 0) & (c > _KKT_TOL)
            if back.any():
                y, returns = np.where(back, 0.01 * y.max(), y), returns + back
                here = self.at(y, here)
                continue
            if kkt_residual(y, c) <= _KKT_TOL:
                return Status.MET, None
            if (y > _MAX_MULTIPLIER * most).any():
                return Status.UNREACHABLE, None
            target = self.newton_target(here, y, c)
            target = np.maximum(target, np.where((returns > 1) | self.holding(target), _MIN_MULTIPLIER * most, 0.0))
            here, y, other = self.line_search(here, y, target)
            if other is not None:
                apart = np.abs(values(other) / self.scales - values(here) / self.scales).max()
                self.here, other = sorted((here, other), key=self.violation)
                if apart > JUMP_TOL:
                    # If no mixture of both sides meets all constraints, they are not optimal: the dual value rises on.
                    first, second = (values(state) / self.scales for state in (self.here, other))
                    shares = np.linspace(0, 1, 1001)[:, None]
                    mixed = (shares * first + (1 - shares) * second).max(axis=1).min()
                    return (Status.UNREACHABLE if mixed > JUMP_TOL else Status.JUMP), other
                # The arithmetic allows no better state.
                self.here = here
                return Status.MET if kkt_residual(y, c) <= ACCEPTABLE_TOL else Status.CRITICAL, None
        return Status.BUDGET_USED, None

    def paid_at(self, state: State) -> FloatArray:
        """y of a state."""
        return cast(Lagrangian, state.solution.objective).values * self.scales

    def at(self, y: FloatArray, near: State, split: bool = True) -> State:
        """The state at other multipliers, solved from the sites of a state nearby."""
        state = self.state(replace(self.objective, multipliers=tuple(y / self.scales)), near.sites, split)
        self.seen(state)
        return state

    def newton_target(self, here: State, y: FloatArray, c: FloatArray) -> FloatArray:
        """The end of the Newton step; 0 where the step would make y negative."""
        paid = np.flatnonzero(y > 0)
        slopes = np.empty((len(paid), len(paid)))
        for row, k in enumerate(paid):
            nearby = y.copy()
            nearby[k] *= 1 + _SLOPE_STEP
            slopes[row] = (values(self.at(nearby, here, split=False)) / self.scales - c)[paid] / (nearby[k] - y[k])
        # The target >= 0 maximises the model c d - d A d / 2 with d = target - y and A = -dc/dy = L^2, so that L target
        # is as near as possible to L y + c / L.
        curvature, axes = np.linalg.eigh(-(slopes + slopes.T) / 2)
        least = 1e-3 * np.abs(c[paid]).max() / y[paid].max()  # for a smaller dc/dy only the bound of the step matters
        root = np.sqrt(np.maximum(np.abs(curvature), max(1e-12 * np.abs(curvature).max(), least, 1e-300)))
        L, inverse = (axes * root) @ axes.T, (axes / root) @ axes.T
        target = np.zeros_like(y)
        target[paid] = nnls(L, L @ y[paid] + inverse @ c[paid])[0]
        bounded = np.clip(target, y * np.exp(-_MAX_LOG_STEP), y * np.exp(_MAX_LOG_STEP))
        return np.where((target == 0) & (c < 0) & (-y * c < _INACTIVE_TOL) & target.any(), 0.0, bounded)

    def holding(self, y: FloatArray) -> Any:
        """The constraints without which no minimiser exists, so that their multipliers must stay positive."""
        given = self.objective
        bounded = np.array([c.bounded for c in given.constraints])
        return bounded & (given.box is None and not given.anchor and not (bounded & (y > 0)).any())

    def line_search(self, here: State, y: FloatArray, target: FloatArray) -> tuple[State, FloatArray, State | None]:
        """A better state between here and the target, with its y; or here, with a state across a jump as the third.

        The dual value is concave on a branch. A rise by more than its slope predicts belongs to another branch.
        """
        shift, c = target - y, values(here) / self.scales
        residual = kkt_residual(y, c)
        noise = _KKT_TOL * (1 + abs(here.solution.lagrangian))
        while True:
            there = y + shift
            state = self.at(there, here)
            rise = state.solution.lagrangian - here.solution.lagrangian
            left = kkt_residual(there, values(state) / self.scales)
            falls = rise < -noise  # for example because a better branch was found
            if rise <= c @ shift + noise and (
                (left < residual and not (falls and self.falls == _MAX_FALLS)) or (rise > 0 and left < 2 * residual)
            ):
                self.falls += falls
                return state, there, None
            if (np.abs(shift) <= _MIN_LOG_STEP * y).all():
                return here, y, state
            shift = shift / 4

    def state(self, objective: Lagrangian, sites: Sites, split: bool = True) -> State:
        """The state at other multipliers, solved from given sites."""
        options = replace(self.options, split=split)
        solution, sites, condition = iterate(self.problem.at(objective), self.tiling, sites, options)
        if solution.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return State(1.0, sites, solution, condition)

    def package(self, status: Status, other: State | None = None) -> ConstrainedFixedPoint:
        """The result; its status is that of the solution if the solution has not converged."""
        assert self.here is not None  # `run` starts with the state at rate zero
        solution = self.here.solution
        ending = solution.status
        rough = solution.error_estimate <= ACCEPTABLE_TOL * solution.frame.scale
        if solution.converged or rough or status in (Status.INTERRUPTED, Status.BUDGET_USED):
            ending = Status.BUDGET_USED if status is Status.UNREACHABLE and self.unfinished else status
        names = self.objective.names
        sides = None if other is None else (other.solution, solution)
        least = dict(zip(names, self.least.tolist(), strict=True))
        scales = tuple(self.scales.tolist())
        return solution.extended_as(ConstrainedFixedPoint, status=ending, scales=scales, least=least, sides=sides)


def values(state: State) -> FloatArray:
    """E[C_k] of a state."""
    return np.array(state.solution.expected)
