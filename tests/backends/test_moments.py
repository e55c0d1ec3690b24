"""Moments of the deviations of a small problem, compiled, against NumPy."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.backends import numba
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers import split_condition as module
from constrained_vae.solvers.split_condition import split_condition


@pytest.mark.parametrize("dim", [1, 2, 5, 8])
def test_moments_are_those_of_the_encoder(dim: int) -> None:
    rng = np.random.default_rng(dim)
    phi, rho, psi = rng.normal(size=(40, dim)), rng.dirichlet(np.ones(40)), rng.normal(size=(6, dim))
    log_masses, lam, some = np.log(rng.dirichlet(np.ones(6))), 0.7, np.array([4, 0, 5])
    log_masses[1] = -np.inf  # a dead tile
    logits = log_masses - lam * np.square(phi[:, None] - psi).sum(axis=2)
    q = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    found = numba.deviation_moments(phi, rho, psi, log_masses, lam, some)
    for sums, a in zip(found, some, strict=True):
        y = np.column_stack([phi - psi[a], np.ones(40)])
        assert sums == pytest.approx(y.T @ ((rho * q[:, a])[:, None] * y), rel=1e-12, abs=1e-15)


def test_a_small_condition_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    x, psi, log_masses = 5 + rng.normal(size=(60, 3)), rng.normal(size=(4, 3)), np.log(np.full(4, 0.25))
    problem = Problem.make(x, cv.ELBO(beta=0.6), np.full(60, 1 / 60), "numba")
    with mock.patch.object(numba, "deviation_moments", wraps=numba.deviation_moments) as used:
        found = split_condition(problem, psi, log_masses)
    assert used.called
    with mock.patch.object(module, "_moments_of_few", return_value=None):
        other = split_condition(problem, psi, log_masses)
    assert (found.top, found.site) == (pytest.approx(other.top, rel=1e-12), other.site)
    assert found.axis == pytest.approx(other.axis, abs=1e-10)
    bernoulli = Problem.make(rng.uniform(size=(60, 3)), cv.ELBO(beta=0.6, likelihood="bernoulli"), None, "numba")
    assert module._moments_of_few(bernoulli, psi, log_masses, np.arange(4)) is None
