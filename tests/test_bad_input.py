"""Bad input is refused at the door: the message says what was wanted and what was given."""

import importlib.util
import re

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae import datasets
from constrained_vae._utils import memory
from constrained_vae.backends import BackendNotAvailableError
from constrained_vae.phases.peaks import find_kinks

X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, -1.0]])
FOUR = cv.Tiling.uniform(4)
DOORS = {"solve": cv.solve, "sweep": cv.sweep, "first": cv.first_critical_beta, "betas": cv.default_betas}


def solve(x=X, objective=None, **options):
    return cv.solve(x, objective, **{"tiling": FOUR, **options})


def sweep(x=X, **options):
    return cv.sweep(x, **{"tiling": FOUR, "betas": np.geomspace(8, 1, 6), **options})


def spoilt(value):
    x = X.copy()
    x[1, 0] = value
    return x


DATA = {
    "NaN": (spoilt(np.nan), "x must be finite, got nan at row 1, column 0: drop or impute"),
    "infinity": (spoilt(-np.inf), "x must be finite, got -inf at row 1, column 0"),
    "float32 NaN": (spoilt(np.nan).astype(np.float32), "x must be finite, got nan at row 1"),
    "no rows": (np.empty((0, 2)), "x must hold at least one point of at least one dimension, got shape (0, 2)"),
    "no columns": (np.empty((3, 0)), "at least one dimension, got shape (3, 0)"),
    "1-D": (X[:, 0], "x must have shape (N, D), got shape (3,); for one feature pass x.reshape(-1, 1)"),
    "3-D": (X[None], "x must have shape (N, D), got shape (1, 3, 2); for images pass x.reshape(len(x), -1)"),
    "a number": (3.0, "x must have shape (N, D), got shape ()"),
    "None": (None, "x must be an (N, D) array of real numbers, got None"),
    "text": ([["a", "b"]], "x must be an (N, D) array of real numbers, got texts"),
    "objects": (np.array([[{}, 1.0]], dtype=object), "x must be an (N, D) array of real numbers, got {} at (0, 0)"),
    "ragged": ([[1.0, 2.0], [3.0]], "x must be an (N, D) array of real numbers, got list that is no rectangular array"),
    "a missing entry": ([[1.0, None]], "x must be an (N, D) array of real numbers, got None at (0, 1)"),
    "complex": (X + 1j, "x must be an (N, D) array of real numbers, got complex numbers"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("x", "message"), DATA.values(), ids=DATA)
def test_data(door, x, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DOORS[door](x)


def test_a_bad_entry_is_found_in_any_block(monkeypatch):
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 2)  # one row at a time
    with pytest.raises(ValueError, match="got nan at row 1, column 0"):
        solve(spoilt(np.nan))


WEIGHTS = {
    "negative": ([1.0, 2.0, -1.0], "weights must be non-negative with a positive sum, got a negative entry"),
    "all zero": ([0.0, 0.0, 0.0], "weights must be non-negative with a positive sum"),
    "too few": ([0.5, 0.5], "weights must have one entry per data point, got 2 for 3 points"),
    "2-D": (np.ones((3, 1)), "weights must have shape (n,), not empty, got shape (3, 1)"),
    "NaN": ([1.0, np.nan, 1.0], "weights must be finite, got nan at 1"),
    "text": ("uniform", "weights must be a vector of numbers, got 'uniform'"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("weights", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights(door, weights, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DOORS[door](X, weights=weights)


@pytest.mark.parametrize("size", [1e-323, 8e307])  # the sum of the latter is too large for a float
def test_weights_of_any_size_are_normalised(size):
    np.testing.assert_allclose(solve(weights=np.array([1, 2, 1]) * size).weights, [0.25, 0.5, 0.25], rtol=1e-15)


TILINGS = {
    "no tiles": (lambda: cv.Tiling.uniform(0), "n_tiles must be a whole number of at least 1, got 0"),
    "half a tile": (lambda: cv.Tiling.uniform(1.5), "must be a whole number of at least 1, got 1.5"),
    "a flag": (lambda: cv.Tiling.uniform(True), "must be a whole number of at least 1, got True"),
    "no dimension": (lambda: cv.Tiling.gaussian(4, dim=0), "dim must be a whole number of at least 1, got 0"),
    "wrong sum": (lambda: cv.Tiling([0.5, 0.6]), "masses must be non-negative and sum to 1, got sum 1.1"),
    "negative": (lambda: cv.Tiling([1.5, -0.5]), "got sum 1 and least entry -0.5: divide them by their sum"),
    "empty": (lambda: cv.Tiling([]), "masses must have shape (n,), not empty, got shape (0,)"),
    "NaN": (lambda: cv.Tiling([np.nan, 1.0]), "masses must be finite, got nan at 0"),
    "text": (lambda: cv.Tiling("ab"), "masses must be a vector of numbers, got 'ab'"),
    "positions": (
        lambda: cv.Tiling([0.5, 0.5], np.zeros((3, 1))),
        "positions must have shape (2, n), not empty, got shape (3, 1)",
    ),
}
OBJECTIVES = {
    "beta zero": (lambda: cv.ELBO(beta=0.0), "beta must be positive and finite, got 0.0"),
    "beta negative": (lambda: solve(beta=-1), "beta must be positive and finite, got -1"),
    "beta NaN": (lambda: cv.ELBO(beta=np.nan), "beta must be positive and finite, got nan"),
    "beta infinite": (lambda: cv.ELBO().at(np.inf), "beta must be positive and finite, got inf"),
    "beta text": (lambda: cv.ELBO(beta="hot"), "beta must be positive and finite, got 'hot'"),
    "sigma zero": (lambda: cv.ELBO(sigma=0), "sigma must be positive and finite, got 0"),
    "sigma negative": (lambda: cv.ELBO(sigma=-1.0), "sigma must be positive and finite, got -1.0"),
    "overflow": (lambda: cv.ELBO(beta=1e308, sigma=1e20), "sigma^2 beta must be a representable positive number"),
    "underflow": (lambda: cv.ELBO(beta=1e-300, sigma=1e-10), "got ELBO(beta=1e-300, sigma=1e-10"),
    "likelihood": (lambda: cv.ELBO(likelihood="laplace"), "'poisson', 'categorical'), got 'laplace'"),
    "below 0": (lambda: solve(X, cv.ELBO(likelihood="bernoulli")), "data in [0, 1], got values from -1 to 4"),
    "above 1": (lambda: solve(X + 1, cv.ELBO(likelihood="bernoulli")), "data in [0, 1], got values from 0 to 5"),
    "a number": (lambda: solve(X, 0.5), "objective"),  # where beta= was meant
}
OPTIONS = {
    "masses": (lambda: solve(masses="loose"), "masses must be one of ('fixed', 'free'), got 'loose'"),
    "masses of a sweep": (lambda: sweep(masses="loose"), "masses must be one of ('fixed', 'free'), got 'loose'"),
    "tiling": (lambda: solve(tiling=64), "tiling"),
    "accelerate": (lambda: solve(accelerate="warp"), "accelerate must be one of ('plain', 'squarem'"),
    "on_failure": (lambda: solve(on_failure="cry"), "on_failure must be one of ('warn', 'raise', 'return'), got 'cry'"),
    "on_failure of a sweep": (lambda: sweep(on_failure="cry"), "on_failure must be one of"),
    "direction": (lambda: sweep(direction="left"), "direction must be one of ('down', 'up', 'both'), got 'left'"),
    "backend": (lambda: solve(backend="abacus"), "'numba', 'cupy'), got 'abacus'"),
    "dtype half": (lambda: solve(dtype=np.float16), "dtype must be float64 or float32, got <class 'numpy.float16'>"),
    "dtype integer": (lambda: solve(dtype="int64"), "dtype must be float64 or float32, got 'int64'"),
    "dtype unknown": (lambda: solve(dtype="float12"), "dtype must be float64 or float32, got 'float12'"),
    "tol zero": (
        lambda: solve(tol=0.0),
        "tol must be positive and at most 0.01, since it is relative, got 0.0",
    ),
    "tol negative": (
        lambda: sweep(tol=-1e-9),
        "tol must be positive and at most 0.01, since it is relative, got -1e-09",
    ),
    "max_maps zero": (lambda: solve(max_maps=0), "max_maps must be a whole number of at least 1, got 0"),
    "max_maps fraction": (lambda: solve(max_maps=1e3), "max_maps must be a whole number of at least 1, got 1000.0"),
    "time_limit": (lambda: solve(time_limit=-1.0), "time_limit must be a number of seconds, at least 0, got -1.0"),
    "time_limit text": (lambda: solve(time_limit="soon"), "time_limit must be a number of seconds, at least 0"),
    "start": (lambda: solve(start="cold"), "start must be one of ('data',), got 'cold'"),
    "start tiles": (lambda: solve(start=X), "start must have shape (4, 2), one reconstruction per tile, got (3, 2)"),
    "start columns": (lambda: solve(start=np.zeros((4, 3))), "start must have shape (4, 2)"),
    "start NaN": (lambda: solve(start=np.full((4, 2), np.nan)), "start must be finite, got nan at row 0, column 0"),
    "start of a sweep": (lambda: sweep(start=X), "start must have shape (4, 2)"),
    "start outside": (
        lambda: solve(X / 5 + 0.2, cv.ELBO(likelihood="bernoulli"), start=np.full((4, 2), 1.5)),
        "data in [0, 1], got values from 1.5 to 1.5",
    ),
    "no betas": (lambda: sweep(betas=[]), "betas must have shape (n,), not empty, got shape (0,)"),
    "a beta of zero": (lambda: sweep(betas=[1.0, 0.0]), "beta must be positive and finite, got 0.0"),
    "betas NaN": (lambda: sweep(betas=[1.0, np.nan]), "betas must be finite, got nan at 1"),
    "count": (lambda: cv.default_betas(X, count=1), "count must be a whole number of at least 2, got 1"),
}
RESULTS = {
    "encode columns": (
        lambda: solve().encode(np.zeros((2, 3))),
        "x must have 2 columns like the data solved for, got 3",
    ),
    "encode 1-D": (lambda: solve().encode(X[0]), "x must have shape (N, D), got shape (2,)"),
    "reconstruct NaN": (lambda: solve().reconstruct(spoilt(np.nan)), "x must be finite, got nan at row 1, column 0"),
    "encode outside": (
        lambda: solve(X / 5 + 0.2, cv.ELBO(likelihood="bernoulli")).encode([[0.5, 1.5]]),
        "data in [0, 1], got values from 0.5 to 1.5",
    ),
    "above a branch": (lambda: sweep().at(8.1), "the branch spans beta from 1 to 8, got 8.1: sweep further"),
    "below a branch": (lambda: sweep().at(0.9), "the branch spans beta from 1 to 8, got 0.9"),
    "at zero": (lambda: sweep().at(0.0), "beta must be positive and finite, got 0.0"),
    "few points": (lambda: sweep(betas=[1, 2, 3, 4]).peaks(), "at least five distinct, ascending temperatures, got 4"),
    "no peaks": (lambda: sweep().peaks(k=0), "k must be a whole number of at least 1, got 0"),
    "variable": (lambda: sweep().peaks(variable="T"), "variable must be one of ('beta', 'log_beta'), got 'T'"),
    "descending": (lambda: find_kinks(np.arange(9.0)[::-1], np.zeros(9)), "distinct, ascending temperatures"),
    "save nothing": (lambda: cv.Branch((), "down").save("/nowhere"), "an empty branch has nothing to save"),
}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(*case, id=f"{room}: {name}")
        for room, cases in {
            "tiling": TILINGS,
            "objective": OBJECTIVES,
            "option": OPTIONS,
            "result": RESULTS,
        }.items()
        for name, case in cases.items()
    ],
)
def test_arguments(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_cupy_missing(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "cupy" else find_spec(name))
    with pytest.raises(BackendNotAvailableError, match="CuPy is not installed: pip install"):
        solve(backend="cupy")


def test_an_encoder_too_large_names_the_way_out(monkeypatch):
    s = solve()
    monkeypatch.setattr(memory, "LARGEST", 11)
    for call in (lambda: s.encoder, lambda: s.encode(X)):
        with pytest.raises(cv.TooLargeError, match=r"3 x 4 masses .*call encode on blocks of rows"):
            call()
    assert s.encode(X[:2]).shape == (2, 4)
    assert s.labels.shape == (3,)
    assert s.reconstruct(X).shape == (3, 2)


@pytest.mark.parametrize("start", [None, "data"])
@pytest.mark.parametrize("masses", ["fixed", "free"])
@pytest.mark.parametrize("beta", [0.5, 1e-3])
def test_bernoulli_reconstructions_of_exactly_0_and_1(tmp_path, start, masses, beta):
    """A column that is always 0, one that is always 1, and one that the tiles tell apart exactly."""
    x = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    s = solve(x, cv.ELBO(beta=beta, likelihood="bernoulli"), start=start, masses=masses)
    assert s.converged
    np.testing.assert_allclose(s.decoder[:, :2], [[0.0, 1.0]] * 4, atol=1e-15)
    assert s.decoder.min() >= 0
    assert s.decoder.max() <= 1
    assert np.isfinite([s.free_energy, s.energy, s.distortion, s.residual, s.error_estimate, s.split_condition]).all()
    new = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 1.0]])  # the first is impossible under every tile
    q = s.encode(new)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-14)
    assert np.isfinite(s.reconstruct(new)).all()
    s.save(tmp_path / "s.npz")
    np.testing.assert_array_equal(cv.FixedPoint.load(tmp_path / "s.npz").encode(new), q)


# Thirds and tenths do not sum to their own multiples: the mean of equal points is off by rounding.
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e5 + 0.1])
@pytest.mark.parametrize("n", [1, 3, 10])
def test_all_points_equal(value, n):
    x = np.full((n, 2), value)
    s = solve(x)
    assert s.converged
    np.testing.assert_allclose(s.decoder, value, rtol=1e-15)
    assert (s.rate, s.distortion, len(s.distinct)) == (0, pytest.approx(0, abs=1e-20), 1)
    assert cv.first_critical_beta(x) == pytest.approx(0, abs=1e-20)
    with pytest.raises(ValueError, match="all points of x coincide, so there is no transition to span: give betas="):
        cv.sweep(x)
    branch = sweep(x)
    assert branch.converged
    assert len(branch) == 6
    np.testing.assert_array_equal(branch.n_distinct, 1)


def test_masked_arrays_are_refused():
    """Their masks would be lost."""
    with pytest.raises(ValueError, match="x must not be masked"):
        solve(np.ma.masked_array(X, X > 2))
    with pytest.raises(ValueError, match="weights must not be masked"):
        solve(weights=np.ma.masked_array(np.ones(len(X)), [True, *[False] * (len(X) - 1)]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solve(X, 3, beta=0.5), "objective must be an instance of Objective such as ELBO(beta=0.5), got 3"),
        (lambda: solve(X, cv.ELBO), "objective must be an instance of Objective"),
        (lambda: solve(seed="a"), "seed must be a whole number of at least 0, got 'a'"),
        (lambda: solve(callback=3), "callback must be callable, got 3"),
        (lambda: sweep(callback=3), "callback must be callable, got 3"),
        (
            lambda: solve(masses=np.ones(3)),
            "masses must be one of ('fixed', 'free'), got an array of float64, shape (3,)",
        ),
        (lambda: datasets.DataSet(X * 1j, "complex"), "x must be an (N, D) array of real numbers, got complex numbers"),
    ],
)
def test_arguments_of_the_wrong_kind(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
