"""Objectives: multipliers, the linear form against formulas written out, frames, derivatives."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, strategies as st

from constrained_vae import ELBO, equations
from constrained_vae.data.frame import Frame
from constrained_vae.data.rows import standard_frame
from constrained_vae.objectives.energies import CrossEntropy, SquaredError
from constrained_vae.problems.problem import Problem

BOTH = pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
sizes = st.floats(1e-6, 1e6)


def data(rng, N=7, K=4, D=3):
    return rng.uniform(0, 1, (N, D)), rng.uniform(0.05, 0.95, (K, D))


def energies(objective, x, psi):
    phi, s = objective.statistics(x)
    return equations.energies(phi, objective.offset(s), *objective.readout(psi))


@given(beta=sizes, sigma=sizes)
def test_multipliers(beta, sigma):
    gaussian, bernoulli = ELBO(beta, sigma), ELBO(beta, sigma, likelihood="bernoulli")
    assert gaussian.multiplier == gaussian.quadratic == pytest.approx(1 / (2 * sigma**2 * beta), rel=1e-14)
    assert gaussian.stiffness == pytest.approx(1 / (sigma**2 * beta), rel=1e-14)
    assert bernoulli.multiplier == pytest.approx(1 / beta, rel=1e-15)  # sigma plays no part (T4)
    assert bernoulli.stiffness == pytest.approx(4 / beta, rel=1e-15)
    assert bernoulli.quadratic is None
    assert gaussian.allowance == bernoulli.allowance == 0


@BOTH
def test_at_moves_beta_only(likelihood):
    assert ELBO(2.0, 3.0, likelihood).at(0.5) == ELBO(0.5, 3.0, likelihood)


@BOTH
@given(beta=sizes, sigma=sizes)
def test_settings_come_back(likelihood, beta, sigma):
    objective = ELBO(beta, sigma, likelihood)
    settings = objective.settings()
    assert settings.pop("objective") == "ELBO"
    assert ELBO(**settings) == objective


def test_numbers_become_floats_and_nothing_can_be_set():
    objective = ELBO(beta=np.float32(0.5), sigma=2)
    assert type(objective.beta) is type(objective.sigma) is float
    with pytest.raises(FrozenInstanceError):
        objective.beta = 2.0


def test_gaussian_energy(rng):
    x, psi = data(rng)
    direct = ((x[:, None] - psi) ** 2).sum(2) / (2 * 1.5**2 * 0.3)
    np.testing.assert_allclose(energies(ELBO(0.3, 1.5), x, psi), direct, rtol=1e-13)


def test_bernoulli_energy(rng):
    x, psi = data(rng)
    direct = -(x[:, None] * np.log(psi) + (1 - x[:, None]) * np.log(1 - psi)).sum(2) / 0.3
    np.testing.assert_allclose(energies(ELBO(0.3, 9.0, "bernoulli"), x, psi), direct, rtol=1e-13)


def test_bernoulli_energy_at_0_and_1():
    """0 log 0 = 0; a reconstruction that denies what happened costs hundreds of nats, not infinity."""
    H = energies(ELBO(likelihood="bernoulli"), np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[0.0, 1.0], [0.5, 1.0]]))
    # Log-odds of up to 708 come and go: eps of that.
    np.testing.assert_allclose(H[0], [0, np.log(2)], atol=2e-13)
    assert 500 < H[1, 0] < np.inf
    assert H[1, 1] == pytest.approx(np.log(2), abs=2e-13)


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_energies_do_not_depend_on_the_frame(seed, scale):
    rng = np.random.default_rng(seed)
    x, psi = data(rng)
    frame, objective = Frame(rng.normal(size=3), scale), ELBO(0.7, 1.3)
    inside = energies(objective.in_frame(frame), frame.inward(x), frame.inward(psi))
    # In the frame the terms of (T4) are as large as (|centre| + 1)^2 times the multiplier, and cancel.
    np.testing.assert_allclose(inside, energies(objective, x, psi), atol=1e-12)
    np.testing.assert_allclose(frame.outward(frame.inward(x)), x, atol=1e-14)
    assert objective.in_frame(frame).stiffness == pytest.approx(objective.stiffness * scale**2)


@BOTH
def test_pullback_is_the_gradient_of_the_free_energy(likelihood, rng):
    """dF/dpsi_a = sum_i rho_i q_ia dH_ia/dpsi_a = -lambda pullback(psi, sums, mass)_a (T2), by central differences."""
    x, psi = data(rng)
    objective, rho, log_masses = ELBO(0.4, 0.8, likelihood), np.full(7, 1 / 7), np.log(np.full(4, 0.25))

    def found(psi):
        phi, s = objective.statistics(x)
        return equations.expectations(phi, objective.offset(s), rho, *objective.readout(psi), log_masses)

    here, h = found(psi), 1e-5
    gradient = -objective.multiplier * objective.energy.pullback(psi, here.sums, here.mass)
    for index in np.ndindex(psi.shape):
        kick = np.zeros_like(psi)
        kick[index] = h
        slope = (found(psi + kick).free_energy - found(psi - kick).free_energy) / (2 * h)
        assert slope == pytest.approx(gradient[index], abs=1e-6)  # h^2 times third derivatives up to 1e4
    # A Bregman gradient vanishes at the weighted mean: lambda grad^2 f (psi - T) m (T6), (T8).
    step = psi - objective.decoder(here.mass, here.sums, psi)
    np.testing.assert_allclose(gradient, here.mass[:, None] * objective.curvature(psi) * step, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("energy", [SquaredError(), CrossEntropy()])
def test_curvature_is_the_derivative_of_the_readout(energy, rng):
    """v = grad f (T4), so the curvature is dv/dpsi."""
    _, psi = data(rng)
    h = 1e-6
    slope = (energy.readout(psi + h)[0] - energy.readout(psi - h)[0]) / (2 * h)
    np.testing.assert_allclose(energy.curvature(psi), slope, rtol=1e-7)


def test_curvature_of_a_settled_coordinate_is_zero():
    np.testing.assert_array_equal(CrossEntropy().curvature(np.array([[0.0, 0.5, 1.0]])), [[0.0, 4.0, 0.0]])


@BOTH
def test_the_curvature_is_constant_in_its_coordinates(likelihood, rng):
    """lambda grad^2 f (dpsi/du)^2 = stiffness."""
    _, psi = data(rng)
    objective, h = ELBO(0.4, 0.8, likelihood), 1e-6
    u = objective.coordinates(psi)
    np.testing.assert_allclose(objective.reconstructions(u), psi, rtol=1e-14)
    slope = (objective.reconstructions(u + h) - objective.reconstructions(u - h)) / (2 * h)
    np.testing.assert_allclose(objective.curvature(psi) * slope**2, objective.stiffness, rtol=1e-8)


def test_bernoulli_coordinates_never_leave_the_domain():
    objective = ELBO(likelihood="bernoulli")
    psi = objective.reconstructions(np.linspace(-9, 9, 1001)[None])
    assert psi.min() >= 0
    assert psi.max() <= 1
    ends = np.array([[0.0, 1e-13, 1 - 1e-13, 1.0]])
    np.testing.assert_allclose(objective.reconstructions(objective.coordinates(ends)), ends, atol=2e-12)


@pytest.mark.parametrize("unit", [1e-150, 1.0, 1e150])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_standard_frame(unit, offset, rng):
    x, rho = (rng.normal(size=(30, 3)) + offset) * unit, rng.dirichlet(np.ones(30))
    frame = standard_frame(x, rho)
    centre = rho @ (x / unit)
    np.testing.assert_allclose(frame.centre / unit, centre, rtol=1e-14, atol=1e-14)
    radius = np.sqrt(rho @ ((x / unit - centre) ** 2).sum(1))
    assert frame.scale / unit == pytest.approx(radius, rel=1e-12)


def test_standard_frame_ignores_points_of_weight_zero_and_blocks(monkeypatch, rng):
    x, rho = rng.normal(size=(30, 3)), rng.dirichlet(np.ones(30))
    expected = standard_frame(x, rho)
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 12)  # four rows at a time
    frame = standard_frame(np.vstack([x, [[1e9, 0, 0]]]), np.append(rho, 0.0))
    np.testing.assert_allclose(frame.centre, expected.centre, atol=1e-15)
    assert frame.scale == pytest.approx(expected.scale, rel=1e-14)
    assert standard_frame(np.full((10, 2), 1e5 + 0.1), np.full(10, 0.1)).scale == 1


@BOTH
def test_a_problem_streams_what_it_could_hold(likelihood, rng, monkeypatch, tmp_path):
    """A memory map, read in blocks, gives the same expectations and distortion; so does a change of beta."""
    x, psi = data(rng, N=50)
    objective, rho, log_masses = ELBO(0.4, 0.8, likelihood), rng.dirichlet(np.ones(50)), np.log(np.full(4, 0.25))
    held = Problem.make(x, objective.at(9.0), rho, "reference", None)
    held.data.mean, held.data.radius, held.expectations(psi, log_masses)
    held = held.at(objective)
    mapped = np.memmap(tmp_path / "x", dtype=float, mode="w+", shape=x.shape)
    mapped[:] = x
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 24)  # six or eight rows at a time
    streamed = Problem.make(mapped, objective, rho, "reference", None)
    assert len(list(streamed.data.blocks())) > 5
    psi = held.data.frame.inward(psi)
    one, two = (problem.expectations(psi, log_masses) for problem in (held, streamed))
    np.testing.assert_allclose(one.sums, two.sums, atol=1e-14)
    assert one.free_energy == pytest.approx(two.free_energy, rel=1e-14)
    assert held.data.radius == pytest.approx(streamed.data.radius, rel=1e-14)
    q, _ = equations.encoder(energies(objective, x, held.data.frame.outward(psi)), log_masses)
    direct = equations.distortion(q, rho, x, held.data.frame.outward(psi))
    for problem, found in ((held, one), (streamed, two)):
        assert problem.distortion(psi, log_masses, found) == pytest.approx(direct, rel=1e-12)
