"""The posterior-overlap walk against naive loops, spectral clustering on plateaus, and the law of the first split."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.cluster import SpectralClustering
from sklearn.decomposition import KernelPCA
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

import constrained_vae as cv
from constrained_vae import spectral
from constrained_vae._utils import memory
from constrained_vae.spectral import comparison
from constrained_vae.testing.strategies import EPS, small_problems


def naive_walk(q, rho):
    """P as it is written (T18), by loops."""
    mass = rho @ q
    P = np.zeros((len(q), len(q)))
    for i in range(len(q)):
        for j in range(len(q)):
            for a in range(q.shape[1]):
                if mass[a] > 0:
                    P[i, j] += q[i, a] * rho[j] * q[j, a] / mass[a]
    return P


def solved(problem, **options):
    """A solution, converged or not; the walk is one at any point."""
    tiling = cv.Tiling(problem.masses)
    options = {"start": problem.start, "max_maps": 300, "on_failure": "return", **options}
    return cv.solve(problem.x, beta=problem.beta, tiling=tiling, weights=problem.weights, **options)


@settings(max_examples=60, deadline=None)
@given(small_problems())
def test_the_walk_is_stochastic_reversible_positive_and_has_the_small_spectrum(problem):
    s = solved(problem)
    n, rho = len(problem.x), problem.weights
    rounding = 64 * EPS * (n + len(problem.masses))  # sums over points and tiles of numbers up to 1
    P = spectral.walk(s) @ np.eye(n)
    # Tiles that coincide within the tolerance of a solution are one here, an error of its square.
    np.testing.assert_allclose(P, naive_walk(s.encoder, rho), atol=rounding + 1e-9)
    np.testing.assert_allclose(P.sum(axis=1), 1, atol=rounding)
    joint = rho[:, None] * P
    np.testing.assert_allclose(joint, joint.T, atol=rounding)
    np.testing.assert_allclose(spectral.affinity(s), joint, atol=rounding)
    # The large matrix in its symmetric form, rho^1/2 P rho^-1/2, has the small spectrum and zeros.
    large = np.linalg.eigvalsh(np.sqrt(rho)[:, None] * P / np.sqrt(rho))[::-1]
    small = spectral.spectrum(s)
    assert large.min() >= -rounding
    # It may have more reconstructions than points: then it is the small one that has zeros.
    width = max(len(large), len(small))
    large, small = (np.sort(np.pad(values, (0, width - len(values))))[::-1] for values in (large, small))
    np.testing.assert_allclose(small, large, atol=rounding)
    assert small[0] == pytest.approx(1, abs=rounding)
    # w^T q has it too, and is stochastic.
    W = spectral.overlap_matrix(s)
    np.testing.assert_allclose(W.sum(axis=1), 1, atol=rounding)
    values = np.sort(np.linalg.eigvals(W).real)[::-1]
    np.testing.assert_allclose(values, small[: len(values)], atol=1e-7)  # of a non-symmetric matrix


@settings(max_examples=30, deadline=None)
@given(small_problems(), st.integers(0, 2**32 - 1))
def test_the_walk_and_its_transpose_are_adjoint(problem, seed):
    P = spectral.walk(solved(problem))
    rng, n = np.random.default_rng(seed), len(problem.x)
    u, v = rng.standard_normal((2, n))
    scale = np.abs(u).sum() * np.abs(v).max()
    assert abs(u @ (P @ v) - (P.T @ u) @ v) <= 16 * EPS * n * scale
    block = rng.standard_normal((n, 3))
    for product in (lambda w: P @ w, lambda w: P.T @ w):
        np.testing.assert_allclose(product(block), np.column_stack([product(c) for c in block.T]), rtol=1e-12)


@pytest.mark.parametrize(
    "data", [cv.datasets.four_clusters(), cv.datasets.moons(80), cv.datasets.digits(150)], ids=repr
)
@pytest.mark.parametrize("relative", [1.1, 0.5, 0.1])
def test_at_a_fixed_point_the_walk_takes_the_data_to_their_expected_reconstructions(data, relative):
    beta = relative * cv.first_critical_beta(data.x)
    s = cv.solve(data.x, beta=beta, n_tiles=16, tol=1e-12, on_failure="return")
    assert s.error_estimate < 1e-10
    np.testing.assert_allclose(spectral.walk(s) @ data.x, s.reconstruct(data.x), atol=1e-10)


def test_two_points_in_closed_form():
    """The eigenvalue that the split has added is m^2 (T18), so that the eigengap counts two below 0.80 beta_c."""
    for beta, k in ((1.2, 1), (0.81, 1), (0.79, 2), (0.3, 2)):
        s = cv.solve([[-1.0], [1.0]], beta=beta, n_tiles=2)
        m2 = float(s.decoder[0, 0]) ** 2
        values = spectral.spectrum(s)
        np.testing.assert_allclose(values, [1, m2][: len(s.distinct)], atol=1e-9)
        assert spectral.eigengap(values) == k
        if beta < 1:
            coordinates = spectral.embedding(s, 2)
            np.testing.assert_allclose(coordinates[:, 0], 1, atol=1e-12)
            np.testing.assert_allclose(np.sort(coordinates[:, 1]), [-1, 1], atol=1e-9)


def test_the_embedding_is_of_eigenvectors(rng):
    data = cv.datasets.moons(90)
    weights = rng.uniform(0.2, 1, len(data))
    s = cv.solve(data.x, beta=0.05, n_tiles=24, weights=weights)
    values, P = spectral.spectrum(s), spectral.walk(s)
    u = spectral.embedding(s, 5)
    np.testing.assert_allclose(P @ u, u * values[:5], atol=1e-12)
    np.testing.assert_allclose(u.T @ (s.weights[:, None] * u), np.eye(5), atol=1e-10)
    assert spectral.embedding(s).shape == (90, spectral.eigengap(values))
    with pytest.raises(ValueError, match="n_components must be at most"):
        spectral.embedding(s, 25)


def test_streaming_changes_nothing(monkeypatch, rng):
    x = rng.normal(size=(300, 3))
    blocks = cv.RowBlocks(lambda: iter(np.array_split(x, 7)))
    whole = cv.solve(x, beta=0.3, n_tiles=8)
    streamed = cv.solve(blocks, beta=0.3, n_tiles=8)
    v, expected = rng.normal(size=(300, 2)), spectral.walk(whole)
    monkeypatch.setattr(memory, "KEPT", 0)
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 64)
    np.testing.assert_allclose(spectral.walk(whole) @ v, expected @ v, atol=1e-13)
    np.testing.assert_allclose(spectral.walk(whole).T @ v, expected.T @ v, atol=1e-13)
    np.testing.assert_allclose(spectral.walk(streamed) @ v, expected @ v, atol=1e-8)
    np.testing.assert_allclose(spectral.spectrum(streamed), spectral.spectrum(whole), atol=1e-8)


def test_the_affinity_of_many_points_is_refused():
    s = cv.solve(np.random.default_rng(0).normal(size=(12_000, 1)), beta=2.0, n_tiles=2)
    with pytest.raises(cv.TooLargeError, match=r"12000 x 12000 entries \(1\.1 GiB\): take spectrum"):
        spectral.affinity(s)
    assert spectral.spectrum(s).shape == (1,)


# --- four clusters ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def branch():
    data = cv.datasets.four_clusters()
    return cv.sweep(data.x, betas=np.geomspace(0.16, 11, 36), n_tiles=16)


@pytest.fixture(scope="module")
def compared(branch):
    return cv.compare_spectral(branch, labels=cv.datasets.four_clusters().labels)


def test_on_every_plateau_the_partition_is_that_of_spectral_clustering(branch, compared):
    assert set(compared.n_distinct) == {1, 2, 3, 4}
    np.testing.assert_array_equal(compared.n_clusters, branch.n_distinct)
    for scores in (compared.ari, compared.ami):
        assert set(scores) == {"posterior", "rbf"}
        np.testing.assert_allclose(scores["posterior"], 1, atol=1e-12)
    # Two pairs of classes are one part each, then one is, then none.
    truth = {1: 0.0, 2: adjusted_rand_score([0, 0, 1, 1] * 50, [0, 1, 2, 3] * 50), 4: 1.0}
    for k, expected in truth.items():
        np.testing.assert_allclose(compared.true_ari["solution"][branch.n_distinct == k], expected, atol=1e-12)


def test_the_eigengap_counts_the_clusters_below_seven_tenths_of_each_transition(branch, compared):
    opened = {t.n_after: t.beta for t in cv.transitions(cv.datasets.four_clusters().x, n_tiles=16)}
    assert set(opened) == {2, 3, 4}
    late = np.array(
        [beta < 0.7 * opened.get(k, np.inf) for beta, k in zip(branch.betas, branch.n_distinct, strict=True)]
    )
    assert late.sum() > 20
    np.testing.assert_array_equal(compared.eigengap_k[late], branch.n_distinct[late])
    # Nearer to the transition it is one too low, as the new eigenvalue has to pass a half.
    early = ~late & (branch.n_distinct > 1)
    wrong = compared.eigengap_k != branch.n_distinct
    assert wrong[early].any()
    np.testing.assert_array_equal(compared.eigengap_k[wrong], branch.n_distinct[wrong] - 1)
    assert compared.eigenvalues.shape == (36, 4)
    np.testing.assert_array_equal(compared.eigenvalues[wrong, branch.n_distinct[wrong] - 1] < 0.5, True)


def test_a_comparison_says_what_scikit_learn_says():
    data = cv.datasets.moons(100)
    s = cv.solve(data.x, beta=0.05, n_tiles=16)
    r = cv.compare_spectral(s, 3, labels=data.labels)
    lam = 1 / (2 * 0.05)
    gram = np.exp(-lam * np.square(data.x[:, None] - data.x).sum(axis=2))
    P = naive_walk(s.encoder, s.weights)
    assert (r.n_clusters, r.n_distinct) == (3, len(s.distinct))
    for name, kernel in (("posterior", P / 100), ("rbf", gram)):
        expected = SpectralClustering(3, affinity="precomputed", random_state=0).fit_predict(kernel)
        assert adjusted_rand_score(r.partitions[name], expected) == 1
        assert r.ari[name] == pytest.approx(adjusted_rand_score(s.labels, expected), abs=1e-12)
        assert r.ami[name] == pytest.approx(adjusted_mutual_info_score(s.labels, expected), abs=1e-12)
        assert r.true_ari[name] == pytest.approx(adjusted_rand_score(data.labels, expected), abs=1e-12)
        assert r.contingency[name].sum() == 100
        assert r.contingency[name].shape == (len(np.unique(s.labels)), 3)
    for name in ("kmeans", "mixture"):
        assert r.true_ami[name] == pytest.approx(adjusted_mutual_info_score(data.labels, r.partitions[name]))
        assert r.baseline_ari[name] == pytest.approx(adjusted_rand_score(s.labels, r.partitions[name]))
        assert len(np.unique(r.partitions[name])) == 3
    assert r.contingency["truth"].sum(axis=0).tolist() == [50, 50]
    assert r.eigengap_k == spectral.eigengap(spectral.spectrum(s))
    assert "3 clusters" in repr(r)
    assert cv.compare_spectral(s, labels=None).true_ari == {}
    again = cv.compare_spectral(s, 3, ("rbf",))
    assert set(again.ari) == {"rbf"}
    np.testing.assert_array_equal(again.partitions["rbf"], r.partitions["rbf"])


def test_the_kernel_has_the_multiplier_of_the_data_as_given():
    """In the frame of the solver it is another."""
    x = 5 + 3 * cv.datasets.moons(60).x
    for objective in (cv.ELBO(beta=0.4, sigma=2.0), cv.Lagrangian(cv.RE(0.1), 1 / (2 * 4 * 0.4))):
        s = cv.solve(x, objective, n_tiles=8, on_failure="return")
        assert comparison.multiplier(s) == pytest.approx(1 / (2 * 4 * 0.4), rel=1e-12)


def test_bad_input():
    x = np.array([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.5]])
    s = cv.solve(x, beta=0.1, n_tiles=4)
    for function in (spectral.walk, spectral.spectrum, spectral.embedding, spectral.affinity, spectral.overlap_matrix):
        with pytest.raises(ValueError, match="solution must be an instance of FixedPoint"):
            function(x)
    with pytest.raises(ValueError, match="solution must be a FixedPoint or a Branch"):
        cv.compare_spectral(x)
    with pytest.raises(ValueError, match="the branch is empty"):
        cv.compare_spectral(cv.Branch((), "down"))
    with pytest.raises(ValueError, match="n_clusters must be at most 3, the number of points, got 4"):
        cv.compare_spectral(s, 4)
    with pytest.raises(ValueError, match="n_clusters must be a whole number"):
        cv.compare_spectral(s, 0)
    with pytest.raises(ValueError, match=r"affinities must be some of .*, got \('nearest',\)"):
        cv.compare_spectral(s, affinities=("nearest",))
    with pytest.raises(ValueError, match=r"labels must be 3, one per data point, got shape \(2,\)"):
        cv.compare_spectral(s, labels=[0, 1])
    binary = cv.solve([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], cv.ELBO(beta=0.5, likelihood="bernoulli"))
    with pytest.raises(ValueError, match=r'leave it out, affinities=\("posterior",\)'):
        cv.compare_spectral(binary)
    assert set(cv.compare_spectral(binary, 2, ("posterior",)).ari) == {"posterior"}
    with pytest.raises(ValueError, match="all points of x coincide"):
        cv.first_split(np.ones((4, 2)))


def test_a_solution_that_has_not_converged_is_named():
    x = cv.datasets.moons(40).x
    s = cv.solve(x, beta=0.05, n_tiles=4, max_maps=2, on_failure="return")
    with pytest.warns(cv.NotConvergedWarning, match=r"the solution at beta=0\.05 has not converged, stopped before"):
        cv.compare_spectral(s, 2)


def test_one_cluster_and_as_many_as_there_are_points():
    x = np.arange(5.0)[:, None]
    high = cv.solve(x, beta=10.0, n_tiles=8)
    assert cv.compare_spectral(high).ari == {"posterior": 1.0, "rbf": 1.0}
    low = cv.solve(x, beta=0.01, n_tiles=40, masses="free", start="data")
    assert spectral.eigengap(spectral.spectrum(low)) == 5  # the walk stays where it is
    r = cv.compare_spectral(low)
    assert r.n_clusters == 5
    assert r.ari == {"posterior": 1.0, "rbf": 1.0}
    assert r.true_ari == {}


# --- the first split (T19) --------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(8, 200),
    st.integers(1, 6),
    st.integers(1, 4),
    st.floats(0.3, 3),
    st.booleans(),
)
def test_the_first_split_has_the_signs_of_the_leading_gram_eigenvector(seed, n, dim, parts, spread, weighted):
    """Of random Gaussian mixtures, for every point above 1e-3 of the scale of the coordinate."""
    rng = np.random.default_rng(seed)
    x = 3 * rng.normal(size=(parts, dim))[rng.integers(parts, size=n)] + spread * rng.normal(size=(n, dim))
    weights = rng.uniform(0.2, 1, n) if weighted else np.ones(n)
    rho = weights / weights.sum()
    found = cv.first_split(x, weights=weights)
    # The Gram matrix, whole.
    centred = np.sqrt(rho)[:, None] * (x - rho @ x)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    assert found.beta == pytest.approx(values[-1], rel=1e-9)
    second = values[-2] / values[-1] if dim > 1 else 0.0
    assert found.degeneracy == pytest.approx(second, abs=1e-9)
    if second > 0.99:  # a second axis as good as the first
        return
    expected = vectors[:, -1] / np.sqrt(rho)
    expected *= np.sign(expected @ found.coordinate)
    np.testing.assert_allclose(found.coordinate, expected, atol=1e-6 * np.abs(expected).max())
    clear = np.abs(expected) > 1e-3 * np.sqrt(np.mean(expected**2))
    np.testing.assert_array_equal(found.log_odds[clear] > 0, expected[clear] > 0)
    assert found.agreement == 1
    # Just below the transition the halves lie on the axis, so that all log odds are proportional to the coordinate.
    scale = (found.log_odds @ expected) / (expected @ expected)
    np.testing.assert_allclose(found.log_odds, scale * expected, atol=1e-3 * scale * np.abs(expected).max())


def test_in_feature_space_the_first_split_is_that_of_kernel_pca(rng):
    x = rng.normal(size=(80, 2)) * [1.5, 1.0]
    features = cv.FourierFeatures.random(2, 200, 0.3, seed=1)(x)
    found = cv.first_split(features)
    pca = KernelPCA(1, kernel="precomputed", eigen_solver="dense").fit(features @ features.T)
    component = pca.eigenvectors_[:, 0] * np.sqrt(len(x))
    component *= np.sign(component @ found.coordinate)
    np.testing.assert_allclose(found.coordinate, component, atol=1e-8)
    assert found.beta == pytest.approx(pca.eigenvalues_[0] / len(x), rel=1e-10)
    assert found.agreement == 1
    other = cv.first_split(x).coordinate  # in the space of the data
    assert abs(other @ component) < 0.99 * np.linalg.norm(other) * np.linalg.norm(component)


def test_a_sweep_splits_along_the_same_axis():
    """The branch of many tiles too parts the data by these signs, once its first split has settled."""
    data = cv.datasets.four_clusters()
    found = cv.first_split(data.x)
    labels = cv.sweep(data.x, betas=[5.0], n_tiles=16)[0].labels
    assert abs(adjusted_rand_score(labels, found.coordinate > 0)) == 1
