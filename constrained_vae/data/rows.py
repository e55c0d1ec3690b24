"""The rows of the data in their frame, in blocks, from an array, a memory map or a source of row blocks."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils import memory
from .._utils.arrays import FloatArray
from .._utils.checks import check_data, shown
from .frame import Frame
from .repeats import merged

_MAX_ROUNDING = 1e-7  # of the radius: the rounding of the data up to which solutions are of use

_REACH = 1e60  # radii from the centre; the energies of farther points would leave the range of float64
_LEAST_RADIUS, _LARGEST_RADIUS = 1e-141, 1e151  # of the data: squares and temperatures are representable


class RowBlocks:
    """Data in row blocks that are read anew in every pass, for example from files, a database or a generator function.

    They are accepted wherever data are. Every pass over the data, at least one per map, iterates over the source again,
    which must give the same rows in the same order each time. Passes use blocks of at most 2^22 numbers.

    Parameters
    ----------
    source : callable or iterable
        A function without arguments that returns an iterator over arrays (n, D), such as a generator function; or an
        object that makes a new iterator each time, such as a list of memory maps.

    Attributes
    ----------
    shape : (int, int)
        Number of points N and of dimensions D, found in a first pass, which also checks every number.

    Raises
    ------
    ValueError
        If the source is a one-shot iterator, or the blocks do not consist of finite numbers in equally many columns.

    Examples
    --------
    >>> blocks = RowBlocks(lambda: (np.full((2, 3), float(i)) for i in range(4)))
    >>> blocks.shape
    (8, 3)
    """

    dtype = np.dtype(np.float64)
    ndim = 2

    def __init__(self, source: Callable[[], Iterable[Any]] | Iterable[Any]) -> None:
        if isinstance(source, Iterator):
            raise ValueError(
                f"the source of row blocks is a one-shot iterator ({type(source).__name__}), but every map needs a new "
                "pass over the data: give a function that makes a new iterator, such as the generator function itself"
            )
        if not (callable(source) or isinstance(source, Iterable)):
            raise ValueError(f"the source of row blocks must be a function or an iterable, got {shown(source)}")
        self._source = source
        self.shape = (0, 0)  # not known before the first pass
        lengths, columns, self._checksum = 0, 0, 0
        for block in self._pass():
            self._checksum = _checksum(block, self._checksum)
            if lengths and block.shape[1] != columns:
                raise ValueError(f"row blocks must have equally many columns, got {columns} and then {block.shape[1]}")
            lengths, columns = lengths + len(block), block.shape[1]
        if not lengths:
            raise ValueError("the source of row blocks gave no rows")
        self.shape = (lengths, columns)

    def _pass(self) -> Iterator[FloatArray]:
        blocks = self._source() if callable(self._source) else self._source
        try:
            iterator = iter(blocks)
        except TypeError:
            raise ValueError(f"the source of row blocks must give arrays one by one, got {shown(blocks)}") from None
        for number, block in enumerate(iterator):
            yield check_data(block, f"row block {number} of the source")

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[FloatArray]:
        """The blocks, checked against the first pass."""
        found, checksum = 0, 0
        for block in self._pass():
            found, checksum = found + len(block), _checksum(block, checksum)
            if block.shape[1] != self.shape[1] or found > len(self):
                break
            yield block
        else:
            if found == len(self) and checksum == self._checksum:
                return
        raise ValueError(
            f"the source of row blocks gave {len(self)} rows of {self.shape[1]} numbers at first and something else "
            "later: it must give the same rows in every pass, so the passes must not share one iterator"
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        """All rows in one array, for example for saving."""
        return np.concatenate([np.asarray(block, dtype or self.dtype) for block in self])


def _checksum(block: FloatArray, before: int) -> int:
    """The checksum of the rows of a pass up to this block; it does not depend on how the rows are divided."""
    return zlib.crc32(np.ascontiguousarray(block, dtype=np.float64).data, before)


def row_blocks(x: Any, count: int) -> Iterator[tuple[slice, FloatArray]]:
    """Blocks (rows, x[rows]) of `count` rows of an array, a memory map or `RowBlocks`; the last may be shorter."""
    if hasattr(x, "strides"):  # an array
        for start in range(0, len(x), count):
            yield slice(start, min(start + count, len(x))), x[start : start + count]
        return
    start, held = 0, np.empty((0, x.shape[1]))
    for block in x:
        for first in range(0, len(block), count):
            piece = np.asarray(block[first : first + count], np.float64)
            held = np.concatenate([held, piece]) if len(held) else piece
            if len(held) >= count:
                yield slice(start, start + count), held[:count]
                start, held = start + count, held[count:]
    if len(held):
        yield slice(start, start + len(held)), held


def check_rows(x: Any, check: Callable[[FloatArray], None] | None = None) -> FloatArray | RowBlocks:
    """The data as an array, a memory map or `RowBlocks`, checked by `check_data` and in blocks by a further check."""
    rows = x if isinstance(x, RowBlocks) else check_data(x)
    if check is not None:
        for _, block in blocks_of(rows):
            check(block)
    return rows


def over(x: Any, weights: FloatArray | None, part: Callable[..., Any], *args: Any) -> Iterable[Any]:
    """``part(block, start, rho, *args)`` of blocks (n, D), with the number of the first row and the weights (n,)."""
    if hasattr(x, "executor"):  # `Partitions`
        return x.each(part, *args, weights=weights)
    return (part(block, rows.start, None if weights is None else weights[rows], *args) for rows, block in blocks_of(x))


def blocks_of(x: Any) -> Iterator[tuple[slice, FloatArray]]:
    """Blocks (rows, x[rows]) of at most 2^22 entries."""
    return row_blocks(x, memory.rows_of_block(x.shape[1]))


@dataclass(frozen=True, eq=False)
class Rows:
    """The data in their frame. Streamed data (a memory map, `RowBlocks`) are read block by block, never whole.

    Attributes
    ----------
    source : (N, D) array or RowBlocks
        The data as given, in their own units.
    weights : (N,) array
        Data weights rho; they sum to 1.
    frame : Frame
        Frame of the blocks.
    dtype : dtype
        Precision of the blocks.
    keep : bool
        Whether data in memory are kept in their frame; otherwise every pass computes that copy anew.
    names : tuple of str, or None
        Names of the D columns, if they have names.
    """

    source: FloatArray | RowBlocks
    weights: FloatArray
    frame: Frame
    dtype: np.dtype[Any]
    keep: bool = True
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def dim(self) -> int:
        """Number of dimensions D."""
        return int(self.source.shape[1])

    @property
    def streamed(self) -> bool:
        """Whether every pass reads the data anew."""
        return not self.keep or isinstance(self.source, np.memmap) or not isinstance(self.source, np.ndarray)

    @cached_property
    def _whole(self) -> FloatArray:
        return self._inward(self.source)

    def _inward(self, x: Any) -> FloatArray:
        return np.ascontiguousarray(self.frame.inward(np.asarray(x, dtype=np.float64)), self.dtype)

    def blocks(self, columns: int | None = None) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
        """Blocks (rows, x, rho) in the frame.

        Data in memory are one block without `columns`. Otherwise, and for streamed data, arrays (rows, D) and
        (rows, columns) fit into the size of a block.
        """
        whole = columns is None and not self.streamed
        count = len(self) if whole else memory.rows_of_block(max(self.dim, columns or 1))
        for rows, x in row_blocks(self.source if self.streamed else self._whole, count):
            yield rows, (self._inward(x) if self.streamed else x), self.weights[rows]

    def distinct(self) -> Rows:
        """The same data with every row that repeats as one row, the first; as they are if few do, or not in memory."""
        if isinstance(self.source, np.memmap) or not isinstance(self.source, np.ndarray):
            return self
        found = merged(self.source, self.weights)
        return self if found is None else replace(self, source=found[0], weights=found[1])

    def take(self, indices: npt.NDArray[np.intp]) -> FloatArray:
        """Some points in the frame, (n, D) in float64; their indices must ascend."""
        return self.frame.inward(np.concatenate(list(over(self.source, None, _some_rows, indices))))


def _some_rows(x: FloatArray, start: int, rho: None, indices: npt.NDArray[np.intp]) -> FloatArray:
    first, last = np.searchsorted(indices, (start, start + len(x)))
    return np.asarray(x[indices[first:last] - start], dtype=np.float64)


def standard_frame(x: FloatArray | RowBlocks, weights: FloatArray, *, warn: bool = True) -> Frame:
    """The frame of the weighted mean and the root-mean-square radius of the data; the scale of coincident points is 1.

    The mean is computed twice, the second time about the first mean. Deviations are divided by the largest deviation
    before they are squared, so that extreme units neither overflow nor underflow.

    Warns
    -----
    UserWarning
        If the rounding of the data at their offset, eps times the largest coordinate of the mean, is above 1e-7 of the
        radius, unless `warn` is False.
    """
    first = next(row for row in over(x, weights, _heavy_row) if row is not None)
    centre = first
    with np.errstate(over="ignore", invalid="ignore"):  # differences of numbers of 1e308
        for _ in range(2):
            centre = centre + sum(over(x, weights, _sum_about, centre))
        largest = max(over(x, weights, _farthest, centre))
    if not np.isfinite(largest):
        return Frame(centre, np.inf)
    # Points that coincide up to the rounding of their mean have no radius.
    rounding = np.finfo(np.float64).eps * float(np.abs(centre).max())
    if largest <= 8 * rounding:
        if warn and any(over(x, weights, _differs, first)):
            _warn_of_offset(centre, largest)
        return Frame(centre, 1.0)
    square = sum(over(x, weights, _squares, centre, largest))
    if square < _REACH**-2:
        raise ValueError(
            f"x must lie within {_REACH:.0e} radii of the data, but a point of tiny weight is farther: drop rows whose "
            "weights are below 1e-100 of the largest"
        )
    scale = largest * float(np.sqrt(square))
    if warn and rounding > _MAX_ROUNDING * scale:
        _warn_of_offset(centre, scale)
    return Frame(centre, scale)


def _heavy_row(x: FloatArray, start: int, rho: FloatArray) -> FloatArray | None:
    """The first row of positive weight."""
    heavy = rho > 0
    return np.array(x[heavy.argmax()], dtype=np.float64) if heavy.any() else None  # a copy: a view would keep x


def _sum_about(x: FloatArray, start: int, rho: FloatArray, origin: FloatArray) -> FloatArray:
    with np.errstate(over="ignore", invalid="ignore"):  # on a worker
        return rho @ (np.asarray(x, dtype=np.float64) - origin)


def _farthest(x: FloatArray, start: int, rho: FloatArray, centre: FloatArray) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        deviations = np.abs(np.asarray(x, dtype=np.float64) - centre)
    return float(deviations.max(where=rho[:, None] > 0, initial=0.0))


def _differs(x: FloatArray, start: int, rho: FloatArray, first: FloatArray) -> bool:
    return bool((x[rho > 0] != first).any())


def _squares(x: FloatArray, start: int, rho: FloatArray, centre: FloatArray, unit: float) -> float:
    heavy = rho > 0  # a point without weight may lie anywhere
    return float(rho[heavy] @ np.square((np.asarray(x[heavy], dtype=np.float64) - centre) / unit).sum(axis=1))


def scaled_frame(x: FloatArray | RowBlocks, weights: FloatArray) -> Frame:
    """The frame of data of at least 0 that may be scaled, but not moved: the largest number is its unit."""
    largest = max(over(x, weights, _greatest))
    return Frame(np.zeros(x.shape[1]), largest or 1.0)


def _greatest(x: FloatArray, start: int, rho: FloatArray) -> float:
    return float(np.asarray(x, dtype=np.float64).max(where=rho[:, None] > 0, initial=0.0))


def check_radius(frame: Frame) -> Frame:
    """The standard frame of data; raises ValueError if the square of its scale is out of the range of float64.

    Distortions and temperatures are squares of lengths, and the temperatures of a sweep lie far below the radius.
    """
    if not _LEAST_RADIUS <= frame.scale <= _LARGEST_RADIUS:
        raise ValueError(
            f"x must have a radius between {_LEAST_RADIUS:.0e} and {_LARGEST_RADIUS:.0e}, so that its square can be "
            f"computed with, got {frame.scale:.2g}: rescale the data (temperatures go by the square of the factor)"
        )
    return frame


def check_reach(x: FloatArray | RowBlocks, frame: Frame, name: str = "x") -> None:
    """Raise ValueError if a point is so far from the data of the frame that energies are not representable."""
    for row in over(x, None, _far_row, frame):
        if row is not None:
            raise ValueError(
                f"{name} must lie within {_REACH:.0e} radii of the data, got a point outside at row {row}: drop such "
                "rows"
            )


def _far_row(x: FloatArray, start: int, rho: None, frame: Frame) -> int | None:
    with np.errstate(over="ignore"):
        far = np.abs(np.asarray(x, dtype=np.float64) - frame.centre).max(axis=1) > _REACH * frame.scale
    return start + int(far.argmax()) if far.any() else None


def _warn_of_offset(centre: FloatArray, radius: float) -> None:
    warnings.warn(
        f"x lies at {np.abs(centre).max():.1e}, where numbers are {np.spacing(np.abs(centre).max()):.1e} apart, and "
        f"its radius is {radius:.1e}: it has lost digits, and so will the reconstructions; subtract an offset from the "
        "data before they are rounded",
        stacklevel=5,
    )
