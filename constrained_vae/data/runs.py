"""A run of neighbouring blocks on one machine: it reads them, prepares them, and sums over them.

A block is a leaf of the tree of all blocks (`tree`). What a run returns is small: the sums of its largest complete
subtrees, or a result per block. A run keeps its blocks, prepared or as they were read, where they fit into the memory
that it may use; otherwise it reads them again in every pass. The bits do not depend on what it keeps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np

from .._utils import deadline
from .._utils.arrays import FloatArray
from .._utils.checks import real_array
from .._utils.device import to_host
from .._utils.scratch import with_scratch
from .frame import Frame
from .prepared import Block, PreparedData, Statistics, sum_over
from .rows import Rows
from .tree import Node, grown

_RUNS = 4  # of neighbouring blocks per worker, at most, if blocks stay where they are
_RECIPES = 2  # preparations of a run that are kept: those of a solver, and those of its solutions in another precision


@dataclass(frozen=True, eq=False)
class Leaf:
    """A block: its number, its first row, its numbers of rows and columns, and the function that reads it."""

    number: int
    start: int
    shape: tuple[int, int]
    load: Callable[[], Any]

    def read(self) -> FloatArray:
        """The numbers of the block, (n, D), which need not be finite."""
        array = real_array(self.load(), self.name, "an (n, D) array of real numbers")
        if array.shape != self.shape:
            raise ValueError(f"{self.name} must have the shape {self.shape} that x promised, got {array.shape}")
        return array

    @property
    def name(self) -> str:
        """The block in messages."""
        return f"block {self.number} of x (rows {self.start} to {self.start + self.shape[0] - 1})"


@dataclass(frozen=True, eq=False)
class How:
    """How blocks are prepared: the attributes of `PreparedData` and `Rows`."""

    frame: Frame
    dtype: np.dtype[Any]
    backend: ModuleType
    statistics: Statistics
    standardised: bool


@dataclass(frozen=True, eq=False)
class Recipe:
    """What a pass takes blocks for: with their weights, and prepared, or as they are read.

    Attributes
    ----------
    key : str
        Equal for equal recipes of the same rows.
    weights : (N,) array, mapping, float or None
        Data weights of all rows, or of the rows of some blocks by their numbers, or the weight of every row; None if
        they are not needed.
    how : How, optional
        How blocks are prepared; as they are read without it.
    """

    key: str
    weights: Any
    how: How | None = None

    def part(self, leaves: Sequence[Leaf]) -> Recipe:
        """The recipe for some blocks."""
        return (
            replace(self, weights={leaf.number: self.rho(leaf) for leaf in leaves}) if np.ndim(self.weights) else self
        )

    def rho(self, leaf: Leaf) -> FloatArray | None:
        """The weights of the rows of a block."""
        if isinstance(self.weights, dict):
            found: FloatArray = self.weights[leaf.number]
            return found
        n = leaf.shape[0]
        if np.ndim(self.weights):
            return np.asarray(self.weights[leaf.start : leaf.start + n])
        return None if self.weights is None else np.full(n, self.weights)

    def prepared(self, leaf: Leaf, x: FloatArray) -> Block | PreparedData:
        """A block, prepared for the backend; as it is streamed, if a device has no room for it.

        The kernel keeps no lists between maps: whether it uses them may depend on the maps before, and a block that
        was prepared anew has not seen these.
        """
        how, rho = self.how, self.rho(leaf)
        assert how is not None
        assert rho is not None
        rows = Rows(x, rho, how.frame, how.dtype)
        data = PreparedData(rows, how.backend, how.statistics, how.standardised)
        block = data.resident
        if block is None:
            return data
        block.kept = None
        return block


@dataclass(eq=False)
class Run:
    """Neighbouring blocks, and what is kept of them.

    Attributes
    ----------
    leaves : sequence of Leaf
        The blocks.
    room : float
        Bytes that may be kept.
    ahead : bool
        Whether a thread reads the next block while the kernel works on the present one.
    """

    leaves: Sequence[Leaf]
    room: float
    ahead: bool = False
    _read: list[FloatArray] | None = field(default=None, repr=False)
    _prepared: dict[str, list[Any]] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:  # without what is kept
        return Run, (self.leaves, self.room, self.ahead)

    def __sizeof__(self) -> int:
        kept = (_bytes(values) for values in (self._read or [], *self._prepared.values()))
        return 1000 + sum(kept)

    def nodes(self, recipe: Recipe, part: Callable[..., Any], args: Sequence[Any], columns: int | None) -> list[Node]:
        """The sums of a function of (block, *args), as in `PreparedData.total`, in the largest complete subtrees."""
        return with_scratch(self._nodes, recipe, part, _moved(args, recipe), columns)

    def _nodes(self, recipe: Recipe, part: Callable[..., Any], args: Sequence[Any], columns: int | None) -> list[Node]:
        terms = (_host(_sum(item, part, args, columns)) for item in self._items(recipe))
        return grown(Node(leaf.number, 0, term) for leaf, term in zip(self.leaves, terms, strict=True))

    def each(
        self, recipe: Recipe, part: Callable[..., Any], args: Sequence[Any], columns: int | None
    ) -> list[tuple[int, list[Any]]]:
        """The results of a function for every block, with its number, one for every piece of so many columns.

        It is a function of (block, *args), or of (x, first row, weights, *args) for blocks as they are read.
        """
        if recipe.how is None:
            return [(leaf.number, [part(x, leaf.start, recipe.rho(leaf), *args)]) for leaf, x in self._blocks()]
        args = _moved(args, recipe)
        items = zip(self.leaves, self._items(recipe), strict=True)
        return [(leaf.number, [_host(part(p, *args)) for p in item.blocks(columns)]) for leaf, item in items]

    def _blocks(self) -> Iterator[tuple[Leaf, FloatArray]]:
        """The blocks as they are read."""
        if self._read is not None:
            yield from self._checking(zip(self.leaves, self._read, strict=True))
            return
        read: list[FloatArray] | None = []
        size = sum(8 * leaf.shape[0] * leaf.shape[1] for leaf in self.leaves)
        if 2 * size > self.room or self._prepared:  # they are prepared next, and that is worth more
            read = None
        for leaf, x in self._reading():
            if read is not None:
                read.append(x)
            yield leaf, x
        self._read = read

    def _reading(self) -> Iterator[tuple[Leaf, FloatArray]]:
        """The blocks, each of which is read while the one before it is used, if the run reads ahead."""
        if not self.ahead:
            yield from self._checking((leaf, leaf.read()) for leaf in self.leaves)
            return
        with ThreadPoolExecutor(1, "constrained_vae_reader") as reader:
            coming = reader.submit(self.leaves[0].read)
            for leaf, after in itertools.zip_longest(self.leaves, self.leaves[1:]):
                deadline.check()
                x = coming.result()
                if after is not None:
                    coming = reader.submit(after.read)
                yield leaf, x

    def _items(self, recipe: Recipe) -> Iterator[Any]:
        """The blocks, prepared."""
        found = self._prepared.pop(recipe.key, None)
        if found is not None:
            self._prepared[recipe.key] = found  # the last that was used
            yield from self._checking(found)
            return
        kept: list[Any] | None = []
        rows = sum(leaf.shape[0] for leaf in self.leaves)
        for leaf, x in self._blocks():
            item = recipe.prepared(leaf, x)
            if kept is not None:
                kept.append(item)
                # The sizes of the first blocks tell that of all.
                done = sum(leaf.shape[0] for leaf in self.leaves[: len(kept)])
                if _bytes(kept) * (rows / done) > self.room:
                    kept = None
            yield item
        if kept is None:
            return
        while self._prepared and (
            len(self._prepared) >= _RECIPES or _bytes(kept) + sum(map(_bytes, self._prepared.values())) > self.room
        ):
            del self._prepared[next(iter(self._prepared))]
        self._prepared[recipe.key] = kept
        if _bytes(kept) + _bytes(self._read or []) > self.room:
            self._read = None

    @staticmethod
    def _checking(items: Any) -> Iterator[Any]:
        for item in items:
            deadline.check()
            yield item


def _sum(item: Block | PreparedData, part: Callable[..., Any], args: Sequence[Any], columns: int | None) -> Any:
    if isinstance(item, Block):
        return sum_over(item, part, args, columns)
    return item.total(part, *args, columns=columns)


def _moved(args: Sequence[Any], recipe: Recipe) -> Sequence[Any]:
    """Arguments where the backend computes."""
    move = getattr(recipe.how and recipe.how.backend, "to_device", None)
    return args if move is None else [_mapped(value, move, lambda v: isinstance(v, np.ndarray)) for value in args]


def _host(value: Any) -> Any:
    """A result on the host."""
    return value if isinstance(value, np.ndarray) else _mapped(value, to_host, lambda v: hasattr(v, "get"))


def _mapped(value: Any, move: Callable[[Any], Any], which: Callable[[Any], bool]) -> Any:
    """A value, or a tuple of values, some of which are replaced."""
    if isinstance(value, tuple):
        items = [_mapped(item, move, which) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return move(value) if which(value) else value


def _bytes(items: Sequence[Any]) -> int:
    """Bytes of arrays and of blocks; arrays that are one array count once."""
    arrays: dict[int, int] = {}
    for item in items:
        parts = (item.x, item.phi, item.s, item.rho) if isinstance(item, Block) else (item,)
        arrays |= {id(array): array.nbytes for array in parts if hasattr(array, "nbytes")}
    return sum(arrays.values())


def divided(sizes: Sequence[int], homes: Sequence[Any], workers: Sequence[Any]) -> list[tuple[Any, list[int]]]:
    """Workers and the numbers of the blocks that they own, ascending, for blocks of some sizes.

    Blocks stay where they are, their homes, if these make few runs of neighbours. Otherwise every worker owns one run,
    of about as many rows as any other.
    """
    runs = 1 + sum(one != other for one, other in itertools.pairwise(homes))
    if all(home in workers for home in homes) and runs <= _RUNS * len(workers):
        return [(w, [n for n, home in enumerate(homes) if home == w]) for w in workers if w in homes]
    reached = np.cumsum(sizes)
    middle = (reached - np.asarray(sizes) / 2) / reached[-1]
    owner = np.minimum((middle * len(workers)).astype(int), len(workers) - 1)
    return [(w, np.flatnonzero(owner == n).tolist()) for n, w in enumerate(workers) if (owner == n).any()]
