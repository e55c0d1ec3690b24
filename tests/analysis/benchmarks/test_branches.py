"""analysis.benchmarks.branches: excesses of F over runs of EM, and the table."""

import sys

import numpy as np
import pytest

from analysis.benchmarks import _tasks, branches, real


def test_excesses_are_the_largest_over_all_temperatures():
    runs = np.array([[1.0, 2.0], [1.5, 1.0], [2.0, 6.0]])  # medians 1.5 and 2, least 1 and 1
    assert branches.excesses([1.25, 2.5], runs) == (0.5, 1.5)


def test_runs_of_em_differ_by_their_seed():
    pytest.importorskip("jax")
    found = branches.measure_em_runs("twin", 0.02, seeds=2, threads=1)["free_energy"]
    assert np.shape(found) == (2, 25)
    assert found[0] != found[1]


def test_the_table_of_a_small_set(monkeypatch, capsys):
    """Without JAX the columns of EM are missing, and a line says so; a branch of restarts ends no higher."""

    def here(task, arguments, threads):
        return _tasks.TASKS[task](**arguments, threads=threads)

    monkeypatch.setattr(branches, "elsewhere", here)
    monkeypatch.setattr(real, "_TEMPERATURES", 3)
    monkeypatch.setattr(branches, "_TILES", 6)
    monkeypatch.setitem(sys.modules, "jax", None)
    assert branches.main(["--rows", "twin", "--restarts", "1"]) == 0
    _, _, row, reason = capsys.readouterr().out.splitlines()
    name, _, plain, _, found = row.split()
    assert name == "twin"
    assert float(found) <= float(plain)
    assert "JAX is not installed" in reason
    ours, runs = (
        {"seconds": 1.0, "free_energy": [2.0], "converged": True},
        {"seconds": 3.0, "free_energy": [[1.5], [3.0]]},
    )
    assert branches.line("x", [ours], runs).split() == ["x", "1.0", "2.0000", "-2.5e-01", "5.0e-01", "3.0", "1.5000"]
