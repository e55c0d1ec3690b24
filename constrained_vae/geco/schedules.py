"""Ramp: a threshold or a temperature that changes with the step of training."""

from __future__ import annotations

from dataclasses import dataclass

from .._utils.checks import check_count, check_positive


@dataclass(frozen=True)
class Ramp:
    """A positive number that changes from `start` to `end`, linearly in its logarithm, and is constant after that.

    Parameters
    ----------
    start, end : float
        First and last number, positive.
    steps : int
        Number of steps from the first to the last number, at least 1.

    Raises
    ------
    ValueError
        If a number is not positive and finite, or `steps` is less than 1.

    Examples
    --------
    >>> kappa_squared = Ramp(4.0, 1.0, steps=100)
    >>> kappa_squared(0), kappa_squared(50), kappa_squared(1000)
    (4.0, 2.0, 1.0)
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", check_positive(self.start, "start"))
        object.__setattr__(self, "end", check_positive(self.end, "end"))
        object.__setattr__(self, "steps", check_count(self.steps, "steps"))

    def __call__(self, step: int) -> float:
        """The number at a step; steps count from 0."""
        share = min(check_count(step, "step", 0) / self.steps, 1.0)
        return float(self.start ** (1 - share) * self.end**share)
