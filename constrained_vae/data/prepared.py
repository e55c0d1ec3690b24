"""Prepared data, and sums over their rows.

All quantities that a solver computes from the data are sums over rows. `PreparedData.total` takes a function of one
block of rows, and adds its results over all blocks in a balanced tree in the order of the blocks. So the result depends
on the blocks alone, bit by bit, and not on where or when a block was computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import ModuleType
from typing import Any, Protocol, TypeVar

import numpy as np

from .._utils import deadline, memory
from .._utils.arrays import Array, FloatArray
from .._utils.device import to_host
from .frame import Frame
from .rows import Rows
from .tree import tree_sum as tree_sum

R = TypeVar("R")

Statistics = Callable[[Array, slice | None], tuple[Array, Array]]


class HasOffset(Protocol):
    """The part of an objective that a block needs."""

    def offset(self, s: Array) -> Array:
        """Offsets s_i (n,) of the energies, multipliers included."""


@dataclass(eq=False, slots=True)
class Block:
    """Some rows of the data; the arrays are where the backend computes.

    Attributes
    ----------
    x : (n, D) array
        Points in the frame.
    phi, s : (n, S) and (n,) or (n, C) arrays
        Statistics of the objective, without multipliers (T4).
    rho : (n,) array
        Data weights.
    rows : slice or None
        The rows of the data in this block; None if the backend has put the rows into another order, or rows that
        repeat are one row of the block.
    kept : object or None
        What the kernel of the backend hands on from one map to the next.
    """

    x: Array
    phi: Array
    s: Array
    rho: Array
    rows: slice | None
    kept: Any = None
    _offset: tuple[HasOffset, Array] | None = field(default=None, repr=False)

    def offset(self, objective: HasOffset) -> Array:
        """Offsets s_i (n,) of an objective; the offsets of the last objective are cached."""
        if self._offset is None or self._offset[0] is not objective:
            self._offset = objective, _frozen(objective.offset(self.s))
        return self._offset[1]

    def blocks(self, columns: int | None = None) -> Iterator[Block]:
        """The block, cut so that arrays (rows, D) and (rows, columns) fit into the size of a block."""
        dim = self.x.shape[1]
        return iter([self]) if columns is None else self.pieces(memory.rows_of_block(max(dim, columns)))

    def pieces(self, count: int) -> Iterator[Block]:
        """The block cut into blocks of `count` rows, the last of fewer."""
        n = len(self.rho)
        if n <= count:
            yield self
            return
        for start in range(0, n, count):
            part = slice(start, min(start + count, n))
            rows = None if self.rows is None else slice(self.rows.start + part.start, self.rows.start + part.stop)
            yield Block(self.x[part], self.phi[part], self.s[part], self.rho[part], rows)


@dataclass(frozen=True, eq=False)
class PreparedData:
    """Rows, weights and frame, bound to a backend, with the statistics of one kind of objective.

    Attributes
    ----------
    rows : Rows
        The data in their frame.
    backend : module
        Backend that computes the passes; see `constrained_vae.backends`.
    statistics : callable
        (x, rows) -> (phi, s), in the frame: the statistics of the objective, without multipliers.
    standardised : bool
        Whether the frame is the standard one, in which the data have the mean 0 and the radius 1.
    labelled : bool
        Whether the statistics depend on labels of the rows, so that equal rows may differ.
    """

    rows: Rows
    backend: ModuleType
    statistics: Statistics
    standardised: bool
    labelled: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def frame(self) -> Frame:
        """The coordinates of all passes."""
        return self.rows.frame

    @property
    def dtype(self) -> np.dtype[Any]:
        """Precision of points and statistics."""
        return self.rows.dtype

    # --- passes over the data -----------------------------------------------------------------------------------------

    def total(self, part: Callable[..., R], *arrays: Any, columns: int | None = None) -> R:
        """The sum of a function of a block over all blocks of the data.

        Parameters
        ----------
        part : callable
            A module-level function of a `Block` and of small arrays. It returns an array, or a tuple of arrays, that
            add up over disjoint rows.
        *arrays
            Small arrays, which are where the backend computes.
        columns : int, optional
            Blocks are cut so that an array (rows, columns) fits into the size of a block. Without it, data in memory
            are one block.
        """
        if columns is None and self.resident is not None:
            return part(self.resident, *arrays)
        return tree_sum(part(block, *arrays) for block in self.blocks(columns))

    def each(self, part: Callable[..., R], *arrays: Any, columns: int) -> list[R]:
        """The results of a function of a block, one after the other; the arguments are those of `total`."""
        return [part(block, *arrays) for block in self.blocks(columns)]

    def kept(self, part: Callable[..., Any], *arrays: Any, columns: int) -> Kept:
        """The results of a function for every block, for several passes: kept if they are small, else computed anew.

        They are small if N (D + columns) is at most `memory.KEPT`.
        """
        if len(self) * (self.rows.dim + columns) <= memory.KEPT:
            return Kept(self.each(part, *arrays, columns=columns))
        return Kept(_Anew(lambda: (part(block, *arrays) for block in self.blocks(columns))))

    def blocks(self, columns: int | None = None) -> Iterator[Block]:
        """The blocks of a pass, in their order; raises `TimeUp` if the deadline has passed."""
        if self.resident is None:
            blocks = self._streamed(columns)
        else:
            count = len(self) if columns is None else memory.rows_of_block(max(self.rows.dim, columns))
            blocks = self.resident.pieces(count)
        for block in blocks:
            deadline.check()
            yield block

    def whole(self) -> Block:
        """All rows of positive weight, as one block on the host; rows that repeat are one row."""
        data = replace(self, rows=self._merged()) if self.resident is None else self
        parts = []
        for block in data.blocks():
            arrays = [to_host(array) for array in (block.x, block.phi, block.s, block.rho)]
            heavy = arrays[-1] > 0
            parts.append(arrays if heavy.all() else [array[heavy] for array in arrays])
        arrays = parts[0] if len(parts) == 1 else [np.concatenate(part) for part in zip(*parts, strict=True)]
        x, phi, s, rho = arrays
        return Block(x, phi, s, rho, None)

    def to_device(self, array: Array) -> Array:
        """The array, copied to where the backend computes."""
        move = getattr(self.backend, "to_device", None)
        return array if move is None else move(array)

    @cached_property
    def resident(self) -> Block | None:
        """All rows, prepared once for the backend, in the order that it prefers; None if the data are streamed instead.

        Rows that repeat are one row, so that every sum over the rows costs what the distinct rows cost.
        A device must have twice the memory of the data, because a map also needs statistics and working space.
        """
        free = getattr(self.backend, "free_memory", None)
        if self.rows.streamed:
            return None
        source = self._merged()
        if free is not None and 2 * self.dtype.itemsize * len(source) * source.dim > free():
            return None
        ((rows, x, rho),) = source.blocks()
        block = self._block(rows if source is self.rows else None, x, rho)
        order = getattr(self.backend, "order", lambda phi: None)(block.phi)
        if order is not None:
            phi = block.phi[order]
            x = phi if block.phi is block.x else block.x[order]
            block = Block(x, phi, block.s[order], block.rho[order], None)
        for array in (block.x, block.phi, block.s, block.rho):
            _frozen(array)
        keep = getattr(self.backend, "keep", None)
        if keep is not None:
            block.kept = keep(block.phi)
        return block

    def _merged(self) -> Rows:
        """The rows, of which those that repeat are one row unless labels may tell them apart."""
        return self.rows if self.labelled else self.rows.distinct()

    def _streamed(self, columns: int | None) -> Iterator[Block]:
        return (self._block(*block) for block in self.rows.blocks(columns or self.rows.dim))

    def _block(self, rows: slice | None, x: FloatArray, rho: FloatArray) -> Block:
        there = self.to_device(x)
        return Block(there, *self.statistics(there, rows), self.to_device(rho), rows)

    # --- moments ------------------------------------------------------------------------------------------------------

    @cached_property
    def mean(self) -> FloatArray:
        """Weighted mean of the data, (D,), in the frame; the collapsed reconstruction of every Bregman energy."""
        return self._moment(_mean).astype(np.float64, copy=False)

    @cached_property
    def radius(self) -> float:
        """Root-mean-square distance of the data from their mean, in the frame; 1 for coincident points."""
        if self.standardised:
            return 1.0
        return float(np.sqrt(float(self._moment(_square, self.to_device(self.mean))))) or 1.0

    @cached_property
    def mean_statistic(self) -> FloatArray:
        """Weighted mean sum_i rho_i s_i of the second statistic: a number, or an array with one per constraint."""
        return self._moment(_mean_statistic)

    def _moment(self, part: Callable[..., Array], *arrays: Array) -> FloatArray:
        """A sum on the host that every result needs, so that it is computed after a deadline, too."""
        with deadline.finishing():
            return to_host(self.total(part, *arrays))


@dataclass(frozen=True, eq=False)
class Kept:
    """What `PreparedData.kept` returns: an iterable, and sums over it."""

    results: Iterable[Any]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def total(self, part: Callable[..., R], *arrays: Any) -> R:
        """The sum of ``part(result, *arrays)``, where `part` is a module-level function."""
        return tree_sum(part(result, *arrays) for result in self.results)


def sum_over(block: Block, part: Callable[..., R], arrays: Sequence[Any], columns: int | None) -> R:
    """The sum of a function over one block, as in `PreparedData.total`."""
    return tree_sum(part(piece, *arrays) for piece in block.blocks(columns))


def _frozen(array: Array) -> Array:
    """The array; on the host it is made read-only, so that a kernel can use it without a copy."""
    if isinstance(array, np.ndarray):
        array.setflags(write=False)
    return array


def _mean(block: Block) -> Array:
    return block.rho @ block.x


def _square(block: Block, mean: Array) -> Array:
    return block.rho @ ((block.x - mean) ** 2).sum(axis=1)


def _mean_statistic(block: Block) -> Array:
    return block.rho @ block.s


@dataclass(frozen=True)
class _Anew:
    """An iterable that is computed anew for every iteration."""

    make: Callable[[], Iterator[Any]]

    def __iter__(self) -> Iterator[Any]:
        return self.make()
