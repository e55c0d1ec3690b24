"""solve_constrained(): the multipliers that meet given thresholds, what GECO looks for by gradient steps (T5), (T7).

The dual problem: with lambda >= 0 in force, E[C_k] <= 0 for every constraint and lambda_k E[C_k] = 0. On a branch of
stable fixed points the Lagrangian is concave in lambda with the slope E[C], so that more multiplier means less C.

First a ray of multipliers is annealed to where the worst constraint just holds: for one constraint that is the answer.
For several, safeguarded Newton steps of the dual problem in log lambda go on from there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from scipy.optimize import minimize, nnls
from tqdm.auto import tqdm

from .._utils.arrays import FloatArray
from .._utils.device import to_host
from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..objectives.lagrangian import Lagrangian
from ..phases.continuation import Continuation, State
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from ..solvers.loop import iterate
from ..solvers.options import Options
from ..solvers.pose import Posed, pose
from ..solvers.solve import initial_sites, report_failure
from .ray import Crossing, crossing, crossing_from, start

_KKT = 1e-9  # KKT residual that is asked for
_DIFFERENCE = 1e-3  # of log lambda, for derivatives of E[C]
_LONGEST = 1.0  # step of log lambda
_CHEAP = 0.01  # nats that are at stake where a constraint that holds is no longer paid for
_SHORTEST = 1e-7  # step of log lambda across which E[C] does not jump
_FLOOR = 1e-8  # lambda, relative to where the ray ended, below which a constraint is not paid for
_CEILING = 1e8  # and above which it is out of reach
_STEPS = 200
_FALLS = 10  # times that the dual value may fall: more is going to and fro across a kink
_APART = 1e-4  # difference of E[C] between neighbours, in units of the scales, that is a jump
_ROUGH = 1e-7  # error of a solution, in units of the radius of the data, with which constraints still count as met


@dataclass(frozen=True, eq=False, repr=False)
class ConstrainedFixedPoint(FixedPoint):
    """A `FixedPoint` whose multipliers were sought for given thresholds.

    Its `status` is MET, SLACK, UNREACHABLE or JUMP, or says why the search ended before any of these. `n_maps` counts
    those of the last solution.

    Attributes
    ----------
    scales : tuple of float
        What violations are measured by: the larger of abs(E[C_k]) at rate zero and the allowance.
    least : dict of float
        The least E[C_k] that was seen, by name, each by itself; where it is positive, kappa is out of reach with these
        tiles, as far as annealing can tell.
    sides : (FixedPoint, FixedPoint) or None
        Of a jump: the solution that breaks a constraint, and the one that more than holds it, next to each other in
        multipliers. This one is the second; of several constraints, the one that breaks them less.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> s = cv.solve_constrained([[-1.0], [1.0]], cv.RE.from_squared_error(0.5), tiling=cv.Tiling.uniform(2))
    >>> s.status.name, round(s.distortion, 9)
    ('MET', 0.5)
    """

    scales: tuple[float, ...] = ()
    least: dict[str, float] = field(default_factory=dict)
    sides: tuple[FixedPoint, FixedPoint] | None = None

    def __repr__(self) -> str:
        terms = [
            f"lambda_{n}={value:.6g}, E[C_{n}]={self.constraint_values[n]:.1e}" for n, value in self.multipliers.items()
        ]
        return f"Constrained{super().__repr__()[:-1]}; {'; '.join(terms)})"

    @property
    def kkt_residual(self) -> float:
        """Largest violation of lambda_k >= 0, E[C_k] <= 0 and that one of them is 0, relative to `scales`.

        The smaller of lambda_k scale_k, in nats, and -E[C_k] / scale_k; its magnitude, for the worst constraint.
        """
        return kkt_residual(*self._pairs)

    @property
    def active(self) -> dict[str, bool]:
        """Whether a constraint is paid for, by name: of the two of `kkt_residual`, the multiplier is the larger."""
        y, c = self._pairs
        return dict(zip(self.multipliers, (y > np.maximum(-c, 0)).tolist(), strict=True))

    @property
    def _pairs(self) -> tuple[FloatArray, FloatArray]:
        scales = np.array(self.scales)
        return np.array(list(self.multipliers.values())) * scales, np.array(self.expected) / scales


def kkt_residual(y: FloatArray, c: FloatArray) -> float:
    """Largest violation of y >= 0, c <= 0, y c = 0."""
    return float(np.abs(np.minimum(y, -c)).max())


def solve_constrained(
    x: Any,
    constraints: Any,
    *,
    tiling: Tiling | None = None,
    weights: Any = None,
    masses: str = "fixed",
    box: Any = None,
    anchor: float = 0.0,
    accelerate: str = "lbfgs",
    tol: float = 1e-10,
    max_maps: int = 100_000,
    time_limit: float | None = None,
    backend: str = "auto",
    dtype: Any = None,
    progress: bool = False,
    on_failure: str = "warn",
) -> ConstrainedFixedPoint:
    """Find multipliers lambda >= 0 with E[C_k] <= 0 and lambda_k E[C_k] = 0, and the solution there.

    The answer is that of annealing, in a fixed direction: multipliers grow from zero, all constraints that do not hold
    at rate zero in a fixed ratio, and solutions are followed and split as in `sweep`. For one constraint the threshold
    is met by a bracketed root. Several are met by Newton steps from there.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    constraints : constraint or sequence of them
        `RE`, `FRE`, `CLA`, `PNCC`, or any other `Constraint`.
    box, anchor
        As for `Lagrangian`; the anchor is the multiplier in force.
    tiling, weights, masses, accelerate, tol, max_maps, backend, dtype
        As for `solve`; `max_maps` holds for every single solution.
    time_limit : float, optional
        Budget of the whole search in seconds.
    progress : bool
        Show a progress bar.
    on_failure : {"warn", "raise", "return"}
        What to do where the constraints are not met. After Ctrl-C, and when time is up, the last solution is returned.

    Returns
    -------
    ConstrainedFixedPoint
        With `.multipliers`, `.constraint_values`, `.active`, and a `.status`: MET; SLACK, if all hold at rate zero;
        UNREACHABLE with these tiles; or JUMP, if a first-order transition skips a threshold.

    Raises
    ------
    ValueError
        For bad input.
    NotConvergedError
        If the constraints are not met, with ``on_failure="raise"``.

    Examples
    --------
    >>> from constrained_vae import RE
    >>> s = solve_constrained([[-1.0], [1.0]], RE.from_squared_error(0.75), tiling=Tiling.uniform(2))
    >>> round(s.multipliers["RE"], 9)  # m^2 = 1/4 and lambda = artanh(m) / (2 m) (theory.md section 5)
    0.549306144
    """
    constraints = tuple(constraints) if isinstance(constraints, Sequence) else (constraints,)
    objective = Lagrangian(constraints, np.ones(len(constraints)), box=box, anchor=anchor)
    posed = pose(
        x,
        objective,
        tiling=tiling,
        weights=weights,
        masses=masses,
        backend=backend,
        dtype=dtype,
        on_failure=on_failure,
    )
    options = Options(posed.free, accelerate, tol, max_maps, time_limit)
    with tqdm(disable=not progress, desc="multipliers", unit=" solutions") as bar:
        solution = _Search(posed, options, bar).run()
    report_failure(solution, on_failure, stacklevel=3)
    return solution


class _TimeUp(Exception):
    pass


@dataclass(frozen=True, eq=False, repr=False)
class _Ray(Lagrangian):
    """A Lagrangian whose temperature moves the multipliers of constraints, and leaves the anchor alone."""

    def at(self, beta: float) -> Lagrangian:
        return Lagrangian(self.constraints, np.array(self.multipliers) / beta, box=self.box, anchor=self.anchor)


@dataclass(eq=False)
class _Search:
    """The search: what has been seen of the constraints, and where it is."""

    posed: Posed  # of all multipliers 1
    options: Options
    bar: Any
    here: State | None = None
    least: FloatArray = field(default_factory=lambda: np.empty(0))
    scales: FloatArray = field(default_factory=lambda: np.empty(0))
    falls: int = 0  # steps with which the dual value fell
    unfinished: bool = False  # whether a solution on the way used up its budget
    started: float = field(default_factory=time.monotonic)

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
        broken = values(zero) > _KKT * self.scales
        if not broken.any():
            return self.package(Status.SLACK)
        try:
            return self.package(*self.search(broken))
        except KeyboardInterrupt:
            return self.package(Status.INTERRUPTED)
        except _TimeUp:
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
        """Take note of a state; raises when time is up."""
        self.least = np.minimum(self.least, values(state))
        self.here = state
        self.bar.update()
        self.bar.set_postfix_str(f"violation {self.violation(state):.1e}", refresh=False)
        self.unfinished |= state.solution.status is Status.BUDGET_USED
        if self.timed().time_limit == 0:
            raise _TimeUp

    def timed(self) -> Options:
        """The options with what time is left."""
        limit = self.options.time_limit
        if limit is None:
            return self.options
        return replace(self.options, time_limit=max(0.0, limit - (time.monotonic() - self.started)))

    def sizes(self, state: State) -> FloatArray:
        """What violations of the constraints are measured by, from a state at rate zero."""
        largest = np.maximum(np.abs(values(state)), np.abs([c.allowance for c in self.objective.constraints]))
        return np.where(largest > 0, largest, 1.0)

    def violation(self, state: State) -> float:
        return float((values(state) / self.scales).max())

    # --- one ray ---------------------------------------------------------------------------------------------------

    def at_rate_zero(self) -> State:
        """No constraint paid for: one reconstruction, the limit from small multipliers, or that of the anchor alone."""
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
        if len(given.constraints) > 1 and not (values(state) <= 0).all():
            known |= self.one_for_all(state)
        return replace(state, solution=replace(state.solution, **known))

    def one_for_all(self, state: State) -> dict[str, Any]:
        """What changes where the one reconstruction moves to where the worst constraint is least; it may hold there."""
        problem, objective = self.problem, self.objective.in_frame(self.problem.data.frame)
        mean_statistic, move = problem.data.mean_statistic, problem.data.to_device
        at = move(state.sites.decoder[:1]), move(np.zeros(1))
        expectations = problem.expectations(*at)
        mass, sums = np.ones(1), to_host(expectations.sums)
        scales = self.sizes(state)

        def worst(u: FloatArray) -> FloatArray:  # t - C_k(psi) / scale_k of u = (psi, t)
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
        if not (expected <= _KKT * scales).all():
            return {}
        return {
            "decoder": problem.data.frame.outward(psi).repeat(len(self.tiling), axis=0),
            "expected": tuple(expected.tolist()),
            "distortion": problem.distortion(move(psi), at[1], expectations),
        }

    def anneal(self, broken: Any) -> Crossing:
        """Along the ray of multipliers in inverse ratio of the scales, of constraints that do not hold at rate zero."""
        given = self.objective
        bounded = any(c.bounded for c, is_broken in zip(given.constraints, broken, strict=True) if is_broken)
        if not (given.box or given.anchor or bounded):
            broken = np.ones_like(broken)  # those alone have no minimiser
        direction = np.where(broken, 1 / self.scales, 0.0)
        ray = _Ray(given.constraints, direction, box=given.box, anchor=given.anchor)
        path = Continuation(self.problem.at(ray), self.tiling, self.timed(), accuracy=1e-10)
        worst = np.flatnonzero(broken)

        def measure(state: State) -> float:
            return float((values(state) / self.scales)[worst].max())

        def from_data() -> Crossing:
            sites = initial_sites(self.posed, "data", 0)
            return crossing_from(path, sites, measure, self.seen)

        # Minimisers may lie in corners of the box, where nothing splits: tiles start at data, for almost no multiplier.
        if given.box and not (given.anchor or bounded):
            return from_data()
        found = crossing(path, start(path, 1.0), measure, self.seen)
        convex = all(c.quadratic for c in given.constraints)
        return found if found.reached or convex else from_data()

    # --- Newton's method -------------------------------------------------------------------------------------------

    def newton(self) -> tuple[Status, State | None]:
        """Meet all constraints at once from where the ray ended, in y_k = lambda_k scale_k and c_k = E[C_k] / scale_k.

        dc / dy is symmetric, and negative semi-definite on a stable branch. Newton's step is bounded in log y; what it
        would make negative is not paid for, until it is broken. A step is kept where the KKT residual falls or the
        dual value rises.
        """
        assert self.here is not None
        here, y = self.here, self.paid_at(self.here)
        most = max(y.max(), 1.0)
        returns = np.zeros(len(y), dtype=int)
        for _ in range(_STEPS):
            c = values(here) / self.scales
            back = (y == 0) & (c > _KKT)
            if back.any():
                y, returns = np.where(back, 0.01 * y.max(), y), returns + back
                here = self.at(y, here)
                continue
            if kkt_residual(y, c) <= _KKT:
                return Status.MET, None
            if (y > _CEILING * most).any():
                return Status.UNREACHABLE, None
            target = self.newton_target(here, y, c)
            target = np.maximum(target, np.where((returns > 1) | self.holding(target), _FLOOR * most, 0.0))
            here, y, other = self.line_search(here, y, target)
            if other is not None:
                apart = np.abs(values(other) / self.scales - values(here) / self.scales).max()
                self.here, other = sorted((here, other), key=self.violation)
                if apart > _APART:
                    # Sides of which no mixture holds everything are no optimum: the dual value rises on between them.
                    first, second = (values(state) / self.scales for state in (self.here, other))
                    shares = np.linspace(0, 1, 1001)[:, None]
                    mixed = (shares * first + (1 - shares) * second).max(axis=1).min()
                    return (Status.UNREACHABLE if mixed > _APART else Status.JUMP), other
                # Nothing better within reach of the arithmetic.
                self.here = here
                return Status.MET if kkt_residual(y, c) <= _ROUGH else Status.CRITICAL, None
        return Status.BUDGET_USED, None

    def paid_at(self, state: State) -> FloatArray:
        """y of a state."""
        return cast(Lagrangian, state.solution.objective).values * self.scales

    def at(self, y: FloatArray, near: State, split: bool = True) -> State:
        """The state at other multipliers, from the sites of one nearby."""
        state = self.state(replace(self.objective, multipliers=tuple(y / self.scales)), near.sites, split)
        self.seen(state)
        return state

    def newton_target(self, here: State, y: FloatArray, c: FloatArray) -> FloatArray:
        """Where Newton's step leads; 0 where it would make y negative."""
        paid = np.flatnonzero(y > 0)
        slopes = np.empty((len(paid), len(paid)))
        for row, k in enumerate(paid):
            nearby = y.copy()
            nearby[k] *= 1 + _DIFFERENCE
            slopes[row] = (values(self.at(nearby, here, split=False)) / self.scales - c)[paid] / (nearby[k] - y[k])
        # Of the model c d - d A d / 2, d = target - y, A = -dc/dy, the greatest value with target >= 0: with A = L^2
        # that is where L target is nearest to L y + c / L.
        curvature, axes = np.linalg.eigh(-(slopes + slopes.T) / 2)
        least = 1e-3 * np.abs(c[paid]).max() / y[paid].max()  # where dc/dy is less, only the bound of the step counts
        root = np.sqrt(np.maximum(np.abs(curvature), max(1e-12 * np.abs(curvature).max(), least, 1e-300)))
        L, inverse = (axes * root) @ axes.T, (axes / root) @ axes.T
        target = np.zeros_like(y)
        target[paid] = nnls(L, L @ y[paid] + inverse @ c[paid])[0]
        bounded = np.clip(target, y * np.exp(-_LONGEST), y * np.exp(_LONGEST))
        return np.where((target == 0) & (c < 0) & (-y * c < _CHEAP) & target.any(), 0.0, bounded)

    def holding(self, y: FloatArray) -> Any:
        """Which constraints are needed for there to be a minimiser, though they may not be paid for."""
        given = self.objective
        bounded = np.array([c.bounded for c in given.constraints])
        return bounded & (given.box is None and not given.anchor and not (bounded & (y > 0)).any())

    def line_search(self, here: State, y: FloatArray, target: FloatArray) -> tuple[State, FloatArray, State | None]:
        """A state between here and the target that is better than here; or, as the third, one across a jump.

        The dual value of a branch is concave: where it rises by more than its slope says, that is another branch.
        """
        shift, c = target - y, values(here) / self.scales
        residual = kkt_residual(y, c)
        noise = _KKT * (1 + abs(here.solution.lagrangian))
        while True:
            there = y + shift
            state = self.at(there, here)
            rise = state.solution.lagrangian - here.solution.lagrangian
            left = kkt_residual(there, values(state) / self.scales)
            falls = rise < -noise  # as where a better branch is found
            if rise <= c @ shift + noise and (
                (left < residual and not (falls and self.falls == _FALLS)) or (rise > 0 and left < 2 * residual)
            ):
                self.falls += falls
                return state, there, None
            if (np.abs(shift) <= _SHORTEST * y).all():
                return here, y, state
            shift = shift / 4

    def state(self, objective: Lagrangian, sites: Sites, split: bool = True) -> State:
        """The state at other multipliers from given sites."""
        options = replace(self.timed(), split=split)
        solution, sites, condition = iterate(self.problem.at(objective), self.tiling, sites, options)
        if solution.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return State(1.0, sites, solution, condition)

    def package(self, status: Status, other: State | None = None) -> ConstrainedFixedPoint:
        """The result; where the solution itself has not converged, that is its status."""
        assert self.here is not None  # the state at rate zero at least
        solution = self.here.solution
        ending = solution.status
        rough = solution.error_estimate <= _ROUGH * solution.frame.scale
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
