"""Transition and Transitions: critical temperatures of a cooling branch (T9), (T13), and detected peaks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils import tables
from .._utils.arrays import FloatArray
from .._utils.checks import check_sequence
from .._utils.pictures import picture
from ..results.fixed_point import FixedPoint
from .peaks import Peak


@dataclass(frozen=True, eq=False)
class Transition:
    """One event of the cooling branch, at a critical temperature of deterministic annealing.

    A reconstruction splits, reconstructions merge, or the branch folds and the state jumps.

    Attributes
    ----------
    beta : float
        Temperature at which the largest eigenvalue of the Jacobian, split modes included, is 1.
    kind : {"continuous", "first-order", "merger", "fold"}
        A split is continuous if the split branch ends at `beta` on heating, else it is of first order. If the split
        branch exists only within 1e-4 of `beta`, and its parts are close to each other, the expansion decides (T13). In
        a merger, reconstructions meet, or one loses its mass. At a fold the state jumps to other reconstructions.
    bracket : (float, float)
        Temperatures between which the transition was located; the branch is unstable at the lower one.
    before : FixedPoint
        The solution at `beta`, before the split; before a merger or a fold the solution at beta (1 + 1e-6).
    after : FixedPoint
        The solution below, at beta (1 - 1e-3), or nearer to beta if another transition follows before that. After a
        merger or a fold it is the solution at beta (1 - 1e-6).
    reconstruction : int
        Number of the reconstruction that splits, among the distinct reconstructions of `before`; in a merger or a fold,
        of the reconstruction that moves farthest.
    direction : (D,) array
        The unstable axis, or the direction of that move: a unit vector in the coordinates of the objective (those of x
        for the Gaussian decoder).
    tiles_before : int
        Tiles at that reconstruction.
    tiles_after : tuple of int
        Tiles at each part of that reconstruction after the transition.
    skewness, excess_kurtosis : float
        Moments of the data of the reconstruction along the direction. They are NaN if the energy is not a squared
        distance, if the direction is not unique because of a symmetry, and for a merger or a fold.
    predicted : {"continuous", "first-order"} or None
        The kind that the expansion (T13) predicts from skewness and kurtosis; None if these are NaN.
    heating_end : float
        Temperature at which the split branch ends when it is heated in small steps; `beta` itself if the transition is
        continuous. It is NaN if one half joins a neighbouring reconstruction, if the end was not found, and for a
        merger or a fold. It is infinite if the branch does not end, which is possible for energies with more than one
        minimum.
    crossing : float
        Temperature at which the free energies of the two branches are equal, between `beta` and `heating_end`; NaN
        where `heating_end` is, and if they do not cross.
    jump : float
        Fall of the distortion at `beta`, in squared units of x; 0 if the transition is continuous.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> cv.transitions([[-3.0], [3.0]], beta_range=(1, 20), n_tiles=2)[0]
    Transition(beta=9, continuous, 1 to 2 reconstructions)
    """

    beta: float
    kind: str
    bracket: tuple[float, float]
    before: FixedPoint
    after: FixedPoint
    reconstruction: int
    direction: FloatArray
    tiles_before: int
    tiles_after: tuple[int, ...]
    skewness: float
    excess_kurtosis: float
    predicted: str | None
    heating_end: float
    crossing: float
    jump: float

    @property
    def n_before(self) -> int:
        """Number of distinct reconstructions above the transition."""
        return len(self.before.distinct)

    @property
    def n_after(self) -> int:
        """Number of distinct reconstructions below the transition."""
        return len(self.after.distinct)

    def __repr__(self) -> str:
        return f"Transition(beta={self.beta:.9g}, {self.kind}, {self.change}{self._hysteresis})"

    @property
    def change(self) -> str:
        """What happens to the reconstructions, in words."""
        if self.n_before == self.n_after:
            return f"{self.n_before} reconstructions, which move"
        return f"{self.n_before} to {self.n_after} reconstructions"

    @property
    def _hysteresis(self) -> str:
        if self.kind != "first-order":
            return ""
        if np.isnan(self.heating_end):
            return ", end of the hysteresis not known"
        return (
            ", without an end on heating"
            if np.isinf(self.heating_end)
            else f", hysteresis up to {self.heating_end:.6g}"
        )


class Transitions(list[Transition]):
    """A list of transitions, hottest first, that says down to which temperature it is complete.

    Parameters
    ----------
    found : iterable of Transition
        The transitions.
    complete_to : float
        The listing has every transition between its highest temperature and this one.
    ended : str
        Why it ends there.
    tiles : str
        The tiles that it holds for. Beyond the first transition the branch depends on their number and masses; that of
        free masses (``masses="free"``) does not, if there are enough of them.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> cv.transitions([[-3.0], [3.0]], beta_range=(1, 20), n_tiles=2).ended
    'end of the range'
    """

    def __init__(
        self, found: Iterable[Transition] = (), complete_to: float = np.nan, ended: str = "", tiles: str = ""
    ) -> None:
        super().__init__(found)
        self.complete_to, self.ended, self.tiles = complete_to, ended, tiles

    def copy(self) -> Transitions:
        """A shallow copy, which is as complete."""
        return Transitions(self, self.complete_to, self.ended, self.tiles)

    def __repr__(self) -> str:
        return f"Transitions({super().__repr__()}, {self.scope})"

    @property
    def scope(self) -> str:
        """What the listing holds for, as text: down to which temperature, why not further, and for which tiles."""
        to = "" if np.isnan(self.complete_to) else f"complete down to beta={self.complete_to:.6g}: {self.ended}"
        of = f"exact for {self.tiles}" if self.tiles else ""
        return "; ".join(part for part in (to, of) if part) or "of unknown extent"

    def _repr_html_(self) -> str:
        return tables.as_html(f"{len(self)} transitions, {self.scope}", self._columns)

    @property
    def _columns(self) -> tables.Columns:
        names = (
            "beta",
            "kind",
            "change",
            "predicted",
            "skewness",
            "excess_kurtosis",
            "heating_end",
            "crossing",
            "jump",
        )
        return {name: ["" if (v := getattr(t, name)) is None else v for t in self] for name in names}

    def plot(self, ax: Any = None) -> Any:
        """Draw the number of reconstructions against temperature; the Axes."""
        return picture("staircase", self, ax)

    def to_frame(self) -> Any:
        """A pandas data frame with a row per transition, hottest first; its columns are attributes of `Transition`.

        Raises
        ------
        ImportError
            If pandas, an optional dependency, is not installed.
        """
        return tables.as_frame(self._columns)


def match_peaks(peaks: Sequence[Peak], found: Sequence[Transition]) -> npt.NDArray[np.intp]:
    """Match detected peaks with exact transitions (T12).

    A peak can be matched with a transition inside its bracket, widened by a step of the grid at either end. The nearest
    pairs in log beta are matched first, each peak and each transition at most once.

    Parameters
    ----------
    peaks : sequence of Peak
        Peaks from `Branch.peaks`.
    found : sequence of Transition
        Transitions from `transitions`.

    Returns
    -------
    (n, 2) array of int
        Numbers of the peak and of the transition, hottest first; -1 for a peak or a transition without a match.

    Raises
    ------
    ValueError
        If `peaks` or `found` is no sequence of such results.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> found = cv.transitions([[-3.0], [3.0]], beta_range=(1, 20), n_tiles=2)
    >>> match_peaks([Peak(9.5, 1.0, 4, (8.0, 11.0)), Peak(2.0, 0.5, 1, (1.5, 3.0))], found)  # no match for 2.0
    array([[ 0,  0],
           [ 1, -1]])
    """
    peaks, found = check_sequence(peaks, "peaks", Peak), check_sequence(found, "found", Transition)
    near = []
    for i, peak in enumerate(peaks):
        low, high = peak.bracket[0] ** 2 / peak.beta, peak.bracket[1] ** 2 / peak.beta
        near += [(abs(np.log(peak.beta / t.beta)), i, j) for j, t in enumerate(found) if low <= t.beta <= high]
    pairs: list[tuple[int, int]] = []
    for _, i, j in sorted(near):
        if all(i != other and j != another for other, another in pairs):
            pairs.append((i, j))
    matched = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    pairs += [(i, -1) for i in np.setdiff1d(np.arange(len(peaks)), matched[:, 0])]
    pairs += [(-1, j) for j in np.setdiff1d(np.arange(len(found)), matched[:, 1])]
    pairs.sort(key=lambda pair: -(found[pair[1]].beta if pair[1] >= 0 else peaks[pair[0]].beta))
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)
