"""Naive oracle: the equations as loops over points and tiles, one scalar at a time, written without the package.

It follows (T1)-(T5) and (T8) literally. Sums are exact (`math.fsum`) and the partition function is a log-sum-exp, so
that the error of the oracle is a few eps of the energies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Rows = Any  # an (n, D) array or nested sequence of numbers
VectorMap = Callable[[Any], Any]  # maps one vector to one vector


class Naive(NamedTuple):
    """Result of the oracle: encoder and expectations. The vectors phi are those that the caller gives.

    Attributes
    ----------
    mass : (K,) array
        Marginal posterior m_a = sum_i rho_i q_ia.
    sums : (K, S) array
        Weighted vectors sum_i rho_i q_ia phi_i. If the vectors are the data, ``sums / mass[:, None]`` is the updated
        decoder (T3).
    free_energy : float
        F = -sum_i rho_i log Z_i, in nats (T5).
    energy : float
        Expected energy sum_ia rho_i q_ia H_ia, in nats; the rate is ``free_energy - energy``.
    encoder : (N, K) array
        Posterior masses q_ia (T1).

    Examples
    --------
    >>> from constrained_vae.testing import naive_expectations
    >>> found = naive_expectations([[-1.0], [1.0]], [0.5, 0.5], [[-1.0], [1.0]], [0.5, 0.5], theta=1.0)
    >>> found.encoder.round(4)
    array([[0.8808, 0.1192],
           [0.1192, 0.8808]])
    """

    mass: FloatArray
    sums: FloatArray
    free_energy: float
    energy: float
    encoder: FloatArray


def naive_from_energies(H: Any, vectors: Rows, weights: Any, log_masses: Any) -> Naive:
    """Encoder and expectations for given energies (T1), (T5).

    Parameters
    ----------
    H : (N, K) array_like
        Energies, in nats.
    vectors : (N, S) array_like
        Vectors phi, which are averaged.
    weights : (N,) array_like
        Data weights; they are not normalised.
    log_masses : (K,) array_like
        Logarithms of the prior masses, in nats.

    Returns
    -------
    Naive
        Encoder and expectations.

    Examples
    --------
    >>> found = naive_from_energies([[0.0, np.log(3.0)]], [[1.0]], [1.0], np.log([0.5, 0.5]))
    >>> found.encoder
    array([[0.75, 0.25]])
    """
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


def naive_linear(statistics: Rows, offset: Any, weights: Any, v: Rows, b: Any, log_masses: Any) -> Naive:
    """Encoder and expectations for energies in the linear form (T4), H_ia = s_i - b_a - phi_i . v_a.

    Parameters
    ----------
    statistics : (N, S) array_like
        Statistics phi, which are also averaged.
    offset : (N,) array_like
        Offsets s, in nats.
    weights : (N,) array_like
        Data weights; they are not normalised.
    v : (K, S) array_like
        Readout v of the reconstructions.
    b : (K,) array_like
        Readout b of the reconstructions, in nats.
    log_masses : (K,) array_like
        Logarithms of the prior masses, in nats.

    Returns
    -------
    Naive
        Encoder and expectations.

    Examples
    --------
    >>> x, half = [[-1.0], [1.0]], [0.5, 0.5]
    >>> found = naive_linear(x, half, half, v=x, b=[-0.5, -0.5], log_masses=np.log(half))
    >>> found.encoder.round(4)
    array([[0.8808, 0.1192],
           [0.1192, 0.8808]])
    """
    H = [
        [math.fsum([offset[i], -b[a], *(-statistics[i][d] * v[a][d] for d in range(len(v[a])))]) for a in range(len(b))]
        for i in range(len(statistics))
    ]
    return naive_from_energies(H, statistics, weights, log_masses)


def naive_expectations(x: Rows, weights: Any, psi: Rows, masses: Any, theta: float) -> Naive:
    """Encoder and expectations for the Gaussian energy (T3), H_ia = ||x_i - psi_a||^2 / (2 theta).

    Parameters
    ----------
    x : (N, D) array_like
        Data, which are also averaged.
    weights : (N,) array_like
        Data weights; they are not normalised.
    psi : (K, D) array_like
        Reconstructions.
    masses : (K,) array_like
        Prior masses.
    theta : float
        sigma^2 beta = 1 / (2 lambda), in squared units of x.

    Returns
    -------
    Naive
        Encoder and expectations.

    Examples
    --------
    >>> found = naive_expectations([[-1.0], [1.0]], [0.5, 0.5], psi=[[-1.0], [1.0]], masses=[0.5, 0.5], theta=1.0)
    >>> found.mass, round(found.free_energy, 4)
    (array([0.5, 0.5]), 0.5662)
    """
    H = [[math.fsum((xd - pd) ** 2 for xd, pd in zip(xi, p, strict=True)) / (2 * theta) for p in psi] for xi in x]
    return naive_from_energies(H, x, weights, [_log(m) for m in masses])


def naive_bernoulli(x: Rows, weights: Any, psi: Rows, masses: Any, beta: float) -> Naive:
    """Encoder and expectations for the Bernoulli energy (T4).

    H_ia = -(1 / beta) sum_d [x_id log psi_ad + (1 - x_id) log(1 - psi_ad)], where 0 log 0 = 0.

    Parameters
    ----------
    x : (N, D) array_like
        Data in [0, 1], which are also averaged.
    weights : (N,) array_like
        Data weights; they are not normalised.
    psi : (K, D) array_like
        Reconstructions in [0, 1].
    masses : (K,) array_like
        Prior masses.
    beta : float
        Temperature.

    Returns
    -------
    Naive
        Encoder and expectations.

    Examples
    --------
    >>> found = naive_bernoulli([[0.0], [1.0]], [0.5, 0.5], psi=[[0.25], [0.75]], masses=[0.5, 0.5], beta=1.0)
    >>> found.encoder.round(4)
    array([[0.75, 0.25],
           [0.25, 0.75]])
    """
    H = [
        [
            -math.fsum(_times_log(xd, pd) + _times_log(1 - xd, 1 - pd) for xd, pd in zip(xi, p, strict=True)) / beta
            for p in psi
        ]
        for xi in x
    ]
    return naive_from_energies(H, x, weights, [_log(m) for m in masses])


def naive_squared_error(x: Rows, psi: Rows) -> list[list[float]]:
    """Energy of RE, ||x_i - psi_a||^2, for every point and tile.

    Parameters
    ----------
    x : (N, D) array_like
        Data.
    psi : (K, D) array_like
        Reconstructions.

    Returns
    -------
    (N, K) list of lists
        Squared errors, in squared units of x.

    Examples
    --------
    >>> naive_squared_error([[0.0, 0.0]], psi=[[3.0, 4.0], [0.0, 0.0]])
    [[25.0, 0.0]]
    """
    return [[math.fsum((xd - pd) ** 2 for xd, pd in zip(xi, p, strict=True)) for p in psi] for xi in x]


def naive_feature_error(features: VectorMap, x: Rows, psi: Rows) -> list[list[float]]:
    """Energy of FRE, ||f(x_i) - f(psi_a)||^2, for every point and tile.

    Parameters
    ----------
    features : callable
        The feature map f, which maps one vector (D,) to one vector.
    x : (N, D) array_like
        Data.
    psi : (K, D) array_like
        Reconstructions.

    Returns
    -------
    (N, K) list of lists
        Squared errors, in squared units of the features.

    Examples
    --------
    >>> naive_feature_error(lambda y: [y[0] ** 2], x=[[2.0]], psi=[[1.0]])
    [[9.0]]
    """
    return naive_squared_error([features(xi) for xi in x], [features(p) for p in psi])


def naive_class_error(probabilities: VectorMap, labels: Sequence[int], psi: Rows) -> list[list[float]]:
    """Energy of CLA, 1 - c_l(psi_a) with the class l of the point, for every point and tile.

    Parameters
    ----------
    probabilities : callable
        The classifier c, which maps one vector (D,) to the probabilities of the classes.
    labels : (N,) sequence of int
        Number of the class of every point, from 0.
    psi : (K, D) array_like
        Reconstructions.

    Returns
    -------
    (N, K) list of lists
        Probabilities of a wrong class.

    Examples
    --------
    >>> naive_class_error(lambda y: [1 - y[0], y[0]], labels=[0, 1], psi=[[0.25]])
    [[0.25], [0.75]]
    """
    return [[1 - float(probabilities(p)[label]) for p in psi] for label in labels]


def naive_correlation_error(
    x: Rows, psi: Rows, image_shape: tuple[int, ...], patch: tuple[int, int], stride: int | None = None
) -> list[list[float]]:
    """Energy of PNCC, 1 minus the mean correlation of the patches of two images, for every point and tile.

    The correlation is Pearson's; it is 0 if one of the patches is constant.

    Parameters
    ----------
    x : (N, D) array_like
        Images, flattened.
    psi : (K, D) array_like
        Reconstructions.
    image_shape : tuple of int
        Height, width, and number of channels if the images have channels.
    patch : tuple of int
        Height and width of a patch.
    stride : int, optional
        Distance of neighbouring patches, by default their size. The last patch ends at the border of the image.

    Returns
    -------
    (N, K) list of lists
        Energies, without units.

    Examples
    --------
    >>> image = [[0.0, 1.0, 2.0, 3.0]]
    >>> round(naive_correlation_error(image, image, image_shape=(2, 2), patch=(2, 2))[0][0], 9)
    0.0
    """
    return [[1 - _mean_correlation(xi, p, image_shape, patch, stride) for p in psi] for xi in x]


def _mean_correlation(
    one: Any, other: Any, image_shape: tuple[int, ...], patch: tuple[int, int], stride: int | None
) -> float:
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


def naive_slope(function: Callable[[FloatArray], float], psi: FloatArray, h: float = 1e-3) -> FloatArray:
    """Gradient of a scalar function of all reconstructions, by central differences of fourth order.

    Parameters
    ----------
    function : callable
        Maps a (K, D) array to a number.
    psi : (K, D) array
        Reconstructions at which the gradient is computed.
    h : float
        Step of the differences, in units of psi.

    Returns
    -------
    (K, D) array
        Gradient, d function / d psi.

    Examples
    --------
    >>> naive_slope(lambda psi: float((psi**2).sum()), np.array([[1.0], [2.0]])).round(9)
    array([[2.],
           [4.]])
    """
    slope = np.empty_like(psi)
    for index in np.ndindex(psi.shape):
        values = []
        for steps in (-2, -1, 1, 2):
            moved = psi.copy()
            moved[index] += steps * h
            values.append(function(moved))
        slope[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    return slope


def naive_jacobian(x: Rows, weights: Any, psi: Rows, masses: Any, lam: float) -> FloatArray:
    """Jacobian of the map T (encoder, then weighted means) for the squared error (T8).

    Parameters
    ----------
    x : (N, D) array_like
        Data.
    weights : (N,) array_like
        Data weights, of sum 1.
    psi : (K, D) array_like
        Reconstructions at a fixed point; at other points the result is not the derivative of the map.
    masses : (K,) array_like
        Prior masses.
    lam : float
        Multiplier lambda = 1 / (2 theta).

    Returns
    -------
    (K D, K D) array
        J_bc; rows and columns are ordered by tile, then by coordinate.

    Examples
    --------
    >>> J = naive_jacobian([[-1.0], [1.0]], [0.5, 0.5], psi=[[0.0], [0.0]], masses=[0.5, 0.5], lam=0.5)
    >>> np.linalg.eigvalsh(J).round(9)  # 0, and twice lambda times the variance
    array([0., 1.])
    """
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


def _log(mass: float) -> float:
    return math.log(mass) if mass > 0 else -math.inf


def _times_log(share: float, probability: float) -> float:
    return 0.0 if share == 0 else share * _log(probability)
