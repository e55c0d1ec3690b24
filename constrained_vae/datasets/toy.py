"""Toy sets with exactly known first critical beta.

By (T9) the first critical beta is the largest eigenvalue ell_1 of Cov(x), divided by sigma squared. In these sets the
covariance of the *sample* is exact, not only the covariance of the population: noise comes in pairs +-z and is
rescaled. Odd moments of the noise therefore vanish too, and with them the small jumps of (T13).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, special

from .._utils import memory
from .._utils.checks import check_count, check_number, check_seed, check_vector
from .._utils.interrupts import deferred_interrupts
from .data_set import DataSet

_MOST_POINTS = 2**24  # of a toy set
_MOST_CORNERS = 2**13  # of a simplex, which has nearly as many dimensions
_FARTHEST = 1e120  # radii; the package computes with larger ones


def two_points(half_distance: float = 1.0, weight: float = 0.5, dim: int = 1) -> DataSet:
    """Two points on the first axis, the Curie-Weiss magnet; critical beta 4 p (1 - p) a^2.

    Parameters
    ----------
    half_distance : float
        a > 0: row 0 is the point -a e_1, row 1 the point +a e_1; labels 0 and 1.
    weight : float
        Weight p of the point +a e_1, strictly between 0 and 1; the point -a e_1 has weight 1 - p.
    dim : int
        Dimension D >= 1 of the space.

    Returns
    -------
    DataSet
        Points ``x`` (2, dim) with their ``weights``, and ``critical_beta``.

    Raises
    ------
    ValueError
        If the weight is not between 0 and 1, or the distance or `dim` is not positive.

    Examples
    --------
    >>> two_points(half_distance=3.0).critical_beta
    9.0
    """
    a = _length(half_distance, "half_distance")
    p = check_number(weight, "weight", "strictly between 0 and 1", lambda share: 0 < share < 1)
    x = np.zeros((2, check_count(dim, "dim", most=memory.LARGEST)))
    x[:, 0] = -a, a
    return DataSet(x, "two_points", np.array([1 - p, p]), np.arange(2), critical_beta=4 * p * (1 - p) * a**2)


def simplex(n_corners: int = 3, scale: float = 1.0) -> DataSet:
    """Corners of a regular simplex about the origin, one label each.

    All directions are equivalent: critical beta scale^2 / (N - 1) is an eigenvalue of multiplicity N - 1 (T9).

    Parameters
    ----------
    n_corners : int
        Number of corners N >= 2, in N - 1 dimensions.
    scale : float
        Distance > 0 of every corner from the origin.

    Returns
    -------
    DataSet
        Points ``x`` (n_corners, D) with a label each, and ``critical_beta``.

    Raises
    ------
    ValueError
        If there are fewer than two corners, or the scale is not positive.

    Examples
    --------
    >>> simplex(3)
    DataSet('simplex', N=3, D=2, critical_beta=0.5)
    """
    n, r = check_count(n_corners, "n_corners", 2, _MOST_CORNERS), _length(scale, "scale")
    # The unit vectors of R^N, projected onto the hyperplane where coordinates sum to 0, in an orthonormal basis of it.
    corners = linalg.helmert(n).T * math.sqrt(n / (n - 1))  # (N, N - 1), unit radius
    return DataSet(r * corners, "simplex", labels=np.arange(n), critical_beta=r**2 / (n - 1))


def four_clusters(n_per_cluster: int = 50, spread: float = 0.125, seed: int = 0) -> DataSet:
    """Four tight clusters in the plane that merge pair by pair, at three well separated critical betas.

    The centres (-3, +-1.25) and (3, +-0.55) are the corners of a trapezium. On cooling, the mean splits into left and
    right at beta = 9 + s^2, the left pair splits at 1.25^2 + s^2 and the right pair at 0.55^2 + s^2, where s is the
    spread. The first value is exact; the others are exact up to the overlap of the encoder between left and right.
    Single clusters split near s^2, far below. The noise of a cluster is symmetric about its centre and has covariance
    exactly s^2 I, and the lower clusters mirror the upper ones. So there is no skewness along any of the three axes,
    and all three transitions are continuous (T13).

    Parameters
    ----------
    n_per_cluster : int
        Points per cluster, at least 4. Labels 0 and 1 are the left pair (upper, lower), 2 and 3 the right pair.
    spread : float
        Standard deviation s >= 0 of a cluster along each axis.
    seed : int
        Seed of the noise.

    Returns
    -------
    DataSet
        Points ``x`` (4 n_per_cluster, 2) and ``labels``, the clusters.

    Raises
    ------
    ValueError
        If there are fewer than 4 points per cluster, or the spread is negative.

    Examples
    --------
    >>> four_clusters(spread=0.0).critical_beta
    9.0
    """
    n, s = check_count(n_per_cluster, "n_per_cluster", 4, _MOST_POINTS), _noise(spread, "spread")
    rng = np.random.default_rng(check_seed(seed))
    left, right = (centre + s * _symmetric_noise(rng, n) for centre in ([-3.0, 1.25], [3.0, 0.55]))
    x = np.concatenate([left, left * [1, -1], right, right * [1, -1]])
    return DataSet(x, "four_clusters", labels=np.repeat(np.arange(4), n), critical_beta=9.0 + s**2)


def gaussian(eigenvalues: Sequence[float] = (1.0,), n: int | None = None, seed: int = 0) -> DataSet:
    """A sample that represents the population N(0, diag(eigenvalues)), with critical beta max(eigenvalues).

    In one dimension the points are the means of n bins of equal probability, n (f(z_i) - f(z_i+1)), where f is the
    normal density and z_i are its quantiles. In more dimensions they are quasi-random absolute values of normal
    variates (scrambled Halton), mirrored in all 2^D sign patterns. Axes are rescaled: the covariance of the sample is
    exactly diag(eigenvalues).

    Parameters
    ----------
    eigenvalues : sequence of float
        Variances > 0 along the axes, 1 to 8 of them.
    n : int, optional
        Number of bins if D = 1 (default 400), else of base points, which give n 2^D points (default 500); at least 2.
    seed : int
        Seed of the scrambling; ignored in one dimension.

    Returns
    -------
    DataSet
        Points ``x`` (N, D), a column per eigenvalue, and ``critical_beta``.

    Raises
    ------
    ValueError
        If the variances are not 1 to 8 positive numbers, or n is below 2.

    Examples
    --------
    >>> gaussian((4.0, 2.0), n=100)
    DataSet('gaussian', N=400, D=2, critical_beta=4)
    """
    with deferred_interrupts():
        from scipy.stats import qmc  # a slow import

    ell = check_vector(eigenvalues, "eigenvalues")
    if ell.size > 8:
        raise ValueError(
            f"eigenvalues must be a sequence of 1 to 8 variances, got shape {ell.shape}: each axis doubles the number "
            "of points; keep the 8 largest, or draw a random sample in more dimensions"
        )
    if not ((ell >= _FARTHEST**-2) & (ell <= _FARTHEST**2)).all():
        raise ValueError(
            f"eigenvalues must be positive, at least {_FARTHEST**-2:g} and at most {_FARTHEST**2:g}, got {ell}: leave "
            "out axes of variance 0"
        )
    dim = ell.size
    n, seed = check_count((400 if dim == 1 else 500) if n is None else n, "n", 2, _MOST_POINTS), check_seed(seed)
    if dim == 1:
        edges = special.ndtri(np.linspace(0, 1, n + 1))
        z = -n * np.diff(np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi))[:, None]
        z = (z - z[::-1]) / 2  # makes the symmetry of the bins exact to the last bit
    else:
        base = special.ndtri((1 + qmc.Halton(dim, seed=seed).random(n)) / 2)  # (n, D), absolute values
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=dim)))  # (2^D, D)
        z = (signs[:, None] * base).reshape(-1, dim)
    z *= np.sqrt(ell / np.mean(z**2, axis=0))
    return DataSet(z, "gaussian", critical_beta=float(ell.max()))


def exponential(n: int = 400) -> DataSet:
    """Means of n >= 2 bins of equal probability of the exponential distribution, ascending; mean 0, variance 1.

    Critical beta 1. The skewness, slightly below 2, makes the first transition first-order if masses are free or there
    are three or more tiles (T13).

    Parameters
    ----------
    n : int
        Number of bins, at least 2.

    Returns
    -------
    DataSet
        Points ``x`` (n, 1) of equal weight, without labels.

    Raises
    ------
    ValueError
        If n is no whole number of at least 2.

    Examples
    --------
    >>> exponential(100)
    DataSet('exponential', N=100, D=1, critical_beta=1)
    """
    n = check_count(n, "n", 2, _MOST_POINTS)
    survival = np.linspace(1, 0, n + 1)
    # Means of the bins minus 1: with S = e^-t the integral of t e^-t is S - S log S, and S falls by 1/n in a bin.
    x = n * np.diff(special.xlogy(survival, survival))
    x -= x.mean()
    return DataSet((x / np.sqrt(np.mean(x**2)))[:, None], "exponential", critical_beta=1.0)


def rings(n: int = 300, radii: Sequence[float] = (1.0, 2.0), noise: float = 0.05, seed: int = 0) -> DataSet:
    """Concentric rings of evenly spaced points with normal noise, in 2-D; the label is the index in `radii`.

    Parameters
    ----------
    n : int
        Number of points, distributed over the rings as evenly as possible; at least one per ring.
    radii : sequence of float
        Radii > 0, one per ring.
    noise : float
        Standard deviation >= 0 of the noise along each axis.
    seed : int
        Seed of the noise.

    Returns
    -------
    DataSet
        Points ``x`` (n, 2) and ``labels``, the rings.

    Raises
    ------
    ValueError
        If a radius is not positive, the noise is negative, or there are fewer points than rings.

    Examples
    --------
    >>> rings(100)
    DataSet('rings', N=100, D=2)
    """
    r = check_vector(radii, "radii")
    if not ((r >= 1 / _FARTHEST) & (r <= _FARTHEST)).all():
        raise ValueError(f"radii must be positive, at least {1 / _FARTHEST:g} and at most {_FARTHEST:g}, got {r}")
    labels = np.sort(np.arange(check_count(n, "n", r.size, _MOST_POINTS)) % r.size)
    turn = np.concatenate([np.arange(count) / count for count in np.bincount(labels)])  # (n,), in [0, 1)
    x = r[labels, None] * np.stack([np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)], axis=1)
    return _noisy(x, "rings", labels, noise, seed)


def moons(n: int = 300, noise: float = 0.05, seed: int = 0) -> DataSet:
    """Two interleaved half circles of n >= 2 points in 2-D, with labels and normal noise as in `rings`.

    The half circles are those of scikit-learn's `make_moons`.

    Parameters
    ----------
    n : int
        Number of points, at least 2.
    noise : float
        Standard deviation >= 0 of the noise along each axis.
    seed : int
        Seed of the noise.

    Returns
    -------
    DataSet
        Points ``x`` (n, 2) and ``labels``, the half circles.

    Raises
    ------
    ValueError
        If n is no whole number of at least 2, or the noise is negative.

    Examples
    --------
    >>> moons(100)
    DataSet('moons', N=100, D=2)
    """
    with deferred_interrupts():
        from sklearn.datasets import make_moons

    x, labels = make_moons(check_count(n, "n", 2, _MOST_POINTS), shuffle=False)
    return _noisy(x, "moons", labels, noise, seed)


def _symmetric_noise(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Pairs +-z of normal points, and one point at 0 if n is odd, (n, 2), whose covariance is exactly the identity."""
    z = rng.standard_normal((n // 2, 2))
    z = linalg.solve_triangular(linalg.cholesky(2 / n * z.T @ z, lower=True), z.T, lower=True).T
    return np.concatenate([z, -z, np.zeros((n % 2, 2))])


def _noisy(x: NDArray[np.float64], name: str, labels: NDArray[np.int64], noise: float, seed: int) -> DataSet:
    scale = _noise(noise, "noise")
    return DataSet(x + scale * np.random.default_rng(check_seed(seed)).standard_normal(x.shape), name, labels=labels)


def _length(value: Any, name: str) -> float:
    """A positive length with a representable square."""
    wanted = f"a positive number of at most {_FARTHEST:g} and at least {1 / _FARTHEST:g}"
    return check_number(value, name, wanted, lambda length: 1 / _FARTHEST <= length <= _FARTHEST)


def _noise(value: Any, name: str) -> float:
    """A standard deviation with a representable square."""
    wanted = f"a number of at least 0 and at most {_FARTHEST:g}"
    return check_number(value, name, wanted, lambda length: 0 <= length <= _FARTHEST)
