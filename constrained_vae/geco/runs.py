"""Run: a trained model with its history and report, and where it stands against the exact frontier (T22)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np

from .._utils.arrays import FloatArray
from .._utils.checks import check_data
from ..frontier.rate_distortion import Excess, RateDistortionCurve
from ..objectives.constraints import Constraint
from . import checkpoints
from .evaluation import Evaluation, evaluate
from .history import History
from .networks import VAE
from .reports import Feasibility


@dataclass(frozen=True)
class Placement:
    """A trained model above the rate-distortion function R(D) of its data, in nats (T22).

    Attributes
    ----------
    gap : Excess
        KL - R(D): at least, at most; the R between its bounds.
    error : float
        Standard error of gap and rest from that of the distortion.
    marginal_kl, marginal_kl_error : float
        The part of the gap that is KL(m || prior).
    rest : Excess
        The other part, I(x; z) - R(D).
    rest_error : float
        Standard error of that, the marginal KL's included.
    slope : float
        -dR/dD of the frontier at the distortion of the model; NaN beyond where it was solved.
    multiplier : float
        lambda of the model, per unit of the total squared error; NaN where it has none.
    """

    gap: Excess
    error: float
    marginal_kl: float
    marginal_kl_error: float
    rest: Excess
    rest_error: float
    slope: float
    multiplier: float


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A trained model.

    Attributes
    ----------
    x : (N, D) array
        The data trained on.
    constraints : tuple of Constraint
    model : VAE
        With `encode`, `decode`, `reconstruct` and `sample`.
    history : History
        What was measured at every step.
    report : dict of Feasibility
        By name of the constraint: met, slack, unreachable or not met.
    settings : dict
    state : tuple
        All that is needed to go on: `train(..., resume=run)`.
    stopped : str
        "finished", or why training ended before.
    """

    x: FloatArray
    constraints: tuple[Constraint, ...]
    model: VAE
    history: History
    report: dict[str, Feasibility]
    settings: dict[str, Any]
    state: checkpoints.State
    stopped: str

    def __repr__(self) -> str:
        met = "; ".join(map(repr, self.report.values()))
        return f"Run({self.settings['objective']}, {len(self.history)} steps, {self.stopped}{'; ' * bool(met)}{met})"

    @property
    def multipliers(self) -> dict[str, float]:
        """Means of lambda over the last tenth of the steps, by name."""
        return {name: float(values.mean()) for name, values in self.history.tail().multipliers.items()}

    @property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian decoder in its likelihoods."""
        return float(self.settings["sigma"])

    @cached_property
    def evaluation(self) -> Evaluation:
        """That on the data trained on, with default settings."""
        return self.evaluate()

    def evaluate(self, x: Any = None, *, samples: int = 16, seed: int = 0) -> Evaluation:
        """Rate, distortion, ELBO, marginal KL, active units and holes, on the data trained on or others.

        Nothing of the run changes. Of other data constraints that know labels are left out.

        Parameters
        ----------
        x : (n, D) array_like, optional
            Other data, in the same units; by default those trained on.
        samples : int
            Codes per point, at least 2.
        seed : int
            Of the codes.

        Raises
        ------
        ValueError
            For bad input.
        """
        data = self.x if x is None else check_data(x)
        known = tuple(c for c in self.constraints if x is None or c.labelled is None)
        return evaluate(self.model, data, known, sigma=self.sigma, samples=samples, seed=seed)

    def excess_over(self, curve: RateDistortionCurve, *, evaluation: Evaluation | None = None) -> Placement:
        """Place the model above the frontier of its data, under the squared error.

        Parameters
        ----------
        curve : RateDistortionCurve
            `rate_distortion` of the same data, with a Gaussian objective.
        evaluation : Evaluation, optional
            On the data trained on; by default `self.evaluation`.
        """
        seen = self.evaluation if evaluation is None else evaluation
        gap = curve.excess(seen.rate, seen.distortion)
        log_slope = np.interp(
            seen.distortion, curve.distortion[::-1], np.log(curve.multipliers[::-1]), left=np.nan, right=np.nan
        )
        slope = float(np.exp(log_slope))
        steep = slope if np.isfinite(slope) else float(curve.multipliers.max())
        error = steep * seen.distortion_error
        beta = self.history.tail().equivalent_beta
        return Placement(
            gap=gap,
            error=error,
            marginal_kl=seen.marginal_kl,
            marginal_kl_error=seen.marginal_kl_error,
            rest=Excess(gap.least - seen.marginal_kl, gap.most - seen.marginal_kl),
            rest_error=float(np.hypot(error, seen.marginal_kl_error)),
            slope=slope,
            multiplier=float((1 / (2 * self.sigma**2 * beta)).mean()),
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write its state, from which `train(..., resume=path)` goes on, or, with no more steps, gives it back."""
        checkpoints.save(path, self.settings, self.state)
