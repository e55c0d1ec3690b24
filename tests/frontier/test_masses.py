"""The best masses of given reconstructions, which is a convex problem."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

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
    masses = best_masses(energies, rho, start, 1e-9)
    assert masses.sum() == pytest.approx(1, abs=1e-14)
    assert (masses >= 0).all()
    c = slopes(energies, rho, masses)
    assert c.max() <= 1 + 2e-9
    assert masses @ c == pytest.approx(1, abs=1e-12)


def test_nearly_dependent_reconstructions_leave_few():
    """At high temperature a hundred reconstructions are numerically a few: the others get no mass."""
    energies, rho = problem(150, 3.0)
    masses = best_masses(energies, rho, np.full(150, 1 / 150), 1e-9)
    assert np.count_nonzero(masses) < 15


def test_a_general_optimiser_finds_no_better_masses():
    energies, rho = problem(8, 4.0)
    G = np.exp(energies.min(axis=1, keepdims=True) - energies)

    def F(logits):
        p = np.exp(logits - logits.max())
        return -rho @ np.log(G @ (p / p.sum()))

    masses = best_masses(energies, rho, np.full(8, 0.125), 1e-10)
    found = min(minimize(F, np.random.default_rng(seed).normal(size=8), tol=1e-12).fun for seed in range(5))
    assert -rho @ np.log(G @ masses) == pytest.approx(found, abs=1e-8)
    assert -rho @ np.log(G @ masses) <= found + 1e-9


def test_blocks_of_rows_give_the_same_masses(monkeypatch):
    """Also where they are not kept, and where a light reconstruction is left out."""
    energies, rho = problem(40, 30.0)
    energies = np.concatenate([energies, energies[:, :1] + 1e-3], axis=1)
    start = np.where(np.arange(41) == 20, 1.0, 0.0)
    whole = best_masses(energies, rho, start, 1e-10)
    cuts = np.array_split(energies, 7)
    np.testing.assert_allclose(best_masses(lambda: iter(cuts), rho, start, 1e-10), whole, rtol=1e-6, atol=1e-12)
    monkeypatch.setattr("constrained_vae.frontier.masses._KEPT", 1)
    np.testing.assert_allclose(best_masses(lambda: iter(cuts), rho, start, 1e-10), whole, rtol=1e-6, atol=1e-12)
