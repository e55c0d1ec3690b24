"""The state of training in a file, with the settings that it belongs to; and its history."""

from __future__ import annotations

import json
import os
import re
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .._utils.arrays import FloatArray
from ..objectives.constraints import Constraint
from .multiplier import Multiplier
from .training import Training

State = tuple[dict[str, FloatArray], dict[str, Any]]


def settings(
    training: Training, x: FloatArray, objective: str, beta: Any, constraints: tuple[Constraint, ...]
) -> dict[str, Any]:
    """What must be the same for training to go on, as plain numbers and text."""
    model = training.model
    learned = {t.name: repr(t.multiplier) for t in training.terms if isinstance(t.multiplier, Multiplier)}
    return {
        "shape": list(x.shape),
        "data": [float(x.sum(dtype=np.float64)), float(np.square(x, dtype=np.float64).sum())],
        "objective": objective,
        "beta": repr(beta),
        "sigma": training.sigma,
        "constraints": [_recognisable(repr(constraint)) for constraint in constraints],
        "multipliers": {name: _recognisable(text) for name, text in learned.items()},
        "latent_dim": model.latent_dim,
        "hidden": list(model.hidden),
        "activation": model.activation,
        "likelihood": model.likelihood,
        "batch_size": training.batch_size,
        "learning_rate": training.learning_rate,
        "seed": training.seed,
        "dtype": str(model.parameters.dtype),
    }


def _recognisable(text: str) -> str:
    """Without addresses of functions."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def write(path: str | PathLike[str], settings: dict[str, Any], training: Training) -> None:
    """The state, in a file that is whole at any time."""
    save(path, settings, training.state())


def save(path: str | PathLike[str], settings: dict[str, Any], state: State) -> None:
    """Write a state to a .npz file, by way of a second one beside it."""
    arrays, numbers = state
    header = json.dumps({"kind": "geco", "format": 1, "settings": settings, "state": numbers})
    draft = Path(f"{os.fspath(path)}.part")
    with open(draft, "wb") as file:
        np.savez_compressed(file, header=np.array(header), **arrays)  # type: ignore[arg-type]
    os.replace(draft, path)


def state_of(source: tuple[dict[str, Any], State] | str | PathLike[str], wanted: dict[str, Any]) -> State:
    """The state from (settings, state) or from a file; ValueError if the settings differ from those wanted."""
    found, state = _read(source) if isinstance(source, (str, os.PathLike)) else source
    different = [name for name in wanted if found.get(name) != wanted[name]]
    if different:
        listed = ", ".join(f"{name} {wanted[name]} (was {found.get(name)})" for name in different)
        raise ValueError(f"resume wants the data and settings of before, got {listed}")
    return state


def _read(path: str | PathLike[str]) -> tuple[dict[str, Any], State]:
    with open(path, "rb") as stream:
        try:
            with np.load(stream) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(str(arrays.pop("header")))
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
            header = {}
    if header.get("kind") != "geco":
        raise ValueError(f"{path} does not hold a saved state of training")
    return header["settings"], (arrays, header["state"])
