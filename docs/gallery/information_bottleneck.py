"""
The information bottleneck of a table of counts
===============================================

Which rows may be merged so that the group still tells the column? Rows are documents, columns are words (T4).
"""

import matplotlib.pyplot as plt
import numpy as np

import constrained_vae as cv

counts = np.array([[9, 1, 0, 2], [8, 2, 1, 1], [1, 7, 3, 0], [0, 1, 8, 9], [1, 0, 9, 7.0]])
totals = counts.sum(axis=1)
table, p = counts / totals[:, None], totals / totals.sum()
bottleneck = cv.ELBO(likelihood="categorical")
betas = np.geomspace(0.6, 0.05, 30)
branch = cv.sweep(table, bottleneck, betas=betas, weights=p, masses="free", n_tiles=5)
figure, ax = plt.subplots()
ax.plot(branch.rate, [-s.beta * s.energy for s in branch], "o-", ms=4, color="black")
ax.set(xlabel="I(X; T) in nats", ylabel="I(T; Y) − I(X; Y) in nats")
for solution in branch:
    if len(solution.distinct) == 3:
        print("three groups of documents:", solution.labels)
        break
