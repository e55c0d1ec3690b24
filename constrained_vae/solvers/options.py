"""Options of the solver loop, and the `Iterate` that is passed to callbacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .._utils.arrays import FloatArray
from .._utils.checks import check_callable, check_choice, check_count, check_flag, check_tolerance
from .acceleration import ACCELERATORS


@dataclass(frozen=True, eq=False)
class Iterate:
    """State of the iteration after an accepted point, as passed to a callback, in the units of the data.

    Attributes
    ----------
    n_maps : int
        Number of evaluations of the map so far.
    free_energy : float
        Free energy in nats. It never increases from one iterate to the next, apart from rounding.
    residual : float
        Root-mean-square step of the plain map, in units of x.
    decoder : (K, D) array
        Reconstructions.
    error_estimate : float
        Estimated distance to the fixed point, in units of x; infinite as long as the contraction factor is unknown. It
        is computed when it is asked for, which takes longer than a map of a small problem.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> seen = []
    >>> _ = cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=2, callback=seen.append)
    >>> [bool(after.free_energy <= before.free_energy) for before, after in zip(seen, seen[1:])][:2]
    [True, True]
    """

    n_maps: int
    free_energy: float
    residual: float
    decoder: FloatArray
    _error: Callable[[], float] = field(repr=False)

    @cached_property
    def error_estimate(self) -> float:
        """Estimated distance to the fixed point, in units of x."""
        return self._error()


@dataclass(frozen=True)
class Options:
    """Options of the iteration; `solve` documents them."""

    free: bool = False
    accelerate: str = "lbfgs"
    tol: float = 1e-10
    max_maps: int = 100_000
    callback: Callable[[Iterate], Any] | None = None
    record: bool = False
    progress: bool = False
    split: bool = True  # whether a site that has passed its split condition is split
    generations: bool = False  # whether the sites split in generations from the start on, see `generations`
    rough: bool = False  # whether a residual within the tolerance is enough: for a state on the way to another one

    def __post_init__(self) -> None:
        check_choice(self.accelerate, "accelerate", tuple(ACCELERATORS))
        checked = {
            "tol": check_tolerance(self.tol),
            "max_maps": check_count(self.max_maps, "max_maps"),
            "record": check_flag(self.record, "record"),
            "progress": check_flag(self.progress, "progress"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        check_callable(self.callback, "callback")

    def varied(self, **values: Any) -> Options:
        """The options with some other values, which are known to be good, so that nothing is checked again."""
        found = object.__new__(Options)
        found.__dict__.update(self.__dict__, **values)
        return found
