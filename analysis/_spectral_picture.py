"""The picture of `analysis.spectral`: partitions, scores along the branch, and kernels of many widths."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from analysis import _command

_SHOWN = ("truth", "solution", "posterior", "rbf", "mixture", "feature space")  # columns of the partitions
_TITLES = {
    "truth": "classes",
    "solution": "tiles",
    "posterior": "spectral, $P$",
    "rbf": "spectral,\nkernel",
    "kmeans": "k-means",
    "mixture": "mixture",
    "feature space": "tiles, feature\nspace",
}
_MUTED = "#332288 #CC6677 #DDCC77 #88CCEE #117733 #AA4499 #999933 #44AA99 #882255 #BBBBBB".split()  # of Paul Tol
STYLES: dict[str, dict[str, Any]] = {  # colours of Okabe and Ito, as in constrained_vae.plotting
    "solution": {"color": "black", "ls": "-", "lw": 1.3, "zorder": 4},
    "posterior": {"color": "#E69F00", "ls": "--", "lw": 1.3, "zorder": 5},
    "rbf": {"color": "#0072B2", "ls": "-.", "lw": 1.0},
    "kmeans": {"color": "#D55E00", "ls": ":", "lw": 1.2},
    "mixture": {"color": "#009E73", "ls": (0, (3, 1, 1, 1, 1, 1)), "lw": 1.0},
}


def draw(arrays: _command.Arrays) -> Figure:
    """The partitions, from the arrays of the figure alone."""
    return _drawn(arrays, "partitions")


def draw_scores(arrays: _command.Arrays) -> Figure:
    """The scores and the spectra along the branch."""
    return _drawn(arrays, "curves")


def draw_kernels(arrays: _command.Arrays) -> Figure | None:
    """The kernels of many widths; None if there are none."""
    return _drawn(arrays, "widths") if _planar(arrays) else None


def _planar(arrays: _command.Arrays) -> list[str]:
    """The sets in the plane that are not easy for every method."""
    return [name for name in arrays["sets"].tolist() if f"{name}_widths" in arrays and name != "four_clusters"]


def _drawn(arrays: _command.Arrays, part: str) -> Figure:
    import matplotlib.pyplot as plt

    sets = arrays["sets"].tolist()
    # For each part: its height, the space above and below it, and what draws it.
    tall, above, below, fill = {
        "partitions": (1.15 * len(sets), 0.42, 0.12, _partitions),
        "curves": (1.2 * len(sets), 0.6, 0.42, _curves),
        "widths": (2.0, 0.6, 0.42, _widths),
    }[part]
    height = tall + above + below
    with plt.rc_context(_command.STYLE | {"font.size": 8, "lines.solid_capstyle": "butt"}):
        figure = plt.figure(figsize=(7.0, height))
        fill(arrays, _planar(arrays) if part == "widths" else sets, figure, (below / height, 1 - above / height))
        legend = figure.axes[0].get_legend_handles_labels()
        if legend[0]:
            place = (0.52, 1 - 0.32 / height)
            style: dict[str, Any] = {"frameon": False, "columnspacing": 1.2, "handletextpad": 0.5}
            figure.legend(*legend, loc="lower center", bbox_to_anchor=place, ncols=5, borderpad=0, **style)
    return figure


def _partitions(arrays: _command.Arrays, sets: list[str], figure: Figure, span: tuple[float, float]) -> None:
    grid = figure.add_gridspec(
        len(sets), len(_SHOWN), left=0.02, right=0.99, bottom=span[0], top=span[1], wspace=0.04, hspace=0.16
    )
    axes = grid.subplots(squeeze=False)
    for row, name in zip(axes, sets, strict=True):
        points = arrays[f"{name}_points"]
        for ax, method in zip(row, _SHOWN, strict=True):
            ax.set(xticks=[], yticks=[])
            ax.set_axis_off()
            if ax in axes[0]:
                ax.set_title(_TITLES[method], pad=3)
            if (key := f"{name}_partition_{method}") not in arrays:
                ax.text(0.5, 0.5, "not\ncomputed", ha="center", va="center", color="0.5")
                continue
            colors = np.array(_MUTED)[arrays[key] % len(_MUTED)]
            size = 6 if len(points) < 500 else 2
            ax.scatter(*points.T, s=size, c=colors, linewidths=0, rasterized=True)
            if method == "truth":
                ax.text(0.5, -0.02, name.replace("_", " "), ha="center", va="top", transform=ax.transAxes)
            else:
                text = f"ARI {max(arrays[f'{name}_scores_{method}'][0], 0):.2f}"
                ax.text(0.5, -0.02, text, ha="center", va="top", transform=ax.transAxes)
            low, high = points.min(axis=0), points.max(axis=0)
            reach = 0.55 * (high - low).max()
            middle = (low + high) / 2
            ax.set(
                xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach), aspect="equal"
            )


def _curves(arrays: _command.Arrays, sets: list[str], figure: Figure, span: tuple[float, float]) -> None:
    grid = figure.add_gridspec(
        len(sets), 3, left=0.08, right=0.98, bottom=span[0], top=span[1], wspace=0.14, hspace=0.28
    )
    axes = grid.subplots(squeeze=False, sharex="row")
    for row, name in zip(axes, sets, strict=True):
        betas = arrays[f"{name}_betas"]
        for ax, score in zip(row, ("ari", "ami"), strict=False):
            for method, style in STYLES.items():
                ax.plot(betas, arrays[f"{name}_{score}_{method}"], **style, label=_TITLES[method].replace("\n", " "))
            ax.set(ylim=(-0.05, 1.05), yticks=(0, 0.5, 1))
        row[0].set_ylabel(name.replace("_", " "))
        ax = row[2]
        ax.plot(betas, arrays[f"{name}_eigenvalues"], color="black", lw=0.7)
        ax.set(ylim=(-0.05, 1.05), yticks=(0, 0.5, 1))
        for low, high in _runs(betas, arrays[f"{name}_eigengap"] != arrays[f"{name}_n_distinct"]):
            ax.axvspan(low, high, color="#F0E442", alpha=0.45, lw=0, zorder=0)
        for ax in row:
            ax.set_xscale("log")
            for beta in arrays[f"{name}_critical"]:
                ax.axvline(beta, color="0.7", lw=0.7, zorder=1)
            failed = ~arrays[f"{name}_converged"]
            ax.plot(betas[failed], np.full(failed.sum(), -0.02), "x", color="#D55E00", ms=2.5, mew=0.6, clip_on=False)
            wide = betas.max() > 12 * betas.min()
            ax.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.tick_params(labelsize=7, pad=1.5)
        for ax in row[1:]:
            ax.tick_params(labelleft=False)
    figure.align_ylabels(axes[:, 0])
    for ax, title in zip(axes[0], ("ARI with classes", "AMI with classes", "eigenvalues of $P$"), strict=True):
        ax.set_title(title)
    for ax in axes[-1]:
        ax.set_xlabel(r"temperature $\beta$")


def _runs(betas: np.ndarray, wrong: np.ndarray) -> list[tuple[float, float]]:
    """Intervals of the marked temperatures; they extend half way to the neighbouring temperatures on a log scale."""
    order = np.argsort(betas)
    grid, marked = np.log(betas[order]), wrong[order]
    edges = np.exp(np.concatenate([grid[:1], (grid[1:] + grid[:-1]) / 2, grid[-1:]]))
    change = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(int)))
    return [(float(edges[begin]), float(edges[end])) for begin, end in change.reshape(-1, 2)]


def _widths(arrays: _command.Arrays, planar: list[str], figure: Figure, span: tuple[float, float]) -> None:
    grid = figure.add_gridspec(1, len(planar), left=0.08, right=0.98, bottom=span[0], top=span[1], wspace=0.14)
    axes = grid.subplots(squeeze=False, sharey=True)[0]
    for ax, name in zip(axes, planar, strict=True):
        widths = arrays[f"{name}_widths"]
        ax.plot(widths, arrays[f"{name}_width_tiles"], "o-", color="black", ms=2, lw=1.1, label="tiles, feature space")
        ax.plot(widths, arrays[f"{name}_width_spectral"], "s--", color="#0072B2", ms=2, lw=1, label="spectral, kernel")
        plain = float(arrays[f"{name}_scores_solution"][0])
        ax.axhline(plain, color="#D55E00", lw=1, ls=":", label="tiles, data space")
        ax.plot(float(arrays[f"{name}_width"]), -0.08, "^", color="0.4", ms=3, clip_on=False)
        ax.set(
            xscale="log",
            ylim=(-0.08, 1.08),
            yticks=(0, 0.5, 1),
            title=name.replace("_", " "),
            xlabel="kernel width  (units of $x$)",
        )
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(labelsize=7, pad=1.5)
    axes[0].set_ylabel("ARI with classes")
