"""How a command ends, for the command line and the figures: signals, files, output, exit codes and their messages.

This module imports nothing heavy, so that `--help` is fast.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self, TextIO

DONE, NOT_CONVERGED, BAD_INPUT, NOT_WRITTEN = 0, 1, 2, 3
_LATER = 0.01  # seconds until a signal is sent once more
_SIGNALLED = 128  # and the number of the signal: 130 after Ctrl-C, 143 after SIGTERM

_EXPECTED = (ValueError, OSError, ImportError, KeyboardInterrupt)  # what one line on the standard error explains

_ASCII = {"…": "...", "β": "beta", "λ": "lambda", "κ": "kappa", "σ": "sigma", "ψ": "psi", "–": "-", "−": "-", "×": "x"}


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


@contextlib.contextmanager
def computing(signals: Signals) -> Iterator[None]:
    """A block that computes: signals raise KeyboardInterrupt in it, also those that arrived before."""
    with signals.raised():
        if signals.numbers:
            raise KeyboardInterrupt
        yield


def explained(prog: str, error: BaseException, result: str, signals: Signals) -> int:
    """Print in one line why a command has no result; return the exit code.

    Parameters
    ----------
    prog : str
        Name of the command.
    error : BaseException
        What ended the command. It is raised again if it is neither bad input nor the consequence of a signal: a signal
        in the middle of an import can end in any error.
    result : str
        What the command does with a result, such as "write".
    signals : Signals
        The signals of the command.
    """
    if signals.numbers or isinstance(error, KeyboardInterrupt):
        say(f"{prog}: interrupted before there was anything to {result}", sys.stderr)
        return signals.code
    if not isinstance(error, _EXPECTED):
        raise error
    say(f"{prog}: {one_line(error)}", sys.stderr)
    return BAD_INPUT


def written(prog: str, path: object, write: Callable[[], object]) -> bool:
    """Whether a function has written its file; if it fails, one line says why, and the command goes on."""
    try:
        write()
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
        say(f"{prog}: {path} was not written: {kind}{reason}", sys.stderr)
        return False
    return True


def printed(prog: str, text: str, signals: Signals) -> bool:
    """Print on the standard output; False, and one line, if it fails.

    It is no failure if nobody reads on: the standard output is closed, or its reader has ended, as `head` does. Here
    Ctrl-C ends a reader that does not go on.
    """
    try:
        with signals.raised(), _discarding(sys.stdout):
            say(text, sys.stdout)
    except (BrokenPipeError, KeyboardInterrupt):
        return True
    except (OSError, ValueError) as error:
        say(f"{prog}: the result could not be printed: {one_line(error)}", sys.stderr)
        return False
    return True


def ended(prog: str, whole: bool, converged: bool, signals: Signals) -> int:
    """The exit code of a command with a result, whole if every file is written and the text is printed."""
    if signals.numbers:
        say(f"{prog}: interrupted: this is what had been computed", sys.stderr)
    if not whole:
        return NOT_WRITTEN
    if signals.numbers:
        return signals.code
    return DONE if converged else NOT_CONVERGED


def one_line(message: object) -> str:
    """A message or an error without line breaks."""
    if isinstance(message, OSError) and message.filename is not None:
        message = f"{message.filename}: {message.strerror}"
    return " ".join(str(message).split())


# --- output -----------------------------------------------------------------------------------------------------------


def say(text: str, stream: TextIO | None) -> None:
    """Print a line; characters that the stream does not have are replaced."""
    if stream is not None:  # None: it is closed
        print(_encodable(text, stream), file=stream)


def flush() -> None:
    """Flush the standard output, and drop what it cannot take."""
    with contextlib.suppress(OSError), _discarding(sys.stdout):
        pass


@contextlib.contextmanager
def tolerant_errors() -> Iterator[None]:
    """In the block, text that the standard error cannot take is dropped, so that no message ends a computation."""
    stream = sys.stderr
    try:
        with contextlib.redirect_stderr(_Dropping(stream)):
            yield
    finally:
        with contextlib.suppress(OSError, ValueError), _discarding(stream):
            pass


class _Dropping:
    """A stream that drops what cannot be written."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(_encodable(text, self._stream))
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _discarding(stream: TextIO | None) -> Iterator[None]:
    """A block that prints, and flushes; if that fails, the interpreter shall not try again at its end, and complain."""
    try:
        yield
        if stream is not None:
            stream.flush()
    except OSError:
        with contextlib.suppress(OSError):
            if stream is not None and any(stream is own for own in (sys.__stdout__, sys.__stderr__)):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise


def _encodable(text: str, stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "constrained_vae").decode(encoding)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """A handler of errors for `str.encode`: our own characters in ASCII, and a question mark for any other."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error("constrained_vae", _replaced)
