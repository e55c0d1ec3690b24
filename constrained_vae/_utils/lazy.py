"""Names of a package that are imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lazy_loader

from .interrupts import deferred_interrupts


def attach(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose stub, the file with the ending .pyi, lists the names.

    Ctrl-C is delayed during the import, since a library whose import was cut short cannot be imported again.
    """
    imported, names, listed = lazy_loader.attach_stub(package, file)

    def attribute(name: str) -> Any:
        with deferred_interrupts():
            return imported(name)

    return attribute, names, listed
