"""
Beside spectral clustering
==========================

The partition by reconstructions, and those of spectral clustering, k-means and mixtures (T18). Each column is a point.
"""

import constrained_vae as cv

data = cv.datasets.four_clusters(seed=0)
compared = cv.compare_spectral(cv.solve(data, beta=0.5, n_tiles=16), labels=data.labels)
cv.plotting.partitions(compared)
print(compared)
