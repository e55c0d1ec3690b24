"""What makes the solver fast does not change what it finds: each optimisation is switched off by itself."""

from __future__ import annotations

import numba
import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae._utils import memory
from constrained_vae.backends import numba as numba_backend, pruning
from constrained_vae.data.rows import Rows

SWITCHES = ["pruning", "acceleration", "blocks", "threads", "merging", "quick steps"]
_ROUNDING = 1e-10  # of two solutions with the tolerance 1e-11, relative to the radius


@pytest.fixture
def always(monkeypatch):
    """Pruning is used although the data are few."""
    for name in ("_SMALL", "_SHORT"):
        monkeypatch.setattr(pruning, name, 1)
    monkeypatch.setattr(pruning, "_PAYS", 2.0)


@pytest.fixture
def off(request, monkeypatch):
    """A function that switches an optimisation off, and returns the arguments of `solve` that do it."""

    def switch(name):
        if name == "pruning":
            monkeypatch.setattr(pruning, "expectations", lambda *_: None)
        elif name == "blocks":
            monkeypatch.setattr(memory, "BLOCK", 2**9)
        elif name == "threads":
            before = numba.get_num_threads()
            request.addfinalizer(lambda: numba.set_num_threads(before))
            numba.set_num_threads(1)
        elif name == "quick steps":
            monkeypatch.setattr(numba_backend, "are_quick", lambda *_: False)
        elif name == "merging":
            monkeypatch.setattr(Rows, "distinct", lambda self: self)
        return {"accelerate": "plain"} if name == "acceleration" else {}

    return switch


def repeated(seed):
    """Points of four clusters, of which every third is there three times, with weights."""
    x = cv.datasets.four_clusters(40, spread=0.4, seed=seed).x
    rows = np.concatenate([np.arange(len(x)), np.repeat(np.arange(0, len(x), 3), 2)])
    return x[rows], np.random.default_rng(seed).uniform(0.5, 1.5, len(rows))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_the_same_from_a_converged_point(name, backend, masses, off):
    x, w = repeated(0)
    options = {"beta": 0.3, "weights": w, "tol": 1e-11, "masses": masses, "backend": backend}
    s = cv.solve(x, n_tiles=8, seed=1, **options)
    again = cv.solve(x, start=s.decoder, tiling=s.tiling, **options, **off(name))
    assert s.converged
    assert again.converged
    radius = s.frame.scale
    np.testing.assert_allclose(again.decoder, s.decoder, rtol=0, atol=_ROUNDING * radius)
    np.testing.assert_allclose(again.tiling.masses, s.tiling.masses, rtol=0, atol=1e-9)
    assert again.free_energy == pytest.approx(s.free_energy, abs=1e-12)
    assert again.distortion == pytest.approx(s.distortion, rel=1e-9)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", SWITCHES)
def test_the_same_where_there_is_one_minimum(name, off):
    """Above the first transition the reconstruction is the mean, from every start."""
    x, w = repeated(1)
    options = {"beta": 1.3 * cv.first_critical_beta(x, weights=w), "weights": w, "tol": 1e-11, "start": "data"}
    s = cv.solve(x, n_tiles=4, seed=3, **options)
    again = cv.solve(x, n_tiles=4, seed=3, **options, **off(name))
    for found in (s, again):
        assert found.converged
        mean = np.broadcast_to(w @ x / w.sum(), (4, 2))
        np.testing.assert_allclose(found.decoder, mean, rtol=0, atol=_ROUNDING * s.frame.scale)
    assert again.free_energy == pytest.approx(s.free_energy, abs=1e-12)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", SWITCHES)
def test_status_descent_and_certificate_hold_elsewhere(name, off):
    """From points far away another minimum may be found."""
    x, w = repeated(2)
    seen = []
    best = cv.global_solution(x, beta=0.1, weights=w, gap=1e-4)
    more = off(name)
    s = cv.solve(
        x, beta=0.1, weights=w, n_tiles=12, start="data", seed=5, callback=lambda i: seen.append(i.free_energy), **more
    )
    assert s.converged
    assert len(seen) > 2
    assert (np.diff(seen) <= 1e-12 * (1 + np.abs(seen[:-1]))).all()
    bounds = cv.certify(s)
    assert bounds.rigorous
    assert bounds.lower <= best.free_energy
    assert s.free_energy >= best.certificate.lower
