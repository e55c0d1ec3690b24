"""The best prior masses of given reconstructions: a convex problem, solved by the constrained Newton method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import nnls

from .. import equations
from .._utils import deadline
from .._utils.arrays import FloatArray
from .._utils.blas import single_threaded
from .affinities import Affinities, CompiledAffinities

_MAX_STEPS = 50  # Newton steps and plain steps together
_STEEP = 100.0  # a plain step, which multiplies masses by c, is the better one for a mass with so large a c
_SHARES = 0.5 ** np.arange(40)  # shares that are tried for reconstructions without mass
_RIDGE = 1e-13  # increase of the diagonal, which is 1, since two reconstructions may coincide
_PATIENCE = 3  # exchanges of the support that do not reduce the number of wrong entries
_ROUNDING = 1e-15  # of F, relative
_LIGHT = 1e-14  # a reconstruction of less mass is left out, unless c would exceed 1 there without it


def best_masses(rows: Affinities | CompiledAffinities, masses: FloatArray, tol: float) -> FloatArray:
    """Masses (k,) of sum 1 that minimise F at given reconstructions, to an accuracy of `tol` nats.

    The quadratic model of F on the simplex in Newton's method is a least-squares problem, |S p - 2|^2 with
    S_ik = exp(-H_ik) / Z_i, weighted by rho (Y. Wang 2007, J. R. Stat. Soc. B 69). F + sum p has the same minimum over
    all p >= 0, at which the sum is 1, so that no constraint on the sum is needed (Y. Kim et al. 2020, J. Comput. Graph.
    Stat. 29). The model is minimised by its normal equations, from the present support.

    Parameters
    ----------
    rows : Affinities or CompiledAffinities
        The affinities of all rows to the reconstructions, and the weights of the rows.
    masses : (k,) array
        Initial masses; those of new reconstructions are zero.
    tol : float
        Accuracy of F, in nats. When the deadline passes, the masses so far are returned.

    Returns
    -------
    (k,) array
        The masses; zero where the reconstruction is of no use.
    """

    def between(here: FloatArray, there: FloatArray) -> Callable[[float], float]:
        """F, up to a constant, of (1 - share) p + share q as a function of the share, from the Z of p and of q."""
        return lambda share: float(-rows.rho @ equations.log_masses((1 - share) * here + share * there))

    here = rows.partition(masses)
    if not masses.all():  # the quadratic model is poor for far points without mass: first give them the best share
        new = masses == 0
        others = new / new.sum()
        there = rows.partition(others)
        share = min([0.0, *new.mean() * _SHARES], key=between(here, there))
        masses, here = (1 - share) * masses + share * others, (1 - share) * here + share * there
    for _ in range(_MAX_STEPS):
        if deadline.passed():
            break
        slope = rows.slope(here)  # slope of -F, which is c; at the optimum it is at most 1, and 1 where there is mass
        if slope.max() - 1 <= tol:
            break
        if slope[masses > 0].max() > _STEEP:  # Newton's method would only double such a mass
            masses = rows.plain(masses)
            here = rows.partition(masses)
            continue
        try:
            target = single_threaded(_newton_target, rows, here, slope, masses)
        except (np.linalg.LinAlgError, RuntimeError):  # of a matrix that is singular, or no convergence
            target = rows.plain(masses)
        target /= target.sum()
        there = rows.partition(target)
        value, fall, step = between(here, there), slope @ (target - masses), 1.0
        now = value(0.0)
        slack = _ROUNDING * (1 + abs(now))  # near the optimum F falls by less than its rounding
        while not value(step) <= now - 1e-4 * step * fall + slack and step > 1e-6:
            step /= 2
        if step <= 1e-6:
            break
        masses, here = (1 - step) * masses + step * target, (1 - step) * here + step * there
    kept = np.where(_useful(rows, masses), masses, 0.0)
    return kept / kept.sum()


def _useful(rows: Affinities | CompiledAffinities, masses: FloatArray) -> npt.NDArray[np.bool_]:
    """Which reconstructions (k,) have mass, or are so light that F does not see them but c exceeds 1 without them."""
    useful = masses > _LIGHT
    if (masses[~useful] > 0).any():
        c = rows.slope(rows.partition(np.where(useful, masses, 0.0)))
        useful |= (masses > 0) & (c > 1)
    return useful


def _newton_target(
    rows: Affinities | CompiledAffinities, Z: FloatArray, slope: FloatArray, masses: FloatArray
) -> FloatArray:
    """The minimum (k,) of the quadratic model over non-negative masses, whose linear term is 2 c_a - 1."""
    matrix = rows.products(Z)
    scale = np.sqrt(matrix.diagonal())  # of masses that may differ by many decades
    scale[scale == 0] = 1.0  # a reconstruction out of reach of all data
    matrix /= scale[:, None] * scale
    matrix[np.diag_indices_from(matrix)] += _RIDGE
    # At a solution (M x)_a is at most (x.M x)^(1/2), about 1: a linear term below -10 only says that there is no mass.
    linear = ((2 * slope - 1) / scale).clip(min=-10.0)
    return np.asarray(_non_negative(matrix, linear, masses > 0) / scale)


def _non_negative(matrix: FloatArray, linear: FloatArray, support: npt.NDArray[np.bool_]) -> FloatArray:
    """The minimum (k,) of x.(M x) / 2 - l.x over x >= 0, for a positive definite M (k, k), from a support nearby.

    Block principal pivoting (Kim and Park 2011, SIAM J. Sci. Comput. 33): all entries that are negative leave the
    support, and all whose slope is negative enter it. Where reconstructions are nearly dependent, as at high
    temperature, this does not end. Then an active set, whose model never rises, does, with few entries in the support.
    """
    support, fewest, patience = support.copy(), len(linear) + 1, _PATIENCE
    slack = 1e-12 * np.abs(linear).max()
    while patience > 0:
        x = np.zeros(len(linear))
        x[support] = cho_solve(cho_factor(matrix[np.ix_(support, support)]), linear[support])
        wrong = np.where(support, x < 0, matrix @ x - linear < -slack)
        if not wrong.any() or deadline.passed():
            return x.clip(0.0)
        number = int(np.count_nonzero(wrong))
        fewest, patience = (number, _PATIENCE) if number < fewest else (fewest, patience - 1)
        support ^= wrong
    factor = cholesky(matrix)
    return np.asarray(nnls(factor, solve_triangular(factor, linear, trans="T"))[0])
