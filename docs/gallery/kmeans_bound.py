"""
A lower bound for every k-means
===============================

One curve R(D) bounds the error of all codes of K words from below (T23), beside what k-means finds.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans

import constrained_vae as cv

data = cv.datasets.four_clusters(seed=0)
curve = cv.rate_distortion(data, betas=np.geomspace(9.5, 0.1, 16))
words = np.arange(2, 7)
found = [KMeans(k, n_init=5, random_state=0).fit(data.x).inertia_ / len(data.x) for k in words]
bound = curve.kmeans_bound(words)
figure, ax = plt.subplots()
ax.semilogy(words, found, "o", color="#D55E00", label="k-means, the best of 5")
ax.semilogy(words, bound.distortion, "_", ms=20, mew=2, color="black", label="no code is below")
ax.set(xlabel="words K", ylabel="mean squared error")
ax.set_xticks(words)
ax.legend()
