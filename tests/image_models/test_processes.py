"""Several processes train one model: each computes its part of every batch, and all get what one process gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import constrained_vae as cv

torch = pytest.importorskip("torch")
from constrained_vae.image_models import ColourMnist, ConvDRAW, train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
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
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", SCRIPT, str(rank), str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
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
