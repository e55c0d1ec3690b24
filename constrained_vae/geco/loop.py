"""The loop of every training: steps, checkpoints, a progress bar, and the reasons for its end."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

from tqdm.auto import tqdm

from .._utils import deadline, progress as progress_bars
from .._utils.checks import asks_to_stop
from .._utils.interrupts import deferred_interrupts, finished
from ..results.status import NotConvergedWarning
from .history import columns_of
from .reports import Feasibility
from .states import Checkpoint

INTERRUPTED, LATE = "interrupted", "time limit"
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


def interrupted(steps: int) -> str:
    """The reason for the end of a training that Ctrl-C ended."""
    return f"{INTERRUPTED} at step {steps}"


def out_of_time() -> str:
    """LATE if the deadline has passed, else nothing."""
    return LATE if deadline.passed() else ""


def advance(
    training: Trainable,
    steps: int,
    file: Checkpoint,
    every: int,
    progress: bool,
    callback: Callable[[int, dict[str, float]], Any] | None,
    ends: Callable[[], str] = out_of_time,
) -> str:
    """Train up to this step, or until `ends` gives a reason; the reason for the end of training."""
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
                if (reason := ends()) and training.steps < steps:
                    return f"{reason} at step {training.steps}"
        except KeyboardInterrupt:
            return interrupted(training.steps)
        except NotFiniteError as error:
            return f"not finite at step {training.steps}: {error}; the model is that of the step before"
    return "finished"


class Result(Protocol):
    """What the loop needs of a result, which is a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def stopped(self) -> str:
        """The reason for the end of training."""

    @property
    def report(self) -> dict[str, Feasibility]:
        """The report on every constraint."""


AnyResult = TypeVar("AnyResult", bound=Result)


def conclude(make: Callable[[], AnyResult], steps: int, file: Checkpoint, stacklevel: int) -> AnyResult:
    """The last checkpoint and the result of a training that has ended, undisturbed by Ctrl-C, and warnings.

    It warns of a training that ended early, and of constraints that cannot be reached.
    """

    def result() -> AnyResult:
        file.write(steps, last=True, stacklevel=stacklevel + 3)
        return make()

    run, pressed = finished(result)
    if pressed:
        run = replace(run, stopped=interrupted(steps))
    found = [run.stopped] if run.stopped.startswith(("not finite", LATE)) else []
    found += [repr(verdict) for verdict in run.report.values() if verdict.status == "unreachable"]
    for text in found:
        warnings.warn(f"training: {text}", NotConvergedWarning, stacklevel=stacklevel + 1)
    return run
