"""Coverage c(y) = sum_i rho_i exp(-H(x_i, y)) / Z_i of a solution: where one more reconstruction would help (T14).

At a tile c = m_a / pi_a. The supremum of c over all y bounds the distance to the global optimum from above: any mixture
p of reconstructions has F(p) - F(p*) <= log sup c, because log Z is concave in p.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy as np
import numpy.typing as npt

from .. import equations
from .._utils import deadline, memory
from .._utils.arrays import FloatArray
from .._utils.blas import single_threaded
from ..backends import get_backend
from ..data.prepared import Block
from ..equations import is_steep
from ..latent.sites import coincident
from ..objectives.base import FramedObjective
from ..objectives.decoder_update import minimise
from ..problems.posterior import energies
from .proof import MOST_DIMENSIONS, of_flat, supremum

MAX_CLIMBERS = 2000  # number of points, those of largest coverage, from which maxima are sought
_SAME_START = 0.15  # distance, in units of the resolution, within which only the highest start climbs
_MEAN_SHIFTS = 12  # steps of mean shift before Newton's method
_SAME = 1e-3  # distance, in units of the resolution, within which two points climb to the same maximum
_MEETINGS = {
    3: 0.05,
    7: 0.01,
    _MEAN_SHIFTS - 1: _SAME,
}  # the same after so many mean shifts, when they have slowed down
_MIN_CLIMBERS = 256  # number of points that continue with Newton's method, if there are as many
_CLIMB_ENTRIES = 2**20  # for small data more points continue: their matrix with the data has at most so many entries
_BLUR = 10.0  # two maxima that are found to a slope, in root nats, are one within so many times this slope
_SLOPE_TOL = 1e-7  # slope at a maximum, in root nats; log c is too low by about its square
_MARGIN = 5.0  # factor of the expected rise of a climber
_LEAST_BEND = 0.02  # least curvature, in units of that of the energy, that is expected near a maximum
_COORDINATE_STEP = 1e-6  # step of differences of coordinates
_WORK = 2**30  # points times rows times statistics between two looks at the deadline, about 0.5 s
_SAMPLE, _PER_SHARE = 2**12, 4  # rows from which starts climb first: at least so many, and so many for each unit of c
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Coverage:
    """log c as a function of points, in the frame.

    Attributes
    ----------
    objective : FramedObjective
    block : Block
        The data, on the host.
    log_shares : (N,) array
        log rho_i - log Z_i. log c(y) is the log-sum-exp over i of log_shares_i - H(x_i, y).
    backend : module
        Backend that computes.
    rounding_of_shares : (N,) array or 0
        Bounds of the rounding errors of log Z, in nats.
    """

    objective: FramedObjective
    block: Block
    log_shares: FloatArray
    backend: ModuleType = field(default_factory=get_backend)
    rounding_of_shares: FloatArray | float = 0.0

    def __call__(self, psi: FloatArray) -> FloatArray:
        """log c (n,) of points (n, D)."""
        return self._evaluated(psi, with_means=False)[0]

    def means(self, psi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log c (n,), and the means of phi (n, S) under the responsibilities of each point."""
        return self._evaluated(psi, with_means=True)

    def _evaluated(self, psi: FloatArray, with_means: bool) -> tuple[FloatArray, FloatArray]:
        """log c (n,) and means (n, S), or (n, 0); raises `TimeUp` if the deadline passes."""
        block, parts = self.block, []
        offset, (v, b) = block.offset(self.objective), self.objective.readout(psi)
        points = max(1, _WORK // (len(self.log_shares) * (block.phi.shape[1] + 8)))
        for i in range(0, len(psi), points):
            deadline.check()
            part = slice(i, i + points)
            arguments = block.phi, offset, self.log_shares, v[part], b[part], self.objective.quadratic
            parts.append(self.backend.coverage(*arguments, with_means=with_means))
        values, means = zip(*parts, strict=True)
        return np.concatenate(values), np.concatenate(means) if with_means else psi[:, :0]

    def rounding(self, psi: FloatArray) -> FloatArray:
        """Bounds (n,) of the rounding errors of log c at points (n, D), in nats.

        The sum over the data has the rounding that `constrained_vae.backends` allows.
        """
        found = []
        rows, (v, b) = memory.rows_of_block(len(self.log_shares)), self.objective.readout(psi)
        for i in range(0, len(psi), rows):
            deadline.check()
            H = energies(self.block, self.objective, v[i : i + rows], b[i : i + rows])
            values, shares = equations.coverage(H.T, self.log_shares)
            of_terms = rounding_of_energies(self.block, self.objective, H).T + self.rounding_of_shares
            found.append((shares * of_terms).sum(axis=1) + 8 * _EPS * np.abs(values))
        return np.concatenate(found) + _EPS * (512 + len(self.log_shares) / 64)

    def maxima(
        self, starts: FloatArray, floor: float = -np.inf, slope: float = _SLOPE_TOL, climbers: int = MAX_CLIMBERS
    ) -> tuple[FloatArray, FloatArray]:
        """Local maxima (n, D) of log c, ascended from points (m, D), and their log c, the largest first.

        The ascent begins with mean shift, which is the decoder update under the responsibilities of a point, and ends
        with Newton's method. A climber ends where it meets another, and where it is not expected to exceed `floor`. The
        largest value is at least that of every start.

        Parameters
        ----------
        starts : (m, D) array
        floor : float
            Maxima below it are of no use.
        slope : float
            Slope at a maximum, in root nats; log c is too low by about its square.
        climbers : int
            Number of points, those of largest coverage, from which maxima are sought.
        """
        heights = self(starts)
        order = np.argsort(-heights, kind="stable")[: 4 * climbers]
        order = order[self._first_of_each(starts[order], _SAME_START)][:climbers]
        psi, first = starts[order], starts[order[:1]]
        known, gains = heights[order], np.full(len(psi), np.inf)
        for number in range(_MEAN_SHIFTS):
            values, means = self.means(psi)
            rises, known = values - known, values
            psi = self.objective.decoder(np.ones(len(psi)), means, psi)
            if number > 1:
                going = values + _expected(rises, gains) > floor
                psi, known, rises = psi[going], known[going], rises[going]
            gains = rises
            if not len(psi):
                break
            if number in _MEETINGS:
                kept = self._first_of_each(psi, _MEETINGS[number])
                psi, known, gains = psi[kept], known[kept], gains[kept]
        last = max(_MIN_CLIMBERS, _CLIMB_ENTRIES // len(self.log_shares))
        psi = psi[np.argsort(-known, kind="stable")[:last]]
        if len(psi):
            tops = self._climbed(psi, floor, slope)
            psi = tops[self._first_of_each(tops, max(_SAME, _BLUR * slope))] if len(tops) else tops
        psi = np.concatenate([psi, first])
        heights = self(psi)
        if len(psi) > 1 and heights[:-1].max() >= heights[-1]:  # as nearly always
            psi, heights = psi[:-1], heights[:-1]
        order = np.argsort(-heights, kind="stable")
        return psi[order], heights[order]

    def sampled(self) -> tuple[Coverage, float] | None:
        """The coverage of some of very many rows, with the standard deviation of its logarithm, or None if of no use.

        Rows are taken at even distances along the sum of their shares. With n rows c has a variance of at most c S / n,
        where S is the sum of the shares. It is of no use unless `_PER_SHARE` times S are less than half of the rows.
        """
        top = float(self.log_shares.max())
        ends = np.cumsum(np.exp(self.log_shares - top))
        log_total = top + float(np.log(ends[-1]))
        if not max(np.log(2 * _SAMPLE), np.log(2 * _PER_SHARE) + log_total) < np.log(len(ends)):
            return None
        total = float(np.exp(log_total))
        count = int(max(_SAMPLE, _PER_SHARE * total))
        rows = np.searchsorted(ends, (np.arange(count) + 0.5) * (ends[-1] / count))
        rows, counts = np.unique(np.minimum(rows, len(ends) - 1), return_counts=True)
        b = self.block
        block = Block(b.x[rows], b.phi[rows], b.s[rows], b.rho[rows], None)
        some = replace(self, block=block, log_shares=np.log(counts * (total / count)), rounding_of_shares=0.0)
        return some, (total / count) ** 0.5

    def _climbed(self, psi: FloatArray, floor: float, slope: float) -> FloatArray:
        """Maxima (n, D) by Newton's method from points (m, D), but for those that are not expected above a floor."""
        objective = self.objective

        def value(u: FloatArray, _: npt.NDArray[np.intp]) -> FloatArray:
            return -self(objective.reconstructions(u))

        def gradient(u: FloatArray, _: npt.NDArray[np.intp]) -> FloatArray:
            return self._slopes(u)[1]

        u = np.asarray(objective.coordinates(psi))
        if floor > -np.inf:
            values, slopes = self._slopes(u)
            rises = np.square(slopes).sum(axis=1) / objective.stiffness / (2 * _LEAST_BEND)
            u = u[values + rises > floor]
        if len(u):
            u = single_threaded(minimise, value, gradient, u, objective.stiffness, flat=slope)
        return np.asarray(objective.reconstructions(u))

    def _slopes(self, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log c (n,) at coordinates (n, D), and the gradient (n, D) of -log c with respect to them."""
        objective = self.objective
        y = objective.reconstructions(u)
        values, means = self.means(y)
        slope = -np.asarray(objective.pullback(y, means, np.ones(len(y))))
        if objective.quadratic is not None:
            return values, slope
        ahead, behind = (
            objective.reconstructions(u + _COORDINATE_STEP),
            objective.reconstructions(u - _COORDINATE_STEP),
        )  # coordinates are transformed one by one
        return values, slope * np.asarray(ahead - behind) / (2 * _COORDINATE_STEP)

    def _first_of_each(self, psi: FloatArray, distance: float) -> npt.NDArray[np.intp]:
        """The first of every group of points within a distance, in units of the resolution, by their numbers."""
        group = coincident(psi, distance * self.objective.stiffness**-0.5)
        return np.unique(group, return_index=True)[1]

    def bound(self, points: FloatArray, peaks: FloatArray, accuracy: float) -> tuple[float, FloatArray]:
        """An upper bound of log c, higher by `accuracy` than the largest value found, and the point (D,) of that value.

        `points` (N, D) are the data, and `peaks` (n, D) points at which log c is large. The bound includes the rounding
        of log c; `accuracy` must exceed it. It is infinite if branch and bound gives up, or is not tried in the
        space of the data (`proof`).
        """
        heights = self(peaks)
        best = int(heights.argmax())
        rounding = np.broadcast_to(self.rounding_of_shares, self.log_shares.shape)
        data = np.asarray(points, np.float64), self.log_shares, rounding, self.objective.stiffness / 2
        find = supremum if points.shape[1] <= MOST_DIMENSIONS else of_flat
        return find(*data, float(heights[best]), peaks[best], accuracy)


def _expected(rises: FloatArray, before: FloatArray) -> FloatArray:
    """How much climbers may still rise, (n,), with a margin, after rises in their last two steps.

    Near a maximum the rises of mean shift decrease by a constant factor.
    """
    ratio = np.divide(rises, before, out=np.ones_like(rises), where=before > 0).clip(0.0, 0.95)
    return _MARGIN * rises.clip(0.0) * ratio / (1 - ratio)


def rounding_of_energies(block: Block, objective: FramedObjective, energies: FloatArray) -> FloatArray:
    """Rounding errors (N, n) of energies (N, n) of the data, or of their means under an encoder, in nats.

    A point x of the frame has an error of 4 eps ||x||. It changes the squared distance d^2 by up to twice d times this
    error, and by its square; and d^2 is computed with a relative error. The linear form has an error of its terms: in a
    product of D coordinates D roundings, relative to lambda (||x||^2 + ||y||^2) <= 4 lambda ||x||^2 + 2 H.
    """
    size, energies = block.offset(objective)[:, None], np.abs(energies)  # lambda ||x||^2 of a squared distance, H
    if objective.quadratic is None:
        terms = objective.stiffness * block.phi.shape[1]  # of the linear form, which cancel
        return 16 * _EPS * (1 + np.abs(size) + energies + terms)
    dim = block.x.shape[1]
    found: FloatArray = _EPS * ((dim + 4) * energies + 8 * np.sqrt(size) * np.sqrt(energies) + 16 * _EPS * size)
    return found if is_steep(size, objective.quadratic) else found + max(16, 2 * dim + 8) * _EPS * (size + energies)
