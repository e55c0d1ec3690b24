"""rate_distortion(): the rate-distortion function of a data set, between certified bounds (T14), (T16), (T22)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from .._utils import tables
from .._utils.arrays import FloatArray
from .._utils.checks import (
    check_callable,
    check_non_negative,
    check_positive,
    check_time_limit,
    check_vector,
)
from .._utils.files import write_npz
from ..objectives.elbo import ELBO
from ..phases.criticality import critical_beta
from ..problems.posterior import energies
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from ..solvers.pose import check_on_failure
from ..solvers.solve import report_failure
from .optimum import CertifiedFixedPoint, collapsed_coverage, optimum
from .support_changes import SupportChange, located

_COUNT = 40  # temperatures of the default grid
_FULL = 0.95  # share of the entropy of the data at which it ends
_ROUGH = 1e-2  # gap of the solutions that look for that end
_FINE = 1e-10  # gap of those between which the support changes: a split shows at about the root of it
_NUCLEATED = 1e-12  # log c above which a second reconstruction helps
_FINEST = 1e-10  # relative accuracy of the temperature of nucleation


@dataclass(frozen=True)
class Excess:
    """How many nats a model of some rate and distortion is above the frontier.

    Attributes
    ----------
    least, most : float
        At least and at most, in nats.

    Examples
    --------
    >>> Excess(least=0.1, most=0.2).most
    0.2
    """

    least: float
    most: float


@dataclass(frozen=True, eq=False, repr=False)
class RateDistortionCurve:
    """The rate-distortion function R(D) of a data set, where it was solved, hottest first.

    Attributes
    ----------
    betas, multipliers : (n,) arrays
        Temperatures, and slopes -dR/dD = lambda.
    distortion, rate : (n,) arrays
        Of the solutions: E||x - psi||^2 in squared units of x (Bernoulli: E[-log p(x | psi)] in nats), and nats.
    lower : (n,) array
        Lower bounds of the least F = R + lambda D, in nats.
    n_sites : (n,) int array
        Reconstructions of the solutions.
    ends : (2, 2) array
        Distortion and rate where nothing is coded, and where every data point is its own reconstruction.
    events : tuple of SupportChange
        Where the support of the optimum changes, hottest first: located to the accuracy that was asked for, or by
        default to the grid, where which reconstruction went where is a guess.
    complete : bool
        False where Ctrl-C or the callback ended it early.

    Examples
    --------
    >>> curve = rate_distortion([[-1.0], [1.0]], betas=[0.9, 0.5, 0.2])
    >>> curve
    RateDistortionCurve(3 temperatures, beta 0.9 to 0.2, rate ... nats, gap at most ... nats, ... changes of support)
    >>> bool(curve.bound_below(0.0) <= curve.bound_above(0.0))  # log 2
    True
    """

    betas: FloatArray
    multipliers: FloatArray
    distortion: FloatArray
    rate: FloatArray
    lower: FloatArray
    n_sites: npt.NDArray[np.intp]
    ends: FloatArray
    events: tuple[SupportChange, ...] = ()
    complete: bool = True

    def __repr__(self) -> str:
        spans = (f"{name} {v[0]:.4g} to {v[-1]:.4g}" for name, v in (("beta", self.betas), ("rate", self.rate)))
        return (
            f"RateDistortionCurve({len(self.betas)} temperatures, {', '.join(spans)} nats, "
            f"gap at most {self.gap.max():.1e} nats, {len(self.events)} changes of support)"
        )

    def _repr_html_(self) -> str:
        return tables.as_html(repr(self), self._columns)

    @property
    def _columns(self) -> tables.Columns:
        names = ("distortion", "rate", "gap")
        own = {name: getattr(self, name) for name in names}
        return {"beta": self.betas, "multiplier": self.multipliers, **own, "n_sites": self.n_sites}

    @property
    def gap(self) -> FloatArray:
        """Nats between F and its lower bound (n,)."""
        return self.rate + self.multipliers * self.distortion - self.lower

    def bound_below(self, distortion: Any) -> FloatArray:
        """What no code of these distortions can go below, nats: the largest of F_low - lambda D, and zero."""
        D = np.asarray(distortion, dtype=np.float64)
        lines = self.lower - self.multipliers * D[..., None]
        return np.maximum(lines.max(axis=-1), 0.0)

    def bound_above(self, distortion: Any) -> FloatArray:
        """What some code reaches, nats: the convex hull of solutions and both ends; infinite below the least D."""
        points = np.concatenate([np.stack([self.distortion, self.rate], axis=1), self.ends])
        points = points[np.lexsort(points.T[::-1])]
        hull: list[FloatArray] = []
        for point in points:
            while len(hull) > 1 and _turns_up(hull[-2], hull[-1], point):
                hull.pop()
            hull.append(point)
        D, R = np.array(hull).T
        falling = np.concatenate([[True], np.diff(R) < 0])
        return np.interp(np.asarray(distortion, dtype=np.float64), D[falling], R[falling], left=np.inf)

    def excess(self, rate: float, distortion: float) -> Excess:
        """How far a model is above the frontier, in nats (T22).

        Its distortion must be that of the same data under sampled codes, its rate the KL over all latents.

        Raises
        ------
        ValueError
            If either is negative or not finite.
        """
        rate, distortion = check_non_negative(rate, "rate"), check_non_negative(distortion, "distortion")
        return Excess(float(rate - self.bound_above(distortion)), float(rate - self.bound_below(distortion)))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All of it as arrays by name; `from_arrays` makes a curve of them."""
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self) if f.name != "events"}
        arrays["event_kinds"] = np.array([e.kind for e in self.events], dtype=str)
        arrays["event_betas"] = np.array([(e.low, e.high) for e in self.events])
        arrays["event_places"] = np.array([e.where for e in self.events])
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> RateDistortionCurve:
        """The curve that `to_arrays` took apart.

        Raises
        ------
        KeyError
            If one is missing.
        """
        known = {f.name: arrays[f.name] for f in fields(cls) if f.name not in ("events", "complete")}
        events = zip(arrays["event_kinds"], arrays["event_betas"], arrays["event_places"], strict=True)
        return cls(
            **known,
            events=tuple(SupportChange(str(kind), float(low), float(high), y) for kind, (low, high), y in events),
            complete=bool(arrays["complete"]),
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write it to a .npz file; `RateDistortionCurve.load` reads it back."""
        write_npz(path, None, self.to_arrays())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> RateDistortionCurve:
        """Read what `save` wrote; ValueError if the file holds something else."""
        try:
            with np.load(path) as file:
                return cls.from_arrays(file)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} does not hold a saved RateDistortionCurve") from error


def _turns_up(a: FloatArray, b: FloatArray, c: FloatArray) -> bool:
    """Whether b lies on or above the line from a to c."""
    return bool((b[0] - a[0]) * (c[1] - a[1]) <= (c[0] - a[0]) * (b[1] - a[1]))


def rate_distortion(
    x: Any,
    betas: Any = None,
    objective: ELBO | None = None,
    *,
    gap: float = 1e-6,
    locate: float | None = None,
    weights: Any = None,
    time_limit: float = 60.0,
    backend: str = "auto",
    progress: bool = False,
    callback: Callable[[CertifiedFixedPoint], Any] | None = None,
    on_failure: str = "warn",
) -> RateDistortionCurve:
    """The rate-distortion function of the data, each point within a certified gap of the global optimum.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    betas : (n,) array_like, optional
        Temperatures; by default 40 from where a second reconstruction nucleates, `nucleation_beta`, to where the rate
        is 0.95 of the entropy of the data.
    objective : ELBO, optional
        Gaussian or Bernoulli; its beta plays no part.
    gap : float
        Nats, at every temperature.
    locate : float, optional
        Relative accuracy in beta to which the changes of the support, `.events`, are located, each by some 15 more
        solutions; two that cancel between neighbours of the grid are not seen.
    weights, backend, on_failure
        As for `global_solution`.
    time_limit : float
        Seconds at every temperature.
    progress : bool
        Show a progress bar.
    callback : callable, optional
        Called with every solution; a true return value stops.

    Returns
    -------
    RateDistortionCurve
        What had been solved, after Ctrl-C.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> curve = rate_distortion([[-1.0], [1.0]], betas=[0.9, 0.5, 0.2])
    >>> curve.excess(rate=0.7, distortion=0.083186).least > 0.1  # R(D) = log 2 - h((1 + sqrt(1 - D)) / 2) = 0.5903
    True
    """
    check_on_failure(on_failure)
    check_callable(callback, "callback")
    locate = None if locate is None else check_positive(locate, "locate")
    gap, time_limit = check_positive(gap, "gap"), check_time_limit(time_limit)
    problem = Problem.make(x, objective, weights, backend, beta=1.0, kind=ELBO)
    at = problem.objective.at

    def solved(beta: float, gap: float, start: FixedPoint | None, prove: bool = True) -> CertifiedFixedPoint:
        solution = optimum(problem.at(at(beta)), gap, time_limit, start, prove=prove)
        if solution.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return solution

    if betas is None:
        top = _nucleation(problem)
        enough = _FULL * _ends(problem)[1, 1]
        bottom, rough = top, None
        while rough is None or rough.rate < enough:
            bottom /= 2
            rough = solved(bottom, _ROUGH, rough, prove=False)
        grid: FloatArray = np.geomspace(top, bottom, _COUNT)
    else:
        grid = np.unique(check_vector(betas, "betas"))[::-1]
    solutions: list[CertifiedFixedPoint] = []
    events: list[SupportChange] = []
    fine, complete = min(gap, _FINE), False
    try:
        for beta in tqdm(grid, disable=not progress, desc="rate-distortion", unit="beta"):
            start = solutions[-1] if solutions else None
            solutions.append(solved(float(beta), gap if locate is None else fine, start))
            report_failure(solutions[-1], on_failure, stacklevel=3)
            if start is not None:
                events += located(start, solutions[-1], lambda b, s: solved(b, fine, s, prove=False), locate or np.inf)
            if callback and callback(solutions[-1]):
                break
        else:
            complete = True
    except KeyboardInterrupt:
        if not solutions or on_failure == "raise":
            raise
    lam = np.array([cast(ELBO, s.objective).multiplier for s in solutions])
    return RateDistortionCurve(
        betas=np.array([s.beta for s in solutions]),
        multipliers=lam,
        distortion=np.array([s.energy for s in solutions]) / lam,
        rate=np.array([s.rate for s in solutions]),
        lower=np.array([s.certificate.lower for s in solutions]),
        n_sites=np.array([len(s.decoder) for s in solutions], dtype=np.intp),
        ends=_ends(problem),
        events=tuple(events),
        complete=complete,
    )


def _ends(problem: Problem) -> FloatArray:
    """Distortion and rate of no code at all, and of one that names every distinct point."""
    block, objective = problem.data.whole(), problem.framed
    lam = cast(ELBO, problem.objective).multiplier
    none = block.rho @ energies(block, objective, *objective.readout(problem.data.mean[None]))[:, 0]
    own_v, own_b = objective.readout(block.x)
    every = block.rho @ (block.offset(objective) - own_b - (block.phi * own_v).sum(axis=1))
    _, index = np.unique(block.x, axis=0, return_inverse=True)
    p = np.bincount(index.ravel(), block.rho)
    entropy = max(float(-p @ np.log(p)), 0.0)
    return np.array([[float(none) / lam, 0.0], [max(float(every) / lam, 0.0), entropy]])


def nucleation_beta(x: Any, objective: ELBO | None = None, *, weights: Any = None, backend: str = "auto") -> float:
    """Temperature 1 / (2 sigma^2 lambda*) below which one reconstruction is no longer globally optimal (T16).

    There a second one nucleates with zero mass; never below `first_critical_beta`, where the collapsed solution splits
    by itself, and for almost every sample above it: in between it is metastable, and [first_critical_beta,
    nucleation_beta] is the interval of hysteresis of free masses. In three dimensions or more the supremum of c is the
    largest of the maxima that are found.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    objective : ELBO, optional
        Its beta plays no part.
    weights : (N,) array_like, optional
        Data weights, uniform by default.
    backend : {"auto", "numba", "cupy", "reference"}
        Where to compute.

    Returns
    -------
    float
        beta.

    Raises
    ------
    ValueError
        For bad input, or if all points coincide: then there is none.

    Examples
    --------
    >>> nucleation_beta([[-1.0], [1.0]], weights=[0.1, 0.9])  # 2 (1 - 2 p) / log((1 - p) / p) (theory.md section 5)
    0.728191...
    """
    return _nucleation(Problem.make(x, objective, weights, backend, kind=ELBO))


def hysteresis_interval(
    x: Any, objective: ELBO | None = None, *, weights: Any = None, backend: str = "auto"
) -> tuple[float, float]:
    """The temperatures between which the collapsed solution is stable and yet not the optimum (T13), (T16).

    Cooling, one reconstruction of all data splits at the lower one, `first_critical_beta`; on heating, free masses
    return to it at the upper one, `nucleation_beta`. They are equal where the transition is continuous.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    objective : ELBO, optional
        Its beta plays no part.
    weights : (N,) array_like, optional
        Data weights, uniform by default.
    backend : {"auto", "numba", "cupy", "reference"}
        Where to compute.

    Returns
    -------
    (float, float)
        The lower and the upper beta.

    Raises
    ------
    ValueError
        For bad input, or if all points coincide.

    Examples
    --------
    >>> hysteresis_interval([[-1.0], [1.0]], weights=[0.1, 0.9])
    (0.36, 0.728191...)
    """
    problem = Problem.make(x, objective, weights, backend, kind=ELBO)
    return critical_beta(problem), _nucleation(problem)


def _nucleation(problem: Problem) -> float:
    low = critical_beta(problem)
    if not low > 0:
        raise ValueError("all points coincide, so that one reconstruction is always optimal")

    points: FloatArray | None = None

    def nucleated(beta: float) -> bool:
        """Whether c exceeds 1 uphill from all data, or, once that is known, from where it then had its maxima."""
        nonlocal points
        coverage, data = collapsed_coverage(problem.at(problem.objective.at(beta)))
        tops, heights = coverage.maxima(data if points is None else points)
        exceeds = bool(heights[0] > _NUCLEATED)
        if exceeds:
            points = tops
        return exceeds

    high = 1.01 * low
    if not nucleated(high):
        low, high = low, high
    else:
        while nucleated(high):
            low, high = high, 1.5 * high
    while high > low * (1 + _FINEST):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if nucleated(middle) else (low, middle)
    return float(np.sqrt(low * high))
