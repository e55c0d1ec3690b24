"""estimate(): time and memory of a computation on this machine, before it is run."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._utils import memory, progress, tables
from ._utils.arrays import FloatArray
from ._utils.checks import check_count, check_dtype
from .backends import get_backend
from .data.rows import RowBlocks
from .data.sample import spanning_sample
from .frontier.rate_distortion import rate_distortion
from .phases.criticality import critical_beta
from .problems.problem import Problem
from .results.fixed_point import NotConvergedError
from .results.status import Status
from .solvers.solve import solve
from .solvers.timing import SOLVE_MAPS, map_seconds, smallest_seconds, step_seconds

# Numbers of maps that were seen on toy data, tables and Gaussians of 1 to 64 dimensions:
_SWEEP_MAPS = 1500, 60_000  # of the 240 temperatures of a sweep
_OF_SOLVE = 20, 350  # maps of a sweep, per map of a typical solution
_OF_FRONTIER = 7000, 2000  # R(D): maps with a tile per distinct point, and smallest maps per distinct point
_SPREAD = 4.0  # ratio by which the time of R(D) may differ from that
_SPREAD_OF_TRIAL = 2.5  # the same where some rows show how it differs
# Trials on a sample of x:
_SAMPLES = 64, 256  # rows
_COOLED = 0.5, 0.1, 0.03  # temperatures, relative to the first critical one
_TRIAL_TILES = 64
_TRIAL_SECONDS = 1.3  # for each of six
_FRONTIER_SECONDS, _FEW = 4.0, 8  # for R(D) of the fewer rows; rows of a curve whose time does not count
_MARGINS = 1.5, 4.0  # ratios by which there may be fewer and more maps than for the sample


@dataclass(frozen=True)
class Effort:
    """What a computation takes.

    Attributes
    ----------
    least, most : float
        Seconds at least and at most.
    bytes : int
        Memory at most, in bytes, the data included.

    Examples
    --------
    >>> Effort(5.0, 90.0, 2**30).text
    '5 s to 1.5 min, 1 GiB'
    """

    least: float
    most: float
    bytes: int

    @property
    def time(self) -> str:
        """The seconds, as text."""
        return progress.span(self.least, self.most)

    @property
    def text(self) -> str:
        """Time and memory."""
        return f"{self.time}, {memory.text(self.bytes)}"


@dataclass(frozen=True, repr=False)
class Estimate:
    """Time and memory of the computations with data of one size, on this machine as busy as it was.

    Attributes
    ----------
    n, k, d : int
        Numbers of rows, of tiles and of columns.
    distinct : int
        The number of distinct rows, which determines the time; N where the data are not known.
    backend : str
        The backend that computes.
    map, solve, sweep, rate_distortion : Effort
        What a map takes, one solution, the 240 temperatures of a sweep, and the default curve of R(D).

    Examples
    --------
    >>> found = estimate(1000, 16, 2)
    >>> found.map.least <= found.solve.least <= found.solve.most <= found.sweep.most
    True
    """

    n: int
    k: int
    d: int
    distinct: int
    backend: str
    map: Effort
    solve: Effort
    sweep: Effort
    rate_distortion: Effort

    @property
    def efforts(self) -> dict[str, Effort]:
        """The four efforts by name."""
        return {name: getattr(self, name) for name in ("map", "solve", "sweep", "rate_distortion")}

    @property
    def _columns(self) -> tables.Columns:
        rows = self.efforts
        return {
            "computation": list(rows),
            "time": [effort.time for effort in rows.values()],
            "memory": [memory.text(effort.bytes) for effort in rows.values()],
        }

    @property
    def _title(self) -> str:
        rows = f"{self.n} rows" + (f", about {self.distinct} of them distinct" if self.distinct < self.n else "")
        return f"{rows}, {self.k} tiles, {self.d} columns, {self.backend}"

    def __repr__(self) -> str:
        return f"Estimate({self._title}: a map takes {self.map.text}; a solution {self.solve.text})"

    def __str__(self) -> str:
        return f"{self._title}\n{tables.as_text(self._columns)}"

    def _repr_html_(self) -> str:
        return tables.as_html(self._title, self._columns)


def estimate(
    n: int,
    k: int,
    d: int,
    *,
    x: npt.ArrayLike | RowBlocks | None = None,
    backend: str = "auto",
    dtype: npt.DTypeLike | None = None,
) -> Estimate:
    """Time and memory of a map, a solution, a sweep and R(D), for data of a size, before anything is run.

    Two maps of few rows are run several times, which takes about a second; the same call again takes no time. The time
    of a map is exact to about a factor of two, for reconstructions that are all of use to all rows: at a low
    temperature in few dimensions it is less. The other times are ranges, because the number of maps depends on the
    data. `x` narrows them.

    Parameters
    ----------
    n, k, d : int
        Number of rows, of tiles and of columns.
    x : (m, D) array_like, memory map or RowBlocks, optional
        The data, or some of their rows. Six solutions of at most 256 of them, and R(D) of 64, show how long the
        data take, within twelve seconds, and how many rows are distinct.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.
    dtype : {float64, float32}, optional
        Precision of the passes; float64 by default.

    Returns
    -------
    Estimate
        Seconds and bytes. Memory includes the data as an array in float64, and is that of the host.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> found = estimate(100_000, 64, 2)
    >>> found.n, found.map.bytes < 2**25
    (100000, True)
    """
    n, k, d = (check_count(value, name, most=2**48) for value, name in ((n, "n"), (k, "k"), (d, "d")))
    real, name = check_dtype(dtype), get_backend(backend).__name__.rsplit(".", 1)[1]
    trial = None if x is None else _tried(Problem.make(x, None, None, name, dtype), n, k, d, name)
    distinct = n if trial is None else trial.distinct
    once, slow = step_seconds(distinct, k, d, name, real)
    maps: tuple[float, float] = SOLVE_MAPS
    sweep_maps: tuple[float, float] = _SWEEP_MAPS
    if trial is not None:
        maps, sweep_maps, slow = trial.maps, trial.sweep_maps, max(slow, trial.seconds(distinct))
    repeated = 8 * (n - distinct) * d  # bytes of rows that are only read
    needs = memory.of_solve(distinct, k, d, real.itemsize) + repeated
    spread, ratio = (_SPREAD, 1.0) if trial is None else (trial.frontier_spread, trial.frontier)
    curve = ratio * _frontier_seconds(distinct, d, name)
    return Estimate(
        n,
        k,
        d,
        distinct,
        name,
        Effort(once, once, memory.of_map(distinct, k, d, real.itemsize) + repeated),
        Effort(maps[0] * once, maps[1] * slow, needs),
        Effort(sweep_maps[0] * once, sweep_maps[1] * slow, needs + 240 * 8 * (k * d + k)),
        Effort(curve / spread, curve * spread, memory.of_frontier(distinct, d) + repeated),
    )


def _frontier_seconds(n: int, d: int, backend: str) -> float:
    """Seconds of the default curve of R(D) of n distinct rows, as on average over data."""
    real = np.dtype(np.float64)
    sites = min(n, memory.SITES)
    return _OF_FRONTIER[0] * map_seconds(n, sites, d, backend, real) + _OF_FRONTIER[1] * n * smallest_seconds(
        backend, real
    )


# --- trials -----------------------------------------------------------------------------------------------------------


class _Trial(NamedTuple):
    """The number of distinct rows, fewest and most maps, seconds per map of a solution by the number of rows, and R(D).

    `frontier` is the time of R(D) of some rows over the average one; all rows may differ by `frontier_spread` from it.
    """

    distinct: int
    maps: tuple[float, float]
    sweep_maps: tuple[float, float]
    seconds: Callable[[int], float]
    frontier: float
    frontier_spread: float


def _tried(problem: Problem, n: int, k: int, d: int, backend: str) -> _Trial:
    """What a few solutions of some of the rows take; the time per map is extended linearly in the number of rows."""
    given = problem.data.rows
    if given.dim != d:
        raise ValueError(f"x must have d={d} columns, got {given.dim}")
    if len(given) > n:
        raise ValueError(f"x must be the n={n} rows or some of them, got {len(given)} rows")
    rows, tiles = given.distinct(), min(k, _TRIAL_TILES)
    runs = []  # rows, seconds per map, and numbers of maps
    for count in _SAMPLES:
        chosen, rho = spanning_sample(rows, count)
        seconds, maps = _solved(rows.take(chosen), rho, tiles, backend, given.dtype)
        runs.append((len(chosen), seconds * k / tiles, maps))
    chosen, rho = spanning_sample(rows, _SAMPLES[0])
    (few, quick, _), (many, slow, maps) = runs
    slope = max(slow - quick, 0.0) / max(many - few, 1)
    # Within those of any data, unless the sample itself is beyond them:
    fewest = max(min(maps) / _MARGINS[0], min(SOLVE_MAPS[0], *maps))
    most = min(max(maps) * _MARGINS[1], max(SOLVE_MAPS[1], *maps))
    typical = float(np.exp(np.mean(np.log(maps))))
    return _Trial(
        max(round(n * len(rows) / len(given)), 1),
        (fewest, most),
        (_OF_SOLVE[0] * typical, _OF_SOLVE[1] * typical),
        lambda count: slow + slope * max(count - many, 0),
        *_tried_frontier(rows.take(chosen), rho, backend),
    )


def _tried_frontier(points: FloatArray, rho: FloatArray, backend: str) -> tuple[float, float]:
    """The time of R(D) of these points over that which is expected, and the ratio by which others may differ."""
    run = functools.partial(
        rate_distortion, backend=backend, time_limit=_FRONTIER_SECONDS, on_failure="raise", weights=rho
    )
    with contextlib.suppress(NotConvergedError, ValueError):
        run(points[:_FEW], weights=None, callback=lambda solution: True)  # compiles the kernels
    start, spread = time.perf_counter(), _SPREAD_OF_TRIAL
    try:
        run(points)
    except NotConvergedError:
        spread = _SPREAD
    except ValueError:  # the points coincide
        return 1.0, _SPREAD
    ratio = (time.perf_counter() - start) / _frontier_seconds(len(points), points.shape[1], backend)
    return (ratio if spread < _SPREAD else max(ratio, 1.0)), spread


def _solved(
    points: FloatArray, rho: FloatArray, tiles: int, backend: str, dtype: np.dtype[Any]
) -> tuple[float, list[int]]:
    """Seconds per map, and the numbers of maps of solutions at some temperatures."""
    run = functools.partial(
        solve, points, n_tiles=tiles, weights=rho, backend=backend, dtype=dtype, on_failure="return"
    )
    top = critical_beta(Problem.make(points, None, rho, backend)) or 1.0  # of coincident points
    run(beta=top, max_maps=3)  # compiles the kernels
    seconds, maps = [], []
    for share in _COOLED:
        start = time.perf_counter()
        found = run(beta=share * top, time_limit=_TRIAL_SECONDS)
        if found.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        seconds.append((time.perf_counter() - start) / found.n_maps)
        maps.append(found.n_maps)
    return max(seconds), maps
