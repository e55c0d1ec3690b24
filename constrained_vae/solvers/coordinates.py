"""Whitened coordinates of reconstructions, for energies that are not Bregman divergences.

Let A_a = E_w[d2 H] be the curvature of the mean energy of tile a (T9), and u_a = A_a^1/2 (psi_a - origin_a). At a
fixed point the Jacobian of the map is symmetric in the diagonal metric (m, m) of (u, log pi), because to first order
A_a (T(psi) - psi)_a m_a is minus the gradient of F. Therefore the statements (T8), (T10) on the squared error in its
metric hold in these coordinates, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._utils.arrays import Array, FloatArray
from .._utils.blas import single_threaded
from .._utils.device import to_host
from .._utils.eigenvectors import eigh
from ..equations import Expectations
from ..objectives.base import FramedObjective
from ..objectives.decoder_update import hessians
from ..problems.problem import Problem

MAX_WHITENED_DIM = 128  # largest number of dimensions for which the curvatures are computed
_FLAT_TOL = 1e-9  # curvatures are at least this share of the largest curvature of the tile (flat directions)


@dataclass(frozen=True, eq=False)
class Whitened:
    """Whitened coordinates; the arrays are on the device of the backend, apart from `held`.

    Attributes
    ----------
    origin : (k, D) array
        Reconstructions at u = 0.
    root, inverse : (k, D, D) arrays
        A^1/2 and its inverse; zero along coordinates held by a box, which remain at the origin.
    held : (k, D) bool array
        Whether a box holds a coordinate; on the host.
    """

    objective: FramedObjective
    origin: Array
    root: Array
    inverse: Array
    held: np.ndarray

    stiffness = 1.0

    @classmethod
    def at(cls, problem: Problem, psi: Array, expectations: Expectations, image: Array) -> Whitened:
        """Coordinates with origin psi (k, D) and with the curvature at the image of psi under the map."""
        sums = to_host(expectations.mass), to_host(expectations.sums)
        held = _held(problem.framed, to_host(image))
        root, inverse = roots(problem.framed, *sums, to_host(image))
        move = problem.data.to_device
        origin = move(np.where(held, to_host(image), to_host(psi)))
        return cls(problem.framed, origin, move(root), move(inverse), held)

    def fits(self, image: Array) -> bool:
        """Whether the box holds the same coordinates at the image as at the origin."""
        boxed = getattr(self.objective, "box", None) is not None
        return not boxed or bool((self.held == _held(self.objective, to_host(image))).all())

    def slack(self, expectations: Expectations, image: Array) -> Array:
        """Approximate distances (k, D) of images from the exact decoder update (T2), caused by finite precision."""
        mass, sums, points = (to_host(array) for array in (expectations.mass, expectations.sums, image))
        alive = mass > 0
        left = np.zeros_like(points)
        target = sums[alive] / mass[alive, None]
        left[alive] = to_host(self.objective.pullback(points[alive], target, np.ones(len(target))))
        inverse = to_host(self.inverse)
        return (inverse @ (inverse @ left[:, :, None]))[:, :, 0]

    def coordinates(self, psi: Array) -> Array:
        return (self.root @ (psi - self.origin)[:, :, None])[:, :, 0]

    def displacement(self, u: Array) -> Array:
        """Displacement of reconstructions (k, D) for a displacement of coordinates (k, D)."""
        return (self.inverse @ u[:, :, None])[:, :, 0]

    def reconstructions(self, u: Array) -> Array:
        return self.objective.reconstructions(self.origin + self.displacement(u))


def curvatures(objective: FramedObjective, mass: FloatArray, sums: FloatArray, psi: FloatArray) -> FloatArray:
    """A_a = sum_i w_ia d2 H_ia / d psi_a^2, (k, D, D), from the sums over the data; for dead tiles the stiffness."""
    dim = psi.shape[1]
    alive = np.flatnonzero(mass > 0)
    target = sums[alive] / mass[alive, None]

    def gradient(points: FloatArray, tiles: np.ndarray) -> FloatArray:
        return -to_host(objective.pullback(points, target[tiles], np.ones(len(points))))

    A = np.repeat(objective.stiffness * np.eye(dim)[None], len(psi), axis=0)
    A[alive] = hessians(gradient, psi[alive])
    return A


def roots(
    objective: FramedObjective, mass: FloatArray, sums: FloatArray, psi: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """A^1/2 and A^-1/2 of every tile, (k, D, D) each; zero along coordinates held by a box."""
    A = curvatures(objective, mass, sums, psi)
    held = _held(objective, psi)
    _clear(A, held)
    values, vectors = single_threaded(eigh, A)
    values = np.maximum(values, _FLAT_TOL * np.maximum(values[:, -1:], objective.stiffness * _FLAT_TOL))[:, None]
    root, inverse = ((vectors * values**power) @ vectors.transpose(0, 2, 1) for power in (0.5, -0.5))
    return _clear(root, held), _clear(inverse, held)


def _clear(matrices: FloatArray, held: np.ndarray) -> FloatArray:
    """Set rows and columns of held coordinates to zero, in place."""
    matrices[held] = 0
    matrices.transpose(0, 2, 1)[held] = 0
    return matrices


def _held(objective: FramedObjective, psi: FloatArray) -> np.ndarray:
    """Whether a box holds a coordinate, (k, D): the coordinate cannot move up or cannot move down by 1e-9."""
    h = 1e-9
    up, down = (objective.reconstructions(psi + sign * h) for sign in (1, -1))
    return np.asarray((np.abs(up - psi) < h / 2) | (np.abs(down - psi) < h / 2))
