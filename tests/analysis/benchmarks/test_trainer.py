"""analysis.benchmarks.trainer: both methods take steps, and ratios are those of one round."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from analysis.benchmarks import trainer


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(trainer, "WARM_UP", 1)
    monkeypatch.setattr(trainer, "STEPS", 3)


@pytest.mark.parametrize("dtype", trainer.DTYPES)
@pytest.mark.parametrize("method", trainer.METHODS)
def test_every_method_takes_steps(method, dtype):
    found = trainer.measure(method, dtype, threads=1)
    if method != "this project" and importlib.util.find_spec("torch") is None:
        assert found["missing"].startswith("PyTorch is not installed")
    else:
        assert found["milliseconds"] > 0


def test_without_pytorch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)

    def elsewhere(task, arguments, threads):
        assert (task, threads) == ("training", 1)
        return trainer.measure(**arguments, threads=threads)

    monkeypatch.setattr(trainer, "elsewhere", elsewhere)
    assert trainer.main(["--rounds", "1", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("PyTorch is not installed: pip install 'constrained-vae[bench]'") == 6
    assert printed.count("this project") == 2


def test_ratios_are_taken_within_a_round():
    """To the fastest PyTorch of the round: 1/2, 3/4, 9/3, of which the median is shown."""
    taken = [(1.0, 2.0, 4.0, 5.0), (3.0, 6.0, 4.0, 7.0), (9.0, 8.0, 5.0, 3.0)]
    rounds = [{m: {"milliseconds": t} for m, t in zip(trainer.METHODS, each, strict=True)} for each in taken]
    line = trainer.summary("float64", rounds)[0].split()
    assert [float(number) for number in line[-3:]] == [3.0, 9.0, 0.75]
