"""Spectral clustering of graphs in pieces: exact where the pieces decide, refused where nothing does."""

from itertools import pairwise

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.spectral.pieces import pieces, spectral_partition
from tests.helpers.marks import slow


def cliques(*sizes, bridge=0.0):
    """Cliques with edges of weight 1, two successive ones joined by an edge of weight `bridge`."""
    starts = np.cumsum([0, *sizes])
    a = np.zeros((starts[-1], starts[-1]))
    for first, last in pairwise(starts):
        a[first:last, first:last] = 1
    for middle in starts[1:-1]:
        a[middle - 1, middle] = a[middle, middle - 1] = bridge
    return a


def joined(*graphs):
    n = np.cumsum([0, *map(len, graphs)])
    a = np.zeros((n[-1], n[-1]))
    for graph, first in zip(graphs, n[:-1], strict=True):
        a[first : first + len(graph), first : first + len(graph)] = graph
    return a


def groups(labels):
    """The partition without its names: the members of every cluster."""
    return {tuple(np.flatnonzero(labels == value)) for value in np.unique(labels)}


@pytest.mark.parametrize("unit", [1.0, 1e-200, 1e200])
def test_as_many_clusters_as_pieces_are_the_pieces(unit, rng):
    order = rng.permutation(12)
    number = np.repeat(range(4), [5, 4, 2, 1])[order]  # a single point is a piece, too
    graph = unit * cliques(5, 4, 2, 1)[np.ix_(order, order)]
    assert pieces(graph)[0] == 4
    assert groups(spectral_partition(graph, 4, 0)) == groups(number)


def test_the_pieces_are_as_many_as_eigenvalues_1():
    """An edge below the rounding of the eigenvalues joins nothing, one that they feel does."""
    for bridge, count in [(0.0, 2), (1e-300, 2), (1e-17, 2), (1e-9, 1), (1.0, 1)]:
        graph = cliques(6, 6, bridge=bridge) - np.eye(12)
        degree = graph.sum(axis=1)
        values = np.linalg.eigvalsh(graph / np.sqrt(np.outer(degree, degree)))
        assert pieces(graph)[0] == count == (values > 1 - 1e-14).sum()


def test_more_clusters_divide_the_piece_that_mixes_most_slowly():
    """Pairs of cliques with bridges of weights 0.1 and 0.5: the weaker bridge is cut first, then the other one."""
    graph = joined(cliques(5, 5, bridge=0.5), cliques(5, 5, bridge=0.1), cliques(5))
    parts = np.repeat(range(5), 5)
    for k, labels in [(3, [0, 0, 1, 1, 2]), (4, [0, 0, 1, 2, 3]), (5, [0, 1, 2, 3, 4])]:
        assert groups(spectral_partition(graph, k, 0)) == groups(np.array(labels)[parts])
    assert spectral_partition(graph, 25, 0).tolist() == list(range(25))


def test_fewer_clusters_than_pieces_and_a_tie_determine_nothing():
    assert spectral_partition(cliques(4, 4, 4), 2, 0) is None
    twins = joined(cliques(5, 5, bridge=0.1), cliques(5, 5, bridge=0.1))
    assert spectral_partition(twins, 3, 0) is None  # either could be divided
    assert groups(spectral_partition(twins, 4, 0)) == groups(np.repeat(range(4), 5))


@pytest.mark.parametrize("bridge", [1e-3, 1e-9, 1e-13, 1e-14])
def test_nearly_separate_pieces_are_the_clusters(bridge):
    """Without a warning, also where Lanczos fails to converge."""
    graph = joined(cliques(6, 5, 7, 9, bridge=bridge))
    assert groups(spectral_partition(graph, 4, 0)) == groups(np.repeat(range(4), [6, 5, 7, 9]))


@pytest.mark.parametrize(("seed", "unit", "offset"), [(0, 1.0, 0.0), *(slow(n, 1e3, 1e4) for n in range(1, 5))])
def test_far_blobs_at_a_low_temperature(seed, unit, offset):
    """Twelve reconstructions of three far blobs are those of the spectral clustering; three clusters do not exist."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([np.array(m) + rng.standard_normal((30, 2)) for m in ((0, 0), (100, 100), (200, -100))])
    s = cv.solve(unit * x + offset, beta=0.01 * unit**2, masses="free", n_tiles=12)
    assert cv.compare_spectral(s).ari["posterior"] == 1
    colder = cv.solve(unit * x + offset, beta=0.003 * unit**2, masses="free", n_tiles=12)
    with pytest.warns(UserWarning, match=r"the posterior affinity at beta=\S+ \(\d+ pieces for 3 clusters\)"):
        three = cv.compare_spectral(colder, 3, labels=np.repeat(range(3), 30))
    assert np.isnan(
        [*three.ari.values(), *three.ami.values(), three.true_ari["rbf"], three.true_ami["posterior"]]
    ).all()
    assert (three.partitions["rbf"] == -1).all()
    assert three.true_ari["kmeans"] == 1
    assert three.contingency["rbf"].shape == (12, 1)
    assert "nan" not in repr(three)


def test_the_embedding_of_a_walk_in_pieces_begins_with_a_constant():
    """Three far pairs: all three eigenvalues are 1, and any basis of their space would have them."""
    x = np.array([[0.0], [1.0], [100.0], [101.0], [102.0], [300.0]])
    s = cv.solve(x, beta=0.5, masses="free", n_tiles=3, start=[[0.5], [101.0], [300.0]])
    axes = cv.spectral.embedding(s, 3)
    np.testing.assert_allclose(cv.spectral.spectrum(s), 1, rtol=1e-12)
    np.testing.assert_allclose(axes[:, 0], 1, rtol=1e-12)
    np.testing.assert_allclose(axes.T @ axes / 6, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.diff(axes, axis=0)[[0, 2, 3]], 0, atol=1e-12)  # each is constant on every piece
