"""Random problems in the linear form (T4), as a backend gets them, and what their answers are compared with."""

from typing import NamedTuple

import numpy as np

from constrained_vae.backends import get_backend
from constrained_vae.testing import naive_linear

FORMS = ["gaussian", "linear", "bernoulli"]


class Problem(NamedTuple):
    """Arguments of a backend, and the parameters from which a naive function knows the same energies."""

    arguments: tuple  # statistics, offset, weights, v, b, log_masses
    multiplier: float | None  # lambda of a squared distance
    psi: np.ndarray | None
    masses: np.ndarray

    def astype(self, dtype):
        return self._replace(arguments=tuple(array.astype(dtype) for array in self.arguments))

    def naive(self):
        """The naive answer to the linear form, from the very numbers the backend gets."""
        return naive_linear(*(array.astype(float) for array in self.arguments))

    def solve(self, name, quadratic=None):
        return get_backend(name).expectations(*self.arguments, quadratic=quadratic)


def make(form, seed, N, K, S, multiplier=1.0, dead=()):
    """A random problem with unequal weights and masses, and tiles of mass zero where asked."""
    rng = np.random.default_rng(seed)
    weights, masses = rng.dirichlet(np.ones(N)), rng.dirichlet(np.ones(K))
    masses[list(dead)] = 0.0
    masses /= masses.sum()
    with np.errstate(divide="ignore"):
        log_masses = np.log(masses)
    psi = None
    if form == "gaussian":
        x, psi = rng.normal(size=(N, S)), rng.normal(size=(K, S))
        offset, v, b = multiplier * (x**2).sum(1), 2 * multiplier * psi, -multiplier * (psi**2).sum(1)
    elif form == "bernoulli":
        x, psi = rng.integers(0, 2, size=(N, S)).astype(float), rng.uniform(0.05, 0.95, size=(K, S))
        offset, v, b = np.zeros(N), multiplier * np.log(psi / (1 - psi)), multiplier * np.log(1 - psi).sum(1)
    else:
        x, offset = rng.normal(size=(N, S)), rng.normal(size=N)
        v, b = multiplier * rng.normal(size=(K, S)), multiplier * rng.normal(size=K)
    return Problem((x, offset, weights, v, b, log_masses), multiplier if form == "gaussian" else None, psi, masses)


def assert_close(given, naive, problem):
    """Agreement to what rounding allows.

    An energy is a sum of S + 3 terms, so its error is delta = (S + 3) eps times the sum of their magnitudes; the
    conversion of psi to v and b in the working precision costs as much again, and log pi - H is rounded once more. An
    encoder entry then has a relative error of 2 delta, and some eps from exp (8 allowed) and from summing K entries.
    """
    phi, s, rho, v, b, log_masses = problem.arguments
    eps = float(np.finfo(phi.dtype).eps)
    (N, S), K = phi.shape, len(b)
    alive = np.isfinite(log_masses)
    terms = (
        np.abs(s).max()
        + np.abs(b[alive]).max()
        + (np.abs(phi) @ np.abs(v[alive].T)).max()
        + np.abs(log_masses[alive]).max()
    )
    delta = 2 * (S + 3) * eps * float(terms)
    relative = 2 * delta + (8 + K) * eps + N * np.finfo(float).eps
    weight = float(rho.sum(dtype=float))
    absolute = weight * np.exp(-650.0 if phi.dtype == np.float64 else -60.0)  # what may be flushed to zero
    np.testing.assert_array_less(np.abs(given.mass - naive.mass), relative * naive.mass + absolute)
    reach = (rho[:, None] * naive.encoder).T @ np.abs(phi)  # sums may cancel, these do not
    np.testing.assert_array_less(np.abs(given.sums - naive.sums), relative * reach + absolute)
    assert abs(given.free_energy - naive.free_energy) <= weight * (delta + relative)
    assert abs(given.energy - naive.energy) <= weight * (delta + relative * float(terms))


def assert_identical(one, two):
    for field in ("mass", "sums", "free_energy", "energy"):
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field), strict=True)
