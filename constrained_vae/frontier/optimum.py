"""global_solution(): the optimum over all decoders and all prior masses, to a certified gap (T14)-(T17).

The least F over all decoders and all prior masses at given multipliers is a point of the rate-distortion function, and
the non-parametric maximum likelihood of a mixture (Kiefer and Wolfowitz 1956; Rose 1994). F is convex in the
distribution of reconstructions, so that its minimum has a certificate.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from .._utils import deadline, memory
from .._utils.arrays import FloatArray
from .._utils.checks import check_count, check_flag, check_instance, check_number, check_time_limit
from ..data.rows import RowBlocks
from ..latent.sites import Sites, coincident
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from ..solvers.loop import iterate
from ..solvers.options import Options
from ..solvers.pose import check_on_failure
from ..solvers.solve import report_failure
from .certificate import Certificate
from .coarse import SIDES, coarse
from .coverage import Coverage
from .data_passes import DataPasses
from .hierarchy import means_of_groups
from .masses import best_masses
from .span import Span, span_of

_STEEPEST = 1e100  # lambda times the squared radius of the data
_POLISH_MAPS = 60  # maps between two insertions
_ROUGH_MAPS, _ROUGH_GAP = 12, 0.1  # the same while reconstructions are missing by so many nats
_MAX_IDLE_ROUNDS = 30  # rounds without a smaller gap after which the search ends
_ENDINGS = {
    Status.CONVERGED: "converged: the gap is met",
    Status.BUDGET_USED: "stopped before the gap was met: raise time_limit or max_maps, or accept the gap",
}
_MERGE_DISTANCE = 0.03  # distance, in units of the resolution, below which reconstructions may be merged


@dataclass(frozen=True, eq=False, repr=False)
class CertifiedFixedPoint(FixedPoint):
    """A `FixedPoint` with free masses and a certificate of its distance to the global optimum.

    Attributes
    ----------
    certificate : Certificate
        Bounds of the global optimum (T14).

    Examples
    --------
    >>> global_solution([[-1.0], [1.0]], beta=2.0)  # collapsed: above the transition at 1
    CertifiedFixedPoint(beta=2, 1 distinct of 1 tiles, ...)
    """

    certificate: Certificate = field(kw_only=True)

    @property
    def accuracy(self) -> str:
        """The gap, formatted for `repr` and warnings."""
        return f"gap {self.certificate.gap:.1e} nats{'' if self.certificate.rigorous else ' (heuristic)'}"

    @property
    def ending(self) -> str:
        """How the search for the solution ended, and what to try if it failed, as text."""
        return _ENDINGS.get(self.status, self.status.value)

    def __repr__(self) -> str:
        return f"Certified{super().__repr__()}"


def global_solution(
    x: npt.ArrayLike | RowBlocks,
    objective: Objective | None = None,
    *,
    beta: float | None = None,
    sigma: float | None = None,
    gap: float = 1e-6,
    weights: npt.ArrayLike | None = None,
    start: FixedPoint | None = None,
    max_maps: int = 100_000,
    time_limit: float | None = 60.0,
    backend: str = "auto",
    progress: bool = False,
    on_failure: str = "warn",
) -> CertifiedFixedPoint:
    """The global optimum over all decoders and prior masses, to a certified gap: a point of the rate-distortion curve.

    Every round adds reconstructions where c is largest (T14), finds their masses by the constrained Newton method
    (Y. Wang 2007, J. R. Stat. Soc. B 69), and improves positions and masses together by the accelerated map. The search
    ends when the gap is met.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data. The statistics of all points are held in memory.
    objective : Objective, optional
        `ELBO()` by default.
    beta : float, optional
        Temperature; short for `objective.at(beta)`.
    sigma : float, optional
        Standard deviation of the Gaussian decoder, in units of x; short for an ELBO with it. 1 by default.
    gap : float
        Requested difference between F and its lower bound, in nats.
    weights : (N,) array_like, optional
        Data weights, uniform by default. Points of weight zero are ignored.
    start : FixedPoint, optional
        Initial solution, such as the optimum at a temperature nearby; by default one reconstruction of all data.
    max_maps : int
        Budget of evaluations of the map, between insertions and at the end together.
    time_limit : float, optional
        Budget in seconds, proofs included, kept as in `solve`; None for no limit. The best solution so far is then
        returned, with its gap, for which maxima of c may have been sought from some of the data only.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.
    progress : bool
        Show a progress bar.
    on_failure : {"warn", "raise", "return"}
        What to do if the gap is not met.

    Returns
    -------
    CertifiedFixedPoint
        Solution with as many tiles as it needs, and its `.certificate`.

    Raises
    ------
    ValueError
        For bad input.
    NotConvergedError
        If the gap is not met, with ``on_failure="raise"``.

    Examples
    --------
    >>> s = global_solution([[-1.0], [1.0]], beta=0.5)
    >>> len(s.distinct), round(s.free_energy, 6), s.certificate.gap < 1e-6
    (2, 0.673476, True)
    """
    gap, progress = (
        check_number(gap, "gap", "positive, and at most 1 nat", lambda nats: 0 < nats <= 1),
        check_flag(progress, "progress"),
    )
    check_on_failure(on_failure)
    max_maps, time_limit = check_count(max_maps, "max_maps"), check_time_limit(time_limit)
    problem = Problem.make(x, objective, weights, backend, beta=beta, sigma=sigma)
    if start is not None:
        check_instance(start, "start", FixedPoint, "global_solution(x)")
        if start.decoder.shape[1] != problem.data.rows.dim:
            raise ValueError(f"start must have reconstructions of {problem.data.rows.dim} dimensions like x")
    bar = tqdm(disable=not progress, desc=f"beta={problem.objective.beta:.4g}", unit=" rounds")
    with deadline.within(time_limit), bar:
        solution = optimum(problem, gap, max_maps, start, bar)
    report_failure(solution, on_failure, stacklevel=3)
    return solution


def optimum(
    problem: Problem,
    gap: float,
    max_maps: int,
    start: FixedPoint | None = None,
    bar: Any = None,
    prove: bool = True,
) -> CertifiedFixedPoint:
    """The result of `global_solution` for a problem; if `prove` is false, without branch and bound."""
    steep = problem.framed.quadratic or 1.0
    if not 1 / _STEEPEST < steep < _STEEPEST:
        raise ValueError(
            f"beta must be nearer to the squared radius of the data, whose ratio to 2 sigma^2 beta is {steep:.1e}: its "
            f"third power leaves the range of float64, got beta={problem.objective.beta:.3g}"
        )
    first = None if start is None else (start.distinct.decoder, start.distinct.masses)
    search = _Search(problem, gap, max_maps, prove, bar)
    span = span_of(problem, 0.01 * gap)
    if span is None:
        with contextlib.suppress(deadline.TimeUp):
            for side in SIDES:
                few = coarse(search.data, side)
                if few is None:
                    break
                rough = _Search(few, gap, max_maps, prove, bar).begun(first)
                first = rough.decoder, rough.tiling.masses
        return search.begun(first)
    narrow = replace(search, problem=replace(problem, data=span.data))
    found = narrow.begun(None if first is None else (span.inward(first[0]), first[1]))
    with deadline.finishing():
        return search.widened(found, span)


@dataclass(frozen=True, eq=False)
class _Found:
    """Reconstructions (k, D) with masses (k,), and what `DataPasses.look` finds about them."""

    certificate: Certificate
    coverage: Coverage
    tops: FloatArray
    heights: FloatArray
    psi: FloatArray
    masses: FloatArray
    thorough: bool


@dataclass(eq=False)
class _Search:
    """The search for the optimum of one problem."""

    problem: Problem
    gap: float
    max_maps: int
    prove: bool
    bar: Any
    best: _Found | None = None
    n_maps: int = 1  # of the result, which is evaluated at the end

    def __post_init__(self) -> None:
        self.data = DataPasses(self.problem)

    def begun(self, first: tuple[FloatArray, FloatArray] | None) -> CertifiedFixedPoint:
        """The result of `run` from reconstructions, in units of x, with masses, or from one reconstruction."""
        if first is None:
            return self.run(self.problem.collapsed[None], np.ones(1))
        return self.run(self.problem.data.frame.inward(first[0]), first[1])

    def run(self, psi: FloatArray, masses: FloatArray) -> CertifiedFixedPoint:
        """Search until the gap is met, or a budget is used up."""
        try:
            status = self.searched(psi, masses)
        except deadline.TimeUp:
            status = Status.BUDGET_USED
        except KeyboardInterrupt:
            if self.best is None:
                raise
            status = Status.INTERRUPTED
        with deadline.finishing():
            if self.best is None:
                return self.packaged(psi, masses, self.data.glance(psi, masses), status)
            return self.packaged(self.best.psi, self.best.masses, self.best.certificate, status)

    def searched(self, psi: FloatArray, masses: FloatArray) -> Status:
        """Insert reconstructions, find masses and improve both; how it ended."""
        since = 0
        while True:
            psi, masses = self.weighed(psi, masses)
            found = self.looked(psi, masses, quick=True)
            if found.certificate.gap <= self.gap:
                found = self.looked(psi, masses, quick=False)
            # A proof takes longer than a search for maxima: it is tried when the search meets the gap.
            if found.certificate.gap <= self.gap:
                found = self.proven(found)
            certificate = found.certificate
            if self.bar is not None:
                self.bar.update()
                self.bar.set_postfix_str(f"{len(psi)} sites, gap {certificate.gap:.1e}", refresh=False)
            since = 0 if self.kept(found) else since + 1
            if certificate.gap <= self.gap:
                return Status.CONVERGED
            if since > _MAX_IDLE_ROUNDS or self.n_maps >= self.max_maps:
                assert self.best is not None  # the first round is kept
                if not self.best.thorough:
                    self.best = self.looked(self.best.psi, self.best.masses, quick=False)
                self.best = self.proven(self.best)
                return Status.BUDGET_USED
            new = found.tops[found.heights > 0.1 * self.gap]
            if certificate.rigorous:  # the proof failed: it found a larger c than the search
                new = np.concatenate([self.problem.data.frame.inward(certificate.where[None]), new])
            new = new[: max(memory.SITES - len(psi), 0)]
            psi, masses = np.concatenate([psi, new]), np.append(masses, np.zeros(len(new)))
            psi, masses = self.weighed(psi, masses)
            psi, masses = self.merged(psi, masses)
            maps = _ROUGH_MAPS if certificate.gap > _ROUGH_GAP else _POLISH_MAPS
            solution, sites = self.polished(psi, masses, min(maps, self.max_maps - self.n_maps))
            self.n_maps += solution.n_maps
            if solution.status is Status.INTERRUPTED:
                raise KeyboardInterrupt
            psi, masses = sites.decoder, sites.masses

    def looked(self, psi: FloatArray, masses: FloatArray, quick: bool) -> _Found:
        """The certificate of reconstructions with masses, and where c is large."""
        certificate, coverage, tops, heights = self.data.look(psi, masses, self.gap, quick)
        return _Found(certificate, coverage, tops, heights, psi, masses, not quick)

    def proven(self, found: _Found) -> _Found:
        """The same with a proven bound, if it is to be proven and the proof ends; see `DataPasses.proven`."""
        if not self.prove:
            return found
        try:
            peaks = np.concatenate([found.psi, found.tops])
            return replace(
                found, certificate=self.data.proven(found.certificate, found.coverage, peaks, 0.1 * self.gap)
            )
        except deadline.TimeUp:
            self.kept(found)
            raise

    def kept(self, found: _Found) -> bool:
        """Keep what has the smallest gap so far; whether it was kept. A gap of a quick look gives way to any other."""
        best = self.best
        better = best is None or found.certificate.gap < best.certificate.gap or (found.thorough and not best.thorough)
        self.best = found if better else self.best
        return better

    def polished(self, psi: FloatArray, masses: FloatArray, max_maps: int) -> tuple[FixedPoint, Sites]:
        """The fixed point near reconstructions and masses, after some maps, and its sites."""
        options = Options(free=True, split=False, tol=1e-9, max_maps=max_maps)
        sites, tiling = Sites(psi, np.arange(len(psi)), masses), Tiling(masses / masses.sum())
        return iterate(self.problem, tiling, sites, options)[:2]

    def packaged(
        self, psi: FloatArray, masses: FloatArray, certificate: Certificate, status: Status
    ) -> CertifiedFixedPoint:
        """The result."""
        solution, _ = self.polished(psi, masses, 1)
        known = self.data.evaluated(psi, masses, solution.frame.scale) | {"n_maps": self.n_maps}
        return solution.extended_as(CertifiedFixedPoint, status=status, certificate=certificate, **known)

    def widened(self, found: CertifiedFixedPoint, span: Span) -> CertifiedFixedPoint:
        """The result, from one in the span of the data."""
        psi = self.problem.data.frame.inward(span.outward(found.decoder))
        self.n_maps = found.n_maps
        solution = self.packaged(psi, found.tiling.masses, found.certificate, found.status)
        old, error, upper = found.certificate, span.error(self.problem.framed.quadratic or 0.0), solution.free_energy
        certificate = Certificate(
            upper=upper,
            lower=min(upper, old.lower - error),
            where=span.outward(old.where[None])[0],
            rigorous=old.rigorous,
            rounding=old.rounding + error,
        )
        return replace(solution, certificate=certificate)

    def weighed(self, psi: FloatArray, masses: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The best masses at these reconstructions, to a tenth of the gap; reconstructions without mass are dropped."""
        masses = best_masses(self.data.affinities(psi), masses, 0.1 * self.gap)
        return psi[masses > 0], masses[masses > 0]

    def merged(self, psi: FloatArray, masses: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Merge reconstructions much closer than the resolution, unless F rises by more than a tenth of the gap."""
        group = coincident(psi, _MERGE_DISTANCE * self.problem.framed.stiffness**-0.5)
        if group.max() + 1 == len(psi):
            return psi, masses
        mean, total = means_of_groups(psi, masses, group)
        rise = self.data.free_energy(mean, total) - self.data.free_energy(psi, masses)
        return (mean, total) if rise <= 0.1 * self.gap else (psi, masses)
