"""The reference backend: the equations in a loop over row blocks. The tests compare every other backend with it."""

from __future__ import annotations

from .. import equations
from .._utils import memory
from .._utils.arrays import Array
from .._utils.device import check_together
from ..equations import Expectations


def expectations(
    statistics: Array,
    offset: Array,
    weights: Array,
    v: Array,
    b: Array,
    log_masses: Array,
    quadratic: float | None = None,
) -> Expectations:
    """Expectations of all rows, summed over row blocks in order; `constrained_vae.backends` documents the arguments.

    All arrays must be NumPy arrays or all must be CuPy arrays, otherwise ValueError is raised.
    """
    check_together(statistics=statistics, offset=offset, weights=weights, v=v, b=b, log_masses=log_masses)
    rows = memory.rows_of_block(len(b))
    parts = (slice(i, i + rows) for i in range(0, len(weights), rows))
    blocks = [
        equations.expectations(statistics[part], offset[part], weights[part], v, b, log_masses, quadratic)
        for part in parts
    ]
    return sum(blocks[1:], start=blocks[0])
