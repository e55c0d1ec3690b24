"""Pictures of partitions of the data."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from scipy.optimize import linear_sum_assignment

from .._utils.arrays import FloatArray
from .._utils.checks import check_instance
from ..spectral.partitions import BranchComparison, SpectralComparison
from .arguments import axes_or_new
from .axes import temperature_axis
from .style import CURVE, MODELS

_COLOURS = (*MODELS, "#56B4E9", "#F0E442", "0.25", "0.5", "0.75")


def partitions(comparison: SpectralComparison, ax: Axes | None = None) -> Axes:
    """The label of every point in every partition, side by side; a column is a point, equal colours are one cluster.

    Points are sorted by true class if it is known, then by label of the solution. Clusters of the other partitions have
    the colours of those clusters of the solution with which they share the most points. A partition that is not
    determined is white.

    Parameters
    ----------
    comparison : SpectralComparison
        Result of `compare_spectral`. For a branch, see `agreement`.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If `comparison` is something else, or `ax` no Axes.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> compared = cv.compare_spectral(cv.solve([[-2.0], [-1.8], [1.8], [2.0]], beta=0.5, n_tiles=4))
    >>> [tick.get_text() for tick in partitions(compared).get_yticklabels()]
    ['solution', 'posterior', 'rbf', 'kmeans', 'mixture']
    """
    check_instance(comparison, "comparison", SpectralComparison, "compare_spectral(solution)")
    rows: dict[str, npt.NDArray[np.intp]] = dict(comparison.partitions)
    if comparison.labels is not None:
        rows["truth"] = np.unique(comparison.labels, return_inverse=True)[1].ravel()
    solution = rows["solution"]
    order = np.lexsort((solution, rows["truth"]) if "truth" in rows else (solution,))
    matched = np.array([_matched(labels, solution)[order] for labels in rows.values()], dtype=float)
    ax = axes_or_new(ax)
    count = int(matched.max()) + 1
    colours = ListedColormap([colour for colour, _ in zip(cycle(_COLOURS), range(count), strict=False)])
    shown = np.ma.masked_less(matched, 0)
    ax.imshow(shown, cmap=colours, vmin=-0.5, vmax=count - 0.5, aspect="auto", interpolation="nearest")
    scores = {**comparison.ari, **comparison.baseline_ari}
    names = [name + (f"\nARI {scores[name]:.2f}" if np.isfinite(scores.get(name, np.nan)) else "") for name in rows]
    ax.set_yticks(range(len(rows)), [name.split("\n")[0] for name in names])
    for number, name in enumerate(names):
        ax.annotate(
            name.partition("\n")[2], (1.01, number), xycoords=("axes fraction", "data"), va="center", size="small"
        )
    ax.set_xlabel("points" + ", by true class" * ("truth" in rows))
    return ax


def _matched(labels: npt.NDArray[np.intp], solution: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The labels, renumbered so that they agree with those of the solution in as many points as possible."""
    if (labels < 0).all():
        return labels
    names, index = np.unique(labels, return_inverse=True)
    known, other = np.unique(solution, return_inverse=True)
    shared = np.zeros((len(names), max(len(names), int(known.max()) + 1)))
    np.add.at(shared, (index.ravel(), known[other.ravel()]), 1)
    _, numbers = linear_sum_assignment(-shared)
    return np.asarray(numbers[index.ravel()])


def agreement(comparison: BranchComparison, ax: Axes | None = None) -> Axes:
    """Adjusted Rand index of the solution with the other partitions, and of both with the truth, against temperature.

    Parameters
    ----------
    comparison : BranchComparison
        Result of `compare_spectral` for a branch.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If `comparison` is something else, or `ax` no Axes.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> branch = cv.sweep([[-2.0], [-1.8], [1.8], [2.0]], betas=[5.0, 0.5], n_tiles=4)
    >>> agreement(cv.compare_spectral(branch)).get_ylabel()
    'adjusted Rand index'
    """
    check_instance(comparison, "comparison", BranchComparison, "compare_spectral(branch)")
    ax = axes_or_new(ax)
    curves: Mapping[str, FloatArray] = {**comparison.ari, **comparison.baseline_ari}
    for colour, (name, values) in zip(cycle(MODELS), curves.items(), strict=False):
        ax.plot(comparison.betas, values, color=colour, lw=1.2, label=f"with {name}")
    if comparison.true_ari:
        ax.plot(comparison.betas, comparison.true_ari["solution"], "--", color=CURVE, lw=1.2, label="with the truth")
    ax.set(ylabel="adjusted Rand index", ylim=(-0.05, 1.05))
    ax.legend(frameon=False, fontsize="small")
    return temperature_axis(ax)
