"""Steps away from a saddle: splits of sites past their split condition (T9), (T13), and negative curvature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .._utils.arrays import Array, FloatArray
from .._utils.device import numbers
from ..latent.sites import Sites
from ..objectives.base import FramedObjective
from .point import Point
from .split_condition import SplitCondition

_MIN_KICK = 1e-7  # in units of the standard deviation of a site's data
_SLIDE_LENGTHS = (0.3, -0.3, 0.03, -0.03, 0.003, -0.003)  # in the metric, where length 1 changes F by about one nat


def excess(condition: SplitCondition) -> float:
    """How far a site is past its split condition: 1 - 1 / eigenvalue, 0 for a stable site."""
    return 1 - 1 / condition.eigenvalue if condition.eigenvalue > 1 else 0.0


def kicks(sites: Sites, condition: SplitCondition, objective: FramedObjective, free: bool) -> Iterator[Sites]:
    """The sites with one site split into halves along its unstable axis, at decreasing distances.

    Near a continuous split the halves move apart by sqrt(3 excess / (kurtosis + 3)) standard deviations (T13):
    sqrt(excess) for Gaussian data, sqrt(3 excess) for two points. The first kick is shorter than both.
    """
    coordinates = replace(sites, decoder=objective.coordinates(sites.decoder))
    length = 0.5 * np.sqrt(excess(condition))
    while length > _MIN_KICK:
        kicked = coordinates.split(condition.site, length * condition.deviation, free)
        yield replace(kicked, decoder=objective.reconstructions(kicked.decoder))
        length /= 4


def distance_of_halves(condition: SplitCondition, mass: FloatArray) -> float:
    """Estimated distance of the halves of an unstable site from its centre, as an error of the decoder."""
    spread = np.sqrt(3 * excess(condition) * mass[condition.site])
    return float(spread * np.linalg.norm(condition.direction))


def slides(point: Point, direction: Array) -> Iterator[Array]:
    """Vectors along a direction of negative curvature, at decreasing distances on both sides of the point."""
    u, _, metric = point.vectors
    size = np.sqrt(numbers(metric @ direction**2)[0])
    if np.isfinite(size) and size > 0:
        for length in _SLIDE_LENGTHS:
            yield u + length / size * direction
