"""The Jacobian (T8), its spectrum (T9) and derivatives along a branch (T11), against naive maps and closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

import constrained_vae as cv
from constrained_vae._utils import memory
from constrained_vae.data.rows import RowBlocks
from constrained_vae.phases import jacobian, tangent as tangent_module
from constrained_vae.phases.jacobian import Jacobian
from constrained_vae.phases.tangent import tangent
from constrained_vae.testing import (
    curie_weiss,
    naive_bernoulli,
    naive_expectations,
    naive_jacobian,
    small_problems,
    unequal_points,
)
from constrained_vae.testing.closed_forms import field

BOTH = pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
MASSES = pytest.mark.parametrize("masses", ["fixed", "free"])


def solved(likelihood, masses, n_tiles=5, seed=0, tol=1e-13, **options):
    """Weighted points about three centres, away from the origin: three sites for five tiles of unequal mass."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.2, 0.3, 0.2], [0.8, 0.3, 0.6], [0.4, 0.8, 0.7]])
    x = np.clip(centres[np.arange(24) % 3] + 0.1 * rng.normal(size=(24, 3)), 0.02, 0.98)
    x = x if likelihood == "bernoulli" else 30 * x - 7
    objective = cv.ELBO(0.2, 0.5, likelihood) if likelihood == "bernoulli" else cv.ELBO(70.0, 0.6)
    tiling = cv.Tiling(np.arange(2.0, n_tiles + 2) / np.arange(2.0, n_tiles + 2).sum())
    weights = rng.uniform(0.5, 1.5, 24)
    s = cv.solve(x, objective, tiling=tiling, weights=weights, masses=masses, seed=seed, tol=tol, **options)
    assert s.converged
    return s


def naive_map(s, psi, log_masses):
    """T(psi), log m and F at any sites, from loops that share no code with the package."""
    oracle, temperature = naive_bernoulli, s.beta
    if s.objective.likelihood == "gaussian":
        oracle, temperature = naive_expectations, s.objective.sigma**2 * s.beta
    found = oracle(s.x, s.weights, psi, np.exp(log_masses), temperature)
    return found.sums / found.mass[:, None], np.log(found.mass), found.free_energy


def naive_differences(s, sites, step=1e-5):
    """Central differences of (T, log m) by (psi, log masses) of the sites; rows and columns ordered by site."""
    k, dim = sites.decoder.shape
    width = np.ptp(s.x)
    columns = []
    for a in range(k):
        for d in range(dim + 1):
            images = []
            for sign in (1, -1):
                psi, eta = sites.decoder.copy(), np.log(sites.masses)
                if d < dim:
                    psi[a, d] += sign * step * width
                else:
                    eta[a] += sign * step
                image, log_mass, _ = naive_map(s, psi, eta)
                images.append(np.column_stack([image, log_mass]).ravel())
            columns.append((images[0] - images[1]) / (2 * step * (width if d < dim else 1)))
    return np.transpose(columns)


def products(J):
    """The same columns from `product`."""
    k, dim = J.sites.decoder.shape
    unit = np.eye(k * (dim + 1)).reshape(-1, k, dim + 1)
    return np.transpose([np.column_stack(J.product(u[:, :dim], u[:, dim])).ravel() for u in unit])


def metric(J):
    """(m lambda grad^2 f, m) in units of x (T8), (k, D + 1), from the naive map's masses."""
    s, psi = J.solution, J.sites.decoder
    mass = np.exp(naive_map(s, psi, np.log(J.sites.masses))[1])
    curvature = np.full_like(psi, 2 * s.objective.multiplier)
    if s.objective.likelihood == "bernoulli":
        curvature = 1 / (psi * (1 - psi) * s.beta)
    return mass[:, None] * np.column_stack([curvature, np.ones(len(psi))])


@BOTH
@MASSES
def test_products_are_those_of_the_naive_map(likelihood, masses):
    s = solved(likelihood, masses)
    J = Jacobian.at(s)
    assert len(J.sites) == 3 < len(s.tiling)  # coincident tiles are merged
    assert J.shape == ((9, 9) if masses == "fixed" else (12, 12))
    expected = naive_differences(s, J.sites)
    # Central differences of step 1e-5: their own error is 1e-10 of the third derivative, and eps over the step.
    units = np.sqrt(metric(J)).ravel()
    np.testing.assert_allclose(units[:, None] * products(J) / units, units[:, None] * expected / units, atol=1e-8)


@BOTH
@MASSES
def test_dense_matrix_free_and_naive_agree(likelihood, masses, monkeypatch):
    s = solved(likelihood, masses)
    J = Jacobian.at(s)
    dense, n = J.dense(), J.shape[0]
    units = np.sqrt(metric(J))
    naive = units.ravel()[:, None] * naive_differences(s, J.sites) / units.ravel()
    used = np.tile([True] * 3 + [masses == "free"], 3)
    np.testing.assert_allclose(dense, naive[np.ix_(used, used)], atol=1e-8)
    # Some hundred roundings of numbers below 1, and of x / width = 10.
    np.testing.assert_allclose(J.operator() @ np.eye(n), dense, atol=1e-13)
    np.testing.assert_allclose(J.operator().T @ np.eye(n), dense, atol=1e-13)
    np.testing.assert_allclose(dense, dense.T, atol=1e-15)
    assert np.linalg.eigvalsh(dense).min() > -1e-14  # a covariance under the encoder
    for kept, block in ((2**26, 30), (0, 30), (0, 2**20)):
        monkeypatch.setattr(memory, "KEPT", kept)
        monkeypatch.setattr(memory, "BLOCK", block)
        again = Jacobian.at(s)
        assert isinstance(again._kept.results, list) == (kept > 0)
        np.testing.assert_allclose(again.dense(), dense, atol=1e-14)
        np.testing.assert_allclose(again.operator() @ np.eye(n), dense, atol=1e-13)


@given(small_problems(least_tiles=2))
def test_the_dense_matrix_is_the_naive_jacobian_in_its_metric(problem):
    """(T8) word for word, where the solution is exact enough to have psi for T(psi)."""
    tiling = cv.Tiling(problem.masses)
    s = cv.solve(problem.x, beta=problem.beta, tiling=tiling, weights=problem.weights, tol=1e-12, on_failure="return")
    J = Jacobian.at(s)
    assert J.eigenpairs(1).values[0] <= s.split_condition + 1e-8 or not s.converged  # (T9)
    assume((J.sites.marginal > 0).all())
    naive = naive_jacobian(s.x, s.weights, J.sites.decoder, J.sites.masses, s.objective.multiplier)
    root = np.sqrt(metric(J)[:, :-1]).ravel()
    # Rounding of linear-form energies; both take psi for T(psi), so that the error of the solution does not matter.
    np.testing.assert_allclose(J.dense(), root[:, None] * naive / root, atol=problem.rounding(1) * 100)


@pytest.mark.parametrize("a", [1.0, 2e3])
@pytest.mark.parametrize("sigma", [1.0, 0.3])
@pytest.mark.parametrize("relative_beta", [0.3, 0.9, 0.99, 1.01, 1.5, 20.0])
def test_eigenvalues_of_two_points(a, sigma, relative_beta):
    """beta_c / beta above the transition, where only tiles move apart; (beta_c / beta)(1 - m^2) below.

    There the mode that moves both the same way has m^2 times as much. With free masses it takes mass from one to the
    other, and as either point has its two tiles only, the rank is 2: its eigenvalue is the trace less the other,
    (1 - m^2)(1 + m^2 beta_c / beta), and the larger.
    """
    problem, branch = curie_weiss(a, relative_beta, sigma)
    s = cv.solve(problem.x, cv.ELBO(problem.beta, sigma), n_tiles=2, tol=1e-12)
    tiles = Jacobian.at(s, merge=False).eigenpairs(2)
    m2 = (branch.psi[-1] / a) ** 2
    # The error of the eigenvalue is that of m times its derivative, at most 2 m / relative_beta; m is good to 1e-12 of
    # a at most.
    assert tiles.values == pytest.approx([branch.contraction, m2 * branch.contraction], abs=1e-11)
    sites, free = Jacobian.at(s), Jacobian.at(s, masses="free")
    assert len(sites.sites) == (1 if relative_beta > 1 else 2)
    if relative_beta > 1:
        np.testing.assert_allclose(np.append(sites.eigenpairs(2).values, free.eigenpairs(2).values), 0, atol=1e-11)
    else:
        mixed = (1 - m2) * (1 + m2 / relative_beta)
        assert sites.eigenpairs(2).values == pytest.approx([branch.contraction, m2 * branch.contraction], abs=1e-11)
        assert free.eigenpairs(4).values == pytest.approx([mixed, branch.contraction, 0, 0], abs=1e-11)
    # Antisymmetric (they move apart), and of length 1 in the metric: 2 * (1/2) * 2 lambda u^2 = 1.
    u = tiles.decoder[0, :, 0]
    np.testing.assert_allclose(u * np.sign(u[0]), np.array([1, -1]) / np.sqrt(2 * s.objective.multiplier), rtol=1e-6)


@MASSES
def test_tiles_of_one_site_add_its_split_modes(masses):
    """(T9): 2 lambda eig(Cov_a) once for every further tile, and with free masses a 1 each; tiles of any mass."""
    s = solved("gaussian", masses)
    sites, tiles = Jacobian.at(s), Jacobian.at(s, merge=False)
    q = naive_expectations(s.x, s.weights, sites.sites.decoder, sites.sites.masses, 0.36 * 70).encoder
    expected = list(np.linalg.eigvalsh(sites.dense()))
    for a, count in enumerate(sites.sites.counts):
        covariance = np.cov(s.x.T, aweights=s.weights * q[:, a], ddof=0)
        expected += list(2 * s.objective.multiplier * np.linalg.eigvalsh(covariance)) * (count - 1)
        expected += [1.0] * (count - 1) * (masses == "free")
    np.testing.assert_allclose(tiles.eigenpairs(10**6).values, np.sort(expected)[::-1], atol=1e-10)
    # Split modes do not stir when beta changes; the eigenvalue 1 is reported, and does no harm.
    apart, tied = tangent(tiles), tangent(sites)
    assert (apart.critical, tied.critical) == (masses == "free", False)
    np.testing.assert_allclose(apart.decoder, tied.decoder[sites.sites.index], atol=1e-9)
    assert apart.distortion == pytest.approx(tied.distortion, rel=1e-9)


@MASSES
@pytest.mark.parametrize("seed", range(4))
def test_the_split_condition_bounds_the_spectrum(masses, seed):
    """lambda_max(J) <= 2 lambda max_a lambda_max(Cov_a), with free masses <= max(1, that) (T9); < 1 at a minimum."""
    x = np.random.default_rng(seed).normal(size=(25, 2)) * [2.0, 1.0]
    for beta in (2.5, 1.0, 0.5):
        s = cv.solve(x, beta=beta, n_tiles=4, masses=masses, tol=1e-12)
        top = Jacobian.at(s).eigenpairs().values[0]
        assert 0 <= top < 1
        assert top <= s.split_condition + 1e-9 or (masses == "free" and s.split_condition < 1)


@BOTH
@MASSES
@pytest.mark.parametrize("path", ["dense", "lanczos", "lanczos, streamed"])
def test_eigenpairs(likelihood, masses, path, monkeypatch):
    """Eigenvectors of the map in units of x, orthonormal in the metric; F changes by (1 - eigenvalue) / 2."""
    s = solved(likelihood, masses)
    monkeypatch.setattr(jacobian, "_MAX_DENSE_UNKNOWNS", 0 if "lanczos" in path else 512)
    monkeypatch.setattr(memory, "KEPT", 0 if "streamed" in path else 2**26)
    J = Jacobian.at(s)
    pairs = J.eigenpairs(4)
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(J.dense())[::-1][:4], atol=1e-12)
    assert pairs.values[3] > 1e-4
    vectors = np.concatenate([pairs.decoder, pairs.log_masses[..., None]], axis=-1)
    np.testing.assert_allclose(np.einsum("nkd,kd,mkd->nm", vectors, metric(J), vectors), np.eye(4), atol=1e-10)
    symmetrised = (np.sqrt(metric(J)) * vectors).reshape(4, -1)
    assert (symmetrised[np.arange(4), np.abs(symmetrised).argmax(axis=1)] > 0).all()
    assert masses == "free" or not pairs.log_masses.any()
    log_masses = np.log(J.sites.masses)
    here = naive_map(s, J.sites.decoder, log_masses)[2]
    for value, u, eta in zip(pairs.values, pairs.decoder, pairs.log_masses, strict=True):
        image, log_image = J.product(u, eta)
        np.testing.assert_allclose(image, value * u, atol=1e-10 * np.ptp(s.x))
        if masses == "free":
            np.testing.assert_allclose(log_image, value * eta, atol=1e-10)
        h, change = 1e-3, 0.0
        for sign in (h, -h):
            moved = log_masses + sign * eta
            moved = moved - np.log(np.exp(moved).sum())
            change += naive_map(s, J.sites.decoder + sign * u, moved)[2] - here
        assert change / h**2 == pytest.approx(1 - value, abs=1e-4)  # fourth derivatives times h^2, eps / h^2
    again = Jacobian.at(s).eigenpairs(4)
    assert (again.decoder == pairs.decoder).all()
    assert (again.values == pairs.values).all()


def test_a_shift_of_all_log_masses_is_not_seen():
    J = Jacobian.at(solved("gaussian", "free"))
    u, eta = J.product(np.zeros((3, 3)), np.ones(3))
    np.testing.assert_allclose(u, 0, atol=1e-13)
    np.testing.assert_allclose(eta, 0, atol=1e-14)
    # Nor does the map make one: the masses of its image sum to 1.
    _, eta = J.product(np.random.default_rng(0).normal(size=(3, 3)), [1.0, -2.0, 3.0])
    assert J.mass @ eta == pytest.approx(0, abs=1e-14)
    assert tangent(J).log_marginal @ J.mass == pytest.approx(0, abs=1e-14)


@MASSES
def test_masses_may_be_taken_the_other_way(masses):
    other = {"fixed": "free", "free": "fixed"}[masses]
    s = solved("gaussian", masses)
    J = Jacobian.at(s, masses=other)
    assert J.free == (other == "free")
    small, large = sorted([Jacobian.at(s), J], key=lambda one: one.shape)
    used = np.tile([True, True, True, False], 3)
    np.testing.assert_allclose(large.dense()[np.ix_(used, used)], small.dense(), atol=1e-15)


@MASSES
@pytest.mark.parametrize("threshold", [0, 512])
@pytest.mark.parametrize("distance", [1e4, 110.0])
def test_dead_sites_and_settled_coordinates_take_no_part(masses, threshold, distance, monkeypatch):
    """Also sites of a mass so small, about exp(-600), that not every kernel gives it."""
    monkeypatch.setattr(jacobian, "_MAX_DENSE_UNKNOWNS", threshold)
    s = solved("gaussian", masses, n_tiles=3)
    far = replace(
        s,
        decoder=np.vstack([s.decoder, np.full((1, 3), distance)]),
        tiling=cv.Tiling(np.append(0.9 * s.tiling.masses, 0.1)),
        marginal=np.append(s.marginal, 0.0),
    )
    J, n = Jacobian.at(far), Jacobian.at(s).shape[0]
    np.testing.assert_allclose(J.dense()[:n, :n], Jacobian.at(s).dense(), atol=1e-12)
    assert not J.dense()[n:].any()
    assert not (J.operator() @ np.ones(J.shape[0]))[n:].any()
    np.testing.assert_allclose(tangent(far).decoder[:3], tangent(s).decoder, rtol=1e-9)
    assert not tangent(far).decoder[3].any()
    assert tangent(far).log_marginal[3] == 0

    s = solved("bernoulli", masses, n_tiles=3)
    constant = np.column_stack([np.ones(24), s.x, np.zeros(24)])
    wide = replace(s, x=constant, decoder=np.column_stack([np.ones(3), s.decoder, np.zeros(3)]))
    wide = replace(wide, frame=replace(s.frame, centre=np.zeros(5)))
    J, known = Jacobian.at(wide), tangent(s)
    assert J.dense().any(axis=1).sum() == n
    np.testing.assert_allclose(J.eigenpairs(3).values, Jacobian.at(s).eigenpairs(3).values, atol=1e-12)
    np.testing.assert_allclose(tangent(wide).decoder[:, 1:4], known.decoder, rtol=1e-9)
    assert not tangent(wide).decoder[:, [0, 4]].any()
    assert tangent(wide).distortion == pytest.approx(known.distortion, rel=1e-12)


def test_one_site_is_a_constant_map(monkeypatch):
    """Whatever the temperature; for Lanczos, which needs a vector that is not zero, too."""
    x = np.random.default_rng(0).normal(size=(10, 4)) + 3
    s = cv.solve(x, beta=50.0, n_tiles=3)
    for threshold in (512, 0):
        monkeypatch.setattr(jacobian, "_MAX_DENSE_UNKNOWNS", threshold)
        pairs, t = Jacobian.at(s).eigenpairs(2), tangent(s)
        np.testing.assert_array_equal(pairs.values, 0)
        assert (pairs.decoder.shape, pairs.log_masses.shape) == ((2, 1, 4), (2, 1))
        assert not t.decoder.any()
        assert (t.distortion, t.rate, t.residual, t.top_eigenvalue, t.critical) == (0, 0, 0, 0, False)
        assert t.free_energy == pytest.approx(-s.energy / 50)


def test_more_eigenpairs_than_there_is_rank(monkeypatch):
    """Two points: of 2 (300 + 1) directions three move anything."""
    x = np.zeros((2, 300))
    x[:, 0] = [-1, 1]
    s = cv.solve(x, beta=0.7, n_tiles=2, masses="free", tol=1e-13)
    J = Jacobian.at(s)
    assert J.shape[0] > jacobian._MAX_DENSE_UNKNOWNS
    values = J.eigenpairs(6).values
    np.testing.assert_allclose(values, np.linalg.eigvalsh(J.dense())[::-1][:6], atol=1e-12)
    assert (values > 1e-9).sum() < 6
    assert tangent(J).distortion == pytest.approx(curie_weiss_derivatives(1.0, 0.7)["distortion"], rel=1e-9)


# --- derivatives along a branch -------------------------------------------------------------------------------------


def curie_weiss_derivatives(a, relative_beta, sigma=1.0):
    """All of two points below their transition, differentiated in y: beta = (a / sigma)^2 tanh(y) / y."""
    y = field(relative_beta)
    m, disorder = math.tanh(y), 1 / math.cosh(y) ** 2
    slope = (a / sigma) ** 2 * (disorder - m / y) / y  # d beta / dy
    return {"psi": a * disorder / slope, "distortion": -2 * a**2 * disorder * m / slope, "rate": y * disorder / slope}


@MASSES
@pytest.mark.parametrize(("a", "sigma"), [(1.0, 1.0), (0.37, 3.0), (2e3, 1.0)])
@pytest.mark.parametrize("relative_beta", [0.3, 0.8, 0.99, 0.999])
def test_derivatives_of_two_points(a, sigma, relative_beta, masses):
    problem, branch = curie_weiss(a, relative_beta, sigma)
    objective, tiling = cv.ELBO(problem.beta, sigma), cv.Tiling.uniform(2)
    # With free masses a second eigenvalue is near 1: at 0.999 the solution is less exact, and says so.
    s = cv.solve(problem.x, objective, tiling=tiling, masses=masses, tol=1e-11, on_failure="return")
    assert s.error_estimate < 1e-9 * a
    t, expected = tangent(s), curie_weiss_derivatives(a, relative_beta, sigma)
    m2 = (branch.psi[-1] / a) ** 2
    top = branch.contraction if masses == "fixed" else (1 - m2) * (1 + m2 / relative_beta)
    error = s.error_estimate / a + 1e-15
    assert t.top_eigenvalue == pytest.approx(top, abs=10 * error / relative_beta)
    assert not t.critical
    # The eigenvalue moves with psi: the gap is good to the error, and psi' goes as its inverse.
    tolerance = 10 * error / (1 - top) / relative_beta + 1e-12
    sign = np.sign(s.decoder[:, 0])
    np.testing.assert_allclose(t.decoder[s.distinct.index, 0] * sign, expected["psi"], rtol=tolerance)
    assert t.distortion == pytest.approx(expected["distortion"], rel=tolerance)
    assert t.rate == pytest.approx(expected["rate"], rel=tolerance)
    assert t.free_energy == pytest.approx(-s.energy / s.beta, rel=1e-14)  # (T7)
    assert t.energy == pytest.approx(t.free_energy - t.rate, rel=1e-12)
    np.testing.assert_allclose(t.log_marginal * s.beta, 0, atol=tolerance)
    assert t.residual < 1e-12


@pytest.mark.parametrize("theta", [0.3, 0.6, 0.8])
def test_derivatives_of_two_unequal_points(theta):
    """Free masses: psi = a m as before, masses (1 +- d / m) / 2."""
    a, p = 1.7, 0.35
    problem, branch = unequal_points(a, p, theta * a**2)
    s = cv.solve(problem.x, beta=problem.beta, weights=problem.weights, n_tiles=2, masses="free")
    assert len(s.distinct) == len(branch.psi) == 2
    t, expected = tangent(s), curie_weiss_derivatives(a, theta)
    # The solution is good to 1e-10 of a, over the distance of the eigenvalue from 1.
    tolerance = 1e-8 / (1 - t.top_eigenvalue)
    order = np.argsort(t.sites.decoder[:, 0])
    np.testing.assert_allclose(t.decoder[order, 0], np.array([-1, 1]) * expected["psi"], rtol=tolerance)
    assert t.distortion == pytest.approx(expected["distortion"], rel=tolerance)
    m, d = branch.psi[1] / a, 2 * p - 1
    change = -np.array([-1, 1]) * d / m**2 * expected["psi"] / a / (2 * branch.masses)
    np.testing.assert_allclose(t.log_marginal[order], change, rtol=tolerance)


@BOTH
@MASSES
@pytest.mark.parametrize("path", ["dense", "minres", "streamed"])
def test_derivatives_are_those_of_solutions_next_to_it(likelihood, masses, path, monkeypatch):
    """Central differences of `solve`, started from here."""
    monkeypatch.setattr(jacobian, "_MAX_DENSE_UNKNOWNS", 512 if path == "dense" else 0)
    if path == "streamed":
        monkeypatch.setattr(memory, "KEPT", 0)
        monkeypatch.setattr(memory, "BLOCK", 30)
    s = solved(likelihood, masses)
    t = tangent(s)
    assert len(t.sites) == 3
    assert not t.critical
    assert t.residual < 1e-12
    assert t.top_eigenvalue == pytest.approx(np.linalg.eigvalsh(Jacobian.at(s).dense())[-1], abs=1e-12)
    h = 1e-4 * s.beta
    above, below = (
        cv.solve(s.x, s.objective.at(beta), tiling=s.tiling, weights=s.weights, masses=masses, start=s, tol=1e-13)
        for beta in (s.beta + h, s.beta - h)
    )
    # Relative error of the differences: 1e-8 of the third derivative, and 1e-13 / 1e-4 of the solutions; the
    # contraction factor here is below 0.4.
    assert t.top_eigenvalue < 0.4
    for name in ("distortion", "rate", "free_energy", "energy"):
        difference = (getattr(above, name) - getattr(below, name)) / (2 * h)
        assert getattr(t, name) == pytest.approx(difference, rel=1e-6, abs=1e-8 / s.beta), name
    difference = (above.decoder - below.decoder) / (2 * h)
    scale = np.abs(difference).max()
    np.testing.assert_allclose(t.decoder[t.sites.index], difference, atol=1e-6 * scale)
    difference = np.log(above.distinct.marginal / below.distinct.marginal) / (2 * h)
    np.testing.assert_allclose(t.log_marginal, difference, atol=1e-6 * np.abs(difference).max())


@BOTH
def test_the_slope_of_the_trade_off(likelihood):
    """dF / d lambda = E[d] and dR = -lambda dE[d] (T7), lambda = 1 / (2 sigma^2 beta) or 1 / beta."""
    s = solved(likelihood, "fixed")
    t, lam = tangent(s), s.objective.multiplier
    per_lambda = -s.beta / lam
    assert t.free_energy * per_lambda == pytest.approx(s.energy / lam, rel=1e-12)
    d_energy = (t.energy + s.energy / s.beta) / lam  # of E[d] = E[H] / lambda
    assert t.rate == pytest.approx(-lam * d_energy, rel=1e-12)
    assert t.rate < 0 < t.distortion
    if likelihood == "gaussian":
        assert t.distortion == pytest.approx(d_energy, rel=1e-9)


@MASSES
@given(scale=st.sampled_from([1e-3, 0.7, 1e4]), offset=st.sampled_from([0.0, -3.0, 1e3]), flip=st.booleans())
@settings(max_examples=10)
def test_units_offsets_and_rotations(masses, scale, offset, flip):
    """x -> s x + c with beta -> s^2 beta: J and d log m / d log beta stay, d psi / d beta goes as 1 / s, dD stays."""
    s = solved("gaussian", masses)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0] if flip else np.eye(3)
    moved = replace(
        s,
        x=scale * (s.x @ turn + offset),
        decoder=scale * (s.decoder @ turn + offset),
        objective=s.objective.at(scale**2 * s.beta),
        frame=replace(s.frame, centre=scale * (s.frame.centre @ turn + offset), scale=scale * s.frame.scale),
        error_estimate=scale * s.error_estimate,
    )
    one, two = Jacobian.at(s), Jacobian.at(moved)
    # An offset costs its own rounding, relative to the radius of 10: 1e-14 times 1e3 / 10, over widths of 3.
    tolerance = 1e-10
    np.testing.assert_allclose(two.eigenpairs(99).values, one.eigenpairs(99).values, atol=tolerance)
    first, second = tangent(one), tangent(two)
    np.testing.assert_allclose(scale * second.decoder, first.decoder @ turn, atol=tolerance)
    np.testing.assert_allclose(scale**2 * second.log_marginal, first.log_marginal, atol=tolerance)
    assert second.distortion == pytest.approx(first.distortion, rel=tolerance)
    assert scale**2 * second.rate == pytest.approx(first.rate, rel=tolerance)


def test_points_without_weight_and_doubled_points_change_nothing():
    s = solved("gaussian", "free")
    more = replace(
        s,
        x=np.vstack([s.x, s.x[:5], [[1e3] * 3]]),
        weights=np.concatenate([s.weights[:5] / 2, s.weights[5:], s.weights[:5] / 2, [0]]),
    )
    np.testing.assert_allclose(Jacobian.at(more).dense(), Jacobian.at(s).dense(), atol=1e-13)
    assert tangent(more).distortion == pytest.approx(tangent(s).distortion, rel=1e-12)


@pytest.mark.parametrize("kind", ["memory map", "blocks", "float32"])
def test_data_are_streamed_from_wherever_they_are(kind, tmp_path, monkeypatch):
    s = solved("gaussian", "fixed")
    if kind == "memory map":
        np.save(tmp_path / "x.npy", s.x)
        x = np.load(tmp_path / "x.npy", mmap_mode="r")
    else:
        x = s.x.astype(np.float32) if kind == "float32" else RowBlocks([s.x[:7], s.x[7:]])

    def recorded(block, tiles):
        lengths.add(len(block.rho))
        return original(block, tiles)

    lengths, original = set(), jacobian.posterior
    monkeypatch.setattr(jacobian, "posterior", recorded)
    monkeypatch.setattr(tangent_module, "posterior", recorded)
    monkeypatch.setattr(memory, "BLOCK", 12)
    monkeypatch.setattr(memory, "KEPT", 0)
    there = tangent(replace(s, x=x))
    assert lengths == {4}  # 24 rows, three sites and three dimensions
    # The products stay in float64: float32 costs the rounding of the data, 1e-7 of their size of 20 over widths of 3.
    np.testing.assert_allclose(there.decoder, tangent(s).decoder, rtol=1e-4 if kind == "float32" else 1e-10)


def near_two_points(m, error=1e-15):
    """Two points with |psi| = m, exactly on the branch."""
    beta = m / math.atanh(m)
    s = cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=2, tol=1e-13)
    decoder = np.array([[-m], [m]])
    return replace(s, decoder=decoder, objective=cv.ELBO(beta), marginal=np.full(2, 0.5), error_estimate=error)


@pytest.mark.parametrize("threshold", [512, 0])
@pytest.mark.parametrize("m", [1e-2, 1e-3, 1e-4])
def test_next_to_a_transition(m, threshold, monkeypatch):
    """1 - eigenvalue = 2 m^2 / 3: psi' goes as 1 / m, dD / dbeta to 3."""
    monkeypatch.setattr(jacobian, "_MAX_DENSE_UNKNOWNS", threshold)
    t = tangent(near_two_points(m))
    assert not t.critical
    assert 1 - t.top_eigenvalue == pytest.approx(2 * m**2 / 3, rel=2 * m**2, abs=1e-14)
    # beta = 1 - m^2 / 3 - 4 m^4 / 45: dm / dbeta = -3 / (2 m) (1 - 8 m^2 / 15 ...); 1 - eigenvalue is rounded to eps.
    tolerance = m**2 + 1e-14 / m**2
    np.testing.assert_allclose(np.abs(t.decoder), 1.5 / m, rtol=tolerance)
    assert t.distortion == pytest.approx(3, rel=tolerance)


@pytest.mark.parametrize("threshold", [512, 0])
def test_a_critical_mode_is_left_out_and_reported(threshold, monkeypatch):
    monkeypatch.setattr(jacobian, "_MAX_DENSE_UNKNOWNS", threshold)
    t = tangent(near_two_points(1e-4, error=1e-7))  # the eigenvalue is 1 to the accuracy of the solution
    assert t.critical
    assert t.top_eigenvalue == pytest.approx(1, abs=1e-7)
    assert t.residual == pytest.approx(1, abs=1e-6)  # all of the right-hand side is along that mode
    np.testing.assert_allclose(t.decoder, 0, atol=1e-9)
    assert np.isfinite([t.distortion, t.rate, t.energy, t.free_energy]).all()
    # Without it D does not change: that is the collapsed branch.
    assert t.distortion == pytest.approx(0, abs=1e-6)
    for error in (np.inf, 1e300):
        assert not tangent(near_two_points(0.5, error)).critical


def test_a_saddle_has_a_tangent_too():
    """Two points, and a third site in the middle: unstable, yet a branch like any other, with psi = (-m, 0, m)."""
    problem, branch = curie_weiss(1.0, 0.4)
    s = cv.solve(problem.x, beta=problem.beta, n_tiles=3, tol=1e-12)
    m = branch.psi[1]
    t = tangent(replace(s, decoder=np.array([[-m], [0.0], [m]])))
    assert t.top_eigenvalue > 1.01
    slope = curie_weiss_derivatives(1.0, 0.4)["psi"]
    np.testing.assert_allclose(t.decoder[:, 0], [-slope, 0, slope], rtol=1e-12, atol=1e-12)


# --- refusals -------------------------------------------------------------------------------------------------------


def test_what_is_no_solution_is_refused():
    for wrong in (None, np.zeros((2, 2)), cv.ELBO(), "solution"):
        with pytest.raises(ValueError, match="solution must be an instance of FixedPoint"):
            Jacobian.at(wrong)
        with pytest.raises(ValueError, match="at must be a FixedPoint or a Jacobian"):
            tangent(wrong)


def test_bad_arguments_are_refused_by_name(monkeypatch):
    s = solved("gaussian", "fixed")
    with pytest.raises(ValueError, match="masses must be one of"):
        Jacobian.at(s, masses="both")
    J = Jacobian.at(s)
    for count in (0, 1.5, True):
        with pytest.raises(ValueError, match="count"):
            J.eigenpairs(count)
    with pytest.raises(ValueError, match=r"decoder must have shape \(3, 3\), got shape \(5, 3\)"):
        J.product(s.decoder)
    with pytest.raises(ValueError, match="log_masses must have shape"):
        J.product(J.sites.decoder, np.zeros(5))
    monkeypatch.setattr(memory, "LARGEST", 160)
    with pytest.raises(cv.TooLargeError, match=r"9 x 9 entries.*use operator"):
        J.dense()


def test_energies_without_a_curvature_are_refused():
    class Other(cv.ELBO):
        def curvature(self, psi):
            return None

    s = replace(solved("gaussian", "fixed"), objective=Other())
    for function in (Jacobian.at, tangent):
        with pytest.raises(NotImplementedError, match="Bregman"):
            function(s)


def test_repr_and_inputs_untouched():
    s = solved("gaussian", "free")
    before = s.x.copy()
    s.x.setflags(write=False)
    J = Jacobian.at(s)
    tangent(J)
    J.eigenpairs(2)
    assert repr(J) == "Jacobian(3 sites, masses='free', shape=(12, 12))"
    np.testing.assert_array_equal(s.x, before)
