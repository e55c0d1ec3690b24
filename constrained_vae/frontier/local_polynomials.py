"""Branch and bound of log c without the data: within a small box c is a polynomial (T14).

In a box with centre y and half sides h the kernel `polynomials` gives

    log c(y + h z) = log c(y) - lambda |h z|^2 + log(P(z) + r),    |r| <= e,    z in [-1, 1]^D.

The box is halved again and again, and P is moved to the centre of every part, P(z0 + w z) = m (1 + g.z + z.B z / 2) +
terms of higher degrees, whose sum is at most T. Let G and Q be the sums of the absolute values of the entries of g and
of B / 2, and t = (T + e) / m. Since log(1 + x) <= x - x^2 / 2 + x^3 / 3,

    log((P + r) / m) <= g.z + z.(B - g g^T) z / 2 + t + G (Q + t) + (G + Q + t)^3 / 3,

whose first terms and -lambda |h z|^2 together are a quadratic function.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import comb
from types import ModuleType

import numpy as np
import numpy.typing as npt

from .._utils import deadline
from .._utils.arrays import FloatArray
from ..backends.expansions import Polynomials, ProofRows
from .quadratics import along_axes, rises_along_axes

_DEGREE = 14
_LARGEST_HALF = 0.5  # half side of a box, in units of the resolution, from which the polynomial is of use
_MANY = 2**14  # points from which a polynomial is faster than expansions at the centres of all parts
_MOST_DIMENSIONS = 2
_LARGEST_ERROR = 0.25  # of a polynomial that is of use, in units of the accuracy
_LEAST_ACCURACY = 1e-9  # for which polynomials are of use: kernels leave out the share 2^-34 of c
_BOXES = 64  # for which the data are read at once
_WORK = 2**25  # boxes times rows between two looks at the deadline
_PARTS = 2**9  # whose polynomials are moved at once
_MOST_HALVINGS = 16
_MOST_PARTS = 2**26  # after which polynomials are of no use
_EPS = float(np.finfo(np.float64).eps)


@dataclass
class Peak:
    """The largest value of log c that is known, its point (D,), and the distance of the wanted bound above it."""

    height: float
    where: FloatArray
    accuracy: float
    parts: int = 0  # that have been bounded

    @property
    def ceiling(self) -> float:
        """The wanted bound."""
        return self.height + self.accuracy

    def rise(self, values: FloatArray, points: FloatArray) -> None:
        """Take the largest of values (n,) of log c at points (n, D), if it is larger."""
        best = int(np.nan_to_num(values, nan=-np.inf).argmax())
        if values[best] > self.height:
            self.height, self.where = float(values[best]), points[best]

    def pays(self, rows: int, lam: float, half: FloatArray) -> bool:
        """Whether polynomials of boxes with half sides (D,) are faster than expansions from so many rows."""
        if rows < _MANY or len(half) > _MOST_DIMENSIONS or self.parts > _MOST_PARTS:
            return False
        small = float(half.max()) * (2 * lam) ** 0.5 <= _LARGEST_HALF
        # The rounding of a sum does not fall with the size of the box.
        return small and self.accuracy >= max(_LEAST_ACCURACY, 2 * _EPS * rows / _LARGEST_ERROR)

    def shown(
        self,
        backend: ModuleType,
        rows: ProofRows,
        centres: FloatArray,
        half: FloatArray,
    ) -> npt.NDArray[np.bool_]:
        """For which boxes (n,) around centres (n, D) log c is shown to be at most the ceiling, which may rise."""
        N = len(rows.statistics)
        size, found = max(1, min(_BOXES, _WORK // N)), []
        for i in range(0, len(centres), size):
            deadline.check()
            part = centres[i : i + size]
            polynomials = backend.polynomials(rows, part, half, _DEGREE)
            found.append(self._shown(polynomials, part, half, rows.lam, N))
        return np.concatenate(found)

    def _shown(
        self, found: Polynomials, centres: FloatArray, half: FloatArray, lam: float, rows: int
    ) -> npt.NDArray[np.bool_]:
        """The same for boxes with polynomials, depth first."""
        energy = lam * np.square(half)
        children = np.stack(np.meshgrid(*[[-0.5, 0.5]] * len(half), indexing="ij"), axis=-1).reshape(-1, len(half))
        # Every sum has at most one rounding per row, and every term some for each factor; so has every move.
        error = found.remainders + _EPS * (1024 + rows + 128 * _DEGREE) * found.sizes
        # No part near the peak is finished if the error is larger than the accuracy; it falls with the size of the box.
        shown = error <= _LARGEST_ERROR * self.accuracy
        first = np.flatnonzero(shown)
        stack = [(0, first, np.zeros((len(first), len(half))), found.coefficients[first])]
        self.rise(found.values, centres)
        while stack:
            level, box, origin, coefficients = stack.pop()
            going = shown[box]
            box, origin, coefficients = box[going], origin[going], coefficients[going]
            if not len(box):
                continue
            self.parts += len(box)
            if level > _MOST_HALVINGS or self.parts > _MOST_PARTS:
                shown[box] = False
                continue
            deadline.check()
            values, rises = _bounded(coefficients, origin, error[box], energy, 0.5**level)
            values += found.values[box]
            # Relative to c at the centre of the box, which is below the peak, the polynomial errs by the error at most.
            self.rise(values - error[box], centres[box] + half * origin)
            slack = _EPS * (64 + rows + 16 * (np.abs(values) + np.abs(found.values[box]) + energy.sum()))
            open_ones = ~(np.logaddexp(values + rises + slack, found.rest[box]) <= self.ceiling)
            box, origin, coefficients = box[open_ones], origin[open_ones], coefficients[open_ones]
            for i in range(0, len(box), _PARTS):
                part = slice(i, i + _PARTS)
                moved = np.concatenate([_moved(coefficients[part], child) for child in children])
                places = np.concatenate([origin[part] + child * 0.5**level for child in children])
                stack.append((level + 1, np.tile(box[part], len(children)), places, moved))
        return shown


def _moved(coefficients: FloatArray, child: FloatArray) -> FloatArray:
    """Coefficients (n, p + 1, p + 1) of P(child + z / 2), for a child (D,) of entries 1/2 and -1/2."""
    moved = _shift(coefficients.shape[1], float(child[0])) @ coefficients
    return moved if len(child) == 1 else moved @ _shift(coefficients.shape[2], float(child[1])).T


@cache
def _shift(terms: int, to: float) -> FloatArray:
    """The matrix that takes coefficients of z^k to coefficients of (to + z / 2)^k."""
    powers = range(terms)
    return np.array([[comb(n, k) * to ** max(n - k, 0) * 0.5**k for n in powers] for k in powers])


def _bounded(
    coefficients: FloatArray, origin: FloatArray, error: FloatArray, energy: FloatArray, side: float
) -> tuple[FloatArray, FloatArray]:
    """log c (n,) at the centres of parts with origins (n, D) in the box, relative to its centre, and its rises (n,).

    A rise is NaN or infinite where there is no bound.
    """
    dim = origin.shape[1]
    b = coefficients
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        m = np.where(b[:, 0, 0] > 0, b[:, 0, 0], np.nan)
        if dim == 1:
            g, bends = b[:, 1] / m[:, None], 2 * b[:, 2, :, None] / m[:, None, None]
        else:
            g = np.stack([b[:, 1, 0], b[:, 0, 1]], axis=1) / m[:, None]
            xx, xy, yy = 2 * b[:, 2, 0] / m, b[:, 1, 1] / m, 2 * b[:, 0, 2] / m
            bends = np.stack([xx, xy, xy, yy], axis=1).reshape(-1, 2, 2)
        G, Q = np.abs(g).sum(axis=1), np.abs(bends).sum(axis=(1, 2)) / 2
        t = (np.abs(b).sum(axis=(1, 2)) / m - 1 - G - Q).clip(0.0) + error / m
        rest = t + G * (Q + t) + (G + Q + t) ** 3 / 3
        linear = g - 2 * energy * side * origin
        bends = bends - g[:, :, None] * g[:, None, :]
        bends[:, np.arange(dim), np.arange(dim)] -= 2 * energy * side**2
        finite = np.asarray(np.isfinite(bends).all(axis=(1, 2)))
        along, h = along_axes(linear, bends, finite)
        rises = rises_along_axes(dim**0.5 * along, dim * h) + rest  # in the ball around the part
        values = np.log(m) - (energy * origin**2).sum(axis=1)
    return values, np.where(finite, rises, np.inf)
