"""What the commands of this folder share: the data sets they take, their temperatures, and how they save a figure."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import constrained_vae as cv

STYLE: dict[Any, Any] = {"font.size": 8, "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False}


def parser(prog: str, description: str | None, out: str) -> argparse.ArgumentParser:
    """The options of every figure of a branch."""
    result = argparse.ArgumentParser(prog=f"python -m {prog}", description=(description or "").split("\n\n")[0])
    result.add_argument("--data", default="four_clusters", help="four_clusters, digits, or a .npy or .csv file")
    result.add_argument(
        "--betas", help="LOW:HIGH:COUNT, evenly spaced in log beta; default: the data's own transitions"
    )
    result.add_argument("--tiles", type=int, default=64, help="number of latent tiles (default 64)")
    result.add_argument("--sigma", type=float, default=1.0, help="standard deviation of the decoder (default 1)")
    result.add_argument("--masses", choices=("fixed", "free"), default="fixed", help="prior masses of the tiles")
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--backend", choices=("auto", *cv.backends.NAMES), default="auto")
    result.add_argument("--out", type=Path, default=Path(out), help="path without its suffix")
    result.add_argument("--quiet", action="store_true", help="no progress bar")
    return result


def data_set(name: str, seed: int) -> cv.datasets.DataSet:
    """What --data names."""
    if name == "four_clusters":
        return cv.datasets.four_clusters(seed=seed)
    if name == "digits":
        return cv.datasets.digits()
    return cv.datasets.load(name)


def beta_grid(text: str | None) -> np.ndarray | None:
    """What --betas names; None for the default."""
    if text is None:
        return None
    try:
        low, high, count = text.split(":")
        grid = np.geomspace(float(low), float(high), int(count))
    except ValueError:
        raise ValueError(f"--betas wants LOW:HIGH:COUNT with 0 < LOW < HIGH, got {text!r}") from None
    if not (np.isfinite(grid).all() and 0 < grid[0] < grid[-1] and len(grid) >= 5):
        raise ValueError(f"--betas wants LOW:HIGH:COUNT with 0 < LOW < HIGH and at least 5 temperatures, got {text!r}")
    return grid


def principal_axes(x: np.ndarray, weights: np.ndarray | None = None, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the first principal axes of the data, (D,) and (count, D) or fewer; largest components positive."""
    mean = np.average(x, axis=0, weights=weights)
    root = np.sqrt(np.full(len(x), 1 / len(x)) if weights is None else weights)
    axes = np.linalg.svd(root[:, None] * (x - mean), full_matrices=False)[2][:count]
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    return mean, axes * np.where(largest < 0, -1.0, 1.0)[:, None]


def publish(
    out: Path,
    arrays: dict[str, np.ndarray],
    settings: dict[str, Any],
    draw: Callable[[dict[str, np.ndarray]], Figure],
    table: Callable[[dict[str, np.ndarray]], str],
) -> int:
    """Write everything, print the table and what was written; the exit code."""
    write(out, arrays, settings, draw)
    print(table(arrays))
    for suffix in ("png", "pdf", "npz"):
        print(f"wrote {out}.{suffix}")
    if settings["interrupted"]:
        print("interrupted: this is what had been computed", file=sys.stderr)
        return 130
    return 0


def write(
    out: Path, arrays: dict[str, np.ndarray], settings: dict[str, Any], draw: Callable[[dict[str, np.ndarray]], Figure]
) -> None:
    """PNG, PDF and the arrays with their settings."""
    out.parent.mkdir(parents=True, exist_ok=True)
    everything: dict[str, Any] = {"settings": np.array(json.dumps(settings)), **arrays}
    np.savez_compressed(f"{out}.npz", **everything)
    figure = draw(arrays)
    figure.savefig(f"{out}.png", dpi=200)
    figure.savefig(f"{out}.pdf")
