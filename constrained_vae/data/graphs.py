"""Dask arrays and dataframes as blocks of rows: what is accepted, and how one block is read.

A block is read by its own part of the graph, so that whoever owns it can read it again. What several blocks need, such
as a mean that was subtracted, is computed once and put into these parts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.arrays import is_lazy as is_lazy
from .._utils.checks import check_shape, shown

_SHARED = 2**26  # bytes of what several blocks need, at most; more is read again with every block
TESTED = ">=2025.4,<=2026.8"  # versions of Dask with which this was tested
_FEW = 16  # results that several blocks need, at least so many are computed at once


def array_of(x: Any, name: str = "x") -> tuple[Any, tuple[str, ...] | None]:
    """A Dask array of known shape, whose blocks are of whole rows, and the names of its columns.

    Warns if that had to be computed, or blocks had to be put together.
    """
    names = None
    if hasattr(x, "to_dask_array"):
        kinds = dict(x.dtypes) if hasattr(x, "columns") else {}
        for column, kind in kinds.items():
            if getattr(kind, "kind", "O") not in "iuf":
                raise ValueError(f"{name} must hold numbers, got {kind} in column {column!r}: drop or encode it")
        names = tuple(kinds) if kinds and all(isinstance(column, str) for column in kinds) else None
        x = (x.map_partitions(_in_order, list(kinds), meta=kinds) if kinds else x).to_dask_array()
    if not hasattr(x, "chunks"):
        raise ValueError(f"{name} must be an array or a dataframe of Dask, got {shown(x)}: compute it first")
    if x.ndim != 2:
        check_shape(x, name)
    if x.dtype.kind not in "iufO":
        raise ValueError(f"{name} must be an (N, D) array of real numbers, got {x.dtype}")
    if any(math.isnan(length) for length in x.shape):
        _warn(f"{name} has blocks of unknown length, which are computed now, in one pass: compute_chunk_sizes() of the")
        x = x.copy().compute_chunk_sizes()
    if x.numblocks[1] > 1:
        _warn(f"{name} is divided along its columns, and its blocks are put together: rechunk({{1: -1}}) of the")
        x = x.rechunk({1: -1})
    if 0 in x.chunks[0] and x.shape[0]:
        x = _without_empty(x)
    check_shape(x, name)
    return x, names


def _in_order(frame: Any, columns: list[Any]) -> Any:
    """The columns in their order, which Dask may not know: an operation that aligns sorts columns where it looks."""
    return frame[columns]


def _warn(text: str) -> None:
    warnings.warn(f"{text} data before the call avoids this", stacklevel=6)


def _without_empty(x: Any) -> Any:
    import dask.array as da

    return da.concatenate([x.blocks[n] for n, length in enumerate(x.chunks[0]) if length])


@dataclass(frozen=True, eq=False)
class Part:
    """The part of a graph that makes one block; a call computes it with a scheduler, by default in this thread."""

    graph: Mapping[Any, Any]
    key: Any
    get: Callable[..., Any] | None = None

    def __call__(self) -> Any:
        """The numbers of the block."""
        from dask.local import get_sync

        return (self.get or get_sync)(self.graph, self.key)


def task_spec() -> Any:
    """The module of Dask with the kinds of tasks, which has no public name."""
    from importlib.metadata import version

    try:
        from dask import _task_spec as found

        if all(hasattr(found, name) for name in ("Task", "DataNode", "convert_legacy_graph")):
            return found
    except ImportError:
        pass
    raise ImportError(
        f"the graphs of dask {version('dask')} are not known: pip install 'dask{TESTED}' 'distributed{TESTED}'"
    )


def parts_of(x: Any, get: Callable[..., Any]) -> list[Part]:
    """The parts of the graph that make the blocks, for a Dask array without data that lie on workers.

    `get` is the scheduler that computes what several blocks need.
    """
    from dask.base import optimize

    spec = task_spec()
    (lean,) = optimize(x)
    graph = spec.convert_legacy_graph(dict(lean.__dask_graph__()))
    keys = [row[0] for row in lean.__dask_keys__()]
    shared = _shared(graph, keys)
    if shared and len(shared) <= _FEW + len(keys) // 8:
        values = get({key: graph[key] for key in _reached(graph, shared)}, shared)
        if sum(getattr(value, "nbytes", 0) for value in values) <= _SHARED:
            graph |= {key: spec.DataNode(key, value) for key, value in zip(shared, values, strict=True)}
    return [Part({k: graph[k] for k in _reached(graph, [key])}, key) for key in keys]


def _reached(graph: Mapping[Any, Any], keys: list[Any]) -> list[Any]:
    """The keys of all tasks that some tasks need, these included."""
    found, left = dict.fromkeys(keys), list(keys)
    while left:
        for key in graph[left.pop()].dependencies:
            if key not in found:
                found[key] = None
                left.append(key)
    return list(found)


def _shared(graph: Mapping[Any, Any], keys: list[Any]) -> list[Any]:
    """The tasks that several blocks need, without those that they need only for another such task."""
    from dask.core import toposort

    order = toposort(graph, dependencies={key: set(task.dependencies) for key, task in graph.items()})
    owner: dict[Any, int] = {key: n for n, key in enumerate(keys)}
    several: dict[Any, None] = {}
    for key in reversed(order):
        if key not in owner or key in several:
            continue
        for needed in graph[key].dependencies:
            if owner.setdefault(needed, owner[key]) != owner[key]:
                several[needed] = None
    return list(several)


def scheduler_of(x: Any) -> tuple[Callable[..., Any], Any]:
    """The function `get` of the scheduler that computes a Dask array, and the client of a cluster or None."""
    from dask.base import get_scheduler

    get = get_scheduler(collections=[x])
    client = getattr(get, "__self__", None)
    return get, client if type(client).__module__.startswith("distributed.") else None


def held(x: Any) -> bool:
    """Whether blocks of a Dask array, or what makes them, lie on the workers of a cluster."""
    import sys

    if "distributed" not in sys.modules:
        return False
    from distributed import futures_of

    return bool(futures_of(x))


def row_offsets(x: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The first row of every block, and the number of rows."""
    return np.concatenate([[0], np.cumsum(x.chunks[0], dtype=np.int64)])
