"""Times one map of the reference backend and of the compiled backend, in a minute.

`python -m analysis.benchmarks.map` compares with other libraries and with the floor.
"""

from __future__ import annotations

import argparse
import statistics

from ._process import elsewhere
from .map import parse_size, versions

METHODS = (("reference", "float64"), ("numba", "float64"), ("numba", "float32"))  # ratios are to the first method
SIZES = ((10000, 1024, 2), (10000, 1024, 64))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes per method and size (default: %(default)s)")
    parser.add_argument("--sizes", type=parse_size, nargs="+", default=SIZES, metavar="N,K,D")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    print(f"{'N, K, D':>18}  {'method':17} {'ms per map':>10} {'slowest round':>13} {'times faster':>12}")
    for size in options.sizes:
        rounds = []
        for _ in range(options.rounds):
            arguments = [{"method": method, "size": size, "dtype": dtype} for method, dtype in METHODS]
            results = [elsewhere("measure", argument, options.threads)["seconds"] for argument in arguments]
            rounds.append([1e3 * statistics.median(seconds) for seconds in results])
        for number, (method, dtype) in enumerate(METHODS):
            milliseconds = [each[number] for each in rounds]
            # Ratios are taken within a round, where the machine was in the same state for all methods.
            ratio = statistics.median(each[0] / each[number] for each in rounds)
            print(
                f"{', '.join(map(str, size)):>18}  {f'{method} {dtype}':17} {statistics.median(milliseconds):10.2f} "
                f"{max(milliseconds):13.2f} {ratio:12.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
