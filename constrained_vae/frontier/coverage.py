"""Coverage c(y) = sum_i rho_i exp(-H(x_i, y)) / Z_i of a solution: where one more reconstruction would help (T14).

At a tile c = m_a / pi_a. The supremum of c over all y bounds the distance to the global optimum from above: any mixture
p of reconstructions has F(p) - F(p*) <= log sup c, because log Z is concave in p.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from .._utils import deadline, memory
from .._utils.arrays import FloatArray
from .._utils.blas import single_threaded
from ..data.prepared import Block
from ..equations import is_steep
from ..latent.sites import coincident
from ..objectives.base import FramedObjective
from ..objectives.decoder_update import minimise

_MAX_STARTS = 2000  # number of points, those of largest coverage, from which maxima are sought
_MEAN_SHIFTS = 12  # steps of mean shift before Newton's method
_SAME = 1e-3  # distance, in units of the resolution, within which two points climb to the same maximum
_MEETINGS = {
    3: 0.05,
    7: 0.01,
    _MEAN_SHIFTS - 1: _SAME,
}  # the same after so many mean shifts, when they have slowed down
_MIN_CLIMBERS = 256  # number of points that continue with Newton's method, if there are as many
_CLIMB_ENTRIES = 2**20  # for small data more points continue: their matrix with the data has at most so many entries
_SLOPE_TOL = 1e-7  # slope at a maximum, in root nats; log c is too low by about its square
_COORDINATE_STEP = 1e-6  # step of differences of coordinates
_MAX_BOXES = 2**22  # number of boxes after which branch and bound gives up
_BATCH = 2**14  # number of boxes that are evaluated at a time
_MAX_HALVINGS = 60  # number of halvings, of all axes together, after which branch and bound gives up
_BALL_RADII = 2.0 ** -np.arange(0, 12, 0.5)  # in units of the resolution
_MAX_EXPONENT = 500.0  # a bound with a larger exponent is of no use
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
    """

    objective: FramedObjective
    block: Block
    log_shares: FloatArray

    def __call__(self, psi: FloatArray) -> FloatArray:
        """log c (n,) of points (n, D)."""
        return np.concatenate([_log_sum_exp(logits) for logits in self._blocks(psi)])

    def means(self, psi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log c (n,), and the means of phi (n, S) under the responsibilities of each point."""
        values, means = [], []
        for logits in self._blocks(psi):
            values.append(_log_sum_exp(logits))  # the logits are now the responsibilities, not normalised
            means.append((logits @ self.block.phi) / logits.sum(axis=1, keepdims=True))
        return np.concatenate(values), np.concatenate(means)

    def rounding(self, psi: FloatArray, of_log_z: FloatArray) -> FloatArray:
        """Rounding errors (n,) of log c at points (n, D), from those of log Z_i (N,), in nats."""
        found = []
        for logits in self._blocks(psi):
            H = np.maximum(self.log_shares - logits, 0.0)
            _log_sum_exp(logits)
            of_energies = rounding_of_energies(self.block, self.objective, H.T).T
            found.append((logits * (of_energies + of_log_z)).sum(axis=1) / logits.sum(axis=1))
        return np.concatenate(found)

    def _blocks(self, psi: FloatArray) -> Iterator[FloatArray]:
        """Logits (rows, N) of one block of points after the other, by differences where `energies` takes them.

        Raises `TimeUp` if the deadline passes.
        """
        rows = memory.rows_of_block(len(self.log_shares))
        offset, (v, b) = self.block.offset(self.objective), self.objective.readout(psi)
        steep = is_steep(offset, self.objective.quadratic)
        shares = self.log_shares if steep else self.log_shares - offset
        for i in range(0, len(psi), rows):
            deadline.check()
            part = slice(i, i + rows)
            if steep:
                logits: FloatArray = cdist(psi[part], self.block.phi, "sqeuclidean")
                logits *= -(self.objective.quadratic or 0.0)
            else:
                logits = v[part] @ self.block.phi.T
                logits += b[part, None]
            logits += shares
            yield logits

    def maxima(self, starts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Local maxima (n, D) of log c, ascended from points (m, D), and their log c, the largest first.

        The ascent begins with mean shift, which is the decoder update under the responsibilities of a point, and ends
        with Newton's method. The largest value is at least that of every start.
        """
        heights = self(starts)
        order = np.argsort(-heights, kind="stable")[:_MAX_STARTS]
        psi, first = starts[order], starts[order[:1]]
        for number in range(_MEAN_SHIFTS):
            _, means = self.means(psi)
            psi = self.objective.decoder(np.ones(len(psi)), means, psi)
            if number in _MEETINGS:
                psi = self._distinct(psi, _MEETINGS[number])
        climbers = max(_MIN_CLIMBERS, _CLIMB_ENTRIES // len(self.log_shares))
        psi = psi[np.argsort(-self(psi), kind="stable")[:climbers]]

        objective = self.objective

        def value(u: FloatArray, _: npt.NDArray[np.intp]) -> FloatArray:
            return -self(objective.reconstructions(u))

        def gradient(u: FloatArray, _: npt.NDArray[np.intp]) -> FloatArray:
            y = objective.reconstructions(u)
            slope = -np.asarray(objective.pullback(y, self.means(y)[1], np.ones(len(y))))
            if objective.quadratic is not None:
                return slope
            ahead, behind = (
                objective.reconstructions(u + _COORDINATE_STEP),
                objective.reconstructions(u - _COORDINATE_STEP),
            )
            return slope * np.asarray(ahead - behind) / (2 * _COORDINATE_STEP)  # coordinates are transformed one by one

        start = np.asarray(objective.coordinates(psi))
        u = single_threaded(minimise, value, gradient, start, objective.stiffness, flat=_SLOPE_TOL)
        psi = np.concatenate([self._distinct(np.asarray(objective.reconstructions(u)), _SAME), first])
        heights = self(psi)
        if heights[:-1].max() >= heights[-1]:  # as nearly always
            psi, heights = psi[:-1], heights[:-1]
        order = np.argsort(-heights, kind="stable")
        return psi[order], heights[order]

    def _distinct(self, psi: FloatArray, distance: float) -> FloatArray:
        """One point, the first, of every group of points within a distance, in units of the resolution."""
        group = coincident(psi, distance * self.objective.stiffness**-0.5)
        return psi[np.unique(group, return_index=True)[1]]

    def bound(self, points: FloatArray, peaks: FloatArray, accuracy: float) -> tuple[float, FloatArray]:
        """An upper bound of log c, higher by `accuracy` than the largest value found, and the point (D,) of that value.

        The method is branch and bound (T14). log c + lambda ||y - y_0||^2 is convex, so that on a box with centre y_0
        and half-diagonal r, log c is at most its largest value at the corners plus lambda r^2. Maxima lie in the convex
        hull of the data. The box of the data is halved along its longest sides. A part is finished if it cannot exceed
        the bound, or if it lies in a ball around one of the `peaks` (n, D) in which log c is concave. The bound is
        infinite if there are too many parts.
        """
        lam = self.objective.stiffness / 2
        heights = self(peaks)
        height, where = float(heights.max()), peaks[heights.argmax()]
        low, high = points.min(axis=0), points.max(axis=0)
        span, dim = high - low, points.shape[1]
        corners = _corners(np.ones(dim, dtype=bool))
        balls, radii = self._concave(points, peaks, height + accuracy)
        tree = cKDTree(balls) if len(balls) else None
        boxes, count = np.zeros((1, dim), dtype=np.int64), 0  # indices of the boxes of a level along every axis
        halvings = np.zeros(dim, dtype=np.int64)
        while halvings.sum() <= _MAX_HALVINGS:
            side = span / 2**halvings
            r = np.linalg.norm(side) / 2
            if tree is not None:
                outside = []
                for part in _batches(boxes):
                    deadline.check()
                    distance, nearest = tree.query(low + side * (part + 0.5))
                    outside.append(distance + r > radii[nearest])
                boxes = boxes[np.concatenate(outside)]
            count += len(boxes)
            if not len(boxes) or count > _MAX_BOXES:
                break
            stride = np.cumprod(np.append(1, 2 ** halvings[:-1] + 1))
            tops = []  # largest value at the corners of every box
            for part in _batches(boxes):
                at = (part[:, None] + corners).reshape(-1, dim)
                keys, index = np.unique(at @ stride, return_index=True, return_inverse=True)[1:]
                heights = self(low + side * at[keys])
                if heights.max() > height:
                    height, where = float(heights.max()), low + side * at[keys[heights.argmax()]]
                tops.append(heights[index].reshape(len(part), -1).max(axis=1))
            boxes = boxes[np.concatenate(tops) + lam * r * r > height + accuracy]
            long = side > side.max() / 2  # so that a box never becomes much longer than wide
            boxes = ((1 + long) * boxes[:, None] + _corners(long)).reshape(-1, dim)
            halvings += long
        return height + accuracy if not len(boxes) else np.inf, where

    def _concave(self, points: FloatArray, peaks: FloatArray, ceiling: float) -> tuple[FloatArray, FloatArray]:
        """Balls around peaks, centres (k, D) and radii (k,), in which log c is concave and at most the ceiling.

        In such a ball log c <= log c(y) + |g|^2 / (2 h), with the slope g at the centre y and the bound -h of the
        Hessian.
        """
        best, worth = np.zeros(len(peaks)), np.zeros(len(peaks))
        for rho in _BALL_RADII * self.objective.stiffness**-0.5:
            values, slopes, bends, thirds = self._expansion(points, peaks, rho)
            h = -(bends + thirds * rho)
            # Outside the ball log c is lower by about h rho^2 / 2, so that boxes are finished by their size.
            better = (2 * h * (ceiling - values) >= slopes**2) & (h * rho**2 > worth)
            best[better], worth[better] = rho, (h * rho**2)[better]
        return peaks[best > 0], best[best > 0]

    def _expansion(self, points: FloatArray, y: FloatArray, rho: float) -> tuple[FloatArray, ...]:
        """Expansion of log c at points y (n, D): value, slope, largest second derivative, bound of third derivatives.

        All are (n,) arrays; the slope is the length of the gradient, and the bound holds up to a distance rho. The
        derivatives are cumulants of 2 lambda x.d for the data x under their responsibilities u at y. At y + d the
        responsibilities are u exp(2 lambda x.d), normalised. By Jensen's inequality E|x - mu|^3 about the mean mu at y
        is at most S = sum_i u_i r_i^3 exp(2 lambda rho r_i), r_i = ||x_i - mu||, in the whole ball. About any other
        mean it is at most 8 S.
        """
        stiffness = self.objective.stiffness  # 2 lambda
        parts, rows, dim = [], memory.rows_of_block(len(points)), points.shape[1]
        for i, u in zip(range(0, len(y), rows), self._blocks(y), strict=True):
            part = y[i : i + rows]
            values = _log_sum_exp(u)
            u /= u.sum(axis=1, keepdims=True)
            # Deviations are taken from y itself, since a narrow cluster far from the origin would lose its digits.
            deviations = [points[:, d] - part[:, d, None] for d in range(dim)]
            shift = np.stack([(u * r).sum(axis=1) for r in deviations], axis=1)
            covariances = np.empty((len(part), dim, dim))
            for d, e in np.ndindex(dim, dim):
                covariances[:, d, e] = (u * deviations[d] * deviations[e]).sum(axis=1) - shift[:, d] * shift[:, e]
            bends = stiffness * (stiffness * np.linalg.eigvalsh(covariances)[:, -1] - 1)
            r = cdist(part + shift, points)
            with np.errstate(divide="ignore"):
                moments = (np.exp(np.minimum(np.log(u) + stiffness * rho * r, _MAX_EXPONENT)) * r**3).sum(axis=1)
            slopes = stiffness * np.linalg.norm(shift, axis=1)
            parts.append((values, slopes, bends, 8 * stiffness**3 * moments))
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _batches(boxes: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Boxes (n, D) in batches, of which there is at least one; between them a proof looks at the deadline."""
    return [boxes[i : i + _BATCH] for i in range(0, max(len(boxes), 1), _BATCH)]


def _corners(axes: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Corners (n, D) of the unit cube that differ along some axes only."""
    grid = np.meshgrid(*[np.arange(1 + axis) for axis in axes], indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, len(axes))


def rounding_of_energies(block: Block, objective: FramedObjective, energies: FloatArray) -> FloatArray:
    """Rounding errors (N, n) of energies (N, n) of the data, or of their means under an encoder, in nats.

    A point x of the frame has an error of 4 eps ||x||. It changes the squared distance d^2 by up to twice d times this
    error, and by its square; and d^2 is computed with a relative error. The linear form has an error of its terms.
    """
    size, energies = block.offset(objective)[:, None], np.abs(energies)  # lambda ||x||^2 of a squared distance, H
    if objective.quadratic is None:
        terms = objective.stiffness * block.phi.shape[1]  # of the linear form, which cancel
        return 16 * _EPS * (1 + np.abs(size) + energies + terms)
    found: FloatArray = _EPS * (
        (block.x.shape[1] + 4) * energies + 8 * np.sqrt(size) * np.sqrt(energies) + 16 * _EPS * size
    )
    return found if is_steep(size, objective.quadratic) else found + 16 * _EPS * (size + energies)


def _log_sum_exp(logits: FloatArray) -> FloatArray:
    """Log-sum-exp (n,) of the rows of logits (n, N), which are overwritten by exp(logits - their maximum)."""
    top: FloatArray = logits.max(axis=1)
    logits -= top[:, None]
    return top + np.log(np.exp(logits, out=logits).sum(axis=1))
