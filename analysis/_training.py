"""Shared parts of the figures of trained models: options, data and their networks, runs, statistics over seeds."""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

import constrained_vae as cv
from analysis import _command
from constrained_vae._utils.blas import single_threaded
from constrained_vae.cli.data_options import DATA, add_data_options

KAPPAS = (0.06, 0.08, 0.1, 0.125, 0.175)  # root mean squares per pixel, of the paper
COLORS = {"GECO": "black", "ELBO": "#0072B2", "annealed": "#D55E00", "exact": "0.55"}  # of Okabe and Ito
MARKERS = {"GECO": "o", "ELBO": "s", "annealed": "^"}

_FIRST, _WINDOWS = 10, 240  # steps of the first window of a trajectory, usual number of windows
_FEW, _CODES = 500, 1000  # data sets of at most this many points are evaluated with at least this many codes per point
_NETWORKS: dict[str, dict[str, Any]] = {
    "four_clusters": {"latent_dim": 2, "hidden": (32,)},
    "digits": {"latent_dim": 32, "hidden": (64, 64), "dtype": "float32"},
    "mnist": {"latent_dim": 64, "hidden": (128, 128), "dtype": "float32"},
}
_OTHER: dict[str, Any] = {"latent_dim": 8, "hidden": (64, 64)}


def parser(name: str, description: str | None, *, steps: int, seeds: int | None = None) -> argparse.ArgumentParser:
    """A parser with the options of every figure of trained models."""
    result = _command.parser(name, description)
    result.add_argument("--steps", type=int, default=steps, help=f"number of training steps (default {steps})")
    if seeds is not None:
        result.add_argument("--seeds", type=int, default=seeds, help=f"number of seeds (default {seeds})")
    result.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    return result


def add_data(options: argparse.ArgumentParser, default: str, points: str) -> None:
    """The options of figures of any data set."""
    options.add_argument("--data", default=default, help=f"{DATA} (default {default})")
    add_data_options(options)
    options.add_argument("--n", type=int, help=f"number of points, drawn at random (default {points})")


def data_set(name: str, n: int | None = None, choice: Mapping[str, Any] | None = None) -> cv.datasets.DataSet:
    """The data set of the options --data and --n, and of those of tables."""
    data = cv.datasets.find(name, **(choice or {}))
    return data if n is None else some(data, n)


def some(data: cv.datasets.DataSet, n: int) -> cv.datasets.DataSet:
    """So many points of a data set, drawn at random."""
    if not 2 <= n <= len(data):
        raise ValueError(f"--n must be from 2 to {len(data)}, the number of points, got {n}")
    rows = np.sort(np.random.default_rng(0).permutation(len(data))[:n])  # MNIST-5k is sorted by digit
    return dataclasses.replace(data, x=data.x[rows], labels=None, weights=None, critical_beta=None)


def network(data: cv.datasets.DataSet) -> dict[str, Any]:
    """The usual network for these data, as options of `geco.train`."""
    return dict(_NETWORKS.get(data.name, _OTHER))


def trained(x: np.ndarray, constraint: cv.Constraint, *, keep: bool = False, **options: Any) -> cv.geco.Run:
    """`geco.train` without warnings, since tables show which constraints are met.

    Ctrl-C raises KeyboardInterrupt, or returns the run so far with `keep`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        run = single_threaded(cv.geco.train, x, constraint, **options)  # there are many small products
    if run.stopped.startswith("interrupted") and not (keep and len(run.history)):
        raise KeyboardInterrupt
    return run


def trajectory(history: cv.geco.History, windows: int = _WINDOWS) -> _command.Arrays:
    """Means of squared error, KL, equivalent beta and root mean square error over windows, with their last steps."""
    T = len(history)
    edges = np.unique(np.geomspace(min(_FIRST, T), T, windows).round().astype(int))
    starts = np.append(0, edges[:-1])

    def mean(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, starts) / (edges - starts)

    return {
        "steps": edges,
        "distortion": mean(history.distortion),
        "kl": mean(history.kl),
        "beta": np.exp(mean(np.log(history.equivalent_beta))),
        "rms": np.sqrt(mean(history.per_dimension)),
    }


def samples(n: int, least: int) -> int:
    """Number of codes per point for an evaluation; few data need many codes, since large errors are rare."""
    return least if n > _FEW else max(least, _CODES)


def seeds_from(first: int, count: int) -> range:
    """`count` seeds from the first one on."""
    if count < 1:
        raise ValueError(f"--seeds must be at least 1, got {count}")
    return range(first, first + count)


def numbers(option: str, text: str) -> list[float]:
    """The numbers in the value of an option."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} wants numbers separated by commas, got {text!r}") from None


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the last axis, the seeds; NaN entries are ignored, and too few give NaN."""
    n = np.isfinite(values).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(values, axis=-1) / n
        spread = np.nansum((values - mean[..., None]) ** 2, axis=-1) / (n - 1)
        return mean, np.sqrt(np.where(n > 1, spread, np.nan) / n)


def with_error(values: np.ndarray, digits: int) -> str:
    """Mean and standard error over seeds, as text."""
    mean, error = mean_and_error(values)
    return f"{mean:.{digits}f}" + (f" +- {error:.{digits}f}" if np.isfinite(error) else "")


def coloured(ax: Any, x: np.ndarray, y: np.ndarray, steps: np.ndarray) -> LineCollection:
    """Draw a curve whose segments are coloured by the step at which they end."""
    points = np.column_stack([x, y])
    lines = LineCollection(
        cast("Any", np.stack([points[:-1], points[1:]], axis=1)), cmap="viridis", norm=LogNorm(steps[0], steps[-1])
    )
    lines.set(array=steps[1:], linewidth=1.5, zorder=3, capstyle="round")
    ax.add_collection(lines)
    ax.autoscale_view()
    return lines


def plain(axis: Any) -> None:
    """Label a logarithmic axis with few numbers, written without powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def settings(data: str, interrupted: bool, seeds: Iterable[int], **others: Any) -> dict[str, Any]:
    """The settings that are saved with the arrays."""
    return {"data": data, "seeds": list(seeds), "version": cv.__version__, "interrupted": interrupted, **others}
