"""Files of saved solutions: the fields of fixed points to and from .npz files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from .._utils.files import read_npz
from .._utils.fingerprints import without_addresses
from .._utils.writing import write_npz
from ..data.frame import Frame
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..objectives.elbo import ELBO
from .status import Status

_SAME = 1e-3  # relative difference between free energies, also in float32, up to which the objective counts as the same

_SCALARS = ("free_energy", "energy", "distortion", "residual", "error_estimate", "split_condition")


def save(
    path: str | PathLike[str], kind: str, solutions: Sequence[Mapping[str, Any]], arrays: Mapping[str, Any]
) -> None:
    """Write solutions, given as the fields of each `FixedPoint`.

    The solutions share data, frame and the kind of masses. `arrays` holds every array other than the prior masses; an
    entry of None is left out.
    """
    records = [
        {
            **{name: s[name] for name in _SCALARS},
            "n_maps": s["n_maps"],
            "status": s["status"].name,
            "expected": s["expected"],
            "objective": s["objective"].settings(),
        }
        for s in solutions
    ]
    first = solutions[0]
    header = {"kind": kind, "format": 1, "masses_free": first["masses_free"], "records": records}
    shared = {
        "masses": np.stack([s["tiling"].masses for s in solutions]),
        "positions": first["tiling"].positions,
        "centre": first["frame"].centre,
        "scale": np.array(first["frame"].scale),
    }
    write_npz(path, header, {name: value for name, value in {**shared, **arrays}.items() if value is not None})


def load(path: str | PathLike[str], kind: str, objective: Objective | None = None) -> list[dict[str, Any]]:
    """The solutions of a file, each as the fields of a `FixedPoint`.

    Solutions of an ELBO need no objective. Those of any other objective need it, at any temperature.
    """
    header, arrays = read_npz(path, kind)
    several = arrays["decoder"].ndim == 3
    decoders, marginals = (arrays[name] if several else arrays[name][None] for name in ("decoder", "marginal"))
    frame = Frame(arrays["centre"], float(arrays["scale"]))
    return [
        {
            "x": arrays["x"],
            "weights": arrays["weights"],
            "objective": _objective(path, dict(record["objective"]), objective),
            "tiling": Tiling(masses, arrays.get("positions")),
            "decoder": decoder,
            "marginal": marginal,
            **{name: record[name] for name in _SCALARS},
            "n_maps": int(record["n_maps"]),
            "status": Status[record["status"]],
            "masses_free": bool(header["masses_free"]),
            "frame": frame,
            "expected": tuple(record.get("expected", ())),
            "trajectory": arrays.get("trajectory"),
        }
        for record, masses, decoder, marginal in zip(
            header["records"], arrays["masses"], decoders, marginals, strict=True
        )
    ]


def check_free_energy(path: str | PathLike[str], saved: float, recomputed: float) -> None:
    """Refuse an objective under which the free energy of a loaded solution is not the saved one."""
    if not abs(recomputed - saved) <= _SAME * (1 + abs(recomputed)):
        raise ValueError(
            f"{path} was solved under another objective: the free energy was {saved:.9g}, under this one it is "
            f"{recomputed:.9g}"
        )


def _objective(path: str | PathLike[str], settings: dict[str, Any], given: Objective | None) -> Objective:
    """The ELBO of a record, or the given objective if it has the settings of the record."""
    if settings.get("objective") == "ELBO" and given is None:
        return ELBO(**{name: value for name, value in settings.items() if name != "objective"})
    if given is None:
        raise ValueError(
            f"{path} was solved under {settings}, of which more is needed than can be read back: give objective="
        )
    given = given.at(settings["beta"]) if "beta" in settings else given
    if _as_text(given.settings()) != _as_text(settings):
        raise ValueError(f"{path} was solved under {settings}, got the objective {given.settings()}")
    return given


def _as_text(settings: dict[str, Any]) -> str:
    """Settings as text that is the same from run to run."""
    return without_addresses(json.dumps(settings, sort_keys=True))
