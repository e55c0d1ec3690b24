"""Residuals in extended precision, Newton steps from them, and near sites that are tied before a Hessian."""

from decimal import Decimal, localcontext

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.latent.sites import Sites
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers import extended_precision, soft_modes
from constrained_vae.solvers.iteration import Iteration
from constrained_vae.solvers.loop import fixed_point_map
from constrained_vae.solvers.options import Options
from constrained_vae.solvers.recorder import Recorder

more_digits = pytest.mark.skipif(extended_precision.RATIO > 0.1, reason="longdouble is float64 here")


def iteration(x, sites, beta, free=True):
    problem = Problem.make(x, cv.ELBO(beta), None, "numba")
    options = Options(free)
    it = Iteration(problem, options, sites, Recorder(options, problem.data.frame, None), fixed_point_map)
    it.accept(it.evaluate_sites(sites))
    return it


def exact_residual(x, psi, masses, lam):
    """Steps of the decoder and of the log masses in 50 digits, from numbers in float64."""
    with localcontext() as context:
        context.prec = 50
        x, psi, masses = ([Decimal(float(v)) for v in array] for array in (x, psi, masses))
        q = [[p * (-Decimal(lam) * (v - c) ** 2).exp() for p, c in zip(masses, psi, strict=True)] for v in x]
        q = [[w / sum(row) / len(x) for w in row] for row in q]
        mass = [sum(row[a] for row in q) for a in range(len(psi))]
        steps = [sum(q[i][a] * (x[i] - psi[a]) for i in range(len(x))) / mass[a] for a in range(len(psi))]
        return [float(s) for s in steps] + [
            float(m.ln() - p.ln()) for m, p in zip(mass, masses, strict=True)
        ]  # of about 1e-17 where the residual in float64 is rounding


@more_digits
@pytest.mark.parametrize("free", [True, False])
def test_the_residual_at_a_fixed_point_has_more_digits_than_float64(free):
    x = np.random.default_rng(0).standard_normal((20, 1))
    s = cv.solve(x, beta=0.3, n_tiles=2, masses="free")
    psi = s.frame.inward(s.decoder)
    it = iteration(x, Sites(psi, np.arange(2), s.tiling.masses), 0.3, free)
    rows = it.problem.data.frame.inward(x)
    weights = np.exp(it.here.log_masses.astype(np.longdouble))
    before = it.recorder.n_maps
    found = extended_precision.residual(it)
    expected = exact_residual(rows[:, 0], it.here.psi[:, 0], s.tiling.masses, it.problem.framed.quadratic)
    assert it.recorder.n_maps == before + 1
    assert np.abs(found[:2]).max() < 1e-11
    # The masses of the oracle are those before their logarithm was rounded, which changes psi in the last digits only.
    np.testing.assert_allclose(weights, s.tiling.masses, rtol=1e-15)
    np.testing.assert_allclose(found[:2], expected[:2], rtol=0, atol=3e-17)
    assert len(found) == (4 if free else 2)


@pytest.mark.parametrize(("beta", "left"), [(2.0, 2), (0.01, 4)])
def test_near_sites_are_tied_where_f_does_not_rise(beta, left):
    """Two pairs of sites: at a high temperature each pair is better off as one site, at a low one it is not."""
    x = np.array([[-3.0], [-2.9], [2.9], [3.0]])
    it = iteration(x, Sites.of_tiles(np.array([[-1.01], [-0.99], [0.99], [1.01]]), np.full(4, 0.25)), beta)
    if left == 4:  # each site at its own point
        it = iteration(x, Sites.of_tiles(it.problem.data.frame.inward(x), np.full(4, 0.25)), 1e-3)
    before = it.here.free_energy
    assert soft_modes.merge(it) == (left == 2)
    assert len(it.here.psi) == left
    assert it.here.free_energy <= before


@more_digits
def test_a_newton_step_that_does_not_help_is_taken_back(monkeypatch):
    x = np.random.default_rng(0).standard_normal((20, 1))
    s = cv.solve(x, beta=0.3, n_tiles=2, masses="free")
    it = iteration(x, Sites(s.frame.inward(s.decoder), np.arange(2), s.tiling.masses), 0.3)
    quadratic, before = soft_modes.Quadratic.at(it), it.here
    lengths = iter([1e-6, 1e-3])
    monkeypatch.setattr(extended_precision, "residual", lambda it: np.full(4, next(lengths)))
    error = soft_modes._refined(it, quadratic, 1e-10, 1e-15)
    assert it.here is before
    assert 1e-7 < error < 1e-4
