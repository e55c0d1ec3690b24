# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Constraints and GECO: train, then compare with theory
#
# Instead of choosing $\beta$, one can state what the model must achieve, for instance
# $\mathrm{E}\,\|x-g(z)\|^2 \le \kappa^2$, and minimise the rate under this constraint. A multiplier $\lambda$ replaces
# $\beta$. GECO, the algorithm of *Taming VAEs*, finds the multiplier while it trains the networks: $\lambda$ grows
# while the constraint is violated and decreases while it holds. **Questions: does GECO end at the multiplier of the
# exact theory? And how much more rate than the optimum does a real network need?**

# %%
import matplotlib.pyplot as plt
import numpy as np

import constrained_vae as cv
from constrained_vae.testing.closed_forms import water_filling

# %% [markdown]
# ## A model with a solution in closed form
#
# For a linear encoder and decoder the solution is known: it is reverse water-filling over the eigenvalues of the
# covariance, here 4, 2 and ½. For $\kappa^2 = 1.2$ the water level is $\theta = 0.4$, which gives
# $\lambda^* = 1/2\theta = 1.25$. The training needs no tuning: its steps follow from a damping rule (T20, T21).

# %%
gaussian = cv.datasets.gaussian((4.0, 2.0, 0.5))
linear = cv.geco.train(gaussian.x, cv.RE.from_squared_error(1.2), latent_dim=3, hidden=(), steps=8000)
distortion, rate = water_filling((4.0, 2.0, 0.5), theta=0.4)

print("              learned     exact")
print(f"lambda      {linear.multipliers['RE']:9.4f} {1.25:9.4f}")
print(f"KL (nats)   {linear.evaluation.rate:9.4f} {rate:9.4f}")
print(f"distortion  {linear.evaluation.distortion:9.4f} {distortion:9.4f}")

# %% [markdown]
# The picture shows the training. At first the decoder is useless, the constraint is violated and $\lambda$ grows from
# its start at 1. As the network learns to use its codes, the KL grows and the distortion falls. All three converge to
# the exact values (grey), up to the noise of the batches. Because of the damping rule there is no overshoot.

# %%
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for exact in (1.25, rate, distortion):
    ax.axhline(exact, color="0.7", lw=1.5, zorder=0)
cv.plotting.training(linear.history, ax=ax)
_ = ax.legend(frameon=False, fontsize=8, loc="upper right")

# %% [markdown]
# ## A network beside the fixed point
#
# The next data are the four clusters, with $\kappa = 0.7$. Three models that meet this constraint are compared: a
# network with 32 hidden units, 64 tiles with an unrestricted decoder, which `solve_constrained` solves, and the best
# possible code, from the rate–distortion function of the data.

# %%
data = cv.datasets.four_clusters(seed=0)
constraint = cv.RE(kappa=0.7)
network = cv.geco.train(data.x, constraint, latent_dim=2, hidden=(32,), steps=6000)
tiles = cv.solve_constrained(data.x, constraint, n_tiles=64)
curve = cv.rate_distortion(data.x, betas=np.geomspace(9, 0.05, 60))

print(network.report["RE"])
print(tiles)
print()
print("           KL (nats)   lambda")
print(f"network    {network.evaluation.rate:9.3f}{network.multipliers['RE']:9.3f}")
print(f"64 tiles   {tiles.rate:9.3f}{tiles.multipliers['RE']:9.3f}")
print(f"any code   {curve.bound_below(0.49):9.3f} at least")

# %% [markdown]
# The fixed point is at the optimum. The rate of the network is higher, and its excess has two parts (T22). Most of it
# is the marginal KL, since four groups of codes have to cover a Gaussian prior. The rest is information in the codes
# that this distortion does not need. The multiplier $\lambda$ is the slope of the trade-off of the model itself (T21),
# so that it may differ from the multiplier of the fixed point: it is larger for a network that pays more for additional
# accuracy.

# %%
place = network.excess_over(curve)
print(f"above the frontier  {place.gap.most:.3f} +- {place.error:.3f} nats")
print(f"    marginal KL     {place.marginal_kl:.3f} +- {place.marginal_kl_error:.3f}")
print(f"    the rest        {place.rest.most:.3f} +- {place.rest_error:.3f}")
print(f"lambda of the model {place.multiplier:.3f}, slope of the frontier {place.slope:.3f}")

# %% [markdown]
# The reconstructions differ, too. For the network eight codes are sampled for every point. Its decoder is continuous,
# so that codes between two groups have reconstructions between those of the groups. The tiles need no continuity.

# %%
mean, log_sigma = (np.repeat(part, 8, axis=0) for part in network.model.encode(data.x))
noise = np.random.default_rng(0).standard_normal(mean.shape)
figure, axes = plt.subplots(1, 2, figsize=(7, 2.4), sharex=True, sharey=True, layout="constrained")
axes[0].scatter(*network.model.decode(mean + np.exp(log_sigma) * noise).T, s=3, color="#D55E00", lw=0, alpha=0.5)
axes[0].set(title="network", xlabel="coordinate 1  (units of $x$)", aspect="equal")
cv.plotting.reconstructions(tiles, ax=axes[1])
axes[1].set(title="64 tiles", ylabel="")
_ = axes[0].set_ylabel("coordinate 2  (units of $x$)")

# %% [markdown]
# ## Any multiplier, any threshold
#
# The multiplier as a function of the threshold is a curve that depends on the data alone. Each kink is a phase
# transition: below it the model has one more reconstruction. If the squared threshold is above the variance of the
# data, the constraint is slack and $\lambda = 0$.

# %%
branch = cv.sweep(data.x, n_tiles=64)
figure, ax = plt.subplots(figsize=(5, 2.8), layout="constrained")
ax.semilogy(np.sqrt(branch.distortion), 1 / (2 * branch.betas), color="black", lw=1.2, label="fixed points")
ax.plot(0.7, tiles.multipliers["RE"], "o", color="#0072B2", label="64 tiles")
ax.plot(0.7, network.multipliers["RE"], "s", color="#D55E00", label="network, by GECO")
ax.set(xlabel=r"threshold $\kappa$  (units of $x$)", ylabel=r"multiplier $\lambda$  (nats / unit$^2$)")
_ = ax.legend(frameon=False, fontsize=8)

# %% [markdown]
# ## Thresholds that cannot be met
#
# With two tiles the error cannot be smaller than the spread within the pairs, for any $\lambda$. A search for $\lambda$
# would diverge. `solve_constrained` detects this and reports the smallest error that it found.

# %%
hopeless = cv.solve_constrained(data.x, cv.RE(kappa=0.7), n_tiles=2, on_failure="return")
print(hopeless.status.name, "- at best E[C] =", round(hopeless.least["RE"], 4), "above the threshold")

# %% [markdown]
# Several constraints can be combined, each with its own multiplier. Here the second constraint is that a fixed
# classifier recognises the reconstructions, with a mean probability of 90 % for the right class.

# %%
from sklearn.linear_model import LogisticRegression

classifier = LogisticRegression().fit(data.x, data.labels)
both = [cv.RE(kappa=1.0), cv.CLA(0.9, classifier, data.labels)]
cv.solve_constrained(data.x, both, n_tiles=16)

# %% [markdown]
# ## Answer
#
# GECO ends at the multiplier of the exact theory where the network can be the exact solution, as the linear model is.
# Any other network has a trade-off of its own, and ends at the slope of that. It needs more rate than the optimum:
# mostly for covering the prior, and the rest for information that the error does not ask for.
