"""Problem: data and objective in the frame of the data, bound to a backend, with both steps of a map (T1), (T2)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from .._utils import deadline
from .._utils.arrays import Array, FloatArray
from .._utils.checks import check_dtype, check_instance
from .._utils.device import numbers, to_host
from .._utils.frames import column_names, own_weights
from ..backends import get_backend
from ..data.frame import Frame
from ..data.partitions import Partitions, check_source, prepared_data, weights_of
from ..data.prepared import Block, Kept, PreparedData, Statistics
from ..data.rows import RowBlocks, Rows, check_radius, check_reach, scaled_frame, standard_frame
from ..equations import Expectations
from ..objectives.base import FramedObjective, Objective
from ..objectives.elbo import ELBO
from .posterior import Posterior, Tiles, posterior, responsibilities

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Problem:
    """Prepared data and an objective, which together define the map.

    All reconstructions are in the frame of the data. `make` takes data in their own units.

    Attributes
    ----------
    data : PreparedData
        The data, prepared for passes.
    objective : Objective
        The objective as given, in units of the data.
    """

    data: PreparedData
    objective: Objective

    @classmethod
    def make(
        cls,
        x: npt.ArrayLike | RowBlocks,
        objective: Objective | None,
        weights: npt.ArrayLike | None,
        backend: str,
        dtype: npt.DTypeLike | None = None,
        *,
        beta: float | None = None,
        sigma: float | None = None,
        kind: type = Objective,
    ) -> Problem:
        """Validate the data and put them into their frame.

        In the frame of an equivariant objective the data have their weighted mean at the origin and the
        root-mean-square radius 1. The frame of any other objective keeps the origin of the data, and unless the
        objective is homogeneous their units. The objective is
        `ELBO()` by default and must be an instance of `kind`; `beta` and `sigma` replace its own if they are given.
        """
        objective = ELBO() if objective is None else objective
        check_instance(objective, "objective", kind, "ELBO(beta=0.5)" if kind is Objective else "ELBO()")
        objective = objective if beta is None else objective.at(beta)
        if sigma is not None:
            check_instance(objective, "objective with sigma=", ELBO, "ELBO()")
            objective = replace(cast(ELBO, objective), sigma=sigma)
        weights = own_weights(x, weights)
        source = check_source(x, objective.check)
        names = source.names if isinstance(source, Partitions) else column_names(x)
        rho = weights_of(source, weights)
        check_labelled(objective, len(source))
        if isinstance(source, Partitions) and objective.labelled is not None:
            raise ValueError(
                "labels of the rows belong to data in memory, got an array of Dask: take a sample of the rows with its "
                "labels, or a constraint without labels"
            )
        frame = frame_of(source, rho, objective)
        if not rho.all():  # points without weight may lie anywhere, but their encoder is computed
            check_reach(source, frame)
        return cls.of(
            Rows(source, rho, frame, check_dtype(dtype), names=getattr(source, "names", None) or names),
            objective,
            backend,
        )

    @classmethod
    def of(cls, rows: Rows, objective: Objective, backend: str) -> Problem:
        """The problem of rows with a frame."""
        # The statistics of an ELBO are the same at all temperatures, and blocks are prepared once for equal functions.
        known = objective.at(1.0) if isinstance(objective, ELBO) else objective
        statistics = known.in_frame(rows.frame).statistics
        labelled = objective.labelled is not None
        data = prepared_data(rows, get_backend(backend), statistics, objective.equivariant, labelled)
        return cls(data, objective)

    def at(self, objective: Objective) -> Problem:
        """The same data with another objective that has the same statistics (a sweep changes beta)."""
        return replace(self, objective=objective)

    @cached_property
    def framed(self) -> FramedObjective:
        """The objective for points in the frame."""
        return self.objective.in_frame(self.data.frame)

    @cached_property
    def bregman(self) -> bool:
        """Whether the energy is a Bregman divergence, whose decoder update is a weighted mean (T3), (T4)."""
        return self.framed.curvature(self.data.mean[None]) is not None

    # --- the two steps of a map ---------------------------------------------------------------------------------------

    def expectations(self, psi: Array, log_masses: Array) -> Expectations:
        """E-step (T1): marginal posterior and sums for the M-step from one pass over all rows; the result is float64.

        Reconstructions and result are where the backend computes; free energy and energy are scalars there.
        """
        v, b = self.framed.readout(psi)
        if self.data.dtype.type is not np.float64:
            v, b, log_masses = (array.astype(self.data.dtype) for array in (v, b, log_masses))
        return self.data.total(_expectations, self.data.backend.expectations, self.framed, v, b, log_masses)

    def updated_decoder(self, psi: Array, expectations: Expectations, inverse: Array | None = None) -> Array:
        """M-step (T2): the decoder T(psi) from the expectations at psi; a dead tile keeps its reconstruction.

        `inverse`, the inverse roots of the curvatures (k, D, D), makes an inner minimisation faster if it is known.
        """
        known = () if inverse is None else (inverse,)
        return self.framed.decoder(expectations.mass, expectations.sums, psi, *known)

    # --- other passes over the data -----------------------------------------------------------------------------------

    def tiles(self, psi: Array, log_masses: Array) -> Tiles:
        """Reconstructions and log masses for `total`, copied to where the backend computes."""
        psi, log_masses = map(self.data.to_device, (psi, log_masses))
        return Tiles(self.framed, *self.framed.readout(psi), log_masses)

    def total(self, part: Callable[..., R], psi: Array, log_masses: Array, *arrays: Any, columns: int = 0) -> R:
        """The sum of ``part(block, tiles, *arrays)`` over the data, in blocks on which an encoder fits into memory.

        If `part` makes arrays of more columns than tiles, `columns` is their number.
        """
        there = (self.data.to_device(a) if isinstance(a, np.ndarray) else a for a in arrays)
        return self.data.total(part, self.tiles(psi, log_masses), *there, columns=max(len(psi), columns))

    def kept(self, part: Callable[..., Any], psi: Array, log_masses: Array) -> Kept:
        """``part(block, tiles)`` of every block, for several passes; see `PreparedData.kept`."""
        return self.data.kept(part, self.tiles(psi, log_masses), columns=len(psi))

    def posteriors(self, psi: Array, log_masses: Array) -> Iterator[Posterior]:
        """The E-step of every block, in the order of the rows if the backend keeps that order."""
        tiles = self.tiles(psi, log_masses)
        return (posterior(block, tiles) for block in self.data.blocks(len(psi)))

    def on(self, x: FloatArray | RowBlocks, weights: FloatArray | None = None) -> Problem:
        """The same objective for other points, given by x and weights only, without labels."""
        check_reach(x, self.data.frame)
        rho = np.full(len(x), 1 / len(x)) if weights is None else weights
        data, rows = self.data, replace(self.data.rows, source=x, weights=rho)
        known = functools.partial(_unlabelled, data.statistics)
        return replace(self, data=prepared_data(rows, data.backend, known, data.standardised, data.labelled))

    def constraint_values(self, psi: Array, expectations: Expectations) -> tuple[float, ...]:
        """E[C_k] of every constraint of the objective; an ELBO has none."""
        expected = getattr(self.framed, "expected", None)
        if expected is None:
            return ()
        arrays = (to_host(array) for array in (expectations.mass, expectations.sums, psi))
        return tuple(expected(self.data.mean_statistic, *arrays).tolist())

    def distortion(self, psi: Array, log_masses: Array, expectations: Expectations) -> float:
        """E||x - psi||^2 in squared units of x, for any objective; one more pass unless it is the energy."""
        scale = self.data.frame.scale
        if self.framed.quadratic:
            return max(float(expectations.energy), 0.0) / self.framed.quadratic * scale**2  # it may round below 0
        square, mass, sums = self.total(_second_moments, psi, log_masses)
        return max(numbers(square + mass @ (psi * psi).sum(axis=1) - 2 * (sums * psi).sum())[0], 0.0) * scale**2

    @cached_property
    def collapsed(self) -> FloatArray:
        """The single reconstruction of all data, (D,), in the frame: the mean, or the minimiser by descent from it.

        It has no deadline, since all results of a search depend on it.
        """
        mean = self.data.mean
        if self.bregman:
            return mean
        start = self.data.to_device(mean[None])
        with deadline.within(None):
            expectations = self.expectations(start, self.data.to_device(np.zeros(1)))
            return to_host(self.updated_decoder(start, expectations))[0]


def _unlabelled(statistics: Statistics, x: Array, rows: slice | None) -> tuple[Array, Array]:
    return statistics(x, None)


def _expectations(
    block: Block,
    kernel: Callable[..., Expectations],
    objective: FramedObjective,
    v: Array,
    b: Array,
    log_masses: Array,
) -> Expectations:
    kept = {} if block.kept is None else {"kept": block.kept}
    found = kernel(block.phi, block.offset(objective), block.rho, v, b, log_masses, objective.quadratic, **kept)
    if found.mass.dtype.type is np.float64:
        return found
    mass, sums = (array.astype(np.float64) for array in (found.mass, found.sums))
    return Expectations(mass, sums, found.free_energy, found.energy)


def _second_moments(block: Block, tiles: Tiles) -> tuple[Array, Array, Array]:
    q, x = responsibilities(block, tiles), block.x
    return q.sum(axis=1) @ (x * x).sum(axis=1), q.sum(axis=0), q.T @ x


def frame_of(x: FloatArray | RowBlocks, rho: FloatArray, objective: Objective) -> Frame:
    """The frame in which the data are solved under an objective."""
    if objective.equivariant:
        return check_radius(standard_frame(x, rho))
    return check_radius(scaled_frame(x, rho)) if is_homogeneous(objective) else Frame.identity(x.shape[1])


def is_homogeneous(objective: Objective) -> bool:
    """Whether the data may be scaled, though not moved."""
    return bool(getattr(objective, "homogeneous", False))


def check_labelled(objective: Objective, n: int) -> None:
    """Raise ValueError if the objective has labels of another number of points than n."""
    if objective.labelled not in (None, n):
        raise ValueError(f"labels must be one per data point, got {objective.labelled} for {n} points")
