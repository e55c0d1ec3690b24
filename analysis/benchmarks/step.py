"""Times one evaluation of the map: the reference backend against the compiled ones.

`python -m analysis.benchmarks.step` measures each method in a process of its own, so that none inherits threads, caches
or compiled code of another, and alternates the methods, so that a disturbance of the machine meets them all. A process
evaluates once untimed, which compiles or loads the kernel, then reports the median of its timed evaluations; the table
shows the medians over the rounds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import time

import numpy as np

METHODS = ("reference", "numba", "numba float32")  # the first is what the others are compared with
SIZES = ((10000, 1024, 2), (10000, 1024, 64))


def measure(method: str, N: int, K: int, D: int, repeats: int) -> dict[str, float]:
    """Median seconds of one evaluation at lambda = 1, Gaussian data and tiles, and seconds of the first evaluation."""
    from constrained_vae.backends import get_backend

    name, _, dtype = method.partition(" ")
    rng = np.random.default_rng(0)
    x, psi = rng.normal(size=(N, D)), rng.normal(size=(K, D))
    arguments = [
        np.ascontiguousarray(array, dtype or float)
        for array in (x, (x**2).sum(1), np.full(N, 1 / N), 2 * psi, -(psi**2).sum(1), np.full(K, -np.log(K)))
    ]
    expectations = get_backend(name).expectations
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        expectations(*arguments, quadratic=1.0)
        seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "median": statistics.median(seconds[1:])}


def measure_elsewhere(method: str, size: tuple[int, ...], repeats: int) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-m", __spec__.name, "--measure", method, *map(str, size), str(repeats)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def parse_size(text: str) -> tuple[int, ...]:
    size = tuple(map(int, text.split(",")))
    if len(size) != 3 or min(size) < 1:
        raise argparse.ArgumentTypeError(f"a size is N,K,D, three positive integers, got {text!r}")
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes per method and size (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="timed evaluations per process (default: %(default)s)")
    parser.add_argument("--sizes", type=parse_size, nargs="+", default=SIZES, metavar="N,K,D")
    parser.add_argument("--measure", nargs=5, metavar=("METHOD", "N", "K", "D", "REPEATS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        method, *numbers = options.measure
        print(json.dumps(measure(method, *map(int, numbers))))
        return
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy", "numba"))
    print(f"Python {platform.python_version()}, {versions}; {platform.machine()}")
    print(f"{'N, K, D':>18}  {'method':14} {'ms per map':>10} {'slowest round':>13} {'times faster':>12}")
    for size in options.sizes:
        rounds = [
            {m: measure_elsewhere(m, size, options.repeats)["median"] for m in METHODS} for _ in range(options.rounds)
        ]
        for method in METHODS:
            milliseconds = [1e3 * each[method] for each in rounds]
            # Within a round the methods met the same machine, so ratios are taken there.
            ratio = statistics.median(each[METHODS[0]] / each[method] for each in rounds)
            median, slowest = statistics.median(milliseconds), max(milliseconds)
            print(
                f"{', '.join(map(str, size)):>18}  {method:14} {median:10.2f} {slowest:13.2f} {ratio:12.1f}", flush=True
            )


if __name__ == "__main__":
    main()
