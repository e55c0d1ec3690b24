"""DataSet: data points with what is known about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.arrays import PickledByFields
from .._utils.checks import (
    check_array,
    check_data,
    check_image_shape,
    check_labels,
    check_positive,
    check_text,
    real_array,
    shown,
)

_NAMED = 5  # columns that are named in a repr


@dataclass(frozen=True, eq=False, repr=False)
class DataSet(PickledByFields):
    """Data points with their weights, labels and other known properties; the arrays are read-only copies.

    Attributes
    ----------
    x : (N, D) array of float64
        Data points.
    name : str
        Name of the set.
    weights : (N,) array of float64, or None
        Data weights rho_i, which sum to 1; None means 1/N for every point.
    labels : (N,) array of int, or None
        Class of each point; None if the set has no classes.
    image_shape : tuple of int, or None
        Shape of a point as an image, (H, W) or (H, W, C) with C channels; its product is D. A row of x has the pixels
        in this order, rows of the image first and channels last. None if points are not images.
    critical_beta : float or None
        First critical beta at sigma = 1: ell_1 of Cov(x), in squared units of x (T9). None if there is no closed form.
    columns : tuple of str, or None
        Names of the D columns, which differ; None if they have no names.
    classes : tuple of str, or None
        Names of the classes 0, 1, ... in `labels`; None if the classes are numbers.
    centre, scale : (D,) arrays of float64, or None
        Mean and standard deviation in the units of the original data, from which x is (original - centre) / scale; None
        if x was not standardised.

    Raises
    ------
    ValueError
        If x is not a finite, non-empty (N, D) array or an array (N, H, W) or (N, H, W, C) of images, or another field
        does not fit x.

    Examples
    --------
    >>> DataSet(x=[[0.0, 1.0]], name="mine")
    DataSet('mine', N=1, D=2)
    >>> DataSet(x=[[[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]]], name="an image of 3 x 2 pixels").image_shape
    (3, 2)
    """

    x: NDArray[np.float64]
    name: str
    weights: NDArray[np.float64] | None = None
    labels: NDArray[np.int64] | None = None
    image_shape: tuple[int, ...] | None = None
    critical_beta: float | None = None
    columns: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    centre: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        given: Any = self.x
        if np.ndim(given) in (3, 4):
            given = real_array(given, "x", "an array (N, H, W) or (N, H, W, C) of images")
            if self.image_shape is None:
                object.__setattr__(self, "image_shape", given.shape[1:])
            given = given.reshape(len(given), -1)
        x = _freeze(self, "x", np.array(check_data(given), dtype=np.float64))
        check_text(self.name, "name")
        if self.weights is not None:
            w = _freeze(self, "weights", check_array(self.weights, "weights", (len(x),)))
            if not (np.all(w >= 0) and math.isclose(w.sum(), 1.0, rel_tol=1e-9)):
                raise ValueError(f"weights must be non-negative and sum to 1, got sum {w.sum()}: divide them by it")
        if self.labels is not None:
            _freeze(self, "labels", check_labels(self.labels, len(x)))
        if self.image_shape is not None:
            object.__setattr__(self, "image_shape", check_image_shape(self.image_shape, x.shape[1]))
        if self.critical_beta is not None:
            object.__setattr__(self, "critical_beta", check_positive(self.critical_beta, "critical_beta"))
        for field, count in (("columns", x.shape[1]), ("classes", None)):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, _check_texts(getattr(self, field), field, count))
        if (self.centre is None) != (self.scale is None):
            raise ValueError("centre and scale belong together: give both or neither")
        for field in ("centre", "scale"):
            if getattr(self, field) is not None:
                _freeze(self, field, check_array(getattr(self, field), field, (x.shape[1],)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.x, dtype=dtype, copy=copy)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self.x.shape[0], self.x.shape[1]

    def original(self, points: Any) -> NDArray[np.float64]:
        """Points (n, D), such as reconstructions, in the units that the data had before they were standardised.

        Raises
        ------
        ValueError
            If the points have another number of columns than the data.
        """
        points = check_array(points, "points", (None, self.x.shape[1]))
        return points if self.centre is None or self.scale is None else points * self.scale + self.centre

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        n, d = self.x.shape
        known = "" if self.critical_beta is None else f", critical_beta={self.critical_beta:.6g}"
        names = "" if self.columns is None else f", columns: {', '.join(self.columns[:_NAMED])}{', ...' * (d > _NAMED)}"
        return f"DataSet({self.name!r}, N={n}, D={d}{known}{names})"


def _freeze(data: DataSet, field: str, array: NDArray[Any]) -> NDArray[Any]:
    """Replace an array field by this array, which becomes read-only."""
    array.flags.writeable = False
    object.__setattr__(data, field, array)
    return array


def _check_texts(values: Any, name: str, count: int | None) -> tuple[str, ...]:
    """Texts that differ, as many as `count` if it is given."""
    try:
        texts = (values,) if isinstance(values, str) else tuple(values)
    except TypeError:
        texts = (values,)
    right = all(isinstance(text, str) for text in texts) and len(set(texts)) == len(texts)
    if not right or (count is not None and len(texts) != count):
        wanted = "texts" if count is None else f"{count} texts, one per column of x"
        raise ValueError(f"{name} must be {wanted}, all different, got {shown(values)}")
    return tuple(map(str, texts))
