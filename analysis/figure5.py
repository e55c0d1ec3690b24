"""Figure 5 of *Taming VAEs*: is the KL of GECO lower than that of the ELBO at the same reconstruction error?

    python -m analysis.figure5 [--data NAME,...] [--n N] [--noise RATIO,...] [--seeds S] [--steps T] ...

The ELBO is trained with a decoder of fixed noise sigma, and its error on all data is measured. GECO is then trained
from the same seed with this error as its threshold. Top: KL and marginal KL of both, means over seeds with standard
errors. Bottom: differences GECO minus ELBO of pairs with the same seed. Thresholds are met to about one percent
(several percent for four clusters, whose errors are rare and large). The effect of this deviation is subtracted, with
the slope of the curve of the ELBO's means over the noises. If every code identifies its data point, as for digits, then
I(x; z) = log N, and the marginal KL is KL - log N. Writes PNG, PDF and an .npz of every plotted array with its
settings.

The default is four clusters and all digits, three noises, three seeds and 12000 steps, which takes about four minutes.

With `--model` image models in PyTorch are compared, which learn MNIST of 16 x 16 pixels:

    python -m analysis.figure5 --model convdraw [--data mnist|mnist-rotate|colour-mnist|PATH] [--jobs 2] ...

GECO then begins with the lambda of the ELBO. The marginal KL is left out. Two noises, three seeds and 3000 steps of
ConvDRAW are 12 runs, half an hour of one core. Runs are kept in the folder --runs, as those of figure 4.
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

METHODS = ("ELBO", "GECO")
_STEPS, _SEEDS = 12_000, 3
_SAMPLES = 8  # smallest number of codes per point for the evaluation of a trained model
_DATA = "four_clusters,digits"
# Noises of the decoder, relative to the root mean square deviation of the data per dimension.
_NOISES = (0.25, 0.4, 0.6)
_IMAGE_NOISES = "0.4,0.6"  # the default for image models
_MISSED = 0.02  # relative deviation of an error from its threshold above which it is reported
_LABELS = {"rate": "KL", "marginal_kl": "marginal KL"}
_QUANTITIES = ("rms", *_LABELS)


def main(argv: Sequence[str] | None = None) -> int:
    options = _training.parser("figure5", __doc__, steps=_STEPS, seeds=_SEEDS)
    _training.add_data(options, _DATA, "all")
    text = "sigma of the ELBO, in units of the standard deviation of the data per dimension, separated by commas"
    options.add_argument("--noise", default=",".join(map(str, _NOISES)), help=f"{text} (default %(default)s)")
    args = _image_training.parsed(
        options, "figure5", argv, data="mnist", steps=_image_training.STEPS, noise=_IMAGE_NOISES
    )
    if args.model is not None:
        from analysis import _image_figure5

        return _image_figure5.run(args)

    def work() -> _command.Computed:
        return compute(
            [_training.data_set(name, args.n) for name in args.data.split(",")],
            noises=_training.numbers("--noise", args.noise),
            steps=args.steps,
            seeds=_training.seeds_from(args.seed, args.seeds),
            progress=not args.quiet,
        )

    return _command.run("figure5", work, args.out, draw, table)


def compute(
    sets: Sequence[cv.datasets.DataSet],
    *,
    noises: Sequence[float] = _NOISES,
    steps: int = _STEPS,
    seeds: Sequence[int] = range(_SEEDS),
    progress: bool = False,
) -> _command.Computed:
    """Every array of the figure, and its settings. After Ctrl-C the arrays are those computed so far."""
    noises = increasing(noises)
    shape = (len(sets), len(METHODS), len(noises), len(seeds))
    found = {name: np.full(shape, np.nan) for name in _QUANTITIES}
    sigmas = np.array([noise * np.sqrt(np.var(data.x, axis=0).mean()) for data in sets for noise in noises])
    sigmas = sigmas.reshape(len(sets), len(noises))
    interrupted = False
    runs = list(itertools.product(range(len(sets)), range(len(seeds)), range(len(noises)), range(len(METHODS))))
    try:
        for d, s, k, m in tqdm(runs, disable=not progress, desc="training", unit="run"):
            x, sigma = sets[d].x, sigmas[d, k]
            kappa = found["rms"][d, 0, k, s] if m else sigma
            run = _training.trained(
                x,
                cv.RE(kappa, reduction="mean"),
                objective=METHODS[m].lower(),
                sigma=sigma,
                steps=steps,
                seed=seeds[s],
                **_training.network(sets[d]),
            )
            seen = run.evaluate(samples=_training.samples(len(x), _SAMPLES))
            values = np.sqrt(seen.distortion / x.shape[1]), seen.rate, seen.marginal_kl
            for name, value in zip(_QUANTITIES, values, strict=True):
                found[name][d, m, k, s] = value
    except KeyboardInterrupt:
        interrupted = True
        if np.isnan(found["rate"]).all():
            raise
    arrays = {"names": np.array([data.name for data in sets]), "sigmas": sigmas, **found}
    arrays["points"] = np.array([len(data) for data in sets])
    for name in _QUANTITIES[1:]:
        arrays[f"{name}_difference"] = np.stack(
            [difference(rms, values) for rms, values in zip(found["rms"], found[name], strict=True)]
        )
    settings = _training.settings(
        ",".join(data.name for data in sets), interrupted, seeds, noises=noises, steps=steps, methods=METHODS
    )
    return arrays, settings


def increasing(noises: Sequence[float]) -> list[float]:
    """The noises of the option --noise in their order."""
    found = sorted(noises)
    if len(set(found)) < 2 or not found[0] > 0:
        raise ValueError(f"--noise wants at least two different numbers above 0, got {found}")
    return found


def difference(rms: np.ndarray, values: np.ndarray) -> np.ndarray:
    """GECO minus ELBO (noises, seeds) of values (2, noises, seeds), corrected for the difference of their errors."""
    log_error, curve = (_training.mean_and_error(v[0])[0] for v in (np.log(rms), values))
    slope = np.gradient(curve, log_error)
    return values[1] - values[0] - slope[:, None] * np.log(rms[1] / rms[0])


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    names = arrays["names"]
    with plt.rc_context(_command.STYLE | {"font.size": 7}):
        figure = plt.figure(figsize=(3.5, 3.7), layout="constrained")
        axes = figure.subplots(2, len(names), sharex="col", squeeze=False, height_ratios=[1.3, 1])
        for d, name in enumerate(names):
            top, bottom = axes[:, d]
            error = _training.mean_and_error(arrays["rms"][d, 0])[0]
            for quantity in _shown(arrays):
                open_, label = quantity == "marginal_kl", _LABELS[quantity]
                for m, method in enumerate(METHODS):
                    color = _training.COLORS[method]
                    style: dict[str, Any] = {
                        "color": color,
                        "mfc": "white" if open_ else color,
                        "ms": 6 - 3 * m,
                        "lw": 0.8,
                    }
                    mean, spread = _training.mean_and_error(arrays[quantity][d, m])
                    style |= {"marker": _training.MARKERS[method], "ls": ":" if open_ else "-"}
                    own = _training.mean_and_error(arrays["rms"][d, m])[0]
                    top.errorbar(own, mean, np.nan_to_num(spread), **style, label=f"{method}, {label}")
                mean, spread = _training.mean_and_error(arrays[f"{quantity}_difference"][d])
                style = {"color": "black", "mfc": "white" if open_ else "black", "ms": 4, "marker": "o", "ls": "none"}
                shift = 1.0 if len(_shown(arrays)) == 1 else 1.03 if open_ else 0.97
                bottom.errorbar(error * shift, mean, np.nan_to_num(spread), **style, elinewidth=0.8, label=label)
            top.set(title=str(name).replace("_", " "), ylim=(0, None))
            top.title.set_fontsize(7)
            bottom.axhline(0, color="0.6", lw=0.8, zorder=0)
            bottom.set(xscale="log", xlabel="error per dimension, rms")
            bottom.set_xticks(error[np.isfinite(error)], [f"{e:.2g}" for e in error if np.isfinite(e)])
            bottom.xaxis.set_minor_locator(NullLocator())
        axes[0, 0].set_ylabel("nats")
        axes[1, 0].set_ylabel("GECO less ELBO  (nats)")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
        axes[1, -1].legend(loc="best", frameon=False, fontsize=6)
    return figure


def _shown(arrays: _command.Arrays) -> list[str]:
    """The quantities that are compared; the runs of image models have no marginal KL."""
    return [quantity for quantity in _LABELS if quantity in arrays]


def table(arrays: _command.Arrays) -> str:
    """Means over seeds with their standard errors, and differences of pairs."""
    lines, shown = [], _shown(arrays)
    for d, name in enumerate(arrays["names"]):
        lines.append(f"{name}, log N = {np.log(arrays['points'][d]):.3f} nats")
        lines.append(f"{'sigma':>8}  {'':6}{'error, rms':>22}" + "".join(f"{_LABELS[name]:>20}" for name in shown))
        for k, sigma in enumerate(arrays["sigmas"][d]):
            if np.isnan(arrays["rate"][d, :, k]).all():
                continue
            for m, method in enumerate(METHODS):
                columns = "".join(f"{_training.with_error(arrays[name][d, m, k], 3):>20}" for name in shown)
                error = _training.with_error(arrays["rms"][d, m, k], 5)
                lines.append(f"{sigma:>8.4g}  {method:6}{error:>22}{columns}")
            less = (_training.with_error(arrays[f"{name}_difference"][d, k], 3) for name in shown)
            lines.append(f"{'':10}{'less ELBO':28}" + "".join(f"{text:>20}" for text in less))
            off = np.abs(arrays["rms"][d, 1, k] / arrays["rms"][d, 0, k] - 1)
            if missed := int((off > _MISSED).sum()):
                lines.append(f"{'':10}{missed} of {len(off)} of GECO's errors are off by more than {_MISSED:.0%}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
