"""Energies of the ELBO with multiplier one, in the linear form (T4): H(x, psi) = s(x) - b(psi) - phi(x) . v(psi).

An energy is a class with the following members, for N points and K reconstructions:

    statistics(x) -> phi (N, S), s (N,)     statistics of the data, computed once for data in memory
    readout(psi) -> v (K, S), b (K,)        readout of the reconstructions, computed at every map
    pullback(psi, dv, db) -> (K, D)         gradients of dv_a . v(psi_a) + db_a b(psi_a), dv (K, S) and db (K,) constant
    curvature(psi) -> (K, D)                diagonal of grad^2 f, where the energy is the Bregman divergence d_f
    coordinates(psi) -> u (K, D)            coordinates in which the curvature is the constant `stiffness`
    reconstructions(u) -> psi (K, D)        inverse of `coordinates`
    stiffness                               the curvature in these coordinates
    equivariant                             whether the energy allows translation and scaling of the data
    homogeneous                             whether it allows scaling alone; it then takes a `unit` of the data

With `pullback` the expected gradient of a tile follows from the sums over the data alone (T2):
sum_i rho_i q_ia dH_ia/dpsi_a = -pullback(psi, sums, mass)_a.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from .._utils.arrays import Array
from .._utils.device import array_namespace, to_host

# The log-odds of exactly 0 or 1 are infinite; they are computed at the nearest number inside (0, 1).
_PSI_MIN, _PSI_MAX = np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg


class SquaredError:
    """||x - psi||^2, the energy of the Gaussian ELBO and of RE: the Bregman divergence of f(psi) = ||psi||^2."""

    equivariant = True  # the solver may standardise the data
    homogeneous = False
    stiffness = 2.0

    def statistics(self, x: Array) -> tuple[Array, Array]:
        return x, (x * x).sum(axis=1)

    def readout(self, psi: Array) -> tuple[Array, Array]:
        return 2 * psi, -array_namespace(psi).vecdot(psi, psi)

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        return 2 * dv - 2 * db[:, None] * psi

    def curvature(self, psi: Array) -> Array:
        return 0 * psi + 2

    def coordinates(self, psi: Array) -> Array:
        return psi

    def reconstructions(self, u: Array) -> Array:
        return u


class CrossEntropy:
    """-log p(x | psi) of independent Bernoulli variables, with x and psi in [0, 1]; -f(psi) is the entropy of psi."""

    equivariant = homogeneous = False
    stiffness = 4.0

    def statistics(self, x: Array) -> tuple[Array, Array]:
        return x, 0 * x[:, 0]

    def readout(self, psi: Array) -> tuple[Array, Array]:
        psi = psi.clip(_PSI_MIN, _PSI_MAX)
        log_one_minus = np.log1p(-psi)
        return np.log(psi) - log_one_minus, log_one_minus.sum(axis=1)

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        psi = psi.clip(_PSI_MIN, _PSI_MAX)
        return dv / (psi * (1 - psi)) - db[:, None] / (1 - psi)

    def curvature(self, psi: Array) -> Array:
        """1 / (psi (1 - psi)); zero if psi (1 - psi) <= 1e-12, so that a coordinate at 0 or 1 counts as fixed."""
        xp, variance = array_namespace(psi), psi * (1 - psi)
        moving = variance > 1e-12
        return xp.where(moving, 1 / xp.where(moving, variance, 1.0), 0.0)

    def excluded(self, x: Array, psi: Array) -> Array:
        """Whether a point has probability zero, (n, K): some psi_d is 0 where x_d > 0, or 1 where x_d < 1.

        A mean of ones is 1 up to rounding, so a psi_d within 8 eps of 1 counts as 1. A mean of zeros is exactly 0.
        """
        sure = 1 - psi <= 8 * np.finfo(np.float64).eps
        ones, zeros = (x < 1).astype(psi.dtype), (x > 0).astype(psi.dtype)
        return ones @ sure.T.astype(psi.dtype) + zeros @ (psi == 0).T.astype(psi.dtype) > 0

    def coordinates(self, psi: Array) -> Array:
        """u = arcsin sqrt(psi), the variance-stabilising (Fisher-Rao) coordinate: dpsi = 2 sqrt(psi (1 - psi)) du.

        psi is clipped to [1e-12, 1 - 1e-12], since closer to 0 and 1 the rounding of 1 - psi would be magnified.
        """
        return np.arcsin(np.sqrt(psi.clip(1e-12, 1 - 1e-12)))

    def reconstructions(self, u: Array) -> Array:
        return np.sin(u) ** 2


@dataclass(frozen=True)
class Divergence:
    """The Kullback-Leibler divergence of x >= 0 from psi >= 0, the Bregman divergence of f(psi) = psi log psi - psi.

    It is sum_d x_d log(x_d / psi_d) - x_d + psi_d in the units of the data, of which the points are multiples by
    1 / unit. For rows that sum to one it is KL(x || psi), and the means psi sum to one, too. With `counts` it is
    -log p(x | psi) of independent Poisson variables instead, which differs from it by a function of x.
    """

    counts: bool
    unit: float = 1.0

    equivariant = False
    homogeneous = True

    @property
    def stiffness(self) -> float:
        return self.unit

    def statistics(self, x: Array) -> tuple[Array, Array]:
        xp = array_namespace(x)
        if self.counts:  # log x! - x log unit
            log_factorial = xp.asarray(gammaln(1 + self.unit * to_host(x))).astype(x.dtype)
            return x, (log_factorial - self.unit * np.log(self.unit) * x).sum(axis=1)
        return x, self.unit * (x * np.log(xp.where(x > 0, x, 1.0)) - x).sum(axis=1)

    def readout(self, psi: Array) -> tuple[Array, Array]:
        return self.unit * np.log(psi.clip(_PSI_MIN)), -self.unit * psi.sum(axis=1)

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        return self.unit * (dv / psi.clip(_PSI_MIN) - db[:, None])

    def curvature(self, psi: Array) -> Array:
        """unit / psi; zero if psi <= 1e-12, so that a coordinate at 0 counts as fixed."""
        xp, moving = array_namespace(psi), psi > 1e-12
        return xp.where(moving, self.unit / xp.where(moving, psi, 1.0), 0.0)

    def excluded(self, x: Array, psi: Array) -> Array:
        """Whether a point has probability zero, (n, K): some psi_d is 0 where x_d > 0."""
        return (x > 0).astype(psi.dtype) @ (psi == 0).T.astype(psi.dtype) > 0

    def coordinates(self, psi: Array) -> Array:
        """u = 2 sqrt(psi), the variance-stabilising coordinate: dpsi = sqrt(psi) du."""
        return 2 * np.sqrt(psi.clip(0))

    def reconstructions(self, u: Array) -> Array:
        return (u / 2) ** 2
