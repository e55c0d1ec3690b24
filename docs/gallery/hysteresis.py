"""
Hysteresis of a first-order transition
======================================

Three equidistant points split at once, and by a jump (T13). Cooling and heating find different solutions in between.
"""

import numpy as np

import constrained_vae as cv

data = cv.datasets.simplex(n_corners=3)
first = cv.first_critical_beta(data)
tiling = cv.Tiling.uniform(3)
cooling, heating = cv.sweep(data, betas=first * np.linspace(0.8, 1.1, 61), direction="both", tiling=tiling)
ax = cv.plotting.hysteresis(cooling, heating)
ax.set_title(f"cooling jumps at {first:.4f}")
