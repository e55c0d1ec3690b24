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
# # Image models: a network that draws in steps, under a constraint
#
# ConvDRAW is the image model of *Taming VAEs*. It draws an image on a canvas in several steps, and each step has a code
# of its own. The prior of a step knows the steps before, so that it can expect what comes next. **Questions: which path
# does GECO take through the plane of error and rate? How do the steps share the information? And does the network need
# fewer nats than the best linear code?** This notebook needs PyTorch, `pip install 'constrained-vae[torch]'`, and
# takes about a minute.

# %%
import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import torch

import constrained_vae as cv
from constrained_vae.image_models import ConvDRAW, train
from constrained_vae.testing.closed_forms import water_filling

torch.set_num_threads(1)  # so small convolutions are no faster on several
digits = cv.datasets.digits()
training, test = (
    dataclasses.replace(digits, x=digits.x[part], labels=None) for part in np.split(np.arange(1797), [1500])
)
print(training, test)

# %% [markdown]
# ## Training
#
# The digits have 8 × 8 pixels from 0 to 1. The constraint asks for a mean squared error of at most 0.15² per pixel. The
# model draws in four steps, each with a code of two maps of 4 × 4 places. Nothing is tuned: $\lambda$ starts at the
# slope of the best linear code at this error, and its step size follows from the damping rule.

# %%
kappa = 0.15
model = ConvDRAW((1, 8, 8), hidden_channels=12, latent_channels=2, steps=4, stride=2)
run = train(training, cv.RE(kappa, reduction="mean"), model=model, steps=1000, learning_rate=4e-3, device="cpu")
run

# %% [markdown]
# ## The path through the plane
#
# Left: the means of the batches against the step of training. Right: the same as a path in the plane of error and rate.
# It begins at the mean image, with a rate of 0 and the largest error. The error falls as the network learns to use its
# codes, and the path ends where the constraint (dotted) is just met: there $\lambda$ keeps it. The black line is the
# best linear code, reverse water-filling of the covariance: no linear VAE is below it.

# %%
eigenvalues = np.linalg.eigvalsh(np.cov(training.x.T, bias=True)).clip(1e-12)
linear = np.array([water_filling(eigenvalues, theta) for theta in np.geomspace(0.01, eigenvalues[-1], 100)])
history = run.history
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
cv.plotting.training(history, ax=axes[0])
axes[0].legend(frameon=False, fontsize=8)
axes[1].plot(np.sqrt(linear[:, 0] / 64), linear[:, 1], color="black", lw=1, label="best linear code")
path = axes[1].scatter(np.sqrt(history.per_dimension), history.kl, c=history.steps, s=4, cmap="viridis")
axes[1].axvline(kappa, color="0.6", ls=":")
axes[1].set(xlabel="root mean squared error per pixel", ylabel="KL  (nats)", xlim=(0.1, 0.3), ylim=(0, 25))
figure.colorbar(path, label="step of training")
_ = axes[1].legend(frameon=False, fontsize=8)

# %% [markdown]
# ## The steps
#
# The KL of each step is exact, given the codes of the steps before it. The steps share the information unevenly: the
# last one adds the least. No step is idle.

# %%
smooth = np.apply_along_axis(np.convolve, 0, history.kl_of_steps, np.full(20, 1 / 20), "valid")
figure, ax = plt.subplots(figsize=(5, 2.8), layout="constrained")
ax.stackplot(np.arange(len(smooth)), smooth.T, labels=[f"step {t}" for t in (1, 2, 3, 4)])
ax.set(xlabel="step of training", ylabel="KL  (nats)", ylim=(0, 16))
_ = ax.legend(frameon=False, fontsize=8, ncols=4, loc="upper right")

# %% [markdown]
# ## New images, and the best linear code
#
# The 297 test digits were not used in training. If their numbers are equal to those of the training digits, nothing was
# learned by heart. The gap is the rate of the model less that of the best linear code at the same error.

# %%
for name, seen in (("training", run.evaluation), ("test", run.evaluate(test))):
    by_step = " + ".join(f"{rate:.2f}" for rate in seen.rates)
    print(f"{name:8s} rate {seen.rate:.2f} = {by_step} nats, error {np.sqrt(seen.per_dimension):.4f}^2 per pixel")
place = run.excess_over_linear()
print(f"above the best linear code {place.gap:.2f} +- {place.error:.2f} nats")
print(f"lambda of the model {place.multiplier:.2f}, slope of the linear code {place.slope:.2f}")

# %% [markdown]
# So short a training of so small a network ends above the best linear code. With wider maps and more steps of training
# the gap is smaller.
#
# ## Reconstructions and samples
#
# Top: test digits. Middle: their reconstructions from sampled codes, as blurred as the threshold allows. Bottom:
# samples of the model, whose codes are drawn from the prior, step after step. Some of them are no digits: these codes
# are likely under the prior, and hardly any digit uses them.

# %%
shown, drawn = run.reconstruct(12, test)
figure, axes = plt.subplots(3, 12, figsize=(9, 2.4), layout="constrained")
for row, images in zip(axes, (shown, drawn, run.sample(12)), strict=True):
    for ax, image in zip(row, images, strict=True):
        ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
for ax, label in zip(axes[:, 0], ("test", "drawn", "samples"), strict=True):
    ax.set_ylabel(label)

# %% [markdown]
# The same on MNIST, from the command line, with a checkpoint on the way:
#
# ```
# constrained-vae train MNIST --model convdraw --kappa 0.1 --per-dimension --size 16 --out run.pt --plot run.png
# ```

# %% [markdown]
# ## Answer
#
# GECO lets the error fall at a rate that grows from zero, and ends where the constraint is just met. The steps share
# the information unevenly, the last one adds the least, and none is idle. So short a training does not beat the best
# linear code: the network spends more nats at the same error.
