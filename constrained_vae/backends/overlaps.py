"""CPU kernel of the overlaps of reconstructions, which the best prior masses of very many rows need (T14).

An overlap is sum_i exp(w_i - H_ia - H_ib), with an energy lambda ||x_i - psi_a||^2 in a few dimensions. The rows come
in blocks; a block leaves out the reconstructions whose largest term in it, exp(w_i / 2 - H_ia), is below a limit. Sizes
alone divide the work, and the sums of several threads are added in a fixed order: the bits do not depend on the number
of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from .._utils.arrays import Array, FloatArray
from .._utils.blas import single_threaded
from .arithmetic import exp, frozen, maximum, multiply_add
from .compilation import ParallelKernel, jit
from .pruning import surround

_ROWS = 256  # of a block
_ENTRIES = 2**25  # of all sums together
_CHUNKS = 8  # most sums


def overlaps(phi: Array, log_weights: Array, lam: float, psi: Array, limit: float) -> FloatArray:
    """The overlaps (k, k) of reconstructions.

    Parameters
    ----------
    phi : (N, D) array
        The rows, in an order in which near ones are together.
    log_weights : (N,) array
        w.
    lam : float
        Multiplier of the squared distance.
    psi : (k, D) array
        Reconstructions.
    limit : float
        Terms exp(w_i / 2 - H_ia) whose logarithm is smaller may be left out.
    """
    k = len(psi)
    chunks = max(1, min(_CHUNKS, _ENTRIES // k**2, -(-len(phi) // _ROWS)))
    sums = np.zeros((chunks, k, k))
    arrays = (frozen(array, np.float64) for array in (phi, log_weights, psi))
    single_threaded(_summed, *arrays, float(lam), float(limit), sums)
    return np.asarray(sums.sum(axis=0))


@ParallelKernel
def _summed(phi: Array, log_weights: Array, psi: Array, lam: float, limit: float, sums: Array) -> None:
    chunks, blocks = len(sums), -(-len(phi) // _ROWS)
    for chunk in prange(chunks):
        number = np.int64(chunk)
        first, last = number * blocks // chunks, (number + 1) * blocks // chunks
        near, S = np.empty(len(psi), np.int64), np.empty((len(psi), _ROWS))
        for block in range(first, last):
            i, j = block * _ROWS, min((block + 1) * _ROWS, len(phi))
            _add_block(phi[i:j], log_weights[i:j], psi, lam, limit, near, S, sums[number])


@jit
def _add_block(
    phi: Array, log_weights: Array, psi: Array, lam: float, limit: float, near: Array, S: Array, sums: Array
) -> None:
    (n, dim), count = phi.shape, 0
    box, heaviest = np.empty((2, dim)), log_weights.max()
    surround(phi, box)
    for a in range(len(psi)):
        far = 0.0
        for d in range(dim):
            far += max(0.0, max(box[0, d] - psi[a, d], psi[a, d] - box[1, d])) ** 2
        near[count] = a
        count += heaviest / 2 - lam * far >= limit
    if count == 0:
        return
    x = np.empty((dim, n))
    for i in range(n):
        for d in range(dim):
            x[d, i] = phi[i, d]
    top = -np.inf
    for m in range(count):
        row = S[m]
        row[:] = 0.0
        for d in range(dim):
            y = psi[near[m], d]
            for i in range(n):
                z = x[d, i] - y
                row[i] = multiply_add(z, z, row[i])
        for i in range(n):
            row[i] = log_weights[i] / 2 - lam * row[i]
            top = maximum(top, row[i])
    for m in range(count):
        row = S[m]
        for i in range(n):
            row[i] = exp(row[i] - top)
        row[n:] = 0.0
    product, factor = np.empty((count, count)), math.exp(2 * top)
    np.dot(S[:count], S[:count].T, product)
    for m in range(count):
        row, part = sums[near[m]], product[m]
        for other in range(count):
            row[near[other]] += factor * part[other]
