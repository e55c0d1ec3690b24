"""Iteration: the state of one run of the loop, the history for the accelerator, and steps that do not raise F."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._utils import deadline
from .._utils.arrays import Array
from .._utils.device import numbers, to_host
from ..equations import Expectations
from ..latent.sites import Sites
from ..problems.problem import Problem
from ..results.status import Status
from .acceleration import Accelerator, Past, extended
from .convergence import Convergence
from .coordinates import MAX_WHITENED_DIM, Whitened
from .options import Options
from .point import Point
from .recorder import Recorder, Stopped
from .split_condition import SplitCondition

_BACKTRACKS = (1.0, 0.25, 0.0625)  # fractions of a proposal that are tried before the plain step
_REFRESH_RATIO = 0.03  # whitened coordinates are computed anew when the residual has fallen by this factor

Map = Callable[[Problem, Array, Array, Array | None], tuple[Expectations, Array]]


@dataclass
class SoftModes:
    """Progress of Newton's method for soft modes, see `soft_modes`.

    Attributes
    ----------
    began, due : int
        Number of maps at the start of this approach, and number of maps at which it begins.
    seen : (int, float) or None
        Number of maps and residual some maps before that.
    used : bool
        Whether it has begun before.
    error, residual, free_energy : float
        Least error, least residual, and F at the last Hessian.
    idle : int
        Number of Hessians in a row that did not lower F, nor reduce the error tenfold or the residual by half.
    unknowns, last_error, spent : int, float, bool
        Number of unknowns and the error at the end of the method, and whether it ended at the accuracy of arithmetic.
    quadratic : (Point, soft_modes.Quadratic) or None
        The last Hessian, with its point.
    """

    began: int = 0
    due: int = 0
    seen: tuple[int, float] | None = None
    used: bool = False
    error: float = np.inf
    residual: float = np.inf
    free_energy: float = np.inf
    idle: int = 0
    unknowns: int = 0
    last_error: float = np.inf
    spent: bool = False
    quadratic: tuple[Point, Any] | None = None

    def exhausted(self, free_energy: float, rounding: float, unknowns: int) -> bool:
        """Whether the method has ended at the same F, and not many unknowns have been tied since."""
        return self.spent and self.free_energy - free_energy <= rounding and 2 * unknowns > self.unknowns

    def record(self, error: float, point: Point, rounding: float) -> None:
        """Record the error and the point of a Hessian; falls of F below the rounding do not count."""
        unknowns = len(point.vectors[0])
        if unknowns != self.unknowns:  # of another number of sites
            self.error = self.residual = np.inf
        gained = error < 0.1 * self.error or point.residual < 0.5 * self.residual
        gained = gained or self.free_energy - point.free_energy > rounding
        self.idle = 0 if gained else self.idle + 1
        self.error, self.residual = min(error, self.error), min(point.residual, self.residual)
        self.free_energy, self.used = point.free_energy, True
        self.unknowns, self.spent = unknowns, False


@dataclass(eq=False)
class Iteration:
    """The state of one run of the loop; `map` is the map of the fixed-point equations."""

    problem: Problem
    options: Options
    sites: Sites
    recorder: Recorder
    map: Map
    point: Point | None = None
    error: float = np.inf  # of the point, in the frame
    history: list[Past] = field(default_factory=list)
    condition: SplitCondition | None = None  # of the point, if tested
    whitened: Whitened | None = None  # None: the vectors are in the coordinates of the objective
    drawn_at: float = np.inf  # residual at which the whitened coordinates were computed
    slid: bool = False  # whether a saddle was left along a direction of negative curvature
    revivals: int = 0  # times that sites without mass were given some
    soft: SoftModes = field(default_factory=SoftModes)
    kicked_from: tuple[int, float] | None = None  # number of sites and F before the last kick

    def __post_init__(self) -> None:
        # The Jacobian of a Bregman energy is symmetric in a known metric; other energies need whitened coordinates.
        self.bregman = self.problem.bregman
        symmetric = self.bregman or self.sites.decoder.shape[1] <= MAX_WHITENED_DIM
        objective = self.problem.framed  # whether the map is that of a squared distance
        self.quadratic = bool(objective.quadratic) and objective.coordinates(self.sites.decoder) is self.sites.decoder
        self.convergence = Convergence(self.problem, self.options.tol, symmetric)

    # --- points

    @property
    def here(self) -> Point:
        """The current point."""
        assert self.point is not None  # `run` evaluates the start first
        return self.point

    def evaluate(self, psi: Array, log_masses: Array) -> Point:
        """One map of the fixed-point equations; raises `Stopped` or `TimeUp` if a budget is used up."""
        self.recorder.count()
        objective, drawn = self.problem.framed, self.whitened
        inverse = None if drawn is None else drawn.inverse
        expectations, updated = self.map(self.problem, psi, log_masses, inverse)
        if not self.bregman:
            deadline.check()  # an inner minimisation that was cut short says nothing about convergence
        return Point(objective, self.options.free, psi, log_masses, expectations, updated, drawn or objective)

    def evaluate_vector(self, u: Array) -> Point:
        """The map at a proposal; its numbers may not be finite."""
        return self.evaluate(*self.here.from_vector(u))

    def evaluate_sites(self, sites: Sites) -> Point:
        """The map at sites, which are on the host."""
        move = self.problem.data.to_device
        return self.evaluate(move(sites.decoder), move(sites.log_masses))

    def falls(self, candidate: Point) -> bool:
        """Whether F does not rise from the current point to the candidate.

        A difference below the rounding of F is computed from its gradient, -r in the metric (T6), by the trapezoidal
        rule. If no metric is known in which the Jacobian is symmetric, the residual decides.
        """
        point = self.here
        rise = candidate.free_energy - point.free_energy
        if abs(rise) <= self.convergence.slack(point.free_energy):
            if not self.convergence.symmetric:
                return candidate.residual <= point.residual
            (u, r, metric), (u1, r1, metric1) = point.vectors, candidate.vectors
            rise = -numbers((metric * r + metric1 * r1) @ (u1 - u))[0] / 2
        return rise <= 0

    def slack(self) -> float:
        """Largest difference from the current F that is rounding."""
        return self.convergence.slack(self.here.free_energy)

    def accept(self, point: Point, plain: bool = False) -> None:
        """Make a point the current one; raises `Stopped` if it is not finite, or a callback returns a true value."""
        if not point.finite:
            raise Stopped(Status.NOT_FINITE)
        self.reach(point, extended(self.history, *point.vectors[:2], plain))

    def reach(self, point: Point, history: list[Past]) -> None:
        """Make a point the current one, with the history that ends there."""
        self.point, self.error, self.condition, self.history = point, np.inf, None, history
        if self.recorder.reports:
            measured, factor = self.convergence.measured, self.convergence.factor
            self.recorder.accepted(point, self.sites.index, lambda: measured(point, history, factor)[1])

    # --- steps

    def near_enough(self) -> bool:
        """Whether the error estimate from the history is small enough for a Newton step, which measures the error."""
        convergence = self.convergence
        return convergence.stalled or convergence.estimate(self.here, self.history) <= convergence.close

    def newton_step(self) -> tuple[Array, float]:
        """The Newton step from the current point, and the estimated error."""
        evaluate, whitened = self.evaluate_vector, self.whitened is not None
        return self.convergence.newton_step(self.here, self.history, evaluate, whitened)

    def accelerated(self, accelerator: Accelerator, rejected: Point | None = None) -> list[Point]:
        """Candidates from the proposal of an accelerator, see `extrapolated`; if all fail, the history is cut.

        If F is known to rise at the proposal, it is given as `rejected`.
        """
        proposal = accelerator(self.history, self.here.vectors[2]) if rejected is None else rejected.vectors[0]
        if proposal is None:
            return []
        candidates = self.extrapolated(proposal, rejected)
        if not candidates:
            self.history = self.history[-1:]
        return candidates

    def extrapolated(self, proposal: Array, rejected: Point | None = None) -> list[Point]:
        """The proposal if F does not rise there, or the proposal and its plain image if F does not rise at the image.

        (A long step amplifies the rest of the fast modes; one plain step removes it.) If F rises at both, proposals
        nearer to the plain image of the current point follow, by factors of a quarter. If F rises at all of them, there
        are no candidates.
        """
        for fraction in _BACKTRACKS:
            known = rejected if fraction == 1 else None
            candidate = known or self.evaluate_vector(self.backtracked(proposal, fraction))
            if not candidate.finite:
                continue
            if known is None and self.falls(candidate):
                return [candidate]
            settled = self.evaluate(*candidate.plain_step)
            if self.falls(settled):
                return [candidate, settled]
        return []

    def backtracked(self, proposal: Array, fraction: float) -> Array:
        """The vector at a fraction of the way from the plain image of the current point to a proposal."""
        if fraction == 1:
            return proposal
        u, r, _ = self.here.vectors
        return (u + r) + fraction * (proposal - (u + r))

    def advance(self, candidates: list[Point]) -> bool:
        """Accept the last candidate, or the plain image without candidates; return whether it is a plain image."""
        plain = len(candidates) != 1
        for passed in candidates[:-1]:  # the extrapolated point, before its plain image
            self.history = extended(self.history, *passed.vectors[:2], plain=False)
        self.accept(candidates[-1] if candidates else self.evaluate(*self.here.plain_step), plain)
        return plain

    # --- sites and coordinates

    def move_to(self, sites: Sites, strictly: bool = False) -> bool:
        """Move to other sites unless F rises there by more than rounding (`strictly`: unless it rises at all)."""
        before, self.whitened = self.whitened, None
        point = self.evaluate_sites(sites)
        rise = point.free_energy - self.here.free_energy
        if not rise <= (0.0 if strictly else self.slack()):
            self.whitened = before
            return False
        self.sites = sites
        self.restart(point)
        return True

    def restart(self, point: Point) -> None:
        """Continue from a point that is far from the current one, without history."""
        self.history, self.convergence.factor, self.whitened = [], np.nan, None
        self.accept(point)
        self.draw_coordinates()

    def current_sites(self) -> Sites:
        """The sites with reconstructions, masses and marginal posterior of the current point."""
        point = self.here
        mass = to_host(point.expectations.mass)
        sites = Sites(to_host(point.psi), self.sites.index, self.sites.tile_masses, mass)
        return sites.with_masses(np.exp(to_host(point.log_masses))) if self.options.free else sites

    def refresh_coordinates(self) -> None:
        """Compute the whitened coordinates anew if they are from far away, or if the active bounds of a box changed."""
        drawn, residual = self.whitened, self.here.residual
        assert drawn is not None  # `converge` has tested it
        far = self.convergence.floor < residual < _REFRESH_RATIO * self.drawn_at
        if far or not drawn.fits(self.here.updated_decoder):
            self.draw_coordinates()

    def draw_coordinates(self) -> None:
        """Compute whitened coordinates at the current point, unless J is symmetric in those of the objective."""
        convergence, point = self.convergence, self.here
        if self.bregman or not convergence.symmetric:
            return
        drawn = Whitened.at(self.problem, point.psi, point.expectations, point.updated_decoder)
        self.whitened, self.drawn_at, self.point = drawn, point.residual, point.with_coordinates(drawn)
        self.history, convergence.factor = extended([], *self.point.vectors[:2], plain=False), np.nan
        slack = drawn.slack(point.expectations, point.updated_decoder)
        convergence.raise_floor(float(np.sqrt(to_host(point.expectations.mass) @ np.square(slack).sum(axis=1))))
