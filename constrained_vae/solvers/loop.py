"""The solver loop: maps, acceleration with a guard of the free energy, convergence, ties and splits of sites.

repeat  a point, then the proposal of the accelerator if F does not rise there, else the plain map, which descends (T6);
until   the estimated distance to the fixed point is within the tolerance (T10), see `convergence`;
then    tie coincident tiles; kick a site past its split condition (T9) along its unstable axis, see `saddles`; repeat.

Points and vectors are where the backend computes, and only a few numbers per map are copied to the host. Sites are on
the host, and are updated when an iteration has converged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from .._utils.arrays import Array
from .._utils.device import numbers, to_host
from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint, same_distance
from ..results.status import Status
from . import saddles
from .acceleration import ACCELERATORS, MAX_PAST, Accelerator, Past
from .convergence import Convergence
from .coordinates import MAX_WHITENED_DIM, Whitened
from .options import Options
from .package import package
from .point import Point
from .recorder import Recorder, Stopped
from .split_condition import SplitCondition, split_condition

_DEAD_MASS = 1e-14  # free masses: a site below this marginal mass that still loses mass is removed
_BACKTRACKS = (1.0, 0.25, 0.0625)  # fractions of a proposal that are tried before the plain step
_REFRESH_RATIO = 0.03  # whitened coordinates are computed anew when the residual has fallen by this factor


def iterate(
    problem: Problem, tiling: Tiling, sites: Sites, options: Options, predicted: Sites | None = None
) -> tuple[FixedPoint, Sites, SplitCondition | None]:
    """Run the loop from given sites (in the frame), or from predicted sites if F does not rise there.

    Returns the result, its sites, from which a sweep continues, and their split condition if it was computed.
    """
    with tqdm(disable=not options.progress, unit=" maps", desc=f"beta={problem.objective.beta:.4g}") as bar:
        loop = _Loop(problem, options, sites, Recorder(options, problem.data.frame, bar))
        with np.errstate(over="ignore", invalid="ignore"):  # a proposal may overflow, and is then rejected
            status = loop.run(predicted)
    if loop.point is None and status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    if loop.point is None:
        raise ValueError(
            f"the free energy of the start is not finite: check the scale of {problem.objective} and of the data"
        )
    found = loop.current_sites()
    solution = package(problem, tiling, found, loop.point, loop.recorder, loop.error, loop.condition, status)
    return solution, found, loop.condition


@dataclass(eq=False)
class _Loop:
    """One run of the loop: its current point and sites, and the history for the accelerator."""

    problem: Problem
    options: Options
    sites: Sites
    recorder: Recorder
    point: Point | None = None
    error: float = np.inf  # of the point, in the frame
    history: list[Past] = field(default_factory=list)
    condition: SplitCondition | None = None  # of the sites, as last tested
    whitened: Whitened | None = None  # None: the vectors are in the coordinates of the objective
    drawn_at: float = np.inf  # residual at which the whitened coordinates were computed
    slid: bool = False  # whether a saddle was left along a direction of negative curvature
    kicked_from: tuple[int, float] | None = None  # number of sites and F before the last kick

    def __post_init__(self) -> None:
        # The Jacobian of a Bregman energy is symmetric in a known metric; other energies need whitened coordinates.
        self.bregman = self.problem.framed.curvature(self.sites.decoder[:1]) is not None
        symmetric = self.bregman or self.sites.decoder.shape[1] <= MAX_WHITENED_DIM
        self.convergence = Convergence(self.problem, self.options.tol, symmetric)

    # --- the outer loop: converge, tie, test, kick --------------------------------------------------------------------

    def run(self, predicted: Sites | None) -> Status:
        tol, saddle_left = self.convergence.tol, False
        try:
            self.accept(self.evaluate_sites(self.sites))
            self.draw_coordinates()
            if predicted is not None:
                self.move_to(predicted, strictly=True)
            while True:
                status = self.converge(tol)
                if self.tie():
                    status = self.converge(tol)
                if self.kick():
                    saddle_left, tol = True, self.convergence.loose_tol  # the next end point may be a saddle, too
                elif tol > self.convergence.tol:
                    tol = self.convergence.tol
                else:
                    break
        except Stopped as stop:
            return stop.status
        except KeyboardInterrupt:
            return Status.INTERRUPTED
        finally:
            if self.point is not None and not np.isfinite(self.error):
                self.error = self.convergence.estimate(self.point, self.history)
        if status is Status.CONVERGED and self.error > self.convergence.tol:
            return Status.CRITICAL
        if status is Status.CONVERGED and (to_host(self.here.expectations.mass) <= 0).any():
            return Status.DEAD_TILES
        return Status.SADDLE_LEFT if status is Status.CONVERGED and (saddle_left or self.slid) else status

    def tie(self) -> bool:
        """Tie sites that coincide, if F does not rise by it; return whether anything changed."""
        tolerance = same_distance(self.problem.data.radius, self.problem.framed.stiffness, self.error)
        sites = self.current_sites()
        if self.options.free:  # a site that has lost its mass and loses more gives its tiles to the largest site
            mass, log_step = to_host(self.here.expectations.mass), to_host(self.here.log_step)
            sites = sites.without((mass < _DEAD_MASS) & (log_step < 0))
        merged = sites.merged(tolerance)
        return len(merged) < len(self.sites) and self.move_to(merged)

    def kick(self) -> bool:
        """Test the split condition (T9), split a site past it along its unstable axis (T13), return whether it did."""
        point, sites, free = self.here, self.current_sites(), self.options.free
        log_masses = to_host(point.log_masses)
        condition = split_condition(self.problem, sites.decoder, log_masses, sites.can_split(free))
        self.condition = condition
        if not self.options.split or saddles.excess(condition) == 0:
            return False
        # If the gain is below rounding, as in float32 near a transition, splits and ties could alternate without end.
        last, gain = self.kicked_from, self.convergence.slack(point.free_energy)
        undone = last is not None and len(sites) <= last[0] and point.free_energy > last[1] - gain
        for kicked in () if undone else saddles.kicks(sites, condition, self.problem.framed, free):
            before = len(sites), point.free_energy
            if self.move_to(kicked, strictly=True):
                self.kicked_from = before
                return True
        # No kick lowers F by more than rounding: the estimated distance of the halves is an error of the decoder.
        distance = saddles.distance_of_halves(condition, to_host(point.expectations.mass))
        self.error = max(self.error, distance)
        return False

    # --- the inner loop -----------------------------------------------------------------------------------------------

    def converge(self, tol: float) -> Status:
        """Iterate until the estimated error is below the tolerance, or the residual is rounding."""
        convergence, self.history, last_was_plain = self.convergence, self.history[-1:], False
        convergence.begin(tol)
        accelerator = ACCELERATORS[self.options.accelerate]
        while True:
            if self.whitened is not None:
                self.refresh_coordinates()
            point = self.here
            closing, candidates = convergence.closing(point.residual), []
            if closing and last_was_plain and self.near_enough():
                step, self.error = self.newton_step()
                if not np.isfinite(self.error) and convergence.symmetric and self.slide(step):
                    last_was_plain = False
                    continue
                if convergence.stalled or self.error <= tol:
                    return Status.CONVERGED if self.error <= tol else Status.CRITICAL
                convergence.postpone(point.residual, self.error)
                if self.options.accelerate != "plain" and np.isfinite(self.error):
                    candidates = self.extrapolated(point.vectors[0] + step)
            if not candidates and (last_was_plain or not closing):
                candidates = self.accelerated(accelerator)
            # Without a candidate the next step is a plain one. Near the end it measures the contraction factor.
            last_was_plain = self.advance(candidates)

    def near_enough(self) -> bool:
        """Whether the error estimate from the history is small enough for a Newton step, which measures the error."""
        convergence = self.convergence
        return convergence.stalled or convergence.estimate(self.here, self.history) <= convergence.close

    def newton_step(self) -> tuple[Array, float]:
        """The Newton step from the current point, and the estimated error."""
        evaluate, whitened = self.evaluate_vector, self.whitened is not None
        return self.convergence.newton_step(self.here, self.history, evaluate, whitened)

    def accelerated(self, accelerator: Accelerator) -> list[Point]:
        """Candidates from the proposal of an accelerator, see `extrapolated`; without one the history is cut."""
        proposal = accelerator(self.history, self.here.vectors[2])
        if proposal is None:
            return []
        candidates = self.extrapolated(proposal)
        if not candidates:
            self.history = self.history[-1:]
        return candidates

    def extrapolated(self, proposal: Array) -> list[Point]:
        """The proposal if F does not rise there, or the proposal and its plain image if F does not rise at the image.

        (A long step amplifies the rest of the fast modes; one plain step removes it.) If F rises at both, proposals
        nearer to the plain image of the current point follow, by factors of a quarter. If F rises at all of them, there
        are no candidates.
        """
        for fraction in _BACKTRACKS:
            candidate = self.evaluate_vector(self.backtracked(proposal, fraction))
            if not candidate.finite:
                continue
            if self.falls(candidate):
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
            self.history.append(Past(*passed.vectors[:2], plain=False))
        self.accept(candidates[-1] if candidates else self.evaluate(*self.here.plain_step), plain)
        return plain

    def slide(self, direction: Array) -> bool:
        """Leave a saddle along a direction of negative curvature, if F falls by more than rounding."""
        for vector in saddles.slides(self.here, direction):
            candidate = self.evaluate_vector(vector)
            if candidate.finite and self.here.free_energy - candidate.free_energy > self.slack():
                self.history, self.convergence.factor, self.slid = [], np.nan, True
                self.accept(candidate)
                return True
        return False

    # --- points -------------------------------------------------------------------------------------------------------

    @property
    def here(self) -> Point:
        """The current point."""
        assert self.point is not None  # `run` evaluates the start first
        return self.point

    def evaluate(self, psi: Array, log_masses: Array) -> Point:
        """One map of the fixed-point equations; raises `Stopped` if a budget is used up."""
        self.recorder.count()
        problem, objective, drawn = self.problem, self.problem.framed, self.whitened
        # 1. E-step (T1): the encoder, and the sums over all data points that the decoder needs.
        expectations = problem.expectations(psi, log_masses)
        # 2. M-step (T2): the decoder from these sums.
        updated = problem.updated_decoder(psi, expectations, None if drawn is None else drawn.inverse)
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
        self.point, self.error = point, np.inf
        self.history = [*self.history[1 - MAX_PAST :], Past(*point.vectors[:2], plain)]
        if self.recorder.reports:
            self.recorder.accepted(point, self.sites.index, lambda: self.convergence.estimate(point, self.history))

    def move_to(self, sites: Sites, strictly: bool = False) -> bool:
        """Move to other sites unless F rises there by more than rounding (`strictly`: unless it rises at all)."""
        before, self.whitened = self.whitened, None
        point = self.evaluate_sites(sites)
        rise = point.free_energy - self.here.free_energy
        if not rise <= (0.0 if strictly else self.slack()):
            self.whitened = before
            return False
        self.sites, self.history, self.convergence.factor = sites, [], np.nan
        self.accept(point)
        self.draw_coordinates()
        return True

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
        self.history, convergence.factor = [Past(*self.point.vectors[:2], plain=False)], np.nan
        slack = drawn.slack(point.expectations, point.updated_decoder)
        convergence.raise_floor(float(np.sqrt(to_host(point.expectations.mass) @ np.square(slack).sum(axis=1))))
