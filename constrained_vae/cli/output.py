"""Files of results of the command line: what is checked before a command computes, and what is written after it."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from .._utils.writing import check_writable, write_picture, write_text
from ..datasets import DataSet
from .outcome import Outcome
from .signals import Signals


def check(args: argparse.Namespace) -> None:
    """Make the folders of the output files, and raise ValueError or OSError now if a file cannot be written later."""
    out: Path | None = args.out
    plot: Path | None = args.plot
    archive = ".pt" if args.command == "train" and args.model != "mlp" else ".npz"
    if args.command == "explore" and (out is None or out.suffix not in (".html", ".json")):
        raise ValueError(f"--out must be an .html file to write the page to, or a .json file, got {out}")
    if args.command != "explore" and out is not None and out.suffix not in (archive, ".json"):
        raise ValueError(f"--out must be a {archive} or .json file, got {out}")
    if plot is not None:
        from matplotlib.figure import Figure

        kinds = Figure().canvas.get_supported_filetypes()
        if plot.suffix[1:] not in kinds:
            raise ValueError(f"--plot must be a file of one of the types {', '.join(sorted(kinds))}, got {plot}")
    for path in (out, plot):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_writable(path, "--out" if path is out else "--plot")
            if path.exists() and not path.is_file():
                raise ValueError(f"{path} is a device or a pipe: give --out and --plot a file")


def is_archive(out: Path | None) -> bool:
    """Whether an output file is one that the library can load, .npz or .pt, and not a .json file."""
    return out is not None and out.suffix != ".json"


def save(args: argparse.Namespace, data: DataSet, outcome: Outcome, ending: dict[str, bool], signals: Signals) -> None:
    """Write the file of results; a signal cuts short what describes them, but not the file."""
    if is_archive(args.out):
        outcome.save(args.out)
        return
    about = {"name": data.name, "n_points": data.x.shape[0], "dim": data.x.shape[1]}
    options = {name: v for name, v in vars(args).items() if name not in ("command", "out", "plot", "quiet")}
    head = {"command": args.command, "version": __version__, "data_set": about, "options": options}
    facts: Mapping[str, Any] = {}
    with contextlib.suppress(KeyboardInterrupt), signals.raised():
        facts = outcome.facts()  # some need a pass over the data
    everything = {**head, **ending, **facts, "columns": outcome.columns()}
    write_text(args.out, json.dumps(_plain(everything), indent=1, allow_nan=False) + "\n")


def draw(path: Path, outcome: Outcome, signals: Signals) -> None:
    """Draw the picture; a signal raises KeyboardInterrupt."""
    from matplotlib.figure import Figure

    with signals.raised():
        ax = outcome.draw(Figure(figsize=(5, 3.5), layout="constrained").subplots())
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize="small")
    write_picture(path, ax.figure)


def _plain(value: Any) -> Any:
    """The value with types that JSON has; numbers that are not finite become None."""
    if hasattr(value, "compute"):  # of Dask
        value = value.compute()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
