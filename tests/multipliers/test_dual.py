"""solve_constrained: multipliers that meet thresholds, against closed forms, and every way in which they may not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression

import constrained_vae as cv
from constrained_vae.backends import numba
from constrained_vae.multipliers.search import Search
from constrained_vae.phases.continuation import Continuation
from constrained_vae.problems.problem import Problem
from constrained_vae.testing.closed_forms import field
from tests.helpers.marks import slow

TWO = np.array([[-1.0], [1.0]])


def curie_weiss(squared_error: float) -> tuple[float, float]:
    """lambda and rate of two points at +-1 with E||x - psi||^2 = 1 - m^2: m = tanh(2 lambda m) (section 5)."""
    m = np.sqrt(1 - squared_error)
    p = (1 + m) / 2
    return np.arctanh(m) / (2 * m), np.log(2) + p * np.log(p) + (1 - p) * np.log(1 - p)


@pytest.fixture(scope="module")
def clusters():
    """Four clusters, their labels and a classifier of them."""
    data = cv.datasets.four_clusters()
    return data.x, data.labels, LogisticRegression().fit(data.x, data.labels)


# --- one constraint ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tiles", [2, 16])
@pytest.mark.parametrize("squared_error", [0.999, 0.9, 0.5, 0.1, 1e-3, 1e-6])
def test_two_points(backend, tiles, squared_error):
    """lambda(kappa) of the closed form, between the first transition and nearly no error.

    D is a difference of numbers of order 1: eps / D of rounding, times dlog lambda / dlog D < 1.
    """
    lam, rate = curie_weiss(squared_error)
    constraint = cv.RE.from_squared_error(squared_error)
    s = cv.solve_constrained(TWO, constraint, n_tiles=tiles, backend=backend)
    assert s.status is cv.Status.MET
    assert s.multipliers["RE"] == pytest.approx(lam, rel=1e-8)
    assert s.rate == pytest.approx(rate, abs=1e-8)
    assert s.distortion == pytest.approx(squared_error, rel=1e-8)
    assert s.active == {"RE": True}
    assert s.kkt_residual < 1e-9
    assert abs(s.constraint_values["RE"]) < 1e-9


@settings(max_examples=settings.default.max_examples // 2)
@given(st.floats(1e-3, 0.999), st.floats(-3, 3), st.floats(-1e3, 1e3), st.sampled_from(["sum", "mean"]))
def test_two_points_anywhere(squared_error, log_scale, offset, reduction):
    """In other units lambda goes as 1 / scale^2; of the mean over three dimensions it is three times as large."""
    scale = 10.0**log_scale
    x = scale * (np.array([[1.0, -2.0, 2.0]]) / 3 * TWO + offset)
    threshold = scale**2 * squared_error / (3 if reduction == "mean" else 1)
    constraint = cv.RE.from_squared_error(threshold, reduction)
    s = cv.solve_constrained(x, constraint, n_tiles=2)
    lam, _ = curie_weiss(squared_error)
    factor = scale**2 / (3 if reduction == "mean" else 1)
    # Rounding of x itself: eps * offset of the distance.
    assert s.multipliers["RE"] * factor == pytest.approx(lam, rel=1e-8 + 4e-16 * abs(offset) / squared_error)


@pytest.mark.parametrize("squared_error", [0.999, 0.5, 1e-6])
def test_from_a_start_the_multiplier_moves_while_reconstructions_converge(squared_error):
    s = cv.solve_constrained(TWO, cv.RE.from_squared_error(squared_error), n_tiles=2, start=[[-0.7], [0.6]])
    assert s.status is cv.Status.MET
    assert s.multipliers["RE"] == pytest.approx(curie_weiss(squared_error)[0], rel=1e-8)
    assert s.distortion == pytest.approx(squared_error, rel=1e-8)


def passes(monkeypatch):
    """Counts evaluations of the map, one by one: no quick steps are taken."""
    count, evaluate = [0], Problem.expectations
    monkeypatch.setattr(numba, "are_quick", lambda *_: False)

    def counting(*arguments):
        count[0] += 1
        return evaluate(*arguments)

    monkeypatch.setattr(Problem, "expectations", counting)
    return count


@pytest.mark.parametrize(("squared_error", "most"), [(5.0, 3.0), (1.0, 4.0)])
@pytest.mark.parametrize("start", [None, "data"])
def test_a_distortion_costs_a_few_temperatures(clusters, monkeypatch, start, squared_error, most):
    """In passes over the data, in units of one solve at the temperature that is found."""
    count = passes(monkeypatch)
    s = cv.solve_constrained(clusters[0], cv.RE.from_squared_error(squared_error), n_tiles=16, start=start)
    first = count[0]
    t = cv.solve(clusters[0], beta=1 / (2 * s.multipliers["RE"]), n_tiles=16, start=start)
    assert s.status is cv.Status.MET
    assert s.kkt_residual < 1e-9
    assert first <= most * (count[0] - first)
    assert t.converged


@pytest.mark.parametrize(
    ("x", "part", "most"),
    [
        (cv.datasets.rings(60).x, 0.5, 10.0),  # nearly symmetric: 27 with all splits located to 1e-3
        (load_wine().data, 0.5, 5.5),  # in the step of a split: 8 if the crossing is sought with exact splits
    ],
)
def test_splits_on_the_way_cost_little(monkeypatch, x, part, most):
    """In passes over the data, in units of one solve; the bounds are one and a half to twice what was measured."""
    count = passes(monkeypatch)
    s = cv.solve_constrained(x, cv.RE.from_squared_error(part * x.var(axis=0).sum()), n_tiles=16)
    first = count[0]
    cv.solve(x, beta=1 / (2 * s.multipliers["RE"]), n_tiles=16)
    assert s.status is cv.Status.MET
    assert s.kkt_residual < 1e-9
    assert first <= most * (count[0] - first)


@pytest.mark.parametrize("below", [-1e-3, 6e-4, 1.2e-3, 1e-2])
def test_a_crossing_beside_a_split_needs_no_exact_location_of_the_split(monkeypatch, below):
    """Corners of a rectangle: two independent problems of two points (section 5), so that sites split again at b^2.

    The threshold is met at a relative distance below b^2, on either side of where the split is carried out.
    """
    sides = np.array([2.0, 1.0])
    corners = sides * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    lam = 1 / (2 * (1 - below))
    m = np.tanh([field(1 / (2 * lam * c)) for c in sides**2])
    monkeypatch.setattr(Continuation, "split", None)
    s = cv.solve_constrained(corners, cv.RE.from_squared_error(sides**2 @ (1 - m**2)), n_tiles=8)
    assert s.status is cv.Status.MET
    assert s.multipliers["RE"] == pytest.approx(lam, rel=1e-8)


def test_a_start_for_a_threshold_between_or_below_what_is_reachable():
    """Beside a jump both sides come back, and three points need more than two tiles."""
    data = cv.datasets.exponential()
    s = cv.solve_constrained(data.x, cv.RE.from_squared_error(0.95), n_tiles=8, start="data", on_failure="return")
    assert s.status is cv.Status.JUMP
    assert s.sides[0].distortion > 0.95 > s.sides[1].distortion
    with pytest.warns(cv.NotConvergedWarning, match="unreachable"):
        t = cv.solve_constrained([[-2.0], [0.0], [2.0]], cv.RE(0.0), n_tiles=2, start=[[-2.0], [1.5]])
    assert t.least["RE"] == pytest.approx(2 / 3, rel=1e-9)
    with pytest.raises(ValueError, match="start must be None for several constraints"):
        cv.solve_constrained(TWO, [cv.RE(0.5), cv.FRE(0.5, np.eye(1))], start="data")


@pytest.mark.parametrize("kappa", [1.0, 1.5, 1e6])
def test_a_slack_constraint_costs_nothing(kappa):
    s = cv.solve_constrained(TWO, cv.RE(kappa))
    assert s.status is cv.Status.SLACK
    assert s.converged
    assert s.multipliers == {"RE": 0.0}
    assert s.active == {"RE": False}
    assert (s.rate, s.free_energy, s.lagrangian) == (0.0, 0.0, 0.0)
    assert s.constraint_values["RE"] == pytest.approx(1 - kappa**2, rel=1e-12)
    assert s.encoder == pytest.approx(np.full((2, 64), 1 / 64))
    assert len(s.distinct) == 1
    assert "slack" in repr(s)


def test_the_least_reachable_value_is_reported(clusters):
    """Two tiles of four clusters leave the distance of pairs, and 2 * spread^2: that of k-means."""
    x, _, _ = clusters
    halves = [x[x[:, 0] > 0], x[x[:, 0] < 0]]
    limit = np.mean([np.square(half - half.mean(axis=0)).sum(axis=1).mean() for half in halves])
    with pytest.warns(cv.NotConvergedWarning, match="unreachable with these tiles"):
        s = cv.solve_constrained(x, cv.RE(0.2), n_tiles=2)
    assert s.status is cv.Status.UNREACHABLE
    assert not s.converged
    assert s.least["RE"] == pytest.approx(limit - 0.04, rel=1e-9)
    with pytest.raises(cv.NotConvergedError, match="unreachable"):
        cv.solve_constrained(x, cv.RE(0.2), n_tiles=2, on_failure="raise")


def test_an_error_of_zero():
    """It vanishes as exp(-4 lambda), and is met where that is below rounding."""
    s = cv.solve_constrained(TWO, cv.RE(0.0), n_tiles=4, on_failure="return")
    assert s.status in (cv.Status.MET, cv.Status.UNREACHABLE)
    assert abs(s.constraint_values["RE"]) < 1e-9
    assert s.multipliers["RE"] > 5
    with pytest.warns(cv.NotConvergedWarning, match="unreachable"):
        t = cv.solve_constrained([[-2.0], [0.0], [2.0]], cv.RE(0.0), n_tiles=2)
    assert t.least["RE"] == pytest.approx(2 / 3, rel=1e-9)  # two points share a tile


def test_a_jump_is_reported_with_both_sides():
    """The exponential data split first-order with eight tiles: D falls from 1 to 0.57; what is between is skipped."""
    data = cv.datasets.exponential()
    variance = float(data.x.var())
    (first,) = cv.transitions(data.x, n_tiles=8, limit=1)
    assert first.kind == "first-order"
    middle = variance - first.jump / 2
    with pytest.warns(cv.NotConvergedWarning, match="jump"):
        s = cv.solve_constrained(data.x, cv.RE.from_squared_error(middle), n_tiles=8)
    assert s.status is cv.Status.JUMP
    before, after = s.sides
    assert before.distortion == pytest.approx(variance, rel=1e-9)
    assert before.distortion - after.distortion == pytest.approx(first.jump, rel=1e-6)
    assert after.distortion == s.distortion
    assert s.multipliers["RE"] == pytest.approx(1 / (2 * first.beta), rel=1e-8)
    assert before.multipliers == after.multipliers
    assert s.constraint_values["RE"] < 0
    # Either side of what is skipped is met.
    for squared_error in (0.9 * after.distortion, after.distortion * (1 - 1e-6)):
        t = cv.solve_constrained(data.x, cv.RE.from_squared_error(squared_error), n_tiles=8)
        assert t.status is cv.Status.MET
        assert t.distortion == pytest.approx(squared_error, rel=1e-9)


def test_the_way_does_not_depend_on_the_threshold(clusters):
    """All solutions lie on the one cooling branch: at their multiplier a sweep finds them."""
    x, _, _ = clusters
    for squared_error in (5.0, 1.0, 0.2, 0.05):
        s = cv.solve_constrained(x, cv.RE.from_squared_error(squared_error), n_tiles=16)
        beta = 1 / (2 * s.multipliers["RE"])
        branch = cv.sweep(x, betas=[20.0, beta], n_tiles=16)
        assert branch.distortion[-1] == pytest.approx(squared_error, rel=1e-7)
        assert branch.rate[-1] == pytest.approx(s.rate, abs=1e-7)


@pytest.mark.parametrize(("kind", "at"), [("RE", 0.5), ("FRE", 0.05), slow("CLA", 0.2)])
def test_the_multiplier_is_the_slope_of_the_rate(clusters, kind, at):
    """(T21): lambda = -dR / dE[C], by central differences of 1e-3 in kappa^2."""
    x, labels, classifier = clusters
    make = {
        "RE": cv.RE.from_squared_error,
        "FRE": lambda d: cv.FRE(np.sqrt(d), cv.FourierFeatures.random(2, 32, gamma=0.05)),
        "CLA": lambda d: cv.CLA(1 - d, classifier, labels),
    }[kind]
    options = {"tiling": cv.Tiling.uniform(8)} | ({"box": (-6, 6)} if kind == "CLA" else {})
    low, middle, high = (cv.solve_constrained(x, make(at * f), **options) for f in (1 - 1e-3, 1, 1 + 1e-3))
    (lam,) = middle.multipliers.values()
    assert (low.rate - high.rate) / (2e-3 * at) == pytest.approx(lam, rel=1e-5)


@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_free_masses(masses):
    """Two points of weights 0.3 and 0.7, free masses: D = a^2 (1 - m^2) on the branch (section 5)."""
    s = cv.solve_constrained(TWO, cv.RE.from_squared_error(0.3), weights=[0.3, 0.7], n_tiles=4, masses=masses)
    assert s.status is cv.Status.MET
    assert s.distortion == pytest.approx(0.3, rel=1e-9)
    if masses == "free":
        assert s.multipliers["RE"] == pytest.approx(curie_weiss(0.3)[0], rel=1e-7)
        assert s.marginal_kl < 1e-9


# --- several ----------------------------------------------------------------------------------------------------------


def check_kkt(s, tolerance=1e-6):
    """E[C] <= 0, lambda >= 0, and one of them zero."""
    for name, value in s.constraint_values.items():
        assert value <= tolerance, name
        assert s.multipliers[name] >= 0, name
        assert abs(s.multipliers[name] * value) <= tolerance * max(1, s.multipliers[name]), name
    assert s.kkt_residual <= tolerance


@pytest.mark.parametrize(
    ("kappas", "active"),
    [((1.0, 0.9), (True, True)), slow((3.0, 0.4), (True, True)), ((0.3, 0.5), (True, False))],
)
def test_two_constraints(clusters, kappas, active):
    x, labels, classifier = clusters
    constraints = [cv.RE(kappas[0]), cv.CLA(kappas[1], classifier, labels)]
    s = cv.solve_constrained(x, constraints, n_tiles=4)
    assert s.status is cv.Status.MET
    check_kkt(s)
    assert tuple(s.active.values()) == active
    # They hold at a solution, which solve() confirms from there.
    again = cv.solve(x, cv.Lagrangian(constraints, list(s.multipliers.values())), n_tiles=4, start=s)
    assert again.free_energy == pytest.approx(s.free_energy, rel=1e-10)
    assert again.expected == pytest.approx(s.expected, abs=1e-8)


def test_three_constraints(clusters):
    x, labels, classifier = clusters
    features = cv.FourierFeatures.random(2, 32, gamma=0.05)
    constraints = [cv.RE(0.5), cv.CLA(0.97, classifier, labels), cv.FRE(0.1, features)]
    s = cv.solve_constrained(x, constraints, n_tiles=8)
    assert s.status is cv.Status.MET
    check_kkt(s)


def test_a_constraint_that_the_others_imply_is_slack(clusters):
    x, _, _ = clusters
    one = cv.solve_constrained(x, cv.RE(0.5), n_tiles=8)
    s = cv.solve_constrained(x, [cv.RE(0.5), cv.RE(0.8), cv.FRE(0.6, np.eye(2))], n_tiles=8)
    check_kkt(s)
    assert s.active == {"RE": True, "RE_2": False, "FRE": False}
    assert s.multipliers["RE"] == pytest.approx(one.multipliers["RE"], rel=1e-7)


def test_rate_zero_is_enough(clusters):
    """One reconstruction that a classifier calls one class has a quarter of four labels right, and RE is met there too.

    No ratio of multipliers need find it: it is looked for before any.
    """
    x, labels, classifier = clusters
    uneven = np.where(labels == 3, 0, labels)  # half of the points are of class 0
    constraints = [cv.RE(6.0), cv.CLA(0.45, classifier, uneven)]
    s = cv.solve_constrained(x, constraints, n_tiles=8)
    assert s.status is cv.Status.SLACK
    assert s.rate == 0
    assert set(s.multipliers.values()) == {0.0}
    assert max(s.constraint_values.values()) <= 1e-9
    squared = np.square(x - s.decoder[0]).sum(axis=1).mean()
    assert s.distortion == pytest.approx(squared, rel=1e-9)
    assert s.constraint_values["RE"] == pytest.approx(squared - 36, rel=1e-9)
    right = classifier.predict_proba(s.decoder[:1])[0, uneven].mean()
    assert s.constraint_values["CLA"] == pytest.approx(0.45 - right, abs=1e-9)


def test_contradictory_constraints_end(clusters):
    """Reconstructions near the data, classified as something else."""
    x, labels, classifier = clusters
    box = (-4.0, 4.0)
    constraints = [cv.CLA(0.9, classifier, labels), cv.CLA(0.5, classifier, np.roll(labels, 50))]
    with pytest.warns(cv.NotConvergedWarning, match="unreachable"):
        s = cv.solve_constrained(x, constraints, n_tiles=4, box=box)
    assert s.status is cv.Status.UNREACHABLE
    assert max(s.constraint_values.values()) > 0.1


@pytest.mark.parametrize("options", [{"box": (-6.0, 6.0)}, {"anchor": 1e-3}])
def test_a_classifier_alone(clusters, options):
    x, labels, classifier = clusters
    s = cv.solve_constrained(x, cv.CLA(0.9, classifier, labels), n_tiles=8, **options)
    assert s.status is cv.Status.MET
    check_kkt(s)
    if "box" in options:
        assert np.abs(s.decoder).max() <= 6


def test_patches_and_error():
    data = cv.datasets.digits(100)
    s = cv.solve_constrained(data.x, [cv.RE(1.9), cv.PNCC(0.55, data.image_shape, 4)], n_tiles=4, on_failure="return")
    assert s.status is cv.Status.MET
    check_kkt(s)


@pytest.mark.slow
def test_digits_with_labels():
    """All digits: both constraints met, or one reported slack; the KKT residual is far below 1e-6."""
    data = cv.datasets.digits()
    classifier = LogisticRegression(max_iter=5000).fit(data.x, data.labels)
    for kappas, active in (((1.5, 0.9), (True, True)), ((1.5, 0.3), (True, False))):
        constraints = [cv.RE(kappas[0]), cv.CLA(kappas[1], classifier, data.labels)]
        s = cv.solve_constrained(data.x, constraints, n_tiles=32)
        assert s.status is cv.Status.MET
        assert tuple(s.active.values()) == active
        check_kkt(s)


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_time_is_kept_and_what_there_is_comes_back(clusters):
    x, _, _ = clusters
    with pytest.warns(cv.NotConvergedWarning, match="before convergence"):
        s = cv.solve_constrained(x, cv.RE(0.1), n_tiles=8, time_limit=0.0)
    assert s.status is cv.Status.BUDGET_USED
    assert s.multipliers["RE"] == 0  # the solution at rate zero, which violates the constraint
    assert s.constraint_values["RE"] > 0


def test_interruption_loses_nothing(clusters, monkeypatch):
    x, _, _ = clusters
    seen, count = Search.seen, []

    def interrupting(self, state):
        seen(self, state)
        count.append(state)
        if len(count) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Search, "seen", interrupting)
    with pytest.warns(cv.NotConvergedWarning, match="interrupted"):
        s = cv.solve_constrained(x, cv.RE(0.1), n_tiles=8)
    assert s.status is cv.Status.INTERRUPTED
    assert s.free_energy == count[-1].solution.free_energy
    count.clear()
    with pytest.raises(KeyboardInterrupt):
        cv.solve_constrained(x, cv.RE(0.1), n_tiles=8, on_failure="raise")


def test_the_same_answer_every_time(clusters):
    x, _, _ = clusters
    constraints = [cv.RE(1.0), cv.FRE(0.5, [[0.0, 1.0]])]
    one, two = (cv.solve_constrained(x, constraints, n_tiles=8) for _ in range(2))
    assert tuple(one.active.values()) == (True, True)
    assert one.expected == two.expected
    assert one.multipliers == two.multipliers
    np.testing.assert_array_equal(one.decoder, two.decoder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.3,), "constraints must be an instance of Constraint"),
        (([],), "at least one"),
        ((cv.CLA(0.5, cv.ClassProbabilities([[1.0], [-1.0]], [0, 0]), [0, 1]),), "give box=.* or a small anchor="),
        ((cv.CLA(0.5, cv.ClassProbabilities([[1.0], [-1.0]], [0, 0]), [0, 1, 1]), cv.RE(1.0)), "one per data point"),
        ((cv.PNCC(0.5, (2, 2), 2), cv.RE(1.0)), "image_shape"),
    ],
)
def test_bad_constraints(arguments, message):
    with pytest.raises(ValueError, match=message):
        cv.solve_constrained(TWO, arguments[0] if len(arguments) == 1 else list(arguments))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiling": 4}, "tiling"),
        ({"masses": "some"}, "masses"),
        ({"on_failure": "shrug"}, "on_failure"),
        ({"anchor": -1.0}, "anchor"),
        ({"box": (1, 0)}, "box"),
        ({"time_limit": -1}, "time_limit"),
        ({"tol": 0}, "tol"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        cv.solve_constrained(TWO, cv.RE(0.3), **options)


def test_no_progress_bar_unless_asked(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cv.solve_constrained(TWO, cv.RE(0.3), n_tiles=2)
    assert capsys.readouterr().err == ""
    cv.solve_constrained(TWO, cv.RE(0.3), n_tiles=2, progress=True)
    assert "multipliers" in capsys.readouterr().err


def test_files_are_read_back_under_the_same_constraints_alone(clusters, tmp_path):
    x, labels, classifier = clusters
    matrix = np.diag([1.0, 2.0])
    objective = cv.Lagrangian([cv.RE(0.3), cv.FRE(0.3, matrix), cv.CLA(0.5, classifier, labels)], [1.0, 0.1, 1.0])
    s = cv.solve(x, objective, n_tiles=4)
    s.save(tmp_path / "s.npz")
    again = cv.FixedPoint.load(tmp_path / "s.npz", objective)
    assert again.constraint_values == s.constraint_values
    np.testing.assert_array_equal(again.encoder, s.encoder)
    for other, message in (
        (None, "give objective="),
        (cv.Lagrangian([cv.RE(0.3), cv.FRE(0.3, matrix)], [1.0, 0.1]), "was solved under"),
        (
            cv.Lagrangian([cv.RE(0.3), cv.FRE(0.3, 2 * matrix), objective.constraints[2]], [1.0, 0.1, 1.0]),
            "free energy",
        ),
        (cv.ELBO(), "was solved under"),
    ):
        with pytest.raises(ValueError, match=message):
            cv.FixedPoint.load(tmp_path / "s.npz", other)


def test_one_reconstruction_may_be_all_that_is_paid_for():
    """Between what one reconstruction can reach and where the anchor holds it: rate 0, and yet a multiplier."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=(30, 2)) + 2, rng.normal(size=(10, 2)) - 2])
    labels = np.arange(40) // 30
    classifier = LogisticRegression().fit(x, labels)
    statuses = []
    for kappa in (0.70, 0.74, 0.78):
        s = cv.solve_constrained(x, cv.CLA(kappa, classifier, labels), n_tiles=6, anchor=1e-3)
        check_kkt(s)
        statuses.append((s.status.name, len(s.distinct)))
    assert statuses == [("SLACK", 1), ("MET", 1), ("MET", 2)]


def test_minima_to_which_no_split_leads(clusters):
    """Three classes in a row: the collapsed state never splits into the outer ones, a start from data finds them."""
    rng = np.random.default_rng(0)
    x = np.concatenate([0.3 * rng.normal(size=(20, 1)) + centre for centre in (-10, 0, 10)])
    labels = np.arange(60) // 20
    constraint = cv.CLA(0.9, LogisticRegression().fit(x, labels), labels)
    s = cv.solve_constrained(x, constraint, n_tiles=6, anchor=1e-4)
    assert s.status is cv.Status.MET
    check_kkt(s)


def test_a_budget_that_is_used_up_is_not_unreachable():
    x = np.random.default_rng(0).standard_normal((40, 2))
    with pytest.warns(cv.NotConvergedWarning, match="before convergence"):
        s = cv.solve_constrained(x, cv.RE(0.9), n_tiles=4, max_maps=3)
    assert s.status is cv.Status.BUDGET_USED
    assert cv.solve_constrained(x, cv.RE(0.9), n_tiles=4).status is cv.Status.MET


def test_errors_that_saturate_end_as_unreachable():
    x = np.random.default_rng(0).standard_normal((10, 3))
    with pytest.warns(cv.NotConvergedWarning, match="unreachable"):
        s = cv.solve_constrained(x, [cv.RE(0.05), cv.FRE(0.01, np.eye(3)[:1])], n_tiles=4)
    assert min(s.least.values()) > 0
