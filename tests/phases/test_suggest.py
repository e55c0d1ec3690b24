"""suggest(): what stands out, on data with a known answer, in two units, with outliers, weights and repeated rows."""

import numpy as np
import pytest
from sklearn.datasets import load_iris, load_wine

import constrained_vae as cv

FOUR = cv.datasets.four_clusters().x


def numbers(found):
    return [plateau.n_reconstructions for plateau in found.plateaus]


@pytest.fixture(scope="module")
def four():
    return cv.suggest(FOUR, most=6)


def test_four_clusters_stand_out_and_then_the_two_pairs(four):
    assert numbers(four)[:2] == [4, 2]
    best = four.plateaus[0]
    assert best.width > 2
    assert best.ended
    assert best.low < best.beta < best.high
    assert len(best.solution.distinct) == 4
    assert best.kappa**2 == pytest.approx(best.distortion)
    # The suggested threshold leads to the suggested temperature: RE has lambda = 1 / (2 theta).
    met = cv.solve_constrained(FOUR, cv.RE(best.kappa), masses="free", n_tiles=8)
    assert 1 / (2 * met.multipliers["RE"]) == pytest.approx(best.beta, rel=1e-3)


def test_transitions_are_those_of_the_exact_listing_to_a_step_of_the_grid(four):
    exact = [9.015625, 1.57810932, 0.318125]
    np.testing.assert_allclose(sorted((t[0] for t in four.transitions), reverse=True), exact, rtol=0.03)
    assert [t[1:3] for t in four.transitions] == [(1, 2), (2, 3), (3, 4)]
    assert four.first_critical_beta == pytest.approx(exact[0], rel=1e-9)


def test_iris_says_two_or_three_and_wine_three():
    iris = cv.suggest(load_iris().data, most=6)
    assert numbers(iris)[0] in (2, 3)
    wine = load_wine().data
    assert 3 in numbers(cv.suggest((wine - wine.mean(axis=0)) / wine.std(axis=0), most=6))[:2]


@pytest.mark.parametrize(
    ("seed", "scales"),
    [(0, [1.0]), (1, [1.0, 1.0]), (2, [3.0, 2.0, 1.0]), pytest.param(3, [5.0, 1, 1, 1], marks=pytest.mark.slow)],
)
def test_on_one_gaussian_nothing_stands_out(seed, scales):
    x = np.random.default_rng(seed).standard_normal((100, len(scales))) * scales
    found = cv.suggest(x, most=6)
    assert found.plateaus == ()
    assert str(found).startswith("Nothing stands out: no number of reconstructions is stable")
    assert "<table>" not in found._repr_html_()
    assert found.to_frame().empty


@pytest.mark.slow
def test_the_answer_does_not_depend_on_unit_offset_outlier_repeats_or_weights(four):
    moved = cv.suggest(1000 * FOUR + 12345)
    assert numbers(moved) == numbers(four)
    for one, other in zip(four.plateaus, moved.plateaus, strict=True):
        assert other.beta == pytest.approx(1e6 * one.beta, rel=1e-3)
        assert other.kappa == pytest.approx(1e3 * one.kappa, rel=1e-3)
    far = cv.suggest(np.vstack([FOUR, [[3000.0, -1000.0]]]))
    assert numbers(far)[:2] == [4, 2]
    # Twice the points, and weights of a half instead: the same problem.
    doubled = cv.suggest(np.concatenate([FOUR, FOUR[:100]]))
    weighted = cv.suggest(FOUR, weights=np.where(np.arange(200) < 100, 2.0, 1.0))
    assert numbers(doubled)[:2] == numbers(weighted)[:2] == [4, 2]


def test_points_that_repeat_have_a_plateau_without_end():
    found = cv.suggest(np.repeat([[-3.0, 0], [-2.0, 0], [3.0, 0]], 20, axis=0))
    assert numbers(found)[0] == 3
    assert found.plateaus[0].width == np.inf
    assert "without end" in repr(found.plateaus[0])


def test_a_branch_is_read_without_another_sweep(four):
    again = cv.suggest(four.branch)
    assert numbers(again) == numbers(four)
    with pytest.raises(ValueError, match="cooling branch of at least five temperatures"):
        cv.suggest(four.branch[:4])


@pytest.mark.slow
def test_a_sample_of_many_rows_says_the_same():
    x = cv.datasets.four_clusters(n_per_cluster=2000).x
    found = cv.suggest(x, sample=300)
    assert found.n_points <= 300
    assert numbers(found)[:2] == [4, 2]


def test_suggestions_that_were_cut_short_say_so():
    with pytest.warns(cv.NotConvergedWarning, match="time_limit"):
        found = cv.suggest(FOUR, time_limit=0.05)
    assert "interrupted" in str(found)
    assert "nan" not in str(found)
    with pytest.raises(cv.NotConvergedError):
        cv.suggest(FOUR, time_limit=0.05, on_failure="raise")


def test_what_people_read(four):
    text = str(four)
    assert text.startswith("4 reconstructions (and 2, 3) stand out: beta=")
    assert "kappa=" in text
    assert "nan" not in text
    frame = four.to_frame()
    assert list(frame["n_reconstructions"]) == numbers(four)
    assert {"beta", "kappa", "rate", "distortion", "width"} <= set(frame)
    assert four._repr_html_().count("<table>") == 2


@pytest.mark.parametrize("points", [[[1.0]], [[1.0], [1.0]]])
def test_points_that_coincide_are_refused(points):
    with pytest.raises(ValueError, match="all points of x coincide"):
        cv.suggest(points)
