"""
Reconstructions against temperature
===================================

On cooling, one reconstruction becomes two, three and four. Grey lines are the exact temperatures of the splits (T9).
"""

import numpy as np

import constrained_vae as cv

data = cv.datasets.four_clusters(seed=0)
branch = cv.sweep(data, betas=np.geomspace(12, 0.2, 60), n_tiles=16)
critical = [t.beta for t in cv.transitions(data, n_tiles=16)]
cv.plotting.bifurcation(branch, critical=critical)
print("splits at", np.round(critical, 6))
