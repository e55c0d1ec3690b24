"""What a map takes on this machine, and how many of them a computation takes: for estimate(), bars and refusals."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np

from .._utils.device import to_host
from ..objectives.elbo import ELBO
from ..problems.problem import Problem

SOLVE_MAPS = 25, 1000  # maps of a solution that were seen on toy data, tables and Gaussians of 1 to 784 dimensions
_WORK = 2**26  # N K (D + 8) of the longer calibrating map, about 30 ms on a core; the shorter one has an eighth
_MAX_ROWS, _MAX_ENTRIES, _MAX_DECODER = 2**19, 2**22, 2**21  # of its data, and entries of its decoder
_LEAST_ROWS = 256
_LEAST_SLOPE = 0.6  # share of its time that grows with N; on a busy machine the shorter map may happen to be slow
_REPEATS, _REPEATING = (3, 30), 0.2  # fewest and most of a calibrating map, of which the fastest counts; seconds
_SMALLEST = 64, 8, 2  # N, K, D of a map that takes no time but that of its calls
_BESIDE = 2.5, 6.0  # time per map of a solution at most: in maps of the data, and in smallest maps for the loop


def map_seconds(n: int, k: int, d: int, backend: str, dtype: np.dtype[Any]) -> float:
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


def smallest_seconds(backend: str, dtype: np.dtype[Any]) -> float:
    """Seconds of a map of so few rows that its calls are all that takes time."""
    return map_seconds(*_SMALLEST, backend, dtype)


def solve_seconds(n: int, k: int, d: int, backend: str, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Seconds of a solution, at least and at most, whatever the data are."""
    fast, slow = step_seconds(n, k, d, backend, dtype)
    return SOLVE_MAPS[0] * fast, SOLVE_MAPS[1] * slow


def step_seconds(n: int, k: int, d: int, backend: str, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Seconds of a solution per map, at least and at most."""
    once = map_seconds(n, k, d, backend, dtype)
    return once, _BESIDE[0] * once + _BESIDE[1] * smallest_seconds(backend, dtype)


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
