"""transitions(): every critical temperature of the cooling branch, to solver precision (T9), and its kind (T13)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import brentq
from tqdm.auto import tqdm

from ._checks import FloatArray, check_callable, check_choice, check_count, check_instance, check_vector
from .branches import default_grid
from .loop import Options, iterate
from .objectives import ELBO, Objective
from .problem import Problem
from .sites import Sites
from .solution import FixedPoint, NotConvergedWarning
from .stability import SplitCondition, critical_beta, split_condition
from .tiling import Tiling

_KICK = 1e-3  # a split is carried out this far, relatively, below its temperature (T13)
_STEP = 0.03  # longest step of log beta on the way to the next transition
_TOGETHER = 1e-8  # relative distance of temperatures of splits that symmetry makes one
_ACCURACY = 1e-12  # of log beta at a transition; that of the eigenvalue is the solution's
_SAME_KIND = 1e-7  # hysteresis narrower than this, relatively, cannot be told from a continuous split
_HEATING = 1e-6  # relative accuracy of the end of heating
_SYMMETRIC = 1e-6  # skewness below this is rounding, and so is the difference of eigenvalues
_DENSE = 2048  # dimensions up to which it is looked whether an axis is the only one
_ROUGH = 1e-7  # error of a solution, in units of the radius of the data, that is worth a warning


@dataclass(frozen=True, eq=False)
class Transition:
    """One split of a reconstruction on the cooling branch, a critical temperature of deterministic annealing.

    Attributes
    ----------
    beta : float
        Where the largest eigenvalue of the Jacobian, split modes included, is 1.
    bracket : (float, float)
        Temperatures between which it was isolated, the lower one unstable.
    before : FixedPoint
        The solution at `beta`, one tile for every distinct reconstruction.
    after : FixedPoint
        The solution below, at beta (1 - 1e-3) unless another transition follows within that, tiles as given.
    reconstruction : int
        Which of the reconstructions of `before` splits.
    direction : (D,) array
        The unstable axis, a unit vector in the coordinates of the objective (those of x for the Gaussian decoder).
    tiles_before : int
        Tiles at that reconstruction.
    tiles_after : tuple of int
        Tiles at each of the parts that it has fallen into.
    skewness, excess_kurtosis : float
        Of the reconstruction's data along the direction; NaN unless the energy is a squared distance, and where the
        direction is one of several by symmetry.
    predicted : {"continuous", "first-order"} or None
        The kind by the expansion (T13), from these two; None where they are not known.
    heating_end : float
        Where the branch below ends when it is heated; `beta` itself where the transition is continuous.
    crossing : float
        Where the free energies of the two branches are equal, between `beta` and `heating_end`.
    jump : float
        Fall of the distortion at `beta`, in squared units of x; 0 where the transition is continuous.
    """

    beta: float
    bracket: tuple[float, float]
    before: FixedPoint
    after: FixedPoint
    reconstruction: int
    direction: FloatArray
    tiles_before: int
    tiles_after: tuple[int, ...]
    skewness: float
    excess_kurtosis: float
    predicted: str | None
    heating_end: float
    crossing: float
    jump: float

    @property
    def kind(self) -> str:
        """Observed: "first-order" if the branch below can be heated beyond `beta`, else "continuous"."""
        return "first-order" if self.heating_end > self.beta * (1 + _SAME_KIND) else "continuous"

    @property
    def n_before(self) -> int:
        """Number of distinct reconstructions above."""
        return len(self.before.decoder)

    @cached_property
    def n_after(self) -> int:
        """Number of distinct reconstructions below."""
        return len(self.after.distinct)

    def __repr__(self) -> str:
        text = f"Transition(beta={self.beta:.9g}, {self.kind}, {self.n_before} to {self.n_after} reconstructions"
        return text + (f", hysteresis up to {self.heating_end:.6g})" if self.kind == "first-order" else ")")


def transitions(
    x: Any,
    objective: Objective | None = None,
    beta_range: Any = None,
    *,
    masses: str = "fixed",
    tiling: Tiling | None = None,
    weights: Any = None,
    limit: int | None = None,
    accelerate: str = "lbfgs",
    tol: float = 1e-10,
    max_maps: int = 100_000,
    backend: str = "auto",
    progress: bool = False,
    callback: Callable[[list[Transition]], Any] | None = None,
) -> list[Transition]:
    """Every transition of the cooling branch in a range of temperatures, hottest first.

    The branch starts collapsed, above the first transition. Coincident tiles are held together while it is cooled, and
    the temperature at which they would part is the root of an eigenvalue (T9), found by bisection; no grid limits it.
    Then they are parted by the protocol of (T13), two halves along the unstable axis, and on it goes.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    objective : Objective, optional
        `ELBO()` by default; its beta plays no part.
    beta_range : (float, float), optional
        Lowest and highest temperature of interest; by default that of `default_betas`.
    masses, tiling, weights, accelerate, tol, max_maps, backend
        As for `solve`, the default tolerance being tighter; `max_maps` holds for every single solution.
    limit : int, optional
        Stop after so many transitions.
    progress : bool
        Show a progress bar.
    callback : callable, optional
        Called with the transitions so far after each; a true return value stops.

    Returns
    -------
    list of Transition
        Empty if there is none in the range. What had been found, after Ctrl-C.

    Warns
    -----
    NotConvergedWarning
        If a solution on the way does not reach the tolerance.

    Raises
    ------
    ValueError
        For bad input, or an empty range.
    NotImplementedError
        If the energy of the objective is no Bregman divergence.

    Examples
    --------
    >>> [t.beta for t in transitions([[-3.0], [3.0]], beta_range=(1, 20), tiling=Tiling.uniform(2))]
    [9.0]
    """
    objective = ELBO() if objective is None else objective
    tiling = Tiling.uniform() if tiling is None else tiling
    check_instance(tiling, "tiling", Tiling, "Tiling.uniform(64)")
    check_choice(masses, "masses", ("fixed", "free"))
    check_callable(callback, "callback")
    if limit is not None:
        check_count(limit, "limit")
    options = Options(masses == "free", accelerate, tol, max_maps)
    problem = Problem.make(x, objective, weights, backend, None)
    first = critical_beta(problem, objective)
    if beta_range is None:
        grid = default_grid(problem, objective)
        beta_range = float(grid[0]), float(grid[-1])
    low, high = _check_range(beta_range)
    if not first > 0:  # all points coincide
        return []
    branch = _Cooling(problem, objective, tiling, options)
    found: list[Transition] = []
    start = np.log(1.01 * first)
    bar = tqdm(total=max(0.0, start - np.log(low)), disable=not progress, desc="cooling", unit=" log beta")
    try:
        with bar:
            for transition, reached in branch.down(float(start), float(np.log(low))):
                bar.update(start - reached - bar.n)
                if transition is None or transition.beta > high:
                    continue
                found.append(transition)
                if (callback and callback(list(found))) or len(found) == limit:
                    break
    except KeyboardInterrupt:
        pass
    return found


def _check_range(beta_range: Any) -> tuple[float, float]:
    values = check_vector(beta_range, "beta_range")
    if len(values) != 2 or not 0 < values[0] < values[1]:
        raise ValueError(
            f"beta_range must be two temperatures, 0 < lowest < highest, got {beta_range!r}: no transition is looked "
            "for in an empty range"
        )
    return float(values[0]), float(values[1])


@dataclass(frozen=True, eq=False)
class _State:
    """The branch at one temperature, its coincident tiles held together."""

    log_beta: float
    sites: Sites  # which tiles they are
    solution: FixedPoint  # one tile for each site
    condition: SplitCondition  # among the sites that can split

    @property
    def growth(self) -> float:
        """Log of the largest eigenvalue of a split: negative where the state is stable."""
        return float(np.log(max(self.condition.eigenvalue, 1e-12)))


@dataclass(frozen=True, eq=False)
class _Cooling:
    """The cooling branch of one problem; `objective` is in the units of the data."""

    problem: Problem
    objective: Objective
    tiling: Tiling
    options: Options

    def down(self, start: float, end: float) -> Iterator[tuple[Transition | None, float]]:
        """Follow the branch from one log beta to another; every step yields what it has passed, and where it is."""
        mean = np.repeat(self.problem.mean[None], len(self.tiling), axis=0)
        state = self.tied(start, Sites.of_tiles(mean, self.tiling.masses))
        while state.log_beta > end:
            # The eigenvalue goes as 1 / beta while a reconstruction keeps its data, and more slowly if it loses some.
            step = np.clip(-1.01 * state.growth, _STEP / 10, _STEP)
            below = self.tied(max(end, state.log_beta - step), state.sites)
            if below.growth <= 0:
                state = below
                yield None, state.log_beta
            else:
                transition, state = self.split(state, below)
                yield transition, state.log_beta

    def tied(self, log_beta: float, sites: Sites) -> _State:
        """The solution at a temperature from given sites, none of which may split."""
        problem, now = self._at(log_beta)
        single = Sites(sites.decoder, np.arange(len(sites)), sites.masses, sites.marginal)
        solution, after = iterate(
            problem, now, Tiling(single.tile_masses / single.tile_masses.sum()), single, self.options
        )
        tiles = Sites(after.decoder, after.index[sites.index], sites.tile_masses, after.marginal)
        tiles = tiles.with_masses(after.masses) if self.options.free else tiles
        if len(after) < len(sites):  # some have met, or died: now one tile stands for them
            return self.tied(log_beta, tiles)
        self._report(solution)
        with np.errstate(divide="ignore"):
            log_masses = np.log(tiles.masses)
        condition = split_condition(problem, tiles.decoder, log_masses, tiles.can_split(self.options.free))
        return _State(log_beta, tiles, solution, condition)

    def _at(self, log_beta: float) -> tuple[Problem, Objective]:
        now = self.objective.at(float(np.exp(log_beta)))
        return self.problem.at(now), now

    def _report(self, solution: FixedPoint) -> None:
        if not solution.converged and solution.error_estimate > _ROUGH * solution.frame.scale:
            text = f"beta={solution.beta:.9g}: {solution.status.value} (error estimate {solution.error_estimate:.2e})"
            warnings.warn(text, NotConvergedWarning, stacklevel=5)

    def split(self, above: _State, below: _State) -> tuple[Transition, _State]:
        """The transition between a stable and an unstable state, and the state after it."""
        critical, at = self._root(above, below, lambda state: state.condition)
        problem, now = self._at(critical)
        site = at.condition.site
        if self.options.free:
            at = replace(at, sites=_provided(at.sites, site))
        # Where another reconstruction splits within the kick, the kick goes half the way there. (Symmetry makes several
        # split at once; then so it be.)
        kicked = self.tied(critical + np.log1p(-_KICK), at.sites)

        def other(state: _State) -> SplitCondition:
            among = state.sites.can_split(self.options.free)
            among[site] = False
            with np.errstate(divide="ignore"):
                return split_condition(
                    self._at(state.log_beta)[0], state.sites.decoder, np.log(state.sites.masses), among
                )

        if len(kicked.sites) == len(at.sites) and other(kicked).eigenvalue > 1:
            following, _ = self._root(at, kicked, other) if other(at).eigenvalue < 1 else (critical, at)
            if critical - following > _TOGETHER:
                kicked = self.tied((critical + following) / 2, at.sites)
        problem_below, now_below = self._at(kicked.log_beta)
        after, sites = iterate(problem_below, now_below, self.tiling, kicked.sites, self.options)
        self._report(after)
        state = self.tied(kicked.log_beta, sites)
        tiles = at.sites.index == site
        end, crossing, jump = self._heated(state, at, tiles)
        skewness, kurtosis = _moments(problem, at, site) if now.quadratic is not None else (np.nan, np.nan)
        return (
            Transition(
                beta=float(np.exp(critical)),
                bracket=(float(np.exp(below.log_beta)), float(np.exp(above.log_beta))),
                before=at.solution,
                after=after,
                reconstruction=site,
                direction=at.condition.axis,
                tiles_before=int(tiles.sum()),
                tiles_after=tuple(int(n) for n in np.unique(sites.index[tiles], return_counts=True)[1]),
                skewness=skewness,
                excess_kurtosis=kurtosis,
                predicted=_kind(skewness, kurtosis, at.sites.tile_masses[tiles], self.options.free),
                heating_end=end,
                crossing=crossing,
                jump=jump,
            ),
            state,
        )

    def _root(
        self, above: _State, below: _State, condition: Callable[[_State], SplitCondition]
    ) -> tuple[float, _State]:
        """Log beta where the eigenvalue of a split is 1, and the state there."""
        known = [above, below]

        def growth(log_beta: float) -> float:
            nearest = min(known, key=lambda state: abs(state.log_beta - log_beta))
            if nearest.log_beta != log_beta:
                nearest = self.tied(log_beta, nearest.sites)
                known.append(nearest)
            return float(np.log(max(condition(nearest).eigenvalue, 1e-12)))

        root = float(brentq(growth, below.log_beta, above.log_beta, xtol=_ACCURACY, rtol=4 * np.finfo(float).eps))
        growth(root)
        return root, min(known, key=lambda state: abs(state.log_beta - root))

    def _heated(self, state: _State, at: _State, tiles: Any) -> tuple[float, float, float]:
        """Where the branch below ends on heating, where the free energies cross, and the jump of D at the split."""

        def ordered(log_beta: float, start: _State) -> _State | None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotConvergedWarning)  # at the very end it contracts ever more slowly
                heated = self.tied(log_beta, start.sites)
            return heated if len(np.unique(heated.sites.index[tiles])) > 1 else None

        critical = at.log_beta
        last, step = ordered(critical + _SAME_KIND, state), _HEATING
        if last is None:
            return float(np.exp(critical)), float(np.exp(critical)), 0.0
        jump = at.solution.distortion - last.solution.distortion
        dead = None
        while dead is None:  # away from the transition in steps that double, then bisection
            heated = ordered(critical + step, last)
            last, dead, step = (heated, None, 2 * step) if heated is not None else (last, critical + step, step)
        while dead - last.log_beta > _HEATING:
            middle = (dead + last.log_beta) / 2
            heated = ordered(middle, last)
            last, dead = (heated, dead) if heated is not None else (last, middle)
        end = float(np.exp(last.log_beta))

        def excess(log_beta: float) -> float:
            one, other = ordered(log_beta, last), self.tied(log_beta, at.sites)
            return 0.0 if one is None else one.solution.free_energy - other.solution.free_energy

        if excess(last.log_beta) <= 0 or excess(critical) >= 0:
            return end, end, jump
        return end, float(np.exp(brentq(excess, critical, last.log_beta, xtol=1e-10))), jump


def _provided(sites: Sites, site: int) -> Sites:
    """Free masses: the same sites, with four tiles at one of them if others can spare any; only their count changes."""
    index = sites.index.copy()
    while (counts := np.bincount(index, minlength=len(sites)))[site] < 4:
        counts[site] = 0
        if counts.max() < 2:
            break
        index[np.flatnonzero(index == counts.argmax())[-1]] = site
    return replace(sites, index=index).with_masses(sites.masses)


def _moments(problem: Problem, state: _State, site: int) -> tuple[float, float]:
    """Skewness and excess kurtosis of a site's data along its unstable axis (T13); NaN if that is not the only one."""
    psi, axis = state.sites.decoder[site], state.condition.axis
    with np.errstate(divide="ignore"):
        log_masses = np.log(state.sites.masses)
    powers, dim = np.zeros(5), len(axis)
    covariance = np.zeros((dim, dim)) if dim <= _DENSE else np.empty((0, 0))
    for x, q in problem.responsibilities(state.sites.decoder, log_masses):
        deviation = x - psi  # their mean is zero at a fixed point
        if covariance.size:
            covariance += (q[:, site, None] * deviation).T @ deviation
        powers += [q[:, site] @ (deviation @ axis) ** n for n in range(5)]
    if covariance.size and dim > 1:
        values = eigh(covariance, eigvals_only=True, subset_by_index=(dim - 2, dim - 1))
        if values[0] >= (1 - _SYMMETRIC) * values[1]:
            return np.nan, np.nan
    second, third, fourth = powers[2:] / powers[0]
    return float(third / second**1.5), float(fourth / second**2 - 3)


def _kind(skewness: float, kurtosis: float, masses: FloatArray, free: bool) -> str | None:
    """The kind of the split that the expansion of the free energy foretells (T13).

    -dF = s M_3 / 6 + k M_4 / 24 - (k + 2) M_2^2 / 8 of displacements t with sum m t = 0. Two parts of shares p and
    1 - p have M_3 = 0 only if p = 1/2, and M_4 / M_2^2 = (1 - 3 p + 3 p^2) / (p (1 - p)), the larger the smaller p is.
    """
    if np.isnan(skewness):
        return None
    halves = not free and len(masses) == 2 and np.ptp(masses) <= 1e-12
    if halves or (
        abs(skewness) <= _SYMMETRIC and _quartic(kurtosis, 0.0 if free else masses.min() / masses.sum()) <= 0
    ):
        return "continuous"
    return "first-order"


def _quartic(kurtosis: float, p: float) -> float:
    """24 times the coefficient of -dF at fourth order, times p (1 - p) / M_2^2."""
    return kurtosis * (1 - 3 * p + 3 * p**2) - 3 * (kurtosis + 2) * p * (1 - p)
