"""How the CPU kernels are compiled by Numba, kept on disk, and run in several threads and after a fork.

- Ctrl-C is delayed while Numba compiles, since Numba cannot go on after a compilation that was cut short. The time of
  a compilation does not count towards a time limit.
- A compiled kernel is kept in Numba's cache. The key of an entry includes the sources of this file, of `arithmetic.py`
  and of `dense_kernels.py`, whose functions become a part of other kernels. Where no folder can be written, kernels are
  compiled anew in every session.
- Kernels with `prange` take turns under a threading layer of Numba that runs one at a time. In a process that was
  forked after the launch of threads, which do not exist there, they run on one thread. The bits are the same.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.compiler_lock import global_compiler_lock

from .._utils import deadline
from .._utils.interrupts import deferred_interrupts
from .._utils.threads import thread_limit

_SOURCES = tuple(Path(__file__).with_name(f"{name}.py") for name in ("compilation", "arithmetic", "dense_kernels"))


def jit(function: Callable[..., Any], *, parallel: bool = False) -> Any:
    """Compile a kernel when it is first called, or take it from the cache; with `parallel`, prange runs in threads."""
    kernel = numba.njit(nogil=True, error_model="numpy", parallel=parallel)(function)
    compile_for = kernel._compile_for_args  # called for types that have not been compiled yet, and for no others

    def uninterrupted(*args: Any, **kwargs: Any) -> Any:
        with deadline.paused(), deferred_interrupts():
            return compile_for(*args, **kwargs)

    kernel._compile_for_args = uninterrupted
    try:
        kernel._cache = _Cache(function, parallel)
    except (RuntimeError, OSError):  # Numba finds no folder that can be written, or there are no source files
        _warn_of_no_cache()
    return kernel


class ParallelKernel:
    """A kernel whose loops over prange run in threads, where there are any; to be called from Python.

    Attributes
    ----------
    in_threads : Numba dispatcher
        The kernel, compiled to run in several threads.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.in_threads = jit(function, parallel=True)
        self._function = function

    @functools.cached_property
    def on_one_thread(self) -> Any:
        """The kernel compiled to run on one thread, only in a process that needs it."""
        return jit(self._function)

    def __call__(self, *args: Any) -> Any:
        """Run the kernel."""
        if _threads_were_lost:
            return self.on_one_thread(*args)
        with _turn(), _limited(thread_limit()):
            return self.in_threads(*args)


@contextlib.contextmanager
def _limited(threads: int | None) -> Iterator[None]:
    """In the block kernels of this thread run on at most so many threads."""
    before = numba.get_num_threads()
    if threads is None or threads >= before:
        yield
        return
    try:
        numba.set_num_threads(threads)
        yield
    finally:
        numba.set_num_threads(before)


class _Cache(FunctionCache):
    """Numba's cache of one kernel, which also notices changes of `_SOURCES` and survives files that it cannot use.

    Numba names an entry by the place of the function, its source file and the types, but not by its options.
    """

    def __init__(self, function: Callable[..., Any], parallel: bool) -> None:
        super().__init__(function)
        name = self._impl.filename_base + ("-parallel" if parallel else "")
        stamp = self._impl.locator.get_source_stamp(), _stamp()
        self._cache_file = IndexDataCacheFile(self._cache_path, name, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except (OSError, EOFError, pickle.UnpicklingError):
            return None
        # Two processes that write at the same time can give two entries one file.
        return found if found is not None and found.signature.args == tuple(sig) else None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:  # such as a full disk
            _warn_of_no_cache()


@functools.cache
def _stamp() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()


_warned = False


def _warn_of_no_cache() -> None:
    """Warn once in a session."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "kernels are compiled anew in every session, because Numba cannot write its cache: set the environment "
            "variable NUMBA_CACHE_DIR to a folder that can be written",
            stacklevel=2,
        )


_one_at_a_time = threading.RLock()
_threads_were_lost = False  # whether this process was forked from one with threads


@functools.cache
def _turn() -> contextlib.AbstractContextManager[Any]:
    """What a call waits for: Numba's threading layer "workqueue" aborts the process if two threads enter it at once."""
    try:
        with deferred_interrupts():
            numba.get_num_threads()  # launches the threads; before that the layer is unknown
    except ValueError as error:
        layer = numba.config.THREADING_LAYER
        raise ValueError(
            f"NUMBA_THREADING_LAYER must name a layer that is installed, got {layer!r}: unset it"
        ) from error
    return _one_at_a_time if numba.threading_layer() == "workqueue" else contextlib.nullcontext()


def _after_fork() -> None:
    global _threads_were_lost
    with contextlib.suppress(ValueError):  # no threads had been launched
        numba.threading_layer()
        _threads_were_lost = True
    global_compiler_lock.release()


if hasattr(os, "register_at_fork"):
    # A fork waits for a compilation in another thread, which could not be continued in the child.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=_after_fork,
    )
