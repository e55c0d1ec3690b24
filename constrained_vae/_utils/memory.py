"""Sizes of arrays: blocks of rows, arrays that are kept between passes, the largest array that is returned.

Other modules read the sizes as attributes of this module, so that one place decides.
"""

from __future__ import annotations

import math
import os

BLOCK = 2**22  # entries (rows times columns) of a block of rows, and of an array with an entry per row and tile
KEPT = 2**26  # entries of all arrays that a pass keeps for the next pass; more of them are computed anew
LARGEST = 2**27  # entries of the largest array that is returned whole, 1 GiB


def rows_of_block(columns: int) -> int:
    """How many rows a block of so many columns has."""
    return max(1, BLOCK // columns)


def physical() -> float:
    """The memory of the machine in bytes; infinite where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows, and systems without these names
        return math.inf
