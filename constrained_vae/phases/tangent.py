"""Derivatives of a fixed point with respect to beta, along the branch through it (T7), (T11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator, minres

from .._utils.arrays import FloatArray
from .._utils.checks import shown
from ..data.prepared import Block
from ..latent.sites import Sites
from ..problems.posterior import Tiles, posterior
from ..results.fixed_point import FixedPoint
from .jacobian import Jacobian, Symmetrised, encoder_change, quotient

_CRITICAL_TOL = (1e-13, 1e-6)  # least and largest distance from 1 at which an eigenvalue counts as 1


@dataclass(frozen=True, eq=False)
class Tangent:
    """Derivatives with respect to beta along the branch through a fixed point (T7), (T11).

    Multiplied by beta they are the derivatives with respect to log beta, multiplied by -beta / lambda those with
    respect to lambda.

    Attributes
    ----------
    sites : Sites
        The distinct reconstructions; `sites.index` has the number of the site of every tile.
    decoder : (k, D) array
        d psi / d beta of every site, in units of x.
    log_marginal : (k,) array
        d log m / d beta of every site. With free masses it is also the derivative of the log prior masses.
    distortion : float
        d E||x - psi||^2 / d beta, in squared units of x, for any objective.
    rate, energy, free_energy : float
        Derivatives of R, E[H] and F, in nats: dR = -lambda dE[d], dF / d lambda = E[d].
    top_eigenvalue : float
        Largest eigenvalue of the Jacobian over these sites.
    critical : bool
        Whether an eigenvalue is 1 to the accuracy of the solution, so that the branch has no unique derivative along
        that mode. All derivatives leave this mode out, and the residual includes its share of the right-hand side.
    residual : float
        Residual of the linear equation, relative to its right-hand side, in the metric.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> s = cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    >>> d = cv.tangent(s)
    >>> bool(abs(d.rate + d.distortion / (2 * s.beta)) < 1e-9)  # dR = -lambda dD (T7)
    True
    """

    sites: Sites
    decoder: FloatArray
    log_marginal: FloatArray
    distortion: float
    rate: float
    energy: float
    free_energy: float
    top_eigenvalue: float
    critical: bool
    residual: float


def tangent(at: FixedPoint | Jacobian) -> Tangent:
    """Derivatives along the branch of fixed points, (I - J) d theta = dT, with coincident tiles merged (T11).

    The energies of the objective must be proportional to 1 / beta, as the energies of `ELBO` are.

    Parameters
    ----------
    at : FixedPoint or Jacobian
        The fixed point, or its Jacobian if that is known already.

    Returns
    -------
    Tangent
        Derivatives with respect to beta.

    Raises
    ------
    ValueError
        If `at` is neither a FixedPoint nor a Jacobian.
    NotImplementedError
        If the energy of the objective is not a Bregman divergence.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> s = solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    >>> round(tangent(s).distortion, 6)  # D = 1 - m^2, m = tanh(m / beta): 8 m^2 (1 - m^2) / (1 - 2 (1 - m^2))
    0.731896
    """
    if not isinstance(at, (FixedPoint, Jacobian)):
        raise ValueError(f"at must be a FixedPoint or a Jacobian, such as solve(x), got {shown(at)}")
    jacobian = at if isinstance(at, Jacobian) else Jacobian.at(at)
    solution, sites = jacobian.solution, jacobian.sites
    beta, problem = solution.beta, solution.problem
    code = jacobian.psi, sites.log_masses

    # At fixed psi, d log q_ib / d log beta = H_ib - sum_c q_ic H_ic: H has the role of a score.
    forcing, variance = problem.total(_forcing, *code, jacobian._symmetrised)
    rhs = jacobian._unknowns(forcing)
    z, top, critical = _solve(jacobian, rhs)
    rest = rhs - (z - jacobian._matvec(z))
    # lambda dE[d] = sum_i rho_i Var_{q_i}(H_i) + <z, (I - J) z>: its error is of second order in that of z.
    lam_dd = float(variance + z @ rhs + z @ rest)

    # The full change of the encoder. At a fixed encoder E||x - psi||^2 does not change, because psi is the mean.
    columns = jacobian._columns(z)
    marginal, change = problem.total(_full_change, *code, jacobian._symmetrised, columns)
    distortion = float(change) if problem.framed.quadratic is None else lam_dd / problem.framed.quadratic

    norm = float(np.linalg.norm(rhs))
    return Tangent(
        sites=sites,
        decoder=jacobian._displacement(columns)[0] / beta,
        log_marginal=quotient(marginal, jacobian.mass) / beta,
        distortion=distortion * solution.frame.scale**2 / beta,
        rate=-lam_dd / beta,
        energy=(lam_dd - solution.energy) / beta,
        free_energy=-solution.energy / beta,
        top_eigenvalue=top,
        critical=critical,
        residual=float(np.linalg.norm(rest)) / norm if norm else 0.0,
    )


def _solve(jacobian: Jacobian, rhs: FloatArray) -> tuple[FloatArray, float, bool]:
    """z with (I - J) z = rhs, symmetrised, without critical modes; the top eigenvalue; whether a mode is critical.

    The leading mode, or every mode of a small problem, is solved directly, so that the slow mode near a transition does
    not slow MINRES down. MINRES solves the rest: it also converges at a saddle, where I - J is indefinite, and where
    I - J is singular.
    """
    n = len(rhs)
    values, vectors = jacobian._leading(n if jacobian._small else 1)
    # The error of the eigenvalues is about the error of the fixed point in units of the resolution stiffness^-1/2.
    solution = jacobian.solution
    error = solution.error_estimate / solution.frame.scale
    blur = np.clip(error * np.sqrt(solution.problem.framed.stiffness), *_CRITICAL_TOL)
    at_one: npt.NDArray[np.bool_] = np.abs(1 - values) <= blur
    inverse = quotient(np.ones_like(values), np.where(at_one, 0.0, 1 - values))
    operator = LinearOperator((n, n), matvec=lambda u: u - jacobian._matvec(u), dtype=np.float64)
    z = np.zeros(n)
    for _ in range(2):  # the second step is iterative refinement
        rest = rhs - operator.matvec(z)
        along = vectors.T @ rest
        z = z + vectors @ (inverse * along)
        if not jacobian._small:
            z = z + minres(operator, rest - vectors @ along, rtol=1e-10)[0]
    return z, float(values[0]), bool(at_one.any())


def _forcing(block: Block, tiles: Tiles, form: Symmetrised) -> tuple[FloatArray, Any]:
    """dT / d log beta at fixed reconstructions, symmetrised (k, D + 1), and sum_i rho_i Var_{q_i}(H_i)."""
    q, _, H = posterior(block, tiles)
    change = encoder_change(block.rho, q, H)
    return form.expectation(block.x, change), np.sum(change * H)


def _full_change(block: Block, tiles: Tiles, form: Symmetrised, columns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """d m / d log beta (k,) for a displacement of the sites, and d E||x - psi||^2 / d log beta at fixed psi."""
    q, _, H = posterior(block, tiles)
    x, psi = block.x, form.psi
    change = encoder_change(block.rho, q, H + form.scores(x, columns))
    squares = (x * x).sum(axis=1)[:, None] - 2 * x @ psi.T + (psi**2).sum(axis=1)
    return change.sum(axis=0), np.sum(change * squares)
