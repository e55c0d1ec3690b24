"""Control of the threads of BLAS libraries, for callers that use all cores themselves or solve many small problems."""

from __future__ import annotations

import contextlib
import functools
from typing import Any


@functools.cache
def _libraries() -> Any:
    """Controller of every loaded BLAS; SciPy is imported first, since Numba multiplies with SciPy's BLAS."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def single_threaded_blas() -> contextlib.AbstractContextManager[Any]:
    """A context in which every matrix product and decomposition uses one thread, in the whole process."""
    limit: contextlib.AbstractContextManager[Any] = _libraries().limit(limits=1)
    return limit
