"""Input validation: the one set of checks that all public functions use.

Each check returns the cleaned value or raises ValueError in one line that names the argument and says what was wanted,
what was given and how to fix it.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import deadline, memory
from .arrays import FloatArray, is_lazy
from .tensors import at_least_single

_LONGEST = 80  # characters of a value in a message
_LOOSEST = 1e-2  # largest tolerance: with a looser one, solutions that differ would count as the same
_LARGEST = 1e150  # numbers whose squares can be added up
_SEEDS = 2**32  # what every generator accepts, also those of scikit-learn


class TooLargeError(ValueError):
    """The requested array or computation does not fit into memory; the message names an alternative.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> issubclass(cv.TooLargeError, ValueError)
    True
    """


def shown(value: Any) -> str:
    """The value as one line for a message; arrays are described, and long texts are cut."""
    if type(value).__module__ != "builtins" and getattr(value, "ndim", None) and hasattr(value, "dtype"):
        return f"an array of {value.dtype}, shape {tuple(value.shape)}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a repr of the caller's, or an integer with too many digits to print
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


# --- scalars ----------------------------------------------------------------------------------------------------------


def check_number(value: Any, name: str, wanted: str, holds: Callable[[float], bool] = math.isfinite) -> float:
    """A real number for which `holds`, as a float; `wanted` completes "must be" in the message."""
    number = _as_float(value)
    if number is None or not holds(number):
        raise ValueError(f"{name} must be {wanted}, got {shown(value)}")
    return number


def check_positive(value: Any, name: str) -> float:
    """A positive, finite number."""
    return check_number(value, name, "positive and finite", lambda number: 0 < number < math.inf)


def check_non_negative(value: Any, name: str) -> float:
    """A finite number of at least 0."""
    return check_number(value, name, "finite and at least 0", lambda number: 0 <= number < math.inf)


def check_time_limit(value: Any) -> float | None:
    """A time limit in seconds, at least 0; None and infinity mean no limit."""
    if value is None:
        return None
    return check_number(value, "time_limit", "a number of seconds, at least 0", lambda number: number >= 0)


def check_tolerance(value: Any, name: str = "tol") -> float:
    """A relative tolerance, positive and at most 1e-2."""
    wanted = f"positive and at most {_LOOSEST:g}, since it is relative"
    return check_number(value, name, wanted, lambda number: 0 < number <= _LOOSEST)


def check_count(value: Any, name: str, least: int = 1, most: int | None = None) -> int:
    """A whole number from `least` to `most`."""
    number = _scalar(value)
    whole = _is_number(number, numbers.Integral)
    if not whole or number < least or (most is not None and number > most):
        wanted = f"at most {most}" if whole and number > least else f"at least {least}"
        raise ValueError(f"{name} must be a whole number of {wanted}, got {shown(value)}")
    return int(number)


def check_seed(value: Any, name: str = "seed") -> int:
    """A seed of a random generator, a whole number from 0 to 2^32 - 1."""
    return check_count(value, name, 0, _SEEDS - 1)


def check_flag(value: Any, name: str) -> bool:
    """True or False."""
    value = _scalar(value)
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def check_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """One of the strings `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {shown(value)}")
    return str(value)


def check_text(value: Any, name: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {shown(value)}")
    return str(value)


def check_path(value: Any, name: str = "path") -> Path:
    """The path of a file; numbers, which would be open files, are refused."""
    try:
        text = os.fsdecode(value)
    except Exception:
        text = ""
    if not text or "\0" in text:
        raise ValueError(f"{name} must be the path of a file, got {shown(value)}")
    return Path(text)


def check_image_shape(value: Any, size: int | None = None) -> tuple[int, ...]:
    """The shape of an image as whole numbers, whose product is `size` if it is given."""
    if not isinstance(value, (tuple, list)) or len(value) not in (2, 3):
        raise ValueError(f"image_shape must be (height, width) or (height, width, channels), got {shown(value)}")
    shape = tuple(check_count(length, "image_shape", most=_SEEDS) for length in value)
    if size is not None and math.prod(shape) != size:
        raise ValueError(f"image_shape must multiply to the {size} columns of x, got {shape}")
    return shape


def check_dtype(value: Any) -> np.dtype[Any]:
    """float64 (also for None) or float32."""
    try:
        dtype = np.dtype(np.float64 if value is None else value)
    except Exception:
        dtype = np.dtype(object)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float64 or float32, got {shown(value)}")
    return dtype


def check_instance(value: Any, name: str, kind: type, example: str) -> None:
    """Raise ValueError unless the value is an instance of `kind`; `example` is code that makes one."""
    if isinstance(value, type) or not isinstance(value, kind):
        raise ValueError(f"{name} must be an instance of {kind.__name__} such as {example}, got {shown(value)}")


def check_sequence(values: Any, name: str, kind: type) -> list[Any]:
    """The values of an iterable, all of which must be instances of `kind`."""
    wanted = f"a sequence of {kind.__name__}"
    try:
        listed = list(values)
    except TypeError:
        raise ValueError(f"{name} must be {wanted}, got {shown(values)}") from None
    for value in listed:
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be {wanted}, got {shown(value)} in it")
    return listed


def check_callable(value: Any, name: str) -> None:
    """Raise ValueError unless the value is callable or None."""
    if value is not None and not callable(value):
        raise ValueError(f"{name} must be callable, got {shown(value)}")


def asks_to_stop(callback: Callable[..., Any] | None, *args: Any) -> bool:
    """Call a callback, if there is one; whether it returned a true value."""
    if callback is None:
        return False
    with deadline.within(None):  # what it computes has no deadline
        answer = callback(*args)
    try:
        return bool(answer)
    except Exception:
        raise ValueError(
            f"callback must return a true value to stop, or a false one such as None, got {shown(answer)}"
        ) from None


def _scalar(value: Any) -> Any:
    """The element of an array without axes, of any array library; other objects are returned unchanged."""
    if isinstance(value, np.ndarray):
        return value.item() if value.ndim == 0 and value.dtype.kind in "biuf" else value
    foreign = not isinstance(value, (np.generic, type)) and hasattr(value, "item") and getattr(value, "ndim", 1) == 0
    try:
        return value.item() if foreign else value
    except Exception:  # of a class of the caller's
        return value


def _is_number(value: Any, kind: type) -> bool:
    # A duration is an integer by NumPy's classes, and a truth value by Python's.
    return isinstance(value, kind) and not isinstance(value, (bool, np.timedelta64))


def _as_float(value: Any) -> float | None:
    """The value as a float, infinite if it is too large for one; None if it is no real number."""
    value = _scalar(value)
    if not _is_number(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # a number class of the caller's
        return None


# --- arrays -----------------------------------------------------------------------------------------------------------


def real_array(values: Any, name: str, wanted: str) -> FloatArray:
    """The values as an array of real numbers, which need not be finite; a memory map remains a memory map.

    Arrays of integers become float64, those of floats keep their type up to float64. Raises ValueError for truth
    values, texts, dates, durations, complex numbers and masked arrays; `wanted` completes "must be" in the message.
    """

    def refused(why: str) -> ValueError:
        return ValueError(f"{name} must be {wanted}, got {why}")

    if getattr(values, "is_sparse", False):
        raise refused("a sparse tensor: make it dense with .to_dense()")
    if is_lazy(values):
        raise refused(
            "one of Dask, which this cannot take: compute it, or a sample of its rows, as in x[::100].compute()"
        )
    values = on_host(values)
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} must not be masked: fill in values, or drop those points")
    if isinstance(values, (str, bytes, dict, set, frozenset)) or hasattr(values, "tocoo"):
        raise refused(f"{shown(values)}{': make it dense with .toarray()' if hasattr(values, 'tocoo') else ''}")
    try:
        array = values if isinstance(values, np.memmap) else np.asarray(values)
    except Exception:
        raise refused(f"{type(values).__name__} that is no rectangular array of numbers") from None
    if array.dtype.kind == "O":
        if array.ndim == 0:
            raise refused(shown(values))
        for index, item in np.ndenumerate(array):
            if not _is_number(item, numbers.Real):
                at = index if len(index) > 1 else index[0]
                named = len(index) == 2 and hasattr(values, "columns")
                place = f"row {index[0]}, column {_column(values, index[1])}" if named else at
                raise refused(f"{shown(item)} at {place}")
        return np.array([_as_float(item) for item in array.ravel()], dtype=np.float64).reshape(array.shape)
    if array.dtype.kind not in "iuf":
        kinds = {"b": "truth values", "c": "complex numbers", "M": "dates", "m": "durations"}
        raise refused(f"{kinds.get(array.dtype.kind, 'texts' if array.dtype.kind in 'SUT' else 'records')}")
    if (array.dtype.kind == "f" and array.dtype.itemsize <= 8) or isinstance(array, np.memmap):
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float64)


def check_data(x: Any, name: str = "x") -> FloatArray:
    """The data as a finite, non-empty (N, D) array of floats; a memory map remains a memory map."""
    if isinstance(x, Iterator):
        raise ValueError(
            f"{name} is a one-shot iterator ({type(x).__name__}), but every map needs a new pass over the data: give "
            "an array, a memory map, or RowBlocks of a function that makes a new iterator over row blocks"
        )
    array = real_array(x, name, "an (N, D) array of real numbers")
    check_shape(array, name)
    rows = memory.rows_of_block(array.shape[1])  # so that a memory map is not loaded as a whole
    for start in range(0, len(array), rows):
        bad = ~np.isfinite(array[start : start + rows])
        if bad.any():
            row, column = np.argwhere(bad)[0]
            value = array[start + row, column]
            raise ValueError(
                f"{name} must be finite, got {value} at row {start + row}, column {_column(x, column)}: drop or impute "
                "such rows"
            )
    return array


def _column(values: Any, number: int) -> str:
    """A column of a data frame by its name, of anything else by its number from 0."""
    try:
        name = list(values.columns)[number]
    except (AttributeError, TypeError, IndexError):
        name = number
    return repr(name) if isinstance(name, str) else str(number)


def check_shape(array: FloatArray, name: str) -> FloatArray:
    """The array if it has the shape (N, D) and is not empty; the message says how to bring another one into it."""
    if array.ndim != 2:
        hints = {1: f"; for one feature pass {name}.reshape(-1, 1)"}
        images = f"; for images pass {name}.reshape(len({name}), -1), or datasets.DataSet({name}, 'name')"
        hints |= dict.fromkeys((3, 4), images)
        raise ValueError(f"{name} must have shape (N, D), got shape {array.shape}{hints.get(array.ndim, '')}")
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one point of at least one dimension, got shape {array.shape}")
    return array


def on_host(x: Any) -> Any:
    """A tensor of PyTorch without its gradient, and a tensor or CuPy array on the host; else the object itself."""
    if hasattr(x, "detach") and hasattr(x, "cpu") and not isinstance(x, type):
        return at_least_single(x.detach().cpu())
    return x.get() if hasattr(x, "__cuda_array_interface__") and hasattr(x, "get") else x


def check_array(values: Any, name: str, shape: tuple[int | None, ...]) -> FloatArray:
    """A new finite float64 array of a shape, in which None stands for any length of at least 1."""
    letters = tuple("n" if length is None else str(length) for length in shape)
    described = f"({', '.join(letters)}{',' * (len(shape) == 1)})"
    array = real_array(values, name, "a vector of numbers" if len(shape) == 1 else f"an array {described} of numbers")
    fits = array.ndim == len(shape) and all(
        have == want or (want is None and have > 0) for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} must have shape {described}{', not empty' if None in shape else ''}, got shape {array.shape}"
        )
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite, got {array[where]} at {where if len(where) > 1 else where[0]}")
    return np.array(array, dtype=np.float64)


def finite_array(values: Any, name: str) -> FloatArray:
    """A float64 array of any shape, also of none, of finite numbers."""
    array = np.asarray(real_array(values, name, "a finite number or an array of them"), dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    return array


def check_moderate(array: FloatArray, name: str) -> FloatArray:
    """The array if its entries are at most 1e150 in size, so that they have squares; NaN is let through."""
    if (large := np.abs(array) > np.float64(_LARGEST)).any():
        raise ValueError(f"{name} must have entries of at most {_LARGEST:g}, got {array[large][0]:g}")
    return array


def check_vector(values: Any, name: str) -> FloatArray:
    """A finite, non-empty float64 vector."""
    return check_array(values, name, (None,))


def check_weights(weights: Any, n: int, name: str = "weights") -> FloatArray:
    """Data weights rho (N,): non-negative, normalised to sum 1; uniform if None."""
    if weights is None:
        return np.full(n, 1.0 / n)
    array = check_vector(weights, name)
    if len(array) != n:
        raise ValueError(f"{name} must have one entry per data point, got {len(array)} for {n} points")
    if (array < 0).any() or not array.any():
        raise ValueError(f"{name} must be non-negative with a positive sum, got a negative entry or all zeros")
    array = array / array.max()  # so that the sum of huge or tiny weights is finite and positive
    return array / array.sum()


def check_masses(masses: Any) -> FloatArray:
    """Prior masses pi (K,): non-negative, with a sum of 1 to within 1e-8, then normalised to full precision."""
    array = check_vector(masses, "masses")
    with np.errstate(over="ignore"):
        total = array.sum()
    if (array < 0).any() or not abs(total - 1) <= 1e-8:
        raise ValueError(
            f"masses must be non-negative and sum to 1, got sum {total:.10g} and least entry {array.min():.3g}: "
            "divide them by their sum"
        )
    # Masses that sum to 1 already are returned bit for bit.
    return array if abs(total - 1) <= len(array) * np.finfo(np.float64).eps else array / total


def check_names(values: Any, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Names of classes, (n,): numbers, truth values or texts, all of one kind; finite, and none missing."""
    try:
        array = np.array(on_host(values))
        if array.dtype.kind in "OT" and array.ndim == 1:  # columns of a data frame
            kinds = {next((kind for kind in (str, bool, numbers.Real) if isinstance(v, kind)), None) for v in array}
            array = np.array(array.tolist()) if len(kinds) == 1 and None not in kinds else np.empty(0)
    except Exception:
        array = np.empty(0)
    if np.ma.isMaskedArray(values) or array.dtype.kind not in "biufUS" or array.ndim != 1 or not len(array):
        raise ValueError(
            f"{name} must be a vector of classes, all numbers or all texts, none missing, got {shown(values)}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    return check_moderate(array, name) if array.dtype.kind == "f" else array


def check_labels(labels: Any, n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Classes of the points as whole numbers, (n,) int64."""
    array = check_array(labels, "labels", (n,))
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    if not (whole == array).all():
        bad = int(np.flatnonzero(whole != array)[0])
        raise ValueError(f"labels must be whole numbers, got {array[bad]} at {bad}")
    return whole
