"""pose(): check the arguments that the solvers of fixed points share, and make a problem with tiles from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from .._utils import memory, progress
from .._utils.checks import TooLargeError, check_choice, check_instance, shown
from .._utils.defaults import N_TILES
from ..data.rows import RowBlocks
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..problems.problem import Problem
from .timing import solve_seconds


@dataclass(frozen=True, eq=False)
class Posed:
    """A problem with its latent tiles; `free` says whether their prior masses are optimised."""

    problem: Problem
    tiling: Tiling
    free: bool


def pose(
    x: npt.ArrayLike | RowBlocks,
    objective: Objective | None,
    *,
    beta: float | None = None,
    sigma: float | None = None,
    n_tiles: int | None = None,
    tiling: Tiling | None = None,
    weights: npt.ArrayLike | None = None,
    masses: str = "fixed",
    backend: str = "auto",
    dtype: npt.DTypeLike | None = None,
    on_failure: str = "warn",
) -> Posed:
    """The problem of the data in their frame, with its tiles; raises ValueError for bad arguments.

    The defaults are `ELBO()` and `N_TILES` uniform tiles.
    """
    if tiling is None:
        tiling = Tiling.uniform(N_TILES if n_tiles is None else n_tiles)
    elif n_tiles is not None:
        raise ValueError(
            f"n_tiles and tiling both give the tiles: give one of them, got {shown(n_tiles)} and {shown(tiling)}"
        )
    check_instance(tiling, "tiling", Tiling, "Tiling.uniform(64)")
    check_choice(masses, "masses", ("fixed", "free"))
    check_on_failure(on_failure)
    problem = Problem.make(x, objective, weights, backend, dtype, beta=beta, sigma=sigma)
    _check_memory(problem, len(tiling))
    return Posed(problem, tiling, masses == "free")


def _check_memory(problem: Problem, k: int) -> None:
    """Raise TooLargeError if a map with k tiles needs more memory than the machine has."""
    rows, there = problem.data.rows, memory.physical()

    def needed(n: int) -> int:
        return memory.of_map(n, k, rows.dim, rows.dtype.itemsize)

    n = min(len(rows), memory.rows_of_block(rows.dim)) if rows.streamed else len(rows)
    if needed(n) > there and needed(len(rows.distinct())) > there:
        instead = "fewer tiles" if rows.streamed else "a memory map, float32 or fewer tiles"
        backend = problem.data.backend.__name__.rsplit(".", 1)[1]
        seconds = solve_seconds(len(rows), k, rows.dim, backend, rows.dtype)
        raise TooLargeError(
            f"a map of {len(rows)} rows, {k} tiles and {rows.dim} columns needs {memory.text(needed(n))}, a solution "
            f"takes {progress.span(*seconds)}, and the memory of this machine is {memory.text(there)}: take {instead}"
        )


def check_on_failure(on_failure: Any) -> None:
    """Raise ValueError if `on_failure` is not one of its values."""
    check_choice(on_failure, "on_failure", ("warn", "raise", "return"))
