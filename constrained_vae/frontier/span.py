"""The problem in coordinates of the space that the data span, where they have fewer points than dimensions.

The optimum's reconstructions are means of data, and a squared distance is the same in any orthonormal coordinates of
the space of the data. N points span at most N - 1 dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from .._utils.arrays import FloatArray
from ..data.prepared import PreparedData
from ..objectives.elbo import ELBO
from ..problems.problem import Problem
from .data_passes import DataPasses

_SHARE = 0.8  # share of the dimensions up to which the data are projected
_LARGEST = 2**26  # entries of the data of which a singular value decomposition is computed
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Span:
    """A space that contains the data.

    Attributes
    ----------
    origin : (D,) array
        A point of the space.
    axes : (r, D) array
        Orthonormal axes of the space.
    data : PreparedData
        The data in coordinates of the space.
    apart : float
        Root-mean-square distance of the data from their projections, in the frame, with its rounding.
    """

    origin: FloatArray
    axes: FloatArray
    data: PreparedData
    apart: float

    def outward(self, psi: FloatArray) -> FloatArray:
        """Points (k, D) from their coordinates (k, r)."""
        return np.asarray(psi @ self.axes + self.origin)

    def inward(self, psi: FloatArray) -> FloatArray:
        """Coordinates (k, r) of the projections of points (k, D)."""
        return np.asarray((psi - self.origin) @ self.axes.T)

    def error(self, quadratic: float) -> float:
        """How much the optimum, and F of a solution near it, may differ from those in the span, in nats.

        Moving every point by d_i changes F of a code by at most lambda sum_i rho_i (2 d_i E||x_i - psi|| + d_i^2), and
        the mean of E||x_i - psi||^2 is at most the variance of the data, which is 1 in the frame.
        """
        return 2 * quadratic * (2 * self.apart + self.apart**2)


_KNOWN: WeakKeyDictionary[PreparedData, Span] = WeakKeyDictionary()


def span_of(problem: Problem, error: float) -> Span | None:
    """The space of the data, if it is much narrower than the data are wide and changes F by at most `error` nats."""
    n, dim, quadratic = len(problem.data.rows), problem.data.rows.dim, problem.framed.quadratic
    if not isinstance(problem.objective, ELBO) or not quadratic or n > _SHARE * dim or n * dim > _LARGEST:
        return None
    if problem.data not in _KNOWN:
        _KNOWN[problem.data] = _span(problem)
    span = _KNOWN[problem.data]
    return span if span.error(quadratic) <= error else None


def _span(problem: Problem) -> Span:
    data, frame = DataPasses(problem), problem.data.frame
    _, sizes, axes = np.linalg.svd(data.x, full_matrices=False)
    axes = axes[: max(1, np.count_nonzero(sizes > _EPS * sizes[0]))]
    inside = data.x @ axes.T
    rounding = 4 * _EPS * data.x.shape[1] ** 0.5 * np.linalg.norm(data.x, axis=1)
    apart = np.linalg.norm(data.x - inside @ axes, axis=1) + rounding
    backend = problem.data.backend.__name__.rpartition(".")[2]
    narrow = Problem.make(inside * frame.scale, problem.objective, data.rho, backend)
    return Span(frame.centre, axes, narrow.data, float(np.sqrt(data.rho @ apart**2)))
