"""Counts the passes of `solve` with free masses and spare tiles: 36 problems on a symmetric grid.

    python -m analysis.benchmarks.grid [--problems NUMBER ...] [--out FILE]

The data are a 30 x 30 grid of [-3, 3]^2 whose weights are two Gaussian bumps; there are 32 tiles. Symmetric grids have
soft directions: F hardly changes in a shift of a row of sites, or in an exchange of the masses of near ones. The number
of passes includes products with the Jacobian (a Hessian counts as one for each unknown) and split conditions. It does
not depend on the machine, apart from rounding. `--out` writes it, and a test compares it with `results/grid.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import constrained_vae as cv
from constrained_vae._utils.writing import write_text
from constrained_vae.solvers import generations, split_condition, splits

COUNTS = Path(__file__).parent / "results" / "grid.json"
BUMPS, WIDTHS, RATIOS = (0.5, 1.0, 1.5), (0.4, 0.7, 1.0), (0.9, 0.5, 0.2, 0.05)
PROBLEMS = tuple(product(BUMPS, WIDTHS, RATIOS))  # half the distance of the bumps, their sd, and beta / beta_c
TILES, SIDE = 32, 30
MOST = 1000  # passes aimed at
_BUDGET = 10_000


def grid() -> np.ndarray:
    """The points (900, 2)."""
    side = np.linspace(-3, 3, SIDE)
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)


def weights(bump: float, width: float) -> np.ndarray:
    """Two Gaussian bumps at (-bump, 0) and (bump, 0), (900,)."""
    x = grid()
    rho: np.ndarray = sum(np.exp(-np.square(x - [c, 0]).sum(axis=1) / (2 * width**2)) for c in (-bump, bump))
    return rho / rho.sum()


def solved(bump: float, width: float, ratio: float, **options: Any) -> tuple[cv.FixedPoint, int]:
    """A solution, and the number of passes: of maps, Jacobian products and split conditions."""
    x, rho, conditions = grid(), weights(bump, width), [0]

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            conditions[0] += 1
            return function(*args, **kwargs)

        return call

    beta = ratio * cv.first_critical_beta(x, weights=rho)
    given: dict[str, Any] = {"n_tiles": TILES, "max_maps": _BUDGET, "on_failure": "return"} | options
    with (
        mock.patch.object(generations, "split_axes", counting(split_condition.split_axes)),
        mock.patch.object(splits, "split_condition", counting(split_condition.split_condition)),
    ):
        solution = cv.solve(x, beta=beta, weights=rho, masses="free", **given)
    return solution, solution.n_maps + conditions[0]


def record(number: int) -> dict[str, Any]:
    """A row of the table."""
    solution, passes = solved(*PROBLEMS[number])
    return {
        "problem": PROBLEMS[number],
        "passes": passes,
        "status": solution.status.name,
        "sites": len(solution.distinct),
        "free_energy": round(solution.free_energy, 9),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problems", type=int, choices=range(len(PROBLEMS)), nargs="+", default=range(len(PROBLEMS)))
    parser.add_argument("--out", type=Path, help="JSON file of the counts")
    args = parser.parse_args(argv)
    print(f"{'bumps':>5}{'sd':>6}{'beta/beta_c':>13}{'passes':>8}{'sites':>7}{'F':>12}  status")
    records = {}
    for number in args.problems:
        records[str(number)] = row = record(number)
        bump, width, ratio = row["problem"]
        print(
            f"{bump:>5g}{width:>6g}{ratio:>13g}{row['passes']:>8}{row['sites']:>7}{row['free_energy']:>12.6f}"
            f"  {row['status'].lower()}",
            flush=True,
        )
    passes = [row["passes"] for row in records.values()]
    print(f"{sum(n < MOST for n in passes)} of {len(passes)} below {MOST} passes; {sum(passes)} in all")
    if args.out:
        write_text(args.out, json.dumps(records, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
