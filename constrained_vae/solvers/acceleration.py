"""Proposals for the next point: plain, SQUAREM, Anderson, L-BFGS. They only propose; `loop` decides.

All see the map as a vector function of a point u with residual r = T(u) - u, and the diagonal metric in which the
Jacobian J of T is symmetric, (m lambda grad^2 f, m) on (psi, log pi) (T8). In that metric -r is the gradient of the
free energy (T6) and I - J its Hessian, so the same history serves fixed-point and quasi-Newton methods. A proposal of
None advises the plain step u + r.

Vectors are arrays of the host or of a device. What is decided by their inner products is decided on the host, from all
of them at once, and comes back as the coefficients of one combination.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
from scipy.linalg.lapack import dtrtrs

from .._utils.arrays import Array, FloatArray
from .._utils.device import array_namespace, numbers, on_host, to_host

MEMORY = 9  # points of the past that are remembered


class Past(NamedTuple):
    """One accepted point: u, its residual r, and whether a plain step from the point before led to it."""

    u: Array
    r: Array
    plain: bool


def plain(history: Sequence[Past], metric: Array) -> Array | None:
    """The map itself."""
    return None


def squarem(history: Sequence[Past], metric: Array) -> Array | None:
    """Squared extrapolation with step length S3 (Varadhan and Roland 2008, Scand. J. Stat. 35): two maps for one."""
    if len(history) < 2 or not history[-1].plain:
        return None
    (u0, r0, _), (_, r1, _) = history[-2:]
    bend = r1 - r0
    first, square = numbers(metric @ r0**2, metric @ bend**2)
    length = np.sqrt(first / square) if square > 0 else 1.0
    return u0 + 2 * length * r0 + length**2 * bend if length > 1 else None


def anderson(history: Sequence[Past], metric: Array) -> Array | None:
    """Anderson mixing (type II): the combination of past residuals that is least in the metric, stepped once.

    It looks for any fixed point: where its step leads uphill, back to a saddle, SQUAREM's proposal takes its place.
    """
    if len(history) < 2:
        return None
    du, dr = differences(history)
    u, r, _ = history[-1]
    # Their coordinates in an orthonormal basis, (dr, r) = QR: unlike inner products they square no condition number.
    vectors = np.sqrt(metric) * array_namespace(r).concat([dr, r[None]])
    R = to_host(cast(Array, np.linalg.qr(vectors.T, mode="r")))
    gamma = np.linalg.lstsq(R[:, :-1], R[:, -1], rcond=1e-10)[0]
    step = r - _combination(gamma, du + dr)
    return u + step if numbers(metric @ (step * r))[0] > 0 else squarem(history, metric)


def lbfgs(history: Sequence[Past], metric: Array) -> Array | None:
    """Limited-memory BFGS (Nocedal 1980) on the free energy in the metric; without a past its step is the plain one.

    Where all of its past curves downwards, as it does on the way from a saddle, SQUAREM's proposal takes its place.
    The inverse Hessian is in compact form (Byrd, Nocedal and Schnabel 1994, Math. Program. 63). With the steps s and
    the changes of the gradient y = (I - J) s as columns of S and Y, R the upper triangle of S^T Y, and d its diagonal,

        H r = r + S q - Y p,    p = R^-1 S^T r,    q = R^-T ((diag(d) + Y^T Y) p - Y^T r).
    """
    if len(history) < 2:
        return None
    (u, r, _), rows, m = history[-1], _changes(history), len(history) - 1  # the rows are s, then -y
    inner, along = _inner_products(rows, metric, r)
    squares, d = inner.diagonal().tolist(), -inner.diagonal(m)
    pairs_of_squares = zip(d.tolist(), squares[:m], squares[m:], strict=True)
    curved = [sy > 0 and sy * sy > 1e-28 * ss * yy for sy, ss, yy in pairs_of_squares]
    if all(curved):
        return u + r + _combination(_compact_bfgs(inner, along, d), rows)
    kept = np.flatnonzero(curved)  # only pairs of positive curvature are part of the Hessian
    if not len(kept):
        return squarem(history, metric)
    pairs, coefficients = np.concatenate([kept, m + kept]), np.zeros(2 * m)
    coefficients[pairs] = _compact_bfgs(inner[np.ix_(pairs, pairs)], along[pairs], d[kept])
    return u + r + _combination(coefficients, rows)


def _compact_bfgs(inner: FloatArray, along: FloatArray, d: FloatArray) -> FloatArray:
    """q and p of `lbfgs`, from all inner products of the rows (s, -y), from those with r, and from s . y."""
    m = len(d)
    upper = -inner[:m, m:]  # LAPACK reads its upper triangle
    p = dtrtrs(upper, along[:m])[0]
    q = dtrtrs(upper, d * p + inner[m:, m:] @ p + along[m:], trans=1)[0]
    return np.concatenate([q, p])


Accelerator = Callable[[Sequence[Past], Array], Array | None]

ACCELERATORS: dict[str, Accelerator] = {
    "plain": plain,
    "squarem": squarem,
    "anderson": anderson,
    "lbfgs": lbfgs,
}


def differences(history: Sequence[Past]) -> tuple[Array, Array]:
    """Differences (du, dr) of successive points and residuals, one per row; to first order dr = -(I - J) du."""
    rows, m = _changes(history), len(history) - 1
    return rows[:m], rows[m:]


def _changes(history: Sequence[Past]) -> Array:
    """The rows of both differences, (2 m, n)."""
    vectors = array_namespace(history[0].u).concat([p.u for p in history] + [p.r for p in history])
    vectors = vectors.reshape((2, len(history), -1))
    return (vectors[:, 1:] - vectors[:, :-1]).reshape((2 * (len(history) - 1), -1))


def _inner_products(rows: Array, metric: Array, r: Array) -> tuple[FloatArray, FloatArray]:
    """On the host, all inner products of rows (m, n) with each other, and with r."""
    scaled = rows * metric
    if on_host(r):
        return scaled @ rows.T, scaled @ r
    inner = to_host(array_namespace(r).concat([scaled @ rows.T, (scaled @ r)[:, None]], axis=1))  # one transfer
    return np.ascontiguousarray(inner[:, :-1]), np.ascontiguousarray(inner[:, -1])


def _combination(coefficients: FloatArray, vectors: Array) -> Array:
    if on_host(vectors):
        return coefficients @ vectors
    return array_namespace(vectors).asarray(coefficients) @ vectors


def contraction_factor(history: Sequence[Past], metric: Array, symmetric: bool = True) -> float:
    """Estimate of the top eigenvalue of J from the past; NaN where it holds no plain step (T10).

    The larger of two views, both from below: the ratio of residuals over the last plain step, and the top Ritz value of
    J on the span of the past steps, which sees a slow mode that the last residuals hide (only where the metric makes J
    symmetric).
    """
    plain_steps = [(a, b) for a, b in pairwise(history) if b.plain]
    if not plain_steps:
        return np.nan
    before, after = numbers(*(metric @ past.r**2 for past in plain_steps[-1]))
    ratio = float(np.sqrt(after / before)) if before > 0 else 0.0
    if not symmetric:
        return ratio
    m, (inner, _) = len(history) - 1, _inner_products(_changes(history), metric, history[-1].r)
    moved = np.flatnonzero(np.diag(inner)[:m] > 0)
    scale = 1 / np.sqrt(np.diag(inner)[moved])
    # Rayleigh and Ritz: the pencil of -<du, dr> and <du, du> on that part of the span that is well conditioned.
    squares, basis = np.linalg.eigh(scale[:, None] * inner[np.ix_(moved, moved)] * scale)
    good = squares > 1e-12 * squares[-1:]
    basis = scale[:, None] * basis[:, good] / np.sqrt(squares[good])
    hessian = -basis.T @ inner[np.ix_(moved, m + moved)] @ basis
    ritz = 1 - float(np.linalg.eigvalsh((hessian + hessian.T) / 2)[0]) if good.any() else 0.0
    return max(ratio, ritz)


def newton_step(product: Callable[[Array], Array], r: Array, metric: Array, most: int = 24) -> tuple[Array, float]:
    """Newton step e ~ (I - J)^-1 r, the distance to the fixed point, by conjugate gradients in the metric.

    Returns e and an estimate of the norm (in the metric) of what is missing from it: the remaining residual over the
    least Ritz value of I - J. Ritz values come from above, so that a slow mode with a small share of the residual may
    be underrated. Where a direction of negative curvature turns up, as at a saddle, that direction comes with infinity.

    Parameters
    ----------
    product : callable
        u -> (I - J) u.
    r, metric : (n,) arrays
        Residual, and the diagonal metric in which J is symmetric.
    most : int
        Budget of products.
    """
    e, s, p = 0 * r, r, r
    (square,) = numbers(metric @ r**2)
    diagonal: list[float] = []  # the Lanczos matrix behind the iteration
    beside: list[float] = []
    missing, previous = np.inf, 0.0
    start = square
    for count in range(1, most + 1):
        image = product(p)
        (curvature,) = numbers(metric @ (p * image))
        if not curvature > 0:
            return p, np.inf
        alpha = square / curvature
        e, s = e + alpha * p, s - alpha * image
        last, (square, found) = square, numbers(metric @ s**2, metric @ e**2)
        ratio = square / last
        diagonal.append(1 / alpha + previous)
        ritz = float(np.linalg.eigvalsh(np.diag(np.array(diagonal)) + np.diag(np.array(beside), -1))[0])
        missing = float(np.sqrt(square)) / ritz if ritz > 0 else np.inf
        if square == 0:
            break
        # A slow mode may hide behind a small share of the residual: a few products at least go looking for it.
        if missing <= 0.5 * np.sqrt(found) and (count >= 4 or square <= 1e-12 * start):
            break
        beside.append(float(np.sqrt(ratio)) / alpha)
        previous = ratio / alpha
        p = s + ratio * p
    return e, missing
