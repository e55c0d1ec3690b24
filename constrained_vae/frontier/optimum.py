"""certify() and global_solution(): the distance of a solution to the global optimum, and the optimum (T14)-(T17).

The least F over all decoders and all prior masses at given multipliers is a point of the rate-distortion function, and
the non-parametric maximum likelihood of a mixture (Kiefer and Wolfowitz 1956; Rose 1994). F is convex in the
distribution of reconstructions, so that its minimum has a certificate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from .. import equations
from .._utils.arrays import FloatArray
from .._utils.checks import check_instance, check_positive, check_time_limit
from ..data.prepared import Block
from ..data.rows import RowBlocks
from ..latent.sites import Sites, coincident
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..problems.posterior import Posterior, Tiles, energies, posterior
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from ..solvers.convergence import Convergence
from ..solvers.loop import iterate
from ..solvers.options import Options
from ..solvers.pose import check_on_failure
from ..solvers.solve import report_failure
from .coverage import Coverage, rounding_of_energies
from .hierarchy import group_means
from .masses import best_masses

_MAX_PROOF_DIM = 2  # dimensions up to which a supremum is proven
_PROOF_TOL = 1e-8  # accuracy of that proof, in nats; in a search it is a tenth of the gap
_POLISH_MAPS = 60  # maps between two insertions
_MAX_SITES = 4096  # reconstructions of a solution
_MAX_IDLE_ROUNDS = 30  # rounds without a smaller gap after which the search ends
_ROUNDED = 64  # highest maxima of log c whose rounding is computed
_EPS = float(np.finfo(np.float64).eps)
_MERGE_DISTANCE = 0.03  # distance, in units of the resolution, below which reconstructions may be merged


@dataclass(frozen=True, eq=False)
class Certificate:
    """Bounds of the global optimum F* over all decoders and all prior masses, lower <= F* <= upper (T14).

    Attributes
    ----------
    upper : float
        F of the solution, in nats; good to `rounding`.
    lower : float
        F - log sup c - `rounding`, in nats.
    where : (D,) array
        Point at which c is largest, in units of x: the best place for one more reconstruction.
    rigorous : bool
        Whether the supremum is proven by branch and bound, and not below the rounding. Otherwise it is heuristic: the
        largest of the maxima that are found by ascent from data points, reconstructions, and means of groups of both.
    rounding : float
        Rounding error of F and of log sup c, in nats.

    Examples
    --------
    >>> Certificate(upper=1.5, lower=1.25, where=np.zeros(1), rigorous=True)
    Certificate(F=1.5, gap=2.50e-01 nats, rigorous)
    """

    upper: float
    lower: float
    where: FloatArray
    rigorous: bool
    rounding: float = 0.0

    @property
    def gap(self) -> float:
        """Difference of the bounds, in nats."""
        return self.upper - self.lower

    def __repr__(self) -> str:
        how = "rigorous" if self.rigorous else "heuristic supremum"
        return f"Certificate(F={self.upper:.9g}, gap={self.gap:.2e} nats, {how})"


def certify(solution: FixedPoint) -> Certificate:
    """Bound how far F of a solution is above the global optimum (T14).

    The solution need not have converged, and its masses may be fixed or free. F is computed anew in float64. The upper
    bound is F as the solution states it, if the two agree to the rounding of float64; otherwise, as for a solution in
    float32, it is the new value.

    Parameters
    ----------
    solution : FixedPoint
        A solution of an `ELBO`.

    Returns
    -------
    Certificate
        Bounds of the global optimum, in nats, and whether they are proven.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint.

    Examples
    --------
    >>> from constrained_vae import Tiling, solve
    >>> certify(solve([[-1.0], [1.0]], beta=0.5, tiling=Tiling.uniform(2))).gap < 1e-7
    True
    """
    check_instance(solution, "solution", FixedPoint, "solve(x)")
    problem, data = solution.problem, _Data(solution.problem)
    sites = Sites.of_tiles(solution.code[0], solution.tiling.masses)  # exactly coincident tiles
    found, coverage, tops, _ = data.look(sites.decoder, sites.masses)
    found = data.proven(found, coverage, np.concatenate([sites.decoder, tops]), _PROOF_TOL)
    difference = abs(solution.free_energy - found.upper)
    if not difference <= Convergence(problem, 0.0, True).slack(found.upper):
        return found
    rounding = found.rounding + difference
    lower = min(solution.free_energy, found.lower)
    rigorous = found.rigorous and rounding <= found.gap
    return Certificate(solution.free_energy, lower, found.where, rigorous, rounding)


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

    def __repr__(self) -> str:
        return f"Certified{super().__repr__()}"


def global_solution(
    x: npt.ArrayLike | RowBlocks,
    objective: Objective | None = None,
    *,
    beta: float | None = None,
    gap: float = 1e-6,
    weights: npt.ArrayLike | None = None,
    start: FixedPoint | None = None,
    time_limit: float = 60.0,
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
    gap : float
        Requested difference between F and its lower bound, in nats.
    weights : (N,) array_like, optional
        Data weights, uniform by default. Points of weight zero are ignored.
    start : FixedPoint, optional
        Initial solution, such as the optimum at a temperature nearby; by default one reconstruction of all data.
    time_limit : float
        Seconds after which the best solution so far is returned, with its gap.
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
    gap = check_positive(gap, "gap")
    check_on_failure(on_failure)
    time_limit = check_time_limit(time_limit)
    problem = Problem.make(x, objective, weights, backend, beta=beta)
    if start is not None:
        check_instance(start, "start", FixedPoint, "global_solution(x)")
        if start.decoder.shape[1] != problem.data.rows.dim:
            raise ValueError(f"start must have reconstructions of {problem.data.rows.dim} dimensions like x")
    with tqdm(disable=not progress, desc=f"beta={problem.objective.beta:.4g}", unit=" rounds") as bar:
        solution = optimum(problem, gap, time_limit, start, bar)
    report_failure(solution, on_failure, stacklevel=3)
    return solution


def optimum(
    problem: Problem,
    gap: float,
    time_limit: float,
    start: FixedPoint | None = None,
    bar: Any = None,
    prove: bool = True,
) -> CertifiedFixedPoint:
    """The result of `global_solution` for a problem; if `prove` is false, without branch and bound."""
    search = _Search(problem, gap, time.monotonic() + time_limit, prove, bar)
    if start is None:
        return search.run(problem.collapsed[None], np.ones(1))
    return search.run(problem.data.frame.inward(start.distinct.decoder), start.distinct.masses)


@dataclass(eq=False)
class _Search:
    """The search for the optimum of one problem."""

    problem: Problem
    gap: float
    deadline: float
    prove: bool
    bar: Any

    def __post_init__(self) -> None:
        self.data = _Data(self.problem)

    def run(self, psi: FloatArray, masses: FloatArray) -> CertifiedFixedPoint:
        """Insert reconstructions, find masses and improve both until the gap is met or the time is used up."""
        options, best, since = Options(free=True, split=False, tol=1e-9, max_maps=_POLISH_MAPS), None, 0
        status = Status.BUDGET_USED
        try:
            while True:
                psi, masses = self.weighed(psi, masses)
                # A proof takes longer than a search for maxima: it is tried when the search meets the gap.
                certificate, coverage, tops, heights = self.data.look(psi, masses)
                if self.prove and certificate.gap <= self.gap:
                    certificate = self.data.proven(certificate, coverage, np.concatenate([psi, tops]), 0.1 * self.gap)
                if self.bar is not None:
                    self.bar.update()
                    self.bar.set_postfix_str(f"{len(psi)} sites, gap {certificate.gap:.1e}", refresh=False)
                if best is None or certificate.gap < best[0].gap:
                    best, since = (certificate, coverage, tops, psi, masses), 0
                else:
                    since += 1
                if certificate.gap <= self.gap:
                    status = Status.CONVERGED
                    break
                if time.monotonic() > self.deadline or since > _MAX_IDLE_ROUNDS:
                    break
                new = tops[heights > 0.1 * self.gap]
                if certificate.rigorous:  # the proof failed: it found a larger c than the search
                    new = np.concatenate([self.problem.data.frame.inward(certificate.where[None]), new])
                new = new[: max(_MAX_SITES - len(psi), 0)]
                psi, masses = np.concatenate([psi, new]), np.append(masses, np.zeros(len(new)))
                psi, masses = self.weighed(psi, masses)
                psi, masses = self.merged(psi, masses)
                sites = Sites(psi, np.arange(len(psi)), masses)
                tiling = Tiling(masses / masses.sum())
                solution, sites, _ = iterate(self.problem, tiling, sites, options)
                if solution.status is Status.INTERRUPTED:
                    raise KeyboardInterrupt
                psi, masses = sites.decoder, sites.masses
        except KeyboardInterrupt:
            if best is None:
                raise
            status = Status.INTERRUPTED
        certificate, coverage, tops, psi, masses = best
        if self.prove and status is not Status.CONVERGED:
            certificate = self.data.proven(certificate, coverage, np.concatenate([psi, tops]), 0.1 * self.gap)
        sites, tiling = Sites(psi, np.arange(len(psi)), masses), Tiling(masses)
        solution, *_ = iterate(self.problem, tiling, sites, replace(options, max_maps=1))
        known = self.data.evaluated(psi, masses, solution.frame.scale)
        return solution.extended_as(CertifiedFixedPoint, status=status, certificate=certificate, **known)

    def weighed(self, psi: FloatArray, masses: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The best masses at these reconstructions, to a tenth of the gap; reconstructions without mass are dropped."""
        masses = best_masses(self.data.energies(psi), self.data.rho, masses, 0.1 * self.gap)
        return psi[masses > 0], masses[masses > 0]

    def merged(self, psi: FloatArray, masses: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Merge reconstructions much closer than the resolution, unless F rises by more than a tenth of the gap."""
        group = coincident(psi, _MERGE_DISTANCE * self.problem.framed.stiffness**-0.5)
        if group.max() + 1 == len(psi):
            return psi, masses
        total: FloatArray = np.bincount(group, masses).astype(np.float64)
        mean = np.stack([np.bincount(group, masses * column) for column in psi.T], axis=1) / total[:, None]
        rise = self.data.coverage(mean, total)[1] - self.data.coverage(psi, masses)[1]
        return (mean, total) if rise <= 0.1 * self.gap else (psi, masses)


@dataclass(frozen=True, eq=False)
class _Data:
    """All points of positive weight of a problem, on the host and in the frame, for the passes of a search."""

    problem: Problem

    @cached_property
    def block(self) -> Block:
        """All rows of positive weight."""
        return self.problem.data.whole()

    @property
    def x(self) -> FloatArray:
        """The points (N, D)."""
        return self.block.x

    @property
    def rho(self) -> FloatArray:
        """The weights of the points (N,)."""
        return self.block.rho

    @cached_property
    def group_means(self) -> FloatArray:
        """Means (m, D) of groups of points at all scales."""
        return group_means(self.x, self.rho)

    def energies(self, psi: FloatArray) -> FloatArray:
        """Energies H (N, k) of reconstructions (T4)."""
        objective = self.problem.framed
        return energies(self.block, objective, *objective.readout(psi))

    def posterior(self, psi: FloatArray, masses: FloatArray) -> Posterior:
        """The E-step of all points."""
        objective = self.problem.framed
        return posterior(self.block, Tiles(objective, *objective.readout(psi), equations.log_masses(masses)))

    def evaluated(self, psi: FloatArray, masses: FloatArray, scale: float) -> dict[str, float]:
        """F, E[H] and, of a squared error, the distortion, in the arithmetic of the certificate."""
        q, log_Z, H = self.posterior(psi, masses)
        energy = float(self.rho @ (q * np.where(q > 0, H, 0.0)).sum(axis=1))
        found = {"free_energy": float(equations.free_energy(log_Z, self.rho)), "energy": energy}
        quadratic = self.problem.framed.quadratic
        if quadratic is None:
            return found
        energy = max(energy, 0.0)  # the linear form may round below 0
        return found | {"energy": energy, "distortion": energy / quadratic * scale**2}

    def coverage(self, psi: FloatArray, masses: FloatArray) -> tuple[Coverage, float]:
        """The coverage of reconstructions with masses, and their F."""
        return self._coverage(self.posterior(psi, masses))

    def _coverage(self, found: Posterior) -> tuple[Coverage, float]:
        log_Z = found.log_partition
        coverage = Coverage(self.problem.framed, self.block, np.log(self.rho) - log_Z)
        return coverage, float(equations.free_energy(log_Z, self.rho))

    def look(self, psi: FloatArray, masses: FloatArray) -> tuple[Certificate, Coverage, FloatArray, FloatArray]:
        """The unproven certificate of reconstructions with masses, their coverage, and maxima of log c with values."""
        found = self.posterior(psi, masses)
        coverage, upper = self._coverage(found)
        tops, heights = coverage.maxima(self.starts(psi, found.q))
        high = np.count_nonzero(heights >= heights[0] - 1)
        rounding = self.rounding(coverage, found, upper, tops[: min(high, _ROUNDED)])
        where = self.problem.data.frame.outward(tops[0])
        lower = upper - max(heights[0], 0.0) - rounding
        return Certificate(upper, lower, where, False, rounding), coverage, tops, heights

    def starts(self, psi: FloatArray, q: FloatArray) -> FloatArray:
        """Points (m, D) from which maxima of c are sought: reconstructions, data, and means of groups of both.

        No code of these points is better than the bound: if p has the masses p_a at points y_a, then
        F(p) >= F - log sum_a p_a c(y_a) (T14), so that a bound below the largest c(y_a) holds for it.
        """
        mass = self.rho @ q
        alive = mass > 0
        means = ((self.rho[:, None] * q).T @ self.x)[alive] / mass[alive, None]
        return np.concatenate([psi, self.x, self.group_means, means, group_means(means, mass[alive])])

    def rounding(self, coverage: Coverage, found: Posterior, upper: float, points: FloatArray) -> float:
        """Rounding error of F and of log sup c, which is attained at one of some points (m, D), in nats."""
        energies = (found.q * np.where(found.q > 0, found.energies, 0.0)).sum(axis=1)
        of_energies = rounding_of_energies(self.block, coverage.objective, energies[:, None])[:, 0]
        of_log_Z = of_energies + 8 * _EPS * (1 + np.abs(found.log_partition))
        return float(self.rho @ of_log_Z + coverage.rounding(points, of_log_Z).max() + 8 * _EPS * (1 + abs(upper)))

    def proven(self, certificate: Certificate, coverage: Coverage, peaks: FloatArray, accuracy: float) -> Certificate:
        """The certificate with a proven bound, if branch and bound finds one (T14)."""
        if self.x.shape[1] > _MAX_PROOF_DIM or self.problem.framed.quadratic is None:
            return certificate
        bound, top = coverage.bound(self.x, peaks, accuracy)
        if not np.isfinite(bound):
            return certificate
        bound, rounding = max(bound, 0.0), certificate.rounding
        where = self.problem.data.frame.outward(top)
        return Certificate(certificate.upper, certificate.upper - bound - rounding, where, rounding <= bound, rounding)


def collapsed_coverage(problem: Problem) -> tuple[Coverage, FloatArray]:
    """The coverage of the collapsed solution, and the data, in the frame."""
    data = _Data(problem)
    return data.coverage(problem.collapsed[None], np.ones(1))[0], data.x
