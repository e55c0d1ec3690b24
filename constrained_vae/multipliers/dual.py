"""solve_constrained(): the multipliers that meet given thresholds, which GECO finds by gradient steps (T5), (T7).

The dual problem is to find multipliers lambda >= 0 with E[C_k] <= 0 and lambda_k E[C_k] = 0 for every constraint. On a
branch of stable fixed points the Lagrangian is concave in lambda with the slope E[C], so that a larger multiplier means
a smaller E[C].

First a ray of multipliers is annealed until the worst constraint just holds. For one constraint this is the answer.
Several constraints are then relaxed from the state of least rate at which all of them hold, see `relaxation`. If they
hold nowhere on the ray, such a state is sought by Newton steps of the dual problem in log lambda.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from .._utils import deadline
from .._utils.checks import check_flag, check_time_limit
from .._utils.lost import LostError
from ..data.rows import RowBlocks
from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..objectives.constraints import Constraint
from ..objectives.lagrangian import Lagrangian
from ..phases.continuation import Continuation, State
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from ..solvers.options import Options
from ..solvers.pose import pose
from ..solvers.solve import initial_sites, report_failure
from .constrained_fixed_point import ConstrainedFixedPoint
from .newton import met_together
from .rate_zero import at_rate_zero
from .ray import Crossing, crossing, crossing_from, crossing_near, start as started
from .relaxation import relaxed
from .search import KKT_TOL, Search


def solve_constrained(
    x: npt.ArrayLike | RowBlocks,
    constraints: Constraint | Sequence[Constraint],
    *,
    n_tiles: int | None = None,
    tiling: Tiling | None = None,
    weights: npt.ArrayLike | None = None,
    masses: str = "fixed",
    box: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    anchor: float = 0.0,
    start: npt.ArrayLike | FixedPoint | None = None,
    accelerate: str = "lbfgs",
    tol: float = 1e-10,
    max_maps: int = 100_000,
    time_limit: float | None = None,
    backend: str = "auto",
    dtype: npt.DTypeLike | None = None,
    progress: bool = False,
    on_failure: str = "warn",
) -> ConstrainedFixedPoint:
    """Find multipliers lambda >= 0 with E[C_k] <= 0 and lambda_k E[C_k] = 0, and the solution at these multipliers.

    The multipliers are annealed. Those of the constraints that do not hold at rate zero grow from zero in a fixed
    ratio, and solutions are followed and split as in `sweep`, with a resolution that doubles with every reconstruction
    from 0.001 to 0.1: after jumps they may be in another minimum. For one constraint the threshold is met by a
    bracketed root. Several constraints are met by Newton steps from there. If a branch ends before all thresholds are
    met, the result is the solution of least rate, among those found, at which all constraints hold: a looser threshold
    does not cost more, up to the accuracy with which the end of a branch is located, about 0.2 %.

    Parameters
    ----------
    x : (N, D) array_like, memory map, RowBlocks, or Dask array or dataframe
        Data.
    constraints : constraint or sequence of them
        `RE`, `FRE`, `CLA`, `PNCC`, or any other `Constraint`.
    box, anchor
        As for `Lagrangian`; `anchor` is not annealed.
    start : None, "data", (K, D) array_like or FixedPoint, optional
        By default solutions are annealed from a single reconstruction. For one constraint, random data points ("data")
        or given reconstructions are a start from which the multiplier moves while they converge, at about the cost of
        three calls of `solve` from there. The result is then a local minimum, as for `solve`.
    n_tiles, tiling, weights, masses, accelerate, tol, max_maps, backend, dtype
        As for `solve`; `max_maps` holds for each solution.
    time_limit : float, optional
        Budget of the whole search in seconds, kept as in `solve`.
    progress : bool
        Show a progress bar.
    on_failure : {"warn", "raise", "return"}
        What to do if the constraints are not met. The result then has the last solution of the search, also after
        Ctrl-C or when the time is used up; for several constraints, that of least rate at which all of them held if
        there was one. With "raise", Ctrl-C raises KeyboardInterrupt.

    Returns
    -------
    ConstrainedFixedPoint
        Solution with `.multipliers`, `.constraint_values`, `.active`, and a `.status`: MET; SLACK, if all constraints
        hold at rate zero; UNREACHABLE with these tiles; or JUMP, if a first-order transition skips a threshold.

    Raises
    ------
    ValueError
        For bad input.
    NotConvergedError
        If the constraints are not met, with ``on_failure="raise"``.

    Examples
    --------
    >>> from constrained_vae import RE
    >>> s = solve_constrained([[-1.0], [1.0]], RE.from_squared_error(0.75), n_tiles=2)
    >>> round(s.multipliers["RE"], 9)  # m^2 = 1/4 and lambda = artanh(m) / (2 m) (docs/theory.md section 5)
    0.549306144
    """
    progress = check_flag(progress, "progress")
    constraints = tuple(constraints) if isinstance(constraints, Sequence) else (constraints,)
    objective = Lagrangian(constraints, [1.0] * len(constraints), box=box, anchor=anchor)
    posed = pose(
        x,
        objective,
        n_tiles=n_tiles,
        tiling=tiling,
        weights=weights,
        masses=masses,
        backend=backend,
        dtype=dtype,
        on_failure=on_failure,
    )
    if start is not None and len(constraints) > 1:
        raise ValueError(f"start must be None for several constraints, got {len(constraints)} of them")
    sites = None if start is None else initial_sites(posed, start, 0)
    options = Options(posed.free, accelerate, tol, max_maps)
    bar = tqdm(disable=not progress, desc="multipliers", unit=" solutions")
    with deadline.within(check_time_limit(time_limit)), bar:
        solution = _found(Search(posed, options, bar), sites)
    report_failure(solution, on_failure, stacklevel=3)
    return solution


_ENDINGS: dict[type, Status] = {
    KeyboardInterrupt: Status.INTERRUPTED,
    deadline.TimeUp: Status.BUDGET_USED,
    LostError: Status.LOST,
}


@dataclass(frozen=True, eq=False, repr=False)
class _Ray(Lagrangian):
    """A Lagrangian whose temperature changes the multipliers of the constraints, but not that of the anchor."""

    def at(self, beta: float) -> Lagrangian:
        return Lagrangian(self.constraints, np.array(self.multipliers) / beta, box=self.box, anchor=self.anchor)


def _found(search: Search, sites: Sites | None) -> ConstrainedFixedPoint:
    """The whole search, from given sites if they are not None."""
    search.begin(at_rate_zero(search))
    assert search.here is not None
    broken = search.c(search.here) > KKT_TOL
    if not broken.any():
        return _package(search, Status.SLACK)
    try:
        return _package(search, *_searched(search, broken, sites))
    except (KeyboardInterrupt, deadline.TimeUp, LostError) as end:
        search.here = search.best or search.here
        return _package(search, _ENDINGS[type(end)])


def _searched(search: Search, broken: Any, sites: Sites | None) -> tuple[Status, State | None]:
    """The status of the search, which leaves its solution in `here`, and the other side of a jump."""
    found = _annealed(search, broken, sites)
    search.here = found.state
    if len(search.scales) == 1 and found.before is not None:
        return Status.JUMP, found.before
    if len(search.scales) == 1:
        return Status.MET if found.reached else Status.UNREACHABLE, None
    if search.best is None:
        ending = met_together(search, found.state)
        if search.best is None:
            return ending
    status, other = relaxed(search)
    return status, None if status is Status.MET else other or found.before


def _annealed(search: Search, broken: Any, sites: Sites | None) -> Crossing:
    """Anneal the multipliers of the constraints that do not hold at rate zero, in inverse ratio of their scales."""
    given = search.objective
    bounded = any(c.bounded for c, is_broken in zip(given.constraints, broken, strict=True) if is_broken)
    if not (given.box or given.anchor or bounded):
        broken = np.ones_like(broken)  # the broken constraints alone have no minimiser
    direction = np.where(broken, 1 / search.scales, 0.0)
    ray = _Ray(given.constraints, direction, box=given.box, anchor=given.anchor)
    path = Continuation(search.problem.at(ray), search.tiling, search.options, accuracy=1e-10)
    worst = np.flatnonzero(broken)

    def measure(state: State) -> float:
        return float(search.c(state)[worst].max())

    def from_data() -> Crossing:
        sites = initial_sites(search.posed, "data", 0)
        return crossing_from(path, sites, measure, search.seen)

    if sites is not None:
        return crossing_near(path, sites, measure, search.seen)
    # Minimisers may lie in corners of the box, where sites never split: tiles start at data, with tiny multipliers.
    if given.box and not (given.anchor or bounded):
        return from_data()
    found = crossing(path, started(path, 1.0), measure, search.seen)
    convex = all(c.quadratic for c in given.constraints)
    return found if found.reached or convex else from_data()


def _package(search: Search, status: Status, other: State | None = None) -> ConstrainedFixedPoint:
    """The result; its status is that of the solution if the solution has not converged."""
    state = search.here
    assert state is not None  # a search begins with the state at rate zero
    solution = state.solution
    ending = solution.status
    if state.acceptable or status in _ENDINGS.values():
        ending = Status.BUDGET_USED if status is Status.UNREACHABLE and search.unfinished else status
    sides = None if other is None else (other.solution, solution)
    least = dict(zip(search.objective.names, search.least.tolist(), strict=True))
    scales = tuple(search.scales.tolist())
    return solution.extended_as(ConstrainedFixedPoint, status=ending, scales=scales, least=least, sides=sides)
