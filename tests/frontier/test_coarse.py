"""Very many points: the search for the optimum begins with the means of cells."""

from __future__ import annotations

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.frontier import coarse as module
from constrained_vae.frontier.coarse import coarse
from constrained_vae.frontier.data_passes import DataPasses
from constrained_vae.problems.problem import Problem


@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1e-3, 50.0)])
def test_cells_keep_mean_and_nearly_the_energies(unit, offset, monkeypatch, rng):
    monkeypatch.setattr(module, "_MANY", 1000)
    x, rho = unit * rng.normal(size=(5000, 2)) + offset, rng.dirichlet(np.ones(5000))
    problem = Problem.make(x, None, rho, "reference", beta=0.3 * unit**2)
    few = coarse(DataPasses(problem), 0.4)
    y, mass = few.data.frame.outward(few.data.whole().x), few.data.whole().rho
    assert len(y) * 8 <= 5000
    np.testing.assert_allclose(mass @ y, rho @ x, rtol=0, atol=1e-10 * (unit + offset))
    assert mass.sum() == pytest.approx(1, abs=1e-12)
    spread = rho @ np.square(x).sum(axis=1) - mass @ np.square(y).sum(axis=1)  # within the cells
    assert -1e-10 * (unit + offset) ** 2 < spread < 2 * 0.16 * 0.3 * unit**2
    assert coarse(DataPasses(problem), 0.01) is None


def test_the_optimum_is_that_of_all_points(monkeypatch, rng):
    x = rng.normal(size=(3000, 1))
    direct = cv.global_solution(x, beta=0.1, gap=1e-5, time_limit=None)
    monkeypatch.setattr(module, "_MANY", 1000)
    begun = cv.global_solution(x, beta=0.1, gap=1e-5, time_limit=None)
    assert begun.certificate.rigorous
    assert begun.certificate.gap <= 1e-5
    assert begun.free_energy == pytest.approx(direct.free_energy, abs=2e-5)
    assert begun.n_maps < direct.n_maps


def test_none_for_few_points_or_many_dimensions(monkeypatch, rng):
    x = rng.normal(size=(3000, 4))
    monkeypatch.setattr(module, "_MANY", 1000)
    assert coarse(DataPasses(Problem.make(x, None, None, "reference", beta=50.0)), 0.4) is None
    monkeypatch.setattr(module, "_MANY", 4000)
    assert coarse(DataPasses(Problem.make(x[:, :2], None, None, "reference", beta=50.0)), 0.4) is None
