"""Recorder: counts the maps of an iteration, enforces its budgets, and reports every accepted point."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils import deadline, progress
from .._utils.arrays import FloatArray
from .._utils.checks import asks_to_stop
from .._utils.device import to_host
from ..data.frame import Frame
from ..results.status import Status
from .options import Iterate, Options
from .point import Point
from .timing import SOLVE_MAPS


class Stopped(Exception):
    """The iteration ends before it has converged, with a status that says why."""

    def __init__(self, status: Status) -> None:
        self.status = status


@dataclass(eq=False)
class Recorder:
    """Number of maps and trajectory of one iteration; `bar` is a progress bar."""

    options: Options
    frame: Frame
    bar: Any
    n_maps: int = 0
    trajectory: list[FloatArray] = field(default_factory=list)

    def __post_init__(self) -> None:
        options = self.options
        self._began = time.monotonic()
        self._errors = np.geterr()  # settings of the caller, which hold in the callback
        self.reports = bool(options.progress or options.record or options.callback)

    def count(self, maps: int = 1) -> None:
        """Count maps, or products with their Jacobian; raises `Stopped` or `TimeUp` if a budget is used up."""
        options = self.options
        if self.n_maps > 0:
            deadline.check()
            if self.n_maps + maps > options.max_maps:
                raise Stopped(Status.BUDGET_USED)
        self.n_maps += maps
        if options.progress:
            self.bar.update(maps)

    def accepted(self, point: Point, index: npt.NDArray[np.intp], error: Callable[[], float]) -> None:
        """Report a point in units of the data; raises `Stopped` if the callback returns a true value."""
        options, scale = self.options, self.frame.scale
        if options.progress:
            self.bar.set_postfix_str(f"residual {point.residual * scale:.1e}{self._left()}", refresh=False)
        if not (options.record or options.callback):
            return
        decoder = self.frame.outward(to_host(point.psi))[index]
        if options.record:
            self.trajectory.append(decoder)
        if options.callback:
            residual = point.residual * scale
            iterate = Iterate(self.n_maps, point.free_energy, residual, decoder, lambda: error() * scale)
            with np.errstate(**self._errors):
                stop = asks_to_stop(options.callback, iterate)
            if stop:
                raise Stopped(Status.STOPPED)

    def _left(self) -> str:
        """The time that is left, as text: of as many maps as solutions take, or three times as many as have been."""
        elapsed = time.monotonic() - self._began
        if elapsed < progress.SHOWN_AFTER:
            return ""
        each, most = elapsed / self.n_maps, max(SOLVE_MAPS[1], 3 * self.n_maps)
        return progress.left(max(SOLVE_MAPS[0] - self.n_maps, 0) * each, (most - self.n_maps) * each)
