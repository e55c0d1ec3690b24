"""Threads of the linear algebra libraries, for callers that keep the cores busy or solve many small problems."""

from __future__ import annotations

import contextlib
import functools
from typing import Any


@functools.cache
def _libraries() -> Any:
    """What sets the threads of every BLAS loaded; SciPy's, with which Numba multiplies, must be loaded by now."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def single_threaded_blas() -> contextlib.AbstractContextManager[Any]:
    """A context with one thread to each matrix product or decomposition; process-wide while it lasts."""
    limit: contextlib.AbstractContextManager[Any] = _libraries().limit(limits=1)
    return limit
