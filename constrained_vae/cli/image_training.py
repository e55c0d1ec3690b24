"""The command train for models of images, of the optional extra `torch`."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import image_models
from .._utils.defaults import IMAGE_MODELS
from ..datasets import DataSet, held_out
from ..image_models import ColourMnist, ImageEvaluation, MnistRotate, Model, PlainImages, Task, make_model
from .outcome import Outcome, outcome_of_training, table_of_thresholds

TASKS: dict[str, type[Task]] = {"plain": PlainImages, "rotate": MnistRotate, "colour": ColourMnist}
_EVALUATED = 1000  # images: a pass of a large set would take as long as some of its training


def train(args: argparse.Namespace, data: DataSet, given: Mapping[str, Any]) -> Outcome:
    """A trained model of images, evaluated on training and test images; `given` are arguments of every training."""
    make_task = TASKS[args.task]
    task, tests = make_task(data), held_out(args.data, size=args.size)
    model = _new_model(args, task)
    run = image_models.train(
        task,
        model=model,
        sigma=_sigma(args, math.prod(task.image_shape)),
        steps=args.steps,
        device=args.device,
        **given,
    )
    if not len(run.history):
        raise KeyboardInterrupt

    @functools.cache
    def evaluations() -> dict[str, ImageEvaluation]:
        parts = {"training": data} if tests is None else {"training": data, "test": tests}
        # Without pairs: the marginal KL of a model of several steps takes a pass for every pair of images.
        return {name: run.evaluate(make_task(_some(part)), samples=2, pairs=0) for name, part in parts.items()}

    def text() -> str:
        lines = [repr(run), *(_described(name, seen) for name, seen in evaluations().items())]
        doubtful = any(found.status in ("slack", "unreachable") for found in run.report.values())
        if doubtful and isinstance(task, PlainImages):  # a context tells more of an image than codes alone
            lines.append(table_of_thresholds(task.images(), math.prod(model.code_shape)))
        return "\n".join(lines)

    def facts() -> Mapping[str, Any]:
        found = {name: _numbers(seen) for name, seen in evaluations().items()}
        return {"sigma": run.sigma, **found["training"], "test": found.get("test")}

    return outcome_of_training(run, text, facts)


def _new_model(args: argparse.Namespace, task: Task) -> Model:
    """The model of the options, with the seed of --seed."""
    config = {**IMAGE_MODELS[args.model], "image_shape": list(task.image_shape)}
    names = {"latent": "latent_dim"}
    if args.model == "convdraw":
        names = {"latent": "latent_channels", "draws": "steps"}
        config["context_size"] = task.context_size
    config |= {name: getattr(args, option) for option, name in names.items() if getattr(args, option) is not None}
    return make_model(config, args.seed)


def _sigma(args: argparse.Namespace, dim: int) -> float:
    """--sigma; without it, under a threshold, the one with which the likelihood of a model at the threshold is best."""
    if args.sigma is not None or not args.kappa:
        return 1.0 if args.sigma is None else float(args.sigma)
    return float(args.kappa / (1 if args.per_dimension else math.sqrt(dim)))


def _some(data: DataSet) -> DataSet:
    """The images, or some of them drawn at random, always the same."""
    rows = np.sort(np.random.default_rng(0).permutation(len(data))[:_EVALUATED])
    return dataclasses.replace(data, x=data.x[rows], labels=None, weights=None)


def _described(name: str, seen: ImageEvaluation) -> str:
    """An evaluation in a line."""
    steps = f" ({' '.join(f'{rate:.4g}' for rate in seen.rates)} by step)" if len(seen.rates) > 1 else ""
    return (
        f"{name} images: rate {seen.rate:.6g} nats{steps}, distortion {seen.distortion:.6g}, that is "
        f"{math.sqrt(seen.per_dimension):.4g}^2 per dimension, {seen.bits_per_dimension:.4g} bits per dimension"
    )


def _numbers(seen: ImageEvaluation) -> dict[str, Any]:
    """The numbers of an evaluation for the JSON file."""
    names = ("rate", "rates", "distortion", "per_dimension", "nll", "bits_per_dimension")
    return {name: getattr(seen, name) for name in names}
