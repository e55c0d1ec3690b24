"""Figure 3 with image models: the way of GECO through the information plane, with and without a context."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis import _command, _image_runs, _image_training, _training
from analysis._image_runs import Runs
from analysis._image_training import TITLES, Job

_COLORS = ("black", "#0072B2", "#D55E00")  # of Okabe and Ito, in the order of the models
_STYLES = ("-", "--", ":")
_WAY = ("distortion", "kl", "beta", "rms")
_CONTEXT = {"rotate": ", with its context", "turned": ", without a context"}
_NEAR = 0.03  # relative distance of errors from kappa up to which their difference is taken off along the slope
_START = 1.0  # equivalent beta of the first step: the ELBO with sigma = kappa


def run(args: argparse.Namespace) -> int:
    """The command; the exit code."""
    others = {".json": _image_runs.write_settings}
    return _command.run("figure3", lambda: compute(args), args.out, draw, table, others)


def compute(args: argparse.Namespace) -> _command.Computed:
    """Every array of the figure, and its settings with the records of all runs."""
    task, kappa = _image_training.task_name(args.data), 0.1 if args.kappa is None else args.kappa
    families = _image_training.families(args)
    wanted = [Job(family, "GECO", kappa, kappa, args.seed, args.steps, task, _START) for family in families]
    if args.compare:
        if task != "rotate":
            raise ValueError(f"--compare wants data with a context such as mnist-rotate, got {args.data}")
        wanted += [dataclasses.replace(job, task="turned") for job in wanted]
    data = _image_training.images(args.data, args.size, args.n)
    runs = Runs.of(args)
    found = [(job, result) for job, result in runs.results(data, wanted).items()]
    arrays: _command.Arrays = {name: np.stack([result.arrays[name] for _, result in found]) for name in _WAY if found}
    metrics = [result.metrics for _, result in found]
    most = max((len(m["rates"]) for m in metrics), default=0)
    arrays |= {name: np.array([m[name] for m in metrics]) for name in ("rate", "rate_error", "status", "multiplier")}
    arrays |= {
        "names": np.array([TITLES[job.family] + _CONTEXT.get(job.task, "") for job, _ in found], dtype=str),
        "final_rms": np.array([m["rms"] for m in metrics]),
        "first_met": np.array([m["first_met"] or 0 for m in metrics]),
        "rates": np.array([m["rates"] + [np.nan] * (most - len(m["rates"])) for m in metrics]),
        "missing": np.array(runs.missing, dtype=str),
        "steps": found[0][1].arrays["steps"] if found else np.empty(0),
        "kappa": np.array(kappa),
        "dim": np.array(_image_training.dim(data, task)),
    }
    return arrays, runs.settings(data, [args.seed], steps=args.steps, n_points=len(data), kappa=kappa)


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    dim, kappa, steps = int(arrays["dim"]), float(arrays["kappa"]), arrays["steps"]
    names, squared = arrays["names"], int(arrays["dim"]) * arrays["final_rms"] ** 2
    with plt.rc_context(_command.STYLE | {"font.size": 7}):
        figure = plt.figure(figsize=(3.5, 5.2), layout="constrained")
        axes = figure.subplot_mosaic([["plane", "plane"], ["rms", "kl"], ["beta", "rates"]], height_ratios=[1.6, 1, 1])
        plane, rates = axes["plane"], axes["rates"]
        for r, name in enumerate(names):
            style: dict[str, Any] = {"color": _COLORS[r % 3], "ls": _STYLES[r % 3], "lw": 1.0}
            lines = _training.coloured(plane, arrays["distortion"][r], arrays["kl"][r], steps)
            ring: dict[str, Any] = {"marker": "os^"[r % 3], "ms": 5.5, "mfc": "none", "mec": style["color"], "mew": 1.2}
            plane.plot(squared[r], arrays["rate"][r], **ring, ls="none", label=f"{name}, trained", zorder=4)
            for panel in ("rms", "kl", "beta"):
                axes[panel].plot(steps, arrays[panel][r], **style)
            T = np.isfinite(arrays["rates"][r]).sum()
            place = np.arange(1, T + 1) + 0.36 * (r - (len(names) - 1) / 2)
            rates.bar(place, arrays["rates"][r, :T], 0.34, color=style["color"])
            rates.set_xticks(np.arange(1, T + 1))
        plane.axvline(dim * kappa**2, color="0.4", ls="--", lw=0.8, label=r"constraint $\kappa$")
        plane.set(xscale="log", xlabel=r"squared error of an image  $\mathrm{E}\,\|x-g(z)\|^2$", ylabel="KL  (nats)")
        _training.plain(plane.xaxis)
        plane.set_ylim(0, 1.08 * arrays["kl"].max())
        axes["rms"].axhline(kappa, color="0.4", ls="--", lw=0.8)
        axes["rms"].set(ylabel="error per pixel, rms", yscale="log")
        axes["kl"].set(ylabel="KL  (nats)", ylim=(0, None))
        axes["beta"].axhline(1, color="0.4", ls="--", lw=0.8)
        axes["beta"].set(ylabel=r"equivalent $\beta$  ($\sigma=\kappa$)")
        _training.plain(axes["rms"].yaxis)
        for panel in ("rms", "kl", "beta"):
            axes[panel].set(xscale="log", xlabel="step of training", xlim=(steps[0], steps[-1]))
        rates.set(xlabel="step of the model", ylabel="KL of the step  (nats)")
        figure.legend(loc="outside upper center", ncols=1, frameon=False, fontsize=6, handlelength=1.6)
        bar = figure.colorbar(lines, ax=plane, pad=0.02, aspect=25)
        bar.set_label("step of training")
        bar.outline.set_visible(False)
    return figure


def table(arrays: _command.Arrays) -> str:
    """The trained models; of two of them, the difference at the same error."""
    kappa, dim = float(arrays["kappa"]), int(arrays["dim"])
    head = f"{'':30}{'error / kappa':>14}{'KL':>18}{'lambda':>9}{'least beta':>11}{'first met':>10}  constraint"
    lines = [head]
    for r, name in enumerate(arrays["names"]):
        rate = f"{arrays['rate'][r]:.2f} +- {arrays['rate_error'][r]:.2f}"
        lines.append(
            f"{name:30}{arrays['final_rms'][r] / kappa:>14.4f}{rate:>18}{arrays['multiplier'][r]:>9.4g}"
            f"{arrays['beta'][r].min():>11.3f}{arrays['first_met'][r] or '-':>10}  {arrays['status'][r]}"
        )
    if len(arrays["names"]) == 2 and (np.abs(arrays["final_rms"] / kappa - 1) < _NEAR).all():
        squared, slope = dim * arrays["final_rms"] ** 2, arrays["multiplier"].mean()
        less = np.diff(arrays["rate"] + slope * squared)[0]  # dKL/dD = -lambda
        lines.append(f"at the same error the first has {less:.2f} nats less than the second, by the slope lambda")
    return "\n".join([*lines, *(f"not computed: {name}" for name in arrays["missing"])])
