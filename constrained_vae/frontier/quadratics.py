"""Upper bounds of quadratic functions in the unit ball."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._utils.arrays import FloatArray

_POSITIVE = 1e-10  # least eigenvalue of A, in units of the bends
_BISECTIONS = 50  # after which a shift is accurate enough


def along_axes(slopes: FloatArray, bends: FloatArray, finite: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Absolute slopes and bends (n, D) along the axes of the matrices of bends (n, D, D), or of 0 if they are infinite.

    The bends are in ascending order.
    """
    h, axes = np.linalg.eigh(np.where(finite[:, None, None], bends, 0.0))
    return np.abs(np.einsum("nd,nde->ne", slopes, axes)), h


def rises_along_axes(g: FloatArray, h: FloatArray) -> FloatArray:
    """Sums (n,) over the axes of the largest values of g t + h t^2 / 2 for |t| <= 1; g (n, D) is not negative."""
    inside = g < -h
    return np.asarray(np.where(inside, g**2 / np.where(inside, -2 * h, 1.0), g + h / 2).sum(axis=1))


def least_shifts(g: FloatArray, h: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Shifts s (n,) and bounds (n,) of g t + t h t / 2 for |t| <= 1: g A^-1 g / 2 + s / 2, with A = s - h positive.

    Any such s >= 0 gives a bound. The least bound is where A^-1 g has the length 1, or s = 0.
    """
    least = np.maximum(h[:, -1] + _POSITIVE * (1 + np.abs(h).max(axis=1)), 0.0)
    low, high = np.zeros(len(g)), np.linalg.norm(g, axis=1) + 1e-300
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        long = np.square(g / ((least + middle)[:, None] - h)).sum(axis=1) > 1
        low, high = np.where(long, middle, low), np.where(long, high, middle)
    found = least + high
    return found, (g**2 / (found[:, None] - h)).sum(axis=1) / 2 + found / 2
