"""DataSet: data points with what is known about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._utils.arrays import PickledByFields
from .._utils.checks import check_array, check_data, check_image_shape, check_labels, check_positive, check_text


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

    Raises
    ------
    ValueError
        If x is not a finite, non-empty (N, D) array, or another field does not fit x.

    Examples
    --------
    >>> DataSet(x=[[0.0, 1.0]], name="mine")
    DataSet('mine', N=1, D=2)
    """

    x: NDArray[np.float64]
    name: str
    weights: NDArray[np.float64] | None = None
    labels: NDArray[np.int64] | None = None
    image_shape: tuple[int, ...] | None = None
    critical_beta: float | None = None

    def __post_init__(self) -> None:
        x = _freeze(self, "x", np.array(check_data(self.x), dtype=np.float64))
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

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        n, d = self.x.shape
        known = "" if self.critical_beta is None else f", critical_beta={self.critical_beta:.6g}"
        return f"DataSet({self.name!r}, N={n}, D={d}{known})"


def _freeze(data: DataSet, field: str, array: NDArray[Any]) -> NDArray[Any]:
    """Replace an array field by this array, which becomes read-only."""
    array.flags.writeable = False
    object.__setattr__(data, field, array)
    return array
