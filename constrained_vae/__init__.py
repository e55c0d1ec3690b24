"""Theory of constrained variational auto-encoders: fixed points, phase transitions, the equations of *Taming VAEs*.

A table of contents: every public name is imported from its room when it is first used, so that importing the package
loads neither Numba, CuPy, scikit-learn nor matplotlib.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import backends, datasets, equations, geco, plotting
    from ._checks import TooLargeError
    from .backends import BackendNotAvailableError
    from .branches import default_betas, sweep
    from .constraints import CLA, FRE, PNCC, RE, Constraint
    from .critical import Transition, match_peaks, transitions
    from .detection import Peak
    from .dual import ConstrainedFixedPoint, solve_constrained
    from .equations import Expectations
    from .features import (
        ClassProbabilities,
        FeatureMap,
        Features,
        FourierFeatures,
        LinearFeatures,
        MissingProductError,
        NormalisedPatches,
    )
    from .frames import Frame
    from .frontier import Excess, RateDistortionCurve, nucleation_beta, rate_distortion
    from .iteration import solve
    from .jacobian import Eigenpairs, Jacobian, Tangent, tangent
    from .lagrangian import Lagrangian, NoMinimiserError
    from .objectives import ELBO
    from .optimum import Certificate, CertifiedFixedPoint, certify, global_solution
    from .options import Iterate
    from .problem import block_expectations
    from .rows import RowBlocks
    from .sites import Sites
    from .solution import Branch, FixedPoint, NotConvergedError, NotConvergedWarning, Status
    from .stability import NearestSplit, first_critical_beta, nearest_split
    from .tiling import Tiling

__version__ = importlib.metadata.version("constrained-vae")

_ROOMS = {
    "_checks": ("TooLargeError",),
    "backends": ("BackendNotAvailableError",),
    "branches": ("default_betas", "sweep"),
    "constraints": ("CLA", "FRE", "PNCC", "RE", "Constraint"),
    "critical": ("Transition", "match_peaks", "transitions"),
    "detection": ("Peak",),
    "dual": ("ConstrainedFixedPoint", "solve_constrained"),
    "equations": ("Expectations",),
    "iteration": ("solve",),
    "jacobian": ("Eigenpairs", "Jacobian", "Tangent", "tangent"),
    "optimum": ("Certificate", "CertifiedFixedPoint", "certify", "global_solution"),
    "options": ("Iterate",),
    "features": (
        "ClassProbabilities",
        "FeatureMap",
        "Features",
        "FourierFeatures",
        "LinearFeatures",
        "MissingProductError",
        "NormalisedPatches",
    ),
    "frames": ("Frame",),
    "frontier": ("Excess", "RateDistortionCurve", "hysteresis_interval", "nucleation_beta", "rate_distortion"),
    "lagrangian": ("Lagrangian", "NoMinimiserError"),
    "objectives": ("ELBO",),
    "problem": ("block_expectations",),
    "rows": ("RowBlocks",),
    "sites": ("Sites",),
    "solution": ("Branch", "FixedPoint", "NotConvergedError", "NotConvergedWarning", "Status"),
    "stability": ("NearestSplit", "first_critical_beta", "nearest_split"),
    "support": ("SupportChange",),
    "tiling": ("Tiling",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
_MODULES = ("backends", "datasets", "equations", "geco", "plotting")

__all__ = [
    "CLA",
    "ELBO",
    "FRE",
    "PNCC",
    "RE",
    "BackendNotAvailableError",
    "Branch",
    "Certificate",
    "CertifiedFixedPoint",
    "ClassProbabilities",
    "ConstrainedFixedPoint",
    "Constraint",
    "Eigenpairs",
    "Excess",
    "Expectations",
    "FeatureMap",
    "Features",
    "FixedPoint",
    "FourierFeatures",
    "Frame",
    "Iterate",
    "Jacobian",
    "Lagrangian",
    "LinearFeatures",
    "MissingProductError",
    "NearestSplit",
    "NoMinimiserError",
    "NormalisedPatches",
    "NotConvergedError",
    "NotConvergedWarning",
    "Peak",
    "RateDistortionCurve",
    "RowBlocks",
    "Sites",
    "Status",
    "SupportChange",
    "Tangent",
    "Tiling",
    "TooLargeError",
    "Transition",
    "backends",
    "block_expectations",
    "certify",
    "datasets",
    "default_betas",
    "equations",
    "first_critical_beta",
    "geco",
    "global_solution",
    "hysteresis_interval",
    "match_peaks",
    "nearest_split",
    "nucleation_beta",
    "plotting",
    "rate_distortion",
    "solve",
    "solve_constrained",
    "sweep",
    "tangent",
    "transitions",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
