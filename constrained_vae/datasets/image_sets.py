"""Data sets of images from files, and images made smaller."""

from __future__ import annotations

import dataclasses
import os
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils import memory
from .._utils.checks import check_choice, check_count, check_instance, check_path, shown
from .._utils.files import check_size, naming
from .._utils.points import has_part, read_points
from .data_set import DataSet
from .image_files import Pixels, is_of_test, read_pictures, reader_of

_CHANNELS = 4  # the most that an image of a file may have
_ARCHIVES = (".npy", ".npz")


def images(path: str | PathLike[str], *, part: str = "train", n: int | None = None, size: int | None = None) -> DataSet:
    """Images and their labels from a file or a folder, uint8 scaled from 0 to 255 to [0, 1], floats as they are.

    Parameters
    ----------
    path : path-like
        One of these. IDX: a file of images as of MNIST and Fashion-MNIST, whose name contains "idx", also packed with
        gzip, or the folder of such files; labels are read where the name has "labels" and "idx1" for "images" and
        "idx3". CIFAR-10: the folder of its binary version, or one .bin file of it. NumPy: a .npz file with `x_train`,
        `y_train`, `x_test` and `y_test`, or with `images` or `x` and `labels`, or a .npy file; images have shape
        (n, H, W) or (n, H, W, C), of uint8 or floats. Pictures: a folder of .png, .jpg and other files of one size, in
        the order of their names, all in colour if one of them is.
    part : {"train", "test"}
        Which images of a source that has both.
    n : int, optional
        Only the first n images.
    size : int, optional
        Height and width to which every image is made smaller, see `resized`; pictures may then differ in size.

    Returns
    -------
    DataSet
        Pixels ``x`` (N, D), labels where there are some, and the ``image_shape``.

    Raises
    ------
    ValueError
        If the path does not name such images, or a file is damaged or contains something else.
    TooLargeError
        If the images, 8 bytes for every number, are larger than the memory of the machine.
    OSError
        If a file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "squares.npz")
    ...     np.savez(file, images=np.full((5, 4, 4, 3), 255, dtype=np.uint8), labels=np.arange(5))
    ...     images(file, size=2).image_shape
    (2, 2, 3)
    """
    path, part = check_path(path), check_choice(part, "part", ("train", "test"))
    n, size = (None if value is None else check_count(value, name) for value, name in ((n, "n"), (size, "size")))
    read = reader_of(path)
    if read is None and path.suffix not in _ARCHIVES:
        raise ValueError(
            f"path must be that of a .npy, .npz, .bin or IDX file, or of a folder, got {shown(str(path))}"
            f"{'' if path.exists() else ', which is not there'}"
        )
    if part == "test" and not (path.suffix == ".npz" or (path.is_dir() and read is not read_pictures)):
        raise ValueError(f"part must be 'train' for {path}, which has one part: give the path of the test images")
    if read is None:
        fields = read_points(path, part)
        classes = fields.pop("classes", None)
        fields = {name: np.atleast_1d(array)[:n] for name, array in fields.items()} | {"classes": classes}
        pixels = fields.pop("x")
    else:
        pixels, labels = read(path, part, n)
        fields = {"labels": labels}
    if n is not None and len(pixels) < n:
        raise ValueError(f"n must be a whole number of at most {len(pixels)}, the images in {path}, got {n}")
    return image_set(pixels, path, size, **fields)


def has_test_part(path: Path) -> bool:
    """Whether a path has test images beside training images: a .npz file, or a folder of IDX files or of CIFAR-10."""
    if path.is_dir():
        return any(is_of_test(name) for name in os.listdir(path))
    return path.suffix == ".npz" and path.exists() and has_part(path, "test")


def image_set(pixels: Pixels, path: Path, size: int | None = None, **fields: Any) -> DataSet:
    """The images that were read from a path, (n, H, W), (n, H, W, C) or n of different sizes, as a data set."""
    with naming(f"{path} must hold images"):
        if isinstance(pixels, np.ndarray):
            _check_shape(pixels.shape)
        if size is None:
            x = _in_unit(_stacked(pixels))
        else:
            same = [pixels] if isinstance(pixels, np.ndarray) else [picture[None] for picture in pixels]
            x = np.concatenate([_shrunk(some, size) for some in same])
        return DataSet(x.reshape(len(x), -1), path.resolve().stem, image_shape=x.shape[1:], **fields)


def resized(data: DataSet, size: int) -> DataSet:
    """Square images made smaller by averages over areas.

    A pixel of the result covers (side / size)^2 pixels, some of them in part, and is their mean weighted by the areas.
    So the mean of an image remains the same; nothing is padded. Of an image that is not square, the middle is taken.

    Parameters
    ----------
    data : DataSet
        Images, with an `image_shape`.
    size : int
        Height and width of the result, at most the smaller side of the images.

    Returns
    -------
    DataSet
        The images with the same name, weights and labels.

    Raises
    ------
    ValueError
        If `data` are no images, or the size is no whole number of at least 1.

    Examples
    --------
    >>> from constrained_vae import datasets
    >>> datasets.resized(datasets.digits(100), 4)
    DataSet('digits', N=100, D=16)
    """
    check_instance(data, "data", DataSet, "digits()")
    if data.image_shape is None:
        raise ValueError(f"data must be images, got {data!r}, which has no image_shape")
    x = _shrunk(data.x.reshape(-1, *data.image_shape), check_count(size, "size"))
    return dataclasses.replace(data, x=x.reshape(len(x), -1), image_shape=x.shape[1:], critical_beta=None)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) not in (3, 4) or min(shape) < 1 or max(shape[3:], default=1) > _CHANNELS:
        wanted = f"(n, H, W) or (n, H, W, C), not empty and with at most {_CHANNELS} channels C"
        raise ValueError(f"the shape must be {wanted}, got {shape}")


def _stacked(pixels: Pixels) -> np.ndarray:
    if not isinstance(pixels, np.ndarray):
        shapes = {picture.shape[:2] for picture in pixels}
        if len(shapes) > 1:
            raise ValueError(
                f"there are pictures of {len(shapes)} sizes, such as {min(shapes)} and {max(shapes)}: give size"
            )
        pixels = np.stack(pixels)
    return pixels


def _in_unit(pixels: np.ndarray) -> NDArray[np.float64]:
    """Images (n, H, W) or (n, H, W, C) as floats; uint8 scaled to [0, 1]."""
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise ValueError(f"the type must be uint8, from 0 to 255, or that of floats, got {pixels.dtype}: convert it")
    check_size(8 * pixels.size)
    return pixels / 255 if pixels.dtype == np.uint8 else pixels.astype(np.float64)


def _shrunk(pixels: np.ndarray, size: int) -> NDArray[np.float64]:
    """Images (n, H, W) or (n, H, W, C) as floats (n, size, size) or (n, size, size, C), by averages over areas."""
    height, width = pixels.shape[1:3]
    side = min(height, width)
    size = check_count(size, "size", most=side)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[:, top : top + side, left : left + side]
    share = _shares(side, size)
    blocks = []
    rows = memory.rows_of_block(square[0].size)
    for start in range(0, len(square), rows):
        block = _in_unit(square[start : start + rows])
        planes = np.moveaxis(block, -1, 1) if block.ndim == 4 else block  # channels beside the images
        means = share @ planes @ share.T
        means = np.moveaxis(means, 1, -1) if block.ndim == 4 else means
        blocks.append(np.clip(means, block.min(), block.max()))  # rounding could lead beyond
    return np.concatenate(blocks)


def _shares(side: int, size: int) -> NDArray[np.float64]:
    """Share of every old pixel in every new one along an axis, (size, side); rows sum to 1."""
    edges = np.arange(size + 1) * side / size
    ends = np.minimum(edges[1:, None], np.arange(1, side + 1))
    starts = np.maximum(edges[:-1, None], np.arange(side))
    return np.maximum(ends - starts, 0) * size / side
