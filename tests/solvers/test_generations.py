"""Generations: with free masses all sites past their split condition split together, as far as there are tiles."""

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers import generations, soft_modes
from constrained_vae.solvers.split_condition import split_axes, split_condition


@pytest.mark.parametrize("tiles", [2, 3, 8])
def test_two_points_split_once(tiles):
    """F = log 2 - h((1 + m) / 2) + D / (2 beta), m = tanh(m / beta) (theory, section 5)."""
    s = cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=tiles, masses="free")
    m = 0.9575040240772687
    assert s.converged
    assert len(s.distinct) == 2
    np.testing.assert_allclose(np.sort(s.distinct.decoder[:, 0]), [-m, m], atol=1e-9)
    assert s.n_maps < 20


def test_a_collapsed_solution_keeps_its_tiles_together():
    x = np.random.default_rng(0).standard_normal((30, 2))
    s = cv.solve(x, beta=1.1 * cv.first_critical_beta(x), n_tiles=8, masses="free")
    assert s.converged
    assert len(s.distinct) == 1
    np.testing.assert_allclose(s.decoder, np.tile(x.mean(axis=0), (8, 1)), atol=1e-12)


def test_the_tiles_go_where_a_split_gains_most():
    """A wide and a narrow cluster of equal weight, far apart: the third tile belongs to the wide one."""
    x = np.concatenate([np.linspace(-3, 3, 50), 100 + np.linspace(-0.5, 0.5, 50)])[:, None]
    s = cv.solve(x, beta=0.05, n_tiles=3, masses="free")
    assert s.converged
    assert (s.decoder < 50).sum() == 2


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_axes_of_all_sites_are_those_of_the_split_condition(likelihood):
    rng = np.random.default_rng(1)
    objective = cv.ELBO(0.3, likelihood=likelihood)
    problem = Problem.make(rng.random((20, 3)), objective, None, "numba")
    psi = problem.data.rows.frame.inward(rng.random((4, 3)) * 0.8 + 0.1)
    log_masses = np.log(rng.dirichlet(np.ones(4)))
    values, deviations = split_axes(problem, psi, log_masses)
    for site in range(4):
        found = split_condition(problem, psi, log_masses, np.arange(4) == site)
        assert values[site] == pytest.approx(found.eigenvalue, rel=1e-12)
        np.testing.assert_allclose(deviations[site], found.deviation, atol=1e-12)


def test_the_gain_of_many_is_that_of_water_filling():
    """Gaussian data of variance v theta: F falls from v / 2 to (log v) / 2 + 1 / 2."""
    np.testing.assert_allclose(generations.gain_of_many(np.array([1.0, np.e])), [0, (np.e - 2) / 2], atol=1e-15)


@pytest.mark.parametrize("radius", [0.01, 0.3, 100.0])
@pytest.mark.parametrize("lowest", [-2.0, 0.0, 1.0])
def test_the_trust_region_step_is_the_lowest_point_within_the_radius(lowest, radius):
    """Against many random steps; the first slope is zero, so that a negative curvature is the hard case."""
    rng = np.random.default_rng(0)
    values, slopes = np.array([lowest, 2.0, 3.0]), np.array([0.0 if lowest <= 0 else 1.0, 1.0, -0.5])

    def model(step):
        return -step @ slopes + (step**2 @ values) / 2

    step = soft_modes.trust_region_step(values, slopes, radius)
    assert np.linalg.norm(step) <= radius * (1 + 1e-9)
    others = rng.standard_normal((20_000, 3))
    others *= (radius * rng.random((20_000, 1)) ** (1 / 3)) / np.linalg.norm(others, axis=1, keepdims=True)
    assert model(step) <= model(others).min() + 1e-12 * (1 + radius**2)


def test_a_correction_repairs_the_product_with_the_step():
    rng = np.random.default_rng(0)
    step, missed = rng.standard_normal((2, 5))
    across = missed - missed @ step / (step @ step) * step  # no symmetric rank-one matrix maps the step to it
    for target in (missed, across):
        change = soft_modes.correction(step, target)
        np.testing.assert_allclose(change @ step, target, atol=1e-12)
        np.testing.assert_allclose(change, change.T, atol=1e-12)


@pytest.mark.parametrize("slope", [1e-300, 1e-12, 1.0, 1e12, 1e120])
def test_a_trust_region_step_has_its_radius_at_slopes_of_any_size(slope):
    """Of sites of mass 1e-224, slopes are 1e112; the flattest mode is shifted by many orders of magnitude."""
    values, slopes = np.array([-1e3, 0.0, 1e-7, 1e3]), slope * np.array([1e-3, 1.0, -0.5, 0.2])
    step = soft_modes.trust_region_step(values, slopes, 0.03)
    assert np.linalg.norm(step) == pytest.approx(0.03, rel=1e-11)
    # The condition of optimality: one shift of all curvatures, none of which is left negative.
    shifts = slopes / step - values
    np.testing.assert_allclose(shifts, shifts.max(), rtol=1e-9)
    assert shifts.max() >= 1e3 * (1 - 1e-12)


@pytest.mark.parametrize("slope", [1e-3, 0.0])
def test_a_trust_region_step_at_a_huge_negative_curvature_is_finite(slope):
    """The lowest curvature, shifted by its size and 1e-13 more, is rounded to zero: 0 / 0 without a slope."""
    with np.errstate(all="ignore"):
        step = soft_modes.trust_region_step(np.array([-1e9, 1.0]), np.array([slope, 1.0]), 0.1)
    assert np.linalg.norm(step) == pytest.approx(0.1)
    assert step[0] > 0
