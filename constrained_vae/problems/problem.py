"""Problem: data, weights and objective in their frame, bound to a backend; one method is one map T of (T1)-(T2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from .._utils.arrays import Array, FloatArray
from .._utils.checks import check_dtype, check_instance, check_weights
from .._utils.device import numbers, to_host
from ..backends import get_backend
from ..data.frame import Frame
from ..data.rows import Rows, blocks_of, check_rows, standard_frame
from ..equations import Expectations, encoder, energies
from ..objectives.base import Objective
from ..objectives.lagrangian import Lagrangian


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything one map needs. `objective` and all reconstructions are in the frame of the data; see `make`."""

    rows: Rows
    objective: Objective
    backend: ModuleType

    @classmethod
    def make(cls, x: Any, objective: Objective, weights: Any, backend: str, dtype: Any) -> Problem:
        """Validate the data and put them into their frame.

        The frame of an equivariant objective has the weighted mean at the origin and root-mean-square radius 1; any
        other objective keeps the units of the data.
        """
        check_instance(objective, "objective", Objective, "ELBO(beta=0.5)")
        x = check_rows(x)
        rho = check_weights(weights, len(x))
        check_labelled(objective, len(x))
        for _, block in blocks_of(x):
            objective.check(block)
        frame = standard_frame(x, rho) if objective.equivariant else Frame(np.zeros(x.shape[1]), 1.0)
        return cls(Rows(x, rho, frame, check_dtype(dtype)), objective.in_frame(frame), get_backend(backend))

    def at(self, objective: Objective) -> Problem:
        """The same data under another objective of the same kind (a sweep changes beta); prepared data are kept."""
        problem = Problem(self.rows, objective.in_frame(self.rows.frame), self.backend)
        names = ["_resident", "_statistics", "mean"]
        names += [] if objective.equivariant else ["_radius"]
        names += ["mean_offsets"] if isinstance(objective, Lagrangian) else []
        for name in names:  # none of them knows beta
            problem.__dict__[name] = getattr(self, name)
        return problem

    @property
    def radius(self) -> float:
        """Root-mean-square distance of the data from their mean, in the frame."""
        return 1.0 if self.objective.equivariant else self._radius

    @cached_property
    def _radius(self) -> float:
        square = sum(float(rho @ np.square(x - self.mean).sum(axis=1)) for _, x, rho in self.rows.blocks())
        return float(np.sqrt(square)) or 1.0

    @cached_property
    def mean(self) -> FloatArray:
        """Weighted mean of the data, the collapsed reconstruction of every Bregman energy, (D,), in the frame."""
        return np.asarray(sum(rho @ x for _, x, rho in self.rows.blocks()), dtype=np.float64)

    @cached_property
    def mean_offsets(self) -> FloatArray:
        """Weighted means of what `offset` is made from, sum_i rho_i s_i: one number, or one per constraint."""
        return to_host(sum(rho @ s for _, s, rho in self._statistics or self._prepare()))

    @cached_property
    def collapsed(self) -> FloatArray:
        """The one reconstruction of all data, (D,), in the frame: their mean, or the minimiser downhill from there."""
        if self.objective.curvature(self.mean[None]) is not None:
            return self.mean
        start = self.to_device(self.mean[None])
        return to_host(self.image(start, self.expectations(start, self.to_device(np.zeros(1)))))[0]

    def to_device(self, array: Array) -> Array:
        """The array where the backend computes."""
        move = getattr(self.backend, "to_device", None)
        return array if move is None else move(array)

    @cached_property
    def _resident(self) -> tuple[Array, Array] | None:
        """All of x and rho where the backend computes, moved once; None where they are streamed.

        What else a map needs there, statistics and working space, is granted as much again.
        """
        free = getattr(self.backend, "free_memory", None)
        size = self.rows.dtype.itemsize * len(self.rows) * self.rows.source.shape[1]
        if self.rows.streamed or (free is not None and 2 * size > free()):
            return None
        ((_, x, rho),) = self.rows.blocks()
        return self.to_device(x), self.to_device(rho)

    def _blocks(self, columns: int | None = None) -> Iterator[tuple[slice, Array, Array]]:
        """Blocks (rows, x, rho) as `Rows` cuts them, where the backend computes."""
        if self._resident is None:
            for rows, x, rho in self.rows.blocks(columns or self.rows.source.shape[1]):
                yield rows, self.to_device(x), self.to_device(rho)
        else:
            x, rho = self._resident
            for rows, _, _ in self.rows.blocks(columns):
                yield rows, x[rows], rho[rows]

    def _prepare(self) -> Iterator[tuple[Array, Array, Array]]:
        """Blocks (phi, s, rho) with the multiplier-free statistics of the objective."""
        for rows, x, rho in self._blocks():
            phi, s = self.objective.statistics(x, rows)
            yield phi, s, rho

    @cached_property
    def _statistics(self) -> list[tuple[Array, Array, Array]] | None:
        """Those of data that stay, once and for all, and in the order that the backend likes best."""
        if self._resident is None:
            return None
        prepare = getattr(self.backend, "prepare", lambda *block: block)
        return [prepare(*block) for block in self._prepare()]

    @cached_property
    def _prepared(self) -> list[tuple[Array, Array, Array]] | None:
        return self._statistics and [(phi, self.objective.offset(s), rho) for phi, s, rho in self._statistics]

    def blocks(self) -> Iterator[tuple[Array, Array, Array]]:
        """Blocks (phi, offset, rho) (T4) where the backend computes: kept, or prepared on the way if data stream."""
        if self._prepared is not None:
            return iter(self._prepared)
        return ((phi, self.objective.offset(s), rho) for phi, s, rho in self._prepare())

    def readout(self, psi: Array) -> tuple[Array, Array]:
        """Readout (v, b) of the reconstructions (T4), in the precision of the data."""
        v, b = self.objective.readout(psi)
        return v.astype(self.rows.dtype, copy=False), b.astype(self.rows.dtype, copy=False)

    def expectations(self, psi: Array, log_masses: Array) -> Expectations:
        """One pass over all rows: marginal posterior, weighted statistics, free energy and energy, in float64.

        Reconstructions and result lie where the backend computes; free energy and energy are scalars there.
        """
        v, b = self.readout(psi)
        log_masses = log_masses.astype(self.rows.dtype, copy=False)
        quadratic = self.objective.quadratic
        parts = [self.backend.expectations(*block, v, b, log_masses, quadratic) for block in self.blocks()]
        total = sum(parts[1:], start=parts[0])
        mass, sums = (array.astype(np.float64, copy=False) for array in (total.mass, total.sums))
        return Expectations(mass, sums, total.free_energy, total.energy)

    def image(self, psi: Array, expectations: Expectations, inverse: Array | None = None) -> Array:
        """Decoder update T(psi) (T2) from the expectations at psi; a dead tile keeps its reconstruction.

        `inverse`, of the roots of curvatures (k, D, D), if known, helps an inner minimisation.
        """
        if inverse is not None and isinstance(self.objective, Lagrangian):
            return self.objective.decoder(expectations.mass, expectations.sums, psi, inverse)
        return self.objective.decoder(expectations.mass, expectations.sums, psi)

    def constraint_values(self, psi: Array, expectations: Expectations) -> tuple[float, ...]:
        """E[C_k] of every constraint of the objective; none of an ELBO."""
        if not isinstance(self.objective, Lagrangian):
            return ()
        sums = to_host(expectations.mass), to_host(expectations.sums)
        return tuple(self.objective.expected(self.mean_offsets, *sums, to_host(psi)).tolist())

    def distortion(self, psi: Array, log_masses: Array, expectations: Expectations) -> float:
        """E||x - psi||^2 in squared units of x, whatever the objective (one more pass unless it is the energy)."""
        if self.objective.quadratic:
            return float(expectations.energy) / self.objective.quadratic * self.rows.frame.scale**2
        parts = [
            (q.sum(axis=1) @ (x * x).sum(axis=1), q.sum(axis=0), q.T @ x)
            for x, q in self.responsibilities(psi, log_masses)
        ]
        square, mass, sums = (sum(part) for part in zip(*parts, strict=True))
        distortion = square + mass @ (psi * psi).sum(axis=1) - 2 * (sums * psi).sum()
        return numbers(distortion)[0] * self.rows.frame.scale**2

    def responsibilities(self, psi: Array, log_masses: Array) -> Iterator[tuple[Array, Array]]:
        """Row blocks (x, rho_i q_ia) for whoever needs more than the kernel's sums; blocks of at most 2^22 entries.

        They lie where psi does, on the host or where the backend computes.
        """
        return ((x, q) for x, _, q in self.posteriors(psi, log_masses))

    def posteriors(self, psi: Array, log_masses: Array) -> Iterator[tuple[Array, Array, Array]]:
        """The same with the statistics between them, (x, phi, rho_i q_ia)."""
        v, b = self.objective.readout(psi)
        blocks = self.rows.blocks if isinstance(psi, np.ndarray) else self._blocks
        for rows, x, rho in blocks(max(self.rows.source.shape[1], len(psi))):
            phi, s = self.objective.statistics(x, rows)
            q, _ = encoder(energies(phi, self.objective.offset(s), v, b), log_masses)
            yield x, phi, rho[:, None] * q


def check_labelled(objective: Objective, n: int) -> None:
    """Raise ValueError where the objective knows the labels of more or fewer points than there are."""
    if objective.labelled not in (None, n):
        raise ValueError(f"labels must be one per data point, got {objective.labelled} for {n} points")
