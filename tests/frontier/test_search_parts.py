"""Parts of the search for the optimum: coverage, its slopes, roundings and maxima; and what the search keeps."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.data.prepared import Block
from constrained_vae.frontier import coverage as coverage_module, optimum as optimum_module
from constrained_vae.frontier.coverage import Coverage
from constrained_vae.frontier.data_passes import DataPasses
from constrained_vae.frontier.optimum import _Found, _Search
from constrained_vae.frontier.span import Span
from constrained_vae.problems.problem import Problem
from constrained_vae.results.status import Status


def clusters(rng):
    return rng.normal(size=(20, 2)) + np.where(np.arange(20) < 12, 0.0, 9.0)[:, None] * [1.0, 0.0]


def posed(x, beta, likelihood="gaussian"):
    return Problem.make(x, cv.ELBO(1.0, beta, likelihood), None, "reference")


def covered(problem, k=1):
    """The coverage of the first k points, with equal masses."""
    data = DataPasses(problem)
    return data.coverage(data.x[:k], np.full(k, 1 / k))[0], data


# --- coverage ---------------------------------------------------------------------------------------------------------


def test_maxima_come_with_the_largest_first_and_each_once(rng):
    coverage, data = covered(posed(clusters(rng), 1.0))
    psi, heights = coverage.maxima(data.x)
    assert len(psi) == len(heights) >= 2
    assert (np.diff(heights) <= 0).all()
    np.testing.assert_allclose(coverage(psi), heights)


def test_one_climber_begins_at_the_highest_start(rng):
    coverage, data = covered(posed(clusters(rng), 1.0))
    order = np.argsort(coverage(data.x))
    starts = data.x[order[[0, 10, -1]]]
    psi, heights = coverage.maxima(starts, climbers=1)
    assert psi.shape == (1, 2)  # the start is not kept beside the maximum that is above it
    assert heights[0] >= coverage(starts).max()


def test_points_within_a_distance_in_units_of_the_resolution_are_one():
    coverage = Coverage(SimpleNamespace(stiffness=4.0), None, None, "backend")
    psi = np.array([[0.0], [0.7], [0.04], [0.06], [0.74]])
    assert coverage._first_of_each(psi, 0.1).tolist() == [0, 1, 3]  # the resolution is 1/2


def test_newton_climbs_from_points_that_are_expected_above_a_floor(rng, monkeypatch):
    """A point is expected to rise by its squared slope over twice the least bend, 0.02 of the stiffness."""
    coverage, data = covered(posed(clusters(rng), 1.0))
    start, step = data.x[:1], 1e-6
    gradient = [
        float(np.diff(coverage(start + step * np.array([[-1.0], [1.0]]) * e))[0]) / (2 * step) for e in np.eye(2)
    ]
    hope = float(coverage(start)[0]) + np.square(gradient).sum() / coverage.objective.stiffness / 0.04
    monkeypatch.setattr(coverage_module, "single_threaded", lambda find, value, slope, u, *rest, **options: u)
    passes, slopes = [], Coverage._slopes
    monkeypatch.setattr(Coverage, "_slopes", lambda self, u: passes.append(len(u)) or slopes(self, u))
    assert len(coverage._climbed(start, hope - 1e-4, 1e-7)) == 1
    assert len(coverage._climbed(start, hope + 1e-4, 1e-7)) == 0
    assert passes == [1, 1]
    assert len(coverage._climbed(start, -np.inf, 1e-7)) == 1
    assert passes == [1, 1]  # without a floor no pass over the data is made for it


def test_few_points_at_a_time_have_the_same_log_c(rng, monkeypatch):
    """Even if one point takes more work than is done between two looks at the deadline."""
    coverage, data = covered(posed(clusters(rng), 1.0))
    values, means = coverage.means(data.x)
    for work in (1, 3 * 10 * len(data.x)):
        monkeypatch.setattr(coverage_module, "_WORK", work)
        again = coverage.means(data.x)
        np.testing.assert_allclose(again[0], values, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(again[1], means, rtol=1e-12, atol=1e-12)


def test_the_matrix_of_climbers_and_data_fits_into_a_cache(monkeypatch):
    """Of points far from each other, which are all maxima, the highest go on to Newton's method."""
    x = np.arange(1100.0)[:, None]
    problem = Problem.make(x, cv.ELBO(1.0, 0.01), np.arange(1100.0, 2200.0), "reference")
    data, climbed = DataPasses(problem), []
    coverage, _ = data.coverage(data.x[:1], np.ones(1))
    monkeypatch.setattr(coverage_module, "_MEAN_SHIFTS", 2)
    monkeypatch.setattr(Coverage, "_climbed", lambda self, psi, *_: climbed.append(psi) or psi)
    coverage.maxima(data.x)
    assert 2**19 < len(climbed[0]) * len(x) <= 2**20
    assert coverage(climbed[0]).min() >= np.sort(coverage(data.x))[-len(climbed[0])] - 1e-9


def test_a_sample_of_the_rows_has_half_of_them_at_most_and_enough_for_the_sum_of_their_shares(monkeypatch):
    """At least `_SAMPLE` rows, and `_PER_SHARE` for each unit of the sum S of all shares; the variance is S / n."""
    monkeypatch.setattr(coverage_module, "_SAMPLE", 4)

    def coverage(rows, total):
        x = np.arange(float(rows))[:, None]
        block = Block(x, x, x[:, 0], np.full(rows, 1 / rows), None)
        return Coverage(None, block, np.full(rows, np.log(total / rows)), "backend")

    assert coverage(8, 1e-3).sampled() is None
    some, deviation = coverage(9, 1e-3).sampled()
    assert (len(some.log_shares), deviation) == (4, pytest.approx((1e-3 / 4) ** 0.5))
    assert coverage(81, 10.2).sampled() is None  # 2 * 4 * 10.2 rows are more than there are
    some, deviation = coverage(81, 9.01).sampled()
    assert len(some.log_shares) == 36
    assert deviation == pytest.approx((9.01 / 36) ** 0.5)
    np.testing.assert_allclose(some.log_shares, np.log(9.01 / 36))
    np.testing.assert_array_equal(some.block.x[:, 0], np.floor((np.arange(36) + 0.5) * 81 / 36))


def test_a_row_with_most_of_the_shares_is_taken_many_times(monkeypatch):
    """Also the last one, beyond which rounding of the sums may lead."""
    monkeypatch.setattr(coverage_module, "_SAMPLE", 4)
    x = np.arange(9.0)[:, None]
    block = Block(x, x, x[:, 0], np.full(9, 1 / 9), None)
    some, _ = Coverage(None, block, np.log([1e-9] * 8 + [1.0]), "backend").sampled()
    np.testing.assert_array_equal(some.block.x, [[8.0]])
    assert some.log_shares == pytest.approx([0.0], abs=1e-7)
    beyond = lambda ends, wanted: np.full(len(wanted), len(ends))  # noqa: E731
    monkeypatch.setattr(coverage_module.np, "searchsorted", beyond)
    some, _ = Coverage(None, block, np.log([1e-9] * 8 + [1.0]), "backend").sampled()
    np.testing.assert_array_equal(some.block.x, [[8.0]])


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_slopes_are_those_of_differences(likelihood, rng):
    x = (rng.uniform(size=(15, 3)) < 0.5).astype(float) if likelihood == "bernoulli" else rng.normal(size=(15, 3))
    problem = posed(x, 0.5, likelihood)
    coverage, _ = covered(problem)
    psi = problem.data.frame.inward(rng.uniform(0.2, 0.8, size=(4, 3)))
    u, step = np.asarray(problem.framed.coordinates(psi)), 1e-5
    values, slopes = coverage._slopes(u)
    np.testing.assert_allclose(values, coverage(psi))
    for j, axis in enumerate(step * np.eye(3)):
        ahead, behind = (coverage(np.asarray(problem.framed.reconstructions(v))) for v in (u + axis, u - axis))
        np.testing.assert_allclose(slopes[:, j], (behind - ahead) / (2 * step), atol=1e-6)


def test_roundings_of_log_c_are_those_of_its_terms(rng, monkeypatch):
    eps = 1e-4
    monkeypatch.setattr(coverage_module, "_EPS", eps)
    coverage, data = covered(posed(clusters(rng), 1.0))
    coverage = replace(coverage, rounding_of_shares=rng.uniform(size=len(data.x)))
    psi = data.x[:3] + 0.1
    H = data.energies(psi)
    logs = coverage.log_shares[:, None] - H
    values = np.log(np.exp(logs).sum(axis=0))
    shares = np.exp(logs - values)
    terms = (
        coverage_module.rounding_of_energies(data.block, coverage.objective, H) + coverage.rounding_of_shares[:, None]
    )
    wanted = (shares * terms).sum(axis=0) + 8 * eps * np.abs(values) + eps * (512 + len(data.x) / 64)
    np.testing.assert_allclose(coverage.rounding(psi), wanted, rtol=1e-9)


@pytest.mark.parametrize(("likelihood", "unit"), [("gaussian", 1.0), ("gaussian", 1e9), ("bernoulli", 1.0)])
def test_roundings_of_energies(likelihood, unit, rng):
    """Of a squared distance from differences, where energies are steep; else of the linear form."""
    x = unit * rng.uniform(size=(6, 3))
    problem = posed(x / unit, 1 / unit, likelihood)
    data, eps = DataPasses(problem), np.finfo(float).eps
    H = np.abs(data.energies(data.x[:2]))
    found = coverage_module.rounding_of_energies(data.block, problem.framed, H)
    if likelihood == "bernoulli":
        size = data.block.offset(problem.framed)[:, None]
        wanted = 16 * eps * (1 + np.abs(size) + np.abs(H) + 3 * problem.framed.stiffness)
        assert (found >= wanted * (1 - 1e-12)).all()
        return
    size = problem.framed.quadratic * np.square(data.x).sum(axis=1)[:, None]
    wanted = eps * (7 * H + 8 * np.sqrt(size * H) + 16 * eps * size)
    np.testing.assert_allclose(found, wanted + (16 * eps * (size + H) if unit == 1 else 0.0), rtol=1e-9)


def test_roundings_of_a_linear_form_are_of_the_offset_the_energy_and_the_terms():
    """Data of other objectives have offsets of both signs."""
    block = SimpleNamespace(offset=lambda _: np.array([-2.0, 3.0]), phi=np.zeros((2, 5)))
    found = coverage_module.rounding_of_energies(
        block, SimpleNamespace(quadratic=None, stiffness=1.5), np.array([[-7.0], [0.5]])
    )
    terms = np.array([[1 + 2.0 + 7.0 + 7.5], [1 + 3.0 + 0.5 + 7.5]])
    np.testing.assert_allclose(found, 16 * np.finfo(float).eps * terms, rtol=1e-12)


# --- the search -------------------------------------------------------------------------------------------------------


def search(x, beta, gap=1e-6, max_maps=1000):
    return _Search(posed(x, beta), gap, max_maps, True, None)


def test_a_look_that_is_not_quick_is_thorough(rng):
    of = search(rng.normal(size=(8, 2)), 0.5)
    psi, masses = of.data.x[:2], np.full(2, 0.5)
    assert not of.looked(psi, masses, quick=True).thorough
    assert of.looked(psi, masses, quick=False).thorough


def test_an_interruption_before_the_first_round_has_no_result_and_later_the_best(rng, monkeypatch):
    of = search(rng.normal(size=(8, 2)), 0.5)
    psi, masses = of.data.x[:2], np.full(2, 0.5)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(of, "searched", interrupted)
    with pytest.raises(KeyboardInterrupt):
        of.run(psi, masses)
    of.best = of.looked(psi, masses, quick=True)
    found = of.run(of.data.x[:1], np.ones(1))
    assert found.status is Status.INTERRUPTED
    assert len(found.decoder) == 2
    assert found.n_maps == 1
    np.testing.assert_array_equal(found.decoder, of.problem.data.frame.outward(psi))  # not moved by further maps


def test_without_time_the_result_is_the_start(rng):
    x = rng.normal(size=(8, 2))
    found = cv.global_solution(x, beta=0.5, time_limit=0, on_failure="return")
    assert (found.status, found.n_maps, len(found.decoder)) == (Status.BUDGET_USED, 1, 1)
    start = cv.solve(x, beta=0.5, n_tiles=2, on_failure="return")
    again = cv.global_solution(x, beta=0.5, start=start, time_limit=0, on_failure="return")
    np.testing.assert_allclose(again.free_energy, start.free_energy, atol=1e-6)
    with pytest.raises(ValueError, match="at most 1 nat"):
        cv.global_solution(x, beta=0.5, gap=1.5)


def test_the_budget_of_maps_holds_and_the_last_look_is_thorough(rng):
    of = replace(search(rng.normal(size=(12, 2)), 0.2, gap=1e-9, max_maps=3), prove=False)
    assert of.searched(of.problem.collapsed[None], np.ones(1)) is Status.BUDGET_USED
    assert of.n_maps <= 3
    assert of.best.thorough


def test_a_gap_that_is_met_is_that_of_a_thorough_look(rng):
    """A quick look may miss the largest c."""
    of = replace(search(clusters(rng), 1.0, gap=1e-3), prove=False)
    assert of.searched(of.problem.collapsed[None], np.ones(1)) is Status.CONVERGED
    assert of.best.thorough


def test_what_is_kept_has_the_smallest_gap_but_a_thorough_look_comes_before_any_quick_one(rng):
    found = lambda gap, thorough: SimpleNamespace(certificate=SimpleNamespace(gap=gap), thorough=thorough)  # noqa: E731
    of = search(rng.normal(size=(8, 2)), 0.5)
    for gap, thorough, kept in (
        (0.5, False, True),
        (0.6, False, False),
        (0.4, False, True),
        (0.7, True, True),
        (0.8, True, False),
        (0.7, True, False),
        (0.6, True, True),
    ):
        one = found(gap, thorough)
        assert of.kept(one) is kept
        assert (of.best is one) is kept


def test_a_search_ends_after_some_rounds_without_a_smaller_gap(rng, monkeypatch):
    """Of these rounds the first and the third have a smaller gap, and after two without one the next ends it."""
    of = replace(search(rng.normal(size=(6, 2)), 0.2), prove=False)
    monkeypatch.setattr(optimum_module, "_MAX_IDLE_ROUNDS", 2)
    smaller, rounds = [True, False, True, False, False, False, True], []

    def looked(psi, masses, quick):
        certificate = SimpleNamespace(gap=0.5, rigorous=False)
        return _Found(certificate, None, psi[:0], masses[:0], psi, masses, not quick)

    def kept(found):
        of.best = found
        rounds.append(found)
        return smaller[len(rounds) - 1]

    monkeypatch.setattr(of, "looked", looked)
    monkeypatch.setattr(of, "kept", kept)
    assert of.searched(of.problem.collapsed[None], np.ones(1)) is Status.BUDGET_USED
    assert len(rounds) == 6


def test_no_progress_is_shown_unless_it_is_asked_for(capsys):
    for options, shown in (({}, False), ({"progress": True}, True)):
        cv.global_solution([[-1.0], [1.0]], beta=2.0, gap=0.1, backend="reference", **options)
        assert bool(capsys.readouterr().err) is shown


def test_masses_are_polished_too(rng):
    of = search(clusters(rng), 1.0)
    psi = of.problem.data.frame.inward(np.array([[0.0, 0.0], [9.0, 0.0]]))
    _, sites = of.polished(psi, np.array([0.5, 0.5]), 50)
    assert sorted(sites.masses) == pytest.approx([0.4, 0.6], abs=0.01)


def test_only_reconstructions_much_closer_than_the_resolution_are_merged(rng):
    of = search(rng.normal(size=(8, 2)), 0.1)  # a pair at the mean lowers F
    resolution = of.problem.framed.stiffness**-0.5
    assert resolution < 0.5
    psi, masses = resolution * np.array([[0.0, 0.0], [0.01, 0.0]]), np.array([0.25, 0.75])
    of.gap = 1.0
    merged, total = of.merged(psi, masses)
    np.testing.assert_allclose(merged, resolution * np.array([[0.0075, 0.0]]), atol=1e-15)
    assert total == pytest.approx([1.0])
    apart, of.gap = resolution * np.array([[0.0, 0.0], [0.1, 0.0]]), 1e3  # so that no rise is too much
    assert len(of.merged(apart, masses)[0]) == 2
    of.gap = 1e-12  # F rises by more
    assert len(of.merged(psi, masses)[0]) == 2


def test_the_bound_of_a_narrow_problem_is_lowered_by_the_error_of_its_space(rng):
    """The points are a little apart from the space: the bounds of their projections are those of other points."""
    x = rng.normal(size=(8, 2))
    found = cv.global_solution(x, beta=0.5)
    of = search(x, 0.5)
    frame = of.problem.data.frame
    span = Span(frame.outward(np.zeros((1, 2)))[0], np.eye(2), of.problem.data, 1e-3)
    found = SimpleNamespace(
        decoder=found.decoder - span.origin,
        tiling=found.tiling,
        certificate=found.certificate,
        status=found.status,
        n_maps=7,
    )
    wide, error = of.widened(found, span), span.error(of.problem.framed.quadratic)
    assert error > 1e-4
    assert wide.certificate.lower == pytest.approx(found.certificate.lower - error, abs=1e-12)
    assert wide.certificate.rounding == pytest.approx(found.certificate.rounding + error, abs=1e-12)
    np.testing.assert_allclose(wide.certificate.where, found.certificate.where + span.origin)
    assert wide.n_maps == 7


def test_the_rises_of_a_climber_are_expected_to_go_on_as_a_geometric_series():
    """By their ratio, which is at most 0.95, with a margin of five; none after a step that does not rise."""
    rises, before = np.array([0.5, 1.0, 0.0, -1.0, 0.5]), np.array([1.0, 1.0, 1.0, 1.0, 0.0])
    expected = coverage_module._expected(rises, before)
    np.testing.assert_allclose(expected, [5 * 0.5, 5 * 0.95 / 0.05, 0.0, 0.0, 5 * 0.5 * 0.95 / 0.05])
