"""estimate(): time and memory of a computation on this machine, before it is run."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._utils import memory, tables
from ._utils.arrays import FloatArray
from ._utils.checks import check_count, check_dtype
from ._utils.device import to_host
from .backends import get_backend
from .data.rows import RowBlocks
from .data.sample import spanning_sample
from .objectives.elbo import ELBO
from .phases.criticality import critical_beta
from .problems.problem import Problem
from .results.status import Status
from .solvers.solve import solve

_WORK = 2**26  # N K (D + 8) of the longer calibrating map, about 30 ms on a core; the shorter one has an eighth
_MAX_ROWS, _MAX_ENTRIES, _MAX_DECODER = 2**19, 2**22, 2**21  # of its data, and entries of its decoder
_LEAST_ROWS = 256
_LEAST_SLOPE = 0.6  # share of its time that grows with N; on a busy machine the shorter map may happen to be slow
_REPEATS, _REPEATING = (3, 30), 0.2  # fewest and most of a calibrating map, of which the fastest counts; seconds
_SMALLEST = 64, 8, 2  # N, K, D of a map that takes no time but that of its calls
# Numbers of maps that were seen on toy data, digits and Gaussians of 1 to 64 dimensions:
_SOLVE_MAPS = 25, 1000  # of a solution
_SWEEP_MAPS = 2000, 40_000  # of the 240 temperatures of a sweep
_OF_SOLVE = 60, 600  # maps of a sweep, per map of a typical solution
_BESIDE = 10, 40  # time per map of a solution: in maps of the data, and in smallest maps for the rest of the loop
_OF_FRONTIER = 20_000, 6000  # R(D): maps with a tile per distinct point, and smallest maps per distinct point
_SPREAD = 4.0  # ratio by which the time of R(D) may differ from that
# Trials on a sample of x:
_SAMPLES = 64, 256  # rows
_COOLED = 0.5, 0.1  # temperatures, relative to the first critical one
_TRIAL_TILES = 64
_TRIAL_SECONDS = 2.0  # for each of four
_MARGIN = 2.0  # ratio by which the number of maps may differ from that of the sample
_FASTER = 4.0  # ratio by which a map may take less time than in the slowest of these solutions


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
        ends = [_seconds(self.least), _seconds(self.most)]
        return " to ".join(ends[: 1 if ends[0] == ends[1] else 2])

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
        The data, or some of their rows. Four solutions of at most 256 of them show how many maps the data need, within
        eight seconds, and how many rows are distinct.
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
    once, least = _map_seconds(distinct, k, d, name, real), _map_seconds(*_SMALLEST, name, real)
    maps: tuple[float, float]
    sweep_maps: tuple[float, float]
    if trial is None:
        maps, sweep_maps, fast, slow = _SOLVE_MAPS, _SWEEP_MAPS, once, _BESIDE[0] * once + _BESIDE[1] * least
    else:
        maps, sweep_maps = trial.maps, trial.sweep_maps
        slow = max(_BESIDE[0] * once, trial.seconds(distinct))
        fast = slow / _FASTER
    repeated = 8 * (n - distinct) * d  # bytes of rows that are only read
    needs = memory.of_solve(distinct, k, d, real.itemsize) + repeated
    sites = min(distinct, memory.SITES)
    curve = _OF_FRONTIER[0] * _map_seconds(distinct, sites, d, name, real) + _OF_FRONTIER[1] * distinct * least
    return Estimate(
        n,
        k,
        d,
        distinct,
        name,
        Effort(once, once, memory.of_map(distinct, k, d, real.itemsize) + repeated),
        Effort(maps[0] * fast, maps[1] * slow, needs),
        Effort(sweep_maps[0] * fast, sweep_maps[1] * slow, needs + 240 * 8 * (k * d + k)),
        Effort(curve / _SPREAD, curve * _SPREAD, memory.of_frontier(distinct, d) + repeated),
    )


# --- the time of a map ------------------------------------------------------------------------------------------------


def _map_seconds(n: int, k: int, d: int, backend: str, dtype: np.dtype[Any]) -> float:
    """Seconds of a map: measured at fewer rows and then linear in N, and linear in K (D + 8) for larger decoders."""
    columns = min(d, 2**14)
    tiles = min(k, _MAX_DECODER // columns)
    factor = k * (d + 8) / (tiles * (columns + 8))
    rows = max(_LEAST_ROWS, min(_WORK // (tiles * (columns + 8)), _MAX_ROWS, _MAX_ENTRIES // columns))
    if n <= rows:
        return factor * _measured(n, tiles, columns, backend, dtype)
    few, many = (_measured(count, tiles, columns, backend, dtype) for count in (rows // 8, rows))
    slope = max((many - few) / (rows - rows // 8), _LEAST_SLOPE * many / rows)
    return factor * (many + slope * (n - rows))


@functools.cache
def _measured(n: int, k: int, d: int, backend: str, dtype: np.dtype[Any]) -> float:
    """The least seconds of some maps of Gaussian data, at a temperature at which every tile is of use to every row."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((max(n, 2), d))
    problem = Problem.make(x, ELBO(beta=float(d)), None, backend, dtype)
    psi = problem.data.to_device(rng.standard_normal((k, d)) / np.sqrt(d))
    log_masses = problem.data.to_device(np.full(k, -np.log(k)))

    def once() -> float:
        start = time.perf_counter()
        to_host(problem.updated_decoder(psi, problem.expectations(psi, log_masses)))
        return time.perf_counter() - start

    once()  # compiles the kernel
    seconds: list[float] = []
    while len(seconds) < _REPEATS[0] or (len(seconds) < _REPEATS[1] and sum(seconds) < _REPEATING):
        seconds.append(once())
    return min(seconds)


# --- trials -----------------------------------------------------------------------------------------------------------


class _Trial(NamedTuple):
    """The number of distinct rows, fewest and most maps, and seconds per map of a solution by the number of rows."""

    distinct: int
    maps: tuple[float, float]
    sweep_maps: tuple[float, float]
    seconds: Callable[[int], float]


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
    (few, quick, _), (many, slow, maps) = runs
    slope = max(slow - quick, 0.0) / max(many - few, 1)
    typical = float(np.sqrt(np.prod(maps)))
    return _Trial(
        max(round(n * len(rows) / len(given)), 1),
        (max(min(maps) / _MARGIN, 1.0), max(maps) * _MARGIN),
        (_OF_SOLVE[0] * typical, _OF_SOLVE[1] * typical),
        lambda count: slow + slope * max(count - many, 0),
    )


def _solved(
    points: FloatArray, rho: FloatArray, tiles: int, backend: str, dtype: np.dtype[Any]
) -> tuple[float, list[int]]:
    """Seconds per map, and the numbers of maps of solutions at two temperatures."""
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


# --- text -------------------------------------------------------------------------------------------------------------

_UNITS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def _seconds(value: float) -> str:
    """A time with two digits, in the largest unit of which it has at least one."""
    unit, name = next(((unit, name) for unit, name in _UNITS if value >= 0.995 * unit), _UNITS[-1])
    return f"{_two_digits(value / unit)} {name}"


def _two_digits(value: float) -> str:
    """A number to two digits, or to whole numbers where it has more."""
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"
