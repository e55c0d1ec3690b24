"""Signals that ask a process to end (Ctrl-C, SIGTERM), delayed while something must not be left half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Delay SIGINT and SIGTERM until the end of the block, where their own handlers are then called.

    A signal that Python does not handle, such as SIGTERM by default, is not delayed. Python calls handlers in the main
    thread alone; in any other thread the block is entered as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}
    try:
        for number in handlers:
            signal.signal(number, lambda number, frame: arrived.append(number))
        yield
    finally:
        # SIGINT, whose handler raises, comes last: all handlers are restored before anything is raised.
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for received in dict.fromkeys(arrived):
            signal.raise_signal(received)
