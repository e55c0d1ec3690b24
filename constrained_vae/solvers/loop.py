"""The one loop. It evaluates the map, asks an accelerator, guards the free energy, and knows when to stop.

repeat  point -> proposal of the accelerator, kept where F does not rise; else the plain map, which descends (T6);
until   the Newton step (I - J)^-1 (T(psi) - psi), the distance to the fixed point, is within the tolerance (T10);
then    tie coincident tiles; kick a site past its split condition (T9) along its unstable axis, and on it goes.

Points and vectors stay where the backend computes; what comes to the host is a handful of numbers per map. Sites live
on the host: they are looked at when something has converged.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .._utils.arrays import Array, FloatArray
from .._utils.device import numbers, to_host
from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint, same_distance
from ..results.status import Status
from .acceleration import ACCELERATORS, MEMORY, Past, contraction_factor, newton_step
from .coordinates import LARGEST, Whitened
from .options import Iterate, Options
from .point import Chart, Point, log
from .split_condition import SplitCondition, split_condition

_DEAD = 1e-14  # free masses: a site below this marginal mass that still loses mass is given up
_LOOSE = 1e-6  # tolerance, in units of the data's radius, at which a kicked point is tested for its stability
_BACKTRACKS = (1.0, 0.25, 0.0625)  # fractions of a proposal that are tried before the plain step
_REDRAW = 0.03  # a chart is drawn anew where the residual has fallen by this factor
_PATIENCE = 500  # maps without a new least residual, near the end, that say the arithmetic yields no more


class _Stopped(Exception):
    def __init__(self, status: Status) -> None:
        self.status = status


def iterate(
    problem: Problem,
    tiling: Tiling,
    sites: Sites,
    options: Options,
    predicted: Sites | None = None,
) -> tuple[FixedPoint, Sites, SplitCondition | None]:
    """Run the loop from given sites (in the frame), or from predicted ones where F is lower there.

    Returns the result with its sites, from which a sweep goes on, and their split condition, where it was reached.
    """
    run = _Run(problem, options, sites, predicted)
    with tqdm(total=None, disable=not options.progress, unit=" maps", desc=f"beta={problem.objective.beta:.4g}") as bar:
        run.bar = bar
        status = run.to_the_end()
    return run.package(tiling, status), run.current_sites(), run.condition


@dataclass(eq=False)
class _Run:
    """State of one run of the loop."""

    problem: Problem
    options: Options
    sites: Sites
    predicted: Sites | None = None
    condition: SplitCondition | None = None
    point: Point | None = None
    error: float = np.inf  # in the frame
    n_maps: int = 0
    top_eigenvalue: float = np.nan
    saddle_left: bool = False
    kicked: tuple[int, float] | None = None  # number of sites and F from which the last kick went
    history: list[Past] = field(default_factory=list)
    chart: Whitened | None = None
    drawn_at: float = np.inf  # residual where the chart was drawn
    factor: float = np.nan  # contraction factor as last measured
    trajectory: list[FloatArray] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    bar: Any = None

    def __post_init__(self) -> None:
        objective, self.eps = self.problem.framed, float(np.finfo(self.problem.data.dtype).eps)
        self.tol = max(self.options.tol, 100 * self.eps) * self.problem.data.radius
        # There J is symmetric in a metric that is known beforehand; for other energies charts are drawn on the way.
        self.bregman = objective.curvature(self.sites.decoder[:1]) is not None
        self.symmetric = self.bregman or self.sites.decoder.shape[1] <= LARGEST
        # Rounding of T: eps of the radius, and eps times the energies lambda radius^2 over a width 1/sqrt(lambda).
        energy = objective.quadratic if self.bregman else objective.offset(self.problem.data.mean_statistic)
        steepness = np.sqrt(energy or 0.0) * self.problem.data.radius
        self.floor = self.least_floor = 8 * self.eps * (1 + steepness) * self.problem.data.radius
        self.noise = 16 * self.eps * (1 + steepness**2)  # of the free energy, relative to 1 + |F|

    # --- the outer loop: converge, tie, test, kick ---------------------------------------------------------------

    def to_the_end(self) -> Status:
        tol = self.tol
        try:
            while True:
                status = self.converge(tol)
                if self.tie():
                    status = self.converge(tol)
                if self.leave_saddle():  # the next end point may be a saddle too: no need to know it to the last digit
                    self.saddle_left, tol = True, max(self.tol, _LOOSE * self.problem.data.radius)
                elif tol > self.tol:
                    tol = self.tol
                else:
                    break
        except _Stopped as stop:
            return stop.status
        except KeyboardInterrupt:
            return Status.INTERRUPTED
        finally:
            if self.point is not None and not np.isfinite(self.error):
                self.error = self.estimate()
        if status is Status.CONVERGED and self.error > self.tol:
            return Status.CRITICAL
        if status is Status.CONVERGED and (to_host(self.here.expectations.mass) <= 0).any():
            return Status.DEAD_TILES
        return Status.SADDLE_LEFT if status is Status.CONVERGED and self.saddle_left else status

    @property
    def here(self) -> Point:
        assert self.point is not None  # `converge` evaluates the start first
        return self.point

    def tie(self) -> bool:
        """Tie sites that coincide, where F does not rise for it; say whether anything changed."""
        tolerance = same_distance(self.problem.data.radius, self.problem.framed.stiffness, self.error)
        sites = self.current_sites()
        if self.options.free:  # a site that has lost its mass, and is losing more, gives its tiles to the largest
            mass, log_step = to_host(self.here.expectations.mass), to_host(self.here.log_step)
            sites = sites.without((mass < _DEAD) & (log_step < 0))
        merged = sites.merged(tolerance)
        if len(merged) == len(self.sites):
            return False
        return self.move_to(merged)

    def leave_saddle(self) -> bool:
        """Test the split condition (T9); past it, kick the site along its unstable axis (T13). Says whether it did."""
        point, sites = self.here, self.current_sites()
        may_split = sites.can_split(self.options.free)
        condition = split_condition(self.problem, sites.decoder, to_host(point.log_masses), may_split)
        self.condition, self.top_eigenvalue = condition, condition.top
        if not self.options.split:
            return False
        excess = 1 - 1 / condition.eigenvalue if condition.eigenvalue > 1 else 0.0
        objective = self.problem.framed
        coordinates = replace(sites, decoder=objective.coordinates(sites.decoder))
        # Near a continuous split the halves move apart by sqrt(3 excess / (kurtosis + 3)) standard deviations (T13):
        # sqrt(excess) for Gaussian, sqrt(3 excess) for two-point data. Start short of both.
        deviation = condition.deviation
        length = 0.5 * np.sqrt(excess)
        before = len(sites), point.free_energy
        # Where the gain is below rounding, as in float32 near a transition, parts may come together again, for ever.
        undone = self.kicked is not None and before[0] <= self.kicked[0] and before[1] > self.kicked[1] - self.slack()
        while length > 1e-7 and not undone:
            kicked = coordinates.split(condition.site, length * deviation, self.options.free)
            if self.move_to(replace(kicked, decoder=objective.reconstructions(kicked.decoder)), strictly=True):
                self.kicked = before
                return True
            length /= 4
        if excess > 0:  # a saddle that no kick leaves, for F is flat to rounding: the halves belong this far apart
            spread = np.sqrt(3 * excess * to_host(point.expectations.mass)[condition.site])
            self.error = max(self.error, float(spread * np.linalg.norm(condition.direction)))
        return False

    def current_sites(self) -> Sites:
        point = self.here
        sites = Sites(to_host(point.psi), self.sites.index, self.sites.tile_masses, to_host(point.expectations.mass))
        return sites.with_masses(np.exp(to_host(point.log_masses))) if self.options.free else sites

    def move_to(self, sites: Sites, strictly: bool = False) -> bool:
        """Go over to other sites unless F rises there by more than rounding (`strictly`: unless it rises at all)."""
        point = self.evaluate_sites(sites)
        rise = point.free_energy - self.here.free_energy
        if not rise <= (0.0 if strictly else self.slack()):
            return False
        self.sites, self.history, self.factor = sites, [], np.nan
        self.accept(point)
        self.draw_chart()
        return True

    def draw_chart(self) -> None:
        """Coordinates about here in which J is symmetric, unless those of the objective are such."""
        if self.bregman or not self.symmetric:
            return
        point = self.here
        chart = Whitened.at(self.problem, point.psi, point.expectations, point.image)
        self.chart, self.drawn_at, self.point = chart, point.residual, replace(point, chart=chart)
        self.history, self.factor = [Past(*self.point.vector, plain=False)], np.nan
        # Features may be rounded far more coarsely than a weighted mean is.
        mass = to_host(point.expectations.mass)
        left = np.sqrt(mass @ np.square(chart.slack(point.expectations, point.image)).sum(axis=1))
        self.floor = max(self.least_floor, 2 * float(left))

    # --- the inner loop -----------------------------------------------------------------------------------------

    def converge(self, tol: float) -> Status:
        """Iterate until the estimated error is below the tolerance, or the arithmetic yields no more."""
        if self.point is None:
            self.accept(self.evaluate_sites(self.sites))
            self.draw_chart()
            if self.predicted is not None:
                self.move_to(self.predicted, strictly=True)
        self.history = self.history[-1:]
        propose = ACCELERATORS[self.options.accelerate]
        plain, near, lowest, since = False, tol, np.inf, 0
        while True:
            chart, residual = self.chart, self.here.residual
            if chart and (self.floor < residual < _REDRAW * self.drawn_at or not chart.fits(self.here.image)):
                self.draw_chart()
            point = self.here
            lowest, since = (point.residual, 0) if point.residual < lowest else (lowest, since + 1)
            stalled = point.residual <= self.floor or (since > _PATIENCE and point.residual <= 1e3 * self.floor)
            near = tol if point.residual > tol else near

            found: list[Point] = []
            proposal = None
            if plain or not (stalled or point.residual <= near):
                if stalled or (point.residual <= near and self.estimate() <= near):
                    step, self.error = self.newton_step(stalled)
                    if not np.isfinite(self.error) and self.symmetric and self.slide(step):
                        plain = False
                        continue
                    if stalled or self.error <= tol:
                        return Status.CONVERGED if self.error <= tol else Status.CRITICAL
                    near = point.residual * min(max(tol / self.error, 0.01), 0.5)
                    if self.options.accelerate != "plain" and np.isfinite(self.error):
                        found = self.extrapolated(point.vector[0] + step)
                proposal = None if found else propose(self.history, point.metric)
            # else: close to the end a plain step comes first, for it measures the contraction factor
            if proposal is not None:
                found = self.extrapolated(proposal)
                if not found:
                    self.history = self.history[-1:]
            plain = len(found) != 1
            for passed in found[:-1]:  # on the way to a plain image stands the extrapolated point itself
                self.history.append(Past(*passed.vector, plain=False))
            self.accept(found[-1] if found else self.evaluate(*point.following, self.chart), plain)

    def slide(self, direction: Array) -> bool:
        """Leave a saddle of the sites along a direction of negative curvature, where F falls by more than rounding."""
        (u, _), metric = self.here.vector, self.here.metric
        size = np.sqrt(numbers(metric @ direction**2)[0])
        if not (np.isfinite(size) and size > 0):
            return False
        # Of unit length in the metric it would cost or gain about one nat.
        for length in (0.3, -0.3, 0.03, -0.03, 0.003, -0.003):
            candidate = self.evaluate_vector(u + length / size * direction)
            if candidate is None:
                continue
            fall = self.here.free_energy - candidate.free_energy
            if fall > self.slack():
                self.history, self.factor, self.saddle_left = [], np.nan, True
                self.accept(candidate)
                return True
        return False

    def estimate(self) -> float:
        """Estimated error as the past alone has it, residual / (1 - contraction factor) (T10)."""
        residual = self.here.residual
        if residual > 10 * self.floor or np.isnan(self.factor):  # below, ratios of residuals are rounding
            self.factor = contraction_factor(self.history, self.here.metric, self.symmetric)
        return max(residual, self.floor) / (1 - self.factor) if self.factor < 1 else np.inf

    def newton_step(self, stalled: bool) -> tuple[Array, float]:
        """Newton step from here, and its length with what is missing from it: the estimated error (T10).

        The products with I - J are differences of the map over a step short against all curvature, and long against
        rounding. A stalled residual is rounding: there some step of this size stands for it. Without a metric in which
        J is symmetric the contraction factor alone has to do.
        """
        point = self.here
        (u, r), metric = point.vector, point.metric
        if not self.symmetric:
            return r, self.estimate()
        if len(point.psi) == 1 and not self.options.free:
            return r, point.residual  # one site: the map is constant
        size = max(point.residual, self.floor) if stalled else point.residual
        rhs = self.problem.data.to_device(np.random.default_rng(0).standard_normal(len(r))) if stalled else r
        norm, length = np.sqrt(numbers(metric @ rhs**2, metric @ u**2 / metric.sum()))
        if norm == 0:  # what still moves are settled coordinates, whose next image is exact
            return r, size
        unit = np.sqrt(point.objective.stiffness / point.chart.stiffness)  # of the chart, in units of the frame
        length = np.sqrt(self.eps) * (length + self.problem.data.radius * unit)

        def product(p: Array) -> Array:
            h = length * np.sqrt(metric.sum() / (metric @ p**2))
            u1, r1 = self.evaluate(*point.parts(u + h * p), self.chart).vector
            return p - ((u1 + r1) - (u + r)) / h

        step, missing = newton_step(product, rhs, metric)
        error = size * float((np.sqrt(numbers(metric @ step**2)[0]) + missing) / norm)
        return step, max(error, point.size(step)) if self.chart and not stalled else error

    def extrapolated(self, proposal: Array) -> list[Point]:
        """The proposal where F does not rise there, or the proposal and its plain image where it does not rise at that.

        (A long step magnifies what is left of the fast modes; one plain step removes it.) Failing both, a point a
        quarter as far beyond the plain image; none if F rises at all of them.
        """
        u, r = self.here.vector
        image = u + r
        for fraction in _BACKTRACKS:
            candidate = self.evaluate_vector(image + fraction * (proposal - image))
            if candidate is None:
                continue
            if self.falls(candidate):
                return [candidate]
            settled = self.evaluate(*candidate.following, self.chart)
            if self.falls(settled):
                return [candidate, settled]
        return []

    def falls(self, candidate: Point) -> bool:
        """Whether F does not rise from here to the candidate.

        A difference below the rounding of F is taken from its gradient, -r in the metric (T6), by the trapezoidal rule;
        where that is no metric of the map, the residual decides.
        """
        point = self.here
        rise = candidate.free_energy - point.free_energy
        if abs(rise) <= self.slack():
            if not self.symmetric:
                return candidate.residual <= point.residual
            (u, r), (u1, r1) = point.vector, candidate.vector
            rise = -numbers((point.metric * r + candidate.metric * r1) @ (u1 - u))[0] / 2
        return rise <= 0

    def slack(self) -> float:
        return self.noise * (1 + abs(self.here.free_energy))

    def evaluate_vector(self, u: Array) -> Point | None:
        """Evaluate a proposal; None where nothing finite comes back."""
        with np.errstate(over="ignore", invalid="ignore"):
            point = self.evaluate(*self.here.parts(u), self.chart)
            return point if point.finite else None

    def evaluate_sites(self, sites: Sites) -> Point:
        return self.evaluate(self.problem.data.to_device(sites.decoder), self.problem.data.to_device(log(sites.masses)))

    def evaluate(self, psi: Array, log_masses: Array, chart: Chart | None = None) -> Point:
        """One map; raises when a budget is used up."""
        options = self.options
        late = options.time_limit is not None and time.monotonic() - self.started >= options.time_limit
        if self.n_maps > 0 and (late or self.n_maps >= options.max_maps):
            raise _Stopped(Status.BUDGET_USED)
        point = Point.evaluate(self.problem, psi, log_masses, options.free, chart)
        self.n_maps += 1
        if self.bar is not None:
            self.bar.update()
        return point

    def accept(self, point: Point, plain: bool = False) -> None:
        """Go on from a point; raises where it is not finite."""
        if not point.finite:
            raise _Stopped(Status.NOT_FINITE)
        self.point, self.error = point, np.inf
        self.history = [*self.history[1 - MEMORY :], Past(*point.vector, plain)]
        frame, options = self.problem.data.frame, self.options
        if self.bar is not None and options.progress:
            self.bar.set_postfix_str(f"residual {point.residual * frame.scale:.1e}", refresh=False)
        if not (options.record or options.callback):
            return
        decoder = frame.outward(to_host(point.psi))[self.sites.index]
        if options.record:
            self.trajectory.append(decoder)
        if options.callback:
            residual, error = point.residual * frame.scale, self.estimate() * frame.scale
            if options.callback(Iterate(self.n_maps, point.free_energy, residual, error, decoder)):
                raise _Stopped(Status.STOPPED)

    def package(self, tiling: Tiling, status: Status) -> FixedPoint:
        """The result in units of the data, one reconstruction per tile."""
        if self.point is None:
            if status is Status.INTERRUPTED:
                raise KeyboardInterrupt
            raise ValueError(
                f"the free energy of the start is not finite: check the scale of {self.problem.objective} and of the data"
            )
        point, rows = self.point, self.problem.data.rows
        sites = self.current_sites()
        masses = sites.masses[sites.index]
        part = np.divide(sites.tile_masses, masses, out=np.zeros_like(masses), where=masses > 0)
        return FixedPoint(
            x=rows.source,
            weights=rows.weights,
            objective=self.problem.objective,
            tiling=Tiling(sites.tile_masses, tiling.positions) if self.options.free else tiling,
            decoder=rows.frame.outward(sites.decoder)[sites.index],
            marginal=to_host(point.expectations.mass)[sites.index] * part,
            free_energy=point.free_energy,
            energy=float(point.expectations.energy),
            distortion=self.problem.distortion(point.psi, point.log_masses, point.expectations),
            residual=point.residual * rows.frame.scale,
            error_estimate=self.error * rows.frame.scale,
            top_eigenvalue=self.top_eigenvalue,
            n_maps=self.n_maps,
            status=status,
            masses_free=self.options.free,
            frame=rows.frame,
            expected=self.problem.constraint_values(point.psi, point.expectations),
            trajectory=np.stack(self.trajectory) if self.options.record else None,
        )
