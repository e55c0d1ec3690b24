"""Seconds of the certified optimum: the rate-distortion function of some data sets at 40 temperatures.

    python -m analysis.benchmarks.optimum [--data four_clusters|line|digits|...] [--count 40] [--gap 1e-6]

Prints the seconds, the largest certified gap, the number of temperatures that reached the requested gap, and the number
of reconstructions at the coldest temperature.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import constrained_vae as cv

SETS: dict[str, Callable[[], cv.datasets.DataSet]] = {
    "four_clusters": cv.datasets.four_clusters,
    "rings": cv.datasets.rings,
    "line": lambda: cv.datasets.exponential(1000),
    "digits": lambda: cv.datasets.digits(300),
    "all_digits": cv.datasets.digits,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds and gaps of rate_distortion")
    parser.add_argument("--data", choices=tuple(SETS), action="append")
    parser.add_argument("--count", type=int, default=40, help="number of temperatures")
    parser.add_argument("--gap", type=float, default=1e-6, help="requested gap in nats")
    parser.add_argument("--coldest", type=float, help="last temperature, relative to the first critical one")
    args = parser.parse_args()
    cv.global_solution([[-1.0], [1.0]], beta=0.5)  # compiles the kernels
    print(f"{args.count} temperatures, gap {args.gap:g}, version {cv.__version__}")
    for name in args.data or ("four_clusters", "line", "digits"):
        data = SETS[name]()
        # On a line down to 0.01 of the first critical temperature; elsewhere to 0.95 of the entropy of the data.
        coldest = args.coldest or (0.01 if name == "line" else None)
        top = cv.first_critical_beta(data.x)
        betas = None if coldest is None else np.geomspace(top, coldest * top, args.count)
        began = time.perf_counter()
        curve = cv.rate_distortion(data.x, betas, gap=args.gap, on_failure="return")
        print(
            f"{data!r}: {time.perf_counter() - began:.1f} s, gap {curve.gap.max():.1e}, "
            f"{np.count_nonzero(curve.gap <= args.gap * (1 + 1e-9))} of {len(curve.betas)} met, "
            f"{curve.n_sites[-1]:.0f} reconstructions at the coldest, rate {curve.rate[-1]:.3f} nats"
        )


if __name__ == "__main__":
    main()
