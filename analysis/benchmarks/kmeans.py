"""How loose the bound of every k-means is: the bound over the error of k-means, for some tables.

    python -m analysis.benchmarks.kmeans [--data iris wine ...] [--rows 1000] [--seconds 600]
    python -m analysis.benchmarks.kmeans --points physics.npz:ppzee2 mnist.npz:x_train --rows 1000

Temperatures fall by a factor 0.75 from `nucleation_beta` until the rate exceeds log K of the largest K, or the time is
up. Tables of scikit-learn are standardised, but not the digits; arrays of files have their own units (images: 0 to 1).
k-means is that of scikit-learn, the best of 10 starts. Prints a table, and adds to `results/kmeans.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine

import constrained_vae as cv
from constrained_vae._utils.arrays import FloatArray

TABLES = {
    "iris": load_iris,
    "wine": load_wine,
    "diabetes": load_diabetes,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
}
WORDS = (1, 2, 3, 4, 5, 8, 10, 16, 20)
_FACTOR, _MOST = 0.75, 60
_RESULTS = Path(__file__).parent / "results" / "kmeans.json"


def main() -> None:
    parser = argparse.ArgumentParser(description="the bound of every k-means over the error of k-means")
    parser.add_argument("--data", nargs="*", choices=TABLES, default=[], help="tables of scikit-learn")
    parser.add_argument("--points", nargs="*", default=[], help="FILE.npz:ARRAY, arrays of points or images")
    parser.add_argument("--rows", type=int, help="number of rows, the first ones")
    parser.add_argument("--gap", type=float, default=1e-3, help="requested gap in nats")
    parser.add_argument("--seconds", type=float, help="time for the curve of a data set")
    args = parser.parse_args()
    known = json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}
    for name, x in chosen(args):
        known[name] = measured(x, args.gap, args.seconds)
        print(name, {k: round(v, 2) for k, v in known[name]["ratio"].items()}, flush=True)
        _RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    print("| K | " + " | ".join(known) + " |\n|" + "---|" * (1 + len(known)))
    for K in map(str, WORDS):
        print(f"| {K} | " + " | ".join(f"{record['ratio'][K]:.2f}" for record in known.values()) + " |")


def chosen(args: argparse.Namespace) -> Iterator[tuple[str, FloatArray]]:
    """The data sets that were asked for, with their names."""
    for name in args.data:
        x = np.asarray(TABLES[name]().data, dtype=np.float64)[: args.rows]
        yield name, x if name == "digits" else (x - x.mean(axis=0)) / x.std(axis=0)
    for source in args.points:
        file, _, name = source.rpartition(":")
        with np.load(file) as arrays:
            x = arrays[name][: args.rows]
        yield (
            f"{Path(file).stem}, {len(x)} rows, {name}",
            x.reshape(len(x), -1) / (255.0 if x.dtype == np.uint8 else 1.0),
        )


def measured(x: FloatArray, gap: float, seconds: float | None) -> dict[str, object]:
    """Ratios by K, and how the curve was."""
    betas = cv.nucleation_beta(x) * _FACTOR ** np.arange(_MOST)
    began, enough = time.process_time(), np.log(max(WORDS))
    options: dict[str, Any] = {"gap": gap, "time_limit": seconds, "on_failure": "return"}
    curve = cv.rate_distortion(x, betas, callback=lambda s: s.rate > enough, **options)
    took = time.process_time() - began
    bound = curve.kmeans_bound(WORDS)
    error = [KMeans(K, n_init=10, random_state=0).fit(x).inertia_ / len(x) for K in WORDS]
    ratio = {str(K): float(D / e) for K, D, e in zip(WORDS, bound.distortion, error, strict=True)}
    return {
        "ratio": ratio,
        "rigorous": bool(bound.rigorous.all()),
        "temperatures": len(curve.betas),
        "largest_gap": float(curve.gap.max()),
        "rate": float(curve.rate[-1]),
        "processor_seconds": took,
    }


if __name__ == "__main__":
    main()
