"""train(): trains models of images with GECO, the ELBO or beta-VAE objectives in one loop (T20)-(T22)."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import torch

from .._utils import deadline
from .._utils.checks import (
    check_callable,
    check_count,
    check_flag,
    check_instance,
    check_number,
    check_path,
    check_positive,
    check_seed,
    check_time_limit,
    check_weights,
)
from ..datasets import DataSet
from ..geco.arguments import check_constraints, check_fit, check_sigma, elbo_of_step, learned_multipliers
from ..geco.loop import advance, conclude
from ..geco.multiplier import Multiplier
from ..geco.reports import make_report
from ..geco.schedules import Ramp
from ..geco.starts import spectrum_of
from ..geco.states import Checkpoint
from ..geco.threshold_table import warn_of_doubts
from . import checkpoints
from .energies import ImageTerm, as_images
from .models import Model
from .optimisation import check_device
from .processes import Processes
from .runs import ImageRun
from .tasks import PlainImages, Task, check_range
from .training import Training

_BATCH = 64


def train(
    task: Task | DataSet,
    constraints: Any = None,
    *,
    model: Model,
    objective: str = "geco",
    beta: float | Ramp | None = None,
    sigma: float = 1.0,
    multipliers: Mapping[str, Multiplier] | None = None,
    steps: int = 10_000,
    time_limit: float | None = None,
    batch_size: int | None = None,
    learning_rate: float = 1e-3,
    clip: float = math.inf,
    seed: int = 0,
    device: str | torch.device = "auto",
    autocast: bool = True,
    every: int = 1,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int = 1000,
    resume: ImageRun | str | PathLike[str] | None = None,
    progress: bool = False,
    callback: Callable[[int, dict[str, float]], Any] | None = None,
) -> ImageRun:
    """Train a model of images under constraints, or with the objective of an ELBO or a beta-VAE.

    The optimiser is Adam with betas (0.9, 0.99). Its learning rate rises linearly over the first 100 steps, and falls
    as a cosine to a tenth of its peak. Where `torch.distributed` is initialised, as torchrun does, all processes of the
    group train one model together, that of the first process: each computes its part of every batch, and gets the same
    result.

    Parameters
    ----------
    task : Task or DataSet
        What is learned; a data set of images stands for `PlainImages`.
    constraints : constraint or sequence of constraints
        `RE`, `FRE`, `CLA`, `PNCC` or others. Unless the objective is "geco" they are optional and only monitored.
    model : Model
        The model that training begins from. It is copied; the mean of the images becomes its `centre`.
    objective : {"geco", "elbo", "beta", "annealed"}
        Loss: KL + lambda C with learned multipliers (T20); KL - log p(x | z); KL - log p(x | z) / beta; the last one
        with a schedule for beta.
    beta : float, or Ramp for "annealed"
        Temperature of the objectives "beta" and "annealed", which require it; not allowed for the others.
    sigma : float
        Standard deviation of a pixel, in units of the images: for the last three objectives, and for the reported
        likelihoods.
    multipliers : mapping of str to Multiplier, optional
        Multipliers by the names of their constraints, for settings other than the default. They are copied. By default
        lambda starts at `natural_multiplier` of the images, and nu follows from the damping rule.
    steps : int
        Total number of steps, including the steps before `resume`; the learning rate falls over all of them.
    time_limit : float, optional
        Budget of the training loop in seconds; it ends after the step in which the time is up, and can be resumed. Of
        several processes all end at the same step, as they do after Ctrl-C in one of them.
    batch_size : int, optional
        Images of a step, in all processes together; by default 64, or the number of images if this is smaller.
    learning_rate : float
        Peak of the learning rate of Adam.
    clip : float
        Largest norm of the gradient of the loss over 1 + sum of lambda kappa^2; longer ones are shortened.
    seed : int
        Seed of the batches, the augmentation and the codes; a model has a seed of its own for its first weights.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where the model is trained; "auto" is a GPU if there is one. The model of the result stays there.
    autocast : bool
        Whether networks compute in bfloat16 on a GPU; KL, energies and parameters are float32 in any case.
    every : int
        The history has a row for every so many steps.
    checkpoint : path, optional
        File for the state of training, written every `checkpoint_every` steps and at the end, by the first process. If
        it cannot be written (the disk is full), training goes on and the next write tries again.
    checkpoint_every : int
        Steps between two checkpoints.
    resume : ImageRun or path, optional
        Run or checkpoint to continue, with the same images and settings, which are compared by their contents; device
        and number of processes may be others. On one thread of a CPU the result has the same bits as without the
        interruption. Other `steps` are allowed, to train longer than was planned: from there on the learning rate is
        that of a run of so many steps. It then rises again, and the result is not that of one longer run.
    progress : bool
        Show a progress bar with D, KL and lambda.
    callback : callable, optional
        Called after every step with the number of the step and a dict of the measurements; a true return value stops
        training. Of several processes each calls it, and all must return the same.

    Returns
    -------
    ImageRun
        Model, history and report; up to the last step after Ctrl-C, and, with a warning, if the time is up or a loss is
        not finite.

    Raises
    ------
    ValueError
        For bad input.
    TooLargeError
        If a batch does not fit into the memory of the device.
    OSError
        If `checkpoint` cannot be written where it is, before the first step; or if `resume` cannot be read.

    Warns
    -----
    UserWarning
        If the values of the images are far from the interval from 0 to 1. If a threshold of RE or of a linear FRE is
        above the variance of the images, below the smallest error of a linear code of this size, or below what the last
        layer of the model can reach; if one of PNCC is above the correlation of the images with themselves. If a
        checkpoint cannot be written: the first one that fails, and the last one.
    NotConvergedWarning
        If a constraint is unreachable, a loss is not finite, or the time is up.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> from constrained_vae.image_models import MLPVAE, train
    >>> digits = cv.datasets.digits(300)
    >>> model = MLPVAE((1, 8, 8), latent_dim=8, hidden=(32,))
    >>> run = train(digits, cv.RE(0.2, reduction="mean"), model=model, steps=20, device="cpu")
    >>> run.stopped, len(run.history)
    ('finished', 20)
    """
    constraints = check_constraints(constraints, objective)
    if isinstance(task, DataSet):
        task = PlainImages(task)
    check_instance(task, "task", Task, "PlainImages(datasets.digits())")
    check_instance(model, "model", Model, "MLPVAE((1, 8, 8))")
    if (model.image_shape, model.context_size) != (task.image_shape, task.context_size):
        raise ValueError(
            f"model must be for images {task.image_shape} with context_size {task.context_size}, as the task has them, "
            f"got {model.image_shape} and {model.context_size}"
        )
    sigma = check_sigma(sigma)
    weight = elbo_of_step(objective, beta, sigma, "gaussian")
    device, processes = check_device(device), Processes.present()
    batch_size = min(_BATCH, len(task)) if batch_size is None else check_count(batch_size, "batch_size")
    if batch_size > len(task):
        raise ValueError(f"batch_size must be at most {len(task)}, the number of images, got {batch_size}")
    if batch_size % processes.count:
        raise ValueError(f"batch_size must be a multiple of {processes.count}, the processes, got {batch_size}")
    steps, seed = check_count(steps, "steps", 0), check_seed(seed)
    checkpoint_every = check_count(checkpoint_every, "checkpoint_every")
    every = check_count(every, "every", most=sys.maxsize)
    progress, time_limit = check_flag(progress, "progress"), check_time_limit(time_limit)
    check_callable(callback, "callback")

    images = task.images()
    check_range(images, stacklevel=2)
    check_fit(constraints, images)
    weights = check_weights(None, len(images))
    spectra = {c.name: spectrum_of(c, images, weights) for c in constraints}
    learned = learned_multipliers(spectra, constraints, multipliers, objective)
    floors = spectra if task.context_size is None else dict.fromkeys(spectra)  # a context tells more of an image
    terms = [ImageTerm.make(c, images.shape[1], learned.get(c.name)) for c in constraints]
    if weight is not None:
        terms.append(ImageTerm.likelihood(lambda step: weight(step).multiplier))
    model = copy.deepcopy(model)
    model.centre.copy_(as_images(torch.as_tensor(images.mean(axis=0)), model.image_shape)[0])
    training = Training(
        model=model,
        task=task.to(device),
        terms=terms,
        beta=None if weight is None else lambda step: weight(step).beta,
        sigma=sigma,
        batch_size=batch_size,
        learning_rate=check_positive(learning_rate, "learning_rate"),
        total=steps,
        clip=check_number(clip, "clip", "positive", lambda norm: norm > 0),
        seed=seed,
        every=every,
        device=device,
        autocast=check_flag(autocast, "autocast"),
        processes=processes,
    )
    settings = checkpoints.settings(training, images, objective, beta, constraints)
    file = Checkpoint(
        checkpoint if processes.rank == 0 else None,
        lambda path: checkpoints.save(path, settings, training.state()),
    )
    size = math.prod(model.code_shape)
    if resume is not None:
        source = (resume.settings, resume.state) if isinstance(resume, ImageRun) else check_path(resume, "resume")
        checkpoints.restore(training, source, settings)
    elif processes.rank == 0:
        warn_of_doubts(images, weights, constraints, floors, size, model.plane, stacklevel=3)

    shown = progress and processes.rank == 0
    with deadline.within(time_limit), processes.ending_together() as training.signals:
        stopped = advance(training, steps, file, checkpoint_every, shown, callback, training.ends)

    def result() -> ImageRun:
        history = training.history(constraints)
        return ImageRun(
            task=task,
            constraints=constraints,
            model=training.model,
            history=history,
            settings=settings,
            state=training.state(),
            stopped=stopped,
            report=make_report(history, constraints, learned, floors, size),
        )

    return conclude(result, training.steps, file, stacklevel=2)
