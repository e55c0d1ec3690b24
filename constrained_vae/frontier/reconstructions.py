"""How many reconstructions the optimum has in one dimension, between proven bounds (T14).

Let Z_i be those of a code with F and gap g >= F - F*, and Z*_i those of the optimum, which are unique. With
s_i = Z_i / Z*_i, that F* is least says sum_i rho_i s_i <= 1 (the mean of c* under the code), and -sum_i rho_i log s_i
is F - F*. So sum_i rho_i (s_i - 1 - log s_i) <= g. For any numbers a_i and every mu > A = max |a_i|, the largest
sum_i rho_i (a_i (s_i - 1) - mu (s_i - 1 - log s_i)) is sum_i rho_i (-a_i - mu log(1 - a_i / mu)), at most
sum_i rho_i a_i^2 / (2 (mu - A)). With the best mu,

    |sum_i rho_i a_i (s_i - 1)| <= A g + (2 g sum_i rho_i a_i^2)^(1/2).

With a_i = k_i(y) / Z_i and k_i = exp(-lambda (x_i - y)^2) this is the distance of c*(y) from c(y), and with derivatives
of k_i that of their derivatives.

*At most.* Reconstructions of the optimum are where c* = 1, and c* <= 1: they are double zeros of c* - 1. Between zeros
a derivative has zeros, so that with M of them in an interval the derivative of order 2 n has at least 2 M - 2 n zeros
there. If it has none, M <= n; the second derivative is the case of one maximum. If it has z, M <= n + z / 2. And no
optimum has more reconstructions than there are distinct points, because the Gaussian kernel diminishes variation:
c* - 1 is its integral over a measure with at most 2 N changes of sign, hence it has at most 2 N zeros (Karlin 1968;
Lindsay 1983).

*At least.* If no code without reconstructions in an interval is as good as F, the optimum has one there. With the c of
any other code, codes on a set have an F of at least that of this code minus the logarithm of the supremum of c on the
set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.polynomial import hermite_e, polynomial

from .._utils import deadline
from .._utils.arrays import FloatArray
from ..data.frame import Frame
from ..data.rows import blocks_of
from ..results.fixed_point import FixedPoint
from .affinities import Affinities
from .masses import best_masses
from .proof_files import scaled

_MOST_ORDER = 8  # of a derivative without zeros
_LEAST_HALF = 2.0**-11  # half of the smallest cell, in units of the resolution
_MAX_CELLS = 2**18  # after which a bound gives up
_ENTRIES = 2**21  # of a matrix of cells and points
_ACCURACY = 1e-13  # of the supremum of c, or of four times its rounding
_ROUNDS = 25  # of an exchange, after which an interval does not count
_MASSES_TOL = 1e-12  # nats, of the masses in an exchange
_STEP, _WINDOW = 0.05, 3.0  # step and half width of grids on which maxima are sought, in units of the resolution
_REACH = 6.0  # how far an interval without reconstructions reaches beyond the possible ones, in the same units
_FAR = 1e3  # where terms are 0, in the same units
_NEAR = (0.02, 0.3)  # distances, in the same units, below which two reconstructions may be one of the optimum
_UNDERFLOW = 1e-290  # what terms below the range of float64 may add, relative to their weights
_MOST_SLACK = 1e-3  # largest relative rounding of a weight
_HERMITE = [hermite_e.herme2poly(np.eye(n + 1)[n]) for n in range(_MOST_ORDER + 3)]  # coefficients of He_n
_EPS = float(np.finfo(np.float64).eps)


class Cells(NamedTuple):
    """Bounds (m,) of c and c* in cells, c at their centres, and signs of a derivative of c* and of the next one.

    A sign that is not known is 0.
    """

    upper: FloatArray
    upper_star: FloatArray
    values: FloatArray
    signs: FloatArray
    slopes: FloatArray


@dataclass(frozen=True, eq=False)
class Line:
    """A code of points on a line: its F, and its c with rounding included.

    Attributes
    ----------
    x, rho : (n,) arrays
        Distinct points, and their weights.
    psi, masses : (k,) arrays
    lam : float
        The multiplier lambda.
    """

    x: FloatArray
    rho: FloatArray
    psi: FloatArray
    masses: FloatArray
    lam: float

    @cached_property
    def energies(self) -> FloatArray:
        """H (n, k), from differences of coordinates."""
        return np.asarray(self.lam * np.square(self.x[:, None] - self.psi))

    @cached_property
    def _posterior(self) -> tuple[FloatArray, FloatArray]:
        """log Z (n,), and bounds of its rounding errors."""
        logits = np.log(self.masses) - self.energies
        top = logits.max(axis=1)
        terms = np.exp(logits - top[:, None])
        total = terms.sum(axis=1)
        energy = (terms * self.energies).sum(axis=1) / total
        log_Z = np.log(total) + top
        return log_Z, _EPS * (64 + len(self.psi) + 16 * (energy + np.abs(log_Z)))

    @cached_property
    def free_energy(self) -> tuple[float, float]:
        """F in nats, and a bound of its rounding error."""
        log_Z, rounding = self._posterior
        size = float(self.rho @ np.abs(log_Z))
        return float(-self.rho @ log_Z), float(self.rho @ rounding) + _EPS * (16 + len(self.x)) * size

    @cached_property
    def shares(self) -> FloatArray:
        """rho_i / Z_i (n,)."""
        return np.asarray(np.exp(np.log(self.rho) - self._posterior[0]))

    @cached_property
    def slack(self) -> FloatArray:
        """Relative errors (n,) of the terms of a sum with these weights, without that of an energy."""
        logs = np.abs(np.log(self.rho)) + np.abs(self._posterior[0])
        return np.asarray(self._posterior[1] + _EPS * (64 + len(self.x) + 4 * logs))

    @property
    def root(self) -> float:
        """The inverse of the resolution, (2 lambda)^(1/2)."""
        return float(np.sqrt(2 * self.lam))

    @property
    def usable(self) -> bool:
        """Whether the weights of c are in the range of float64, with few errors."""
        return bool(np.isfinite(self.shares).all() and self.slack.max() < _MOST_SLACK)

    def c(self, y: FloatArray) -> FloatArray:
        """c (m,) at points, without bounds."""
        rows = max(_ENTRIES // len(self.x), 1)
        parts = [y[i : i + rows, None] for i in range(0, len(y), rows)]
        return np.concatenate([np.exp(-self.lam * np.square(self.x - part)) @ self.shares for part in parts])

    def cells(self, low: FloatArray, high: FloatArray, order: int = 0, gap: float = 0.0) -> Cells:
        """Bounds of c, and of the c* of the optimum for a gap, in cells (m,), with the sign of a derivative of c*."""
        rows = max(_ENTRIES // len(self.x), 1)
        parts = []
        for i in range(0, len(low), rows):
            deadline.check()
            parts.append(self._some_cells(low[i : i + rows], high[i : i + rows], order, gap))
        return Cells(*map(np.concatenate, zip(*parts, strict=True)))

    def _some_cells(self, low: FloatArray, high: FloatArray, order: int, gap: float) -> Cells:
        y = (low + high) / 2
        h = self.root * ((high - low) / 2 + 4 * _EPS * np.maximum(np.abs(low), np.abs(high)))
        u = (self.root * (self.x - y[:, None])).clip(-_FAR, _FAR)  # where the terms are 0
        most = np.abs(u) + h[:, None].clip(max=1.0)  # the largest |u| in the cell, if it is narrow
        narrow = h < 1
        here, there = np.exp(-(u**2) / 2), np.exp(-np.square(np.maximum(np.abs(u) - h[:, None], 0.0)) / 2)
        relative = self.slack + 8 * _EPS * most**2  # of a wide cell: at its nearest point, too
        tiny = _UNDERFLOW * self.shares.sum()

        def value(n: int) -> FloatArray:
            """The derivative of c of order n at the centres, in units of the resolution: He_n(u) exp(-u^2 / 2)."""
            return np.asarray((polynomial.polyval(u, _HERMITE[n]) * here) @ self.shares)

        def size(n: int) -> FloatArray:
            """Bounds (m, N) of the derivative of every k_i in the cells."""
            return np.asarray(polynomial.polyval(most, np.abs(_HERMITE[n])) * there)

        def error(sizes: FloatArray) -> FloatArray:
            return np.asarray((sizes * relative) @ self.shares + tiny)

        def distance(sizes: FloatArray) -> FloatArray:
            """Of the derivative of c* from that of c."""
            a = sizes * (self.shares / self.rho)
            return np.asarray(
                (1 + 4 * _MOST_SLACK) * (a.max(axis=1) * gap + np.sqrt(2 * gap * (a**2 @ self.rho))) + tiny
            )

        sizes, c0, c1 = size(0), value(0), np.abs(value(1))
        bend = value(2) + h * (size(3) @ self.shares)
        inside = c1 < -bend * h  # the largest value of c1 t + bend t^2 / 2 for |t| <= h
        rise = np.where(inside, c1**2 / np.where(inside, -2 * bend, 1.0), c1 * h + bend * h**2 / 2)
        errors = error(sizes) + h * error(size(1)) + h**2 / 2 * error(size(2) + h[:, None] * size(3))
        upper = sizes @ self.shares + error(sizes)
        upper = np.where(narrow, np.minimum(upper, c0 + np.maximum(rise, 0.0) + errors), upper)

        def sign(n: int) -> FloatArray:
            of_order, derivative = size(n), value(n)
            margin = h * (size(n + 1) @ self.shares) + error(of_order) + distance(of_order)
            return np.asarray(np.sign(derivative) * (narrow & (np.abs(derivative) > margin)))

        signs, slopes = (sign(order), sign(order + 1)) if order else np.zeros((2, len(y)))
        return Cells(upper, upper + distance(sizes), c0 - error(sizes), signs, slopes)

    def supremum(self, parts: list[tuple[float, float]], accuracy: float) -> float:
        """An upper bound of c on intervals, and of 1, higher by the accuracy at most; infinite if it takes too long."""
        low, high = (np.array(ends) for ends in zip(*parts, strict=True))
        best, count = 1.0, 0
        while len(low):
            count += len(low)
            found = self.cells(low, high)
            best = max(best, float(found.values.max()))
            open_ones = ~(found.upper <= best + accuracy)
            low, high = _halves(low[open_ones], high[open_ones])
            if count > _MAX_CELLS or not (low < high).all():
                return np.inf
        return best + accuracy

    @property
    def accuracy(self) -> float:
        """Accuracy that a supremum of c near 1 can have."""
        return max(_ACCURACY, 8 * float(self.slack.max()))

    def possible(self, low: float, high: float, gap: float, order: int = 2) -> list[tuple[float, float, float]]:
        """Intervals in which the optimum may have reconstructions, and how many at most."""
        a, b = np.array([low]), np.array([high])
        left: list[tuple[FloatArray, FloatArray, FloatArray, FloatArray]] = []
        count = 0
        while len(a):
            count += len(a)
            found = self.cells(a, b, order, gap)
            maybe = ~(found.upper_star < 1)
            done = maybe & ((found.signs != 0) | (self.root * (b - a) < 2 * _LEAST_HALF) | (count > _MAX_CELLS))
            left.append((a[done], b[done], found.signs[done], found.slopes[done]))
            a, b = _halves(a[maybe & ~done], b[maybe & ~done])
        a, b, signs, slopes = (np.concatenate(column) for column in zip(*left, strict=True))
        if not len(a):
            return []
        sorting = np.argsort(a)
        a, b, signs, slopes = a[sorting], b[sorting], signs[sorting], slopes[sorting]
        intervals = []
        for part in np.split(np.arange(len(a)), np.flatnonzero(a[1:] != b[:-1]) + 1):
            start, end = float(a[part[0]]), float(b[part[-1]])
            number = order / 2 + float(np.floor(_zeros(signs[part], slopes[part]) / 2))
            known = [(start, end, number)]
            if number > order / 2 and order < _MOST_ORDER and count <= _MAX_CELLS:
                known = min(self.possible(start, end, gap, order + 2), known, key=lambda some: sum(n for *_, n in some))
            intervals += known
        return intervals

    def is_needed(self, a: float, b: float) -> bool:
        """Whether every code without reconstructions between a and b is proven to be worse than this one."""
        ends = float(self.x.min()), float(self.x.max())
        parts = [part for part in ((ends[0], min(a, ends[1])), (max(b, ends[0]), ends[1])) if part[0] < part[1]]
        if not parts:
            return True
        outside = (self.psi <= a) | (self.psi >= b)
        psi, masses = self.psi[outside], self.masses[outside]
        new = np.array([edge for edge in (a, b) if ends[0] < edge < ends[1]])
        F, rounding = self.free_energy
        window = np.arange(-_WINDOW, _WINDOW, _STEP) / self.root
        grid = np.unique((np.concatenate([psi, new])[:, None] + window).clip(*ends))
        grid = grid[(grid <= a) | (grid >= b)]
        for _ in range(_ROUNDS):
            deadline.check()
            psi, masses = np.append(psi, new), np.append(masses, np.zeros(len(new)))
            if not masses.any():
                masses = np.ones(len(psi))
            affinities = Affinities(self.lam * np.square(self.x[:, None] - psi), self.rho, len(psi))
            masses = best_masses(affinities, masses / masses.sum(), _MASSES_TOL)
            psi, masses = psi[masses > 0], masses[masses > 0]
            other = Line(self.x, self.rho, psi, masses, self.lam)
            margin = other.free_energy[0] - other.free_energy[1] - F - rounding
            if not (margin > 0 and other.usable):
                return False
            c = other.c(grid)
            tops = (c >= np.append(-np.inf, c[:-1])) & (c >= np.append(c[1:], -np.inf)) & (c > 1)
            if np.log(c.max()) < margin and np.log(other.supremum(parts, max(margin / 4, other.accuracy))) < margin:
                return True
            new = np.setdiff1d(grid[tops], psi)
            if not len(new):
                return False
        return False


def _halves(low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The halves of cells."""
    middle = low + (high - low) / 2
    return np.concatenate([low, middle]), np.concatenate([middle, high])


def _zeros(signs: FloatArray, slopes: FloatArray) -> float:
    """How many zeros at most a function has in a row of cells, from its signs and those of its derivative."""
    number = 0
    for part in np.split(np.arange(len(signs)), np.flatnonzero(np.diff(signs == 0)) + 1):
        if signs[part[0]] == 0:
            if slopes[part[0]] == 0 or (slopes[part] != slopes[part[0]]).any():
                return np.inf
            number += 1
    return float(number + np.count_nonzero(signs[1:] * signs[:-1] < 0))


def of_solution(solution: FixedPoint) -> tuple[int, int]:
    """Bounds of the number of reconstructions of the optimum, from a solution near it."""
    dim = solution.decoder.shape[1]
    lam = solution.objective.in_frame(Frame.identity(dim)).quadratic
    if lam is None or dim != 1:
        what = f"got {dim} dimensions" if lam is not None else "got another energy"
        raise ValueError(
            f"the number of reconstructions has bounds for the squared error of data in one dimension, {what}: "
            "count those of the solution, len(solution.distinct)"
        )
    x = np.concatenate([np.asarray(block, dtype=np.float64) for _, block in blocks_of(solution.x)])
    alive, heavy = solution.tiling.masses > 0, solution.weights > 0
    masses = solution.tiling.masses[alive].astype(np.float64)
    unit, (points, code) = scaled(x[heavy], solution.decoder[alive].astype(np.float64))
    distinct, index = np.unique(points[:, 0], return_inverse=True)
    rho = np.bincount(index, solution.weights[heavy].astype(np.float64))
    line = Line(distinct, rho / rho.sum(), code[:, 0], masses / masses.sum(), float(np.ldexp(lam, 2 * unit)))
    return bounds_of_number(line)


def bounds_of_number(line: Line) -> tuple[int, int]:
    """Bounds of the number of reconstructions of the optimum, from a code near it."""
    distinct, ends = len(line.x), (float(line.x.min()), float(line.x.max()))
    if distinct == 1 or not line.usable:
        return 1, distinct
    gap = float(np.log(line.supremum([ends], line.accuracy)))
    if not np.isfinite(gap):
        return 1, distinct
    found = line.possible(*ends, gap)
    most = min(sum(n for *_, n in found), distinct)
    inner = [(found[j][1] + found[j + 1][0]) / 2 for j in range(len(found) - 1)]
    reach, least = _REACH / line.root, 0
    for before, after, (start, end, n) in zip([-np.inf, *inner], [*inner, np.inf], found, strict=True):
        a, b = max(before, start - reach), min(after, end + reach)
        psi = np.sort(line.psi[(line.psi > a) & (line.psi < b)])
        if not len(psi):
            continue
        cuts = [
            psi[:-1][wide] + np.diff(psi)[wide] / 2 for near in _NEAR if (wide := np.diff(psi) > near / line.root).any()
        ]
        counts = [0]
        for cut in cuts if n > 1 else []:
            bounds = [a, *cut, b]
            counts.append(sum(line.is_needed(*pair) for pair in pairwise(bounds)))
        least += max(counts) or int(line.is_needed(a, b))
    return max(least, 1), max(int(most), least, 1)
