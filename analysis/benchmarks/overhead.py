"""Times one map of the solver and its kernel alone, on a small problem: 200 points, 64 sites, two dimensions.

    python -m analysis.benchmarks.overhead

Notebooks solve small problems, which spend their time in Python and not in arithmetic. The compiled kernel alone and
iterations of the solver are timed in turns, on one thread. Backtracks and the products of Newton steps count as maps.
Prints medians over the rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numba
import numpy as np

import constrained_vae as cv
from constrained_vae._utils.blas import single_threaded
from constrained_vae.backends import dense_kernels
from constrained_vae.equations import log_masses
from constrained_vae.latent.sites import Sites
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers.loop import iterate
from constrained_vae.solvers.options import Options

_K, _BETA = 64, 0.33  # tiles, and a temperature slightly above the third transition, where iterations are long
_MAPS = 60  # maps per measurement, too few for convergence


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.benchmarks.overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=101, help="number of measurements (default 101)")
    rounds = parser.parse_args(argv).rounds
    numba.set_num_threads(1)
    for accelerate, (kernel, a_map, ratio) in single_threaded(measure, rounds).items():
        print(f"{accelerate:>8}: kernel {kernel:.1f} us, map {a_map:.1f} us, {ratio:.2f} times its kernel")
    return 0


def measure(rounds: int) -> dict[str, tuple[float, float, float]]:
    """Medians of the microseconds of a kernel and of a map, and of their ratio, by accelerator."""
    problem, psi = case()
    kernel, found = bare_kernel(problem, psi), {}
    for accelerate in ("plain", "lbfgs"):
        times = np.array([(_kernel_time(kernel), _map_time(problem, psi, accelerate)) for _ in range(rounds + 1)])[1:]
        medians = 1e6 * np.median(times, axis=0)
        found[accelerate] = float(medians[0]), float(medians[1]), float(np.median(times[:, 1] / times[:, 0]))
    return found


def case() -> tuple[Problem, np.ndarray]:
    """The problem of four clusters, and 64 different reconstructions."""
    x = cv.datasets.four_clusters(seed=0).x
    problem = Problem.make(x, cv.ELBO(beta=_BETA), None, "numba")
    rng = np.random.default_rng(1)
    start = x[rng.choice(len(x), _K, replace=False)] + 0.05 * rng.standard_normal((_K, 2))
    return problem, problem.data.frame.inward(start)


def bare_kernel(problem: Problem, psi: np.ndarray) -> Callable[[], None]:
    """A call of the compiled kernel of one map, with its arguments prepared."""
    (block,) = problem.data.blocks()
    psi, offset = np.ascontiguousarray(psi.T), block.offset(problem.framed)
    tiles = [array.view() for array in (problem.framed.readout(psi.T)[1], log_masses(np.full(_K, 1 / _K)))]
    for array in tiles:
        array.setflags(write=False)
    multiplier, sums, totals = np.float64(problem.framed.quadratic), np.zeros((3, _K)), np.zeros(2)
    return lambda: dense_kernels.few(block.phi, offset, block.rho, psi, *tiles, multiplier, sums, totals)


def _kernel_time(kernel: Callable[[], None]) -> float:
    start = time.perf_counter()
    for _ in range(_MAPS):
        kernel()
    return (time.perf_counter() - start) / _MAPS


def _map_time(problem: Problem, psi: np.ndarray, accelerate: str) -> float:
    tiling = cv.Tiling.uniform(_K)
    sites = Sites(psi.copy(), np.arange(_K), tiling.masses)
    options = Options(accelerate=accelerate, max_maps=_MAPS, tol=1e-14, split=False)
    start = time.perf_counter()
    solution, *_ = iterate(problem, tiling, sites, options)
    return (time.perf_counter() - start) / solution.n_maps


if __name__ == "__main__":
    raise SystemExit(main())
