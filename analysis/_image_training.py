"""Shared parts of the figures of image models: options, images and tasks, and runs that are kept in a folder."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

import constrained_vae as cv
from analysis import _command, _training
from constrained_vae._utils.files import read_npz
from constrained_vae._utils.fingerprints import fingerprint
from constrained_vae._utils.writing import write_text

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

FAMILIES: dict[str, dict[str, Any]] = {
    "vae": {"model": "ConvVAE"},
    "vae-nvp": {"model": "ConvVAE", "prior": "flow"},
    "convdraw": {"model": "ConvDRAW"},
}
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
    group.add_argument("--model", help=f"{', '.join(FAMILIES)}, or several of them separated by commas")
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
    own = {"size": _SIZE, "runs": Path(f"build/{name}-runs"), "budget": math.inf, "jobs": 1, "out": out}
    options.set_defaults(**{**own, **defaults})
    return options.parse_args(argv)


def families(args: argparse.Namespace) -> list[str]:
    """The models of the option --model, which must fit the data."""
    found = list(dict.fromkeys(args.model.split(",")))
    for family in found:
        if family not in FAMILIES:
            raise ValueError(f"--model wants {', '.join(FAMILIES)} separated by commas, got {family!r}")
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
            "network": FAMILIES[self.family],
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


# --- all runs of a figure ---------------------------------------------------------------------------------------------


@dataclass
class Runs:
    """The runs of a figure in a folder: those that are there are read, others are trained until the time is up."""

    folder: Path
    jobs: int  # number of processes
    end: float  # no run starts after this time of `time.monotonic`
    progress: bool
    records: dict[str, Any] = field(default_factory=dict)  # of all results, by the names of the runs
    missing: list[str] = field(default_factory=list)  # names of runs without a result

    @classmethod
    def of(cls, args: argparse.Namespace) -> Runs:
        """The runs of the options of a command."""
        for option in ("steps", "jobs"):
            if getattr(args, option) < 1:
                raise ValueError(f"--{option} must be at least 1, got {getattr(args, option)}")
        if not args.budget >= 0:
            raise ValueError(f"--budget must be a number of minutes, at least 0, got {args.budget}")
        args.runs.mkdir(parents=True, exist_ok=True)
        return cls(args.runs, args.jobs, time.monotonic() + 60 * args.budget, not args.quiet)

    def results(self, data: cv.datasets.DataSet, wanted: Iterable[Job]) -> dict[Job, Result]:
        """The results of these runs, as far as they are there or are computed in time. Ctrl-C ends the time.

        It raises KeyboardInterrupt if there are no results at all.
        """
        wanted = list(wanted)
        todo = [job for job in wanted if read(job, data, self.folder) is None]
        with tqdm(total=len(wanted), initial=len(wanted) - len(todo), disable=not self.progress, unit="run") as bar:
            try:
                (self._in_order if self.jobs == 1 else self._side_by_side)(data, todo, bar.update)
            except KeyboardInterrupt:
                self.end = -math.inf
        found = {job: result for job in wanted if (result := read(job, data, self.folder)) is not None}
        self.records |= {job.name: result.record for job, result in found.items()}
        self.missing += [job.name for job in wanted if job not in found]
        if not self.records:
            raise KeyboardInterrupt
        return found

    def settings(self, data: cv.datasets.DataSet, seeds: Iterable[int], **others: Any) -> dict[str, Any]:
        """The settings of the figure, with the records of all its runs."""
        return _training.settings(
            data.name, bool(self.missing), seeds, missing=self.missing, **others, runs=self.records
        )

    def _in_order(self, data: cv.datasets.DataSet, todo: Sequence[Job], done: Callable[[], Any]) -> None:
        from analysis._image_models import train

        for job in todo:
            if time.monotonic() >= self.end:
                return
            train(job, data, self.folder)
            done()

    def _side_by_side(self, data: cv.datasets.DataSet, todo: Sequence[Job], done: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        stop, waiting = context.Event(), list(todo)
        running: set[Future[None]] = set()
        with ProcessPoolExecutor(min(self.jobs, len(todo)) or 1, context, _begin, (stop,)) as pool:
            try:
                while running or waiting:
                    while waiting and len(running) < self.jobs and time.monotonic() < self.end:
                        running.add(pool.submit(_train, waiting.pop(0), data, self.folder))
                    if not running:
                        return
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        done()
            except BaseException:
                stop.set()  # each process writes the state of its run, and ends
                raise


def write_settings(arrays: _command.Arrays, settings: dict[str, Any], path: str) -> None:
    """Write the settings of a figure, with the records of its runs, as JSON."""
    write_text(path, json.dumps(settings, indent=1) + "\n")


_stop: Event  # in a process of `Runs`


def _begin(stop: Event) -> None:
    """The process leaves Ctrl-C and SIGTERM to its parent, which sets the event."""
    global _stop
    _stop = stop
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _train(job: Job, data: cv.datasets.DataSet, folder: Path) -> None:
    from analysis._image_models import train

    train(job, data, folder, _stop.is_set)
