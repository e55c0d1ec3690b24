"""The residual of the map of a squared distance in extended precision, for modes so flat that rounding moves them.

Rounding of the map, of about 1e-15, over a curvature of 1e-7 is an error of 1e-8. It is not the sites that are rounded
too coarsely, but the sums from which the next ones follow. Where the `longdouble` of NumPy has more digits than float64
(11 bits more on x86-64), a pass in it gives the residual at the same sites, and the Newton step from the Hessian in
float64 corrects them: iterative refinement (Wilkinson 1963; Higham 2002, Accuracy and Stability of Numerical
Algorithms, chapter 12).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils import deadline, memory
from .._utils.arrays import Array, FloatArray
from .._utils.device import on_host, to_host
from ..data.prepared import Block, tree_sum
from ..problems.posterior import Tiles
from .iteration import Iteration

RATIO = float(np.finfo(np.longdouble).eps / np.finfo(np.float64).eps)  # of the roundings; 1 without more digits
_MOST_ENTRIES = 2**24  # of all rows and sites, of which a pass takes about 100 ns each

_Extended = npt.NDArray[np.longdouble]


def possible(it: Iteration) -> bool:
    """Whether there are more digits, the map is that of a squared distance, and a pass is short."""
    point, rows = it.here, it.problem.data.rows
    short = len(rows) * len(point.psi) <= _MOST_ENTRIES
    return RATIO < 0.1 and it.quadratic and short and not rows.streamed and on_host(point.psi)


def residual(it: Iteration) -> FloatArray:
    """Residual r (n,) of the current point, in the order of `Point.vectors`; the pass counts as a map."""
    point = it.here
    it.recorder.count()
    psi, log_masses = to_host(point.psi), to_host(point.log_masses)
    sums = it.problem.total(_moments, psi, log_masses, psi, np.asarray([it.problem.framed.quadratic]))
    mass, alive = sums[:, -1], sums[:, -1] > 0
    scale = np.where(alive, mass, 1)
    step = sums[:, :-1] / scale[:, None]
    if not point.free:
        return step.ravel().astype(np.float64)
    log_step = np.where(alive, np.log(scale) - np.where(alive, log_masses, 0.0), 0.0)
    return np.concatenate([step.ravel(), log_step]).astype(np.float64)


def _moments(block: Block, tiles: Tiles, psi: Array, lam: Array) -> Any:
    """sum_i rho_i q_ia (x_i - psi_a, 1) of every site, (k, D + 1), in extended precision."""
    phi, rho = to_host(block.phi), to_host(block.rho)
    rows = memory.rows_of_block(len(psi) * (psi.shape[1] + 1) * 2)
    parts = (slice(i, i + rows) for i in range(0, len(phi), rows))
    return tree_sum(_moments_of(phi[part], rho[part], to_host(tiles.log_masses), psi, lam) for part in parts)


def _moments_of(x: FloatArray, rho: FloatArray, log_masses: FloatArray, psi: FloatArray, lam: FloatArray) -> _Extended:
    deadline.check()
    shift = x.astype(np.longdouble)[:, None] - psi
    exponent = log_masses - lam[0] * (shift * shift).sum(axis=2)
    weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    weight *= rho[:, None] / weight.sum(axis=1, keepdims=True)
    return np.concatenate([(weight[:, :, None] * shift).sum(axis=0), weight.sum(axis=0)[:, None]], axis=1)
