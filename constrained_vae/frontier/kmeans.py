"""KMeansBound: what no k-means can fall below, from the rate-distortion function (T23)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._utils import memory, tables
from .._utils.arrays import FloatArray
from .._utils.checks import check_count, real_array

_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False, repr=False)
class KMeansBound:
    """Lower bounds of the mean squared error of every code of K words, k-means among them (T23).

    Attributes
    ----------
    K : (n,) int array
        Numbers of words.
    distortion : (n,) array
        Lower bounds of E||x - nearest word||^2, scikit-learn's `inertia_` over the sum of the weights, in squared units
        of x (Bernoulli: of the mean cross-entropy, in nats).
    rigorous : (n,) bool array
        Whether a bound is proven, rounding included. Otherwise it is heuristic (see `Certificate`).
    betas : (n,) array
        Temperatures of the curve that give the bounds.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> curve = cv.rate_distortion([[-1.0], [1.0]], betas=[0.9, 0.5, 0.2])
    >>> curve.kmeans_bound([1, 2])
    KMeansBound(K = 1: ..., K = 2: 0; rigorous)
    """

    K: npt.NDArray[np.intp]
    distortion: FloatArray
    rigorous: npt.NDArray[np.bool_]
    betas: FloatArray

    def __repr__(self) -> str:
        shown = [f"K = {k}: {D:.6g}" for k, D in zip(self.K[:4], self.distortion[:4], strict=True)]
        more = ", ..." if len(self.K) > 4 else ""
        how = "rigorous" if self.rigorous.all() else "rigorous at some" if self.rigorous.any() else "heuristic"
        return f"KMeansBound({', '.join(shown)}{more}; {how})"

    def _repr_html_(self) -> str:
        return tables.as_html(repr(self), self._columns)

    @property
    def _columns(self) -> tables.Columns:
        bound = np.where(self.rigorous, "rigorous", "heuristic")
        return {"K": self.K, "distortion": self.distortion, "bound": bound, "beta": self.betas}


def kmeans_bound(
    K: npt.ArrayLike,
    lower: FloatArray,
    multipliers: FloatArray,
    rigorous: npt.NDArray[np.bool_],
    betas: FloatArray,
) -> KMeansBound:
    """The largest (F_low - log K) / lambda of the temperatures of a curve, at least 0, for every K."""
    real_array(K, "K", "a number of words, or some of them")
    counts = np.asarray([check_count(k, "K", most=memory.LARGEST) for k in np.ravel(np.asarray(K)).tolist()], np.intp)
    if not len(counts):
        raise ValueError("K must be a number of words, or some of them, got none")
    nats = np.log(counts)[:, None]
    rounding = 4 * _EPS * (np.abs(lower) + nats)
    lines = (lower - nats - rounding) / multipliers
    best, index = lines.argmax(axis=1), np.arange(len(counts))
    bound = lines[index, best]
    return KMeansBound(counts, np.maximum(bound, 0.0), rigorous[best] | (bound <= 0), betas[best])
