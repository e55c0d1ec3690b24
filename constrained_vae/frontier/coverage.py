"""Coverage c(y) = sum_i rho_i exp(-H(x_i, y)) / Z_i of a solution: where one more reconstruction would help (T14).

At a tile c = m_a / pi_a. Its supremum over all y bounds the distance to the global optimum from above, for
F(p) - F(p*) <= log sup c for any mixture p of reconstructions, by the concavity of log Z in p.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from .._utils.arrays import FloatArray
from .._utils.blas import single_threaded_blas
from ..latent.sites import coincident
from ..objectives.base import FramedObjective
from ..objectives.decoder_update import minimise

_ENTRIES = 2**22  # of a block of the matrix of points and data
_STARTS = 2000  # data points from which maxima are looked for, those of largest coverage
_CLIMBERS = 256  # of these, how many at least go all the way, after _SHIFTS
_CLIMBS = 2**20  # and how many for each of so many entries of their matrix with the data
_SHIFTS = 12  # steps of mean shift
_FLAT = 1e-6  # slope of a maximum, in root nats: it is lower by about the square
_STEP = 1e-6  # of differences of coordinates
_BOXES = 2**22  # boxes after which branch and bound gives up
_LEVELS = 31  # halvings after which it does
_BALLS = 2.0 ** -np.arange(0, 12, 0.5)  # radii of balls that are tried, in units of the resolution
_LARGE = 500.0  # an exponent beyond which one is far too large


@dataclass(frozen=True, eq=False)
class Coverage:
    """log c as a function of points, in the frame.

    Attributes
    ----------
    phi : (N, S) array
        Statistics of the data.
    log_shares : (N,) array
        log rho_i - s_i - log Z_i, so that log c(y) is a log-sum-exp of these and b(y) + phi_i . v(y).
    """

    objective: FramedObjective
    phi: FloatArray
    log_shares: FloatArray

    def __call__(self, psi: FloatArray) -> FloatArray:
        """log c of points (n, D), (n,)."""
        return np.concatenate([_log_sum_exp(logits) for logits in self._blocks(psi)])

    def means(self, psi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log c (n,), and the means of phi (n, S) that each point sees."""
        values, means = [], []
        for logits in self._blocks(psi):
            values.append(_log_sum_exp(logits))  # leaves the responsibilities, not normalised
            means.append((logits @ self.phi) / logits.sum(axis=1, keepdims=True))
        return np.concatenate(values), np.concatenate(means)

    def _blocks(self, psi: FloatArray) -> Iterator[FloatArray]:
        """Logits (rows, N), a block of points at a time."""
        v, b = self.objective.readout(psi)
        for i in range(0, len(psi), self._rows):
            part = slice(i, i + self._rows)
            logits: FloatArray = v[part] @ self.phi.T
            logits += b[part, None]
            logits += self.log_shares
            yield logits

    def maxima(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Local maxima (n, D) uphill from points (m, D), and log c there, the largest first.

        Mean shift first, which is the decoder update under the weights that a point sees, then Newton's method.
        """
        heights = self(points)
        order = np.argsort(-heights, kind="stable")[:_STARTS]
        psi = points[order]
        for _ in range(_SHIFTS):
            _, means = self.means(psi)
            psi = self.objective.decoder(np.ones(len(psi)), means, psi)
        psi = self._distinct(psi)
        climbers = max(_CLIMBERS, _CLIMBS // len(self.phi))
        psi = psi[np.argsort(-self(psi), kind="stable")[:climbers]]

        objective = self.objective

        def value(u: FloatArray, _: npt.NDArray[np.intp]) -> FloatArray:
            return -self(objective.reconstructions(u))

        def gradient(u: FloatArray, _: npt.NDArray[np.intp]) -> FloatArray:
            y = objective.reconstructions(u)
            slope = -np.asarray(objective.pullback(y, self.means(y)[1], np.ones(len(y))))
            if objective.quadratic is not None:
                return slope
            ahead, behind = objective.reconstructions(u + _STEP), objective.reconstructions(u - _STEP)
            return slope * np.asarray(ahead - behind) / (2 * _STEP)  # coordinates are one by one

        with single_threaded_blas():
            u = minimise(value, gradient, np.asarray(objective.coordinates(psi)), objective.stiffness, flat=_FLAT)
        psi = self._distinct(np.asarray(objective.reconstructions(u)))
        heights = self(psi)
        order = np.argsort(-heights, kind="stable")
        return psi[order], heights[order]

    def _distinct(self, psi: FloatArray) -> FloatArray:
        """One of every group closer than a thousandth of the resolution."""
        group = coincident(psi, 1e-3 * self.objective.stiffness**-0.5)
        return psi[np.unique(group, return_index=True)[1]]

    def bound(self, points: FloatArray, peaks: FloatArray, accuracy: float) -> tuple[float, FloatArray]:
        """A number that log c exceeds nowhere, and where its largest value found is (D,); they differ by the accuracy.

        By branch and bound (T14): log c + lambda ||y - y_0||^2 is convex, so that on a box of centre y_0 and
        half-diagonal r, log c is at most its largest value at the corners and lambda r^2. Maxima lie in the convex hull
        of the data, whose box is halved in every direction until no part can exceed the accuracy, or lies in a ball
        around a peak, one of `peaks` (n, D), in which log c is concave. Infinity where that takes too many.
        """
        lam = self.objective.stiffness / 2
        heights = self(peaks)
        height, where = float(heights.max()), peaks[heights.argmax()]
        low, high = points.min(axis=0), points.max(axis=0)
        span, dim = high - low, points.shape[1]
        corners = np.stack(np.meshgrid(*[[0, 1]] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
        balls, radii = self._concave(points, peaks, height + accuracy)
        tree = cKDTree(balls) if len(balls) else None
        boxes, count = np.zeros((1, dim), dtype=np.int64), 0  # numbers of the boxes of a level along every axis
        for level in range(_LEVELS):
            side = span / 2**level
            r = np.linalg.norm(side) / 2
            if tree is not None:
                distance, nearest = tree.query(low + side * (boxes + 0.5))
                boxes = boxes[distance + r > radii[nearest]]
            count += len(boxes)
            if not len(boxes) or count > _BOXES:
                break
            at = (boxes[:, None] + corners).reshape(-1, dim)
            keys, index = np.unique(at @ (2**level + 1) ** np.arange(dim), return_index=True, return_inverse=True)[1:]
            heights = self(low + side * at[keys])
            if heights.max() > height:
                height, where = float(heights.max()), low + side * at[keys[heights.argmax()]]
            boxes = boxes[heights[index].reshape(len(boxes), -1).max(axis=1) + lam * r * r > height + accuracy]
            boxes = (2 * boxes[:, None] + corners).reshape(-1, dim)
        return height + accuracy if not len(boxes) else np.inf, where

    def _concave(self, points: FloatArray, peaks: FloatArray, ceiling: float) -> tuple[FloatArray, FloatArray]:
        """Balls around peaks, centres (k, D) and radii (k,), in which log c is concave and nowhere above the ceiling.

        There log c <= log c(y) + |g|^2 / (2 h), with the slope g at the centre y and -h a bound of the Hessian.
        """
        best, worth = np.zeros(len(peaks)), np.zeros(len(peaks))
        for rho in _BALLS * self.objective.stiffness**-0.5:
            values, slopes, bends, thirds = self._expansion(points, peaks, rho)
            h = -(bends + thirds * rho)
            # Outside, log c has fallen by about h rho^2 / 2, where boxes are closed by their size.
            better = (2 * h * (ceiling - values) >= slopes**2) & (h * rho**2 > worth)
            best[better], worth[better] = rho, (h * rho**2)[better]
        return peaks[best > 0], best[best > 0]

    def _expansion(self, points: FloatArray, y: FloatArray, rho: float) -> tuple[FloatArray, ...]:
        """At points y (n, D): log c, its slope, its largest second derivative, and a bound of its third ones, all (n,).

        The slope is its length; the bound holds up to a distance rho. They are the cumulants of 2 lambda x.d for
        the data x under their responsibilities u at y; at y + d these are exp(2 lambda x.d) times as large, and
        normalised. By Jensen, E|x - mu|^3 about the mean mu at y is at most S = sum_i u_i r_i^3 exp(2 lambda rho r_i)
        everywhere, r_i = ||x_i - mu||, and about any other mean 8 times that.
        """
        stiffness = self.objective.stiffness  # 2 lambda
        squares = (points[:, :, None] * points[:, None]).reshape(len(points), -1)
        parts = []
        for i, u in zip(range(0, len(y), self._rows), self._blocks(y), strict=True):
            part = y[i : i + self._rows]
            values = _log_sum_exp(u)
            u /= u.sum(axis=1, keepdims=True)
            mu = u @ points
            covariances = (u @ squares).reshape(len(part), y.shape[1], -1) - mu[:, :, None] * mu[:, None]
            bends = stiffness * (stiffness * np.linalg.eigvalsh(covariances)[:, -1] - 1)
            r = cdist(mu, points)
            with np.errstate(divide="ignore"):
                moments = (np.exp(np.minimum(np.log(u) + stiffness * rho * r, _LARGE)) * r**3).sum(axis=1)
            slopes = stiffness * np.linalg.norm(mu - part, axis=1)
            parts.append((values, slopes, bends, 8 * stiffness**3 * moments))
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    @property
    def _rows(self) -> int:
        """Points of a block."""
        return max(1, _ENTRIES // len(self.phi))


def _log_sum_exp(logits: FloatArray) -> FloatArray:
    """Of rows (n, N); leaves exp(logits - their largest) in their place."""
    top: FloatArray = logits.max(axis=1)
    logits -= top[:, None]
    return top + np.log(np.exp(logits, out=logits).sum(axis=1))
