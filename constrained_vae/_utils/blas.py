"""Control of the threads of BLAS libraries, for callers that use all cores themselves or solve many small problems."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from .interrupts import deferred_interrupts

_P = ParamSpec("_P")
_T = TypeVar("_T")

_lock = threading.Lock()  # held for every change of these two
_calls: dict[object, int] = {}  # the running calls of `single_threaded`, and in which thread each of them runs
_limited: dict[tuple[Any, int | None], int] = {}  # numbers of threads before the limit, by library and `_scope`


def single_threaded(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function while every matrix product and decomposition uses one thread, in the whole process.

    The first of several calls in different threads limits the libraries, and the last restores them. This is not a
    context manager: Ctrl-C during a matrix product would be raised on entry to `__exit__`, which then restores nothing.
    """
    if threading.get_ident() in _calls.values():  # the limit holds already
        return function(*args, **kwargs)
    libraries, call = blas_libraries(), object()
    try:
        _enter(call, libraries)
        return function(*args, **kwargs)
    finally:
        try:
            _leave(call)
        except BaseException:  # Ctrl-C comes at any place, even before the first line
            _leave(call)
            raise


@functools.cache
def blas_libraries() -> tuple[Any, ...]:
    """Controllers of every loaded BLAS; SciPy is imported first, since Numba multiplies with SciPy's BLAS."""
    with deferred_interrupts():
        import scipy.linalg  # noqa: F401
        from threadpoolctl import ThreadpoolController

        return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


def _enter(call: object, libraries: tuple[Any, ...]) -> None:
    """Register a call; the first call limits the threads."""
    with _lock:
        _calls[call] = threading.get_ident()
        for library in libraries:
            key = library, _scope(library)
            if key not in _limited:
                _limited[key] = library.get_num_threads()
                set_blas_threads(library, 1)


def _leave(call: object) -> None:
    """Remove a call, if it is registered, and restore the libraries that no other call needs."""
    with _lock:
        _calls.pop(call, None)
        _restore()


def _restore() -> None:
    """Restore the libraries that this thread can restore and no call needs."""
    here, busy = threading.get_ident(), set(_calls.values())
    for (library, scope), n in list(_limited.items()):
        if (scope is None and not busy) or (scope == here and here not in busy):
            set_blas_threads(library, n)
            del _limited[library, scope]


def _scope(library: Any) -> int | None:
    """The thread to which a limit applies; None if it applies to the whole process, as it usually does."""
    own = library.internal_api == "mkl" or getattr(library, "threading_layer", None) == "openmp"
    return threading.get_ident() if own else None


def set_blas_threads(library: Any, n: int) -> None:
    """Set a number of threads from any Python thread: threadpoolctl 3.8 ignores all but the first one that does so."""
    release = getattr(library, "clear_controlling_thread", lambda force=False: None)
    release(force=True)
    library.set_num_threads(n)
    release()


def _after_fork() -> None:
    """In the child: forget the calls of other threads, which do not exist there."""
    for call in [call for call, thread in _calls.items() if thread != threading.get_ident()]:
        del _calls[call]
    for key in [key for key in _limited if key[1] not in (None, threading.get_ident())]:
        del _limited[key]
    _restore()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)
