"""Run: a trained model with its history and report, and its distance from the exact frontier (T22)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np

from .._utils.arrays import FloatArray, PickledByFields
from .._utils.checks import check_data, check_instance
from ..data import signature
from ..frontier.curve import Excess, RateDistortionCurve
from ..objectives.constraints import Constraint
from . import checkpoints
from .evaluation import Evaluation, evaluate
from .history import History
from .networks import VAE
from .reports import Feasibility


@dataclass(frozen=True)
class Placement:
    """Distance of a trained model from the rate-distortion function R(D) of its data, in nats (T22).

    Attributes
    ----------
    gap : Excess
        KL - R(D), at least and at most: R(D) is known between bounds.
    error : float
        Standard error of the gap, from the standard error of the distortion.
    marginal_kl, marginal_kl_error : float
        KL(m || prior), a part of the gap, and its standard error.
    rest : Excess
        The other part of the gap, I(x; z) - R(D).
    rest_error : float
        Standard error of the rest, from the errors of distortion and marginal KL.
    slope : float
        -dR/dD of the frontier at the distortion of the model; NaN outside of the solved range.
    multiplier : float
        lambda of the model, per unit of the total squared error; NaN if its loss does not have this error, as that of
        a Bernoulli likelihood.
    rigorous : bool
        Whether the bounds of R(D) are proven; otherwise `gap.most` and `rest.most` are heuristic.
    """

    gap: Excess
    error: float
    marginal_kl: float
    marginal_kl_error: float
    rest: Excess
    rest_error: float
    slope: float
    multiplier: float

    @property
    def rigorous(self) -> bool:
        """Whether the bounds of the gap are proven."""
        return self.gap.rigorous


@dataclass(frozen=True, eq=False, repr=False)
class Run(PickledByFields):
    """A trained model.

    Attributes
    ----------
    x : (N, D) array
        Training data.
    weights : (N,) array
        Weights of the points, of sum 1.
    constraints : tuple of Constraint
    model : VAE
        The model, with `encode`, `decode`, `reconstruct` and `sample`.
    history : History
        Measurements at every step.
    report : dict of Feasibility
        Result for every constraint, by name: met, slack, unreachable or not met.
    settings : dict
        Settings that must be equal for training to continue.
    state : tuple
        Everything that `train(..., resume=run)` needs to continue.
    stopped : str
        "finished", or why training ended early.
    """

    x: FloatArray
    weights: FloatArray
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
        """Mean of lambda over the last tenth of the steps, by name."""
        return {name: float(values.mean()) for name, values in self.history.tail().multipliers.items()}

    @property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian decoder, for likelihoods."""
        return float(self.settings["sigma"])

    @property
    def _multiplier(self) -> float:
        """lambda of the total squared error, as its mean over the last tenth; NaN if the loss has no such error."""
        if self.settings["likelihood"] == "bernoulli" and self.settings["objective"] != "geco":
            return float("nan")
        return float((1 / (2 * self.sigma**2 * self.history.tail().equivalent_beta)).mean())

    @cached_property
    def evaluation(self) -> Evaluation:
        """Evaluation on the training data with default settings."""
        return self.evaluate()

    def evaluate(self, x: Any = None, *, weights: Any = None, samples: int = 16, seed: int = 0) -> Evaluation:
        """Rate, distortion, ELBO, marginal KL, active units and holes, on the training data or on other data.

        The run is unchanged. On other data, constraints with labels are left out.

        Parameters
        ----------
        x : (n, D) array_like, optional
            Other data in the same units; by default the training data.
        weights : (n,) array_like, optional
            Weights of the points; by default those of training, and uniform for other data.
        samples : int
            Number of codes per point, at least 2.
        seed : int
            Seed of the codes.

        Raises
        ------
        ValueError
            For bad input.
        """
        data = self.x if x is None else check_data(x)
        weights = self.weights if x is None and weights is None else weights
        known = tuple(c for c in self.constraints if x is None or c.labelled is None)
        return evaluate(self.model, data, known, sigma=self.sigma, weights=weights, samples=samples, seed=seed)

    def excess_over(self, curve: RateDistortionCurve, *, evaluation: Evaluation | None = None) -> Placement:
        """Distance of the model from the frontier of its data, for the squared error.

        Parameters
        ----------
        curve : RateDistortionCurve
            Result of `rate_distortion` for the data of the evaluation, with a Gaussian objective.
        evaluation : Evaluation, optional
            Result of `evaluate`; by default `self.evaluation`, on the training data.

        Raises
        ------
        ValueError
            If the curve is of a Bernoulli likelihood, or of other data than the evaluation.

        Warns
        -----
        UserWarning
            If the model is below R(D) by more than its errors.
        """
        check_instance(curve, "curve", RateDistortionCurve, "rate_distortion(x)")
        if evaluation is not None:
            check_instance(evaluation, "evaluation", Evaluation, "run.evaluate(x)")
        seen = self.evaluation if evaluation is None else evaluation
        _check_fits(curve, seen)
        gap = curve._excess(seen.rate, seen.distortion, seen.distortion_error, stacklevel=3)
        log_slope = np.interp(
            seen.distortion, curve.distortion[::-1], np.log(curve.multipliers[::-1]), left=np.nan, right=np.nan
        )
        slope = float(np.exp(log_slope))
        steep = slope if np.isfinite(slope) else float(curve.multipliers.max())
        error = steep * seen.distortion_error
        return Placement(
            gap=gap,
            error=error,
            marginal_kl=seen.marginal_kl,
            marginal_kl_error=seen.marginal_kl_error,
            rest=Excess(gap.least - seen.marginal_kl, gap.most - seen.marginal_kl, gap.rigorous),
            rest_error=float(np.hypot(error, seen.marginal_kl_error)),
            slope=slope,
            multiplier=self._multiplier,
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to a file, from which `train(..., resume=path)` continues.

        With the same number of steps `train` restores this run.
        """
        checkpoints.save(path, self.settings, self.state)


def _check_fits(curve: RateDistortionCurve, evaluation: Evaluation) -> None:
    """Raise ValueError unless the curve is of the squared error and of the data of the evaluation."""
    if curve.likelihood != "gaussian":
        raise ValueError(
            f"curve must be of the squared error, got one of the {curve.likelihood} likelihood: compute it with "
            "rate_distortion(x) and a Gaussian objective"
        )
    if difference := signature.difference(curve.signature, evaluation.signature):
        raise ValueError(
            f"curve and evaluation must be of the same data, got {difference}: compute the curve from the data of the "
            "evaluation, by default the training data, in the same unit"
        )
