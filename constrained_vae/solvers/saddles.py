"""Ways off a saddle: halves of a site past its split condition (T9), (T13), and directions of negative curvature."""

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

_SHORTEST_KICK = 1e-7  # standard deviations of a site's data
_SLIDES = (0.3, -0.3, 0.03, -0.03, 0.003, -0.003)  # lengths; 1 in the metric would cost or gain about one nat


def excess(condition: SplitCondition) -> float:
    """How far a site is past its split condition: 1 - 1 / eigenvalue, 0 for a stable site."""
    return 1 - 1 / condition.eigenvalue if condition.eigenvalue > 1 else 0.0


def kicks(sites: Sites, condition: SplitCondition, objective: FramedObjective, free: bool) -> Iterator[Sites]:
    """The sites with one of them split into halves along its unstable axis, at falling distances.

    Near a continuous split the halves move apart by sqrt(3 excess / (kurtosis + 3)) standard deviations (T13):
    sqrt(excess) for Gaussian, sqrt(3 excess) for two-point data. The first kick is short of both.
    """
    coordinates = replace(sites, decoder=objective.coordinates(sites.decoder))
    length = 0.5 * np.sqrt(excess(condition))
    while length > _SHORTEST_KICK:
        kicked = coordinates.split(condition.site, length * condition.deviation, free)
        yield replace(kicked, decoder=objective.reconstructions(kicked.decoder))
        length /= 4


def distance_of_halves(condition: SplitCondition, mass: FloatArray) -> float:
    """How far the halves of an unstable site belong from its centre, as an error of the decoder."""
    spread = np.sqrt(3 * excess(condition) * mass[condition.site])
    return float(spread * np.linalg.norm(condition.direction))


def slides(point: Point, direction: Array) -> Iterator[Array]:
    """Vectors along a direction of negative curvature, at falling distances on both sides of the point."""
    u, _, metric = point.vectors
    size = np.sqrt(numbers(metric @ direction**2)[0])
    if np.isfinite(size) and size > 0:
        for length in _SLIDES:
            yield u + length / size * direction
