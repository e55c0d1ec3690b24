"""plotting: Axes in, Axes out, labelled."""

import inspect

import matplotlib.pyplot as plt
import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae import plotting
from constrained_vae.phases.branch import Branch
from constrained_vae.phases.lineages import Lineages, lineages


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
    ax = plotting.distortion(betas, betas**2, critical=[0.5, 5.0], detected=[betas[10], betas[20]])
    assert [line.get_xdata()[0] for line in ax.lines[:2]] == [0.5, 5.0]
    np.testing.assert_allclose(ax.lines[3].get_xydata(), [[b, b**2] for b in betas[[10, 20]]])  # on the curve
    assert [text.get_text() for text in ax.legend().texts] == [r"exact $\beta_c$", r"detected $\beta_c$"]
    assert ax.get_xscale() == "log"
    assert "beta" in ax.get_xlabel()
    assert "units" in ax.get_ylabel()
    assert len(plotting.distortion(betas, betas**2).lines) == 1
    curvature = np.r_[np.nan, -1 / betas[1:-1], np.nan]
    ax = plotting.second_derivative(betas, curvature, [(0.5, 2.0), (5.0, 0.2)], [0.51, 5.02])
    assert [text.get_text() for text in ax.texts] == [r"$\beta_c^1$", r"$\beta_c^2$"]
    assert [line.get_xdata()[0] for line in ax.lines[:2]] == [0.51, 5.02]
    assert [line.get_xydata().tolist() for line in ax.lines[3:]] == [[[0.5, 2.0]], [[5.0, 0.2]]]
    drawn = ax.lines[2].get_ydata()
    np.testing.assert_array_equal(drawn[1:-1], 1 / betas[1:-1])  # the magnitude
    assert ax.get_yscale() == "log"


@pytest.mark.parametrize("picture", [plotting.bifurcation, plotting.split_condition])
def test_stable_branches_are_solid_and_unstable_ones_dotted(picture):
    given = plt.subplots()[1]
    stable, unstable = np.array([[1.0, 0.4], [2.0, 0.9]]), np.array([[0.5, 1.6], [np.nan, np.nan], [0.5, 1.2]])
    assert picture(stable, unstable, [2.5], given) is given
    styles = {line.get_linestyle(): line.get_xydata() for line in given.lines if len(line.get_xdata()) != 2}
    np.testing.assert_array_equal(styles[":"], unstable)
    assert any(np.array_equal(line.get_xydata(), stable) and line.get_linestyle() == "-" for line in given.lines)
    assert any(list(line.get_xdata()) == [2.5, 2.5] for line in given.lines)
    assert given.get_ylabel()
    assert given.get_xscale() == "log"
    picture(stable).figure.canvas.draw()  # nothing unstable


def test_the_eigenvalue_has_a_line_at_one():
    ax = plotting.split_condition(np.array([[1.0, 0.4], [2.0, 0.9]]))
    assert [1.0, 1.0] in [list(line.get_ydata()) for line in ax.lines]


def test_hysteresis_shades_what_was_predicted_and_marks_what_was_seen():
    cooling, heating = np.array([[4.0, 1.0], [1.0, 0.5]]), np.array([[1.0, 0.5], [4.0, 1.0]])
    ax = plotting.hysteresis(cooling, heating, (1.5, 3.0), 2.9)
    (shade,) = ax.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (1.5, 3.0)
    curves = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_array_equal(curves["cooling"], cooling)
    np.testing.assert_array_equal(curves["heating"], heating)
    assert curves["heating ends"].tolist() == [[2.9, 0]]
    assert "units" in ax.get_ylabel()
    bare = plotting.hysteresis(cooling, heating)
    assert len(bare.patches) == 0
    assert len(bare.lines) == 2


def test_a_frontier_its_band_and_models():
    """Two points: below the line by the chords, above it nothing of the band."""
    curve = cv.rate_distortion([[-1.0], [1.0]], [0.8, 0.4, 0.1])
    models = {"one": np.array([[0.5, 0.6], [0.2, 0.9]]), "other": np.array([0.1, 1.0])}
    given = plt.subplots()[1]
    assert plotting.rate_distortion(curve, models, ax=given) is given
    (band,), drawn = given.collections, {line.get_label(): line.get_xydata() for line in given.lines}
    D, R = drawn["frontier $R(D)$"].T
    np.testing.assert_array_equal(R, curve.bound_above(D))
    assert (np.isin(curve.distortion, D)).all()
    assert (D[0], D[-1]) == pytest.approx((curve.distortion[-1], 1.0))  # from the coldest to no code at all
    corners = band.get_paths()[0].vertices
    on = np.abs(corners[:, 1] - curve.bound_above(corners[:, 0])) < 1e-12
    under = np.abs(corners[:, 1] - curve.bound_below(corners[:, 0])) < 1e-12
    assert (on | under).all()
    assert min(on.sum(), under.sum()) >= len(D)
    np.testing.assert_array_equal(drawn["one"], models["one"])
    np.testing.assert_array_equal(drawn["other"], [models["other"]])
    looks = {(line.get_color(), line.get_marker()) for line in given.lines}
    assert len(looks) == 3
    assert given.get_xscale() == "log"
    assert "units of $x^2$" in given.get_xlabel()
    assert "nats" in given.get_ylabel()
    assert band.get_label() == "certified band"
    beyond = cv.rate_distortion(np.eye(12), [0.1, 0.05])
    assert "heuristic" in plotting.rate_distortion(beyond).collections[0].get_label()
    bare = plotting.rate_distortion(curve, unit="nats")
    assert len(bare.lines) == 1
    assert "nats" in bare.get_xlabel()


TREE = Lineages(
    betas=np.array([1.0, 2.0, 4.0, 8.0]),
    sites=np.array([[0, 1, 2, -1], [1, 0, 1, 2], [0, 0, 0, 1], [0, 0, 0, 0]]),
    starts=np.array([[0.0], [5.0], [1.0], [9.0]]),
    shares=np.array([0.2, 0.5, 0.3, 0.0]),
)


def test_a_merging_tree():
    """Leaves 0 and 2 meet between 1 and 2, and 1 joins them between 2 and 4; the last column is no leaf."""
    ax = plotting.merging_tree(TREE, critical=[1.5])
    assert list(ax.lines[0].get_xdata()) == [1.5, 1.5]
    drawn = [(line.get_xdata().tolist(), list(line.get_ydata()), line.get_linewidth()) for line in ax.lines[1:]]
    flat = [(pytest.approx(x), y[0], w) for x, y, w in drawn if y[0] == y[1]]
    upright = [(x, y) for x, y, _ in drawn if y[0] != y[1]]
    first, second = 2**0.5, 2**1.5
    # In order from below: leaves 0, 2, 1.
    assert [(x, y) for x, y, _ in flat] == [
        ([1, first], 0),
        ([1, first], 1),
        ([first, second], 0.5),
        ([1, second], 2),
        ([second, 8], 1.25),
    ]
    assert upright == [(pytest.approx([first] * 2), [0, 1]), (pytest.approx([second] * 2), [0.5, 2])]
    widths = [w for _, _, w in flat]
    assert widths[0] < widths[1] < widths[2] == widths[3] < widths[4]  # shares 0.2, 0.3, 0.5, 0.5, 1
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["20%", "30%", "50%"]
    assert "share" in ax.get_ylabel()


def test_a_merging_tree_of_a_branch():
    data = cv.datasets.four_clusters(seed=0)
    branch = cv.sweep(data.x, betas=np.geomspace(0.2, 12, 12), n_tiles=8)
    given = plt.subplots()[1]
    assert plotting.merging_tree(branch, ax=given) is given
    same = plotting.merging_tree(lineages(branch))
    assert len(given.lines) == 10  # seven reconstructions, three merges
    for one, other in zip(given.lines, same.lines, strict=True):
        np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())
    plotting.merging_tree(branch[:1]).figure.canvas.draw()  # one solution, one reconstruction
    with pytest.raises(ValueError, match="the branch is empty"):
        plotting.merging_tree(Branch((), "down"))


def test_many_leaves_go_unnamed():
    n = 40
    tree = Lineages(np.array([1.0, 2.0]), np.array([range(n), [0] * n]), np.arange(n)[:, None] * 1.0, np.full(n, 1 / n))
    ax = plotting.merging_tree(tree)
    assert ax.get_ylabel() == "40 reconstructions"
    assert len(ax.get_yticks()) == 0


def test_short_ranges_of_temperature_have_more_ticks():
    for top, expected in ((4.0, [1, 1.5, 2, 3]), (40.0, [1, 2, 5, 10, 20])):
        ax = plotting.distortion(np.geomspace(0.8, top, 9), np.ones(9))
        assert [t for t in ax.get_xticks() if 0.8 <= t <= top] == pytest.approx(expected)


def test_a_second_derivative_of_zero_can_be_drawn():
    ax = plotting.second_derivative(np.arange(1.0, 6.0), np.r_[np.nan, 0, 0, 0, np.nan])
    ax.figure.canvas.draw()


def coordinates(ax):
    return [collection.get_offsets() for collection in ax.collections]


def test_reconstructions_lie_among_the_data():
    x = np.array([[-1.0, 0.5], [1.0, -0.5]])
    s = cv.solve(x, beta=0.5, n_tiles=2, record=True)
    given = plt.subplots()[1]
    assert plotting.reconstructions(s, given) is given
    np.testing.assert_array_equal(coordinates(given)[0], x)
    np.testing.assert_array_equal(coordinates(given)[1], s.distinct.decoder)
    np.testing.assert_array_equal(given.lines[0].get_xydata(), s.trajectory[:, 0])
    assert given.get_xlabel() == "coordinate 1  (units of $x$)"


def test_reconstructions_of_other_dimensions(rng):
    line = plotting.reconstructions(cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=2))
    np.testing.assert_array_equal(coordinates(line)[0], [[-1, 0], [1, 0]])
    x = rng.normal(size=(20, 4)) * [1, 5, 2, 1]
    space = plotting.reconstructions(cv.solve(x, beta=100.0, n_tiles=2))
    drawn = np.asarray(coordinates(space)[0])
    covariance = np.cov(drawn.T)
    assert covariance[0, 0] > covariance[1, 1]
    assert abs(covariance[0, 1]) < 1e-12 * covariance[0, 0]  # principal components are uncorrelated, to rounding
    assert "principal component 2" in space.get_ylabel()
    plotting.reconstructions(cv.solve([[1.0, 2.0, 3.0]], beta=1.0, n_tiles=2))  # one point


def test_a_staircase_steps_at_the_transitions_and_shades_hysteresis():
    found = cv.transitions(cv.datasets.exponential(40).x, beta_range=(0.5, 2), masses="free", n_tiles=8)
    assert found[0].kind == "first-order"
    ax = plotting.staircase(found)
    steps = ax.lines[len(found)]
    assert list(steps.get_xdata()[1:-1]) == [t.beta for t in found]
    assert list(steps.get_ydata()) == [1, 1, *(t.n_after for t in found)]
    assert steps.get_drawstyle() == "steps-pre"
    shade = ax.patches[0]
    assert shade.get_x() == found[0].beta
    assert shade.get_x() + shade.get_width() == pytest.approx(found[0].heating_end)
    assert steps.get_xdata()[0] > found[0].heating_end
    with pytest.raises(ValueError, match="no transition to draw"):
        plotting.staircase([])


def test_training_is_drawn_step_by_step():
    geco = pytest.importorskip("constrained_vae.geco")
    run = geco.train([[-1.0], [1.0]], cv.RE(0.5), latent_dim=1, hidden=(), steps=30)
    given = plt.subplots()[1]
    assert plotting.training(run.history, given) is given
    curves = {line.get_label(): line.get_ydata() for line in given.lines}
    np.testing.assert_array_equal(curves["KL (nats)"], run.history.kl)
    np.testing.assert_array_equal(curves[r"$\lambda$ of RE"], run.history.multipliers["RE"])


PICTURES = [getattr(plotting, name) for name in plotting.__all__]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.__name__)
def test_every_picture_takes_axes_and_returns_them(picture):
    if picture is plotting.principal_axes:
        return  # of the data
    assert inspect.signature(picture).parameters["ax"].default is None
    assert inspect.signature(picture).return_annotation == "Axes"
