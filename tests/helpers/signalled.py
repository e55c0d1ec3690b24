"""Processes that are sent signals at random moments while they save or run a command, and what they leave behind.

    python -m tests.helpers.signalled savers 7 10 5 5      # seed; numbers of SIGINT, SIGTERM and SIGKILL

Every trial forks a process, so that it costs no imports, and sends it one signal. It prints a JSON list of trials.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import constrained_vae as cv
from constrained_vae import geco
from constrained_vae._utils.writing import write_picture, write_text
from constrained_vae.cli import main as cli

X = cv.datasets.four_clusters(n_per_cluster=5, seed=0).x
TRAINING: dict[str, Any] = {"constraints": cv.RE(1.0), "latent_dim": 1, "hidden": (4,), "batch_size": 8}
OPTIONS: dict[str, Any] = {"tiling": cv.Tiling.uniform(4), "backend": "reference"}
SMALL = ["two_points", "--backend", "reference", "--quiet"]


@dataclass
class Trial:
    """One process and its signal."""

    case: str
    number: int
    code: int = 0  # exit code, negative if a signal ended the process
    after: float = 0.0  # seconds between the beginning of the work and the signal
    new: bool = False  # whether the file is another one than before
    drafts: int = 0  # how many were left behind
    text: str = ""  # what the process printed
    broken: list[str] = field(default_factory=list)  # files that are not whole


@dataclass(frozen=True)
class Case:
    """What a process does with a path, and how its files are read; `seconds` is about the time that this takes."""

    name: str
    work: Callable[[Path], int]
    read: Callable[[Path], object]
    seconds: float = 0.04


# --- what is done -----------------------------------------------------------------------------------------------------


def savers() -> Iterator[Case]:
    """Objects of every kind that can be saved; a process saves two of them by turns, until it is ended."""
    solutions = [cv.solve(X, beta=beta, **OPTIONS) for beta in (1.0, 0.5)]
    branches = [cv.sweep(X, betas=betas, **OPTIONS) for betas in ([9.0, 1.0], [8.0, 2.0, 0.5])]
    curves = [cv.rate_distortion(X, betas, backend="reference") for betas in ([9.0, 1.0], [8.0, 2.0])]
    runs = [train(steps=20, learning_rate=rate) for rate in (1e-3, 2e-3)]
    figure(1).savefig(io.BytesIO())  # imports what a picture needs
    yield saver("FixedPoint", [s.save for s in solutions], cv.FixedPoint.load)
    yield saver("Branch", [b.save for b in branches], cv.Branch.load)
    yield saver("RateDistortionCurve", [c.save for c in curves], cv.RateDistortionCurve.load)
    yield saver("Run", [r.save for r in runs], read_run)
    yield saver(
        "text", [lambda path, n=n: write_text(path, json.dumps(list(range(n)))) for n in (9, 99_999)], read_json
    )
    yield saver("picture", [lambda path, n=n: write_picture(path, figure(n)) for n in (1, 2)], read_picture)
    yield Case("checkpoint", train_for_ever, lambda path: read_run(path, learning_rate=1e-3))


def saver(name: str, saves: list[Callable[[Path], None]], read: Callable[[Path], object]) -> Case:
    def work(path: Path) -> int:
        for save in itertools.cycle(saves):
            save(path)
        raise AssertionError

    return Case(name, work, read)


def train(**options: Any) -> geco.Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cv.NotConvergedWarning)
        return geco.train(X, **{**TRAINING, **options})


def train_for_ever(path: Path) -> int:
    run = train(steps=10**9, checkpoint=path, checkpoint_every=1, learning_rate=1e-3)
    return 130 if run.stopped.startswith("interrupted") else 0


def figure(n: int) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(n, n))


def commands() -> Iterator[Case]:
    """The commands, with files of both kinds and pictures, and a figure."""
    tiles = ["--n-tiles", "4"]
    options = {
        "solve": [*SMALL, *tiles, "--beta", "0.5"],
        "sweep": [*SMALL, *tiles, "--betas", "0.1:1.5:60"],
        "transitions": ["four_clusters", *SMALL[1:], *tiles, "--betas", "0.5:11"],
        "frontier": [*SMALL, "--betas", "0.1:0.9:8"],
        "train": ["two_points", "--quiet", "--kappa", "0.8", "--latent", "1", "--hidden", "4", "--steps", "1500"],
    }
    readers: dict[str, Callable[[Path], object]] = {
        "solve": cv.FixedPoint.load,
        "sweep": cv.Branch.load,
        "transitions": read_arrays,
        "frontier": cv.RateDistortionCurve.load,
        "train": read_arrays,
    }
    for name, arguments in options.items():
        yield Case(name, command(name, *arguments), readers[name], 0.2)
    yield Case("sweep to JSON", command("sweep", *options["sweep"]), read_json, 0.2)
    yield Case("solve with a picture", command("solve", *options["solve"], "--plot"), cv.FixedPoint.load, 0.5)


def command(name: str, *arguments: str) -> Callable[[Path], int]:
    def work(path: Path) -> int:
        more = [str(path.with_suffix(".png"))] if arguments[-1] == "--plot" else []
        return cli.main([name, *arguments, *more, "--out", str(path)])

    return work


def figures() -> Iterator[Case]:
    """One figure, whose shell is that of all."""
    from analysis import figure3

    options = ["--data", "four_clusters", "--n", "40", "--steps", "60", "--kappa", "0.5", "--quiet"]

    def work(path: Path) -> int:
        figure3._IN_PLANE = 4
        return figure3.main([*options, "--out", str(path.with_suffix(""))])

    yield Case("figure3", work, read_arrays, 1.5)


# --- how it is read ---------------------------------------------------------------------------------------------------


def read_run(path: Path, learning_rate: float | None = None) -> geco.Run:
    rates = (1e-3, 2e-3) if learning_rate is None else (learning_rate,)
    for rate in rates:
        with contextlib.suppress(ValueError):  # the settings are those of the other run
            return train(steps=1, learning_rate=rate, resume=path)
    raise ValueError(path)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def read_picture(path: Path) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        picture.load()
        return picture.size


# --- trials -----------------------------------------------------------------------------------------------------------


def tried(case: Case, number: int, rng: random.Random, folder: Path) -> Trial:
    """One trial over an old file, which is in the folder alone."""
    path = folder / ("file.json" if case.read is read_json else "file.png" if case.read is read_picture else "file.npz")
    trial = Trial(case.name, number, after=rng.uniform(0, 1.1 * case.seconds))
    written = path.stat().st_mtime_ns if path.exists() else 0
    log = folder.parent / "log"
    ready, begin = os.pipe()
    child = os.fork()
    if not child:
        perform(case, path, log, begin)
    os.close(begin)
    os.read(ready, 1)
    os.close(ready)
    time.sleep(trial.after)
    os.kill(child, number)
    trial.code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    trial.text = log.read_text()
    for left in folder.iterdir():
        if left.suffix == ".part":
            trial.drafts += 1
            left.unlink()
        elif left.suffix == ".npz" or left == path:
            look(case.read, left, trial)
        elif left.suffix == ".png":
            look(read_picture, left, trial)
    trial.new = path.exists() and path.stat().st_mtime_ns > written
    return trial


def look(read: Callable[[Path], object], path: Path, trial: Trial) -> None:
    try:
        read(path)
    except Exception as error:
        trial.broken.append(f"{path.name}: {error!r}")


def perform(case: Case, path: Path, log: Path, begin: int) -> None:
    """The child: do the work of a case, with what it prints in the log, and leave."""
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(number, 1)
        os.dup2(number, 2)
        os.write(begin, b".")
        code = case.work(path)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(kind: str, seed: int, *counts: int) -> None:
    rng = random.Random(seed)
    numbers = [
        n
        for n, count in zip((signal.SIGINT, signal.SIGTERM, signal.SIGKILL), counts, strict=True)
        for _ in range(count)
    ]
    trials = []
    with tempfile.TemporaryDirectory() as root:
        cases = list({"savers": savers, "commands": commands, "figures": figures}[kind]())
        rng.shuffle(numbers)
        for number, case in zip(numbers, itertools.cycle(cases), strict=False):
            folder = Path(root, case.name)
            folder.mkdir(exist_ok=True)
            trials.append(asdict(tried(case, number, rng, folder)))
    print(json.dumps(trials))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
