"""sweep(): solutions at a sequence of temperatures, each started from the one before, and the default temperatures."""

from __future__ import annotations

import functools
import heapq
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import to_tree
from scipy.linalg import eigvalsh
from tqdm.auto import tqdm

from .._utils import deadline, memory, progress as progress_bars
from .._utils.arrays import FloatArray
from .._utils.checks import (
    asks_to_stop,
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_seed,
    check_time_limit,
    check_vector,
    shown,
)
from .._utils.lost import LostError
from .._utils.messages import logger
from .._utils.ward import ward_tree
from ..data.rows import RowBlocks
from ..data.sample import spanning_sample
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..problems.problem import Problem, is_homogeneous
from ..results.fixed_point import FixedPoint, NotConvergedError
from ..results.status import NotConvergedWarning, Status
from ..solvers.options import Options
from ..solvers.pose import pose
from ..solvers.solve import initial_sites, report_failure
from .annealing import DEFAULT_RESOLUTION, Annealing
from .branch import Branch
from .continuation import Continuation, State
from .criticality import critical_beta
from .tile_moves import TileMoves

_MAX_SUBSAMPLE = 1000  # number of points of the hierarchy behind the default grid
_MAX_SPLITS = 16  # number of splits of the hierarchy that the default grid considers
_COINCIDENT = 1e-14  # variance of a cluster, relative to that of all points, below which its points coincide
_SCALE_RATIO = 8.0  # ratio of successive scales that separates the structure of the data from the structure inside it
_UNRESOLVED = 0.9  # share of the weight in one cluster above which the data are not yet divided
_HEADROOM = 1.25  # ratio of the top of the default grid to the first critical temperature
_POWERS = 0.8, 3.5  # of the share of the temperatures that is done, for the share of the time: 12 sweeps of tables


def sweep(
    x: npt.ArrayLike | RowBlocks,
    objective: Objective | None = None,
    *,
    betas: npt.ArrayLike | None = None,
    direction: str = "down",
    sigma: float | None = None,
    n_tiles: int | None = None,
    tiling: Tiling | None = None,
    weights: npt.ArrayLike | None = None,
    masses: str = "fixed",
    start: npt.ArrayLike | FixedPoint | Branch | None = None,
    accelerate: str = "lbfgs",
    tol: float = 1e-10,
    max_maps: int = 100_000,
    time_limit: float | None = None,
    backend: str = "auto",
    dtype: npt.DTypeLike | None = None,
    seed: int = 0,
    predict: bool = False,
    resolution: float = DEFAULT_RESOLUTION,
    restarts: int = 0,
    progress: bool = False,
    callback: Callable[[Branch], Any] | None = None,
    on_failure: str = "warn",
) -> Branch | tuple[Branch, Branch]:
    """Follow the solution along the temperature: deterministic annealing (cooling) or its reverse.

    Every temperature starts from the solution before it. Cooling keeps coincident tiles tied down to the temperature of
    their split (T9), which is located to a resolution. One resolution below it they are split into two equal halves
    along the unstable axis (T13), together with all others that have passed their split condition there. So the branch
    does not depend on the grid: without a start, cooling follows it from above the first transition, even if the grid
    begins below. `transitions` locates every split exactly. For a quick look at 1e4 points or more, take
    ``n_tiles=16, tol=1e-4, resolution=1e-2``.

    Parameters
    ----------
    x, sigma, n_tiles, tiling, weights, masses, accelerate, tol, max_maps, backend, dtype, seed, on_failure
        As for `solve`; `max_maps` holds for each solution.
    objective : Objective, optional
        `ELBO()` by default; its beta is ignored.
    betas : (n,) array_like, optional
        Temperatures, in any order; by default 240 that span the transitions of the data, see `default_betas`.
    direction : {"down", "up", "both"}
        Cooling, heating, or both. Heating without a start begins where cooling through the same grid ends.
    start : None, "data", (K, D) array_like, FixedPoint or Branch, optional
        Start of the first temperature; by default all tiles are at the mean. A branch of the same data and direction is
        continued: the temperatures beyond its end are solved, and the result contains the given branch, apart from a
        last solution that had used up its budget, which is solved again.
    time_limit : float, optional
        Budget of the whole sweep in seconds, kept as in `solve`.
    predict : bool
        Start each temperature after a step along the tangent of the branch (T11). This takes fewer maps, but more time
        if maps are fast.
    resolution : float
        Accuracy of log beta at which splits are located on cooling, and within which they are taken together.
    restarts : int
        Search for lower free energies. At every temperature the solution is started again with a tile moved from where
        it is idle to where the bound is loose (T14), until this many moves in a row have not lowered F; then every
        solution is started from those at the neighbouring temperatures. With 0 the branch is that of the protocol (T13)
        alone. Solutions of a search need not form one smooth branch. Nothing in it is random.
    progress : bool
        Show a progress bar, with the temperature and the number of reconstructions that have been reached.
    callback : callable, optional
        Called after every temperature with the branch so far; a true return value stops the sweep.

    Returns
    -------
    Branch, or (Branch, Branch) for "both"
        If Ctrl-C, the callback or the time limit ends the sweep, the solutions so far, with `complete` False. If
        heating did not begin, its branch is empty. When the time is up, the last solution has the status BUDGET_USED:
        it is the point after one map at the first temperature that was not reached. A search (`restarts`)
        that is cut short keeps what it has found.

    Raises
    ------
    ValueError
        For bad input, and if all points coincide and no `betas` are given.
    NotConvergedError
        With ``on_failure="raise"``, if a solution does not converge, or the callback or the time limit ends the sweep.
    KeyboardInterrupt
        With ``on_failure="raise"``, after Ctrl-C.

    Warns
    -----
    NotConvergedWarning
        If a solution does not converge, and if the sweep ends before its last temperature.

    Examples
    --------
    >>> branch = sweep([[-3.0], [3.0]], betas=[12.0, 6.0, 3.0], n_tiles=2)  # one transition, at 9
    >>> branch.n_distinct
    array([1, 2, 2])
    """
    check_choice(direction, "direction", ("down", "up", "both"))
    check_callable(callback, "callback")
    seed, predict, progress = check_seed(seed), check_flag(predict, "predict"), check_flag(progress, "progress")
    restarts = check_count(restarts, "restarts", 0)
    time_limit = check_time_limit(time_limit)
    resolution = check_number(resolution, "resolution", "positive and at most 0.1", lambda number: 0 < number <= 0.1)
    posed = pose(
        x,
        objective,
        sigma=sigma,
        n_tiles=n_tiles,
        tiling=tiling,
        weights=weights,
        masses=masses,
        backend=backend,
        dtype=dtype,
        on_failure=on_failure,
    )
    problem, options = posed.problem, Options(posed.free, accelerate, tol, max_maps)
    grid = None if betas is None else np.unique(check_vector(betas, "betas"))
    if grid is not None:
        problem.objective.at(float(grid[0]))  # raises ValueError for temperatures that are not positive
    if isinstance(start, Branch) and (start.direction != direction or not len(start)):
        raise ValueError(
            f"a branch is continued in its own direction and from its last solution, got {shown(start)} for "
            f"direction={direction!r}: for another direction give one of its solutions as the start"
        )

    def follow(grid: FloatArray, direction: str, start: Any, callback: Callable[[Branch], Any] | None) -> Branch:
        """The branch along a grid; why it ended early is noted in `endings`."""
        path = Continuation(problem, posed.tiling, options, predict)
        order = grid[::-1] if direction == "down" else grid
        solutions: list[FixedPoint] = []
        state: State | None = None
        if isinstance(start, Branch):
            solutions, start = list(start), start[-1]
            if start.status is Status.BUDGET_USED:
                solutions.pop()
                start = solutions[-1] if solutions else None if direction == "down" else start
            if solutions:
                order = order[order < start.beta] if direction == "down" else order[order > start.beta]
        bar = tqdm(order, disable=not progress, desc=f"sweep {direction}", unit="beta")
        ended, began = "", time.monotonic()

        def report(state: State) -> None:
            left = progress_bars.left_of_share(time.monotonic() - began, len(states) / len(order), _POWERS)
            bar.set_postfix_str(f"beta={state.beta:.4g}, {len(state.sites)} reconstructions{left}", refresh=False)
            bar.update(0)

        annealing, moves = Annealing(path, resolution, report), TileMoves(path, restarts, report)
        known, states = len(solutions), list[State]()

        def stopped() -> bool:
            return asks_to_stop(callback, Branch(tuple(solutions), direction, restarts))

        try:
            for number, beta in enumerate(map(float, bar), start=1):
                if state is None and solutions:
                    state = path.solve(start.beta, initial_sites(posed, start, seed))
                if state is None:
                    state = begun(annealing, beta, start)
                elif direction == "down":
                    state = annealing.cool(state, beta)
                else:
                    state = path.step(state, beta, split=True)
                states.append(state)
                solutions.append(state.solution)  # Ctrl-C during the search keeps it
                if restarts:
                    state = states[-1] = moves.improved(state)
                    solutions[-1] = state.solution
                report_failure(state.solution, on_failure, stacklevel=5)
                if stopped():
                    ended = "stopped by the callback" * (number < len(order))
                    progress_bars.done(bar)
                    break
            else:
                replaced = moves.exchanged(states) if restarts else ()
                for n in tqdm(replaced, disable=not progress or not restarts, desc="from neighbours", unit="beta"):
                    solutions[known + n] = states[n].solution
                    if stopped():
                        break
        except KeyboardInterrupt:
            ended = "interrupted"
        except LostError as lost:
            if not solutions:
                raise
            logger.warning("%s", lost)
            ended = "the cluster with the data was lost"
        except deadline.TimeUp:
            ended = f"time_limit={time_limit:g}"
            if len(states) < len(order):
                given = path.mean if start is None else initial_sites(posed, start, seed)
                last = annealing.path[-1] if annealing.path else state
                solutions.append(path.unfinished(beta, given if last is None else last.sites))
        finally:
            bar.close()
        if ended:
            there = f", {direction} to beta={states[-1].beta:.6g}" if states else ""
            endings.append(
                f"{ended}: {known + len(states)} of {len(grid)} temperatures were solved{there}; the branch ends there"
                if len(states) < len(order)
                else f"{ended}: all {len(grid)} temperatures were solved, and the search for a lower F ended early"
            )
        return Branch(tuple(solutions), direction, restarts, complete=not ended)

    first_transition = functools.cache(lambda: critical_beta(problem))

    def begun(annealing: Annealing, beta: float, start: Any) -> State:
        """The state at the first temperature of a branch."""
        path = annealing.branch
        if start is not None:
            return path.solve(beta, initial_sites(posed, start, seed), split=True)
        top = first_transition()
        if beta >= top:
            return path.collapsed(beta)
        return annealing.cool(path.collapsed(1.01 * top), beta)  # after all splits on the way, as in a longer sweep

    def followed(grid: FloatArray | None) -> tuple[Branch, ...]:
        """The branches of the direction, or of both directions."""
        if grid is None:
            with deadline.finishing():  # no result without a temperature
                grid = default_grid(problem, first_transition())
        if direction == "down" or (direction == "up" and start is not None):
            return (follow(grid, direction, start, callback),)
        down = follow(grid, "down", start, callback if direction == "both" else None)
        late = deadline.passed() and direction == "up"  # it ends at its first temperature
        up = Branch((), "up", complete=False)
        if down.complete or late:
            up = follow(grid, "up", down[-1], callback)
        elif direction == "up":
            endings.append(f"{endings[-1].split(':')[0]}: heating did not begin")
        return (down, up) if direction == "both" else (up,)

    endings: list[str] = []
    with deadline.within(time_limit):
        branches = followed(grid)
    if endings:
        solved = [solution for branch in branches for solution in branch]
        report_ending(endings[-1], solved[-1] if solved else None, on_failure)
    return (branches[0], branches[1]) if len(branches) == 2 else branches[0]


def report_ending(ending: str, last: FixedPoint | None, on_failure: str) -> None:
    """Warn or raise in a public function because a sweep has ended before its last temperature."""
    if on_failure == "raise":
        if ending.startswith("interrupted") or last is None:
            raise KeyboardInterrupt
        raise NotConvergedError(ending, last) from None
    if on_failure == "warn":
        warnings.warn(ending, NotConvergedWarning, stacklevel=3)


def default_betas(
    x: npt.ArrayLike | RowBlocks,
    objective: Objective | None = None,
    *,
    sigma: float | None = None,
    weights: npt.ArrayLike | None = None,
    count: int = 240,
    backend: str = "auto",
) -> FloatArray:
    """Temperatures that span the transitions of the data, ascending, evenly spaced in log beta.

    The top is 1.25 times the exact first critical temperature. The bottom follows from Ward's hierarchy of at most 1000
    of the points, drawn so that rare points far from the others are among them. From the top down, each cluster of the
    hierarchy splits at the largest variance inside it, as T9 says of clusters that do not overlap (for the Gaussian
    decoder; for the Bernoulli decoder in proportion). The grid ends in the last gap wider than a factor 8 among the
    first 16 such temperatures: at the geometric mean of the two sides of the gap, or at half the upper one if that is
    hotter. A gap above which one cluster holds more than 90 % of the weight does not count: only outliers have split
    off there. Without a gap the grid ends at half the 16th temperature.

    Parameters
    ----------
    x : (N, D) array_like, memory map, RowBlocks, or Dask array or dataframe
        Data.
    objective : Objective, optional
        `ELBO()` by default; its beta is ignored.
    sigma : float, optional
        Standard deviation of the Gaussian decoder, in units of x; short for an ELBO with it. 1 by default.
    weights : (N,) array_like, optional
        Data weights, uniform by default.
    count : int
        Number of temperatures, at least two.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.

    Returns
    -------
    (count,) array
        Temperatures, ascending.

    Raises
    ------
    ValueError
        For bad input, and if all points coincide, so that there is no transition to span.

    Examples
    --------
    >>> round(float(default_betas([[-3.0], [3.0]])[-1]), 6)  # 1.25 times the first transition
    11.25
    """
    count = check_count(count, "count", 2, memory.LARGEST)
    problem = Problem.make(x, objective, weights, backend, sigma=sigma)
    return default_grid(problem, critical_beta(problem), count)


def default_grid(problem: Problem, top: float, count: int = 240) -> FloatArray:
    """`default_betas` of a problem with the first critical temperature `top`."""
    if not top > 0:
        raise ValueError("all points of x coincide, so there is no transition to span: give betas=")
    scales, largest = _split_scales(problem)
    relative = np.array([top, *np.minimum.accumulate(scales / scales[0] * top)[1:]])
    # Where almost all data are one cluster still, a gap separates outliers from the data, not the data from its parts.
    wide = np.flatnonzero((relative[:-1] > _SCALE_RATIO * relative[1:]) & (largest[:-1] <= _UNRESOLVED))
    last = int(wide[-1]) if len(wide) else len(relative) - 1
    following = relative[last + 1] if last + 1 < len(relative) else 0.0
    bottom = max(relative[last] / 2, np.sqrt(relative[last]) * np.sqrt(following))
    return np.geomspace(bottom, _HEADROOM * top, count)


def _split_scales(problem: Problem) -> tuple[FloatArray, FloatArray]:
    """Largest variances inside the clusters of Ward's hierarchy, in the order in which the clusters split.

    Also the share of the largest cluster in the weight after each split.
    """
    rows = problem.data.rows.distinct()
    chosen, rho = spanning_sample(rows, _MAX_SUBSAMPLE)
    points = rows.take(chosen)
    if is_homogeneous(problem.objective):  # variances in units of the means, as in T9
        points = points * np.sqrt(np.asarray(problem.framed.curvature(problem.data.mean[None])))

    def spread(node: Any) -> float:
        members = node.pre_order()
        deviation = points[members] - np.average(points[members], axis=0, weights=rho[members])
        scaled = deviation * np.sqrt(rho[members] / rho[members].sum())[:, None]
        gram = scaled @ scaled.T if len(scaled) < scaled.shape[1] else scaled.T @ scaled
        last = len(gram) - 1  # the largest eigenvalue, which is that of the covariance
        return float(eigvalsh(gram, subset_by_index=[last, last])[0])

    if len(points) == 1:
        return np.ones(1), np.ones(1)
    root = to_tree(ward_tree(points))
    heap = [(-spread(root), 0, root)]
    weights = {root.get_id(): float(rho.sum())}
    scales: list[float] = []
    largest: list[float] = []
    while heap and len(scales) < _MAX_SPLITS and not (scales and deadline.passed()):
        scale, _, node = heapq.heappop(heap)
        if scales and scale > -_COINCIDENT * scales[0]:
            break
        scales.append(-scale)
        del weights[node.get_id()]
        for child in (node.get_left(), node.get_right()):
            weights[child.get_id()] = float(rho[child.pre_order()].sum())
            if not child.is_leaf():
                heapq.heappush(heap, (-spread(child), child.get_id(), child))
        largest.append(max(weights.values()) / rho.sum())
    return np.array(scales), np.array(largest)
