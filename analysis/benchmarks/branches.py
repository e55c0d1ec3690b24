"""Free energies of sweeps, with and without restarts, beside those of ten runs of EM, at every temperature.

    python -m analysis.benchmarks.branches [--rows NAME ...] [--restarts 10] [--seeds 10]

Data, temperatures, tiles and EM are those of `analysis.benchmarks.real`. A run of EM differs from the others by the
seed of its kicks. For every temperature the table compares F with the median and with the least F of these runs, and it
shows the largest excess over all temperatures, in nats: where it is zero or below, no temperature ends higher. The
times are processor times on one thread, without compilation; that of EM is for all runs together.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import constrained_vae as cv

from ._methods import MissingError
from ._process import elsewhere
from .real import ROWS, Row, em, free_energy

_TILES, _TOL = 32, 1e-8
_TWIN = "twin"


def measure_branch(data: str, low: float, restarts: int, threads: int) -> dict[str, Any]:
    """Processor seconds and free energies of a sweep, and whether it converged."""
    row = Row(data, low)
    cv.sweep(row.x, betas=row.betas[:8], n_tiles=_TILES, restarts=min(restarts, 1))  # compiles the kernels
    began = time.process_time()
    branch = cv.sweep(row.x, betas=row.betas, n_tiles=_TILES, restarts=restarts)
    seconds = time.process_time() - began
    assert isinstance(branch, cv.Branch)
    return {"seconds": seconds, "free_energy": branch.free_energy.tolist(), "converged": branch.converged}


def measure_em_runs(data: str, low: float, seeds: int, threads: int) -> dict[str, Any]:
    """Processor seconds of all runs of EM, and their free energies (seeds, temperatures); or why JAX is missing."""
    row = Row(data, low)
    try:
        run = em(row.x, _TILES)
    except MissingError as error:
        return {"missing": str(error)}
    run(row.betas[:1], _TOL)  # compiles
    paths: list[list[np.ndarray]] = [[] for _ in range(seeds)]
    began = time.process_time()
    for seed, path in enumerate(paths):
        run(row.betas, _TOL, seed, path)
    seconds = time.process_time() - began
    found = [[free_energy(row.x, psi, beta) for psi, beta in zip(path, row.betas, strict=True)] for path in paths]
    return {"seconds": seconds, "free_energy": found}


def excesses(ours: Sequence[float], runs: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The largest excess of F over the median and over the least of some runs, over all temperatures."""
    return float((ours - np.median(runs, axis=0)).max()), float((ours - np.min(runs, axis=0)).max())


def line(name: str, sweeps: Sequence[dict[str, Any]], runs: dict[str, Any]) -> str:
    """A row of the table."""
    text = f"{name:20}"
    for ours in sweeps:
        text += f"{ours['seconds']:>8.1f}{ours['free_energy'][-1]:>10.4f}"
        if "missing" not in runs:
            text += "".join(f"{excess:>10.1e}" for excess in excesses(ours["free_energy"], runs["free_energy"]))
        text += "" if ours["converged"] else " (not converged)"
    return text + (
        "" if "missing" in runs else f"{runs['seconds']:>8.1f}{np.min(runs['free_energy'], axis=0)[-1]:>10.4f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", choices=[*ROWS, _TWIN], nargs="+", default=list(ROWS))
    parser.add_argument("--restarts", type=int, default=10, help="of the second sweep (%(default)s)")
    parser.add_argument("--seeds", type=int, default=10, help="runs of EM (%(default)s)")
    args = parser.parse_args(argv)
    columns = f"{'s':>8}{'F':>10}{'> median':>10}{'> least':>10}"
    print(f"{'':20}{'protocol:':>20}{'':18}{f'restarts={args.restarts}:':>20}{'':18}{f'{args.seeds} of EM:':>18}")
    print(f"{'':20}{columns}{columns}{'s':>8}{'least F':>10}")
    missing = None
    for name in args.rows:
        row = ROWS.get(name, Row(_TWIN, 0.02))
        given = {"data": row.data, "low": row.low}
        sweeps = [elsewhere("branch", given | {"restarts": n}, threads=1) for n in (0, args.restarts)]
        runs = elsewhere("em_runs", given | {"seeds": args.seeds}, threads=1)
        missing = runs.get("missing", missing)
        print(line(name, sweeps, runs), flush=True)
    if missing:
        print(missing)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
