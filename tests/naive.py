"""A naive oracle: the equations as loops over points and tiles, one scalar at a time, and nothing of the package.

It follows (T1)-(T5) and (T8) word for word. Sums are exact (`math.fsum`) and the partition function is a log-sum-exp,
so that its own error is a few eps of the energies.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Naive(NamedTuple):
    """What the oracle returns; sums are those of whatever vectors it was told to average."""

    mass: np.ndarray  # (K,) sum_i rho_i q_ia
    sums: np.ndarray  # (K, S) sum_i rho_i q_ia phi_i
    free_energy: float  # -sum_i rho_i log Z_i
    energy: float  # sum_ia rho_i q_ia H_ia
    encoder: np.ndarray  # (N, K) q_ia


def naive_from_energies(H, vectors, weights, log_masses):
    """(T1), (T5) from the energies H[i][a] and the vectors (N, S) to be averaged."""
    N, K, S = len(H), len(log_masses), len(vectors[0])
    q, log_Z = np.zeros((N, K)), []
    for i in range(N):
        logits = [log_masses[a] - H[i][a] for a in range(K)]
        top = max(logits)
        scaled = [math.exp(logit - top) for logit in logits]
        total = math.fsum(scaled)
        log_Z.append(top + math.log(total))
        q[i] = [one / total for one in scaled]
    mass = np.array([math.fsum(weights[i] * q[i, a] for i in range(N)) for a in range(K)])
    sums = np.array(
        [[math.fsum(weights[i] * q[i, a] * vectors[i][d] for i in range(N)) for d in range(S)] for a in range(K)]
    )
    free_energy = -math.fsum(weights[i] * log_Z[i] for i in range(N))
    energy = math.fsum(weights[i] * q[i, a] * H[i][a] for i in range(N) for a in range(K) if q[i, a] > 0)
    return Naive(mass, sums, free_energy, energy, q)


def naive_linear(statistics, offset, weights, v, b, log_masses):
    """Any linear form (T4): H_ia = s_i - b_a - phi_i . v_a."""
    H = [
        [math.fsum([offset[i], -b[a], *(-statistics[i][d] * v[a][d] for d in range(len(v[a])))]) for a in range(len(b))]
        for i in range(len(statistics))
    ]
    return naive_from_energies(H, statistics, weights, log_masses)


def naive_expectations(x, weights, psi, masses, sigma2beta):
    """The Gaussian energy (T3): H_ia = ||x_i - psi_a||^2 / (2 sigma^2 beta)."""
    H = [[math.fsum((xd - pd) ** 2 for xd, pd in zip(xi, p, strict=True)) / (2 * sigma2beta) for p in psi] for xi in x]
    return naive_from_energies(H, x, weights, [_log(m) for m in masses])


def naive_bernoulli(x, weights, psi, masses, beta):
    """The Bernoulli energy (T4): H_ia = -(1 / beta) sum_d [x log psi + (1 - x) log(1 - psi)], 0 log 0 = 0."""
    H = [
        [
            -math.fsum(_times_log(xd, pd) + _times_log(1 - xd, 1 - pd) for xd, pd in zip(xi, p, strict=True)) / beta
            for p in psi
        ]
        for xi in x
    ]
    return naive_from_energies(H, x, weights, [_log(m) for m in masses])


def naive_jacobian(x, weights, psi, masses, lam):
    """(T8) for the squared error: the (K D, K D) matrix of J_bc, rows and columns ordered by tile, then coordinate."""
    (N, D), K = np.shape(x), len(psi)
    mass, _, _, _, q = naive_expectations(x, weights, psi, masses, 1 / (2 * lam))
    J = np.zeros((K, D, K, D))
    for b in range(K):
        for c in range(K):
            for i in range(N):
                w = weights[i] * q[i, b] * ((b == c) - q[i, c]) / mass[b]
                for d in range(D):
                    for e in range(D):
                        J[b, d, c, e] += 2 * lam * w * (x[i][d] - psi[b][d]) * (x[i][e] - psi[c][e])
    return J.reshape(K * D, K * D)


def _log(mass):
    return math.log(mass) if mass > 0 else -math.inf


def _times_log(share, probability):
    return 0.0 if share == 0 else share * _log(probability)
