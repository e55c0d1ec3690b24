"""Changes of the support of the optimum, where the theory knows them."""

from __future__ import annotations

import numpy as np
import pytest

import constrained_vae as cv


def test_four_clusters_split_where_the_covariances_say():
    """The symmetric set splits continuously, at the three critical temperatures of (T9)."""
    data = cv.datasets.four_clusters()
    curve = cv.rate_distortion(data.x, np.geomspace(10, 0.05, 12), locate=1e-4)
    assert [event.kind for event in curve.events] == ["split"] * 3
    # Halves are seen to be two when they are 0.03 resolutions apart, 1e-4 below.
    np.testing.assert_allclose([event.beta for event in curve.events], [9.015625, 1.578109320, 0.318125], rtol=2e-4)
    for event in curve.events:
        assert event.low < event.beta < event.high <= event.low * (1 + 1e-4)


@pytest.mark.parametrize("p", [0.3, 0.1])
def test_the_second_of_two_points_nucleates(p):
    """Where lambda* says (T16); the new reconstruction is far from the old one, and starts without mass."""
    curve = cv.rate_distortion([[-1.0], [1.0]], [1.0, 0.5, 0.2], weights=[p, 1 - p], locate=1e-6)
    (event,) = curve.events
    assert event.kind == "nucleation"
    assert event.beta == pytest.approx(2 * (1 - 2 * p) / np.log((1 - p) / p), rel=2e-6)
    assert event.where[0] < -0.3
    low, high = cv.hysteresis_interval([[-1.0], [1.0]], weights=[p, 1 - p])
    assert low == pytest.approx(4 * p * (1 - p))
    assert high == pytest.approx(event.beta, rel=2e-6)


def test_masses_are_lost_and_found(rng):
    """Counts of reconstructions add up, and a change is where the count differs."""
    x = rng.normal(size=(14, 1)) ** 3
    betas = cv.nucleation_beta(x) * np.geomspace(1.1, 0.02, 12)
    curve = cv.rate_distortion(x, betas, locate=1e-4)
    gain = {"nucleation": 1, "split": 1, "loss": -1, "merger": -1}
    for hot, cold, before, after in zip(betas[:-1], betas[1:], curve.n_sites[:-1], curve.n_sites[1:], strict=True):
        assert sum(gain[e.kind] for e in curve.events if cold <= e.beta <= hot) == after - before
    assert {"nucleation"} <= {event.kind for event in curve.events}
    assert all(a.beta >= b.beta for a, b in zip(curve.events[:-1], curve.events[1:], strict=True))


def test_events_are_saved_and_without_locating_are_known_to_the_grid(tmp_path):
    grid = [1.2, 0.6, 0.3]
    curve = cv.rate_distortion([[-1.0], [1.0]], grid)
    (event,) = curve.events
    assert (event.low, event.high) == (0.6, 1.2)
    curve.save(tmp_path / "curve.npz")
    (again,) = cv.RateDistortionCurve.load(tmp_path / "curve.npz").events
    assert (again.kind, again.low, again.high) == (event.kind, event.low, event.high)
    np.testing.assert_array_equal(again.where, event.where)
    assert cv.rate_distortion([[-1.0], [1.0]], [0.5]).events == ()
    with pytest.raises(ValueError, match="locate"):
        cv.rate_distortion([[-1.0], [1.0]], grid, locate=0.0)
