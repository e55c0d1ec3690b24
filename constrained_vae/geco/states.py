"""When the state of a training is written, and from which state a training may continue."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from .._utils.files import one_line
from .._utils.fingerprints import fingerprint, without_addresses
from .._utils.writing import check_writable
from ..objectives.constraints import Constraint
from .history import column_name, columns_of
from .multiplier import Multiplier

KIND = "state of training"  # of the files


@dataclass
class Checkpoint:
    """A file that a training run writes now and then; without a path it writes nothing.

    A file that cannot be written when training begins raises OSError. Later it does not end a training that is in
    memory: the first failure is warned of, and the next write tries again.
    """

    path: str | PathLike[str] | None
    save: Callable[[str | PathLike[str]], None]  # writes the present state
    warned: bool = False

    def __post_init__(self) -> None:
        if self.path is not None:
            check_writable(self.path, "checkpoint")

    def write(self, step: int, *, last: bool = False, stacklevel: int) -> None:
        """Write the state of this step; the last failure is warned of in any case."""
        if self.path is None:
            return
        try:
            self.save(self.path)
        except OSError as error:
            if last or not self.warned:
                then = "the result has the state all the same: save it elsewhere" if last else "training goes on"
                text = f"the checkpoint of step {step} was not written ({error}); {then}"
                warnings.warn(text, stacklevel=stacklevel + 1)
            self.warned = True


def settings_of(
    objective: str, beta: Any, sigma: float, constraints: tuple[Constraint, ...], learned: dict[str, Multiplier]
) -> dict[str, Any]:
    """The settings of an objective that must be equal for training to continue, as numbers and text for JSON."""
    return {
        "objective": objective,
        "beta": repr(beta),
        "sigma": sigma,
        "constraints": [without_addresses(repr(constraint)) for constraint in constraints],
        "contents": {constraint.name: fingerprint(constraint) for constraint in constraints},
        "multipliers": {name: without_addresses(repr(found.settings)) for name, found in learned.items()},
    }


def check_settings(found: dict[str, Any], wanted: dict[str, Any], source: str | PathLike[str] | None) -> None:
    """Raise ValueError unless a state, of a file or of a run (None), was found with the wanted settings."""
    different = [key for key in wanted if found.get(key) != wanted[key]]
    if different:
        told = {
            "data": "other data",
            "weights": "other weights",
            "contents": "other arrays in the constraints",
        }  # of which nobody reads a SHA-256
        listed = ", ".join(
            told.get(key) or f"{key} {wanted[key]} (was {one_line(found.get(key))})" for key in different
        )
        of = "" if source is None else f", in {source}"
        raise ValueError(f"resume wants the data and settings of before, got {listed}{of}")


def check_history(table: np.ndarray, columns: tuple[str, ...], rows: int) -> None:
    """Raise ValueError unless the table of a state has this number of rows, each as a step can give them."""
    known = [not name.startswith(column_name("average", "")) for name in columns]
    if rows < 0 or table.shape != (rows, len(columns)) or table.dtype != np.float64:
        raise ValueError(f"history must have {rows} steps of {len(columns)} numbers, got {table.shape}")
    if np.isnan(table[:, known]).any() or not np.isfinite(table[:, :2]).all():  # an average begins with NaN
        raise ValueError("history must hold numbers, got NaN or an infinite loss")
    multipliers = [columns.index(column) for column in columns_of("multiplier", columns).values()]
    if not (table[:, multipliers] > 0).all():
        raise ValueError("history must hold positive multipliers")


def check_multipliers(found: dict[str, Any], learned: dict[str, Multiplier], steps: int) -> None:
    """Raise ValueError unless the states of multipliers are those of the learned ones after so many steps."""
    if set(found) != set(learned):
        raise ValueError(f"multipliers must be of {sorted(learned)}, got {sorted(found)}")
    for name, multiplier in learned.items():
        multiplier.copy().load_state_dict(found[name])
        if found[name]["steps"] < steps:
            raise ValueError(f"the multiplier of {name} must have {steps} steps, got {found[name]['steps']}")
