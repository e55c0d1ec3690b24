"""Lagrangian: constraints with multipliers as an objective (T1)-(T5)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .. import equations
from .._utils.arrays import Array, FloatArray
from .._utils.blas import single_threaded
from .._utils.checks import check_instance, check_non_negative, check_positive, check_vector, finite_array, shown
from .._utils.device import array_namespace, to_host
from ..data.frame import Frame
from .constraint_energies import Energy, ScaledSquaredError
from .constraints import RE, Constraint
from .decoder_update import Values, minimise


class NoMinimiserError(ValueError):
    """The energies have no minimiser; the message says which term to add.

    Examples
    --------
    >>> issubclass(NoMinimiserError, ValueError)
    True
    """


@dataclass(frozen=True, eq=False, repr=False)
class Lagrangian:
    """The Lagrangian R + sum_k lambda_k E[C_k] of constraints C_k (Taming VAEs; T1, T2, T5).

    Its free energy F = R + sum_k lambda_k E[H_k] leaves out the thresholds: C_k = H_k - allowance_k.

    Parameters
    ----------
    constraints : constraint or sequence of them
        `RE`, `FRE`, `CLA`, `PNCC`, or any other `Constraint`.
    multipliers : float or sequence of them
        lambda_k >= 0 at beta = 1.
    beta : float
        Temperature. The effective multipliers are `multipliers` / beta, so that a sweep changes all of them together.
    box : (low, high), optional
        Bounds of the reconstructions, numbers or (D,) arrays in units of x.
    anchor : float
        Multiplier at beta = 1 of a squared error ||x - psi||^2 that is not a constraint. Energies without a minimiser
        (CLA and PNCC without RE or FRE) need a small anchor, or a box.

    Raises
    ------
    ValueError
        For bad input.
    NoMinimiserError
        If reconstructions could go to infinity or along a flat direction (T2).

    Examples
    --------
    >>> from constrained_vae import ELBO, RE, solve
    >>> two = [[-1.0], [1.0]]
    >>> s = solve(two, Lagrangian(RE(0.3), 1.0), n_tiles=2)  # as ELBO(beta=0.5): lambda = 1 / (2 beta)
    >>> round(s.rate, 6), round(s.constraint_values["RE"], 6)  # E||x - psi||^2 = 0.083186, less 0.3^2
    (0.59029, -0.006814)
    """

    constraints: Any
    multipliers: Any
    beta: float = 1.0
    box: Any = None
    anchor: float = 0.0

    def __post_init__(self) -> None:
        constraints = tuple(self.constraints) if isinstance(self.constraints, Sequence) else (self.constraints,)
        for constraint in constraints:
            check_instance(constraint, "constraints", Constraint, "RE(kappa=0.3)")
        if not constraints:
            raise ValueError(f"constraints must be at least one, such as RE(kappa=0.3), got {shown(self.constraints)}")
        several = isinstance(self.multipliers, (list, tuple)) or bool(getattr(self.multipliers, "ndim", None))
        given = check_vector(self.multipliers, "multipliers").tolist() if several else [self.multipliers]
        multipliers = tuple(check_non_negative(value, "multipliers") for value in given)
        if len(multipliers) != len(constraints):
            raise ValueError(f"multipliers must be one per constraint, got {len(multipliers)} for {len(constraints)}")
        object.__setattr__(self, "constraints", constraints)
        object.__setattr__(self, "multipliers", multipliers)
        object.__setattr__(self, "beta", check_positive(self.beta, "beta"))
        if max(multipliers) / self.beta == np.inf:
            raise ValueError(f"multipliers / beta must be finite, got {max(multipliers):.3g} / {self.beta:.3g}")
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
        """Names of the constraints; the second constraint of the same name has the suffix _2, and so on."""
        names: list[str] = []
        for constraint in self.constraints:
            numbered = (f"{constraint.name}_{number}" for number in itertools.count(2))
            names.append(next(name for name in itertools.chain([constraint.name], numbered) if name not in names))
        return tuple(names)

    @property
    def values(self) -> FloatArray:
        """Effective multipliers, lambda_k / beta, in the order of the constraints."""
        return np.array(self.multipliers) / self.beta

    @property
    def named_multipliers(self) -> dict[str, float]:
        """Effective multipliers, by the names of the constraints."""
        return dict(zip(self.names, self.values.tolist(), strict=True))

    equivariant = True  # the energies of constraints can be evaluated in any frame

    @property
    def allowance(self) -> float:
        """Constants of the thresholds in the Lagrangian, sum_k lambda_k allowance_k, in nats."""
        return float(self.values @ [c.allowance for c in self.constraints])

    @cached_property
    def labelled(self) -> int | None:
        """The number of data points if a constraint knows their labels, else None.

        Raises
        ------
        ValueError
            If constraints have labels of different numbers of points.
        """
        counts = {c.labelled for c in self.constraints} - {None}
        if len(counts) > 1:
            raise ValueError(f"constraints must know the same data points, got labels of {sorted(counts)} of them")
        return counts.pop() if counts else None

    def at(self, beta: float) -> Lagrangian:
        """The same constraints with all multipliers divided by beta."""
        return replace(self, beta=beta)

    def check(self, x: Array) -> None:
        for constraint in self.constraints:
            constraint.check(x)
        for bound in self.box or ():
            if np.size(bound) not in (1, x.shape[1]):
                raise ValueError(
                    f"box must have bounds for {x.shape[1]} dimensions, or one for all, got {np.size(bound)}"
                )

    def in_frame(self, frame: Frame) -> FramedLagrangian:
        return FramedLagrangian(self, frame)

    def settings(self) -> dict[str, Any]:
        """The settings that `save` writes, from which `load` recognises the objective that it is given."""
        return {
            "objective": "Lagrangian",
            "constraints": [[repr(constraint), constraint.kappa] for constraint in self.constraints],
            "multipliers": list(self.multipliers),
            "beta": self.beta,
            "box": None if self.box is None else [np.asarray(bound).tolist() for bound in self.box],
            "anchor": self.anchor,
        }


@dataclass(frozen=True, eq=False)
class FramedLagrangian:
    """The energies of a Lagrangian for points in a frame.

    The energies are those of the constraints, followed by that of the anchor if there is one. Energies with the
    statistic x share its columns.
    """

    lagrangian: Lagrangian
    frame: Frame

    @property
    def box(self) -> Any:
        """The box in units of the data; None without a box."""
        return self.lagrangian.box

    @property
    def dim(self) -> int:
        """Number of dimensions D of the points."""
        return self.frame.centre.size

    @cached_property
    def energies(self) -> tuple[tuple[float, bool, Energy], ...]:
        """Effective multiplier, whether the statistic is x, and energy, for every term."""
        given = self.lagrangian
        constraints, values = list(given.constraints), given.values.tolist()
        if given.anchor:
            constraints, values = [*constraints, RE(0.0)], [*values, given.anchor / given.beta]
        return tuple((value, c.quadratic, c.in_frame(self.frame)) for value, c in zip(values, constraints, strict=True))

    @cached_property
    def quadratic(self) -> float | None:
        squares = all(isinstance(energy, ScaledSquaredError) for _, _, energy in self.energies)
        return self.mean_curvature / 2 if squares and self.box is None else None

    @cached_property
    def mean_curvature(self) -> float:
        """Approximate mean curvature of the energy; it is exact for a squared distance."""
        return float(sum(value * energy.mean_curvature for value, _, energy in self.energies))

    @property
    def stiffness(self) -> float:
        """The mean curvature; 1 if all multipliers are 0."""
        return self.mean_curvature or 1.0

    @cached_property
    def bounds(self) -> tuple[Any, Any]:
        """The box in the frame; infinite bounds without a box."""
        if self.box is None:
            return -np.inf, np.inf
        low, high = (self.frame.inward(np.asarray(bound)) for bound in self.box)
        return low, high

    @cached_property
    def columns(self) -> tuple[slice, ...]:
        """Columns of the statistics of each energy; the columns of x come first."""
        start = self.dim if any(quadratic for _, quadratic, _ in self.energies) else 0
        found = []
        for _, quadratic, energy in self.energies:
            size = 0 if quadratic else energy.readout(np.zeros((1, self.dim)))[0].shape[1]
            found.append(slice(0, self.dim) if quadratic else slice(start, start + size))
            start += size
        return tuple(found)

    def statistics(self, x: Array, rows: slice | None = None) -> tuple[Array, Array]:
        """Statistics of all energies side by side, x only once, and a column of s for each energy, (N, C)."""
        xp = array_namespace(x)
        points = x if self.quadratic is not None else to_host(x)  # feature maps are functions of NumPy arrays
        parts = [(quadratic, *energy.statistics(points, rows)) for _, quadratic, energy in self.energies]
        s = xp.asarray(array_namespace(points).stack([s for *_, s in parts], axis=1))
        if self.quadratic is not None:
            return x, s
        shared = [points] if any(quadratic for quadratic, *_ in parts) else []
        phi = np.concatenate([*shared, *(phi for quadratic, phi, _ in parts if not quadratic)], axis=1)
        return xp.asarray(phi), s

    def offset(self, s: Array) -> Array:
        return s @ array_namespace(s).asarray(np.array([value for value, *_ in self.energies]))

    def readout(self, psi: Array) -> tuple[Array, Array]:
        if self.quadratic is not None:
            return 2 * self.quadratic * psi, -self.quadratic * (psi * psi).sum(axis=1)
        xp, psi = array_namespace(psi), to_host(psi)
        v, b = np.zeros((len(psi), max(columns.stop for columns in self.columns))), np.zeros(len(psi))
        for (value, _, energy), columns in zip(self.energies, self.columns, strict=True):
            v_part, b_part = energy.readout(psi)
            v[:, columns] += value * v_part
            b += value * b_part
        return xp.asarray(v), xp.asarray(b)

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        psi, dv, db = map(to_host, (psi, dv, db))
        total = np.zeros_like(psi)
        for (value, _, energy), columns in zip(self.energies, self.columns, strict=True):
            total += value * energy.pullback(psi, dv[:, columns], db)
        return total

    def decoder(self, mass: Array, sums: Array, psi: Array, inverse: Array | None = None) -> Array:
        """The weighted mean if it is the minimiser, else an inner minimisation from psi, which never ascends (T2).

        A^-1/2 of the curvatures of all tiles, `inverse` (K, D, D), makes the inner minimisation faster if it is known.
        """
        boxed = self.box is not None
        if not boxed and all(quadratic for _, quadratic, _ in self.energies):
            return equations.decoder(sums[:, : self.dim], mass, psi)
        xp = array_namespace(psi)
        mass, sums, psi = map(to_host, (mass, sums, psi))
        alive = np.flatnonzero(mass > 0)
        target = sums[alive] / mass[alive, None]
        image = psi.copy()
        low, high = self.bounds
        start = psi[alive].clip(low, high)
        known = None if inverse is None or boxed else to_host(inverse)[alive]
        # There are many small products, which several threads make slower.
        image[alive] = single_threaded(minimise, *self._inner(target), start, self.stiffness, (low, high), known)
        return xp.asarray(image)

    def _inner(self, target: FloatArray) -> tuple[Values, Values]:
        """Mean energy of every tile as a function of its reconstruction, up to a constant, and its gradient (T2).

        `target` (k, S) is the mean statistic sum_i w_ia phi_i of every tile.
        """

        def value(psi: FloatArray, tiles: Any) -> FloatArray:
            v, b = self.readout(psi)
            return -b - (target[tiles] * v).sum(axis=1)

        def gradient(psi: FloatArray, tiles: Any) -> FloatArray:
            return -self.pullback(psi, target[tiles], np.ones(len(psi)))

        return value, gradient

    def coordinates(self, psi: Array) -> Array:
        return psi

    def reconstructions(self, u: Array) -> Array:
        """The nearest point of the box."""
        if self.box is None:
            return u
        low, high = (array_namespace(u).asarray(bound) for bound in self.bounds)
        return u.clip(low, high)

    def curvature(self, psi: Array) -> Array | None:
        """lambda grad^2 f (K, D) if the energy is a squared distance, else None."""
        return None if self.quadratic is None else 0 * psi + 2 * self.quadratic

    def expected(self, mean_statistic: FloatArray, mass: FloatArray, sums: FloatArray, psi: FloatArray) -> FloatArray:
        """E[C_k] of every constraint, (C,), from sum_i rho_i s_ik (C,) and the sums over the data at psi."""
        found = []
        for k, constraint in enumerate(self.lagrangian.constraints):
            v, b = self.energies[k][2].readout(psi)
            energy = mean_statistic[k] - mass @ b - (sums[:, self.columns[k]] * v).sum()
            found.append(energy - constraint.allowance)
        return np.array(found)

    def expected_slopes(self, mass: FloatArray, sums: FloatArray, psi: FloatArray) -> FloatArray:
        """Slopes d E[C_k] / d psi, (C, K, D), at fixed responsibilities."""
        count = len(self.lagrangian.constraints)
        parts = zip(self.energies[:count], self.columns, strict=False)
        return np.stack([-energy.pullback(psi, sums[:, columns], mass) for (_, _, energy), columns in parts])


def _box(box: Any) -> tuple[FloatArray | float, FloatArray | float]:
    """Bounds low < high, each a number or a vector."""
    if not isinstance(box, (tuple, list, np.ndarray)) or len(box) != 2:
        raise ValueError(f"box must be (low, high), numbers or one per dimension, got {shown(box)}")
    low, high = (finite_array(bound, "box").copy() for bound in box)
    fits = low.ndim <= 1 and high.ndim <= 1 and (low.size == high.size or 1 in (low.size, high.size))
    if not (fits and np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"box must be finite bounds (low, high) with low < high in every dimension, got {shown(box)}")
    return low, high
