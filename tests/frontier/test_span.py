"""Data with fewer points than dimensions: the optimum is sought in the space that they span."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.frontier import optimum, span


@pytest.fixture
def wide():
    """Twelve points in forty dimensions, two of which coincide."""
    x = np.random.default_rng(0).normal(size=(12, 40))
    return np.concatenate([x, x[:1]])


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1000.0, 0.0), (1.0, 1e5)])
@pytest.mark.parametrize("beta", [3.0, 20.0])
def test_the_optimum_is_that_of_all_coordinates(wide, scale, offset, beta, monkeypatch):
    options = {"beta": beta * scale**2, "weights": np.linspace(1, 2, len(wide)), "gap": 1e-8}
    x = scale * wide + offset
    found = cv.global_solution(x, **options)
    monkeypatch.setattr(optimum, "span_of", lambda *_: None)
    expected = cv.global_solution(x, **options)
    assert found.status is expected.status is cv.Status.CONVERGED
    rounding = 1e-15 * offset * np.sqrt(x.size)  # of the data, which are of size 1 about the offset
    assert found.free_energy == pytest.approx(expected.free_energy, abs=2e-8 + rounding)
    assert found.certificate.lower <= expected.free_energy + 1e-12
    assert found.certificate.gap <= 2e-8
    assert cv.certify(found).gap <= 1e-7
    c = found.certificate.where
    assert c.shape == (40,)


def test_three_points_are_a_plane(wide):
    """Their supremum is proven, since branch and bound takes place in two dimensions."""
    assert cv.global_solution(wide[:3], beta=1.0).certificate.rigorous


def test_a_start_outside_of_the_space_is_projected(wide):
    start = cv.solve(wide, beta=20.0, n_tiles=4)
    start = replace(start, decoder=start.decoder + np.random.default_rng(1).normal(size=start.decoder.shape))
    found = cv.global_solution(wide, beta=20.0, start=start)
    assert found.free_energy == pytest.approx(cv.global_solution(wide, beta=20.0).free_energy, abs=2e-6)


def test_the_space_is_used_where_it_is_narrow(wide):
    """Not for many points, and not where moving the data into it could be seen at so low a temperature."""
    problem = cv.global_solution(wide, beta=3.0).problem
    assert span.span_of(problem, 1e-8).axes.shape == (11, 40)
    assert span.span_of(problem, 0.0) is None
    assert span.span_of(cv.global_solution(wide[:, :12], beta=3.0).problem, 1e-8) is None
