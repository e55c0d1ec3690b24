"""The verdicts on constraints: met only where lambda, KL and lambda C are at rest."""

from __future__ import annotations

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.geco import Multiplier, train
from constrained_vae.geco.history import make_history
from constrained_vae.geco.reports import _judge

RE = cv.RE(1.0)
FRE = cv.FRE(2.0, np.eye(2))  # allows 4


def judge(kl, constraints, variance=6.0, steps=10_000, every=1):
    """Verdicts by name, from the KL and from (energy, lambda) of every constraint at every row, with little noise."""
    rng = np.random.default_rng(0)
    columns, table, multipliers = ["kl"], [np.broadcast_to(kl, steps)], {}
    for constraint, energy, lam in constraints:
        c = energy + 0.01 * rng.standard_normal(steps) - constraint.allowance
        columns += [f"{kind} {constraint.name}" for kind in ("batch", "multiplier", "average")]
        table += [c, np.broadcast_to(lam, steps), c]
        start = float(np.broadcast_to(lam, steps)[-1])
        multipliers[constraint.name] = Multiplier(constraint.allowance, initial=start)
    names = tuple(constraint for constraint, *_ in constraints)
    history = make_history(tuple(columns), np.array(table).T.tolist(), dim=3, sigma=1.0, constraints=names, every=every)
    return [_judge(c, multipliers, history, 0.0, variance).status for c in names]


def over(start, end, steps=10_000):
    """From start to end, in equal ratios over the last tenth."""
    return np.concatenate([np.full(steps * 9 // 10, start), np.geomspace(start, end, steps // 10)])


@pytest.mark.parametrize(
    ("kl", "energy", "lam", "status"),
    [
        (2.0, 1.0, 1.25, "met"),
        (over(2.0, 2.05), 1.0, over(1.25, 1.3), "met"),
        (2.0, 0.9, 1.25, "unsettled"),  # lambda C = -0.125 nats of 2
        (2.0, 1.0, over(1.25, 1.0), "unsettled"),
        (over(2.0, 2.2), 1.0, 1.25, "unsettled"),
        (4.44, 0.2, 8e-7, "unsettled"),  # lambda C is about 0, but something is coded: lambda is on its way
        (0.001, 0.9, over(1e-3, 1e-4), "slack"),
        (2.0, 1.1, 1.25, "not met"),
    ],
)
def test_verdicts_on_one_constraint(kl, energy, lam, status):
    assert judge(kl, [(RE, energy, lam)]) == [status]


def test_rows_of_several_steps_each():
    """lambda needs 400 steps for a correction: those are all of 400 rows of a step each, and 40 of rows of ten."""
    late = np.concatenate([np.full(200, 1.25), np.full(200, 1.0)])
    assert judge(2.0, [(RE, 1.0, late)], steps=400) == ["unsettled"]
    assert judge(2.0, [(RE, 1.0, late)], steps=400, every=10) == ["met"]


def test_a_threshold_above_the_variance_is_slack():
    assert judge(0.5, [(RE, 0.9, over(1e-3, 1e-4))], variance=1.0) == ["slack"]
    assert judge(0.5, [(RE, 0.9, over(1e-3, 1e-4))], variance=1.1) == ["unsettled"]


def test_one_constraint_is_slack_while_another_is_paid_for():
    idle = (FRE, 2.0, over(1e-5, 1e-6))
    assert judge(2.0, [(RE, 1.0, 1.25), idle]) == ["met", "slack"]
    assert judge(2.0, [(RE, 0.2, 1e-6), idle]) == ["unsettled", "unsettled"]


@pytest.mark.parametrize(("steps", "status"), [(100, "not met"), (700, "unsettled"), (4000, "met")])
def test_a_run_is_unsettled_before_it_is_met(steps, status):
    """kappa^2 = 1.2 of Gaussian data: after 700 steps the error is 2 % below, and lambda above lambda* = 1.25."""
    x = cv.datasets.gaussian((4.0, 2.0, 0.5)).x
    found = train(x, cv.RE.from_squared_error(1.2), latent_dim=3, hidden=(), steps=steps).report["RE"]
    assert found.status == status
    if status == "unsettled":
        assert found.gap == pytest.approx(found.multiplier * (found.value - 1.2), rel=1e-12)
        assert "lambda C -0." in repr(found)
    if status == "met":
        assert found.multiplier == pytest.approx(1.25, rel=0.03)
