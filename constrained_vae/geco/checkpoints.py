"""Files with the state of a training run and its settings."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from .._utils.arrays import FloatArray
from .._utils.files import FORMAT, entry, naming, one_line, read_npz, without_addresses, write_npz
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
    learned = {t.name: repr(t.multiplier) for t in training.terms if isinstance(t.multiplier, Multiplier)}
    return {
        "shape": list(x.shape),
        "data": [float(x.sum(dtype=np.float64)), float(np.square(x, dtype=np.float64).sum())],
        "objective": objective,
        "beta": repr(beta),
        "sigma": training.sigma,
        "constraints": [without_addresses(repr(constraint)) for constraint in constraints],
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


def write(path: str | PathLike[str], settings: dict[str, Any], training: Training) -> None:
    """Write the present state of training to a file."""
    save(path, settings, training.state())


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
        listed = ", ".join(f"{key} {wanted[key]} (was {one_line(found.get(key))})" for key in different)
        of = "" if isinstance(source, tuple) else f", in {source}"
        raise ValueError(f"resume wants the data and settings of before, got {listed}{of}")
    with naming(f"{name} does not hold a saved {_KIND}"):
        training.restore(arrays, numbers)


def _read(path: str | PathLike[str]) -> tuple[dict[str, Any], State]:
    header, arrays = read_npz(path, _KIND, _ARRAYS)
    with naming(f"{path} does not hold a saved {_KIND}"):
        return entry(header, "settings", dict), (arrays, entry(header, "state", dict))
