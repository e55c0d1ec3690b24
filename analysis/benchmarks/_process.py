"""Starts a measurement in a process of its own, which inherits no threads, caches or compiled code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# NPROC is the limit of XLA.
_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "NPROC")


def elsewhere(task: str, arguments: dict[str, Any], threads: int) -> dict[str, Any]:
    """The result of a task of `_tasks.TASKS` in a fresh process, where every library may use that many threads.

    Raises
    ------
    RuntimeError
        If the process fails; the message contains its output.
    """
    done = subprocess.run(
        [sys.executable, "-m", "analysis.benchmarks._tasks", task, json.dumps(arguments | {"threads": threads})],
        cwd=Path(__file__).parents[2],
        env=os.environ | dict.fromkeys(_LIMITS, str(threads)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{task} {arguments} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
