"""Passes over all data of a problem: certificates of codes, and where a reconstruction is missing (T14)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from .. import equations
from .._utils import memory
from .._utils.arrays import FloatArray
from ..data.prepared import Block
from ..objectives.base import FramedObjective
from ..problems.posterior import Tiles, energies, posterior
from ..problems.problem import Problem
from .affinities import Affinities, CompiledAffinities, near_order
from .certificate import Certificate
from .coverage import MAX_CLIMBERS, Coverage, rounding_of_energies
from .hierarchy import group_means

_MAX_STIFFNESS = 1e100  # of which the proof takes the cube
_ROUNDED = 64  # highest maxima of log c whose rounding is computed
_QUICK = 256  # climbers of a quick look, besides the reconstructions themselves
_WORK = 10 * 2**31  # starts times rows times statistics in a look that is not quick, about 10 s of one thread
_NEGLIGIBLE = 0.1  # share of a gap up to which maxima of log c are not sought
_SLOPE = 0.03  # slope at which a climb ends, relative to the root of the gap
_EPS = float(np.finfo(np.float64).eps)


class Passed(NamedTuple):
    """What the E-step of all points gives.

    Of the points (N,): log Z, the mean energy and its size, and the largest size of an energy of a reconstruction with
    a share that is not 0. Of the reconstructions: masses (k,) and weighted sums (k, D).
    """

    log_partition: FloatArray
    energies: FloatArray
    sizes: FloatArray
    highest: FloatArray
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

    def affinities(self, psi: FloatArray) -> Affinities | CompiledAffinities:
        """What `best_masses` needs of reconstructions: energies in blocks of rows, or kernels for very many."""
        objective, backend = self.problem.framed, self.problem.data.backend
        if objective.quadratic and CompiledAffinities.pay(self.x, len(psi), backend):
            return CompiledAffinities(*self._in_near_order, psi, objective.quadratic, backend)
        return Affinities(self._energies_in_blocks(psi), self.rho, len(psi))

    @cached_property
    def _in_near_order(self) -> tuple[FloatArray, FloatArray]:
        """The points and their weights, in an order in which near points are together."""
        rows = near_order(self.x, self.problem.data.backend)
        return self.x[rows], self.rho[rows]

    def _energies_in_blocks(self, psi: FloatArray) -> Callable[[], Iterator[FloatArray]]:
        """Energies in blocks of rows, anew at every call."""
        objective, rows = self.problem.framed, memory.rows_of_block(len(psi))
        v, b = objective.readout(psi)
        return lambda: (energies(block, objective, v, b) for block in self.block.pieces(rows))

    def passed(self, psi: FloatArray, masses: FloatArray) -> Passed:
        """The E-step of all points."""
        objective, parts = self.problem.framed, []
        tiles = Tiles(objective, *objective.readout(psi), equations.log_masses(masses))
        for block in self.block.pieces(memory.rows_of_block(len(psi))):
            q, log_Z, H = posterior(block, tiles)
            joint = block.rho[:, None] * q
            H = np.where(q > 0, H, 0.0)
            sizes = np.abs(H)
            of_points = log_Z, (q * H).sum(axis=1), (q * sizes).sum(axis=1), sizes.max(axis=1)
            parts.append((np.stack(of_points), block.rho @ q, joint.T @ block.x))
        per_point, masses_of, sums = zip(*parts, strict=True)
        mass, total = sum(masses_of[1:], masses_of[0]), sum(sums[1:], sums[0])
        log_Z, energy, size, highest = np.concatenate(per_point, axis=1)
        return Passed(log_Z, energy, size, highest, mass, total)

    def evaluated(self, psi: FloatArray, masses: FloatArray, scale: float) -> dict[str, float]:
        """F, E[H] and, of a squared error, the distortion, in the arithmetic of the certificate."""
        known = self.passed(psi, masses)
        energy = float(self.rho @ known.energies)
        found = {"free_energy": self._free_energy(known.log_partition), "energy": energy}
        quadratic = self.problem.framed.quadratic
        if not quadratic:  # none, or of multiplier zero
            return found
        energy = max(energy, 0.0)  # the linear form may round below 0
        return found | {"energy": energy, "distortion": energy / quadratic * scale**2}

    def free_energy(self, psi: FloatArray, masses: FloatArray) -> float:
        """F of reconstructions with masses."""
        return self._free_energy(self.passed(psi, masses).log_partition)

    def _free_energy(self, log_partition: FloatArray) -> float:
        """F by a sum in pairs, whose rounding `rounding_of_free_energy` knows."""
        return -float((self.rho * log_partition).sum())

    def coverage(self, psi: FloatArray, masses: FloatArray) -> tuple[Coverage, float]:
        """The coverage of reconstructions with masses, and their F."""
        return self._coverage(self.passed(psi, masses))

    def _coverage(self, found: Passed) -> tuple[Coverage, float]:
        log_Z = found.log_partition
        shares = np.log(self.rho) - log_Z
        rounding = self.rounding_of_log_partition(found)
        coverage = Coverage(self.problem.framed, self.block, shares, self.problem.data.backend, rounding)
        return coverage, self._free_energy(log_Z)

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
        rounding = self.rounding_of_free_energy(coverage, upper) + float(np.max(coverage.rounding_of_shares))
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
        """A bound, in nats, of the rounding of F and of log sup c, which is attained at one of some points (m, D)."""
        return self.rounding_of_free_energy(coverage, upper) + float(coverage.rounding(points).max())

    def rounding_of_free_energy(self, coverage: Coverage, upper: float) -> float:
        """Bound of the rounding error of F, in nats; the sum of the weights differs from 1."""
        of_sums = _EPS * (512 + len(self.rho) / 64) + abs(float(self.rho.sum()) - 1)
        size = float(self.rho @ np.abs(coverage.log_shares - np.log(self.rho)))
        return float(self.rho @ coverage.rounding_of_shares) + of_sums * (1 + abs(upper) + size)

    def rounding_of_log_partition(self, found: Passed) -> FloatArray:
        """Bounds of the rounding errors of log Z (N,), in nats.

        Let d_a bound the error of the energy of a reconstruction, a concave function of the energy, and d the largest
        of those with a share. Then log Z errs by at most log sum_a q*_a exp d_a, where the exact shares q* are at most
        exp(2 d) times the computed ones: by at most d, and at most exp(3 d) sum_a q_a d_a. The sum is at most d_a of
        the mean size of the energy. The rest is the rounding of a sum of K exponentials, and of masses whose sum is 1.
        """
        mean, largest = (
            rounding_of_energies(self.block, self.problem.framed, energy[:, None])[:, 0]
            for energy in (found.sizes, found.highest)
        )
        K = len(found.mass)
        of_sums = _EPS * (8 + 2 * K) * (1 + np.abs(found.log_partition) + np.log(K))
        return np.where(largest < 1, np.exp(3 * largest.clip(max=1.0)) * mean, largest) + of_sums

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
