"""Several processes train one model: each computes its part of every batch, and all get what one process gets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import constrained_vae as cv

torch = pytest.importorskip("torch")
from constrained_vae.image_models import ColourMnist, ConvDRAW, train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def together(script, folder):
    """Run a script in two processes, with its number and the folder as arguments."""
    both = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", script, str(rank), str(folder)],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


SCRIPT = """
import sys
import numpy as np, torch
import constrained_vae as cv
from constrained_vae.image_models import ColourMnist, ConvDRAW, train

torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
digits = cv.datasets.digits(64)
options = {"batch_size": 16, "device": "cpu", "clip": 0.5}
constraint = cv.RE(0.2, reduction="mean")
model = ConvDRAW((3, 8, 8), 4, 2, steps=2, seed=rank)  # that of the first process counts
found = train(ColourMnist(digits), constraint, model=model, steps=20, checkpoint=f"{folder}/run.pt", **options)
np.save(f"{folder}/history{rank}.npy", found.history.table)
torch.save(found.model.state_dict(), f"{folder}/model{rank}.pt")
torch.distributed.barrier()
again = train(ColourMnist(digits), constraint, model=model, steps=20, resume=f"{folder}/run.pt", **options)
assert (np.nan_to_num(again.history.table) == np.nan_to_num(found.history.table)).all()

classifier = cv.ClassProbabilities(np.random.default_rng(0).standard_normal((10, 192)), np.zeros(10))
labelled = [constraint, cv.CLA(0.2, classifier, digits.labels)]
found = train(ColourMnist(digits), labelled, model=model, steps=3, **options)
np.save(f"{folder}/labelled{rank}.npy", found.history.table)

try:
    train(ColourMnist(digits), constraint, model=model, **{**options, "batch_size": 15})
except ValueError as error:
    assert str(error) == "batch_size must be a multiple of 2, the processes, got 15", error
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the time limit
    ended = train(ColourMnist(digits), constraint, model=model, steps=10**6, time_limit=[0.5, 60.0][rank], **options)
assert ended.stopped.startswith("time limit"), ended.stopped
np.save(f"{folder}/ended{rank}.npy", len(ended.history))
"""


def test_two_processes_give_what_one_gives(tmp_path):
    together(SCRIPT, tmp_path)
    first, second = ({name: np.load(tmp_path / f"{name}{rank}.npy") for name in NAMES} for rank in range(2))
    for name in NAMES:
        np.testing.assert_array_equal(first[name], second[name])  # they agree to the bit
    models = [torch.load(tmp_path / f"model{rank}.pt", weights_only=True) for rank in range(2)]
    for name, values in models[0].items():
        assert torch.equal(values, models[1][name])
    for name, found in alone().items():
        # Sums in another order: roundings of 1e-7, which Adam magnifies where a gradient is near 0.
        np.testing.assert_allclose(first[name], found, rtol=2e-4, atol=1e-6)


NAMES = ("history", "labelled", "ended")


def alone():
    """The histories of the script with one process."""
    digits = cv.datasets.digits(64)
    options = {"batch_size": 16, "device": "cpu", "clip": 0.5}
    constraint = cv.RE(0.2, reduction="mean")
    classifier = cv.ClassProbabilities(np.random.default_rng(0).standard_normal((10, 192)), np.zeros(10))
    labelled = [constraint, cv.CLA(0.2, classifier, digits.labels)]
    model = ConvDRAW((3, 8, 8), 4, 2, steps=2)
    return {
        "history": train(ColourMnist(digits), constraint, model=model, steps=20, **options).history.table,
        "labelled": train(ColourMnist(digits), labelled, model=model, steps=3, **options).history.table,
    }


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
import torch
import constrained_vae as cv
from constrained_vae.image_models import MLPVAE, train

torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
options = {"model": MLPVAE((1, 8, 8), 4, hidden=(8,)), "batch_size": 16, "device": "cpu", "steps": 20}

def interrupt(step, row):
    if step == 7 and rank == 1:
        os.kill(os.getpid(), signal.SIGINT)

data, constraint = cv.datasets.digits(64), cv.RE(0.2, reduction="mean")
half = train(data, constraint, callback=interrupt, checkpoint=f"{folder}/half.pt", **options)
assert half.stopped == "interrupted at step 8", half.stopped  # at the end of the step in which all heard of it
torch.distributed.barrier()
rest = train(data, constraint, resume=f"{folder}/half.pt", **options)
whole = train(data, constraint, **options)
assert rest.stopped == whole.stopped == "finished"
assert torch.equal(rest.state["history"].nan_to_num(), whole.state["history"].nan_to_num())

infinite = train(data, [constraint, cv.FRE(1.6, cv.Features(lambda x: x, lambda x, d: d))], **options | {
    "model": MLPVAE((1, 8, 8), 4, hidden=(8,)), "learning_rate": 1e30})
Path(f"{folder}/infinite{rank}").write_text(infinite.stopped)
"""


def test_ctrl_c_in_one_process_ends_both_at_one_step(tmp_path):
    together("import warnings; warnings.simplefilter('ignore')\n" + INTERRUPTED, tmp_path)
    first, second = ((tmp_path / f"infinite{rank}").read_text() for rank in range(2))
    assert first == second
    assert "the loss is not finite" in first


TORCHRUN = """
import os, sys
from pathlib import Path
import torch
import constrained_vae as cv
from constrained_vae.image_models import MLPVAE, train

torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
rank, folder = torch.distributed.get_rank(), Path(sys.argv[1])

def begun(step, row):
    if step == 5:
        (folder / f"begun{rank}").touch()

options = {"model": MLPVAE((1, 8, 8), 4, hidden=(8,)), "batch_size": 16, "device": "cpu", "steps": 10**6}
run = train(
    cv.datasets.digits(64), cv.RE(0.2, reduction="mean"), checkpoint=folder / "run.pt", callback=begun, **options
)
(folder / f"stopped{rank}").write_text(run.stopped)
"""


def test_ctrl_c_of_torchrun_loses_nothing(tmp_path):
    (tmp_path / "script.py").write_text(TORCHRUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.Popen(
        [*command, tmp_path / "script.py", tmp_path], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    wanted = time.monotonic() + 200
    while not all((tmp_path / f"begun{rank}").exists() for rank in range(2)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < wanted
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100)
    first, second = ((tmp_path / f"stopped{rank}").read_text() for rank in range(2))
    assert first == second
    steps = torch.load(tmp_path / "run.pt", weights_only=True)["state"]["steps"]
    assert first == f"interrupted at step {steps}"
