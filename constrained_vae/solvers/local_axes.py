"""Axes of all sites where few rows belong to each of them, as at low temperature.

The covariance of n weighted rows has the same positive eigenvalues as their Gram matrix (n, n). So a site of few rows
costs n^2 D, where a covariance over all rows costs N D^2. A matrix product finds the pairs of rows and sites that can
count, with a proven bound on its rounding; of these alone the distances are computed. The pairs that are left out carry
less than 2^-56 of the mass of every site: no more than rounding.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from .._utils import deadline
from .._utils.arrays import FloatArray
from ..data.prepared import Block
from ..problems.problem import Problem

_FEWEST_PAIRS = 2**20  # rows times sites below which covariances over all rows take no time
_MOST_SHARE = 1 / 32  # share of the pairs of rows and sites that may count
_SAMPLE = 256  # rows that are looked at first
_LEFT_OUT = 2.0**-100  # largest share of a row in a site that is left out
_LIGHTEST = 2.0**-44  # mass of a site at which 2^-100 of all rows is 2^-56 of the site
_MOST_WORK = 2.0**34  # multiplications
_ENTRIES = 2**20  # of a batch of differences

_Pairs = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], FloatArray]


def local_axes(problem: Problem, psi: FloatArray, log_masses: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Largest eigenvalue of every covariance times the stiffness, and its unit eigenvector; None if rows are many.

    Parameters
    ----------
    problem : Problem
        A squared distance, with data in memory in float64; for others there is no result.
    psi : (k, D) array
        Reconstructions of the sites, in the frame.
    log_masses : (k,) array
        Log prior masses of the sites, in nats.

    Returns
    -------
    (k,), (k, D) arrays, or None
    """
    objective, block, (k, dim) = problem.framed, problem.data.resident, psi.shape
    if not objective.quadratic or block is None or len(block.rho) * k < _FEWEST_PAIRS:
        return None
    if not type(block.x) is type(block.phi) is np.ndarray or block.x.dtype != np.float64 or block.phi.shape[1] != dim:
        return None
    centres = objective.readout(psi)[0] / (2 * objective.quadratic)
    site = centres, log_masses, objective.quadratic
    step = max(1, len(block.rho) // _SAMPLE)
    sample = Block(block.x[::step], block.phi[::step], block.s[::step], block.rho[::step], None)
    if len(_candidates(sample, *site)[0]) > _MOST_SHARE * len(sample.rho) * k:
        return None
    found, first = [], 0
    for part in problem.data.blocks(k):
        rows, sites, weights = _pairs(part, *site)
        found.append((rows + first, sites, weights))
        first += len(part.rho)
    rows, sites, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    counts = np.bincount(sites, minlength=k)
    mass, least = np.bincount(sites, weights, minlength=k), np.minimum(counts, dim).astype(np.float64)
    if (mass[log_masses > -np.inf] < _LIGHTEST).any() or (dim * counts * least + 4 * least**3).sum() > _MOST_WORK:
        return None
    order, values, axes = np.argsort(sites, kind="stable"), np.zeros(k), np.zeros((k, dim))
    axes[:, 0] = 1.0
    for n, some in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        deadline.check()
        if len(some) > 1:
            _eigenpair(block.x[rows[some]], weights[some] / mass[n], values[n : n + 1], axes[n])
    return objective.stiffness * values, axes


def _candidates(
    block: Block, centres: FloatArray, log_masses: FloatArray, lam: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The pairs of rows and sites that may count: all whose share of the row can be above `_LEFT_OUT`."""
    phi = block.phi
    logits = phi @ (2 * lam * centres.T)
    squares = np.einsum("ij,ij->i", centres, centres)
    logits += log_masses - lam * squares
    rounding = (phi.shape[1] + 16) * np.finfo(np.float64).eps * lam
    slack = rounding * (np.einsum("ij,ij->i", phi, phi) + squares.max())
    least = logits.max(axis=1) + math.log(_LEFT_OUT) - 4 * slack
    rows, sites = np.nonzero(logits >= least[:, None])
    return rows, sites


def _pairs(block: Block, centres: FloatArray, log_masses: FloatArray, lam: float) -> _Pairs:
    """Rows, sites and rho_i q_ia of the pairs of a block that may count, in the order of the rows."""
    rows, sites = _candidates(block, centres, log_masses, lam)
    logits, size = np.empty(len(rows)), max(1, _ENTRIES // centres.shape[1])
    for first in range(0, len(rows), size):
        some = slice(first, first + size)
        apart = block.phi[rows[some]] - centres[sites[some]]
        logits[some] = log_masses[sites[some]] - lam * np.einsum("ij,ij->i", apart, apart)
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    q = np.exp(logits - np.maximum.reduceat(logits, starts)[rows])
    return rows, sites, block.rho[rows] * q / np.add.reduceat(q, starts)[rows]


def _eigenpair(x: FloatArray, share: FloatArray, value: FloatArray, axis: FloatArray) -> None:
    """Write the top eigenpair of the covariance of rows x (n, D) with weights of sum 1."""
    y = np.sqrt(share)[:, None] * (x - share @ x)
    wide = len(y) <= y.shape[1]
    matrix = y @ y.T if wide else y.T @ y
    last = len(matrix) - 1
    values, vectors = eigh(matrix, subset_by_index=(last, last), check_finite=False)
    along = y.T @ vectors[:, 0] if wide else vectors[:, 0]
    length = float(np.linalg.norm(along))
    if values[0] > 0 and length > 0:
        value[0], axis[:] = values[0], along / length
