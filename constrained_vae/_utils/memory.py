"""Sizes of arrays: blocks of rows, arrays that are kept between passes, the largest array that is returned.

Other modules read the sizes as attributes of this module, so that one place decides.
"""

from __future__ import annotations

import math
import os

from . import chunks

BLOCK = 2**22  # entries (rows times columns) of a block of rows, and of an array with an entry per row and tile
KEPT = 2**26  # entries of all arrays that a pass keeps for the next pass; more of them are computed anew
LARGEST = 2**27  # entries of the largest array that is returned whole, 1 GiB
SITES = 4096  # reconstructions of the global optimum at most

# What the kernels need, as `backends.numba` documents it:
_IN_ORDER, _WORTH_SORTING = 4, 512  # most columns and fewest rows of data that are kept in another order, too
_WORTH_LISTING = 2**20  # fewest pairs of a row and a tile for lists of near tiles
_SCRATCH = 14_500_000  # bytes of the blocks in which the kernels multiply matrices, at most
_OBJECTS = 12_000  # bytes of everything else
_VECTORS = 50  # arrays (K, D) of the accelerators and of the error estimate


def rows_of_block(columns: int) -> int:
    """How many rows a block of so many columns has."""
    return max(1, BLOCK // columns)


def of_map(n: int, k: int, d: int, itemsize: int = 8) -> int:
    """Bytes of a map of (n, d) data in memory, the data included, with k tiles, at the moment when they are most."""
    x, kept = 8 * n * d, itemsize * n * d
    in_order = d <= _IN_ORDER and n >= _WORTH_SORTING
    framing = 2 * 8 * min(n * d, BLOCK) + 17 * n  # deviations of a block, two arrays at a time, and weights
    preparing = (16 if itemsize == 8 else 12) * n * d + (40 if in_order else 16) * n
    mapping = (
        (2 if in_order else 1) * kept
        + (16 + 2 * itemsize) * n
        + 2 * 8 * k * d
        + max(_scratch(n, k, d, itemsize), _looking(n, k, d))
    )
    return x + max(framing, preparing, mapping) + 8 * k * d + _OBJECTS


def _scratch(n: int, k: int, d: int, itemsize: int) -> int:
    """Bytes of the accumulators of the CPU kernels and of the blocks in which they multiply matrices."""
    if d <= chunks.FEW:
        return chunks.of_few(n, k, d, itemsize) * 8 * k * (d + 1)
    count, rows = chunks.of_many(n, k, d, itemsize)
    if count:
        return count * (k * (d + 1) * (8 + itemsize) + rows * (k + d + 1) * itemsize)
    pieces, size, tasks, rows, teams = chunks.of_shared(n, k, d, itemsize)
    return itemsize * (pieces * rows * size + teams * k + tasks * size * d) + 8 * k * (d + 1)


def of_solve(n: int, k: int, d: int, itemsize: int = 8) -> int:
    """Bytes that a solution at one temperature takes at most: those of a map, and what is kept between maps."""
    encoders = 3 * 8 * min(n * k, BLOCK) + (8 * n * (k + d) if n * (k + d) <= KEPT else 0)
    return of_map(n, k, d, itemsize) + encoders + _lists(n, k, d) + _SCRATCH + _VECTORS * 8 * k * d


def _looking(n: int, k: int, d: int) -> int:
    """Bytes of the energies of some rows, which tell whether lists of near tiles pay."""
    return 3 * 8 * min(n, 64) * k if d > _IN_ORDER and n * k >= _WORTH_LISTING else 0


def _lists(n: int, k: int, d: int) -> int:
    """Bytes of the lists of near tiles at low temperature, as `backends.neighbours` documents them."""
    return n * (60 + 6 * min(k // 4, 28 + k // 10)) if d > _IN_ORDER and n * k >= _WORTH_LISTING else 0


def of_frontier(n: int, d: int) -> int:
    """Bytes that R(D) of n distinct points takes at most: a reconstruction may be at every point, up to `SITES`."""
    k = min(n, SITES)
    return of_map(n, k, d) + 6 * 8 * n * k + 3 * 8 * min(n * (2 * n + k), BLOCK)


def physical() -> float:
    """The memory of the machine in bytes; infinite where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows, and systems without these names
        return math.inf


def text(size: float) -> str:
    """A number of bytes with three digits, in GiB or MiB."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"
