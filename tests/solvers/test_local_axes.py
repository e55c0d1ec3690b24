"""Axes of sites of few rows, against covariances over all rows, and sites that split together."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers import local_axes as module, split_condition as conditions, splits
from constrained_vae.solvers.local_axes import local_axes
from constrained_vae.solvers.split_condition import split_axes, split_condition


def _problem(beta: float, dim: int, n: int = 4200, k: int = 256, weights: bool = False) -> tuple[Problem, np.ndarray]:
    rng = np.random.default_rng(1)
    x = 3 + rng.standard_normal((n, dim)) * np.linspace(1, 2, dim)
    rho = rng.uniform(0.5, 2, n) if weights else np.ones(n)
    problem = Problem.make(x, cv.ELBO(beta=beta), rho / rho.sum(), "numba")
    block = problem.data.resident
    assert block is not None
    return problem, block.x[rng.permutation(len(block.x))[:k]]


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("dim", [3, 20])
def test_eigenpairs_are_those_of_the_covariances_over_all_rows(dim: int, weights: bool) -> None:
    problem, psi = _problem(0.001 * dim, dim, weights=weights)
    log_masses = np.log(np.random.default_rng(2).dirichlet(np.full(len(psi), 5.0)))
    found = local_axes(problem, psi, log_masses)
    assert found is not None
    values, deviations = split_axes(problem, psi, log_masses)
    assert found[0] == pytest.approx(values, rel=1e-9, abs=1e-12)
    assert conditions.deviations(problem, *found) == pytest.approx(deviations, rel=1e-6, abs=1e-8)


def test_the_condition_does_not_depend_on_how_it_is_found() -> None:
    problem, psi = _problem(0.05, 20)
    log_masses, eligible = np.full(len(psi), -np.log(len(psi))), np.arange(len(psi)) % 3 == 0
    found = split_condition(problem, psi, log_masses, eligible, others=False)
    with mock.patch.object(conditions, "local_axes", return_value=None):
        other = split_condition(problem, psi, log_masses, eligible)
        rest = split_condition(problem, psi, log_masses, eligible, others=False)
    assert found.of_all
    assert found.local is not None
    assert not rest.of_all
    assert (found.site, rest.site) == (other.site, other.site)
    assert (found.top, found.eigenvalue) == pytest.approx((other.top, other.eigenvalue), rel=1e-10)
    assert found.axis == pytest.approx(other.axis, abs=1e-8)


def test_there_is_no_result_where_many_rows_count_or_a_site_is_light() -> None:
    problem, psi = _problem(100.0, 3)
    assert local_axes(problem, psi, np.full(len(psi), -np.log(len(psi)))) is None
    problem, psi = _problem(0.003, 3)
    log_masses = np.full(len(psi), -np.log(len(psi)))
    psi = psi.copy()
    psi[7] = 30.0
    assert local_axes(problem, psi, log_masses) is None


def test_left_out_pairs_hold_less_than_their_share() -> None:
    problem, psi = _problem(0.003, 3)
    block = problem.data.resident
    assert block is not None
    log_masses, lam = np.full(len(psi), -np.log(len(psi))), problem.framed.quadratic
    rows, sites = module._candidates(block, psi, log_masses, lam)
    logits = log_masses - lam * np.square(block.x[:, None] - psi).sum(axis=2)
    shares = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    shares[rows, sites] = 0
    assert shares.max() <= module._LEFT_OUT


def test_sites_far_past_their_condition_split_together() -> None:
    centres = 20 * np.array([[0.0, 0], [1, 0], [0, 1], [1, 1], [2, 0]])
    x = (centres[:, None] + np.array([[-1.0, 0], [1, 0]])).reshape(-1, 2)
    start = np.repeat(centres, 2, axis=0)
    with mock.patch.object(splits, "split_condition", side_effect=split_condition) as condition:
        solution = cv.solve(x, beta=0.1, n_tiles=10, start=start)
    assert solution.converged
    assert len(solution.distinct.decoder) == 10
    assert (
        condition.call_count <= 4
    )  # once for the five sites together; the end is tested to a loose and a tight tolerance
    expected = cv.solve(x, beta=0.1, n_tiles=10, start=x)
    assert solution.free_energy == pytest.approx(expected.free_energy, abs=1e-9)


def test_the_largest_eigenvalue_is_that_of_all_sites() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (50, 1)), rng.normal(20, 0.1, (50, 1))])
    s = cv.solve(x, beta=2.0, n_tiles=4, start=np.array([[0.0], [20], [20], [20]]))
    assert s.tiling.masses.tolist() == [0.25] * 4
    psi, counts = np.unique(s.decoder, axis=0, return_counts=True)
    assert sorted(counts) == [1, 3]  # only the narrow cluster may split
    every, _ = split_axes(s.problem, s.problem.data.frame.inward(psi), np.log(counts / 4))
    assert s.split_condition == pytest.approx(every.max(), rel=1e-6)
    assert every.argmax() == counts.argmin()
