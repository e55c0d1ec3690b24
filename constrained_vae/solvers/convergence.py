"""Convergence: the test whether an iteration has converged, and its error estimate (T10).

A point is close to the fixed point if its residual is small. It has converged if the length of the Newton step
(I - J)^-1 (T(psi) - psi), which is the distance to the fixed point, is within the tolerance. The residual alone is not
sufficient: near a transition it can be smaller than that distance by any factor.
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
_LIGHT_MASS = 1e-8  # mass of a tile below which the error estimate leaves it out
_MAX_IDLE_MAPS = 500  # maps near the end without a new least residual, after which the residual counts as rounding


@dataclass(eq=False)
class Convergence:
    """The test of convergence of one iteration.

    Attributes
    ----------
    problem : Problem
    tol : float
        Tolerance on the error, in the frame.
    symmetric : bool
        Whether a metric is known in which the Jacobian is symmetric.
    floor : float
        Residual that is rounding.
    close : float
        Residual at which the error is estimated next.
    stalled : bool
        Whether the residual is rounding, or no longer falls.
    factor : float
        Contraction factor as last measured; NaN if it is not known.
    """

    problem: Problem
    tol: float
    symmetric: bool
    factor: float = np.nan
    floor: float = field(init=False)
    close: float = field(init=False)
    stalled: bool = field(init=False, default=False)
    _lowest: float = field(init=False)
    _since: int = field(init=False)

    def __post_init__(self) -> None:
        data, objective = self.problem.data, self.problem.framed
        self.eps = float(np.finfo(data.dtype).eps)
        self.tol = max(self.tol, 100 * self.eps) * data.radius
        # Rounding of T: eps of the radius, and eps times energies lambda radius^2 that change over 1 / sqrt(lambda).
        energy = (objective.quadratic or 0.0) if self.problem.bregman else objective.offset(data.mean_statistic)
        steepness = float(np.sqrt(energy)) * data.radius
        self.floor = self._least_floor = 8 * self.eps * (1 + steepness) * data.radius
        self.noise = 16 * self.eps * (1 + steepness**2)  # of the free energy, relative to 1 + |F|

    @property
    def mass_tol(self) -> float:
        """Largest log c = log m - log pi, in nats, of a free mass that counts as settled (T14)."""
        return max(self.tol / self.problem.data.radius, self.noise)

    @property
    def light_mass(self) -> float:
        """Mass of a tile up to which a log c of `mass_tol` may be invisible in the residual."""
        return max(_LIGHT_MASS, self.problem.framed.stiffness * (self.floor / self.mass_tol) ** 2)

    @property
    def loose_tol(self) -> float:
        """Tolerance for a point that may be a saddle, which need not be accurate."""
        return max(self.tol, LOOSE_TOL * self.problem.data.radius)

    def slack(self, free_energy: float) -> float:
        """Largest difference of free energies that is rounding."""
        return self.noise * (1 + abs(free_energy))

    def raise_floor(self, residual: float) -> None:
        """Raise the floor to the residual of an inner minimisation, whose rounding may be far larger than of a mean."""
        self.floor = max(self._least_floor, 2 * residual)

    @property
    def rounding(self) -> float:
        """Error from the rounding of the map, floor / (1 - contraction factor), below which no estimate is true."""
        return self.floor / (1 - self.factor) if self.factor < 1 else self.floor

    def begin(self, tol: float) -> None:
        """Start a new approach to a fixed point, to a tolerance."""
        self.close, self.stalled, self._lowest, self._since = tol, False, np.inf, 0
        self._target = tol

    def closing(self, residual: float) -> bool:
        """Whether the iteration is near its end at a residual, or stalled; to be called once for every point."""
        if residual < self._lowest:
            self._lowest, self._since = residual, 0
        else:
            self._since += 1
        self.stalled = residual <= self.floor or (self._since > _MAX_IDLE_MAPS and residual <= 1e3 * self.floor)
        if residual > self._target:
            self.close = self._target
        return self.stalled or residual <= self.close

    def range_of_closing(self, residual: float) -> tuple[float, float]:
        """Residuals at or below which, and above which, `closing` may no longer say what it says at this one."""
        target = self._target
        low, high = (target, np.inf) if residual > target else (self.close, target)
        return max(low, self.floor), high

    def postpone(self, residual: float, error: float) -> None:
        """Estimate an error above the tolerance again when the residual has fallen in proportion."""
        self.close = residual * min(max(self._target / error, 0.01), 0.5)

    def estimate(self, point: Point, history: list[Past]) -> float:
        """Estimated error from the history alone, residual / (1 - contraction factor) (T10)."""
        self.factor, error = self.measured(point, history, self.factor)
        return error

    def measured(self, point: Point, history: list[Past], known: float) -> tuple[float, float]:
        """The contraction factor, and the estimated error that follows from it, if another one was known before."""
        factor = known
        if point.residual > 10 * self.floor or np.isnan(known):  # ratios of smaller residuals are rounding
            factor = contraction_factor(history, point.vectors[2], self.symmetric)
        return factor, max(point.residual, self.floor) / (1 - factor) if factor < 1 else np.inf

    def newton_step(
        self, point: Point, history: list[Past], evaluate: Callable[[Array], Point], whitened: bool
    ) -> tuple[Array, float]:
        """Newton step from a point, and the estimated error: the length of the step plus its own error (T10).

        Products with I - J are differences of the map over a step that is small against curvature and large against
        rounding. A stalled residual is rounding, and a random vector of the same size replaces it. Without a metric in
        which J is symmetric the error follows from the contraction factor alone.

        Parameters
        ----------
        point : Point
        history : list of Past
        evaluate : callable
            The map at a vector.
        whitened : bool
            Whether the coordinates are `Whitened` ones instead of those of the objective.
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
        if norm == 0:  # only settled coordinates still move, and their next image is exact
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
