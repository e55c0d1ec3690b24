"""Files with the state of a training of an image model and its settings, for torch.load(weights_only=True)."""

from __future__ import annotations

import json
from os import PathLike
from typing import Any

import torch
from numpy.typing import NDArray

from .._utils.checks import check_path
from .._utils.files import FORMAT, entry, naming
from .._utils.fingerprints import fingerprint
from .._utils.writing import whole_file
from ..geco.states import KIND, check_settings, settings_of
from ..geco.weighing import learned_of
from ..objectives.constraints import Constraint
from .training import Training

_KIND = f"{KIND} of an image model"
State = dict[str, Any]  # tensors, lists of them, and numbers


def settings(
    training: Training, images: NDArray[Any], objective: str, beta: Any, constraints: tuple[Constraint, ...]
) -> dict[str, Any]:
    """The settings that must be equal for training to continue, but for the steps, as numbers and text for JSON."""
    return {
        "task": type(training.task).__name__,
        "shape": list(images.shape),
        "data": fingerprint(images),
        **settings_of(objective, beta, training.sigma, constraints, learned_of(training.terms)),
        "model": training.model.config,
        "dtype": str(training.model.centre.dtype),
        "steps": training.total,
        "batch_size": training.batch_size,
        "learning_rate": training.learning_rate,
        "clip": training.clip,
        "seed": training.seed,
        "every": training.every,
    }


def save(path: str | PathLike[str], settings: dict[str, Any], state: State) -> None:
    """Write settings and a state to a file."""
    with whole_file(path) as file:
        torch.save({"kind": _KIND, "format": FORMAT, "settings": json.dumps(settings), "state": state}, file)


def restore(
    training: Training, source: tuple[dict[str, Any], State] | str | PathLike[str], wanted: dict[str, Any]
) -> None:
    """Continue from (settings, state) or from a file; ValueError if the settings differ, or the state is damaged."""
    if isinstance(source, tuple):
        (found, state), name = source, None
    else:
        (found, state), name = read(source), source
    check_settings(found, {key: value for key, value in wanted.items() if key != "steps"}, name)
    with naming(f"{name or 'resume'} does not hold a saved {_KIND}"):
        training.restore(state)


def read(path: str | PathLike[str]) -> tuple[dict[str, Any], State]:
    """The settings and the state of a file; nothing of it is executed.

    Raises
    ------
    ValueError
        If the file holds something else, is damaged, or is from a newer version.
    OSError
        If the file cannot be opened.
    """
    path = check_path(path)
    with open(path, "rb") as stream, naming(f"{path} does not hold a saved {_KIND}"):
        try:
            held = torch.load(stream, map_location="cpu", weights_only=True)
        except Exception:  # what torch raises for damaged bytes differs between its versions
            raise ValueError("it is no file of torch.save with tensors and numbers, or only a part of one") from None
        if entry(held, "kind", str) != _KIND:
            raise ValueError(f"it is the file of a {held['kind']}")
        if entry(held, "format", int) != FORMAT:
            raise ValueError(f"it has format {held['format']}, this version reads format {FORMAT}")
        found = {"settings": json.loads(entry(held, "settings", str))}
        return entry(found, "settings", dict), entry(held, "state", dict)
