"""Launch geometry of the CUDA kernels: how rows and tiles are divided among blocks and threads.

The geometry depends on the sizes N, K, S and the precision only, not on the device. Therefore the kernels add in the
same order on every GPU, and the geometry can be tested without CuPy and without a GPU. The comment at the head of
`kernels.cu` explains the numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.checks import TooLargeError

FEW = 16  # largest number of statistics for which two fused passes are used, not two matrix products; not measured yet
SHARED = 48 * 2**10  # bytes of shared memory that a block can use on every device
THREADS = 256  # per block of encode and encode_products
COLUMN_THREADS = 128  # per block of accumulate
COLLECT_THREADS = 1024  # per block of collect and collect_products
_BLOCKS = 2048  # blocks of accumulate: about ten per multiprocessor of a large device
_ROW_BLOCKS = 4096  # largest number of blocks of encode and encode_products
_PARTIAL = 2**28  # bytes of the partial sums of accumulate; more only if one share of the rows needs more
_PRODUCTS = 2**25  # entries of the logits of a row block if they are a matrix product
_SHARE = 512  # rows whose sum is one matrix product in the precision of the data; the shares are added in double


@dataclass(frozen=True)
class Geometry:
    """Launch geometry of one map.

    Attributes
    ----------
    macros : dict of str to int
        Macros with which the kernels are compiled, apart from REAL and DIFFERENCES.
    words : int
        Rows of the tile array before the last row: S + 1, with matrix products rounded up to a multiple of four.
    padded : int
        Columns of the tile array: K rounded up.
    team : int
        Threads that share a row in encode or encode_products.
    encode_blocks : int
        Blocks of encode or encode_products.
    column_team : int
        Threads of accumulate that hold different tiles; 0 with matrix products.
    accumulate_grid : (int, int)
        Number of shares of the rows and number of sets of tiles; (0, 0) with matrix products.
    rows : int
        Rows of a block of logits; 0 if the logits are not stored.
    share : int
        Rows in one product of weights and statistics; it divides `rows`.
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
    """Launch geometry for N rows, K tiles and S statistics of 4 or 8 bytes.

    Raises
    ------
    TooLargeError
        If there are more tiles than a launch can number.
    """
    return _fused(N, K, S, itemsize) if S <= FEW else _products(N, K, S)


def _fused(N: int, K: int, S: int, itemsize: int) -> Geometry:
    # The largest numbers that fit into the registers of a thread; compiled for every S, no kernel spills registers.
    if itemsize == 4:
        rows, group, columns = ((8, 8, 4), (8, 4, 4), (4, 4, 2), (2, 4, 2))[(S > 2) + (S > 4) + (S > 8)]
    else:
        rows, group, columns = ((4, 4, 2), (4, 2, 2), (2, 2, 1), (2, 2, 1))[(S > 2) + (S > 4) + (S > 8)]
    team, column_team = _team(K, group, 32), _team(K, columns, COLUMN_THREADS)
    padded = _rounded(K, max(group * team, columns))
    sets = -(-K // (columns * column_team))
    if sets > 65535:
        raise TooLargeError(
            f"the CUDA kernels number up to {65535 * columns * column_team} tiles, got {K}: use fewer tiles, or "
            "choose backend='numba'"
        )
    least = max(256, 8 * COLUMN_THREADS // column_team)  # rows of a share; with fewer its start and end would dominate
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
    # Multiples of four, since the matrix products read four numbers at a time.
    words, padded = _rounded(S + 1, 4), _rounded(K, group * team)
    share = min(_SHARE, _rounded(N, 4))
    rows = min(_rounded(N, share), share * max(1, _PRODUCTS // (share * padded)))
    encode_blocks = min(_ROW_BLOCKS, -(-rows // (THREADS // team)))
    return Geometry({"STATISTICS": 0, "GROUP": group}, words, padded, team, encode_blocks, rows=rows, share=share)


def _team(K: int, held: int, most: int) -> int:
    """Number of threads that share K tiles if each holds `held` at a time: a power of two, at most `most`."""
    return min(most, 2 ** max(0, math.ceil(math.log2(-(-K // held)))))


def _rounded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def options(plan: Geometry, real: Any, differences: bool) -> tuple[str, ...]:
    """Compiler options. The compiler must not fuse products and sums on its own; `kernels.cu` explains why."""
    macros = {"REAL": {4: "float", 8: "double"}[np.dtype(real).itemsize], "DIFFERENCES": int(differences)} | plan.macros
    return ("--std=c++17", "--fmad=false", *(f"-D{name}={value}" for name, value in macros.items()))


def arguments(*values: Any) -> tuple[Any, ...]:
    """Kernel arguments: integers as 64-bit integers, real numbers as doubles, arrays unchanged."""
    converted = {int: np.int64, bool: np.int64, float: np.float64}
    return tuple(converted[type(value)](value) if type(value) in converted else value for value in values)
