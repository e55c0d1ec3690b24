"""analysis.benchmarks.real: what our sweep costs in counts, EM beside it, and the table."""

import json
from functools import partial

import numpy as np
import pytest

import constrained_vae as cv
from analysis.benchmarks import _real_rows, _tasks, real
from analysis.benchmarks._methods import MissingError
from constrained_vae.testing import naive_branch
from tests.helpers.marks import slow

TWIN = real.Row("twin", 0.02)
_MARGIN = 1.1  # rounding differs between processors, and after it now and then the way of a few tiles


@pytest.mark.parametrize("name", ["iris, 0.05", "iris, 0.002", "wine, 0.05", *map(slow, list(real.ROWS)[3:])])
def test_a_sweep_costs_no_more_than_it_did(name):
    """A committed file has the counts; `--out` writes it."""
    allowed, row = json.loads(real.COUNTS.read_text())[name], real.ROWS[name]
    branch, found = real.sweep(row)
    assert branch.converged
    assert max(s.error_estimate / s.frame.scale for s in branch) <= 1e-10  # the default tolerance
    for count, most in allowed.items():
        assert 0 < found[count] <= _MARGIN * most, count


def test_counts_are_those_of_the_solutions():
    """Temperatures above the first transition: every one is one solution, and all its maps count."""
    betas = TWIN.betas[0] * np.array([1.2, 1.1, 1.0])
    with real.counts() as found:
        branch = cv.sweep(TWIN.x, betas=betas, n_tiles=2)
    assert found == {"maps": sum(s.n_maps for s in branch), "solutions": 3, "conditions": 3}


def test_em_is_the_plain_iteration():
    pytest.importorskip("jax")
    run = real.em(TWIN.x, 4)
    psi, maps = run(TWIN.betas[-1:], 1e-10)
    path = naive_branch(TWIN.x, TWIN.betas[-1:], psi, np.full(4, 0.25), tol=1e-12)
    radius = np.sqrt(TWIN.x.var(axis=0).sum())
    # A step of 1e-10 radii ends within 1e-7 radii of the fixed point if the contraction factor is at most 0.999.
    np.testing.assert_allclose(path.decoder[0], psi, atol=1e-7 * radius)
    assert path.distortion[0] < 0.5 * radius**2  # the kick has left the mean
    assert run(TWIN.betas[-1:], 1e-4)[1] < maps
    found = cv.solve(TWIN.x, beta=TWIN.betas[-1], n_tiles=4, start=psi)
    assert real.free_energy(TWIN.x, psi, TWIN.betas[-1]) == pytest.approx(found.free_energy, rel=1e-12)


def no_jax():
    raise MissingError("JAX is not installed")


def test_the_table_of_a_small_set(monkeypatch, capsys, tmp_path):
    """Every method in this process; without JAX the columns of EM are missing, and a line says so."""
    monkeypatch.setattr(real, "_TURNS", 1)
    monkeypatch.setattr(
        real, "elsewhere", lambda task, arguments, threads: _tasks.TASKS[task](**arguments, threads=threads)
    )
    monkeypatch.setattr(real, "import_jax", no_jax)
    monkeypatch.setattr(real, "LAMBDAS", (300.0,))
    monkeypatch.setattr(real, "blahut_arimoto", partial(_real_rows.blahut_arimoto, side=8, seconds=0.1))
    asked = ["--rows", "twin", "--physics", "twin", "--out", str(tmp_path / "counts.json")]
    assert real.main(asked) == 0
    printed = capsys.readouterr().out.splitlines()
    written = json.loads((tmp_path / "counts.json").read_text())
    assert printed[2].split()[:2] == ["twin", str(written["twin"]["maps"])]
    assert len(printed[2].split()) == 4 + 2 * 2  # ours, and two peers of scikit-learn
    assert printed[5].split()[3:4] == ["proven"]
    assert "JAX is not installed" in printed[6]
    ours, counts = {"seconds": 0.5, "free_energy": 1.0}, {"maps": 10}
    em = {"seconds": 1.0, "free_energy": 1.25, "maps": 40}
    expected = ["x", "10", "0.50", "1.0000", "40", "1.00", "2.00", "40", "1.00", "2.00", "1.2500"]
    assert real.line("x", ours, counts, [em, em]).split() == expected


def test_blahut_arimoto_is_above_the_certified_optimum():
    """Its grid is coarser than the plane; and no masses on the grid are better by more than its gap."""
    x, lam = _real_rows.plane(None)[:60], 100.0
    grid, best = _real_rows.blahut_arimoto(x, lam, side=12, seconds=np.inf), _real_rows.certified(x, lam)
    assert best["rigorous"]
    assert grid["gap"] <= 1e-6
    assert best["free_energy"] - best["gap"] <= grid["free_energy"]
    axes = [np.linspace(column.min(), column.max(), 12) for column in x.T]
    points = np.array([(a, b) for a in axes[0] for b in axes[1]])
    s = cv.solve(x, beta=0.5 / lam, start=points, n_tiles=144, masses="free", max_maps=1, on_failure="return")
    assert s.free_energy >= grid["free_energy"]  # equal masses on the same grid
    assert _real_rows.blahut_arimoto(x, lam, side=12, seconds=0.0)["maps"] == 0


def test_peers_are_those_of_scikit_learn():
    pytest.importorskip("sklearn")
    x = TWIN.x
    for peer in _real_rows.PEERS:
        found = real.measure_peer("twin", 0.02, peer, threads=1)
        assert found["free_energy"] > cv.solve(x, beta=TWIN.betas[-1], n_tiles=32, masses="fixed").free_energy - 0.1
