"""Sources of rows: arrays, memory maps and row blocks give the same; parts of the rows add up."""

import re

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import constrained_vae as cv
from constrained_vae.data import rows
from constrained_vae.data.rows import RowBlocks, row_blocks
from constrained_vae.problems.problem import Problem

OBJECTIVES = {"gaussian": cv.ELBO(0.3), "bernoulli": cv.ELBO(0.7, likelihood="bernoulli")}


def halves(x, *cuts):
    """A source that cuts x anew for every pass."""
    return lambda: iter(np.split(x, cuts))


def sources(x, tmp_path):
    """The same data as a memory map, as blocks of a function, and as an iterable of memory maps."""
    path = tmp_path / "x.npy"
    np.save(path, x)
    mapped = np.load(path, mmap_mode="r")
    return {"memmap": mapped, "function": RowBlocks(halves(x, 1, 30)), "list": RowBlocks([mapped[:20], mapped[20:]])}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("kind", ["memmap", "function", "list"])
def test_one_map_of_a_source_is_that_of_the_array(kind, objective, backend, rng, tmp_path, monkeypatch):
    """Only the order of the sums over 57 rows differs: some 57 eps of them."""
    x, rho = rng.random((57, 3)), rng.dirichlet(np.ones(57))
    psi, log_masses = rng.random((5, 3)), np.log(rng.dirichlet(np.ones(5)))
    held = Problem.make(x, objective, rho, backend, None)
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 33)  # eleven rows at a time
    streamed = Problem.make(sources(x, tmp_path)[kind], objective, rho, backend, None)
    assert streamed.data.frame.scale == pytest.approx(held.data.frame.scale, rel=1e-14)
    psi = held.data.frame.inward(psi)
    one, other = held.expectations(psi, log_masses), streamed.expectations(psi, log_masses)
    np.testing.assert_allclose(other.mass, one.mass, rtol=1e-12)
    np.testing.assert_allclose(other.sums, one.sums, rtol=1e-12, atol=1e-13)
    assert other.free_energy == pytest.approx(one.free_energy, rel=1e-12, abs=1e-12)
    assert other.energy == pytest.approx(one.energy, rel=1e-12)


@pytest.mark.parametrize("kind", ["memmap", "function", "list"])
def test_solve_and_what_follows_from_it(kind, backend, tmp_path, monkeypatch):
    """Solution, labels, encoder, default grid, random start and file: nothing asks for the data in one array."""
    x = cv.datasets.four_clusters(seed=3).x[::2]
    options = {"beta": 2.0, "tiling": cv.Tiling.uniform(6), "start": "data", "backend": backend}
    held = cv.solve(x, **options)
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 22)
    source = sources(x, tmp_path)[kind]
    s = cv.solve(source, **options)
    assert s.converged
    assert s.free_energy == pytest.approx(held.free_energy, rel=1e-12)
    np.testing.assert_allclose(s.decoder, held.decoder, atol=1e-8)
    np.testing.assert_array_equal(s.labels, held.labels)
    np.testing.assert_allclose(s.encoder, held.encoder, atol=1e-8)
    np.testing.assert_allclose(s.reconstruct(source), held.reconstruct(x), atol=1e-8)
    np.testing.assert_allclose(cv.default_betas(source), cv.default_betas(x), rtol=1e-12)
    s.save(tmp_path / "s.npz")
    np.testing.assert_array_equal(cv.FixedPoint.load(tmp_path / "s.npz").x, x)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=9), st.integers(1, 12))
def test_blocks_are_cut_anew(lengths, count):
    x = np.arange(2.0 * sum(lengths)).reshape(-1, 2)
    source = RowBlocks(halves(x, *np.cumsum(lengths)[:-1]))
    assert source.shape == x.shape
    taken = list(row_blocks(source, count))
    assert [len(block) for _, block in taken[:-1]] == [count] * (len(taken) - 1)
    np.testing.assert_array_equal(np.concatenate([block for _, block in taken]), x)
    for part, block in taken:
        np.testing.assert_array_equal(block, x[part])
    np.testing.assert_array_equal(np.asarray(source), x)


@pytest.mark.parametrize("kind", ["memmap", "function", "list"])
def test_points_are_found_in_their_blocks(kind, rng, tmp_path, monkeypatch):
    x = rng.normal(size=(57, 2))
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 22)
    indices = np.sort(rng.integers(0, 57, 20))
    frame = cv.Frame(np.ones(2), 2.0)
    taken = rows.Rows(sources(x, tmp_path)[kind], np.full(57, 1 / 57), frame, np.dtype(float)).take(indices)
    np.testing.assert_array_equal(taken, (x[indices] - 1) / 2)


def test_blocks_of_integers_lists_and_nothing():
    source = RowBlocks([[[1, 2]], np.array([[3, 4]], dtype=np.int32)])
    np.testing.assert_array_equal(np.asarray(source), [[1.0, 2.0], [3.0, 4.0]])
    assert np.asarray(source).dtype == np.float64


BAD = {
    "a generator": (lambda: (x for x in [np.ones((2, 2))]), "one-shot iterator (generator)"),
    "a map": (lambda: map(np.ones, [(2, 2)]), "one-shot iterator (map)"),
    "a number": (lambda: 3, "must be a function or an iterable, got 3"),
    "no blocks": (list, "the source of row blocks gave no rows"),
    "unequal columns": (lambda: [np.ones((2, 2)), np.ones((2, 3))], "equally many columns, got 2 and then 3"),
    "NaN": (lambda: [np.ones((2, 2)), np.full((1, 2), np.nan)], "row block 1 of the source must be finite"),
    "a flat block": (lambda: [np.ones(2)], "row block 0 of the source must have shape (N, D), got shape (2,)"),
}


@pytest.mark.parametrize(("source", "message"), BAD.values(), ids=BAD)
def test_bad_sources_are_refused(source, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        RowBlocks(source())


def test_an_iterator_is_no_data():
    with pytest.raises(ValueError, match=r"x is a one-shot iterator \(generator\).*RowBlocks of a function"):
        cv.solve(np.ones((1, 2)) for _ in range(3))


@pytest.mark.parametrize("later", [0, 1, 3, 9])
def test_a_source_that_changes_is_found_out(later):
    """With none it is a function that hands out one iterator again and again."""
    passes = []

    def source():
        passes.append(None)
        return iter([np.ones((1, 2))] * (2 if len(passes) == 1 else later))

    blocks = RowBlocks(source)
    with pytest.raises(ValueError, match="must give the same rows in every pass"):
        list(blocks)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
@settings(max_examples=20)
@given(data=st.data())
def test_statistics_of_parts_add_up_to_those_of_all(objective, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    N, K = 12, 4
    x, psi, rho, pi = rng.random((N, 2)), rng.random((K, 2)), rng.dirichlet(np.ones(N)), rng.dirichlet(np.ones(K))
    frame = cv.Frame(x.mean(axis=0), 0.3) if objective.equivariant else None
    cut = data.draw(st.integers(1, N - 1))
    options = {"masses": pi, "frame": frame, "backend": data.draw(st.sampled_from(["numba", "reference"]))}
    parts = [
        cv.block_expectations(x[part], psi, objective, weights=rho[part], **options)
        for part in (slice(None, cut), slice(cut, None))
    ]
    whole, total = cv.block_expectations(x, psi, objective, weights=rho, **options), parts[0] + parts[1]
    np.testing.assert_allclose(total.mass, whole.mass, rtol=1e-12)
    np.testing.assert_allclose(total.sums, whole.sums, rtol=1e-12, atol=1e-13)
    assert total.free_energy == pytest.approx(whole.free_energy, rel=1e-12, abs=1e-12)
    assert total.energy == pytest.approx(whole.energy, rel=1e-12)
    # The image under the map of all rows is what one map of `solve` makes.
    options = {"tiling": cv.Tiling(pi), "start": psi, "weights": rho, "record": True, "max_maps": 2}
    s = cv.solve(x, objective, accelerate="plain", on_failure="return", **options)
    frame = frame or cv.Frame(np.zeros(2), 1.0)
    image = objective.in_frame(frame).decoder(total.mass, total.sums, frame.inward(psi))
    np.testing.assert_allclose(frame.outward(image), s.trajectory[1], rtol=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": np.ones((3, 3))}, "decoder must have 2 columns like x, got 3"),
        ({"masses": [0.5, 0.5]}, "masses must have one entry per reconstruction, got 2 for 3"),
        ({"weights": [0.5, 0.5]}, "one entry per data point, got 2 for 4"),
        ({"objective": 0.5}, "objective must be an instance of Objective"),
        ({"frame": 2.0}, "frame must be an instance of Frame"),
        ({"x": np.full((4, 2), np.nan)}, "x must be finite"),
        ({"objective": OBJECTIVES["bernoulli"], "decoder": np.full((3, 2), 2.0)}, "wants data in [0, 1]"),
    ],
)
def test_bad_parts_are_refused(options, message):
    good = {"x": np.ones((4, 2)), "decoder": np.ones((3, 2)), "objective": cv.ELBO()}
    with pytest.raises(ValueError, match=re.escape(message)):
        cv.block_expectations(**(good | options))


def test_values_that_change_between_passes_are_noticed():
    """A pass whose rows are permuted, or differ in one bit, is refused; the division into blocks may change."""
    x = np.arange(12.0).reshape(6, 2)
    passes = [[x], [x[:2], x[2:]], [x[::-1]], [np.nextafter(x, 99)]]
    blocks = RowBlocks(lambda: passes[0])
    for later in passes[:2]:
        passes[0] = later
        np.testing.assert_array_equal(np.concatenate(list(blocks)), x)
    for later in passes[2:]:
        passes[0] = later
        with pytest.raises(ValueError, match="must give the same rows in every pass"):
            list(blocks)
