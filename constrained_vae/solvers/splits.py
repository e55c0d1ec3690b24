"""Splits and mergers of sites: kick a site past its split condition (T9), (T13); tie sites that coincide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .._utils.arrays import FloatArray
from .._utils.device import to_host
from ..latent.sites import Sites
from ..objectives.base import FramedObjective
from ..results.fixed_point import same_distance
from .iteration import Iteration
from .masses import vanished
from .split_condition import SplitCondition, deviations, has_axes, split_axes, split_condition

_FAR = 0.2  # excess of an eigenvalue over 1 above which sites split together, since none of them is near a transition
_MIN_KICK = 1e-7  # in units of the standard deviation of a site's data


def kick(it: Iteration) -> bool:
    """Test the split condition (T9); split sites past it along their unstable axes (T13). Return whether it did."""
    point, sites, free = it.here, it.current_sites(), it.options.free
    log_masses, eligible = to_host(point.log_masses), sites.can_split(free)
    # No kick depends on the other sites, which `complete` tests once at the end.
    others = not (it.options.rough or eligible.any())
    condition = it.condition = split_condition(it.problem, sites.decoder, log_masses, eligible, others=others)
    if it.options.split and excess(condition) > 0:
        # If the gain is below rounding, as in float32 near a transition, the halves may meet again: do not repeat the
        # kick.
        last, gain = it.kicked_from, it.convergence.slack(point.free_energy)
        undone = last is not None and len(sites) <= last[0] and point.free_energy > last[1] - gain
        for kicked in () if undone else _proposed(it, sites, condition):
            before = len(sites), point.free_energy
            if it.move_to(kicked, strictly=True):
                it.kicked_from = before
                return True
        # No kick lowers F by more than rounding: the estimated distance of the halves is an error of the decoder.
        distance = distance_of_halves(condition, to_host(point.expectations.mass))
        it.error = max(it.error, distance)
    return False


def complete(it: Iteration) -> None:
    """Extend the condition of the last `kick` to the sites that may not split, on which no kick depends."""
    condition = it.condition
    if condition is None or condition.of_all:
        return
    sites, log_masses = it.current_sites(), to_host(it.here.log_masses)
    others = ~sites.can_split(it.options.free)
    found = split_condition(it.problem, sites.decoder, log_masses, others, others=False)
    it.condition = replace(condition, top=max(condition.top, found.top), of_all=True)


def _proposed(it: Iteration, sites: Sites, condition: SplitCondition) -> Iterator[Sites]:
    """The sites with all those split that are far past their condition, if there are several; then with one split."""
    objective, free = it.problem.framed, it.options.free
    several = np.flatnonzero(sites.can_split(free))
    if not free and len(several) > 1 and condition.eigenvalue > 1 + _FAR:
        values, along = _axes(it, sites, condition, several)
        chosen = np.flatnonzero(values > 1 + _FAR)
        if len(chosen) > 1:
            divided = replace(sites, decoder=objective.coordinates(sites.decoder))
            for n in chosen:
                length = 0.5 * np.sqrt(1 - 1 / values[n])
                divided = divided.split(int(several[n]), length * along[n], free)
            yield replace(divided, decoder=objective.reconstructions(divided.decoder))
    yield from kicks(sites, condition, objective, free)


def _axes(
    it: Iteration, sites: Sites, condition: SplitCondition, some: npt.NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues and deviations of some sites; of none if they would cost far more than the condition did."""
    if condition.local is not None:
        values, axes = (array[some] for array in condition.local)
        return values, deviations(it.problem, values, axes)
    if not has_axes(it.problem):
        return np.empty(0), np.empty((0, 0))
    return split_axes(it.problem, sites.decoder, to_host(it.here.log_masses), some)


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


def excess(condition: SplitCondition) -> float:
    """How far a site is past its split condition: 1 - 1 / eigenvalue, 0 for a stable site."""
    return 1 - 1 / condition.eigenvalue if condition.eigenvalue > 1 else 0.0


def distance_of_halves(condition: SplitCondition, mass: FloatArray) -> float:
    """Estimated distance of the halves of an unstable site from its centre, as an error of the decoder."""
    spread = np.sqrt(3 * excess(condition) * mass[condition.site])
    return float(spread * np.linalg.norm(condition.direction))


def tie(it: Iteration) -> bool:
    """Remove sites without mass and tie sites that coincide, if F does not rise; return whether the sites changed."""
    tolerance = same_distance(it.problem.data.radius, it.problem.framed.stiffness, it.error)
    before = len(it.sites)
    if it.options.free and (dead := vanished(it)).any():  # its tiles go to the site of largest mass
        it.move_to(it.current_sites().without(dead))
    merged = it.current_sites().merged(tolerance)
    if len(merged) < len(it.sites):
        it.move_to(merged)
    return len(it.sites) < before
