"""Number of maps and time to locate the transitions of a data set, by continuation and on grids.

    python -m analysis.benchmarks.continuation [--data four_clusters] [--n-tiles K] [--grids n ...]

On a grid every temperature starts from the solution before it, as a careful user would do by hand. A transition then
lies between two temperatures, so the relative accuracy is the step of the grid. The cost of a grid with the accuracy of
the continuation is extrapolated from the finest grid, with its maps per temperature.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

import constrained_vae as cv
from constrained_vae.backends import numba
from constrained_vae.problems.problem import Problem

ACCURACY = 1e-9  # relative accuracy of a transition by continuation


@contextmanager
def counted() -> Iterator[list[int]]:
    """Count every evaluation of the map, in the first entry of the list."""
    count, original = [0], Problem.expectations

    def expectations(self: Problem, psi: Any, log_masses: Any) -> Any:
        count[0] += 1
        return original(self, psi, log_masses)

    def steps(*args: Any) -> Any:
        found = quick(*args)
        count[0] += found.maps if found else 0
        return found

    quick = numba.steps
    with mock.patch.object(Problem, "expectations", expectations), mock.patch.object(numba, "steps", steps):
        yield count


def by_continuation(x: Any, tiling: cv.Tiling, masses: str) -> list[float]:
    """The transitions, hottest first."""
    return [t.beta for t in cv.transitions(x, tiling=tiling, masses=masses)]


def by_grid(x: Any, tiling: cv.Tiling, masses: str, count: int) -> list[float]:
    """The middles of the steps at which the number of distinct reconstructions grows."""
    betas = cv.default_betas(x, count=count)[::-1]
    solution, found, distinct = None, [], 1
    for above, beta in zip([betas[0], *betas], betas, strict=False):
        start = np.repeat(np.mean(x, axis=0)[None], len(tiling), axis=0) if solution is None else solution
        solution = cv.solve(x, beta=beta, tiling=tiling, masses=masses, start=start, on_failure="return")
        if len(solution.distinct) > distinct:
            found.append(float(np.sqrt(above * beta)))
        distinct = len(solution.distinct)
    return found


def measured(work: Callable[[], list[float]]) -> tuple[list[float], int, float]:
    """The result of the work, its number of maps and its seconds."""
    began = time.perf_counter()
    with counted() as count:
        found = work()
    return found, count[0], time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=("four_clusters", "rings", "moons", "simplex"), default="four_clusters")
    parser.add_argument("--n-tiles", type=int, default=64)
    parser.add_argument("--masses", choices=("fixed", "free"), default="fixed")
    parser.add_argument("--grids", type=int, nargs="+", default=[60, 240, 960], metavar="n")
    args = parser.parse_args()
    data, tiling = getattr(cv.datasets, args.data)(), cv.Tiling.uniform(args.n_tiles)
    cv.transitions(data.x, tiling=tiling, masses=args.masses, limit=1)  # compiles the kernels
    print(f"{data!r}, {args.n_tiles} tiles, {args.masses} masses, version {cv.__version__}")
    print(f"{'':24}{'maps':>10}{'seconds':>10}{'accuracy':>10}  transitions")

    def show(name: str, maps: float, seconds: float, accuracy: float, found: str) -> None:
        print(f"{name:24}{maps:>10.4g}{seconds:>10.3g}{accuracy:>10.1e}  {found}", flush=True)

    exact, maps, seconds = measured(lambda: by_continuation(data.x, tiling, args.masses))
    show("continuation", maps, seconds, ACCURACY, ", ".join(f"{beta:.9g}" for beta in exact))
    for n in sorted(args.grids):
        found, grid_maps, grid_seconds = measured(lambda n=n: by_grid(data.x, tiling, args.masses, n))  # type: ignore[misc]
        betas = cv.default_betas(data.x, count=n)
        step = float(np.log(betas[1] / betas[0]))
        show(f"grid of {n}", grid_maps, grid_seconds, step, ", ".join(f"{beta:.4g}" for beta in found))
    factor = step / ACCURACY
    show("grid, extrapolated", grid_maps * factor, grid_seconds * factor, ACCURACY, "")
    print(f"maps saved at an accuracy of {ACCURACY:g}: a factor {grid_maps * factor / maps:.2g} (extrapolated)")


if __name__ == "__main__":
    main()
