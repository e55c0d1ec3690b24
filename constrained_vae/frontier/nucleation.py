"""Nucleation: the temperature at which one reconstruction of all data ceases to be globally optimal (T16)."""

from __future__ import annotations

import math
import warnings
from typing import cast

import numpy as np
import numpy.typing as npt
from numpy.polynomial.polynomial import polyval
from scipy.optimize import brentq, minimize

from .._utils import deadline
from .._utils.arrays import FloatArray
from .._utils.blas import single_threaded
from .._utils.checks import check_time_limit
from ..data.prepared import Block
from ..data.rows import RowBlocks
from ..objectives.elbo import ELBO
from ..objectives.energies import CrossEntropy, Divergence, SquaredError
from ..phases.criticality import critical_beta
from ..problems.problem import Problem
from ..results.status import NotConvergedWarning
from .data_passes import collapsed_coverage

_BETA_TOL = 1e-12  # relative rise of the temperature below which it is final
_FIRST_SHIFT = 0.1  # the first maxima are sought so far below the critical temperature, relative to it
_MAX_ROUNDS = 50  # searches for maxima; three are usual
_MAX_TOPS = 4  # highest maxima of c from which b is climbed
_FLAT = 1e-9  # log c below 0 by less may be rounding of a maximum where b is larger than the temperature
_FAR = 1e3  # stands for -log b where c is below 1 at every temperature
_MAX_EXPONENT = 700.0  # largest exponent of a representable number
_EPS = float(np.finfo(np.float64).eps)
# Series of exp z - 1 - z and of log(1 + t) - t, whose remainders are below eps for arguments below _SMALL.
_SMALL = 0.1
_EXP_SERIES = np.array([0.0, 0.0, *(1 / math.factorial(k) for k in range(2, 12))])
_LOG_SERIES = np.array([0.0, 0.0, *(-((-1.0) ** k) / k for k in range(2, 17))])


def nucleation_beta(
    x: npt.ArrayLike | RowBlocks,
    objective: ELBO | None = None,
    *,
    sigma: float | None = None,
    weights: npt.ArrayLike | None = None,
    time_limit: float | None = None,
    backend: str = "auto",
) -> float:
    """Temperature 1 / (2 sigma^2 lambda*) below which one reconstruction is not globally optimal (T16).

    At this temperature a second reconstruction appears with zero mass; for symmetric data several may appear at once,
    with finite mass. The temperature is at least `first_critical_beta`, where the collapsed solution splits, and above
    it for almost every sample. Between these temperatures the collapsed solution is metastable. The result is computed
    to rounding from the maxima of c that are found by ascent from the data and from means of groups of them. That
    there is no higher maximum is not proven.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    objective : ELBO, optional
        `ELBO()` by default; its beta is ignored.
    sigma : float, optional
        Standard deviation of the Gaussian decoder, in units of x; short for an ELBO with it. 1 by default.
    weights : (N,) array_like, optional
        Data weights, uniform by default.
    time_limit : float, optional
        Budget in seconds, kept as in `solve`. When the time is up, the result is a lower bound.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.

    Returns
    -------
    float
        The beta of nucleation.

    Raises
    ------
    ValueError
        For bad input, and if all points coincide, so that nucleation never happens.

    Warns
    -----
    NotConvergedWarning
        If the time is up.

    Examples
    --------
    >>> nucleation_beta([[-1.0], [1.0]], weights=[0.1, 0.9])  # 2 (1 - 2 p) / log((1 - p) / p) (docs/theory.md, 5)
    0.728191...
    """
    problem = Problem.make(x, objective, weights, backend, sigma=sigma, kind=ELBO)
    return _limited(problem, time_limit)[1]


def hysteresis_interval(
    x: npt.ArrayLike | RowBlocks,
    objective: ELBO | None = None,
    *,
    sigma: float | None = None,
    weights: npt.ArrayLike | None = None,
    time_limit: float | None = None,
    backend: str = "auto",
) -> tuple[float, float]:
    """The temperatures between which the collapsed solution is stable and not globally optimal (T13), (T16).

    On cooling, the collapsed solution splits at the lower temperature, `first_critical_beta`. From the upper
    temperature, `nucleation_beta`, on, the collapsed solution is the global optimum. Free masses return to it at the
    upper temperature if the branch that was cooled is the global one, as it is for generic data. Otherwise they return
    earlier, and for symmetric data they may return later: for an equilateral triangle of circumradius 1 at 0.54632,
    while the interval is [0.5, 0.54101]. The two temperatures are equal if the transition is continuous.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    objective : ELBO, optional
        `ELBO()` by default; its beta is ignored.
    sigma : float, optional
        Standard deviation of the Gaussian decoder, in units of x; short for an ELBO with it. 1 by default.
    weights : (N,) array_like, optional
        Data weights, uniform by default.
    time_limit : float, optional
        Budget in seconds, kept as in `solve`. When the time is up, the result is a lower bound.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.

    Returns
    -------
    (float, float)
        The lower and the upper beta.

    Raises
    ------
    ValueError
        For bad input, and if all points coincide.

    Warns
    -----
    NotConvergedWarning
        If the time is up. The upper temperature is then a lower bound of itself.

    Examples
    --------
    >>> hysteresis_interval([[-1.0], [1.0]], weights=[0.1, 0.9])
    (0.36..., 0.728191...)
    """
    problem = Problem.make(x, objective, weights, backend, sigma=sigma, kind=ELBO)
    return _limited(problem, time_limit)


def _limited(problem: Problem, time_limit: float | None) -> tuple[float, float]:
    """The critical temperature and the temperature of nucleation, with a warning if this is only a lower bound."""
    time_limit = check_time_limit(time_limit)
    with deadline.within(time_limit):
        with deadline.finishing():
            low = critical_beta(problem)
        found, complete = nucleation(problem, low)
    if not complete:
        text = f"time_limit={time_limit:g}: nucleation happens at beta={found:.6g} or above"
        warnings.warn(text, NotConvergedWarning, stacklevel=3)
    return low, found


def nucleation(problem: Problem, low: float) -> tuple[float, bool]:
    """`nucleation_beta` of a problem with the critical temperature `low`, and whether the deadline left time for it.

    It is the supremum over y of the temperature b(y) at which c(y) = 1. Dinkelbach's method (1967, Management Science
    13) seeks maxima of c at a temperature, climbs from them to maxima of b, and takes the largest as the next
    temperature, until b no longer rises: where b(y) is larger than a temperature, c(y) exceeds 1 there.
    """
    if not low > 0:
        raise ValueError("all points of x coincide, so that one reconstruction is always optimal")
    beta, shift = low, _FIRST_SHIFT
    try:
        for _ in range(_MAX_ROUNDS):
            at = problem.at(problem.objective.at(beta * (1 - shift)))
            coverage, block, starts = collapsed_coverage(at)
            unity = _Unity(at, block)
            tops, heights = coverage.maxima(starts)
            tops = tops[heights > -_FLAT][:_MAX_TOPS]
            found = at.objective.beta * max((unity.climbed(top) for top in tops), default=0.0)
            if shift == 0 and found <= beta * (1 + _BETA_TOL):
                break
            beta, shift = max(beta, found), 0.0
    except deadline.TimeUp:
        return beta, False
    return beta, True


class _Unity:
    """The temperature b(y) at which c(y) = 1 for the collapsed solution, without cancellation.

    At the multiplier r lambda, with lambda that of the problem, log c(y) = K(r) - r d. Here d is lambda times the
    divergence of y from the mean, K(r) = log E[exp(r a)], and a_i = (x_i - mean) . (v(y) - v(mean)) with the readout v.
    K(r) / r increases with r, and is equal to d at one r, that of b(y). At a maximum of b an error of y changes b in
    second order only, also where c is nearly flat, as it is for nearly symmetric data.
    """

    def __init__(self, problem: Problem, block: Block) -> None:
        self.objective, self.rho = cast(ELBO, problem.framed), block.rho
        self.mean = self.rho @ block.x
        self.centred = block.x - self.mean
        energy = self.objective.energy
        bounded, top = not isinstance(energy, SquaredError), 1.0 if isinstance(energy, CrossEntropy) else np.inf
        self.moving = (self.mean > 0) & (self.mean < top) if bounded else np.ones(len(self.mean), dtype=bool)
        m, edge = self.mean[self.moving], 1 - 1e-12  # so near to the bounds of the domain, relative to the way there
        self.bounds = (-edge * m if bounded else np.full(len(m), -np.inf), edge * (top - m))

    def climbed(self, y: FloatArray) -> float:
        """The largest b, relative to the temperature of the problem, of a climb from a point y (D,)."""
        shift = (y - self.mean)[self.moving].clip(*self.bounds)
        unit = float(np.linalg.norm(shift))
        if not unit > 0 or self(shift)[0] == -np.inf:
            return 0.0

        def negative(steps: FloatArray) -> tuple[float, FloatArray]:
            value, gradient = self(steps * unit)
            return (-value, -unit * gradient) if value > -np.inf else (_FAR, 0 * steps)

        bounds = np.stack(self.bounds, axis=1) / unit
        options = {"ftol": 1e-16, "gtol": 1e-12, "maxiter": 1000}
        result = single_threaded(
            minimize, negative, shift / unit, jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        return float(np.exp(-result.fun))

    def __call__(self, shift: FloatArray) -> tuple[float, FloatArray]:
        """log b, relative to the temperature of the problem, and its gradient, at a shift of y from the mean.

        log b is minus infinity where c is below 1 at every temperature.
        """
        deadline.check()
        a, d = self.relative(shift)
        if not 0 < d < a.max():
            return -np.inf, 0 * shift

        def excess(log_r: float) -> float:
            r = np.exp(log_r)
            return _cumulant(r * a, self.rho) / (r * d) - 1

        step = 0.5
        while excess(step) < 0 or excess(-step) > 0:
            step *= 2
        log_r = float(brentq(excess, -step, step, xtol=1e-15, rtol=4 * _EPS))
        u = self.rho * np.exp(np.exp(log_r) * (a - a.max()))
        u /= u.sum()
        # At c = 1 the gradients of log c(y, r) give that of log b = -log r.
        curvature = self.objective.curvature((self.mean[self.moving] + shift)[None])[0]
        slope = curvature * (u @ self.centred[:, self.moving] - shift)
        return -log_r, slope / float(u @ a - d)

    def relative(self, shift: FloatArray) -> tuple[FloatArray, float]:
        """a (N,) and d at a shift of y from the mean."""
        lam, centred, energy = self.objective.multiplier, self.centred[:, self.moving], self.objective.energy
        if isinstance(energy, SquaredError):
            a, d = 2 * lam * (centred @ shift), lam * float(shift @ shift)
        elif isinstance(energy, Divergence):  # relative to the mean, and the divergence of the mean from y
            mean, up = self.mean[self.moving], shift / self.mean[self.moving]
            a, d = lam * energy.unit * (centred @ np.log1p(up)), -lam * energy.unit * float(mean @ _log_rest(up))
        else:  # odds relative to those of the mean, and the divergence of two Bernoulli distributions
            mean = self.mean[self.moving]
            up, down = shift / mean, -shift / (1 - mean)
            a = lam * (centred @ (np.log1p(up) - np.log1p(down)))
            d = -lam * float(mean @ _log_rest(up) + (1 - mean) @ _log_rest(down))
        return a - self.rho @ a, d


def _cumulant(z: FloatArray, rho: FloatArray) -> float:
    """log E[exp z] of z with mean zero, relative to its own size: log(1 + E[exp z - 1 - z])."""
    top = float(z.max())
    if top > _MAX_EXPONENT:
        return top + float(np.log(rho @ np.exp(z - top)))
    series = polyval(z, _EXP_SERIES)
    return float(np.log1p(rho @ np.where(np.abs(z) < _SMALL, series, np.expm1(z) - z)))


def _log_rest(t: FloatArray) -> FloatArray:
    """log(1 + t) - t, relative to its own size."""
    small = np.abs(t) < _SMALL
    return np.where(small, polyval(np.where(small, t, 0.0), _LOG_SERIES), np.log1p(t) - t)
