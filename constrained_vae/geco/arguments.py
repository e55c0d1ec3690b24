"""Arguments of a training, checked: constraints, the temperature of an objective, multipliers (T20)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._utils.arrays import FloatArray
from .._utils.checks import check_choice, check_instance, check_number, shown
from ..objectives.constraints import Constraint
from ..objectives.elbo import ELBO
from .multiplier import Multiplier
from .schedules import Ramp
from .starts import Spectrum, start_of

OBJECTIVES = ("geco", "elbo", "beta", "annealed")


def check_constraints(constraints: Any, objective: str) -> tuple[Constraint, ...]:
    """The constraints of an objective, which may be one, several or, but for "geco", none."""
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


def check_fit(constraints: tuple[Constraint, ...], x: FloatArray) -> None:
    """Raise ValueError unless every constraint admits the data (N, D)."""
    for constraint in constraints:
        constraint.check(x)
        if constraint.labelled not in (None, len(x)):
            raise ValueError(f"{constraint.name}: there are {constraint.labelled} labels for {len(x)} points")


def check_sigma(sigma: Any) -> float:
    """The standard deviation of a Gaussian decoder, whose square and its inverse float64 represents."""
    return check_number(sigma, "sigma", "positive, from 1e-120 to 1e120", lambda s: 1e-120 <= s <= 1e120)


def elbo_of_step(
    objective: str, beta: float | Ramp | None, sigma: float, likelihood: str
) -> Callable[[int], ELBO] | None:
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


def learned_multipliers(
    spectra: dict[str, Spectrum | None],
    constraints: tuple[Constraint, ...],
    given: Mapping[str, Multiplier] | None,
    objective: str,
) -> dict[str, Multiplier]:
    """The learned multipliers by name, new ones for data of these spectra; empty unless the objective is "geco"."""
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
        else Multiplier(c.allowance, initial=start_of(c, spectra[c.name]))
        for c in constraints
    }
