"""Energies at multiplier one, each in the linear form (T4): statistics of the data, readout of the reconstructions.

An energy H(x, psi) = s(x) - b(psi) - phi(x) . v(psi) supplies

    statistics(x) -> phi (N, S), s (N,)           computed once per data set
    readout(psi) -> v (K, S), b (K,)              computed at every map
    pullback(psi, dv, db) -> (K, D)               transposed derivative of the readout: dv . d(v) + db d(b)
    curvature(psi) -> (K, D)                      diagonal of grad^2 f of a Bregman divergence d_f; None for any other
    coordinates(psi), reconstructions(u)          a chart in which that curvature is the constant `stiffness`

so that the expected gradient of tile a follows from the kernel's (K, S) result alone,
sum_i rho_i q_ia dH_ia/dpsi_a = -pullback(psi, sums, mass)_a (T2).
"""

from __future__ import annotations

import numpy as np

from .._utils.arrays import Array
from .._utils.device import array_namespace

# A reconstruction of exactly 0 or 1 says an event never happens; log-odds are taken at the nearest number inside.
_LEAST, _MOST = np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg


class SquaredError:
    """||x - psi||^2, the energy of RE and of the Gaussian ELBO; f(psi) = ||psi||^2."""

    equivariant = True  # under translation and scaling: the data may be standardised at the door
    stiffness = 2.0

    def statistics(self, x: Array) -> tuple[Array, Array]:
        return x, (x * x).sum(axis=1)

    def readout(self, psi: Array) -> tuple[Array, Array]:
        return 2 * psi, -(psi * psi).sum(axis=1)

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        return 2 * dv - 2 * db[:, None] * psi

    def curvature(self, psi: Array) -> Array:
        return 0 * psi + 2

    def coordinates(self, psi: Array) -> Array:
        return psi

    def reconstructions(self, u: Array) -> Array:
        return u


class CrossEntropy:
    """-log p(x | psi) of independent Bernoulli variables, x and psi in [0, 1]; -f is the entropy of psi."""

    equivariant = False
    stiffness = 4.0

    def statistics(self, x: Array) -> tuple[Array, Array]:
        return x, 0 * x[:, 0]

    def readout(self, psi: Array) -> tuple[Array, Array]:
        psi = psi.clip(_LEAST, _MOST)
        log_one_minus = np.log1p(-psi)
        return np.log(psi) - log_one_minus, log_one_minus.sum(axis=1)

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        psi = psi.clip(_LEAST, _MOST)
        return dv / (psi * (1 - psi)) - db[:, None] / (1 - psi)

    def curvature(self, psi: Array) -> Array:
        """1 / (psi (1 - psi)); zero within 1e-12 of 0 and 1: such a coordinate is settled and takes no part."""
        xp, variance = array_namespace(psi), psi * (1 - psi)
        moving = variance > 1e-12
        return xp.where(moving, 1 / xp.where(moving, variance, 1.0), 0.0)

    def coordinates(self, psi: Array) -> Array:
        """u = arcsin sqrt(psi), which stabilises the variance: d(psi) = 2 sqrt(psi (1 - psi)) du (Fisher and Rao).

        Within 1e-12 of 0 and 1, where the rounding of 1 - psi would be magnified, psi counts as settled.
        """
        return np.arcsin(np.sqrt(psi.clip(1e-12, 1 - 1e-12)))

    def reconstructions(self, u: Array) -> Array:
        return np.sin(u) ** 2
