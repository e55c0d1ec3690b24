"""HeldOut: rows that codes have not seen, and the bounds of R(D) of the source that they give (T24)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple, cast

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, ndtri

from .. import equations
from .._utils import deadline, memory
from .._utils.arrays import FloatArray
from .._utils.checks import check_data, check_number, check_seed
from ..data import signature
from ..data.prepared import Block
from ..data.rows import check_reach
from ..objectives.base import FramedObjective
from ..objectives.elbo import ELBO
from ..problems.problem import Problem
from .coverage import Coverage
from .data_passes import is_provable
from .optimum import CertifiedFixedPoint
from .population import PopulationBounds

_LEAST_ROWS = 100
_SHARE = 5  # one held-out row in so many chooses the dual functions
_SMOOTHINGS = np.array([0.0, 0.1, 0.2, 0.4, 0.8])  # variances by which a code is smoothed, in units of theta
_QUANTILES = np.array([0.001, 0.002, 0.005, 0.01, 0.02, 0.05])  # of Z on the rows that choose: values of its floor
_TRIALS = 1000  # points at which the supremum is sought, for every choice
_STARTS = 256  # points, those of largest coverage, from which the supremum is sought by ascent
_ACCURACY = 1e-3  # of a proven supremum, in nats


class _Ends(NamedTuple):
    """What the held-out rows say about one temperature; means have their standard errors beside them."""

    multiplier: float
    fitted: float
    lower: float
    upper: float
    rigorous: bool
    distortion: tuple[float, float]
    rate: tuple[float, float]


@dataclass(eq=False)
class HeldOut:
    """Held-out rows in the frame of a problem, and the bounds that they gave so far.

    Attributes
    ----------
    problem : Problem
        The problem of the rows to which the codes are fitted.
    tuning, rest : (m, D) and (M, D) arrays
        The rows that choose the dual functions, and the others.
    confidence : float
        Of every end.
    """

    problem: Problem
    tuning: FloatArray
    rest: FloatArray
    confidence: float
    found: list[_Ends] = field(default_factory=list)

    @classmethod
    def of(cls, problem: Problem, rows: Any, confidence: float, seed: int) -> HeldOut:
        """Check held-out rows and divide them by chance."""
        confidence = check_number(confidence, "confidence", "at least 0.5 and below 1", lambda share: 0.5 <= share < 1)
        seed = check_seed(seed)
        if cast(ELBO, problem.objective).likelihood != "gaussian":
            raise ValueError("held_out wants a Gaussian objective: bounds of the source are of the squared error")
        rows, dim = check_data(rows, "held_out"), problem.data.rows.dim
        if rows.shape[1] != dim:
            raise ValueError(f"held_out must have {dim} dimensions like x, got {rows.shape[1]}")
        if len(rows) < _LEAST_ROWS:
            raise ValueError(f"held_out must have at least {_LEAST_ROWS} rows, got {len(rows)}: hold out more of x")
        check_reach(rows, problem.data.frame, "held_out")
        rows = problem.data.frame.inward(np.asarray(rows, dtype=np.float64))
        block = problem.data.whole()
        if len(block.rho) == len(rows) and not signature.difference(_signature(rows), signature.of(block.x, block.rho)):
            raise ValueError("held_out must be other rows than x, got the same: divide the rows before the call")
        order = np.random.default_rng(seed).permutation(len(rows))
        count = len(rows) // _SHARE
        return cls(problem, rows[order[:count]], rows[order[count:]], confidence)

    def add(self, solution: CertifiedFixedPoint) -> None:
        """Bound F of the source at the temperature of a solution, whose code must not have seen the held-out rows."""
        code = _Code.of(self.problem, solution)
        rows = np.concatenate([self.tuning, self.rest])
        log_Z, energies = code.evaluated(rows)
        z = float(ndtri(self.confidence))
        value, error = _mean(-log_Z)
        dual = code.dual(self.tuning, z / np.sqrt(len(self.rest)))
        lower, rigorous = dual.lower_end(self.rest, z)
        multiplier = cast(ELBO, solution.objective).multiplier
        self.found.append(
            _Ends(
                multiplier=multiplier,
                fitted=solution.free_energy,
                lower=max(lower, 0.0),
                upper=value + z * error,
                rigorous=rigorous and solution.certificate.rounding <= _ACCURACY,
                distortion=_mean(energies / multiplier),
                rate=_mean(-log_Z - energies),
            )
        )

    @property
    def bounds(self) -> PopulationBounds | None:
        """The bounds at all temperatures so far, if there is one."""
        if not self.found:
            return None
        names = ("multiplier", "lower", "upper", "rigorous", "fitted")
        multipliers, lower, upper, rigorous, fitted = (np.array([getattr(e, n) for e in self.found]) for n in names)
        rows = np.concatenate([self.tuning, self.rest])
        scale = self.problem.data.frame.scale
        mean = self.problem.data.mean
        none = _mean(np.square(rows - mean).sum(axis=1) * scale**2)
        z = -float(ndtri((1 - self.confidence) / (2 * len(self.found) + 1)))  # all these ends hold together
        codes = [[none[0] + z * none[1], 0.0]]
        codes += [[value + z * error for value, error in (e.distortion, e.rate)] for e in self.found]
        return PopulationBounds(
            multipliers=multipliers,
            lower=lower,
            upper=upper,
            rigorous=rigorous,
            fitted=fitted,
            codes=np.maximum(codes, 0.0),
            confidence=self.confidence,
            tuning_rows=len(self.tuning),
            rest_rows=len(self.rest),
            signature=_signature(rows, scale),
        )


@dataclass(frozen=True, eq=False)
class _Code:
    """Reconstructions psi (k, D) in the frame with the logarithms of their masses (k,), at one temperature."""

    objective: FramedObjective
    psi: FloatArray
    log_masses: FloatArray
    backend: ModuleType

    @classmethod
    def of(cls, problem: Problem, solution: CertifiedFixedPoint) -> _Code:
        """The code of a solution."""
        psi = problem.data.frame.inward(solution.decoder)
        masses = equations.log_masses(solution.tiling.masses)
        return cls(problem.at(solution.objective).framed, psi, masses, problem.data.backend)

    @property
    def lam(self) -> float:
        """lambda in the frame."""
        return self.objective.quadratic or 0.0

    def evaluated(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """log Z and the mean energy of rows (n, D), both (n,)."""
        parts = []
        for H in self._energies(x):
            q, log_Z = equations.encoder(H, self.log_masses)
            parts.append((log_Z, (q * np.where(q > 0, H, 0.0)).sum(axis=1)))
        log_Z, energies = map(np.concatenate, zip(*parts, strict=True))
        return log_Z, energies

    def smoothed(self, x: FloatArray, smoothings: FloatArray) -> FloatArray:
        """log Z (s, n) of rows (n, D), for the code smoothed by Gaussians of the variances s theta.

        The mean of exp(-H) over psi + N(0, s theta) is (1 + s)^(-D/2) exp(-H / (1 + s)), with theta = 1 / (2 lambda).
        """
        shift = 0.5 * x.shape[1] * np.log1p(smoothings)
        parts = [
            np.stack([logsumexp(self.log_masses - H / (1 + s), axis=1) for s in smoothings]) - shift[:, None]
            for H in self._energies(x)
        ]
        return np.concatenate(parts, axis=1)

    def _energies(self, x: FloatArray) -> Iterator[FloatArray]:
        """Energies (rows, k) of one block of rows after the other; raises `TimeUp` if the deadline passes."""
        count = memory.rows_of_block(len(self.psi))
        for start in range(0, len(x), count):
            deadline.check()
            yield self.lam * cdist(x[start : start + count], self.psi, "sqeuclidean")

    def dual(self, x: FloatArray, z: float) -> _Dual:
        """The dual function with the highest lower end on rows (n, D), with z standard errors of one row.

        The supremum is sought at some of the rows, the same for all choices: those where Z is small, and others.
        """
        log_Z = self.smoothed(x, _SMOOTHINGS)
        log_floors = np.quantile(log_Z, _QUANTILES, axis=1)
        log_alpha = -np.logaddexp(0.0, log_Z - log_floors[:, :, None]).reshape(-1, len(x))
        alpha, w = np.exp(log_alpha).T, (log_alpha - log_alpha.mean(axis=1, keepdims=True)).T
        trials = _trials(x, -log_Z[0], min(_TRIALS, memory.rows_of_block(len(x))))
        kernel = np.exp(-self.lam * cdist(trials, x, "sqeuclidean"))
        c, products = kernel @ alpha / len(x), kernel @ (alpha * w) / len(x)
        squares = np.square(kernel, out=kernel) @ np.square(alpha) / len(x)
        top = c.max(axis=0)
        variances = np.square(w).mean(axis=0) - 2 * products / top + (squares - c**2) / top**2  # of log alpha - r
        heights = (c / top + z * np.sqrt(np.maximum(variances, 0.0))).max(axis=0)
        best = int((log_alpha.mean(axis=1) - np.log(top) - heights).argmax())
        smoothing = float(_SMOOTHINGS[best % len(_SMOOTHINGS)])
        return _Dual(self, smoothing, float(log_floors.ravel()[best]), float(np.log(top[best])))


@dataclass(frozen=True, eq=False)
class _Dual:
    """The dual function alpha(x) = 1 / (a (1 + Z(x) / z_0)), with Z of a smoothed code and numbers z_0 and a (T24)."""

    code: _Code
    smoothing: float
    log_floor: float
    log_a: float

    def log_alpha(self, x: FloatArray) -> FloatArray:
        """log alpha (n,) of rows (n, D)."""
        log_Z = self.code.smoothed(x, np.array([self.smoothing]))[0]
        return -np.logaddexp(0.0, log_Z - self.log_floor) - self.log_a

    def lower_end(self, x: FloatArray, z: float) -> tuple[float, bool]:
        """Lower end of F from rows (n, D) that did not choose the function, and whether its supremum is proven.

        F >= E log alpha + 1 - sup_y c(y) with c(y) = E alpha exp(-lambda |x - y|^2). The supremum over the rows is at
        least their mean at the y of the supremum of the source: the end is that of a plain mean there, or below. Its
        standard error is that of the maximum with which the end is lowest.
        """
        log_alpha, objective = self.log_alpha(x), self.code.objective
        phi, offsets = objective.statistics(x)
        weights = np.full(len(x), 1 / len(x))
        shares = log_alpha - np.log(len(x))
        coverage = Coverage(objective, Block(x, phi, offsets, weights, None), shares, self.code.backend)
        starts = np.concatenate([self.code.psi, _trials(x, log_alpha, _TRIALS)])
        starts = starts[np.argsort(-coverage(starts), kind="stable")[:_STARTS]]
        tops, heights = coverage.maxima(starts)
        bound, proven = float(heights[0]), False
        if is_provable(objective):
            limit = coverage.bound(x, tops, _ACCURACY)[0]
            bound, proven = (limit, True) if np.isfinite(limit) else (bound, False)
        ends = [mean - z * error for mean, error in self._means(x, log_alpha, tops)]
        return min(ends) - float(np.exp(bound) - np.exp(heights[0])), proven

    def _means(self, x: FloatArray, log_alpha: FloatArray, tops: FloatArray) -> Iterator[tuple[float, float]]:
        """Means of log alpha + 1 - alpha exp(-lambda |x - y|^2) at points y (m, D), with their standard errors."""
        count = memory.rows_of_block(len(x))
        for start in range(0, len(tops), count):
            deadline.check()
            H = self.code.lam * cdist(tops[start : start + count], x, "sqeuclidean")
            yield from map(_mean, log_alpha + 1 - np.exp(log_alpha - H))


def _trials(x: FloatArray, heights: FloatArray, count: int) -> FloatArray:
    """At most `count` of some rows (n, D): half of them those of largest height, the others evenly spaced."""
    high = np.argsort(-heights, kind="stable")[: count // 2]
    even = np.linspace(0, len(x), count - count // 2, endpoint=False).astype(np.intp)
    return x[np.union1d(high, even)]


def _mean(values: FloatArray) -> tuple[float, float]:
    """The mean of values (n,) and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _signature(rows: FloatArray, scale: float = 1.0) -> FloatArray:
    return signature.of(rows, np.full(len(rows), 1 / len(rows)), scale)
