"""A largest number of threads for a call: of the CPU kernels, and of the linear algebra libraries."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from .blas import blas_libraries, set_blas_threads
from .checks import check_count

_P = ParamSpec("_P")
_T = TypeVar("_T")

_limit: ContextVar[int | None] = ContextVar("threads", default=None)


def check_threads(value: Any, name: str = "threads") -> int | None:
    """A number of threads of at least 1; None for as many as the libraries take."""
    return None if value is None else check_count(value, name)


def thread_limit() -> int | None:
    """The largest number of threads of a kernel that is called now; None if there is none."""
    return _limit.get()


def with_kernel_threads(threads: int, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function of which kernels take at most so many threads; linear algebra is left as it is.

    Linear algebra is limited in the whole process, in which other workers of a cluster may run.
    """
    token = _limit.set(threads)
    try:
        return function(*args, **kwargs)
    finally:
        _limit.reset(token)


def with_threads(threads: int | None, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function of which kernels and matrix products take at most so many threads.

    The limit of the kernels holds for this call alone, that of the linear algebra in the whole process until it ends.
    Numbers of threads change no bits of the kernels.
    """
    if threads is None:
        return function(*args, **kwargs)
    libraries = [(library, library.get_num_threads()) for library in blas_libraries()]
    token = _limit.set(threads)
    try:
        for library, number in libraries:
            set_blas_threads(library, min(number, threads))
        return function(*args, **kwargs)
    finally:
        try:
            _restore(libraries)
        except BaseException:  # Ctrl-C comes at any place, even before the first line
            _restore(libraries)
            raise
        finally:
            _limit.reset(token)


def _restore(libraries: list[tuple[Any, int]]) -> None:
    for library, number in libraries:
        set_blas_threads(library, number)
