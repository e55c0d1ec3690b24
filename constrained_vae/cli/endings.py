"""How a command ends: exit codes and the messages for them, shared by the command line and the figures.

This module imports nothing heavy, so that `--help` is fast.
"""

from __future__ import annotations

import sys

DONE, NOT_CONVERGED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

EXPECTED = (ValueError, OSError, ImportError, KeyboardInterrupt)  # what `explained` turns into a message and a code


def explained(prog: str, error: BaseException, result: str) -> int:
    """Print in one line why a command has no result; return the exit code.

    Parameters
    ----------
    prog : str
        Name of the command.
    error : BaseException
        One of `EXPECTED`.
    result : str
        What the command does with a result, such as "write".
    """
    interrupted = isinstance(error, KeyboardInterrupt)
    text = f"interrupted before there was anything to {result}" if interrupted else one_line(error)
    print(f"{prog}: {text}", file=sys.stderr)
    return INTERRUPTED if interrupted else BAD_INPUT


def partial(prog: str) -> int:
    """Print that Ctrl-C ended a command early and that its results are incomplete; return the exit code."""
    print(f"{prog}: interrupted: this is what had been computed", file=sys.stderr)
    return INTERRUPTED


def one_line(message: object) -> str:
    """A message or an error without line breaks."""
    if isinstance(message, OSError) and message.filename is not None:
        message = f"{message.filename}: {message.strerror}"
    return " ".join(str(message).split())
