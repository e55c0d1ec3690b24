"""Values of command-line options, shared by the command line and the figures."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np

from .._utils.arrays import FloatArray
from .._utils.checks import shown
from .._utils.defaults import IMAGE_MODELS

_MODELS_WITH = {  # options of train that some models do not have
    "hidden": ("mlp",),
    "likelihood": ("mlp",),
    "task": tuple(IMAGE_MODELS),
    "device": tuple(IMAGE_MODELS),
    "draws": ("convdraw",),
}
_DEFAULTS: dict[bool, dict[str, Any]] = {  # of train, for models of images or not; others are those of the library
    False: {"latent": 2, "sigma": 1.0, "likelihood": "gaussian", "steps": 20_000},
    True: {"task": "plain", "device": "auto", "steps": 10_000},
}


def beta_grid(text: str | None, least: int = 2) -> FloatArray | None:
    """The temperatures of `--betas LOW:HIGH:COUNT`, ascending and evenly spaced in log beta; None for None.

    Raises
    ------
    ValueError
        If the text has another form, or there are fewer than `least` temperatures.
    """
    if text is None:
        return None
    wanted = f"--betas wants LOW:HIGH:COUNT with 0 < LOW < HIGH and at least {least} temperatures, got {shown(text)}"
    try:
        ends, count = text.rsplit(":", 1)
        (low, high), n = map(float, ends.split(":")), int(count)
    except ValueError:
        raise ValueError(wanted) from None
    if not (0 < low < high < math.inf and n >= least):
        raise ValueError(wanted)
    return np.geomspace(low, high, n)


def pair(text: str, wanted: str) -> tuple[float, float]:
    """The two numbers of an option such as `--betas LOW:HIGH`; `wanted` begins the message of the ValueError."""
    try:
        first, second = map(float, text.split(":"))
    except ValueError:
        raise ValueError(f"{wanted}, got {shown(text)}") from None
    return first, second


def hidden_widths(text: str) -> tuple[int, ...]:
    """The widths of `--hidden`: separated by commas, or "linear" for none."""
    try:
        return () if text == "linear" else tuple(map(int, text.split(",")))
    except ValueError:
        raise ValueError(f"--hidden wants widths such as 64,64, or linear, got {shown(text)}") from None


def complete(args: argparse.Namespace) -> None:
    """Give options of `train` the defaults of the model; ValueError for an option that the model does not have."""
    for name, models in _MODELS_WITH.items():
        if getattr(args, name) is not None and args.model not in models:
            raise ValueError(f"--{name} belongs to --model {' or '.join(models)}, got --model {args.model}")
    if args.task == "rotate" and args.model != "convdraw":
        raise ValueError(f"--task rotate wants --model convdraw, which sees the turned image, got --model {args.model}")
    for name, default in _DEFAULTS[args.model in IMAGE_MODELS].items():
        if getattr(args, name) is None:
            setattr(args, name, default)
