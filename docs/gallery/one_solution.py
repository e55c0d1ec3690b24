"""
One solution
============

What does an ideal VAE with 64 latent tiles learn from four clusters at one temperature? Grey lines are the paths of its
reconstructions from a random start to the fixed point.
"""

import constrained_vae as cv

data = cv.datasets.four_clusters(seed=0)
solution = cv.solve(data, beta=0.5, accelerate="plain", start="data", record=True, tol=1e-6)
cv.plotting.reconstructions(solution)
print(solution)
