"""train(): trains VAEs with GECO, the ELBO or beta-VAE objectives in one loop (T20)-(T22)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import numpy as np

from .._utils import deadline
from .._utils.checks import (
    check_callable,
    check_count,
    check_data,
    check_dtype,
    check_flag,
    check_path,
    check_positive,
    check_seed,
    check_time_limit,
    check_weights,
)
from .._utils.device import array_namespace
from .._utils.frames import own_weights
from ..data.rows import check_radius, standard_frame
from ..objectives.elbo import ELBO
from . import checkpoints
from .arguments import check_constraints, check_fit, check_sigma, elbo_of_step, learned_multipliers
from .loop import advance, conclude
from .multiplier import Multiplier
from .networks import VAE, check_hidden, check_likelihood
from .reports import make_report
from .runs import Run
from .schedules import Ramp
from .starts import spectrum_of
from .states import Checkpoint
from .threshold_table import warn_of_doubts
from .training import Training
from .weighing import learned_of

_BATCH = 128
_RATE, _RATE_OF_WIDTH = 5e-3, 0.025  # default learning rate: at most the first, and the second over root width
_LEAST_WIDTH = 64  # of default hidden layers


def train(
    x: Any,
    constraints: Any = None,
    *,
    latent_dim: int,
    hidden: tuple[int, ...] | None = None,
    activation: str = "tanh",
    likelihood: str = "gaussian",
    objective: str = "geco",
    beta: float | Ramp | None = None,
    sigma: float = 1.0,
    multipliers: Mapping[str, Multiplier] | None = None,
    weights: Any = None,
    steps: int = 20_000,
    time_limit: float | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    dtype: Any = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int = 1000,
    resume: Run | str | PathLike[str] | None = None,
    progress: bool = False,
    callback: Callable[[int, dict[str, float]], Any] | None = None,
) -> Run:
    """Train a VAE with Gaussian latents under constraints, or with the objective of an ELBO or a beta-VAE.

    Parameters
    ----------
    x : (N, D) array_like
        Data. CuPy arrays stay on their device, where the model is then trained.
    constraints : constraint or sequence of constraints
        `RE`, `FRE`, `CLA`, `PNCC` or others. Unless the objective is "geco" they are optional and only monitored.
    latent_dim : int
        Dimension L of the latent space.
    hidden : tuple of int, optional
        Widths of the hidden layers of the encoder, and in reverse order of the decoder; () is the linear VAE. By
        default two layers of width 2 L, or of 64 if this is larger.
    activation : {"tanh", "relu", "gelu"}
        Activation of hidden layers.
    likelihood : {"gaussian", "bernoulli"}
        Reconstructions are unrestricted for "gaussian" and within [0, 1] for "bernoulli". The objectives "elbo", "beta"
        and "annealed" contain the squared error over 2 sigma^2 for "gaussian", the cross-entropy for "bernoulli".
    objective : {"geco", "elbo", "beta", "annealed"}
        Loss: KL + lambda C with learned multipliers (T20); KL - log p(x | z); KL - log p(x | z) / beta; the last one
        with a schedule for beta.
    beta : float, or Ramp for "annealed"
        Temperature of the objectives "beta" and "annealed", which require it; not allowed for the others.
    sigma : float
        Standard deviation of the Gaussian decoder, in units of x: for the last three objectives, and for the reported
        likelihoods.
    multipliers : mapping of str to Multiplier, optional
        Multipliers by the names of their constraints, for settings other than the default, such as a schedule for kappa
        or a given nu. They are copied. Their thresholds must be those of the constraints; a schedule should end there,
        since the report compares with kappa. By default lambda starts at `natural_multiplier(x, constraint)`, so that
        training does not depend on the unit of x, and nu follows from the damping rule.
    weights : (N,) array_like, optional
        Weights of the points, as in `solve`; by default equal. A point of weight w is in N w batches of an epoch on
        average, for weights of sum 1.
    steps : int
        Total number of steps, including the steps before `resume`.
    time_limit : float, optional
        Budget of the training loop in seconds; it ends after the step in which the time is up, and can be resumed.
    batch_size : int, optional
        By default 128, or the number of points if this is smaller.
    learning_rate : float, optional
        Learning rate of Adam at the first step; at step t it is learning_rate / (1 + t / 6000)^2, for any `steps`. By
        default 0.005, or 0.025 / sqrt(width) if hidden layers are wider than 25.
    seed : int
        Seed of the initial weights, the batches and the codes.
    dtype : {float64, float32}
        Type of the arrays of the network; by default float64.
    checkpoint : path, optional
        File for the state of training, written every `checkpoint_every` steps and at the end. If it cannot be written
        (the disk is full), training goes on and the next write tries again.
    checkpoint_every : int
        Steps between two checkpoints.
    resume : Run or path, optional
        Run or checkpoint to continue, with the same data and settings, which are compared by their contents; of
        features and classifiers that are functions of your own, only the names are. The result has the same bits as
        without the interruption.
    progress : bool
        Show a progress bar with D, KL and lambda.
    callback : callable, optional
        Called after every step with the number of the step and a dict of the measurements; a true return value stops
        training.

    Returns
    -------
    Run
        Model, history and report; up to the last step after Ctrl-C, and, with a warning, if the time is up or a loss is
        not finite.

    Raises
    ------
    ValueError
        For bad input.
    OSError
        If `checkpoint` cannot be written where it is, before the first step; or if `resume` cannot be read.

    Warns
    -----
    UserWarning
        If a threshold of RE or of a linear FRE is above the variance of the data, below the smallest error of a
        linear code of this size, or below what the last layer of the decoder can reach; if one of PNCC is above the
        correlation of the data with themselves. If a checkpoint cannot be written: the first one that fails, and the
        last one.
    NotConvergedWarning
        If a constraint is unreachable, a loss is not finite, or the time is up.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> data = cv.datasets.gaussian((4.0, 2.0, 0.5), n=32)
    >>> run = train(data.x, cv.RE.from_squared_error(1.2), latent_dim=3, hidden=(), steps=4000)  # the linear VAE
    >>> run.report["RE"].status, abs(run.multipliers["RE"] / 1.25 - 1) < 0.05  # lambda* of section 5 of the theory
    ('met', True)
    """
    constraints = check_constraints(constraints, objective)
    weights = own_weights(x, weights)
    host = check_data(x)
    xp = array_namespace(x if hasattr(x, "__cuda_array_interface__") else host)
    weight = elbo_of_step(objective, beta, sigma, likelihood)
    ELBO(likelihood=check_likelihood(likelihood)).check(host)
    weights = check_weights(weights, len(host))
    frame = standard_frame(host, weights, warn=likelihood == "gaussian")
    if likelihood == "gaussian":
        check_radius(frame)
    check_fit(constraints, host)
    batch_size = min(_BATCH, len(host)) if batch_size is None else check_count(batch_size, "batch_size")
    if batch_size > len(host):
        raise ValueError(f"batch_size must be at most {len(host)}, the number of points, got {batch_size}")
    steps, seed = check_count(steps, "steps", 0), check_seed(seed)
    checkpoint_every = check_count(checkpoint_every, "checkpoint_every")
    progress, time_limit = check_flag(progress, "progress"), check_time_limit(time_limit)
    check_callable(callback, "callback")
    latent_dim = check_count(latent_dim, "latent_dim")
    if hidden is None:
        hidden = (max(_LEAST_WIDTH, 2 * latent_dim),) * 2
    if learning_rate is None:
        learning_rate = min(_RATE, _RATE_OF_WIDTH / math.sqrt(max(check_hidden(hidden), default=1)))
    dtype = check_dtype(dtype)

    model = VAE.initialised(
        frame, latent_dim, hidden, activation=activation, likelihood=likelihood, seed=seed, dtype=dtype
    )
    spectra = {c.name: spectrum_of(c, host, weights) for c in constraints}
    training = Training.make(
        np.asarray(host, dtype=np.float64),
        model.with_parameters(xp.asarray(model.parameters)),
        constraints,
        learned_multipliers(spectra, constraints, multipliers, objective),
        weight,
        weights=weights,
        batch_size=batch_size,
        learning_rate=check_positive(learning_rate, "learning_rate"),
        seed=seed,
        sigma=check_sigma(sigma),
    )
    settings = checkpoints.settings(training, host, objective, beta, constraints)
    file = Checkpoint(checkpoint, lambda path: checkpoints.save(path, settings, training.state()))
    if resume is not None:
        source = (resume.settings, resume.state) if isinstance(resume, Run) else check_path(resume, "resume")
        checkpoints.restore(training, source, settings)
    else:
        warn_of_doubts(host, weights, constraints, spectra, latent_dim, model.plane, stacklevel=3)

    with deadline.within(time_limit):
        stopped = advance(training, steps, file, checkpoint_every, progress, callback)

    def result() -> Run:
        history = training.history(constraints)
        return Run(
            x=host,
            weights=weights,
            constraints=constraints,
            model=training.model,
            history=history,
            settings=settings,
            state=training.state(),
            stopped=stopped,
            report=make_report(history, constraints, learned_of(training.terms), spectra, latent_dim),
        )

    return conclude(result, training.steps, file, stacklevel=2)
