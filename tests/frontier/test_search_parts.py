"""Parts of the search for the optimum: coverage, its slopes, roundings and maxima; and what the search keeps."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.frontier import coverage as coverage_module
from constrained_vae.frontier.data_passes import DataPasses
from constrained_vae.frontier.optimum import _Search
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


def test_newton_climbs_from_points_that_are_expected_above_a_floor(rng, monkeypatch):
    """A point is expected to rise by its squared slope over twice the least bend, 0.02 of the stiffness."""
    coverage, data = covered(posed(clusters(rng), 1.0))
    start, step = data.x[:1], 1e-6
    gradient = [
        float(np.diff(coverage(start + step * np.array([[-1.0], [1.0]]) * e))[0]) / (2 * step) for e in np.eye(2)
    ]
    hope = float(coverage(start)[0]) + np.square(gradient).sum() / coverage.objective.stiffness / 0.04
    monkeypatch.setattr(coverage_module, "single_threaded", lambda find, value, slope, u, *rest, **options: u)
    assert len(coverage._climbed(start, hope - 1e-4, 1e-7)) == 1
    assert len(coverage._climbed(start, hope + 1e-4, 1e-7)) == 0
    assert len(coverage._climbed(start, -np.inf, 1e-7)) == 1


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
    apart = resolution * np.array([[0.0, 0.0], [0.1, 0.0]])
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
