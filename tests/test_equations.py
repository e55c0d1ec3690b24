"""The equations against the naive loops of `naive.py`, and the identities that tie them together."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, strategies as st

from constrained_vae import equations
from constrained_vae.testing import naive_expectations, naive_linear

EPS = float(np.finfo(float).eps)


class Case(NamedTuple):
    """Data, reconstructions and their linear form (T4) for the squared error with multiplier lam."""

    x: np.ndarray
    psi: np.ndarray
    weights: np.ndarray
    masses: np.ndarray
    lam: float

    @property
    def linear(self):
        """Arguments of `expectations`."""
        x, psi, lam = self.x, self.psi, self.lam
        arrays = (x, lam * (x**2).sum(1), self.weights, 2 * lam * psi, -lam * (psi**2).sum(1), self.log_masses)
        for array in arrays:
            array.flags.writeable = False
        return arrays

    @property
    def log_masses(self):
        with np.errstate(divide="ignore"):
            return np.log(self.masses)

    @property
    def energies(self):
        phi, s, _, v, b, _ = self.linear
        return equations.energies(phi, s, v, b)

    def naive(self):
        return naive_expectations(self.x, self.weights, self.psi, self.masses, 1 / (2 * self.lam))

    @property
    def accuracy(self):
        """Rounding of an energy: D + 3 terms (T4), each at most the largest in size; twice that for the encoder."""
        size = self.lam * (np.abs(self.x).max() + np.abs(self.psi).max()) ** 2 * self.x.shape[1]
        return 4 * (self.x.shape[1] + 3 + len(self.psi)) * EPS * (1 + size)


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    N, K, D = draw(st.integers(1, 12)), draw(st.integers(1, 7)), draw(st.integers(1, 4))
    masses = rng.dirichlet(np.ones(K))
    masses[: draw(st.integers(0, K - 1))] = 0  # dead tiles
    return Case(
        rng.normal(size=(N, D)),
        rng.normal(size=(K, D)),
        rng.dirichlet(np.ones(N)),
        masses / masses.sum(),
        np.exp(draw(st.floats(-4, 5))),
    )


@given(cases())
def test_energies_are_the_squared_distances(case):
    direct = case.lam * ((case.x[:, None] - case.psi) ** 2).sum(2)
    np.testing.assert_allclose(case.energies, direct, atol=case.accuracy)


@given(cases())
def test_encoder_marginal_and_free_energy(case):
    naive = case.naive()
    q, log_partition = equations.encoder(case.energies, case.log_masses)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=len(case.psi) * EPS)
    np.testing.assert_allclose(q, naive.encoder, rtol=case.accuracy, atol=1e-300)
    np.testing.assert_array_equal(q[:, case.masses == 0], 0)
    np.testing.assert_allclose(equations.marginal(q, case.weights), naive.mass, rtol=2 * case.accuracy, atol=1e-300)
    free_energy = equations.free_energy(log_partition, case.weights)
    assert free_energy == pytest.approx(naive.free_energy, abs=case.accuracy)


@given(cases())
def test_free_energy_is_rate_plus_energy(case):
    naive = case.naive()
    q, log_partition = equations.encoder(case.energies, case.log_masses)
    rate = equations.rate(q, case.log_masses, case.weights)
    assert rate >= -case.accuracy
    assert rate + naive.energy == pytest.approx(equations.free_energy(log_partition, case.weights), abs=case.accuracy)


@given(cases())
def test_rate_is_information_plus_marginal_kl(case):
    """R = I(x; tile) + KL(m || pi) (T5)."""
    q, _ = equations.encoder(case.energies, case.log_masses)
    mass = equations.marginal(q, case.weights)
    with np.errstate(divide="ignore"):
        information = equations.rate(q, np.log(mass), case.weights)
    marginal_kl = equations.marginal_kl(mass, case.masses)
    assert marginal_kl >= -case.accuracy
    total = information + marginal_kl
    assert equations.rate(q, case.log_masses, case.weights) == pytest.approx(total, abs=case.accuracy)


@given(cases())
def test_expectations(case):
    naive, given_ = case.naive(), equations.expectations(*case.linear)
    np.testing.assert_allclose(given_.mass, naive.mass, rtol=2 * case.accuracy, atol=1e-300)
    np.testing.assert_allclose(given_.sums, naive.sums, atol=4 * case.accuracy)
    assert given_.free_energy == pytest.approx(naive.free_energy, abs=case.accuracy)
    assert given_.energy == pytest.approx(naive.energy, abs=case.accuracy * (1 + naive.energy))


@given(cases(), st.integers(1, 11))
def test_expectations_of_row_blocks_add(case, cut):
    phi, s, rho, *tiles = case.linear
    whole = equations.expectations(phi, s, rho, *tiles)
    cut = min(cut, len(rho))
    parts = [equations.expectations(phi[i], s[i], rho[i], *tiles) for i in (slice(cut), slice(cut, None)) if s[i].size]
    total = parts[0] + parts[1] if len(parts) == 2 else parts[0]
    for field in ("mass", "sums", "free_energy", "energy"):
        expected = getattr(whole, field)
        # The same terms in another order: N eps of their sizes.
        atol = 16 * EPS * (1 + float(np.abs(case.energies).max()) + np.abs(phi).max())
        np.testing.assert_allclose(getattr(total, field), expected, atol=atol)


@given(st.integers(0, 2**32 - 1))
def test_any_linear_form(seed):
    rng = np.random.default_rng(seed)
    arguments = (rng.normal(size=(6, 3)), rng.normal(size=6), rng.dirichlet(np.ones(6)))
    arguments += (rng.normal(size=(4, 3)), rng.normal(size=4), np.log(rng.dirichlet(np.ones(4))))
    naive, given_ = naive_linear(*arguments), equations.expectations(*arguments)
    np.testing.assert_allclose(given_.mass, naive.mass, rtol=1e-13)
    np.testing.assert_allclose(given_.sums, naive.sums, atol=1e-14)
    assert (given_.free_energy, given_.energy) == pytest.approx((naive.free_energy, naive.energy), abs=1e-13)


@given(cases())
def test_distortion_is_the_mean_square(case):
    naive = case.naive()
    distortion = equations.distortion(naive.encoder, case.weights, case.x, case.psi)
    assert distortion == pytest.approx(naive.energy / case.lam, abs=100 * EPS)


def test_distortion_loses_nothing_to_an_offset(rng):
    """Multiples of 2^-10 about 2^30: shifted without rounding. Squares of 2^30 would leave an error of 1e2."""
    x, psi = (np.round(rng.normal(size=shape) * 1024) / 1024 for shape in ((20, 3), (4, 3)))
    q, weights = rng.dirichlet(np.ones(4), size=20), np.full(20, 1 / 20)
    plain = equations.distortion(q, weights, x, psi)
    # The mean is known to eps 2^30 = 2e-7, squares about it to that times deviations from it that sum to zero.
    assert equations.distortion(q, weights, x + 2.0**30, psi + 2.0**30) == pytest.approx(plain, abs=1e-6)


def test_gradient_of_the_free_energy_is_the_step_of_the_map():
    """grad_a F = 2 lambda m_a (psi_a - T_a) (T6), by central differences."""
    rng = np.random.default_rng(3)
    case = Case(rng.normal(size=(9, 2)), rng.normal(size=(3, 2)), np.full(9, 1 / 9), np.array([0.2, 0.3, 0.5]), 0.8)
    found, h = equations.expectations(*case.linear), 1e-5
    step = case.psi - equations.decoder(found.sums, found.mass, case.psi)
    for a, d in np.ndindex(3, 2):
        kick = np.zeros((3, 2))
        kick[a, d] = h
        up, down = (equations.expectations(*case._replace(psi=case.psi + sign * kick).linear) for sign in (1, -1))
        slope = (up.free_energy - down.free_energy) / (2 * h)
        assert slope == pytest.approx(2 * case.lam * found.mass[a] * step[a, d], abs=1e-9)  # h^2, eps / h


def test_decoder_is_the_weighted_mean_and_dead_tiles_stay():
    sums, mass = np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 0.0]]), np.array([0.5, 0.0, 1.5])
    previous = np.array([[9.0, 9.0], [7.0, 8.0], [9.0, 9.0]])
    np.testing.assert_array_equal(equations.decoder(sums, mass, previous), [[2.0, 4.0], [7.0, 8.0], [2.0, 0.0]])


def test_zero_posterior_mass_costs_nothing():
    """A tile of prior mass zero, and one that nobody uses: 0 log 0 = 0."""
    q, log_masses = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), np.array([np.log(0.5), np.log(0.5), -np.inf])
    assert equations.rate(q, log_masses, np.full(2, 0.5)) == pytest.approx(np.log(2), rel=4 * EPS)
    kl = equations.marginal_kl(np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.5, 0.0]))
    assert kl == pytest.approx(np.log(2), rel=4 * EPS)


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4, 1e300])
def test_encoder_at_any_height_of_the_energies(shift):
    H = np.array([[0.0, 1.0, 800.0]]) + shift
    q, log_partition = equations.encoder(H, np.log([0.25, 0.25, 0.5]))
    assert np.isfinite(q).all()
    assert q.sum() == pytest.approx(1, rel=4 * EPS)
    assert log_partition[0] == pytest.approx(-shift + np.log(0.25 * (1 + np.exp(-1))), rel=4 * EPS)
    if abs(shift) < 1e5:
        # eps of the height, in the exponent; exp(-800) underflows
        np.testing.assert_allclose(q[0], np.array([1, np.exp(-1), 0]) / (1 + np.exp(-1)), rtol=1e4 * EPS)
