"""
A tree of clusters
==================

The branch of a sweep is a hierarchy: on heating, reconstructions merge, until one is left.
"""

import numpy as np

import constrained_vae as cv

random = np.random.default_rng(0)
centres = np.array([[0, 0], [1.5, 0], [6, 1], [6, 3], [9, 8]])
points = np.repeat(centres, 20, axis=0) + 0.2 * random.normal(size=(100, 2))
branch = cv.sweep(points, betas=np.geomspace(30, 0.15, 50), n_tiles=20)
cv.plotting.merging_tree(branch)
