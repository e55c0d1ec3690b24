"""Proofs beyond the plane: three dimensions, and data of any dimension in a space of three."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_iris

import constrained_vae as cv
from tests.helpers.attacks import best_attack


def turned(rng, n, dim):
    """An orthogonal map from n to dim dimensions, as rows."""
    return np.linalg.qr(rng.normal(size=(dim, n)))[0].T


@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1000.0, 1e4)])
def test_data_of_rank_three_are_their_projection(unit, offset, rng):
    x = rng.normal(size=(8, 3))
    s = cv.global_solution(x, beta=0.5)
    bounds = cv.certify(s)
    assert bounds.rigorous
    assert bounds.gap < 1.0e-5
    y = unit * x @ turned(rng, 3, 16) + offset
    high = cv.certify(cv.global_solution(y, beta=0.5 * unit**2))
    assert high.rigorous
    assert high.upper == pytest.approx(bounds.upper, abs=2e-6)  # the gap of both optima
    assert high.gap < 1.0e-5
    assert high.lower <= bounds.upper + bounds.rounding
    assert bounds.lower <= high.upper + high.rounding


def test_a_poor_solution_in_three_dimensions(rng):
    x = rng.normal(size=(8, 3))
    best = cv.global_solution(x, beta=0.3)
    bounds = cv.certify(cv.solve(x, beta=0.3, n_tiles=2, on_failure="return"))
    assert bounds.rigorous
    assert bounds.lower <= best.free_energy
    assert bounds.gap > 0.01


@pytest.mark.parametrize("off", [1e-6, 3e-4])
def test_data_near_a_space_have_a_bound_that_is_larger_by_their_distance(off, rng):
    x = rng.normal(size=(8, 2)) @ turned(rng, 2, 5)
    x += off * rng.normal(size=x.shape)
    s = cv.global_solution(x, beta=0.5)
    assert s.certificate.rigorous
    flat = cv.global_solution(x @ np.linalg.svd(x - x.mean(axis=0))[2][:3].T, beta=0.5)
    assert s.certificate.lower <= flat.free_energy + 10 * off**2
    assert s.certificate.gap < 1e-6 + 20 * off**2


@pytest.mark.slow
@pytest.mark.parametrize("nats", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", ["normal", "clusters", "iris"])
def test_two_thousand_points_in_three_dimensions(name, nats, rng):
    """The gap of the optimum is proven; the search alone misses maxima of the normal data."""
    x = rng.normal(size=(2000, 3))
    if name == "clusters":
        x += 3 * rng.normal(size=(6, 3))[rng.integers(0, 6, 2000)]
    elif name == "iris":
        x = np.tile(load_iris().data[:, :3], (14, 1))[:2000] + 0.1 * x
    beta = {0.5: 0.75, 1.0: 0.52, 2.0: 0.27}[nats] * {"normal": 1.0, "clusters": 6.0, "iris": 0.67}[name]
    s = cv.global_solution(x, beta=beta, gap=1e-6)
    assert s.certificate.rigorous
    assert s.certificate.gap <= 1e-6


def test_data_off_the_space_are_heuristic(rng):
    """There are too many for a proof in five dimensions."""
    x = rng.normal(size=(40, 3)) @ turned(rng, 3, 5)
    x[:, :] += 1e-3 * rng.normal(size=x.shape)
    assert not cv.certify(cv.global_solution(x, beta=0.5)).rigorous


@pytest.mark.parametrize(("rank", "n", "unit", "offset"), [(4, 9, 1.0, 0.0), (4, 12, 1000.0, 1e4), (5, 7, 1.0, 0.0)])
def test_few_points_in_more_dimensions(rank, n, unit, offset, rng):
    """Proven, the same as their projection, and no code of an attack is better."""
    x = rng.normal(size=(n, rank))
    y = unit * x @ turned(rng, rank, 11) + offset
    s = cv.global_solution(y, beta=0.6 * unit**2)
    assert s.certificate.rigorous
    assert s.certificate.gap <= 1e-6
    flat = cv.certify(cv.global_solution(x, beta=0.6))
    assert flat.rigorous
    assert s.free_energy == pytest.approx(flat.upper, abs=1e-6)
    F, _ = best_attack(x, np.full(n, 1 / n), 1 / 1.2, rng)
    assert flat.lower <= F + 1e-12


def test_a_simplex_has_its_known_optimum_in_five_dimensions():
    """Far below its transition the corners are the code: F = log 6 to exp(-1 / beta)."""
    s = cv.global_solution(np.eye(6), beta=0.02)
    assert s.certificate.rigorous
    assert s.certificate.lower <= np.log(6) <= s.certificate.upper + 1e-12
