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
    result.add_argument(
        "--data", default="four_clusters", help="four_clusters, digits, ..., or a .npy, .npz or .csv file"
    )
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
