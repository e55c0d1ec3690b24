"""Moving arrays between host and device, and checks of where arrays lie. NumPy arrays are returned unchanged."""

from __future__ import annotations

from typing import Any

import array_api_compat
import array_api_compat.numpy as numpy_namespace
import numpy as np

from .arrays import Array, FloatArray


def array_namespace(*arrays: Array | float) -> Any:
    """The array namespace of these arrays, with a fast path for NumPy arrays."""
    if type(arrays[0]) is np.ndarray:
        return numpy_namespace
    return array_api_compat.array_namespace(*arrays)


def on_host(array: Array) -> bool:
    """Whether an array is one of NumPy."""
    return isinstance(array, np.ndarray)


def to_host(array: Array) -> FloatArray:
    """The array as a NumPy array; a NumPy array is returned unchanged."""
    return np.asarray(array.get() if hasattr(array, "get") else array)


def numbers(*scalars: Array | float) -> tuple[float, ...]:
    """Scalars as floats; scalars on a device are moved in one transfer."""
    if not isinstance(scalars[0], float) and hasattr(scalars[0], "get"):
        scalars = tuple(array_namespace(*scalars).stack(scalars).get())
    return tuple(map(float, scalars))


def check_together(**arrays: Array) -> None:
    """Raise ValueError if some arrays lie on the host and others on a device."""
    homes = {name: isinstance(array, np.ndarray) for name, array in arrays.items()}
    if len(set(homes.values())) > 1:
        host, device = (", ".join(name for name in homes if homes[name] is where) for where in (True, False))
        raise ValueError(
            f"all arrays must lie together, got {host} on the host and {device} on a device: move the arrays on the "
            "device to the host with .get(), or the other arrays to the device"
        )


def check_on_host(**arrays: Array) -> None:
    """Raise ValueError if an array lies on a device; for backends that compute on the host."""
    for name, array in arrays.items():
        if type(array) is not np.ndarray and hasattr(array, "get"):
            raise ValueError(
                f"{name} lies on a device ({type(array).__module__}.{type(array).__name__}), and this backend computes "
                "on the host: move it to the host with .get(), or choose backend='cupy'"
            )
