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
# # Spectral clustering and the partition of a VAE
#
# Data points whose posteriors overlap share reconstructions. Go from a point to a tile with probability $q_{ia}$, and
# from the tile back to a point with probability $\rho_j q_{ja}/m_a$. This is a random walk $P$ over the data (T18), and
# spectral clustering uses the leading eigenvectors of such matrices. **Questions: is the partition by reconstructions
# the same as that of spectral clustering? Do the eigenvalues of $P$ show the number of clusters? For which data do the
# partitions differ?**

# %%
import matplotlib.pyplot as plt
import numpy as np

import constrained_vae as cv

# %% [markdown]
# ## The first split is spectral
#
# At the first transition the data are divided along the leading eigenvector of their Gram matrix, which is the spectral
# relaxation of 2-means (T19). The picture is for six hundred digits. It compares the posterior log odds of two tiles
# just below the transition with that eigenvector, computed by a singular value decomposition. Their signs agree for
# every point.

# %%
digits = cv.datasets.digits(600)
split = cv.first_split(digits.x)
figure, ax = plt.subplots(figsize=(4, 2.8), layout="constrained")
ax.axhline(0, color="0.8", lw=0.8)
ax.axvline(0, color="0.8", lw=0.8)
ax.plot(split.coordinate, split.log_odds, ".", ms=3, color="#0072B2")
ax.set(
    xlabel="leading eigenvector of the Gram matrix",
    ylabel="log odds of two tiles (nats)",
    title=f"same side: {split.agreement:.1%} of the points",
)
ax.title.set_fontsize(9)

# %% [markdown]
# ## Four clusters, along the branch
#
# The partition of the solution assigns every point to its most probable reconstruction. On the plateaus between
# transitions it is compared with scikit-learn's `SpectralClustering` for the same number of clusters, with two
# affinities: the walk, $\mathrm{diag}(\rho)P$, and the Gaussian kernel of the same temperature. An adjusted Rand index
# of 1 means that the partitions are equal.

# %%
data = cv.datasets.four_clusters(seed=0)
tiling = cv.Tiling.uniform(64)
branch = cv.sweep(data.x, betas=np.geomspace(12, 0.1, 80), tiling=tiling)
plateaus = [branch.at(beta) for beta in (4.0, 0.6, 0.15)]
for solution in plateaus:
    print(cv.compare_spectral(solution))

# %% [markdown]
# The next picture shows the eigenvalues of $P$ along the branch. One eigenvalue is always 1; at every transition
# another one grows from 0. The position of the largest gap between neighbouring eigenvalues counts the reconstructions
# as soon as the new eigenvalue is above one half. This happens some distance below the transition, when the two parts
# hardly overlap any longer. In the shaded intervals the count is still too small.

# %%
along = cv.compare_spectral(branch, n_clusters=4, affinities=[], labels=data.labels)
lagging = along.eigengap_k < along.n_distinct
figure, axes = plt.subplots(2, 1, figsize=(5, 4), sharex=True, layout="constrained")
for transition in cv.transitions(data.x, tiling=tiling):
    for ax in axes:
        ax.axvline(transition.beta, color="0.7", lw=1, zorder=0)
axes[0].fill_between(along.betas, 0, 1, where=lagging, color="#F0E442", alpha=0.5, lw=0, step="mid")
axes[0].plot(along.betas, along.eigenvalues, color="black", lw=1.2)
axes[0].set(ylabel="eigenvalues of $P$")
axes[1].plot(along.betas, along.n_distinct, color="black", lw=1.2, label="distinct reconstructions")
axes[1].plot(along.betas, along.eigengap_k, "--", color="#D55E00", lw=1.4, label="clusters by the eigengap")
axes[1].set(xscale="log", xlabel=r"temperature $\beta$", ylabel="count", yticks=range(1, 5))
_ = axes[1].legend(frameon=False, fontsize=8)

# %% [markdown]
# ## Where the partitions differ
#
# Squared error does not measure connectivity. The example is a partition of two moons into two parts. The border
# between the two tiles is a straight line through both moons, as for k-means. Spectral clustering with the walk of the
# solution has the same border, since points are near in the walk only if they share a reconstruction. Spectral
# clustering with a narrow Gaussian kernel separates the moons, because this kernel connects a point only with its close
# neighbours.

# %%
moons = cv.datasets.moons()
two = cv.solve(moons.x, beta=0.02, n_tiles=2)
cut = cv.compare_spectral(two, n_clusters=2, labels=moons.labels)
names = {"solution": "two tiles", "posterior": "spectral, walk", "rbf": "spectral, kernel", "kmeans": "k-means"}
figure, axes = plt.subplots(1, 4, figsize=(8, 1.9), sharex=True, sharey=True, layout="constrained")
for ax, (name, title) in zip(axes, names.items(), strict=True):
    ax.scatter(*moons.x.T, c=np.array(["#0072B2", "#D55E00"])[cut.partitions[name]], s=4)
    ax.set(title=f"{title}\nARI with the moons {cut.true_ari[name]:.2f}", aspect="equal", xticks=[], yticks=[])
    ax.title.set_fontsize(9)

# %% [markdown]
# Tiles can separate the moons in a space of suitable features. For a decoder in the space of random Fourier features,
# which approximate a Gaussian kernel, the theory is the same with $f(x)$ in place of $x$. With the right width of the
# kernel the annealed tiles separate the moons, as kernel spectral clustering does. With other widths they do not
# (`make spectral` tries several widths).

# %%
features = cv.FourierFeatures.random(2, 256, gamma=1 / (2 * 0.25**2))(moons.x)
betas = np.geomspace(1.05, 0.3, 6) * cv.first_critical_beta(features)
kernel = cv.sweep(features, betas=betas, n_tiles=2)[-1]
apart = cv.compare_spectral(kernel, n_clusters=2, affinities=["posterior"], labels=moons.labels)
figure, ax = plt.subplots(figsize=(2.6, 1.9), layout="constrained")
ax.scatter(*moons.x.T, c=np.array(["#0072B2", "#D55E00"])[apart.partitions["solution"]], s=4)
ax.set(title=f"two tiles, feature space\nARI with the moons {apart.true_ari['solution']:.2f}", aspect="equal")
ax.set(xticks=[], yticks=[])
ax.title.set_fontsize(9)

# %% [markdown]
# So a VAE that is trained on the squared error of pixels clusters its data like k-means with soft borders. Other
# groupings come from its features or from the limits of its networks, not from the objective.

# %% [markdown]
# ## Answer
#
# At the first transition the partition is that of the leading eigenvector. After it, partition and eigengap agree
# with spectral clustering where clusters are compact and the temperature is on a plateau. They differ for shapes such
# as rings and moons, on which the squared error cannot follow the cluster; in suitable features it can.
