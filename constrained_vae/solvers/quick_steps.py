"""Quick steps: what the loop would do as long as every proposal is accepted, in one call of compiled code.

They are taken for squared distances in small problems, where the Python code of a step takes several times as long as
its map. The backend makes them, see `constrained_vae.backends.descent`.
"""

from __future__ import annotations

import numpy as np

from .._utils.arrays import FloatArray
from ..data.prepared import Block
from ..equations import Expectations
from . import soft_modes
from .acceleration import MAX_PAST, Past
from .iteration import Iteration
from .point import Point

_MOST = 32  # steps of one call


def take(it: Iteration, tol: float) -> tuple[int, Point | None]:
    """Take steps; return how many, and the proposal that ended them if F rises there.

    They end where the loop has another test to make. Before a proposal that is rejected it has made all of them.
    """
    point, options, convergence = it.here, it.options, it.convergence
    most = min(_MOST, options.max_maps - it.recorder.n_maps, max(1, soft_modes.maps_until_due(it)))
    if most < 1 or not it.history or not _possible(it):
        return 0, None
    data, objective = it.problem.data, it.problem.framed
    block = data.total(_itself)
    low, high = convergence.range_of_closing(point.residual)
    u, r, plain, du, dr = zip(*it.history, strict=True)
    found = data.backend.steps(
        (block.phi, block.offset(objective), block.rho),
        objective.quadratic,
        (u, r, du, dr),
        point.vectors[2],
        (point.log_masses, point.expectations.mass),
        point.free,
        (point.free_energy, convergence.noise, max(low, tol) if options.rough else low, high),
        1 if it.recorder.reports else most,
    )
    if found is None:
        return 0, None

    def of(state: tuple[FloatArray, ...]) -> Point:
        psi, log_masses, mass, sums, updated, totals = state
        return Point(objective, point.free, psi, log_masses, Expectations(mass, sums, *totals), updated, objective)

    rejected = None if found.rejected is None else of(found.rejected)
    it.recorder.count(found.maps)
    if found.accepted:
        plain += (len(plain) == 1,) + (False,) * (found.accepted - 1)
        it.reach(of(found.last), list(map(Past, found.u, found.r, plain, found.du, found.dr))[-MAX_PAST:])
        for residual in found.residuals[: found.accepted - (rejected is None)].tolist():
            convergence.closing(residual)
    return found.accepted, rejected


def _possible(it: Iteration) -> bool:
    """Whether the map is that of a squared distance, in float64 on the host, and small."""
    data, point = it.problem.data, it.here
    known = it.options.accelerate == "lbfgs" and it.quadratic and hasattr(data.backend, "steps")
    if not known or data.rows.streamed or data.dtype.type is not np.float64:
        return False
    (K, S) = point.psi.shape
    return bool(data.backend.are_quick(len(data), K, S))


def _itself(block: Block) -> Block:
    return block
