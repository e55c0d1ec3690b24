"""
Digits at three temperatures
============================

Images are rows of pixels. The lower the temperature, the more images a model of unlimited capacity tells apart.
"""

import matplotlib.pyplot as plt

import constrained_vae as cv

digits = cv.datasets.digits(200)
critical = cv.first_critical_beta(digits)
figure, axes = plt.subplots(3, 1, figsize=(7, 4), layout="constrained")
branch = cv.sweep(
    digits, betas=[0.7 * critical, 0.35 * critical, 0.2 * critical], n_tiles=12, tol=1e-5, resolution=0.05
)
for ax, solution in zip(axes, branch, strict=True):
    cv.plotting.images(solution, image_shape=(8, 8), columns=12, ax=ax)
    ax.set_title(f"β = {solution.beta:.3g}: {len(solution.distinct)} reconstructions", fontsize=9)
