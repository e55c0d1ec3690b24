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
# A VAE that reconstructs better may need more nats, and a VAE that needs fewer nats may reconstruct worse. The
# rate–distortion function $R(D)$ of the data is the standard of comparison: no encoder, decoder and prior of any
# architecture is below it (T22). **Questions: between which bounds does the curve certainly lie? And how far above it
# is a model of which only two numbers are known?**

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans

import constrained_vae as cv

data = cv.datasets.four_clusters(seed=0)

# %% [markdown]
# ## The curve, between bounds
#
# Every point is a global optimum over all decoders and all prior masses. It comes with a proof: a lower bound of the
# objective, from the supremum of a function of one reconstruction (T14). The table shows the gap between the bounds.

# %%
curve = cv.rate_distortion(data.x, betas=np.geomspace(9.5, 0.004, 60))
curve

# %% [markdown]
# At the kinks of the curve the best code gains a reconstruction. Up to one reconstruction per cluster these events are
# splits, at the critical temperatures of [02_phase_transitions](02_phase_transitions.ipynb). So annealing finds the
# global optimum here.

# %%
for event in cv.rate_distortion(data.x, betas=[10.0, 1.0, 0.1], locate=1e-4).events:
    print(f"beta = {event.beta:.4f}: {event.kind} at ({event.where[0]:.2f}, {event.where[1]:.2f})")

# %% [markdown]
# ## Models of every kind
#
# A model is a point in the plane of distortion $D = \mathrm{E}\,\|x-g(z)\|^2$ and rate. The picture shows
#
# - 6 and 32 annealed tiles of equal prior mass, which are fixed points of the equations;
# - k-means with 2 to 8 centres, which is a VAE with a deterministic encoder, whose rate is the entropy of the cluster
#   sizes;
# - β-VAEs with a Gaussian latent space and a small network, trained at three temperatures.

# %%
betas = np.geomspace(9, 0.01, 25)
annealed = {k: cv.sweep(data.x, betas=betas, n_tiles=k) for k in (6, 32)}
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
# No model is below the black line. The certified band below the line is thinner than the line. The solutions with 32
# tiles are on the curve down to the distortion of one reconstruction per cluster, since 32 tiles can be distributed as
# 16 + 16, 8 + 8 + 16, and 8 + 8 + 8 + 8. Six tiles of equal prior mass cannot be distributed in proportion among three
# or four reconstructions, which costs marginal KL. The hard assignments of k-means are on the curve as long as the
# centres are those of clusters, where posteriors are hard, too. From five centres on they are above it, because soft
# posteriors would be better. The trained networks are above the curve everywhere.

# %% [markdown]
# ## How far, in nats
#
# From the two numbers `curve.excess` computes a lower and an upper bound of the excess of the model over the curve, in
# nats.

# %%
print(f"{'':18}{'D':>9}{'rate':>9}   above the frontier")
for name in ("k-means, 2 to 8", "trained β-VAEs"):
    for distortion, rate in models[name]:
        excess = curve.excess(rate=rate, distortion=distortion)
        print(f"{name:18}{distortion:9.4f}{rate:9.4f}   {excess.least:.4f} to {excess.most:.4f} nats")

# %% [markdown]
# ## A model trained elsewhere
#
# For a model of any library, compute two numbers on the training data, with the same weights:
#
# 1. **rate**: the KL from the encoder to the prior, in nats, averaged over the data and summed over *all* latent
#    dimensions;
# 2. **distortion**: the squared error in total, $\|x-g(z)\|^2$ summed over the dimensions of $x$, with the decoder's
#    mean at *sampled* codes $z\sim q(z|x)$, not at the encoder's mean.
#
# Suppose that a training log has the values 2.0 nats and 0.30.

# %%
excess = curve.excess(rate=2.0, distortion=0.30)
print(f"{excess.least:.3f} nats ({cv.bits(excess.least):.3f} bits) could be saved at the same distortion.")

betters = curve.distortion[curve.rate <= 2.0]
print(f"The distortion could be {betters.min():.3f} at no higher a rate.")

# %% [markdown]
# If the excess is negative beyond the sampling error of the two numbers, one of them has another meaning: a KL per
# dimension, an error at the encoder's mean, bits instead of nats, or other data. The comparison is valid for the
# training data only. There is no such bound on held-out data, for conditional models, or under augmentation.
#
# ## How far is a solution of the equations?
#
# A solution of this library needs no curve: `certify` bounds its distance from the global optimum. The example compares
# quenches from ten random starts with the annealed solution, for 32 tiles and $\beta = 0.3$.

# %%
tiling = cv.Tiling.uniform(32)
quenched = [cv.solve(data.x, beta=0.3, tiling=tiling, start="data", seed=seed) for seed in range(10)]
gaps = [cv.certify(solution).gap for solution in quenched]
print(f"quenched: {min(gaps):.4f} to {max(gaps):.4f} nats above the optimum, at most")
print(f"annealed: {cv.certify(cv.sweep(data.x, betas=[9.5, 1.0, 0.3], tiling=tiling).at(0.3)).gap:.4f}")
print(f"global:   {cv.global_solution(data.x, beta=0.3).certificate}")

# %% [markdown]
# ## Answer
#
# The curve lies between the bounds of the first table, which are proven in the plane. Rate and distortion are enough
# to place a model above it: `excess` gives the distance, at least and at most, and `certify` does the same for a
# solution without a curve.
