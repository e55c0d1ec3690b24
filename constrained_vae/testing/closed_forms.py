"""Problems with exact answers (theory, section 5), written without the package.

The problem of two points at distance 2a is solved in the variable y = a psi / theta, theta = sigma^2 beta, which is the
field on a magnet in the Curie-Weiss model. With m = tanh y the equation (T3) reads theta / a^2 = tanh(y) / y. Every
quantity has a form in y that loses no digits, neither at the transition (y -> 0) nor far below it (m -> 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

FloatArray = npt.NDArray[np.float64]
EPS = float(np.finfo(float).eps)


class TwoPoints(NamedTuple):
    """Points -a and a on a line, of weights 1 - p and p.

    Attributes
    ----------
    a : float
        Half the distance of the points.
    p : float
        Weight of the point a.
    beta, sigma : float
        Temperature, and standard deviation of the Gaussian decoder in the units of a.

    Examples
    --------
    >>> TwoPoints(a=2.0, p=0.5, beta=1.0, sigma=1.0).a
    2.0
    """

    a: float
    p: float
    beta: float
    sigma: float

    @property
    def x(self) -> FloatArray:
        """The points, (2, 1)."""
        return np.array([[-self.a], [self.a]])

    @property
    def weights(self) -> FloatArray:
        """Weights of the points, (2,)."""
        return np.array([1 - self.p, self.p])


class ExactBranch(NamedTuple):
    """The exact solution: on the ordered branch if it exists at this temperature, otherwise the collapsed solution.

    Attributes
    ----------
    psi : (k,) array
        Reconstructions, ascending; k = 1 if collapsed.
    masses : (k,) array
        Prior masses of the reconstructions.
    distortion : float
        E||x - psi||^2, in squared units of a.
    rate : float
        Rate in nats.
    contraction : float
        Largest eigenvalue of the Jacobian (T8) at fixed masses, for p = 1/2; NaN for any other p.

    Examples
    --------
    >>> from constrained_vae.testing import unequal_points
    >>> problem, exact = unequal_points(a=1.0, p=0.5, theta=0.5)
    >>> exact.psi.round(6), round(exact.distortion, 6)
    (array([-0.957504,  0.957504]), 0.083186)
    """

    psi: FloatArray
    masses: FloatArray
    distortion: float
    rate: float
    contraction: float


def field(t: float) -> float:
    """The field y >= 0 with tanh(y) / y = t, where t = theta / a^2; 0 for t >= 1."""
    if t >= 1:
        return 0.0

    # The equation is solved as 1/t - 1 = y coth y - 1, where both sides are free of cancellation (1 - t is exact near
    # t = 1). The root lies below 1/t, since tanh y < 1.
    return float(brentq(lambda y: _langevin(y) - (1 - t) / t, 1e-12, 1.1 / t, xtol=1e-300, rtol=4 * EPS))


def _langevin(y: float) -> float:
    """y coth y - 1."""
    if y > 1:
        return y / math.tanh(y) - 1
    # (y cosh y - sinh y) / sinh y: the numerator's series has positive terms only.
    return sum(2 * k * y ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(1, 12)) / math.sinh(y)


def log2_less_entropy(y: float) -> float:
    """log 2 - h((1 + m) / 2) at m = tanh y, in nats: y tanh y - log cosh y."""
    if y < 1:
        return y * math.tanh(y) - math.log1p(2 * math.sinh(y / 2) ** 2)
    tail = math.exp(-2 * y)
    return math.log(2) - 2 * y * tail / (1 + tail) - math.log1p(tail)


def curie_weiss(a: float, relative_beta: float, sigma: float = 1.0) -> tuple[TwoPoints, ExactBranch]:
    """Two points of equal weight with equal masses, at a given fraction of the critical beta (theory, section 5).

    Parameters
    ----------
    a : float
        Half the distance of the points.
    relative_beta : float
        beta divided by the critical beta, a^2 / sigma^2.
    sigma : float
        Standard deviation of the Gaussian decoder, in the units of a.

    Returns
    -------
    TwoPoints, ExactBranch
        The problem and its exact solution.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> problem, exact = curie_weiss(a=1.0, relative_beta=0.5)
    >>> s = solve(problem.x, beta=problem.beta, n_tiles=2)
    >>> abs(s.distortion - exact.distortion) < 1e-9
    True
    """
    y = field(relative_beta)
    problem = TwoPoints(a, 0.5, relative_beta * a**2 / sigma**2, sigma)
    disorder = 1 / math.cosh(y) ** 2  # 1 - m^2
    psi = np.array([-a, a]) * math.tanh(y) if y else np.zeros(1)
    return problem, ExactBranch(
        psi, np.full(len(psi), 1 / len(psi)), a**2 * disorder, log2_less_entropy(y), disorder / relative_beta
    )


def multiplier_of_error(a: float, squared_error: float) -> float:
    """Multiplier at which two points +-a of equal weight, with equal masses, have a given distortion (T21).

    It solves the Curie-Weiss equation m = tanh(2 lambda a^2 m) for lambda, where the distortion is a^2 (1 - m^2).

    Parameters
    ----------
    a : float
        Half the distance of the points.
    squared_error : float
        E||x - psi||^2, in squared units of a; the collapsed solution has the distortion a^2.

    Returns
    -------
    float
        lambda, in nats per squared unit of a; 0 for distortions of a^2 and above.

    Examples
    --------
    >>> round(multiplier_of_error(a=1.0, squared_error=0.75), 6)
    0.549306
    """
    if squared_error >= a**2:
        return 0.0
    m = math.sqrt(1 - squared_error / a**2)
    # artanh m with 1 - m = (1 - m^2) / (1 + m), which loses no digits for m -> 1.
    return 0.5 * math.log((1 + m) ** 2 * a**2 / squared_error) / (2 * a**2 * m)


def nucleation_theta(a: float, p: float) -> float:
    """theta = 1 / (2 lambda*) at which the mass of the minority vanishes on the ordered branch (T16).

    Parameters
    ----------
    a : float
        Half the distance of the points.
    p : float
        Weight of one of the points.

    Returns
    -------
    float
        theta, in squared units of a; a^2 for p = 1/2.

    Examples
    --------
    >>> round(nucleation_theta(a=1.0, p=0.5), 9)  # symmetric: at the split
    1.0
    """
    d = abs(2 * p - 1)
    # lambda* = log((1 - p) / p) / (Delta^2 (1 - 2p)) with Delta = 2a; near p = 1/2 the logarithm is 2 artanh(1 - 2p).
    half_log = math.atanh(d) if d < 0.5 else abs(math.log((1 - p) / p)) / 2
    return a**2 * (d / half_log if d else 1.0)


def unequal_points(a: float, p: float, theta: float) -> tuple[TwoPoints, ExactBranch]:
    """Two points of weights 1 - p and p with free masses, and the globally optimal solution (theory, section 5).

    Parameters
    ----------
    a : float
        Half the distance of the points.
    p : float
        Weight of the point a.
    theta : float
        sigma^2 beta, in squared units of a; the problem has sigma = 1.

    Returns
    -------
    TwoPoints, ExactBranch
        The problem and its exact solution.

    Examples
    --------
    >>> problem, exact = unequal_points(a=1.0, p=0.7, theta=0.5)
    >>> exact.masses.round(4), round(exact.rate, 4)  # the larger mass belongs to the heavier point
    (array([0.2911, 0.7089]), 0.508)
    """
    problem, d = TwoPoints(a, p, theta, 1.0), 2 * p - 1
    if theta >= nucleation_theta(a, p):
        return problem, ExactBranch(np.array([a * d]), np.ones(1), a**2 * (1 - d**2), 0.0, math.nan)
    y = field(theta / a**2)
    m = math.tanh(y)
    share = d / m
    return problem, ExactBranch(
        np.array([-a * m, a * m]),
        np.array([1 - share, 1 + share]) / 2,
        a**2 / math.cosh(y) ** 2,
        log2_less_entropy(y) - log2_less_entropy(math.atanh(abs(d))),
        math.nan,
    )


def water_filling(eigenvalues: Sequence[float], theta: float) -> tuple[float, float]:
    """Optimal distortion and rate of a Gaussian distribution, and of a linear VAE on any data (theory, section 5).

    Parameters
    ----------
    eigenvalues : (D,) array_like
        Variances l_j along the principal axes, in squared units of x.
    theta : float
        sigma^2 beta, the water level.

    Returns
    -------
    distortion : float
        D = sum_j min(l_j, theta), in squared units.
    rate : float
        R = 1/2 sum_j log+(l_j / theta), in nats.

    Examples
    --------
    >>> water_filling([4.0, 2.0, 0.5], theta=1.0)[0]
    2.5
    """
    ell = np.asarray(eigenvalues, dtype=float)
    return float(np.minimum(ell, theta).sum()), float(0.5 * np.log(np.maximum(ell / theta, 1)).sum())


def all_curie_weiss() -> Iterator[tuple[TwoPoints, ExactBranch]]:
    """Problems on both sides of the transition and on several scales; the tests require 1e-9 of `solve`.

    Yields
    ------
    TwoPoints, ExactBranch
        A problem of `curie_weiss` and its exact solution.

    Examples
    --------
    >>> problems = list(all_curie_weiss())
    >>> len(problems) > 5, problems[0][0].p
    (True, 0.5)
    """
    for a, sigma in ((1.0, 1.0), (0.37, 3.0), (5.0, 0.5), (2e3, 1.0)):
        for relative_beta in (0.3, 0.9, 0.99, 1.01, 1.5):
            yield curie_weiss(a, relative_beta, sigma)
