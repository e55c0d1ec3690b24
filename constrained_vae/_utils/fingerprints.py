"""Fingerprints of values: two values with the same fingerprint have the same contents."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np


def fingerprint(value: Any) -> str:
    """The SHA-256 of a value as hexadecimal text, the same in every process.

    Arrays count with their type, shape and bytes, dataclasses with all their fields, and lists, tuples and dicts with
    all their entries. Of anything else, such as a function, only the repr counts: two functions of one name are the
    same.
    """
    digest = hashlib.sha256()
    for part in _parts(value):
        digest.update(part)
    return digest.hexdigest()


def without_addresses(text: str) -> str:
    """The text of a repr without memory addresses, which differ from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _parts(value: Any) -> Iterator[bytes | memoryview]:
    """The contents of a value as bytes; kinds and lengths keep different values apart."""
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        yield f"array {value.dtype.str} {value.shape}".encode()
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    elif isinstance(value, np.ndarray):
        yield from _parts([value.shape, value.ravel().tolist()])
    elif isinstance(value, (list, tuple)):
        yield f"{type(value).__name__} {len(value)}".encode()
        for entry in value:
            yield from _parts(entry)
    elif isinstance(value, dict):
        yield from _parts([*value.items()])
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        yield from _parts((type(value).__qualname__, fields))
    else:
        text = without_addresses(repr(value)).encode()
        yield b"%d %s" % (len(text), text)
