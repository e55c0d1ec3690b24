"""Directions along which F is nearly flat: few passes, the right point, and an error estimate that is not too small."""

import numpy as np
import pytest
from scipy.optimize import brentq

import constrained_vae as cv
from constrained_vae.backends import get_backend
from constrained_vae.solvers import extended_precision, soft_modes
from constrained_vae.testing import naive_expectations
from tests.helpers.marks import slow

MOST = 1000  # passes over the data, products with the Jacobian included


def polygon(n, phase=0.0):
    angles = 2 * np.pi * np.arange(n) / n + phase
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def below_transition(x, distance=1e-3):
    return cv.first_critical_beta(x) * (1 - distance)


def radius_of_polygon(x, beta):
    """Reconstructions r x_a, one for each corner: r from one equation, by symmetry."""

    def excess(r):
        image = naive_expectations(x, np.full(len(x), 1 / len(x)), r * x, np.full(len(x), 1 / len(x)), beta)
        return image.sums[0] @ x[0] / image.mass[0] / r - 1

    return brentq(excess, 1e-3, 0.5, xtol=1e-16)


@pytest.mark.parametrize("phase", [0.0, 0.3])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1000.0, 5e4)])
@pytest.mark.parametrize(("n", "tiles"), [(5, 5), (5, 10), (6, 6), (6, 12), (6, 18)])
def test_a_polygon_of_reconstructions_is_found_exactly(n, tiles, scale, offset, phase):
    """A rotation changes F by 1e-15 nats in a pentagon; its curvature is 1e-4 (n = 5) and 1e-7 (n = 6)."""
    x = polygon(n, phase)
    beta = below_transition(x)
    s = cv.solve(scale * x + offset, beta=beta * scale**2, n_tiles=tiles, on_failure="return", max_maps=5000)
    r = radius_of_polygon(x, beta)
    distances = np.linalg.norm((s.decoder - offset)[:, None] / scale - r * x, axis=2).min(axis=1)
    error = np.sqrt(np.square(distances).mean())
    assert s.n_maps < MOST
    assert len(s.distinct) == n
    # Rounding of 1e-16 of F over the curvature; an offset of 50 radii takes two digits.
    assert error < (1e-8 if offset else 1e-9)
    assert s.converged or s.status is cv.Status.CRITICAL
    assert error <= s.error_estimate / scale + 1e-10 + 1e-14 * offset / scale


@pytest.mark.parametrize("n", [slow(5), 6, slow(7), 8, slow(9), slow(10), slow(11), 12])
@pytest.mark.parametrize("tiles", [2, 8, 60])
def test_few_passes_near_a_symmetric_transition(n, tiles):
    x = polygon(n)
    beta = below_transition(x)
    s = cv.solve(x, beta=beta, n_tiles=tiles, on_failure="return", max_maps=5000)
    assert s.n_maps < MOST
    assert s.converged or s.status is cv.Status.CRITICAL
    assert s.residual < 2e-9  # sqrt(2 h e): a slope that F, rounded to e = 2e-14, does not show at a curvature h = 1e-4
    # The leading order of F, for tiles that move freely, is 1e-3 + 1.1e-10 below the transition; two tiles: 5e-7.
    assert s.free_energy == pytest.approx(1.0010005005 if tiles == 2 else 1.00100000011, abs=1e-8)


@pytest.mark.parametrize("seed", [0, 6, 9])
def test_a_point_on_a_flat_saddle_is_left(seed):
    """Free masses: the accelerators were still at F = 0.500005 after 5000 maps."""
    x = np.random.default_rng(seed).standard_normal((35, 1))
    s = cv.solve(x, beta=below_transition(x, 1e-5), n_tiles=2, masses="free")
    assert s.converged
    assert s.n_maps < MOST
    assert s.free_energy < 0.4992
    image = naive_expectations(x, s.weights, s.decoder, s.tiling.masses, s.beta)
    np.testing.assert_allclose(image.sums / image.mass[:, None], s.decoder, atol=1e-9)
    np.testing.assert_allclose(image.mass, s.tiling.masses, atol=1e-9)


def test_products_with_the_jacobian_are_counted(monkeypatch):
    x, calls, products = polygon(6), [], []
    backend = get_backend("reference")
    expectations, at, residual = backend.expectations, soft_modes.Quadratic.at, extended_precision.residual
    monkeypatch.setattr(extended_precision, "residual", lambda it: (calls.append(1), residual(it))[1])
    monkeypatch.setattr(backend, "expectations", lambda *args: (calls.append(1), expectations(*args))[1])
    monkeypatch.setattr(soft_modes.Quadratic, "at", lambda it: (products.append(it.here.psi.size), at(it))[1])
    s = cv.solve(x, beta=below_transition(x), n_tiles=8, backend="reference", on_failure="return")
    assert products
    assert s.n_maps == len(calls) + sum(products)


def test_a_budget_that_is_too_small_for_a_hessian_is_used_up_by_maps():
    x = polygon(6)
    s = cv.solve(x, beta=below_transition(x), n_tiles=60, max_maps=300, on_failure="return")
    assert s.status is cv.Status.BUDGET_USED
    assert s.n_maps <= 300


@pytest.mark.parametrize("free", ["fixed", "free"])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_the_quadratic_is_that_of_the_map(free, likelihood, monkeypatch, rng):
    """The curvatures are those of the Jacobian of the solution, computed by `cv.Jacobian`."""
    x = rng.random((12, 2))
    seen = []
    monkeypatch.setattr(soft_modes, "due", lambda it, tol: it.here.residual < 1e-5)
    at = soft_modes.Quadratic.at
    monkeypatch.setattr(soft_modes.Quadratic, "at", lambda it: (seen.append(at(it)), seen[-1])[1])
    objective = cv.ELBO(0.3, 0.3 if likelihood == "gaussian" else 1.0, likelihood=likelihood)
    s = cv.solve(x, objective.at(0.5 * cv.first_critical_beta(x, objective)), n_tiles=2, masses=free)
    assert s.converged
    assert seen
    expected = 1 - cv.Jacobian.at(s, merge=False).eigenpairs(len(seen[-1].values)).values
    np.testing.assert_allclose(seen[-1].values, np.sort(expected), atol=1e-6)


def test_the_slow_way_down_from_a_saddle_is_followed():
    """Points of tiny weights: F falls by less than its rounding for 150 maps, and then by half a nat."""
    x, weights = np.array([[2.0, 0, 1], [-3, 2, -2], [-3, -1, 1]]), np.array([1.0, 2.6e-13, 6.3e-8])
    tiling = cv.Tiling([0.172, 0.345, 0.18, 0.303])
    s = cv.solve(x, beta=1.6414482e-6, tiling=tiling, weights=weights, masses="free", seed=2212)
    rho = weights / weights.sum()
    assert s.converged
    assert s.free_energy == pytest.approx(-rho @ np.log(rho), abs=1e-12)  # every point has its own tile
