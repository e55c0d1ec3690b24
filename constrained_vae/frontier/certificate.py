"""certify(): the distance of a solution to the global optimum, by the supremum of the coverage (T14)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from .. import equations
from .._utils import deadline, memory
from .._utils.arrays import FloatArray
from .._utils.checks import check_instance, check_time_limit
from ..backends import BackendNotAvailableError, get_backend
from ..data.prepared import Block
from ..latent.sites import Sites
from ..objectives.base import FramedObjective
from ..problems.posterior import Tiles, energies, posterior
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import NotConvergedWarning
from ..solvers.convergence import Convergence
from . import proof_files, reconstructions
from .coverage import MAX_CLIMBERS, Coverage, rounding_of_energies
from .hierarchy import group_means

_MAX_STIFFNESS = 1e100  # of which the proof takes the cube
_PROOF_TOL = 1e-8  # accuracy of that proof, in nats
_ROUNDED = 64  # highest maxima of log c whose rounding is computed
_QUICK = 256  # climbers of a quick look, besides the reconstructions themselves
_MANY = 3000  # data of which a certificate takes longer than the compilation of its kernels
_WORK = 10 * 2**31  # starts times rows times statistics in a look that is not quick, about 10 s of one thread
_NEGLIGIBLE = 0.1  # share of a gap up to which maxima of log c are not sought
_SLOPE = 0.03  # slope at which a climb ends, relative to the root of the gap
_EPS = float(np.finfo(np.float64).eps)


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
        Whether lower <= F* <= upper + rounding is proven, with an error term for the rounding of float64 (`save` proves
        it in ball arithmetic). The proof is by branch and bound, for data that lie in a space of at most three
        dimensions, if it does not need too many boxes. Otherwise the supremum of c is heuristic: the
        largest of the maxima that are found by ascent from data points, reconstructions, and means of groups of both.
    rounding : float
        Rounding error of F and of log sup c, in nats.
    solution : FixedPoint, optional
        The solution, if the certificate is of `certify`.

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
    solution: FixedPoint | None = field(default=None, repr=False)

    @property
    def gap(self) -> float:
        """Difference of the bounds, in nats."""
        return self.upper - self.lower

    def save(self, path: str | PathLike[str], *, accuracy: float = 1e-6) -> None:
        """Write a proof of the bounds as JSON, which `constrained-vae verify` and the lone file `verify.py` check.

        The file has the hash of the data, the weights, the multiplier, the code, and boxes that cover the data, each
        with a bound of log c. Its bounds are proven anew from the decoder and the masses of the solution, with their
        rounding, whether the certificate is rigorous or not.

        Parameters
        ----------
        path : path
            File to write.
        accuracy : float
            How much larger than the gap of the certificate the gap of the proof may be, in nats.

        Raises
        ------
        ValueError
            If the certificate is not one of `certify`, the energy is not a squared error, there are more than three
            dimensions, or the boxes are too many.
        OSError
            If the file cannot be written.

        Examples
        --------
        >>> from constrained_vae import certify, solve
        >>> certify(solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)).save("proof.json")  # doctest: +SKIP
        """
        if self.solution is None:
            raise ValueError("only a certificate of certify(solution) knows its solution: save that one")
        proof_files.save(self.solution, self.gap, path, accuracy)

    def reconstructions(self) -> tuple[int, int]:
        """Bounds of the number of reconstructions of the optimum of data in one dimension, both proven.

        At most so many, because c of the optimum, within a proven distance of c of the solution, can be 1 in some
        intervals only, and so often in each. At least so many, because codes without reconstructions in an interval are
        worse than the solution. The smaller the gap of the solution is, the closer are the bounds; near a transition
        they differ. The error terms of float64 are included.

        Returns
        -------
        tuple of int
            The lower and the upper bound.

        Raises
        ------
        ValueError
            If the certificate is not one of `certify`, or the data have more dimensions, or another energy than a
            squared error.

        Examples
        --------
        >>> from constrained_vae import certify, global_solution
        >>> certify(global_solution([[-1.0], [1.0]], beta=0.9)).reconstructions()  # they split at beta = 1
        (2, 2)
        """
        if self.solution is None:
            raise ValueError("only a certificate of certify(solution) knows its solution: ask that one")
        return reconstructions.of_solution(self.solution)

    def __repr__(self) -> str:
        how = "rigorous" if self.rigorous else "heuristic supremum"
        return f"Certificate(F={self.upper:.9g}, gap={self.gap:.2e} nats, {how})"


def certify(solution: FixedPoint, *, time_limit: float | None = None) -> Certificate:
    """Bound how far F of a solution is above the global optimum (T14).

    The solution need not have converged, and its masses may be fixed or free. F is computed anew in float64. The upper
    bound is F as the solution states it, if the two agree to the rounding of float64; otherwise, as for a solution in
    float32, it is the new value.

    Parameters
    ----------
    solution : FixedPoint
        A solution of an `ELBO`.
    time_limit : float, optional
        Budget in seconds, kept as in `solve`.

    Returns
    -------
    Certificate
        Bounds of the global optimum, in nats, and whether they are proven. If the time is up during the proof, they are
        heuristic; if it is up before, the lower bound is proven and poor: c at any y is at most its sum with every
        energy at its minimum.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint, or its decoder is not finite.

    Warns
    -----
    NotConvergedWarning
        If the time is up.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> certify(solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)).gap < 1e-7
    True
    """
    check_instance(solution, "solution", FixedPoint, "solve(x)")
    if not np.isfinite(solution.decoder).all():
        raise ValueError("solution must have finite reconstructions, but its decoder holds NaN or infinite numbers")
    time_limit = check_time_limit(time_limit)
    problem = _compiled(solution.problem)
    data = DataPasses(problem)
    sites = Sites.of_tiles(solution.code[0], solution.tiling.masses)  # exactly coincident tiles
    found = None
    try:
        with deadline.within(time_limit):
            found, coverage, tops, _ = data.look(sites.decoder, sites.masses)
            found = data.proven(found, coverage, np.concatenate([sites.decoder, tops]), _PROOF_TOL)
    except deadline.TimeUp:
        found = found or data.glance(sites.decoder, sites.masses)
        warnings.warn(f"time_limit={time_limit:g}: no better bound was found", NotConvergedWarning, stacklevel=2)
    found = replace(found, solution=solution)
    difference = abs(solution.free_energy - found.upper)
    if not difference <= Convergence(problem, 0.0, True).slack(found.upper):
        return found
    rounding = found.rounding + difference
    lower = min(solution.free_energy, found.lower)
    rigorous = found.rigorous and rounding <= found.gap
    return Certificate(solution.free_energy, lower, found.where, rigorous, rounding, solution)


def _compiled(problem: Problem) -> Problem:
    """The problem on the compiled backend, if it has so many data that compilation pays and there is the backend."""
    if len(problem.data) < _MANY:
        return problem
    with contextlib.suppress(BackendNotAvailableError):
        return replace(problem, data=replace(problem.data, backend=get_backend()))
    return problem


class Passed(NamedTuple):
    """log Z (N,), mean energies (N,) of the points, masses (k,) and weighted sums (k, D) of the reconstructions."""

    log_partition: FloatArray
    energies: FloatArray
    mass: FloatArray
    sums: FloatArray


@dataclass(frozen=True, eq=False)
class DataPasses:
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

    def energies_in_blocks(self, psi: FloatArray) -> Callable[[], Iterator[FloatArray]]:
        """The same in blocks of rows, anew at every call."""
        objective, rows = self.problem.framed, memory.rows_of_block(len(psi))
        v, b = objective.readout(psi)
        return lambda: (energies(block, objective, v, b) for block in self.block.pieces(rows))

    def passed(self, psi: FloatArray, masses: FloatArray) -> Passed:
        """What the E-step of all points gives for every point and for every reconstruction."""
        objective, parts = self.problem.framed, []
        tiles = Tiles(objective, *objective.readout(psi), equations.log_masses(masses))
        for block in self.block.pieces(memory.rows_of_block(len(psi))):
            q, log_Z, H = posterior(block, tiles)
            joint = block.rho[:, None] * q
            parts.append((log_Z, (q * np.where(q > 0, H, 0.0)).sum(axis=1), block.rho @ q, joint.T @ block.x))
        of_log_Z, means, masses_of, sums = zip(*parts, strict=True)
        mass, total = sum(masses_of[1:], masses_of[0]), sum(sums[1:], sums[0])
        return Passed(np.concatenate(of_log_Z), np.concatenate(means), mass, total)

    def evaluated(self, psi: FloatArray, masses: FloatArray, scale: float) -> dict[str, float]:
        """F, E[H] and, of a squared error, the distortion, in the arithmetic of the certificate."""
        known = self.passed(psi, masses)
        energy = float(self.rho @ known.energies)
        found = {"free_energy": float(equations.free_energy(known.log_partition, self.rho)), "energy": energy}
        quadratic = self.problem.framed.quadratic
        if not quadratic:  # none, or of multiplier zero
            return found
        energy = max(energy, 0.0)  # the linear form may round below 0
        return found | {"energy": energy, "distortion": energy / quadratic * scale**2}

    def free_energy(self, psi: FloatArray, masses: FloatArray) -> float:
        """F of reconstructions with masses."""
        return float(equations.free_energy(self.passed(psi, masses).log_partition, self.rho))

    def coverage(self, psi: FloatArray, masses: FloatArray) -> tuple[Coverage, float]:
        """The coverage of reconstructions with masses, and their F."""
        return self._coverage(self.passed(psi, masses))

    def _coverage(self, found: Passed) -> tuple[Coverage, float]:
        log_Z = found.log_partition
        shares = np.log(self.rho) - log_Z
        rounding = self.rounding_of_log_partition(found)
        coverage = Coverage(self.problem.framed, self.block, shares, self.problem.data.backend, rounding)
        return coverage, float(equations.free_energy(log_Z, self.rho))

    def look(
        self, psi: FloatArray, masses: FloatArray, gap: float = 0.0, quick: bool = False
    ) -> tuple[Certificate, Coverage, FloatArray, FloatArray]:
        """The unproven certificate of reconstructions with masses, their coverage, and maxima of log c with values.

        If a gap is asked for, maxima below a tenth of it are not sought, and the certificate counts with this tenth. A
        quick look climbs from fewer points, to find where reconstructions are missing.
        """
        found = self.passed(psi, masses)
        coverage, upper = self._coverage(found)
        options: dict[str, Any] = {"climbers": min(_QUICK + len(psi), MAX_CLIMBERS) if quick else MAX_CLIMBERS}
        if gap > 0:
            options |= {"floor": _NEGLIGIBLE * gap, "slope": _SLOPE * gap**0.5}
        starts = self.starts(psi, found, coverage.log_shares, quick)
        # Of very many rows, some tell where to climb. In a thorough look the bound stays above c at every start.
        if (sample := coverage.sampled()) is not None:
            some, deviation = sample
            rough, _ = some.maxima(starts, **options | {"floor": options.get("floor", -np.inf) - deviation})
            best = starts[:0] if quick else starts[[coverage(starts).argmax()]]
            starts = np.concatenate([psi, rough, best])
        tops, heights = coverage.maxima(starts, **options)
        high = np.count_nonzero(heights >= heights[0] - 1)
        rounding = self.rounding(coverage, upper, tops[: min(high, _ROUNDED)])
        where = self.problem.data.frame.outward(tops[0])
        lower = upper - max(heights[0], _NEGLIGIBLE * gap) - rounding
        return Certificate(upper, lower, where, False, rounding), coverage, tops, heights

    def glance(self, psi: FloatArray, masses: FloatArray) -> Certificate:
        """A proven, poor certificate without a search: c(y) <= sum_i rho_i exp(-min H_i) / Z_i at every y.

        `where` is the point of largest share in this sum. An energy that is not a Bregman divergence has no known
        minimum, so that the lower bound is minus infinity.
        """
        found = self.passed(psi, masses)
        coverage, upper = self._coverage(found)
        highest = coverage.log_shares - self.least_energies
        bound, place = self.trivial_bound(coverage), self.x[highest.argmax()]
        of_log_Z = coverage.rounding_of_shares
        rounding = float(self.rho @ of_log_Z + np.max(of_log_Z) + 8 * _EPS * (1 + abs(upper)))
        where = self.problem.data.frame.outward(place)
        return Certificate(upper, upper - bound - rounding, where, rounding <= bound < np.inf, rounding)

    def trivial_bound(self, coverage: Coverage) -> float:
        """log sum_i rho_i exp(-min H_i) / Z_i, or 0 if it is below."""
        return max(float(logsumexp(coverage.log_shares - self.least_energies)), 0.0)

    @cached_property
    def least_energies(self) -> FloatArray:
        """The energy of every point where it is its own reconstruction, (N,); minus infinity if that is no minimum."""
        objective, block = self.problem.framed, self.block
        if objective.quadratic is not None:
            return np.zeros(len(block.rho))
        if not self.problem.bregman:
            return np.full(len(block.rho), -np.inf)
        v, b = objective.readout(block.x)
        return np.asarray(block.offset(objective) - b - (block.phi * v).sum(axis=1))

    def starts(self, psi: FloatArray, found: Passed, log_shares: FloatArray, quick: bool = False) -> FloatArray:
        """Points (m, D) from which maxima of c are sought: reconstructions, data, and means of groups of both.

        No code of these points is better than the bound: if p has the masses p_a at points y_a, then
        F(p) >= F - log sum_a p_a c(y_a) (T14), so that a bound below the largest c(y_a) holds for it. A quick look, and
        one at very many data, take some of the data only, among them those that the code serves worst.
        """
        mass = found.mass
        alive = mass > 0
        means = found.sums[alive] / mass[alive, None]
        a_start = len(self.x) * (self.block.phi.shape[1] + 8)
        some = self._some(log_shares, 2 * _QUICK if quick else max(MAX_CLIMBERS, _WORK // a_start))
        if quick:
            return np.concatenate([psi, some, self.group_means[-_QUICK:], means])
        return np.concatenate([psi, some, self.group_means, means, group_means(means, mass[alive])])

    def _some(self, log_shares: FloatArray, number: int) -> FloatArray:
        """All data, or so many (n, D) at even distances, and as many that the code serves worst."""
        if len(self.x) <= number:
            return self.x
        even = np.linspace(0, len(self.x), number, endpoint=False).astype(np.intp)
        return self.x[np.union1d(even, np.argsort(-log_shares, kind="stable")[:number])]

    def rounding(self, coverage: Coverage, upper: float, points: FloatArray) -> float:
        """Rounding error of F and of log sup c, which is attained at one of some points (m, D), in nats."""
        of_F = self.rho @ coverage.rounding_of_shares + 8 * _EPS * (1 + abs(upper))
        return float(of_F + coverage.rounding(points).max())

    def rounding_of_log_partition(self, found: Passed) -> FloatArray:
        """Rounding errors of log Z (N,), in nats."""
        of_energies = rounding_of_energies(self.block, self.problem.framed, found.energies[:, None])[:, 0]
        return np.asarray(of_energies + 8 * _EPS * (1 + np.abs(found.log_partition)))

    def proven(self, certificate: Certificate, coverage: Coverage, peaks: FloatArray, accuracy: float) -> Certificate:
        """The certificate with a proven bound, if branch and bound finds one (T14)."""
        framed = self.problem.framed
        if not is_provable(framed):
            return certificate
        trivial = self.trivial_bound(coverage)
        accuracy += 2 * certificate.rounding
        bound, top = (trivial, peaks[0]) if trivial <= accuracy else coverage.bound(self.x, peaks, accuracy)
        if not np.isfinite(bound):
            return certificate
        bound, rounding = max(bound, 0.0), certificate.rounding
        where = self.problem.data.frame.outward(top)
        return Certificate(certificate.upper, certificate.upper - bound - rounding, where, rounding <= bound, rounding)


def is_provable(objective: FramedObjective) -> bool:
    """Whether branch and bound is tried for a supremum of the coverage."""
    return objective.quadratic is not None and objective.stiffness <= _MAX_STIFFNESS


def collapsed_coverage(problem: Problem) -> tuple[Coverage, Block, FloatArray]:
    """The coverage of the collapsed solution, the data, and points (m, D) from which its maxima are sought."""
    data = DataPasses(problem)
    psi = problem.collapsed[None]
    return data.coverage(psi, np.ones(1))[0], data.block, np.concatenate([psi, data.x, data.group_means])
