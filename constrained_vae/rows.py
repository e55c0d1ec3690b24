"""Rows: the data in their frame, streamed in row blocks; an array, a memory map, or a source of blocks alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ._checks import FloatArray
from .objectives import Frame

_BLOCK = 2**22  # entries (rows times columns) of a block read from a memory map


@dataclass(frozen=True, eq=False)
class Rows:
    """The data in their frame, streamed in row blocks: a memory map is read block by block, never whole.

    `source` is what the user gave, (N, D) in its own units; `weights` rho (N,) sum to 1.
    """

    source: FloatArray
    weights: FloatArray
    frame: Frame
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def _whole(self) -> FloatArray:
        return self._read(slice(None))

    def _read(self, rows: slice) -> FloatArray:
        return np.ascontiguousarray(self.frame.inward(np.asarray(self.source[rows], dtype=np.float64)), self.dtype)

    def blocks(self, columns: int | None = None) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
        """Blocks (rows, x, rho); in-memory data are one block unless `columns` asks for at most 2^22 / columns rows."""
        mapped = isinstance(self.source, np.memmap)
        count = max(1, _BLOCK // (columns or self.source.shape[1])) if mapped or columns else len(self)
        for start in range(0, len(self), count):
            rows = slice(start, min(start + count, len(self)))
            yield rows, (self._read(rows) if mapped else self._whole[rows]), self.weights[rows]


def standard_frame(x: FloatArray, weights: FloatArray) -> Frame:
    """Weighted mean and root-mean-square radius of the data, in a second pass about the first mean.

    Extreme units are safe: squares are taken only after division by the largest deviation. Coincident points get scale
    1.
    """
    rows = max(1, _BLOCK // x.shape[1])
    blocks = [slice(i, i + rows) for i in range(0, len(x), rows)]

    def mean_about(origin: Any) -> Any:
        return origin + sum(weights[b] @ (np.asarray(x[b], dtype=np.float64) - origin) for b in blocks)

    centre = mean_about(mean_about(np.asarray(x[0], dtype=np.float64)))
    largest = max(float(np.abs(x[b] - centre).max(where=weights[b, None] > 0, initial=0.0)) for b in blocks)
    # Points that coincide up to the rounding of their mean have no radius.
    if largest <= 8 * np.finfo(np.float64).eps * float(np.abs(centre).max()):
        return Frame(centre, 1.0)
    square = 0.0
    for b in blocks:
        heavy = weights[b] > 0  # a point without weight may lie anywhere
        square += float(weights[b][heavy] @ np.square((x[b][heavy] - centre) / largest).sum(axis=1))
    return Frame(centre, largest * float(np.sqrt(square)))
