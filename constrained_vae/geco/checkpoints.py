"""Files with the state of a training run and its settings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from os import PathLike
from typing import Any

from .._utils.arrays import FloatArray
from .._utils.files import FORMAT, entry, naming, one_line, read_npz
from .._utils.fingerprints import fingerprint, without_addresses
from .._utils.writing import check_writable, write_npz
from ..objectives.constraints import Constraint
from .multiplier import Multiplier
from .training import Training

State = tuple[dict[str, FloatArray], dict[str, Any]]  # arrays, and what goes into the JSON header

_KIND = "state of training"  # of the files
_ARRAYS = ("parameters", "adam_mean", "adam_square", "history")


def settings(
    training: Training, x: FloatArray, objective: str, beta: Any, constraints: tuple[Constraint, ...]
) -> dict[str, Any]:
    """The settings that must be equal for training to continue, as numbers and text for JSON."""
    model = training.model
    learned = {t.name: repr(t.multiplier.settings) for t in training.terms if isinstance(t.multiplier, Multiplier)}
    return {
        "shape": list(x.shape),
        "data": fingerprint(x),
        "weights": fingerprint(training.weights),
        "objective": objective,
        "beta": repr(beta),
        "sigma": training.sigma,
        "constraints": [without_addresses(repr(constraint)) for constraint in constraints],
        "contents": {constraint.name: fingerprint(constraint) for constraint in constraints},
        "multipliers": {name: without_addresses(text) for name, text in learned.items()},
        "latent_dim": model.latent_dim,
        "hidden": list(model.hidden),
        "activation": model.activation,
        "likelihood": model.likelihood,
        "batch_size": training.batch_size,
        "learning_rate": training.learning_rate,
        "seed": training.seed,
        "dtype": str(model.parameters.dtype),
    }


@dataclass
class Checkpoint:
    """A file that a training run writes now and then; without a path it writes nothing.

    A file that cannot be written when training begins raises OSError. Later it does not end a training that is in
    memory: the first failure is warned of, and the next write tries again.
    """

    path: str | PathLike[str] | None
    settings: dict[str, Any]
    training: Training
    warned: bool = False

    def __post_init__(self) -> None:
        if self.path is not None:
            check_writable(self.path, "checkpoint")

    def write(self, *, last: bool = False, stacklevel: int) -> None:
        """Write the present state; the last failure is warned of in any case."""
        if self.path is None:
            return
        try:
            save(self.path, self.settings, self.training.state())
        except OSError as error:
            if last or not self.warned:
                then = "the result has the state all the same: save it elsewhere" if last else "training goes on"
                text = f"the checkpoint of step {self.training.steps} was not written ({error}); {then}"
                warnings.warn(text, stacklevel=stacklevel + 1)
            self.warned = True


def save(path: str | PathLike[str], settings: dict[str, Any], state: State) -> None:
    """Write settings and a state to a .npz file."""
    arrays, numbers = state
    write_npz(path, {"kind": _KIND, "format": FORMAT, "settings": settings, "state": numbers}, arrays)


def restore(
    training: Training, source: tuple[dict[str, Any], State] | str | PathLike[str], wanted: dict[str, Any]
) -> None:
    """Continue from (settings, state) or from a file; ValueError if the settings differ, or the state is damaged."""
    name = "resume" if isinstance(source, tuple) else source
    found, (arrays, numbers) = source if isinstance(source, tuple) else _read(source)
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
        of = "" if isinstance(source, tuple) else f", in {source}"
        raise ValueError(f"resume wants the data and settings of before, got {listed}{of}")
    with naming(f"{name} does not hold a saved {_KIND}"):
        training.restore(arrays, numbers)


def _read(path: str | PathLike[str]) -> tuple[dict[str, Any], State]:
    header, arrays = read_npz(path, _KIND, _ARRAYS)
    with naming(f"{path} does not hold a saved {_KIND}"):
        return entry(header, "settings", dict), (arrays, entry(header, "state", dict))
