"""Parts of a model's excess: constructed models in which only one of them is not zero."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest

import constrained_vae as cv
from tests.helpers.attacks import free_energy

NAMES = ("amortisation", "marginal_kl", "local_optimum", "finite_tiles")
TWO = np.array([[-1.0], [1.0]])


def only(parts, name, tol=1e-6):
    assert all(getattr(parts, other) <= tol for other in NAMES if other != name)
    assert all(getattr(parts, other) >= 0 for other in NAMES)
    assert parts.total == pytest.approx(sum(astuple(parts)[:4]), abs=1e-15)
    return getattr(parts, name)


def test_only_the_encoder():
    s = cv.global_solution(TWO, beta=0.5)
    q = 0.7 * s.encoder + 0.3 * s.encoder[::-1]
    KL = (q * np.log(q / s.encoder)).sum(axis=1).mean()
    assert only(cv.excess_parts(s, q), "amortisation") == pytest.approx(KL, abs=1e-12)
    assert only(cv.excess_parts(s), "amortisation") == 0


def test_only_the_masses():
    best = cv.global_solution(TWO, beta=0.5)
    s = replace(best, tiling=cv.Tiling(np.array([0.8, 0.2])))
    F = free_energy(TWO, np.full(2, 0.5), best.decoder, np.array([0.8, 0.2]), 1.0)
    parts = cv.excess_parts(s)
    assert only(parts, "marginal_kl") == pytest.approx(F - best.free_energy, abs=1e-6)
    m = s.encoder.mean(axis=0)
    assert parts.marginal_kl >= m @ np.log(m / s.tiling.masses)


def test_only_the_reconstructions():
    """Two tiles at the mean, below the transition."""
    best = cv.global_solution(TWO, beta=0.5)
    s = replace(best, decoder=np.zeros((2, 1)))
    assert only(cv.excess_parts(s), "local_optimum") == pytest.approx(1.0 - best.free_energy, abs=1e-6)


def test_only_the_tiles():
    """One tile at the mean: F = lambda tr Cov."""
    best = cv.global_solution(TWO, beta=0.5)
    parts = cv.excess_parts(cv.solve(TWO, beta=0.5, n_tiles=1))
    assert only(parts, "finite_tiles") == pytest.approx(1.0 - best.free_energy, abs=1e-6)
    assert parts.gap <= 1e-6
    assert parts.rigorous


def test_the_sum_is_the_excess_of_any_model(rng):
    x, rho = rng.normal(size=(12, 2)), rng.dirichlet(np.ones(12))
    s = cv.solve(x, beta=0.2, weights=rho, n_tiles=4, max_maps=2, start="data", on_failure="return")
    q = rng.dirichlet(np.ones(4), size=12)
    parts = cv.excess_parts(s, q)
    H = np.square(x[:, None] - s.decoder).sum(axis=2) / 0.4
    model = rho @ (q * (np.log(q / s.tiling.masses) + H)).sum(axis=1)
    best = cv.global_solution(x, beta=0.2, weights=rho)
    assert parts.total == pytest.approx(model - best.free_energy, abs=2e-6)
    assert min(astuple(parts)[:4]) >= 0
    assert parts.amortisation > 0.1
    assert parts.finite_tiles > 1e-3


def test_it_is_the_excess_of_the_curve_where_lambda_is_the_slope():
    best = cv.global_solution(TWO, beta=0.5)
    curve = cv.rate_distortion(TWO, [0.9, 0.5, 0.3])
    s = replace(best, tiling=cv.Tiling(np.array([0.8, 0.2])))
    H = np.square(TWO - s.decoder[:, 0])
    D = float((s.encoder * H).sum(axis=1).mean())
    m = s.encoder.mean(axis=0)
    R = float((s.encoder * np.log(s.encoder / s.tiling.masses)).sum(axis=1).mean())
    assert m.shape == (2,)
    assert cv.excess_parts(s).total <= curve.excess(R, D).most + 1e-6


def test_bad_encoders():
    s = cv.solve(TWO, beta=0.5, n_tiles=2)
    for encoder, what in (
        (np.ones((2, 3)), "a column per tile"),
        (np.ones((2, 2)), "sum to 1"),
        ([[2.0, -1.0], [0.5, 0.5]], "negative"),
        ([[np.nan, 1.0], [0.5, 0.5]], "encoder"),
    ):
        with pytest.raises(ValueError, match=what):
            cv.excess_parts(s, encoder)
    empty = replace(s, tiling=cv.Tiling(np.array([1.0, 0.0])))
    with pytest.raises(ValueError, match="prior mass zero"):
        cv.excess_parts(empty, np.full((2, 2), 0.5))
