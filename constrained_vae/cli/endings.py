"""How a command ends, for the command line and the figures: files, output, exit codes and their messages.

This module imports nothing heavy, so that `--help` is fast.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from .signals import Signals

DONE, NOT_CONVERGED, BAD_INPUT, NOT_WRITTEN = 0, 1, 2, 3  # others: `Signals.code`

_EXPECTED = (ValueError, OSError, ImportError, KeyboardInterrupt)  # what one line on the standard error explains

_ASCII = {"…": "...", "β": "beta", "λ": "lambda", "κ": "kappa", "σ": "sigma", "ψ": "psi", "–": "-", "−": "-", "×": "x"}


def explained(prog: str, error: BaseException, result: str, signals: Signals) -> int:
    """Print in one line why a command has no result, then the notes of the error; return the exit code.

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
    for text in (f"{prog}: {one_line(error)}", *getattr(error, "__notes__", ())):
        say(text, sys.stderr)
    return BAD_INPUT


def written(prog: str, path: object, write: Callable[[], object]) -> bool:
    """Whether a function has written its file; if it fails, one line says why, and the command goes on."""
    try:
        write()
    except KeyboardInterrupt:  # the picture: files are written without being disturbed
        say(f"{prog}: interrupted: {path} was not written", sys.stderr)
        return False
    except Exception as error:
        say(f"{prog}: {path} was not written: {_reason(error)}", sys.stderr)
        return False
    return True


def printed(prog: str, text: Callable[[], str], names: Sequence[str], signals: Signals) -> bool:
    """Print what a function returns, and names of files, on the standard output; False, and one line, if it fails.

    It is no failure if nobody reads on: the standard output is closed, or its reader has ended, as `head` does. Ctrl-C
    ends the computation of the text and the wait for a reader.
    """
    lines = list(names)
    try:
        with contextlib.suppress(KeyboardInterrupt), signals.raised():
            lines.insert(0, text())
        with signals.raised(), _discarding(sys.stdout):
            say("\n".join(lines), sys.stdout)
    except (BrokenPipeError, KeyboardInterrupt):
        return True
    except Exception as error:
        say(f"{prog}: the result could not be printed: {_reason(error)}", sys.stderr)
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


def _reason(error: Exception) -> str:
    """What has failed in one step of several, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {one_line(error)}"


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
