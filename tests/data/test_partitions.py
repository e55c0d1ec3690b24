"""Dask arrays as data: the same sums and solutions as in memory, and what cannot be data is told in one line."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import constrained_vae as cv
from constrained_vae._utils import memory
from constrained_vae._utils.lost import LostError
from constrained_vae.backends import numba, reference
from constrained_vae.data import partition_sample, rows as rows_of, runs, sample
from constrained_vae.data.partitions import Here, Partitioned, Partitions
from constrained_vae.data.prepared import PreparedData
from constrained_vae.data.rows import Rows
from constrained_vae.data.tree import Node, grown, root, tree_sum
from constrained_vae.problems.problem import Problem
from tests.helpers.marks import slow

da = pytest.importorskip("dask.array", reason="Dask is not installed: pip install 'constrained-vae[dask]'")
dd = pytest.importorskip("dask.dataframe", reason="Dask is not installed: pip install 'constrained-vae[dask]'")
import dask  # noqa: E402
import pandas as pd  # noqa: E402


@pytest.fixture(autouse=True)
def in_this_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def chunked(x, lengths):
    return da.from_array(x, chunks=(tuple(lengths), x.shape[1]))


# --- the tree ---------------------------------------------------------------------------------------------------------


@given(st.data(), st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60))
def test_whoever_owns_which_terms_the_sum_has_the_same_bits(data, numbers):
    """Any division of the terms among workers: each returns its largest nodes, at most two of a height in each run."""
    owners = data.draw(st.lists(st.integers(0, 3), min_size=len(numbers), max_size=len(numbers)))
    returned = []
    for owner in set(owners):
        own = [Node(n, 0, number) for n, number in enumerate(numbers) if owners[n] == owner]
        returned += grown(own)
    assert root(grown(data.draw(st.permutations(returned)))) == tree_sum(numbers)


@given(st.integers(0, 40), st.integers(1, 60))
def test_a_run_returns_at_most_two_sums_of_each_height(first, length):
    nodes = grown(Node(n, 0, 1.0) for n in range(first, first + length))
    assert sum(node.value for node in nodes) == length
    assert len(nodes) <= 2 * max(1, np.log2(length) + 1)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 6), st.data())
def test_every_block_has_one_owner_and_stays_where_it_is(sizes, count, data):
    workers = [f"w{n}" for n in range(count)]
    found = runs.divided(sizes, [None] * len(sizes), workers)
    assert sorted(n for _, numbers in found for n in numbers) == list(range(len(sizes)))
    assert all(numbers == list(range(numbers[0], numbers[-1] + 1)) for _, numbers in found)
    rows = [sum(sizes[n] for n in numbers) for _, numbers in found]
    assert max(rows) <= sum(sizes) / count + 2 * max(sizes)
    homes = sorted(data.draw(st.lists(st.sampled_from(workers), min_size=len(sizes), max_size=len(sizes))))
    assert all(homes[n] == worker for worker, numbers in runs.divided(sizes, homes, workers) for n in numbers)


# --- the same as in memory --------------------------------------------------------------------------------------------


KINDS = {
    "gaussian": (lambda: cv.ELBO(0.4), lambda x: x),
    "bernoulli": (lambda: cv.ELBO(0.3, likelihood="bernoulli"), lambda x: 1 / (1 + np.exp(-x))),
    "constraints": (lambda: cv.Lagrangian([cv.RE(0.5), cv.RE(1.0, name="other")], [0.5, 0.2]), lambda x: x),
}


@st.composite
def cases(draw, kinds=tuple(KINDS)):
    """Data with a random chunking; chunks of no rows among them."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(lambda found: sum(found) >= 4))
    kind = draw(st.sampled_from(kinds))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = KINDS[kind][1](rng.standard_normal((sum(lengths), draw(st.integers(1, 3)))) * 2)
    weights = rng.dirichlet(np.ones(len(x))) if draw(st.booleans()) else None
    return x, lengths, KINDS[kind][0](), weights


@settings(max_examples=15)
@given(cases(), st.sampled_from([np.float64, np.float32]), st.sampled_from(["reference", "numba"]))
def test_sums_over_random_chunks_are_those_in_memory(case, dtype, backend):
    x, lengths, objective, weights = case
    given = Problem.make(x, objective, weights, backend, dtype)
    found = Problem.make(chunked(x, lengths), objective, weights, backend, dtype)
    assert isinstance(found.data, Partitioned)
    assert np.allclose(found.data.frame.centre, given.data.frame.centre, rtol=0, atol=1e-14)
    assert found.data.frame.scale == pytest.approx(given.data.frame.scale, rel=1e-14)
    psi, log_masses = given.data.frame.inward(x[: min(4, len(x))]), np.log(np.full(min(4, len(x)), 0.25))
    if given.bregman and objective.equivariant is False:
        psi = psi.clip(0.05, 0.95)
    one, other = given.expectations(psi, log_masses), found.expectations(psi, log_masses)
    # Sums of at most 72 rows, whose energies are sums of three terms of at most some hundred.
    bound = 1e3 * np.finfo(dtype).eps
    for name in ("mass", "sums", "free_energy", "energy"):
        assert np.allclose(getattr(one, name), getattr(other, name), rtol=bound, atol=bound)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@settings(max_examples=4)
@given(st.data())
def test_solutions_of_random_chunks_are_those_in_memory(kind, dtype, data):
    x, lengths, objective, weights = data.draw(cases([kind]))
    arguments = {"n_tiles": 3, "weights": weights, "on_failure": "return", "start": x[:3], "dtype": dtype}
    one = cv.solve(x, objective, **arguments)
    other = cv.solve(chunked(x, lengths), objective, **arguments)
    if one.converged and other.converged:
        rounding = 1e-9 if dtype is np.float64 else 1e-5
        bound = 10 * (rounding + (one.error_estimate + other.error_estimate) / one.frame.scale)
        assert other.free_energy == pytest.approx(one.free_energy, rel=rounding, abs=rounding)
        assert np.abs(one.decoder - other.decoder).max() <= bound * max(1.0, one.frame.scale)


def test_the_bits_are_those_of_the_same_blocks_in_memory(rng):
    """Every block prepared by itself, and the sums of the blocks added in the balanced tree."""
    x, lengths = rng.standard_normal((3000, 3)) * [3, 1, 1], (700, 600, 800, 900)
    problem = Problem.make(chunked(x, lengths), cv.ELBO(0.7), None, "numba")
    psi, log_masses = rng.standard_normal((7, 3)), np.log(np.full(7, 1 / 7))
    frame, terms = problem.data.frame, []
    for start, stop in zip(np.cumsum((0, *lengths[:-1])), np.cumsum(lengths), strict=True):
        rows = Rows(x[start:stop], np.full(stop - start, 1 / 3000), frame, np.dtype(np.float64))
        block = PreparedData(rows, numba, problem.framed.statistics, True).resident
        readout = problem.framed.readout(psi)
        found = numba.expectations(
            block.phi, block.offset(problem.framed), block.rho, *readout, log_masses, problem.framed.quadratic
        )
        terms.append((found.mass, found.sums, found.free_energy, found.energy))
    expected, found = tree_sum(terms), problem.expectations(psi, log_masses)
    assert np.array_equal(found.mass, expected[0])
    assert np.array_equal(found.sums, expected[1])
    assert (found.free_energy, found.energy) == expected[2:]


@pytest.mark.parametrize("scheduler", ["threads", slow("processes")])
def test_the_scheduler_changes_no_bit(scheduler, rng):
    x = chunked(rng.standard_normal((900, 2)) * [3, 1], (300, 250, 350))
    one = cv.solve(x, beta=1.0, n_tiles=4)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        other = cv.solve(x + 0, beta=1.0, n_tiles=4)
    assert np.array_equal(one.decoder, other.decoder)
    assert one.free_energy == other.free_energy
    assert one.n_maps == other.n_maps


def test_blocks_without_room_are_read_again_in_every_pass(rng, monkeypatch):
    data, reads = rng.standard_normal((600, 3)) * [3, 1, 1], []

    def read(block_info):
        (start, stop), _ = block_info[None]["array-location"]
        reads.append(start)
        return data[start:stop]

    def x():
        return da.map_blocks(read, chunks=((150,) * 4, (3,)), dtype=float, meta=np.empty((0, 3)))

    kept = cv.solve(x(), beta=2.0, n_tiles=3)
    few, reads[:] = len(reads), []
    monkeypatch.setattr(memory, "physical", lambda: 1000.0)
    monkeypatch.setattr("constrained_vae.solvers.pose._check_memory", lambda problem, k: None)
    again = cv.solve(x(), beta=2.0, n_tiles=3)
    assert few <= 4  # once
    assert len(reads) >= 4 * again.n_maps
    assert np.array_equal(kept.decoder, again.decoder)


def test_a_run_reads_one_block_ahead(rng):
    """In another thread, and never more than one; what reading raises is raised when the block is due."""
    data, reads = rng.standard_normal((5, 30, 3)), []

    def load(n):
        def read():
            reads.append((n, threading.current_thread() is threading.main_thread()))
            if n == broken:
                raise OSError("the disk is gone")
            return data[n]

        return read

    leaves = [runs.Leaf(n, 30 * n, (30, 3), load(n)) for n in range(5)]
    for ahead in (False, True):
        broken, reads[:] = None, []
        found = runs.Run(leaves, 0.0, ahead)._blocks()
        for n, (leaf, x) in enumerate(found):
            assert leaf is leaves[n]
            assert np.array_equal(x, data[n])
            assert n + 1 <= len(reads) <= n + 1 + ahead
        assert reads == [(n, not ahead) for n in range(5)]
        broken = 3
        found = runs.Run(leaves, 0.0, ahead)._blocks()
        assert [next(found)[0].number for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="the disk is gone"):
            next(found)


def test_results_of_a_block_are_no_views_that_keep_it(rng):
    x = rng.standard_normal((50, 2))
    assert rows_of._heavy_row(x, 0, np.ones(50)).base is None
    assert rows_of._some_rows(x, 0, None, np.array([3, 5])).base is None


def test_what_all_blocks_need_is_computed_once(rng):
    """The mean that was subtracted is not computed anew with every block, nor are all data in the part of a block."""
    data, reads = rng.standard_normal((400, 2)), []

    def noted(block):
        reads.append(len(block))
        return block

    x = chunked(data, (100,) * 4).map_blocks(noted, dtype=float, meta=np.empty((0, 2)))
    found = cv.solve((x - x.mean(axis=0)) / x.std(axis=0), beta=1.5, n_tiles=2)
    assert len(reads) <= 4 + 4
    expected = cv.solve((data - data.mean(axis=0)) / data.std(axis=0), beta=1.5, n_tiles=2)
    assert found.free_energy == pytest.approx(expected.free_energy, rel=1e-12)


@pytest.mark.parametrize("count", [40, 2000])
def test_samples_take_what_is_rare_and_estimate_sums_without_bias(count, rng):
    x = np.vstack([rng.standard_normal((900, 2)), [[1e3, 0.0]], rng.standard_normal((99, 2)) + 5])
    frame = cv.solve(x, beta=1e7, n_tiles=1).frame
    weights = rng.dirichlet(np.ones(1000))
    rows = Rows(Partitions.of(chunked(x, (300, 601, 99))), weights, frame, np.dtype(np.float64))
    chosen, rho = sample.spanning_sample(rows, count)
    assert 900 in chosen
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) == min(count, 1000)
    assert rho.sum() == pytest.approx(1)
    if count > 1000:
        assert np.array_equal(rho, weights)
    else:  # the outlier is taken for certain, and keeps its weight but for the sum of the others
        assert rho[list(chosen).index(900)] == pytest.approx(weights[900], rel=0.5)


def test_probabilities_are_those_of_the_sample_in_memory(rng):
    """The rounds of the sample draw the same points, and the probabilities have the same sum."""
    x = rng.standard_normal((500, 2)) ** 3
    rows = Rows(x, np.full(500, 1 / 500), cv.solve(x, beta=1e7, n_tiles=1).frame, np.dtype(np.float64))
    known = partition_sample.Draws(rows.frame, (rows.weights @ rows.frame.inward(x)[None],))
    nearest = np.full(500, np.inf)
    sample._approach(nearest, rows, known.points[0])
    (share,) = known.shares(x, rows.weights)
    assert share == pytest.approx(rows.weights * nearest, rel=1e-12)


def test_results_with_an_entry_per_row_are_lazy(rng):
    x = np.concatenate([rng.standard_normal((80, 2)) + c for c in ([0, 0], [9, 0], [0, 9])])
    lazy = chunked(x, (100, 140))
    one, other = cv.solve(x, beta=3.0, n_tiles=6), cv.solve(lazy, beta=3.0, n_tiles=6)
    assert other.x is lazy or other.x.name == lazy.name
    for name in ("labels", "encoder"):
        found = getattr(other, name)
        assert isinstance(found, da.Array)
        assert found.chunks[0] == (100, 140)
        assert np.allclose(found.compute(), getattr(one, name), atol=1e-7)
    assert np.allclose(other.reconstruct(lazy).compute(), one.reconstruct(x), atol=1e-6)
    assert np.allclose(other.encode(x[:7]), one.encode(x[:7]), atol=1e-7)


def test_quantities_of_a_solution_are_those_in_memory(rng):
    x = np.concatenate([rng.standard_normal((60, 2)) + c for c in ([0, 0], [9, 0], [0, 9])])
    one, other = (cv.solve(data, beta=3.0, n_tiles=6) for data in (x, chunked(x, (50, 100, 30))))
    assert other.recomputed_free_energy() == pytest.approx(one.recomputed_free_energy(), rel=1e-12)
    values = [cv.Jacobian.at(s).eigenpairs(2).values for s in (one, other)]
    assert values[1] == pytest.approx(values[0], rel=1e-7, abs=1e-9)
    assert cv.tangent(other).distortion == pytest.approx(cv.tangent(one).distortion, rel=1e-6)
    assert str(cv.report(other)).splitlines()[1:9] == str(cv.report(one)).splitlines()[1:9]
    found = [cv.compare_spectral(s, affinities=("posterior",)).ari for s in (one, other)]
    assert found[0] == found[1]


def test_sweeps_and_constraints_are_those_in_memory(rng):
    x = np.concatenate([rng.standard_normal((50, 2)) + c for c in ([0, 0], [9, 0], [0, 9])])
    lazy = chunked(x, (70, 80))
    assert cv.first_critical_beta(lazy) == pytest.approx(cv.first_critical_beta(x), rel=1e-12)
    one, other = (cv.sweep(data, betas=[20.0, 9.0, 4.0], n_tiles=6) for data in (x, lazy))
    assert [s.free_energy for s in other] == pytest.approx([s.free_energy for s in one], rel=1e-9)
    assert other.n_distinct.tolist() == one.n_distinct.tolist()
    met = [cv.solve_constrained(data, cv.RE.from_squared_error(9.0), n_tiles=4) for data in (x, lazy)]
    assert met[1].multipliers["RE"] == pytest.approx(met[0].multipliers["RE"], rel=1e-7)
    # All rows are the sample; the hierarchy of the in-memory sample has the same rows.
    assert cv.default_betas(lazy) == pytest.approx(cv.default_betas(x), rel=1e-9)


@pytest.mark.slow
def test_transitions_are_those_in_memory(rng):
    x = np.concatenate([rng.standard_normal((50, 2)) + c for c in ([0, 0], [9, 0], [0, 9])])
    lists = [cv.transitions(data, beta_range=(9, 40), n_tiles=4, limit=2) for data in (x, chunked(x, (70, 80)))]
    found = [[t.beta for t in transitions] for transitions in lists]
    assert found[1] == pytest.approx(found[0], rel=1e-8)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # in Dask, of a newer pandas
def test_a_dataframe_is_standardised_fitted_and_labelled_into_parquet(rng, tmp_path):
    pytest.importorskip("pyarrow", reason="PyArrow is not installed: pip install 'constrained-vae[tables]'")
    x = np.concatenate([rng.standard_normal((80, 2)) + c for c in ([0, 0], [30, 0], [0, 30])]) * [1, 1000]
    table = dd.from_pandas(pd.DataFrame(x, columns=["width", "height"]), npartitions=3)
    unit = (table - table.mean()) / table.std()
    with pytest.warns(UserWarning, match="unknown length"):
        vae = cv.FixedPointVAE(0.3, n_tiles=8).fit(unit)
    assert vae.feature_names_in_.tolist() == list(unit.columns)  # which Dask may have sorted
    with pytest.warns(UserWarning, match="unknown length"):
        labels = vae.predict(unit)
    table.assign(label=labels).to_parquet(tmp_path / "labelled")
    read = pd.read_parquet(tmp_path / "labelled")
    x = x[:, [["width", "height"].index(name) for name in unit.columns]]
    expected = cv.FixedPointVAE(0.3, n_tiles=8).fit((x - x.mean(axis=0)) / x.std(axis=0, ddof=1))
    assert read["label"].tolist() == expected.labels_.tolist()
    assert read["label"].nunique() == 3
    with pytest.warns(UserWarning, match="unknown length"):
        assert vae.score(unit) == pytest.approx(expected.score((x - x.mean(axis=0)) / x.std(axis=0, ddof=1)), rel=1e-9)
    with pytest.warns(UserWarning, match="unknown length"), pytest.raises(ValueError, match="feature names"):
        vae.predict(unit.rename(columns={"width": "depth"}))


# --- bad input --------------------------------------------------------------------------------------------------------


def test_columns_in_several_blocks_are_put_together_with_a_message(rng):
    x = rng.standard_normal((60, 4))
    with pytest.warns(UserWarning, match="divided along its columns"):
        found = cv.solve(da.from_array(x, chunks=(20, 2)), beta=1.0, n_tiles=2)
    assert found.free_energy == pytest.approx(cv.solve(x, beta=1.0, n_tiles=2).free_energy, rel=1e-10)


def test_unknown_lengths_are_computed_with_a_message(rng):
    x = rng.standard_normal((60, 2))
    lazy = da.from_array(x, chunks=(20, 2))
    some = lazy[lazy[:, 0] > 0]
    with pytest.warns(UserWarning, match="unknown length"):
        found = cv.solve(some, beta=1.0, n_tiles=2)
    assert len(found.weights) == (x[:, 0] > 0).sum()
    assert np.isnan(some.shape[0])  # the array of the caller is as it was


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda x: da.from_array(np.where(x == x[33, 1], np.nan, x), chunks=(20, 2)), "begins with row 20 must be fin"),
        (lambda x: da.from_array(x, chunks=(20, 2))[:0], "at least one point"),
        (lambda x: da.from_array(x[:, 0], chunks=20), r"shape \(N, D\)"),
        (lambda x: da.from_array(x > 0, chunks=(20, 2)), "real numbers, got bool"),
        (lambda x: dd.from_pandas(pd.DataFrame({"a": pd.Categorical(["u", "v"])}), npartitions=1), "column 'a'"),
    ],
)
def test_bad_data_are_refused_in_one_line(make, text, rng):
    with pytest.raises(ValueError, match=text) as error:
        cv.solve(make(rng.standard_normal((60, 2))), beta=1.0, n_tiles=2)
    assert "\n" not in str(error.value)


def test_what_needs_all_rows_at_once_is_refused_in_one_line(rng):
    x = chunked(rng.standard_normal((60, 2)) * [3, 1], (30, 30))
    solution = cv.solve(x, beta=1.0, n_tiles=2)
    for call in (
        lambda: cv.certify(solution),
        lambda: cv.rate_distortion(x),
        lambda: cv.geco.train(x, cv.RE(1.0), latent_dim=1, steps=1),
    ):
        with pytest.raises(ValueError, match=r"sample of (the|its) rows") as error:
            call()
        assert "\n" not in str(error.value)


def test_labels_of_rows_are_for_data_in_memory(rng):
    x = rng.standard_normal((60, 2))
    objective = cv.Lagrangian(
        [cv.RE(1.0), cv.CLA(0.5, cv.ClassProbabilities(rng.standard_normal((2, 2)), [0.0, 0.0]), np.arange(60) % 2)],
        [1.0, 1.0],
    )
    with pytest.raises(ValueError, match="labels of the rows belong to data in memory"):
        cv.solve(chunked(x, (30, 30)), objective, n_tiles=2)


def test_the_reference_and_the_kernel_agree(rng):
    x = chunked(rng.standard_normal((200, 2)), (90, 110))
    found = [Problem.make(x, cv.ELBO(0.5), None, name) for name in ("reference", "numba")]
    assert found[0].data.backend is reference
    psi, log_masses = rng.standard_normal((3, 2)), np.log(np.full(3, 1 / 3))
    sums = [problem.expectations(psi, log_masses).sums for problem in found]
    assert sums[0] == pytest.approx(sums[1], rel=1e-12)


def test_graphs_of_another_dask_are_refused_in_one_line(rng, monkeypatch):
    monkeypatch.delattr("dask._task_spec.convert_legacy_graph")
    with pytest.raises(ImportError, match="are not known: pip install 'dask>=2025") as error:
        cv.solve(chunked(rng.standard_normal((60, 2)), (30, 30)), beta=1.0, n_tiles=2)
    assert "\n" not in str(error.value)


# --- a cluster that is lost -------------------------------------------------------------------------------------------


@pytest.fixture
def losing(monkeypatch):
    """A function that has the data lost after a number of passes."""

    run = Here.run

    def after(passes):
        left = [passes]

        def lost(self, *arguments):
            left[0] -= 1
            if left[0] < 0:
                raise LostError("the scheduler of the cluster does not answer")
            return run(self, *arguments)

        monkeypatch.setattr(Here, "run", lost)

    return after


@pytest.fixture
def blobs(rng):
    return chunked(np.concatenate([rng.standard_normal((50, 2)) + c for c in ([0, 0], [9, 0], [0, 9])]), (70, 80))


def test_a_solution_of_a_lost_cluster_is_the_last_point(blobs, losing):
    losing(12)
    with pytest.warns(cv.NotConvergedWarning, match="cluster with the data was lost"):
        found = cv.solve(blobs, beta=3.0, n_tiles=6)
    assert found.status.name == "LOST"
    assert 1 <= found.n_maps < 12
    assert np.isfinite(found.decoder).all()
    losing(12)
    with pytest.raises(cv.NotConvergedError) as error:
        cv.solve(blobs, beta=3.0, n_tiles=6, on_failure="raise")
    assert error.value.solution.status.name == "LOST"


def test_without_a_first_point_a_lost_cluster_is_an_error(blobs, losing):
    losing(3)
    with pytest.raises(ConnectionError, match="does not answer"):
        cv.solve(blobs, beta=3.0, n_tiles=6)


def test_what_a_lost_cluster_has_found_is_kept(blobs, losing):
    losing(60)
    with pytest.warns(cv.NotConvergedWarning, match="cluster with the data was lost"):
        branch = cv.sweep(blobs, betas=np.geomspace(2, 30, 20), n_tiles=6)
    assert 0 < len(branch) < 20
    assert not branch.complete
    losing(80)
    with pytest.warns(cv.NotConvergedWarning, match="lost cluster"):
        assert cv.transitions(blobs, beta_range=(1, 40), n_tiles=6).ended == "lost cluster"
    losing(40)
    with pytest.warns(cv.NotConvergedWarning, match="cluster with the data was lost"):
        found = cv.solve_constrained(blobs, cv.RE.from_squared_error(5.0), n_tiles=6)
    assert found.status.name == "LOST"
