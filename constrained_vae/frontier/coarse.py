"""A problem of fewer points near one of very many points in few dimensions: there the search for its optimum begins.

Points of a cell that is much narrower than the resolution have nearly the same energies. One point at their mean stands
for them. Bounds are those of all points, so that nothing has to be proven about the cells.
"""

from __future__ import annotations

import numpy as np

from ..objectives.elbo import ELBO
from ..problems.problem import Problem
from .data_passes import DataPasses
from .hierarchy import means_of_groups
from .proof import MOST_DIMENSIONS

_MANY = 2**17  # points of which a coarse problem is made
SIDES = 0.4, 0.1  # of cells, in units of the resolution
_SAVING = 8  # least ratio of the numbers of points
_LARGEST = 2**62  # numbers of cells that an integer can have


def coarse(data: DataPasses, side: float) -> Problem | None:
    """The problem of the means of cells of a side, or None if it would not be much smaller."""
    problem = data.problem
    rows, quadratic = problem.data.rows, problem.framed.quadratic
    if len(rows) < _MANY or rows.dim > MOST_DIMENSIONS or not isinstance(problem.objective, ELBO) or not quadratic:
        return None
    x = data.x
    cells = np.floor((x - x.min(axis=0)) / (side * problem.framed.stiffness**-0.5))
    counts = cells.max(axis=0) + 1
    if np.prod(counts) > _LARGEST:
        return None
    key = np.zeros(len(x), dtype=np.int64)
    for column, count in zip(cells.T, counts, strict=True):
        key = key * int(count) + column.astype(np.int64)
    _, index = np.unique(key, return_inverse=True)
    if (int(index.max()) + 1) * _SAVING > len(x):
        return None
    means, mass = means_of_groups(x, data.rho, index)
    backend = problem.data.backend.__name__.rpartition(".")[2]
    return Problem.make(problem.data.frame.outward(means), problem.objective, mass / mass.sum(), backend)
