"""The split condition (T9) against covariances written out, the Jacobian (T8) and known first transitions."""

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae import datasets
from constrained_vae._utils import memory
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers import split_condition as module
from constrained_vae.solvers.split_condition import split_condition
from constrained_vae.testing import naive_bernoulli, naive_expectations, naive_jacobian

BOTH = pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])


def site_covariances(x, weights, q):
    """Weighted covariance of the data of every site, about its own mean, (K, D, D)."""
    w = weights[:, None] * q
    return np.array([np.cov(x.T, aweights=w[:, a], ddof=0).reshape(x.shape[1], -1) for a in range(q.shape[1])])


def whitened(x, weights, psi, masses, objective):
    """lambda (grad^2 f)^1/2 Cov_a (grad^2 f)^1/2 of every site, from the naive encoder: no code of the package."""
    if objective.likelihood == "gaussian":
        q = naive_expectations(x, weights, psi, masses, objective.sigma**2 * objective.beta).encoder
        root = np.full_like(psi, 1 / (objective.sigma * np.sqrt(objective.beta)))
    else:
        q = naive_bernoulli(x, weights, psi, masses, objective.beta).encoder
        root = 1 / np.sqrt(psi * (1 - psi) * objective.beta)
    return root[:, :, None] * site_covariances(x, weights, q) * root[:, None, :]


def random_case(likelihood, rng, D=3, K=3):
    x = rng.uniform(size=(30, D))
    if likelihood == "bernoulli":
        x = np.round(x)
    psi, masses, weights = rng.uniform(0.2, 0.8, (K, D)), rng.dirichlet(np.ones(K)), rng.dirichlet(np.ones(30))
    return x, weights, psi, masses, cv.ELBO(0.3, 0.7, likelihood)


def found(x, weights, psi, masses, objective, may_split=None):
    problem = Problem.make(x, objective, weights, "reference", None)
    return split_condition(problem, problem.data.frame.inward(psi), np.log(masses), may_split), problem.data.frame


@BOTH
@pytest.mark.parametrize("path", ["dense", "dense, one site at a time", "lanczos", "lanczos, streamed"])
@pytest.mark.parametrize("D", [3, 150])
def test_every_path_agrees_with_the_covariances(likelihood, path, D, rng, monkeypatch):
    monkeypatch.setattr(module, "_MAX_DENSE_DIM", 10**9 if "dense" in path else 0)
    if "one" in path:
        monkeypatch.setattr(module, "_COVARIANCE_ENTRIES", 1)
        monkeypatch.setattr(module, "_DEVIATION_ENTRIES", (1, 1))
    monkeypatch.setattr(memory, "KEPT", 0 if "streamed" in path else 2**26)
    case = random_case(likelihood, rng, D)
    values, vectors = np.linalg.eigh(whitened(*case))
    site = int(values[:, -1].argmax())
    condition, frame = found(*case)
    assert condition.top == condition.eigenvalue == pytest.approx(values[site, -1], rel=1e-10)
    assert condition.site == site
    # One standard deviation of the site's data along the whitened axis, back in units of x; the sign is fixed. The gap
    # to the next eigenvalue is a few percents: the axis is good to eps over that, and Lanczos to its tolerance.
    axis = vectors[site, :, -1]
    axis = axis * np.sign(axis[np.abs(axis).argmax()])
    psi, objective = case[2][site], case[4]
    curvature = 1 / (psi * (1 - psi) * objective.beta) if likelihood == "bernoulli" else objective.stiffness
    np.testing.assert_allclose(condition.axis, axis, atol=1e-8)
    expected = np.sqrt(values[site, -1] / curvature) * axis
    np.testing.assert_allclose(condition.direction * frame.scale, expected, atol=1e-8)


@pytest.mark.parametrize("threshold", [0, 128])
def test_only_eligible_sites_split_but_all_bound_the_top(threshold, rng, monkeypatch):
    monkeypatch.setattr(module, "_MAX_DENSE_DIM", threshold)
    case = random_case("gaussian", rng)
    tops = np.linalg.eigvalsh(whitened(*case))[:, -1]
    order = np.argsort(-tops)
    condition, _ = found(*case, may_split=np.arange(3) != order[0])
    assert (condition.top, condition.eigenvalue) == pytest.approx(tuple(tops[order[:2]]), rel=1e-10)
    assert condition.site == order[1]
    nothing, _ = found(*case, may_split=np.zeros(3, dtype=bool))
    assert nothing.top == pytest.approx(tops.max(), rel=1e-10)
    assert nothing.eigenvalue == 0


@pytest.mark.parametrize("threshold", [0, 128])
def test_a_dead_site_has_no_covariance(threshold, rng, monkeypatch):
    monkeypatch.setattr(module, "_MAX_DENSE_DIM", threshold)
    x, weights, psi, masses, objective = random_case("gaussian", rng)
    expected, _ = found(x, weights, psi, masses, objective)
    with np.errstate(divide="ignore"):
        dead, _ = found(x, weights, np.vstack([[[50.0] * 3], psi]), np.append(0.0, masses), objective)
    assert dead.eigenvalue == pytest.approx(expected.eigenvalue, rel=1e-10)
    assert dead.site == expected.site + 1


class Other(cv.ELBO):
    """The same energy, of which nobody says that it is a Bregman divergence."""

    def curvature(self, psi):
        return None


def test_the_condition_of_any_energy_is_that_of_a_bregman_one(rng):
    """A^-1 B is lambda grad^2 f Cov where the energy is a Bregman divergence, though nobody said so."""
    x, weights, psi, masses, _ = random_case("gaussian", rng)
    known, _ = found(x, weights, psi, masses, cv.ELBO())
    general, _ = found(x, weights, psi, masses, Other())
    # Curvatures are differences of fourth order, good to 1e-12.
    assert general.top == pytest.approx(known.top, rel=1e-9)
    assert general.site == known.site
    np.testing.assert_allclose(general.direction, known.direction, atol=1e-9)
    assert np.linalg.norm(general.axis) == pytest.approx(1)


@pytest.mark.parametrize(("entries", "groups"), [(9, [1, 1, 1]), (18, [2, 1]), (27, [3])])
def test_matrices_of_any_energy_are_of_living_sites_and_of_a_few_at_a_time(entries, groups, rng, monkeypatch):
    """A site without mass has none; three dimensions and three statistics make nine entries each."""
    x, weights, psi, masses, _ = random_case("gaussian", rng)
    expected, _ = found(x, weights, psi, masses, Other())
    sizes, roots = [], module.roots
    monkeypatch.setattr(
        module, "roots", lambda energy, mass, *rest: sizes.append(len(mass)) or roots(energy, mass, *rest)
    )
    monkeypatch.setattr(module, "_COVARIANCE_ENTRIES", entries)
    with np.errstate(divide="ignore"):
        dead, _ = found(x, weights, np.vstack([[[50.0] * 3], psi]), np.append(0.0, masses), Other())
    assert sizes == groups
    assert dead.top == pytest.approx(expected.top, rel=1e-10)
    assert dead.site == expected.site + 1


@pytest.mark.parametrize("threshold", [0, 128])
def test_no_site_is_asked_about(threshold, rng, monkeypatch):
    monkeypatch.setattr(module, "_MAX_DENSE_DIM", threshold)
    x, weights, psi, masses, objective = random_case("gaussian", rng)
    problem = Problem.make(x, objective, weights, "reference")
    nothing = split_condition(problem, psi, np.log(masses), np.zeros(3, dtype=bool), others=False)
    assert (nothing.top, nothing.eigenvalue, nothing.site, nothing.of_all) == (0.0, 0.0, 0, False)
    np.testing.assert_array_equal(nothing.direction, np.zeros(3))


def test_sites_of_one_point_each_split_nowhere_however_steep_their_energy_is(rng):
    """Lanczos would have the eigenvalues of the rounding, which is eps times lambda times squared distances."""
    x = rng.normal(size=(2, 200))
    problem = Problem.make(x, cv.ELBO(1.0, 1e-14), None, "reference")
    condition = split_condition(problem, problem.data.frame.inward(x), np.log([0.5, 0.5]))
    assert condition.top == 0


KNOWN = [
    datasets.two_points(1.5),
    datasets.two_points(2.0, weight=0.2, dim=3),
    datasets.simplex(4, scale=2.0),
    datasets.four_clusters(),
    datasets.gaussian((0.5, 4.0, 2.0), n=50),
    datasets.exponential(),
]


@pytest.mark.parametrize("data", KNOWN, ids=repr)
@pytest.mark.parametrize("sigma", [1.0, 0.3])
def test_first_critical_beta_of_known_sets(data, sigma):
    beta = cv.first_critical_beta(data.x, cv.ELBO(beta=7.0, sigma=sigma), weights=data.weights)
    assert beta == pytest.approx(data.critical_beta / sigma**2, rel=1e-12)


def test_first_critical_beta_of_digits():
    x = datasets.digits().x
    expected = np.linalg.eigvalsh(np.cov(x.T, ddof=0))[-1]
    assert cv.first_critical_beta(x) == pytest.approx(expected, rel=1e-12)
    assert cv.first_critical_beta(x.astype(np.float32)) == pytest.approx(expected, rel=1e-12)  # sixteenths are exact


def correlation_top(x):
    """Top eigenvalue of the correlation matrix of the columns that vary."""
    return np.linalg.eigvalsh(np.corrcoef(x[:, np.ptp(x, axis=0) > 0].T))[-1]


def test_first_critical_beta_of_binarised_digits():
    """The top eigenvalue of the correlation matrix; pixels that never change drop out, and sigma plays no part."""
    x = np.round(datasets.digits(300).x)
    assert np.ptp(x, axis=0).min() == 0
    for sigma in (1.0, 5.0):
        beta = cv.first_critical_beta(x, cv.ELBO(sigma=sigma, likelihood="bernoulli"))
        assert beta == pytest.approx(correlation_top(x), rel=1e-10)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_coordinate_plays_no_part(value):
    """Whatever the rounding of its mean, which need not be exactly 1."""
    betas = [
        cv.first_critical_beta(
            np.column_stack([np.arange(n) % 2, np.full(n, value)]).astype(float), cv.ELBO(likelihood="bernoulli")
        )
        for n in range(2, 40)
    ]
    np.testing.assert_allclose(betas, 1, rtol=1e-7)


def test_grey_values_split_below_beta_one():
    """Data strictly between 0 and 1 vary less than their Bernoulli variables would: no bound of 1."""
    x = np.array([[0.4], [0.6]])
    beta = cv.first_critical_beta(x, cv.ELBO(likelihood="bernoulli"))
    assert beta == pytest.approx(0.01 / 0.25, rel=1e-12)


def solved(beta, n_tiles, seed=0, **options):
    x = np.random.default_rng(seed).normal(size=(25, 2)) * [2.0, 1.0]
    return cv.solve(x, beta=beta, n_tiles=n_tiles, tol=1e-12, **options)


@pytest.mark.parametrize("beta", [6.0, 2.5, 1.0, 0.5])
@pytest.mark.parametrize("n_tiles", [2, 4, 6])
def test_the_jacobian_of_a_solution_is_bounded_by_the_split_condition(beta, n_tiles):
    """Always lambda_max(J) <= top (T9); below 1 at a minimum (T8)."""
    s = solved(beta, n_tiles)
    assert s.converged
    eigenvalues = np.linalg.eigvals(naive_jacobian(s.x, s.weights, s.decoder, s.tiling.masses, s.objective.multiplier))
    np.testing.assert_allclose(eigenvalues.imag, 0, atol=1e-8)  # symmetric in the metric (T8)
    assert eigenvalues.real.min() >= -1e-8  # and positive semi-definite
    top = eigenvalues.real.max()
    assert top <= s.split_condition + 1e-8
    assert top < 1
    if (np.bincount(s.distinct.index) > 1).all():  # the top is attained, and is the whole test
        assert top == pytest.approx(s.split_condition, abs=1e-8)
        assert s.split_condition < 1
    naive = naive_expectations(s.x, s.weights, s.decoder, s.tiling.masses, s.beta)
    covariances = site_covariances(s.x, s.weights, naive.encoder)
    assert s.split_condition == pytest.approx(np.linalg.eigvalsh(covariances).max() / s.beta, rel=1e-8)


@pytest.mark.parametrize("masses", [[0.25] * 4, [0.1, 0.3, 0.2, 0.4]])
def test_the_spectrum_holds_the_split_modes_of_every_site(masses):
    """That of the merged sites, and 2 lambda eig(Cov_a) once for every tile beyond the first (T9); tiles any way."""
    two = solved(2.0, 2)
    assert len(two.distinct) == 2
    centres, lam = two.decoder, two.objective.multiplier
    merged, index = np.array([sum(masses[:3]), masses[3]]), [0, 0, 0, 1]
    s = cv.solve(two.x, beta=2.0, tiling=cv.Tiling(merged), start=centres, tol=1e-12)
    q = naive_expectations(s.x, s.weights, s.decoder, merged, 2.0).encoder
    covariance = site_covariances(s.x, s.weights, q)[0]
    sites = np.linalg.eigvals(naive_jacobian(s.x, s.weights, s.decoder, merged, lam)).real
    tiles = np.linalg.eigvals(naive_jacobian(s.x, s.weights, s.decoder[index], masses, lam)).real
    expected = np.concatenate([sites, np.repeat(2 * lam * np.linalg.eigvalsh(covariance), 2)])
    # Degenerate eigenvalues are good to the square root of the error of s.
    np.testing.assert_allclose(np.sort(tiles), np.sort(expected), atol=1e-7)


@pytest.mark.parametrize("dim", [3, 200])
def test_points_without_spread_split_nowhere(dim):
    assert cv.first_critical_beta(np.full((5, dim), 0.7)) == pytest.approx(0, abs=1e-12)
    s = cv.solve(np.arange(float(dim))[None], beta=0.5)
    assert s.converged
    assert s.split_condition == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_nearest_split_of_a_solution(masses):
    """At a transition it is that transition; it is where the tiles of four clusters will next part."""
    x = cv.datasets.four_clusters(seed=0).x
    for t in cv.transitions(x, beta_range=(0.2, 12), n_tiles=16, masses=masses):
        found = cv.nearest_split(t.before)
        assert found.beta == pytest.approx(t.beta, rel=1e-8)
        assert found.eigenvalue == pytest.approx(1, rel=1e-8)
        assert found.reconstruction == t.reconstruction
        assert abs(found.direction @ t.direction) == pytest.approx(1)


def test_nearest_split_of_single_tiles_and_of_no_solution():
    """Where no reconstruction has a second tile, of them all."""
    s = cv.solve([[-3.0], [-2.0], [2.0], [3.0]], beta=0.5, n_tiles=2)
    assert cv.nearest_split(s).beta == pytest.approx(0.25, rel=1e-3)
    with pytest.raises(ValueError, match="solution must be an instance of FixedPoint"):
        cv.nearest_split(s.decoder)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_the_sign_of_an_axis_is_that_of_its_largest_component():
    assert module._sign(np.array([1.0, -3.0])) == -1.0
    assert module._sign(np.array([3.0, -1.0])) == 1.0


def test_a_site_at_the_critical_temperature_has_the_direction_of_one_standard_deviation():
    """lambda grad^2 f is 1 there, in the frame; two points at -1 and 1 have the covariance 1."""
    condition, _ = found(np.array([[-1.0], [1.0]]), None, np.zeros((1, 1)), np.ones(1), cv.ELBO(1.0, 1.0))
    assert condition.eigenvalue == pytest.approx(1.0)
    assert condition.direction == pytest.approx([1.0])
    assert condition.deviation == pytest.approx([1.0])


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_few_matrices_are_decomposed_and_the_largest_are_among_them(unit):
    """A sphere has a larger bound than an axis that is a little longer."""
    matrices = unit * 0.01 * np.array([np.eye(3)] * 200)
    matrices[50] = unit * 0.95 * np.eye(3)
    matrices[70] = unit * np.outer([0.0, 1.0, 0.0], [0.0, 1.0, 0.0])
    eligible = np.ones(200, dtype=bool)
    assert matrices.size > module._BATCHED_ENTRIES
    for among, largest in ((eligible, 70), (eligible & (np.arange(200) != 70), 50)):
        top, axes = np.zeros(200), np.zeros((200, 3))
        module._decompose(matrices, np.arange(200), among, top, axes)
        assert top[70] == pytest.approx(unit)
        assert np.where(among, top, 0.0).argmax() == largest
        assert top[largest] == pytest.approx(np.linalg.eigvalsh(matrices[largest])[-1])
        assert np.count_nonzero(top) <= 3
    np.testing.assert_allclose(np.abs(axes[70]), [0.0, 1.0, 0.0])


def test_an_eligible_site_has_its_eigenvalue_beside_a_larger_one_that_is_not():
    matrices = 0.01 * np.array([np.eye(3)] * 200)
    matrices[10], matrices[20] = np.diag([0.0, 0.0, 9.0]), np.diag([0.0, 2.0, 0.0])
    eligible, top, axes = np.arange(200) == 20, np.zeros(200), np.zeros((200, 3))
    module._decompose(matrices, np.arange(200), eligible, top, axes)
    assert top[[10, 20]] == pytest.approx([9.0, 2.0])
    np.testing.assert_allclose(np.abs(axes[20]), [0.0, 1.0, 0.0])


def test_axes_of_all_sites_are_known_in_few_dimensions_only(rng, monkeypatch):
    problem = Problem.make(rng.normal(size=(9, 3)), cv.ELBO(), None, "reference")
    assert module.has_axes(problem)
    monkeypatch.setattr(module, "_MAX_DENSE_DIM", 2)
    assert not module.has_axes(problem)
