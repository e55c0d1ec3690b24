"""The programs that the guide shows: they run, and their files hold what they say."""

import re
from pathlib import Path

import pytest

import constrained_vae as cv

torch = pytest.importorskip("torch", reason="torch, of the extra torch, is not installed")
from docs.examples import multiplier_in_pytorch as example

GUIDE = (Path(cv.__file__).parents[1] / "docs" / "guide.md").read_text(encoding="utf-8")
BLOCKS = [block for block in re.findall(r"^```python\n(.*?)^```", GUIDE, re.M | re.S) if ">>>" not in block]


@pytest.fixture(autouse=True)
def _as_before():
    """One thread, and the same random numbers after the test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)


def test_the_multiplier_in_a_loop_of_pytorch(tmp_path, capsys):
    out = tmp_path / "multiplier.pt"
    found = example.main(["--steps", "130", "--out", str(out)])
    assert capsys.readouterr().out.startswith(f"training: lambda {found['lambda']:.5g}, error ")
    state = torch.load(out, weights_only=True)
    saved = state["multiplier"]
    start = cv.geco.natural_multiplier(cv.datasets.digits(1500).x, cv.RE(0.15, reduction="mean"))
    assert saved["settings"]["initial"] == pytest.approx(start, rel=1e-5)  # its images are float32
    assert saved["steps"] == 130  # micro-batches are no steps
    assert found["lambda"] > saved["settings"]["initial"]  # from step 100 on it rises: the network has hardly learned
    assert found["cost"] == pytest.approx(found["KL"] + found["lambda"] * (found["error"] - 0.15**2), rel=1e-5)


def test_the_image_model_of_the_guide(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in BLOCKS if "constrained_vae.image_models" in block)
    names = {}
    exec(block.replace("steps=2000", "steps=3"), names)
    assert "LinearPlacement(" in capsys.readouterr().out
    assert (tmp_path / "run.pt").exists()
    assert names["run"].evaluation.rates.shape == (4,)
    assert [names[name].shape for name in ("images", "reconstructions", "samples")] == 3 * [(8, 64)]


def test_the_multiplier_of_several_processes_is_that_of_one():
    """Here the group has one process."""
    (block,) = (block for block in BLOCKS if "all_reduce" in block)
    gradients, values = [], []
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        for code in (block, "loss = kl + multiplier.penalty(error)"):
            weight = torch.tensor(0.7, requires_grad=True)
            names = {"torch": torch, "kl": 2 * weight, "error": weight**2, "multiplier": cv.geco.Multiplier(0.1)}
            exec(code, names)
            names["loss"].backward()
            gradients.append(float(weight.grad))
            names["multiplier"].step()
            values.append(names["multiplier"].state_dict())
    finally:
        torch.distributed.destroy_process_group()
    assert gradients[0] == gradients[1] == pytest.approx(2 + 10 * 1.4)
    assert repr(values[0]) == repr(values[1])  # as text, where NaN is NaN
    assert values[0]["steps"] == 1
