"""Control of the threads of BLAS libraries, for callers that use all cores themselves or solve many small problems."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from .interrupts import deferred_interrupts

_P, _T = ParamSpec("_P"), TypeVar("_T")

_lock = threading.Lock()  # round every change of these two
_calls: dict[object, int] = {}  # the calls of `single_threaded` that run, in any thread, and their threads
_threads: dict[Any, int] = {}  # while there is such a call: the libraries, and their numbers of threads before


def single_threaded(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call a function while every matrix product and decomposition uses one thread, in the whole process.

    The first of several calls in different threads limits the libraries, and the last restores them. This is not a
    context manager: Ctrl-C during a matrix product would be raised on entry to `__exit__`, which then restores nothing.
    """
    libraries, call = _libraries(), object()
    try:
        _enter(call, libraries)
        return function(*args, **kwargs)
    finally:
        try:
            _leave(call)
        finally:  # Ctrl-C may have ended the first attempt at any place
            _leave(call)


@functools.cache
def _libraries() -> tuple[Any, ...]:
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
            if library not in _threads:
                _threads[library] = library.get_num_threads()
                library.set_num_threads(1)


def _leave(call: object) -> None:
    """Remove a call, if it is registered; without any call the numbers of threads are restored."""
    with _lock:
        _calls.pop(call, None)
        _restore_if_unused()


def _restore_if_unused() -> None:
    if not _calls:
        for library, n in list(_threads.items()):
            library.set_num_threads(n)
            del _threads[library]


def _after_fork() -> None:
    """In the child: forget the calls of other threads, which do not exist there."""
    for call in [call for call, thread in _calls.items() if thread != threading.get_ident()]:
        del _calls[call]
    _restore_if_unused()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)
