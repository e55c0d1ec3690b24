"""The test of convergence (T10): its tolerances, when it looks, and its Newton step beside a linear map."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers import convergence as module
from constrained_vae.solvers.convergence import Convergence

EPS = np.finfo(float).eps


def convergence(rng, beta=0.01, tol=1e-9, symmetric=True, likelihood="gaussian"):
    x = rng.normal(size=(20, 3)) if likelihood == "gaussian" else (rng.uniform(size=(20, 3)) < 0.5).astype(float)
    return Convergence(Problem.make(x, cv.ELBO(1.0, beta, likelihood), None, "reference"), tol, symmetric)


def test_tolerances_and_roundings(rng):
    """In the frame, where lambda is the energy over the radius of the data."""
    found = convergence(rng, tol=0.0)
    lam = found.problem.framed.quadratic
    assert lam > 50
    assert found.tol == 100 * EPS
    assert found.floor == pytest.approx(8 * EPS * (1 + np.sqrt(lam)), rel=1e-9, abs=0)
    assert found.noise == pytest.approx(16 * EPS * (1 + lam), rel=1e-9, abs=0)
    assert found.mass_tol == found.noise
    assert found.slack(-3.0) == 4 * found.noise
    settled = (
        2 * lam * (found.floor / found.noise) ** 2
    )  # the mass at which a step of the floor is a log c of the noise
    assert found.light_mass == pytest.approx(settled, rel=1e-9, abs=0)
    assert convergence(rng, tol=1e-3).mass_tol == 1e-3
    assert convergence(rng, tol=1e-3).light_mass == 1e-8
    bernoulli = convergence(rng, likelihood="bernoulli")  # its energy is linear in the statistics
    radius = bernoulli.problem.data.radius
    assert radius != pytest.approx(1.0, abs=0.01)
    assert bernoulli.floor == pytest.approx(8 * EPS * radius, rel=1e-9, abs=0)
    assert bernoulli.tol == pytest.approx(1e-9 * radius, rel=1e-9, abs=0)
    assert bernoulli.mass_tol == pytest.approx(1e-9, rel=1e-9, abs=0)
    assert bernoulli.loose_tol == pytest.approx(1e-6 * radius, rel=1e-9, abs=0)
    assert convergence(rng, tol=1e-3).loose_tol == 1e-3


@pytest.mark.parametrize(("bregman", "energy"), [(True, 4.0), (False, 9.0)])
def test_the_energy_of_the_data_is_lambda_or_that_of_their_mean_statistic(bregman, energy):
    data = SimpleNamespace(dtype=np.float64, radius=2.0, mean_statistic=3.0)
    framed = SimpleNamespace(quadratic=4.0, offset=lambda s: s**2)
    found = Convergence(SimpleNamespace(data=data, framed=framed, bregman=bregman), 1e-9, True)
    assert found.floor == pytest.approx(8 * EPS * (1 + 2.0 * np.sqrt(energy)) * 2.0, rel=1e-9, abs=0)
    assert found.noise == pytest.approx(16 * EPS * (1 + 4.0 * energy), rel=1e-9, abs=0)


def test_the_residual_of_an_inner_minimisation_raises_the_floor(rng):
    found = convergence(rng)
    least = found.floor
    found.raise_floor(100 * least)
    assert found.floor == pytest.approx(200 * least, rel=1e-9, abs=0)
    found.raise_floor(0.01 * least)
    assert found.floor == least


def test_when_the_error_is_estimated(rng):
    found = convergence(rng)
    found.begin(1e-3)
    assert not found.closing(2e-3)
    assert found.closing(1e-3)
    assert found.range_of_closing(1e-3) == (1e-3, 1e-3)
    found.postpone(1e-3, 5e-3)
    assert found.close == pytest.approx(1e-3 / 5)
    assert not found.closing(1e-3)
    assert found.range_of_closing(1e-3) == (found.close, 1e-3)
    assert not found.closing(5e-4)
    assert found.closing(2e-4)
    assert not found.stalled
    found.closing(2e-3)  # back above the target
    assert found.range_of_closing(2e-3) == (1e-3, np.inf)
    assert found.closing(9e-4)
    for error, share in ((1e3, 0.01), (1.1e-3, 0.5)):
        found.postpone(1e-3, error)
        assert found.close == pytest.approx(1e-3 * share)
    assert found.closing(found.floor)
    assert found.stalled


@pytest.mark.parametrize(("size", "stalled"), [(100.0, True), (1000.0, True), (1010.0, False), (1e6, False)])
def test_a_residual_near_the_floor_stalls_after_500_maps_without_a_new_least_one(size, stalled, rng):
    found = convergence(rng)
    found.begin(1e-3)
    for _ in range(501):
        found.closing(size * found.floor)
        assert not found.stalled
    found.closing(size * found.floor)
    assert found.stalled is stalled


def test_an_estimate_from_the_contraction_factor(rng):
    found = convergence(rng, symmetric=False)
    found.factor = 0.9
    point = SimpleNamespace(residual=5 * found.floor, vectors=(None, None, None))
    assert found.estimate(point, []) == pytest.approx(50 * found.floor, rel=1e-9, abs=0)
    assert found.rounding == pytest.approx(10 * found.floor, rel=1e-9, abs=0)
    found.factor = 1.0
    assert found.estimate(point, []) == np.inf
    assert found.rounding == found.floor


@pytest.mark.parametrize(("size", "known", "measured"), [(10.0, 0.9, False), (10.1, 0.9, True), (1.0, np.nan, True)])
def test_a_contraction_factor_is_measured_where_residuals_are_more_than_ten_roundings(
    size, known, measured, rng, monkeypatch
):
    """A ratio of smaller ones is wrong by more than a tenth, so that a factor that is known is better."""
    monkeypatch.setattr(module, "contraction_factor", lambda *_: 0.5)
    found = convergence(rng)
    point = SimpleNamespace(residual=size * found.floor, vectors=(None, None, None))
    factor, error = found.measured(point, [], known)
    assert factor == (0.5 if measured else known)
    assert error == pytest.approx(point.residual / (1 - factor), rel=1e-12, abs=0)


class Linear:
    """Points of the map u -> u* + J (u - u*), with J symmetric in a metric."""

    def __init__(self, rng, sites=2, free=False):
        self.metric = rng.uniform(1, 2, 5)
        root = np.sqrt(self.metric)
        axes = np.linalg.qr(rng.normal(size=(5, 5)))[0]
        self.J = (axes * [0.9, 0.5, 0.3, 0.1, 0.0]) @ axes.T * root / root[:, None]
        self.end, self.sites, self.free, self.at = rng.normal(size=5), sites, free, []

    def __call__(self, u):
        self.at.append(u)
        residual = self.end + self.J @ (u - self.end) - u
        return SimpleNamespace(
            psi=np.zeros((self.sites, 2)), free=self.free, vectors=(u, residual, self.metric),
            residual=float(np.sqrt(self.metric @ residual**2)),
            objective=SimpleNamespace(stiffness=9.0), coordinates=SimpleNamespace(stiffness=4.0),
            norm=lambda step: float(np.sqrt(self.metric @ step**2)),
        )  # fmt: skip


def test_the_newton_step_leads_to_the_fixed_point_of_a_linear_map(rng):
    found, linear = convergence(rng), Linear(rng)
    found.begin(1e-3)
    u = linear.end + 0.01 * rng.normal(size=5)
    point, linear.at = linear(u), []
    step, error = found.newton_step(point, [], linear, whitened=False)
    distance = point.norm(linear.end - u)
    assert point.norm(step - (linear.end - u)) < 0.03 * distance  # conjugate gradients end with a few digits
    assert error == pytest.approx(distance, rel=0.05)
    # Differences are taken over the root of the rounding, times the extent of the points and of the data.
    extent = np.sqrt(linear.metric @ u**2 / linear.metric.sum()) + 3.0 / 2.0  # the radius is 1, in other units
    moved = linear.at[0] - u
    assert np.sqrt(linear.metric @ moved**2 / linear.metric.sum()) == pytest.approx(np.sqrt(EPS) * extent, rel=1e-6)


@pytest.mark.parametrize(
    ("whitened", "stalled", "bounded"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_in_whitened_coordinates_the_error_is_at_least_the_length_of_the_step(whitened, stalled, bounded, rng):
    """Their metric is that of another point. The step of a stalled iteration is a random one, and has no length."""
    found, linear = convergence(rng), Linear(rng)
    found.begin(1e-3)
    found.stalled = stalled
    point = linear(linear.end + 0.01 * rng.normal(size=5))
    point.norm = lambda step: 7.0
    error = found.newton_step(point, [], linear, whitened)[1]
    assert (error == 7.0) is bounded
    assert error == 7.0 or error < 1.0


def test_the_error_of_a_stalled_iteration_is_that_of_the_rounding(rng):
    """However small the residual is; (I - J)^-1 amplifies it by up to 10 here."""
    found, linear = convergence(rng), Linear(rng)
    found.begin(1e-3)
    found.stalled = True
    point = linear(linear.end + 0.01 * rng.normal(size=5))
    point.residual = 1e-3 * found.floor
    assert found.floor <= found.newton_step(point, [], linear, whitened=False)[1] <= 10.5 * found.floor


def test_what_is_missing_of_a_newton_step_adds_to_the_error(rng, monkeypatch):
    found, linear = convergence(rng), Linear(rng)
    found.begin(1e-3)
    point = linear(linear.end + 0.01 * rng.normal(size=5))
    monkeypatch.setattr(module, "newton_step", lambda product, rhs, metric: (3 * rhs, 2 * point.residual))
    assert found.newton_step(point, [], linear, whitened=False)[1] == pytest.approx(5 * point.residual, rel=1e-12)


def test_where_there_is_no_newton_step(rng):
    found, linear = convergence(rng), Linear(rng)
    found.begin(1e-3)
    point, linear.at = linear(linear.end), []
    assert found.newton_step(point, [], linear, whitened=False)[1] == point.residual < 1e-12
    one = Linear(rng, sites=1)(linear.end + 0.01)
    step, error = found.newton_step(one, [], linear, whitened=False)  # the map is constant
    np.testing.assert_array_equal(step, one.vectors[1])
    assert error == one.residual
    assert not linear.at
    free = Linear(rng, sites=1, free=True)
    found.newton_step(free(free.end + 0.01), [], free, whitened=False)
    assert len(free.at) > 1  # its masses move
    found.symmetric, found.factor = False, 0.5
    small = SimpleNamespace(residual=5 * found.floor, vectors=one.vectors)
    assert found.newton_step(small, [], linear, whitened=False)[1] == pytest.approx(10 * found.floor, rel=1e-9, abs=0)
