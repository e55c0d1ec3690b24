"""ImageRun: a trained model of images with its history and report, and its distance from the frontiers (T22)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np

from .._utils.arrays import FloatArray, PickledByFields
from .._utils.checks import check_instance
from .._utils.pictures import picture
from ..data import signature
from ..datasets import DataSet
from ..frontier.curve import RateDistortionCurve
from ..geco.history import History
from ..geco.placement import Placement, place
from ..geco.reports import Feasibility
from ..geco.water_filling import covariance_eigenvalues, of_distortion
from ..objectives.constraints import Constraint
from . import checkpoints
from .evaluation import ImageEvaluation, evaluate, reconstruct, sample
from .models import Model
from .tasks import PlainImages, Task


@dataclass(frozen=True)
class LinearPlacement:
    """Distance of a trained model from the best linear VAE, water-filling of the covariance of its images.

    Attributes
    ----------
    gap : float
        KL less the rate of the best linear VAE at the same distortion, nats; below 0 where a network does better than
        linear codes can.
    error : float
        Standard error of the gap, from the standard errors of distortion and rate.
    slope : float
        -dR/dD of the best linear VAE at this distortion.
    multiplier : float
        lambda of the model, per unit of the total squared error.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> from constrained_vae.image_models import MLPVAE, train
    >>> model = MLPVAE((1, 8, 8), latent_dim=4, hidden=(16,))
    >>> run = train(cv.datasets.digits(100), cv.RE(0.2, reduction="mean"), model=model, steps=5, device="cpu")
    >>> place = run.excess_over_linear()
    >>> place.error >= 0
    True
    """

    gap: float
    error: float
    slope: float
    multiplier: float


@dataclass(frozen=True, eq=False, repr=False)
class ImageRun(PickledByFields):
    """A trained model of images.

    Attributes
    ----------
    task : Task
        What it was trained on.
    constraints : tuple of Constraint
    model : Model
    history : History
        Measurements at every step, or at every k-th one.
    report : dict of Feasibility
        Result for every constraint, by name: met, slack, unreachable or not met.
    settings : dict
        Settings that must be equal for training to continue.
    state : dict
        Everything that `train(..., resume=run)` needs to continue.
    stopped : str
        "finished", or why training ended early.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> from constrained_vae.image_models import MLPVAE, train
    >>> model = MLPVAE((1, 8, 8), latent_dim=4, hidden=(16,))
    >>> run = train(cv.datasets.digits(100), cv.RE(0.2, reduction="mean"), model=model, steps=5, device="cpu")
    >>> run.stopped, len(run.history)
    ('finished', 5)
    """

    task: Task
    constraints: tuple[Constraint, ...]
    model: Model
    history: History
    report: dict[str, Feasibility]
    settings: dict[str, Any]
    state: checkpoints.State
    stopped: str

    def __repr__(self) -> str:
        met = "; ".join(map(repr, self.report.values()))
        of = f"{self.settings['model']['model']}, {self.settings['objective']}, {self.state['steps']} steps"
        return f"ImageRun({of}, {self.stopped}{'; ' * bool(met)}{met})"

    def plot(self, ax: Any = None) -> Any:
        """Draw distortion, KL and multipliers against the steps of training; the Axes."""
        return picture("training", self.history, ax)

    @property
    def multipliers(self) -> dict[str, float]:
        """Mean of lambda over the last tenth of the steps, by name."""
        return self.history.final_multipliers

    @property
    def sigma(self) -> float:
        """Standard deviation of a pixel, for likelihoods."""
        return float(self.settings["sigma"])

    @cached_property
    def evaluation(self) -> ImageEvaluation:
        """Evaluation on the training images with default settings."""
        return self.evaluate()

    def evaluate(
        self, task: Task | DataSet | None = None, *, samples: int = 4, seed: int = 0, pairs: int = 2**15
    ) -> ImageEvaluation:
        """Rate by step, distortion, likelihood, marginal KL, active units and holes, on training or other images.

        The run is unchanged. On other images, constraints with labels are left out.

        Parameters
        ----------
        task : Task or DataSet, optional
            Other images in the same units; by default those of training.
        samples : int
            Number of codes per image, at least 2.
        seed : int
            Seed of the codes, and of the draw of augmented images.
        pairs : int
            Pairs of a code and an image up to which the marginal KL of a model of several steps is measured, and its
            holes. Each pair takes a pass of the model; with fewer pairs than are needed both are NaN.

        Raises
        ------
        ValueError
            For bad input.
        """
        seen = self._task(task)
        known = tuple(c for c in self.constraints if task is None or c.labelled is None)
        return evaluate(self.model, seen, known, sigma=self.sigma, samples=samples, seed=seed, pairs=pairs)

    def sample(self, n: int, *, seed: int = 0) -> FloatArray:
        """Images (n, D) of codes drawn from the prior, in the order of a `DataSet`; contexts are those of the task."""
        return sample(self.model, self.task, n, seed)

    def reconstruct(
        self, n: int, task: Task | DataSet | None = None, *, seed: int = 0
    ) -> tuple[FloatArray, FloatArray]:
        """The first n images and their reconstructions from sampled codes, both (n, D), in the order of a `DataSet`."""
        return reconstruct(self.model, self._task(task), n, seed)

    def _task(self, task: Task | DataSet | None) -> Task:
        """The task itself, that of a data set, or that of training; it must have images like those of training."""
        if task is None:
            return self.task
        task = PlainImages(task) if isinstance(task, DataSet) else task
        check_instance(task, "task", Task, "PlainImages(datasets.digits())")
        if (task.image_shape, task.context_size) != (self.task.image_shape, self.task.context_size):
            raise ValueError(f"task must have images {self.task.image_shape} as in training, got {task.image_shape}")
        return task

    def excess_over(self, curve: RateDistortionCurve, *, evaluation: ImageEvaluation | None = None) -> Placement:
        """Distance of the model from the exact frontier of its images, for the squared error.

        An evaluation on the held-out rows of the curve is placed above R(D) of their source (T24).

        Parameters
        ----------
        curve : RateDistortionCurve
            Result of `rate_distortion` for the images of the evaluation, with a Gaussian objective.
        evaluation : ImageEvaluation, optional
            Result of `evaluate`; by default `self.evaluation`, on the training images.

        Raises
        ------
        ValueError
            If the curve is of a Bernoulli likelihood, or of other images than the evaluation; if the model has a
            context, or its images are drawn anew at every step, so that they have no such frontier.

        Warns
        -----
        UserWarning
            If the model is below R(D) by more than its errors.
        """
        seen = self._seen(evaluation)
        return place(
            curve,
            seen.signature,
            rate=seen.rate,
            rate_error=seen.rate_error,
            distortion=seen.distortion,
            distortion_error=seen.distortion_error,
            marginal_kl=seen.marginal_kl,
            marginal_kl_error=seen.marginal_kl_error,
            multiplier=self.history.final_multiplier,
            stacklevel=3,
        )

    def excess_over_linear(self, *, evaluation: ImageEvaluation | None = None) -> LinearPlacement:
        """Distance of the model from the best linear VAE of its training images, for the squared error.

        Parameters
        ----------
        evaluation : ImageEvaluation, optional
            Result of `evaluate` on the training images; by default `self.evaluation`.

        Raises
        ------
        ValueError
            If the evaluation is of other images; if the model has a context, or its images are drawn anew at every
            step.
        """
        seen, images = self._seen(evaluation), self.task.images()
        trained = signature.of(images, np.full(len(images), 1 / len(images)))
        if difference := signature.difference(trained, seen.signature):
            raise ValueError(f"evaluation must be of the training images, got {difference}")
        best = of_distortion(covariance_eigenvalues(images), seen.distortion)
        return LinearPlacement(
            gap=seen.rate - best.rate,
            error=float(np.hypot(seen.rate_error, best.multiplier * seen.distortion_error)),
            slope=best.multiplier,
            multiplier=self.history.final_multiplier,
        )

    def _seen(self, evaluation: ImageEvaluation | None) -> ImageEvaluation:
        """The evaluation that is placed; ValueError if the task has no frontier."""
        name = type(self.task).__name__
        if self.task.context_size is not None or self.task.augmented:
            why = "has a context" if self.task.context_size is not None else "draws its images anew at every step"
            raise ValueError(f"the task must be PlainImages to be compared with a frontier, got {name}, which {why}")
        if evaluation is not None:
            check_instance(evaluation, "evaluation", ImageEvaluation, "run.evaluate()")
        return self.evaluation if evaluation is None else evaluation

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to a file, from which `train(..., resume=path)` continues.

        With the same number of steps `train` restores this run.
        """
        checkpoints.save(path, self.settings, self.state)
