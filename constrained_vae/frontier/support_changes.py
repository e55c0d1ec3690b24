"""Where the support of the optimum changes along the rate-distortion function (T16)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from .._utils.arrays import FloatArray
from ..latent.sites import Sites
from ..results.fixed_point import FixedPoint

_APART = 1.0  # resolutions that a reconstruction does not move between two temperatures
_BESIDE = 0.3  # resolutions between halves of one that has split
_ONE = 0.03  # resolutions within which two are one: a split is seen when beta is a factor 1 - _ONE^2 / 12 below it


@dataclass(frozen=True, eq=False)
class SupportChange:
    """One reconstruction more or less in the optimum, on cooling.

    Attributes
    ----------
    kind : {"nucleation", "split", "loss", "merger"}
        A new one that starts without mass where c reaches 1, or as one of two halves of one that had mass; an old one
        that loses its last mass, or meets another.
    beta : float
        Temperature, the middle of the next two.
    low, high : float
        Temperatures between which it happens.
    where : (D,) array
        The reconstruction, in units of x, nearest to the change on the side that has it.

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
        """The geometric middle of `low` and `high`."""
        return float(np.sqrt(self.low * self.high))


def changes(hot: FixedPoint, cold: FixedPoint) -> list[SupportChange]:
    """What differs between the supports of two optima, one change for every reconstruction that has no partner."""
    resolution = hot.frame.scale * hot.problem.framed.stiffness**-0.5
    old, new = (_sites(solution, _ONE * resolution) for solution in (hot, cold))
    distance = cdist(old, new) / resolution
    there, back = distance.argmin(axis=1), distance.argmin(axis=0)
    paired = (back[there] == np.arange(len(old))) & (distance.min(axis=1) < _APART)
    came = np.setdiff1d(np.arange(len(new)), there[paired])
    found = []
    for kinds, psi, which, nearest in (
        (("split", "nucleation"), new, came, distance.min(axis=0)),
        (("merger", "loss"), old, np.flatnonzero(~paired), distance.min(axis=1)),
    ):
        found += [SupportChange(kinds[int(nearest[a] > _BESIDE)], cold.beta, hot.beta, psi[a]) for a in which]
    return found


def _sites(solution: FixedPoint, distance: float) -> FloatArray:
    """Reconstructions (k, D) further apart than a distance: an optimum may hold one twice, as near as its gap lets."""
    return Sites.of_tiles(solution.decoder, solution.tiling.masses).merged(distance).decoder


def located(
    hot: FixedPoint, cold: FixedPoint, solve: Callable[[float, FixedPoint], FixedPoint], accuracy: float
) -> list[SupportChange]:
    """The changes between two optima, hottest first, by halving until all lie in intervals of that relative width."""
    found = changes(hot, cold)
    if not found or hot.beta <= cold.beta * (1 + accuracy):
        return found
    middle = solve(float(np.sqrt(hot.beta * cold.beta)), hot)
    return located(hot, middle, solve, accuracy) + located(middle, cold, solve, accuracy)
