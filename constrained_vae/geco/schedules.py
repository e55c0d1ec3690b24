"""Ramp: a threshold or a temperature that moves with the step of training."""

from __future__ import annotations

from dataclasses import dataclass

from .._utils.checks import check_count, check_positive


@dataclass(frozen=True)
class Ramp:
    """From one positive number to another in so many steps, evenly in its logarithm, and constant from then on.

    Parameters
    ----------
    start, end : float
        The numbers, positive.
    steps : int
        How many it takes to get there, at least 1.

    Raises
    ------
    ValueError
        If a number is not positive and finite, or there is no step.

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
        check_count(self.steps, "steps")

    def __call__(self, step: int) -> float:
        """The number at a step, from 0."""
        share = min(step / self.steps, 1.0)
        return float(self.start ** (1 - share) * self.end**share)
