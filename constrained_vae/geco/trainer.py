"""train(): trains VAEs with GECO, the ELBO or beta-VAE objectives in one loop (T20)-(T22)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .._utils import deadline
from .._utils.arrays import FloatArray
from .._utils.checks import (
    asks_to_stop,
    check_callable,
    check_choice,
    check_count,
    check_data,
    check_dtype,
    check_flag,
    check_instance,
    check_number,
    check_path,
    check_positive,
    check_seed,
    check_time_limit,
    check_weights,
    shown,
)
from .._utils.device import array_namespace
from .._utils.interrupts import deferred_interrupts, finished
from ..data.rows import check_radius, standard_frame
from ..objectives.constraints import Constraint
from ..objectives.elbo import ELBO
from ..results.status import NotConvergedWarning
from . import checkpoints
from .history import columns_of
from .multiplier import Multiplier
from .networks import VAE, check_hidden
from .reports import linear_floor, make_report
from .runs import Run
from .schedules import Ramp
from .starts import natural_multiplier
from .threshold_table import warn_of_doubts
from .training import NotFiniteError, Training

OBJECTIVES = ("geco", "elbo", "beta", "annealed")
_BATCH = 128
_RATE, _RATE_OF_WIDTH = 5e-3, 0.025  # default learning rate: at most the first, and the second over root width
_LEAST_WIDTH = 64  # of default hidden layers
_INTERRUPTED = "interrupted at step {}"
_SHOWN = 50  # steps between two updates of the progress bar


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
        linear code of this size, or below what a decoder with this last hidden layer reaches; if one of PNCC is above
        the correlation of the data with themselves. If a checkpoint cannot be written: the first one that fails, and
        the last one.
    NotConvergedWarning
        If a constraint is unreachable, a loss is not finite, or the time is up.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> data = cv.datasets.gaussian((4.0, 2.0, 0.5), n=32)
    >>> run = train(data.x, cv.RE.from_squared_error(1.2), latent_dim=3, hidden=(), steps=8000)  # the linear VAE
    >>> run.report["RE"].status, abs(run.multipliers["RE"] / 1.25 - 1) < 0.05  # lambda* of section 5 of the theory
    ('met', True)
    """
    constraints = _constraints(constraints, objective)
    host = check_data(x)
    xp = array_namespace(x if hasattr(x, "__cuda_array_interface__") else host)
    weight = _weight(objective, beta, sigma, likelihood)
    ELBO(likelihood=likelihood).check(host)
    weights = check_weights(weights, len(host))
    frame = standard_frame(host, weights, warn=likelihood == "gaussian")
    if likelihood == "gaussian":
        check_radius(frame)
    for constraint in constraints:
        constraint.check(host)
        if constraint.labelled not in (None, len(host)):
            raise ValueError(f"{constraint.name}: there are {constraint.labelled} labels for {len(host)} points")
    batch_size = min(_BATCH, len(host)) if batch_size is None else check_count(batch_size, "batch_size")
    if batch_size > len(host):
        raise ValueError(f"batch_size must be at most {len(host)}, the number of points, got {batch_size}")
    steps, seed = check_count(steps, "steps", 0), check_seed(seed)
    checkpoint_every = check_count(checkpoint_every, "checkpoint_every")
    progress, time_limit = check_flag(progress, "progress"), check_time_limit(time_limit)
    check_callable(callback, "callback")
    if hidden is None:
        hidden = (max(_LEAST_WIDTH, 2 * check_count(latent_dim, "latent_dim")),) * 2
    if learning_rate is None:
        learning_rate = min(_RATE, _RATE_OF_WIDTH / math.sqrt(max(check_hidden(hidden), default=1)))
    dtype = check_dtype(dtype)

    model = VAE.initialised(
        frame, latent_dim, hidden, activation=activation, likelihood=likelihood, seed=seed, dtype=dtype
    )
    variances = {c.name: linear_floor(c, host, 0, weights) for c in constraints}
    floors = {c.name: linear_floor(c, host, latent_dim, weights) for c in constraints}
    training = Training.make(
        np.asarray(host, dtype=np.float64),
        model.with_parameters(xp.asarray(model.parameters)),
        constraints,
        _multipliers(host, weights, constraints, multipliers, objective),
        weight,
        weights=weights,
        batch_size=batch_size,
        learning_rate=check_positive(learning_rate, "learning_rate"),
        seed=seed,
        sigma=check_number(sigma, "sigma", "positive, from 1e-120 to 1e120", lambda s: 1e-120 <= s <= 1e120),
    )
    settings = checkpoints.settings(training, host, objective, beta, constraints)
    file = checkpoints.Checkpoint(checkpoint, settings, training)
    if resume is not None:
        source = (resume.settings, resume.state) if isinstance(resume, Run) else check_path(resume, "resume")
        checkpoints.restore(training, source, settings)
    else:
        warn_of_doubts(host, weights, constraints, training.model, stacklevel=3)

    with deadline.within(time_limit):
        stopped = _loop(training, steps, file, checkpoint_every, progress, callback)

    def result() -> Run:
        file.write(last=True, stacklevel=4)
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
            report=make_report(training, history, constraints, floors, variances),
        )

    run, pressed = finished(result)
    if pressed:
        run = replace(run, stopped=_INTERRUPTED.format(training.steps))
    _warn_of_failures(run)
    return run


def _loop(
    training: Training,
    steps: int,
    file: checkpoints.Checkpoint,
    every: int,
    progress: bool,
    callback: Callable[[int, dict[str, float]], Any] | None,
) -> str:
    """Train up to this step; the reason for the end of training."""
    columns = training.columns
    multipliers = columns_of("multiplier", columns)
    with tqdm(total=steps, initial=training.steps, disable=not progress, desc="training", unit="step") as bar:
        try:
            while training.steps < steps:
                with deferred_interrupts():  # the run can be resumed
                    row = dict(zip(columns, training.step(), strict=True))
                bar.update()
                if training.steps % _SHOWN == 0:
                    postfix = {"D": "distortion", "KL": "kl", **multipliers}
                    bar.set_postfix({name: f"{row[column]:.4g}" for name, column in postfix.items()}, refresh=False)
                if training.steps % every == 0:
                    file.write(stacklevel=3)
                if asks_to_stop(callback, training.steps, row):
                    return f"stopped by the callback at step {training.steps}"
                if deadline.passed() and training.steps < steps:
                    return f"time limit at step {training.steps}"
        except KeyboardInterrupt:
            return _INTERRUPTED.format(training.steps)
        except NotFiniteError as error:
            return f"not finite at step {training.steps}: {error}; the model is that of the step before"
    return "finished"


def _constraints(constraints: Any, objective: str) -> tuple[Constraint, ...]:
    check_choice(objective, "objective", OBJECTIVES)
    if constraints is None:
        constraints = ()
    constraints = tuple(constraints) if isinstance(constraints, Sequence) else (constraints,)
    for constraint in constraints:
        check_instance(constraint, "constraints", Constraint, "RE(0.3)")
    names = [constraint.name for constraint in constraints]
    if objective == "geco" and not names:
        raise ValueError("objective='geco' wants constraints such as RE(0.3), got none")
    if len(set(names)) < len(names) or "ELBO" in names:
        raise ValueError(f"constraints must have names of their own, other than ELBO, got {names}: give name=")
    return constraints


def _weight(objective: str, beta: float | Ramp | None, sigma: float, likelihood: str) -> Callable[[int], ELBO] | None:
    """The ELBO as a function of the step; None for the objective "geco"."""
    if (beta is None) != (objective in ("geco", "elbo")):
        raise ValueError(
            f"beta belongs to the objectives 'beta' and 'annealed', got beta={shown(beta)} for {objective!r}"
        )
    if objective == "annealed":
        check_instance(beta, "beta of an annealed objective", Ramp, "Ramp(10.0, 1.0, steps=5000)")
    elif isinstance(beta, Ramp):
        raise ValueError("a schedule for beta wants objective='annealed'")
    if objective == "geco":
        return None
    if isinstance(beta, Ramp):
        ramp, proper = beta, ELBO(sigma=sigma, likelihood=likelihood)
        return lambda step: proper.at(ramp(step))
    fixed = ELBO(beta=1.0 if beta is None else beta, sigma=sigma, likelihood=likelihood)
    return lambda step: fixed


def _multipliers(
    x: FloatArray,
    weights: FloatArray,
    constraints: tuple[Constraint, ...],
    given: Mapping[str, Multiplier] | None,
    objective: str,
) -> dict[str, Multiplier]:
    """The learned multipliers by name; empty unless the objective is "geco"."""
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"multipliers must be a dict of names and Multipliers, got {shown(given)}")
    if objective != "geco":
        if given:
            raise ValueError(f"multipliers are learned with objective='geco' alone, got {shown(objective)}")
        return {}
    given = dict(given or {})
    names = [constraint.name for constraint in constraints]
    if unknown := sorted(set(given) - set(names)):
        raise ValueError(f"multipliers must be named like constraints, {names}, got {unknown}")
    for value in given.values():
        check_instance(value, "multipliers", Multiplier, "Multiplier(0.1)")
    for c in constraints:
        threshold = given[c.name].threshold if c.name in given else c.allowance
        if not callable(threshold) and not math.isclose(threshold, c.allowance, rel_tol=1e-9):
            raise ValueError(
                f"multipliers must have the thresholds of their constraints, {c.allowance:.9g} for {c.name}, got "
                f"{threshold:.9g}: change kappa, or give Multiplier({c.allowance:.9g})"
            )
    return {
        c.name: given[c.name].copy()
        if c.name in given
        else Multiplier(c.allowance, initial=natural_multiplier(x, c, weights=weights))
        for c in constraints
    }


def _warn_of_failures(run: Run) -> None:
    if run.stopped.startswith(("not finite", "time limit")):
        warnings.warn(f"training: {run.stopped}", NotConvergedWarning, stacklevel=3)
    for found in run.report.values():
        if found.status == "unreachable":
            warnings.warn(f"training: {found}", NotConvergedWarning, stacklevel=3)
