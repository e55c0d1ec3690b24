"""The commands that answer in print: what a computation takes, how good a solution is, whether a proof holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from .._utils.files import parsing
from .._utils.writing import check_writable
from .data_options import data_of


def estimate(args: argparse.Namespace) -> tuple[str, bool]:
    """What the other commands would take."""
    from ..effort import estimate

    x = None if args.data is None else data_of(args).x
    return str(estimate(args.n, args.k, args.d, x=x, backend=args.backend)), True


def certify(args: argparse.Namespace) -> tuple[str, bool]:
    """How far a saved solution is from the global optimum; with --out a file that proves it."""
    from ..frontier.distance_to_optimum import certify
    from ..results.fixed_point import FixedPoint

    if args.out is not None:
        if args.out.suffix != ".json":
            raise ValueError(f"--out must be a .json file, got {args.out}")
        args.out.parent.mkdir(parents=True, exist_ok=True)
        check_writable(args.out, "--out")
    bounds = certify(FixedPoint.load(args.solution), time_limit=args.time_limit)
    if args.out is None:
        return repr(bounds), True
    bounds.save(args.out, accuracy=args.accuracy)
    return f"{bounds!r}\nwrote {args.out}", True


def verify(args: argparse.Namespace) -> tuple[str, bool]:
    """Whether the proof of a file holds for data; the text begins with "proved" or "not proved"."""
    verifier = _verifier()
    data = data_of(args)
    proof = read_proof(args.proof)
    try:
        lower, upper = verifier.verify(proof, data.x, data.weights)
    except verifier.NotProved as reason:
        return f"not proved: {reason}", False
    lam = proof["objective"]["multiplier"]
    return (
        f"proved: F* is between {lower!r} and {upper!r} nats, at lambda = {lam!r} (rigorous, rounding included)",
        True,
    )


def read_proof(path: Path) -> dict[str, Any]:
    """The JSON of a proof."""
    with open(path, encoding="utf-8") as file, parsing(f"{path} is no proof: it is no JSON"):
        found: dict[str, Any] = json.load(file)
    return found


def _verifier() -> ModuleType:
    """The program that verifies proofs, which needs an extra."""
    try:
        from ..frontier import verify
    except ImportError:
        raise ImportError("verify needs the package python-flint: pip install 'constrained-vae[verify]'") from None
    return verify
