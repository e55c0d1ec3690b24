"""The random walk by posterior overlap of a solution: linear operator, spectrum, and embedding (T18).

Two data points are near each other if they share reconstructions: P_ij = sum_a q_ia rho_j q_ja / m_a is the probability
of a step from x_i to a tile a and from the tile to x_j. All computations use the k distinct reconstructions, because
merging coincident tiles does not change P. They stream over the rows; only `affinity` makes an (N, N) array.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator

from .._utils import memory
from .._utils.arrays import FloatArray
from .._utils.blas import single_threaded
from .._utils.checks import TooLargeError, check_count, check_instance, check_vector
from ..data.prepared import Block, tree_sum
from ..problems.posterior import Tiles, posterior
from ..results.fixed_point import FixedPoint


def walk(solution: FixedPoint) -> LinearOperator:
    """P of T18, a linear operator (N, N): row-stochastic, reversible with respect to rho, positive semi-definite.

    At a fixed point ``walk(s) @ x`` is the expected reconstruction of every point.

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.

    Returns
    -------
    scipy.sparse.linalg.LinearOperator
        Of shape (N, N); the matrix is never made.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> s = solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    >>> (walk(s) @ np.eye(2)).round(4)  # (1 +- m^2) / 2 with m = 0.9575
    array([[0.9584, 0.0416],
           [0.0416, 0.9584]])
    """
    tied = _tied(solution)
    n = len(tied.weights)
    kept = tied.problem.kept(_rows, *tied.code)
    mass = tree_sum(rho @ q for _, rho, q in kept)
    scale = np.where(mass > 0, mass, 1.0)[:, None]

    def forth(values: FloatArray) -> FloatArray:
        """P v = q (w^T v)."""
        v = values.reshape(n, -1)
        means = tree_sum(q.T @ (rho[:, None] * v[rows]) for rows, rho, q in kept) / scale
        return np.concatenate([q @ means for *_, q in kept]).reshape(values.shape)

    def back(values: FloatArray) -> FloatArray:
        """P^T v = w (q^T v)."""
        v = values.reshape(n, -1)
        sums = tree_sum(q.T @ v[rows] for rows, _, q in kept) / scale
        return np.concatenate([rho[:, None] * (q @ sums) for _, rho, q in kept]).reshape(values.shape)

    return LinearOperator((n, n), matvec=forth, matmat=forth, rmatvec=back, rmatmat=back, dtype=np.float64)


def affinity(solution: FixedPoint) -> FloatArray:
    """The affinity diag(rho) P for spectral clustering, (N, N), symmetric; its entries sum to 1.

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.

    Returns
    -------
    (N, N) array
        Symmetric, with entries of at least 0.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint.
    TooLargeError
        If it has more than 2^27 entries. `spectrum`, `embedding` and `walk` do not compute it.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> s = solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    >>> affinity(s).round(3)
    array([[0.479, 0.021],
           [0.021, 0.479]])
    """
    tied, rho = _tied(solution), solution.weights
    if len(rho) ** 2 > memory.LARGEST:
        raise TooLargeError(
            f"the affinity would hold {len(rho)} x {len(rho)} entries ({len(rho) ** 2 * 8 / 2**30:.1f} GiB): take "
            "spectrum, embedding or walk, which never form it, or a subsample of the points"
        )
    joint = rho[:, None] * np.concatenate(list(tied.encoder_blocks()))
    mass = joint.sum(axis=0)
    joint = joint / np.where(mass > 0, np.sqrt(mass), 1.0)
    return joint @ joint.T


def overlap_matrix(solution: FixedPoint) -> FloatArray:
    """Overlap w^T q (k, k): mean posterior mass of each distinct reconstruction on the data of each other one.

    It is row-stochastic and has the non-zero spectrum of P (T18). Rows of reconstructions without data are zero.

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.

    Returns
    -------
    (k, k) array
        Rows that sum to 1, for k distinct reconstructions.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> s = solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    >>> overlap_matrix(s).sum(axis=1).round(12)
    array([1., 1.])
    """
    gram, mass = _gram(_tied(solution))
    return gram / np.where(mass > 0, mass, 1.0)[:, None]


def spectrum(solution: FixedPoint) -> FloatArray:
    """Eigenvalues of P, descending from 1, one per distinct reconstruction with data; all others are 0 (T18).

    The function makes one pass over the data, for the symmetric form of the k x k matrix w^T q.

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.

    Returns
    -------
    (k,) array
        Eigenvalues from 1 down to 0.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> s = solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    >>> spectrum(s).round(4)  # 1 and m^2
    array([1.    , 0.9168])
    """
    matrix = _symmetric(_tied(solution))[0]
    # Several threads are up to sixty times slower on a busy machine.
    return single_threaded(eigh, matrix, eigvals_only=True)[::-1]


def eigengap(eigenvalues: FloatArray) -> int:
    """The number of clusters by the eigengap: the number of eigenvalues before the largest fall in descending order.

    Eigenvalues of a walk that are not given are 0. The eigenvalue that a split adds starts at 0, so that it counts once
    it is above 1/2, if the larger eigenvalues are near 1 (T18).

    Parameters
    ----------
    eigenvalues : (n,) array
        In descending order.

    Returns
    -------
    int
        A number of clusters, at least 1.

    Raises
    ------
    ValueError
        If the eigenvalues are no vector of finite numbers.

    Examples
    --------
    >>> eigengap(np.array([1.0, 0.9, 0.2]))
    2
    """
    return int(np.argmax(-np.diff(np.append(check_vector(eigenvalues, "eigenvalues"), 0.0)))) + 1


def embedding(solution: FixedPoint, n_components: int | None = None) -> FloatArray:
    """Leading right eigenvectors of P, (N, n), orthonormal with respect to rho; the first is constant.

    Parameters
    ----------
    solution : FixedPoint
        A solution of any objective.
    n_components : int, optional
        Number n of eigenvectors; by default the number of clusters by the eigengap.

    Returns
    -------
    (N, n) array
        A column per eigenvector.

    Raises
    ------
    ValueError
        If `solution` is not a FixedPoint, or fewer than n eigenvalues are above rounding.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> s = solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    >>> abs(embedding(s)).round(9)
    array([[1., 1.],
           [1., 1.]])
    """
    tied = _tied(solution)
    matrix, mass = _symmetric(tied)
    # A walk in pieces has the eigenvalue 1 several times: the constant vector, which is known, is lifted above them.
    constant = np.sqrt(mass[mass > 0] / mass.sum())
    values, vectors = single_threaded(eigh, matrix + np.outer(constant, constant))
    values, vectors = values[::-1], vectors[:, ::-1]
    values[0] -= 1
    n = eigengap(values) if n_components is None else check_count(n_components, "n_components")
    rank = int((values > len(values) * np.finfo(np.float64).eps).sum())
    if n > rank:
        raise ValueError(f"n_components must be at most {rank}, the rank of the walk, got {n}")
    # P u = mu u for u = q m^-1/2 s / sqrt(mu), where S s = mu s.
    alive = mass > 0
    axes = vectors[:, :n] / np.sqrt(mass[alive, None] * values[:n])
    points = np.concatenate([q[:, alive] @ axes for q in tied.encoder_blocks()])
    largest = points[np.abs(points).argmax(axis=0), np.arange(n)]
    return points * np.where(largest < 0, -1.0, 1.0)


def _tied(solution: FixedPoint) -> FixedPoint:
    check_instance(solution, "solution", FixedPoint, "solve(x)")
    return solution.tied()


def _rows(block: Block, tiles: Tiles) -> tuple[slice | None, FloatArray, FloatArray]:
    return block.rows, block.rho, posterior(block, tiles).q


def _overlap(block: Block, tiles: Tiles) -> tuple[FloatArray, FloatArray]:
    """q^T diag(rho) q (k, k), and the marginal m (k,), over one block."""
    q = posterior(block, tiles).q
    root = np.sqrt(block.rho)[:, None] * q
    return root.T @ root, block.rho @ q


def _gram(tied: FixedPoint) -> tuple[FloatArray, FloatArray]:
    """q^T diag(rho) q (k, k), and the marginal m (k,), over all data."""
    return tied.problem.total(_overlap, *tied.code)


def _symmetric(tied: FixedPoint) -> tuple[FloatArray, FloatArray]:
    """m^-1/2 q^T diag(rho) q m^-1/2 over the reconstructions with data, and m over all reconstructions."""
    gram, mass = _gram(tied)
    root = np.sqrt(mass[mass > 0])
    return gram[np.ix_(mass > 0, mass > 0)] / root / root[:, None], mass
