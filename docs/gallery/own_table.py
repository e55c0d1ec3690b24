"""
A table of one's own
====================

Columns with different units are standardised first, because β has the unit of x². Results come back in the units of the
table.
"""

import numpy as np

import constrained_vae as cv

random = np.random.default_rng(0)
kind = random.integers(2, size=120)
table = {
    "height in cm": 165 + 12 * kind + random.normal(scale=4, size=120),
    "mass in kg": 60 + 15 * kind + random.normal(scale=6, size=120),
    "resting pulse": 70 - 8 * kind + random.normal(scale=5, size=120),
    "kind": kind,
}
data = cv.datasets.from_table(table, labels="kind", standardize=True, name="people")
beta = 0.6 * cv.first_critical_beta(data)  # a little below the first split
solution = cv.solve(data, beta=beta, n_tiles=8)
for row in data.original(solution.distinct.decoder):
    print(dict(zip(data.columns, row.round(1).tolist(), strict=True)))
solution.plot()
