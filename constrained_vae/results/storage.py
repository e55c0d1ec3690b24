"""Files of solutions: arrays and a header of JSON in one .npz."""

from __future__ import annotations

import json
import re
import zipfile
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.frame import Frame
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..objectives.elbo import ELBO

_SAME = 1e-3  # relative difference of free energies, float32 included, that the same objective may show

if TYPE_CHECKING:
    from .fixed_point import FixedPoint

_SCALARS = ("free_energy", "energy", "distortion", "residual", "error_estimate", "top_eigenvalue")


def save(
    path: str | PathLike[str], kind: str, first: FixedPoint, solutions: list[FixedPoint], arrays: dict[str, Any]
) -> None:
    """Write solutions that share data, frame and kind of masses; `arrays` are all but the prior masses."""
    records = [
        {
            **{name: getattr(s, name) for name in _SCALARS},
            "n_maps": s.n_maps,
            "status": s.status.name,
            "expected": s.expected,
            "objective": s.objective.settings(),
        }
        for s in solutions
    ]
    header = {"kind": kind, "format": 1, "masses_free": first.masses_free, "records": records}
    if first.tiling.positions is not None:
        arrays["positions"] = first.tiling.positions
    arrays = {name: value for name, value in arrays.items() if value is not None}
    masses = np.stack([s.tiling.masses for s in solutions])
    with open(path, "wb") as file:  # np.savez given a name would append .npz to it
        np.savez_compressed(
            file,
            header=np.array(json.dumps(header)),
            masses=masses,
            centre=first.frame.centre,
            scale=np.array(first.frame.scale),
            **arrays,
        )


def load(path: str | PathLike[str], kind: str, objective: Objective | None = None) -> list[FixedPoint]:
    """The solutions of a file; those not of an ELBO want their objective, at any temperature."""
    from .fixed_point import FixedPoint
    from .status import Status

    with open(path, "rb") as stream:
        try:
            with np.load(stream) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(str(arrays.pop("header")))
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
            header = {}
    if header.get("kind") != kind:
        raise ValueError(f"{path} does not hold a saved {kind}")
    decoders, marginals = (np.atleast_3d(arrays["decoder"]), np.atleast_2d(arrays["marginal"]))
    if arrays["decoder"].ndim == 2:
        decoders = arrays["decoder"][None]
    frame = Frame(arrays["centre"], float(arrays["scale"]))
    solutions = []
    for record, masses, decoder, marginal in zip(header["records"], arrays["masses"], decoders, marginals, strict=True):
        solutions.append(
            FixedPoint(
                x=arrays["x"],
                weights=arrays["weights"],
                objective=_objective(path, dict(record["objective"]), objective),
                tiling=Tiling(masses, arrays.get("positions")),
                decoder=decoder,
                marginal=marginal,
                **{name: record[name] for name in _SCALARS},
                n_maps=int(record["n_maps"]),
                status=Status[record["status"]],
                masses_free=bool(header["masses_free"]),
                frame=frame,
                expected=tuple(record.get("expected", ())),
                trajectory=arrays.get("trajectory"),
            )
        )
    if objective is not None:
        found = solutions[-1].recomputed_free_energy()
        if not abs(found - solutions[-1].free_energy) <= _SAME * (1 + abs(found)):
            raise ValueError(
                f"{path} was solved under another objective: the free energy was {solutions[-1].free_energy:.9g}, "
                f"under this one it is {found:.9g}"
            )
    return solutions


def _objective(path: str | PathLike[str], settings: dict[str, Any], given: Objective | None) -> Objective:
    """The ELBO of a record, or the objective that was given if its settings are those."""
    if settings.get("objective") == "ELBO" and given is None:
        return ELBO(**{name: value for name, value in settings.items() if name != "objective"})
    if given is None:
        raise ValueError(
            f"{path} was solved under {settings}, of which more is needed than can be read back: give objective="
        )
    given = given.at(settings["beta"]) if "beta" in settings else given
    if _recognisable(given.settings()) != _recognisable(settings):
        raise ValueError(f"{path} was solved under {settings}, got the objective {given.settings()}")
    return given


def _recognisable(settings: dict[str, Any]) -> str:
    """Settings as text, without addresses of functions."""
    return re.sub(r" at 0x[0-9a-f]+", "", json.dumps(settings, sort_keys=True))
