"""Lineages of reconstructions: on branches made by hand, and on data whose merges are known."""

import dataclasses

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.phases.lineages import Lineages, lineages


def by_hand(decoders, masses=None, free=False, direction="down"):
    """A branch at beta = 1, 2, 4, ... with given reconstructions, (K,) or (D, K) for each temperature."""
    decoders = [np.atleast_2d(np.array(d, dtype=float)).T for d in decoders]
    k = len(decoders[0])
    masses = np.full(k, 1 / k) if masses is None else np.array(masses)
    base = cv.solve([[-1.0] * decoders[0].shape[1], [1.0] * decoders[0].shape[1]], tiling=cv.Tiling(masses), beta=99)
    made = [
        dataclasses.replace(
            base, objective=base.objective.at(2.0**i), decoder=d, marginal=masses, error_estimate=0.0, masses_free=free
        )
        for i, d in enumerate(decoders)
    ]
    return cv.Branch(tuple(made[::-1] if direction == "down" else made), direction)


FOUR = [[0, 0, 1, 5, 6, 6], [0.4, 0.4, 0.4, 5, 6, 6], [0.4, 0.4, 0.4, 5.6, 5.6, 5.6], [2] * 6, [2] * 6]
SHARES = [0.1, 0.2, 0.3, 0.2, 0.1, 0.1]


@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("free", [False, True])
def test_a_tree_made_by_hand(direction, free):
    tree = lineages(by_hand(FOUR, SHARES, free, direction))
    np.testing.assert_array_equal(tree.betas, [1, 2, 4, 8, 16])
    np.testing.assert_array_equal(tree.sites, [[0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert tree.leaves == (0, 1, 2, 3)
    np.testing.assert_allclose(tree.shares, [0.3, 0.3, 0.2, 0.2])
    np.testing.assert_allclose(tree.starts, [[0], [1], [5], [6]])
    assert [(m.bracket, m.parts) for m in tree.merges] == [
        ((1, 2), ((0,), (1,))),
        ((2, 4), ((2,), (3,))),
        ((4, 8), ((0, 1), (2, 3))),
    ]
    assert [m.beta for m in tree.merges] == pytest.approx([2**0.5, 2**1.5, 2**2.5])
    assert tree.roots == ((0, 1, 2, 3),)


def test_fixed_masses_follow_the_tiles_and_free_ones_the_nearest():
    """Two pairs that change places between two temperatures, and tiles that do while the places stay."""
    moved = [[0, 1, 10, 11], [10, 10, 0, 0]]
    assert [m.parts for m in lineages(by_hand(moved)).merges] == [((0,), (1,)), ((2,), (3,))]
    np.testing.assert_array_equal(lineages(by_hand(moved)).sites[1], [0, 0, 1, 1])
    np.testing.assert_array_equal(lineages(by_hand(moved, free=True)).sites[1], [1, 1, 0, 0])


def test_of_tiles_that_part_on_heating_the_heavier_share_decides_and_then_the_nearest():
    tree = lineages(by_hand([[0, 0, 0], [-1, 1, 1]], [0.4, 0.3, 0.3]))
    assert tree.sites[1, 0] == 1  # 0.6 of the mass went there
    tree = lineages(by_hand([[0, 0], [-3, 1]]))
    assert tree.sites[1, 0] == 1  # as much here as there


def test_simultaneous_merges_and_several_roots():
    tree = lineages(by_hand([[2, 0, 1, 9], [1, 1, 1, 9]]))
    assert [m.parts for m in tree.merges] == [((1,), (2,), (0,))]
    assert tree.roots == ((1, 2, 0), (3,))


def test_a_reconstruction_without_descendants_begins_a_lineage():
    tree = lineages(by_hand([[0, 0, 0], [0, 0, 4], [0, 0, 4], [1, 1, 1]], [0.2, 0.5, 0.3]))
    np.testing.assert_array_equal(tree.sites, [[0, -1], [0, 1], [0, 1], [0, 0]])
    np.testing.assert_allclose(tree.starts, [[0], [4]])
    np.testing.assert_allclose(tree.shares, [1, 0.3])
    assert tree.leaves == (0,)
    assert tree.merges == ()  # of leaves


def test_groups_are_sorted_where_they_lie_widest_apart():
    tree = lineages(by_hand([[[5, 6, 0, 1], [1, 0, 9, 0]], [[5, 5, 0, 0], [0, 0, 0, 0]], [[2] * 4, [0] * 4]]))
    assert tree.roots == ((3, 2, 0, 1),)


def test_leaves_of_every_group_are_neighbours(rng):
    """So a tree can be drawn uncrossed: any merges, leaves scattered anyhow."""
    for _ in range(20):
        rows = [rng.permutation(9)]
        for _ in range(5):
            rows.append(rng.integers(0, 9, 9)[rows[-1]])
        tree = Lineages(np.arange(1.0, 7), np.array(rows), rng.normal(size=(9, 2)), rng.dirichlet(np.ones(9)))
        order = [leaf for root in tree.roots for leaf in root]
        assert sorted(order) == list(range(9))
        for merge in tree.merges:
            at = order.index(merge.leaves[0])
            assert tuple(order[at : at + len(merge.leaves)]) == merge.leaves


@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_four_clusters_merge_pair_by_pair(masses):
    """At the exact temperatures, to the step of the grid that holds each."""
    data, some = cv.datasets.four_clusters(seed=0), {"tiling": cv.Tiling.uniform(8), "masses": masses}
    found = cv.transitions(data.x, beta_range=(0.2, 12), **some)
    for branch in cv.sweep(data.x, betas=np.geomspace(0.2, 12, 40), direction="both", **some):
        tree = lineages(branch)
        assert [len(m.parts) for m in tree.merges] == [2, 2, 2]
        for merge, t in zip(tree.merges, found[::-1], strict=True):
            assert merge.bracket[0] <= t.beta <= merge.bracket[1]
        centres = tree.starts[[leaf for root in tree.roots for leaf in root]]
        np.testing.assert_allclose(centres, [[-3, -1.25], [-3, 1.25], [3, -0.55], [3, 0.55]], atol=0.1)
        np.testing.assert_allclose(tree.shares, 0.25, atol=1e-6)


def test_one_temperature_and_none():
    tree = lineages(by_hand([[0, 3]]))
    assert (tree.leaves, tree.merges, tree.roots) == ((0, 1), (), ((0,), (1,)))
    with pytest.raises(ValueError, match="the branch is empty"):
        lineages(cv.Branch((), "down"))
