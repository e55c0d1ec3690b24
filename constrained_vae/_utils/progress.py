"""Progress bars: captions that people can read, and bars that are green when the work is done."""

from __future__ import annotations

from typing import Any

# Of work that is measured by a length, whose digits would say nothing: only the share that is done is shown.
SHARE = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"


def done(bar: Any) -> None:
    """Fill a bar of work that has ended as it was to end, if earlier than its total; a notebook then shows it green."""
    if bar.total is not None:
        bar.total = bar.n
        bar.refresh()
