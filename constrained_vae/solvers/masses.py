"""Free masses that ought to grow (T14), and masses that have vanished.

With free masses F is convex in the masses pi, and a fixed point is a minimum in them only if c_a = m_a / pi_a is at
most 1 at every tile, however light. The error estimate does not see a light tile, because it weighs every tile by its
mass. Therefore c is tested by itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._utils.arrays import Array, FloatArray
from .._utils.device import array_namespace, numbers, to_host
from ..data.prepared import Block
from ..problems.posterior import Tiles, posterior
from ..problems.problem import Problem
from .iteration import Iteration

_MAX_EXPONENT = 700.0  # larger c count as exp of this
_MAX_TRIALS = 60  # shares of mass that are tried for tiles that ought to grow
_MAX_REVIVALS = 100  # of one iteration, after which c - 1 counts as rounding that is larger than expected
_DEAD_MASS = 1e-14  # a site whose marginal mass is smaller and does not grow is removed
_SETTLED = 1e-3  # in units of the resolution stiffness^-1/2: largest step of a site without mass that has come to rest
_MAX_SHIFTS = 200  # maps in which sites without mass come to rest


def growing(it: Iteration) -> bool:
    """Whether a free mass that is not light still grows by more than the tolerance from map to map."""
    point = it.here
    if not it.options.free:
        return False
    heavy = point.expectations.mass > it.convergence.light_mass
    step = array_namespace(heavy).where(heavy, point.log_step, 0.0)
    return numbers(step.max())[0] > it.convergence.mass_tol


def rising(it: Iteration) -> bool:
    """Whether a light free mass grows by more than the tolerance from map to map."""
    return it.options.free and bool((light(it) & (log_coverage(it) > it.convergence.mass_tol)).any())


def revive(it: Iteration) -> bool:
    """Give mass to the light sites at which c > 1; return whether there are any.

    Let the site or sites together take the share t of all mass, in equal parts: pi(t) = (1 - t) pi + t u. F is convex
    in t and falls at t = 0. It has fallen all the way to t if its slope there, 1 - sum_a u_a c_a(t) over (1 - t), is
    not positive. Otherwise a secant of the slope gives the next, smaller t. The test is exact for gains of F below
    rounding.
    """
    if not it.options.free:
        return False
    settle(it)
    point, log_c = it.here, log_coverage(it)
    wanted = light(it) & (log_c > it.convergence.mass_tol)
    if not wanted.any() or it.revivals >= _MAX_REVIVALS:
        return False
    it.revivals += 1
    log_masses = to_host(point.log_masses)
    slope, share = float(np.expm1(np.minimum(log_c[wanted], _MAX_EXPONENT)).mean()), wanted.sum() / (2 * len(wanted))
    for _ in range(_MAX_TRIALS):
        given = np.where(wanted, np.log(share / wanted.sum()), -np.inf)
        shared = np.logaddexp(np.log1p(-share) + log_masses, given)
        candidate = it.evaluate(point.psi, it.problem.data.to_device(shared))
        after = float(np.expm1(to_host(candidate.log_step)[wanted]).mean())
        if candidate.finite and after >= 0:
            it.restart(candidate)
            return True
        share *= 0.5 * slope / (slope - after) if after < 0 else 0.1
    return False


def light(it: Iteration) -> npt.NDArray[np.bool_]:
    """Which sites (k,) have so little mass that the error estimate leaves them out."""
    found: npt.NDArray[np.bool_] = to_host(it.here.expectations.mass) <= it.convergence.light_mass
    return found


def vanished(it: Iteration) -> npt.NDArray[np.bool_]:
    """Which sites (k,) have lost their mass, and would not regain it."""
    mass, log_step = to_host(it.here.expectations.mass), to_host(it.here.log_step)
    dead: npt.NDArray[np.bool_] = (mass < _DEAD_MASS) & (log_step <= it.convergence.mass_tol)
    return dead


def settle(it: Iteration) -> None:
    """Move sites that have lost their mass by plain maps until they are at rest.

    Each is a point that climbs to a maximum of c (mean shift). Under plain maps it would have come to rest long before
    its mass was lost, and perhaps where c > 1.
    """
    limit = (_SETTLED * it.problem.framed.stiffness**-0.5) ** 2
    for _ in range(_MAX_SHIFTS):
        dead, point = vanished(it), it.here
        if not dead.any():
            break
        psi = to_host(point.psi)
        shift = np.where(dead[:, None], to_host(point.updated_decoder) - psi, 0.0)
        if not (np.square(shift).sum(axis=1) > limit).any():
            break
        it.restart(it.evaluate(it.problem.data.to_device(psi + shift), point.log_masses))


def log_coverage(it: Iteration) -> FloatArray:
    """log c of every site (k,), on the host; a site whose mass is zero, or was rounded to zero, needs another pass."""
    point = it.here
    log_c = to_host(point.log_step)
    empty = np.flatnonzero(to_host(point.expectations.mass) <= 0)
    if len(empty):
        log_c = log_c.copy()
        log_c[empty] = log_coverage_of(it.problem, to_host(point.psi), to_host(point.log_masses), empty)
    return log_c


def log_coverage_of(
    problem: Problem, psi: FloatArray, log_masses: FloatArray, some: npt.NDArray[np.intp]
) -> FloatArray:
    """log c_a = log sum_i rho_i exp(-H_ia) / Z_i of some of the tiles psi (k, D), (n,), from a pass of its own (T14).

    It is log m - log pi, and also known for a tile without mass.
    """
    c = to_host(problem.total(_coverage, psi, log_masses, some))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(c))


def _coverage(block: Block, tiles: Tiles, some: Array) -> Array:
    """sum_i rho_i exp(-H_ia) / Z_i of some tiles, (n,)."""
    _, log_partition, H = posterior(block, tiles)
    return block.rho @ np.exp(np.minimum(-H[:, some] - log_partition[:, None], _MAX_EXPONENT))
