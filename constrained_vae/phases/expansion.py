"""The expansion of the free energy at a split: moments of the data, and the kind and hysteresis that follow (T13).

Let the tiles of a site move by t along the unstable axis, in standard deviations of the data of the site, with
sum_a m_a t_a = 0 and M_n = sum_a m_a t_a^n. At a temperature of (1 + eps) times the critical one,

    -dF = -eps M_2 / 2 + s M_3 / 6 + k M_4 / 24 - (k + 2) M_2^2 / 8 + ...,

with the skewness s and the excess kurtosis k of the data. Two parts with the shares p and 1 - p at a distance d have,
with P = p (1 - p), M_2 = P d^2, M_3 = P (1 - 2 p) d^3, M_4 = P (1 - 3 P) d^4.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from .._utils.arrays import Array, FloatArray
from .._utils.device import array_namespace, to_host
from ..data.prepared import Block
from ..problems.posterior import Tiles, responsibilities
from ..problems.problem import Problem
from ..solvers.split_condition import SplitCondition
from .continuation import State

_SYMMETRY_TOL = 1e-6  # a skewness, or a relative difference of eigenvalues, below this is rounding
_MAX_COVARIANCE_DIM = 2048  # dimensions up to which the uniqueness of the unstable axis is tested


def moments(problem: Problem, state: State, condition: SplitCondition) -> tuple[float, float]:
    """Skewness and excess kurtosis of a site's data along its unstable axis; NaN if the axis is not unique."""
    site, axis = condition.site, condition.axis
    dim, sites = len(axis), state.sites
    powers, covariance = (
        to_host(total)
        for total in problem.total(_deviations, sites.decoder, sites.log_masses, site, sites.decoder[site], axis)
    )
    if covariance.size and dim > 1:
        values = eigh(covariance, eigvals_only=True, subset_by_index=(dim - 2, dim - 1))
        if values[0] >= (1 - _SYMMETRY_TOL) * values[1]:
            return np.nan, np.nan
    second, third, fourth = powers[2:] / powers[0]
    return float(third / second**1.5), float(fourth / second**2 - 3)


def _deviations(block: Block, tiles: Tiles, site: int, psi: Array, axis: Array) -> tuple[Array, Array]:
    """Sums of powers 0 to 4 of a site's deviations along an axis (5,), and of their products (D, D) for small D."""
    q, deviation = responsibilities(block, tiles)[:, site], block.x - psi  # their mean is zero at a fixed point
    xp, along = array_namespace(psi), deviation @ axis
    powers = xp.stack([q @ along**n for n in range(5)])
    few = len(axis) <= _MAX_COVARIANCE_DIM
    return powers, (q[:, None] * deviation).T @ deviation if few else xp.zeros((0, 0))


def predicted_kind(skewness: float, kurtosis: float, masses: FloatArray, free: bool) -> str | None:
    """The kind of the split that the expansion predicts for tiles of given masses; None without moments."""
    if np.isnan(skewness):
        return None
    if _only_halves(masses, free) or (
        abs(skewness) <= _SYMMETRY_TOL and _quartic(kurtosis, _smallest_share(masses, free)) >= 0
    ):
        return "continuous"
    return "first-order"


def predicted_hysteresis(skewness: float, kurtosis: float, masses: FloatArray, free: bool) -> float:
    """Relative width eps of the hysteresis that the expansion predicts; 0 if the split is predicted to be continuous.

    With the quartic coefficient B(p) of `_quartic`, two parts exist as long as -eps + s (1 - 2 p) d / 2 - B d^2 / 6 has
    a root d, up to eps = 3 s^2 (1 - 2 p)^2 / (8 B). The width is the largest over the shares of the tiles. With free
    masses the smaller part loses its mass where F is that of the unsplit site, at 8/9 of that eps for p = 0. The width
    is infinite where B is not positive: the expansion then ends too early.
    """
    if predicted_kind(skewness, kurtosis, masses, free) != "first-order":
        return 0.0
    p = np.array([0.0]) if free else np.cumsum(np.sort(masses))[: max(1, len(masses) // 2)] / masses.sum()
    quartic = _quartic(kurtosis, p)
    if np.any(quartic <= 0):
        return np.inf
    width = float((3 * skewness**2 * (1 - 2 * p) ** 2 / (8 * quartic)).max())
    return 8 / 9 * width if free else width


def _only_halves(masses: FloatArray, free: bool) -> bool:
    """Whether the only split is into two parts of equal mass, which has M_3 = 0."""
    return not free and len(masses) == 2 and bool(np.ptp(masses) <= 1e-12)


def _smallest_share(masses: FloatArray, free: bool) -> float:
    return 0.0 if free else float(masses.min() / masses.sum())


def _quartic(kurtosis: float, p: float | FloatArray) -> float | FloatArray:
    """B(p) = 3 (k + 2) P - k (1 - 3 P): minus 24 / (P d^4) times the terms of -dF of fourth order."""
    P = p * (1 - p)
    return 3 * (kurtosis + 2) * P - kurtosis * (1 - 3 * P)
