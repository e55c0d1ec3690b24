"""Several processes that train one model: what they agree on, average, and how they end together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from .._utils.interrupts import deferred_interrupts


@dataclass(frozen=True)
class Processes:
    """The processes of `torch.distributed` that train together, and this one of them; one without it."""

    rank: int
    count: int

    @classmethod
    def present(cls) -> Processes:
        """The processes of the group that was initialised, as torchrun does."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls(0, 1)
        return cls(distributed.get_rank(), distributed.get_world_size())

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """Give the tensors of all processes the values of the first process."""
        if self.count > 1:
            for values in tensors:
                distributed.broadcast(values.detach(), 0)

    def share(self, batch: Tensor) -> Tensor:
        """The rows of a whole batch that this process computes."""
        size = len(batch) // self.count
        return batch[self.rank * size : (self.rank + 1) * size]

    @contextlib.contextmanager
    def ending_together(self) -> Iterator[list[int]]:
        """Signals that arrive while several processes train, which all of them have to know before one may end.

        A process that ended by itself would leave the others waiting for its next message. So Ctrl-C does nothing
        until the end of the block; other signals do there what they would have done.
        """
        if self.count == 1:
            yield []
            return
        with contextlib.suppress(KeyboardInterrupt), deferred_interrupts() as arrived:
            yield arrived

    def mean(self, values: Tensor) -> Tensor:
        """The mean of the values over all processes, the same bits in each of them."""
        if self.count > 1:
            distributed.all_reduce(values)
            values = values / self.count
        return values

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over all processes, in one message."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        whole = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, whole.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
