"""Plots of solutions, branches and frontiers with matplotlib.

Every function takes results of the package, draws on the Axes `ax`, or on new Axes if `ax` is None, and returns them.
Results have methods `plot` for the usual picture. Curves may also be arrays of points; a row of NaN begins a new piece.

Examples
--------
>>> import numpy as np
>>> from constrained_vae import plotting
>>> ax = plotting.distortion(np.array([0.5, 1.0, 2.0]), np.array([0.1, 1.0, 1.0]), critical=[1.0])
>>> ax.get_xscale()
'log'
"""

from .branches import (
    bifurcation,
    distortion,
    hysteresis,
    phases,
    second_derivative,
    split_condition,
    staircase,
    suggestions,
)
from .images import images
from .models import rate_distortion, training
from .partitions import agreement, partitions
from .solutions import flow, principal_axes, reconstructions
from .trees import merging_tree

__all__ = [
    "agreement",
    "bifurcation",
    "distortion",
    "flow",
    "hysteresis",
    "images",
    "merging_tree",
    "partitions",
    "phases",
    "principal_axes",
    "rate_distortion",
    "reconstructions",
    "second_derivative",
    "split_condition",
    "staircase",
    "suggestions",
    "training",
]


def __dir__() -> list[str]:
    return list(__all__)
