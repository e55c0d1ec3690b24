"""The best masses of given reconstructions, which is a convex problem."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

import constrained_vae as cv
from constrained_vae.backends import numba
from constrained_vae.backends.overlaps import overlaps
from constrained_vae.equations import log_masses
from constrained_vae.frontier import affinities
from constrained_vae.frontier.affinities import Affinities, CompiledAffinities
from constrained_vae.frontier.masses import best_masses


def problem(n_sites, stiffness, n=200, seed=0):
    """Energies (n, n_sites) and weights (n,) of points on a line."""
    rng = np.random.default_rng(seed)
    x, psi = rng.normal(size=n), np.linspace(-2.5, 2.5, n_sites)
    rho = rng.uniform(0.5, 1.5, n)
    return stiffness * np.square(x[:, None] - psi), rho / rho.sum()


def slopes(energies, rho, masses):
    """c (k,) of the reconstructions."""
    G = np.exp(energies.min(axis=1, keepdims=True) - energies)
    return rho @ (G / (G @ masses)[:, None])


@pytest.mark.parametrize("stiffness", [1.0, 3.0, 30.0, 1e4])
@pytest.mark.parametrize("n_sites", [3, 40, 150])
def test_no_mass_can_be_moved_to_advantage(n_sites, stiffness):
    """At the optimum c is 1 where the mass is positive and at most 1 elsewhere, to the accuracy."""
    energies, rho = problem(n_sites, stiffness)
    start = np.where(np.arange(n_sites) == n_sites // 2, 1.0, 0.0)
    masses = best_masses(Affinities(energies, rho, n_sites), start, 1e-9)
    assert masses.sum() == pytest.approx(1, abs=1e-14)
    assert (masses >= 0).all()
    c = slopes(energies, rho, masses)
    assert c.max() <= 1 + 2e-9
    assert masses @ c == pytest.approx(1, abs=1e-12)


def test_nearly_dependent_reconstructions_leave_few():
    """At high temperature a hundred reconstructions are numerically a few: the others get no mass."""
    energies, rho = problem(150, 3.0)
    masses = best_masses(Affinities(energies, rho, 150), np.full(150, 1 / 150), 1e-9)
    assert np.count_nonzero(masses) < 15


def test_a_general_optimiser_finds_no_better_masses():
    energies, rho = problem(8, 4.0)
    G = np.exp(energies.min(axis=1, keepdims=True) - energies)

    def F(logits):
        p = np.exp(logits - logits.max())
        return -rho @ np.log(G @ (p / p.sum()))

    masses = best_masses(Affinities(energies, rho, 8), np.full(8, 0.125), 1e-10)
    found = min(minimize(F, np.random.default_rng(seed).normal(size=8), tol=1e-12).fun for seed in range(5))
    assert -rho @ np.log(G @ masses) == pytest.approx(found, abs=1e-8)
    assert -rho @ np.log(G @ masses) <= found + 1e-9


def test_blocks_of_rows_give_the_same_masses(monkeypatch):
    """Also where they are not kept, and where a light reconstruction is left out."""
    energies, rho = problem(40, 30.0)
    energies = np.concatenate([energies, energies[:, :1] + 1e-3], axis=1)
    start = np.where(np.arange(41) == 20, 1.0, 0.0)
    whole = best_masses(Affinities(energies, rho, 41), start, 1e-10)
    cuts = np.array_split(energies, 7)
    for kept in (affinities._KEPT, 1):
        monkeypatch.setattr(affinities, "_KEPT", kept)
        found = best_masses(Affinities(lambda: iter(cuts), rho, 41), start, 1e-10)
        np.testing.assert_allclose(found, whole, rtol=1e-6, atol=1e-12)


# --- very many rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 4])
@pytest.mark.parametrize(("rows", "lam"), [(700, 0.3), (700, 40.0), (3, 1.0)])
def test_overlaps_are_sums_of_products(dim, rows, lam, rng):
    """All of them, and without the terms below a limit, which change a sum by less than their product."""
    x = rng.normal(size=(rows, dim))
    x, psi, logs = np.sort(x, axis=0), rng.normal(size=(20, dim)), 3 * rng.normal(size=rows)
    S = np.exp(logs[:, None] / 2 - lam * np.square(x[:, None] - psi).sum(axis=2))
    np.testing.assert_allclose(overlaps(x, logs, lam, psi, -1e9), S.T @ S, rtol=1e-12, atol=1e-300)
    left_out = overlaps(x, logs, lam, psi, -20.0) - S.T @ S
    assert np.abs(left_out).max() <= 1e-12 * np.abs(S.T @ S).max() + rows * np.exp(-20.0) * S.max()
    assert (overlaps(x, logs, lam, psi, 1e9) == 0).all()


@pytest.mark.parametrize("lam", [1.0, 300.0, 1e6])
def test_compiled_sums_are_those_of_the_energies(lam, rng):
    """A mass of zero, weights over decades, and rows far from every reconstruction."""
    x, psi = rng.normal(size=(900, 2)), rng.normal(size=(70, 2))
    rho, masses = rng.dirichlet(np.full(900, 0.3)) + 1e-9, rng.dirichlet(np.ones(70))
    rho, masses[::7] = rho / rho.sum(), 0.0
    masses /= masses.sum()
    energies = lam * np.square(x[:, None] - psi).sum(axis=2)
    order = affinities.near_order(x, numba)
    dense, fast = Affinities(energies, rho, 70), CompiledAffinities(x[order], rho[order], psi, lam, numba)
    logs = [log_masses(rows.partition(masses)) for rows in (dense, fast)]
    # Both are relative to a factor of the row: the largest affinity, and the sum of all.
    factor = np.log(np.exp(energies.min(axis=1, keepdims=True) - energies).sum(axis=1))
    np.testing.assert_allclose(logs[1], (logs[0] - factor)[order], rtol=1e-9, atol=1e-9)
    Z = np.exp(logs[0]), np.exp(logs[1])
    np.testing.assert_allclose(fast.slope(Z[1]), dense.slope(Z[0]), rtol=1e-9)
    np.testing.assert_allclose(fast.plain(masses), dense.plain(masses), rtol=1e-9, atol=1e-300)
    exact = dense.products(Z[0])
    np.testing.assert_allclose(fast.products(Z[1]), exact, rtol=1e-9, atol=1e-9 * exact.max())


def test_light_reconstructions_that_are_needed_are_kept():
    """The second has no share of the first row, and is all that the second row has; the third is of no use."""
    energies = np.array([[0.0, 800.0, 1.0], [800.0, 0.0, 900.0]])
    rho = np.array([1 - 1e-16, 1e-16])
    masses = best_masses(Affinities(energies, rho, 3), np.array([1.0 - 1e-15, 1e-15, 0.0]), 1e-9)
    assert masses[1] > 0
    assert masses[2] == 0


def test_the_optimum_of_compiled_masses(monkeypatch, rng):
    x = 1000 * rng.normal(size=(200, 2))
    options = {"beta": 5e5, "gap": 1e-4, "time_limit": None}
    whole = cv.global_solution(x, **options)
    monkeypatch.setattr(affinities, "_KEPT", 1)
    compiled = cv.global_solution(x, **options)
    assert compiled.certificate.gap <= 1e-4
    assert compiled.free_energy == pytest.approx(whole.free_energy, abs=1e-4)
