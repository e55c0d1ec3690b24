"""Lagrangian: constraints and their multipliers as an objective (T1)-(T5)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .. import equations
from .._utils.arrays import Array, FloatArray
from .._utils.blas import single_threaded_blas
from .._utils.checks import check_instance, check_non_negative, check_positive
from .._utils.device import to_host
from ..data.frame import Frame
from .constraints import RE, Constraint
from .decoder_update import Values, minimise


class NoMinimiserError(ValueError):
    """Energies that nothing bounds: the message says what to put beside them.

    Examples
    --------
    >>> issubclass(NoMinimiserError, ValueError)
    True
    """


@dataclass(frozen=True, eq=False, repr=False)
class Lagrangian:
    """The Lagrangian R + sum_k lambda_k E[C_k] of constraints C_k (Taming VAEs; T1, T2, T5).

    Its free energy F = R + sum_k lambda_k E[H_k], C_k = H_k - allowance_k, is without the thresholds.

    Parameters
    ----------
    constraints : constraint or sequence of them
        `RE`, `FRE`, `CLA`, `PNCC`, or any other `Constraint`.
    multipliers : float or sequence of them
        lambda_k >= 0 at beta = 1.
    beta : float
        Temperature: the multipliers in force are these over beta, so that a sweep moves all of them together.
    box : (low, high), optional
        Bounds of the reconstructions, numbers or (D,) arrays in units of x.
    anchor : float
        Multiplier at beta = 1 of a squared error ||x - psi||^2 that is no constraint. Energies without a minimiser (CLA
        and PNCC without RE or FRE) need a small one, or a box.
    frame : Frame, optional
        Set by the solver: coordinates in which it gives points.

    Raises
    ------
    ValueError
        For bad input.
    NoMinimiserError
        If nothing keeps the reconstructions from infinity or along a flat direction (T2).

    Examples
    --------
    >>> from constrained_vae import ELBO, RE, Tiling, solve
    >>> two = [[-1.0], [1.0]]
    >>> s = solve(two, Lagrangian(RE(0.3), 1.0), tiling=Tiling.uniform(2))  # as ELBO(beta=0.5): lambda = 1 / (2 beta)
    >>> round(s.rate, 6), round(s.constraint_values["RE"], 6)  # E||x - psi||^2 = 0.083186, less 0.3^2
    (0.59029, -0.006814)
    """

    constraints: Any
    multipliers: Any
    beta: float = 1.0
    box: Any = None
    anchor: float = 0.0
    frame: Frame | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        constraints = tuple(self.constraints) if isinstance(self.constraints, Sequence) else (self.constraints,)
        for constraint in constraints:
            check_instance(constraint, "constraints", Constraint, "RE(kappa=0.3)")
        given = (self.multipliers,) if np.ndim(self.multipliers) == 0 else tuple(self.multipliers)
        multipliers = tuple(check_non_negative(value, "multipliers") for value in given)
        if not constraints or len(multipliers) != len(constraints):
            raise ValueError(
                f"multipliers must be one per constraint, at least one, got {len(multipliers)} for {len(constraints)}"
            )
        object.__setattr__(self, "constraints", constraints)
        object.__setattr__(self, "multipliers", multipliers)
        object.__setattr__(self, "beta", check_positive(self.beta, "beta"))
        object.__setattr__(self, "anchor", check_non_negative(self.anchor, "anchor"))
        if self.box is not None:
            object.__setattr__(self, "box", _box(self.box))
        paid = [c for c, value in zip(constraints, multipliers, strict=True) if value > 0] or constraints
        flat = [c.name for c in paid if not (c.bounded or c.quadratic)]
        if self.box is None and not self.anchor and flat and not any(c.bounded for c in paid):
            names = " and ".join(flat)
            raise NoMinimiserError(
                f"{names} alone would send reconstructions to infinity or along a flat direction: add an RE, or give "
                "box=(low, high) or a small anchor= (the multiplier of a squared error)"
            )

    def __repr__(self) -> str:
        terms = ", ".join(f"{value:.6g} {c!r}" for value, c in zip(self.values, self.constraints, strict=True))
        return f"Lagrangian({terms}; beta={self.beta:.6g})"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the constraints are called; of equals the second is numbered 2."""
        names: list[str] = []
        for constraint in self.constraints:
            numbered = (f"{constraint.name}_{number}" for number in itertools.count(2))
            names.append(next(name for name in itertools.chain([constraint.name], numbered) if name not in names))
        return tuple(names)

    @property
    def values(self) -> FloatArray:
        """Multipliers in force, lambda_k / beta, in the order of the constraints."""
        return np.array(self.multipliers) / self.beta

    # --- in the frame ----------------------------------------------------------------------------------------------

    @cached_property
    def _energies(self) -> tuple[tuple[float, Constraint], ...]:
        """Multipliers and energies, the anchor's last."""
        pairs = [(float(value), c.in_frame(self.frame)) for value, c in zip(self.values, self.constraints, strict=True)]
        if self.anchor:
            pairs.append((self.anchor / self.beta, RE(0.0, name="anchor", frame=self.frame)))
        return tuple(pairs)

    @property
    def equivariant(self) -> bool:
        """The frame is always the standard one: constraints are told where it lies."""
        return True

    @cached_property
    def _closed(self) -> bool:
        """Whether the weighted mean is the decoder update: all energies are squared distances of linear maps."""
        return self.box is None and all(energy.quadratic for _, energy in self._energies)

    @cached_property
    def quadratic(self) -> float | None:
        """The multiplier of ||x - psi||^2 where there is no other energy, so that a kernel may compute it as one."""
        if self.box is not None or not all(isinstance(energy, RE) for _, energy in self._energies):
            return None
        return None if self.frame is None else self._mean_curvature(self.frame.centre.size) / 2

    @cached_property
    def stiffness(self) -> float:
        """About the mean curvature of the energy, exactly that of a squared distance; 1 where nothing is paid for.

        NaN outside of any frame, where it is not known how many dimensions there are.
        """
        return np.nan if self.frame is None else self._mean_curvature(self.frame.centre.size) or 1.0

    def _mean_curvature(self, dim: int) -> float:
        return float(sum(value * energy.mean_curvature(dim) for value, energy in self._energies))

    @property
    def allowance(self) -> float:
        """What the thresholds take off the Lagrangian, sum_k lambda_k allowance_k, in nats."""
        return float(self.values @ [c.allowance for c in self.constraints])

    @cached_property
    def labelled(self) -> int | None:
        """The number of data points, where a constraint knows their labels."""
        counts = {c.labelled for c in self.constraints} - {None}
        if len(counts) > 1:
            raise ValueError(f"constraints must know the same data points, got labels of {sorted(counts)} of them")
        return counts.pop() if counts else None

    def at(self, beta: float) -> Lagrangian:
        """The same constraints with all multipliers over beta."""
        return replace(self, beta=beta)

    def check(self, x: Array) -> None:
        for constraint in self.constraints:
            constraint.check(x)
        for bound in self.box or ():
            if np.size(bound) not in (1, x.shape[1]):
                raise ValueError(
                    f"box must have bounds for {x.shape[1]} dimensions, or one for all, got {np.size(bound)}"
                )

    def in_frame(self, frame: Frame) -> Lagrangian:
        """The same objective for data measured in the frame; energies are unchanged."""
        return replace(self, frame=frame)

    def statistics(self, x: Array, rows: slice | None = None) -> tuple[Array, Array]:
        """Statistics of all constraints side by side, x only once, and a column of s for each, (N, C)."""
        if self.quadratic is not None:
            parts = [energy.statistics(x, rows) for _, energy in self._energies]
            return x, array_namespace(x).stack([s for _, s in parts], axis=1)
        parts = [energy.statistics(to_host(x), rows) for _, energy in self._energies]
        kept = [
            phi for phi, (_, energy) in zip((p for p, _ in parts), self._energies, strict=True) if not energy.quadratic
        ]
        if self._shared:
            kept.insert(0, to_host(x))
        xp = array_namespace(x)
        return xp.asarray(np.concatenate(kept, axis=1)), xp.asarray(np.stack([s for _, s in parts], axis=1))

    def offset(self, s: Array) -> Array:
        return s @ array_namespace(s).asarray(np.array([value for value, _ in self._energies]))

    @cached_property
    def _shared(self) -> bool:
        """Whether x itself is among the statistics."""
        return any(energy.quadratic for _, energy in self._energies)

    def _columns(self, dim: int) -> list[slice]:
        """Columns of the statistics of every energy, for data of D dimensions; remembered."""
        known = self.__dict__.get("_slices", [])
        if not known or self.frame is None:
            start = dim if self._shared else 0
            known = []
            for _, energy in self._energies:
                size = energy.readout(np.zeros((1, dim)))[0].shape[1]
                known.append(slice(0, dim) if energy.quadratic else slice(start, start + size))
                start += 0 if energy.quadratic else size
            self.__dict__["_slices"] = known
        return known

    def readout(self, psi: Array) -> tuple[Array, Array]:
        if self.quadratic is not None:
            return 2 * self.quadratic * psi, -self.quadratic * (psi * psi).sum(axis=1)
        xp, psi = array_namespace(psi), to_host(psi)
        slices = self._columns(psi.shape[1])
        v, b = np.zeros((len(psi), max(columns.stop for columns in slices))), np.zeros(len(psi))
        for (value, energy), columns in zip(self._energies, slices, strict=True):
            v_part, b_part = energy.readout(psi)
            v[:, columns] += value * v_part
            b += value * b_part
        return xp.asarray(v), xp.asarray(b)

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        psi, dv, db = map(to_host, (psi, dv, db))
        total = np.zeros_like(psi)
        for (value, energy), columns in zip(self._energies, self._columns(psi.shape[1]), strict=True):
            total += value * energy.pullback(psi, dv[:, columns], db)
        return total

    def decoder(self, mass: Array, sums: Array, psi: Array, inverse: Array | None = None) -> Array:
        """The weighted mean where that is the minimiser, else an inner minimisation from psi (T2); never uphill.

        Where they are known, A^-1/2 of the curvatures of all tiles, `inverse` (K, D, D), shorten that.
        """
        if self._closed:
            dim = psi.shape[1]
            return equations.decoder(sums[:, :dim], mass, psi)
        xp = array_namespace(psi)
        mass, sums, psi = map(to_host, (mass, sums, psi))
        alive = np.flatnonzero(mass > 0)
        target = sums[alive] / mass[alive, None]
        image = psi.copy()
        low, high = self.bounds
        start = psi[alive].clip(low, high)
        scale = self._mean_curvature(psi.shape[1]) or 1.0 if np.isnan(self.stiffness) else self.stiffness
        known = None if inverse is None or self.box is not None else to_host(inverse)[alive]
        with single_threaded_blas():  # products are small, and many
            image[alive] = minimise(*self._inner(target), start, scale, (low, high), known)
        return xp.asarray(image)

    def _inner(self, target: FloatArray) -> tuple[Values, Values]:
        """Mean energy of every tile as a function of its reconstruction, but for a constant, and its gradient (T2).

        `target` (k, S) holds the mean statistics sum_i w_ia phi_i.
        """

        def value(psi: FloatArray, tiles: Any) -> FloatArray:
            v, b = self.readout(psi)
            return -b - (target[tiles] * v).sum(axis=1)

        def gradient(psi: FloatArray, tiles: Any) -> FloatArray:
            return -self.pullback(psi, target[tiles], np.ones(len(psi)))

        return value, gradient

    @cached_property
    def bounds(self) -> tuple[Any, Any]:
        """Those of the box in the frame; infinite without one."""
        if self.box is None:
            return -np.inf, np.inf
        low, high = (bound if self.frame is None else self.frame.inward(np.asarray(bound)) for bound in self.box)
        return low, high

    def coordinates(self, psi: Array) -> Array:
        return psi

    def reconstructions(self, u: Array) -> Array:
        """The nearest point of the box."""
        if self.box is None:
            return u
        low, high = (array_namespace(u).asarray(bound) for bound in self.bounds)
        return u.clip(low, high)

    def curvature(self, psi: Array) -> Array | None:
        """lambda grad^2 f (K, D) where the energy is a squared distance, else None."""
        return None if self.quadratic is None else 0 * psi + 2 * self.quadratic

    def expected(self, offsets: FloatArray, mass: FloatArray, sums: FloatArray, psi: FloatArray) -> FloatArray:
        """E[C_k] of every constraint, (C,), from sum_i rho_i s_ik (C,) and the sums over the data at psi."""
        values, slices = [], self._columns(psi.shape[1])
        for k, columns in enumerate(slices[: len(self.constraints)]):
            _, energy = self._energies[k]
            v, b = energy.readout(psi)
            values.append(offsets[k] - mass @ b - (sums[:, columns] * v).sum() - energy.allowance)
        return np.array(values)

    def expected_slopes(self, mass: FloatArray, sums: FloatArray, psi: FloatArray) -> FloatArray:
        """Slopes d E[C_k] / d psi, (C, K, D), at fixed responsibilities."""
        parts = zip(self._energies[: len(self.constraints)], self._columns(psi.shape[1]), strict=False)
        return np.stack([-energy.pullback(psi, sums[:, columns], mass) for (_, energy), columns in parts])

    def settings(self) -> dict[str, Any]:
        """What `save` writes, enough to recognise the objective that `load` is given."""
        return {
            "objective": "Lagrangian",
            "constraints": [[repr(constraint), constraint.kappa] for constraint in self.constraints],
            "multipliers": list(self.multipliers),
            "beta": self.beta,
            "box": None if self.box is None else [np.asarray(bound).tolist() for bound in self.box],
            "anchor": self.anchor,
        }


def _box(box: Any) -> tuple[FloatArray | float, FloatArray | float]:
    """Bounds low < high, each a number or a vector."""
    try:
        low, high = (np.asarray(bound, dtype=np.float64) for bound in box)
    except (TypeError, ValueError):
        raise ValueError(f"box must be (low, high), numbers or one per dimension, got {box!r}") from None
    fits = low.ndim <= 1 and high.ndim <= 1 and (low.size == high.size or 1 in (low.size, high.size))
    if not (fits and np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"box must be finite bounds (low, high) with low < high in every dimension, got {box!r}")
    return low, high
