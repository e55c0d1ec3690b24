"""
The price of a constraint
=========================

The multiplier λ at which the error is at most κ². It is steep where the next cluster has to be told apart.
"""

import matplotlib.pyplot as plt
import numpy as np

import constrained_vae as cv

data = cv.datasets.four_clusters(seed=0)
kappas = np.geomspace(2.5, 0.4, 10)
met = [cv.solve_constrained(data, cv.RE(kappa), n_tiles=8, start="data") for kappa in kappas]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.loglog(kappas, [s.multipliers["RE"] for s in met], "o-", color="black")
left.set(xlabel="κ", ylabel="multiplier λ")
right.semilogx(kappas, [s.rate for s in met], "o-", color="#0072B2")
right.set(xlabel="κ", ylabel="rate in nats")
print([s.status.name for s in met])
