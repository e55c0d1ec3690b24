"""Who does what on a GPU: how rows and tiles are cut among blocks and threads, from the sizes alone.

Plain arithmetic, without CuPy and without a look at the device: so the kernels add in the same order on every one, and
the cut can be tested where there is no GPU. The meaning of every number is told at the head of `kernels.cu`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.checks import TooLargeError

FEW = 16  # statistics up to which two fused passes are expected to beat two matrix products; not measured yet
SHARED = 48 * 2**10  # bytes of shared memory that every device grants a block
THREADS = 256  # in a block of encode and encode_products
COLUMN_THREADS = 128  # in a block of accumulate
COLLECT_THREADS = 1024
_BLOCKS = 2048  # of accumulate: some ten for each multiprocessor of a large device
_ROW_BLOCKS = 4096  # of encode and encode_products, at most
_PARTIAL = 2**28  # bytes of partial sums, or one share of the rows
_PRODUCTS = 2**25  # entries of the logits of a row block, where they are matrix products
_SHARE = 512  # rows whose sum is one matrix product, in the arithmetic of the data; shares are added up in double


@dataclass(frozen=True)
class Geometry:
    """The cut of one map.

    Attributes
    ----------
    macros : dict of str to int
        What the kernels are compiled with, apart from REAL and DIFFERENCES.
    words : int
        Rows of the tile array before the last: S + 1, or that rounded up to a multiple of four.
    padded : int
        Columns of the tile array, K rounded up.
    team : int
        Threads that share a row in encode or encode_products.
    encode_blocks : int
    column_team : int
        Threads of accumulate that hold different tiles; 0 with matrix products.
    accumulate_grid : (int, int)
        Shares of the rows, sets of tiles; (0, 0) with matrix products.
    rows : int
        Rows of a block of logits; 0 where none are stored.
    share : int
        Rows in one product of weights and statistics; divides `rows`.
    """

    macros: dict[str, int]
    words: int
    padded: int
    team: int
    encode_blocks: int
    column_team: int = 0
    accumulate_grid: tuple[int, int] = (0, 0)
    rows: int = 0
    share: int = 0


def geometry(N: int, K: int, S: int, itemsize: int) -> Geometry:
    """The cut for N rows, K tiles, S statistics of 4 or 8 bytes.

    Raises
    ------
    TooLargeError
        If the tiles are more than a launch can number.
    """
    return _fused(N, K, S, itemsize) if S <= FEW else _products(N, K, S)


def _fused(N: int, K: int, S: int, itemsize: int) -> Geometry:
    # What fits in the registers of a thread, tried for every S with the compiler: none spills.
    if itemsize == 4:
        rows, group, columns = ((8, 8, 4), (8, 4, 4), (4, 4, 2), (2, 4, 2))[(S > 2) + (S > 4) + (S > 8)]
    else:
        rows, group, columns = ((4, 4, 2), (4, 2, 2), (2, 2, 1), (2, 2, 1))[(S > 2) + (S > 4) + (S > 8)]
    team, column_team = _team(K, group, 32), _team(K, columns, COLUMN_THREADS)
    padded = _rounded(K, max(group * team, columns))
    sets = -(-K // (columns * column_team))
    if sets > 65535:
        raise TooLargeError(f"the CUDA kernels number up to {65535 * columns * column_team} tiles, got {K}")
    least = max(256, 8 * COLUMN_THREADS // column_team)  # rows worth a share: filling and emptying it cost some
    shares = max(1, min(_BLOCKS // sets, _PARTIAL // (8 * (S + 1) * padded), N // least))
    macros = {
        "STATISTICS": S,
        "ROWS": rows,
        "GROUP": group,
        "TILES": 32 * group * max(1, 2**15 // (32 * group * (S + 2) * itemsize)),
        "RESIDENT": 2 if itemsize == 4 else 1,
        "COLUMNS": columns,
        "STAGE": 256 if (S + 2) * itemsize <= 96 else 128,
    }
    encode_blocks = min(_ROW_BLOCKS, -(-N // (THREADS // team * rows)))
    return Geometry(macros, S + 1, padded, team, encode_blocks, column_team, (shares, sets))


def _products(N: int, K: int, S: int) -> Geometry:
    group = 4
    team = _team(K, group, 32)
    # Multiples of four: the matrix products read four numbers at a time.
    words, padded = _rounded(S + 1, 4), _rounded(K, group * team)
    share = min(_SHARE, _rounded(N, 4))
    rows = min(_rounded(N, share), share * max(1, _PRODUCTS // (share * padded)))
    encode_blocks = min(_ROW_BLOCKS, -(-rows // (THREADS // team)))
    return Geometry({"STATISTICS": 0, "GROUP": group}, words, padded, team, encode_blocks, rows=rows, share=share)


def _team(K: int, held: int, most: int) -> int:
    """How many threads share K tiles if each holds so many at once: a power of two, at most `most`."""
    return min(most, 2 ** max(0, math.ceil(math.log2(-(-K // held)))))


def _rounded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def options(plan: Geometry, real: Any, differences: bool) -> tuple[str, ...]:
    """Compiler options for that cut. No product and sum may be fused unasked: see `kernels.cu`."""
    macros = {"REAL": {4: "float", 8: "double"}[np.dtype(real).itemsize], "DIFFERENCES": int(differences)} | plan.macros
    return ("--std=c++17", "--fmad=false", *(f"-D{name}={value}" for name, value in macros.items()))


def arguments(*values: Any) -> tuple[Any, ...]:
    """Kernel arguments: whole numbers as 64 bits, real ones as doubles, arrays as they are."""
    converted = {int: np.int64, bool: np.int64, float: np.float64}
    return tuple(converted[type(value)](value) if type(value) in converted else value for value in values)
