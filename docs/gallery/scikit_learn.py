"""
In scikit-learn
===============

The estimator in a pipeline, and a held-out score that can be compared between temperatures.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import constrained_vae as cv

x = load_iris().data
betas = np.geomspace(0.1, 4, 6)
scores = [
    cross_val_score(
        make_pipeline(StandardScaler(), cv.FixedPointVAE(beta=beta, sigma=0.5, n_tiles=8, tol=1e-6)), x, cv=3
    )
    for beta in betas
]
figure, ax = plt.subplots()
ax.errorbar(betas, np.mean(scores, axis=1), np.std(scores, axis=1), fmt="o-", color="black")
ax.set_xscale("log")
ax.set(xlabel="β", ylabel="held-out ELBO, nats per flower")
