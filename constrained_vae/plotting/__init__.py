"""Plots of solutions, branches and frontiers with matplotlib.

Every function draws on the Axes `ax`, or on new Axes if `ax` is None, and returns them. Curves are arrays of points; a
row of NaN begins a new piece.

Examples
--------
>>> import numpy as np
>>> from constrained_vae import plotting
>>> ax = plotting.distortion(np.array([0.5, 1.0, 2.0]), np.array([0.1, 1.0, 1.0]), critical=[1.0])
>>> ax.get_xscale()
'log'
"""

from .branches import bifurcation, distortion, hysteresis, second_derivative, split_condition, staircase
from .models import rate_distortion, training
from .solutions import flow, principal_axes, reconstructions
from .trees import merging_tree

__all__ = [
    "bifurcation",
    "distortion",
    "flow",
    "hysteresis",
    "merging_tree",
    "principal_axes",
    "rate_distortion",
    "reconstructions",
    "second_derivative",
    "split_condition",
    "staircase",
    "training",
]
