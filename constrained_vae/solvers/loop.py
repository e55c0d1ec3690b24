"""The solver loop: maps, acceleration with a guard of the free energy, convergence, ties and splits of sites.

repeat  a point, then the proposal of the accelerator if F does not rise there, else the plain map, which descends (T6);
        or, where all these crawl along a nearly flat direction, Newton's method, see `soft_modes`;
until   the estimated distance to the fixed point is within the tolerance (T10), see `convergence`;
then    give mass to light tiles that ought to grow (T14), see `masses`;
        tie coincident tiles; kick a site past its split condition (T9) along its unstable axis, see `splits`; repeat.

Points and vectors are where the backend computes, and only a few numbers per map are copied to the host. Sites are on
the host, and are updated when an iteration has converged.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
from tqdm.auto import tqdm

from .._utils import deadline
from .._utils.arrays import Array
from .._utils.blas import single_threaded
from .._utils.device import to_host
from .._utils.interrupts import finished
from .._utils.lost import LostError
from .._utils.messages import logger
from ..equations import Expectations
from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from . import generations, masses, quick_steps, saddles, soft_modes, splits
from .acceleration import ACCELERATORS
from .iteration import Iteration, SoftModes
from .options import Options
from .package import package
from .recorder import Recorder, Stopped
from .split_condition import SplitCondition, is_small

_NEW_APPROACH = 1e-6  # excess over the split condition above which a kick leads away from modes known to be soft


def fixed_point_map(
    problem: Problem, psi: Array, log_masses: Array, inverse: Array | None
) -> tuple[Expectations, Array]:
    """One map of the fixed-point equations; `inverse` are the inverse roots of the curvatures if they are known."""
    # 1. E-step (T1): the encoder at these reconstructions, and the sums over all data points that the decoder needs.
    expectations = problem.expectations(psi, log_masses)
    # 2. M-step (T2): the decoder from these sums.
    return expectations, problem.updated_decoder(psi, expectations, inverse)


def iterate(
    problem: Problem, tiling: Tiling, sites: Sites, options: Options, predicted: Sites | None = None
) -> tuple[FixedPoint, Sites, SplitCondition | None]:
    """Run the loop from given sites (in the frame), or from predicted sites if F does not rise there.

    Returns the result, its sites, from which a sweep continues, and their split condition if it was computed.
    """
    bar = tqdm(unit=" maps", desc=f"beta={problem.objective.beta:.4g}") if options.progress else nullcontext()
    with bar:
        it = Iteration(problem, options, sites, Recorder(options, problem.data.frame, bar), fixed_point_map)
        with np.errstate(over="ignore", invalid="ignore"):  # a proposal may overflow, and is then rejected
            # Maps are many and often short: the threads of BLAS are limited once for all of them.
            status = single_threaded(run, it, predicted) if is_small(problem) else run(it, predicted)
    if it.point is None and status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    if it.point is None:
        raise ValueError(
            f"the free energy of the start is not finite: check the scale of {problem.objective} and of the data"
        )
    return ended(it, problem, tiling, status)


def ended(
    it: Iteration, problem: Problem, tiling: Tiling, status: Status
) -> tuple[FixedPoint, Sites, SplitCondition | None]:
    """The result of an iteration; Ctrl-C leaves it as it is, with the status of an interruption."""

    def result() -> tuple[FixedPoint, Sites]:
        assert it.point is not None
        sites, error = it.current_sites(), max(it.error, it.convergence.rounding)
        return package(problem, tiling, sites, it.point, it.recorder, error, it.condition, status), sites

    with deadline.finishing():
        # A state on the way to another one is not worth the protection.
        (solution, sites), pressed = (result(), False) if it.options.rough else finished(result)
    if pressed:
        solution = replace(solution, status=Status.INTERRUPTED)
    return solution, sites, it.condition


def run(it: Iteration, predicted: Sites | None) -> Status:
    """The outer loop: converge, settle the masses, tie coincident sites, and leave a saddle or end."""
    tol, saddle_left = it.convergence.tol, False
    loose_tol = tol if it.options.rough else it.convergence.loose_tol
    try:
        with deadline.finishing():  # a result needs one map
            it.accept(it.evaluate_sites(it.sites))
        deadline.check()
        it.draw_coordinates()
        if predicted is not None:
            it.move_to(predicted, strictly=True)
        if it.options.generations and generations.possible(it):
            single_threaded(generations.grow, it)
        while True:
            status = single_threaded(converge, it, tol) if it.bregman else converge(it, tol)
            if masses.revive(it) or splits.tie(it):
                continue
            if (it.options.generations and generations.possible(it) and generations.divide(it)) or splits.kick(it):
                if it.condition is not None and splits.excess(it.condition) > _NEW_APPROACH:
                    it.soft = SoftModes()
                saddle_left, tol = True, loose_tol  # the next end point may be a saddle, too
            elif tol > it.convergence.tol:
                tol = it.convergence.tol
            else:
                if not it.options.rough:
                    splits.complete(it)
                break
    except Stopped as stop:
        return stop.status
    except deadline.TimeUp:
        return Status.BUDGET_USED
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    except LostError as lost:
        if it.point is None:
            raise
        logger.warning("%s", lost)
        return Status.LOST
    finally:
        if it.point is not None and not np.isfinite(it.error):
            it.error = it.convergence.estimate(it.point, it.history)
    with deadline.finishing():
        return final_status(it, status, saddle_left)


def final_status(it: Iteration, status: Status, saddle_left: bool) -> Status:
    """The status of a point at which the loop has ended by itself."""
    if status is Status.CONVERGED and (it.error > it.convergence.tol or masses.rising(it)):
        return Status.CRITICAL
    if status is Status.CONVERGED and (to_host(it.here.expectations.mass) <= 0).any():
        return Status.DEAD_TILES
    return Status.SADDLE_LEFT if status is Status.CONVERGED and (saddle_left or it.slid) else status


def converge(it: Iteration, tol: float) -> Status:
    """Iterate until the estimated error is below the tolerance, or the residual is rounding."""
    convergence, it.history, last_was_plain = it.convergence, it.history[-1:], False
    convergence.begin(tol)
    soft_modes.wait(it)
    accelerator = ACCELERATORS[it.options.accelerate]
    while True:
        if it.whitened is not None:
            it.refresh_coordinates()
        if soft_modes.due(it, tol) and (status := soft_modes.approach(it, tol)) is not None:
            return status
        point = it.here
        if it.options.rough and point.residual <= tol:
            it.error = point.residual
            return Status.CONVERGED
        closing, candidates = convergence.closing(point.residual), []
        if closing and last_was_plain and it.near_enough():
            step, it.error = it.newton_step()
            if not np.isfinite(it.error) and convergence.symmetric and saddles.slide(it, step):
                last_was_plain = False
                continue
            if convergence.stalled or (it.error <= tol and not masses.growing(it)):
                return Status.CONVERGED if it.error <= tol else Status.CRITICAL
            convergence.postpone(point.residual, it.error)
            if it.options.accelerate != "plain" and np.isfinite(it.error):
                candidates = it.extrapolated(point.vectors[0] + step)
        if not candidates and (last_was_plain or not closing):
            moved, rejected = (0, None) if closing else quick_steps.take(it, tol)
            last_was_plain = last_was_plain and not moved
            if moved and rejected is None:
                continue
            candidates = it.accelerated(accelerator, rejected)
        # Without a candidate the next step is a plain one. Near the end it measures the contraction factor.
        last_was_plain = it.advance(candidates)
