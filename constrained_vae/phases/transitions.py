"""transitions(): all critical temperatures of the cooling branch, to solver precision (T9), and their kinds (T13)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.optimize import brentq
from tqdm.auto import tqdm

from .._utils.arrays import Array, FloatArray
from .._utils.checks import check_callable, check_count, check_vector
from .._utils.device import array_namespace, to_host
from ..data.prepared import Block
from ..data.rows import RowBlocks
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..problems.posterior import Tiles, responsibilities
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import NotConvergedWarning
from ..solvers.convergence import ACCEPTABLE_TOL
from ..solvers.options import Options
from ..solvers.pose import pose
from ..solvers.split_condition import SplitCondition
from .continuation import Continuation, Split, State
from .criticality import critical_beta
from .peaks import Peak
from .sweep import default_grid

_BETA_TOL = 1e-11  # requested accuracy of log beta at a transition; the eigenvalue is as accurate as the solution
_MAX_COOLING_STEP = 0.03  # longest step of log beta on the way to the next transition
_HYSTERESIS_TOL = 1e-7  # relative width of hysteresis below which a split counts as continuous
_HEATING_END_TOL = 1e-6  # relative accuracy of the temperature at which heating ends
_MAX_HEATING_STEP = 0.05  # longest relative step of heating
_MAX_HEATING_RATIO = 100.0  # a branch that exists at this multiple of its transition counts as endless
_SYMMETRY_TOL = 1e-6  # a skewness, or a relative difference of eigenvalues, below this is rounding
_MAX_COVARIANCE_DIM = 2048  # dimensions up to which the uniqueness of the unstable axis is tested


@dataclass(frozen=True, eq=False)
class Transition:
    """One split of a reconstruction on the cooling branch, a critical temperature of deterministic annealing.

    Attributes
    ----------
    beta : float
        Temperature at which the largest eigenvalue of the Jacobian, split modes included, is 1.
    bracket : (float, float)
        Temperatures between which the transition was located; the branch is unstable at the lower one.
    before : FixedPoint
        The solution at `beta`.
    after : FixedPoint
        The solution below, at beta (1 - 1e-3), or nearer to beta if another transition follows before that.
    reconstruction : int
        Number of the reconstruction that splits, among the distinct reconstructions of `before`.
    direction : (D,) array
        The unstable axis, a unit vector in the coordinates of the objective (those of x for the Gaussian decoder).
    tiles_before : int
        Tiles at that reconstruction.
    tiles_after : tuple of int
        Tiles at each part of that reconstruction after the split.
    skewness, excess_kurtosis : float
        Moments of the data of the reconstruction along the direction. They are NaN if the energy is not a squared
        distance, or if the direction is not unique because of a symmetry.
    predicted : {"continuous", "first-order"} or None
        The kind that the expansion (T13) predicts from skewness and kurtosis; None if these are NaN.
    heating_end : float
        Temperature at which the split branch ends when it is heated; `beta` itself if the transition is continuous. It
        is NaN if one half joins a neighbouring reconstruction. It is infinite if the branch does not end, which is
        possible for energies with more than one minimum.
    crossing : float
        Temperature at which the free energies of the two branches are equal, between `beta` and `heating_end`.
    jump : float
        Fall of the distortion at `beta`, in squared units of x; 0 if the transition is continuous.

    Examples
    --------
    >>> transitions([[-3.0], [3.0]], beta_range=(1, 20), tiling=Tiling.uniform(2))
    [Transition(beta=9, continuous, 1 to 2 reconstructions)]
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
        """The observed kind: "continuous" if the split branch ends at `beta` on heating, else "first-order"."""
        return "continuous" if self.heating_end <= self.beta * (1 + _HYSTERESIS_TOL) else "first-order"

    @property
    def n_before(self) -> int:
        """Number of distinct reconstructions above the transition."""
        return len(self.before.distinct)

    @property
    def n_after(self) -> int:
        """Number of distinct reconstructions below the transition."""
        return len(self.after.distinct)

    def __repr__(self) -> str:
        text = f"Transition(beta={self.beta:.9g}, {self.kind}, {self.n_before} to {self.n_after} reconstructions"
        return text + (f", hysteresis up to {self.heating_end:.6g})" if self.kind == "first-order" else ")")


def transitions(
    x: npt.ArrayLike | RowBlocks,
    objective: Objective | None = None,
    beta_range: npt.ArrayLike | None = None,
    *,
    masses: str = "fixed",
    tiling: Tiling | None = None,
    weights: npt.ArrayLike | None = None,
    limit: int | None = None,
    accelerate: str = "lbfgs",
    tol: float = 1e-10,
    max_maps: int = 100_000,
    backend: str = "auto",
    progress: bool = False,
    callback: Callable[[list[Transition]], Any] | None = None,
) -> list[Transition]:
    """Every transition of the cooling branch in a range of temperatures, hottest first.

    The branch starts at the collapsed solution, above the first transition. Cooling holds coincident tiles together.
    The temperature at which they would separate is located, without a grid, as the root of the logarithm of an
    eigenvalue (T9), by Brent's method. Then the tiles are split by the protocol of (T13), into two halves along the
    unstable axis, and cooling continues.

    Parameters
    ----------
    x : (N, D) array_like, memory map or RowBlocks
        Data.
    objective : Objective, optional
        `ELBO()` by default; its beta is ignored.
    beta_range : (float, float), optional
        Lowest and highest temperature of interest; by default the range of `default_betas`.
    masses, tiling, weights, accelerate, tol, max_maps, backend
        As for `solve`; `max_maps` holds for each solution.
    limit : int, optional
        Largest number of transitions.
    progress : bool
        Show a progress bar.
    callback : callable, optional
        Called after every transition with the transitions so far; a true return value stops the search.

    Returns
    -------
    list of Transition
        The transitions; after Ctrl-C, the transitions found so far.

    Raises
    ------
    ValueError
        For bad input, and for an empty range.

    Warns
    -----
    NotConvergedWarning
        If the error of a solution before or after a transition is too large, and after Ctrl-C.

    Examples
    --------
    >>> [round(t.beta, 9) for t in transitions([[-3.0], [3.0]], beta_range=(1, 20), tiling=Tiling.uniform(2))]
    [9.0]
    """
    check_callable(callback, "callback")
    if limit is not None:
        check_count(limit, "limit")
    posed = pose(x, objective, tiling=tiling, weights=weights, masses=masses, backend=backend)
    problem, options = posed.problem, Options(posed.free, accelerate, tol, max_maps)
    first = critical_beta(problem)
    if beta_range is None:
        grid = default_grid(problem)
        beta_range = float(grid[0]), float(grid[-1])
    low, high = _check_range(beta_range)
    if not first > 0:  # all points coincide
        return []
    branch = Continuation(problem, posed.tiling, options, accuracy=_BETA_TOL)
    found: list[Transition] = []
    start = 1.01 * first
    try:
        with tqdm(total=max(0.0, np.log(start / low)), disable=not progress, desc="cooling", unit=" log beta") as bar:
            for event in _down(branch, start, low):
                if isinstance(event, State):
                    bar.update(np.log(start / event.beta) - bar.n)
                    continue
                _report(event.at.solution)
                _report(event.after.solution)
                if event.at.beta > high:
                    continue
                found.append(_transition(branch, event))
                if (callback and callback(list(found))) or len(found) == limit:
                    break
    except KeyboardInterrupt:
        warnings.warn("interrupted: colder transitions were not computed", NotConvergedWarning, stacklevel=2)
    return found


def match_peaks(peaks: Sequence[Peak], found: Sequence[Transition]) -> npt.NDArray[np.intp]:
    """Match detected peaks with exact transitions (T12).

    A peak can be matched with a transition inside its bracket, widened by a step of the grid at either end. The nearest
    pairs in log beta are matched first, each peak and each transition at most once.

    Parameters
    ----------
    peaks : sequence of Peak
        Peaks from `Branch.peaks`.
    found : sequence of Transition
        Transitions from `transitions`.

    Returns
    -------
    (n, 2) array of int
        Numbers of the peak and of the transition, hottest first; -1 for a peak or a transition without a match.

    Examples
    --------
    >>> found = transitions([[-3.0], [3.0]], beta_range=(1, 20), tiling=Tiling.uniform(2))
    >>> match_peaks([Peak(9.5, 1.0, 4, (8.0, 11.0)), Peak(2.0, 0.5, 1, (1.5, 3.0))], found)  # no match for 2.0
    array([[ 0,  0],
           [ 1, -1]])
    """
    near = []
    for i, peak in enumerate(peaks):
        low, high = peak.bracket[0] ** 2 / peak.beta, peak.bracket[1] ** 2 / peak.beta
        near += [(abs(np.log(peak.beta / t.beta)), i, j) for j, t in enumerate(found) if low <= t.beta <= high]
    pairs: list[tuple[int, int]] = []
    for _, i, j in sorted(near):
        if all(i != other and j != another for other, another in pairs):
            pairs.append((i, j))
    matched = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    pairs += [(i, -1) for i in np.setdiff1d(np.arange(len(peaks)), matched[:, 0])]
    pairs += [(-1, j) for j in np.setdiff1d(np.arange(len(found)), matched[:, 1])]
    pairs.sort(key=lambda pair: -(found[pair[1]].beta if pair[1] >= 0 else peaks[pair[0]].beta))
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


def _report(solution: FixedPoint) -> None:
    if not solution.converged and not solution.error_estimate <= ACCEPTABLE_TOL * solution.frame.scale:
        text = f"beta={solution.beta:.9g}: {solution.status.value} (error estimate {solution.error_estimate:.2e})"
        warnings.warn(text, NotConvergedWarning, stacklevel=3)


def _down(branch: Continuation, start: float, end: float) -> Iterator[Split | State]:
    """Follow the branch from one temperature to another, in steps that are shorter near the next split."""
    state = branch.collapsed(start)
    while state.beta > end:
        # The eigenvalue is proportional to 1 / beta if a reconstruction keeps its data; it grows more slowly otherwise.
        step = np.clip(-1.01 * state.growth, _MAX_COOLING_STEP / 10, _MAX_COOLING_STEP)
        for event in branch.cool(state, max(end, state.beta * float(np.exp(-step)))):
            yield event
            state = event.after


def _check_range(beta_range: Any) -> tuple[float, float]:
    values = check_vector(beta_range, "beta_range")
    if len(values) != 2 or not 0 < values[0] < values[1]:
        raise ValueError(
            f"beta_range must be two temperatures, 0 < lowest < highest, got {beta_range!r}: give the lowest first"
        )
    return float(values[0]), float(values[1])


def _transition(branch: Continuation, split: Split) -> Transition:
    """The transition of a split, with its moments, its hysteresis and its kind."""
    at, after, condition = split.at, split.after, split.at.condition
    assert condition is not None  # `Continuation.split` needs it
    site = condition.site
    tiles = at.sites.index == site
    psi = branch.problem.data.frame.outward(at.sites.decoder[site])
    end, crossing, jump = _heated(branch, split, tiles)
    problem, skewness, kurtosis = branch.problem_at(at.beta), np.nan, np.nan
    if problem.framed.quadratic is not None:
        skewness, kurtosis = _moments(problem, at, condition)
    return Transition(
        beta=at.beta,
        bracket=(split.bracket[0].beta, split.bracket[1].beta),
        before=at.solution,
        after=after.solution,
        reconstruction=int(np.square(at.solution.distinct.decoder - psi).sum(axis=1).argmin()),
        direction=condition.axis,
        tiles_before=int(tiles.sum()),
        tiles_after=tuple(int(n) for n in np.unique(after.sites.index[tiles], return_counts=True)[1]),
        skewness=skewness,
        excess_kurtosis=kurtosis,
        predicted=_kind(skewness, kurtosis, at.sites.tile_masses[tiles], branch.options.free),
        heating_end=end,
        crossing=crossing,
        jump=jump,
    )


def _heated(branch: Continuation, split: Split, tiles: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """The temperatures at which the split branch ends on heating and the free energies cross, and the jump of D.

    The steps of heating grow while two parts exist. A step after which they do not is undone and made shorter, until
    the steps are below the tolerance.
    """
    at, last = split.at, split.after

    def parts(state: State) -> int:
        """Number of sites with tiles of the split site only, so without a part that joined another site."""
        index = state.sites.index
        return len(np.setdiff1d(index[tiles], index[~tiles]))

    if parts(last) < 2:  # one half has joined a neighbouring reconstruction
        return np.nan, np.nan, at.solution.distortion - last.solution.distortion
    first = branch.step(last, at.beta * (1 + _HYSTERESIS_TOL))
    if parts(first) < 2:
        return at.beta, at.beta, 0.0
    last, step, end = first, _HEATING_END_TOL, np.inf
    jump = at.solution.distortion - last.solution.distortion
    while last.beta < _MAX_HEATING_RATIO * at.beta:
        if step < _HEATING_END_TOL:
            end = last.beta
            break
        heated = branch.step(last, last.beta * (1 + step))
        last, step = (last, step / 4) if parts(heated) < 2 else (heated, min(2 * step, _MAX_HEATING_STEP))

    def excess(log_beta: float) -> float:
        beta = float(np.exp(log_beta))
        return branch.step(last, beta).solution.free_energy - branch.step(at, beta).solution.free_energy

    low, high = np.log(first.beta), np.log(last.beta)
    if not excess(low) < 0 < excess(high):
        return end, end, jump
    return end, float(np.exp(brentq(excess, low, high, xtol=1e-10))), jump


def _moments(problem: Problem, state: State, condition: SplitCondition) -> tuple[float, float]:
    """Skewness and excess kurtosis of a site's data along its unstable axis (T13); NaN if the axis is not unique."""
    site, axis = condition.site, condition.axis
    dim, sites = len(axis), state.sites
    powers, covariance = (
        to_host(total)
        for total in problem.total(_deviations, sites.decoder, sites.log_masses, site, sites.decoder[site], axis)
    )
    if covariance.size and dim > 1:
        values = eigh(covariance, eigvals_only=True, subset_by_index=(dim - 2, dim - 1))
        if values[0] >= (1 - _SYMMETRY_TOL) * values[1]:
            return np.nan, np.nan
    second, third, fourth = powers[2:] / powers[0]
    return float(third / second**1.5), float(fourth / second**2 - 3)


def _deviations(block: Block, tiles: Tiles, site: int, psi: Array, axis: Array) -> tuple[Array, Array]:
    """Sums of powers 0 to 4 of a site's deviations along an axis (5,), and of their products (D, D) for small D."""
    q, deviation = responsibilities(block, tiles)[:, site], block.x - psi  # their mean is zero at a fixed point
    xp, along = array_namespace(psi), deviation @ axis
    powers = xp.stack([q @ along**n for n in range(5)])
    few = len(axis) <= _MAX_COVARIANCE_DIM
    return powers, (q[:, None] * deviation).T @ deviation if few else xp.zeros((0, 0))


def _kind(skewness: float, kurtosis: float, masses: FloatArray, free: bool) -> str | None:
    """The kind of the split that the expansion of the free energy predicts (T13).

    Displacements t with sum m t = 0 have -dF = s M_3 / 6 + k M_4 / 24 - (k + 2) M_2^2 / 8. Two parts with shares p and
    1 - p have M_3 = 0 only if p = 1/2, and M_4 / M_2^2 = (1 - 3 p + 3 p^2) / (p (1 - p)), which falls up to p = 1/2.
    """
    if np.isnan(skewness):
        return None
    halves = not free and len(masses) == 2 and np.ptp(masses) <= 1e-12
    if halves or (
        abs(skewness) <= _SYMMETRY_TOL and _quartic(kurtosis, 0.0 if free else masses.min() / masses.sum()) <= 0
    ):
        return "continuous"
    return "first-order"


def _quartic(kurtosis: float, p: float) -> float:
    """24 p (1 - p) / M_2^2 times the term of -dF of fourth order."""
    return kurtosis * (1 - 3 * p + 3 * p**2) - 3 * (kurtosis + 2) * p * (1 - p)
