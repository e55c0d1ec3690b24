"""Files of saved solutions: the fields of fixed points to and from .npz files."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, TypeVar

import numpy as np

from .._utils import memory
from .._utils.arrays import FloatArray, is_lazy
from .._utils.checks import TooLargeError, check_instance
from .._utils.files import FORMAT, check_contents, entry, naming, read_npz
from .._utils.fingerprints import without_addresses
from .._utils.writing import write_npz
from ..data.frame import Frame
from ..data.rows import scaled_frame, standard_frame
from ..latent.tiling import Tiling
from ..objectives.base import FramedObjective, Objective
from ..objectives.elbo import ELBO
from .status import Status

S = TypeVar("S")

_SAME = 1e-3  # relative difference between energies up to which they count as the same
_SINGLE = 2.0**-20  # rounding of squares in float32, in units of the squared radius
_SUM = 1e-5  # relative difference between sums over the data or the tiles, also in float32
_CHEAP = 2**28  # points times tiles times dimensions of all free energies that are computed when a file is read

_SCALARS = ("free_energy", "energy", "distortion", "residual", "error_estimate", "split_condition")
_SIGNED = ("free_energy", "energy", "split_condition")
_ARRAYS = ("x", "weights", "masses", "decoder", "marginal", "centre", "scale")
_OPTIONAL = ("positions", "trajectory")


def save(
    path: str | PathLike[str],
    kind: str,
    solutions: Sequence[Mapping[str, Any]],
    arrays: Mapping[str, Any],
    **header: Any,
) -> None:
    """Write solutions, given as the fields of each `FixedPoint`, and further entries of the header.

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
    if is_lazy(arrays["x"]):
        if arrays["x"].size > memory.LARGEST:
            raise TooLargeError(
                f"a file of a solution has its data, here {arrays['x'].shape} numbers of a Dask array: keep those "
                "where they are, and save the decoder and the masses of the tiling with numpy.savez"
            )
        arrays = {**arrays, "x": arrays["x"].compute()}
    header |= {"kind": kind, "format": FORMAT, "masses_free": first["masses_free"], "records": records}
    if first["names"] is not None:
        header["names"] = list(first["names"])
    shared = {
        "masses": np.stack([s["tiling"].masses for s in solutions]),
        "positions": first["tiling"].positions,
        "centre": first["frame"].centre,
        "scale": np.array(first["frame"].scale),
    }
    write_npz(path, header, {name: value for name, value in {**shared, **arrays}.items() if value is not None})


def load(
    path: str | PathLike[str], kind: str, make: Callable[..., S], objective: Objective | None, *, several: bool = False
) -> tuple[list[S], dict[str, Any]]:
    """The solutions of a file, made from the fields of each, and its header; all that they must satisfy is checked.

    Solutions of an ELBO need no objective. Those of any other objective need it, at any temperature. Unless there are
    several solutions, the file has one, whose arrays may include a trajectory.
    """
    header, arrays = read_npz(path, kind, _ARRAYS, _OPTIONAL)
    with naming(f"{path} does not hold a saved {kind}"):
        records = entry(header, "records", list)
        if not records or (len(records) > 1 and not several):
            raise ValueError(f"it must have one record{' or more' if several else ''}, got {len(records)}")
        if not several:
            arrays["decoder"], arrays["marginal"] = arrays["decoder"][None], arrays["marginal"][None]
        _check_arrays(arrays, len(records))
        common = {
            "x": arrays["x"],
            "weights": arrays["weights"],
            "masses_free": entry(header, "masses_free", bool),
            "frame": Frame(arrays["centre"], float(arrays["scale"])),
            "trajectory": None if several else arrays.get("trajectory"),
            "names": _names(header, arrays["x"].shape[1]),
        }
        fields = [
            {
                **common,
                **_numbers(record),
                "objective": _objective(entry(record, "objective", dict), objective),
                "tiling": Tiling(masses, arrays.get("positions")),
                "decoder": decoder,
                "marginal": marginal,
            }
            for record, masses, decoder, marginal in zip(
                records, arrays["masses"], arrays["decoder"], arrays["marginal"], strict=True
            )
        ]
        _check_frame(common["x"], common["weights"], common["frame"], fields[0]["objective"])
        for field in fields:
            _check_objective(**field)
        solutions = [make(**field) for field in fields]
        _check_free_energies(solutions, objective is not None)
    return solutions, header


def _check_arrays(arrays: dict[str, np.ndarray], n: int) -> None:
    """Shapes, finiteness, ranges and sums of the arrays of n solutions."""
    check_contents(arrays["x"], "x", (None, None))
    check_contents(arrays["decoder"], "decoder", (n, None, arrays["x"].shape[1]))
    (N, D), K = arrays["x"].shape, arrays["decoder"].shape[1]
    if not N * D * K:
        raise ValueError(f"it must have points and tiles, got {N} points of {D} dimensions and {K} tiles")
    for name, shape in (("weights", (N,)), ("masses", (n, K)), ("marginal", (n, K))):
        check_contents(arrays[name], name, shape, 0.0)
        sums = arrays[name].sum(axis=-1, dtype=np.float64)
        if not (np.abs(sums - 1) <= _SUM).all():
            raise ValueError(f"{name} must sum to 1, got {np.ravel(sums)[np.abs(sums - 1).argmax()]:.9g}")
    if "positions" in arrays:
        check_contents(arrays["positions"], "positions", (K, None))
    if "trajectory" in arrays:
        check_contents(arrays["trajectory"], "trajectory", (None, K, D))
    check_contents(arrays["centre"], "centre", (D,))
    check_contents(arrays["scale"], "scale", (), np.finfo(np.float64).tiny)


def _names(header: dict[str, Any], dim: int) -> tuple[str, ...] | None:
    """The names of the columns; None if the header has none."""
    if "names" not in header:
        return None
    names = entry(header, "names", list)
    if len(names) != dim or not all(isinstance(name, str) for name in names) or len(set(names)) < dim:
        raise ValueError(f"names must be {dim} different texts, got {reprlib.repr(names)}")
    return tuple(names)


def _numbers(record: Any) -> dict[str, Any]:
    """The numbers and the status of a solution from its record in the header."""
    found: dict[str, Any] = {name: entry(record, name, float) for name in _SCALARS}
    found["n_maps"], status = entry(record, "n_maps", int), entry(record, "status", str)
    for name, value in found.items():
        bounded = name not in ("error_estimate", "split_condition")  # which may be unknown
        if (bounded and not math.isfinite(value)) or (name not in _SIGNED and not value >= 0):
            raise ValueError(f"{name} must be finite{'' if name in _SIGNED else ' and at least 0'}, got {value}")
    if status not in Status.__members__:
        raise ValueError(f"status must be one of {', '.join(Status.__members__)}, got {reprlib.repr(status)}")
    expected = entry(record, "expected", list)
    if not all(isinstance(value, float) and math.isfinite(value) for value in expected):
        raise ValueError(f"expected must hold finite numbers, got {reprlib.repr(expected)}")
    return {**found, "status": Status[status], "expected": tuple(expected)}


def _check_frame(x: FloatArray, weights: FloatArray, frame: Frame, objective: Objective) -> None:
    """Raise ValueError unless a frame is the one in which a problem with these data is solved."""
    if objective.equivariant:
        true = standard_frame(x, weights, warn=False)
    else:
        homogeneous = getattr(objective, "homogeneous", False)
        true = scaled_frame(x, weights) if homogeneous else Frame.identity(x.shape[1])
    shift = np.abs(frame.centre - true.centre).max()
    if not (abs(frame.scale / true.scale - 1) <= _SUM and shift <= _SUM * (true.scale + np.abs(true.centre).max())):
        raise ValueError("centre and scale are not those of the data")


def _check_objective(**fields: Any) -> None:
    """Raise ValueError if the data, the decoder or the numbers of a solution do not fit its objective."""
    x, objective, frame = fields["x"], fields["objective"], fields["frame"]
    objective.check(x)
    if objective.labelled not in (None, len(x)):
        raise ValueError(f"the objective has {objective.labelled} labels, the file {len(x)} points")
    if len(fields["expected"]) != len(getattr(objective, "named_multipliers", ())):
        raise ValueError(f"expected must have a value for every constraint, got {fields['expected']}")
    if not (np.abs(frame.inward(fields["decoder"])) < np.sqrt(np.finfo(np.float64).max)).all():
        raise ValueError("decoder must be near the data, so that squared distances are finite")
    framed, energy, F = objective.in_frame(frame), fields["energy"], fields["free_energy"]
    slack = _slack(F, framed, frame)
    if not F - energy >= -slack:
        raise ValueError(f"the rate F - E[H] must be at least 0, got {F - energy}")
    if framed.quadratic is not None:
        other = framed.quadratic * (fields["distortion"] / frame.scale / frame.scale)
        if not abs(energy - other) <= slack + _SAME * other:
            raise ValueError(f"energy must be lambda times the distortion, {other:.9g}, got {energy:.9g}")
    elif isinstance(objective, ELBO):
        most = {"bernoulli": 1.0, "poisson": np.inf}.get(objective.likelihood, 1 + _SUM)  # a mean may round above 1
        if not 0 <= fields["decoder"].min() <= fields["decoder"].max() <= most:
            wanted = "at least 0" if objective.likelihood == "poisson" else "within [0, 1]"
            raise ValueError(f"decoder must be {wanted} for the {objective.likelihood.capitalize()} likelihood")


def _slack(value: float, objective: FramedObjective, frame: Frame) -> float:
    """Difference, in nats, up to which two energies are the same in float32 and beside a large offset of the data."""
    offset = float(np.finfo(np.float64).eps * np.abs(frame.centre).max() / frame.scale)
    return _SAME * (1 + abs(value)) + (_SINGLE + offset) * objective.stiffness


def _check_free_energies(solutions: Sequence[Any], given: bool) -> None:
    """Compare F with what it is with the arrays of the file, for as many solutions as is cheap.

    These are the last ones; at least one if the objective is given, since its settings do not tell all of it.
    """
    work = solutions[0].decoder.size * len(solutions[0].x)
    for solution in solutions[::-1][: max(_CHEAP // work, given)]:
        with np.errstate(all="ignore"):  # of a decoder that is out of the range of the objective: F is not finite
            saved, recomputed = solution.free_energy, solution.recomputed_free_energy()
        if not abs(recomputed - saved) <= _slack(recomputed, solution.problem.framed, solution.frame):
            raise ValueError(
                f"the free energy was {saved:.9g}, with its arrays and this objective it is {recomputed:.9g}: either "
                "the objective is another one than it was solved under, or the file was changed"
            )


def _objective(settings: dict[str, Any], given: Objective | None) -> Objective:
    """The ELBO of a record, or the given objective if it has the settings of the record."""
    if given is not None:
        check_instance(given, "objective", Objective, "ELBO()")
    if settings.get("objective") == "ELBO" and given is None:
        return ELBO(entry(settings, "beta", float), entry(settings, "sigma", float), entry(settings, "likelihood", str))
    if given is None:
        raise ValueError(f"it was solved under {settings}, of which only a part is in the file: give objective=")
    given = given.at(entry(settings, "beta", float)) if "beta" in settings else given
    if _as_text(given.settings()) != _as_text(settings):
        raise ValueError(f"it was solved under {settings}, got the objective {given.settings()}")
    return given


def _as_text(settings: dict[str, Any]) -> str:
    """Settings as text that is the same from run to run."""
    return without_addresses(json.dumps(settings, sort_keys=True))
