"""
Two constraints at once
=======================

A bound on the squared error, and a classifier that must still know 90 % of the classes.
"""

from sklearn.linear_model import LogisticRegression

import constrained_vae as cv

data = cv.datasets.four_clusters(seed=0)
classifier = LogisticRegression(tol=1e-8).fit(data.x, data.labels)
constraints = [cv.RE(kappa=1.0), cv.CLA(0.9, classifier, data.labels)]
met = cv.solve_constrained(data, constraints, n_tiles=8)
print(met)
met.plot()
