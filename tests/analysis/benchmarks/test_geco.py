"""analysis.benchmarks.geco: when a constraint is met and settles, and every method on a few steps."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from analysis.benchmarks import geco


def test_when_a_constraint_is_met_and_settles():
    """A thousand steps at twice kappa^2, then at kappa^2: the average 1 + 0.99^t comes within 5 % after 299 steps."""
    errors, ones = np.repeat([2.0, 1.0], 1000), np.ones(2000)
    found = geco.outcome(errors, 3 * ones, 0.5 * np.linspace(4, 1, 2000), 1.0)
    assert found.settled == 1000 + 298  # 0.99^299 = 0.0495 is the average of step 298, counted from 0
    assert found.met == 1000 + 389  # 0.99^390 = 0.0198
    assert (found.kl, found.error, found.peak) == (3.0, 1.0, pytest.approx(4))
    assert geco.line("x", found, 1.0, 10.0).split()[1:6] == ["1389", "1298", "1.0000", "3.00", "3.00"]
    never = geco.outcome(2 * ones, ones, ones, 1.0)
    assert (never.met, never.settled) == (None, None)
    assert geco.line("x", never, 1.0, 10.0).split()[1:6] == ["never", "never", "1.4142", "1.00", "-"]
    near = geco.outcome(1.04 * ones, ones, ones, 1.0)
    assert geco.line("x", near, 1.0, 10.0).split()[5] == "1.40"


def test_every_method_takes_steps(capsys):
    """The methods in PyTorch say so where it is not installed."""
    assert geco.main(["--steps", "20", "--latent", "2", "--kappa", "0.2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + len(geco.methods())
    assert printed[2].startswith("train ")


def test_without_pytorch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    geco.main(["--steps", "2", "--latent", "2", "--kappa", "0.2"])
    said = capsys.readouterr().out
    assert said.count("PyTorch is not installed: pip install 'constrained-vae[bench]'") == len(geco.methods()) - 1
