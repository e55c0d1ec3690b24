"""Between host and device: what is brought over, together and by name. NumPy arrays pass through as they are."""

from __future__ import annotations

from typing import Any

import array_api_compat
import array_api_compat.numpy
import numpy as np

from .arrays import Array, FloatArray


def array_namespace(*arrays: Array) -> Any:
    """The namespace of the functions of these arrays; quick for arrays of NumPy."""
    if type(arrays[0]) is np.ndarray:
        return array_api_compat.numpy
    return array_api_compat.array_namespace(*arrays)


def to_host(array: Array) -> FloatArray:
    """A NumPy array of the same values; that array itself if it is one."""
    return np.asarray(array.get() if hasattr(array, "get") else array)


def numbers(*scalars: Array) -> tuple[float, ...]:
    """Scalars as floats, brought from a device in one transfer."""
    if hasattr(scalars[0], "get"):
        scalars = tuple(array_namespace(*scalars).stack(scalars).get())
    return tuple(float(scalar) for scalar in scalars)


def check_together(**arrays: Array) -> None:
    """Raise ValueError where some arrays lie on the host and others on a device."""
    homes = {name: isinstance(array, np.ndarray) for name, array in arrays.items()}
    if len(set(homes.values())) > 1:
        host, device = (", ".join(name for name in homes if homes[name] is where) for where in (True, False))
        raise ValueError(
            f"all arrays must lie together, got {host} on the host and {device} on a device: bring those of the "
            "device to the host with .get(), or move the others to the device"
        )


def check_on_host(**arrays: Array) -> None:
    """Raise ValueError for an array of a device, where a backend computes on the host."""
    for name, array in arrays.items():
        if hasattr(array, "get"):
            raise ValueError(
                f"{name} lies on a device ({type(array).__module__}.{type(array).__name__}), and this backend computes "
                "on the host: bring it over with .get(), or choose backend='cupy'"
            )
