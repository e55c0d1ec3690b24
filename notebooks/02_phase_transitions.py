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
# # Phase transitions: where reconstructions split
#
# As a $\beta$-VAE of high capacity is cooled, nothing happens for a while, and then a reconstruction splits.
# **Questions: at which temperatures, how exactly can they be known, and does it matter from which side one comes?**

# %%
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

import constrained_vae as cv
from constrained_vae.phases.peaks import second_derivative

data = cv.datasets.four_clusters(seed=0)
tiling = cv.Tiling.uniform(64)

# %% [markdown]
# ## Cooling
#
# `sweep` solves at 240 temperatures, by default those between which the data have their own transitions, each from the
# solution before it. This is the branch that deterministic annealing follows.

# %%
branch = cv.sweep(data.x, tiling=tiling)
branch

# %% [markdown]
# ## Exact and detected
#
# The paper finds the transitions in a picture: at each of them the expected reconstruction error has a kink, so its
# second derivative has a peak, and the three highest are taken. That is as good as the grid. But coincident tiles part
# exactly where $\sigma^2\beta$ equals the largest eigenvalue of the covariance of the data that they share (T9), and
# that is an equation, which `transitions` solves to the last digits.

# %%
found = cv.transitions(data.x, tiling=tiling)
peaks = branch.peaks(k=3)

print("      exact beta  kind         reconstructions    detected    off by   grid step")
for i, j in cv.match_peaks(peaks, found):
    exact, peak = found[j], peaks[i]
    print(
        f"{exact.beta:16.10f}  {exact.kind}   {exact.n_before} to {exact.n_after}        {peak.beta:12.4f}"
        f"{peak.beta / exact.beta - 1:10.1%}{peak.bracket[1] / peak.beta - 1:10.1%}"
    )

# %% [markdown]
# The first of them needs no solution at all, only the top eigenvalue of the covariance of the data:

# %%
print(f"{cv.first_critical_beta(data.x):.10f} = {np.linalg.eigvalsh(np.cov(data.x.T, bias=True))[-1]:.10f}")

# %% [markdown]
# Now the picture itself, after Figure 2 of the paper. Above: data, the way of the reconstructions under the plain
# iteration, and the fixed points where it ends, at temperatures above, between and below the transitions. Below: the
# error with its kinks, and the second derivative with its peaks; grey lines are the exact temperatures, triangles the
# detected ones.

# %%
start = np.random.default_rng(0).normal(data.x.mean(axis=0), data.x.std(axis=0), size=(64, 2))
critical = [t.beta for t in found]
figure = plt.figure(figsize=(8, 4.6), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=[1.7, 2.9])
axes = top.subplots(1, 4, sharex=True, sharey=True)
for ax, beta in zip(axes, [12.0, 4.0, 0.7, 0.1], strict=True):
    seen = cv.solve(data.x, beta=beta, tiling=tiling, start=start, accelerate="plain", record=True)
    cv.plotting.reconstructions(seen, ax=ax)
    ax.set(title=rf"$\beta={beta}$", xlabel="$x_1$", ylabel="$x_2$")
    ax.label_outer()
left, right = bottom.subplots(1, 2)
ascending = cv.Branch(branch.solutions[::-1], "up")
cv.plotting.distortion(ascending.betas, ascending.distortion, critical, [peak.beta for peak in peaks], ax=left)
curvature = second_derivative(ascending.betas, ascending.distortion)
_ = cv.plotting.second_derivative(
    ascending.betas, curvature, [(peak.beta, peak.height) for peak in peaks], critical, ax=right
)

# %% [markdown]
# ## Cool it yourself
#
# With a running kernel and ipywidgets the slider moves the picture; on a page the picture stays at the temperature at
# which it was drawn, and the four above say the same. At the top there is a single reconstruction; first the left and
# the right pair part, then the two clusters on the left, then those on the right.

# %%
canvas, panel = plt.subplots(figsize=(5, 2.6), layout="constrained")
plt.close(canvas)  # displayed by hand, so that it can be redrawn
picture = display(canvas, display_id=True)


def redraw(beta):
    shown = branch.at(beta)
    panel.clear()
    cv.plotting.reconstructions(shown, ax=panel)
    panel.set_title(rf"$\beta={beta:.3g}$: {len(shown.distinct)} reconstructions, {shown.rate:.2f} nats", fontsize=9)
    picture.update(canvas)


redraw(branch.at(1.0).beta)
try:
    import ipywidgets
except ImportError:
    print("With ipywidgets there is a slider here.")
else:
    temperatures = [(f"{beta:.3g}", float(beta)) for beta in branch.betas]
    slider = ipywidgets.SelectionSlider(options=temperatures, value=branch.at(1.0).beta, description="β")
    slider.observe(lambda change: redraw(change["new"]), names="value")
    display(slider)

# %% [markdown]
# ## The same as a tree
#
# Read from left to right, heating: the four reconstructions at the lowest temperature, and where they become one. That
# is a dendrogram of the data, which no linkage rule was chosen for.

# %%
figure, ax = plt.subplots(figsize=(5, 2.4), layout="constrained")
_ = cv.plotting.merging_tree(branch, critical, ax=ax)

# %% [markdown]
# ## Where the past matters
#
# The four clusters are symmetric, so their transitions are continuous. Skew data jump (T13): take points spread like an
# exponential distribution, and let the prior masses of the tiles be free. On cooling, the collapsed solution lasts
# until it is unstable, at the variance of the data. On heating, the split one lasts longer, until its minority has lost
# all its mass. Between the two temperatures there are two stable solutions, and which one is found depends on the past.
# Both ends follow from the data alone, the lower from the covariance and the upper from the cumulants (T16).

# %%
skew = cv.datasets.exponential(400)
low, high = cv.hysteresis_interval(skew.x)
options = {"tiling": cv.Tiling.uniform(16), "masses": "free"}
(jump,) = cv.transitions(skew.x, beta_range=(0.9 * low, 2 * high), limit=1, **options)
print(f"predicted: cooling jumps at {low:.6f}, heating returns at {high:.6f}")
print(f"followed:  cooling jumps at {jump.beta:.6f}, heating returns at {jump.heating_end:.6f}")

cooling, heating = cv.sweep(skew.x, betas=np.geomspace(0.8 * low, 1.25 * high, 80), direction="both", **options)
figure, ax = plt.subplots(figsize=(5, 2.8), layout="constrained")
curves = (np.stack([part.betas, part.distortion], axis=1) for part in (cooling, heating))
cv.plotting.hysteresis(*curves, interval=(low, high), heating_end=jump.heating_end, ax=ax)
_ = ax.legend(frameon=False, fontsize=8)

# %% [markdown]
# The distortion on cooling (dashed) stays at the variance through all of the shaded interval and falls at its lower
# end; on heating it returns at the upper end, to the digits printed above. The optimum takes the lower of the two free
# energies: `rate_distortion` finds it, in [05_frontier](05_frontier.ipynb).
