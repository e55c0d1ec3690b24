"""Generations of sites: with free masses, all sites past their split condition (T9) split together.

The start is one site, at the mean, with all tiles. A generation is solved roughly; then each site past its split
condition becomes two, as far as there are spare tiles, those first whose split gains most. So no saddle is left for a
single site, and tiles that are not needed do not make F flat: where tiles are spread from the start, many of them share
what one needs, and F hardly changes in an exchange of their masses.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .._utils.arrays import FloatArray
from .._utils.device import to_host
from . import splits
from .acceleration import ACCELERATORS
from .iteration import Iteration
from .split_condition import has_axes, split_axes

_ROUGH = 1e-4  # in units of the data's radius: residual at which a generation is solved
_MOST_MAPS = 100  # of one generation
_EXCESS = 1e-6  # of an eigenvalue over 1, below which a site is left to `splits.kick`


def possible(it: Iteration) -> bool:
    """Whether axes of all sites are known from one pass, and masses are free, so that any site can split."""
    return it.options.free and it.options.split and has_axes(it.problem)


def grow(it: Iteration) -> None:
    """Solve generations roughly, from the current sites on, until no site is past its split condition."""
    accelerator, tol = ACCELERATORS[it.options.accelerate], _ROUGH * it.problem.data.radius
    while True:
        began, it.history = it.recorder.n_maps, it.history[-1:]
        while it.here.residual > tol and it.recorder.n_maps - began < _MOST_MAPS:
            it.advance(it.accelerated(accelerator))
        splits.tie(it)
        if not divide(it):
            return


def divide(it: Iteration) -> bool:
    """Split the sites past their split condition along their axes; return whether F falls there."""
    sites = it.current_sites()
    spare = len(sites.index) - len(sites)
    if not spare:
        return False
    values, deviations = split_axes(it.problem, sites.decoder, to_host(it.here.log_masses))
    unstable = np.flatnonzero(values > 1 + _EXCESS)
    gain = to_host(it.here.expectations.mass)[unstable] * gain_of_many(values[unstable])
    chosen = np.argsort(-gain, kind="stable")[:spare]
    if not len(chosen):
        return False
    objective = it.problem.framed
    divided = replace(sites, decoder=objective.coordinates(sites.decoder))
    for site in unstable[chosen]:
        divided = divided.split(int(site), np.sqrt(1 - 1 / values[site]) * deviations[site], free=True)
    return it.move_to(replace(divided, decoder=objective.reconstructions(divided.decoder)), strictly=True)


def gain_of_many(values: FloatArray) -> FloatArray:
    """How far F falls, per mass, if a site of Gaussian data is replaced by as many as are of use, in nats.

    At an eigenvalue v = variance / (sigma^2 beta) its energy is v / 2; the rate-distortion function has
    F = (1 + log v) / 2.
    """
    return np.asarray((values - 1 - np.log(values)) / 2)
