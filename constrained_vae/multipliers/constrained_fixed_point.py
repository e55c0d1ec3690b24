"""ConstrainedFixedPoint: the result of `solve_constrained`, with the violation of the optimality conditions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .._utils.arrays import FloatArray
from ..results.fixed_point import FixedPoint


@dataclass(frozen=True, eq=False, repr=False)
class ConstrainedFixedPoint(FixedPoint):
    """A `FixedPoint` whose multipliers were found for given thresholds.

    Its `status` is MET, SLACK, UNREACHABLE or JUMP, or the reason why the search ended early. `n_maps` counts the maps
    of the last solution only.

    Attributes
    ----------
    scales : tuple of float
        Units of the violations: the larger of abs(E[C_k]) at rate zero and the allowance.
    least : dict of float
        Least E[C_k] of all solutions of the search, by name, for every constraint separately. If it is positive, kappa
        is out of reach with these tiles, as far as annealing can tell.
    sides : (FixedPoint, FixedPoint) or None
        For a jump, the two solutions beside it. The first violates a constraint. The second, which is this solution,
        holds it. With several constraints it holds all of them at the least rate found, or else violates them less.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> s = cv.solve_constrained([[-1.0], [1.0]], cv.RE.from_squared_error(0.5), n_tiles=2)
    >>> s.status.name, round(s.distortion, 9)
    ('MET', 0.5)
    """

    scales: tuple[float, ...] = ()
    least: dict[str, float] = field(default_factory=dict)
    sides: tuple[FixedPoint, FixedPoint] | None = None

    def __repr__(self) -> str:
        terms = [
            f"lambda_{n}={value:.6g}, E[C_{n}]={self.constraint_values[n]:.1e}" for n, value in self.multipliers.items()
        ]
        return f"Constrained{super().__repr__()[:-1]}; {'; '.join(terms)})"

    @property
    def kkt_residual(self) -> float:
        """Largest violation of lambda_k >= 0, E[C_k] <= 0 and lambda_k E[C_k] = 0, relative to `scales`.

        It is the largest magnitude over k of min(lambda_k scale_k, -E[C_k] / scale_k), the former in nats.
        """
        return kkt_residual(*self._pairs)

    @property
    def active(self) -> dict[str, bool]:
        """Whether a constraint is active, by name: lambda_k scale_k is larger than -E[C_k] / scale_k and 0."""
        y, c = self._pairs
        return dict(zip(self.multipliers, (y > np.maximum(-c, 0)).tolist(), strict=True))

    @property
    def _pairs(self) -> tuple[FloatArray, FloatArray]:
        scales = np.array(self.scales)
        return np.array(list(self.multipliers.values())) * scales, np.array(self.expected) / scales


def kkt_residual(y: FloatArray, c: FloatArray) -> float:
    """Largest violation of y >= 0, c <= 0, y c = 0."""
    return float(np.abs(np.minimum(y, -c)).max())
