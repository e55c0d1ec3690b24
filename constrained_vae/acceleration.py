"""Proposals for the next point: plain, SQUAREM, Anderson, L-BFGS. They only propose; `loop` decides.

All see the map as a vector function of a point u with residual r = T(u) - u, and the diagonal metric in which the
Jacobian J of T is symmetric, (m lambda grad^2 f, m) on (psi, log pi) (T8). In that metric -r is the gradient of the
free energy (T6) and I - J its Hessian, so the same history serves fixed-point and quasi-Newton methods. A proposal of
None advises the plain step u + r.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ._checks import FloatArray

MEMORY = 9  # points of the past that are remembered


class Past(NamedTuple):
    """One accepted point: u, its residual r, and whether a plain step from the point before led to it."""

    u: FloatArray
    r: FloatArray
    plain: bool


def plain(history: Sequence[Past], metric: FloatArray) -> FloatArray | None:
    """The map itself."""
    return None


def squarem(history: Sequence[Past], metric: FloatArray) -> FloatArray | None:
    """Squared extrapolation with step length S3 (Varadhan and Roland 2008, Scand. J. Stat. 35): two maps for one."""
    if len(history) < 2 or not history[-1].plain:
        return None
    (u0, r0, _), (_, r1, _) = history[-2:]
    bend = r1 - r0
    square = metric @ bend**2
    length = np.sqrt(metric @ r0**2 / square) if square > 0 else 1.0
    return u0 + 2 * length * r0 + length**2 * bend if length > 1 else None


def anderson(history: Sequence[Past], metric: FloatArray) -> FloatArray | None:
    """Anderson mixing (type II): the combination of past residuals that is least in the metric, stepped once.

    It looks for any fixed point: where its step leads uphill, back to a saddle, SQUAREM's proposal takes its place.
    """
    if len(history) < 2:
        return None
    du, dr = differences(history)
    u, r, _ = history[-1]
    root = np.sqrt(metric)
    gamma = np.linalg.lstsq((root * dr).T, root * r, rcond=1e-10)[0]
    step = r - gamma @ (du + dr)
    return u + step if metric @ (step * r) > 0 else squarem(history, metric)


def lbfgs(history: Sequence[Past], metric: FloatArray) -> FloatArray | None:
    """Limited-memory BFGS (Nocedal 1980) on the free energy in the metric; without a past its step is the plain one.

    Where all of its past curves downwards, as it does on the way from a saddle, SQUAREM's proposal takes its place.
    """
    if len(history) < 2:
        return None
    s, y = differences(history)
    y = -y  # (I - J) s
    sy = (s * y) @ metric
    positive = sy > 1e-14 * np.sqrt((s * s) @ metric * ((y * y) @ metric))
    pairs = list(zip(s[positive], y[positive], sy[positive], strict=True))
    u, step, _ = history[-1]
    coefficients = []
    for du, dy, product in reversed(pairs):
        coefficients.append((metric * du) @ step / product)
        step = step - coefficients[-1] * dy
    for (du, dy, product), coefficient in zip(pairs, reversed(coefficients), strict=True):
        step = step + (coefficient - (metric * dy) @ step / product) * du
    return u + step if pairs else squarem(history, metric)


ACCELERATORS: dict[str, Callable[[Sequence[Past], FloatArray], FloatArray | None]] = {
    "plain": plain,
    "squarem": squarem,
    "anderson": anderson,
    "lbfgs": lbfgs,
}


def differences(history: Sequence[Past]) -> tuple[FloatArray, FloatArray]:
    """Differences (du, dr) of successive points and residuals, one per row; to first order dr = -(I - J) du."""
    return np.diff([p.u for p in history], axis=0), np.diff([p.r for p in history], axis=0)


def contraction_factor(history: Sequence[Past], metric: FloatArray, symmetric: bool = True) -> float:
    """Estimate of the top eigenvalue of J from the past; NaN where it holds no plain step (T10).

    The larger of two views, both from below: the ratio of residuals over the last plain step, and the top Ritz value of
    J on the span of the past steps, which sees a slow mode that the last residuals hide (only where the metric makes J
    symmetric).
    """
    norms = [float(np.sqrt(metric @ p.r**2)) for p in history]
    ratios = [b / a for a, b, p in zip(norms, norms[1:], history[1:], strict=False) if p.plain and a > 0]
    if not ratios or not symmetric:
        return ratios[-1] if ratios else np.nan
    du, dr = differences(history)
    length = np.sqrt((du * du) @ metric)
    moved = length > 0
    du, dr = du[moved] / length[moved, None], dr[moved] / length[moved, None]
    # Rayleigh and Ritz: the pencil of -<du, dr> and <du, du> on that part of the span that is well conditioned.
    squares, basis = np.linalg.eigh((du * metric) @ du.T)
    good = squares > 1e-12 * squares[-1:]
    basis = basis[:, good] / np.sqrt(squares[good])
    hessian = -basis.T @ ((du * metric) @ dr.T) @ basis
    ritz = 1 - float(np.linalg.eigvalsh((hessian + hessian.T) / 2)[0]) if good.any() else 0.0
    return max(ratios[-1], ritz)


def newton_step(
    product: Callable[[FloatArray], FloatArray], r: FloatArray, metric: FloatArray, most: int = 24
) -> tuple[FloatArray, float]:
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
    e, s, p = np.zeros_like(r), r, r
    square = float(metric @ r**2)
    diagonal: list[float] = []  # the Lanczos matrix behind the iteration
    beside: list[float] = []
    missing, previous = np.inf, 0.0
    start = square
    for count in range(1, most + 1):
        image = product(p)
        curvature = float(metric @ (p * image))
        if not curvature > 0:
            return p, np.inf
        alpha = square / curvature
        e, s = e + alpha * p, s - alpha * image
        square, last = float(metric @ s**2), square
        ratio = square / last
        diagonal.append(1 / alpha + previous)
        ritz = float(np.linalg.eigvalsh(np.diag(np.array(diagonal)) + np.diag(np.array(beside), -1))[0])
        missing = float(np.sqrt(square)) / ritz if ritz > 0 else np.inf
        if square == 0:
            break
        # A slow mode may hide behind a small share of the residual: a few products at least go looking for it.
        if missing <= 0.5 * np.sqrt(metric @ e**2) and (count >= 4 or square <= 1e-12 * start):
            break
        beside.append(float(np.sqrt(ratio)) / alpha)
        previous = ratio / alpha
        p = s + ratio * p
    return e, missing
