"""transitions(): all critical temperatures of the cooling branch, to solver precision (T9), and their kinds (T13)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from .._utils import deadline, progress as progress_bars
from .._utils.arrays import FloatArray
from .._utils.checks import (
    asks_to_stop,
    check_callable,
    check_count,
    check_flag,
    check_time_limit,
    check_vector,
    shown,
)
from .._utils.lost import LostError
from ..data.rows import RowBlocks
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..results.status import NotConvergedWarning
from ..solvers.options import Options
from ..solvers.pose import pose
from .continuation import Continuation, Split, State
from .cooling import Cooling, Jump
from .criticality import critical_beta
from .expansion import moments, predicted_hysteresis, predicted_kind
from .hysteresis import hysteresis
from .sweep import default_grid
from .transition_list import Transition, Transitions

_EARLY = (
    "interrupted",
    "time_limit",
    "lost cluster",
    "precision of the arithmetic",
)  # reasons for the end of a listing that is not as long as it was to be
_BETA_TOL = 1e-11  # requested accuracy of log beta at a transition; the eigenvalue is as accurate as the solution


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
    x : (N, D) array_like, memory map, RowBlocks, or Dask array or dataframe
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
        by Ctrl-C, by the loss of the cluster, or where colder energies are rounding.

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
        found = Transitions([], beta_range[0], "end of the range", _tiles(posed.tiling, posed.free))
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
        length = max(0.0, float(np.log(start / low)))
        with tqdm(total=length, disable=not progress, desc="cooling", bar_format=progress_bars.SHARE) as bar:
            for event in cooling.events(start, low):
                if isinstance(event, State):
                    beta = event.beta
                    bar.set_postfix_str(f"beta={beta:.4g}, {len(found)} transitions", refresh=False)
                    bar.update(min(float(np.log(start / beta)), length) - bar.n)
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
                    progress_bars.done(bar)
                    break
            else:
                progress_bars.done(bar)
                if not cooling.resolved(low):
                    found.complete_to, found.ended = beta, "precision of the arithmetic"
    except KeyboardInterrupt:
        found.complete_to, found.ended = beta, "interrupted"
    except deadline.TimeUp:
        found.complete_to, found.ended = beta, "time_limit"
    except LostError:
        found.complete_to, found.ended = beta, "lost cluster"


def _tiles(tiling: Tiling, free: bool) -> str:
    """The tiles of a listing, in words."""
    if free:
        return f"free masses, with at most {len(tiling)} tiles"
    masses = "equal masses" if len(np.unique(tiling.masses)) == 1 else "the given masses"
    return f'{len(tiling)} tiles of {masses} (masses="free" does not depend on them)'


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
