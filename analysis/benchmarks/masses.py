"""Seconds of the best masses of given reconstructions of very many points in the plane, in maps of the same size.

    python -m analysis.benchmarks.masses [--rows 1000000] [--sites 1000] [--betas 0.002 0.02]

The points are in 300 clusters, the reconstructions are some of the points, and their masses begin equal and end with an
error of F of at most 1e-8 nats.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import constrained_vae as cv
from constrained_vae.frontier.data_passes import DataPasses
from constrained_vae.frontier.masses import best_masses
from constrained_vae.problems.problem import Problem

from .optimum import catalogue


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds of the best masses, in maps")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--betas", type=float, nargs="+", default=[0.002, 0.02])
    args = parser.parse_args()
    print(f"{args.rows} points, {args.sites} reconstructions, version {cv.__version__}")
    for beta in args.betas:
        problem = Problem.make(catalogue(args.rows).x, None, None, "auto", beta=beta)
        data = DataPasses(problem)
        psi = data.x[np.random.default_rng(0).choice(args.rows, args.sites, replace=False)]
        masses = np.full(args.sites, 1 / args.sites)
        problem.expectations(psi, np.log(masses))  # compiles the kernels
        clock = [time.process_time()]
        problem.expectations(psi, np.log(masses))
        clock.append(time.process_time())
        masses = best_masses(data.affinities(psi), masses, 1e-8)
        clock.append(time.process_time())
        one, every = np.diff(clock)
        print(
            f"beta {beta:g}: a map {one:.3f} s, masses {every:.1f} s of processor time, {every / one:.0f} maps, "
            f"{np.count_nonzero(masses)} masses are left"
        )


if __name__ == "__main__":
    main()
