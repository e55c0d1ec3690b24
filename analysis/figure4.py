"""Figure 4 of *Taming VAEs*: ELBO, ELBO with a hand-annealed beta, and GECO in the information plane.

    python -m analysis.figure4 [--data digits|mnist|four_clusters|PATH] [--n N] [--kappas RMS,RMS,...] [--seeds S] ...

Top: root mean square error per pixel and KL of trained models on all data, with sampled codes: means over seeds, and a
dot for each seed. The constraint of GECO is an error of kappa. The ELBO has a decoder with sigma = kappa, the obvious
choice by hand. The annealed ELBO ends with the same sigma, which falls from 2 / 0.7 times this value in the first half
of training, as in GQN (Eslami et al. 2018). Bottom: the error of the trained model over kappa. Writes PNG, PDF and an
.npz of every plotted array with its settings.

The default is all digits, five kappas, two seeds and 12000 steps of a network 64-64-64-32, which takes about four
minutes. `--data mnist --seeds 1` takes half an hour.

With `--model` image models in PyTorch are compared, which learn MNIST of 16 x 16 pixels:

    python -m analysis.figure4 --model vae,vae-nvp,convdraw [--data mnist|mnist-rotate|colour-mnist|PATH] [--jobs 2] ...

The points are of the images of training, a tenth is held out for the table; the grey curve is the best linear VAE. beta
is annealed for ConvDRAW alone, over a tenth of the steps as in GQN. Reconstructions and samples of the models of GECO
are a second picture. For three kappas and 3000 steps these are 21 runs, 35 minutes of one core. Each run is kept in the
folder --runs: a finished one is read, an interrupted one is continued, and --budget sets a time after which no further
one starts. The settings, the metrics and the versions of all runs are written beside the figure, as .json.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from tqdm.auto import tqdm

import constrained_vae as cv
from analysis import _command, _image_training, _training
from constrained_vae.cli.data_options import choice_of

METHODS = ("GECO", "ELBO", "annealed")
_STEPS, _SEEDS = 12_000, 2
_GQN = (2.0 / 0.7) ** 2  # ratio of the variances of GQN at the beginning and at the end
_SAMPLES = 4  # smallest number of codes per point for the evaluation of a trained model
_QUANTITIES = ("rms", "rms_error", "rate", "marginal_kl", "multiplier")


def main(argv: Sequence[str] | None = None) -> int:
    options = _training.parser("figure4", __doc__, steps=_STEPS, seeds=_SEEDS)
    _training.add_data(options, "digits", "all")
    text = "allowed root mean square errors per pixel, separated by commas"
    options.add_argument(
        "--kappas", default=",".join(map(str, _training.KAPPAS)), help=text + " (default: the paper's)"
    )
    text = "with --model, the methods that are compared, separated by commas"
    options.add_argument("--methods", default=",".join(METHODS), help=text + " (default: all)")
    args = _image_training.parsed(options, "figure4", argv, data="mnist", seeds=1, steps=_image_training.STEPS)
    if args.model is not None:
        from analysis import _image_figure4

        return _image_figure4.run(args)

    def work() -> _command.Computed:
        return compute(
            _training.data_set(args.data, args.n, choice_of(args)),
            kappas=_training.numbers("--kappas", args.kappas),
            steps=args.steps,
            seeds=_training.seeds_from(args.seed, args.seeds),
            progress=not args.quiet,
        )

    return _command.run("figure4", work, args.out, draw, table)


def compute(
    data: cv.datasets.DataSet,
    *,
    kappas: Sequence[float] = _training.KAPPAS,
    steps: int = _STEPS,
    seeds: Sequence[int] = range(_SEEDS),
    progress: bool = False,
) -> _command.Computed:
    """Every array of the figure, and its settings. After Ctrl-C the arrays are those computed so far."""
    network = _training.network(data)
    found = {name: np.full((len(METHODS), len(kappas), len(seeds)), np.nan) for name in _QUANTITIES}
    status = np.full(found["rms"].shape, "", dtype="U11")
    interrupted = False
    runs = list(itertools.product(enumerate(seeds), enumerate(kappas), enumerate(METHODS)))
    try:
        for (s, seed), (k, kappa), (m, method) in tqdm(runs, disable=not progress, desc="training", unit="run"):
            constraint = cv.RE(kappa, reduction="mean")
            objective = objective_of(method, steps)
            run = _training.trained(data.x, constraint, sigma=kappa, steps=steps, seed=seed, **objective, **network)
            seen = run.evaluate(samples=_training.samples(len(data), _SAMPLES))
            rms = np.sqrt(seen.distortion / data.x.shape[1])
            total = (1 / (2 * kappa**2 * run.history.tail().equivalent_beta)).mean()
            values = (rms, rms * seen.distortion_error / (2 * seen.distortion), seen.rate, seen.marginal_kl, total)
            for name, value in zip(_QUANTITIES, values, strict=True):
                found[name][m, k, s] = value
            status[m, k, s] = run.report["RE"].status
    except KeyboardInterrupt:
        interrupted = True
        if np.isnan(found["rate"]).all():
            raise
    arrays = {"kappas": np.array(kappas), "status": status, **found}
    settings = _training.settings(
        data.name, interrupted, seeds, n_points=len(data), steps=steps, annealed_from=_GQN, **network
    )
    return arrays, settings


def objective_of(method: str, steps: int) -> dict[str, Any]:
    """The options of `geco.train` for a method."""
    if method == "annealed":
        return {"objective": "annealed", "beta": cv.geco.Ramp(_GQN, 1.0, max(1, steps // 2))}
    return {"objective": method.lower()}


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    kappas = arrays["kappas"]
    with plt.rc_context(_command.STYLE | {"font.size": 7}):
        figure = plt.figure(figsize=(3.5, 4.2), layout="constrained")
        plane, asked = figure.subplots(2, 1, height_ratios=[1.7, 1])
        for kappa in kappas:
            plane.axvline(kappa, color="0.85", lw=0.8, zorder=0)
        for m, method in enumerate(METHODS):
            rms, rate = arrays["rms"][m], arrays["rate"][m]
            style: dict[str, Any] = {"color": _training.COLORS[method], "marker": _training.MARKERS[method]}
            order = np.argsort(kappas)
            means = np.column_stack([_training.mean_and_error(v)[0] for v in (rms, rate)])[order]
            filled: dict[str, Any] = {"mfc": "white" if m else style["color"], "ms": 4.5, "lw": 0.9}
            label = {"annealed": r"ELBO, hand-annealed $\beta$"}.get(method, method)
            plane.plot(*means.T, **style, **filled, ls=("-", "--", ":")[m], label=label)
            plane.plot(rms.ravel(), rate.ravel(), ".", ms=2.5, mew=0, color=style["color"], alpha=0.6)
            ratio, error = _training.mean_and_error(rms / kappas[:, None])
            shift = 1 + 0.012 * (m - 1)
            asked.errorbar(kappas * shift, ratio, np.nan_to_num(error), **style, **filled, ls="none", elinewidth=0.8)
        plane.set(xlabel="error per pixel, rms", ylabel="KL  (nats)", xscale="log", yscale="log")
        plane.legend(loc="lower left", frameon=False, fontsize=6)
        asked.axhline(1, color="0.6", lw=0.8, zorder=0)
        asked.set(xlabel=r"$\kappa$ asked for; $\sigma=\kappa$ of the ELBO", xscale="log")
        asked.set(ylabel=r"error / $\kappa$")
        for ax in (plane, asked):
            ax.set_xticks(kappas, [f"{kappa:g}" for kappa in kappas])
            ax.xaxis.set_minor_locator(NullLocator())
        _training.plain(plane.yaxis)
    return figure


def table(arrays: _command.Arrays) -> str:
    """Means over seeds with their standard errors."""
    lines = [f"{'kappa':>6}  {'':9}{'error / kappa':>21}{'KL':>20}{'marginal KL':>20}{'lambda':>10}  constraint"]
    for k, m in itertools.product(range(len(arrays["kappas"])), range(len(METHODS))):
        kappa = arrays["kappas"][k]
        if np.isnan(arrays["rms"][m, k]).all():
            continue
        ratio, rate, marginal = (
            _training.with_error(values, digits)
            for values, digits in (
                (arrays["rms"][m, k] / kappa, 4),
                (arrays["rate"][m, k], 3),
                (arrays["marginal_kl"][m, k], 3),
            )
        )
        states = [str(s) for s in arrays["status"][m, k] if s]
        counts = ", ".join(f"{states.count(s)} {s}" for s in sorted(set(states))) if METHODS[m] == "GECO" else ""
        lam = np.nanmean(arrays["multiplier"][m, k])
        lines.append(f"{kappa:>6g}  {METHODS[m]:9}{ratio:>21}{rate:>20}{marginal:>20}{lam:>10.4g}  {counts}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
