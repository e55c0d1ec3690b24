"""Free masses: a tile is given up only where c <= 1, however light it is, and a tile without mass is none (T14)."""

from dataclasses import replace

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.latent.sites import Sites
from constrained_vae.testing import naive_expectations

ACCELERATORS = ["lbfgs", "anderson", "squarem", "plain"]


def largest_log_c(s):
    """From the loops over points and tiles: c_a = m_a / pi_a."""
    naive = naive_expectations(s.x, s.weights, s.decoder, s.tiling.masses, s.objective.sigma**2 * s.beta)
    return np.log(naive.mass / s.tiling.masses).max()


@pytest.mark.parametrize(
    ("x", "beta", "tiles", "F"),
    [
        ((-7, 4, 3, -6, 2), 0.1, 5, 1.601197480),  # F of plain maps from the same start
        # Parts {9}, {0} and the other four, far apart: F = their entropy + D / (2 beta), D = 1.
        ((9, -8, -9, 0, -6, -9), 0.29, 3, np.log(6) / 3 - 2 / 3 * np.log(2 / 3) + 1 / 0.58),
    ],
)
def test_an_accelerated_step_does_not_throw_a_mass_away(x, beta, tiles, F):
    s = cv.solve(np.array(x, float)[:, None], beta=beta, n_tiles=tiles, masses="free")
    assert s.converged
    assert s.free_energy == pytest.approx(F, abs=1e-9)
    assert largest_log_c(s) <= 1e-10


def test_an_estimator_with_free_masses_finds_all_four_clusters():
    s = cv.FixedPointVAE(beta=0.2, n_tiles=6, masses="free").fit(cv.datasets.four_clusters().x).solution_
    assert s.converged
    assert s.free_energy == pytest.approx(1.4302562556, abs=1e-9)  # of plain maps; it was 3.10 with two clusters
    np.testing.assert_allclose(s.distinct.masses, 0.25, atol=1e-9)
    assert "largest log c" in repr(cv.report(s))


@pytest.mark.parametrize("seed", range(16))
def test_no_tile_of_a_converged_solution_would_grow(seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, (rng.integers(3, 10), rng.integers(1, 3))).astype(float)
    tiles, beta = int(rng.integers(2, 7)), np.cov(x.T).max() * 10 ** rng.uniform(-2.5, 0.1)
    for accelerate in ACCELERATORS[:3]:
        s = cv.solve(x, beta=beta, n_tiles=tiles, masses="free", accelerate=accelerate, on_failure="return")
        assert not s.converged or largest_log_c(s) <= 1.1e-10  # tol, and the rounding of the loops


@pytest.mark.parametrize("accelerate", ACCELERATORS)
@pytest.mark.parametrize("mass", [1e-6, 1e-30, 1e-180, 1e-320, 0.0])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_a_light_tile_grows_where_c_is_above_1(mass, accelerate, scale):
    """Two points: F = log 2 - h((1 + m) / 2) + D / (2 beta), m = tanh(m / beta) (theory, section 5)."""
    x, beta = scale * np.array([[-1.0], [1.0]]), 0.5
    s = cv.solve(
        x,
        beta=beta * scale**2,
        tiling=cv.Tiling([1 - mass, mass]),
        masses="free",
        start=x * 0.9,
        accelerate=accelerate,
    )
    m = 0.9575040240772687  # tanh(m / 0.5)
    h = -sum(p * np.log(p) for p in ((1 + m) / 2, (1 - m) / 2))
    assert s.converged
    np.testing.assert_allclose(np.sort(s.decoder[:, 0]) / scale, [-m, m], atol=1e-9)
    np.testing.assert_allclose(s.tiling.masses, 0.5, atol=1e-9)
    assert s.free_energy == pytest.approx(np.log(2) - h + (1 - m**2) / (2 * beta), abs=1e-12)


def test_a_point_of_tiny_weight_keeps_its_tile():
    """A mass of 1e-12 is an optimum where the data have it."""
    x, weights = np.array([[0.0], [1.0]]), np.array([1.0, 1e-12])
    s = cv.solve(x, beta=0.01, n_tiles=2, weights=weights, masses="free", start=x)
    assert s.converged
    assert len(s.distinct) == 2
    assert s.tiling.masses[1] == pytest.approx(1e-12, rel=1e-6)


@pytest.mark.parametrize("below", [1e-1, 1e-2, 1e-4])
@pytest.mark.parametrize("accelerate", ["lbfgs", "anderson"])
def test_a_tile_dies_where_c_is_below_1_and_quickly(below, accelerate):
    """Points 0 and 1 of weights .9 and .1 keep two tiles iff lambda > log 9 / 0.8 (theory, section 5)."""
    weights, lam = np.array([0.9, 0.1]), (1 - below) * np.log(9) / 0.8
    x = np.array([[0.0], [1.0]])
    s = cv.solve(
        x,
        beta=1 / (2 * lam),
        n_tiles=2,
        weights=weights,
        masses="free",
        start=x,
        accelerate=accelerate,
    )
    assert s.converged
    assert s.n_maps < 400
    assert len(s.distinct) == 1
    assert s.free_energy == pytest.approx(0.09 * lam, abs=1e-12)  # lambda times the variance


def with_a_twin(s, mass=2.5e-50):
    """The solution with one more tile, of no mass, just beyond `tolerance` of the first."""
    twin = s.decoder[:1] + 1.5 * s.tolerance / np.sqrt(s.decoder.shape[1])
    return replace(
        s,
        decoder=np.concatenate([twin, s.decoder]),
        tiling=cv.Tiling(np.append(mass, s.tiling.masses)),
        marginal=np.append(mass, s.marginal),
    )


def test_a_twin_without_mass_is_no_reconstruction():
    s = cv.solve(cv.datasets.four_clusters(8).x, beta=0.2, n_tiles=6, masses="free")
    t = with_a_twin(s)
    assert len(t.distinct) == len(s.distinct) == 4
    np.testing.assert_array_equal(t.labels, s.labels)
    assert t.distinct.index[0] == t.distinct.index[1]
    assert len(with_a_twin(s, 1e-8).distinct) == 5  # with mass it is one


def test_a_hole_of_fixed_masses_has_prior_mass_and_stays():
    x = np.array([[0.0], [1.0], [50.0]])
    s = cv.solve(x, beta=0.5, n_tiles=3, start=x - [[0], [0], [-300]], on_failure="return")
    assert len(s.distinct) == len(Sites.of_tiles(s.decoder, s.tiling.masses).merged(s.tolerance))


@pytest.mark.parametrize("beta", [19.302825518916634, 19.3])
def test_the_number_of_clusters_does_not_jump_with_beta(beta):
    x = ((14, 2), (-15, 1), (1, -6), (-16, -1), (-19, -2), (0, 24), (11, 9), (5, -2), (-3, -5))
    assert len(cv.FixedPointVAE(beta=beta, n_tiles=16).fit(x).cluster_centers_) == 4


@pytest.mark.parametrize("seed", [1481, *range(8)])
def test_weighted_rows_and_repeated_rows_have_the_same_clusters(seed):
    rng = np.random.default_rng(seed)
    x = 3 * rng.standard_normal((rng.integers(6, 16), rng.integers(1, 4)))
    repeats = rng.integers(0, 10, len(x))
    rows = np.repeat(x, repeats, axis=0)
    beta = np.linalg.eigvalsh(np.atleast_2d(np.cov(rows.T, bias=True)))[-1] * 10 ** rng.uniform(-1.5, 0)
    weighted = cv.FixedPointVAE(beta=beta, n_tiles=16).fit(x, sample_weight=repeats)
    repeated = cv.FixedPointVAE(beta=beta, n_tiles=16).fit(rows)
    assert weighted.solution_.free_energy == pytest.approx(repeated.solution_.free_energy, abs=1e-9)
    np.testing.assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, atol=1e-6)
    np.testing.assert_array_equal(np.repeat(weighted.labels_, repeats), repeated.labels_)
