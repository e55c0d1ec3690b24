"""Parts of the solver loop: which predictions it takes, when it ends, and what is left out without acceleration."""

from __future__ import annotations

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.latent.sites import Sites
from constrained_vae.latent.tiling import Tiling
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers.convergence import Convergence
from constrained_vae.solvers.iteration import Iteration
from constrained_vae.solvers.loop import iterate
from constrained_vae.solvers.options import Options

PAIR = np.array([[-1.0], [1.0]])


@pytest.mark.parametrize(("predicted", "taken"), [(0.9, True), (0.1, False)])
def test_a_prediction_is_taken_where_F_does_not_rise_at_all(predicted, taken, monkeypatch):
    """However large its rounding is: else a branch could be left for a point that is no better."""
    monkeypatch.setattr(Convergence, "slack", lambda self, free_energy: np.inf)
    problem = Problem.make(PAIR, cv.ELBO(1.0, 0.5), None, "reference")
    start, other = (Sites(a * PAIR, np.arange(2), np.full(2, 0.5)) for a in (0.5, predicted))
    options = Options(max_maps=2, split=False)
    found, sites, _ = iterate(problem, Tiling(start.tile_masses), start, options, other)
    assert found.n_maps == 2
    np.testing.assert_array_equal(sites.decoder, (other if taken else start).decoder)


@pytest.mark.parametrize("accelerate", ["plain", "squarem", "lbfgs"])
def test_a_looser_tolerance_takes_fewer_maps(accelerate, rng):
    """The iteration ends as soon as the error is within the tolerance, not where the residual is rounding."""
    x = rng.normal(size=(30, 2))
    options = {"beta": 0.5, "n_tiles": 3, "accelerate": accelerate, "backend": "reference"}
    maps = [cv.solve(x, tol=tol, **options).n_maps for tol in (1e-3, 1e-6, 1e-12)]
    assert maps[0] < maps[1] < maps[2]


@pytest.mark.parametrize("accelerate", ["plain", "lbfgs"])
def test_without_acceleration_nothing_is_extrapolated(accelerate, rng, monkeypatch):
    """Newton steps measure the error; the iteration goes to their ends only if it may be accelerated."""
    proposals, extrapolated = [], Iteration.extrapolated
    monkeypatch.setattr(
        Iteration, "extrapolated", lambda it, *proposal: proposals.append(proposal) or extrapolated(it, *proposal)
    )
    monkeypatch.setattr(Iteration, "near_enough", lambda it: True)  # the first of these errors is above the tolerance
    x = rng.normal(size=(30, 2))
    s = cv.solve(x, beta=0.5, n_tiles=3, accelerate=accelerate, tol=1e-6, backend="reference")
    assert s.converged
    assert bool(proposals) is (accelerate != "plain")


def test_every_point_is_looked_at_once(rng, monkeypatch):
    """A second look would count as a map without a new least residual."""
    residuals, closing = [], Convergence.closing
    monkeypatch.setattr(
        Convergence, "closing", lambda self, residual: residuals.append(residual) or closing(self, residual)
    )
    cv.solve(rng.normal(size=(30, 2)), beta=0.5, n_tiles=3, backend="reference", tol=1e-6)
    assert len(residuals) > 10
    assert len(set(residuals)) == len(residuals)
