"""The kit for other people's solvers: it catches broken ones, and shares nothing with what it is to test."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from scipy.special import softmax

import constrained_vae as cv
from constrained_vae import testing
from constrained_vae.testing import closed_forms, naive, naive_expectations, small_problems


def right(H, masses):
    return softmax(np.log(masses) - H, axis=1)


def compare(p, encoder):
    """A user's own pass over the data, vectorised, held to the loops."""
    q = encoder(np.square(p.x[:, None] - p.start).sum(axis=2) * p.multiplier, p.masses)
    exact = naive_expectations(p.x, p.weights, p.start, p.masses, p.beta)
    for found, expected in (
        (q, exact.encoder),
        (p.weights @ q, exact.mass),
        ((p.weights[:, None] * q).T @ p.x, exact.sums),
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=p.rounding(n_maps=1))


@given(small_problems())
def test_a_right_solver_passes(p):
    compare(p, right)


def swapped(H, masses):
    """Tiles taken for one another."""
    return right(H, masses)[:, ::-1]


def forgetful(H, masses):
    """Without the prior masses."""
    return softmax(-H, axis=1)


def lukewarm(H, masses):
    """At a temperature wrong in the sixth digit."""
    return right(H * (1 + 1e-6), masses)


def single(H, masses):
    """In single precision."""
    return right(H.astype(np.float32), masses.astype(np.float32))


def unnormalised(H, masses):
    """Rows whose sum is not 1 by parts in 1e10."""
    return right(H, masses) * (1 + 1e-10)


@pytest.mark.parametrize("broken", [swapped, forgetful, lukewarm, single, unnormalised], ids=lambda f: f.__name__)
def test_a_broken_encoder_is_caught(broken):
    @settings(phases=(Phase.generate,))  # that a problem is found matters here, not how small it is
    @given(small_problems())
    def check(p):
        compare(p, broken)

    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check()


@given(small_problems(bernoulli=True, least_tiles=2, relative_beta=(0.5, 0.6)))
def test_problems_are_as_promised(p):
    assert ((p.x >= 0) & (p.x <= 1)).all()
    assert len(np.unique(p.x, axis=0)) > 1
    assert 2 <= len(p.masses) <= 6
    assert 0.5 <= p.beta <= 0.6
    for shares in (p.weights, p.masses):
        assert shares.sum() == pytest.approx(1, abs=1e-15 * len(shares))
        assert shares.max() <= 5 * shares.min() * (1 + 1e-15)
    assert not any(array.flags.writeable for array in (p.x, p.weights, p.masses, p.start))


@given(small_problems(relative_beta=(0.9, 1.1)))
def test_beta_is_relative_to_the_first_critical_one(p):
    critical = cv.first_critical_beta(p.x, weights=p.weights)
    assert 0.9 * critical * (1 - 1e-9) <= p.beta <= 1.1 * critical * (1 + 1e-9)


def test_a_solver_that_is_too_cold_fails_the_closed_forms():
    for problem, exact in testing.all_curie_weiss():
        for factor, passes in ((1.0, True), (1 - 1e-6, False)):
            objective = cv.ELBO(factor * problem.beta, problem.sigma)
            s = cv.solve(problem.x, objective, n_tiles=2, start=problem.x)
            assert (s.rate == pytest.approx(exact.rate, rel=1e-9)) == (passes or exact.rate == 0)


@pytest.mark.parametrize("module", [closed_forms, naive])
def test_the_oracles_share_nothing_with_the_package(module):
    """Or else both could be wrong together."""
    tree = ast.parse(Path(module.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {"." * node.level + (node.module or "") for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= {"__future__", "collections", "math", "numpy", "scipy", "typing"}


def test_without_hypothesis_only_the_strategies_are_missed():
    code = """
import sys
sys.modules["hypothesis"] = None
from constrained_vae import testing
assert testing.curie_weiss(1.0, 0.5)[1].rate > 0
try:
    from constrained_vae.testing import small_problems
except ModuleNotFoundError as error:
    print(error)
"""
    root = Path(cv.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert "pip install 'constrained-vae[test]'" in done.stdout


def test_every_name_is_there_and_documented():
    assert testing.__all__ == sorted(testing.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert dir(testing) == testing.__all__
    for name in testing.__all__:
        assert getattr(testing, name).__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = testing.nothing
