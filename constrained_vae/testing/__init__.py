"""Test helpers of the package, also for solvers of your own.

A closed form is a problem with its exact answer. The oracle computes the equations in loops, one scalar at a time. Both
are written without the package. The strategy `small_problems` draws small problems; it needs Hypothesis, which the
extra `test` installs. `hostile_values` and `hostile_arrays` are arguments that a function must take correctly or refuse
by name. Everything but the strategy works without Hypothesis.

Examples
--------
An encoder that ignores the prior masses is right if all masses are equal. The strategy finds a problem where it fails:

>>> import numpy as np
>>> from hypothesis import Phase, given, settings
>>> from scipy.special import softmax
>>> from constrained_vae.testing import naive_expectations, small_problems
>>> def encoder(x, psi, masses, theta):
...     H = np.square(x[:, None] - psi).sum(axis=2) / (2 * theta)
...     return softmax(-H, axis=1)  # correct: softmax(np.log(masses) - H, axis=1)
>>> @settings(deadline=None, phases=[Phase.generate])  # without the search for the smallest problem
... @given(small_problems())
... def check(p):
...     expected = naive_expectations(p.x, p.weights, p.start, p.masses, p.beta)
...     found = encoder(p.x, p.start, p.masses, p.beta)
...     np.testing.assert_allclose(found, expected.encoder, atol=p.rounding(n_maps=1))
>>> try:
...     check()
... except AssertionError as error:
...     print(str(error).strip().splitlines()[0][:22])
Not equal to tolerance
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .closed_forms import (
    EPS,
    ExactBranch,
    TwoPoints,
    all_curie_weiss,
    curie_weiss,
    multiplier_of_error,
    nucleation_theta,
    unequal_points,
    water_filling,
)
from .hostile import hostile_arrays, hostile_values
from .naive import (
    Naive,
    naive_bernoulli,
    naive_class_error,
    naive_correlation_error,
    naive_expectations,
    naive_feature_error,
    naive_from_energies,
    naive_jacobian,
    naive_linear,
    naive_slope,
    naive_squared_error,
)
from .naive_follower import NaiveBranch, naive_branch

if TYPE_CHECKING:
    from .strategies import SmallProblem, small_problems

__all__ = [
    "EPS",
    "ExactBranch",
    "Naive",
    "NaiveBranch",
    "SmallProblem",
    "TwoPoints",
    "all_curie_weiss",
    "curie_weiss",
    "hostile_arrays",
    "hostile_values",
    "multiplier_of_error",
    "naive_bernoulli",
    "naive_branch",
    "naive_class_error",
    "naive_correlation_error",
    "naive_expectations",
    "naive_feature_error",
    "naive_from_energies",
    "naive_jacobian",
    "naive_linear",
    "naive_slope",
    "naive_squared_error",
    "nucleation_theta",
    "small_problems",
    "unequal_points",
    "water_filling",
]


def __getattr__(name: str) -> Any:
    if name in ("SmallProblem", "small_problems"):
        from . import strategies  # needs Hypothesis

        return getattr(strategies, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
