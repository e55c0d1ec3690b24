"""Input validation.

Each check returns the cleaned value or raises ValueError that says what was expected, what was received and how to fix
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import memory
from .arrays import FloatArray


class TooLargeError(ValueError):
    """The requested array or computation does not fit into memory; the message names an alternative.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> issubclass(cv.TooLargeError, ValueError)
    True
    """


def check_data(x: Any, name: str = "x") -> FloatArray:
    """The data as a finite, non-empty (N, D) array of floats; a memory map remains a memory map."""
    if isinstance(x, Iterator):
        raise ValueError(
            f"{name} is a one-shot iterator ({type(x).__name__}), but every map needs a new pass over the data: give "
            "an array, a memory map, or RowBlocks of a function that makes a new iterator over row blocks"
        )
    x = _on_host(x)
    if isinstance(x, np.ma.MaskedArray):
        raise ValueError(f"{name} must not be masked: drop the masked points, or fill in values")
    try:
        array = x if isinstance(x, np.memmap) else np.asarray(x)
        if array.dtype.kind == "c":
            raise TypeError("complex numbers")
        if array.dtype.kind not in "biuf":
            array = np.asarray(array, dtype=np.float64)
        elif array.dtype.kind != "f" and not isinstance(x, np.memmap):  # a memory map of integers is read in blocks
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold real numbers, shape (N, D); got {type(x).__name__}: {error}") from None
    if array.ndim != 2:
        hint = f"; for one feature pass {name}.reshape(-1, 1)" if array.ndim == 1 else ""
        raise ValueError(f"{name} must have shape (N, D), got shape {array.shape}{hint}")
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one point of at least one dimension, got shape {array.shape}")
    rows = memory.rows_of_block(array.shape[1])  # so that a memory map is not loaded as a whole
    for start in range(0, len(array), rows):
        bad = ~np.isfinite(array[start : start + rows])
        if bad.any():
            row, column = np.argwhere(bad)[0]
            value = array[start + row, column]
            raise ValueError(
                f"{name} must be finite, got {value} at row {start + row}, column {column}: drop or impute such rows"
            )
    return array


def _on_host(x: Any) -> Any:
    """A copy of a CuPy array on the host; other objects are returned unchanged."""
    return x.get() if hasattr(x, "__cuda_array_interface__") and hasattr(x, "get") else x


def check_weights(weights: Any, n: int) -> FloatArray:
    """Data weights rho (N,): non-negative, normalised to sum 1; uniform if None."""
    if weights is None:
        return np.full(n, 1.0 / n)
    if isinstance(weights, np.ma.MaskedArray):
        raise ValueError("weights must not be masked: give masked points the weight 0")
    array = check_vector(weights, "weights")
    if len(array) != n:
        raise ValueError(f"weights must have one entry per data point, got {len(array)} for {n} points")
    if (array < 0).any() or not array.any():
        raise ValueError("weights must be non-negative with a positive sum, got a negative entry or all zeros")
    array = array / array.max()  # so that the sum of huge or tiny weights is finite and positive
    return array / array.sum()


def check_masses(masses: Any) -> FloatArray:
    """Prior masses pi (K,): non-negative, with a sum of 1 to within 1e-8, then normalised to full precision."""
    array = check_vector(masses, "masses")
    if (array < 0).any() or abs(array.sum() - 1) > 1e-8:
        raise ValueError(
            f"masses must be non-negative and sum to 1, got sum {array.sum():.10g} and least entry {array.min():.3g}: "
            "divide them by their sum"
        )
    # Masses that sum to 1 already are returned bit for bit.
    return array.copy() if abs(array.sum() - 1) <= len(array) * np.finfo(np.float64).eps else array / array.sum()


def check_vector(values: Any, name: str) -> FloatArray:
    """A finite, non-empty float64 vector."""
    try:
        array = np.asarray(_on_host(values), dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a vector of numbers, got {type(values).__name__}") from None
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a finite, non-empty vector, got shape {array.shape}")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be a finite, non-empty vector, got {array[bad]} at position {bad}")
    return array


def check_positive(value: Any, name: str) -> float:
    """A positive, finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a positive number, got {value!r}") from None
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be positive and finite, got {number}")
    return number


def check_non_negative(value: Any, name: str) -> float:
    """A finite number of at least 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number of at least 0, got {value!r}") from None
    if not (np.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be finite and at least 0, got {number}")
    return number


def check_time_limit(value: Any) -> float:
    """A time limit in seconds, at least 0; infinity means no limit."""
    if not (isinstance(value, (int, float)) and value >= 0):
        raise ValueError(f"time_limit must be a number of seconds, at least 0, got {value!r}")
    return float(value)


def check_count(value: Any, name: str, least: int = 1) -> int:
    """A whole number that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def check_dtype(value: Any) -> np.dtype[Any]:
    """float64 (also for None) or float32."""
    try:
        dtype = np.dtype(np.float64 if value is None else value)
    except TypeError:
        dtype = np.dtype(object)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float64 or float32, got {value!r}")
    return dtype


def check_instance(value: Any, name: str, kind: type, example: str) -> None:
    """Raise ValueError unless the value is an instance of `kind`; `example` is code that makes one."""
    if isinstance(value, type) or not isinstance(value, kind):
        raise ValueError(f"{name} must be an instance of {kind.__name__} such as {example}, got {value!r}")


def check_callable(value: Any, name: str) -> None:
    """Raise ValueError unless the value is callable or None."""
    if value is not None and not callable(value):
        raise ValueError(f"{name} must be callable, got {value!r}")


def check_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """One of the strings `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")
    return str(value)
