"""Signals that ask a process to end (Ctrl-C, SIGTERM, alarms), delayed while something must not be left half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Result = TypeVar("Result")

# An alarm is how programs limit the time of a call: its handler raises an error.
_SIGNALS = (*([signal.SIGALRM] if hasattr(signal, "SIGALRM") else []), signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[list[int]]:
    """Delay SIGINT, SIGTERM and SIGALRM until the end of the block, where what they would have done is then done.

    The block is given the list of those that have arrived. A signal that is ignored stays ignored. Python handles
    signals in the main thread alone; in any other thread the block is entered as it is.
    """
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    handlers = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    try:
        _install(dict.fromkeys(handlers, lambda number, frame: arrived.append(number)))
        yield arrived
    finally:
        try:
            _restore(handlers)
        finally:
            _raise([number for number in handlers if number in arrived])


def _install(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    """Install all handlers before any of them is called.

    The signals wait meanwhile. One that another thread receives does not: what its handler raises is raised in the end.
    """
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, handlers) if masks else set()
    raised: list[BaseException] = []
    restored = False
    while not restored:
        try:
            _install(handlers)
            restored = True
        except BaseException as error:
            raised.append(error)
    if masks:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if raised:
        raise raised[-1]


def _raise(numbers: list[signal.Signals]) -> None:
    """Raise signals one after the other, also if the handler of one raises an error."""
    if numbers:
        try:
            signal.raise_signal(numbers[0])
        finally:
            _raise(numbers[1:])


def finished(result: Callable[[], Result]) -> tuple[Result, bool]:
    """What a function returns, without being disturbed by Ctrl-C, and whether Ctrl-C was pressed meanwhile.

    For results that are there when an iteration has ended, and only have to be put together.
    """
    made: list[Result] = []
    try:
        with deferred_interrupts():
            made.append(result())
    except KeyboardInterrupt:
        if not made:
            raise
        return made[0], True
    return made[0], False
