"""Results with an entry per row of a Dask array: Dask arrays of the same blocks, computed where they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils.arrays import FloatArray
from .._utils.checks import check_data
from ..data.frame import Frame
from ..data.graphs import array_of
from ..data.rows import Rows, check_reach
from ..latent.sites import Sites
from ..objectives.base import Objective
from ..problems.problem import Problem


@dataclass(frozen=True, eq=False)
class _Encoder:
    """A function of the posterior masses of a block of rows; it carries the solution without its data."""

    objective: Objective
    frame: Frame
    psi: FloatArray
    log_masses: FloatArray
    read: Callable[..., Any]
    args: tuple[Any, ...]

    def __call__(self, x: FloatArray) -> Any:
        x = check_data(x)
        self.objective.check(x)
        check_reach(x, self.frame)
        weights = np.full(len(x), 1 / len(x))
        rows = Rows(x, weights, self.frame, np.dtype(np.float64), keep=False)
        found = Problem.of(rows, self.objective, "reference").posteriors(self.psi, self.log_masses)
        return self.read(np.concatenate([q for q, *_ in found]), *self.args)


def per_row(
    solution: Any, x: Any, read: Callable[..., Any], *args: Any, columns: int | None, dtype: Any = float
) -> Any:
    """A Dask array of ``read(q, *args)``, for the masses q (n, K) of every block of rows.

    Parameters
    ----------
    solution : FixedPoint
        Its reconstructions are the tiles.
    x : dask array or dataframe
        Rows like those that were solved for.
    read : callable
        A module-level function.
    *args
        Small arrays.
    columns : int or None
        Number of columns of the result; None if it has one entry per row.
    dtype : dtype
        Type of the result.
    """
    array, _ = array_of(x)
    if array.shape[1] != solution.decoder.shape[1]:
        raise ValueError(
            f"x must have {solution.decoder.shape[1]} columns like the data solved for, got {array.shape[1]}"
        )
    psi, log_masses = solution.code
    encoder = _Encoder(solution.objective, solution.frame, psi, log_masses, read, args)
    if columns is None:
        return array.map_blocks(encoder, dtype=dtype, drop_axis=1, meta=np.empty(0, dtype))
    chunks = array.chunks[0], (columns,)
    return array.map_blocks(encoder, dtype=dtype, chunks=chunks, meta=np.empty((0, columns), dtype))


def masses(q: FloatArray) -> FloatArray:
    """The posterior masses."""
    return q


def nearest(q: FloatArray, sites: Sites) -> npt.NDArray[np.intp]:
    """The distinct reconstruction of largest posterior mass."""
    return sites.total(q).argmax(axis=1)


def grouped(q: FloatArray, sites: Sites, order: npt.NDArray[np.intp]) -> FloatArray:
    """Posterior masses of the distinct reconstructions, in an order."""
    return sites.total(q)[:, order]


def reconstructed(q: FloatArray, decoder: FloatArray) -> FloatArray:
    """Expected reconstructions (n, D)."""
    return q @ decoder
