"""A point of the iteration with its image under the map, also as vectors; its arrays are where the backend computes."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from .._utils.arrays import Array
from .._utils.device import array_namespace, numbers
from ..equations import Expectations, log_masses as log_of
from ..objectives.base import FramedObjective

_MOST_LOG_STEP = 10.0  # a proposal changes no mass by more than exp of this, relative to the others


class Coordinates(Protocol):
    """Coordinates of reconstructions in which the curvature of the energy is the constant stiffness."""

    @property
    def stiffness(self) -> float: ...  # noqa: D102
    def coordinates(self, psi: Array) -> Array: ...  # noqa: D102
    def reconstructions(self, u: Array) -> Array: ...  # noqa: D102


class Point:
    """Reconstructions psi (k, D) and log masses (k,) of the sites, in the frame, and their image under the map.

    Attributes
    ----------
    objective : FramedObjective
    free : bool
        Whether the masses change too.
    psi, log_masses : (k, D), (k,) arrays
    expectations : Expectations
        Result of the E-step at psi.
    updated_decoder : (k, D) array
        T(psi), from the M-step.
    coordinates : Coordinates
        Coordinates of the vectors.
    free_energy : float
        F in nats.
    residual : float
        Root-mean-square step of the plain map; steps of log masses are in units of the resolution stiffness^-1/2.
    """

    __slots__ = (
        "_vector", "coordinates", "expectations", "free", "free_energy", "log_masses", "objective", "psi", "residual",
        "updated_decoder",
    )  # fmt: skip

    def __init__(
        self,
        objective: FramedObjective,
        free: bool,
        psi: Array,
        log_masses: Array,
        expectations: Expectations,
        updated_decoder: Array,
        coordinates: Coordinates,
    ) -> None:
        self.objective, self.free, self.psi, self.log_masses = objective, free, psi, log_masses
        self.expectations, self.updated_decoder, self.coordinates = expectations, updated_decoder, coordinates
        self._vector: tuple[Array, Array, Array] | None = None
        mass = expectations.mass
        if coordinates.coordinates(psi) is psi:  # the norm of vectors is that of psi up to a factor
            self._vector = _, r, metric = self._as_vectors(psi, updated_decoder)
            square = (metric * r * r).sum() / coordinates.stiffness  # no BLAS: its first call after a kernel is slow
        else:
            square = mass @ ((updated_decoder - psi) ** 2).sum(axis=1)
            if free:
                step = array_namespace(mass).where(mass > 0, self.log_step, 0.0)
                square = square + mass @ step**2 / objective.stiffness
        self.free_energy, square = numbers(expectations.free_energy, square)
        self.residual = math.sqrt(square)

    @property
    def log_step(self) -> Array:
        """Step log m - log pi of free masses, (k,); minus infinity for a dead site."""
        mass = self.expectations.mass
        return log_of(mass) - array_namespace(mass).where(mass > 0, self.log_masses, 0.0)

    @property
    def finite(self) -> bool:
        """Whether free energy and residual are finite."""
        return math.isfinite(self.free_energy) and math.isfinite(self.residual)

    @property
    def plain_step(self) -> tuple[Array, Array]:
        """Reconstructions and log masses after the plain map."""
        if not self.free:
            return self.updated_decoder, self.log_masses
        return self.updated_decoder, normalised(self.log_masses + self.log_step)

    @property
    def vectors(self) -> tuple[Array, Array, Array]:
        """The point u and its residual r as vectors, and the diagonal metric in which J is symmetric (T8).

        u consists of psi, in the coordinates, and of log pi if masses are free. The metric is (m lambda grad^2 f, m),
        and 0 for a dead site.
        """
        if self._vector is None:
            to = self.coordinates.coordinates
            self._vector = self._as_vectors(to(self.psi), to(self.updated_decoder))
        return self._vector

    def _as_vectors(self, here: Array, updated: Array) -> tuple[Array, Array, Array]:
        """`vectors` from the coordinates of psi and of T(psi), (k, D) each."""
        mass, u = self.expectations.mass, here.ravel()
        r = updated.ravel() - u
        metric = (mass * self.coordinates.stiffness).repeat(self.psi.shape[1])
        if not self.free:
            return u, r, metric
        xp, alive = array_namespace(mass), mass > 0
        # The log mass of a dead site is minus infinity: zero replaces it here.
        log_masses, log_step = (xp.where(alive, part, 0.0) for part in (self.log_masses, self.log_step))
        return xp.concat([u, log_masses]), xp.concat([r, log_step]), xp.concat([metric, mass])

    def norm(self, vector: Array) -> float:
        """Root-mean-square displacement, in the units of `residual`, of a vector of displacements."""
        n, mass = self.psi.shape[0] * self.psi.shape[1], self.expectations.mass
        u = self.coordinates.coordinates(self.psi) + vector[:n].reshape(self.psi.shape)
        shift = self.coordinates.reconstructions(u) - self.psi
        square = mass @ (shift * shift).sum(axis=1)
        if self.free:
            square = square + mass @ vector[n:] ** 2 / self.objective.stiffness
        return math.sqrt(numbers(square)[0])

    def from_vector(self, u: Array) -> tuple[Array, Array]:
        """Reconstructions and log masses of another vector; log masses of dead sites and fixed log masses are kept.

        F hardly depends on the log mass of a light site, so that a quasi-Newton step of it can have any length. A mass
        that such a step has thrown away could need thousands of maps to grow again: steps of log masses are limited.
        """
        shape = self.psi.shape
        if not self.free:
            return self.coordinates.reconstructions(u.reshape(shape)), self.log_masses
        n, here = shape[0] * shape[1], self.log_masses
        log_masses = np.minimum(np.maximum(u[n:], here - _MOST_LOG_STEP), here + _MOST_LOG_STEP)
        log_masses = array_namespace(u).where(self.expectations.mass > 0, log_masses, -np.inf)
        return self.coordinates.reconstructions(u[:n].reshape(shape)), normalised(log_masses)

    def with_coordinates(self, coordinates: Coordinates) -> Point:
        """The same point with vectors in other coordinates."""
        psi, log_masses, expectations = self.psi, self.log_masses, self.expectations
        return Point(self.objective, self.free, psi, log_masses, expectations, self.updated_decoder, coordinates)


def normalised(log_masses: Array) -> Array:
    """Log masses shifted by a constant so that the masses sum to 1."""
    top = log_masses.max()
    return log_masses - (top + np.log(np.exp(log_masses - top).sum()))
