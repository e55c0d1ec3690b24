"""PopulationBounds: R(D) of the source that the data are drawn from, between bounds that hold at a confidence (T24)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils import tables
from .._utils.arrays import FloatArray
from .._utils.checks import check_count, finite_array, shown
from .._utils.files import check_contents
from ..data import signature
from .hull import time_sharing

_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False, repr=False)
class PopulationBounds:
    """Bounds of the rate-distortion function of the source, from rows that its codes have not seen (T24).

    The held-out rows must be independent draws from the source, and independent of the rows of the codes; rows of
    another source give codes that only leave the bounds further apart. Every bound is one-sided, and holds with the
    probability `confidence` as the number of held-out rows grows, by the central limit theorem. The ends of F hold so
    at each temperature, the bounds of R(D) at each distortion.

    Attributes
    ----------
    multipliers : (n,) array
        Slopes -dR/dD = lambda, in the order of the curve.
    lower, upper : (n,) arrays
        Lower and upper end of F = min R + lambda D of the source, in nats.
    rigorous : (n,) bool array
        Whether the supremum in the lower end is proven. Otherwise it is heuristic: the lower end is too high if the
        search missed the highest maximum.
    fitted : (n,) array
        F of the codes on the rows that they were fitted to, in nats.
    codes : (n + 1, 2) array
        Upper ends of distortion and rate of the codes; the first code is the mean of the data. They hold together.
    confidence : float
        Of every end by itself.
    tuning_rows, rest_rows : int
        Number of held-out rows that choose the dual functions, and of those that give the lower ends. The upper ends
        are of all of them.
    signature : (33,) array
        Of the held-out rows, as that of a curve.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> rng = np.random.default_rng(0)
    >>> curve = cv.rate_distortion(rng.normal(size=(200, 1)), [0.5], gap=1e-2, held_out=rng.normal(size=(2000, 1)))
    >>> curve.population
    PopulationBounds(F at 1 temperatures between ends at most ... nats apart, each at 97.5 %)
    >>> exact = 0.5 * np.log(2) + 0.5
    >>> bool(curve.population.lower[0] < exact < curve.population.upper[0])
    True
    """

    multipliers: FloatArray
    lower: FloatArray
    upper: FloatArray
    rigorous: npt.NDArray[np.bool_]
    fitted: FloatArray
    codes: FloatArray
    confidence: float
    tuning_rows: int
    rest_rows: int
    signature: FloatArray

    def __repr__(self) -> str:
        how = "" if self.rigorous.all() else ", heuristic"
        return (
            f"PopulationBounds(F at {len(self.lower)} temperatures between ends at most "
            f"{(self.upper - self.lower).max():.2g} nats apart, each at {100 * self.confidence:g} %{how})"
        )

    def _repr_html_(self) -> str:
        return tables.as_html(repr(self), self._columns)

    @property
    def _columns(self) -> tables.Columns:
        bound = np.where(self.rigorous, "rigorous", "heuristic")
        return {"multiplier": self.multipliers, "lower": self.lower, "upper": self.upper, "bound": bound}

    def bound_below(self, distortion: npt.ArrayLike) -> FloatArray:
        """Lower bound of R(D) of the source, in nats, at distortions in the unit of the curve, of any shape.

        The line F - lambda D is that of the temperature whose code has the highest line on its own rows. So the
        held-out rows do not choose the line, and the bound has the confidence of one temperature.

        Raises
        ------
        ValueError
            If a distortion is not finite.
        """
        D = finite_array(distortion, "distortion")
        chosen = self._chosen(D)
        return np.maximum(self.lower[chosen] - self.multipliers[chosen] * D, 0.0)

    def _chosen(self, distortion: npt.ArrayLike) -> npt.NDArray[np.intp]:
        """The temperature (...) whose line bounds R(D) at distortions (...)."""
        D = np.asarray(distortion, dtype=np.float64)
        return np.asarray((self.fitted - self.multipliers * D[..., None]).argmax(axis=-1))

    def bound_above(self, distortion: npt.ArrayLike) -> FloatArray:
        """Upper bound of R(D) of the source, in nats: time-sharing of the codes; infinite below the least D.

        Raises
        ------
        ValueError
            If a distortion is not finite.
        """
        return time_sharing(self.codes, finite_array(distortion, "distortion"))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The bounds as arrays by name."""
        return {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> PopulationBounds:
        """The bounds of the arrays that `to_arrays` returned.

        Raises
        ------
        ValueError
            If an array is missing, or the arrays are not those of bounds.
        """
        if not isinstance(arrays, Mapping):
            raise ValueError(f"arrays must be a dict of names and arrays, got {shown(arrays)}")
        names = [f.name for f in fields(cls)]
        if missing := [name for name in names if name not in arrays]:
            raise ValueError(f"the arrays of bounds of a source must include {missing[0]!r}")
        n = np.size(arrays["multipliers"])
        if not n:
            raise ValueError("bounds of a source must be at one temperature at least, got none")
        for name in ("multipliers", "lower", "upper", "rigorous", "fitted"):
            check_contents(arrays[name], name, (n,), {"multipliers": _TINY, "lower": 0.0}.get(name, -np.inf))
        check_contents(arrays["codes"], "codes", (n + 1, 2), 0.0)
        check_contents(arrays["signature"], "signature", (signature.LENGTH,))
        check_contents(arrays["confidence"], "confidence", (), 0.5)
        if not (confidence := float(arrays["confidence"])) < 1:
            raise ValueError(f"confidence must be below 1, got {confidence}")
        for name in ("tuning_rows", "rest_rows"):
            check_contents(arrays[name], name, ())
        rows = {name: check_count(np.asarray(arrays[name]).item(), name) for name in ("tuning_rows", "rest_rows")}
        return cls(**{**{name: arrays[name] for name in names}, "confidence": confidence, **rows})
