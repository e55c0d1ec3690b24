"""Sites: tying and splitting tiles conserves their masses and centroids, and remembers who is where."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from constrained_vae.latent.sites import Sites, coincident


@st.composite
def sites(draw, least_tiles=1):
    """Random sites with one to four tiles each, in random order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    k = draw(st.integers(1, 6))
    index = np.repeat(np.arange(k), rng.integers(least_tiles, 5, size=k))
    return Sites(rng.normal(size=(k, 2)), rng.permutation(index), rng.dirichlet(np.ones(len(index))))


def centroid(sites, masses=None):
    return (sites.masses if masses is None else masses) @ sites.decoder


@given(sites())
def test_of_tiles_ties_exactly_coincident_tiles_in_order(some):
    tiles = some.decoder[some.index]
    tied = Sites.of_tiles(tiles, some.tile_masses)
    assert len(tied) == len(some)
    np.testing.assert_array_equal(tied.decoder[tied.index], tiles)
    firsts = [int(np.flatnonzero(tied.index == site)[0]) for site in range(len(tied))]
    assert firsts == sorted(firsts)
    assert tied.counts.sum() == len(tiles)
    np.testing.assert_allclose(np.sort(tied.masses), np.sort(some.masses), rtol=1e-14)


def test_masses_and_counts():
    some = Sites(np.array([[0.0], [1.0], [2.0]]), np.array([1, 0, 1, 2]), np.array([0.1, 0.2, 0.3, 0.4]))
    np.testing.assert_allclose(some.masses, [0.2, 0.4, 0.4])
    np.testing.assert_array_equal(some.counts, [1, 2, 1])
    np.testing.assert_array_equal(some.can_split(free=False), [False, True, False])
    np.testing.assert_array_equal(some.can_split(free=True), [True, True, True])
    lone = Sites(some.decoder, np.arange(3), np.full(3, 1 / 3))
    assert not lone.can_split(free=True).any()


@given(sites(), st.integers(0, 2**32 - 1))
def test_with_masses_shares_equally(some, seed):
    masses = np.random.default_rng(seed).dirichlet(np.ones(len(some)))
    shared = some.with_masses(masses)
    np.testing.assert_allclose(shared.masses, masses, rtol=1e-14)
    np.testing.assert_allclose(shared.tile_masses, (masses / some.counts)[some.index])


@given(sites(), st.floats(0, 3), st.integers(0, 2**32 - 1))
def test_merging_conserves_masses_and_the_centroid(some, tolerance, seed):
    marginal = np.random.default_rng(seed).dirichlet(np.ones(len(some)))
    merged = Sites(some.decoder, some.index, some.tile_masses, marginal).merged(tolerance)
    group = coincident(some.decoder, tolerance)
    assert len(merged) == group.max() + 1
    np.testing.assert_array_equal(merged.index, group[some.index])
    np.testing.assert_allclose(merged.masses, np.bincount(group, some.masses), rtol=1e-13)
    np.testing.assert_allclose(merged.marginal, np.bincount(group, marginal), rtol=1e-13)
    np.testing.assert_allclose(centroid(merged, merged.marginal), marginal @ some.decoder, atol=1e-14)
    unknown = some.merged(tolerance)  # without a marginal the prior masses weigh
    np.testing.assert_allclose(centroid(unknown), centroid(some), atol=1e-14)


def test_merging_goes_by_distance_and_leaves_dead_sites_no_say():
    decoder = np.array([[0.0, 0.0], [9.0, 9.0], [0.3, 0.4], [9.0, 9.0]])
    some = Sites(decoder, np.arange(4), np.full(4, 0.25), np.array([0.0, 0.0, 1.0, 0.0]))
    assert len(some.merged(0.499)) == 3
    merged = some.merged(0.501)
    np.testing.assert_array_equal(merged.index, [0, 1, 0, 1])
    np.testing.assert_allclose(merged.decoder, [[0.3, 0.4], [9.0, 9.0]], rtol=1e-15)
    assert (merged.decoder[1] == decoder[1]).all()  # exact coincidence stays exact
    distinct = Sites(np.array([[0.0], [1.0]]), np.arange(2), np.full(2, 0.5))
    assert distinct.merged(0.5) is distinct


def test_coincident_groups_in_order_of_their_first_member():
    decoder = np.array([[0.0], [5.0], [0.9], [1.8], [5.5]])
    np.testing.assert_array_equal(coincident(decoder, 1.0), [0, 1, 0, 2, 1])  # 1.8 is within reach of 0.9, not of 0


@pytest.mark.parametrize("dim", [1, 3, 40])
@pytest.mark.parametrize("tolerance", [0.0, 0.02, 1.0, 9.0])
@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0])
def test_many_rows_are_grouped_as_few(dim, tolerance, spread):
    """The search of neighbours, which many rows take, against all pairs in the order of the rows."""
    rng = np.random.default_rng(0)
    decoder = rng.normal(size=(60, dim))[rng.integers(0, 60, 200)] + spread * rng.normal(size=(200, dim))
    expected = np.full(200, -1)
    for row in range(200):
        if expected[row] < 0:
            near = np.square(decoder - decoder[row]).sum(axis=1) <= tolerance**2
            expected[near & (expected < 0)] = expected.max() + 1
    np.testing.assert_array_equal(coincident(decoder, tolerance), expected)


@pytest.mark.parametrize("tolerance", [0.1, np.nan])
def test_what_is_not_a_number_is_near_nothing(tolerance):
    decoder = np.array([[0.0, np.nan], [0.0, 1.0], [np.nan, np.nan], [0.0, np.nan]])
    np.testing.assert_array_equal(coincident(decoder, tolerance), [0, 1, 2, 3])


@given(sites(least_tiles=2), st.data(), st.booleans())
def test_splitting_conserves_masses_and_the_centroid(some, data, free):
    site = data.draw(st.integers(0, len(some) - 1))
    displacement = np.array([0.3, -0.2])
    before = (some.decoder.copy(), some.index.copy(), some.tile_masses.copy())
    split = some.split(site, displacement, free)
    for given_, copy in zip((some.decoder, some.index, some.tile_masses), before, strict=True):
        np.testing.assert_array_equal(given_, copy)
    others = np.delete(np.arange(len(some)), site)
    assert len(split) == len(some) + 1
    np.testing.assert_allclose(split.masses[others], some.masses[others], rtol=1e-14)
    np.testing.assert_array_equal(split.decoder[others], some.decoder[others])
    np.testing.assert_array_equal(split.counts[others], some.counts[others])
    pair = [site, len(some)]  # the second half goes last
    assert split.counts[pair].min() >= 1
    assert split.counts[pair].sum() == some.counts[site]
    assert split.masses[pair].sum() == pytest.approx(some.masses[site], rel=1e-14)
    np.testing.assert_allclose(centroid(split), centroid(some), atol=1e-14)
    np.testing.assert_allclose(split.decoder[site] - split.decoder[-1], 2 * displacement, rtol=1e-13)
    if free:
        np.testing.assert_allclose(split.masses[pair], some.masses[site] / 2, rtol=1e-14)


@pytest.mark.parametrize(
    ("masses", "halves"),
    [
        ([1, 1, 1, 1], (2, 2)),
        ([1, 1, 2], (2, 2)),
        ([6, 1, 1, 1], (6, 3)),
        ([1, 1, 1, 6], (3, 6)),
        ([1, 1, 3, 3], (5, 3)),
        ([1, 9], (1, 9)),
    ],
)
def test_fixed_masses_are_halved_as_nearly_as_the_tiles_allow(masses, halves):
    masses = np.array(masses) / sum(masses)
    split = Sites(np.zeros((1, 1)), np.zeros(len(masses), dtype=int), masses).split(0, np.ones(1), free=False)
    np.testing.assert_allclose(split.masses, np.array(halves) / sum(halves))
    # Displaced in inverse proportion: the lighter half moves further.
    np.testing.assert_allclose(split.decoder[:, 0], 2 * np.array([halves[1], -halves[0]]) / sum(halves))
    np.testing.assert_array_equal(split.tile_masses, masses)


@pytest.mark.parametrize("n", [3, 5, 7])
def test_an_odd_number_of_equal_tiles_is_cut_beside_the_middle(n):
    split = Sites(np.zeros((1, 1)), np.zeros(n, dtype=int), np.full(n, 1 / n)).split(0, np.ones(1), free=False)
    np.testing.assert_array_equal(np.sort(split.counts), [n // 2, n // 2 + 1])


def test_a_lone_tile_borrows_one_when_masses_are_free():
    """The donor keeps its mass: a tile more or less changes nothing but the count."""
    some = Sites(np.array([[0.0], [4.0]]), np.array([0, 0, 0, 1]), np.array([0.2, 0.2, 0.2, 0.4]))
    split = some.split(1, np.array([0.5]), free=True)
    np.testing.assert_allclose(split.masses, [0.6, 0.2, 0.2])
    np.testing.assert_array_equal(split.counts, [2, 1, 1])
    np.testing.assert_allclose(split.decoder[:, 0], [0.0, 4.5, 3.5])
    assert split.tile_masses.sum() == pytest.approx(1, rel=1e-15)


def test_a_site_without_mass_splits_in_place():
    some = Sites(np.array([[1.0]]), np.zeros(2, dtype=int), np.zeros(2))
    np.testing.assert_array_equal(some.split(0, np.ones(1), free=False).decoder, [[1.0], [1.0]])
