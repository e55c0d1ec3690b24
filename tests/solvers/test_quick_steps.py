"""Quick steps: those of the loop in Python, one after another, until the loop has something else to do."""

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.backends import numba as backend
from constrained_vae.solvers import loop, quick_steps


@pytest.fixture
def taken(monkeypatch):
    """The numbers of quick steps, call by call, and whether they ended at a rejected proposal."""
    calls, take = [], quick_steps.take

    def spied(it, tol):
        count, rejected = take(it, tol)
        calls.append((count, rejected is not None))
        return count, rejected

    monkeypatch.setattr(loop.quick_steps, "take", spied)
    return calls


def slow(monkeypatch):
    monkeypatch.setattr(backend, "are_quick", lambda *_: False)


@pytest.mark.parametrize("masses", ["fixed", "free"])
@pytest.mark.parametrize("dim", [2, 12])  # few statistics and many
def test_the_iterates_are_those_of_the_loop(dim, masses, rng, monkeypatch, taken):
    x, w = rng.normal(size=(60, dim)) * np.linspace(2, 1, dim), rng.dirichlet(np.ones(60))
    options = {
        "beta": 0.8,
        "weights": w,
        "masses": masses,
        "start": x[:5],
        "n_tiles": 5,
        "max_maps": 25,
        "on_failure": "return",
    }
    quick = cv.solve(x, **options, record=True)
    assert sum(count for count, _ in taken) > 10
    at_once = cv.solve(x, **options)
    slow(monkeypatch)
    expected = cv.solve(x, **options, record=True)
    assert len(quick.trajectory) == len(expected.trajectory)
    np.testing.assert_allclose(quick.trajectory, expected.trajectory, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(at_once.decoder, quick.decoder)  # in one call or in many
    np.testing.assert_allclose(quick.tiling.masses, expected.tiling.masses, rtol=0, atol=1e-9)
    assert (quick.n_maps, quick.status) == (at_once.n_maps, at_once.status) == (expected.n_maps, expected.status)


def test_after_a_rejected_proposal_the_loop_goes_on(rng, monkeypatch, taken):
    """The rejected proposal is not computed twice, and dead sites and saddles are left to the loop."""
    x = rng.normal(size=(80, 2)) * [3, 1]
    options = {"beta": 0.05, "n_tiles": 16, "masses": "free", "start": "data", "seed": 1}
    quick = cv.solve(x, **options)
    assert any(rejected for _, rejected in taken)
    slow(monkeypatch)
    expected = cv.solve(x, **options)
    assert quick.converged
    assert quick.free_energy == pytest.approx(expected.free_energy, abs=0.02)  # another minimum by rounding, at most


def test_only_small_squared_distances_are_quick(rng, taken):
    x = rng.uniform(0.1, 0.9, size=(20, 2))
    cv.solve(x, cv.ELBO(beta=0.02, likelihood="bernoulli"), n_tiles=3)
    cv.solve(x, beta=0.002, n_tiles=3, accelerate="anderson")
    cv.solve(x, beta=0.002, n_tiles=3, dtype=np.float32)
    cv.solve(x, beta=0.002, n_tiles=3, backend="reference")
    assert taken
    assert not any(count for count, _ in taken)
    assert not backend.are_quick(2**14, 32, 8)
