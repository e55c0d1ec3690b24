"""The reference backend: the equations in a loop over row blocks. The tests compare every other backend with it."""

from __future__ import annotations

import numpy as np
from scipy.special import factorial, logsumexp

from .. import equations
from .._utils import memory
from .._utils.arrays import Array, FloatArray
from .._utils.device import check_together
from ..equations import Expectations
from .expansions import Expansions, Polynomials, ProofRows


def expectations(
    statistics: Array,
    offset: Array,
    weights: Array,
    v: Array,
    b: Array,
    log_masses: Array,
    quadratic: float | None = None,
) -> Expectations:
    """Expectations of all rows, summed over row blocks in order; `constrained_vae.backends` documents the arguments.

    All arrays must be NumPy arrays or all must be CuPy arrays, otherwise ValueError is raised.
    """
    check_together(statistics=statistics, offset=offset, weights=weights, v=v, b=b, log_masses=log_masses)
    rows = memory.rows_of_block(len(b))
    parts = (slice(i, i + rows) for i in range(0, len(weights), rows))
    blocks = [
        equations.expectations(statistics[part], offset[part], weights[part], v, b, log_masses, quadratic)
        for part in parts
    ]
    return sum(blocks[1:], start=blocks[0])


def coverage(
    statistics: Array,
    offset: Array,
    log_shares: Array,
    v: Array,
    b: Array,
    quadratic: float | None = None,
    with_means: bool = True,
) -> tuple[FloatArray, FloatArray | None]:
    """log c (n,) and means (n, S) of the statistics; `constrained_vae.backends` documents the arguments."""
    points = memory.rows_of_block(len(statistics))
    values, means = [], []
    for i in range(0, len(v), points):
        part = slice(i, i + points)
        H = np.ascontiguousarray(equations.energies(statistics, offset, v[part], b[part], quadratic).T)
        value, shares = equations.coverage(H, log_shares)
        values.append(value)
        means.append(shares @ statistics if with_means else shares[:, :0])
    return np.concatenate(values), np.concatenate(means) if with_means else None


def proof_rows(statistics: Array, log_shares: Array, lam: float) -> ProofRows:
    """Rows of a proof; `constrained_vae.backends` documents the arguments."""
    return ProofRows(statistics, log_shares, lam)


def expansions(rows: ProofRows, points: Array, half: Array) -> Expansions:
    """What branch and bound needs of log c in boxes; `constrained_vae.backends` documents the arguments."""
    radius = float(np.linalg.norm(half))
    count = memory.rows_of_block(8 * len(rows.statistics))
    blocks = [_expansions(*rows[:3], points[i : i + count], half, radius) for i in range(0, len(points), count)]
    return Expansions(*map(np.concatenate, zip(*blocks, strict=True)))


def _expansions(x: Array, log_shares: Array, lam: float, y: Array, half: Array, radius: float) -> Expansions:
    deviations = x - y[:, None]  # of few dimensions
    logits = log_shares - lam * np.square(deviations).sum(axis=2)
    values = logsumexp(logits, axis=1)
    u = np.exp(logits - values[:, None])
    shifts = (u[:, :, None] * deviations).sum(axis=1)
    deviations -= shifts[:, None]
    covariances = np.einsum("ni,nid,nie->nde", u, deviations, deviations)
    t = 2 * lam * radius * np.sqrt(np.square(deviations).sum(axis=2))
    with np.errstate(over="ignore", invalid="ignore"):
        w = np.exp(logits - values[:, None] + t)
        moments = np.stack([(w * t**2).sum(axis=1), (w * t**3).sum(axis=1)], axis=1)
    outside = np.maximum(np.abs(x - y[:, None]) - half, 0.0)
    outer = logsumexp(log_shares - lam * np.square(outside).sum(axis=2), axis=1)
    return Expansions(values, shifts, covariances, moments, outer, np.full(len(y), -np.inf))


def polynomials(rows: ProofRows, points: Array, half: Array, degree: int) -> Polynomials:
    """Polynomials of c in boxes in one or two dimensions; `constrained_vae.backends` documents the arguments."""
    count = memory.rows_of_block(4 * degree * len(rows.statistics))
    blocks = [_polynomials(*rows[:3], points[i : i + count], half, degree) for i in range(0, len(points), count)]
    return Polynomials(*map(np.concatenate, zip(*blocks, strict=True)))


def _polynomials(x: Array, log_shares: Array, lam: float, y: Array, half: Array, degree: int) -> Polynomials:
    deviations = x - y[:, None]
    logits = log_shares - lam * np.square(deviations).sum(axis=2)
    values = logsumexp(logits, axis=1)
    u = np.exp(logits - values[:, None])
    t = 2 * lam * half * deviations
    numbers = np.arange(degree + 1)
    powers = t[..., None] ** numbers / factorial(numbers)  # (n, N, D, p + 1)
    other = powers[:, :, 1] if t.shape[2] == 2 else np.ones((*t.shape[:2], 1))
    coefficients = np.einsum("ni,nik,nil->nkl", u, powers[:, :, 0], other)
    size = np.abs(t).sum(axis=2)
    with np.errstate(over="ignore"):
        tilted = np.exp(logits - values[:, None] + size)
        remainders = (tilted * size ** (degree + 1)).sum(axis=1) / factorial(degree + 1)
        sizes = tilted.sum(axis=1)
    return Polynomials(values, coefficients, remainders, sizes, np.full(len(y), -np.inf))
