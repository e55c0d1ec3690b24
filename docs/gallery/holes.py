"""
Holes of the latent space
=========================

Parts of the prior that no data point uses (T15). After a quench to a low temperature, the tiles at the left have hardly
any posterior mass: samples of the prior land there, data do not.
"""

import matplotlib.pyplot as plt
import numpy as np

import constrained_vae as cv

data = cv.datasets.moons(n=150, seed=0)
solution = cv.solve(data, beta=0.02, n_tiles=16, seed=1)
coverage = cv.diagnostics.coverage(solution)
figure, ax = plt.subplots()
ax.bar(np.arange(len(coverage)), np.sort(coverage), color="#0072B2")
ax.axhline(1, color="0.5", lw=1)
ax.set_xlabel("tile, sorted")
ax.set_ylabel("coverage m / π")
print(cv.report(solution))
