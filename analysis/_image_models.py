"""One run of a figure of image models: the task, training, and what the run leaves in its folder."""

from __future__ import annotations

import math
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import constrained_vae as cv
from analysis import _command, _training
from analysis._image_training import BATCH, KIND, Job, parts
from constrained_vae import image_models
from constrained_vae._utils.defaults import IMAGE_MODELS
from constrained_vae._utils.files import FORMAT
from constrained_vae._utils.writing import write_npz
from constrained_vae.cli import image_training
from constrained_vae.image_models import Batch, ImageRun, MnistRotate, Task
from constrained_vae.image_models.checkpoints import read as read_checkpoint

import torch  # isort: skip  # the package above tells what is missing without it

_WINDOWS = 80  # of a trajectory
_SHOWN = 8  # images, their reconstructions and samples that a run keeps
_CHECKPOINT_EVERY = 100


class Turned(MnistRotate):
    """The images of MNIST-rotate without their context, for the models beside the conditional ones."""

    def __init__(self, data: cv.datasets.DataSet) -> None:
        super().__init__(data)
        self.context_size = None

    def batch(self, rows: torch.Tensor, generator: torch.Generator) -> Batch:
        """The images of these rows at an angle."""
        return Batch(super().batch(rows, generator).x)


TASKS: dict[str, type[Task]] = {**image_training.TASKS, "turned": Turned}


def train(job: Job, data: cv.datasets.DataSet, folder: Path, stops: Callable[[], bool] = lambda: False) -> None:
    """Train a model on one thread, or continue its training in this folder, and write the result there.

    Before the result is there the run ends by Ctrl-C, with KeyboardInterrupt, or if `stops` gives true. The state of
    training is then in the folder.
    """
    task, held_out = (TASKS[job.task](part) for part in parts(data))
    config = {**IMAGE_MODELS[job.family], "image_shape": list(task.image_shape)}
    if task.context_size is not None:
        config["context_size"] = task.context_size
    constraint, checkpoint = cv.RE(job.kappa, reduction="mean"), folder / f"{job.name}.pt"
    begun = _begun(checkpoint, job)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # tables show which constraints are met
            run = image_models.train(
                task,
                constraint,
                model=image_models.make_model(config, job.seed),
                sigma=job.sigma,
                steps=job.steps,
                batch_size=min(BATCH, len(task)),
                seed=job.seed,
                checkpoint=checkpoint,
                checkpoint_every=_CHECKPOINT_EVERY,
                resume=checkpoint if begun else None,
                callback=lambda step, row: stops(),
                **_objective(job, math.prod(task.image_shape), constraint),
            )
        if run.stopped.startswith("interrupted"):
            raise KeyboardInterrupt
        if not run.stopped.startswith("stopped by the callback"):
            header = {"kind": KIND, "format": FORMAT, "settings": job.settings(data)}
            header |= {"metrics": _metrics(job, run, held_out), "versions": _versions()}
            arrays = _training.trajectory(run.history, _WINDOWS) | _pictures(run, held_out)
            write_npz(folder / f"{job.name}.npz", header, arrays)
    finally:
        torch.set_num_threads(threads)


def _begun(checkpoint: Path, job: Job) -> bool:
    """Whether a run of so many steps is there to be continued; ValueError if it is one of others."""
    if not checkpoint.exists():
        return False
    steps = read_checkpoint(checkpoint)[0].get("steps")
    if steps != job.steps:
        raise ValueError(
            f"{checkpoint} is a run with steps {steps}, not {job.steps}: give another folder as --runs, or remove it"
        )
    return True


def _objective(job: Job, dim: int, constraint: cv.Constraint) -> dict[str, Any]:
    """The options of `image_models.train` for the method."""
    if job.method == "annealed":
        return {"objective": "annealed", "beta": cv.geco.Ramp.of_gqn(job.steps)}
    if job.method == "ELBO":
        return {"objective": "elbo"}
    if job.beta is None:
        return {}
    initial = dim / (2 * job.sigma**2 * job.beta)  # per unit of the mean over the pixels
    return {"multipliers": {"RE": cv.geco.Multiplier(constraint.allowance, initial)}}


def _metrics(job: Job, run: ImageRun, held_out: Task) -> dict[str, Any]:
    """Numbers of the trained model, on the images of training and, named `test`, on the held out ones."""
    seen, test = run.evaluate(pairs=0), run.evaluate(held_out, pairs=0)
    rms = math.sqrt(seen.per_dimension)
    way = _training.trajectory(run.history, _WINDOWS)
    met = way["steps"][way["rms"] <= job.kappa]
    return {
        "stopped": run.stopped,
        "status": run.report["RE"].status,
        "first_met": int(met[0]) if len(met) else None,
        "rms": rms,
        "rms_error": rms * seen.distortion_error / (2 * seen.distortion),
        "rate": seen.rate,
        "rate_error": seen.rate_error,
        "rates": seen.rates.tolist(),
        "test_rms": math.sqrt(test.per_dimension),
        "test_rate": test.rate,
        "multiplier": run.history.final_multiplier,  # per unit of the total squared error
        "above_linear": run.excess_over_linear(evaluation=seen).gap if job.task == "plain" else None,
        "parameters": sum(weights.numel() for weights in run.model.parameters()),
        "device": run.model.centre.device.type,
    }


def _pictures(run: ImageRun, held_out: Task) -> _command.Arrays:
    """A few held out images, their reconstructions, and samples of the model, (n, H, W, C) each."""
    channels, height, width = run.task.image_shape
    originals, reconstructions = run.reconstruct(min(_SHOWN, len(held_out)), held_out)
    rows = {"originals": originals, "reconstructions": reconstructions, "samples": run.sample(_SHOWN)}
    return {name: x.reshape(-1, height, width, channels).astype(np.float32) for name, x in rows.items()}


def _versions() -> dict[str, str]:
    """The versions of the software that computes a run."""
    return {
        "constrained_vae": cv.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
