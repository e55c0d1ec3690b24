"""The shell of every figure's command: options, exit codes, and the files of a figure."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import constrained_vae as cv
from constrained_vae._utils.defaults import N_TILES
from constrained_vae.cli import endings

Arrays = dict[str, np.ndarray]
Computed = tuple[Arrays, dict[str, Any]]  # every array of a figure, and the settings it was computed with

STYLE: dict[Any, Any] = {"font.size": 8, "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False}


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every figure; its description is the first paragraph of a module's docstring."""
    result = argparse.ArgumentParser(
        prog=f"python -m analysis.{name}", description=(description or "").split("\n\n")[0]
    )
    output = result.add_argument_group("output")
    output.add_argument("--out", type=Path, default=Path(f"analysis/figures/{name}"), help="path without its suffix")
    output.add_argument("--quiet", action="store_true", help="no progress bar")
    return result


def add_backend(options: argparse.ArgumentParser) -> None:
    """The option of figures that solve fixed points."""
    options.add_argument("--backend", choices=("auto", *cv.backends.NAMES), default="auto")


def branch_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of figures of a branch."""
    result = parser(name, description)
    result.add_argument(
        "--data", default="four_clusters", help="four_clusters, digits, ..., or a .npy, .npz or .csv file"
    )
    result.add_argument(
        "--betas", help="LOW:HIGH:COUNT, evenly spaced in log beta; default: the data's own transitions"
    )
    result.add_argument("--n-tiles", type=int, default=N_TILES, help="number of latent tiles (%(default)s)")
    result.add_argument("--sigma", type=float, default=1.0, help="standard deviation of the decoder (default 1)")
    result.add_argument("--masses", choices=("fixed", "free"), default="fixed", help="prior masses of the tiles")
    result.add_argument("--seed", type=int, default=0)
    add_backend(result)
    return result


def run(
    name: str,
    compute: Callable[[], Computed],
    out: Path,
    draw: Callable[[Arrays], Figure],
    table: Callable[[Arrays], str],
) -> int:
    """Compute a figure, write its files, print its table and the names of the files; the exit code.

    Bad input, and Ctrl-C before there is anything to draw, end in one line on the standard error.
    """
    try:
        arrays, settings = compute()
    except endings.EXPECTED as error:
        return endings.explained(name, error, "draw")
    write(out, arrays, settings, draw)
    print(table(arrays))
    for suffix in ("png", "pdf", "npz"):
        print(f"wrote {out}.{suffix}")
    return endings.partial(name) if settings["interrupted"] else endings.DONE


def write(out: Path, arrays: Arrays, settings: dict[str, Any], draw: Callable[[Arrays], Figure]) -> None:
    """Write the PNG, the PDF, and the arrays with their settings."""
    out.parent.mkdir(parents=True, exist_ok=True)
    everything: dict[str, Any] = {"settings": np.array(json.dumps(settings)), **arrays}
    np.savez_compressed(f"{out}.npz", **everything)
    figure = draw(arrays)
    figure.savefig(f"{out}.png", dpi=200)
    figure.savefig(f"{out}.pdf")
