"""Spectral clustering of a graph that may be in pieces: it is done piece by piece, or is not determined."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigsh

from .._utils.arrays import FloatArray
from .._utils.interrupts import deferred_interrupts

_EPS = float(np.finfo(np.float64).eps)
_MAX_DENSE = 500  # size of a piece up to which all of its eigenvalues are computed


def pieces(affinity: FloatArray) -> tuple[int, npt.NDArray[np.intp]]:
    """Number of connected components of a graph to rounding, and the component of every point (N,).

    Edges of at most eps in the normalised affinity a_ij / sqrt(d_i d_j) move its eigenvalues by no more than its
    rounding, N eps, so that they do not count. The affinity of a point with itself is ignored.
    """
    count, number = connected_components(csr_array(_normalised(affinity) > _EPS), directed=False)
    return int(count), number.astype(np.intp)


def spectral_partition(affinity: FloatArray, k: int, seed: int) -> npt.NDArray[np.intp] | None:
    """Partition of the points of a graph (N,) into k clusters by scikit-learn's spectral clustering; None if undefined.

    A graph of c pieces has the eigenvalue 1 c times, with the indicators of the pieces as eigenvectors, so that for
    k = c the pieces are the clusters. For k > c the eigenvectors that follow belong to one piece each. A piece with n
    of the k - c next eigenvalues is clustered alone, into n + 1. For k < c any k of the c vectors are leading
    eigenvectors, and if the eigenvalues k and k + 1 are equal the last of them is arbitrary: then no partition is
    determined.
    """
    c, number = pieces(affinity)
    if k < c:
        return None
    members = [np.flatnonzero(number == piece) for piece in range(c)]
    counts = np.ones(c, dtype=np.intp)
    if c == 1:
        counts[0] = k
    elif k > c:
        values = [_further_eigenvalues(affinity[np.ix_(m, m)], k - c + 1) for m in members]
        owner = np.repeat(np.arange(c), [len(v) for v in values])
        together = np.concatenate(values)
        order = np.argsort(-together, kind="stable")
        last = together[order[k - c - 1]]
        if len(order) > k - c and last - together[order[k - c]] <= len(affinity) * _EPS:
            return None
        counts += np.bincount(owner[order[: k - c]], minlength=c)
    labels = np.empty(len(affinity), dtype=np.intp)
    for m, n, first in zip(members, counts, np.cumsum(counts) - counts, strict=True):
        found = _connected(affinity[np.ix_(m, m)], int(n), seed)
        if found is None:
            return None
        labels[m] = first + found
    return labels


def _connected(affinity: FloatArray, k: int, seed: int) -> npt.NDArray[np.intp] | None:
    """Partition of a connected graph; None if the eigenvalues k and k + 1 are equal."""
    with deferred_interrupts():
        from sklearn.cluster import KMeans, SpectralClustering

    n = len(affinity)
    if k in (1, n):  # one cluster, or one per point
        return np.arange(n) * (k > 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "ARPACK has failed", RuntimeWarning)
            cluster = SpectralClustering(k, affinity="precomputed", random_state=seed)
            return np.asarray(cluster.fit_predict(affinity), dtype=np.intp)
    except RuntimeWarning:
        # Lanczos fails where eigenvalues are too close to each other. A dense solver tells them apart, or equal.
        values, vectors = eigh(_normalised(affinity), subset_by_index=(n - k - 1, n - 1))
        if values[1] - values[0] <= n * _EPS:
            return None
        degree = affinity.sum(axis=1) - np.diag(affinity)
        maps = vectors[:, 1:] / np.sqrt(degree)[:, None]
        return np.asarray(KMeans(k, n_init=10, random_state=seed).fit(maps).labels_, dtype=np.intp)


def _normalised(affinity: FloatArray) -> FloatArray:
    """D^-1/2 A D^-1/2 without the affinities of points with themselves, and with their degrees D; 0 where D is 0."""
    apart = affinity - np.diag(np.diag(affinity))
    degree = apart.sum(axis=1)
    root = np.sqrt(np.where(degree > 0, degree, 1.0))
    return apart / root / root[:, None]


def _further_eigenvalues(affinity: FloatArray, count: int) -> FloatArray:
    """The largest eigenvalues of a normalised affinity after the first, which is 1, descending; at most `count`."""
    n = len(affinity)
    count = min(count, n - 1)
    if not count:
        return np.empty(0)
    matrix = _normalised(affinity)
    if n <= _MAX_DENSE or count >= n - 2:
        values = eigh(matrix, eigvals_only=True, subset_by_index=(n - 1 - count, n - 1))
    else:
        values = eigsh(matrix, k=count + 1, v0=np.random.default_rng(0).standard_normal(n), return_eigenvectors=False)
    return np.sort(values)[::-1][1:]
