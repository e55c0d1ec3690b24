"""Run: a trained model with its history and report, and its distance from the exact frontier (T22)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

from .._utils import tables
from .._utils.arrays import FloatArray, PickledByFields
from .._utils.checks import check_data, check_instance
from .._utils.pictures import picture
from ..frontier.curve import RateDistortionCurve
from ..objectives.constraints import Constraint
from . import checkpoints
from .evaluation import Evaluation, evaluate
from .history import History
from .networks import VAE
from .placement import Placement, place
from .reports import Feasibility


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

    Examples
    --------
    >>> from constrained_vae import RE, geco
    >>> run = geco.train([[-2.0], [2.0]], RE(1.0), latent_dim=1, hidden=(), steps=40)
    >>> run.stopped, list(run.multipliers)
    ('finished', ['RE'])
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

    def _repr_html_(self) -> str:
        facts = [("objective", str(self.settings["objective"])), ("steps", str(len(self.history)))]
        facts.append(("ended", self.stopped))
        names = ("name", "status", "value", "error", "threshold", "multiplier")
        columns = {name: [getattr(found, name) for found in self.report.values()] for name in names}
        return tables.as_html("Run", columns if self.report else {}, facts)

    def plot(self, ax: Any = None) -> Any:
        """Draw distortion, KL and multipliers against the steps of training; the Axes."""
        return picture("training", self, ax)

    @property
    def multipliers(self) -> dict[str, float]:
        """Mean of lambda over the last tenth of the steps, by name."""
        return self.history.final_multipliers

    @property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian decoder, for likelihoods."""
        return float(self.settings["sigma"])

    @property
    def _multiplier(self) -> float:
        """lambda of the total squared error, as its mean over the last tenth; NaN if the loss has no such error."""
        if self.settings["likelihood"] == "bernoulli" and self.settings["objective"] != "geco":
            return float("nan")
        return self.history.final_multiplier

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

        An evaluation on the held-out rows of the curve is placed above R(D) of their source (T24).

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
        if evaluation is not None:
            check_instance(evaluation, "evaluation", Evaluation, "run.evaluate(x)")
        seen = self.evaluation if evaluation is None else evaluation
        return place(
            curve,
            seen.signature,
            rate=seen.rate,
            distortion=seen.distortion,
            distortion_error=seen.distortion_error,
            marginal_kl=seen.marginal_kl,
            marginal_kl_error=seen.marginal_kl_error,
            multiplier=self._multiplier,
            stacklevel=3,
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to a file, from which `train(..., resume=path)` continues.

        With the same number of steps `train` restores this run.
        """
        checkpoints.save(path, self.settings, self.state)
