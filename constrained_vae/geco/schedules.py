"""Ramp: a threshold or a temperature that changes with the step of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._utils.checks import check_choice, check_count, check_positive

_GQN = (2.0 / 0.7) ** 2, 1.0  # temperatures of the first and the last standard deviation of a pixel


@dataclass(frozen=True)
class Ramp:
    """A positive number that changes from `start` to `end` and is constant after that.

    Parameters
    ----------
    start, end : float
        First and last number, positive.
    steps : int
        Number of steps from the first to the last number, at least 1.
    linear_in : {"log", "root"}
        What changes linearly: the logarithm of the number, or its root. The root of a temperature is the standard
        deviation of the decoder, in units of the one at beta = 1.

    Raises
    ------
    ValueError
        If a number is not positive and finite, `steps` is less than 1, or `linear_in` is unknown.

    References
    ----------
    The schedule `of_gqn` is that of Eslami et al. 2018, Science 360, 1204 (doi:10.1126/science.aar6170).

    Examples
    --------
    >>> kappa_squared = Ramp(4.0, 1.0, steps=100)
    >>> kappa_squared(0), kappa_squared(50), kappa_squared(1000)
    (4.0, 2.0, 1.0)
    >>> beta = Ramp.of_gqn(2_000_000)
    >>> [round(beta(step), 2) for step in (0, 100_000, 200_000)]
    [8.16, 3.72, 1.0]
    """

    start: float
    end: float
    steps: int
    linear_in: str = "log"

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", check_positive(self.start, "start"))
        object.__setattr__(self, "end", check_positive(self.end, "end"))
        object.__setattr__(self, "steps", check_count(self.steps, "steps"))
        check_choice(self.linear_in, "linear_in", ("log", "root"))

    @classmethod
    def of_gqn(cls, steps: int) -> Ramp:
        """The temperatures of GQN in a training of so many steps: from 8.2 to 1 over the first tenth of them.

        The standard deviation of a pixel falls linearly from 2.0 to 0.7, in GQN's unit.

        Raises
        ------
        ValueError
            If `steps` is no whole number of at least 1.
        """
        return cls(*_GQN, steps=max(1, check_count(steps, "steps") // 10), linear_in="root")

    def __call__(self, step: int) -> float:
        """The number at a step; steps count from 0."""
        share = min(check_count(step, "step", 0) / self.steps, 1.0)
        if self.linear_in == "root":
            return float(((1 - share) * math.sqrt(self.start) + share * math.sqrt(self.end)) ** 2)
        return float(self.start ** (1 - share) * self.end**share)
