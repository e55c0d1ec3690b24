"""Arguments of pictures: what Matplotlib can draw, or a ValueError that names the argument."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from .._utils.arrays import FloatArray
from .._utils.checks import (
    check_array,
    check_instance,
    check_moderate,
    real_array,
)
from ..phases.branch import Branch

NO_CURVE = np.empty((0, 2))


def axes_or_new(ax: Axes | None) -> Axes:
    """The given Axes, or new ones."""
    if ax is None:
        return plt.subplots()[1]
    check_instance(ax, "ax", Axes, "plt.subplots()[1]")
    return ax


def drawable(values: Any, name: str, ndim: int) -> FloatArray:
    """Numbers that Matplotlib can draw: NaN begins a new piece, and the largest has a representable square."""
    array = np.asarray(real_array(values, name, f"an array of {ndim} axes"), dtype=np.float64)
    if array.ndim != ndim:
        raise ValueError(f"{name} must be an array of {ndim} axes, got shape {array.shape}")
    return check_moderate(array, name)


def table(values: Any, name: str, empty: bool = False) -> FloatArray:
    """Points (n, 2)."""
    if empty and isinstance(values, (list, tuple)) and not len(values):
        return NO_CURVE
    array = drawable(values, name, 2)
    if array.shape[1] != 2 or not (empty or len(array)):
        raise ValueError(f"{name} must have shape (n, 2), got shape {array.shape}")
    return array


def all_points(values: Any, name: str) -> FloatArray:
    """Points (n, 2) without gaps."""
    return check_moderate(check_array(values, name, (None, 2)), name)


def temperatures(values: Any, name: str) -> FloatArray:
    """Temperatures (n,), which a logarithmic axis can show."""
    listed = isinstance(values, Iterable) and not isinstance(values, (str, bytes, dict, set, np.ndarray))
    array = drawable(list(values) if listed else values, name, 1)
    if (array <= 0).any():
        raise ValueError(f"{name} must be positive temperatures, got {array[array <= 0][0]:g}")
    return array


def curve_points(values: Any, name: str) -> FloatArray:
    """Points (n, 2) whose first column are temperatures."""
    array = table(values, name, empty=True)
    temperatures(array[:, 0], name)
    return array


def betas_and_values(branch: Any, values: Any) -> tuple[FloatArray, FloatArray]:
    """Temperatures and values (n,), as many of one as of the other."""
    betas, values = temperatures(branch, "branch"), drawable(values, "values", 1)
    if len(betas) != len(values) or not len(betas):
        raise ValueError(f"values must be one per temperature of branch, got {len(values)} for {len(betas)}")
    return betas, values


def along(branch: Branch, name: str) -> FloatArray:
    """Points (beta, quantity) of a branch (n, 2), from the lowest temperature up."""
    if not len(branch):
        raise ValueError("the branch is empty: solve at least one temperature")
    points = np.column_stack([branch.betas, getattr(branch, name)])
    return np.asarray(points[np.argsort(branch.betas, kind="stable")])


def literal(name: Any) -> str:
    """A name as text for a picture, in which a dollar does not begin a formula."""
    return "".join(letter if letter.isprintable() else " " for letter in str(name)).replace("$", r"\$")
