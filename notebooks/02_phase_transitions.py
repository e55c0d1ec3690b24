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
# When a $\beta$-VAE of high capacity is cooled, its reconstructions split one after another, at critical temperatures.
# **Questions: what are these temperatures, how exactly can they be computed, and do cooling and heating give the same
# solutions?**

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
# `sweep` solves at 240 temperatures. By default they span the transitions of the data, and each solution is the start
# for the next temperature. This is the branch that deterministic annealing follows.

# %%
branch = cv.sweep(data.x, tiling=tiling)
branch

# %% [markdown]
# ## Exact and detected
#
# The paper detects the transitions on the grid: at each transition the expected reconstruction error has a kink, so
# that its second derivative has a peak, and the three highest peaks are taken. The step of the grid limits the
# accuracy. But coincident tiles split exactly where $\sigma^2\beta$ equals the largest eigenvalue of the covariance of
# the data that they share (T9). `transitions` solves this equation to nearly full precision.

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
# The first transition follows from the data without any solution: it is the largest eigenvalue of their covariance.

# %%
print(f"{cv.first_critical_beta(data.x):.10f} = {np.linalg.eigvalsh(np.cov(data.x.T, bias=True))[-1]:.10f}")

# %% [markdown]
# The next picture follows Figure 2 of the paper. Top: data, trajectories of the reconstructions under the plain
# iteration, and the fixed points where these end, at temperatures above, between and below the transitions. Bottom: the
# error with its kinks, and the second derivative with its peaks. Grey lines are the exact critical temperatures,
# triangles the detected ones.

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
# ## A slider for the temperature
#
# With a running kernel and ipywidgets, the slider changes the temperature of the picture. On a static page the picture
# does not change, and the four pictures above show the same. At the highest temperature there is a single
# reconstruction. On cooling, first the left and the right pair of clusters separate, then the two clusters on the left,
# and then the two clusters on the right.

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
# ## The branch as a tree
#
# The picture shows heating, from left to right: the four reconstructions at the lowest temperature, and the
# temperatures at which they merge. It is a dendrogram of the data that needs no choice of a linkage rule.

# %%
figure, ax = plt.subplots(figsize=(5, 2.4), layout="constrained")
_ = cv.plotting.merging_tree(branch, critical, ax=ax)

# %% [markdown]
# ## Hysteresis
#
# The four clusters are symmetric, so that their transitions are continuous. Skew data have first-order transitions, in
# which the solution jumps (T13). The example has points of an exponential distribution and free prior masses of the
# tiles. On cooling, the collapsed solution remains until it becomes unstable, at the variance of the data. On heating,
# the split solution remains to a higher temperature, until its smaller part has lost all its mass. Between the two
# temperatures there are two stable solutions, and the direction of the sweep decides which one is found. Both ends of
# this interval follow from the data alone: the lower end from the covariance, the upper end from the cumulants (T16).

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
# The distortion on cooling (dashed) equals the variance in the whole shaded interval and falls at its lower end. On
# heating it returns to the variance at the upper end, at the temperature printed above. The global optimum is the
# solution of lower free energy; `rate_distortion` finds it, in [05_frontier](05_frontier.ipynb).

# %% [markdown]
# ## Answer
#
# The critical temperatures are those at which the covariance of the data of a reconstruction has the eigenvalue
# $\sigma^2\beta$ (T9), and `transitions` computes them to solver precision; the detection of the paper gives them to
# a step of its grid. Cooling and heating give the same solutions at continuous transitions. At a first-order one they
# differ in an interval that is known beforehand.
