"""Files with the state of a training run and its settings."""

from __future__ import annotations

from os import PathLike
from typing import Any

from .._utils.arrays import FloatArray
from .._utils.files import FORMAT, entry, naming, read_npz
from .._utils.fingerprints import fingerprint
from .._utils.writing import write_npz
from ..objectives.constraints import Constraint
from .states import KIND, check_settings, settings_of
from .training import Training
from .weighing import learned_of

State = tuple[dict[str, FloatArray], dict[str, Any]]  # arrays, and what goes into the JSON header

_ARRAYS = ("parameters", "adam_mean", "adam_square", "history")


def settings(
    training: Training, x: FloatArray, objective: str, beta: Any, constraints: tuple[Constraint, ...]
) -> dict[str, Any]:
    """The settings that must be equal for training to continue, as numbers and text for JSON."""
    model = training.model
    return {
        "shape": list(x.shape),
        "data": fingerprint(x),
        "weights": fingerprint(training.weights),
        **settings_of(objective, beta, training.sigma, constraints, learned_of(training.terms)),
        "latent_dim": model.latent_dim,
        "hidden": list(model.hidden),
        "activation": model.activation,
        "likelihood": model.likelihood,
        "batch_size": training.batch_size,
        "learning_rate": training.learning_rate,
        "seed": training.seed,
        "dtype": str(model.parameters.dtype),
    }


def save(path: str | PathLike[str], settings: dict[str, Any], state: State) -> None:
    """Write settings and a state to a .npz file."""
    arrays, numbers = state
    write_npz(path, {"kind": KIND, "format": FORMAT, "settings": settings, "state": numbers}, arrays)


def restore(
    training: Training, source: tuple[dict[str, Any], State] | str | PathLike[str], wanted: dict[str, Any]
) -> None:
    """Continue from (settings, state) or from a file; ValueError if the settings differ, or the state is damaged."""
    name = "resume" if isinstance(source, tuple) else source
    found, (arrays, numbers) = source if isinstance(source, tuple) else _read(source)
    check_settings(found, wanted, None if isinstance(source, tuple) else source)
    with naming(f"{name} does not hold a saved {KIND}"):
        training.restore(arrays, numbers)


def _read(path: str | PathLike[str]) -> tuple[dict[str, Any], State]:
    header, arrays = read_npz(path, KIND, _ARRAYS)
    with naming(f"{path} does not hold a saved {KIND}"):
        return entry(header, "settings", dict), (arrays, entry(header, "state", dict))
