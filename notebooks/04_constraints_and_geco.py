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
# Instead of choosing $\beta$, say what the model must achieve, for instance $\mathrm{E}\,\|x-g(z)\|^2 \le \kappa^2$,
# and minimise the rate under that constraint. A multiplier $\lambda$ takes the place of $\beta$, and GECO, the
# algorithm of *Taming VAEs*, finds it while the networks are trained: $\lambda$ grows while the constraint is violated
# and shrinks while it holds. **Questions: does it end at the multiplier of the exact theory? And what does a real
# network pay?**

# %%
import matplotlib.pyplot as plt
import numpy as np

import constrained_vae as cv
from constrained_vae.testing.closed_forms import water_filling

# %% [markdown]
# ## A model that is solved in closed form
#
# With linear encoder and decoder everything is known: reverse water-filling over the eigenvalues of the covariance,
# here 4, 2 and ½. For $\kappa^2 = 1.2$ the water stands at $\theta = 0.4$, which gives $\lambda^* = 1/2\theta = 1.25$.
# No setting of the training is tuned: its steps follow from a damping rule (T20, T21).

# %%
gaussian = cv.datasets.gaussian((4.0, 2.0, 0.5))
linear = cv.geco.train(gaussian.x, cv.RE.from_squared_error(1.2), latent_dim=3, hidden=(), steps=8000)
distortion, rate = water_filling((4.0, 2.0, 0.5), theta=0.4)

print("              learned     exact")
print(f"lambda      {linear.multipliers['RE']:9.4f} {1.25:9.4f}")
print(f"KL (nats)   {linear.evaluation.rate:9.4f} {rate:9.4f}")
print(f"distortion  {linear.evaluation.distortion:9.4f} {distortion:9.4f}")

# %% [markdown]
# The picture shows the way there. At first the decoder is useless, the constraint is violated and $\lambda$ climbs from
# 1; as the network learns to use its codes the KL rises and the distortion falls, and all three settle, within the
# noise of batches, where the exact answers are (grey). Nothing overshoots: the damping rule at work.

# %%
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for exact in (1.25, rate, distortion):
    ax.axhline(exact, color="0.7", lw=1.5, zorder=0)
cv.plotting.training(linear.history, ax=ax)
_ = ax.legend(frameon=False, fontsize=8, loc="upper right")

# %% [markdown]
# ## A network beside the fixed point
#
# Now the four clusters, $\kappa = 0.7$, and three models that all meet it: a network with 32 hidden units; 64 tiles
# with any decoder, which `solve_constrained` solves; and the best that any code could do, from the rate–distortion
# function of the data.

# %%
data = cv.datasets.four_clusters(seed=0)
constraint = cv.RE(kappa=0.7)
network = cv.geco.train(data.x, constraint, latent_dim=2, hidden=(32,), steps=6000)
tiles = cv.solve_constrained(data.x, constraint, tiling=cv.Tiling.uniform(64))
curve = cv.rate_distortion(data.x, betas=np.geomspace(9, 0.05, 60))

print(network.report["RE"])
print(tiles)
print()
print("           KL (nats)   lambda")
print(f"network    {network.evaluation.rate:9.3f}{network.multipliers['RE']:9.3f}")
print(f"64 tiles   {tiles.rate:9.3f}{tiles.multipliers['RE']:9.3f}")
print(f"any code   {curve.bound_below(0.49):9.3f} at least")

# %% [markdown]
# The fixed point is at the optimum. The network pays more, and what it pays can be split (T22): most of the excess is
# the marginal KL, which is the price of a Gaussian prior that has to be covered by four clumps of codes; the rest is
# what its codes tell beyond what that distortion takes. And $\lambda$ is the slope of the trade-off of the model itself
# (T21), so it need not be that of the fixed point: a network for which each further bit of accuracy is dearer needs a
# larger one.

# %%
place = network.excess_over(curve)
print(f"above the frontier  {place.gap.most:.3f} +- {place.error:.3f} nats")
print(f"    marginal KL     {place.marginal_kl:.3f} +- {place.marginal_kl_error:.3f}")
print(f"    the rest        {place.rest.most:.3f} +- {place.rest_error:.3f}")
print(f"lambda of the model {place.multiplier:.3f}, slope of the frontier {place.slope:.3f}")

# %% [markdown]
# Their reconstructions differ too. Codes of the network are sampled, eight for every point: its decoder is continuous,
# so what it makes of the codes between two clumps lies between their reconstructions. The tiles need no continuity.

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
# The multiplier as a function of the threshold is a curve of the data. Each kink is a phase transition: below it the
# model has one reconstruction more to spend bits on. Where the threshold is above the variance of the data the
# constraint is slack and $\lambda = 0$.

# %%
branch = cv.sweep(data.x, tiling=cv.Tiling.uniform(64))
figure, ax = plt.subplots(figsize=(5, 2.8), layout="constrained")
ax.semilogy(np.sqrt(branch.distortion), 1 / (2 * branch.betas), color="black", lw=1.2, label="fixed points")
ax.plot(0.7, tiles.multipliers["RE"], "o", color="#0072B2", label="64 tiles")
ax.plot(0.7, network.multipliers["RE"], "s", color="#D55E00", label="network, by GECO")
ax.set(xlabel=r"threshold $\kappa$  (units of $x$)", ylabel=r"multiplier $\lambda$  (nats / unit$^2$)")
_ = ax.legend(frameon=False, fontsize=8)

# %% [markdown]
# ## Thresholds that cannot be met
#
# Two tiles cannot do better than the spread within the pairs, whatever $\lambda$ is. A search for $\lambda$ would run
# off to infinity; it is told instead, with the least error that was seen.

# %%
hopeless = cv.solve_constrained(data.x, cv.RE(kappa=0.7), tiling=cv.Tiling.uniform(2), on_failure="return")
print(hopeless.status.name, "- at best E[C] =", round(hopeless.least["RE"], 4), "above the threshold")

# %% [markdown]
# Constraints combine: a reconstruction that a fixed classifier still recognises, with 90 % of the probability on the
# right class, is a second one with a multiplier of its own.

# %%
from sklearn.linear_model import LogisticRegression

classifier = LogisticRegression().fit(data.x, data.labels)
both = [cv.RE(kappa=1.0), cv.CLA(0.9, classifier, data.labels)]
cv.solve_constrained(data.x, both, tiling=cv.Tiling.uniform(16))
