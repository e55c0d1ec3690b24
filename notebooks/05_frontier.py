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
# # The frontier: how far is a model from the best possible?
#
# A VAE that reconstructs better may have paid more nats for it, and one that pays less may reconstruct worse. What
# there is to compare with is the rate–distortion function $R(D)$ of the data: no encoder, decoder and prior, of
# whatever architecture, gets below it (T22). **Questions: where is it, for certain? And how far above it is a model of
# which only two numbers are known?**

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans

import constrained_vae as cv

data = cv.datasets.four_clusters(seed=0)

# %% [markdown]
# ## The curve, between bounds
#
# Every point is a global optimum over all decoders and all prior masses, found together with a proof: a lower bound of
# the objective, from the supremum of a function of one reconstruction (T14). The gap between the bounds is in the
# table.

# %%
curve = cv.rate_distortion(data.x, betas=np.geomspace(9.5, 0.004, 60))
curve

# %% [markdown]
# Its kinks are where the best code gains a reconstruction. Down to one for each cluster these are splits, at the
# critical temperatures of [02_phase_transitions](02_phase_transitions.ipynb): annealing loses nothing here.

# %%
for event in cv.rate_distortion(data.x, betas=[10.0, 1.0, 0.1], locate=1e-4).events:
    print(f"beta = {event.beta:.4f}: {event.kind} at ({event.where[0]:.2f}, {event.where[1]:.2f})")

# %% [markdown]
# ## Models of every kind
#
# A model is a point in this plane: its distortion $D = \mathrm{E}\,\|x-g(z)\|^2$ and its rate. The picture has
#
# - uniform tiles, annealed: 6 and 32 of them, fixed points of the equations with equal prior masses;
# - k-means with 2 to 8 centres, seen as a VAE with a deterministic encoder: its rate is the entropy of the cluster
#   sizes;
# - β-VAEs with a Gaussian latent space and a small network, trained at three temperatures.

# %%
betas = np.geomspace(9, 0.01, 25)
annealed = {k: cv.sweep(data.x, betas=betas, tiling=cv.Tiling.uniform(k)) for k in (6, 32)}
centres = [KMeans(k, n_init=5, random_state=0).fit(data.x) for k in range(2, 9)]
sizes = [np.bincount(fit.labels_) / len(data) for fit in centres]
trained = [
    cv.geco.train(data.x, latent_dim=2, hidden=(32,), objective="beta", beta=beta, steps=3000) for beta in (3, 1, 0.3)
]
models = {f"{k} uniform tiles": np.stack([b.distortion, b.rate], axis=1) for k, b in annealed.items()}
models["k-means, 2 to 8"] = np.array(
    [(fit.inertia_ / len(data), -(p * np.log(p)).sum()) for fit, p in zip(centres, sizes, strict=True)]
)
models["trained β-VAEs"] = np.array([(run.evaluation.distortion, run.evaluation.rate) for run in trained])

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
cv.plotting.rate_distortion(curve, models, ax=ax)
ax.set(xlim=(0.014, 12), ylim=(-0.1, 2.5))
_ = ax.legend(frameon=False, fontsize=8)

# %% [markdown]
# Nothing is below the black line, and the band of doubt under it is thinner than the line. Thirty-two tiles lie on it
# down to one reconstruction for each cluster: they can be shared out 16 to 16, 8 to 8 to 16, and 8 each. Six of equal
# prior mass cannot be shared out among three or four, and pay for it with marginal KL. The hard assignments of k-means
# are on the curve as long as its centres are those of clusters, where posteriors would be as hard, and above it from
# five centres on, where soft ones would do better. The trained networks are above it everywhere.

# %% [markdown]
# ## How far, in nats
#
# `curve.excess` needs the two numbers and says at least and at most how many nats the model is above the curve.

# %%
print(f"{'':18}{'D':>9}{'rate':>9}   above the frontier")
for name in ("k-means, 2 to 8", "trained β-VAEs"):
    for distortion, rate in models[name]:
        excess = curve.excess(rate=rate, distortion=distortion)
        print(f"{name:18}{distortion:9.4f}{rate:9.4f}   {excess.least:.4f} to {excess.most:.4f} nats")

# %% [markdown]
# ## A model trained elsewhere
#
# From any library, two numbers of the model, on the data it was trained on and with the same weights:
#
# 1. **rate**: the KL from the encoder to the prior, in nats, averaged over the data and summed over *all* latent
#    dimensions;
# 2. **distortion**: the squared error in total, $\|x-g(z)\|^2$ summed over the dimensions of $x$, with the decoder's
#    mean at *sampled* codes $z\sim q(z|x)$, not at the encoder's mean.
#
# Say that these came out of a training log: 2.0 nats and 0.30.

# %%
excess = curve.excess(rate=2.0, distortion=0.30)
print(f"{excess.least:.3f} nats ({cv.bits(excess.least):.3f} bits) could be saved at the same distortion.")

betters = curve.distortion[curve.rate <= 2.0]
print(f"The distortion could be {betters.min():.3f} at no higher a rate.")

# %% [markdown]
# A negative excess, beyond the sampling error of the two numbers, means that one of them is something else: a KL per
# dimension, an error at the encoder's mean, bits for nats, other data. And this comparison is for the data trained on:
# on held-out data, for conditional models and under augmentation there is no such bound.
#
# ## How far is a solution of the equations?
#
# For a solution of this library no curve is needed: `certify` bounds its distance from the global optimum by itself.
# Here quenches from ten random starts beside the annealed solution, 32 tiles, $\beta = 0.3$.

# %%
tiling = cv.Tiling.uniform(32)
quenched = [cv.solve(data.x, beta=0.3, tiling=tiling, start="data", seed=seed) for seed in range(10)]
gaps = [cv.certify(solution).gap for solution in quenched]
print(f"quenched: {min(gaps):.4f} to {max(gaps):.4f} nats above the optimum, at most")
print(f"annealed: {cv.certify(cv.sweep(data.x, betas=[9.5, 1.0, 0.3], tiling=tiling).at(0.3)).gap:.4f}")
print(f"global:   {cv.global_solution(data.x, beta=0.3).certificate}")
