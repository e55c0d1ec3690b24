"""Rows that repeat are one row with the sum of their weights; what is asked per row is given for every row."""

import numba
import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

import constrained_vae as cv
from constrained_vae._utils import memory
from constrained_vae.data import repeats
from constrained_vae.data.repeats import merged
from constrained_vae.data.rows import RowBlocks, Rows
from constrained_vae.problems.problem import Problem
from constrained_vae.spectral import compare_spectral

EPS = np.finfo(float).eps


def naive(x, weights):
    """Distinct rows in the order of their first appearance, from a dictionary."""
    total = {}
    for row, weight in zip(x.tolist(), weights.tolist(), strict=True):
        total[tuple(row)] = total.get(tuple(row), 0.0) + weight
    return np.array(list(total)), np.array(list(total.values()))


def table(n=240, dim=2, kinds=12):
    """Rows of counts, of which most repeat, in random order, with their distinct rows and the weights of these."""
    rng = np.random.default_rng(3)
    x = rng.permutation(rng.poisson(1.5, size=(kinds, dim)).astype(float)[rng.integers(kinds, size=n)])
    return x, *naive(x, np.full(n, 1 / n))


@pytest.fixture
def never_merged(monkeypatch):
    """Call it to have every row computed with."""
    return lambda: monkeypatch.setattr(Rows, "distinct", lambda rows: rows)


# --- the rows ---------------------------------------------------------------------------------------------------------

tables = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 40), st.integers(1, 3)),
    elements=st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 3e-300]),
)


@given(x=tables, data=st.data())
def test_the_distinct_rows_and_their_weights(x, data):
    weights = data.draw(hnp.arrays(np.float64, len(x), elements=st.floats(0, 1)))
    rows, total = naive(x, weights)
    found = merged(x, weights)
    if found is None:  # the hashes of 16 N buckets meet now and then, so that the share is not exact
        assert len(rows) > 0.6 * len(x)
        return
    assert len(rows) < len(x)
    np.testing.assert_array_equal(found[0], rows)
    np.testing.assert_allclose(found[1], total, rtol=0, atol=4 * len(x) * EPS)  # sums in another order


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_layout(dtype, order):
    x, rows, weights = table()
    found = merged(np.array(x, dtype, order=order), np.full(len(x), 1 / len(x)))
    assert found[0].dtype == dtype
    np.testing.assert_array_equal(found[0], rows)
    np.testing.assert_allclose(found[1], weights, rtol=1e-13)


def test_few_repeats_are_left():
    x = np.random.default_rng(0).normal(size=(1000, 3))
    x[1] = x[0]
    assert merged(x, np.full(1000, 1e-3)) is None
    problem = Problem.make(x, None, None, "reference")
    assert problem.data.rows.distinct() is problem.data.rows


def test_a_million_equal_weights_are_summed_accurately():
    """One addition after the other would lose 1e-11."""
    total = merged(np.zeros((10**6, 1)), np.full(10**6, 1e-6))[1]
    assert abs(total[0] - 1) < 64 * EPS


def test_rows_that_only_share_a_hash_stay_apart(monkeypatch):
    monkeypatch.setattr(repeats, "_hashes", lambda x: np.zeros(len(x), np.uint64))
    assert merged(np.arange(8.0)[:, None], np.full(8, 0.125)) is None


def test_round_numbers_have_different_hashes():
    """The low bits of small integers are zero, in float64 and of their sums."""
    x = np.stack(np.meshgrid(*[np.arange(16.0)] * 4), axis=-1).reshape(-1, 4)
    assert len(np.unique(repeats._hashes(x))) == len(x)
    assert len(np.unique(repeats._hashes(np.eye(500)))) == 500


def test_memory_maps_and_row_blocks_are_left(tmp_path):
    x = table()[0]
    np.save(tmp_path / "x.npy", x)
    for source in (np.load(tmp_path / "x.npy", mmap_mode="r"), RowBlocks([x])):
        rows = Problem.make(source, None, None, "reference").data.rows
        assert rows.distinct() is rows


# --- the passes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_a_pass_has_the_distinct_rows(likelihood, backend):
    x, rows, weights = table()
    x, rows = x / x.max(), rows / x.max()
    problem = Problem.make(x, cv.ELBO(likelihood=likelihood), None, backend)
    ((block,),) = [tuple(problem.data.blocks())]
    assert len(problem.data) == len(x)
    assert len(block.rho) == len(rows)
    assert block.rows is None
    whole = problem.data.whole()
    np.testing.assert_allclose(problem.data.frame.outward(whole.x), rows, atol=1e-14)
    np.testing.assert_allclose(whole.rho, weights, rtol=1e-13)


def test_labels_tell_equal_rows_apart():
    x = np.array([[0.0], [0.0], [1.0], [1.0]])
    features = cv.ClassProbabilities([[-1.0], [1.0]], [0.0, 0.0])
    objective = cv.Lagrangian([cv.CLA(0.9, features, labels=[0, 1, 1, 1]), cv.RE(1.0)], [1.0, 1.0])
    (block,) = Problem.make(x, objective, None, "reference").data.blocks()
    assert len(block.rho) == 4
    assert block.rows == slice(0, 4)


def test_the_data_that_are_there_when_a_certificate_is_asked_for():
    """`x` is the array of the caller, not a copy."""
    x = np.repeat([[-1.0], [1.0]], 10, axis=0)
    solution = cv.solve(x, beta=0.5, n_tiles=2)
    assert cv.certify(solution).gap < 1e-7
    x *= 2
    assert cv.certify(solution).gap > 0.1


# --- all entry points -------------------------------------------------------------------------------------------------


def both(never_merged, call):
    """What a call gives with and without merged rows."""
    found = call()
    never_merged()
    return found, call()


def assert_same_solution(one, other, x, tol=1e-8):
    """Free energy and rate to the square of the tolerance of the solver, reconstructions to this; arrays per row."""
    assert one.encoder.shape == other.encoder.shape
    assert len(one.labels) == len(one.weights) == len(x)
    assert one.x is x or np.array_equal(one.x, x)
    assert one.free_energy == pytest.approx(other.free_energy, rel=1e-12)
    assert one.rate == pytest.approx(other.rate, rel=tol)
    np.testing.assert_allclose(one.decoder, other.decoder, rtol=0, atol=tol)
    np.testing.assert_allclose(one.encoder, other.encoder, rtol=0, atol=tol)
    assert (one.labels == other.labels).all()
    assert len(np.concatenate(list(one.encoder_blocks()))) == len(x)


@pytest.mark.parametrize("masses", ["fixed", "free"])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_solve(never_merged, likelihood, masses, backend):
    x = table()[0]
    x = x / x.max() if likelihood == "bernoulli" else x
    objective = cv.ELBO(0.4, likelihood=likelihood)
    one, other = both(
        never_merged, lambda: cv.solve(x, objective, n_tiles=8, masses=masses, backend=backend, start="data")
    )
    assert_same_solution(one, other, x)
    assert one.recomputed_free_energy() == pytest.approx(one.free_energy, rel=1e-13)


def test_solve_agrees_with_weights():
    x, rows, weights = table()
    one, other = (cv.solve(data, beta=0.4, n_tiles=8, weights=rho) for data, rho in ((x, None), (rows, weights)))
    assert one.free_energy == pytest.approx(other.free_energy, rel=1e-12)
    np.testing.assert_allclose(one.decoder, other.decoder, rtol=0, atol=1e-8)


def test_float32(never_merged):
    x = table()[0]
    one, other = both(never_merged, lambda: cv.solve(x, beta=0.4, n_tiles=8, dtype=np.float32))
    np.testing.assert_allclose(one.decoder, other.decoder, rtol=0, atol=1e-4)  # 1e-5 of the radius, twice


def test_given_weights_of_rows_that_repeat(never_merged):
    x = table()[0]
    weights = np.random.default_rng(0).exponential(size=len(x))
    weights[:40] = 0
    one, other = both(never_merged, lambda: cv.solve(x, beta=0.4, n_tiles=8, weights=weights))
    assert_same_solution(one, other, x)


def test_sweep_and_transitions():
    x, rows, weights = table()
    np.testing.assert_allclose(cv.default_betas(x), cv.default_betas(rows, weights=weights), rtol=1e-9)
    one, other = (
        cv.sweep(data, n_tiles=4, betas=[2.0, 0.7, 0.3], weights=rho) for data, rho in ((x, None), (rows, weights))
    )
    for a, b in zip(one, other, strict=True):
        assert a.free_energy == pytest.approx(b.free_energy, rel=1e-12)
        assert len(a.labels) == len(x)
    first, second = (
        cv.transitions(data, n_tiles=3, limit=2, weights=rho) for data, rho in ((x, None), (rows, weights))
    )
    assert [t.kind for t in first] == [t.kind for t in second]
    np.testing.assert_allclose([t.beta for t in first], [t.beta for t in second], rtol=1e-8)


def test_frontier():
    x, rows, weights = table()
    one, other = (cv.rate_distortion(data, [1.0, 0.3], weights=rho) for data, rho in ((x, None), (rows, weights)))
    for name in ("rate", "distortion", "ends"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=1e-9)
    np.testing.assert_allclose(one.signature, other.signature, rtol=0, atol=1e-12)
    solution = cv.global_solution(x, beta=0.3)
    assert solution.certificate.gap < 1e-6
    assert solution.encoder.shape == (len(x), len(solution.decoder))
    assert cv.nucleation_beta(x) == pytest.approx(cv.nucleation_beta(rows, weights=weights), rel=1e-11)


def test_certify(never_merged):
    solution = cv.solve(table()[0], beta=0.4, n_tiles=8)
    one, other = both(never_merged, lambda: cv.certify(solution))
    assert one.upper == other.upper
    assert one.lower == pytest.approx(other.lower, abs=1e-8)


def test_ones_and_zeros():
    """Of 5000 rows two are distinct, and the curve ends at the entropy of a coin with p = 1 / 5000."""
    x = np.zeros((5000, 1))
    x[17] = 1
    curve = cv.rate_distortion(x, [1e-3, 1e-5])
    p = np.array([1 / 5000, 1 - 1 / 5000])
    np.testing.assert_allclose(curve.ends, [[p[0] * p[1], 0], [0, -p @ np.log(p)]], rtol=1e-12, atol=1e-15)


def test_estimator(never_merged):
    x = table()[0]
    one, other = both(never_merged, lambda: cv.FixedPointVAE(beta=0.4, n_tiles=8).fit(x))
    np.testing.assert_allclose(one.cluster_centers_, other.cluster_centers_, rtol=0, atol=1e-8)
    assert len(one.labels_) == len(x)
    assert (one.labels_ == other.labels_).all()
    assert one.score(x) == pytest.approx(other.score(x), rel=1e-11)


def test_spectral(never_merged):
    x = table(n=60)[0]
    one, other = both(never_merged, lambda: compare_spectral(cv.solve(x, beta=0.4, n_tiles=8)))
    for name in one.partitions:
        assert len(one.partitions[name]) == len(x)
        assert (one.partitions[name] == other.partitions[name]).all()


@pytest.mark.parametrize("agree", [True, False])
def test_constraints_with_labels(never_merged, agree):
    """Labels of equal rows may differ: every row counts with its own."""
    x = table(n=60, kinds=6)[0]
    labels = (x[:, 0] > 1).astype(int)
    if not agree:
        labels[::5] = 1 - labels[::5]
    features = cv.ClassProbabilities([[-1.0, 0.0], [1.0, 0.0]], [1.5, -1.5])
    constraint = cv.CLA(0.55, features, labels=labels)
    one, other = both(never_merged, lambda: cv.solve_constrained(x, [constraint, cv.RE(1.0)], n_tiles=4))
    assert one.multipliers == pytest.approx(other.multipliers, rel=1e-6)
    assert one.encoder.shape == other.encoder.shape
    np.testing.assert_allclose(one.encoder, other.encoder, rtol=0, atol=1e-6)


def test_a_saved_solution_has_every_row(tmp_path):
    x = table()[0]
    solution = cv.solve(x, beta=0.4, n_tiles=8)
    solution.save(tmp_path / "s.npz")
    loaded = cv.FixedPoint.load(tmp_path / "s.npz")
    assert np.array_equal(loaded.x, x)
    assert np.array_equal(loaded.encoder, solution.encoder)


# --- the same bits ----------------------------------------------------------------------------------------------------


def test_the_bits_are_those_of_every_run_on_any_number_of_threads():
    x = table(n=20_000, kinds=3000, dim=8)[0]
    found = []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS), 1):
        numba.set_num_threads(threads)
        found.append(cv.solve(x, beta=1.0, n_tiles=32, max_maps=5, on_failure="return"))
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    for other in found[1:]:
        assert np.array_equal(found[0].decoder, other.decoder)
        assert found[0].free_energy == other.free_energy


def test_hashing_in_blocks_changes_nothing(monkeypatch):
    x = table()[0]
    weights = np.random.default_rng(0).dirichlet(np.ones(len(x)))
    one = merged(x, weights)
    monkeypatch.setattr(repeats, "_HASHED", 14)
    monkeypatch.setattr(memory, "BLOCK", 6)
    other = merged(x, weights)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
