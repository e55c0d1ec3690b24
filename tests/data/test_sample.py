"""A sample of the rows stands for all of them, whatever is rare among them."""

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.data import rows as rows_of, sample
from constrained_vae.phases import sweep
from constrained_vae.problems.problem import Problem


def a_one_among_zeros(n, dim):
    x = np.zeros((n, dim))
    x[n // 3] = 1
    return x


@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1000.0, 0.0), (1.0, 1e4)])
@pytest.mark.parametrize("n", [1500, 5000])
def test_a_one_among_zeros_splits_at_the_variance_of_a_coin(n, unit, offset):
    """One point p = 1/n from the rest: the top of the grid is 1.25 p (1 - p), and the only split is at p (1 - p)."""
    x = unit * a_one_among_zeros(n, 1) + offset
    exact = unit**2 * (1 / n) * (1 - 1 / n)
    assert cv.default_betas(x)[[0, -1]] == pytest.approx([exact / 2, 1.25 * exact], rel=1e-10)


def test_the_first_transition_of_a_one_among_many_zeros():
    found = cv.transitions(a_one_among_zeros(2000, 1), n_tiles=2, limit=1)
    assert [t.beta for t in found] == pytest.approx([0.0005 * 0.9995], rel=1e-9)


def test_pixels_that_differ_little_do_not_coincide():
    """The Bernoulli decoder keeps the units of the data: mean m, deviations +-m, first split at m / (1 - m)."""
    grid = cv.default_betas([[0.0], [2e-9]], cv.ELBO(likelihood="bernoulli"))
    assert grid[[0, -1]] == pytest.approx([0.5e-9, 1.25e-9], rel=1e-8)


def outliers(rng):
    """Four blobs of width 1, and single points at 1e2, 1e4 and 1e6 of it: each hides the next."""
    centres = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    x = np.repeat(centres, 350, axis=0) + rng.standard_normal((1400, 2))
    return np.vstack([x, [[1e2, 0.0], [0.0, 1e4], [-1e6, 0.0]]]), None


def a_rare_cluster(rng):
    """Three tight clusters; one has four of 1404 points."""
    x = np.repeat([[0.0], [1.0], [40.0]], [700, 700, 4], axis=0)
    return x + 0.01 * rng.standard_normal(x.shape), None


def a_heavy_row(rng):
    x = rng.standard_normal((1500, 3))
    return x, np.where(np.arange(1500) == 1234, 1000.0, 1.0)


def repeated_rows(rng):
    return np.repeat(rng.standard_normal((5, 2)), [500, 3, 1, 1, 1000], axis=0), None


@pytest.mark.parametrize("draw", [outliers, a_rare_cluster, a_heavy_row, repeated_rows])
def test_the_hierarchy_of_a_sample_is_that_of_all_rows(draw, rng, monkeypatch):
    """The first three scales, within the spread of a sample: variances of 250 points are 9 % off."""
    x, weights = draw(rng)
    problem = Problem.make(x[rng.permutation(len(x))] if weights is None else x, None, weights, "numba", None)
    sampled, _ = sweep._split_scales(problem)
    monkeypatch.setattr(sweep, "_MAX_SUBSAMPLE", len(x))
    np.testing.assert_allclose(sampled[:3], sweep._split_scales(problem)[0][:3], rtol=0.25)


@pytest.mark.parametrize("heavy", [1.0, 100.0])
def test_weighted_sums_over_samples_are_unbiased(heavy, rng, monkeypatch):
    """The mean over 200 seeds of fourth moments, of which a few rows have most: within four standard errors."""
    x = rng.standard_normal((200, 2)) ** 3
    rho = np.where(np.arange(200) == 123, heavy, 1.0)
    rows = rows_of.Rows(x, rho / rho.sum(), rows_of.Frame.identity(2), np.dtype(np.float64))
    monkeypatch.setattr(sample, "_DRAWS", 4)
    make, found = np.random.default_rng, []
    for seed in range(200):
        monkeypatch.setattr(sample.np.random, "default_rng", lambda _, seed=seed: make(seed))
        chosen, share = sample.spanning_sample(rows, 40)
        assert len(chosen) == 40
        assert share.sum() == pytest.approx(1, rel=1e-12)
        found.append(share @ x[chosen] ** 4)
    error = np.std(found, axis=0) / 200**0.5
    assert (np.abs(np.mean(found, axis=0) - rows.weights @ x**4) <= 4 * error).all()


def test_a_sample_of_few_rows_is_all_of_them():
    rows = rows_of.Rows(np.eye(3), np.array([0.5, 0.0, 0.5]), rows_of.Frame.identity(3), np.dtype(np.float64))
    chosen, share = sample.spanning_sample(rows, 2)
    assert chosen.tolist() == [0, 2]
    assert share.tolist() == [0.5, 0.5]
