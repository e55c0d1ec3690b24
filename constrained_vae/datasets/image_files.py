"""Files of images: the IDX format of MNIST, the binary batches of CIFAR-10, folders of pictures.

Every reader takes a path, a part ("train" or "test", for folders that have both) and a number of images or None. It
gives so many of the first images, or all there are, uint8 arrays (H, W) or (H, W, C), and their labels.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from .._utils.files import check_size, naming, one_line, parsing
from .._utils.interrupts import deferred_interrupts
from .._utils.points import SUFFIXES, suffix_of

Pixels = Sequence[np.ndarray] | np.ndarray
Labels = np.ndarray | None
Reader = Callable[[Path, str, int | None], tuple[Pixels, Labels]]

_FLOAT = 8  # bytes of a pixel in a data set
_BLOCK = 2**20  # bytes
_IDX_BYTES = 8  # number of the type of unsigned bytes
_IDX_PARTS = {"train": "train", "test": "(t10k|test)"}
_CIFAR = (3, 32, 32)  # a batch has one colour after the other
_CIFAR_FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_GREY, _COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # modes of Pillow, 8 bits each


def reader_of(path: Path) -> Reader | None:
    """The function here that reads a folder or a file, by its name; None if it is of another kind."""
    if suffix_of(path) in SUFFIXES:
        return None
    if path.is_dir():
        names = os.listdir(path)
        if any(name.endswith("_batch.bin") or name.startswith("data_batch") for name in names):
            return read_cifar10
        return read_idx if any("images" in name and "idx3" in name for name in names) else read_pictures
    if path.suffix == ".bin":
        return read_cifar10
    return read_idx if "idx" in path.name.lower() else None


def is_of_test(name: str) -> bool:
    """Whether a file of this name in a folder holds test images, in the IDX format or of CIFAR-10."""
    return name in _CIFAR_FILES["test"] or re.search(_idx_name("test"), name) is not None


# --- IDX --------------------------------------------------------------------------------------------------------------


def read_idx(path: Path, part: str, n: int | None) -> tuple[Pixels, Labels]:
    """Images of an IDX file, which may be packed with gzip; labels if their file is beside it."""
    if path.is_dir():
        path = _idx_of_part(path, part)
    pixels, count = _idx(path, "images", (3, 4), n)
    if (beside := _idx_of_labels(path)) is None:
        return pixels, None
    labels, labelled = _idx(beside, "labels", (1,), None)
    if labelled != count:
        raise ValueError(f"{beside} must hold a label for each of the {count} images of {path}, it holds {labelled}")
    return pixels, labels[: len(pixels)]


def _idx_of_labels(path: Path) -> Path | None:
    """The file of labels beside a file of images, packed or not, if there is one."""
    own = path.name.removesuffix(".gz")
    name = own.replace("images", "labels").replace("idx3", "idx1")
    files = [path.with_name(name), path.with_name(f"{name}.gz")] if name != own else []
    return next((file for file in files if file.is_file()), None)


def _idx_of_part(folder: Path, part: str) -> Path:
    """The file of images of a part; a file and its packed copy count as one."""
    named = [name for name in sorted(os.listdir(folder)) if re.search(_idx_name(part), name)]
    files = {name.removesuffix(".gz"): name for name in named}
    if len(files) != 1:
        found = one_line(", ".join(files)) or "none"
        raise ValueError(f"{folder} must hold one IDX file of {part} images, it holds {found}: give the path of a file")
    return folder / next(iter(files.values()))


def _idx_name(part: str) -> str:
    """A pattern of the names of files of images of a part."""
    return rf"{_IDX_PARTS[part]}-images.*idx3"


def _idx(path: Path, content: str, axes: tuple[int, ...], n: int | None) -> tuple[np.ndarray, int]:
    """The first entries of an IDX file of bytes, n or all of them, and how many it has."""
    with open(path, "rb") as file, naming(f"{path} must hold {content} in the IDX format"):
        packed = path.suffix == ".gz"
        stream: IO[bytes] = gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[assignment]
        magic = _taken(stream, 4)
        if magic[:3] != bytes([0, 0, _IDX_BYTES]) or magic[3] not in axes:
            wanted = " or ".join(bytes([0, 0, _IDX_BYTES, number]).hex() for number in axes)
            raise ValueError(f"it begins with {magic.hex()} instead of {wanted}")
        shape = tuple(np.frombuffer(_taken(stream, 4 * magic[3]), ">u4").tolist())
        if not math.prod(shape):
            raise ValueError(f"its head says that it has the shape {shape}")
        few = (shape[0] if n is None else min(shape[0], n), *shape[1:])
        if not packed and math.prod(shape) != (body := os.fstat(file.fileno()).st_size - file.tell()):
            raise ValueError(f"it has the shape {shape} in its head, which does not fit its {body} bytes")
        check_size(_FLOAT * math.prod(few))
        entries = np.frombuffer(_taken(stream, math.prod(few)), np.uint8).reshape(few)
        if few == shape and _block(stream, 1):
            raise ValueError(f"it has the shape {shape} in its head, and more bytes than that")
        return entries, shape[0]


def _taken(stream: IO[bytes], size: int) -> bytes:
    """So many bytes of a stream, in blocks, so that no memory is allocated for bytes that are not there."""
    blocks: list[bytes] = []
    while size:
        if not (block := _block(stream, min(size, _BLOCK))):
            raise ValueError(f"it ends {size} bytes too early")
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


def _block(stream: IO[bytes], size: int) -> bytes:
    with parsing("it is damaged, or only a part of a packed file"):
        return stream.read(size)


# --- CIFAR-10 ---------------------------------------------------------------------------------------------------------


def read_cifar10(path: Path, part: str, n: int | None) -> tuple[Pixels, Labels]:
    """Images and labels of CIFAR-10 in its binary version, a folder of batches or one batch."""
    files = [path / name for name in _CIFAR_FILES[part]] if path.is_dir() else [path]
    with naming(f"{path} must hold batches of CIFAR-10"):
        check_size(_FLOAT * sum(file.stat().st_size for file in files))
    rows = np.concatenate([_batch(file) for file in files])[:n]
    return np.moveaxis(rows[:, 1:].reshape(-1, *_CIFAR), 1, -1), rows[:, 0]


def _batch(path: Path) -> np.ndarray:
    """Rows of a label and the bytes of an image."""
    size = 1 + math.prod(_CIFAR)
    with naming(f"{path} must hold a batch of CIFAR-10, {size} bytes for each image"):
        content = path.read_bytes()
        if not content or len(content) % size:
            raise ValueError(f"it has {len(content)} bytes")
        rows = np.frombuffer(content, np.uint8).reshape(-1, size)
        if (wrong := rows[:, 0] > 9).any():
            raise ValueError(f"image {np.argmax(wrong)} has the label {rows[np.argmax(wrong), 0]}, the last is 9")
    return rows


# --- pictures ---------------------------------------------------------------------------------------------------------


def read_pictures(folder: Path, part: str, n: int | None) -> tuple[Pixels, Labels]:
    """The pictures of a folder in the order of their names; all in colour if one of them is."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _PICTURES)
    if not files:
        raise ValueError(
            f"{folder} must hold pictures ({', '.join(_PICTURES)}), IDX files or the binary version of CIFAR-10"
        )
    pictures: list[np.ndarray] = []
    size = 0
    for file in files[:n]:
        pictures.append(_picture(file, size))
        size += _FLOAT * pictures[-1].size
    if len({picture.ndim for picture in pictures}) > 1:
        pictures = [p if p.ndim == 3 else np.repeat(p[:, :, None], 3, axis=2) for p in pictures]
    return pictures, None


def _picture(path: Path, before: int) -> np.ndarray:
    """A picture, (H, W) if it is grey, else (H, W, 3), after others of so many bytes in memory."""
    with deferred_interrupts():
        from PIL import Image

    with open(path, "rb") as file, naming(f"{path} must hold a picture"), warnings.catch_warnings(action="ignore"):
        with parsing("it is damaged, or no picture"):
            picture = Image.open(file)
        if picture.mode not in (*_GREY, *_COLOUR):
            raise ValueError(f"it has pixels of type {picture.mode}, save it with 8 bits for each colour")
        check_size(before + _FLOAT * 3 * math.prod(picture.size))
        with parsing("it is damaged"):
            return np.asarray(picture.convert("L" if picture.mode in _GREY else "RGB"))
