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


def naive_squared_error(x, psi):
    """RE: ||x_i - psi_a||^2 for every point and tile."""
    return [[math.fsum((xd - pd) ** 2 for xd, pd in zip(xi, p, strict=True)) for p in psi] for xi in x]


def naive_feature_error(features, x, psi):
    """FRE: ||f(x_i) - f(psi_a)||^2, where f maps one vector to one vector."""
    return naive_squared_error([features(xi) for xi in x], [features(p) for p in psi])


def naive_class_error(probabilities, labels, psi):
    """CLA: 1 - c_l(psi_a) with the number l of the class of point i; c maps one vector to one vector."""
    return [[1 - float(probabilities(p)[label]) for p in psi] for label in labels]


def naive_correlation_error(x, psi, image_shape, patch, stride=None):
    """PNCC: 1 - the mean over patches of Pearson's correlation of two images; of a constant patch it is 0."""
    return [[1 - _mean_correlation(xi, p, image_shape, patch, stride) for p in psi] for xi in x]


def _mean_correlation(one, other, image_shape, patch, stride):
    one, other = (np.reshape(image, image_shape) for image in (one, other))
    corners = []
    for size, window in zip(image_shape, patch, strict=False):
        starts = list(range(0, size - window + 1, stride or window))
        corners.append(starts if starts[-1] == size - window else [*starts, size - window])
    found = []
    for top in corners[0]:
        for left in corners[1]:
            cut = slice(top, top + patch[0]), slice(left, left + patch[1])
            a, b = (image[cut].ravel() - image[cut].mean() for image in (one, other))
            lengths = math.sqrt(math.fsum(a * a)), math.sqrt(math.fsum(b * b))
            found.append(math.fsum(a * b) / (lengths[0] * lengths[1]) if min(lengths) > 1e-9 else 0.0)
    return math.fsum(found) / len(found)


def naive_slope(function, psi, h=1e-3):
    """d function / d psi, (K, D), of a scalar function of all reconstructions, by differences of fourth order."""
    slope = np.empty_like(psi)
    for index in np.ndindex(psi.shape):
        values = []
        for steps in (-2, -1, 1, 2):
            moved = psi.copy()
            moved[index] += steps * h
            values.append(function(moved))
        slope[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    return slope


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
