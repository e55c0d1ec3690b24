"""pose(): the arguments that the solvers of fixed points share, checked, as a problem with its tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._utils.checks import check_choice, check_instance
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..problems.problem import Problem


@dataclass(frozen=True, eq=False)
class Posed:
    """A problem with its latent tiles; `free` says whether their prior masses are optimised."""

    problem: Problem
    tiling: Tiling
    free: bool


def pose(
    x: Any,
    objective: Objective | None,
    *,
    beta: float | None = None,
    tiling: Tiling | None = None,
    weights: Any = None,
    masses: str = "fixed",
    backend: str = "auto",
    dtype: Any = None,
    on_failure: str = "warn",
) -> Posed:
    """Check the arguments and bring the data into their frame; ValueError says what is wrong.

    The defaults are `ELBO()` and 256 uniform tiles.
    """
    tiling = Tiling.uniform() if tiling is None else tiling
    check_instance(tiling, "tiling", Tiling, "Tiling.uniform(64)")
    check_choice(masses, "masses", ("fixed", "free"))
    check_on_failure(on_failure)
    return Posed(Problem.make(x, objective, weights, backend, dtype, beta=beta), tiling, masses == "free")


def check_on_failure(on_failure: Any) -> None:
    """Raise ValueError where `on_failure` is not one of its words."""
    check_choice(on_failure, "on_failure", ("warn", "raise", "return"))
