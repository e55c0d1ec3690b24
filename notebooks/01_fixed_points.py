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
# # Fixed points: what a VAE without limits learns
#
# A variational auto-encoder has an encoder, a decoder and a prior. Usually neural networks limit the encoder and the
# decoder. Without these limits two equations remain. Divide the latent space into tiles $\Omega_a$ of prior mass
# $\pi_a$. The decoder is a constant $\psi_a$ on each tile, and the encoder sends data point $x_i$ to tile $a$ with
# probability $q_{ia}$. At temperature $\beta$, with a Gaussian decoder of variance $\sigma^2$, the objective of the
# $\beta$-VAE is stationary where
#
# $$q_{ia} = \frac{\pi_a\, e^{-\|x_i-\psi_a\|^2/2\sigma^2\beta}}{\sum_b \pi_b\, e^{-\|x_i-\psi_b\|^2/2\sigma^2\beta}},
# \qquad
# \psi_a = \frac{\sum_i \rho_i\, q_{ia}\, x_i}{\sum_i \rho_i\, q_{ia}} .$$
#
# This is Proposition 1 of Rezende and Viola, *Taming VAEs* (T1 and T2 in [the theory](../docs/theory.md)). The first
# equation gives the encoder for a given decoder, the second gives the decoder for a given encoder. **Question: where
# does the iteration of the two equations end, and what does the solution look like?**

# %%
import matplotlib.pyplot as plt
import numpy as np

import constrained_vae as cv

# %% [markdown]
# ## One solution
#
# The data are two hundred points in four clusters, which form two pairs. The tiling has 64 tiles of equal mass.

# %%
data = cv.datasets.four_clusters(seed=0)
tiling = cv.Tiling.uniform(64)
solution = cv.solve(data.x, beta=0.5, tiling=tiling)
solution

# %% [markdown]
# The 64 tiles have only three different reconstructions: at this temperature it does not pay to distinguish the two
# clusters on the right. The rate $R = \mathrm{E}\,\mathrm{KL}(q_i\,\|\,\pi)$ is the cost of the code, the distortion
# $D = \mathrm{E}\,\|x-\psi\|^2$ is the remaining error. To check the solution, evaluate the two equations:

# %%
distance2 = np.square(data.x[:, None] - solution.decoder).sum(axis=2)
q = solution.tiling.masses * np.exp(-distance2 / (2 * solution.beta))
q /= q.sum(axis=1, keepdims=True)
psi = q.T @ data.x / q.sum(axis=0)[:, None]

print(f"encoder: off by at most {abs(q - solution.encoder).max():.0e}")
print(f"decoder: off by at most {abs(psi - solution.decoder).max():.0e}")

# %% [markdown]
# ## The iteration
#
# In this picture the 64 reconstructions start at random positions, and the two equations are iterated in turn. Grey
# lines are the trajectories of the reconstructions, red points are their ends: many tiles end in the same point. A
# reconstruction is a weighted mean of data, so that it always lies in their convex hull. A reconstruction of two
# clusters lies between them, where there are no data. This is why the samples of VAEs are blurred.

# %%
start = np.random.default_rng(0).normal(data.x.mean(axis=0), data.x.std(axis=0), size=(64, 2))
figure, axes = plt.subplots(1, 3, figsize=(8, 2.6), sharex=True, sharey=True, layout="constrained")
for ax, beta in zip(axes, [4.0, 0.5, 0.1], strict=True):
    seen = cv.solve(data.x, beta=beta, tiling=tiling, start=start, accelerate="plain", record=True)
    cv.plotting.reconstructions(seen, ax=ax)
    ax.set_title(rf"$\beta={beta}$: {len(seen.distinct)} reconstructions, {seen.rate:.2f} nats", fontsize=9)
    ax.label_outer()

# %% [markdown]
# Every step lowers the free energy $F = R + D/2\sigma^2\beta$, so that the iteration cannot cycle. But it can be slow,
# in particular near a temperature at which reconstructions split. Therefore L-BFGS, or another method, proposes the
# next point in `solve`, and the plain step replaces proposals that do not lower $F$. The picture is for $\beta = 1.6$,
# one and a half per cent above such a temperature.

# %%
plain, accelerated = [], []
cv.solve(data.x, beta=1.6, tiling=tiling, start=start, accelerate="plain", callback=plain.append)
cv.solve(data.x, beta=1.6, tiling=tiling, start=start, accelerate="lbfgs", callback=accelerated.append)

figure, ax = plt.subplots(figsize=(5, 2.8), layout="constrained")
for name, seen, color in [("plain", plain, "0.5"), ("L-BFGS", accelerated, "#0072B2")]:
    ax.loglog([s.n_maps for s in seen], [s.residual for s in seen], color=color, label=name)
ax.set(ylim=(1e-11, 10), xlabel="evaluations of both equations", ylabel="step of the plain iteration\n(units of $x$)")
_ = ax.legend(frameon=False)

# %% [markdown]
# ## What the encoder does
#
# The rows are data points in the order of their clusters, the columns are distinct reconstructions. The left picture is
# well below the temperature at which the last pair splits: the posterior of every point is concentrated on one
# reconstruction. The right picture is close to that temperature: the posteriors overlap.

# %%
order = np.argsort(data.labels, kind="stable")
figure, axes = plt.subplots(1, 2, figsize=(6, 2.8), sharey=True, layout="constrained")
for ax, beta in zip(axes, [0.1, 0.3], strict=True):
    tied = cv.solve(data.x, beta=beta, tiling=tiling).tied()
    image = ax.imshow(tied.encoder[order], aspect="auto", cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    ax.set(title=rf"$\beta={beta}$", xlabel="reconstruction", xticks=range(len(tied.decoder)))
axes[0].set_ylabel("data point")
_ = figure.colorbar(image, label="posterior mass")

# %% [markdown]
# ## Local minima
#
# The equations have many solutions. A start at random data points, far below the first critical temperature, ends in a
# solution that distributes the tiles badly. Cooling from a high temperature ends in a better solution. The report shows
# the reason: each cluster should have two of the 8 tiles of equal mass, but the posterior masses of some tiles differ
# from their prior masses.

# %%
quenched = cv.solve(data.x, beta=0.1, n_tiles=8, start="data", seed=1)
annealed = cv.sweep(data.x, betas=np.geomspace(12, 0.1, 60), n_tiles=8).at(0.1)
print(f"quenched: F = {quenched.free_energy:.4f} nats\nannealed: F = {annealed.free_energy:.4f} nats")
cv.report(quenched)

# %% [markdown]
# ## Solutions in 64 dimensions
#
# The data are three hundred digits of 8 × 8 pixels; 16 tiles are annealed. At a high temperature all reconstructions
# are the mean of all digits. As the temperature falls, they split into the shapes that the digits have in common. So
# the blur of the pictures grows with the temperature.

# %%
digits = cv.datasets.digits(300)
branch = cv.sweep(digits.x, betas=np.geomspace(1.0, 0.05, 8), n_tiles=16)
shown = [branch[0], branch.at(0.65), branch[-1]]
figure, axes = plt.subplots(3, 1, figsize=(8, 2.4), layout="constrained")
for ax, tiles in zip(axes, shown, strict=True):
    images = tiles.decoder[np.argsort(tiles.distinct.index, kind="stable")].reshape(16, 8, 8)
    ax.imshow(np.hstack(np.pad(images, ((0, 0), (0, 0), (0, 1)))), cmap="gray_r")
    ax.set_title(rf"$\beta={tiles.beta:.2g}$: {len(tiles.distinct)} distinct, {tiles.rate:.2f} nats", fontsize=9)
    ax.set_axis_off()

# %% [markdown]
# ## Answer
#
# The iteration ends at a fixed point, a local minimum of the free energy: its reconstructions are weighted means of
# the data, the free energy never rises on the way, and accelerated maps reach it to ten digits. Tiles share
# reconstructions: at a high temperature all have the mean of the data, at a lower one there are as many as the data
# have groups of that size. At which temperatures they split, the next notebook says,
# [02_phase_transitions](02_phase_transitions.ipynb).
