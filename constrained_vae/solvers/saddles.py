"""Steps away from a saddle of the sites, along a direction of negative curvature."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .._utils.arrays import Array
from .._utils.device import numbers
from .iteration import Iteration
from .point import Point

_SLIDE_LENGTHS = (0.3, -0.3, 0.03, -0.03, 0.003, -0.003)  # in the metric, where length 1 changes F by about one nat


def slide(it: Iteration, direction: Array) -> bool:
    """Leave a saddle along a direction of negative curvature, if F falls there; return whether it does."""
    for vector in slides(it.here, direction):
        candidate = it.evaluate_vector(vector)
        if candidate.finite and it.here.free_energy - candidate.free_energy > it.slack():
            it.history, it.convergence.factor, it.slid = [], np.nan, True
            it.accept(candidate)
            return True
    return False


def slides(point: Point, direction: Array) -> Iterator[Array]:
    """Vectors along a direction of negative curvature, at decreasing distances on both sides of the point."""
    u, _, metric = point.vectors
    size = np.sqrt(numbers(metric @ direction**2)[0])
    if np.isfinite(size) and size > 0:
        for length in _SLIDE_LENGTHS:
            yield u + length / size * direction
