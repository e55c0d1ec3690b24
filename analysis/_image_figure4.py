"""Figure 4 with image models: several models, thresholds and methods in the information plane, and their pictures."""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis import _command, _image_runs, _image_training, _training
from analysis._image_runs import Runs
from analysis._image_training import TITLES, Job
from constrained_vae._utils.writing import write_picture
from constrained_vae.geco.water_filling import at_level, covariance_eigenvalues

METHODS = ("GECO", "ELBO", "annealed")
_LINES = {"GECO": "-", "ELBO": "--", "annealed": ":"}
_QUANTITIES = ("rms", "rms_error", "rate", "rate_error", "test_rms", "test_rate", "multiplier", "above_linear")
_PICTURES = ("reconstructions", "samples")  # of GECO, with the first seed
_LEAST = 1.0  # smallest KL that is drawn, nats
_LEVELS = 400  # points of the curve of the best linear VAE


def run(args: argparse.Namespace) -> int:
    """The command; the exit code."""
    others: _command.Others = {
        ".json": _image_runs.write_settings,
        "-samples.png": lambda arrays, settings, path: write_picture(path, pictures(arrays)),
    }
    return _command.run("figure4", lambda: compute(args), args.out, draw, table, others)


def compute(args: argparse.Namespace) -> _command.Computed:
    """Every array of the figure, and its settings with the records of all runs."""
    families, kappas = _image_training.families(args), sorted(set(_training.numbers("--kappas", args.kappas)))
    methods = _methods(args.methods)
    seeds, task = _training.seeds_from(args.seed, args.seeds), _image_training.task_name(args.data)
    data = _image_training.images(args.data, args.size, args.n)
    runs = Runs.of(args)
    places = {
        Job(families[f], methods[m], kappas[k], kappas[k], seeds[s], args.steps, task): (f, m, k, s)
        for s, k, f, m in itertools.product(*map(range, (len(seeds), len(kappas), len(families), len(methods))))
        if methods[m] != "annealed" or families[f] == "convdraw"
    }
    results = runs.results(data, places)
    shape = len(families), len(methods), len(kappas), len(seeds)
    arrays = {name: np.full(shape, np.nan) for name in _QUANTITIES}
    arrays["status"] = np.full(shape, "", dtype="U11")
    some = next(iter(results.values())).arrays  # of a run: the held out images are the same in all
    arrays["originals"] = some["originals"]
    for name in _PICTURES:
        arrays[name] = np.full((shape[0], shape[2], *some[name].shape), np.nan, dtype=np.float32)
    for job, result in results.items():
        f, m, k, s = places[job]
        for name in _QUANTITIES:
            arrays[name][f, m, k, s] = np.nan if result.metrics[name] is None else result.metrics[name]
        arrays["status"][f, m, k, s] = result.metrics["status"]
        for name in _PICTURES:
            if methods[m] == "GECO" and s == 0:
                arrays[name][f, k] = result.arrays[name]
    arrays |= {"families": np.array(families), "methods": np.array(methods), "kappas": np.array(kappas)}
    arrays["missing"] = np.array(runs.missing, dtype=str)
    if task == "plain":
        arrays["linear"] = linear(_image_training.parts(data)[0].x, 0.7 * min(kappas))
    return arrays, runs.settings(data, seeds, steps=args.steps, n_points=len(data), kappas=kappas)


def _methods(names: str) -> list[str]:
    """The methods of the option --methods, in the order of the figure."""
    found = set(names.split(","))
    if not found <= set(METHODS):
        raise ValueError(f"--methods wants {', '.join(METHODS)} separated by commas, got {names}")
    return [method for method in METHODS if method in found]


def linear(x: np.ndarray, least: float) -> np.ndarray:
    """Root mean square errors and rates (n, 2) of the best linear VAE, from nothing coded to this error."""
    eigenvalues = covariance_eigenvalues(x)
    codes = [at_level(eigenvalues, level) for level in np.geomspace(eigenvalues[-1], least**2, _LEVELS)]
    return np.array([(np.sqrt(code.distortion / x.shape[1]), code.rate) for code in codes])


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    kappas, families = arrays["kappas"], arrays["families"]
    with plt.rc_context(_command.STYLE | {"font.size": 7}):
        figure = plt.figure(figsize=(3.5, 3.6), layout="constrained")
        axes = figure.subplots(2, len(families), sharey="row", squeeze=False, height_ratios=[1.8, 1])
        for f, family in enumerate(families):
            plane, asked = axes[:, f]
            for kappa in kappas:
                plane.axvline(kappa, color="0.88", lw=0.8, zorder=0)
            if "linear" in arrays:
                plane.plot(*arrays["linear"].T, color=_training.COLORS["exact"], lw=1.0, label="best linear VAE")
            for m, method in enumerate(map(str, arrays["methods"])):
                rms, rate = arrays["rms"][f, m], arrays["rate"][f, m]
                if np.isnan(rms).all():
                    continue
                style: dict[str, Any] = {"color": _training.COLORS[method], "marker": _training.MARKERS[method]}
                style |= {"mfc": style["color"] if method == "GECO" else "white", "ms": 4, "lw": 0.9}
                means = np.column_stack([_training.mean_and_error(v)[0] for v in (rms, rate)])
                label = {"annealed": r"ELBO, annealed $\beta$ (GQN)"}.get(method, method)
                plane.plot(*means.T, **style, ls=_LINES[method], label=label)
                ratio, error = _training.mean_and_error(rms / kappas[:, None])
                asked.errorbar(kappas * 1.015 ** (m - 1), ratio, np.nan_to_num(error), **style, ls="none")
            plane.set(
                xscale="log",
                yscale="log",
                title=TITLES[str(family)],
                xlim=_limits(np.append(arrays["rms"], kappas), 0.0),
            )
            plane.set_ylim(*_limits(arrays["rate"], _LEAST))
            plane.title.set_fontsize(7)
            asked.axhline(1, color="0.6", lw=0.8, zorder=0)
            asked.set(xscale="log", xlim=(0.85 * kappas.min(), 1.18 * kappas.max()))
            for ax in (plane, asked):
                ax.set_xticks(kappas, [f"{kappa:g}".removeprefix("0") for kappa in kappas])
                ax.xaxis.set_minor_locator(NullLocator())
        _training.plain(axes[0, 0].yaxis)
        axes[0, 0].set_ylabel("KL  (nats)")
        axes[1, 0].set_ylabel(r"error / $\kappa$")
        middle = axes[:, len(families) // 2]
        middle[0].set_xlabel("error per pixel, rms  (pixels in [0, 1])")
        middle[1].set_xlabel(r"$\kappa$ of GECO, $\sigma$ of the ELBO")
        most = max(axes[0], key=lambda ax: len(ax.get_legend_handles_labels()[0]))
        figure.legend(*most.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize=6)
    return figure


def _limits(values: np.ndarray, least: float) -> tuple[float, float]:
    """Limits of a logarithmic axis that has the values from `least` on well inside."""
    found = values[np.isfinite(values)]
    return float(max(found.min(), least) / 1.25), float(found.max() * 1.25)


def pictures(arrays: _command.Arrays) -> Figure:
    """Reconstructions of held out images and samples of the models of GECO, from the arrays alone."""
    import matplotlib.pyplot as plt

    families, kappas = arrays["families"], arrays["kappas"]
    labels = [f"{TITLES[str(family)]}, {kappa:g}" for family in families for kappa in kappas]
    n, height = arrays["originals"].shape[:2]
    with plt.rc_context(_command.STYLE | {"font.size": 6}):
        figure = plt.figure(figsize=(3.5, 0.35 + 0.165 * (1 + len(labels))), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[n, arrays["samples"].shape[2]])
        blank = np.full_like(arrays["samples"][0, 0], np.nan)
        made = (arrays[name].reshape(-1, *arrays[name].shape[2:]) for name in ("reconstructions", "samples"))
        for ax, first, rows in zip((left, right), (arrays["originals"], blank), made, strict=True):
            _command.show_images(ax, np.concatenate([first[None], rows]))
        places = (np.arange(1 + len(labels)) + 0.5) * (height + 1) - 1
        left.set_yticks(places, ["held out images", *labels])
        left.set_title("reconstructions", fontsize=7)
        right.set_title(r"samples of the model", fontsize=7)
        figure.supxlabel(r"models of GECO, and their $\kappa$", fontsize=6)
    return figure


def table(arrays: _command.Arrays) -> str:
    """Means over seeds with their standard errors, and what is missing."""
    methods = arrays["methods"]
    head = (
        f"{'kappa':>6}  {'':9}{'error / kappa':>19}{'KL':>17}{'less linear':>12}{'held out:':>10}{'KL':>9}{'lambda':>9}"
    )
    lines = []
    for f, family in enumerate(arrays["families"]):
        lines.append(f"{TITLES[str(family)]}\n{head}  constraint")
        for k, m in itertools.product(range(len(arrays["kappas"])), range(len(methods))):
            place, kappa = (f, m, k), arrays["kappas"][k]
            if np.isnan(arrays["rms"][place]).all():
                continue
            means = {name: _training.mean_and_error(arrays[name][place])[0] for name in _QUANTITIES}
            ratio, rate = arrays["rms"][place] / kappa, arrays["rate"][place]
            states = [str(s) for s in arrays["status"][place] if s]
            counts = ", ".join(f"{states.count(s)} {s}" for s in sorted(set(states))) if methods[m] == "GECO" else ""
            lines.append(
                f"{kappa:>6g}  {methods[m]:9}{_training.with_error(ratio, 4):>19}{_training.with_error(rate, 2):>17}"
                f"{means['above_linear']:>12.2f}{means['test_rms'] / kappa:>10.4f}{means['test_rate']:>9.2f}"
                f"{means['multiplier']:>9.4g}  {counts}".rstrip()
            )
    return "\n".join([*lines, *(f"not computed: {name}" for name in arrays["missing"])])
