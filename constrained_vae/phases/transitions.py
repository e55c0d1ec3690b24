"""transitions(): every critical temperature of the cooling branch, to solver precision (T9), and its kind (T13)."""

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
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..problems.posterior import Tiles, responsibilities
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..results.status import NotConvergedWarning
from ..solvers.options import Options
from ..solvers.pose import pose
from ..solvers.split_condition import SplitCondition
from .continuation import Continuation, Split, State
from .criticality import critical_beta
from .peaks import Peak
from .sweep import default_grid

_ACCURACY = 1e-11  # of log beta at a transition, asked for; the eigenvalue is as good as the solution
_STEP = 0.03  # longest step of log beta on the way to the next transition
_SAME_KIND = 1e-7  # hysteresis narrower than this, relatively, cannot be told from a continuous split
_HEATING = 1e-6  # relative accuracy of the end of heating
_LONGEST = 0.05  # step of heating
_FOREVER = 100.0  # a branch that can be heated to this times its transition can be heated without end
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
        The solution at `beta`.
    after : FixedPoint
        The solution below, at beta (1 - 1e-3) unless another transition follows within that.
    reconstruction : int
        Which of the distinct reconstructions of `before` splits.
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
        Where the branch below ends when it is heated; `beta` itself where the transition is continuous. NaN where tiles
        change hands instead: one half joins a neighbour. Infinite where it never ends, as it may for energies with more
        than one minimum.
    crossing : float
        Where the free energies of the two branches are equal, between `beta` and `heating_end`.
    jump : float
        Fall of the distortion at `beta`, in squared units of x; 0 where the transition is continuous.

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
        """Observed: "continuous" if the branch below cannot be heated beyond `beta`, else "first-order"."""
        return "continuous" if self.heating_end <= self.beta * (1 + _SAME_KIND) else "first-order"

    @property
    def n_before(self) -> int:
        """Number of distinct reconstructions above."""
        return len(self.before.distinct)

    @property
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

    Raises
    ------
    ValueError
        For bad input, or an empty range.

    Warns
    -----
    NotConvergedWarning
        If a solution on the way does not reach the tolerance, and after Ctrl-C.

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
    branch = Continuation(problem, posed.tiling, options, accuracy=_ACCURACY)
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
        warnings.warn("interrupted: colder transitions have not been looked for", NotConvergedWarning, stacklevel=2)
    return found


def match_peaks(peaks: Sequence[Peak], found: Sequence[Transition]) -> npt.NDArray[np.intp]:
    """Which detected peak belongs to which exact transition (T12).

    A peak may stand for a transition inside its bracket, widened by a step of the grid at either end. The nearest pairs
    in log beta are matched first, each peak and each transition once.

    Parameters
    ----------
    peaks : sequence of Peak
        As from `Branch.peaks`.
    found : sequence of Transition
        As from `transitions`.

    Returns
    -------
    (n, 2) array of int
        Numbers of the peak and of the transition, hottest first; -1 where there is none.

    Examples
    --------
    >>> found = transitions([[-3.0], [3.0]], beta_range=(1, 20), tiling=Tiling.uniform(2))
    >>> match_peaks([Peak(9.5, 1.0, 4, (8.0, 11.0)), Peak(2.0, 0.5, 1, (1.5, 3.0))], found)  # the second is none
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
    if not solution.converged and not solution.error_estimate <= _ROUGH * solution.frame.scale:
        text = f"beta={solution.beta:.9g}: {solution.status.value} (error estimate {solution.error_estimate:.2e})"
        warnings.warn(text, NotConvergedWarning, stacklevel=3)


def _down(branch: Continuation, start: float, end: float) -> Iterator[Split | State]:
    """Follow the branch from one temperature to another, in steps after which the next split is not far."""
    state = branch.collapsed(start)
    while state.beta > end:
        # The eigenvalue goes as 1 / beta while a reconstruction keeps its data, and more slowly if it loses some.
        step = np.clip(-1.01 * state.growth, _STEP / 10, _STEP)
        for event in branch.cool(state, max(end, state.beta * float(np.exp(-step)))):
            yield event
            state = event.after


def _check_range(beta_range: Any) -> tuple[float, float]:
    values = check_vector(beta_range, "beta_range")
    if len(values) != 2 or not 0 < values[0] < values[1]:
        raise ValueError(
            f"beta_range must be two temperatures, 0 < lowest < highest, got {beta_range!r}: no transition is looked "
            "for in an empty range"
        )
    return float(values[0]), float(values[1])


def _transition(branch: Continuation, split: Split) -> Transition:
    """What there is to say of a split."""
    at, after, condition = split.at, split.after, split.at.condition
    assert condition is not None  # or it could not have split
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


def _heated(branch: Continuation, split: Split, tiles: Any) -> tuple[float, float, float]:
    """Where the branch below ends on heating, where the free energies cross, and the jump of D at the split.

    Heated in steps that grow while two parts are left, and shrink where a step was too long for them, until none is
    short enough.
    """
    at, last = split.at, split.after

    def parts(state: State) -> int:
        """Sites of tiles of the split site alone: a part that dies, or meets another site, is none."""
        index = state.sites.index
        return len(np.setdiff1d(index[tiles], index[~tiles]))

    if parts(last) < 2:  # a half has joined a neighbour: tiles have changed hands
        return np.nan, np.nan, at.solution.distortion - last.solution.distortion
    first = branch.step(last, at.beta * (1 + _SAME_KIND))
    if parts(first) < 2:
        return at.beta, at.beta, 0.0
    last, step, end = first, _HEATING, np.inf
    jump = at.solution.distortion - last.solution.distortion
    while last.beta < _FOREVER * at.beta:
        if step < _HEATING:
            end = last.beta
            break
        heated = branch.step(last, last.beta * (1 + step))
        last, step = (last, step / 4) if parts(heated) < 2 else (heated, min(2 * step, _LONGEST))

    def excess(log_beta: float) -> float:
        beta = float(np.exp(log_beta))
        return branch.step(last, beta).solution.free_energy - branch.step(at, beta).solution.free_energy

    low, high = np.log(first.beta), np.log(last.beta)
    if not excess(low) < 0 < excess(high):
        return end, end, jump
    return end, float(np.exp(brentq(excess, low, high, xtol=1e-10))), jump


def _moments(problem: Problem, state: State, condition: SplitCondition) -> tuple[float, float]:
    """Skewness and excess kurtosis of a site's data along its unstable axis (T13); NaN if that is not the only one."""
    site, axis = condition.site, condition.axis
    dim, sites = len(axis), state.sites
    powers, covariance = (
        to_host(total)
        for total in problem.total(_deviations, sites.decoder, sites.log_masses, site, sites.decoder[site], axis)
    )
    if covariance.size and dim > 1:
        values = eigh(covariance, eigvals_only=True, subset_by_index=(dim - 2, dim - 1))
        if values[0] >= (1 - _SYMMETRIC) * values[1]:
            return np.nan, np.nan
    second, third, fourth = powers[2:] / powers[0]
    return float(third / second**1.5), float(fourth / second**2 - 3)


def _deviations(block: Block, tiles: Tiles, site: int, psi: Array, axis: Array) -> tuple[Array, Array]:
    """Powers 0 to 4 of a site's deviations along an axis (5,), and their products (D, D), if D is not large."""
    q, deviation = responsibilities(block, tiles)[:, site], block.x - psi  # their mean is zero at a fixed point
    xp, along = array_namespace(psi), deviation @ axis
    powers = xp.stack([q @ along**n for n in range(5)])
    few = len(axis) <= _DENSE
    return powers, (q[:, None] * deviation).T @ deviation if few else xp.zeros((0, 0))


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
