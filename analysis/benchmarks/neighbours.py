"""Times maps at low temperature in many dimensions: all tiles, lists of near tiles, and steps of k-means.

    python -m analysis.benchmarks.neighbours [--data IMAGES] [--sizes N,K,D ...] [--ratios R ...] [--solve]
                                             [--out FILE]

The data are images, MNIST-5k without --data, made smaller to D = 64 pixels if asked. Tiles begin at some of the points
and take plain maps. lambda is in units of lambda_c = 1 / (2 l_1), the first transition. All times are processor time of
one thread, and the last maps of both kernels are compared. Steps of k-means begin at the same points;
the time is the average of the first ones, without the very first, in which Elkan's algorithm computes all distances.

`--solve` measures `solve` from random points of the data to a tolerance of 1e-4, with lists and with all tiles in every
map.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from sklearn.cluster import KMeans

import constrained_vae as cv
from constrained_vae import datasets
from constrained_vae._utils.writing import write_text
from constrained_vae.backends import numba
from constrained_vae.equations import Expectations

from .map import machine, parse_size, versions

SIZES = ((5000, 1024, 784), (5000, 1024, 64))
RATIOS = (30, 100, 1000)
_COMPARED = ("mass", "sums", "free_energy", "energy")
_MAPS = 40  # plain maps from the start
_LAST = 8  # of these, at whose end tiles move little
_DENSE, _STEPS = 3, 20  # maps of all tiles, and steps of k-means
_TOL, _MOST_MAPS = 1e-4, 2000  # of a whole solve


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Processor time, and the result."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def points(source: str | None, N: int, D: int) -> np.ndarray:
    """N images of D pixels, in the frame of their mean and their root-mean-square radius."""
    side = round(np.sqrt(D))
    data = datasets.mnist() if source is None else datasets.images(source, n=N)
    x = datasets.resized(data, side).x[:N] if data.x.shape[1] != D else data.x[:N]
    x = x - x.mean(axis=0)
    return np.ascontiguousarray(x / np.sqrt(np.square(x).sum(axis=1).mean()))


def measure(x: np.ndarray, K: int, ratio: float, steps: bool = True) -> dict[str, Any]:
    """Seconds of the maps of a run, of its last maps, of maps of all tiles, and of steps of k-means."""
    N = len(x)
    lam = ratio / (2 * np.linalg.eigvalsh(np.cov(x.T, ddof=0))[-1])
    offset, rho, log_masses = lam * np.square(x).sum(axis=1), np.full(N, 1 / N), np.full(K, -np.log(K))
    for array in (x, offset, rho):
        array.setflags(write=False)
    psi = start = x[np.random.default_rng(0).permutation(N)[:K]]

    def mapped(kept: Any) -> Expectations:
        readout = 2 * lam * psi, -lam * np.square(psi).sum(axis=1)
        return numba.expectations(x, offset, rho, *readout, log_masses, quadratic=lam, kept=kept)

    mapped(numba.keep(x)), mapped(None)  # compiles the kernels
    kept, times, found = numba.keep(x), [], None
    for _ in range(_MAPS):
        if found is not None:
            psi = found.sums / found.mass[:, None]
        duration, found = seconds(lambda: mapped(kept))
        times.append(duration)
    dense = [seconds(lambda: mapped(None)) for _ in range(_DENSE)]
    whole, other = float(np.median([duration for duration, _ in dense])), dense[0][1]
    assert found is not None  # for mypy
    record = {
        "size": [N, K, x.shape[1]],
        "ratio": ratio,
        "all_tiles": whole,
        "last_maps": float(np.median(times[-_LAST:])),
        "all_maps": float(np.sum(times)),
        "speed_up": whole / float(np.median(times[-_LAST:])),
        "speed_up_of_a_run": whole * _MAPS / float(np.sum(times)),
        "differences": {name: difference(getattr(found, name), getattr(other, name)) for name in _COMPARED},
    }
    if steps:
        record |= {name: step_of_kmeans(x, start, name) / whole for name in ("lloyd", "elkan")}
    return record


def measure_solve(x: np.ndarray, K: int, ratio: float) -> dict[str, Any]:
    """Seconds, maps and free energy of a whole solve with lists, and of the same one with all tiles in every map."""
    beta = float(np.linalg.eigvalsh(np.cov(x.T, ddof=0))[-1]) / ratio
    record: dict[str, Any] = {}

    def solved(most: int) -> cv.FixedPoint:
        return cv.solve(x, beta=beta, n_tiles=K, start="data", tol=_TOL, max_maps=most, on_failure="return")

    for name, keep in (("lists", numba.keep), ("all_tiles", lambda phi: None)):
        with mock.patch.object(numba, "keep", keep):
            solved(3)  # compiles the kernels
            duration, found = seconds(lambda: solved(_MOST_MAPS))
        record[f"solve_{name}"] = duration
        record[f"maps_{name}"] = found.n_maps
        record[f"free_energy_{name}"] = found.free_energy
        record[f"converged_{name}"] = found.converged
    return record | {"speed_up_of_a_solve": record["solve_all_tiles"] / record["solve_lists"]}


def difference(one: Any, other: Any) -> float:
    """Largest difference, relative to the largest entry."""
    return float(np.max(np.abs(one - other)) / np.max(np.abs(other)))


def step_of_kmeans(x: np.ndarray, centres: np.ndarray, algorithm: str) -> float:
    """Processor seconds of one step after the first, from runs of different length."""

    def run(steps: int) -> tuple[float, int]:
        model = KMeans(len(centres), init=centres, n_init=1, max_iter=steps, tol=0, algorithm=algorithm)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged
            duration, _ = seconds(lambda: model.fit(x))
        return duration, int(model.n_iter_)

    (first, one), (last, many) = run(1), run(1 + _STEPS)
    return (last - first) / max(many - one, 1)


def solve_of(record: dict[str, Any]) -> str:
    """The columns of a whole solve: seconds and maps with all tiles, and with lists, and the ratio of the seconds."""
    if "solve_lists" not in record:
        return ""
    both = "".join(f"{record['solve_' + name]:>9.1f}{record['maps_' + name]:>6}" for name in ("all_tiles", "lists"))
    return f"{both}{record['speed_up_of_a_solve']:>7.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="IMAGES", help="file or folder of images; MNIST-5k without it")
    parser.add_argument("--sizes", type=parse_size, nargs="+", default=SIZES, metavar="N,K,D")
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS, help="lambda / lambda_c")
    parser.add_argument("--no-kmeans", action="store_true", help="without the steps of scikit-learn")
    parser.add_argument("--solve", action="store_true", help="whole solves too")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    args = parser.parse_args()
    head = "all, ms   lists  times  in a run  Lloyd  Elkan  differ by"
    head += "  solve: s  maps lists: s  maps  times" if args.solve else ""
    print(f"{'N, K, D':>16}{'lambda/lambda_c':>16}  {head}")
    records = []
    for N, K, D in args.sizes:
        x = points(args.data, N, D)
        for ratio in args.ratios:
            record = measure(x, K, ratio, not args.no_kmeans)
            if args.solve:
                record |= measure_solve(x, K, ratio)
            records.append(record)
            peers = "".join(f"{record.get(name, np.nan):>7.2f}" for name in ("lloyd", "elkan"))
            print(
                f"{f'{len(x)}, {K}, {D}':>16}{ratio:>16g}{1e3 * record['all_tiles']:>9.0f}"
                f"{1e3 * record['last_maps']:>8.1f}"
                f"{record['speed_up']:>7.1f}{record['speed_up_of_a_run']:>10.1f}{peers}"
                f"  {max(record['differences'].values()):.1e}" + solve_of(record),
                flush=True,
            )
    if args.out:
        results = {"machine": machine(), "versions": versions(), "neighbours": records}
        write_text(args.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
