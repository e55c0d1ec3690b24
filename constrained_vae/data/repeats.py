"""merged(): data in which every row that repeats is one row, with the sum of its weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._utils import memory
from .._utils.arrays import FloatArray

_WORTH = 0.8  # merging pays if at most about this share of the rows is distinct
_HASHED = 2**15  # entries that are hashed at a time, so that they stay in the cache
_HALF = np.uint64(32)  # bits


def merged(x: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """The distinct rows (n, D) of x (N, D), each where it is first, and their weights (n,); None if few rows repeat.

    Rows are equal if all of their numbers are, so that 0 equals -0. Their hashes are sorted, and rows of equal hashes
    are compared. It takes the time of a few additions per number of x if few rows repeat.
    """
    if len(x) == 1:
        return None
    keys = _hashes(x)
    bits = (8 * len(x)).bit_length()  # so many buckets that few rows share one by accident
    occupied = np.zeros(2**bits, dtype=bool)
    occupied[keys >> np.uint64(64 - bits)] = True
    if np.count_nonzero(occupied) > _WORTH * len(x):
        return None
    order = np.argsort(keys, kind="stable")
    same = np.append(False, keys[order[1:]] == keys[order[:-1]])
    if not _equal(x, order, np.flatnonzero(same)):  # two rows share a hash by accident
        return None
    starts = np.flatnonzero(~same)
    first, total = order[starts], np.add.reduceat(weights[order], starts)
    ascending = np.argsort(first)
    return x[first[ascending]], total[ascending]


def _hashes(x: FloatArray) -> npt.NDArray[np.uint64]:
    """Hashes (N,) of the rows: sums of the mixed bits of their numbers, each column with its own odd factor."""
    factors = np.random.default_rng(0).integers(2**63, size=x.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    keys, count = np.empty(len(x), dtype=np.uint64), max(1, _HASHED // x.shape[1])
    space = np.empty((2, min(count, len(x)), x.shape[1]), dtype=np.uint64)  # one for all parts: clearing takes time
    for start in range(0, len(x), count):
        part = x[start : start + count]
        bits, high = space[:, : len(part)]
        np.add(part, 0.0, out=bits.view(np.float64))  # no -0
        bits ^= np.right_shift(bits, _HALF, out=high)  # the low bits of round numbers are zero
        bits *= factors
        bits ^= np.right_shift(bits, _HALF, out=high)
        np.sum(bits, axis=1, out=keys[start : start + count])
    return keys


def _equal(x: FloatArray, order: npt.NDArray[np.intp], places: npt.NDArray[np.intp]) -> bool:
    """Whether the row at each of some places of the order equals the row at the place before."""
    count = memory.rows_of_block(x.shape[1])
    parts = (places[start : start + count] for start in range(0, len(places), count))
    return all(np.array_equal(x[order[part]], x[order[part - 1]]) for part in parts)
