"""Ctrl-C and SIGTERM while a command runs, for the command line and the figures."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

_LATER = 0.01  # seconds until a signal is sent once more
_SIGNALLED = 128  # and the number of the signal is the exit code of a process that it ends


class Signals:
    """Ctrl-C and SIGTERM while a command runs: all are noted, and one of them ends a computation.

    As a context it handles the signals, other than those that the caller of the process has ignored.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._raising = False
        self._before: dict[int, Any] = {}
        self._repeat: threading.Timer | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other can handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        if self._before:
            self._hook, sys.unraisablehook = sys.unraisablehook, self._unraised
        return self

    def __exit__(self, *error: object) -> None:
        if self._repeat is not None:
            self._repeat.cancel()
            self._repeat.join()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            sys.unraisablehook = self._hook

    @property
    def code(self) -> int:
        """The exit code after an interruption."""
        return _SIGNALLED + (self.numbers or [signal.SIGINT])[0]

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """In the block, a signal raises KeyboardInterrupt.

        The second one does not, so that a key that is pressed twice leaves in peace what follows from the first one.
        """
        self._raising = True
        try:
            yield
        finally:
            self._raising = False

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """In the block, a signal raises KeyboardInterrupt, also one that has arrived before."""
        with self.raised():
            if self.numbers:
                raise KeyboardInterrupt
            yield

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._repeat is None:
            self.numbers.append(number)
        self._repeat = None
        if not self._raising or len(self.numbers) == 2:
            return
        if _importing(frame):  # a module that is half imported breaks the next import of it, with another error
            self._later(number)
        else:
            raise KeyboardInterrupt

    def _later(self, number: int) -> None:
        """Send a signal once more."""
        self._repeat = threading.Timer(_LATER, signal.raise_signal, [number])
        self._repeat.start()

    def _unraised(self, lost: sys.UnraisableHookArgs) -> None:
        """Send a signal once more whose KeyboardInterrupt Python has dropped, such as that in a method `__del__`."""
        if isinstance(lost.exc_value, KeyboardInterrupt) and self.numbers:
            self._later(self.numbers[-1])
        else:
            self._hook(lost)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None
