"""Peaks of the second derivative (T12) on curves whose kinks are known."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from constrained_vae.phases.peaks import Peak, find_kinks, second_derivative


def curve(t, kinks, jumps=(), bend=0.1):
    """A parabola whose slope changes by the given amounts at the kinks, and whose value does at the jumps."""
    values = bend * t**2 + t
    for place, amount in kinks:
        values = values + amount * np.maximum(t - place, 0)
    for place, amount in jumps:
        values = values + amount * (t > place)
    return values


@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=30),
    st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3)),
)
def test_second_derivative_is_exact_for_parabolas_on_uneven_grids(steps, coefficients):
    t = np.cumsum([0.0, *steps])
    second = second_derivative(t, np.polyval(coefficients, t))
    assert np.isnan(second[[0, -1]]).all()
    # eps of the values, over products of steps
    tolerance = 16 * np.finfo(float).eps * (1 + np.abs(np.polyval(np.abs(coefficients), t)).max()) / min(steps) ** 2
    np.testing.assert_allclose(second[1:-1], 2 * coefficients[0], atol=tolerance)


GRIDS = {
    "even": np.linspace(0.1, 10, 300),
    "geometric": np.geomspace(0.1, 10, 200),
    "uneven": np.sort(np.random.default_rng(0).uniform(0.1, 10, 400)),
}


@pytest.mark.parametrize("grid", ["even", "geometric"])
@pytest.mark.parametrize("k", [3, None])
def test_kinks_are_found_between_their_neighbours(grid, k):
    betas, places = GRIDS[grid], (0.77, 2.5, 7.3)
    peaks = find_kinks(betas, curve(betas, [(place, -1.0) for place in places]), k)
    assert len(peaks) == 3
    for peak, place in zip(sorted(peaks, key=float), places, strict=True):
        assert peak.bracket[0] < place < peak.bracket[1]
        assert float(peak) == peak.beta == betas[peak.index]
        assert peak.bracket == (betas[peak.index - 1], betas[peak.index + 1])


def test_a_kink_on_a_grid_point_is_found_there_with_its_height():
    betas = GRIDS["even"]
    (peak,) = find_kinks(betas, curve(betas, [(betas[120], -2.0)], bend=0.0))
    assert peak == Peak(betas[120], pytest.approx(2.0 / (betas[1] - betas[0])), 120, (betas[119], betas[121]))


def test_ranking_is_by_height_and_k_takes_the_highest():
    betas = GRIDS["even"]
    values = curve(betas, [(betas[50], 1.0), (betas[120], -3.0), (betas[200], 2.0), (betas[250], -0.5)])
    assert [peak.index for peak in find_kinks(betas, values, k=None)] == [120, 200, 50, 250]
    assert [peak.index for peak in find_kinks(betas, values)] == [120, 200, 50]
    assert [peak.index for peak in find_kinks(betas, values, k=1)] == [120]


def test_the_variable_decides_the_ranking():
    """A slope in log beta is beta times that in beta: equal kinks in one variable rank by place in the other (T12)."""
    betas = GRIDS["geometric"]
    places = betas[[40, 100, 160]]
    in_beta = curve(betas, [(place, -1.0) for place in places], bend=0.0)
    assert [p.index for p in find_kinks(betas, in_beta)] == [40, 100, 160]  # the steps grow with beta
    assert [p.index for p in find_kinks(betas, in_beta, variable="log_beta")] == [160, 100, 40]
    kinks = [(np.log(place), -amount) for place, amount in zip(places, (1.0, 1.2, 1.4), strict=True)]
    in_log = curve(np.log(betas), kinks, bend=0.0)
    assert [p.index for p in find_kinks(betas, in_log, variable="log_beta")] == [160, 100, 40]
    assert [p.index for p in find_kinks(betas, in_log)] == [40, 100, 160]
    step = np.log(betas[1] / betas[0])
    heights = [peak.height for peak in find_kinks(betas, in_log, variable="log_beta")]
    np.testing.assert_allclose(heights, np.array([1.4, 1.2, 1.0]) / step, rtol=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("slope", [0.0, 2.0, -2.0])
def test_the_doublet_of_a_jump_counts_once(share, slope):
    betas = GRIDS["even"]
    place = betas[150] + share * (betas[151] - betas[150])
    (peak,) = find_kinks(betas, curve(betas, [(place, slope)], jumps=[(place, 1.0)]), k=None)
    assert peak.index in (150, 151)


def test_two_kinks_within_the_separation_count_once():
    betas = GRIDS["even"]
    values = curve(betas, [(betas[100], -1.0), (betas[103], -2.0)])
    assert [p.index for p in find_kinks(betas, values, k=None)] == [103]
    assert [p.index for p in find_kinks(betas, values, k=None, separation=3)] == [103, 100]


def test_ripples_are_no_kinks(rng):
    """Rounding of a straight line with one kink, and a ripple on a bend, lower than half of it."""
    betas = GRIDS["even"]
    noise = 1e-13 * rng.normal(size=len(betas))
    assert [p.index for p in find_kinks(betas, curve(betas, [(betas[90], 1.0)], bend=0) + noise, k=None)] == [90]
    ripple = 2e-5 * np.sin(30 * betas)  # curvature +-0.018 on 0.2
    assert [p.index for p in find_kinks(betas, curve(betas, [(betas[90], 1.0)]) + ripple, k=None)] == [90]


def test_a_straight_line_has_no_kinks():
    assert find_kinks(np.arange(9.0), np.arange(9.0), k=None) == []
    assert find_kinks(np.arange(5.0), np.zeros(5)) == []


def test_inputs_are_left_alone():
    betas, values = GRIDS["even"].copy(), curve(GRIDS["even"], [(3.0, 1.0)])
    for array in (betas, values):
        array.flags.writeable = False
    assert len(find_kinks(betas, values)) == 1


def test_rounding_is_no_peak(rng):
    """Where D is constant but for its last digit, as it is above the first transition."""
    betas = np.geomspace(1, 2, 60)
    assert find_kinks(betas, 10 * (1 + 1e-15 * rng.standard_normal(60)), k=None) == []
