"""What a step of Adam needs beside its gradient: the device and the learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch

from .._utils.checks import check_text, shown

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
