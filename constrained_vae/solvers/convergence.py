"""Convergence: when a point is close to the fixed point, and how far it is from there (T10).

A point is close where its residual is; it has converged where the Newton step (I - J)^-1 (T(psi) - psi), which is the
distance to the fixed point, is within the tolerance. The residual alone would not do: near a transition it is shorter
than that distance by any factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .._utils.arrays import Array
from .._utils.device import numbers
from ..problems.problem import Problem
from .acceleration import Past, contraction_factor, newton_step
from .point import Point

ACCEPTABLE_TOL = 1e-7  # error, in units of the data's radius, up to which an unconverged solution is still of use
LOOSE_TOL = 1e-6  # tolerance, in units of the data's radius, at which a kicked point is tested for its stability
_MAX_IDLE_MAPS = 500  # maps near the end without a new least residual, after which the residual counts as rounding


@dataclass(eq=False)
class Convergence:
    """What decides about the end of an iteration.

    Attributes
    ----------
    problem : Problem
    tol : float
        The tolerance on the error, in the frame.
    symmetric : bool
        Whether a metric is known in which the Jacobian is symmetric.
    floor : float
        Residual below which the arithmetic yields no more.
    factor : float
        Contraction factor as last measured; NaN where it is not known.
    """

    problem: Problem
    tol: float
    symmetric: bool
    factor: float = np.nan
    floor: float = field(init=False)
    close: float = field(init=False)  # residual at which the error is estimated next
    stalled: bool = field(init=False, default=False)
    _lowest: float = field(init=False)
    _since: int = field(init=False)

    def __post_init__(self) -> None:
        data, objective = self.problem.data, self.problem.framed
        self.eps = float(np.finfo(data.dtype).eps)
        self.tol = max(self.tol, 100 * self.eps) * data.radius
        # Rounding of T: eps of the radius, and eps times the energies lambda radius^2 over a width 1/sqrt(lambda).
        bregman = objective.curvature(data.mean[None]) is not None
        energy = (objective.quadratic or 0.0) if bregman else objective.offset(data.mean_statistic)
        steepness = float(np.sqrt(energy)) * data.radius
        self.floor = self._least_floor = 8 * self.eps * (1 + steepness) * data.radius
        self.noise = 16 * self.eps * (1 + steepness**2)  # of the free energy, relative to 1 + |F|

    @property
    def loose_tol(self) -> float:
        """Tolerance for a point that may be a saddle: no need to know it to the last digit."""
        return max(self.tol, LOOSE_TOL * self.problem.data.radius)

    def slack(self, free_energy: float) -> float:
        """Differences of free energies that are rounding."""
        return self.noise * (1 + abs(free_energy))

    def raise_floor(self, residual: float) -> None:
        """Take note of what an inner minimisation leaves, which may be rounded far more coarsely than a mean is."""
        self.floor = max(self._least_floor, 2 * residual)

    def begin(self, tol: float) -> None:
        """A new approach, to a tolerance."""
        self.close, self.stalled, self._lowest, self._since = tol, False, np.inf, 0
        self._target = tol

    def closing(self, residual: float) -> bool:
        """Whether the iteration is near its end at a residual, or stalled; to be asked once for every point."""
        if residual < self._lowest:
            self._lowest, self._since = residual, 0
        else:
            self._since += 1
        self.stalled = residual <= self.floor or (self._since > _MAX_IDLE_MAPS and residual <= 1e3 * self.floor)
        if residual > self._target:
            self.close = self._target
        return self.stalled or residual <= self.close

    def postpone(self, residual: float, error: float) -> None:
        """The error is above the tolerance: look again when the residual is smaller in proportion."""
        self.close = residual * min(max(self._target / error, 0.01), 0.5)

    def estimate(self, point: Point, history: list[Past]) -> float:
        """Estimated error as the past alone has it, residual / (1 - contraction factor) (T10)."""
        if point.residual > 10 * self.floor or np.isnan(self.factor):  # below, ratios of residuals are rounding
            self.factor = contraction_factor(history, point.vectors[2], self.symmetric)
        return max(point.residual, self.floor) / (1 - self.factor) if self.factor < 1 else np.inf

    def newton_step(
        self, point: Point, history: list[Past], evaluate: Callable[[Array], Point], whitened: bool
    ) -> tuple[Array, float]:
        """Newton step from a point, and its length with what is missing from it: the estimated error (T10).

        The products with I - J are differences of the map over a step short against all curvature, and long against
        rounding. A stalled residual is rounding: there some step of this size stands for it. Without a metric in which
        J is symmetric the contraction factor alone has to do.

        Parameters
        ----------
        point : Point
        history : list of Past
        evaluate : callable
            The map at a vector.
        whitened : bool
            Whether the coordinates were drawn on the way, so that they are not those of the objective.
        """
        u, r, metric = point.vectors
        if not self.symmetric:
            return r, self.estimate(point, history)
        if len(point.psi) == 1 and not point.free:
            return r, point.residual  # one site: the map is constant
        size = max(point.residual, self.floor) if self.stalled else point.residual
        move = self.problem.data.to_device
        rhs = move(np.random.default_rng(0).standard_normal(len(r))) if self.stalled else r
        norm, length = np.sqrt(numbers(metric @ rhs**2, metric @ u**2 / metric.sum()))
        if norm == 0:  # what still moves are settled coordinates, whose next image is exact
            return r, size
        unit = np.sqrt(point.objective.stiffness / point.coordinates.stiffness)  # in units of the frame
        length = np.sqrt(self.eps) * (length + self.problem.data.radius * unit)

        def product(p: Array) -> Array:
            h = length * np.sqrt(metric.sum() / (metric @ p**2))
            u1, r1, _ = evaluate(u + h * p).vectors
            return p - ((u1 + r1) - (u + r)) / h

        step, missing = newton_step(product, rhs, metric)
        error = size * float((np.sqrt(numbers(metric @ step**2)[0]) + missing) / norm)
        return step, max(error, point.norm(step)) if whitened and not self.stalled else error
