"""Pictures of data that are images."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .._utils.arrays import FloatArray
from .._utils.checks import check_count, check_data, check_image_shape
from ..results.fixed_point import FixedPoint
from .arguments import axes_or_new

_GAP = 1  # pixels between images


def images(
    shown: FixedPoint | FloatArray, image_shape: tuple[int, ...], columns: int | None = None, ax: Axes | None = None
) -> Axes:
    """Rows of numbers as images side by side, such as the reconstructions of a solution, of largest mass first.

    Parameters
    ----------
    shown : FixedPoint or (n, D) array
        A solution, whose distinct reconstructions are drawn, or images. Grey levels span the range of all of them.
    image_shape : (int, int) or (int, int, int)
        Height and width, and the channels 1 or 3 at either end.
    columns : int, optional
        Number of images in a row; by default the picture is about as wide as it is high.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If a row does not have as many numbers as an image has values, or `columns` is no whole number.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> digits = cv.datasets.digits(100)
    >>> images(cv.solve(digits.x, beta=0.5, n_tiles=8), (8, 8)).images[0].get_cmap().name
    'gray'
    """
    if isinstance(shown, FixedPoint):
        sites = shown.distinct
        assert sites.marginal is not None
        rows = sites.decoder[np.argsort(-sites.marginal, kind="stable")]
    else:
        rows = check_data(shown, "shown")
    height, width, *channels = check_image_shape(image_shape, rows.shape[1])
    if channels and height in (1, 3):  # channels first, as PyTorch has them
        rows = np.moveaxis(rows.reshape(len(rows), height, width, channels[0]), 1, -1)
        height, width, channels = width, channels[0], [height]
    pictures = rows.reshape(len(rows), height, width, *channels)
    if channels == [1]:
        pictures = pictures[..., 0]
    columns = int(np.ceil(np.sqrt(len(rows)))) if columns is None else check_count(columns, "columns")
    mosaic = side_by_side(pictures, columns)
    ax = axes_or_new(ax)
    options: dict[str, Any] = {"cmap": "gray", "interpolation": "nearest"}
    if mosaic.ndim == 3:
        low, high = float(rows.min()), float(rows.max())
        mosaic = ((mosaic - low) / (high - low or 1.0)).clip(0, 1)
    ax.imshow(mosaic, **options)
    ax.set_axis_off()
    return ax


def side_by_side(pictures: FloatArray, columns: int) -> FloatArray:
    """One picture of many (n, height, width, ...), in rows; NaN, which is white, between them."""
    n, height, width, *channels = pictures.shape
    lines = -(-n // columns)
    mosaic = np.full((lines * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, *channels), np.nan)
    for i, one in enumerate(pictures):
        top, left = (height + _GAP) * (i // columns), (width + _GAP) * (i % columns)
        mosaic[top : top + height, left : left + width] = one
    return mosaic
