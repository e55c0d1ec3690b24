"""Number of maps and time of each accelerator to the same error estimate, near and far from the first transition.

    python -m analysis.benchmarks.acceleration [--data two_points|four_clusters] [--n-tiles K] [--tol TOL]

`n_maps` counts every evaluation of the map, including rejected proposals and the error estimate. Accelerators may
converge to different local minima, which have different F.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np

import constrained_vae as cv
from constrained_vae.solvers.acceleration import ACCELERATORS

RATIOS = (1.5, 1.01, 1.005, 1.001, 0.999, 0.995, 0.99, 0.5, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description="maps and seconds of the accelerators, and their ratios to plain")
    parser.add_argument("--data", choices=("two_points", "four_clusters", "rings"), default="four_clusters")
    parser.add_argument("--n-tiles", type=int, default=64)
    parser.add_argument("--masses", choices=("fixed", "free"), default="fixed")
    parser.add_argument("--tol", type=float, default=1e-10)
    parser.add_argument("--max-maps", type=int, default=100_000)
    args = parser.parse_args()
    data = getattr(cv.datasets, args.data)()
    critical = cv.first_critical_beta(data.x, weights=data.weights)
    tiling = cv.Tiling.uniform(args.n_tiles)

    def run(beta: float, accelerator: str) -> tuple[cv.FixedPoint, float]:
        began = time.perf_counter()
        solution = cv.solve(
            data.x,
            beta=beta,
            weights=data.weights,
            tiling=tiling,
            masses=args.masses,
            accelerate=accelerator,
            tol=args.tol,
            max_maps=args.max_maps,
            on_failure="return",
        )
        return solution, time.perf_counter() - began

    run(critical, "plain")  # compiles the kernels
    print(f"{data!r}, {args.n_tiles} tiles, {args.masses} masses, tol {args.tol:g}, version {cv.__version__}")
    print(f"{'beta/beta_c':>11} {'accelerator':12}{'maps':>8}{'ratio':>8}{'seconds':>9}  {'free energy':>16}  status")
    best_within = np.inf
    for ratio in RATIOS:
        plain_maps = 0
        for accelerator in ("plain", *(name for name in ACCELERATORS if name != "plain")):
            solution, seconds = run(ratio * critical, accelerator)
            plain_maps = plain_maps or solution.n_maps
            gain = plain_maps / solution.n_maps
            if accelerator == "squarem" and abs(ratio - 1) < 0.0101:
                best_within = min(best_within, gain)
            print(
                f"{ratio:>11} {accelerator:12}{solution.n_maps:>8}{gain:>8.1f}{seconds:>9.3f}"
                f"  {solution.free_energy:>16.12f}  {solution.status.name.lower()}"
            )
    print(f"SQUAREM within 1 % of beta_c: at least {best_within:.1f} times fewer maps than the plain iteration")


if __name__ == "__main__":
    warnings.simplefilter("error")
    main()
