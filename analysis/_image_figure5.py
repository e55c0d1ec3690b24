"""Figure 5 with image models: GECO and the ELBO at the same error, from the same start."""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from matplotlib.figure import Figure

from analysis import _command, _image_training, _training, figure5
from analysis._image_training import TITLES, Job, Runs

_QUANTITIES = ("rms", "rate", "multiplier")


def run(args: argparse.Namespace) -> int:
    """The command; the exit code."""
    others = {".json": _image_training.write_settings}
    return _command.run("figure5", lambda: compute(args), args.out, draw, table, others)


def compute(args: argparse.Namespace) -> _command.Computed:
    """Every array of the figure, and its settings with the records of all runs."""
    families, task = _image_training.families(args), _image_training.task_name(args.data)
    seeds = _training.seeds_from(args.seed, args.seeds)
    noises = figure5.increasing(_training.numbers("--noise", args.noise))
    data = _image_training.images(args.data, args.size, args.n)
    sigmas = [noise * float(np.sqrt(np.var(data.x, axis=0).mean())) for noise in noises]
    runs = Runs.of(args)
    shape = len(families), len(figure5.METHODS), len(sigmas), len(seeds)
    found = {name: np.full(shape, np.nan) for name in _QUANTITIES}
    for m, method in enumerate(figure5.METHODS):
        # GECO begins with the lambda of the ELBO, beta = 1, and its threshold is the error of the trained ELBO.
        kappas = found["rms"][:, 0] if m else np.broadcast_to(np.array(sigmas)[:, None], (len(families), *shape[2:]))
        places = {
            Job(families[f], method, float(kappas[f, k, s]), sigmas[k], seeds[s], args.steps, task, 1.0): (f, m, k, s)
            for s, k, f in itertools.product(*map(range, (len(seeds), len(sigmas), len(families))))
            if np.isfinite(kappas[f, k, s])
        }
        for job, result in runs.results(data, places).items():
            for name in _QUANTITIES:
                found[name][places[job]] = result.metrics[name]
    arrays = {"names": np.array([TITLES[family] for family in families]), **found}
    arrays |= {"sigmas": np.tile(sigmas, (len(families), 1)), "points": np.full(len(families), len(data))}
    pairs = zip(found["rms"], found["rate"], strict=True)
    arrays["rate_difference"] = np.stack([figure5.difference(rms, rate) for rms, rate in pairs])
    arrays["missing"] = np.array(runs.missing, dtype=str)
    return arrays, runs.settings(data, seeds, steps=args.steps, n_points=len(data), noises=noises)


def draw(arrays: _command.Arrays) -> Figure:
    """Figure 5 of these models, from its arrays alone; of two noises the marks are away from the edges."""
    figure = figure5.draw(arrays)
    for ax in figure.axes:
        ax.margins(x=0.2)
    return figure


def table(arrays: _command.Arrays) -> str:
    """The table of figure 5, with what is missing."""
    return "\n".join([figure5.table(arrays), *(f"not computed: {name}" for name in arrays["missing"])])
