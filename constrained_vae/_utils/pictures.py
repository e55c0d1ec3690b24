"""Pictures of results: their methods `plot` call the sub-package `plotting`, which knows the results, by name."""

from __future__ import annotations

import importlib
from typing import Any

from .interrupts import deferred_interrupts


def picture(name: str, *args: Any, **options: Any) -> Any:
    """The Axes that a function of `plotting` returns; it imports Matplotlib, which nothing else needs."""
    with deferred_interrupts():
        plotting = importlib.import_module("constrained_vae.plotting")
    return getattr(plotting, name)(*args, **options)
