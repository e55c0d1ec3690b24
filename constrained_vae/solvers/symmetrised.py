"""The dense symmetrised Jacobian metric^1/2 J metric^-1/2 of the map of a Bregman energy (T8), as a sum over rows.

Unknowns are ordered by site: its D coordinates and, where masses are free, its log prior mass.
"""

from __future__ import annotations

from .._utils import deadline, memory
from .._utils.arrays import Array
from .._utils.device import array_namespace
from ..data.prepared import Block, tree_sum
from ..problems.posterior import Tiles, posterior


def dense_sums(x: Array, rho: Array, q: Array, psi: Array, stiffness: Array, unknowns: int) -> tuple[Array, Array]:
    """The share of some rows in the blocks of single sites (k, n / k, n / k), and in the whole matrix (n, n).

    Parameters
    ----------
    x, rho, q : (N, D), (N,), (N, k) arrays
        Rows with their weights and responsibilities.
    psi, stiffness : (k, D) arrays
        Reconstructions, and the square root of lambda grad^2 f there.
    unknowns : int
        n, which is k D, or k (D + 1) with free masses.
    """
    rows = memory.rows_of_block(unknowns)
    parts = (slice(i, i + rows) for i in range(0, len(x), rows))
    return tree_sum(_dense_sums(x[part], rho[part], q[part], psi, stiffness, unknowns) for part in parts)


def _dense_sums(x: Array, rho: Array, q: Array, psi: Array, stiffness: Array, unknowns: int) -> tuple[Array, Array]:
    deadline.check()
    xp, (k, dim) = array_namespace(x), psi.shape
    scores = stiffness * (x[:, None] - psi)  # of unit displacements
    if unknowns > k * dim:  # the last is that of a log mass
        scores = xp.concat([scores, xp.ones_like(scores[..., :1])], axis=2)
    root = scores * xp.sqrt(rho[:, None] * q)[..., None]
    own = xp.matmul(root.transpose(1, 2, 0), root.transpose(1, 0, 2))
    # Rounding of 1 - q_ib only affects modes that are negligible.
    mean = (root * xp.sqrt(q)[..., None]).reshape(len(x), unknowns)
    return own, -(mean.T @ mean)


def assembled(sums: tuple[Array, Array], per_root_mass: Array) -> Array:
    """The matrix (n, n) from `dense_sums` of all rows and m^-1/2 (k,), which is 0 for a dead site."""
    own, matrix = sums
    k, n = len(own), len(matrix)
    for a in range(k):
        part = slice(a * n // k, (a + 1) * n // k)
        matrix[part, part] += own[a]
    weight = per_root_mass.repeat(n // k)
    return weight[:, None] * matrix * weight


def dense_part(block: Block, tiles: Tiles, psi: Array, stiffness: Array, unknowns: int) -> tuple[Array, Array]:
    """`dense_sums` of a block, for `Problem.total`."""
    return dense_sums(block.x, block.rho, posterior(block, tiles).q, psi, stiffness, unknowns)
