"""How the CPU kernels divide the rows of a map: the parts of the rows that have accumulators of their own.

The kernels and the estimate of their memory take the numbers from here. N, K and S are the numbers of rows, tiles and
statistics, and `itemsize` are the bytes of a number of the data.
"""

from __future__ import annotations

FEW = 8  # largest S of `few`; differences cost as much as matrix products at S = 5 and 1.1 times as much at S = 8
SMALL = 2**19  # N K (S + 8) below which one thread computes, about 0.1 ms: starting the other threads takes as long
_CHUNKS = 64  # largest number of chunks, and so of cores that can share the work
_SHARE = 2**26  # N K (S + 8) from which a block is shared, about 10 ms: threads wait for each other twice per block
_SHARED_BYTES = 2**23  # bytes of a shared block, so that it stays in the cache that the cores share
_WIDE = 64  # smallest K of a shared block; with fewer tiles the rows would be read many times for little work
_ROWS = 64, 512  # fewest and most rows of a shared block: below, products are slower; above, float32 sums less accurate
_PIECE = 512  # tiles per piece of a shared block; products with half as many are 8 % slower
_TASKS = 16  # largest number of tasks that share the pieces, and of teams that share the rows of a block


def of_few(N: int, K: int, S: int, itemsize: int) -> int:
    """Number of chunks of the rows; clearing and adding accumulators costs a few per cent of the work on 64 rows."""
    if N * K * (S + 8) < SMALL:
        return 1
    bytes_of_one = K * (8 * (S + 1) + 4 * itemsize)
    return _power_of_two(min(_CHUNKS, _memory(K, S, itemsize) // bytes_of_one, max(N // 64, min(4, N // 16))))


def of_many(N: int, K: int, S: int, itemsize: int) -> tuple[int, int]:
    """Number of chunks, and number of rows per matrix product; (0, 0) if the threads shall share one accumulator."""
    memory, work = _memory(K, S, itemsize), N * K * (S + 8)
    fixed, row = K * (S + 1) * (8 + itemsize), (K + S + 1) * itemsize  # bytes per chunk, and per row of a product
    fast = min(512, max(96, 2**18 // K))  # rows per product at which products are fastest
    # Few tiles make narrow pieces, so that two chunks are already better than a shared block.
    rows, enough = (96, 4) if K >= _PIECE else (32, 2)
    chunks = min(_CHUNKS, memory // (fixed + rows * row), N // 160)
    if chunks < enough and K >= _WIDE and work >= _SHARE:
        return 0, 0
    chunks = 1 if work < SMALL else _power_of_two(chunks)
    return chunks, min(fast, -(-N // chunks), max(8, (memory // chunks - fixed) // row))


def of_shared(N: int, K: int, S: int, itemsize: int) -> tuple[int, int, int, int, int]:
    """Pieces of the tiles, tiles per piece, tasks that share the pieces, rows of a block, and teams that share them."""
    size = -(-K // max(4, -(-K // _PIECE)))
    pieces = -(-K // size)
    tasks = min(_TASKS, pieces)
    # With very many tiles a block has the smallest number of rows that `_ROWS` allows, or fewer if the memory does not
    # suffice. Half of the memory is for the teams.
    left = _memory(K, S, itemsize) - 8 * K * (S + 1) - itemsize * tasks * size * S
    least, most = min(_ROWS[0], left // (2 * K * itemsize)), min(_ROWS[1], N)
    rows = min(most, max(1, least, _SHARED_BYTES // (K * itemsize)))
    return pieces, size, tasks, rows, min(_TASKS, -(-rows // 4))


def _memory(K: int, S: int, itemsize: int) -> int:
    """Bytes for accumulators and scratch, such that all arrays of a map stay below 16 MB + 4 K S itemsize.

    The rest is for BLAS (1.5 MB), the result (K (S + 1) numbers) and a copy of the tiles (as many numbers).
    """
    return 14_500_000 + 2 * K * (S - 1) * itemsize


def _power_of_two(chunks: int) -> int:
    """The largest power of two up to `chunks`, since most machines have a power of two cores."""
    return 2 ** (max(1, chunks).bit_length() - 1)
