"""How long every call takes, for sizes in decades: the table of docs/choose.md.

    python -m analysis.benchmarks.sizes [--limit SECONDS] [--sizes N,D,K ...] [--out FILE]

The data are eight clusters of Gaussian points. Solutions are at half the first critical temperature; sweeps and curves
go down to a tenth of it, in 25 and 8 temperatures. Times and limits are processor times on one thread, without
compilation. A call that its limit cut short is not run for larger N. Rows of other sizes stay as they are in the file.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numba
import numpy as np

import constrained_vae as cv
from constrained_vae._utils import deadline

RESULTS = Path(__file__).parent / "results" / "sizes.json"
SIZES = [(100, 2, 16), (1000, 2, 64), (10_000, 2, 64), (100_000, 2, 64), (1_000_000, 2, 64)]
SIZES += [(100, 64, 16), (1000, 64, 64), (10_000, 64, 64), (100_000, 64, 64), (1000, 784, 64), (10_000, 784, 64)]
_STEPS = 1000


def clusters(n: int, d: int) -> np.ndarray:
    """Eight clusters whose centres lie as N(0, 1) and whose points lie as N(0, 0.1²) around them."""
    random = np.random.default_rng(0)
    return random.normal(size=(8, d))[np.arange(n) % 8] + 0.1 * random.normal(size=(n, d))


def calls(x: np.ndarray, k: int, limit: float) -> dict[str, Callable[[], Any]]:
    """What is timed, by the name of the function."""
    first = cv.first_critical_beta(x)
    low = 0.1 * first
    error = 0.5 * x.var(axis=0).sum()
    tiles: dict[str, Any] = {"n_tiles": k, "time_limit": limit}
    return {
        "solve": lambda: cv.solve(x, beta=0.5 * first, **tiles),
        "quick": lambda: cv.solve(x, beta=0.5 * first, n_tiles=16, tol=1e-4, time_limit=limit),
        "sweep": lambda: cv.sweep(x, betas=np.geomspace(1.5 * first, low, 25), **tiles),
        "transitions": lambda: cv.transitions(x, beta_range=(low, 1.5 * first), **tiles),
        "suggest": lambda: cv.suggest(x, time_limit=limit),
        "solve_constrained": lambda: cv.solve_constrained(x, cv.RE.from_squared_error(error), **tiles),
        "rate_distortion": lambda: cv.rate_distortion(x, betas=np.geomspace(first, low, 8), time_limit=limit),
        "geco.train": lambda: cv.geco.train(
            x, cv.RE.from_squared_error(error), latent_dim=2, steps=_STEPS, time_limit=limit
        ),
    }


def measure(sizes: Sequence[tuple[int, int, int]], limit: float) -> list[dict[str, Any]]:
    """A row for each size: processor seconds by call, and which calls were cut short by the limit.

    Parameters
    ----------
    sizes : sequence of (N, D, K)
        In the order of N for each D.
    limit : float
        Seconds for each call.

    Returns
    -------
    list of dict
        N, D, K, `seconds` by call, and `cut`, the calls that the limit ended.
    """
    for call in calls(clusters(40, 2), 4, limit).values():
        _timed(call)  # compiles the kernels
    rows: list[dict[str, Any]] = []
    too_long: set[tuple[int, str]] = set()
    for n, d, k in sizes:
        x = clusters(n, d)
        row: dict[str, Any] = {"N": n, "D": d, "K": k, "seconds": {}, "cut": []}
        for name, call in calls(x, k, limit).items():
            if (d, name) not in too_long:
                row["seconds"][name], cut = _timed(call)
                if cut:
                    row["cut"].append(name)
                    too_long.add((d, name))
        rows.append(row)
        print(n, d, k, {name: round(seconds, 2) for name, seconds in row["seconds"].items()}, "cut:", *row["cut"])
    return rows


def _timed(call: Callable[[], Any]) -> tuple[float, bool]:
    """Processor seconds of a call, and whether it was cut short."""
    began = time.process_time()
    clock = mock.patch.object(deadline, "time", SimpleNamespace(monotonic=time.process_time))
    with contextlib.ExitStack() as stack:
        stack.enter_context(clock)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        found = call()
    seconds = time.process_time() - began
    status = getattr(found, "status", None)
    complete = getattr(getattr(found, "branch", found), "complete", True)  # suggestions are of a branch
    if isinstance(found, cv.Transitions):
        complete = "time_limit" not in found.scope
    if isinstance(found, cv.geco.Run):
        complete = len(found.history.steps) == _STEPS
    return seconds, not complete or status is cv.Status.BUDGET_USED


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The table of docs/choose.md, in Markdown; a call that was cut short took longer than is shown."""
    names = list(rows[0]["seconds"])
    lines = [f"| N | D | K | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    for row in rows:
        cells = [("> " if name in row["cut"] else "") + shown(row["seconds"].get(name)) for name in names]
        lines.append(f"| {row['N']} | {row['D']} | {row['K']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(seconds: float | None) -> str:
    """Two digits; nothing where it was not measured."""
    return "" if seconds is None else f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=float, default=20, help="processor seconds for each call (%(default)s)")
    parser.add_argument("--sizes", nargs="+", help="N,D,K of each row; default: those of the table")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    sizes = SIZES
    if args.sizes:
        sizes = [(int(n), int(d), int(k)) for n, d, k in (text.split(",") for text in args.sizes)]
    numba.set_num_threads(1)
    rows = measure(sizes, args.limit)
    measured = {(row["N"], row["D"], row["K"]): row for row in rows}
    if args.out.exists():
        old = json.loads(args.out.read_text())["rows"]
        rows = [measured.pop((row["N"], row["D"], row["K"]), row) for row in old] + list(measured.values())
    about = {"date": datetime.date.today().isoformat(), "limit": args.limit, "rows": rows}
    args.out.write_text(json.dumps(about, indent=1) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
