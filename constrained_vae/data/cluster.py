"""The blocks of a Dask array on the workers of a cluster of `distributed`.

Every worker owns some blocks, see `runs`. A pass is one task per worker: the task carries the readout, and returns the
sums of the complete subtrees of its blocks. A worker that dies loses its blocks to another, which reads and prepares
them again, with the same bits. This process never waits without looking whether scheduler and workers are still there.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._utils import deadline, memory
from .._utils.lost import LostError
from .._utils.threads import with_kernel_threads
from . import graphs
from .runs import Leaf, Recipe, Run, divided

_SHARE = 0.4  # of the memory of a worker that blocks may take
_LARGE = 2**20  # bytes from which data go to workers directly, and not with a task through the scheduler
_BROADCAST = 2**23  # bytes of the calls of a pass, all together, from which a call is broadcast
_GROUP = 32  # results that are fetched at a time, so that the memory of this process does not grow with the workers
_POLL = 0.5  # seconds after which it is looked whether all workers are there
_DEATHS = 5  # of workers that have the same blocks in one pass
_TIMEOUT = 120.0  # seconds without a sign of life of a worker or of the scheduler; "constrained_vae.timeout" of Dask
_RECIPES = 4  # that are kept on workers


@dataclass(eq=False)
class _Owned:
    """The blocks of one worker: futures of the `Run`, and of the run with a recipe."""

    leaves: list[Leaf]
    blocks: list[Any]  # futures of the blocks that lie on workers
    worker: str
    run: Any = None
    bound: dict[str, Any] = field(default_factory=dict)


class Cluster:
    """The blocks of a Dask array, of which every worker owns some.

    Parameters
    ----------
    x : dask.array.Array
        Rows in blocks.
    client : distributed.Client
        The client of the cluster.
    """

    def __init__(self, x: Any, client: Any) -> None:
        self.client, self._watch = client, _Watch(client)
        with self._watch:
            futures, parts = [], []
            if graphs.held(x):
                futures = _futures_of(client.persist(x))
            else:
                parts = graphs.parts_of(x, client.get)
            starts = graphs.row_offsets(x)
            leaves = [
                Leaf(n, int(starts[n]), (length, x.shape[1]), parts[n] if parts else _never)
                for n, length in enumerate(x.chunks[0])
            ]
            workers = sorted(self._watch.workers())
            homes = [next(iter(where), None) for where in _who_has(client, futures)] or [None] * len(leaves)
            self._owned = [
                _Owned([leaves[n] for n in numbers], [futures[n] for n in numbers] if futures else [], worker)
                for worker, numbers in divided([leaf.shape[0] for leaf in leaves], homes, workers)
            ]

    def run(self, how: str, recipe: Recipe, part: Any, args: Sequence[Any], columns: int | None) -> Iterator[Any]:
        """The results of `Run.nodes` or `Run.each` of every worker, one after the other."""
        from distributed.protocol.pickle import dumps

        with self._watch:
            call = dumps((how, part, tuple(args), columns))
            if len(call) >= _LARGE or len(call) * len(self._owned) >= _BROADCAST:
                call = self._watch.sent(call, broadcast=True)
            tasks = self._submitted(list(range(len(self._owned))), recipe, call)
            deaths = dict.fromkeys(tasks, 0)
            try:
                for group in _groups(list(tasks), _GROUP):
                    yield from self._fetched(group, tasks, deaths, recipe, call)
            finally:
                if tasks:  # cancelled are those that were not fetched
                    with contextlib.suppress(Exception):
                        self.client.cancel(list(tasks.values()))

    def _fetched(
        self, group: Sequence[int], tasks: dict[int, Any], deaths: dict[int, int], recipe: Recipe, call: Any
    ) -> list[Any]:
        """The results of some tasks; the blocks of a worker that is lost are given to another one."""
        while True:
            alive = self._watch.wait([tasks[n] for n in group])
            lost = [n for n in tasks if _is_lost(tasks[n]) or (alive and self._owned[n].worker not in alive)]
            if not lost and all(tasks[n].status == "finished" for n in group):
                try:
                    values = self._watch.fetched([tasks[n] for n in group])
                except Exception as error:
                    # The worker has died since.
                    if not _means_loss(error):
                        raise
                    lost = list(group)
                else:
                    for n in group:
                        tasks.pop(n).release()
                    return list(values)
            for n in lost:
                deaths[n] += 1
                self._move(self._owned[n], deaths[n])
            tasks |= self._submitted(lost, recipe, call)

    def _move(self, owned: _Owned, deaths: int) -> None:
        """Give blocks to another worker, the one that has the fewest."""
        first, last = owned.leaves[0].number, owned.leaves[-1].number
        if deaths > _DEATHS:
            raise LostError(
                f"{deaths} workers were lost one after the other while they had the blocks {first} to {last} of x: "
                "blocks may be too large for the memory of a worker, or their data cannot be made again"
            )
        alive = self._watch.workers()
        rows = dict.fromkeys(alive, 0)
        for other in self._owned:
            if other.worker in rows and other is not owned:
                rows[other.worker] += sum(leaf.shape[0] for leaf in other.leaves)
        others = [worker for worker in rows if worker != owned.worker] or list(rows)
        owned.worker, owned.run = min(others, key=lambda worker: (rows[worker], worker)), None
        owned.bound.clear()

    def _submitted(self, numbers: Sequence[int], recipe: Recipe, call: Any) -> dict[int, Any]:
        """The futures of the results of some workers, by their numbers; they go to the scheduler in one message."""
        from dask.base import annotate

        bound = {n: self._bound(self._owned[n], recipe) for n in numbers}
        if not bound:
            return {}
        keys = {n: f"constrained_vae_pass-{uuid.uuid4().hex}" for n in numbers}
        places = {keys[n]: [self._owned[n].worker] for n in numbers}
        task = graphs.task_spec().Task
        graph = {keys[n]: task(keys[n], _pass, bound[n], call) for n in numbers}
        with annotate(workers=places.get):  # which the scheduler calls for every key
            futures = self.client.get(graph, list(keys.values()), sync=False)
        return dict(zip(keys, futures, strict=True))

    def _bound(self, owned: _Owned, recipe: Recipe) -> Any:
        """The future of the blocks of a worker with a recipe."""
        from distributed.protocol.pickle import dumps

        def submit(function: Any, *args: Any) -> Any:
            key = f"constrained_vae{function.__name__}-{uuid.uuid4().hex}"
            return self.client.submit(function, *args, key=key, workers=[owned.worker], pure=False)

        def sent(data: bytes) -> Any:
            if len(data) < _LARGE:
                return data
            return self._watch.sent(data, workers=[owned.worker])

        if owned.run is None:
            owned.run = submit(_blocks, sent(dumps(owned.leaves)), owned.blocks)
        if (known := owned.bound.pop(recipe.key, None)) is not None:
            owned.bound[recipe.key] = known  # the last that was used
        else:
            while len(owned.bound) >= _RECIPES:
                del owned.bound[next(iter(owned.bound))]
            owned.bound[recipe.key] = submit(_with_recipe, owned.run, sent(dumps(recipe.part(owned.leaves))))
        return owned.bound[recipe.key]


class _Watch:
    """Looks whether the scheduler and the workers are there; as a context it tells a lost cluster from other errors."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.address = getattr(getattr(client, "scheduler", None), "address", "of the client")
        self._seen: dict[str, tuple[float, float]] = {}  # the last sign of life of a worker, and when it was heard of

    @property
    def timeout(self) -> float:
        """Seconds without a sign of life after which a worker or the scheduler is lost."""
        import dask

        return float(dask.config.get("constrained_vae.timeout", _TIMEOUT))

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception) or isinstance(error, (LostError, deadline.TimeUp, GeneratorExit)):
            return
        if self.client.status != "running" or _means_loss(error):
            raise self._gone() from error

    def _gone(self) -> LostError:
        return LostError(
            f"the scheduler {self.address} of the cluster does not answer: start a cluster and a client, and "
            "give the last solution as the start"
        )

    def workers(self) -> set[str]:
        """The addresses of the workers that are there; waits until there is one."""
        began = time.monotonic()
        while True:
            alive = self._asked()
            if alive:
                return alive
            if time.monotonic() - began > self.timeout:
                raise LostError(
                    f"no worker of the cluster {self.address} has answered for {self.timeout:g} seconds "
                    "(constrained_vae.timeout): look into their logs, and start workers"
                )
            deadline.check()
            time.sleep(min(_POLL, self.timeout))

    def _asked(self) -> set[str]:
        """The workers that the scheduler knows and has heard of."""
        client = self.client
        if client.status not in ("running", "connecting"):
            raise self._gone()
        try:
            info = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=self.timeout)
        except Exception as error:
            raise self._gone() from error
        now, alive = time.monotonic(), set()
        for address, about in info["workers"].items():
            seen = float(about.get("last_seen", 0))
            if self._seen.get(address, (None, 0.0))[0] != seen:
                self._seen[address] = seen, now
            if now - self._seen[address][1] <= self.timeout:
                alive.add(address)
        return alive

    def sent(self, data: bytes, **where: Any) -> Any:
        """The future of data that are sent to workers."""
        try:
            return self.client.scatter(data, hash=False, timeout=self.timeout, **where)
        except TimeoutError as error:
            raise self._gone() from error

    def fetched(self, tasks: list[Any]) -> list[Any]:
        """The results of finished tasks; an error if a worker does not give them."""

        async def gathered() -> Any:
            return await self.client.gather(tasks, asynchronous=True)

        return list(self.client.sync(gathered, callback_timeout=self.timeout))

    def wait(self, tasks: list[Any]) -> set[str]:
        """Wait until tasks have ended, or for a short time; the workers that are there if some have not ended."""
        from distributed import wait

        try:
            wait(tasks, timeout=_POLL)
            return set()
        except Exception:  # a timeout, or tasks that were cancelled
            deadline.check()
        ended = [task.status != "pending" for task in tasks]
        if all(ended):
            return set()
        return self._asked() or self.workers()


# --- on a worker ------------------------------------------------------------------------------------------------------


def _blocks(leaves: bytes, held: list[Any]) -> Run:
    """The blocks of a worker."""
    from distributed import get_worker
    from distributed.protocol.pickle import loads

    found = loads(leaves)
    if held:
        found = [Leaf(leaf.number, leaf.start, leaf.shape, _Held(x)) for leaf, x in zip(found, held, strict=True)]
    limit = get_worker().memory_manager.memory_limit or memory.physical()
    return Run(found, _SHARE * limit, ahead=not held)


def _with_recipe(run: Run, recipe: bytes) -> tuple[Run, Recipe]:
    from distributed.protocol.pickle import loads

    return run, loads(recipe)


def _pass(bound: tuple[Run, Recipe], call: bytes) -> Any:
    """One pass over the blocks of a worker, on as many threads of the kernel as the worker has."""
    from distributed import get_worker
    from distributed.protocol.pickle import loads

    run, recipe = bound
    how, part, args, columns = loads(call)
    return with_kernel_threads(get_worker().state.nthreads, getattr(run, how), recipe, part, args, columns)


@dataclass(frozen=True, eq=False)
class _Held:
    """A block that is there."""

    x: Any

    def __call__(self) -> Any:
        return self.x


def _never() -> Any:
    raise AssertionError("a block that lies on a worker is not read")


# --- of distributed ---------------------------------------------------------------------------------------------------


def _futures_of(x: Any) -> list[Any]:
    """The futures of the blocks, in their order."""
    from distributed import futures_of

    found = {future.key: future for future in futures_of(x)}
    return [found[row[0]] for row in x.__dask_keys__()]


def _who_has(client: Any, futures: list[Any]) -> list[Any]:
    """The workers that have each block, once it is made."""
    from distributed import wait

    if not futures:
        return []
    wait(futures)
    where = client.who_has(futures)
    return [where.get(future.key, ()) for future in futures]


def _is_lost(task: Any) -> bool:
    """Whether a task has to be given to another worker; what else it has raised is raised."""
    if task.status in ("pending", "finished"):
        return False
    if task.status == "error":
        error = task.exception()
        if not _means_loss(error):
            raise error
    return True


def _means_loss(error: BaseException) -> bool:
    """Whether an error says that a worker, its data or a connection are lost."""
    import concurrent.futures

    from distributed import CancelledError, scheduler
    from distributed.comm.core import CommClosedError

    lost = (TimeoutError, CommClosedError, scheduler.KilledWorker, CancelledError, concurrent.futures.CancelledError)
    return isinstance(error, lost) or type(error).__name__ in ("FutureCancelledError", "FuturesCancelledError")


def _groups(numbers: list[int], size: int) -> Iterator[list[int]]:
    return (numbers[n : n + size] for n in range(0, len(numbers), size))
