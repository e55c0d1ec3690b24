"""transitions(): all critical temperatures of the cooling branch, to solver precision (T9), and their kinds (T13)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from .._utils import deadline
from .._utils.arrays import FloatArray
from .._utils.checks import (
    asks_to_stop,
    check_callable,
    check_count,
    check_flag,
    check_sequence,
    check_time_limit,
    check_vector,
    shown,
)
from ..data.rows import RowBlocks
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..results.fixed_point import FixedPoint
from ..results.status import NotConvergedWarning
from ..solvers.options import Options
from ..solvers.pose import pose
from .continuation import Continuation, Split, State
from .cooling import Cooling, Jump
from .criticality import critical_beta
from .expansion import moments, predicted_hysteresis, predicted_kind
from .hysteresis import hysteresis
from .peaks import Peak
from .sweep import default_grid

_EARLY = (
    "interrupted",
    "time_limit",
    "precision of the arithmetic",
)  # reasons for the end of a listing that is not as long as it was to be
_BETA_TOL = 1e-11  # requested accuracy of log beta at a transition; the eigenvalue is as accurate as the solution


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
    >>> transitions([[-3.0], [3.0]], beta_range=(1, 20), n_tiles=2)[0]
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
        text = f"Transition(beta={self.beta:.9g}, {self.kind}, {self.n_before} to {self.n_after} reconstructions"
        return text + (f", hysteresis up to {self.heating_end:.6g})" if self.kind == "first-order" else ")")


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

    Examples
    --------
    >>> transitions([[-3.0], [3.0]], beta_range=(1, 20), n_tiles=2).ended
    'end of the range'
    """

    def __init__(self, found: Iterable[Transition] = (), complete_to: float = np.nan, ended: str = "") -> None:
        super().__init__(found)
        self.complete_to, self.ended = complete_to, ended

    def copy(self) -> Transitions:
        """A shallow copy, which is as complete."""
        return Transitions(self, self.complete_to, self.ended)

    def __repr__(self) -> str:
        return f"Transitions({super().__repr__()}, complete down to beta={self.complete_to:.6g}: {self.ended})"


def transitions(
    x: npt.ArrayLike | RowBlocks,
    objective: Objective | None = None,
    beta_range: npt.ArrayLike | None = None,
    *,
    sigma: float | None = None,
    n_tiles: int | None = None,
    tiling: Tiling | None = None,
    weights: npt.ArrayLike | None = None,
    masses: str = "fixed",
    limit: int | None = None,
    accelerate: str = "lbfgs",
    tol: float = 1e-10,
    max_maps: int = 100_000,
    time_limit: float | None = None,
    backend: str = "auto",
    progress: bool = False,
    callback: Callable[[list[Transition]], Any] | None = None,
) -> Transitions:
    """Every transition of the cooling branch in a range of temperatures, hottest first.

    The branch starts at the collapsed solution, above the first transition. Cooling holds coincident tiles together.
    The temperature at which they would separate is located, without a grid, as the root of the logarithm of an
    eigenvalue (T9), by Brent's method. Then the tiles are split by the protocol of (T13), into two halves along the
    unstable axis, and cooling continues. Mergers and folds (T17) are found where the number of reconstructions falls or
    the distortion changes by more than its derivative explains, by at least 2e-7 of itself.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    objective : Objective, optional
        `ELBO()` by default; its beta is ignored.
    beta_range : (float, float), optional
        Lowest and highest temperature of interest; by default the range of `default_betas`.
    sigma, n_tiles, tiling, weights, masses, accelerate, tol, max_maps, backend
        As for `solve`; `max_maps` holds for each solution.
    time_limit : float, optional
        Budget of the whole search in seconds, kept as in `solve`.
    limit : int, optional
        Largest number of transitions.
    progress : bool
        Show a progress bar.
    callback : callable, optional
        Called after every transition with the transitions so far; a true return value stops the search.

    Returns
    -------
    Transitions
        A list of `Transition`. Its attribute `complete_to` is the temperature down to which it is complete, and `ended`
        says why it ends there: at the end of the range, after `limit` transitions, by the callback, by the time limit,
        by Ctrl-C, or where colder energies are rounding.

    Raises
    ------
    ValueError
        For bad input, and for an empty range.

    Warns
    -----
    NotConvergedWarning
        If the error of a solution before or after a transition is too large, if the end of a split branch on heating
        was not found, and if the listing ends before the end of the range and `limit`.

    Examples
    --------
    >>> [round(t.beta, 9) for t in transitions([[-3.0], [3.0]], beta_range=(1, 20), n_tiles=2)]
    [9.0]
    """
    check_callable(callback, "callback")
    progress, time_limit = check_flag(progress, "progress"), check_time_limit(time_limit)
    if limit is not None:
        check_count(limit, "limit")
    posed = pose(
        x, objective, sigma=sigma, n_tiles=n_tiles, tiling=tiling, weights=weights, masses=masses, backend=backend
    )
    problem, options = posed.problem, Options(posed.free, accelerate, tol, max_maps)
    beta_range = None if beta_range is None else _check_range(beta_range)
    branch = Continuation(problem, posed.tiling, options, accuracy=_BETA_TOL)
    with deadline.within(time_limit):
        with deadline.finishing():  # the range belongs to every result
            first = critical_beta(problem)
            if beta_range is None:
                grid = default_grid(problem, first)
                beta_range = float(grid[0]), float(grid[-1])
        found = Transitions([], beta_range[0], "end of the range")
        if first > 0:  # else all points coincide
            _list(branch, 1.01 * first, beta_range, found, limit, callback, progress)
    if found.ended in _EARLY:
        found.ended += f"={time_limit:g}" if found.ended == "time_limit" else ""
        text = f"{found.ended}: transitions below beta={found.complete_to:.6g} were not computed"
        warnings.warn(text, NotConvergedWarning, stacklevel=2)
    return found


def _list(
    branch: Continuation,
    start: float,
    beta_range: tuple[float, float],
    found: Transitions,
    limit: int | None,
    callback: Callable[[list[Transition]], Any] | None,
    progress: bool,
) -> None:
    """Append the transitions in a range, by cooling from a temperature above the first of them."""
    low, high = beta_range
    cooling, beta = Cooling(branch), start  # the listing is complete down to beta
    try:
        with tqdm(total=max(0.0, np.log(start / low)), disable=not progress, desc="cooling", unit=" log beta") as bar:
            for event in cooling.events(start, low):
                if isinstance(event, State):
                    beta = event.beta
                    bar.update(np.log(start / beta) - bar.n)
                    continue
                _report(event.at)
                _report(event.after)
                if event.beta <= high:
                    found.append(_transition(branch, event))
                beta = event.beta
                if beta > high:
                    continue
                stopped = asks_to_stop(callback, list(found))
                if stopped or len(found) == limit:
                    found.complete_to, found.ended = beta, "stopped by the callback" if stopped else f"limit={limit}"
                    break
            else:
                if not cooling.resolved(low):
                    found.complete_to, found.ended = beta, "precision of the arithmetic"
    except KeyboardInterrupt:
        found.complete_to, found.ended = beta, "interrupted"
    except deadline.TimeUp:
        found.complete_to, found.ended = beta, "time_limit"


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

    Examples
    --------
    >>> found = transitions([[-3.0], [3.0]], beta_range=(1, 20), n_tiles=2)
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


def _report(state: State) -> None:
    if not state.acceptable:
        solution = state.solution
        text = f"beta={solution.beta:.9g}: {solution.status.value} (error estimate {solution.error_estimate:.2e})"
        warnings.warn(text, NotConvergedWarning, stacklevel=3)


def _check_range(beta_range: Any) -> tuple[float, float]:
    values = check_vector(beta_range, "beta_range")
    if len(values) != 2 or not 0 < values[0] < values[1]:
        raise ValueError(
            f"beta_range must be two temperatures, 0 < lowest < highest, got {shown(beta_range)}: give the lowest first"
        )
    return float(values[0]), float(values[1])


def _transition(branch: Continuation, event: Split | Jump) -> Transition:
    """The transition of an event, with its moments, its hysteresis and its kind."""
    at, after = event.at, event.after
    if isinstance(event, Jump):
        site, axis = _moved(branch, event)
        bracket, kind = (after.beta, at.beta), event.kind
        end, crossing, jump = np.nan, np.nan, at.solution.distortion - after.solution.distortion
        skewness, kurtosis, predicted = np.nan, np.nan, None
    else:
        condition, problem = at.condition, branch.problem_at(at.beta)
        assert condition is not None  # `Continuation.split` needs it
        site, axis = condition.site, condition.axis
        masses, free = at.sites.tile_masses[at.sites.index == site], branch.options.free
        skewness, kurtosis = np.nan, np.nan
        if problem.framed.quadratic is not None:
            skewness, kurtosis = moments(problem, at, condition)
        predicted = predicted_kind(skewness, kurtosis, masses, free)
        width = predicted_hysteresis(skewness, kurtosis, masses, free)
        kind, end, crossing, jump = hysteresis(branch, event, predicted, width)
        if np.isnan(end) and len(after.sites) > len(at.sites):
            text = f"beta={at.beta:.9g}: heating of the split branch did not converge, so its end is not known (NaN)"
            warnings.warn(text, NotConvergedWarning, stacklevel=3)
        bracket = event.bracket[0].beta, event.bracket[1].beta
    tiles = at.sites.index == site
    psi = branch.problem.data.frame.outward(at.sites.decoder[site])
    return Transition(
        beta=event.beta,
        kind=kind,
        bracket=bracket,
        before=at.solution,
        after=after.solution,
        reconstruction=int(np.square(at.solution.distinct.decoder - psi).sum(axis=1).argmin()),
        direction=axis,
        tiles_before=int(tiles.sum()),
        tiles_after=tuple(int(n) for n in np.unique(after.sites.index[tiles], return_counts=True)[1]),
        skewness=skewness,
        excess_kurtosis=kurtosis,
        predicted=predicted,
        heating_end=end,
        crossing=crossing,
        jump=jump,
    )


def _moved(branch: Continuation, event: Jump) -> tuple[int, FloatArray]:
    """The site whose tiles move farthest in a jump, and the direction in which they move, in the coordinates."""
    to, before, after = branch.problem.framed.coordinates, event.at.sites, event.after.sites
    change = to(after.decoder)[after.index] - to(before.decoder)[before.index]
    tile = int(np.square(change).sum(axis=1).argmax())
    length = float(np.linalg.norm(change[tile]))
    return int(before.index[tile]), change[tile] / length if length else change[tile]
