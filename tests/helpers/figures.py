"""The commands of all figures on tiny data: their options, and what a run of each leaves behind."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis import (
    _training,
    constraints,
    figure1,
    figure2,
    figure3,
    figure4,
    figure5,
    frontier,
    geco_theory,
    spectral,
    transitions,
)

_CLUSTERS = ["--data", "four_clusters", "--n", "40"]
SMALL = {
    figure1: ["--n-tiles", "300", "--side", "4", "--n", "80", "--betas", "0.8", "0.1"],
    figure2: ["--betas", "0.16:11:60", "--n-tiles", "8", "--backend", "reference"],
    transitions: ["--betas", "0.2:11:60", "--n-tiles", "8"],
    spectral: ["--n-tiles", "6", "--count", "4"],
    constraints: ["--n", "40", "--n-tiles", "3", "--rate", "0.5", "--features", "16", "--ratio", "0.8"],
    frontier: ["--data", "four_clusters", "--betas", "0.004:8:12", "--starts", "3"],
    figure3: [*_CLUSTERS, "--steps", "120", "--kappa", "0.5"],
    figure4: [*_CLUSTERS, "--steps", "60", "--kappas", "0.5,1", "--seeds", "2"],
    figure5: [*_CLUSTERS, "--steps", "60", "--noise", "0.2,0.4", "--seeds", "2"],
    geco_theory: ["--steps", "60", "--seeds", "2", "--n-tiles", "32"],
}
N_POINTS = 40  # of every set of the spectral figure
CODES = 100  # per point, in evaluations of trained models


class Drawn(NamedTuple):
    """What one run of a figure's command left behind."""

    out: Path  # without a suffix
    arrays: dict[str, np.ndarray]  # read-only
    settings: dict[str, object]
    text: str  # printed


def title(figure: ModuleType) -> str:
    return figure.__name__.rpartition(".")[2]


# The hysteresis of exponential data does not depend on the options of the transitions figure.
loop = functools.cache(functools.partial(transitions.hysteresis, n_points=200, n_tiles=8, count=50))


@contextlib.contextmanager
def shortened() -> Iterator[None]:
    """With little of what the options of a command cannot shorten."""
    one_set = spectral.one_set
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure3, "_IN_PLANE", 8)
        patch.setattr(_training, "_CODES", CODES)
        patch.setattr(transitions, "hysteresis", lambda **options: loop())
        patch.setattr(spectral, "one_set", lambda name, **options: one_set(name, **{**options, "n": N_POINTS}))
        patch.setattr(spectral, "_WIDTHS", np.array([1.0, 3.0]))
        patch.setattr(spectral, "_LIMIT", {"four_clusters": 3, "rings": 1, "moons": 1, "digits": 1})
        yield


@contextlib.contextmanager
def coarse() -> Iterator[None]:
    """Pictures are rendered, so that what cannot be drawn fails, but in few pixels, as PNG alone, and not laid out.

    The layout is most of the time of a picture; `test_the_whole_picture` has it.
    """
    savefig = Figure.savefig

    def save(figure, file, *, format, **options):
        if format == "png":
            figure.set_layout_engine("none")
            savefig(figure, file, format=format, **{**options, "dpi": 20})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


def run(figure, folder, *options, small=None):
    """Exit status, arrays and settings of a command with its small options and some more; the picture is coarse."""
    out = folder / "sub" / "figure"
    with coarse():
        status = figure.main([*(SMALL[figure] if small is None else small), "--quiet", *options, "--out", str(out)])
    return status, *read(out)


def read(out):
    """Arrays and settings of a figure, None where it was not written."""
    if not out.with_suffix(".npz").exists():
        return None, None
    with np.load(out.with_suffix(".npz")) as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("settings")))


def drawn(figure, folder) -> Drawn:
    """A run of a figure with its small options; the picture is coarse."""
    out = folder / "sub" / "figure"
    with shortened(), coarse(), contextlib.redirect_stdout(io.StringIO()) as text:
        assert figure.main([*SMALL[figure], "--quiet", "--out", str(out)]) == 0
    arrays, settings = read(out)
    for array in arrays.values():
        array.flags.writeable = False
    return Drawn(out, arrays, settings, text.getvalue())
