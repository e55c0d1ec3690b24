"""certify() and global_solution(): how far a solution is from the global optimum, and the optimum itself (T14)-(T17).

Over all decoders and all prior masses the least F at given multipliers is that of the rate-distortion function, or of
the non-parametric maximum likelihood of a mixture (Kiefer and Wolfowitz 1956; Rose 1994). It is convex in the
distribution of reconstructions, so that it has a certificate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import nnls
from tqdm.auto import tqdm

from .. import equations
from .._utils.arrays import FloatArray
from .._utils.blas import single_threaded_blas
from .._utils.checks import check_instance, check_positive, check_time_limit
from ..data.prepared import Block
from ..latent.sites import Sites, coincident
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..problems.posterior import Tiles, energies, posterior
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from ..solvers.loop import iterate
from ..solvers.options import Options
from ..solvers.pose import check_on_failure
from ..solvers.solve import report_failure
from .coverage import Coverage

_RIGOROUS = 2  # dimensions up to which a supremum is proven
_ACCURACY = 1e-8  # nats, of that proof; of a search, a tenth of the gap
_NEWTON = 50  # steps of the masses
_POLISH = 60  # maps between two insertions
_SITES = 4096  # reconstructions of a solution
_PATIENCE = 30  # rounds without a smaller gap after which the search ends
_NEAR = 0.03  # distance, in units of the resolution, of reconstructions that may be one


@dataclass(frozen=True, eq=False)
class Certificate:
    """Bounds of the global optimum F* of all decoders and all prior masses, lower <= F* <= upper (T14).

    Attributes
    ----------
    upper : float
        F of the solution, in nats.
    lower : float
        F - log sup c, in nats.
    where : (D,) array
        Where c is largest, in units of x: there one more reconstruction would help most.
    rigorous : bool
        Whether the supremum is proven, by branch and bound; else it is the largest of the maxima uphill from all data
        points and reconstructions.

    Examples
    --------
    >>> Certificate(upper=1.5, lower=1.25, where=np.zeros(1), rigorous=True)
    Certificate(F=1.5, gap=2.50e-01 nats, rigorous)
    """

    upper: float
    lower: float
    where: FloatArray
    rigorous: bool

    @property
    def gap(self) -> float:
        """Nats between the bounds."""
        return self.upper - self.lower

    def __repr__(self) -> str:
        how = "rigorous" if self.rigorous else "heuristic supremum"
        return f"Certificate(F={self.upper:.9g}, gap={self.gap:.2e} nats, {how})"


def certify(solution: FixedPoint) -> Certificate:
    """How far F of a solution is at most above the global optimum, converged or not, with fixed or free masses (T14).

    Parameters
    ----------
    solution : FixedPoint
        Of an `ELBO`.

    Returns
    -------
    Certificate
        Bounds of the global optimum, in nats, and whether they are proven.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> from constrained_vae import Tiling, solve
    >>> certify(solve([[-1.0], [1.0]], beta=0.5, tiling=Tiling.uniform(2))).gap < 1e-7
    True
    """
    check_instance(solution, "solution", FixedPoint, "solve(x)")
    sites, data = solution.distinct, _Data(solution.problem)
    psi = solution.frame.inward(sites.decoder)
    found, coverage, tops, _ = data.look(psi, sites.masses)
    found = data.proven(found, coverage, np.concatenate([psi, tops]), _ACCURACY)
    # Bounds of the solution as it stands: its own F, in which merged tiles or float32 may have left some rounding.
    return replace(found, upper=solution.free_energy, lower=solution.free_energy - found.gap)


@dataclass(frozen=True, eq=False, repr=False)
class CertifiedFixedPoint(FixedPoint):
    """A `FixedPoint` of free masses with the certificate of how far it is from the global optimum.

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
        """The gap, in words."""
        return f"gap {self.certificate.gap:.1e} nats"

    def __repr__(self) -> str:
        return f"Certified{super().__repr__()}"


def global_solution(
    x: Any,
    objective: Objective | None = None,
    *,
    beta: float | None = None,
    gap: float = 1e-6,
    weights: Any = None,
    start: FixedPoint | None = None,
    time_limit: float = 60.0,
    backend: str = "auto",
    progress: bool = False,
    on_failure: str = "warn",
) -> CertifiedFixedPoint:
    """The global optimum over all decoders and prior masses, to a certified gap: a point of the rate-distortion curve.

    Reconstructions are added where c is largest (T14), their masses found by the constrained Newton method (Y. Wang
    2007, J. R. Stat. Soc. B 69), positions and masses polished together by the accelerated map, until the gap is met.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data. Statistics of all of them are held in memory.
    objective : Objective, optional
        `ELBO()` by default.
    beta : float, optional
        Temperature; short for `objective.at(beta)`.
    gap : float
        Nats between F and its lower bound that are asked for.
    weights : (N,) array_like, optional
        Data weights; points of weight zero have no say.
    start : FixedPoint, optional
        Where to start, such as the optimum at a temperature nearby; one reconstruction of all data by default.
    time_limit : float
        Seconds after which the best so far is returned, with the gap that it has.
    backend : {"auto", "numba", "cupy", "reference"}
    progress : bool
        Show a progress bar.
    on_failure : {"warn", "raise", "return"}
        What to do where the gap is not met.

    Returns
    -------
    CertifiedFixedPoint
        With as many tiles as it needs, and its `.certificate`.

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
    """What `global_solution` returns, of a problem; without proofs if they are not wanted."""
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
        """Insert, weigh and polish until the gap is met or time is up."""
        options, best, since = Options(free=True, split=False, tol=1e-9, max_maps=_POLISH), None, 0
        status = Status.BUDGET_USED
        try:
            while True:
                psi, masses = self.weighed(psi, masses)
                # A proof takes longer than a look: it comes where the look says that it may do.
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
                if time.monotonic() > self.deadline or since > _PATIENCE:
                    break
                new = tops[heights > 0.1 * self.gap]
                if certificate.rigorous:  # a proof that failed knows of one that the look has missed
                    new = np.concatenate([self.problem.data.frame.inward(certificate.where[None]), new])
                new = new[: max(_SITES - len(psi), 0)]
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
        return solution.extended_as(CertifiedFixedPoint, status=status, certificate=certificate)

    def weighed(self, psi: FloatArray, masses: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The best masses at these reconstructions, but for a tenth of the gap; those without mass are dropped.

        Newton's quadratic model of F on the simplex is a least-squares problem, |(S - 2) p|^2 with S_ik = exp(-H_ik) /
        Z_i, solved together with |sum p - 1|^2 by non-negative least squares (Wang 2007).
        """
        H, rho = self.data.energies(psi), self.data.rho
        G = np.exp(H.min(axis=1, keepdims=True) - H)  # (N, k), scaled by row
        root = np.sqrt(rho)[:, None]

        def value(p: FloatArray) -> float:
            return float(-rho @ equations.log_masses(G @ p))

        if not masses.all():  # the new ones get what share is best first: far points, that see no other, bend the model
            new = masses == 0
            trials = [(1 - share) * masses + share * new / new.sum() for share in new.mean() * 0.5 ** np.arange(40)]
            masses = min([masses, *trials], key=value)
        for _ in range(_NEWTON):
            S = G / (G @ masses)[:, None]
            slope = rho @ S  # of -F; at most 1, and 1 where there is mass, at the optimum
            if slope.max() - 1 <= 0.1 * self.gap:
                break
            system = np.zeros((len(S) + 1, len(masses) + 1))  # the matrix, and what it should equal in the last column
            system[:-1, :-1], system[-1] = root * (S - 2), 1.0
            with single_threaded_blas():
                short = np.asarray(np.linalg.qr(system, mode="r")) if len(system) > 2 * len(masses) else system
                target = nnls(short[:, :-1], short[:, -1])[0]
            target /= target.sum()
            here, fall, step = value(masses), slope @ (target - masses), 1.0
            while value(masses + step * (target - masses)) > here - 1e-4 * step * fall and step > 1e-6:
                step /= 2
            if step <= 1e-6:
                break
            masses = masses + step * (target - masses)
        alive = masses > 1e-14
        return psi[alive], masses[alive] / masses[alive].sum()

    def merged(self, psi: FloatArray, masses: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Reconstructions much closer than the resolution made one, unless F rises by more than a tenth of the gap."""
        group = coincident(psi, _NEAR * self.problem.framed.stiffness**-0.5)
        if group.max() + 1 == len(psi):
            return psi, masses
        total: FloatArray = np.bincount(group, masses).astype(np.float64)
        mean = np.stack([np.bincount(group, masses * column) for column in psi.T], axis=1) / total[:, None]
        rise = self.data.coverage(mean, total)[1] - self.data.coverage(psi, masses)[1]
        return (mean, total) if rise <= 0.1 * self.gap else (psi, masses)


@dataclass(frozen=True, eq=False)
class _Data:
    """All points that have weight, whole, on the host and in the frame: what every round of a search looks at.

    Attributes
    ----------
    problem : Problem
    """

    problem: Problem

    @cached_property
    def block(self) -> Block:
        """All rows that have weight."""
        return self.problem.data.whole()

    @property
    def x(self) -> FloatArray:
        """The points (N, D)."""
        return self.block.x

    @property
    def rho(self) -> FloatArray:
        """Their weights (N,)."""
        return self.block.rho

    def energies(self, psi: FloatArray) -> FloatArray:
        """H (N, k) of reconstructions (T4)."""
        objective = self.problem.framed
        return energies(self.block, objective, *objective.readout(psi))

    def coverage(self, psi: FloatArray, masses: FloatArray) -> tuple[Coverage, float]:
        """The coverage of reconstructions and masses, and their F."""
        objective = self.problem.framed
        tiles = Tiles(objective, *objective.readout(psi), equations.log_masses(masses))
        log_Z = posterior(self.block, tiles).log_partition
        log_shares = np.log(self.rho) - self.block.offset(objective) - log_Z
        coverage = Coverage(objective, self.block.phi, log_shares)
        return coverage, float(equations.free_energy(log_Z, self.rho))

    def look(self, psi: FloatArray, masses: FloatArray) -> tuple[Certificate, Coverage, FloatArray, FloatArray]:
        """The certificate of reconstructions and masses, not proven, and maxima of log c with their heights."""
        coverage, upper = self.coverage(psi, masses)
        tops, heights = coverage.maxima(np.concatenate([psi, self.x]))
        where = self.problem.data.frame.outward(tops[0])
        return Certificate(upper, upper - max(heights[0], 0.0), where, False), coverage, tops, heights

    def proven(self, certificate: Certificate, coverage: Coverage, peaks: FloatArray, accuracy: float) -> Certificate:
        """The certificate with a proven bound, where there is one (T14)."""
        if self.x.shape[1] > _RIGOROUS or self.problem.framed.quadratic is None:
            return certificate
        bound, top = coverage.bound(self.x, peaks, accuracy)
        lower, where = certificate.upper - max(bound, 0.0), self.problem.data.frame.outward(top)
        return Certificate(certificate.upper, lower, where, True) if np.isfinite(bound) else certificate


def collapsed_coverage(problem: Problem) -> tuple[Coverage, FloatArray]:
    """The coverage of one reconstruction of all data, and the data, in the frame."""
    data = _Data(problem)
    return data.coverage(problem.collapsed[None], np.ones(1))[0], data.x
