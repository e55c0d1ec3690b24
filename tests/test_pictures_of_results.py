"""Results draw themselves: the methods plot, and the functions of plotting with results in place of arrays."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae import plotting

X = cv.datasets.four_clusters(n_per_cluster=10).x
BRANCH = cv.sweep(X, betas=np.geomspace(0.2, 12, 20), n_tiles=8)


def test_a_branch_is_taken_where_arrays_were():
    order = np.argsort(BRANCH.betas)
    line = plotting.distortion(BRANCH).lines[-1]
    np.testing.assert_array_equal(line.get_xdata(), BRANCH.betas[order])
    np.testing.assert_array_equal(line.get_ydata(), BRANCH.distortion[order])
    curve = plotting.second_derivative(BRANCH)
    assert [text.get_text() for text in curve.texts] == [rf"$\beta_c^{i + 1}$" for i in range(len(BRANCH.peaks()))]
    condition = plotting.split_condition(BRANCH).lines[0]
    np.testing.assert_array_equal(condition.get_ydata(), BRANCH.split_condition[order])
    points = plotting.bifurcation(BRANCH)
    assert points.get_ylabel() == r"principal component 1 of $\psi$  (units of $x$)"
    assert len(points.lines[0].get_xdata()) == BRANCH.n_distinct.sum()
    both = plotting.hysteresis(BRANCH, cv.Branch(BRANCH.solutions[::-1], "up"))
    np.testing.assert_array_equal(both.lines[0].get_ydata(), both.lines[1].get_ydata())
    for picture in (plotting.distortion, plotting.second_derivative, plotting.split_condition, plotting.phases):
        with pytest.raises(ValueError, match="the branch is empty"):
            picture(cv.Branch((), "down"))


def test_branch_plot_marks_the_first_transition():
    given = plt.subplots()[1]
    ax = BRANCH.plot(ax=given)
    assert ax is given
    assert [line.get_xdata()[0] for line in ax.lines[:1]] == [pytest.approx(cv.first_critical_beta(X))]
    assert len(ax.figure.axes) == 2
    assert BRANCH[:2].plot(critical=[]).get_xscale() == "log"


def test_solutions_are_drawn_in_the_plane_or_as_images():
    assert BRANCH[-1].plot().get_xlabel().startswith("coordinate 1")
    digits = cv.solve(cv.datasets.digits(40).x, beta=0.3, n_tiles=4)
    (drawn,) = digits.plot(image_shape=(8, 8)).images
    side = int(np.ceil(np.sqrt(len(digits.distinct))))
    assert drawn.get_array().shape[1] == 9 * side - 1
    sites = digits.distinct
    heaviest = sites.decoder[sites.marginal.argmax()].reshape(8, 8)
    np.testing.assert_array_equal(drawn.get_array()[:8, :8], heaviest)
    colour = plotting.images(np.random.default_rng(0).random((3, 12)), (2, 2, 3), columns=3).images[0]
    assert colour.get_array().shape == (2, 8, 3)
    with pytest.raises(ValueError, match="image_shape must multiply to the 64 columns"):
        digits.plot(image_shape=(8, 9))


def test_models_of_every_kind_are_placed_beside_the_frontier():
    curve = cv.rate_distortion(X, betas=[5.0, 1.0, 0.2])
    run = cv.geco.train(X, cv.RE(1.0), latent_dim=1, hidden=(), steps=5)
    ax = curve.plot({"run": run, "solution": BRANCH[-1], "branch": BRANCH, "points": [0.5, 1.0]})
    drawn = {line.get_label(): line.get_xydata() for line in ax.lines}
    np.testing.assert_allclose(drawn["run"], [[run.evaluation.distortion, run.evaluation.rate]])
    np.testing.assert_allclose(drawn["solution"], [[BRANCH[-1].distortion, BRANCH[-1].rate]])
    assert len(drawn["branch"]) == len(BRANCH)
    assert "points" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert not any("band" in label for label in drawn)  # a band that cannot be seen has no place in the legend
    assert curve.rate_at(1e9) == 0
    np.testing.assert_array_equal(curve.rate_at(curve.distortion), curve.bound_above(curve.distortion))
    assert list(curve.to_frame()["rate"]) == curve.rate.tolist()
    assert "Distance from the frontier" in curve.excess(3.0, 1.0)._repr_html_()
    assert run.plot().get_xlabel() == "step"
    shown = run._repr_html_()
    assert "5" in shown
    assert "nan" not in shown
    assert "nan" not in repr(run)


def test_partitions_are_drawn_side_by_side():
    compared = cv.compare_spectral(BRANCH[-1], labels=np.repeat(range(4), 10))
    ax = compared.plot()
    shown = ax.images[0].get_array()
    assert shown.shape == (6, 40)
    assert [tick.get_text() for tick in ax.get_yticklabels()][-1] == "truth"
    # Renumbered, partitions that are the same have the same colours.
    agreeing = [i for i, name in enumerate(compared.partitions) if compared.true_ari[name] == 1]
    assert len(agreeing) > 1
    for i in agreeing:
        np.testing.assert_array_equal(shown[i], shown[-1])
    assert "ARI with the truth" in compared._repr_html_()
    assert cv.compare_spectral(BRANCH[::6], affinities=("posterior",)).plot().get_ylabel() == "adjusted Rand index"


def test_transitions_say_what_they_hold_for():
    found = cv.transitions(X, n_tiles=8, limit=2)
    assert found.scope.endswith('exact for 8 tiles of equal masses (masses="free" does not depend on them)')
    assert found.copy().tiles == found.tiles
    assert found.plot().get_ylabel() == "distinct reconstructions"
    assert list(found.to_frame()["beta"]) == [t.beta for t in found]
    assert "2 transitions" in found._repr_html_()
    free = cv.transitions(X, n_tiles=8, limit=1, masses="free")
    assert free.tiles == "free masses, with at most 8 tiles"
    given = cv.transitions(X, tiling=cv.Tiling([0.25, 0.75]), limit=1)
    assert given.tiles.startswith("2 tiles of the given masses")


def test_words_for_people_have_no_nan():
    found = cv.transitions(X, n_tiles=8, limit=1)[0]
    unknown = type(found)(**{**vars(found), "kind": "first-order", "heating_end": np.nan, "after": found.before})
    assert "nan" not in repr(unknown)
    assert "1 to 1" not in repr(unknown)
    endless = type(found)(**{**vars(found), "kind": "first-order", "heating_end": np.inf})
    assert "without an end on heating" in repr(endless)


def test_tab_offers_pictures_alone():
    assert sorted(dir(plotting)) == sorted(plotting.__all__)


def test_the_estimator_without_arguments_does_not_depend_on_the_unit():
    one, other = (cv.FixedPointVAE().fit(scale * X) for scale in (1.0, 1000.0))
    assert one.beta_ == pytest.approx(cv.first_critical_beta(X) / 2)
    assert len(one.cluster_centers_) == len(other.cluster_centers_) == 2
    np.testing.assert_array_equal(one.labels_, other.labels_)
    with pytest.raises(ValueError, match="beta must be positive, or 'auto', got 'hot'"):
        cv.FixedPointVAE("hot").fit(X)
