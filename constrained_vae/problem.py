"""Problem: data, weights and objective in their frame, bound to a backend; one method is one map T of (T1)-(T2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from ._checks import FloatArray, check_data, check_dtype, check_instance, check_weights
from .backends import get_backend
from .equations import Array, Expectations, encoder, energies
from .objectives import Frame, Objective
from .rows import Rows, standard_frame


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
        x = check_data(x)
        rho = check_weights(weights, len(x))
        objective.check(x)
        frame = standard_frame(x, rho) if objective.equivariant else Frame(np.zeros(x.shape[1]), 1.0)
        return cls(Rows(x, rho, frame, check_dtype(dtype)), objective.in_frame(frame), get_backend(backend))

    def at(self, objective: Objective) -> Problem:
        """The same data under another objective of the same kind (a sweep changes beta); prepared data are kept."""
        problem = Problem(self.rows, objective.in_frame(self.rows.frame), self.backend)
        for name in ("_statistics", "_radius", "mean"):  # none of them knows beta
            if name in self.__dict__:
                problem.__dict__[name] = self.__dict__[name]
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
    def _statistics(self) -> list[tuple[Array, Array, Array]]:
        return list(self._prepare())

    def _prepare(self) -> Iterator[tuple[Array, Array, Array]]:
        """Blocks (phi, s, rho) with the multiplier-free statistics of the objective."""
        for rows, x, rho in self.rows.blocks():
            phi, s = self.objective.statistics(x, rows)
            yield phi, s, rho

    def blocks(self) -> Iterator[tuple[Array, Array, Array]]:
        """Blocks (phi, offset, rho) (T4): kept for data in memory, prepared on the way for a memory map."""
        if isinstance(self.rows.source, np.memmap):
            return ((phi, self.objective.offset(s), rho) for phi, s, rho in self._prepare())
        return iter(self._prepared)

    @cached_property
    def _prepared(self) -> list[tuple[Array, Array, Array]]:
        return [(phi, self.objective.offset(s), rho) for phi, s, rho in self._statistics]

    def readout(self, psi: Array) -> tuple[Array, Array]:
        """Readout (v, b) of the reconstructions (T4), in the precision of the data."""
        v, b = self.objective.readout(psi)
        return v.astype(self.rows.dtype, copy=False), b.astype(self.rows.dtype, copy=False)

    def expectations(self, psi: Array, log_masses: Array) -> Expectations:
        """One pass over all rows: marginal posterior, weighted statistics, free energy and energy, in float64."""
        v, b = self.readout(psi)
        log_masses = log_masses.astype(self.rows.dtype, copy=False)
        quadratic = self.objective.quadratic
        parts = [self.backend.expectations(*block, v, b, log_masses, quadratic) for block in self.blocks()]
        total = sum(parts[1:], start=parts[0])
        # What comes from a GPU comes to the host here: the loop and all that follows are (K, S) arrays of NumPy's.
        mass, sums = (
            np.asarray(array.get() if hasattr(array, "get") else array, dtype=np.float64)
            for array in (total.mass, total.sums)
        )
        return Expectations(mass, sums, float(total.free_energy), float(total.energy))

    def image(self, psi: Array, expectations: Expectations) -> Array:
        """Decoder update T(psi) (T2) from the expectations at psi; a dead tile keeps its reconstruction."""
        return self.objective.decoder(expectations.mass, expectations.sums, psi)

    def distortion(self, psi: Array, log_masses: Array, expectations: Expectations) -> float:
        """E||x - psi||^2 in squared units of x, whatever the objective (one more pass unless it is the energy)."""
        if self.objective.quadratic is not None:
            return float(expectations.energy / self.objective.quadratic) * self.rows.frame.scale**2
        square = 0.0
        mass, sums = np.zeros(len(psi)), np.zeros((len(psi), psi.shape[1]))
        for x, q in self.responsibilities(psi, log_masses):
            square += float(q.sum(axis=1) @ (x * x).sum(axis=1))
            mass, sums = mass + q.sum(axis=0), sums + q.T @ x
        return square + float(mass @ (psi * psi).sum(axis=1) - 2 * np.sum(sums * psi))

    def responsibilities(self, psi: Array, log_masses: Array) -> Iterator[tuple[Array, Array]]:
        """Row blocks (x, rho_i q_ia) for whoever needs more than the kernel's sums; blocks of at most 2^22 entries."""
        v, b = self.objective.readout(psi)
        for rows, x, rho in self.rows.blocks(max(self.rows.source.shape[1], len(psi))):
            phi, s = self.objective.statistics(x, rows)
            q, _ = encoder(energies(phi, self.objective.offset(s), v, b), log_masses)
            yield x, rho[:, None] * q
