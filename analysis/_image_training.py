"""Shared parts of the figures of image models: options, images and tasks, and one run with its result."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import constrained_vae as cv
from analysis import _command, _training
from constrained_vae._utils.defaults import IMAGE_MODELS
from constrained_vae._utils.files import read_npz
from constrained_vae._utils.fingerprints import fingerprint
from constrained_vae.cli.data_options import choice_of

TITLES = {"vae": "VAE", "vae-nvp": "VAE + NVP", "convdraw": "ConvDRAW"}
STEPS = 1500  # default number of steps

BATCH, _SIZE = 32, 16
_HELD_OUT = 10  # one image of so many is not trained on
KIND = "run of a figure"
_KEPT = ("steps", "distortion", "kl", "beta", "rms", "originals", "reconstructions", "samples")


# --- options ----------------------------------------------------------------------------------------------------------


def parsed(
    options: argparse.ArgumentParser, name: str, argv: Sequence[str] | None, **defaults: Any
) -> argparse.Namespace:
    """The arguments of a figure that has a version with image models; `defaults` are of this version."""
    group = options.add_argument_group("image models", "with --model the figure is of models in PyTorch, see above")
    group.add_argument("--model", help=f"{', '.join(IMAGE_MODELS)}, or several of them separated by commas")
    text = "height and width to which larger images are made smaller"
    images = [
        group.add_argument("--size", type=int, help=f"{text} (default {_SIZE})"),
        group.add_argument("--runs", type=Path, help=f"folder of the runs (default build/{name}-runs)"),
        group.add_argument("--budget", type=float, metavar="MINUTES", help="start no further run after this time"),
        group.add_argument("--jobs", type=int, help="number of processes, each with one thread (default 1)"),
    ]
    args = options.parse_args(argv)
    if args.model is None:
        if given := [action.option_strings[0] for action in images if getattr(args, action.dest) is not None]:
            options.error(f"{given[0]} needs --model")
        return args
    out = Path(f"analysis/figures/{name}_images")
    if given := [name for name, value in choice_of(args).items() if value not in (None, (), False, "error")]:
        options.error(f"--{given[0]} belongs to tables, and with --model the data are images")
    own = {"size": _SIZE, "runs": Path(f"build/{name}-runs"), "budget": math.inf, "jobs": 1, "out": out}
    options.set_defaults(**{**own, **defaults})
    return options.parse_args(argv)


def families(args: argparse.Namespace) -> list[str]:
    """The models of the option --model, which must fit the data."""
    found = list(dict.fromkeys(args.model.split(",")))
    for family in found:
        if family not in IMAGE_MODELS:
            raise ValueError(f"--model wants {', '.join(IMAGE_MODELS)} separated by commas, got {family!r}")
    if task_name(args.data) == "rotate" and found != ["convdraw"]:
        raise ValueError(f"--data {args.data} has a context, which needs --model convdraw, got {args.model}")
    return found


# --- images -----------------------------------------------------------------------------------------------------------


def images(name: str, size: int, n: int | None = None) -> cv.datasets.DataSet:
    """The images of the options --data, --size and --n."""
    base = name.removeprefix("colour-").removesuffix("-rotate")
    data = getattr(cv.datasets, base)() if base in ("mnist", "digits", "patches") else cv.datasets.images(base)
    data = data if n is None else _training.some(data, n)
    data = dataclasses.replace(data, name=name.replace(base, data.name))
    assert data.image_shape is not None
    return cv.datasets.resized(data, size) if min(data.image_shape[:2]) > size else data


def task_name(data: str) -> str:
    """The task of the option --data."""
    return "rotate" if data.endswith("-rotate") else "colour" if data.startswith("colour-") else "plain"


def dim(data: cv.datasets.DataSet, task: str) -> int:
    """Number of values of an image of a task."""
    return data.x.shape[1] * (3 if task == "colour" else 1)


def parts(data: cv.datasets.DataSet) -> list[cv.datasets.DataSet]:
    """The images of training, and the held out ones."""
    order = np.random.default_rng(1).permutation(len(data))
    count = max(1, len(data) // _HELD_OUT)
    return [
        cv.datasets.DataSet(data.x[rows], data.name, image_shape=data.image_shape)
        for rows in (order[count:], order[:count])
    ]


# --- one run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One training of a figure.

    `kappa` is the threshold of the root mean square error per pixel, `sigma` the standard deviation of a pixel. `beta`
    is the equivalent temperature at which lambda of GECO starts; without it lambda starts at `natural_multiplier`.
    """

    family: str
    method: str  # of `_training.COLORS`
    kappa: float
    sigma: float
    seed: int
    steps: int
    task: str = "plain"
    beta: float | None = None

    @property
    def name(self) -> str:
        """The name of the files of this run."""
        of = self.family if self.task == "plain" else f"{self.family}-{self.task}"
        return f"{of}-{self.method.lower()}-{self.sigma:.4g}-{self.seed}"

    def settings(self, data: cv.datasets.DataSet) -> dict[str, Any]:
        """Everything on which the result depends, as JSON has it."""
        return {
            **dataclasses.asdict(self),
            "network": IMAGE_MODELS[self.family],
            "batch_size": BATCH,
            "data": data.name,
            "images": [len(data), *(data.image_shape or ())],
            "contents": fingerprint(data.x),
        }


class Result(NamedTuple):
    """What a run leaves: its settings, metrics and the versions of the software, and arrays."""

    record: dict[str, Any]
    arrays: _command.Arrays

    @property
    def metrics(self) -> dict[str, Any]:
        """Numbers of the trained model."""
        return dict(self.record["metrics"])


def read(job: Job, data: cv.datasets.DataSet, folder: Path) -> Result | None:
    """The result of a run in a folder, None if it is not there; ValueError if it is one with other settings."""
    path = folder / f"{job.name}.npz"
    if not path.exists():
        return None
    record, arrays = read_npz(path, KIND, _KEPT)
    wanted, found = json.loads(json.dumps(job.settings(data))), record["settings"]
    different = [f"{name} {found.get(name)}, not {value}" for name, value in wanted.items() if found.get(name) != value]
    if different:
        raise ValueError(f"{path} is a run with {'; '.join(different)}: give another folder as --runs, or remove it")
    return Result(record, arrays)
