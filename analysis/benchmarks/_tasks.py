"""The measurements that run in processes of their own: `TASKS` by name.

    python -m analysis.benchmarks._tasks NAME ARGUMENTS

ARGUMENTS is a JSON object; the last line of the output is the result as JSON. `_process.elsewhere` starts it. A task
imports only the libraries that it measures.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_WARM_UP = (1024, 64)  # N, K: large enough to compile every path of the code
_SECONDS, _AT_LEAST, _AT_MOST = 1.0, 3, 25  # an evaluation is repeated for _SECONDS, within these numbers of times,
_PATIENCE = 8.0  # but _AT_LEAST does not hold after this many seconds


def measure(method: str, size: Sequence[int], dtype: str, threads: int) -> dict[str, Any]:
    """Seconds of evaluations of one map, and extra bytes of the first one; or the reason why the method is missing."""
    from ._methods import METHODS, Case, MissingError

    chosen, (N, K, D) = METHODS[method], size
    try:
        chosen.prepare(Case.make(*_WARM_UP, D, dtype), threads)()
    except MissingError as error:
        return {"missing": str(error)}
    evaluate = chosen.prepare(Case.make(N, K, D, dtype), threads)
    extra = None if chosen.on_gpu else _extra_bytes(evaluate)
    if extra is None:
        evaluate()
    return {"seconds": _timings(lambda: chosen.seconds(evaluate)), "extra_bytes": extra}


def measure_floor(size: Sequence[int], dtype: str, threads: int, gpu: bool = False) -> dict[str, Any]:
    """The floor of the seconds of one map, see `_floor`."""
    from . import _floor

    N, K, D = size
    return _floor.gpu_floor(N, K, D, dtype) if gpu else _floor.floor(N, K, D, dtype, threads)


def measure_growth(method: str, sizes: Sequence[Sequence[int]], dtype: str, threads: int) -> dict[str, Any]:
    """Seconds of evaluations at every size, in turns, so that a disturbance of the machine affects all sizes."""
    from ._methods import METHODS, Case

    chosen = METHODS[method]
    maps = [chosen.prepare(Case.make(N, K, D, dtype), threads) for N, K, D in sizes]
    for evaluate in maps:
        evaluate()
    turns = [[chosen.seconds(evaluate) for evaluate in maps] for _ in range(5)]
    return {"seconds": [list(column) for column in zip(*turns, strict=True)]}


def measure_training(method: str, dtype: str, threads: int) -> dict[str, Any]:
    """Milliseconds of a training step, see `trainer`."""
    from . import trainer

    return trainer.measure(method, dtype, threads)


def measure_sweep(data: str, low: float, threads: int) -> dict[str, Any]:
    """Our sweep of a data set, see `real`."""
    from . import real

    return real.measure_sweep(data, low, threads)


def measure_em(data: str, low: float, tol: float, threads: int) -> dict[str, Any]:
    """The same by EM, see `real`."""
    from . import real

    return real.measure_em(data, low, tol, threads)


def measure_peer(data: str, low: float, peer: str, threads: int) -> dict[str, Any]:
    """K-means or a mixture, see `real`."""
    from . import real

    return real.measure_peer(data, low, peer, threads)


def measure_plane(path: str | None, lam: float, grid: bool, threads: int) -> dict[str, Any]:
    """The optimum of points in the plane, see `real`."""
    from . import real

    return real.measure_plane(path, lam, grid, threads)


def measure_call(name: str, peer: bool, threads: int) -> dict[str, Any]:
    """A single call, see `real`."""
    from . import real

    return real.measure_call(name, peer, threads)


def _timings(seconds: Callable[[], float]) -> list[float]:
    taken: list[float] = []
    while not taken or (sum(taken) < (_PATIENCE if len(taken) < _AT_LEAST else _SECONDS) and len(taken) < _AT_MOST):
        taken.append(seconds())
    return taken


def _extra_bytes(evaluate: Callable[[], object]) -> int | None:
    """Peak resident memory during an evaluation minus the memory before; None if the system does not report it."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)  # the map must not use memory that was freed before
    reset.write_text("5")  # resets the peak

    def resident(name: str) -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return 1024 * int(line.split()[1])

    before = resident("VmRSS")
    evaluate()
    return max(0, resident("VmHWM") - before)


def measure_branch(data: str, low: float, restarts: int, threads: int) -> dict[str, Any]:
    """Processor seconds and free energies of a sweep, see `branches`."""
    from . import branches

    return branches.measure_branch(data, low, restarts, threads)


def measure_em_runs(data: str, low: float, seeds: int, threads: int) -> dict[str, Any]:
    """Processor seconds and free energies of runs of EM, see `branches`."""
    from . import branches

    return branches.measure_em_runs(data, low, seeds, threads)


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "measure": measure,
    "floor": measure_floor,
    "growth": measure_growth,
    "training": measure_training,
    "sweep": measure_sweep,
    "em": measure_em,
    "peer": measure_peer,
    "plane": measure_plane,
    "call": measure_call,
    "branch": measure_branch,
    "em_runs": measure_em_runs,
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
