"""Counts and compositions: the information bottleneck by an iteration of its own, exact transitions, and units."""

import re

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import gammaln, xlogy
from scipy.stats import poisson

import constrained_vae as cv
from constrained_vae.testing import EPS

COMPOSITION = cv.ELBO(likelihood="categorical")
COUNTS = cv.ELBO(likelihood="poisson")


def divergences(x, psi):
    """KL(x_i || psi_a) (N, K), as it is written."""
    return np.array([[xlogy(p, p).sum() - (p * np.log(q)).sum() for q in psi] for p in x])


def blahut_arimoto(p_y_given_x, p_x, p_y_given_t, p_t, slope, steps, free):
    """The iteration of Tishby, Pereira and Bialek (1999): p(t | x), p(t) and p(y | t); and its Lagrangian in nats."""
    for _ in range(steps):
        p_t_given_x = p_t * np.exp(-slope * divergences(p_y_given_x, p_y_given_t))
        p_t_given_x /= p_t_given_x.sum(axis=1, keepdims=True)
        joint = p_x[:, None] * p_t_given_x
        p_y_given_t = joint.T @ p_y_given_x / joint.sum(axis=0)[:, None]
        p_t = joint.sum(axis=0) if free else p_t
    normaliser = (p_t * np.exp(-slope * divergences(p_y_given_x, p_y_given_t))).sum(axis=1)
    return p_y_given_t, p_t, p_t_given_x, -p_x @ np.log(normaliser)


def information(joint):
    """Mutual information of a table of probabilities, in nats."""
    return xlogy(joint, joint / np.outer(joint.sum(axis=1), joint.sum(axis=0))).sum()


@pytest.fixture
def table(rng):
    """p(y | x) of 12 rows with some zeros, and p(x)."""
    counts = rng.poisson(rng.gamma(0.7, 6.0, size=(12, 6))) + np.eye(12, 6, dtype=int)
    return counts / counts.sum(axis=1, keepdims=True), counts.sum(axis=1) / counts.sum()


@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_the_bottleneck_is_the_fixed_point_of_its_own_iteration(backend, masses, table):
    x, weights = table
    s = cv.solve(x, COMPOSITION.at(0.2), weights=weights, n_tiles=4, masses=masses, backend=backend)
    free = masses == "free"
    psi, _, q, lagrangian = blahut_arimoto(x, weights, s.decoder, s.tiling.masses, 5.0, 50, free)
    np.testing.assert_allclose(s.decoder, psi, atol=1e-9)  # tol 1e-10 of the radius, which is below 1
    np.testing.assert_allclose(s.encoder, q, atol=1e-7)
    np.testing.assert_allclose(s.decoder.sum(axis=1), 1, rtol=1e-14)
    assert s.free_energy == pytest.approx(lagrangian, abs=1e-13)
    if free:  # R = I(X; T), and the distortion is the information that is lost
        assert s.rate == pytest.approx(information(weights[:, None] * q), abs=1e-8)
    lost = information(weights[:, None] * x) - information((weights[:, None] * q).T @ x)
    assert s.energy * 0.2 == pytest.approx(lost, abs=1e-8)


def test_from_the_same_start_the_iterations_are_the_same(backend, table, rng):
    """Plain maps of the solver, and steps of the naive iteration."""
    x, weights = table
    start = rng.dirichlet(np.ones(6), size=3)
    options = {"weights": weights, "start": start, "n_tiles": 3, "masses": "free", "backend": backend}
    s = cv.solve(x, COMPOSITION.at(0.3), **options, accelerate="plain", record=True, max_maps=6, on_failure="return")
    for step in range(1, 5):
        psi, *_ = blahut_arimoto(x, weights, start, np.full(3, 1 / 3), 1 / 0.3, step, True)
        np.testing.assert_allclose(s.trajectory[step], psi, atol=100 * EPS)


def test_first_critical_temperatures(backend, table, rng):
    """G^-1/2 Cov G^-1/2 with G = diag(mean) (T9): for compositions the squared maximal correlation of x and y."""
    x, weights = table
    joint = weights[:, None] * x
    scaled = joint / np.sqrt(np.outer(joint.sum(axis=1), joint.sum(axis=0)))
    correlation = np.linalg.svd(scaled, compute_uv=False)[1]
    found = cv.first_critical_beta(x, COMPOSITION, weights=weights, backend=backend)
    assert found == pytest.approx(correlation**2, rel=1e-12)
    assert 0 < found <= 1
    counts = rng.poisson([3.0, 100.0], size=(50, 2)).astype(float)
    deviation = (counts - counts.mean(axis=0)) / np.sqrt(counts.mean(axis=0))
    top = np.linalg.eigvalsh(deviation.T @ deviation / 50)[-1]
    for unit in (1, 1000):
        assert cv.first_critical_beta(unit * counts, COUNTS, backend=backend) == pytest.approx(unit * top, rel=1e-12)


def test_a_binary_symmetric_table_splits_at_its_squared_correlation():
    """p(y | x) = 1 - e for y = x: by symmetry the reconstructions are (1 +- m) / 2, and m solves one equation."""
    e, beta = 0.1, 0.3
    x = np.array([[1 - e, e], [e, 1 - e]])
    r = 1 - 2 * e
    (t,) = cv.transitions(x, COMPOSITION, n_tiles=2, beta_range=(0.3, 1.0))
    assert t.beta == pytest.approx(r**2, rel=1e-9)
    s = cv.solve(x, COMPOSITION.at(beta), n_tiles=2)
    m = abs(s.decoder[0, 0] - s.decoder[0, 1])
    # m = r tanh(r artanh(m) / beta) from (T1), (T2): the log-odds of the tiles are 2 r artanh(m) / beta.
    assert m == pytest.approx(r * np.tanh(r * np.arctanh(m) / beta), abs=1e-9)
    assert 0.1 < m < r


def test_transitions_are_where_the_number_of_reconstructions_changes(table):
    x, weights = table
    options = {"weights": weights, "n_tiles": 8}
    found = cv.transitions(x, COMPOSITION, limit=2, **options)
    assert found[0].beta == pytest.approx(cv.first_critical_beta(x, COMPOSITION, weights=weights), rel=1e-9)
    branch = cv.sweep(x, COMPOSITION, betas=[found[0].beta * 1.01, found[0].beta * 0.99], **options)
    assert branch.n_distinct.tolist() == [found[0].n_before, found[0].n_after]
    assert branch.converged


def test_the_energy_of_counts_is_minus_their_log_probability(rng):
    x, rates = rng.poisson(4.0, size=(5, 3)).astype(float), rng.uniform(1, 9, size=(4, 3))
    for scale in (1.0, 7.5):  # the unit of a frame changes nothing
        framed = COUNTS.at(0.5).in_frame(cv.Frame(np.zeros(3), scale))
        phi, s = framed.statistics(x / scale)
        v, b = framed.readout(rates / scale)
        H = framed.offset(s)[:, None] - b - phi @ v.T
        np.testing.assert_allclose(H, -poisson.logpmf(x[:, None], rates).sum(axis=2) / 0.5, rtol=1e-12)
    composition, psi = rng.dirichlet(np.ones(3), size=5), rng.dirichlet(np.ones(3), size=4)
    framed = COMPOSITION.in_frame(cv.Frame(np.zeros(3), 0.3))
    phi, s = framed.statistics(composition / 0.3)
    v, b = framed.readout(psi / 0.3)
    np.testing.assert_allclose(framed.offset(s)[:, None] - b - phi @ v.T, divergences(composition, psi), atol=1e-14)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), unit=st.sampled_from([1e-6, 3.0, 1e5]))
def test_counts_in_another_unit_have_the_same_solution(seed, unit):
    """-log p of rates and counts times a unit is, but for a constant, -log p times the unit: beta goes with it."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.gamma(2.0, 3.0, size=(10, 3))).astype(float)
    if (x == x[0]).all():
        return
    one = cv.solve(x, COUNTS.at(0.7), n_tiles=3, seed=1)
    two = cv.solve(unit * x, COUNTS.at(0.7 * unit), n_tiles=3, seed=1)
    np.testing.assert_allclose(two.decoder, unit * one.decoder, rtol=1e-6, atol=1e-9 * unit * x.max())
    assert two.rate == pytest.approx(one.rate, abs=1e-7)


def test_empty_columns_and_rows_count_for_nothing():
    x = np.array([[3.0, 0, 0], [0, 0, 5.0], [0, 0, 0], [4.0, 0, 1.0]])
    s = cv.solve(x, COUNTS.at(0.5), n_tiles=3)
    assert s.converged
    np.testing.assert_array_equal(s.decoder[:, 1], 0)
    other = cv.solve(x[:, [0, 2]], COUNTS.at(0.5), n_tiles=3, start=s.decoder[:, [0, 2]])
    assert s.free_energy == pytest.approx(other.free_energy, rel=1e-13)


def test_frontier_of_a_table(table):
    """Between nothing, D = I(X; Y), and everything, D = 0; a code of its own iteration is never below the curve."""
    x, weights = table
    curve = cv.rate_distortion(x, [0.3, 0.1], COMPOSITION, weights=weights)
    assert curve.likelihood == "categorical"
    assert curve.ends[0, 0] == pytest.approx(information(weights[:, None] * x), rel=1e-12)
    assert curve.ends[1, 0] == pytest.approx(0, abs=1e-12)
    nucleation = cv.nucleation_beta(x, COMPOSITION, weights=weights)
    assert nucleation >= cv.first_critical_beta(x, COMPOSITION, weights=weights)
    best = cv.global_solution(x, COMPOSITION.at(1.001 * nucleation), weights=weights)
    assert len(best.distinct) == 1
    best = cv.global_solution(x, COMPOSITION.at(0.99 * nucleation), weights=weights)
    assert len(best.distinct) > 1
    rng = np.random.default_rng(0)
    for _ in range(5):
        start = rng.dirichlet(np.ones(6), size=8)
        _, _, q, _ = blahut_arimoto(x, weights, start, np.full(8, 1 / 8), 8.0, 300, True)
        joint = weights[:, None] * q
        lost = information(weights[:, None] * x) - information(joint.T @ x)
        assert information(joint) >= curve.bound_below(lost) - 1e-9


def test_an_estimator_of_counts_scores_log_probabilities(rng):
    train, held_out = (rng.poisson([[2.0, 9.0]] * n + [[8.0, 3.0]] * n).astype(float) for n in (30, 5))
    vae = cv.FixedPointVAE(1.0, likelihood="poisson", n_tiles=2).fit(train)
    q = vae.solution_.encode(held_out)
    H = -poisson.logpmf(held_out[:, None], vae.solution_.decoder).sum(axis=2)
    expected = -(q * (H + np.log(q / 0.5))).sum(axis=1).mean()
    assert vae.score(held_out) == pytest.approx(expected, rel=1e-9)
    nothing = cv.FixedPointVAE(1.0, likelihood="poisson", n_tiles=2).fit(train * [1, 0])
    assert nothing.score(held_out) == -np.inf


def test_files_of_counts(tmp_path, table, rng):
    x, weights = table
    for data, objective, more in (
        (x, COMPOSITION.at(0.1), {"weights": weights}),
        (rng.poisson(5.0, size=(20, 3)) * 1.0, COUNTS.at(0.4), {}),
    ):
        s = cv.solve(data, objective, n_tiles=4, **more)
        s.save(tmp_path / "s.npz")
        again = cv.FixedPoint.load(tmp_path / "s.npz")
        np.testing.assert_array_equal(again.decoder, s.decoder)
        assert again.objective == s.objective


@pytest.mark.parametrize(
    ("x", "objective", "message"),
    [
        ([[1.0, -1.0]], COUNTS, "the poisson likelihood wants data of at least 0, got -1"),
        (
            [[0.5, 0.4]],
            COMPOSITION,
            "the categorical likelihood wants rows that sum to one, got a row with the sum 0.9",
        ),
        ([[1.5, -0.5]], COMPOSITION, "the categorical likelihood wants data of at least 0, got -0.5"),
    ],
)
def test_other_data_are_refused(x, objective, message):
    for door in (cv.solve, cv.sweep, cv.first_critical_beta, cv.rate_distortion):
        with pytest.raises(ValueError, match=re.escape(message)):
            door(x, objective=objective)


def test_constants_are_those_of_the_gamma_function(rng):
    """Numbers between counts have a likelihood, too."""
    x = rng.gamma(2.0, size=(3, 2))
    _, s = COUNTS.statistics(x)
    np.testing.assert_allclose(s, gammaln(x + 1).sum(axis=1), rtol=1e-13)
