"""The one way over the data: sums in a balanced tree of blocks, whoever holds the data and wherever they come from."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st

import constrained_vae as cv
from constrained_vae._utils import deadline, memory
from constrained_vae.backends import get_backend, reference
from constrained_vae.data.prepared import PreparedData, tree_sum
from constrained_vae.data.rows import RowBlocks
from constrained_vae.problems.posterior import posterior
from constrained_vae.problems.problem import Problem


def balanced(terms):
    """The tree as a recursion: the left half is the largest complete tree that leaves something to the right."""
    if len(terms) == 1:
        return terms[0]
    left = 2 ** ((len(terms) - 1).bit_length() - 1)
    return balanced(terms[:left]) + balanced(terms[left:])


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=40))
def test_the_sum_is_that_of_a_balanced_tree_to_the_bit(numbers):
    assert tree_sum(numbers) == balanced(numbers)
    assert tree_sum((number, -number) for number in numbers) == (balanced(numbers), balanced([-n for n in numbers]))


def test_complete_subtrees_may_be_summed_elsewhere():
    """Workers that own runs of 2^k blocks return one sum each, and the bits stay the same."""
    numbers = (10.0 ** np.random.default_rng(0).integers(-8, 8, 37)).tolist()
    for run in (1, 2, 4, 8, 16):
        parts = [tree_sum(numbers[i : i + run]) for i in range(0, len(numbers), run)]
        assert tree_sum(parts) == tree_sum(numbers)


def moments(block, tiles):
    q = posterior(block, tiles).q
    return block.rho @ block.x, q.T @ block.x, q.sum(axis=0)


def problem_of(x, objective=None, weights=None, backend="reference", dtype=None):
    return Problem.make(x, objective, weights, backend, dtype)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_the_bits_depend_on_the_blocks_alone(likelihood, rng, tmp_path, monkeypatch):
    """An array, a memory map and a source of blocks of other lengths, cut into the same blocks, give the same bits."""
    x, psi, weights = rng.uniform(size=(67, 3)), rng.uniform(0.1, 0.9, size=(4, 3)), rng.dirichlet(np.ones(67))
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr(memory, "BLOCK", 28)  # seven rows of four tiles
    objective, log_masses = cv.ELBO(0.3, likelihood=likelihood), np.log(np.full(4, 0.25))
    found = []
    for source in (x, np.load(tmp_path / "x.npy", mmap_mode="r"), RowBlocks([x[:5], x[5:40], x[40:]])):
        problem = problem_of(source, objective, weights)
        assert len(list(problem.data.blocks(4))) == 10
        found.append(problem.total(moments, problem.data.frame.inward(psi), log_masses))
    for one, other in itertools.pairwise(found):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(found[0][2].sum(), 67, rtol=1e-13)  # every row once


def test_rows_in_another_order_give_the_same_sums(rng):
    x, psi = rng.normal(size=(600, 2)), rng.normal(size=(5, 2))
    sorted_, plain = problem_of(x, backend="numba"), problem_of(x)
    assert next(iter(sorted_.data.blocks())).rows is None
    assert next(iter(plain.data.blocks())).rows == slice(0, 600)
    log_masses = np.log(np.full(5, 0.2))
    for one, other in zip(*(p.total(moments, psi, log_masses) for p in (sorted_, plain)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


def test_a_change_of_temperature_keeps_the_prepared_data(rng):
    problem = problem_of(rng.normal(size=(30, 2)))
    other = problem.at(cv.ELBO(7.0))
    assert other.data is problem.data
    assert (problem.objective.beta, other.objective.beta) == (1.0, 7.0)
    assert other.framed.multiplier == pytest.approx(problem.framed.multiplier / 7)


@pytest.mark.parametrize("keep", [True, False])
def test_results_of_blocks_are_kept_or_made_anew(keep, rng, monkeypatch):
    calls = []

    def part(block, tiles):
        calls.append(block.rows)
        return block.rho.sum()

    problem = problem_of(rng.normal(size=(30, 2)))
    monkeypatch.setattr(memory, "BLOCK", 20)
    monkeypatch.setattr(memory, "KEPT", 10**9 if keep else 0)
    kept = problem.kept(part, np.zeros((2, 2)), np.log([0.5, 0.5]))
    for _ in range(3):
        assert tree_sum(kept) == pytest.approx(1.0)
    assert len(calls) == 3 * (1 if keep else 3)


def test_the_whole_data_are_the_rows_that_have_weight(rng):
    x, weights = rng.normal(size=(20, 2)), np.arange(20) % 3
    whole = problem_of(x, weights=weights).data.whole()
    frame = problem_of(x, weights=weights).data.frame
    np.testing.assert_allclose(frame.outward(whole.x), x[weights > 0], atol=1e-14)
    assert whole.rho.min() > 0


def test_offsets_are_those_of_the_objective_that_asks(rng):
    problem = problem_of(rng.normal(size=(20, 2)))
    (block,) = problem.data.blocks()
    cold = problem.at(cv.ELBO(0.25))
    first, second = block.offset(problem.framed), block.offset(cold.framed)
    np.testing.assert_allclose(second, 4 * first)
    np.testing.assert_array_equal(block.offset(problem.framed), first)


def test_data_in_memory_are_read_only_where_a_kernel_takes_them(rng):
    """And the array of the user is not among them."""
    x = rng.normal(size=(20, 2))
    problem = problem_of(x)
    (block,) = problem.data.blocks()
    assert not block.x.flags.writeable
    assert not block.phi.flags.writeable
    assert x.flags.writeable
    assert not np.shares_memory(block.x, x)


def test_a_backend_without_an_order_is_enough(rng):
    x = rng.normal(size=(20, 2))
    rows = problem_of(x).data.rows
    data = PreparedData(rows, SimpleNamespace(expectations=reference.expectations), problem_of(x).data.statistics, True)
    np.testing.assert_allclose(data.mean, 0, atol=1e-15)
    assert get_backend("reference") is reference


def test_a_pass_ends_at_the_deadline(monkeypatch):
    now, seen = [0.0], []
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: now[0]))
    data = Problem.make(np.arange(8.0)[:, None], None, None, "reference").data
    columns = memory.BLOCK // 2  # two rows in a block

    def part(block):
        seen.append(len(block.x))
        now[0] += 1
        return block.x.sum(axis=0)

    with deadline.within(1.5), pytest.raises(deadline.TimeUp):
        data.total(part, columns=columns)
    assert seen == [2, 2]
    with deadline.within(0.0), deadline.finishing():
        assert len(list(data.blocks(columns))) == 4
        assert data.mean.shape == (1,)
