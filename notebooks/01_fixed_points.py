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
# A variational auto-encoder has an encoder, a decoder and a prior, and networks limit what the first two can be. Take
# these limits away, and what is left are two equations. Cut the latent space into tiles $\Omega_a$ of prior mass
# $\pi_a$, let the decoder be any constant $\psi_a$ on each of them, and let the encoder say with what probability
# $q_{ia}$ data point $x_i$ is sent to tile $a$. At temperature $\beta$ (and with a Gaussian decoder of variance
# $\sigma^2$) the $\beta$-VAE's objective is stationary where
#
# $$q_{ia} = \frac{\pi_a\, e^{-\|x_i-\psi_a\|^2/2\sigma^2\beta}}{\sum_b \pi_b\, e^{-\|x_i-\psi_b\|^2/2\sigma^2\beta}},
# \qquad
# \psi_a = \frac{\sum_i \rho_i\, q_{ia}\, x_i}{\sum_i \rho_i\, q_{ia}} .$$
#
# This is Proposition 1 of Rezende and Viola, *Taming VAEs* (T1 and T2 in the README): given the decoder the first gives
# the encoder, given the encoder the second gives the decoder. **Question: where does that end, and what does it look
# like?**

# %%
import matplotlib.pyplot as plt
import numpy as np

import constrained_vae as cv

# %% [markdown]
# ## One solution
#
# Two hundred points in four clusters, two pairs of them, and 64 tiles of equal mass.

# %%
data = cv.datasets.four_clusters(seed=0)
tiling = cv.Tiling.uniform(64)
solution = cv.solve(data.x, beta=0.5, tiling=tiling)
solution

# %% [markdown]
# Sixty-four tiles, and only three different reconstructions: at this temperature it does not pay to tell the two
# clusters on the right apart. The rate says what the code costs, $R = \mathrm{E}\,\mathrm{KL}(q_i\,\|\,\pi)$; the
# distortion what it leaves, $D = \mathrm{E}\,\|x-\psi\|^2$. That this is a solution can be seen by writing the two
# equations down:

# %%
distance2 = np.square(data.x[:, None] - solution.decoder).sum(axis=2)
q = solution.tiling.masses * np.exp(-distance2 / (2 * solution.beta))
q /= q.sum(axis=1, keepdims=True)
psi = q.T @ data.x / q.sum(axis=0)[:, None]

print(f"encoder: off by at most {abs(q - solution.encoder).max():.0e}")
print(f"decoder: off by at most {abs(psi - solution.decoder).max():.0e}")

# %% [markdown]
# ## How it gets there
#
# The picture starts the 64 reconstructions anywhere among the data and iterates the two equations, one after the other.
# Grey is the way that each of them takes, red is where it ends: tiles run together. A reconstruction is a weighted mean
# of data, so it always lies inside their convex hull. One that stands for two clusters lies between them, where there
# is no data at all: that is why the samples of VAEs are blurred.

# %%
start = np.random.default_rng(0).normal(data.x.mean(axis=0), data.x.std(axis=0), size=(64, 2))
figure, axes = plt.subplots(1, 3, figsize=(8, 2.6), sharex=True, sharey=True, layout="constrained")
for ax, beta in zip(axes, [4.0, 0.5, 0.1], strict=True):
    seen = cv.solve(data.x, beta=beta, tiling=tiling, start=start, accelerate="plain", record=True)
    cv.plotting.reconstructions(seen, ax=ax)
    ax.set_title(rf"$\beta={beta}$: {len(seen.distinct)} reconstructions, {seen.rate:.2f} nats", fontsize=9)
    ax.label_outer()

# %% [markdown]
# Every step lowers the free energy $F = R + D/2\sigma^2\beta$, so the iteration never goes in circles; but it can be
# slow, and the slower the nearer to a temperature at which reconstructions part. `solve` therefore lets L-BFGS or
# another method propose the next point and falls back on the plain step where a proposal does not lower $F$. The
# picture is for $\beta = 1.6$, one and a half per cent above such a temperature.

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
# Rows are data points in the order of their clusters, columns the distinct reconstructions. On the left, well below the
# temperature at which the last pair parts, every point has its reconstruction; on the right, close to that temperature,
# posteriors overlap.

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
# The equations have many solutions. A start at random data points, far below the first critical temperature, ends in
# one where tiles are shared out badly; cooling from a high temperature ends in a better one. The report names what went
# wrong: 8 tiles of equal mass, of which the clusters should have two each, do not all have what their prior mass
# promises.

# %%
quenched = cv.solve(data.x, beta=0.1, tiling=cv.Tiling.uniform(8), start="data", seed=1)
annealed = cv.sweep(data.x, betas=np.geomspace(12, 0.1, 60), tiling=cv.Tiling.uniform(8)).at(0.1)
print(f"quenched: F = {quenched.free_energy:.4f} nats\nannealed: F = {annealed.free_energy:.4f} nats")
cv.report(quenched)

# %% [markdown]
# ## The same in 64 dimensions
#
# Three hundred digits of 8 × 8 pixels and 16 tiles, annealed. At a high temperature the reconstructions of all tiles
# are the mean of all digits; as it falls, they part into what the digits have in common. In pictures, blur is a
# temperature.

# %%
digits = cv.datasets.digits(300)
branch = cv.sweep(digits.x, betas=np.geomspace(1.0, 0.05, 8), tiling=cv.Tiling.uniform(16))
shown = [branch[0], branch.at(0.65), branch[-1]]
figure, axes = plt.subplots(3, 1, figsize=(8, 2.4), layout="constrained")
for ax, tiles in zip(axes, shown, strict=True):
    images = tiles.decoder[np.argsort(tiles.distinct.index, kind="stable")].reshape(16, 8, 8)
    ax.imshow(np.hstack(np.pad(images, ((0, 0), (0, 0), (0, 1)))), cmap="gray_r")
    ax.set_title(rf"$\beta={tiles.beta:.2g}$: {len(tiles.distinct)} distinct, {tiles.rate:.2f} nats", fontsize=9)
    ax.set_axis_off()

# %% [markdown]
# At which temperatures do they part, and how exactly can that be known? That is the next notebook,
# [02_phase_transitions](02_phase_transitions.ipynb).
