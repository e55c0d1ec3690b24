"""rate_distortion(): the rate-distortion function of a data set, between certified bounds (T14), (T22)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from .._utils import deadline, tables
from .._utils.arrays import FloatArray
from .._utils.checks import (
    asks_to_stop,
    check_callable,
    check_count,
    check_flag,
    check_non_negative,
    check_number,
    check_time_limit,
    check_tolerance,
    check_vector,
    finite_array,
    shown,
)
from .._utils.files import FORMAT, check_contents, entry, naming, read_npz
from .._utils.interrupts import finished
from .._utils.writing import write_npz
from ..data.rows import RowBlocks
from ..objectives.elbo import ELBO
from ..phases.criticality import critical_beta
from ..problems.posterior import energies
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint, NotConvergedError
from ..results.status import NotConvergedWarning, Status
from ..solvers.pose import check_on_failure
from ..solvers.solve import report_failure
from .certificate import DataPasses
from .nucleation import nucleation
from .optimum import CertifiedFixedPoint, optimum
from .support_changes import KINDS, SupportChange, located

_GRID_SIZE = 40  # number of temperatures of the default grid
_ENTROPY_SHARE = 0.95  # the default grid ends where the rate is this share of the entropy of the data
_GRID_END_GAP = 1e-2  # gap, in nats, of the solutions that find the end of the default grid
_KIND = "RateDistortionCurve"  # of the files
_ARRAYS = ("betas", "multipliers", "distortion", "rate", "lower", "n_sites", "ends", "event_betas", "event_places")
_BOUNDS = ("rigorous", "rounding")  # arrays of which a curve that knows nothing of them has zeros
_SAME = 1e-6  # relative difference, in nats, up to which sums of rounded terms count as the same
_TINY = float(np.finfo(np.float64).tiny)
_SUPPORT_GAP = 1e-10  # gap, in nats, of solutions whose supports are compared: a split shows at about its square root


@dataclass(frozen=True, repr=False)
class Excess:
    """Bounds of the distance of a model from the frontier, in nats of the rate.

    Attributes
    ----------
    least, most : float
        Lower and upper bound, in nats.
    rigorous : bool
        Whether both are proven. Otherwise `most` is heuristic: it is too small if the search for the supremum of c
        (T14) missed the highest maximum.

    Examples
    --------
    >>> Excess(least=0.1, most=0.2, rigorous=False)
    Excess(least=0.1, most=0.2 nats, heuristic)
    """

    least: float
    most: float
    rigorous: bool = False

    def __repr__(self) -> str:
        how = "rigorous" if self.rigorous else "heuristic"
        return f"Excess(least={self.least:.6g}, most={self.most:.6g} nats, {how})"


@dataclass(frozen=True, eq=False, repr=False)
class RateDistortionCurve:
    """Points of the rate-distortion function R(D) of a data set, hottest first.

    Attributes
    ----------
    betas, multipliers : (n,) arrays
        Temperatures, and slopes -dR/dD = lambda.
    distortion : (n,) array
        E||x - psi||^2 of the solutions in squared units of x (Bernoulli: E[-log p(x | psi)] in nats).
    rate : (n,) array
        Rate of the solutions, in nats.
    lower : (n,) array
        Lower bounds of the least F = R + lambda D, in nats.
    rigorous : (n,) bool array
        Whether a lower bound is proven. Otherwise it is heuristic (see `Certificate`).
    rounding : (n,) array
        Rounding errors of the rate, in nats; the lower bounds include theirs.
    n_sites : (n,) int array
        Number of reconstructions of the solutions.
    ends : (2, 2) array
        Distortion and rate where nothing is coded, and where every data point is its own reconstruction.
    events : tuple of SupportChange
        Changes of the support of the optimum, hottest first. They are located to the accuracy `locate` of
        `rate_distortion`. Without it they are located between neighbours of the grid only, and the matching of
        reconstructions between neighbours is a guess.
    complete : bool
        False if Ctrl-C, the time limit or the callback ended the computation early.

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
    rigorous: npt.NDArray[np.bool_]
    rounding: FloatArray
    n_sites: npt.NDArray[np.intp]
    ends: FloatArray
    events: tuple[SupportChange, ...] = ()
    complete: bool = True

    def __repr__(self) -> str:
        spans = (f"{name} {v[0]:.4g} to {v[-1]:.4g}" for name, v in (("beta", self.betas), ("rate", self.rate)))
        proven = np.count_nonzero(self.rigorous)
        some = f" at {len(self.betas) - proven} of them" if proven else ""
        how = "" if self.rigorous.all() else f" (heuristic{some})"
        return (
            f"RateDistortionCurve({len(self.betas)} temperatures, {', '.join(spans)} nats, "
            f"gap at most {self.gap.max():.1e} nats{how}, {len(self.events)} changes of support)"
        )

    def _repr_html_(self) -> str:
        return tables.as_html(repr(self), self._columns)

    @property
    def _columns(self) -> tables.Columns:
        names = ("distortion", "rate", "gap")
        own = {name: getattr(self, name) for name in names}
        bound = np.where(self.rigorous, "rigorous", "heuristic")
        return {"beta": self.betas, "multiplier": self.multipliers, **own, "bound": bound, "n_sites": self.n_sites}

    @property
    def gap(self) -> FloatArray:
        """Difference between F and its lower bound (n,), in nats."""
        return self.rate + self.multipliers * self.distortion - self.lower

    def bound_below(self, distortion: npt.ArrayLike) -> FloatArray:
        """Lower bound of the rate at these distortions, in nats: the largest of F_low - lambda D and 0."""
        return np.maximum(self._lines(distortion).max(axis=-1), 0.0)

    def _lines(self, distortion: npt.ArrayLike) -> FloatArray:
        """F_low - lambda D, (..., n), at distortions (...)."""
        D = finite_array(distortion, "distortion")
        return np.asarray(self.lower - self.multipliers * D[..., None])

    def bound_above(self, distortion: npt.ArrayLike) -> FloatArray:
        """Upper bound of R(D), in nats: the convex hull of solutions and both ends; infinite below the least D."""
        points = np.concatenate([np.stack([self.distortion, self.rate + self.rounding], axis=1), self.ends])
        points = points[np.lexsort(points.T[::-1])]
        hull: list[FloatArray] = []
        for point in points:
            while len(hull) > 1 and _turns_up(hull[-2], hull[-1], point):
                hull.pop()
            hull.append(point)
        D, R = np.array(hull).T
        falling = np.concatenate([[True], np.diff(R) < 0])
        return np.interp(finite_array(distortion, "distortion"), D[falling], R[falling], left=np.inf)

    def excess(self, rate: float, distortion: float) -> Excess:
        """Bounds of the distance of a model from the frontier, in nats (T22).

        The distortion of the model must be measured on the same data with sampled codes. Its rate must be the KL over
        all latents.

        Raises
        ------
        ValueError
            If rate or distortion is negative or not finite.
        """
        rate, distortion = check_non_negative(rate, "rate"), check_non_negative(distortion, "distortion")
        lines = self._lines(distortion)
        most = rate - max(float(lines.max()), 0.0)
        least = min(float(rate - self.bound_above(distortion)), most)  # where the bounds meet, up to their rounding
        return Excess(least, most, bool(self.rigorous[lines.argmax()]) or float(lines.max()) <= 0)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The curve as arrays by name; `from_arrays` makes a curve from them."""
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self) if f.name != "events"}
        arrays["event_kinds"] = np.array([e.kind for e in self.events], dtype=str)
        arrays["event_betas"] = np.array([(e.low, e.high) for e in self.events])
        arrays["event_places"] = np.array([e.where for e in self.events])
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> RateDistortionCurve:
        """The curve of the arrays that `to_arrays` returned; bounds of which nothing is said count as heuristic.

        Raises
        ------
        ValueError
            If an array is missing, or the arrays are not those of a curve.
        """
        if not isinstance(arrays, Mapping):
            raise ValueError(f"arrays must be a dict of names and arrays, got {shown(arrays)}")
        if missing := [name for name in (*_ARRAYS, "event_kinds", "complete") if name not in arrays]:
            raise ValueError(f"the arrays of a curve must include {missing[0]!r}, got {', '.join(arrays) or 'none'}")
        n = np.size(arrays["betas"])
        arrays = {"rigorous": np.zeros(n, dtype=bool), "rounding": np.zeros(n), **arrays}
        _check_arrays(arrays)
        events = zip(arrays["event_kinds"], arrays["event_betas"], arrays["event_places"], strict=True)
        return cls(
            **{name: arrays[name] for name in (*_ARRAYS[:-2], *_BOUNDS)},
            events=tuple(SupportChange(str(kind), float(low), float(high), y) for kind, (low, high), y in events),
            complete=bool(arrays["complete"]),
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the curve to a .npz file; `RateDistortionCurve.load` reads it."""
        arrays = self.to_arrays()
        text = {"complete": self.complete, "event_kinds": arrays["event_kinds"].tolist()}
        numbers = {name: array for name, array in arrays.items() if name not in text}
        write_npz(path, {"kind": _KIND, "format": FORMAT, **text}, numbers)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> RateDistortionCurve:
        """Read a curve that `save` wrote; raises ValueError for any other file, and if it is damaged."""
        header, arrays = read_npz(path, _KIND, (*_ARRAYS, *_BOUNDS))
        with naming(f"{path} does not hold a saved {_KIND}"):
            text = {"complete": entry(header, "complete", bool), "event_kinds": entry(header, "event_kinds", list)}
            return cls.from_arrays({**arrays, **text})


def _check_arrays(arrays: Mapping[str, Any]) -> None:
    """Shapes, ranges and identities of the arrays of a curve."""
    n, m = np.size(arrays["betas"]), len(arrays["event_kinds"])
    least = {"betas": _TINY, "multipliers": _TINY, "n_sites": 1, "rate": 0.0, "rounding": 0.0}
    for name in ("betas", "multipliers", "distortion", "rate", "lower", "rigorous", "rounding", "n_sites"):
        check_contents(arrays[name], name, (n,), least.get(name, -np.inf))
    check_contents(arrays["ends"], "ends", (2, 2), 0.0)
    betas, multipliers = arrays["betas"], arrays["multipliers"]
    if not n or (np.diff(betas) >= 0).any():
        raise ValueError(f"betas must fall, and there must be one at least, got {n}")
    products = betas * multipliers  # 1 / (2 sigma^2), or 1
    if (np.abs(products / products[0] - 1) > _SAME).any():
        raise ValueError("multipliers must be proportional to 1 / betas")
    F, rounding = arrays["rate"] + multipliers * arrays["distortion"], arrays["rounding"]
    slack = _SAME * (1 + np.abs(F))
    if (multipliers * arrays["distortion"] < -slack - rounding).any():
        raise ValueError("distortion must be at least 0")
    if (arrays["lower"] + rounding > F + slack).any():
        raise ValueError("lower + rounding must be at most rate + multiplier * distortion")
    if unknown := sorted(set(map(str, arrays["event_kinds"])) - set(KINDS)):
        raise ValueError(f"event_kinds must be of {', '.join(KINDS)}, got {unknown[0][:40]!r}")
    check_contents(arrays["event_betas"], "event_betas", (m, 2) if m else (0,), _TINY)
    check_contents(arrays["event_places"], "event_places", (m, None) if m else (0,))
    if m and (arrays["event_betas"][:, 0] > arrays["event_betas"][:, 1]).any():
        raise ValueError("event_betas must hold the lower temperature first")


def _turns_up(a: FloatArray, b: FloatArray, c: FloatArray) -> bool:
    """Whether b lies on or above the line from a to c."""
    return bool((b[0] - a[0]) * (c[1] - a[1]) <= (c[0] - a[0]) * (b[1] - a[1]))


def rate_distortion(
    x: npt.ArrayLike | RowBlocks,
    betas: npt.ArrayLike | None = None,
    objective: ELBO | None = None,
    *,
    sigma: float | None = None,
    gap: float = 1e-6,
    locate: float | None = None,
    weights: npt.ArrayLike | None = None,
    max_maps: int = 100_000,
    time_limit: float | None = None,
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
        Temperatures; by default 40, from `nucleation_beta`, where a second reconstruction appears, down to where the
        rate is 0.95 of the entropy of the data.
    objective : ELBO, optional
        Gaussian or Bernoulli; its beta is ignored.
    sigma : float, optional
        Standard deviation of the Gaussian decoder, in units of x; short for an ELBO with it. 1 by default.
    gap : float
        Requested gap at every temperature, in nats.
    locate : float, optional
        Relative accuracy in beta to which the changes of the support, `.events`, are located. Every change takes about
        15 more solutions. Two changes that cancel between neighbours of the grid are not found.
    weights, max_maps, backend, on_failure
        As for `global_solution`; `max_maps` holds for each solution.
    time_limit : float, optional
        Budget of the whole curve in seconds, kept as in `solve`.
    progress : bool
        Show a progress bar.
    callback : callable, optional
        Called with every solution; a true return value stops the computation.

    Returns
    -------
    RateDistortionCurve
        The curve; after Ctrl-C, or when the time is up, the part that was solved. If the default temperatures are not
        known by then, it consists of the solutions of their search, whose gaps are up to 0.01 nats.

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
    progress = check_flag(progress, "progress")
    locate = None if locate is None else check_tolerance(locate, "locate")
    gap, time_limit = (
        check_number(gap, "gap", "positive, and at most 1 nat", lambda nats: 0 < nats <= 1),
        check_time_limit(time_limit),
    )
    max_maps = check_count(max_maps, "max_maps")
    problem = Problem.make(x, objective, weights, backend, beta=1.0, sigma=sigma, kind=ELBO)
    at = problem.objective.at
    grid = None if betas is None else np.unique(check_vector(betas, "betas"))[::-1]
    solutions: list[CertifiedFixedPoint] = []
    events: list[SupportChange] = []
    fine, complete = min(gap, _SUPPORT_GAP), False

    def solved(beta: float, gap: float, start: FixedPoint | None, prove: bool = True) -> CertifiedFixedPoint:
        solution = optimum(problem.at(at(beta)), gap, max_maps, start, prove=prove)
        if solution.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        return solution

    def compared(beta: float, start: FixedPoint) -> CertifiedFixedPoint:
        """A solution whose support is compared; raises `TimeUp` instead of returning an unfinished one."""
        deadline.check()
        solution = solved(beta, fine, start, prove=False)
        deadline.check()
        return solution

    def default_grid() -> FloatArray:
        """Down to a rate of nearly the entropy; the solutions on the way are those of a curve that ends here."""
        with deadline.finishing():
            top, enough = critical_beta(problem), _ENTROPY_SHARE * _ends(problem)[1, 1]
        top, _ = nucleation(problem, top)
        bottom = top
        with tqdm(disable=not progress, desc="end of the temperatures", unit="beta") as bar:
            while not solutions or solutions[-1].rate < enough:
                if solutions:
                    deadline.check()
                bottom /= 2
                solutions.append(solved(bottom, _GRID_END_GAP, solutions[-1] if solutions else None, prove=False))
                bar.update()
        deadline.check()
        solutions.clear()
        return np.geomspace(top, bottom, _GRID_SIZE)

    try:
        with deadline.within(time_limit):
            grid = default_grid() if grid is None else grid
            for beta in tqdm(grid, disable=not progress, desc="rate-distortion", unit="beta"):
                start = solutions[-1] if solutions else None
                if start is not None:
                    deadline.check()
                solutions.append(solved(float(beta), gap if locate is None else fine, start))
                report_failure(solutions[-1], on_failure, stacklevel=3)
                if start is not None:
                    events += located(start, solutions[-1], compared, locate or np.inf)
                if asks_to_stop(callback, solutions[-1]):
                    break
            else:
                complete = solutions[-1].converged or not deadline.passed()
    except deadline.TimeUp:
        text = f"time_limit={time_limit:g}: the curve ends at beta={solutions[-1].beta:.6g}"
        if on_failure == "raise":
            raise NotConvergedError(text, solutions[-1]) from None
        if on_failure == "warn":
            warnings.warn(text, NotConvergedWarning, stacklevel=2)
    except KeyboardInterrupt:
        if not solutions or on_failure == "raise":
            raise
    curve, pressed = finished(lambda: _curve(problem, solutions, events, complete))
    if pressed and on_failure == "raise":
        raise KeyboardInterrupt
    return replace(curve, complete=complete and not pressed)


def _curve(
    problem: Problem, solutions: Sequence[CertifiedFixedPoint], events: Sequence[SupportChange], complete: bool
) -> RateDistortionCurve:
    """The curve through certified solutions."""
    lam = np.array([cast(ELBO, s.objective).multiplier for s in solutions])
    return RateDistortionCurve(
        betas=np.array([s.beta for s in solutions]),
        multipliers=lam,
        distortion=np.array([s.energy for s in solutions]) / lam,
        rate=np.array([s.rate for s in solutions]),
        lower=np.array([s.certificate.lower for s in solutions]),
        rigorous=np.array([s.certificate.rigorous for s in solutions]),
        rounding=np.array([s.certificate.rounding for s in solutions]),
        n_sites=np.array([len(s.decoder) for s in solutions], dtype=np.intp),
        ends=_ends(problem),
        events=tuple(events),
        complete=complete,
    )


def _ends(problem: Problem) -> FloatArray:
    """Distortion and rate without any code, and of the code that identifies every distinct point."""
    data, objective = DataPasses(problem), problem.framed
    block = data.block
    lam = cast(ELBO, problem.objective).multiplier
    none = block.rho @ energies(block, objective, *objective.readout(problem.data.mean[None]))[:, 0]
    every = float(block.rho @ data.least_energies)
    _, index = np.unique(block.x, axis=0, return_inverse=True)
    p = np.bincount(index.ravel(), block.rho)
    entropy = max(float(-p @ np.log(p)), 0.0)
    return np.array([[float(none) / lam, 0.0], [max(every / lam, 0.0), entropy]])
