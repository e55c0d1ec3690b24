"""The shell of every figure's command: options, exit codes, and the files of a figure."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import constrained_vae as cv
from constrained_vae._utils.checks import check_count
from constrained_vae._utils.defaults import N_TILES
from constrained_vae._utils.writing import check_writable, whole_file, write_npz, write_picture
from constrained_vae.cli import endings
from constrained_vae.cli.data_options import DATA, add_data_options, choice_of
from constrained_vae.cli.signals import Signals

Arrays = dict[str, np.ndarray]
Computed = tuple[Arrays, dict[str, Any]]  # every array of a figure, and the settings it was computed with
Others = Mapping[str, Callable[[Arrays, dict[str, Any], str], None]]  # by suffix, further files of a figure

_COMMITTED, _OTHERS = Path("analysis/figures"), Path("build/figures")  # folders of figures
_DPI = 200  # of a PNG
_BESIDE = ("help", "out", "quiet", "backend", "runs", "device")  # options that do not change what a figure shows

STYLE: dict[Any, Any] = {"font.size": 8, "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False}


class _Parser(argparse.ArgumentParser):
    """A parser that chooses the folder of the files: that of the committed pictures is for the defaults alone."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        if getattr(found, "out", False) is None:
            shown = [action for action in self._actions if action.dest not in _BESIDE]
            ordinary = all(getattr(found, action.dest, action.default) == action.default for action in shown)
            found.out = (_COMMITTED if ordinary else _OTHERS) / self.prog.rpartition(".")[2]
        return found, rest


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every figure; its description is the first paragraph of a module's docstring."""
    result = _Parser(prog=f"python -m analysis.{name}", description=(description or "").split("\n\n")[0])
    output = result.add_argument_group("output")
    text = f"path without its suffix (by default {_COMMITTED / name}, with other data or settings {_OTHERS / name})"
    output.add_argument("--out", type=Path, help=text)
    output.add_argument("--quiet", action="store_true", help="no progress bar")
    return result


def add_backend(options: argparse.ArgumentParser) -> None:
    """The option of figures that solve fixed points."""
    options.add_argument("--backend", choices=("auto", *cv.backends.NAMES), default="auto")


def add_images(options: argparse.ArgumentParser, which: str) -> None:
    """The options of figures of images."""
    options.add_argument("--data", default="digits", help=f"{which}: by name, or as a file or folder (default digits)")
    add_data_options(options)
    options.add_argument("--n", type=int, help="number of images, the first of the set (default all)")


def images_of(args: argparse.Namespace, labelled: bool = False) -> cv.datasets.DataSet:
    """The grey images of the options --data and --n."""
    if args.data == "digits":
        return cv.datasets.digits(args.n)
    data = cv.datasets.find(args.data, seed=getattr(args, "seed", 0), **choice_of(args))
    if len(data.image_shape or ()) != 2 or (labelled and data.labels is None):
        raise ValueError(
            f"--data wants grey images{' with labels' * labelled}, such as digits, got {args.data!r}: {data}"
        )
    n = check_count(len(data) if args.n is None else args.n, "n", most=len(data))
    rows = {name: values[:n] for name in ("labels", "weights") if (values := getattr(data, name)) is not None}
    return dataclasses.replace(data, x=data.x[:n], critical_beta=None, **rows)


def branch_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of figures of a branch."""
    result = parser(name, description)
    result.add_argument("--data", default="four_clusters", help=DATA)
    add_data_options(result)
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
    others: Others | None = None,
) -> int:
    """Compute a figure, write its files, print its table and the names of the files; the exit code.

    Bad input, and Ctrl-C before there is anything to draw, end in one line on the standard error. The exit codes are
    those of the command line.
    """
    with endings.tolerant_errors(), Signals() as signals:
        try:
            with signals.computing():
                out.parent.mkdir(parents=True, exist_ok=True)
                for suffix in (".npz", ".png", ".pdf", *(others or {})):
                    check_writable(f"{out}{suffix}", "--out")
                arrays, settings = compute()
        except BaseException as error:
            return endings.explained(name, error, "draw", signals)
        if settings.get("interrupted") and not signals.numbers:
            signals.numbers.append(signal.SIGINT)  # a KeyboardInterrupt that no signal has raised
        files = write(name, out, arrays, settings, draw, others)
        names = [f"wrote {path}" for path, there in files.items() if there and Path(path).exists()]
        printed = endings.printed(name, lambda: table(arrays), names, signals)
        return endings.ended(name, printed and all(files.values()), True, signals)


def write(
    name: str,
    out: Path,
    arrays: Arrays,
    settings: dict[str, Any],
    draw: Callable[[Arrays], Figure],
    others: Others | None = None,
) -> dict[str, bool]:
    """Write the arrays with their settings, the PNG, the PDF and others; every path, and whether it was written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    everything: dict[str, Any] = {"settings": np.array(json.dumps(settings)), **arrays}
    figure = functools.cache(lambda: draw(arrays))
    steps: dict[str, Callable[[str], None]] = {
        f"{out}.npz": lambda path: write_npz(path, None, everything),
        f"{out}.png": lambda path: write_png(path, figure()),
        f"{out}.pdf": lambda path: write_picture(path, figure(), dpi="figure"),
        **{f"{out}{suffix}": functools.partial(other, arrays, settings) for suffix, other in (others or {}).items()},
    }
    return {path: endings.written(name, path, functools.partial(step, path)) for path, step in steps.items()}


def write_png(path: str, figure: Figure) -> None:
    """Write a PNG, unless the file has the same pixels: the text in its header may differ from release to release."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    drawn.seek(0)
    if Path(path).exists():
        with contextlib.suppress(OSError, ValueError, SyntaxError):
            if np.array_equal(plt.imread(path), plt.imread(drawn)):
                return
    with whole_file(path) as file:
        file.write(drawn.getvalue())


def plane_names(data: cv.datasets.DataSet) -> np.ndarray:
    """Labels of the two axes along which data are drawn: names of columns, or principal components if D > 2."""
    dim = data.x.shape[1]
    if dim > 2:
        return np.array(["principal component 1", "principal component 2"])
    own = ["$x_1$", "$x_2$"] if data.columns is None else [name.replace("$", r"\$") for name in data.columns]
    return np.array([*own[:dim], ""][:2])


def show_images(ax: Axes, images: np.ndarray) -> None:
    """Draw images (rows, columns, H, W, C) with values in [0, 1] as a table; those of NaN are left blank."""
    rows, columns, height, width, _ = images.shape
    page = np.ones((rows, height + 1, columns, width + 1, 3))
    shown = np.where(np.isnan(images), 1.0, np.clip(images, 0, 1))
    page[:, :height, :, :width] = shown.swapaxes(1, 2)  # grey images are broadcast to three channels
    ax.imshow(page.reshape(rows * (height + 1), -1, 3)[:-1, :-1], interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
