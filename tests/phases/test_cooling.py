"""Mergers and folds on the cooling branch: the listing has every event, and D is smooth between them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import constrained_vae as cv
from constrained_vae.testing import naive_branch
from tests.helpers.marks import slow


def chained(found):
    return all(a.n_after == b.n_before for a, b in itertools.pairwise(found))


def unexplained(x, above, below, tiling, step=2e-3):
    """Largest share of D by which a point of the branch leaves the cubic through its four neighbours, solved naively.

    The temperatures lie between the solution after one event and the solution before the next one. Where D varies fast,
    near a split, a merger or a fold, it is no cubic.
    """
    start, end = 0.99 * above.after.beta, 1.005 * below.before.beta
    if start < end * np.exp(5 * step):
        return 0.0
    betas = np.geomspace(start, end, int(np.log(start / end) / step))
    path = naive_branch(x, betas, above.after.decoder, tiling.masses, tol=1e-11, max_maps=50_000)
    return np.abs(np.diff(path.distortion, 4)).max() / path.distortion[0]


@pytest.mark.filterwarnings("ignore::constrained_vae.NotConvergedWarning")  # at the merger convergence is slow
def test_a_split_that_closes_again():
    """40 normal numbers, 8 tiles: the reconstructions that split at 0.1446 meet again at 0.1415 (T17)."""
    x = np.random.default_rng(1).normal(size=(40, 1))
    found = cv.transitions(x, n_tiles=8, beta_range=(0.1, 3))
    (merger,) = (t for t in found if t.kind == "merger")
    assert (merger.n_before, merger.n_after) == (6, 5)
    assert merger.beta == pytest.approx(0.14147927, rel=1e-6)
    assert np.isnan([merger.heating_end, merger.crossing, merger.skewness]).all()
    assert max(merger.before.error_estimate, merger.after.error_estimate) <= 1e-6
    assert chained(found)
    # Plain maps from the solution above it, in small steps.
    betas = merger.beta * (1 - np.array([-2e-3, -1e-3, 1e-3]))
    path = naive_branch(x, betas, merger.before.decoder, merger.before.tiling.masses, tol=1e-10, max_maps=100_000)
    assert path.n_distinct(tolerance=3e-3).tolist() == [6, 6, 5]


@pytest.mark.parametrize("scale", [1.0, slow(1000.0)])
def test_a_fold(scale):
    """A state that ends at a fold jumps, with a fall of D, though the number of reconstructions stays."""
    x = scale * np.random.default_rng(2).standard_t(3, size=(40, 2)) + scale
    tiling = cv.Tiling.uniform(6)
    found = cv.transitions(x, tiling=tiling, beta_range=(1.3 * scale**2, 4 * scale**2))
    (fold,) = (t for t in found if t.kind == "fold")
    assert fold.n_before == fold.n_after == 3
    assert chained(found)
    assert fold.jump > 0.3 * scale**2
    # One permille above it plain maps stay, one permille below they arrive at the solution after it.
    betas = fold.beta * np.array([1.001, 0.999])
    path = naive_branch(x, betas, fold.before.decoder, tiling.masses, tol=1e-10)
    assert path.distortion[0] == pytest.approx(fold.before.distortion, rel=2e-2)
    assert path.distortion[1] == pytest.approx(fold.after.distortion, rel=2e-3)
    assert path.distortion[0] - path.distortion[1] > 0.9 * fold.jump


@st.composite
def small_sets(draw):
    """Data sets of 8 to 24 points in one to four dimensions: generic, symmetric or repeated, and their weights."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, dim = draw(st.integers(4, 12)), draw(st.integers(1, 4))
    x = rng.normal(size=(n, dim))
    kind = draw(st.sampled_from(["generic", "symmetric", "repeated"]))
    x = {"generic": np.concatenate([x, rng.normal(size=(n, dim))]), "symmetric": np.concatenate([x, -x])}.get(
        kind, np.repeat(x, 2, axis=0)
    )
    weights = rng.dirichlet(np.full(len(x), 3.0)) if draw(st.booleans()) else None
    return x, weights


def seen_naively(t, weights):
    """Whether plain maps see the kind of a split: above it the parts of a first-order split exist, of a continuous not.

    None for narrow hysteresis, near which plain maps do not converge, and without a split into more reconstructions.
    """
    width = t.heating_end / t.beta - 1
    if t.n_after <= t.n_before or not (width == 0 or 2e-3 <= width < np.inf):
        return None
    betas = t.beta * np.append(np.geomspace(1 - 1e-3, 1 + 0.5 * width, 12), [1 + 1.2 * width + 2e-3])
    path = naive_branch(t.before.x, betas, t.after.decoder, t.after.tiling.masses, weights=weights, tol=1e-10)
    if not path.converged[[-2, -1]].all():
        return None
    counts = path.n_distinct(tolerance=1e-4, mass=0)
    return (width == 0 or counts[-2] > t.n_before) and counts[-1] <= t.n_before


@pytest.mark.filterwarnings("ignore::constrained_vae.NotConvergedWarning")  # symmetric data have soft directions
@settings(max_examples=4, deadline=None)
@given(small_sets(), st.integers(2, 8))
def test_the_listing_is_a_chain(data, tiles):
    x, weights = data
    top = cv.first_critical_beta(x, weights=weights)
    found = cv.transitions(x, n_tiles=tiles, weights=weights, beta_range=(0.15 * top, 2 * top))
    assert chained(found)
    assert all(a.beta >= b.beta for a, b in itertools.pairwise(found))
    for t in found:
        assert t.kind in ("continuous", "first-order", "merger", "fold")
        assert t.jump >= -1e-6 * t.before.distortion or t.kind == "merger"
        if t.kind == "continuous":
            assert t.heating_end == t.crossing == t.beta


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::constrained_vae.NotConvergedWarning")
@settings(max_examples=60, deadline=None)
@given(small_sets(), st.integers(2, 8))
def test_many_listings_are_chains(data, tiles):
    test_the_listing_is_a_chain.hypothesis.inner_test(data, tiles)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::constrained_vae.NotConvergedWarning")
@settings(max_examples=10, deadline=None)
@given(small_sets(), st.integers(2, 6))
def test_kinds_are_those_that_plain_maps_see(data, tiles):
    x, weights = data
    tiling = cv.Tiling.uniform(tiles)
    for t in cv.transitions(x, tiling=tiling, weights=weights, limit=3):
        assert seen_naively(t, weights) is not False


@pytest.mark.parametrize("seed", [0, *(slow(seed) for seed in range(1, 10))])
def test_between_events_the_distortion_is_smooth(seed):
    """Where plain maps in small steps see a jump of D there is an event."""
    x, tiling = np.random.default_rng(seed).normal(size=(30, 1)), cv.Tiling.uniform(5)
    found = cv.transitions(x, tiling=tiling, beta_range=(0.2, 3))
    assert chained(found)
    assert max(unexplained(x, *pair, tiling) for pair in itertools.pairwise(found)) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_between_events_the_slope_explains_every_small_step(seed):
    """In steps of 1e-4 in log beta the trapezoidal rule of dD / d log beta leaves less than 1e-6 of D."""
    x, tiling = np.random.default_rng(seed).normal(size=(30, 1)), cv.Tiling.uniform(5)
    for above, below in itertools.pairwise(cv.transitions(x, tiling=tiling, beta_range=(0.2, 3))):
        start, end = above.after.beta, 1.0001 * below.before.beta
        betas = np.exp(np.arange(np.log(end), np.log(start), 1e-4))
        branch = cv.sweep(x, betas=betas, start=above.after, tiling=tiling)
        slopes = np.array([s.beta * cv.tangent(s).distortion for s in branch])
        expected = -np.diff(-np.log(branch.betas)) * (slopes[1:] + slopes[:-1]) / 2
        assert np.abs(np.diff(branch.distortion) - expected).max() <= 1e-6 * branch.distortion[0]


def test_a_listing_says_how_far_it_goes():
    x = cv.datasets.four_clusters(seed=0).x
    tiling = cv.Tiling.uniform(8)
    found = cv.transitions(x, tiling=tiling, limit=1)
    assert (found.complete_to, found.ended) == (found[0].beta, "limit=1")
    found = cv.transitions(x, tiling=tiling, beta_range=(1.0, 20.0))
    assert (found.complete_to, found.ended) == (1.0, "end of the range")
    assert "complete down to beta=1: end of the range" in repr(found)
    found = cv.transitions(x, tiling=tiling, callback=lambda so_far: True)
    assert found.ended == "stopped by the callback"
