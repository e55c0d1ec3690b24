"""The loop of every training: steps, checkpoints, a progress bar, and the reasons for its end."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tqdm.auto import tqdm

from .._utils import deadline, progress as progress_bars
from .._utils.checks import asks_to_stop
from .._utils.interrupts import deferred_interrupts
from ..results.status import NotConvergedWarning
from .history import columns_of
from .reports import Feasibility
from .states import Checkpoint

INTERRUPTED = "interrupted at step {}"
_SHOWN = 50  # steps between two updates of the progress bar


class NotFiniteError(FloatingPointError):
    """A loss or its gradient is not finite; the parameters are those of the last step with finite values."""


class Trainable(Protocol):
    """What the loop needs of a training: its number of steps, and a step that returns a number for every column."""

    @property
    def steps(self) -> int:
        """Number of steps so far."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers that a step returns."""

    def step(self) -> list[float]:
        """One step; raises NotFiniteError."""


def advance(
    training: Trainable,
    steps: int,
    file: Checkpoint,
    every: int,
    progress: bool,
    callback: Callable[[int, dict[str, float]], Any] | None,
    time_is_up: Callable[[], bool] = deadline.passed,
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
                    postfix = {"D": "distortion", "KL": "kl"}
                    postfix |= {f"lambda {name}": column for name, column in multipliers.items()}
                    bar.set_postfix({name: f"{row[column]:.4g}" for name, column in postfix.items()}, refresh=False)
                if training.steps % every == 0:
                    file.write(training.steps, stacklevel=3)
                if asks_to_stop(callback, training.steps, row):
                    progress_bars.done(bar)
                    return f"stopped by the callback at step {training.steps}"
                if time_is_up() and training.steps < steps:
                    return f"time limit at step {training.steps}"
        except KeyboardInterrupt:
            return INTERRUPTED.format(training.steps)
        except NotFiniteError as error:
            return f"not finite at step {training.steps}: {error}; the model is that of the step before"
    return "finished"


def warn_of_failures(stopped: str, report: Mapping[str, Feasibility], stacklevel: int) -> None:
    """Warn of a training that ended early, and of constraints that cannot be reached."""
    found = [stopped] if stopped.startswith(("not finite", "time limit")) else []
    found += [repr(verdict) for verdict in report.values() if verdict.status == "unreachable"]
    for text in found:
        warnings.warn(f"training: {text}", NotConvergedWarning, stacklevel=stacklevel + 1)
