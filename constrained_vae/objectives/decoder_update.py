"""Decoder update (T2) for energies without a closed form: it minimises the mean energy of every tile.

The method is Newton's with one trust region per tile; the tiles are independent and are computed together. Conjugate
gradients find the steps (Steihaug 1983, SIAM J. Numer. Anal. 20); differences of the gradient replace products with the
Hessian. A step is accepted if the value decreases or, if the difference of the values is rounding, if the norm of the
gradient is halved. Therefore the energy never increases beyond rounding. A projection keeps the bounds (Bertsekas 1982,
SIAM J. Control Optim. 20).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .._utils import deadline
from .._utils.arrays import FloatArray

_STEPS = 60  # largest number of Newton steps; about five are usual
_PRODUCTS = 60  # largest number of products with the Hessian per step
_DIFFERENCE_STEP = 3e-4  # step of differences of fourth order, in units of the radius of the data

_EPS = float(np.finfo(np.float64).eps)

Values = Callable[[FloatArray, npt.NDArray[np.intp]], FloatArray]  # function of points (n, D) and tile numbers (n,)


def minimise(
    value: Values,
    gradient: Values,
    psi: FloatArray,
    scale: float,
    bounds: tuple[FloatArray | float, FloatArray | float] = (-np.inf, np.inf),
    inverse: FloatArray | None = None,
    flat: float = 0.0,
) -> FloatArray:
    """Local minimisers (k, D), one per tile, found by descent from psi (k, D).

    Parameters
    ----------
    value, gradient : callable
        Functions of points (n, D) and their tile numbers (n,), which return arrays (n,) and (n, D).
    psi : (k, D) array
        Start, within the bounds.
    scale : float
        Approximate curvature, in units in which the radius of the data is 1.
    bounds : (low, high)
        Numbers or (D,) arrays.
    inverse : (k, D, D) array, optional
        Approximate A^-1/2 of the curvatures A; steps are computed in coordinates scaled by it. It must not be combined
        with bounds.
    flat : float
        Norm of the gradient, in root nats, at which a tile has converged; by default only rounding, or a deadline, ends
        the iteration.
    """
    (low, high), psi, k = bounds, psi.copy(), len(psi)
    # Steps are C s with |s| in root nats; C^T A C is approximately the identity.
    C = inverse if inverse is not None else scale**-0.5
    tiles = np.arange(k)
    f, g = value(psi, tiles), gradient(psi, tiles)
    radius = np.full(k, np.sqrt(scale))
    for _ in range(_STEPS):
        here, f0, g0 = psi[tiles], f[tiles], _free(psi[tiles], g[tiles], low, high)
        size = _norm(_times(C, tiles, g0))
        going = size > max(4 * _EPS * np.sqrt(scale), flat)
        if not going.any() or deadline.passed():
            break
        tiles, here, f0, g0, size = tiles[going], here[going], f0[going], g0[going], size[going]
        accuracy = np.clip(size / np.sqrt(scale), 1e-9, 0.1)
        step, predicted = _newton(gradient, here, tiles, g0, C, radius[tiles], accuracy)
        there = np.clip(here + _times(C, tiles, step), low, high)
        f1, g1 = value(there, tiles), gradient(there, tiles)
        size1 = _norm(_times(C, tiles, _free(there, g1, low, high)))

        fall = f0 - f1
        rounding = np.abs(fall) <= 32 * _EPS * (1 + np.abs(f0))
        better = np.where(rounding, size1 < 0.5 * size, fall > 0)
        ratio = np.divide(fall, predicted, out=np.zeros_like(fall), where=predicted > 0)
        length = _norm(step)
        radius[tiles] = np.where(
            better & (rounding | (ratio > 0.75)),
            np.maximum(radius[tiles], 2 * length),
            np.where(ratio < 0.25, length / 4, radius[tiles]),
        )
        chosen = tiles[better]
        psi[chosen], f[chosen], g[chosen] = there[better], f1[better], g1[better]
        # A tile is finished if its step was rejected and either the difference was rounding or the step was too short.
        tiles = tiles[better | ~rounding & (length > _EPS * np.sqrt(scale))]
    return psi


def _free(psi: FloatArray, g: FloatArray, low: FloatArray | float, high: FloatArray | float) -> FloatArray:
    """The gradient, with zeros for coordinates that lie at a bound and would leave it."""
    return np.where(((psi <= low) & (g > 0)) | ((psi >= high) & (g < 0)), 0.0, g)


def _times(C: FloatArray | float, tiles: npt.NDArray[np.intp], vectors: FloatArray) -> FloatArray:
    """The products C_a v_a, (n, D)."""
    return (C[tiles] @ vectors[:, :, None])[:, :, 0] if isinstance(C, np.ndarray) else C * vectors


def _norm(vectors: FloatArray) -> FloatArray:
    return np.sqrt(np.square(vectors).sum(axis=1))


def _newton(
    gradient: Values,
    psi: FloatArray,
    tiles: npt.NDArray[np.intp],
    g: FloatArray,
    C: FloatArray | float,
    radius: FloatArray,
    accuracy: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Steps s (n, D) no longer than the radius, and the decreases (n,) that the quadratic model predicts for them."""
    moving = g != 0
    g = _times(C, tiles, g)
    p, Hp, r, d = 0 * g, 0 * g, -g, -g
    square, target = np.square(g).sum(axis=1), accuracy * _norm(g)
    going = np.arange(len(g))
    for _ in range(min(_PRODUCTS, 2 * g.shape[1] + 2)):
        direction, some = d[going], tiles[going]
        shift = _times(C, some, direction)
        h = _EPS ** (1 / 3) / _norm(shift)[:, None]
        ahead, behind = np.split(
            gradient(np.concatenate([psi[going] + h * shift, psi[going] - h * shift]), np.tile(some, 2)), 2
        )
        image = _times(C, some, np.where(moving[going], (ahead - behind) / (2 * h), 0.0))
        curvature = (direction * image).sum(axis=1)
        along = (p[going] * direction).sum(axis=1)
        length = np.square(direction).sum(axis=1)
        # The longest step t along the direction solves |p + t d|^2 = radius^2.
        room = radius[going] ** 2 - np.square(p[going]).sum(axis=1)
        most = (np.sqrt(along**2 + length * room.clip(0)) - along) / length
        bowl = curvature > 0
        alpha = np.where(bowl, square[going] / np.where(bowl, curvature, 1.0), np.inf)
        inside = alpha < most
        alpha = np.minimum(alpha, most)[:, None]
        p[going] += alpha * direction
        Hp[going] += alpha * image
        r[going] -= alpha * image
        now = np.square(r[going]).sum(axis=1)
        d[going] = r[going] + (now / square[going])[:, None] * direction
        square[going] = now
        going = going[inside & (np.sqrt(now) > target[going])]
        if not len(going) or deadline.passed():
            break
    return p, -(p * (g + Hp / 2)).sum(axis=1)


def stencil(psi: FloatArray) -> tuple[FloatArray, Callable[[FloatArray], FloatArray]]:
    """Points (n, D, 4, D) around psi (n, D), and a function from values (n, D, 4, ...) to derivatives (n, D, ...).

    The derivatives are central differences of fourth order. Their error is 1e-12 for functions that vary on the scale
    of the data.
    """
    dim = psi.shape[1]
    offsets = _DIFFERENCE_STEP * np.array([1.0, -1.0, 2.0, -2.0])
    points = psi[:, None, None, :] + offsets[:, None] * np.eye(dim)[:, None, :]
    weights = np.array([8.0, -8.0, -1.0, 1.0]) / (12 * _DIFFERENCE_STEP)
    return points, lambda values: np.tensordot(values, weights, axes=(2, 0))


def hessians(gradient: Values, psi: FloatArray, rows: int = 4096) -> FloatArray:
    """Second derivatives (k, D, D) of every tile as differences of its gradient, at about `rows` points at a time."""
    k, dim = psi.shape
    found, group = np.empty((k, dim, dim)), max(1, rows // (4 * dim))
    for start in range(0, k, group):
        deadline.check()
        part = np.arange(start, min(start + group, k))
        points, derivative = stencil(psi[part])
        slopes = gradient(points.reshape(-1, dim), part.repeat(4 * dim)).reshape(len(part), dim, 4, dim)
        hessian = derivative(slopes)
        found[part] = (hessian + hessian.transpose(0, 2, 1)) / 2
    return found


def readout_slopes(readout: Callable[[FloatArray], tuple[FloatArray, FloatArray]], psi: FloatArray) -> FloatArray:
    """Derivatives (k, S, D) of the part v of a readout."""
    found = []
    for point in psi:
        deadline.check()
        points, derivative = stencil(point[None])
        v, _ = readout(points.reshape(-1, psi.shape[1]))
        found.append(derivative(v.reshape(1, psi.shape[1], 4, -1))[0].T)
    return np.stack(found)
