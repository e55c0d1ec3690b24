"""
Which β for my data?
====================

Four clusters in two pairs. Shaded are the temperatures at which the number of reconstructions is stable.
"""

import constrained_vae as cv

found = cv.suggest(cv.datasets.four_clusters(seed=0))
found.plot()
print(found)
