"""
The frontier of the source
==========================

Rows that the codes have not seen bound R(D) of the distribution that the data come from (T24). Here it is known: for
N(0, 1) it is log(1 / D) / 2.
"""

import matplotlib.pyplot as plt
import numpy as np

import constrained_vae as cv

x, held_out = np.split(np.random.default_rng(0).normal(size=(900, 1)), [200])
curve = cv.rate_distortion(x, betas=[0.6, 0.35], gap=1e-2, held_out=held_out)
distortions = np.linspace(0.25, 0.8, 30)
figure, ax = plt.subplots()
below = [curve.population.bound_below(d) for d in distortions]
above = [curve.population.bound_above(d) for d in distortions]
ax.fill_between(distortions, below, above, color="#56B4E9", alpha=0.5, label="each end holds at 97.5 %")
ax.plot(distortions, -np.log(distortions) / 2, color="black", label="R(D) of N(0, 1)")
ax.set(xlabel="distortion", ylabel="rate in nats")
ax.legend()
