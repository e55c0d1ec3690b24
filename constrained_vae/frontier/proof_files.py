"""Proofs in files: what bounds the global optimum of given data, for a program that shares no code with this one.

The file has the hash of the data, the weights, the multiplier, the code, the bounds, and the boxes that prove them; see
`verify.py`, which checks it with numbers that know their rounding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from os import PathLike
from typing import Any

import numpy as np
from scipy.special import logsumexp

from .._utils.arrays import FloatArray
from .._utils.checks import check_number
from .._utils.writing import write_text
from ..data.frame import Frame
from ..data.rows import blocks_of
from ..results.fixed_point import FixedPoint
from .proof import MOST_DIMENSIONS, Cover, supremum

_EPS = float(np.finfo(np.float64).eps)
_ROUNDING = 256  # of F, in units of eps
_SLACK = 1e-9  # relative difference of bounds here and there: boxes have their edges here, and their centres there


def save(solution: FixedPoint, gap: float, path: str | PathLike[str], accuracy: float) -> None:
    """Write the proof that F of a solution is above the optimum by at most the gap and the accuracy, as JSON."""
    accuracy = check_number(accuracy, "accuracy", "positive, and at most 1 nat", lambda nats: 0 < nats <= 1)
    write_text(path, json.dumps(made(solution, gap, accuracy), allow_nan=False) + "\n")


def made(solution: FixedPoint, gap: float, accuracy: float) -> dict[str, Any]:
    """What a file of a proof says."""
    dim = solution.decoder.shape[1]
    lam = solution.objective.in_frame(Frame.identity(dim)).quadratic
    if lam is None:
        raise ValueError("a proof can be saved for the squared error only: use ELBO() or RE, without other constraints")
    if dim > MOST_DIMENSIONS:
        raise ValueError(
            f"a proof can be saved in at most {MOST_DIMENSIONS} dimensions, got {dim}: its boxes would be too many"
        )
    x = np.concatenate([np.asarray(block, dtype=np.float64) for _, block in blocks_of(solution.x)])
    masses, weights = solution.tiling.masses, solution.weights
    psi, masses = solution.decoder[masses > 0].astype(np.float64), masses[masses > 0].astype(np.float64)
    uniform = bool((weights == weights[0]).all())
    heavy = weights > 0
    unit, (points, code) = scaled(x[heavy], psi)
    scaled_lam = float(np.ldexp(lam, 2 * unit))
    rho = weights[heavy] / weights[heavy].sum()
    F, log_Z, roundings = _free_energy(points, rho, code, masses / masses.sum(), scaled_lam)
    rounding, covers = float(rho @ roundings), list[Cover]()
    bound, _ = supremum(points, np.log(rho) - log_Z, roundings, scaled_lam, gap, points[0], accuracy / 2, 0.0, covers)
    if bound > gap + accuracy:
        raise ValueError(
            f"accuracy={accuracy:g}: branch and bound does not end with so small a gap, or log c is larger than the "
            "certificate found: raise accuracy, or improve the solution"
        )
    low, high, bounds, shifts = (np.concatenate(column) for column in zip(*covers, strict=True))
    bounds += _SLACK * (1 + np.abs(bounds))
    boxes = np.ldexp(np.concatenate([low, high], axis=1), unit)
    return {
        "kind": "constrained_vae proof",
        "format": 2,
        "data": {"sha256": data_hash([x]), "points": len(x), "dimensions": dim},
        "weights": None if uniform else weights.tolist(),
        "objective": {"energy": "squared error", "multiplier": lam},
        "code": {"reconstructions": psi.tolist(), "masses": masses.tolist()},
        "upper": F + rounding,
        "lower": F - rounding - max(float(bounds.max()), 0.0),
        "cover": {
            "boxes": boxes.tolist(),
            "bounds": bounds.tolist(),
            "shifts": [None if np.isnan(s) else float(s) for s in shifts],
        },
    }


def scaled(*arrays: FloatArray) -> tuple[int, list[FloatArray]]:
    """Arrays of points in a unit near their extent, which is a power of two, so that no digit changes; its exponent."""
    origin = arrays[0][0]
    extent = max(float(np.abs(array - origin).max()) for array in arrays)
    unit = int(np.frexp(max(extent, 1e-290))[1])
    return unit, [np.ldexp(array, -unit) for array in arrays]


def _free_energy(
    x: FloatArray, rho: FloatArray, psi: FloatArray, masses: FloatArray, lam: float
) -> tuple[float, FloatArray, FloatArray]:
    """F of a code, log Z_i (N,), and the rounding (N,) of F in parts, from differences of coordinates."""
    log_Z, energy = np.empty(len(x)), np.empty(len(x))
    rows = max(2**20 // len(psi), 1)
    for i in range(0, len(x), rows):
        part = slice(i, i + rows)
        H = lam * sum(np.square(x[part, j, None] - psi[:, j]) for j in range(x.shape[1]))
        logits = np.log(masses) - H
        log_Z[part] = logsumexp(logits, axis=1)
        q = np.exp(logits - log_Z[part, None])
        energy[part] = (q * np.where(q > 0, H, 0.0)).sum(axis=1)
    F = float(-rho @ log_Z)
    return F, log_Z, _ROUNDING * _EPS * (1 + abs(F) + energy + np.abs(log_Z))


def data_hash(blocks: Iterable[FloatArray]) -> str:
    """SHA-256 of points (N, D), given as blocks of rows; `verify.py` computes the same."""
    arrays = [np.ascontiguousarray(np.asarray(block, dtype="<f8") + 0.0) for block in blocks]
    digest = hashlib.sha256(f"{sum(map(len, arrays))} {arrays[0].shape[1]}\n".encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
