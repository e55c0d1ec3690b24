"""What a step of Adam needs beside its gradient: the device, the learning rate, and the mean over processes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from .._utils.checks import check_text, shown
from .._utils.interrupts import deferred_interrupts

_WARM_UP, _LEAST = 100, 0.1  # steps up to the full learning rate; its share at the end


def check_device(value: Any) -> torch.device:
    """The device of a name such as "cpu" or "cuda:1"; for "auto" a GPU if there is one."""
    if isinstance(value, torch.device):
        value = str(value)
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if check_text(value, "device") == "auto":
        return torch.device("cuda" if there else "cpu")
    try:
        device = torch.device(value)
    except RuntimeError:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {shown(value)}") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= there):
        raise ValueError(f"device must be there: PyTorch sees the CPU and {there} CUDA devices, got {shown(value)}")
    return device


def learning_rate_at(step: int, steps: int, peak: float) -> float:
    """The learning rate of a step: it rises linearly over 100 steps, and falls as a cosine to a tenth of the peak."""
    rise = min(1.0, (step + 1) / _WARM_UP)
    fall = 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
    return peak * rise * (_LEAST + (1 - _LEAST) * fall)


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
