"""
Phase transitions: detected and exact
=====================================

The paper finds transitions where the distortion bends most, to a step of the grid (T12). Stability gives them to all
digits (T9).
"""

import constrained_vae as cv

data = cv.datasets.four_clusters(seed=0)
branch = cv.sweep(data, n_tiles=16)
exact = cv.transitions(data, n_tiles=16)
cv.plotting.phases(branch, critical=[t.beta for t in exact])
for peak, t in zip(branch.peaks(k=3)[::-1], exact, strict=True):
    print(f"detected {peak.beta:8.4f}   exact {t.beta:.9f}")
