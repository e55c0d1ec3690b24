"""Coverage c(y) = sum_i rho_i exp(-H(x_i, y)) / Z_i of a solution: where one more reconstruction would help (T14).

At a tile c = m_a / pi_a. Its supremum over all y bounds the distance to the global optimum from above, for
F(p) - F(p*) <= log sup c for any mixture p of reconstructions, by the concavity of log Z in p.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from ._blas import single_threaded_blas
from ._checks import FloatArray
from .inner import minimise
from .objectives import Objective
from .sites import coincident

_ENTRIES = 2**22  # of a block of the matrix of points and data
_STARTS = 2000  # data points from which maxima are looked for, those of largest coverage
_CLIMBERS = 256  # of these, how many go all the way, after
_SHIFTS = 12  # steps of mean shift
_STEP = 1e-6  # of differences of coordinates
_BOXES = 2**22  # boxes after which branch and bound gives up


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

    objective: Objective
    phi: FloatArray
    log_shares: FloatArray

    def __call__(self, psi: FloatArray) -> FloatArray:
        """log c of points (n, D), (n,)."""
        return np.concatenate([logsumexp(logits, axis=1) for logits in self._blocks(psi)])

    def means(self, psi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log c (n,), and the means of phi (n, S) that each point sees."""
        values, means = [], []
        for logits in self._blocks(psi):
            top = logits.max(axis=1, keepdims=True)
            u = np.exp(logits - top)
            total = u.sum(axis=1, keepdims=True)
            values.append((top + np.log(total))[:, 0])
            means.append((u @ self.phi) / total)
        return np.concatenate(values), np.concatenate(means)

    def _blocks(self, psi: FloatArray) -> Iterator[FloatArray]:
        """Logits (rows, N), a block of points at a time."""
        v, b = self.objective.readout(psi)
        rows = max(1, _ENTRIES // len(self.phi))
        for i in range(0, len(psi), rows):
            yield v[i : i + rows] @ self.phi.T + b[i : i + rows, None] + self.log_shares

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
        psi = psi[np.argsort(-self(psi), kind="stable")[:_CLIMBERS]]

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
            u = minimise(value, gradient, np.asarray(objective.coordinates(psi)), objective.stiffness)
        psi = self._distinct(np.asarray(objective.reconstructions(u)))
        heights = self(psi)
        order = np.argsort(-heights, kind="stable")
        return psi[order], heights[order]

    def _distinct(self, psi: FloatArray) -> FloatArray:
        """One of every group closer than a thousandth of the resolution."""
        group = coincident(psi, 1e-3 * self.objective.stiffness**-0.5)
        return psi[np.unique(group, return_index=True)[1]]

    def bound(self, points: FloatArray, height: float, accuracy: float) -> float:
        """A number that log c exceeds nowhere, at most `height` and the accuracy, by branch and bound (T14).

        log c + lambda ||y - y_0||^2 is convex: on a box of centre y_0 and half-diagonal r, log c is at most its largest
        value at the corners and lambda r^2. Maxima lie in the convex hull of the data, whose box is halved in every
        direction until no part can exceed the accuracy. Infinity where that takes too many.
        """
        lam = self.objective.stiffness / 2
        low, high = points.min(axis=0), points.max(axis=0)
        dim = points.shape[1]
        corners = np.stack(np.meshgrid(*[[-1.0, 1.0]] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
        half = (high - low) / 2
        centres, count = ((low + high) / 2)[None], 0
        while len(centres):
            count += len(centres)
            if count > _BOXES:
                return np.inf
            at_corners = self((centres[:, None] + half * corners).reshape(-1, dim)).reshape(len(centres), -1)
            height = max(height, float(at_corners.max()))
            open_ = at_corners.max(axis=1) + lam * half @ half > height + accuracy
            half = half / 2
            centres = (centres[open_][:, None] + half * corners).reshape(-1, dim)
        return height + accuracy
