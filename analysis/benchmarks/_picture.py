"""The picture of `map`: times against sizes with the floor, from the results alone, for one column of a page."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

# Colours of Okabe and Ito, which colour-blind readers can distinguish, and different markers.
_STYLES = {
    "numba": ("this project", "#D55E00", "o"),
    "reference": ("its reference", "#999999", "x"),
    "mixture": ("GaussianMixture", "#0072B2", "s"),
    "kmeans": ("KMeans step", "#56B4E9", "D"),
    "torch": ("PyTorch", "#009E73", "^"),
    "torch-blocks": ("PyTorch, blocks", "#009E73", "v"),
    "jax": ("JAX", "#CC79A7", "<"),
    "jax-blocks": ("JAX, blocks", "#CC79A7", ">"),
    "cupy": ("this project, GPU", "#E69F00", "o"),
    "cupy-composition": ("CuPy", "#F0E442", "s"),
    "torch-cuda": ("PyTorch, GPU", "black", "^"),
}


def draw(results: dict[str, Any]) -> Figure:
    """The figure. Top: every method at every size, with the floor. Bottom: this project as N grows, with the floor."""
    with plt.rc_context({"font.size": 7, "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False}):
        figure = plt.figure(figsize=(3.4, 5.2), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=[3, 2])
        _methods(figure, above, results["maps"])
        _growth(below, results)
    return figure


def _methods(figure: Figure, ax: Axes, maps: list[dict[str, Any]]) -> None:
    dtype = maps[0]["dtype"]
    shown = [record for record in maps if record["dtype"] == dtype]
    sizes = list(dict.fromkeys(tuple(record["size"]) for record in shown))
    labelled: set[str] = set()
    for record in shown:
        y, name = sizes.index(tuple(record["size"])), record["method"]
        milliseconds = 1e3 * record["seconds"]["median"]
        label: str | None = None
        if name not in labelled:
            labelled.add(name)
            label = _STYLES[name][0] if name in _STYLES else name
        if name in _STYLES:
            _, color, marker = _STYLES[name]
            style: dict[str, Any] = {"color": color, "marker": marker, "ms": 4, "ls": "", "mew": 0.8}
            if name != "numba":
                style["mfc"] = "none"
            ax.plot(milliseconds, y, label=label, zorder=3 if name == "numba" else 2, **style)
        else:
            ax.plot([milliseconds] * 2, [y - 0.3, y + 0.3], color="black", lw=1.5, label=label, zorder=1)
    ax.set_yticks(range(len(sizes)), [", ".join(map(str, size)) for size in sizes])
    ax.set(xscale="log", xlabel="milliseconds per map", ylabel="N, K, D", ylim=(len(sizes) - 0.5, -0.5))
    ax.grid(axis="x", lw=0.3)
    ax.set_title(f"one map, {dtype}", fontsize=7)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=6, frameon=False)


def _growth(ax: Axes, results: dict[str, Any]) -> None:
    """Draw times as N grows, with the floor per entry at the nearest measured K of the same dimension."""
    floors = [record for record in results["maps"] if record["method"] == "floor"]
    for color, marker, dim in (("#D55E00", "o", 2), ("#0072B2", "s", 64)):
        for grown in results["growth"]:
            if grown["series"] != f"N at D = {dim}" or grown["dtype"] != results["maps"][0]["dtype"]:
                continue
            sizes = np.array(grown["sizes"])
            name = f"K = {sizes[0, 1]}, D = {dim}"
            ax.plot(sizes[:, 0], 1e3 * np.array(grown["seconds"]), color=color, marker=marker, ms=4, lw=0.8, label=name)
            same = [f for f in floors if f["size"][2] == dim and f["dtype"] == grown["dtype"]]
            if same:
                nearest = min(same, key=lambda f: abs(np.log(f["size"][1] / sizes[0, 1])))
                per_entry = 1e3 * nearest["seconds"]["median"] / (nearest["size"][0] * nearest["size"][1])
                ax.plot(
                    sizes[:, 0], per_entry * sizes[:, 0] * sizes[:, 1], color=color, ls="--", lw=0.8, label="its floor"
                )
    ax.set(xscale="log", yscale="log", xlabel="points N", ylabel="milliseconds per map")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title("this project as N grows", fontsize=7)
    if results["growth"]:
        ax.legend(fontsize=6, frameon=False)
