"""Time limits: a deadline that holds for everything inside a `with` block, as `numpy.errstate` holds for arithmetic.

A public function sets the deadline once, when its arguments have been checked, so that the clock starts after the
import of a backend. All loops look at it: the maps of a solver, the blocks of a pass over the data, the steps of inner
minimisations and of proofs. `check` ends them by `TimeUp`, which the public function catches as it catches Ctrl-C, to
return what it has. It computes this result under `finishing`. The compilation of kernels does not count.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass


class TimeUp(Exception):
    """The deadline has passed."""


@dataclass
class _Deadline:
    """A time of the clock, which a compilation puts off."""

    end: float


_NEVER = _Deadline(math.inf)
_current: ContextVar[tuple[_Deadline, bool]] = ContextVar("deadline", default=(_NEVER, False))


@contextlib.contextmanager
def _set(deadline: _Deadline, finishing: bool) -> Iterator[None]:
    token = _current.set((deadline, finishing))
    try:
        yield
    finally:
        _current.reset(token)


def within(seconds: float | None) -> contextlib.AbstractContextManager[None]:
    """Set a deadline for a block, none if `seconds` is None; a deadline outside of the block does not hold inside."""
    return _set(_NEVER if seconds is None else _Deadline(time.monotonic() + seconds), finishing=False)


def finishing() -> contextlib.AbstractContextManager[None]:
    """Let `check` pass inside a block, which makes the result of a call; `passed` still says that the time is up."""
    return _set(_current.get()[0], finishing=True)


def passed() -> bool:
    """Whether the deadline has passed."""
    return time.monotonic() >= _current.get()[0].end


def check() -> None:
    """Raise `TimeUp` if the deadline has passed."""
    if passed() and not _current.get()[1]:
        raise TimeUp


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Put the deadline off by the time that a block takes."""
    (deadline, _), began = _current.get(), time.monotonic()
    try:
        yield
    finally:
        if deadline is not _NEVER:
            deadline.end += time.monotonic() - began
