"""Times one map at low temperature, with all tiles and with the irrelevant tiles of each run of rows left out.

    python -m analysis.benchmarks.pruning [--sizes N,K,D ...] [--dtypes ...] [--out FILE]

Data are standard normal, and tiles lie at some of the points. lambda is in units of lambda_c = 1 / (2 l_1), the first
transition. Both computations have the same order of rows and run in turns; their results are compared.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from constrained_vae._utils.writing import write_text
from constrained_vae.backends import numba, pruning

from ._methods import wall_clock
from .map import DTYPES, machine, parse_size, versions

SIZES = ((50000, 1024, 2), (100000, 4096, 2), (50000, 1024, 1), (50000, 1024, 3))
RATIOS = (1, 10, 100, 1000, 10000)
_TURNS = 7


def measure(size: tuple[int, int, int], dtype: str, ratio: float) -> dict[str, Any]:
    """Median seconds of both computations, and their largest differences relative to the largest entry."""
    (N, K, D), rng = size, np.random.default_rng(0)
    x = rng.normal(size=(N, D))
    x -= x.mean(axis=0)
    lam = ratio / (2 * np.linalg.eigvalsh(np.cov(x.T, ddof=0).reshape(D, D))[-1])
    psi = x[rng.permutation(N)[:K]]
    order = numba.order(x) if numba.order(x) is not None else slice(None)
    phi, s, rho = x[order].astype(dtype), (x[order] ** 2).sum(axis=1).astype(dtype), np.full(N, 1 / N)
    v, b = (2 * lam * psi).astype(dtype), (-lam * (psi * psi).sum(axis=1)).astype(dtype)
    log_masses = np.full(K, -np.log(K), dtype)
    offset = (lam * s).astype(dtype)

    def pruned() -> Any:
        return numba.expectations(phi, offset, rho, v, b, log_masses, quadratic=lam)

    def whole() -> Any:
        with mock.patch.object(pruning, "expectations", return_value=None):
            return pruned()

    one, other = pruned(), whole()  # compiles the kernels
    seconds = np.median([(wall_clock(pruned), wall_clock(whole)) for _ in range(_TURNS)], axis=0)
    differences = {
        name: float(np.max(np.abs(getattr(one, name) - getattr(other, name))) / np.max(np.abs(getattr(other, name))))
        for name in ("mass", "sums", "free_energy", "energy")
    }
    return {
        "size": list(size),
        "dtype": dtype,
        "ratio": ratio,
        "seconds": float(seconds[0]),
        "whole_seconds": float(seconds[1]),
        "speed_up": float(seconds[1] / seconds[0]),
        "differences": differences,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=parse_size, nargs="+", default=SIZES, metavar="N,K,D")
    parser.add_argument("--dtypes", choices=DTYPES, nargs="+", default=DTYPES)
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    args = parser.parse_args()
    print(f"{'N, K, D':>16} {'dtype':8}{'lambda/lambda_c':>16}{'all, ms':>10}{'pruned':>8}{'times':>7}  differ by")
    records = []
    for size in args.sizes:
        for dtype in args.dtypes:
            for ratio in RATIOS:
                record = measure(size, dtype, ratio)
                records.append(record)
                print(
                    f"{', '.join(map(str, size)):>16} {dtype:8}{ratio:>16}{1e3 * record['whole_seconds']:>10.1f}"
                    f"{1e3 * record['seconds']:>8.1f}{record['speed_up']:>7.1f}"
                    f"  {max(record['differences'].values()):.1e}",
                    flush=True,
                )
    if args.out:
        results = {"machine": machine(), "versions": versions(), "pruning": records}
        write_text(args.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
