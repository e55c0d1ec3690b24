"""Problem: data, weights and objective in their frame, bound to a backend; one method is one map T of (T1)-(T2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from ._checks import FloatArray, check_data, check_dtype, check_instance, check_masses, check_weights
from .backends import get_backend
from .equations import Array, Expectations, encoder, energies
from .objectives import Frame, Objective
from .rows import Rows, blocks_of, check_rows, standard_frame


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
        for _, block in blocks_of(x):
            objective.check(block)
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
        if self.rows.streamed:
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


def block_expectations(
    x: Any,
    decoder: Any,
    objective: Objective,
    *,
    masses: Any = None,
    weights: Any = None,
    frame: Frame | None = None,
    backend: str = "auto",
    dtype: Any = None,
) -> Expectations:
    """Sums over some of the data rows from which the next decoder follows; those of disjoint rows add up (T1), (T5).

    So rows may be shared out among machines: each evaluates its own, the results are summed, and
    ``objective.decoder(total.mass, total.sums, decoder)`` is the image of the decoder under the map of all rows (T2).

    Parameters
    ----------
    x : (n, D) array_like, memory map or RowBlocks
        The rows.
    decoder : (K, D) array_like
        Reconstruction vectors, in units of x.
    objective : Objective
    masses : (K,) array_like, optional
        Prior masses; equal ones by default.
    weights : (n,) array_like, optional
        Data weights rho of these rows; those of all rows together sum to 1. By default the rows are all the data.
    frame : Frame, optional
        Coordinates (x - centre) / scale in which the statistics are summed, the same for all parts; the decoder's image
        is then ``frame.outward(objective.in_frame(frame).decoder(mass, sums, frame.inward(decoder)))``. Without it the
        data should lie about the origin: far from it the sums lose digits.
    backend : {"auto", "numba", "cupy", "reference"}
    dtype : {float64, float32}, optional

    Returns
    -------
    Expectations
        ``mass`` (K,), ``sums`` (K, S), ``free_energy`` and ``energy`` in nats; ``+`` adds two of them.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> from constrained_vae import ELBO
    >>> x, psi, half = np.array([[-1.0], [1.0]]), np.array([[-0.5], [0.5]]), np.array([0.5])
    >>> parts = [block_expectations(x[i : i + 1], psi, ELBO(), weights=half) for i in range(2)]
    >>> total = parts[0] + parts[1]
    >>> ELBO().decoder(total.mass, total.sums, psi).ravel().round(4)
    array([-0.4621,  0.4621])
    """
    check_instance(objective, "objective", Objective, "ELBO(beta=0.5)")
    frame = Frame(np.zeros(1), 1.0) if frame is None else frame
    check_instance(frame, "frame", Frame, "Frame(centre, scale)")
    x, psi = check_rows(x), check_data(decoder, "decoder")
    if psi.shape[1] != x.shape[1]:
        raise ValueError(f"decoder must have {x.shape[1]} columns like x, got {psi.shape[1]}")
    for _, block in (*blocks_of(x), (None, psi)):
        objective.check(block)
    pi = np.full(len(psi), 1 / len(psi)) if masses is None else check_masses(masses)
    if len(pi) != len(psi):
        raise ValueError(f"masses must have one entry per reconstruction, got {len(pi)} for {len(psi)}")
    rho = check_weights(weights, len(x))
    if weights is not None:
        rho = rho * np.sum(weights)  # these rows' share
    problem = Problem(Rows(x, rho, frame, check_dtype(dtype)), objective.in_frame(frame), get_backend(backend))
    with np.errstate(divide="ignore"):
        return problem.expectations(frame.inward(np.asarray(psi, np.float64)), np.log(pi))
