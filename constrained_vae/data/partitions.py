"""Partitions: a Dask array as data, and `PreparedData` of it, whose sums are computed where its blocks are.

The blocks of rows are the leaves of the tree in which `PreparedData.total` adds. Without a cluster (the schedulers
"threads", "processes" and "synchronous") this process owns them all, and the scheduler reads them; see `cluster` for
workers of `distributed`.
"""

from __future__ import annotations

import hashlib
import pickle
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .._utils import deadline, memory
from .._utils.arrays import Array, FloatArray
from .._utils.checks import check_data, check_weights
from .._utils.frames import is_data_set
from . import graphs
from .prepared import Block, Kept, PreparedData
from .rows import Rows, check_rows
from .runs import How, Leaf, Recipe, Run
from .tree import grown, root

R = TypeVar("R")

_SHARE = 0.4  # of the memory of this machine that blocks may take


class Executor(Protocol):
    """Whoever has the blocks."""

    def run(self, how: str, recipe: Recipe, part: Any, args: Sequence[Any], columns: int | None) -> Iterable[Any]:
        """The results of `Run.nodes` or `Run.each` of all runs."""


class Here:
    """All blocks are one run of this process."""

    def __init__(self, x: Any, get: Callable[..., Any]) -> None:
        offsets = graphs.row_offsets(x)
        parts = graphs.parts_of(x, get)
        self._run = Run(
            [
                Leaf(n, int(offsets[n]), (x.chunks[0][n], x.shape[1]), graphs.Part(part.graph, part.key, get))
                for n, part in enumerate(parts)
            ],
            _SHARE * memory.physical(),
        )

    def run(self, how: str, recipe: Recipe, part: Any, args: Sequence[Any], columns: int | None) -> Iterable[Any]:
        """The results of the only run."""
        return [getattr(self._run, how)(recipe, part, args, columns)]


_executors: weakref.WeakValueDictionary[Any, Executor] = weakref.WeakValueDictionary()


def _executor(x: Any) -> Executor:
    """The executor of a Dask array, which all problems with the same array share while one of them lives."""
    get, client = graphs.scheduler_of(x)
    key = x.name, x.chunks, id(client), getattr(get, "__module__", ""), getattr(get, "__name__", "")
    found = _executors.get(key)
    if found is None:
        if client is None:
            found = Here(x, get)
        else:
            from .cluster import Cluster

            found = Cluster(x, client)
        _executors[key] = found
    return found


@dataclass(frozen=True, eq=False)
class Partitions:
    """A Dask array of whole rows as data.

    Attributes
    ----------
    array : dask.array.Array
        The array, (N, D), in one block along its columns.
    names : tuple of str, or None
        Names of the columns, if it was a dataframe.
    """

    array: Any
    names: tuple[str, ...] | None = None

    ndim = 2

    @classmethod
    def of(cls, x: Any, name: str = "x") -> Partitions:
        """The data of a Dask array or dataframe; what cannot be data raises ValueError."""
        return cls(*graphs.array_of(x, name))

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return int(self.array.shape[0]), int(self.array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        return np.dtype(self.array.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """The first row of every block, and the number of rows."""
        return graphs.row_offsets(self.array)

    @cached_property
    def executor(self) -> Executor:
        """Whoever has the blocks; nothing is read before it is asked."""
        return _executor(self.array)

    def each(self, part: Callable[..., R], *args: Any, weights: FloatArray | None = None) -> list[R]:
        """``part(x, start, rho, *args)`` of every block: x (n, D) as it is read, its first row, and its weights."""
        deadline.check()
        rho, key = _shortened(weights)
        return _ordered(self.executor.run("each", Recipe(f"{key} as read", rho), part, args, None))

    def __iter__(self) -> Iterator[FloatArray]:
        """The blocks, read one by one by the scheduler; for what cannot be computed where they are."""
        for n in range(len(self.offsets) - 1):
            yield np.asarray(self.array.blocks[n].compute())


def _ordered(found: Iterable[list[tuple[int, list[Any]]]]) -> list[Any]:
    """The results of all blocks in their order."""
    numbered = sorted((pair for pairs in found for pair in pairs), key=lambda pair: pair[0])
    return [value for _, values in numbered for value in values]


def _shortened(weights: FloatArray | None) -> tuple[FloatArray | float | None, str]:
    """Weights, as one number if they are uniform, and a text that is the same for the same weights."""
    if weights is None:
        return None, ""
    if weights.strides == (0,):
        return float(weights[0]), repr(float(weights[0]))
    return weights, hashlib.sha256(weights.data).hexdigest()


class Partitioned(PreparedData):
    """`PreparedData` of `Partitions`: the same sums, computed where the blocks are."""

    @property
    def source(self) -> Partitions:
        """The data."""
        found: Partitions = self.rows.source  # type: ignore[assignment]
        return found

    @cached_property
    def _recipe(self) -> Recipe:
        rho, key = _shortened(self.rows.weights)
        known = (self.frame.centre, self.frame.scale, self.dtype.str, self.backend.__name__, self.statistics)
        try:
            key += hashlib.sha256(pickle.dumps(known)).hexdigest()
        except Exception:  # a function that is only known here
            key = uuid.uuid4().hex
        how = How(self.frame, self.dtype, self.backend, self.statistics, self.standardised)
        return Recipe(key, rho, how)

    def total(self, part: Callable[..., R], *arrays: Any, columns: int | None = None) -> R:
        """The sum of a function of a block over all blocks; see `PreparedData.total`."""
        deadline.check()
        found = self.source.executor.run("nodes", self._recipe, part, arrays, columns)
        total: R = root(grown(node for nodes in found for node in nodes))
        return total

    def each(self, part: Callable[..., R], *arrays: Any, columns: int) -> list[R]:
        """The results of a function of a block, one after the other; see `PreparedData.each`."""
        deadline.check()
        return _ordered(self.source.executor.run("each", self._recipe, part, arrays, columns))

    def kept(self, part: Callable[..., Any], *arrays: Any, columns: int) -> Kept:
        """The results of a function for every block, which are computed anew for every sum over them."""
        return _Elsewhere(self, part, arrays, columns)

    def to_device(self, array: Array) -> Array:
        """The array: it is moved where a block is."""
        return array

    def whole(self) -> Block:
        """Not for data in blocks."""
        raise ValueError(
            "this needs all rows at once, which a Dask array may not have: take a sample of the rows, for example "
            "x[::100].compute(), with weights= if it is not uniform"
        )


@dataclass(frozen=True, eq=False)
class _Elsewhere(Kept):
    """Results that stay where the blocks are."""

    def __init__(self, data: Partitioned, part: Callable[..., Any], arrays: Sequence[Any], columns: int) -> None:
        object.__setattr__(self, "results", ())
        object.__setattr__(self, "_of", (data, part, tuple(arrays), columns))

    def __iter__(self) -> Iterator[Any]:
        raise ValueError(
            "this needs a result for every row on one machine, which a Dask array may not have: take a sample of the "
            "rows, for example x[::100].compute()"
        )

    def total(self, part: Callable[..., R], *arrays: Any) -> R:
        data, first, known, columns = self._of  # type: ignore[attr-defined]
        total: R = data.total(_composed, first, known, part, *arrays, columns=columns)
        return total


def _composed(block: Block, first: Any, known: tuple[Any, ...], part: Any, *arrays: Any) -> Any:
    return part(first(block, *known), *arrays)


def prepared_data(rows: Rows, *args: Any) -> PreparedData:
    """`PreparedData` of rows, with its further arguments."""
    return (Partitioned if isinstance(rows.source, Partitions) else PreparedData)(rows, *args)


def weights_of(x: Any, weights: Any, name: str = "weights") -> FloatArray:
    """Data weights (N,) of sum 1; uniform weights of `Partitions` take no memory, and those on workers are fetched."""
    if weights is None and isinstance(x, Partitions):
        return np.broadcast_to(np.float64(1 / len(x)), (len(x),))
    return check_weights(weights.compute() if graphs.is_lazy(weights) else weights, len(x), name)


def given(source: Any) -> Any:
    """The data of a result: a Dask array itself, so that a result does not keep its blocks prepared."""
    return source.array if isinstance(source, Partitions) else source


def taken(x: Any) -> Any:
    """The data of `Rows`, made from the data of a result."""
    return Partitions(x) if graphs.is_lazy(x) else x


def check_source(x: Any, check: Callable[[FloatArray], None]) -> Any:
    """The data as an array, a memory map, `RowBlocks` or `Partitions`, checked by `check_data` and a further check."""
    names = None
    if is_data_set(x) and graphs.is_lazy(x.x):
        x, names = x.x, x.columns
    if not graphs.is_lazy(x):
        return check_rows(x, check)
    source = Partitions.of(x)
    source = Partitions(source.array, source.names or names)
    source.each(_checked, check)
    return source


def _checked(x: FloatArray, start: int, rho: None, check: Callable[[FloatArray], None]) -> None:
    check(check_data(x, f"the block of x that begins with row {start}"))
