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

import numpy as np
from tqdm.auto import tqdm

import constrained_vae as cv
from analysis import _command, _image_training, _training
from analysis._equal_error import METHODS, difference, draw, increasing, table
from constrained_vae.cli.data_options import choice_of

_STEPS, _SEEDS = 12_000, 3
_SAMPLES = 8  # smallest number of codes per point for the evaluation of a trained model
_DATA = "four_clusters,digits"
# Noises of the decoder, relative to the root mean square deviation of the data per dimension.
_NOISES = (0.25, 0.4, 0.6)
_IMAGE_NOISES = "0.4,0.6"  # the default for image models
_QUANTITIES = ("rms", "rate", "marginal_kl")


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
            [_training.data_set(name, args.n, choice_of(args)) for name in args.data.split(",")],
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


if __name__ == "__main__":
    sys.exit(main())
