"""
How far is my model from the best?
==================================

No VAE of these data is below the curve (T22). A model needs only its rate and its distortion to be placed.
"""

import numpy as np

import constrained_vae as cv

data = cv.datasets.four_clusters(seed=0)
curve = cv.rate_distortion(data, betas=np.geomspace(9.5, 0.1, 12))
curve.plot({"my VAE": (1.9, 0.35), "my other VAE": (1.0, 1.6)})
print(curve.excess(rate=1.9, distortion=0.35))
