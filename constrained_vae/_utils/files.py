"""Reading of archives of named arrays (.npz) with an optional JSON header, without trust in what they say."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
import reprlib
import zipfile
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import IO, Any

import numpy as np

from . import memory
from .checks import TooLargeError, check_path

_LONGEST = 400  # characters of a message about a file, or of a value in it
FORMAT = 1  # of the headers that are written; a file with another number is refused
NUMBERS = "biuf"  # kinds of the types of real numbers


def read_npz(
    path: str | PathLike[str], kind: str, wanted: Sequence[str], optional: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of numbers of a file whose header has this kind.

    Only the arrays of these names are read. Nothing is allocated before the shape in the head of an array agrees with
    its size in the directory of the archive, and all of it with the memory of the machine.

    Raises
    ------
    ValueError
        If the file holds something else, is damaged, or is from a newer version.
    TooLargeError
        If the arrays are larger than the memory of the machine.
    OSError
        If the file cannot be opened.
    """
    path = check_path(path)
    with open(path, "rb") as stream, naming(f"{path} does not hold a saved {kind}"):
        archive = open_archive(stream)
        if "header" not in archive:
            raise ValueError("it has no header")
        text = archive.read(["header"], kinds="U")["header"]
        with parsing("its header is damaged"):
            header = json.loads(str(text))
        if (found := entry(header, "kind", str)) != kind:
            raise ValueError(f"it is the file of a {found}")
        if (number := entry(header, "format", int)) != FORMAT:
            newer = "a newer version of constrained_vae wrote it" if number > FORMAT else "no version wrote that"
            raise ValueError(f"it has format {number}, this version reads format {FORMAT} ({newer})")
        if missing := [name for name in wanted if name not in archive]:
            raise ValueError(f"the array {missing[0]!r} is missing")
        return header, archive.read([name for name in (*wanted, *optional) if name in archive])


@contextlib.contextmanager
def naming(start: str) -> Iterator[None]:
    """Begin the message of every ValueError of the block with a file and what is expected of it."""
    try:
        yield
    except ValueError as error:
        named = TooLargeError if isinstance(error, TooLargeError) else ValueError
        raise named(f"{one_line(start)}: {one_line(error)}") from None


def one_line(value: Any) -> str:
    """A value, of which a file may be the source, as one line of text that is not too long."""
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def entry(record: Any, name: str, kind: type) -> Any:
    """An entry of a header, or of a record in it, if it has this type; a float may be a whole number, but no bool."""
    value: Any = record.get(name) if isinstance(record, dict) else None
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if whole and kind is float:
        return float(value)
    if not (whole if kind is int else isinstance(value, kind)):
        raise ValueError(f"{name} in its header must be of type {kind.__name__}, got {reprlib.repr(value)}")
    return value


def check_contents(array: np.ndarray, name: str, shape: tuple[int | None, ...], least: float = -math.inf) -> None:
    """Raise ValueError unless an array of a file is finite, at least `least`, and of this shape; None is any length."""
    array = np.asarray(array)
    if array.dtype.kind not in NUMBERS:
        raise ValueError(f"{name} must hold real numbers, got {_kind(array.dtype)}")
    if len(shape) != array.ndim or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        wanted = str(shape).replace("None", "any")
        raise ValueError(f"{name} must have the shape {wanted}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    if (array < least).any():
        raise ValueError(f"{name} must be at least {least}, got {array.min()}")


class Archive:
    """The directory of an open .npz file."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = [info.filename.removesuffix(".npy") for info in archive.infolist()]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, names: Sequence[str], kinds: str = NUMBERS) -> dict[str, np.ndarray]:
        """Arrays by name, of these kinds of types; ValueError if one is damaged, TooLargeError beyond the memory."""
        members = {name: self._member(name) for name in names}
        check_size(sum(info.file_size for info in members.values()))
        found = {}
        for name, info in members.items():
            with parsing(f"the array {name!r} is damaged"), self._archive.open(info) as member:
                found[name] = read_array(member, info.file_size, f"the array {name!r}", kinds)
        return found

    def _member(self, name: str) -> zipfile.ZipInfo:
        if self.names.count(name) > 1:
            raise ValueError(f"the array {name!r} is there twice")
        info = self._archive.infolist()[self.names.index(name)]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise ValueError(f"the array {name!r} is encrypted, or compressed by another method than deflate")
        return info


def open_archive(stream: IO[bytes]) -> Archive:
    """The directory of a .npz file; ValueError if it is none."""
    with parsing("it is no .npz file, or only a part of one"):
        return Archive(zipfile.ZipFile(stream))


def read_array(stream: IO[bytes], size: int, name: str, kinds: str = NUMBERS) -> np.ndarray:
    """The array of a .npy file of this size in bytes, whose head is checked before memory is allocated."""
    with parsing(f"{name} is damaged"):
        if _UNUSUAL.search(stream.read(_LONGEST_HEAD).partition(b"}")[0]):
            raise _Refusal(f"the head of {name} is not as NumPy writes it")
        stream.seek(0)
        read = _HEADS[np.lib.format.read_magic(stream)]
        shape, _, dtype = read(stream)
        body = size - stream.tell()
    if dtype.kind not in kinds:
        raise _Refusal(f"{name} holds {_kind(dtype)} instead of {'text' if kinds == 'U' else 'real numbers'}")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != body:
        raise _Refusal(f"{name} has the shape {shape} of {dtype} in its head, which does not fit its {body} bytes")
    with parsing(f"{name} is damaged"):
        stream.seek(0)
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
        return array


def check_size(size: int, instead: str = "") -> None:
    """Raise TooLargeError for so many bytes of arrays, if the machine has less memory; the text says what to do."""
    if size > (most := memory.physical()):
        sizes = f"its arrays have {size / 2**30:.1f} GiB, the memory of this machine is {most / 2**30:.1f} GiB"
        raise TooLargeError(sizes + instead)


class _Refusal(ValueError):
    """A message of ours, which `parsing` lets through."""


@contextlib.contextmanager
def parsing(text: str) -> Iterator[None]:
    """Raise ValueError with this text in place of whatever else is raised in the block.

    What zipfile, zlib, json and NumPy raise for damaged bytes is not documented, and differs between their versions.
    """
    try:
        yield
    except (_Refusal, TooLargeError):
        raise
    except MemoryError:
        raise TooLargeError(f"{text}, or there is not enough memory for it") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the device, not of the contents
        raise _Refusal(text) from None


def _kind(dtype: np.dtype[Any]) -> str:
    names = {"O": "pickled objects", "c": "complex numbers", "U": "text", "S": "text", "M": "dates", "m": "time spans"}
    return names.get(dtype.kind, f"values of type {dtype}")


_LONGEST_HEAD = 10_000  # bytes, as for NumPy
_UNUSUAL = re.compile(rb"\\|\d[A-Za-z_]")  # in a head: what NumPy and Python warn of, and then may accept
_HEADS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
