"""Acceleration schemes, which propose the next point: plain, SQUAREM, Anderson, L-BFGS. `loop` accepts or rejects it.

The schemes treat the map as a vector function of a point u with the residual r = T(u) - u, and use the diagonal metric
in which the Jacobian J of T is symmetric, (m lambda grad^2 f, m) on (psi, log pi) (T8). In that metric -r is the
gradient of the free energy (T6) and I - J its Hessian, so that fixed-point and quasi-Newton methods can use the same
history. The proposal None stands for the plain step u + r.

Vectors are arrays on the host or on a device. All inner products of a scheme are copied to the host at once, and its
result is one linear combination of vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
from scipy.linalg.lapack import dtrtrs

from .._utils.arrays import Array, FloatArray
from .._utils.device import array_namespace, numbers, on_host, to_host

MAX_PAST = 9  # number of accepted points in the history


class Past(NamedTuple):
    """One accepted point: u, its residual r, whether it is the plain image of the point before, and the changes."""

    u: Array
    r: Array
    plain: bool
    du: Array  # from the point before; zero for the first one
    dr: Array


def extended(history: Sequence[Past], u: Array, r: Array, plain: bool) -> list[Past]:
    """The history with one more point, and without the oldest one if it is full."""
    before = history[-1] if history else Past(u, r, plain, u, r)
    return [*history[1 - MAX_PAST :], Past(u, r, plain, u - before.u, r - before.r)]


def plain(history: Sequence[Past], metric: Array) -> Array | None:
    """No acceleration: the plain step."""
    return None


def squarem(history: Sequence[Past], metric: Array) -> Array | None:
    """Squared extrapolation with step length S3 (Varadhan and Roland 2008, Scand. J. Stat. 35) after a plain step."""
    if len(history) < 2 or not history[-1].plain:
        return None
    (u0, r0, *_), (*_, bend) = history[-2:]
    first, square = numbers(metric @ r0**2, metric @ bend**2)
    length = np.sqrt(first / square) if square > 0 else 1.0
    return u0 + 2 * length * r0 + length**2 * bend if length > 1 else None


def anderson(history: Sequence[Past], metric: Array) -> Array | None:
    """Anderson mixing (type II): the combination of past points with the least residual in the metric, after one step.

    Anderson mixing converges to any fixed point. If its step leads uphill, back to a saddle, the proposal of SQUAREM
    replaces it.
    """
    if len(history) < 2:
        return None
    du, dr = differences(history)
    u, r, *_ = history[-1]
    # Coordinates in an orthonormal basis, (dr, r) = QR: unlike inner products they do not square the condition number.
    vectors = np.sqrt(metric) * array_namespace(r).concat([dr, r[None]])
    R = to_host(cast(Array, np.linalg.qr(vectors.T, mode="r")))
    gamma = np.linalg.lstsq(R[:, :-1], R[:, -1], rcond=1e-10)[0]
    step = r - _combination(gamma, du + dr)
    return u + step if numbers(metric @ (step * r))[0] > 0 else squarem(history, metric)


def lbfgs(history: Sequence[Past], metric: Array) -> Array | None:
    """Limited-memory BFGS (Nocedal 1980) on the free energy in the metric; the plain step if there is no history.

    If all past steps have negative curvature, as near a saddle, the proposal of SQUAREM replaces it. The inverse
    Hessian is in compact form (Byrd, Nocedal and Schnabel 1994, Math. Program. 63). Let the columns of S and Y be the
    steps s and the changes of the gradient y = (I - J) s, R the upper triangle of S^T Y, and d its diagonal. Then

        H r = r + S q - Y p,    p = R^-1 S^T r,    q = R^-T ((diag(d) + Y^T Y) p - Y^T r).
    """
    if len(history) < 2:
        return None
    (u, r, *_), rows, m = history[-1], _changes(history), len(history) - 1  # the rows are s, then -y
    inner, along = _inner_products(rows, metric, r)
    squares, d = inner.diagonal().tolist(), -inner.diagonal(m)
    pairs_of_squares = zip(d.tolist(), squares[:m], squares[m:], strict=True)
    curved = [sy > 0 and sy * sy > 1e-28 * ss * yy for sy, ss, yy in pairs_of_squares]
    if all(curved):
        return u + r + _combination(_compact_bfgs(inner, along, d), rows)
    kept = np.flatnonzero(curved)  # the Hessian uses only pairs of positive curvature
    if not len(kept):
        return squarem(history, metric)
    pairs, coefficients = np.concatenate([kept, m + kept]), np.zeros(2 * m)
    coefficients[pairs] = _compact_bfgs(inner[np.ix_(pairs, pairs)], along[pairs], d[kept])
    return u + r + _combination(coefficients, rows)


def _compact_bfgs(inner: FloatArray, along: FloatArray, d: FloatArray) -> FloatArray:
    """q and p of `lbfgs` from the inner products of the rows (s, -y) with each other and with r, and from s . y."""
    m = len(d)
    upper = -inner[:m, m:]  # LAPACK reads only its upper triangle
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
    """Differences (du, dr) of successive points and residuals, as rows; to first order dr = -(I - J) du."""
    rows, m = _changes(history), len(history) - 1
    return rows[:m], rows[m:]


def _changes(history: Sequence[Past]) -> Array:
    """The differences du, then the differences dr, as rows (2 m, n)."""
    *_, du, dr = zip(*history[1:], strict=True)
    return array_namespace(du[0]).concat(du + dr).reshape((2 * len(du), -1))


def _inner_products(rows: Array, metric: Array, r: Array) -> tuple[FloatArray, FloatArray]:
    """All inner products of rows (m, n) with each other, and with r, on the host."""
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
    """Estimate of the top eigenvalue of J from the history; NaN if the history has no plain step (T10).

    It is the larger of two lower bounds: the ratio of residuals over the last plain step and, if J is symmetric in the
    metric, the top Ritz value of J on the span of the past steps. The latter includes slow modes with a small share of
    the last residuals.
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
    # Rayleigh-Ritz method: the pencil of -<du, dr> and <du, du> on the well-conditioned part of the span.
    squares, basis = np.linalg.eigh(scale[:, None] * inner[np.ix_(moved, moved)] * scale)
    good = squares > 1e-12 * squares[-1:]
    basis = scale[:, None] * basis[:, good] / np.sqrt(squares[good])
    hessian = -basis.T @ inner[np.ix_(moved, m + moved)] @ basis
    ritz = 1 - float(np.linalg.eigvalsh((hessian + hessian.T) / 2)[0]) if good.any() else 0.0
    return max(ratio, ritz)


def newton_step(product: Callable[[Array], Array], r: Array, metric: Array, most: int = 24) -> tuple[Array, float]:
    """Newton step e ~ (I - J)^-1 r to the fixed point, by conjugate gradients in the metric.

    Returns e and an estimate of the norm of its error in the metric: the remaining residual over the least Ritz value
    of I - J. Ritz values are upper bounds of the least eigenvalue, so that the error may be underestimated if a slow
    mode has a small share of the residual. If a direction has negative curvature, as at a saddle, the function returns
    this direction and infinity.

    Parameters
    ----------
    product : callable
        u -> (I - J) u.
    r, metric : (n,) arrays
        Residual, and the diagonal metric in which J is symmetric.
    most : int
        Largest number of products.
    """
    e, s, p = 0 * r, r, r
    (square,) = numbers(metric @ r**2)
    diagonal: list[float] = []  # of the Lanczos matrix of the iteration
    off_diagonal: list[float] = []  # entries next to the diagonal
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
        ritz = float(np.linalg.eigvalsh(np.diag(np.array(diagonal)) + np.diag(np.array(off_diagonal), -1))[0])
        missing = float(np.sqrt(square)) / ritz if ritz > 0 else np.inf
        if square == 0:
            break
        # A slow mode may have a small share of the residual: at least a few products are needed to find it.
        if missing <= 0.5 * np.sqrt(found) and (count >= 4 or square <= 1e-12 * start):
            break
        off_diagonal.append(float(np.sqrt(ratio)) / alpha)
        previous = ratio / alpha
        p = s + ratio * p
    return e, missing
