"""The best prior masses of given reconstructions: a convex problem, solved by the constrained Newton method."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from .. import equations
from .._utils import deadline
from .._utils.arrays import FloatArray
from .._utils.blas import single_threaded

_MAX_STEPS = 50  # Newton steps and plain steps together
_STEEP = 100.0  # a plain step, which multiplies masses by c, is the better one for a mass with so large a c
_SHARES = 0.5 ** np.arange(40)  # shares that are tried for reconstructions without mass
_LEAST_Z = 1e-150  # least Z_i in the Newton model: S_ik and its square must be representable
_LIGHT = 1e-14  # a reconstruction of less mass is left out, unless c would exceed 1 there without it


def best_masses(energies: FloatArray, rho: FloatArray, masses: FloatArray, tol: float) -> FloatArray:
    """Masses (k,) of sum 1 that minimise F at given reconstructions, to an accuracy of `tol` nats.

    The quadratic model of F on the simplex in Newton's method is a least-squares problem, |(S - 2) p|^2 with
    S_ik = exp(-H_ik) / Z_i. It is solved together with |sum p - 1|^2 by non-negative least squares (Y. Wang 2007,
    J. R. Stat. Soc. B 69).

    Parameters
    ----------
    energies : (N, k) array
        Energies H, in nats.
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
    G = np.exp(energies.min(axis=1, keepdims=True) - energies)  # scaled by row
    root = np.sqrt(rho)[:, None]

    def value(p: FloatArray) -> float:
        return float(-rho @ equations.log_masses(G @ p))

    def plain(p: FloatArray) -> FloatArray:
        """The marginal posterior, at which F is not larger (T6)."""
        return rho @ equations.encoder(energies, equations.log_masses(p))[0]

    if not masses.all():  # the quadratic model is poor for far points without mass: first give them the best share
        new = masses == 0
        trials = [(1 - share) * masses + share * new / new.sum() for share in new.mean() * _SHARES]
        masses = min([masses, *trials], key=value)
    for _ in range(_MAX_STEPS):
        if deadline.passed():
            break
        S = G / np.maximum(G @ masses, _LEAST_Z)[:, None]
        slope = rho @ S  # slope of -F, which is c; at the optimum it is at most 1, and 1 where the mass is positive
        if slope.max() - 1 <= tol:
            break
        if slope[masses > 0].max() > _STEEP:  # Newton's method would only double such a mass
            masses = plain(masses)
            continue
        system = np.zeros((len(S) + 1, len(masses) + 1))  # the last column is the right-hand side
        system[:-1, :-1], system[-1] = root * (S - 2), 1.0
        try:
            target = single_threaded(_non_negative, system)
        except RuntimeError:  # it did not converge
            target = plain(masses)
        target /= target.sum()
        here, fall, step = value(masses), slope @ (target - masses), 1.0
        while not value(masses + step * (target - masses)) <= here - 1e-4 * step * fall and step > 1e-6:
            step /= 2
        if step <= 1e-6:
            break
        masses = masses + step * (target - masses)
    kept = np.where(_useful(G, rho, masses), masses, 0.0)
    return kept / kept.sum()


def _non_negative(system: FloatArray) -> FloatArray:
    """The non-negative solution of a system by least squares; the last column is the right-hand side."""
    rows, columns = system.shape
    short = np.asarray(np.linalg.qr(system, mode="r")) if rows > 2 * (columns - 1) else system
    solution: FloatArray = nnls(short[:, :-1], short[:, -1])[0]
    return solution


def _useful(G: FloatArray, rho: FloatArray, masses: FloatArray) -> npt.NDArray[np.bool_]:
    """Which reconstructions (k,) have mass, or are so light that F does not see them but c exceeds 1 without them."""
    useful = masses > _LIGHT
    light = np.flatnonzero((masses > 0) & ~useful)
    if len(light):
        Z = (G @ masses)[:, None]
        rest = Z - masses[light] * G[:, light]
        with np.errstate(divide="ignore", over="ignore"):
            c = rho @ np.where(rest > 1e-12 * Z, G[:, light] / rest, np.inf)
        useful[light] = c > 1
    return useful
