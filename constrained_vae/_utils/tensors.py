"""Numbers from arrays of other libraries, such as PyTorch, without an import of these."""

from __future__ import annotations

import contextlib
import numbers
from typing import Any

import numpy as np


def at_least_single(value: Any) -> Any:
    """A tensor of PyTorch in float32 if it is in half precision; other values are returned unchanged."""
    half = str(getattr(value, "dtype", "")) in ("torch.float16", "torch.bfloat16")
    return value.float() if half else value


def plain_number(value: Any) -> Any:
    """A scalar without its gradient, as a number where it is one; the checks refuse what is none."""
    value = value.detach() if hasattr(value, "detach") else value  # a tensor with a gradient warns
    plain = isinstance(value, (numbers.Number, np.bool_)) or getattr(value, "shape", ()) != ()
    with contextlib.suppress(TypeError, ValueError):
        return float(value) if hasattr(value, "__float__") and not plain else value
    return value
