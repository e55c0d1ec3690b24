"""Hostile arguments: values that a function must either take correctly or refuse by name."""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
from typing import Any

import numpy as np

from .closed_forms import FloatArray


class _NoRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class _NoTruth:
    def __bool__(self) -> bool:
        raise RuntimeError("no truth value")


class _NoArray:
    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no array")


class _NoFloat(float):
    def __float__(self) -> float:
        raise RuntimeError("no float")


def hostile_values() -> dict[str, Any]:
    """Values of wrong types and extreme sizes, by a name for messages; new objects in every call.

    A function of a number, a choice, a flag, an array or an object must take each of them correctly or refuse it with
    an error that names the argument and the value.

    Returns
    -------
    dict of str to object
        The values.

    Examples
    --------
    >>> hostile_values()["a whole number too large for a float"] == 10**400
    True
    """
    return {
        "None": None,
        "a truth value": True,
        "a truth value of NumPy": np.bool_(False),
        "zero": 0,
        "minus one": -1,
        "two": 2,
        "a large number": 2**40,
        "a half": 0.5,
        "a tiny number": 1e-300,
        "a subnormal number": 5e-324,
        "a huge number": 1e300,
        "NaN": float("nan"),
        "infinity": float("inf"),
        "minus infinity": float("-inf"),
        "a whole number too large for a float": 10**400,
        "a long double": np.longdouble("0.25"),
        "a single": np.float32(1.0),
        "a NumPy integer": np.int64(5),
        "an unsigned integer": np.uint8(3),
        "an array without axes": np.array(1.0),
        "a fraction": fractions.Fraction(1, 3),
        "a decimal": decimal.Decimal("0.5"),
        "a number whose conversion fails": _NoFloat(1.0),
        "a complex number": 1j,
        "a number as text": "1e-6",
        "text": "garbage",
        "no text": "",
        "lines of text": "two\nlines",
        "bytes": b"1_0",
        "a path": pathlib.Path("/nowhere/at/all"),
        "a date": datetime.date(2026, 1, 1),
        "a NumPy date": np.datetime64("2026-01-01"),
        "no time": np.timedelta64("NaT"),
        "an empty list": [],
        "a list of text": ["1", "2"],
        "a ragged list": [[1.0, 2.0], [3.0]],
        "a nested list": [[[1.0]]],
        "an empty dictionary": {},
        "a dictionary": {"a": 1},
        "a set": {1.0, 2.0},
        "a tuple of one": (1.0,),
        "a range": range(3),
        "an iterator": iter([1.0, 2.0]),
        "a function": lambda *args: None,
        "a function of nothing": lambda: None,
        "a function that returns an array": lambda *args: np.zeros(2),
        "a type": float,
        "an object": object(),
        "an object without a repr": _NoRepr(),
        "an object without a truth value": _NoTruth(),
        "an object that is no array": _NoArray(),
        "an array of truth values": np.array([True, False]),
        "a vector": np.array([1.0, 2.0]),
        "a vector of NaN": np.array([np.nan, np.nan]),
        "an empty array": np.empty((0, 2)),
        "an array without columns": np.empty((2, 0)),
        "an array of four axes": np.ones((1, 2, 1, 2)),
        "records": np.zeros(2, dtype=[("a", "f8"), ("b", "i4")]),
    }


def hostile_arrays(array: FloatArray) -> dict[str, Any]:
    """Versions of a valid array (n, ...) that are wrong, odd, or the same numbers in another form.

    Parameters
    ----------
    array : array of float
        A valid argument; it is not changed.

    Returns
    -------
    dict of str to object
        The versions, by a name for messages.

    Examples
    --------
    >>> hostile_arrays(np.ones((3, 2)))["transposed"].shape
    (2, 3)
    """
    array = np.array(array, dtype=np.float64)

    def spoilt(value: float) -> FloatArray:
        copy = array.copy()
        copy[(0,) * copy.ndim] = value
        return copy

    with np.errstate(over="ignore", invalid="ignore"):  # of types that cannot hold the numbers
        return {
            "a NaN": spoilt(np.nan),
            "an infinity": spoilt(np.inf),
            "an outlier": spoilt(1e8),
            "a huge entry": spoilt(1e160),
            "the largest entry": spoilt(np.finfo(np.float64).max),
            "a negative entry": spoilt(-1.0),
            "a million": array * 1e6,
            "a unit of 1e160": array * 1e160,
            "a unit of 1e-163": array * 1e-163,
            "subnormal": array * 5e-324,
            "an offset": array + 1e9,
            "constant": np.zeros_like(array),
            "one row": array[:1],
            "a row less": array[:-1],
            "rows repeated": np.repeat(array, 2, axis=0),
            "transposed": array.T,
            "flat": array.ravel(),
            "an axis more": array[None],
            "single": array.astype(np.float32),
            "half": array.astype(np.float16),
            "long double": array.astype(np.longdouble),
            "too large long double": np.where(array != 0, np.longdouble("1e400"), 0),
            "whole numbers": array.astype(np.int64),
            "unsigned": np.abs(array).astype(np.uint8),
            "truth values": array > 0,
            "complex": array + 1j,
            "text": array.astype(str),
            "bytes": array.astype("S"),
            "objects": array.astype(object),
            "objects and text": _with(array, "1.0"),
            "objects and None": _with(array, None),
            "dates": np.abs(array).astype(np.int64).astype("M8[s]"),
            "durations": np.abs(array).astype(np.int64).astype("m8[s]"),
            "masked": np.ma.masked_array(array, mask=array == array.flat[0]),
            "in Fortran's order": np.asfortranarray(array),
            "reversed": array[::-1],
            "read-only": _read_only(array),
            "big-endian": array.astype(">f8"),
            "a list": array.tolist(),
            "an iterator of rows": iter(array),
        }


def _with(array: FloatArray, odd: Any) -> Any:
    objects = array.astype(object)
    objects[(0,) * objects.ndim] = odd
    return objects


def _read_only(array: FloatArray) -> FloatArray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy
