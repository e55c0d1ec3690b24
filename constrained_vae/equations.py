"""The fixed-point equations (T1)-(T7), (T14), (T15) as pure array functions.

Every function accepts NumPy or CuPy arrays and does not change them. Shapes: N data points, K tiles, S statistics. All
energies of the package have the linear form (T4)

    H_ia = s_i - b_a - phi_i . v_a,        log pi_a - H_ia = b_a + phi_i . v_a - s_i + log pi_a,

with the statistics phi (N, S) and the offset s (N,) of the data, the readout (v, b) of the reconstruction vectors
psi_a, and the log prior masses log pi_a. Energies, rates and free energies are in nats. The reference backend applies
these functions to one block of rows after another.

Examples
--------
>>> import numpy as np
>>> q, log_Z = encoder(np.zeros((1, 2)), np.log([0.25, 0.75]))  # without energies the posterior is the prior
>>> q
array([[0.25, 0.75]])
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from ._utils.arrays import Array
from ._utils.checks import real_array
from ._utils.device import array_namespace, on_host

_STEEP = 1e3  # nats: up to this size of its terms, energies are computed in the linear form, which is faster


def bits(nats: Array) -> Array:
    """Convert nats to bits: division by log 2.

    Parameters
    ----------
    nats : float or array
        Information in nats, of any shape.

    Returns
    -------
    float or array
        Information in bits, of the same shape.

    Raises
    ------
    ValueError
        If `nats` holds anything but real numbers.

    Examples
    --------
    >>> bits(math.log(8))
    3.0
    """
    if hasattr(nats, "__cuda_array_interface__"):
        return nats / math.log(2)
    found: Array = real_array(nats, "nats", "a number or an array of them") / math.log(2)
    return found if found.ndim else float(found)  # type: ignore[return-value]


@dataclass(frozen=True)
class Expectations:
    """Result of one pass over data rows; the results of disjoint sets of rows can be added.

    Attributes
    ----------
    mass : (K,) array
        Marginal posterior m_a = sum_i rho_i q_ia.
    sums : (K, S) array
        Weighted statistics sum_i rho_i q_ia phi(x_i).
    free_energy : float
        F = -sum_i rho_i log Z_i, in nats (T5).
    energy : float
        Expected energy sum_ia rho_i q_ia H_ia, in nats; the rate is ``free_energy - energy``.

    Examples
    --------
    >>> import numpy as np
    >>> part = Expectations(mass=np.ones(1), sums=np.ones((1, 1)), free_energy=0.25, energy=0.125)
    >>> (part + part).free_energy
    0.5
    """

    mass: Array
    sums: Array
    free_energy: float | Array
    energy: float | Array

    def __add__(self, other: Expectations) -> Expectations:
        return Expectations(
            self.mass + other.mass,
            self.sums + other.sums,
            self.free_energy + other.free_energy,
            self.energy + other.energy,
        )


def energies(statistics: Array, offset: Array, v: Array, b: Array, quadratic: float | None = None) -> Array:
    """Energies H_ia = s_i - b_a - phi_i . v_a, shape (N, K), in nats (T4).

    The terms cancel, and H is good to eps times the largest of them. If the energy is a squared distance, `quadratic`
    is its multiplier lambda. Then H = lambda ||phi_i - v_a / (2 lambda)||^2 is computed from differences where the
    terms are large (`is_steep`), and its rounding is relative to the distance.

    Parameters
    ----------
    statistics : (N, S) array
        Statistics phi of the data.
    offset : (N,) array
        Offsets s of the data, in nats.
    v : (K, S) array
        Readouts of the reconstructions.
    b : (K,) array
        Offsets of the reconstructions, in nats.
    quadratic : float, optional
        Multiplier lambda of a squared error.

    Returns
    -------
    (N, K) array
        Energies in nats.

    Examples
    --------
    >>> import numpy as np
    >>> energies(np.array([[1.0]]), np.array([0.5]), v=np.array([[1.0]]), b=np.array([-0.5]))  # (1 - 1)^2 / 2
    array([[0.]])
    """
    if quadratic and on_host(statistics) and is_steep(offset, quadratic):
        return quadratic * cdist(statistics, v / (2 * quadratic), "sqeuclidean")
    return offset[:, None] - b - statistics @ v.T


def is_steep(offset: Array, quadratic: float | None) -> bool:
    """Whether energies with these offsets s_i (N,) are squared distances, and too large for the linear form (T4).

    Parameters
    ----------
    offset : (N,) array
        Offsets s of the data, in nats.
    quadratic : float, optional
        Multiplier lambda of a squared error; None for any other energy.

    Returns
    -------
    bool
        False for any energy but a squared distance.

    Examples
    --------
    >>> import numpy as np
    >>> is_steep(np.array([0.5, 2e3]), quadratic=1.0), is_steep(np.array([0.5]), quadratic=1.0)
    (True, False)
    """
    return bool(quadratic) and float(offset.max()) > _STEEP


def encoder(energies: Array, log_masses: Array) -> tuple[Array, Array]:
    """Encoder q_ia = pi_a exp(-H_ia) / Z_i, shape (N, K), and log Z_i, shape (N,) (T1).

    A tile of prior mass zero (log mass minus infinity) has posterior mass zero.

    Parameters
    ----------
    energies : (N, K) array
        Energies H in nats.
    log_masses : (K,) array
        Logarithms of the prior masses.

    Returns
    -------
    q : (N, K) array
        Posterior masses; every row sums to 1.
    log_Z : (N,) array
        Log partition sums.

    Examples
    --------
    >>> import numpy as np
    >>> q, log_Z = encoder(np.array([[0.0, np.log(3.0)]]), np.log([0.5, 0.5]))
    >>> q
    array([[0.75, 0.25]])
    """
    xp = array_namespace(energies)
    logits = log_masses - energies
    top = xp.max(logits, axis=1, keepdims=True)
    q = xp.exp(logits - top)
    total = xp.sum(q, axis=1, keepdims=True)
    return q / total, (top + xp.log(total))[:, 0]


def coverage(energies: Array, log_shares: Array) -> tuple[Array, Array]:
    """log c(y) = log sum_i rho_i exp(-H(x_i, y)) / Z_i of points y, (n,), and the shares (n, N) of the data in c (T14).

    This is (T1) with the roles of data and reconstructions exchanged: the energies are (n, N), a row for every point,
    and the log shares of the data are log rho_i - log Z_i, (N,).

    Parameters
    ----------
    energies : (n, N) array
        Energies H(x_i, y) in nats.
    log_shares : (N,) array
        log rho_i - log Z_i.

    Returns
    -------
    log_c : (n,) array
        Logarithms of the coverage.
    shares : (n, N) array
        Rows that sum to 1.

    Examples
    --------
    >>> import numpy as np
    >>> value, shares = coverage(np.array([[0.0, np.log(3.0)]]), np.log([0.5, 0.5]))  # (1 + 1 / 3) / 2
    >>> np.exp(value).round(4), shares
    (array([0.6667]), array([[0.75, 0.25]]))
    """
    shares, values = encoder(energies, log_shares)
    return values, shares


def log_masses(masses: Array) -> Array:
    """Logarithms of masses, minus infinity for a mass of zero, shape (K,).

    Parameters
    ----------
    masses : (K,) array
        Masses, at least 0.

    Returns
    -------
    (K,) array
        Logarithms, at most 0 for masses that sum to 1.

    Examples
    --------
    >>> import numpy as np
    >>> log_masses(np.array([1.0, 0.0]))
    array([  0., -inf])
    """
    with np.errstate(divide="ignore"):
        return np.log(masses)


def marginal(q: Array, weights: Array) -> Array:
    """Marginal (aggregate) posterior m_a = sum_i rho_i q_ia, shape (K,).

    Parameters
    ----------
    q : (N, K) array
        Encoder.
    weights : (N,) array
        Weights rho of the data.

    Returns
    -------
    (K,) array
        Masses, which sum to 1.

    Examples
    --------
    >>> import numpy as np
    >>> marginal(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.25, 0.75]))
    array([0.25, 0.75])
    """
    return weights @ q


def decoder(sums: Array, mass: Array, previous: Array) -> Array:
    """Decoder update of a Bregman energy (T3), (T4): weighted means psi_a = sum_i w_ia x_i = sums_a / mass_a, (K, D).

    A dead tile (mass zero) keeps its previous reconstruction, on which the objective does not depend.

    Parameters
    ----------
    sums : (K, S) array
        Weighted statistics sum_i rho_i q_ia x_i.
    mass : (K,) array
        Marginal posterior.
    previous : (K, S) array
        Reconstructions before the update.

    Returns
    -------
    (K, S) array
        New reconstructions.

    Examples
    --------
    >>> import numpy as np
    >>> decoder(np.array([[1.0], [0.0]]), np.array([0.5, 0.0]), np.array([[9.0], [7.0]]))  # tile 2 has mass 0
    array([[2.],
           [7.]])
    """

    def of_columns(values: Array) -> Array:  # quicker than broadcasting to few columns
        return values.repeat(sums.shape[1]).reshape(sums.shape)

    if on_host(sums) and np.count_nonzero(mass) == len(mass):
        return sums / of_columns(mass)
    xp, alive = array_namespace(sums), mass > 0
    return xp.where(of_columns(alive), sums / of_columns(xp.where(alive, mass, 1.0)), previous)


def free_energy(log_partition: Array, weights: Array) -> Array:
    """Free energy F = -sum_i rho_i log Z_i in nats (T5).

    Parameters
    ----------
    log_partition : (N,) array
        log Z_i.
    weights : (N,) array
        Weights rho of the data.

    Returns
    -------
    scalar array
        Nats.

    Examples
    --------
    >>> import numpy as np
    >>> float(free_energy(np.array([-1.0, -3.0]), np.array([0.5, 0.5])))
    2.0
    """
    return -(weights @ log_partition)


def rate(q: Array, log_masses: Array, weights: Array) -> Array:
    """Rate R = sum_i rho_i KL(q_i || pi) in nats (T5); zero posterior mass contributes zero.

    Parameters
    ----------
    q : (N, K) array
        Encoder.
    log_masses : (K,) array
        Logarithms of the prior masses.
    weights : (N,) array
        Weights rho of the data.

    Returns
    -------
    scalar array
        Nats, at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> q = np.eye(2)
    >>> round(float(rate(q, np.log([0.5, 0.5]), np.array([0.5, 0.5]))), 6)  # log 2
    0.693147
    """
    xp = array_namespace(q)
    some = q > 0
    log_ratio = xp.log(xp.where(some, q, 1.0)) - xp.where(some, log_masses, 0.0)
    return weights @ xp.sum(xp.where(some, q * log_ratio, 0.0), axis=1)


def distortion(q: Array, weights: Array, x: Array, psi: Array) -> Array:
    """Distortion E||x - psi||^2 = sum_ia rho_i q_ia ||x_i - psi_a||^2, in squared units of x (T7).

    The sum is taken about the weighted mean of x, so that an offset of the data costs no accuracy. No (N, K, D) array
    is made.

    Parameters
    ----------
    q : (N, K) array
        Encoder.
    weights : (N,) array
        Weights rho of the data.
    x : (N, D) array
        Data.
    psi : (K, D) array
        Reconstructions.

    Returns
    -------
    scalar array
        At least 0, with the unit of x squared.

    Examples
    --------
    >>> import numpy as np
    >>> float(distortion(np.eye(2), np.array([0.5, 0.5]), np.array([[0.0], [2.0]]), np.array([[0.0], [1.0]])))
    0.5
    """
    xp = array_namespace(q)
    centre = (weights @ x) / xp.sum(weights)
    x, psi = x - centre, psi - centre
    mass, sums = weights @ q, (weights[:, None] * q).T @ x
    return weights @ xp.sum(x * x, axis=1) + mass @ xp.sum(psi * psi, axis=1) - 2 * xp.sum(sums * psi)


def marginal_kl(mass: Array, masses: Array) -> Array:
    """Marginal KL(m || pi) = sum_a m_a log(m_a / pi_a) in nats (T15); zero posterior mass contributes zero.

    Parameters
    ----------
    mass : (K,) array
        Marginal posterior m.
    masses : (K,) array
        Prior masses pi.

    Returns
    -------
    scalar array
        Nats, at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> round(float(marginal_kl(np.array([1.0, 0.0]), np.array([0.5, 0.5]))), 6)  # log 2
    0.693147
    """
    xp = array_namespace(mass)
    some = mass > 0
    return xp.sum(xp.where(some, mass * xp.log(xp.where(some, mass, 1.0) / xp.where(some, masses, 1.0)), 0.0))


def expectations(
    statistics: Array,
    offset: Array,
    weights: Array,
    v: Array,
    b: Array,
    log_masses: Array,
    quadratic: float | None = None,
) -> Expectations:
    """Encoder (T1) of a block of rows, and its masses, weighted statistics, free energy and energy (T5).

    Parameters
    ----------
    statistics : (N, S) array
        Statistics phi of the data.
    offset : (N,) array
        Offsets s of the data, in nats.
    weights : (N,) array
        Weights rho of the data.
    v : (K, S) array
        Readouts of the reconstructions.
    b : (K,) array
        Offsets of the reconstructions, in nats.
    log_masses : (K,) array
        Logarithms of the prior masses.
    quadratic : float, optional
        As in `energies`.

    Returns
    -------
    Expectations
        Of this block; those of other blocks can be added.

    Examples
    --------
    >>> import numpy as np
    >>> phi, s, v, b = np.array([[-1.0], [1.0]]), np.full(2, 0.5), np.array([[-1.0], [1.0]]), np.full(2, -0.5)
    >>> expectations(phi, s, np.full(2, 0.5), v, b, np.log([0.5, 0.5])).mass
    array([0.5, 0.5])
    """
    xp = array_namespace(statistics)
    H = energies(statistics, offset, v, b, quadratic)  # (N, K)
    q, log_partition = encoder(H, log_masses)
    weighted = weights[:, None] * q
    energy = xp.sum(weighted * xp.where(weighted > 0, H, 0.0))
    return Expectations(xp.sum(weighted, axis=0), weighted.T @ statistics, free_energy(log_partition, weights), energy)
