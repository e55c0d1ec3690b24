"""Certificates and the global optimum: closed forms of the rate-distortion function, and bounds that nothing breaks."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import constrained_vae as cv
from constrained_vae.data.prepared import Block
from constrained_vae.frontier.coverage import Coverage
from constrained_vae.frontier.data_passes import DataPasses
from constrained_vae.testing import small_problems
from tests.helpers.closed_forms import binary_entropy


def two_points(p, beta):
    """Rate and distortion of the global optimum of two points at +-1 with weights p, 1 - p (section 5)."""
    low, high = 1e-12, 1.0
    for _ in range(200):  # m = tanh(m / beta), by bisection
        m = (low + high) / 2
        low, high = (m, high) if np.tanh(m / beta) > m else (low, m)
    if beta >= 1 or m <= abs(1 - 2 * p):
        return 0.0, 4 * p * (1 - p)
    return binary_entropy(p) - binary_entropy((1 + m) / 2), 1 - m**2


@pytest.mark.parametrize("p", [0.5, 0.3, 0.1])
@pytest.mark.parametrize("relative", [1.1, 0.95, 0.7, 0.4, 0.2])
def test_two_points(p, relative):
    """The whole closed form, below and above the nucleation at lambda* = log((1 - p) / p) / (4 (1 - 2 p))."""
    lam = 0.5 if p == 0.5 else np.log((1 - p) / p) / (4 * (1 - 2 * p))
    beta = relative / (2 * lam)
    s = cv.global_solution([[-1.0], [1.0]], beta=beta, weights=[p, 1 - p], gap=1e-8 * 2)
    rate, distortion = two_points(p, beta)
    assert s.converged
    assert s.certificate.rigorous
    assert s.certificate.gap <= 2e-8
    assert s.free_energy == pytest.approx(rate + distortion / (2 * beta), abs=2e-8)
    # F is good to the gap, rate and distortion to its root.
    assert s.rate == pytest.approx(rate, abs=5e-4)
    assert s.distortion == pytest.approx(distortion, abs=5e-4)
    assert s.marginal_kl <= s.certificate.gap + 1e-12  # (T15)


@pytest.mark.parametrize(
    "data", [cv.datasets.four_clusters(), cv.datasets.rings(100), cv.datasets.digits(60)], ids=repr
)
@pytest.mark.parametrize("relative", [1.05, 0.5, 0.1])
def test_the_gap_is_met_and_no_other_solution_is_below_the_bound(data, relative):
    beta = relative * cv.first_critical_beta(data.x)
    s = cv.global_solution(data.x, beta=beta)
    assert s.converged
    assert s.certificate.gap <= 1e-6
    assert s.certificate.upper == pytest.approx(s.free_energy, abs=1e-12)
    assert s.certificate.rigorous is (data.x.shape[1] <= 2)
    for options in ({"masses": "free"}, {"masses": "free", "start": "data"}, {"start": "data", "seed": 3}):
        other = cv.solve(data.x, beta=beta, n_tiles=40, on_failure="return", max_maps=500, **options)
        assert other.free_energy >= s.certificate.lower - 1e-10
        bounds = cv.certify(other)
        assert bounds.lower <= s.free_energy + 1e-10
        assert bounds.upper == other.free_energy


@settings(max_examples=15)
@given(small_problems(), st.integers(0, 3))
def test_bounds_hold_for_any_solution(problem, seed):
    """Converged or not, F - log sup c is below what any other start reaches."""
    tiling = cv.Tiling(problem.masses)
    options = {"beta": problem.beta, "tiling": tiling, "weights": problem.weights, "on_failure": "return"}
    rough = cv.solve(problem.x, start=problem.start, max_maps=2, **options)
    fine = cv.solve(problem.x, start="data", seed=seed, masses="free", **options)
    for bounds in (cv.certify(rough), cv.certify(fine)):
        assert bounds.gap >= -1e-10
        assert bounds.lower <= min(rough.free_energy, fine.free_energy) + 1e-10 * (1 + abs(fine.free_energy))


def test_many_points_on_a_line():
    x = cv.datasets.exponential(300).x
    for relative in (0.3, 0.05):
        s = cv.global_solution(x, beta=relative * float(x.var()))
        assert s.converged
        assert s.certificate.rigorous


def test_at_a_tile_c_is_the_ratio_of_masses(rng):
    """c(psi_a) = m_a / pi_a (T14), and log c has the gradient that differences give."""
    x = rng.normal(size=(30, 3))
    s = cv.solve(x, beta=0.3, n_tiles=4, start="data", max_maps=3, on_failure="return")
    objective = s.objective.in_frame(s.frame)
    u, psi = s.frame.inward(x), s.frame.inward(s.decoder)
    phi, offsets = objective.statistics(u)
    v, b = objective.readout(psi)
    H = objective.offset(offsets)[:, None] - b - phi @ v.T
    log_Z = np.log(np.exp(-H) @ s.tiling.masses)
    coverage = Coverage(objective, Block(u, phi, offsets, s.weights, None), np.log(s.weights) - log_Z)
    np.testing.assert_allclose(np.exp(coverage(psi)), s.marginal / s.tiling.masses, rtol=1e-12)
    tops, heights = coverage.maxima(np.concatenate([psi, u]))
    assert (np.diff(heights) <= 0).all()
    assert (heights[0] >= coverage(rng.normal(size=(500, 3))) - 1e-12).all()
    step = 1e-4 * rng.normal(size=tops.shape)  # flat there
    np.testing.assert_allclose(coverage(tops + step), heights, atol=1e-6)


def test_branch_and_bound_is_above_every_value(rng):
    x = rng.normal(size=(40, 2))
    s = cv.solve(x, beta=0.05, n_tiles=3, max_maps=5, on_failure="return")
    bounds = cv.certify(s)
    grid = np.stack(np.meshgrid(*[np.linspace(-4, 4, 201)] * 2), axis=-1).reshape(-1, 2)
    H = np.square(grid[:, None] - x).sum(axis=2) / 0.1
    energies = np.square(x[:, None] - s.decoder).sum(axis=2) / 0.1
    log_Z = np.log(np.exp(-energies) @ s.tiling.masses)
    c = np.log(np.exp(-H - log_Z).mean(axis=1))
    assert bounds.rigorous
    assert c.max() <= bounds.gap
    assert bounds.gap <= c.max() + 0.1 * abs(c.max()) + 0.1  # of a grid of step 0.04, a fifth of the resolution


def test_points_without_weight_have_no_say_and_duplicates_count_twice():
    x = cv.datasets.four_clusters().x[::10]
    one = cv.global_solution(x, beta=1.0)
    far = np.concatenate([x, [[50.0, 50.0]]])
    two = cv.global_solution(far, beta=1.0, weights=np.append(np.ones(len(x)), 0.0))
    three = cv.global_solution(np.concatenate([x, x]), beta=1.0)
    for other in (two, three):
        assert other.free_energy == pytest.approx(one.free_energy, abs=2e-6)


def test_bernoulli_digits():
    data = cv.datasets.digits(60)
    x = (data.x > 0.5).astype(float)
    s = cv.global_solution(x, cv.ELBO(beta=2.0, likelihood="bernoulli"), on_failure="return")
    other = cv.solve(x, cv.ELBO(beta=2.0, likelihood="bernoulli"), n_tiles=30, masses="free")
    assert s.free_energy <= other.free_energy + 1e-9
    assert s.certificate.gap < 1e-3


def test_holes_of_a_quench_are_far_from_the_optimum():
    data = cv.datasets.four_clusters()
    s = cv.solve(data.x, beta=0.02, n_tiles=12, start="data", on_failure="return")
    assert s.marginal_kl > 1e-3
    assert cv.certify(s).gap > 1e-3


def test_a_start_nearby_and_no_time_at_all():
    data = cv.datasets.four_clusters()
    s = cv.global_solution(data.x, beta=0.5)
    near = cv.global_solution(data.x, beta=0.48, start=s)
    assert near.free_energy == pytest.approx(cv.global_solution(data.x, beta=0.48).free_energy, abs=2e-6)
    with pytest.warns(cv.NotConvergedWarning, match=r"before the gap was met: .* \(gap .* nats\)"):
        none = cv.global_solution(data.x, beta=0.05, time_limit=0.0)
    assert none.certificate.gap > 1e-6
    assert none.certificate.lower <= cv.global_solution(data.x, beta=0.05).free_energy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gap": 0.0}, "gap"),
        ({"gap": -1.0}, "gap"),
        ({"time_limit": -1.0}, "time_limit"),
        ({"start": 3}, "start"),
        ({"on_failure": "shrug"}, "on_failure"),
        ({"beta": 0.0}, "beta"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        cv.global_solution([[-1.0], [1.0]], **options)


def test_certify_wants_a_solution():
    with pytest.raises(ValueError, match="solution"):
        cv.certify(3)


def test_nothing_is_above_the_bound_of_a_proof(rng):
    """Values on a grid a thousand times finer than the data are wide, near every reconstruction and between them."""
    x = np.concatenate([rng.normal(size=(60, 2)), 4 + 0.3 * rng.normal(size=(20, 2))])
    s = cv.solve(x, beta=0.2, n_tiles=12, masses="free", max_maps=40, on_failure="return")
    data = DataPasses(s.problem)
    psi = s.frame.inward(s.decoder)
    coverage = data.coverage(psi, s.tiling.masses)[0]
    bound, top = coverage.bound(data.x, psi, 1e-7)
    assert coverage(top[None])[0] == pytest.approx(bound - 1e-7, abs=1e-9)
    near = psi[:, None] + 0.003 * rng.normal(size=(len(psi), 500, 2))
    between = psi[rng.integers(0, 12, 3000)] + rng.uniform(size=(3000, 1)) * (psi[rng.integers(0, 12, 3000)] - top)
    assert coverage(np.concatenate([*near, between, top + 1e-4 * rng.normal(size=(500, 2))])).max() <= bound


def test_the_default_gap_is_a_millionth_of_a_nat():
    assert inspect.signature(cv.global_solution).parameters["gap"].default == 1e-6
    assert inspect.signature(cv.rate_distortion).parameters["gap"].default == 1e-6
