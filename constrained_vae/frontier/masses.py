"""The best prior masses of given reconstructions: a convex problem, solved by the constrained Newton method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import nnls
from scipy.sparse import csr_array

from .. import equations
from .._utils import deadline
from .._utils.arrays import FloatArray
from .._utils.blas import single_threaded

_MAX_STEPS = 50  # Newton steps and plain steps together
_STEEP = 100.0  # a plain step, which multiplies masses by c, is the better one for a mass with so large a c
_SHARES = 0.5 ** np.arange(40)  # shares that are tried for reconstructions without mass
_LEAST_Z = 1e-150  # least Z_i in the Newton model: S_ik and its square must be representable
_SPARSE = 1e-12  # entries rho_i S_ia that are smaller than this over N are left out: they change c_a by less than it
_DENSE = 0.1  # share of other entries from which the dense product is faster
_RIDGE = 1e-13  # increase of the diagonal, which is 1, since two reconstructions may coincide
_KEPT = 2**25  # affinities that are kept; more are computed anew in every pass
_PATIENCE = 3  # exchanges of the support that do not reduce the number of wrong entries
_LIGHT = 1e-14  # a reconstruction of less mass is left out, unless c would exceed 1 there without it


Energies = FloatArray | Callable[[], Iterable[FloatArray]]  # (N, k), or its blocks of rows in their order


def best_masses(energies: Energies, rho: FloatArray, masses: FloatArray, tol: float) -> FloatArray:
    """Masses (k,) of sum 1 that minimise F at given reconstructions, to an accuracy of `tol` nats.

    The quadratic model of F on the simplex in Newton's method is a least-squares problem, |S p - 2|^2 with
    S_ik = exp(-H_ik) / Z_i, weighted by rho (Y. Wang 2007, J. R. Stat. Soc. B 69). F + sum p has the same minimum over
    all p >= 0, at which the sum is 1, so that no constraint on the sum is needed (Y. Kim et al. 2020, J. Comput. Graph.
    Stat. 29). The model is minimised by its normal equations, from the present support.

    Parameters
    ----------
    energies : (N, k) array or callable
        Energies H, in nats, or a function that yields them in blocks of rows, anew at every call.
    rho : (N,) array
        Data weights.
    masses : (k,) array
        Initial masses; those of new reconstructions are zero.
    tol : float
        Accuracy of F, in nats. When the deadline passes, the masses so far are returned.

    Returns
    -------
    (k,) array
        The masses; zero where the reconstruction is of no use.
    """
    rows = _Rows(energies, rho, len(masses))

    def between(here: FloatArray, there: FloatArray) -> Callable[[float], float]:
        """F, up to a constant, of (1 - share) p + share q as a function of the share, from the Z of p and of q."""
        return lambda share: float(-rho @ equations.log_masses((1 - share) * here + share * there))

    if not masses.all():  # the quadratic model is poor for far points without mass: first give them the best share
        new = masses == 0
        others = new / new.sum()
        share = min([0.0, *new.mean() * _SHARES], key=between(rows.partition(masses), rows.partition(others)))
        masses = (1 - share) * masses + share * others
    for _ in range(_MAX_STEPS):
        if deadline.passed():
            break
        here = rows.partition(masses)
        slope = rows.slope(here)  # slope of -F, which is c; at the optimum it is at most 1, and 1 where there is mass
        if slope.max() - 1 <= tol:
            break
        if slope[masses > 0].max() > _STEEP:  # Newton's method would only double such a mass
            masses = rows.plain(masses)
            continue
        try:
            target = single_threaded(_newton_target, rows, here, slope, masses)
        except (np.linalg.LinAlgError, RuntimeError):  # of a matrix that is singular, or no convergence
            target = rows.plain(masses)
        target /= target.sum()
        value, fall, step = between(here, rows.partition(target)), slope @ (target - masses), 1.0
        while not value(step) <= value(0.0) - 1e-4 * step * fall and step > 1e-6:
            step /= 2
        if step <= 1e-6:
            break
        masses = masses + step * (target - masses)
    kept = np.where(rows.useful(masses), masses, 0.0)
    return kept / kept.sum()


class _Rows:
    """The affinities G = exp(-H), scaled by row, in blocks of rows, which are kept if they are few."""

    def __init__(self, energies: Energies, rho: FloatArray, count: int) -> None:
        self._energies, self.rho, self.count = energies, rho, count
        self._kept: list[tuple[slice, FloatArray]] | None = None

    def _blocks(self) -> Iterator[tuple[slice, FloatArray]]:
        """Energies (n, k) of some rows."""
        first = 0
        for H in self._energies() if callable(self._energies) else [self._energies]:
            yield slice(first, first + len(H)), H
            first += len(H)

    def affinities(self) -> Iterable[tuple[slice, FloatArray]]:
        """G (n, k) of some rows."""
        if self._kept is not None:
            return self._kept
        made = ((part, np.exp(H.min(axis=1, keepdims=True) - H)) for part, H in self._blocks())
        if len(self.rho) * self.count > _KEPT:
            return made
        self._kept = list(made)
        return self._kept

    def partition(self, masses: FloatArray) -> FloatArray:
        """Z (N,) of masses, up to the scales of the rows."""
        return np.concatenate([G @ masses for _, G in self.affinities()])

    def slope(self, Z: FloatArray) -> FloatArray:
        """c (k,) of the reconstructions."""
        parts = (self.rho[part] @ (G / np.maximum(Z[part], _LEAST_Z)[:, None]) for part, G in self.affinities())
        return np.asarray(sum(parts, np.zeros(self.count)))

    def plain(self, masses: FloatArray) -> FloatArray:
        """The marginal posterior, at which F is not larger (T6)."""
        logs = equations.log_masses(masses)
        parts = (self.rho[part] @ equations.encoder(H, logs)[0] for part, H in self._blocks())
        return np.asarray(sum(parts, np.zeros(self.count)))

    def products(self, Z: FloatArray) -> FloatArray:
        """sum_i rho_i S_ia S_ib (k, k). At low temperature most S are negligible."""
        matrix = np.zeros((self.count, self.count))
        for part, G in self.affinities():
            rho = self.rho[part, None]
            S = G / np.maximum(Z[part], _LEAST_Z)[:, None]
            weighted = np.sqrt(rho) * S
            some = rho * S > _SPARSE / len(self.rho)
            if np.count_nonzero(some) < _DENSE * some.size:
                narrow = csr_array(np.where(some, weighted, 0.0))
                matrix += (narrow.T @ narrow).toarray()
            else:
                matrix += weighted.T @ weighted
        return matrix

    def useful(self, masses: FloatArray) -> npt.NDArray[np.bool_]:
        """Which reconstructions (k,) have mass, or are so light that F does not see them but c exceeds 1 without."""
        useful = masses > _LIGHT
        light = np.flatnonzero((masses > 0) & ~useful)
        if not len(light):
            return useful
        c = np.zeros(len(light))
        for part, G in self.affinities():
            Z = (G @ masses)[:, None]
            rest = Z - masses[light] * G[:, light]
            with np.errstate(divide="ignore", over="ignore"):
                c += self.rho[part] @ np.where(rest > 1e-12 * Z, G[:, light] / rest, np.inf)
        useful[light] = c > 1
        return useful


def _newton_target(rows: _Rows, Z: FloatArray, slope: FloatArray, masses: FloatArray) -> FloatArray:
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
