"""A point of the iteration and what one map makes of it, also as vectors. Its arrays lie where the backend computes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from array_api_compat import array_namespace

from .._utils.arrays import Array
from .._utils.device import numbers
from ..equations import Expectations
from ..objectives.base import FramedObjective
from ..problems.problem import Problem


class Chart(Protocol):
    """Coordinates of reconstructions in which the curvature of the energy is the constant stiffness."""

    @property
    def stiffness(self) -> float: ...  # noqa: D102
    def coordinates(self, psi: Array) -> Array: ...  # noqa: D102
    def reconstructions(self, u: Array) -> Array: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Point:
    """Reconstructions psi (k, D) and log masses (k,) of the sites, in the frame, and their image under the map.

    Attributes
    ----------
    expectations : Expectations
        From the pass over the data at psi.
    image : (k, D) array
        T(psi).
    free : bool
        Whether the masses move too.
    chart : Chart
        Coordinates of reconstructions in the vectors.
    """

    objective: FramedObjective
    free: bool
    psi: Array
    log_masses: Array
    expectations: Expectations
    image: Array
    chart: Chart

    @classmethod
    def evaluate(cls, problem: Problem, psi: Array, log_masses: Array, free: bool, chart: Chart | None = None) -> Point:
        """One map."""
        expectations = problem.expectations(psi, log_masses)
        image = problem.updated_decoder(psi, expectations, getattr(chart, "inverse", None))
        return cls(problem.framed, free, psi, log_masses, expectations, image, chart or problem.framed)

    @cached_property
    def _alive(self) -> Array:
        return self.expectations.mass > 0

    @cached_property
    def log_step(self) -> Array:
        """Step log m - log pi of free masses, (k,): minus infinity where a site has died."""
        xp = array_namespace(self.log_masses)
        return log(self.expectations.mass) - xp.where(self._alive, self.log_masses, 0.0)

    @cached_property
    def _scalars(self) -> tuple[float, float]:
        """Free energy and residual, brought from a device together when first asked for."""
        mass = self.expectations.mass
        square = mass @ np.square(self.image - self.psi).sum(axis=1)
        if self.free:
            step = array_namespace(mass).where(self._alive, self.log_step, 0.0)
            square = square + mass @ step**2 / self.objective.stiffness
        free_energy, square = numbers(self.expectations.free_energy, square)
        return free_energy, math.sqrt(square)

    @property
    def free_energy(self) -> float:
        """F in nats."""
        return self._scalars[0]

    @property
    def residual(self) -> float:
        """Root-mean-square step of the plain map, that of log masses in units of the resolution stiffness^-1/2."""
        return self._scalars[1]

    @property
    def finite(self) -> bool:
        """Whether free energy and residual are."""
        return all(map(math.isfinite, self._scalars))

    @property
    def following(self) -> tuple[Array, Array]:
        """Reconstructions and log masses to which the plain map leads."""
        return self.image, normalised(self.log_masses + self.log_step) if self.free else self.log_masses

    @cached_property
    def vector(self) -> tuple[Array, Array]:
        """Point and residual as vectors: psi, in the coordinates of the chart, and log pi where masses are free."""
        psi = self.chart.coordinates(self.psi)
        step = self.chart.coordinates(self.image) - psi
        if not self.free:
            return psi.ravel(), step.ravel()
        xp = array_namespace(psi)  # a dead site's log mass is minus infinity: zero stands for it here
        log_masses, log_step = (xp.where(self._alive, part, 0.0) for part in (self.log_masses, self.log_step))
        return xp.concat([psi.ravel(), log_masses]), xp.concat([step.ravel(), log_step])

    @cached_property
    def metric(self) -> Array:
        """Diagonal metric of these vectors in which J is symmetric, (m lambda grad^2 f, m) (T8); 0 for a dead site."""
        mass = self.expectations.mass
        metric = (mass * self.chart.stiffness).repeat(self.psi.shape[1])
        return array_namespace(mass).concat([metric, mass]) if self.free else metric

    def size(self, vector: Array) -> float:
        """Root-mean-square displacement, in the sense of `residual`, that a vector of displacements stands for."""
        n, mass = self.psi.shape[0] * self.psi.shape[1], self.expectations.mass
        u = self.chart.coordinates(self.psi) + vector[:n].reshape(self.psi.shape)
        shift = self.chart.reconstructions(u) - self.psi
        square = mass @ np.square(shift).sum(axis=1)
        if self.free:
            square = square + mass @ vector[n:] ** 2 / self.objective.stiffness
        return math.sqrt(numbers(square)[0])

    def parts(self, u: Array) -> tuple[Array, Array]:
        """Reconstructions and log masses of another vector; where it has none, and of dead sites, those of here."""
        n = self.psi.shape[0] * self.psi.shape[1]
        psi = self.chart.reconstructions(u[:n].reshape(self.psi.shape))
        if not self.free:
            return psi, self.log_masses
        return psi, normalised(array_namespace(u).where(self._alive, u[n:], -np.inf))


def log(masses: Array) -> Array:
    """Logarithm, minus infinity for zero."""
    with np.errstate(divide="ignore"):
        return np.log(masses)


def normalised(log_masses: Array) -> Array:
    """Log masses moved by a constant so that the masses sum to 1."""
    top = log_masses.max()
    return log_masses - (top + np.log(np.exp(log_masses - top).sum()))
