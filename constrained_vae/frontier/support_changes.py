"""Changes of the support of the global optimum along the rate-distortion function (T16)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from .._utils.arrays import FloatArray
from ..latent.sites import Sites
from ..results.fixed_point import FixedPoint

KINDS = ("nucleation", "split", "loss", "merger")

_LEAST_ACCURACY = 1e-14  # relative width of an interval that still has a middle
# In units of the resolution:
_MAX_SHIFT = 1.0  # largest displacement of a reconstruction between two temperatures
_MAX_HALVES_DISTANCE = 0.3  # largest distance between the halves of a reconstruction that has split
_SAME_DISTANCE = 0.03  # reconstructions within it are one: a split is seen at 1 - _SAME_DISTANCE^2 / 12 times its beta


@dataclass(frozen=True, eq=False)
class SupportChange:
    """One reconstruction more or one less in the optimum, in the direction of cooling.

    Attributes
    ----------
    kind : {"nucleation", "split", "loss", "merger"}
        A new reconstruction appears where c reaches 1 (nucleation), or is one of the halves of a reconstruction with
        mass (split). An old reconstruction loses all its mass (loss), or meets another (merger). For generic data a
        nucleation starts without mass; for symmetric data several may appear at once, with finite mass (T16).
    low, high : float
        Temperatures between which the change happens.
    where : (D,) array
        The new or old reconstruction, in units of x, at the one of these temperatures at which it exists.

    Examples
    --------
    >>> SupportChange("nucleation", low=1.0, high=4.0, where=np.zeros(1)).beta
    2.0
    """

    kind: str
    low: float
    high: float
    where: FloatArray

    @property
    def beta(self) -> float:
        """Temperature of the change, the geometric mean of `low` and `high`."""
        return float(np.sqrt(self.low) * np.sqrt(self.high))


def changes(hot: FixedPoint, cold: FixedPoint) -> list[SupportChange]:
    """The differences between the supports of two optima: one change for every reconstruction without a partner."""
    resolution = hot.frame.scale * hot.problem.framed.stiffness**-0.5
    old, new = (_sites(solution, _SAME_DISTANCE * resolution) for solution in (hot, cold))
    distance = cdist(old, new) / resolution
    there, back = distance.argmin(axis=1), distance.argmin(axis=0)
    paired = (back[there] == np.arange(len(old))) & (distance.min(axis=1) < _MAX_SHIFT)
    came = np.setdiff1d(np.arange(len(new)), there[paired])
    found = []
    for kinds, psi, which, nearest in (
        (("split", "nucleation"), new, came, distance.min(axis=0)),
        (("merger", "loss"), old, np.flatnonzero(~paired), distance.min(axis=1)),
    ):
        found += [
            SupportChange(kinds[int(nearest[a] > _MAX_HALVES_DISTANCE)], cold.beta, hot.beta, psi[a]) for a in which
        ]
    return found


def _sites(solution: FixedPoint, distance: float) -> FloatArray:
    """Reconstructions (k, D), merged within a distance: an optimum may contain one twice, as far as its gap allows."""
    return Sites.of_tiles(solution.decoder, solution.tiling.masses).merged(distance).decoder


def located(
    hot: FixedPoint, cold: FixedPoint, solve: Callable[[float, FixedPoint], FixedPoint], accuracy: float
) -> list[SupportChange]:
    """The changes between two optima, hottest first, by halving of intervals down to a relative width `accuracy`."""
    found = changes(hot, cold)
    if not found or hot.beta <= cold.beta * (1 + max(accuracy, _LEAST_ACCURACY)):
        return found
    middle = solve(float(np.sqrt(hot.beta) * np.sqrt(cold.beta)), hot)
    return located(hot, middle, solve, accuracy) + located(middle, cold, solve, accuracy)
