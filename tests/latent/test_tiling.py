"""Tilings: masses that sum to one, and positions that follow the Gaussian prior."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from constrained_vae import Tiling


@pytest.mark.parametrize("n", [1, 3, 7, 256])
def test_uniform(n):
    tiling = Tiling.uniform(n)
    assert len(tiling) == n
    assert tiling.positions is None
    np.testing.assert_allclose(tiling.masses, 1 / n, rtol=1e-15)
    assert repr(tiling) == f"Tiling({n} tiles, uniform masses)"


def test_masses_are_normalised_read_only_copies():
    given_masses, positions = np.array([0.25, 0.75 + 5e-9]), np.array([[0.0], [1.0]])
    tiling = Tiling(given_masses, positions)
    assert tiling.masses.sum() == pytest.approx(1, abs=1e-15)
    given_masses[0] = positions[0] = 9.0
    assert tiling.masses[0] == pytest.approx(0.25, abs=1e-8)
    assert tiling.positions[0] == 0.0
    for array in (tiling.masses, tiling.positions):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0
    assert repr(tiling) == "Tiling(2 tiles, given masses, positions in 1-D)"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30).filter(lambda masses: sum(masses) > 1e-3))
def test_normalising_twice_changes_no_bit(masses):
    """Else a saved solution would not come back as it was."""
    once = Tiling(np.array(masses) / np.sum(masses)).masses
    np.testing.assert_array_equal(Tiling(once).masses, once)


def test_one_dimension_is_the_medians_of_equal_bins():
    tiling = Tiling.gaussian(5, dim=1)
    np.testing.assert_allclose(tiling.positions[:, 0], stats.norm.ppf([0.1, 0.3, 0.5, 0.7, 0.9]), atol=1e-15)
    np.testing.assert_allclose(tiling.masses, 0.2)


def test_two_dimensions_are_a_spiral_with_rayleigh_radii():
    positions = Tiling.gaussian(50, dim=2).positions
    radius, angle = np.hypot(*positions.T), np.unwrap(np.arctan2(*positions.T[::-1]))
    np.testing.assert_allclose(stats.rayleigh.cdf(radius), (np.arange(50) + 0.5) / 50, atol=1e-14)
    golden = np.pi * (3 - np.sqrt(5))
    np.testing.assert_allclose(np.diff(angle), golden, atol=1e-12)


@pytest.mark.parametrize(("n", "dim"), [(256, 1), (256, 2), (256, 3), (256, 7), (100, 3)])
def test_positions_follow_the_prior(n, dim):
    tiling = Tiling.gaussian(n, dim)
    assert tiling.positions.shape == (n, dim)
    # Equal shares of the quasi-random points lie below every quantile; sampling error would be 1 / sqrt(n) = 6 %.
    np.testing.assert_allclose(tiling.positions.mean(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(tiling.positions.T, ddof=0), np.eye(dim), atol=0.12)
    assert max(stats.kstest(axis, "norm").statistic for axis in tiling.positions.T) < 0.04


def test_one_tile_and_seeds():
    for dim in (1, 2, 3):
        assert np.isfinite(Tiling.gaussian(1, dim).positions).all()
    one, same, other = (Tiling.gaussian(16, 3, seed).positions for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_positions_are_finite():
    with pytest.raises(ValueError, match="positions must be finite"):
        Tiling([0.5, 0.5], [[0.0], [np.nan]])
