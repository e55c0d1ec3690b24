"""What image models learn: plain images, digits turned from one angle to another, digits in random colours."""

from __future__ import annotations

import copy
import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .._utils import memory
from .._utils.checks import check_instance
from ..datasets import DataSet
from .energies import as_rows, numbers

_REPRESENTATIVE = 0  # seed of the draw that stands for an augmented task
_LARGEST = 1e15  # size of values whose squares can be added in float32
_LARGE, _FLAT = 20.0, 0.02  # size of values, and range, beyond which they are hardly those of scaled pixels


@dataclass(frozen=True, eq=False)
class Batch:
    """Images to be reconstructed, with what is known about them.

    Attributes
    ----------
    x : (B, C, H, W) tensor of float32
        Images.
    context : (B, C', H, W) tensor of float32, or None
        Maps that encoder, decoder and prior see; None if there is no context.

    Examples
    --------
    >>> import torch
    >>> Batch(torch.zeros(3, 1, 8, 8)).context is None
    True
    """

    x: Tensor
    context: Tensor | None = None

    def part(self, rows: slice | Tensor) -> Batch:
        """These rows of the batch, such as the share of one process."""
        return Batch(self.x[rows], None if self.context is None else self.context[rows])


class Task(ABC):
    """Images and how a batch is made of them.

    A batch is a function of the rows and of the generator alone. All draws of a batch come from the generator, on the
    CPU, in the order of the rows: whoever wants some rows of a batch asks for all of it, and takes its `part`.

    Parameters
    ----------
    data : DataSet
        Images without weights. Where all values are n / 255 with whole n, as of files of uint8, they are kept as uint8.

    Attributes
    ----------
    context_size : int or None
        Number C' of maps of the context; None if there is no context.
    augmented : bool
        Whether the images are drawn anew at each step. Then there is no empirical rate-distortion function.

    Raises
    ------
    ValueError
        If the data are no images, or are weighted.

    Examples
    --------
    >>> from constrained_vae import datasets
    >>> from constrained_vae.image_models import PlainImages
    >>> isinstance(PlainImages(datasets.digits(100)), Task)
    True
    """

    context_size: int | None = None
    augmented = False

    def __init__(self, data: DataSet) -> None:
        check_instance(data, "data", DataSet, "datasets.digits()")
        if data.image_shape is None:
            raise ValueError(f"data must be images, got {data!r}, which has no image_shape")
        if data.weights is not None and np.ptp(data.weights) > 1e-12:
            raise ValueError(f"data must have no weights, which training does not support, got those of {data!r}")
        height, width, channels = (*data.image_shape, 1)[:3]
        rows = _compact(data.x).reshape(-1, height, width, channels)
        self.pixels = rows.movedim(-1, 1).contiguous()  # (N, C, H, W)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image of a batch."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> Self:
        """The same task with its images on a device, where its batches are then made."""
        moved = copy.copy(self)
        moved.pixels = self.pixels.to(device)
        return moved

    @abstractmethod
    def batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """The batch of these rows, (B,) whole numbers, with draws from the generator, which is on the CPU."""

    def images(self) -> NDArray[np.float64]:
        """Images (N, D) that stand for all of the task, pixels in the order (H, W, C) as in a `DataSet`.

        They are the images themselves, or one fixed draw of an augmented task.
        """
        generator = torch.Generator().manual_seed(_REPRESENTATIVE)
        blocks = torch.arange(len(self)).split(memory.rows_of_block(math.prod(self.image_shape)))
        return numbers(as_rows(torch.cat([self.batch(rows, generator).x for rows in blocks])))

    def _taken(self, rows: Tensor) -> Tensor:
        """Images (B, C, H, W) as float32."""
        return _in_unit(self.pixels[rows.to(self.pixels.device)], torch.float32)


class PlainImages(Task):
    """Images as they are.

    Parameters
    ----------
    data : DataSet
        Images without weights.

    Examples
    --------
    >>> from constrained_vae import datasets
    >>> PlainImages(datasets.digits(100)).image_shape
    (1, 8, 8)
    """

    def batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """The images of these rows; nothing is drawn."""
        return Batch(self._taken(rows))

    def images(self) -> NDArray[np.float64]:
        """The images (N, D) of the data set."""
        return numbers(as_rows(_in_unit(self.pixels, torch.float64)))


class MnistRotate(Task):
    """MNIST-rotate: an image at one angle from the same image at another; both angles are drawn anew each time.

    The angles are uniform on the circle. The context has C + 4 maps: the image at its own angle a, and cos a, sin a,
    cos b, sin b of this angle and of the angle b of x, each the same at every pixel.

    Parameters
    ----------
    data : DataSet
        Square images, 0 at their borders: what turns in from outside is 0.

    Raises
    ------
    ValueError
        If the images are not square, or as for `PlainImages`.

    Examples
    --------
    >>> from constrained_vae import datasets
    >>> MnistRotate(datasets.digits(100)).image_shape
    (1, 8, 8)
    """

    augmented = True

    def __init__(self, data: DataSet) -> None:
        super().__init__(data)
        channels, height, width = self.image_shape
        if height != width:
            raise ValueError(f"data must be square images, got {data.image_shape}: cut them")
        self.context_size = channels + 4

    def batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """The images of these rows at an angle, with the images at another angle and both angles as their context."""
        images = self._taken(rows)
        angles = 2 * math.pi * torch.rand(len(rows), 2, generator=generator).to(images.device)
        maps = torch.stack([angles.cos(), angles.sin()], dim=2).reshape(-1, 4, 1, 1)
        own, wanted = angles.T
        seen = [rotated(images, own), maps.expand(-1, -1, *images.shape[2:])]
        return Batch(rotated(images, wanted), torch.cat(seen, dim=1))


class ColourMnist(Task):
    """Colour-MNIST: digits in colour on black; the colour is drawn anew each time.

    The colour has a uniform hue, full saturation and full value: of red, green and blue one is 1, one is 0. So the
    largest of the three channels is the grey digit.

    Parameters
    ----------
    data : DataSet
        Grey images.

    Raises
    ------
    ValueError
        If the images have colours already, or as for `PlainImages`.

    Examples
    --------
    >>> from constrained_vae import datasets
    >>> ColourMnist(datasets.digits(100)).image_shape
    (3, 8, 8)
    """

    augmented = True

    def __init__(self, data: DataSet) -> None:
        super().__init__(data)
        if len(self.pixels[0]) != 1:
            raise ValueError(f"data must be grey images, got {data.image_shape}, which have colours: use PlainImages")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        return 3, *super().image_shape[1:]

    def batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """The images of these rows, each in a colour of its own."""
        images = self._taken(rows)
        hue = 6 * torch.rand(len(rows), 1, generator=generator).to(images.device)
        place = (hue + hue.new_tensor([5.0, 3.0, 1.0])) % 6  # where red, green and blue lie on the circle of hues
        colour = 1 - torch.minimum(place, 4 - place).clamp(0, 1)  # (B, 3)
        return Batch(images * colour[:, :, None, None])


def rotated(images: Tensor, angles: Tensor) -> Tensor:
    """Square images (B, C, H, H) turned about their middle, counter-clockwise, by angles (B,) in radians.

    Pixels are interpolated bilinearly; outside an image all is 0.
    """
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    back = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).reshape(-1, 2, 3)  # from the new place to the old
    grid = functional.affine_grid(back, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def check_range(images: NDArray[np.float64], stacklevel: int) -> None:
    """Raise ValueError for values too large for float32, and warn of values that are far from those of pixels."""
    low, high = float(images.min()), float(images.max())
    found = f"from {low:.4g} to {high:.4g}"
    if max(-low, high) > _LARGEST:
        raise ValueError(f"task must have images of values of at most {_LARGEST:.0e} in size, got {found}: scale them")
    if max(-low, high) > _LARGE or high - low < _FLAT:
        warnings.warn(
            f"the images have values {found}, and networks begin with outputs of about 1: scale the images to [0, 1]",
            stacklevel=stacklevel + 1,
        )


def _compact(x: NDArray[np.float64]) -> Tensor:
    """The rows as uint8 if all values are n / 255 with whole n; else as they are."""
    whole = np.empty(x.shape, dtype=np.uint8)
    step = memory.rows_of_block(x.shape[1])
    for start in range(0, len(x), step):
        block = x[start : start + step]
        whole[start : start + step] = np.rint(255 * np.clip(block, 0, 1))
        if (whole[start : start + step] / 255 != block).any():
            return torch.tensor(x)
    return torch.from_numpy(whole)


def _in_unit(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    return pixels.to(dtype) / 255 if pixels.dtype == torch.uint8 else pixels.to(dtype)
