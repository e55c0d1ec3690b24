"""suggest(): temperatures and thresholds at which the solution of a data set stands out.

A plateau is a range of temperatures in which the number of reconstructions stays the same. Its width in log beta alone
says little: a single Gaussian has plateaus too. What counts is how far the reconstructions are from splitting. By (T9)
a reconstruction splits where the largest eigenvalue of the split condition, c = max_a lambda_max(Cov_a) / theta, is 1.
The stability of a plateau is the largest value of -log c on it: by so much log beta could fall before the next split if
every reconstruction kept its data. Where Shannon's lower bound of R(D) is attained, as for one Gaussian of any
covariance, the optimal codes leave a Gaussian error of covariance theta I in every reconstruction, so that c = 1 at all
temperatures and the stability is 0; what a sample of N points has is noise of the order 1 / sqrt(N).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .._utils import deadline, memory, tables
from .._utils.arrays import FloatArray
from .._utils.checks import check_count, check_flag, check_seed, check_time_limit
from .._utils.pictures import picture
from ..data.rows import RowBlocks
from ..data.sample import spanning_sample
from ..objectives.elbo import ELBO
from ..problems.problem import Problem
from ..results.fixed_point import FixedPoint
from ..solvers.pose import check_on_failure
from .branch import Branch
from .criticality import critical_beta
from .peaks import find_kinks
from .sweep import default_grid, report_ending, sweep

_STEP = 0.03  # of log beta between temperatures
_BELOW = 0.01  # the sweep goes on to this multiple of the lowest default temperature, unless it has seen enough
_HEADROOM = 1.1  # ratio of the hottest temperature to the first critical one
_LIGHT = 0.01  # share of the data up to which a reconstruction is that of a few outlying points
_ALONE = 1.5  # and number of points up to which it is that of one point
_HELD = 0.9  # share of the data that the other reconstructions must hold
_NOISE = 1.8  # stability, times sqrt(N), of a sample of N points of one Gaussian: up to 1.5 in 33 samples of 30 to 250
_TOLD_APART = 0.2  # split condition below which the points that are all told apart stay so
_TOL = 1e-5  # of the solutions: relative to the radius of the data
_TRANSITIONS = 3  # number of transitions that are listed


@dataclass(frozen=True, eq=False)
class Plateau:
    """A range of temperatures in which the number of reconstructions stays the same.

    Attributes
    ----------
    low, high : float
        The coldest and the hottest temperature of the range, on the grid of the sweep.
    width : float
        Width of the range in log beta; infinite if the data have no further points to tell apart.
    ended : bool
        Whether the sweep has seen the cold end of the range; otherwise `width` is at least what is given.
    stability : float
        By how much log beta could fall from `beta` before the next split, if every reconstruction kept its data (T9).
    solution : FixedPoint
        The solution at `beta`, the temperature of the range at which the reconstructions are farthest from a split.
    n_reconstructions : int
        Number of reconstructions, without those of a few outlying points.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> plateau = cv.suggest(cv.datasets.four_clusters(80).x).plateaus[0]
    >>> plateau.n_reconstructions, plateau.rate > 1.2, 0.1 < plateau.kappa < 0.3
    (4, True, True)
    """

    low: float
    high: float
    width: float
    ended: bool
    stability: float
    solution: FixedPoint
    n_reconstructions: int

    @property
    def beta(self) -> float:
        """The suggested temperature."""
        return self.solution.beta

    @property
    def rate(self) -> float:
        """Rate of the solution, in nats."""
        return self.solution.rate

    @property
    def distortion(self) -> float:
        """E||x - psi||^2 of the solution, in squared units of x."""
        return self.solution.distortion

    @property
    def kappa(self) -> float:
        """Threshold kappa, in units of x, of the constraint `RE` that this solution meets with equality."""
        return float(np.sqrt(self.distortion))

    def __repr__(self) -> str:
        width = "without end" if np.isinf(self.width) else f"width {'' if self.ended else 'at least '}{self.width:.2f}"
        return (
            f"Plateau({self.n_reconstructions} reconstructions, beta {self.low:.4g} to {self.high:.4g}, {width} in "
            f"log beta; beta={self.beta:.4g}, kappa={self.kappa:.4g})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Suggestions:
    """Temperatures and thresholds at which the solution of a data set stands out.

    Attributes
    ----------
    plateaus : tuple of Plateau
        The plateaus that stand out, widest in log beta first; none if no number of reconstructions stands out.
    transitions : tuple of (float, int, int, float)
        The most prominent changes: temperature, numbers of reconstructions above and below it, and the height of the
        peak of |d^2 D / d (log beta)^2|, highest first. Temperatures are those of the grid, to 3 %; `transitions`
        locates them exactly.
    first_critical_beta : float
        Where one reconstruction of all data splits, exactly (T9).
    branch : Branch
        The sweep that was looked at.
    n_points : int
        Number of rows of x that it was made of.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> found = cv.suggest([[-1.0]] * 20 + [[1.0]] * 20)  # two reconstructions at any beta below 1
    >>> found.plateaus[0].n_reconstructions, round(found.first_critical_beta, 6)
    (2, 1.0)
    """

    plateaus: tuple[Plateau, ...]
    transitions: tuple[tuple[float, int, int, float], ...]
    first_critical_beta: float
    branch: Branch
    n_points: int

    def __repr__(self) -> str:
        return f"Suggestions({self._sentence})"

    def __str__(self) -> str:
        parts = [self._sentence[0].upper() + self._sentence[1:] + "."]
        if self.plateaus:
            parts += ["", "plateaus, widest in log beta first", tables.as_text(self._columns)]
        if self.plateaus and self.transitions:
            parts += ["", "prominent transitions, to 3 %, most prominent first", tables.as_text(self._changes)]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        changes = tables.as_html("Prominent transitions, to 3 %", self._changes)
        return tables.as_html(repr(self), self._columns) + changes if self.plateaus else tables.as_html(repr(self), {})

    @property
    def _sentence(self) -> str:
        note = "" if self.branch.complete else " as far as the sweep got, which was interrupted"
        first = f"first critical beta {self.first_critical_beta:.6g}"
        if not self.plateaus:
            return f"nothing stands out{note}: no number of reconstructions is stable; {first}"
        best = self.plateaus[0]
        others = [str(plateau.n_reconstructions) for plateau in self.plateaus[1:]]
        also = f" (and {', '.join(others)})" if others else ""
        return (
            f"{best.n_reconstructions} reconstructions{also} stand out{note}: beta={best.beta:.4g} or "
            f"kappa={best.kappa:.4g}; {first}"
        )

    @property
    def _columns(self) -> tables.Columns:
        names = ("n_reconstructions", "beta", "kappa", "rate", "distortion", "low", "high", "width", "stability")
        return {name: [getattr(plateau, name) for plateau in self.plateaus] for name in names}

    @property
    def _changes(self) -> tables.Columns:
        near = [self.branch.at(beta) for beta, *_ in self.transitions]
        return {
            "beta": [change[0] for change in self.transitions],
            "reconstructions": [f"{above} to {below}" for _, above, below, _ in self.transitions],
            "prominence": [change[3] for change in self.transitions],
            "rate": [solution.rate for solution in near],
            "distortion": [solution.distortion for solution in near],
            "kappa": [float(np.sqrt(solution.distortion)) for solution in near],
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw D against temperature, with the plateaus that stand out; the Axes."""
        return picture("suggestions", self, ax)

    def to_frame(self) -> Any:
        """A pandas data frame with a row per plateau, widest first.

        Its columns are n_reconstructions, beta, kappa (units of x), rate (nats), distortion (squared units of x), low,
        high, width and stability (log beta).

        Raises
        ------
        ImportError
            If pandas, an optional dependency, is not installed.
        """
        return tables.as_frame(self._columns)


def suggest(
    x: npt.ArrayLike | RowBlocks | Branch,
    objective: ELBO | None = None,
    *,
    sigma: float | None = None,
    weights: npt.ArrayLike | None = None,
    most: int = 12,
    sample: int = 2000,
    time_limit: float | None = None,
    backend: str = "auto",
    seed: int = 0,
    progress: bool = False,
    on_failure: str = "warn",
) -> Suggestions:
    """Which beta, and which kappa? The widest plateaus in log beta that are stable, and the prominent transitions.

    The data are cooled with free masses, so that the answer does not depend on a number of tiles (T14), until there are
    more than `most` reconstructions. A plateau stands out if its reconstructions are farther from a split (T9) than
    those of a sample of one Gaussian are, 1.8 / sqrt(N) in log beta; the head of the module has the reason. Plateaus
    that stand out are ranked by their width in log beta. Reconstructions of single points, or of less than 1 % of the
    data, are not counted, so that outliers do not make a plateau.

    Parameters
    ----------
    x : (N, D) array_like, memory map, RowBlocks, Dask array or dataframe, or Branch
        Data, or a cooling branch of some, which is then not computed again. Standardise features of different units.
    objective : ELBO, optional
        Gaussian or Bernoulli; its beta is ignored.
    sigma : float, optional
        Standard deviation of the Gaussian decoder, in units of x; short for an ELBO with it. 1 by default.
    weights : (N,) array_like, optional
        Data weights, uniform by default.
    most : int
        Largest number of reconstructions that is of interest.
    sample : int
        Number of rows that are looked at; of more, a sample in which rare rows far from the others are not missing.
    time_limit : float, optional
        Budget in seconds, kept as in `solve`.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.
    seed : int
        Of no effect, since cooling begins at the mean of the data.
    progress : bool
        Show a progress bar.
    on_failure : {"warn", "raise", "return"}
        What to do if Ctrl-C or the time limit ends the sweep. The suggestions are then those of its hotter part.

    Returns
    -------
    Suggestions
        It prints as text, as a table in a notebook, and `to_frame` makes a data frame.

    Raises
    ------
    ValueError
        For bad input, if all points coincide, and for a branch of fewer than five temperatures.

    Warns
    -----
    NotConvergedWarning
        If the sweep was cut short.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> cv.suggest(cv.datasets.four_clusters().x)
    Suggestions(4 reconstructions (and 2, 3) stand out: beta=... or kappa=0...; first critical beta 9.0...)
    """
    most, sample = check_count(most, "most"), check_count(sample, "sample", 5, memory.LARGEST)
    seed, progress, time_limit = check_seed(seed), check_flag(progress, "progress"), check_time_limit(time_limit)
    check_on_failure(on_failure)
    if isinstance(x, Branch):
        return _read(x, _first_critical(x), most)
    problem = Problem.make(x, objective, weights, backend, sigma=sigma, kind=ELBO)
    began = time.monotonic()
    with deadline.within(time_limit), deadline.finishing():  # no result without a temperature
        first = critical_beta(problem)
        low = _BELOW * float(default_grid(problem, first)[0])
    betas = np.geomspace(low, _HEADROOM * first, 2 + int(np.log(_HEADROOM * first / low) / _STEP))
    points, rho, distinct = x, weights, problem.data.rows.distinct()
    if len(problem.data) > sample:
        chosen, rho = spanning_sample(distinct, sample)
        points = problem.data.frame.outward(distinct.take(chosen))
    n_distinct, enough = min(len(distinct), sample), False

    def stop(branch: Branch) -> bool:
        nonlocal enough
        solution = branch[-1]
        told_apart = len(solution.distinct) == n_distinct and solution.split_condition < _TOLD_APART
        enough = not 0 < _count(solution) <= most or told_apart
        enough = enough or len(solution.distinct) == len(solution.tiling)  # no tile is left for another split
        return enough

    options: dict[str, Any] = {"masses": "free", "n_tiles": 4 * most, "tol": _TOL, "weights": rho, "seed": seed}
    left = None if time_limit is None else max(time_limit - (time.monotonic() - began), 0.0)
    options |= {"time_limit": left, "backend": backend, "progress": progress, "callback": stop}
    branch = cast(Branch, sweep(points, problem.objective, betas=betas, on_failure="return", **options))
    branch = Branch(branch.solutions, branch.direction, complete=branch.complete or enough)
    if not len(branch):
        raise KeyboardInterrupt
    if not branch.complete:
        ended = "interrupted" if time_limit is None else f"time_limit={time_limit:g}"
        report_ending(f"{ended}: nothing was seen below beta={branch.betas[-1]:.6g}", branch[-1], on_failure)
    return _read(branch, first, most)


def _first_critical(branch: Branch) -> float:
    if branch.direction != "down" or len(branch) < 5:
        raise ValueError(f"x must be a cooling branch of at least five temperatures, such as sweep(data), got {branch}")
    return critical_beta(branch[0].problem)


def _effective(solution: FixedPoint) -> float:
    """Number of points, the effective one if they have weights."""
    return float(1 / np.square(solution.weights).sum())


def _count(solution: FixedPoint) -> int:
    """Number of reconstructions without those of one point, or of a few outlying points.

    It is 0 if the others hold too little of the data to stand for them.
    """
    marginal = solution.distinct.marginal
    assert marginal is not None
    heavy = marginal[marginal > max(_LIGHT, _ALONE / _effective(solution))]
    return len(heavy) if heavy.sum() >= _HELD else 0


def _read(branch: Branch, first: float, most: int) -> Suggestions:
    """The plateaus and the transitions of a cooling branch."""
    solved = [s for s in branch if s.converged or s.error_estimate <= 10 * _TOL * s.frame.scale]
    if not solved:
        return Suggestions((), (), first, branch, len(branch[0].weights))
    counts = np.array([_count(s) for s in solved])
    log_betas = np.log([s.beta for s in solved])
    changes = np.flatnonzero(np.diff(counts)) + 1
    found = []
    for begin, end in zip([0, *changes], [*changes, len(counts)], strict=True):
        if 1 < counts[begin] <= most:
            found.append(_plateau(solved[begin:end], int(counts[begin]), log_betas, begin, end))
    plateaus = [p for p in found if p.stability > _NOISE / np.sqrt(_effective(branch[0]))]
    plateaus.sort(key=lambda plateau: -plateau.width)
    return Suggestions(tuple(plateaus), _transitions(solved, counts), first, branch, len(branch[0].weights))


def _plateau(solutions: list[FixedPoint], count: int, log_betas: FloatArray, begin: int, end: int) -> Plateau:
    """The plateau of the solutions from `begin` to `end`; its ends are half way to the neighbours on the grid."""
    condition = np.array([s.split_condition if s.split_condition > 0 else 1.0 for s in solutions])
    stable = int(np.nanargmin(condition))
    ended = end < len(log_betas)
    hot = (log_betas[begin - 1] + log_betas[begin]) / 2 if begin else log_betas[0]
    cold = (log_betas[end - 1] + log_betas[end]) / 2 if ended else log_betas[-1]
    last = solutions[-1]
    width = np.inf if not ended and count == len(np.unique(np.asarray(last.x), axis=0)) else float(hot - cold)
    low, high = float(np.exp(cold)), float(np.exp(hot))
    return Plateau(low, high, width, ended, max(-float(np.log(condition[stable])), 0.0), solutions[stable], count)


def _transitions(
    solutions: list[FixedPoint], counts: npt.NDArray[np.intp]
) -> tuple[tuple[float, int, int, float], ...]:
    """The highest peaks of the second derivative of D in log beta (T12)."""
    if len(solutions) < 5:
        return ()
    betas = np.array([s.beta for s in solutions])[::-1]
    peaks = find_kinks(betas, np.array([s.distortion for s in solutions])[::-1], k=None, variable="log_beta")
    ascending = counts[::-1]
    found = [(p.beta, int(ascending[p.index + 1]), int(ascending[p.index - 1]), p.height) for p in peaks]
    return tuple(change for change in found if change[1] != change[2] and change[2])[:_TRANSITIONS]
