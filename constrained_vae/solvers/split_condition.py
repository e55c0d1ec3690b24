"""The split condition: stability of the reconstructions of given sites (T9).

A site of two or more coincident tiles splits where lambda grad^2 f times the covariance of its data, weighted by its
responsibilities, has an eigenvalue 1; for the squared error this is at sigma^2 beta = lambda_max(Cov_a). For an energy
that is not a Bregman divergence the matrix is A^-1 B, with the mean curvature A = E_w[d2 H] and the covariance of
slopes B = Cov_w(d H).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator, eigsh

from .._utils import deadline
from .._utils.arrays import Array, FloatArray
from .._utils.blas import single_threaded
from .._utils.device import array_namespace, on_host, to_host
from .._utils.eigenvectors import eigh
from ..data.prepared import Block
from ..objectives.decoder_update import readout_slopes
from ..problems.posterior import Tiles, responsibilities
from ..problems.problem import Problem
from .coordinates import roots
from .local_axes import local_axes

_MAX_DENSE_DIM = 128  # dimensions up to which covariances are formed; above, Lanczos applies them without forming them
_COVARIANCE_ENTRIES = 2**23  # entries of a batch of covariances
_DEVIATION_ENTRIES = 2**17, 2**20  # entries of a batch of deviations of rows from sites, in a cache or on a device
_BATCHED_ENTRIES = 2**10  # entries of covariances up to which all are decomposed at once
_ROUNDED = 1 + 1e-9  # a bound of an eigenvalue times this is one in spite of rounding
_SINGLE_THREAD_PRODUCTS = 2**26  # multiplications of a covariance below which one thread computes it


@dataclass(frozen=True, eq=False)
class SplitCondition:
    """Eigenvalues of (T9), and the axis of the site nearest to splitting.

    Attributes
    ----------
    top : float
        Largest eigenvalue of lambda grad^2 f(psi_a) Cov_a over all sites; 0 if the data of each site are one point. It
        bounds the top eigenvalue of the Jacobian of the map from above. With two or more tiles at each site it equals
        the top eigenvalue of the Jacobian over all tiles.
    eigenvalue : float
        Largest eigenvalue over the sites that may split, which are stable iff it is below 1; 0 without such sites.
    site : int
        The site with the largest `eigenvalue`.
    direction : (D,) array
        Axis of that site, in the frame, with the length of one standard deviation of the site's data.
    axis : (D,) array
        The axis as a unit eigenvector, in the coordinates of the objective.
    deviation : (D,) array
        One standard deviation of the site's data along the axis, in the coordinates of the objective.
    of_all : bool
        Whether `top` is that of all sites; else it is that of the sites that may split.
    local : (k,), (k, D) arrays, or None
        Eigenvalues and unit eigenvectors of all sites, where `local_axes` has them.
    """

    top: float
    eigenvalue: float
    site: int
    direction: FloatArray
    axis: FloatArray
    deviation: FloatArray
    of_all: bool = True
    local: tuple[FloatArray, FloatArray] | None = None


def split_condition(
    problem: Problem,
    psi: FloatArray,
    log_masses: FloatArray,
    may_split: npt.NDArray[np.bool_] | None = None,
    *,
    others: bool = True,
) -> SplitCondition:
    """The split condition (T9) at reconstructions psi (k, D) in the frame of the problem.

    Parameters
    ----------
    problem : Problem
        Problem whose backend makes the pass over the data.
    psi : (k, D) array
        Reconstructions of the sites, on the host.
    log_masses : (k,) array
        Log prior masses of the sites, in nats.
    may_split : (k,) bool array, optional
        The sites among which the one nearest to splitting is sought; all by default.
    others : bool
        Whether `top` is wanted; without it the sites that may not split take no time.
    """
    curvature = problem.framed.curvature(psi)
    if curvature is None:
        return _general(problem, psi, log_masses, may_split)
    whitening = np.sqrt(curvature)  # eigenvalues of (lambda grad^2 f)^1/2 Cov (lambda grad^2 f)^1/2, diagonal (k, D)
    eligible = np.ones(len(psi), dtype=bool) if may_split is None else may_split
    dim = psi.shape[1]
    local = single_threaded(local_axes, problem, psi, log_masses)
    if local is not None:
        top, eigenvalue, site, axis = _largest(*local, eligible)
    else:
        find = _dense if dim <= _MAX_DENSE_DIM else _lanczos
        arguments = problem, psi, log_masses, whitening, eligible, np.ones_like(eligible) if others else eligible
        top, eigenvalue, site, axis = single_threaded(find, *arguments) if is_small(problem) else find(*arguments)
    # The sign of an eigenvector is arbitrary: its largest component is made positive, so that runs are reproducible.
    axis = axis * _sign(axis)
    settled = whitening[site] == 0
    direction = np.where(settled, 0.0, axis / np.where(settled, 1.0, whitening[site]))
    deviation = np.sqrt(max(eigenvalue, 0.0) / problem.framed.stiffness) * axis
    length, of_all = np.sqrt(max(eigenvalue, 0.0)), others or local is not None or bool(eligible.all())
    return SplitCondition(top, eigenvalue, site, direction * length, axis, deviation, of_all, local)


def is_small(problem: Problem) -> bool:
    """Whether matrix products are so small that several threads are slower, because they wait for each other."""
    return len(problem.data) * problem.data.rows.dim**2 < _SINGLE_THREAD_PRODUCTS


def has_axes(problem: Problem) -> bool:
    """Whether the axes of all sites are known at once, see `split_axes`."""
    return problem.bregman and problem.data.rows.dim <= _MAX_DENSE_DIM


def split_axes(
    problem: Problem, psi: FloatArray, log_masses: FloatArray, some: npt.NDArray[np.intp] | None = None
) -> tuple[FloatArray, FloatArray]:
    """The condition of every site, or of some, of a Bregman energy in few dimensions, see `has_axes`, from one pass.

    Returns
    -------
    (k,), (k, D) arrays, or (g,), (g, D) for g sites
        Largest eigenvalue of each site, and one standard deviation of its data along the axis, in the coordinates of
        the objective.
    """
    curvature = problem.framed.curvature(psi)
    assert curvature is not None  # Bregman energies only
    whitening, sites = np.sqrt(curvature), np.arange(len(psi)) if some is None else some
    top, axes = np.zeros(len(sites)), np.zeros((len(sites), psi.shape[1]))
    group = max(1, _COVARIANCE_ENTRIES // psi.shape[1] ** 2)
    for start in range(0, len(sites), group):
        part, found = sites[start : start + group], slice(start, start + group)
        white = whitening[part]
        matrices = white[:, :, None] * _covariances(problem, psi, log_masses, part) * white[:, None, :]
        values, vectors = single_threaded(eigh, matrices)
        top[found], axes[found] = values[:, -1].clip(0), vectors[:, :, -1]
    return top, deviations(problem, top, axes)


def deviations(problem: Problem, top: FloatArray, axes: FloatArray) -> FloatArray:
    """One standard deviation of the data of sites along axes (g, D) with eigenvalues (g,), in the coordinates."""
    signed = np.array([_sign(axis) * axis for axis in axes])
    return np.sqrt(top / problem.framed.stiffness)[:, None] * signed


def _sign(axis: FloatArray) -> float:
    return -1.0 if axis[np.abs(axis).argmax()] < 0 else 1.0


def _general(
    problem: Problem, psi: FloatArray, log_masses: FloatArray, may_split: npt.NDArray[np.bool_] | None
) -> SplitCondition:
    """The condition for any energy, from the (D, D) matrices A and B of every site."""
    objective, (k, dim) = problem.framed, psi.shape
    expectations = problem.expectations(*map(problem.data.to_device, (psi, log_masses)))
    mass, sums = to_host(expectations.mass), to_host(expectations.sums)
    top, deviations = np.zeros(k), np.zeros((k, dim))
    alive = np.flatnonzero(mass > 0)
    group = max(1, _COVARIANCE_ENTRIES // (dim * max(dim, sums.shape[1])))
    for some in np.array_split(alive, -(-len(alive) // group)):
        _, inverse = roots(objective, mass[some], sums[some], psi[some])
        # d H_ia - E_w[d H_a] = -(phi_i - E_w[phi])_a . v'(psi_a)
        slopes = readout_slopes(objective.readout, psi[some])
        mean = sums[some] / mass[some, None]
        B = problem.total(_slope_covariances, psi, log_masses, some, slopes, mean)
        covariances = inverse @ (to_host(B) / mass[some, None, None]) @ inverse
        values, vectors = single_threaded(eigh, covariances)
        top[some] = values[:, -1].clip(0)
        deviations[some] = np.sqrt(top[some])[:, None] * (inverse @ vectors[:, :, -1:])[:, :, 0]
    among = top if may_split is None else np.where(may_split, top, 0.0)
    site = int(among.argmax())
    deviation = deviations[site] * _sign(deviations[site])
    axis = deviation / (np.linalg.norm(deviation) or 1.0)
    return SplitCondition(float(top.max()), float(among[site]), site, deviation, axis, deviation)


def _slope_covariances(block: Block, tiles: Tiles, some: Array, slopes: Array, mean: Array) -> Array:
    """sum_i rho_i q_ia times the products of slopes (phi_i - E_w[phi]) v' of some sites, (g, D, D)."""
    xp, q = array_namespace(slopes), responsibilities(block, tiles).T[some]
    found = []
    for n in range(len(q)):
        y = xp.sqrt(q[n])[:, None] * ((block.phi - mean[n]) @ slopes[n])
        found.append(y.T @ y)
    return xp.stack(found)


_Found = tuple[float, float, int, FloatArray]


def _largest(top: FloatArray, axes: FloatArray, eligible: npt.NDArray[np.bool_]) -> _Found:
    """The largest of the eigenvalues of all sites, and the eligible site that has the largest one."""
    among = np.where(eligible, top, 0.0)
    site = int(among.argmax())
    return float(top.max()), float(among[site]), site, axes[site]


def _dense(
    problem: Problem,
    psi: FloatArray,
    log_masses: FloatArray,
    whitening: FloatArray,
    eligible: npt.NDArray[np.bool_],
    wanted: npt.NDArray[np.bool_],
) -> _Found:
    """Top eigenpairs of the wanted sites from their covariances, a few sites at a time."""
    k, dim = psi.shape
    group = max(1, _COVARIANCE_ENTRIES // dim**2)
    top, axes = np.zeros(k), np.zeros((k, dim))
    sites = np.flatnonzero(wanted)
    for some in np.split(sites, range(group, len(sites), group)) if len(sites) else ():
        white = whitening[some]
        matrices = white[:, :, None] * _covariances(problem, psi, log_masses, some) * white[:, None, :]
        single_threaded(_decompose, matrices, some, eligible, top, axes)
    return _largest(top, axes, eligible)


def _decompose(
    matrices: FloatArray,
    sites: npt.NDArray[np.intp],
    eligible: npt.NDArray[np.bool_],
    top: FloatArray,
    axes: FloatArray,
) -> None:
    """Write the top eigenpairs of some sites, except of those that are certainly not the largest.

    Since lambda_max^4 <= tr M^4, few of the matrices are decomposed.
    """
    if matrices.size <= _BATCHED_ENTRIES:
        values, vectors = eigh(matrices)
        top[sites], axes[sites] = values[:, -1], vectors[:, :, -1]
        return
    size = np.abs(matrices).max(axis=(1, 2))
    unit = matrices / np.where(size, size, 1.0)[:, None, None]  # the fourth power of any unit is finite
    bound = _ROUNDED * size * np.sqrt(np.linalg.norm(unit @ unit, axis=(1, 2)))
    for n in np.argsort(-bound):
        site = sites[n]
        if bound[n] <= top.max(initial=0.0, where=eligible):
            break
        if eligible[site] or bound[n] > top.max():
            values, vectors = eigh(matrices[n])
            top[site], axes[site] = values[-1], vectors[:, -1]


def _covariances(problem: Problem, psi: FloatArray, log_masses: FloatArray, some: npt.NDArray[np.intp]) -> FloatArray:
    """Cov_a = sum_i w_ia (x_i - psi_a)(x_i - psi_a)^T of some sites, (g, D, D), in one pass; zero for a dead site.

    Differences from psi_a are squared, so that a narrow site far from the origin loses no digits.
    """
    sums = _moments_of_few(problem, psi, log_masses, some)
    if sums is None:
        sums = to_host(problem.total(_deviation_moments, psi, log_masses, psi[some], some))
    mass = sums[:, -1:, -1:]
    sums = sums / np.where(mass > 0, mass, 1.0)
    shift = sums[:, -1, :-1]  # deviation of the mean from psi_a, zero at a fixed point
    covariances: FloatArray = sums[:, :-1, :-1] - shift[:, :, None] * shift[:, None, :]
    return covariances


def _moments_of_few(
    problem: Problem, psi: FloatArray, log_masses: FloatArray, some: npt.NDArray[np.intp]
) -> FloatArray | None:
    """What `_deviation_moments` gives, from compiled code; None unless the problem is a small squared distance."""
    data, lam = problem.data, problem.framed.quadratic
    moments = getattr(data.backend, "deviation_moments", None)
    if moments is None or not lam or not data.backend.are_few(len(data), *psi.shape):
        return None
    block = data.resident
    if block is None or block.phi is not block.x or block.phi.dtype != np.float64:
        return None
    deadline.check()
    found: FloatArray = moments(block.phi, block.rho, psi, log_masses, lam, some)
    return found


def _deviation_moments(block: Block, tiles: Tiles, centres: Array, some: Array) -> Array:
    """sum_i rho_i q_ia (x_i - psi_a, 1)(x_i - psi_a, 1)^T of some sites, (g, D + 1, D + 1)."""
    xp, q, dim = array_namespace(centres), responsibilities(block, tiles).T[some], centres.shape[1]
    points = xp.concat([block.x, xp.ones_like(block.x[:, :1])], axis=1)
    origins = xp.concat([centres, xp.zeros_like(centres[:, :1])], axis=1)[:, None]
    group = max(1, _DEVIATION_ENTRIES[not on_host(points)] // (len(points) * (dim + 1)))
    found, weights = [], xp.sqrt(q)[:, :, None]
    memory = xp.empty((min(group, len(centres)), *points.shape))  # new memory for every group takes longer than its use
    for first in range(0, len(centres), group):
        scaled = memory[: len(centres) - first]
        scaled[...] = points
        scaled -= origins[first : first + group]
        scaled *= weights[first : first + group]
        found.append(xp.matmul(scaled.transpose(0, 2, 1), scaled))
    return xp.concat(found)


def _lanczos(
    problem: Problem,
    psi: FloatArray,
    log_masses: FloatArray,
    whitening: FloatArray,
    eligible: npt.NDArray[np.bool_],
    wanted: npt.NDArray[np.bool_],
) -> _Found:
    """Top eigenpair over all sites together, by Lanczos on the block-diagonal operator of covariances, never formed."""
    k, dim = psi.shape
    kept = problem.kept(_points_and_responsibilities, psi, log_masses)
    mass, mean = (to_host(total) for total in kept.total(_mass_and_mean))
    scale = np.where(mass > 0, mass, 1.0)[:, None]
    mean = mean / scale

    def largest(among: npt.NDArray[np.bool_]) -> tuple[float, int, FloatArray]:
        def product(vector: FloatArray) -> FloatArray:
            deadline.check()
            u = np.where(among[:, None], whitening * vector.reshape(k, dim), 0.0)
            axes = problem.data.to_device(u).T
            # Cov_a u_a = sum_i w_ia x_i (x_i . u_a) - psi_a (psi_a . u_a): two matrix products per block for all sites.
            moment = to_host(kept.total(_moments_along, axes)) / scale
            return (whitening * (moment - mean * (mean * u).sum(axis=1)[:, None])).ravel()

        operator = LinearOperator((k * dim, k * dim), matvec=product, dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(k * dim)  # fixed, so that runs are reproducible
        scale_of_all = float(np.abs(whitening * mean).max()) ** 2 + 1
        if np.linalg.norm(product(start)) <= 1e-12 * scale_of_all * np.linalg.norm(start):
            return 0.0, 0, np.eye(dim)[0]  # the data of every site are one point to rounding
        values, vectors = eigsh(operator, k=1, v0=start, which="LA")
        parts = vectors[:, 0].reshape(k, dim)
        site = int(np.square(parts).sum(axis=1).argmax())
        return float(values[0]), site, parts[site] / np.linalg.norm(parts[site])

    alive = np.asarray(mass > 0)
    if not (wanted & alive).any():
        return 0.0, 0.0, 0, np.eye(dim)[0]
    top, site, axis = largest(wanted & alive)
    if eligible[site]:
        return top, top, site, axis
    if not (eligible & alive).any():
        return top, 0.0, site, axis
    return top, *largest(eligible & alive)


def _points_and_responsibilities(block: Block, tiles: Tiles) -> tuple[Array, Array]:
    return block.x, responsibilities(block, tiles)


def _mass_and_mean(found: tuple[Array, Array]) -> tuple[Array, Array]:
    x, q = found
    return q.sum(axis=0), q.T @ x


def _moments_along(found: tuple[Array, Array], axes: Array) -> Array:
    x, q = found
    return (q * (x @ axes)).T @ x
