"""Progress bars: captions that people can read, the time left, and bars that are green when the work is done."""

from __future__ import annotations

from typing import Any

# Of work that is measured by a length, whose digits would say nothing: only the share that is done is shown.
SHARE = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"


SHOWN_AFTER = 2.0  # seconds of work from which on the time that is left is shown

_UNITS = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def duration(seconds: float) -> str:
    """A time with two digits, in the largest unit of which it has at least one; whole numbers where it has more."""
    unit, name = next(((unit, name) for unit, name in _UNITS if seconds >= 0.995 * unit), _UNITS[-1])
    value = seconds / unit
    return f"{value:.2g} {name}" if value < 99.5 else f"{value:.0f} {name}"


def span(least: float, most: float) -> str:
    """A range of times."""
    ends = [duration(least), duration(most)]
    return " to ".join(ends[: 1 if ends[0] == ends[1] else 2])


def left(least: float, most: float) -> str:
    """The range of the time that is left, to the second, as the end of a caption."""
    if most < 1:
        return ", less than 1 s left"
    return f", {span(round(least), most) if least >= 0.5 else f'up to {duration(most)}'} left"


def left_of_share(elapsed: float, share: float, powers: tuple[float, float]) -> str:
    """The same for work of which a share is done; the time that it has taken is that share to one of the powers."""
    if elapsed < SHOWN_AFTER or not share:
        return ""
    least, most = (elapsed * (share**-power - 1) for power in powers)
    return left(least, most)


def done(bar: Any) -> None:
    """Fill a bar of work that has ended as it was to end, if earlier than its total; a notebook then shows it green."""
    if bar.total is not None:
        bar.total = bar.n
        bar.refresh()
