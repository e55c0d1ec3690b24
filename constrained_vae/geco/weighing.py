"""How the energies of a loss are weighed at a step (T20), and the numbers of them that are written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .history import column_name
from .multiplier import Multiplier


class Weighed(Protocol):
    """What is known of an energy of a loss."""

    @property
    def name(self) -> str:
        """Its name in results."""

    @property
    def allowance(self) -> float:
        """Threshold that is subtracted from it; 0 for a likelihood."""

    @property
    def multiplier(self) -> Multiplier | Callable[[int], float] | None:
        """A `Multiplier` that learns lambda, a function step -> lambda, or None if it is only monitored."""


def learned_of(terms: Sequence[Weighed]) -> dict[str, Multiplier]:
    """The multipliers that change in training, by the names of their terms."""
    return {term.name: term.multiplier for term in terms if isinstance(term.multiplier, Multiplier)}


def weight_of(term: Weighed, step: int) -> float | None:
    """lambda of a term at a step; None if it is only monitored."""
    given = term.multiplier
    if given is None or isinstance(given, Multiplier):
        return None if given is None else given.value
    return given(step)


def stake(terms: Sequence[Weighed], step: int) -> float:
    """1 + sum of lambda times threshold, in nats: the order of the loss, by which its gradient is divided.

    Adam remembers squared gradients for thousands of steps. In units of the stake they do not change with lambda;
    otherwise a fall of lambda by a thousand would stop the network.
    """
    return 1 + sum(multiplier.value * abs(multiplier.threshold_at(step)) for multiplier in learned_of(terms).values())


def columns(terms: Sequence[Weighed]) -> list[str]:
    """Names of the numbers that `measure` gives for each of the terms."""
    names = []
    for term in terms:
        kinds = ["batch"] * (term.name != "ELBO") + ["multiplier"] * (term.multiplier is not None)
        if isinstance(term.multiplier, Multiplier):
            kinds += ["average", "bound", "nu"]
        names += [column_name(kind, term.name) for kind in kinds]
    return names


def measure(term: Weighed, energy: float, step: int) -> list[float]:
    """The numbers of a term that are recorded; a learned multiplier observes the energy."""
    lam, given = weight_of(term, step), term.multiplier
    if lam is None:
        return [energy - term.allowance]
    if not isinstance(given, Multiplier):
        return [lam]
    given.observe(energy)
    return [energy - given.threshold_at(step), lam, given.average, float(given.hit), given.nu]
