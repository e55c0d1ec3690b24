"""The runs of a figure of image models, which are kept in a folder: read, or trained in one or several processes."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

import constrained_vae as cv
from analysis import _command, _training
from analysis._image_training import Job, Result, read
from constrained_vae._utils.writing import write_text

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event


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
