"""Seconds of the certified optimum: the rate-distortion function of some data sets at 40 temperatures.

    python -m analysis.benchmarks.optimum [--data four_clusters|line|digits|...] [--count 40] [--gap 1e-6]
    python -m analysis.benchmarks.optimum --data mnist --rows 5000 60000 --seconds 600 --gap 1e-3 --picture gap.png
    python -m analysis.benchmarks.optimum --points physics.npz:ppzee2 --lambdas 100 300 1000 3000 1e4 --gap 1e-5
    python -m analysis.benchmarks.optimum --data catalogue --lambdas 33.3 --gap 1e-4 --seconds 600

Prints the seconds, the largest certified gap, the number of temperatures that reached the requested gap, and the number
of reconstructions at the coldest temperature. With a time or with given multipliers lambda = 1 / (2 beta) it prints
every temperature: its multiplier, rate, gap, processor seconds, number of reconstructions, and whether it is proven. A
picture shows how far the time goes: the gap against the rate.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import constrained_vae as cv
from constrained_vae._utils.arrays import FloatArray


def catalogue(n: int = 1_400_000) -> cv.datasets.DataSet:
    """Points in the plane, as many as a catalogue of stars has: 70 % in 300 clusters, the others anywhere."""
    rng = np.random.default_rng(0)
    centres, shares, outside = rng.uniform(-1, 1, size=(300, 2)), rng.dirichlet(np.ones(300)), int(0.3 * n)
    inside = centres[rng.choice(300, n - outside, p=shares)] + 0.05 * rng.normal(size=(n - outside, 2))
    return cv.datasets.DataSet(np.concatenate([inside, rng.uniform(-1.2, 1.2, size=(outside, 2))]), "catalogue")


SETS: dict[str, Callable[[], cv.datasets.DataSet]] = {
    "four_clusters": cv.datasets.four_clusters,
    "rings": cv.datasets.rings,
    "line": lambda: cv.datasets.exponential(1000),
    "digits": lambda: cv.datasets.digits(300),
    "all_digits": cv.datasets.digits,
    "catalogue": catalogue,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds and gaps of rate_distortion")
    parser.add_argument("--data", action="append", help=f"{', '.join(SETS)}, or a data set of cv.datasets.load")
    parser.add_argument("--count", type=int, default=40, help="number of temperatures")
    parser.add_argument("--gap", type=float, default=1e-6, help="requested gap in nats")
    parser.add_argument("--coldest", type=float, help="last temperature, relative to the first critical one")
    parser.add_argument("--points", help="FILE.npz:ARRAY, an array of points or images")
    parser.add_argument("--rows", type=int, nargs="+", help="numbers of rows, the first ones; a data set of each")
    parser.add_argument("--lambdas", type=float, nargs="+", help="multipliers, in units of the points")
    parser.add_argument("--seconds", type=float, help="time for each data set")
    parser.add_argument("--picture", help="file of the picture")
    parser.add_argument("--out", type=Path, help="JSON file of the rates, gaps and seconds")
    args = parser.parse_args()
    cv.global_solution([[-1.0], [1.0]], beta=0.5)  # compiles the kernels
    print(f"{args.count} temperatures, gap {args.gap:g}, version {cv.__version__}")
    if args.points or args.lambdas or args.seconds:
        found = {f"{label}, N = {len(x)}, D = {x.shape[1]}": timed(label, x, args) for label, x in points(args)}
        if args.out:
            args.out.write_text(
                json.dumps({"version": cv.__version__, "gap": args.gap, "solved": found}, indent=1) + "\n"
            )
        if args.picture:
            draw(found, args)
        return
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


def points(args: argparse.Namespace) -> Iterator[tuple[str, FloatArray]]:
    """The data sets that were asked for, with their names."""
    for rows in args.rows or [None]:
        if args.points:
            file, _, name = args.points.rpartition(":")
            with np.load(file) as arrays:
                x = arrays[name][:rows]
            label = f"{Path(file).stem} {name}"
            yield label, x.reshape(len(x), -1) / (255.0 if x.dtype == np.uint8 else 1.0)
        for name in args.data or (() if args.points else ("digits",)):
            data = SETS[name]() if name in SETS else cv.datasets.load(name)
            yield name, data.x[:rows]


def timed(label: str, x: FloatArray, args: argparse.Namespace) -> list[dict[str, float]]:
    """Print every temperature as it is solved; lambda, rate, gap and processor seconds of each."""
    if args.lambdas:
        betas = 0.5 / np.array(args.lambdas)
    else:
        top = cv.first_critical_beta(x)
        betas = np.geomspace(top, (args.coldest or 0.05) * top, args.count)
    found: list[dict[str, float]] = []
    clock = time.process_time()

    def show(s: cv.CertifiedFixedPoint) -> None:
        nonlocal clock
        c, now = s.certificate, time.process_time()
        how = "proven" if c.rigorous else "heuristic"
        print(
            f"{label} lambda {0.5 / s.beta:.4g}: rate {s.rate:.3f}, gap {c.gap:.1e} {how}, {now - clock:.1f} s, "
            f"{len(s.decoder)} reconstructions, {s.ending}",
            flush=True,
        )
        found.append({"lambda": 0.5 / s.beta, "rate": s.rate, "gap": c.gap, "seconds": round(now - clock, 1)})
        clock = now

    cv.rate_distortion(x, betas, gap=args.gap, time_limit=args.seconds, callback=show, on_failure="return")
    return found


def draw(found: dict[str, list[dict[str, float]]], args: argparse.Namespace) -> None:
    """The picture of the gap against the rate, one line for each data set."""
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for (label, solved), marker in zip(found.items(), "osv^D", strict=False):
        axes.semilogy([s["rate"] for s in solved], [s["gap"] for s in solved], f"{marker}-", label=label)
    axes.axhline(args.gap, color="grey", linestyle=":", label="asked for")
    axes.set(xlabel="rate, nats", ylabel="gap, nats")
    axes.legend()
    figure.savefig(args.picture, dpi=150)


if __name__ == "__main__":
    main()
