"""Whitened coordinates of reconstructions, for energies that are no Bregman divergence.

With A_a = E_w[d2 H] the curvature of the mean energy of tile a (T9) and u_a = A_a^1/2 (psi_a - origin_a), the Jacobian
of the map is symmetric in the diagonal metric (m, m) of (u, log pi) at a fixed point: there A_a (T(psi) - psi)_a m_a is
minus the gradient of F to first order. So whatever holds of the squared error in its metric (T8), (T10) holds there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._utils.arrays import Array, FloatArray
from .._utils.blas import single_threaded_blas
from .._utils.device import to_host
from ..equations import Expectations
from ..objectives.base import FramedObjective
from ..objectives.decoder_update import hessians
from ..problems.problem import Problem

LARGEST = 128  # dimensions up to which curvatures are formed
_FLAT = 1e-9  # curvature below this share of a tile's largest counts as this: flat directions


@dataclass(frozen=True, eq=False)
class Whitened:
    """The chart; arrays lie where the backend computes.

    Attributes
    ----------
    origin : (k, D) array
        Reconstructions at u = 0.
    root, inverse : (k, D, D) arrays
        A^1/2 and its inverse; zero along coordinates that a box holds, which stay at the origin.
    held : (k, D) bool array
        Those, on the host.
    """

    objective: FramedObjective
    origin: Array
    root: Array
    inverse: Array
    held: np.ndarray

    stiffness = 1.0

    @classmethod
    def at(cls, problem: Problem, psi: Array, expectations: Expectations, image: Array) -> Whitened:
        """The chart about reconstructions psi (k, D), with the curvature at their image under the map."""
        sums = to_host(expectations.mass), to_host(expectations.sums)
        held = _held(problem.framed, to_host(image))
        root, inverse = roots(problem.framed, *sums, to_host(image))
        move = problem.data.to_device
        origin = move(np.where(held, to_host(image), to_host(psi)))
        return cls(problem.framed, origin, move(root), move(inverse), held)

    def fits(self, image: Array) -> bool:
        """Whether the box holds at an image what it holds here."""
        boxed = getattr(self.objective, "box", None) is not None
        return not boxed or bool((self.held == _held(self.objective, to_host(image))).all())

    def slack(self, expectations: Expectations, image: Array) -> Array:
        """How far images (k, D) are from the minimiser of the inner problem (T2): what its arithmetic left, about."""
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
        """Displacement of reconstructions for one of coordinates, (k, D)."""
        return (self.inverse @ u[:, :, None])[:, :, 0]

    def reconstructions(self, u: Array) -> Array:
        return self.objective.reconstructions(self.origin + self.displacement(u))


def curvatures(objective: FramedObjective, mass: FloatArray, sums: FloatArray, psi: FloatArray) -> FloatArray:
    """A_a = sum_i w_ia d2 H_ia / d psi_a^2, (k, D, D), from the sums over the data; the stiffness for a dead tile."""
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
    """A^1/2 and A^-1/2 of every tile, (k, D, D) each; zero along coordinates that a box holds."""
    A = curvatures(objective, mass, sums, psi)
    held = _held(objective, psi)
    _clear(A, held)
    with single_threaded_blas():
        values, vectors = np.linalg.eigh(A)
    values = np.maximum(values, _FLAT * np.maximum(values[:, -1:], objective.stiffness * _FLAT))[:, None]
    root, inverse = ((vectors * values**power) @ vectors.transpose(0, 2, 1) for power in (0.5, -0.5))
    return _clear(root, held), _clear(inverse, held)


def _clear(matrices: FloatArray, held: np.ndarray) -> FloatArray:
    """Rows and columns of held coordinates set to zero, in place."""
    matrices[held] = 0
    matrices.transpose(0, 2, 1)[held] = 0
    return matrices


def _held(objective: FramedObjective, psi: FloatArray) -> np.ndarray:
    """Coordinates (k, D) that a box holds: those that cannot move a little both ways."""
    h = 1e-9
    up, down = (objective.reconstructions(psi + sign * h) for sign in (1, -1))
    return np.asarray((np.abs(up - psi) < h / 2) | (np.abs(down - psi) < h / 2))
