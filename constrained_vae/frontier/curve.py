"""RateDistortionCurve: points of R(D) between bounds, and the distance of a model from them (T14), (T22)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils import tables
from .._utils.arrays import FloatArray
from .._utils.checks import check_choice, check_flag, check_non_negative, finite_array, shown
from .._utils.files import FORMAT, check_contents, entry, naming, read_npz
from .._utils.pictures import picture
from .._utils.writing import write_npz
from ..data import signature
from ..objectives.elbo import LIKELIHOODS
from .excess import Excess
from .hull import time_sharing
from .kmeans import KMeansBound, kmeans_bound
from .population import PopulationBounds
from .support_changes import KINDS, SupportChange

_KIND = "RateDistortionCurve"  # of the files
_ARRAYS = (
    *("betas", "multipliers", "distortion", "rate", "lower", "n_sites", "ends", "signature"),
    *("event_betas", "event_places"),
)
_BOUNDS = ("rigorous", "rounding")  # arrays of which a curve that knows nothing of them has zeros
_TEXTS = ("complete", "event_kinds", "likelihood")  # what is in the header of a file
_NESTED = ("events", "population")  # fields that are no arrays
_PREFIX = "population_"  # of the arrays of the bounds of the source, if there are any
_OF_POPULATION = tuple(_PREFIX + f.name for f in fields(PopulationBounds))
_SAME = 1e-6  # relative difference, in nats, up to which sums of rounded terms count as the same
_TINY = float(np.finfo(np.float64).tiny)
_ROUNDED = 0.01  # share of R(D) up to which a model below it may be due to the digits that its caller gave
_ERRORS = 4  # standard errors up to which a model below R(D) may be due to the sampling of codes


@dataclass(frozen=True, eq=False, repr=False)
class RateDistortionCurve:
    """Points of the rate-distortion function R(D) of a data set, hottest first.

    Attributes
    ----------
    betas, multipliers : (n,) arrays
        Temperatures, and slopes -dR/dD = lambda.
    distortion : (n,) array
        E||x - psi||^2 of the solutions in squared units of x (Bernoulli and Poisson: E[-log p(x | psi)] in nats;
        categorical: E[KL(x || psi)] in nats).
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
    likelihood : {"gaussian", "bernoulli", "poisson", "categorical"}
        Of the objective.
    signature : (33,) array
        Radius of the data, and means by which other data are noticed; the order of the rows does not count.
    events : tuple of SupportChange
        Changes of the support of the optimum, hottest first. They are located to the accuracy `locate` of
        `rate_distortion`. Without it they are located between neighbours of the grid only, and the matching of
        reconstructions between neighbours is a guess.
    population : PopulationBounds, optional
        Bounds of R(D) of the source, if there were held-out rows.
    complete : bool
        False if Ctrl-C, the time limit or the callback ended the computation early.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> curve = cv.rate_distortion([[-1.0], [1.0]], betas=[0.9, 0.5, 0.2])
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
    likelihood: str
    signature: FloatArray
    events: tuple[SupportChange, ...] = ()
    population: PopulationBounds | None = None
    complete: bool = True

    def __repr__(self) -> str:
        spans = (f"{name} {v[0]:.4g} to {v[-1]:.4g}" for name, v in (("beta", self.betas), ("rate", self.rate)))
        proven = np.count_nonzero(self.rigorous)
        some = f" at {len(self.betas) - proven} of them" if proven else ""
        how = "" if self.rigorous.all() else f" (heuristic{some})"
        return (
            f"RateDistortionCurve({len(self.betas)} temperatures, {', '.join(spans)} nats, "
            f"gap at most {max(self.gap.max(), 0.0):.1e} nats{how}, {len(self.events)} changes of support"
            f"{', bounds of the source' * (self.population is not None)}{', incomplete' * (not self.complete)})"
        )

    def _repr_html_(self) -> str:
        return tables.as_html(repr(self), self._columns)

    @property
    def _columns(self) -> tables.Columns:
        names = ("distortion", "rate", "gap")
        own = {name: getattr(self, name) for name in names}
        bound = np.where(self.rigorous, "rigorous", "heuristic")
        return {"beta": self.betas, "multiplier": self.multipliers, **own, "bound": bound, "n_sites": self.n_sites}

    def to_frame(self) -> Any:
        """A pandas data frame with a row per temperature, hottest first.

        Its columns are beta, multiplier, distortion (the unit of the curve), rate and gap (nats), bound ("rigorous" or
        "heuristic") and n_sites.

        Raises
        ------
        ImportError
            If pandas, an optional dependency, is not installed.
        """
        return tables.as_frame(self._columns)

    def plot(self, models: Mapping[str, Any] | None = None, ax: Any = None) -> Any:
        """Draw R against D between its bounds, with models by name.

        Parameters
        ----------
        models : mapping of str to model, optional
            Runs, solutions, branches, or points (distortion, rate), by the names of the legend.
        ax : Axes, optional
            Axes to draw on; new Axes by default.

        Returns
        -------
        Axes
            The given Axes, or new ones.
        """
        unit = "units of $x^2$" if self.likelihood == "gaussian" else "nats"
        return picture("rate_distortion", self, models, unit, ax)

    def rate_at(self, distortion: npt.ArrayLike) -> Any:
        """Least known rate of a code of these distortions, in nats: `bound_above`, which is attained.

        R(D) is between `bound_below` and this rate. It is infinite below the least distortion of any code.

        Parameters
        ----------
        distortion : float or array_like
            Distortions in the unit of the curve.

        Returns
        -------
        float, or array of the shape of `distortion`
            Rates, in nats.

        Examples
        --------
        >>> import constrained_vae as cv
        >>> curve = cv.rate_distortion([[-1.0], [1.0]], betas=[0.9, 0.5, 0.2])
        >>> round(curve.rate_at(1.0), 6), round(curve.rate_at(0.083186), 4)  # no code; log 2 - h((1 + sqrt(1 - D)) / 2)
        (0.0, 0.5903)
        """
        rate = self.bound_above(distortion)
        return float(rate) if np.ndim(rate) == 0 else rate

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

    def _chosen(self, distortion: npt.ArrayLike) -> npt.NDArray[np.intp]:
        """The temperature (...) whose line bounds R(D) at distortions (...)."""
        return np.asarray(self._lines(distortion).argmax(axis=-1))

    def bound_above(self, distortion: npt.ArrayLike) -> FloatArray:
        """Upper bound of R(D), in nats: the convex hull of solutions and both ends; infinite below the least D.

        Raises
        ------
        ValueError
            If a distortion is NaN or not a number.
        """
        codes = np.concatenate([np.stack([self.distortion, self.rate + self.rounding], axis=1), self.ends])
        return time_sharing(codes, finite_array(distortion, "distortion"))

    def kmeans_bound(self, K: npt.ArrayLike) -> KMeansBound:
        """Lower bounds of the mean squared error of every k-means of these rows, for all K at once (T23).

        A code of K words has a rate of at most log K, so that its error is at least D(log K), the largest of
        (F_low - log K) / lambda. The bound is loose: K points tile space worse than long codes do.

        Parameters
        ----------
        K : int or (n,) array_like of ints
            Numbers of words.

        Returns
        -------
        KMeansBound
            The bounds, with `rigorous`; they are as tight as the temperatures of the curve are dense.

        Raises
        ------
        ValueError
            If K is not a whole number of at least 1.
        """
        return kmeans_bound(K, self.lower, self.multipliers, self.rigorous, self.betas)

    def excess(
        self, rate: float, distortion: float, *, distortion_error: float = 0.0, population: bool = False
    ) -> Excess:
        """Bounds of the distance of a model from the frontier, in nats (T22).

        Parameters
        ----------
        rate : float
            KL over all latents, in nats, as the mean over the data of the curve.
        distortion : float
            Distortion in the unit of the curve, on the same data with sampled codes.
        distortion_error : float
            Standard error of the distortion.
        population : bool
            Place the model above R(D) of the source instead. Rate and distortion must then be those under the source,
            as means over rows that the model was not trained on, such as the held-out rows.

        Raises
        ------
        ValueError
            If a number is negative or not finite, or the curve has no bounds of the source.

        Warns
        -----
        UserWarning
            If the model is below R(D), where no model can be, by more than four standard errors and 1 % of R(D).
        """
        population = check_flag(population, "population")
        return self._excess(rate, distortion, distortion_error, stacklevel=3, population=population)

    def _excess(
        self,
        rate: float,
        distortion: float,
        distortion_error: float,
        stacklevel: int,
        rate_error: float = 0.0,
        population: bool = False,
    ) -> Excess:
        """`excess`, whose warning names the caller at this level."""
        if population and self.population is None:
            raise ValueError(
                "population must be False for a curve without bounds of the source: compute it with "
                "rate_distortion(x, held_out=other_rows)"
            )
        bounds: RateDistortionCurve | PopulationBounds = self.population if population and self.population else self
        rate, distortion = check_non_negative(rate, "rate"), check_non_negative(distortion, "distortion")
        error = check_non_negative(distortion_error, "distortion_error")
        nearest = int(bounds._chosen(distortion))
        bound = float(bounds.bound_below(distortion))
        if rate < bound - _ROUNDED * bound - _ERRORS * math.hypot(rate_error, error * bounds.multipliers[nearest]):
            warnings.warn(
                f"a model of rate {rate:.6g} nats and distortion {distortion:.6g} is {bound - rate:.3g} nats below "
                f"R(D){' of the source' * population}, where no model can be: is its rate in nats, not in bits, and "
                "summed over all latents? is its "
                "distortion summed over the dimensions, not their mean, with sampled codes? are both of the data of "
                "the curve?",
                stacklevel=stacklevel,
            )
        most = rate - bound
        least = min(float(rate - bounds.bound_above(distortion)), most)  # where the bounds meet, up to their rounding
        confidence = bounds.confidence if isinstance(bounds, PopulationBounds) else 1.0
        return Excess(least, most, bool(bounds.rigorous[nearest]) or bound == 0, confidence)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The curve as arrays by name; `from_arrays` makes a curve from them."""
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self) if f.name not in _NESTED}
        arrays["event_kinds"] = np.array([e.kind for e in self.events], dtype=str)
        arrays["event_betas"] = np.array([(e.low, e.high) for e in self.events])
        arrays["event_places"] = np.array([e.where for e in self.events])
        known = {} if self.population is None else self.population.to_arrays()
        return arrays | {_PREFIX + name: array for name, array in known.items()}

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
        if missing := [name for name in (*_ARRAYS, *_TEXTS) if name not in arrays]:
            raise ValueError(f"the arrays of a curve must include {missing[0]!r}, got {', '.join(arrays) or 'none'}")
        n = np.size(arrays["betas"])
        arrays = {"rigorous": np.zeros(n, dtype=bool), "rounding": np.zeros(n), **arrays}
        _check_arrays(arrays)
        events = zip(arrays["event_kinds"], arrays["event_betas"], arrays["event_places"], strict=True)
        known = {name.removeprefix(_PREFIX): array for name, array in arrays.items() if name in _OF_POPULATION}
        return cls(
            **{name: arrays[name] for name in (*_ARRAYS[:-2], *_BOUNDS)},
            likelihood=str(arrays["likelihood"]),
            events=tuple(SupportChange(str(kind), float(low), float(high), y) for kind, (low, high), y in events),
            population=PopulationBounds.from_arrays(known) if known else None,
            complete=bool(arrays["complete"]),
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the curve to a .npz file; `RateDistortionCurve.load` reads it."""
        arrays = self.to_arrays()
        text = {name: arrays[name].tolist() for name in _TEXTS}
        numbers = {name: array for name, array in arrays.items() if name not in text}
        write_npz(path, {"kind": _KIND, "format": FORMAT, **text}, numbers)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> RateDistortionCurve:
        """Read a curve that `save` wrote.

        Raises
        ------
        ValueError
            If the file is no curve that `save` wrote, or is damaged.
        """
        header, arrays = read_npz(path, _KIND, (*_ARRAYS, *_BOUNDS), _OF_POPULATION)
        with naming(f"{path} does not hold a saved {_KIND}"):
            text = {name: entry(header, name, kind) for name, kind in zip(_TEXTS, (bool, list, str), strict=True)}
            return cls.from_arrays({**arrays, **text})


def _check_arrays(arrays: Mapping[str, Any]) -> None:
    """Shapes, ranges and identities of the arrays of a curve."""
    n, m = np.size(arrays["betas"]), len(arrays["event_kinds"])
    least = {"betas": _TINY, "multipliers": _TINY, "n_sites": 1, "rate": 0.0, "rounding": 0.0}
    for name in ("betas", "multipliers", "distortion", "rate", "lower", "rigorous", "rounding", "n_sites"):
        check_contents(arrays[name], name, (n,), least.get(name, -np.inf))
    check_contents(arrays["ends"], "ends", (2, 2), 0.0)
    check_contents(arrays["signature"], "signature", (signature.LENGTH,))
    check_choice(str(arrays["likelihood"]), "likelihood", LIKELIHOODS)
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
