"""package(): the result of an iteration, converted from the frame to units of the data."""

from __future__ import annotations

import numpy as np

from .._utils.arrays import FloatArray
from .._utils.device import to_host
from .._utils.lost import LostError
from ..data.partitions import given
from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from .point import Point
from .recorder import Recorder
from .split_condition import SplitCondition


def package(
    problem: Problem,
    tiling: Tiling,
    sites: Sites,
    point: Point,
    recorder: Recorder,
    error: float,
    condition: SplitCondition | None,
    status: Status,
) -> FixedPoint:
    """The result of an iteration in units of the data, one reconstruction per tile.

    `sites` are the sites of the point; `error` is its estimated error, in the frame.
    """
    rows, options = problem.data.rows, recorder.options
    decoder, mass = rows.frame.outward(sites.decoder), to_host(point.expectations.mass)
    # Beside a large offset the coordinates of the decoder lose digits that it has in the frame.
    rounding = np.finfo(np.float64).eps * _root_mean_square(decoder, mass)
    masses = sites.masses[sites.index]
    share = np.divide(
        sites.tile_masses, masses, out=np.zeros_like(masses), where=masses > 0
    )  # share of a tile in its site
    try:
        distortion = problem.distortion(point.psi, point.log_masses, point.expectations)
        expected = problem.constraint_values(point.psi, point.expectations)
    except LostError:
        distortion, expected = np.nan, (np.nan,) * len(getattr(problem.objective, "constraints", ()))
    return FixedPoint(
        x=given(rows.source),
        weights=rows.weights,
        objective=problem.objective,
        tiling=Tiling(sites.tile_masses, tiling.positions) if options.free else tiling,
        decoder=decoder[sites.index],
        marginal=mass[sites.index] * share,
        free_energy=point.free_energy,
        energy=float(point.expectations.energy),
        distortion=distortion,
        residual=point.residual * rows.frame.scale,
        error_estimate=error * rows.frame.scale + rounding,
        split_condition=np.nan if condition is None else condition.top,
        n_maps=recorder.n_maps,
        status=status,
        masses_free=options.free,
        frame=rows.frame,
        expected=expected,
        names=rows.names,
        trajectory=np.stack(recorder.trajectory) if options.record else None,
    )


def _root_mean_square(decoder: FloatArray, mass: FloatArray) -> float:
    """sqrt(sum_a m_a ||psi_a||^2), whatever the unit of the reconstructions."""
    lengths = np.abs(decoder[mass > 0])
    largest = float(lengths.max(initial=0.0)) or 1.0
    return largest * float(np.sqrt(mass[mass > 0] @ np.square(lengths / largest).sum(axis=1)))
