"""plotting: Axes in, Axes out, labelled."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from constrained_vae import plotting


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def test_flow_draws_data_paths_and_fixed_points_on_the_given_axes(rng):
    given = plt.subplots()[1]
    points, paths, ends = rng.normal(size=(9, 2)), rng.normal(size=(5, 3, 2)), rng.normal(size=(2, 2))
    ax = plotting.flow(points, paths, ends, given)
    assert ax is given
    assert len(ax.lines) == 3  # one path per reconstruction
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), paths[:, 1])
    drawn = [collection.get_offsets() for collection in ax.collections]
    np.testing.assert_array_equal(drawn[0], points)
    np.testing.assert_array_equal(drawn[1], ends)
    assert ax.get_aspect() == 1
    low, high = points.min(axis=0), points.max(axis=0)
    assert ax.get_xlim()[0] < low[0]
    assert ax.get_ylim()[1] > high[1]


def test_flow_of_a_single_point_has_a_finite_frame():
    ax = plotting.flow(np.zeros((1, 2)), np.zeros((1, 1, 2)), np.zeros((1, 2)))
    assert np.ptp(ax.get_xlim()) > 0


def test_curves_mark_the_critical_temperatures():
    betas = np.geomspace(0.1, 10, 30)
    ax = plotting.distortion(betas, betas**2, critical=[0.5, 5.0])
    assert [line.get_xdata()[0] for line in ax.lines[:2]] == [0.5, 5.0]
    assert ax.get_xscale() == "log"
    assert "beta" in ax.get_xlabel()
    assert "units" in ax.get_ylabel()
    curvature = np.r_[np.nan, -1 / betas[1:-1], np.nan]
    ax = plotting.second_derivative(betas, curvature, [(0.5, 2.0), (5.0, 0.2)])
    assert [text.get_text() for text in ax.texts] == [r"$\beta_c^1$", r"$\beta_c^2$"]
    drawn = ax.lines[2].get_ydata()
    np.testing.assert_array_equal(drawn[1:-1], 1 / betas[1:-1])  # the magnitude
    assert ax.get_yscale() == "log"


def test_a_second_derivative_of_zero_can_be_drawn():
    ax = plotting.second_derivative(np.arange(1.0, 6.0), np.r_[np.nan, 0, 0, 0, np.nan])
    ax.figure.canvas.draw()
