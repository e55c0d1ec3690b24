"""Covariances of the tiles of a small problem, compiled by Numba.

For a few hundred rows the Python code of a split condition takes several times as long as its sums.
"""

from __future__ import annotations

import math

import numpy as np

from .._utils.arrays import Array
from .._utils.chunks import FEW, SMALL
from .arithmetic import frozen
from .compilation import jit


def are_few(N: int, K: int, S: int) -> bool:
    """Whether `deviation_moments` saves time."""
    return S <= FEW and N * K * (S + 8) < SMALL


def deviation_moments(phi: Array, rho: Array, psi: Array, log_masses: Array, lam: float, some: Array) -> Array:
    """sum_i rho_i q_ia (phi_i - psi_a, 1)(phi_i - psi_a, 1)^T of some tiles of a squared distance, (g, S + 1, S + 1).

    Parameters
    ----------
    phi : (N, S) array
        Statistics, in float64.
    rho : (N,) array
        Weights.
    psi : (K, S) array
        Reconstructions of all tiles.
    log_masses : (K,) array
        Log prior masses, in nats.
    lam : float
        Multiplier of the squared distance.
    some : (g,) array of int
        The tiles that are wanted.
    """
    sums = np.zeros((len(some), phi.shape[1] + 1, phi.shape[1] + 1))
    arrays = (frozen(array, np.float64) for array in (phi, rho, psi, log_masses))
    _add_moments(*arrays, float(lam), frozen(some, np.intp), sums)
    return sums


@jit
def _add_moments(phi: Array, rho: Array, psi: Array, log_masses: Array, lam: float, some: Array, sums: Array) -> None:
    (N, S), K = phi.shape, len(psi)
    logits, y = np.empty(K), np.ones(S + 1)
    for i in range(N):
        top = -np.inf
        for a in range(K):
            square = 0.0
            for d in range(S):
                square += (phi[i, d] - psi[a, d]) ** 2
            logits[a] = log_masses[a] - lam * square
            top = max(top, logits[a])
        total = 0.0
        for a in range(K):
            logits[a] = math.exp(logits[a] - top)
            total += logits[a]
        factor = rho[i] / total
        for g in range(len(some)):
            a = some[g]
            weight = factor * logits[a]
            if weight == 0:
                continue
            for d in range(S):
                y[d] = phi[i, d] - psi[a, d]
            for d in range(S + 1):
                scaled = weight * y[d]
                for e in range(d, S + 1):
                    sums[g, d, e] += scaled * y[e]
    for g in range(len(some)):
        for d in range(S + 1):
            for e in range(d):
                sums[g, d, e] = sums[g, e, d]
