"""rate_distortion(): the rate-distortion function of a data set, between certified bounds (T14), (T22)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from .._utils import deadline, progress as progress_bars
from .._utils.arrays import FloatArray
from .._utils.checks import (
    asks_to_stop,
    check_callable,
    check_count,
    check_flag,
    check_number,
    check_time_limit,
    check_tolerance,
    check_vector,
)
from .._utils.interrupts import finished
from ..data import signature
from ..data.rows import RowBlocks
from ..objectives.elbo import ELBO
from ..phases.criticality import critical_beta
from ..phases.sweep import report_ending
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from ..solvers.pose import check_on_failure
from ..solvers.solve import report_failure
from .curve import RateDistortionCurve
from .data_passes import DataPasses
from .held_out import HeldOut
from .nucleation import nucleation
from .optimum import CertifiedFixedPoint, optimum
from .support_changes import SupportChange, located

_GRID_SIZE = 40  # number of temperatures of the default grid
_ENTROPY_SHARE = 0.95  # the default grid ends where the rate is this share of the entropy of the data
_GRID_END_GAP = 1e-2  # gap, in nats, of the solutions that find the end of the default grid
_POWERS = 1.0, 3.2  # of the share of the temperatures that is done, for the share of the time: 8 curves
_SUPPORT_GAP = 1e-10  # gap, in nats, of solutions whose supports are compared: a split shows at about its square root


def rate_distortion(
    x: npt.ArrayLike | RowBlocks,
    betas: npt.ArrayLike | None = None,
    objective: ELBO | None = None,
    *,
    sigma: float | None = None,
    gap: float = 1e-6,
    locate: float | None = None,
    held_out: npt.ArrayLike | None = None,
    confidence: float = 0.975,
    seed: int = 0,
    weights: npt.ArrayLike | None = None,
    max_maps: int = 100_000,
    time_limit: float | None = None,
    backend: str = "auto",
    progress: bool = False,
    callback: Callable[[CertifiedFixedPoint], Any] | None = None,
    on_failure: str = "warn",
) -> RateDistortionCurve:
    """The rate-distortion function of the data, each point within a certified gap of the global optimum.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    betas : (n,) array_like, optional
        Temperatures; by default 40, from `nucleation_beta`, where a second reconstruction appears, down to where the
        rate is 0.95 of the entropy of the data.
    objective : ELBO, optional
        With any likelihood; its beta is ignored.
    sigma : float, optional
        Standard deviation of the Gaussian decoder, in units of x; short for an ELBO with it. 1 by default.
    gap : float
        Requested gap at every temperature, in nats.
    locate : float, optional
        Relative accuracy in beta to which the changes of the support, `.events`, are located. Every change takes about
        15 more solutions. Two changes that cancel between neighbours of the grid are not found.
    held_out : (M, D) array_like, optional
        Other rows of the source of x, with a Gaussian objective. They give bounds of R(D) of the source, `.population`
        (T24): the codes are those of x. The held-out rows must be independent draws, of x and of each other.
    confidence : float
        Probability with which each of these bounds holds by itself.
    seed : int
        Seed of the division of the held-out rows: a fifth, by chance, chooses the functions of the lower bound, which
        the others then give.
    weights, max_maps, backend, on_failure
        As for `global_solution`; `max_maps` holds for each solution.
    time_limit : float, optional
        Budget of the whole curve in seconds, kept as in `solve`.
    progress : bool
        Show a progress bar, also while the default temperatures are sought.
    callback : callable, optional
        Called with every solution; a true return value stops the computation.

    Returns
    -------
    RateDistortionCurve
        The curve; after Ctrl-C, or when the time is up, the part that was solved. If the default temperatures are not
        known by then, it consists of the solutions of their search, whose gaps are up to 0.01 nats.

    Raises
    ------
    ValueError
        For bad input.
    NotConvergedError
        With ``on_failure="raise"``, if a gap is not met, or the callback or the time limit ends the computation.

    Warns
    -----
    NotConvergedWarning
        If a gap is not met, and if Ctrl-C, the callback or the time limit ends the computation.

    Examples
    --------
    >>> curve = rate_distortion([[-1.0], [1.0]], betas=[0.9, 0.5, 0.2])
    >>> curve.excess(rate=0.7, distortion=0.083186).least > 0.1  # R(D) = log 2 - h((1 + sqrt(1 - D)) / 2) = 0.5903
    True
    """
    check_on_failure(on_failure)
    check_callable(callback, "callback")
    progress = check_flag(progress, "progress")
    locate = None if locate is None else check_tolerance(locate, "locate")
    gap, time_limit = (
        check_number(gap, "gap", "positive, and at most 1 nat", lambda nats: 0 < nats <= 1),
        check_time_limit(time_limit),
    )
    max_maps = check_count(max_maps, "max_maps")
    problem = Problem.make(x, objective, weights, backend, beta=1.0, sigma=sigma, kind=ELBO)
    at = problem.objective.at
    grid = None if betas is None else np.unique(check_vector(betas, "betas"))[::-1]
    solutions: list[CertifiedFixedPoint] = []
    unseen = None if held_out is None else HeldOut.of(problem, held_out, confidence, seed)
    events: list[SupportChange] = []
    fine, complete, ended = min(gap, _SUPPORT_GAP), False, ""

    def solved(beta: float, gap: float, start: FixedPoint | None, prove: bool = True) -> CertifiedFixedPoint:
        solution = optimum(problem.at(at(beta)), gap, max_maps, start, prove=prove)
        if solution.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return solution

    def compared(beta: float, start: FixedPoint) -> CertifiedFixedPoint:
        """A solution whose support is compared; raises `TimeUp` instead of returning an unfinished one."""
        deadline.check()
        solution = solved(beta, fine, start, prove=False)
        deadline.check()
        return solution

    def default_grid() -> FloatArray:
        """Down to a rate of nearly the entropy; the solutions on the way are those of a curve that ends here."""
        with deadline.finishing():
            top, enough = critical_beta(problem), _ENTROPY_SHARE * _ends(DataPasses(problem))[1, 1]
        bottom = top
        with tqdm(disable=not progress, bar_format="{desc} [{elapsed}{postfix}]", desc="first temperature") as bar:
            try:
                top, _ = nucleation(problem, top)
            except KeyboardInterrupt:  # what there is: no code, at the first critical temperature
                with deadline.within(0.0):
                    solutions.append(solved(top, _GRID_END_GAP, None, prove=False))
                raise
            bottom = top
            bar.set_description_str("last temperature")
            while not solutions or solutions[-1].rate < enough:
                if solutions:
                    deadline.check()
                bottom /= 2
                solutions.append(solved(bottom, _GRID_END_GAP, solutions[-1] if solutions else None, prove=False))
                bar.set_postfix_str(f"beta={bottom:.4g}, {solutions[-1].rate / enough:.0%} of the rate")
        deadline.check()
        solutions.clear()
        return np.geomspace(top, bottom, _GRID_SIZE)

    try:
        with deadline.within(time_limit), ExitStack() as bars:
            grid = default_grid() if grid is None else grid
            bar = bars.enter_context(tqdm(grid, disable=not progress, desc="rate-distortion", unit="beta"))
            began = time.monotonic()
            for number, beta in enumerate(bar, start=1):
                share = (number - 1) / len(grid)
                left = progress_bars.left_of_share(time.monotonic() - began, share, _POWERS)
                bar.set_postfix_str(f"beta={beta:.4g}{left}")
                start = solutions[-1] if solutions else None
                if start is not None:
                    deadline.check()
                solutions.append(solved(float(beta), gap if locate is None else fine, start))
                report_failure(solutions[-1], on_failure, stacklevel=3)
                if unseen is not None:
                    unseen.add(solutions[-1])
                if start is not None:
                    events += located(start, solutions[-1], compared, locate or np.inf)
                if asks_to_stop(callback, solutions[-1]):
                    progress_bars.done(bar)
                    ended = "stopped by the callback" * (number < len(grid))
                    break
            if not ended:
                complete = solutions[-1].converged or not deadline.passed()
    except deadline.TimeUp:
        ended = f"time_limit={time_limit:g}"
    except KeyboardInterrupt:
        if not solutions or on_failure == "raise":
            raise
        ended = "interrupted"
    if ended:
        report_ending(f"{ended}: the curve ends at beta={solutions[-1].beta:.6g}", solutions[-1], on_failure)
    curve, pressed = finished(lambda: _curve(problem, solutions, events, unseen, complete))
    if pressed and on_failure == "raise":
        raise KeyboardInterrupt
    return replace(curve, complete=complete and not pressed)


def _curve(
    problem: Problem,
    solutions: Sequence[CertifiedFixedPoint],
    events: Sequence[SupportChange],
    unseen: HeldOut | None,
    complete: bool,
) -> RateDistortionCurve:
    """The curve through certified solutions."""
    lam = np.array([cast(ELBO, s.objective).multiplier for s in solutions])
    data = DataPasses(problem)
    return RateDistortionCurve(
        betas=np.array([s.beta for s in solutions]),
        multipliers=lam,
        distortion=np.array([s.energy for s in solutions]) / lam,
        rate=np.array([s.rate for s in solutions]),
        lower=np.array([s.certificate.lower for s in solutions]),
        rigorous=np.array([s.certificate.rigorous for s in solutions]),
        rounding=np.array([s.certificate.rounding for s in solutions]),
        n_sites=np.array([len(s.decoder) for s in solutions], dtype=np.intp),
        ends=_ends(data),
        likelihood=cast(ELBO, problem.objective).likelihood,
        signature=signature.of(data.x, data.rho, problem.data.frame.scale),
        events=tuple(events),
        population=None if unseen is None else unseen.bounds,
        complete=complete,
    )


def _ends(data: DataPasses) -> FloatArray:
    """Distortion and rate without any code, and of the code that identifies every distinct point."""
    lam = cast(ELBO, data.problem.objective).multiplier
    none = data.rho @ data.energies(data.problem.data.mean[None])[:, 0]
    every = float(data.rho @ data.least_energies)
    _, index = np.unique(data.x, axis=0, return_inverse=True)
    p = np.bincount(index.ravel(), data.rho)
    entropy = max(float(-p @ np.log(p)), 0.0)
    return np.array([[float(none) / lam, 0.0], [max(every / lam, 0.0), entropy]])
