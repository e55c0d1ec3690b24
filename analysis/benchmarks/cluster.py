"""Times maps on a cluster of Dask on this machine, and what a pass over a cluster costs beside the sums.

    python -m analysis.benchmarks.cluster [--parts map,quiet,overhead,disk] [--out FOLDER]

`map`: two processes of one thread against one process of two threads, N = 10^6, D = 16, K = 256, turn by turn.
`quiet`: the same while Dask looks at itself less often. `overhead`: passes over a few rows by the number of tasks, a
line through the counts up to 32, and what it predicts at 100 tasks beside what they take; with the rate of the kernel
it gives the size N K D per worker at which the overhead is a tenth of a pass. `disk`: a solution of 4 GB of rows of a
Zarr array by two workers with 1 GB of memory each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import constrained_vae as cv
from constrained_vae._utils.threads import with_threads
from constrained_vae._utils.writing import write_text
from constrained_vae.data.cluster import _Owned
from constrained_vae.problems.problem import Problem

from .map import machine

N, D, K = 10**6, 16, 256
COUNTS = (2, 4, 8, 16, 32, 64, 100)
QUIET = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "500ms"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts, print their results and write them to results/cluster.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="map,quiet,overhead,disk", help="separated by commas (%(default)s)")
    parser.add_argument("--rows", type=int, default=N, help="rows of the part `map` (%(default)s)")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of the part `disk` (%(default)s)")
    parser.add_argument("--limit", type=float, default=1.0, help="gigabytes of memory of a worker there (%(default)s)")
    parser.add_argument("--columns", type=int, default=D, help="of the rows there (%(default)s)")
    parser.add_argument("--seconds", type=float, default=900.0, help="time limit of the solution there (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args(argv)
    path = args.out / "cluster.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    found["machine"] = machine()
    for part in args.parts.split(","):
        found[part] = {
            "map": lambda: maps(args.rows),
            "quiet": lambda: maps(args.rows, QUIET),
            "overhead": overhead,
            "disk": lambda: disk(args.gigabytes, args.limit, args.columns, args.seconds),
        }[part]()
        print(part, json.dumps(found[part], indent=1))
        write_text(path, json.dumps(found, indent=1) + "\n")
    return 0


def local(stack: ExitStack, **options: Any) -> Any:
    """A client of two workers of one thread."""
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50, **options)
    return stack.enter_context(Client(stack.enter_context(cluster)))


def timed(problem: Problem, psi: Any, times: int = 1) -> float:
    """Seconds of the fastest of some maps."""
    log_masses = np.full(len(psi), -np.log(len(psi)))
    found = []
    for _ in range(times):
        began = time.perf_counter()
        problem.expectations(psi, log_masses)
        found.append(time.perf_counter() - began)
    return min(found)


def maps(rows: int, settings: dict[str, Any] | None = None, rounds: int = 15) -> dict[str, Any]:
    """Seconds of a map here with two threads and on two workers, in turns, and the median of their ratios."""
    import dask
    import dask.array as da

    x = np.random.default_rng(0).standard_normal((rows, D))
    psi, objective = np.random.default_rng(1).standard_normal((K, D)) / 4, cv.ELBO(2.0)
    with dask.config.set(settings or {}), ExitStack() as stack:
        client = local(stack)
        chunks = (-(-rows // 16), D)
        here, there = (Problem.make(data, objective, None, "numba") for data in (x, da.from_array(x, chunks=chunks)))
        for problem in (here, there):
            timed(problem, psi)
        turns = []
        for _ in range(rounds):
            before = time.process_time()
            one = with_threads(2, timed, here, psi)
            alone = time.process_time() - before
            before = sum(client.run(time.process_time).values()) + time.process_time()
            two = timed(there, psi)
            turns.append((one, two, alone, time.process_time() + sum(client.run(time.process_time).values()) - before))
        began, rest = time.perf_counter(), 2.0
        before = time.process_time() + sum(client.run(time.process_time).values())
        time.sleep(rest)
        idle = time.process_time() + sum(client.run(time.process_time).values()) - before
        idle /= time.perf_counter() - began
        kernels = client.run(_kernel_seconds, problem_of_workers(there, psi)).values()
    one, two, used, used_there = np.array(turns).T
    return {
        "size": [rows, K, D],
        "one process of two threads, s": np.sort(one).tolist(),
        "two processes of one thread, s": np.sort(two).tolist(),
        "processor time of these, s": [float(np.median(used)), float(np.median(used_there))],
        "processor time of the kernel on the workers, s": float(sum(np.median(times) for times in kernels)),
        "processor time of an idle cluster, s per second": idle,
        "load average of the machine": os.getloadavg()[0],
        "ratio": float(np.median(two / one)),
        "ratio of the processor times": float(np.median(used_there / used)),
        "ratio of the fastest": float(two.min() / one.min()),
        "N K D per second of a processor": rows * K * D / float(np.median(used_there)),
    }


def problem_of_workers(problem: Problem, psi: Any) -> tuple[Any, ...]:
    """What the kernel needs beside the blocks that are on a worker."""
    return problem.framed, *problem.framed.readout(psi), np.full(len(psi), -np.log(len(psi)))


def _kernel_seconds(known: tuple[Any, ...], dask_worker: Any) -> list[float]:
    """Processor time of the kernel over the blocks of a worker, without any task."""
    from constrained_vae._utils.scratch import with_scratch
    from constrained_vae._utils.threads import with_kernel_threads
    from constrained_vae.backends import numba

    framed, v, b, log_masses = known
    run = next(value[0] for value in dask_worker.data.values() if isinstance(value, tuple) and value[0]._prepared)

    def one_pass() -> None:
        for x in list(run._prepared.values())[-1]:
            numba.expectations(x.phi, x.offset(framed), x.rho, v, b, log_masses, framed.quadratic)

    found = []
    for _ in range(5):
        began = time.process_time()
        with_kernel_threads(1, with_scratch, one_pass)
        found.append(time.process_time() - began)
    return found


def overhead() -> dict[str, Any]:
    """Milliseconds of a pass over one row per task; every task is a block, and two workers take them."""
    import dask.array as da

    psi, found, used = np.random.default_rng(1).standard_normal((K, D)), {}, {}
    with ExitStack() as stack:
        local(stack)
        for count in COUNTS:
            x = np.random.default_rng(0).standard_normal((2 * count, D))
            problem = Problem.make(da.from_array(x, chunks=(2, D)), cv.ELBO(2.0), None, "numba")
            cluster = problem.data.rows.source.executor  # type: ignore[union-attr]
            cluster._owned = [_Owned([leaf], [], own.worker) for own in cluster._owned for leaf in own.leaves]
            timed(problem, psi, 5)
            seconds, began = [timed(problem, psi) for _ in range(12)], time.process_time()
            found[count] = 1e3 * float(np.median(seconds))
            passes = [timed(problem, psi) for _ in range(12)]
            used[count] = 1e3 * (time.process_time() - began) / len(passes)
    few = [count for count in COUNTS if count <= 32]
    lines = {name: np.polyfit(few, [ms[n] for n in few], 1) for name, ms in (("wall", found), ("processor", used))}
    (per_task, fixed), (slope, start) = lines["wall"], lines["processor"]
    result = {
        "load average of the machine": os.getloadavg()[0],
        "ms by tasks": found,
        "processor ms of client and scheduler by tasks": used,
        "ms per pass and per task, from up to 32 tasks": [float(fixed), float(per_task)],
        "processor ms per pass and per task, from up to 32 tasks": [float(start), float(slope)],
        "ms of 100 tasks, predicted and measured": [float(fixed + 100 * per_task), found[100]],
        "processor ms of 100 tasks, predicted and measured": [float(start + 100 * slope), used[100]],
    }
    path = Path(__file__).parent / "results" / "cluster.json"
    rate = json.loads(path.read_text())["map"]["N K D per second of a processor"] if path.exists() else np.nan
    result["N K D per worker from which the processor time is below a tenth of a pass"] = {
        str(n): 10 * 1e-3 * float(start + n * slope) * rate for n in (2, 10, 100, 1000)
    }
    return result


def _peak() -> int:
    """Bytes of memory that this process has had at most; those of a parent before a fork do not count."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def disk(gigabytes: float, limit: float, dim: int, seconds: float, tiles: int = 64) -> dict[str, Any]:
    """Solve rows of a Zarr array that do not fit into the memory of the workers.

    The temperature is well above the one at which a cluster would split further, where maps are many.
    """
    import dask.array as da

    rows = int(gigabytes * 1e9 / 8 / dim)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        client = local(stack, memory_limit=int(limit * 1e9))
        centres = 4 * np.random.default_rng(0).standard_normal((tiles, dim))
        chunk = 1_600_000 // dim

        def block(block_info: Any) -> Any:
            (start, stop), _ = block_info[None]["array-location"]
            rng = np.random.default_rng(start)
            return centres[rng.integers(len(centres), size=stop - start)] + rng.standard_normal((stop - start, dim))

        chunks = (tuple(min(chunk, rows - start) for start in range(0, rows, chunk)), (dim,))
        made = da.map_blocks(block, chunks=chunks, dtype=float, meta=np.empty((0, dim)))
        made.to_zarr(os.path.join(folder, "x.zarr"), compressors=None)
        print("the rows are on the disk", flush=True)

        def told(iterate: Any) -> None:
            print(f"map {iterate.n_maps} after {time.perf_counter() - began:.0f} s", flush=True)

        x, began = da.from_zarr(os.path.join(folder, "x.zarr")), time.perf_counter()
        arguments: dict[str, Any] = {"tol": 1e-6, "start": "data", "on_failure": "return", "time_limit": seconds}
        s = cv.solve(x, beta=4.0, n_tiles=tiles, callback=told, **arguments)
        taken = time.perf_counter() - began
        return {
            "gigabytes": gigabytes,
            "size": [rows, tiles, dim],
            "maps": s.n_maps,
            "status": s.status.name,
            "distinct": len(s.distinct),
            "seconds": taken,
            "peak bytes of each worker": sorted(client.run(_peak).values()),
            "peak bytes of the client": _peak(),
            "memory limit": int(limit * 1e9),
        }


if __name__ == "__main__":
    raise SystemExit(main())
