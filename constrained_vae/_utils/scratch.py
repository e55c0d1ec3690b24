"""Working space of kernels that is kept for the next call, where many calls follow each other.

The system clears the memory of a new array of megabytes page by page. Where the allocator hands memory back at once, as
on workers of Dask, this would take a tenth of the time of a kernel on some ten thousand rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

_P = ParamSpec("_P")
_T = TypeVar("_T")

_kept: ContextVar[dict[str, npt.NDArray[np.uint8]] | None] = ContextVar("scratch", default=None)


def with_scratch(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function during which `empty` hands out the same memory again and again."""
    token = _kept.set({})
    try:
        return function(*args, **kwargs)
    finally:
        _kept.reset(token)


def empty(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of any content, whose memory the next call with this name may use: results are copied out of it."""
    kept = _kept.get()
    if kept is None:
        return np.empty(shape, dtype)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if name not in kept or len(kept[name]) < size:
        kept[name] = np.empty(size, np.uint8)
    return kept[name][:size].view(dtype).reshape(shape)
