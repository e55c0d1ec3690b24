"""The public functions of image models take hostile arguments correctly, or refuse them by name in our own words."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import constrained_vae as cv

torch = pytest.importorskip("torch")
from constrained_vae.image_models import (
    MLPVAE,
    ColourMnist,
    ConvDRAW,
    ConvVAE,
    MnistRotate,
    PlainImages,
    RealNVP,
    make_model,
    train,
)
from tests.helpers.marks import slow
from tests.helpers.public_calls import callable_names, valid
from tests.test_hostile import attempt

CALLS = 60  # of one test
X = np.random.default_rng(0).uniform(size=(12, 16))
IMAGES = cv.datasets.DataSet(X, "images", image_shape=(4, 4))
RE = cv.RE(0.2, reduction="mean")


def small():
    return MLPVAE((1, 4, 4), 2, hidden=(3,))


def draw(context_size=None):
    return ConvDRAW((1, 4, 4), 2, 1, steps=2, context_size=context_size)


@functools.cache
def run():
    return train(IMAGES, RE, model=small(), steps=4, batch_size=4, device="cpu")


@functools.cache
def curve():
    return cv.rate_distortion(X, [20.0, 5.0], gap=0.1)


def weights(model):
    """All numbers of a model, of which the tests look whether they are finite."""
    return np.concatenate([values.detach().double().numpy().ravel() for values in model.state_dict().values()])


def trained(x=X, **options):
    task = PlainImages(cv.datasets.DataSet(x, "images", image_shape=(4, 4)))
    return weights(train(**{"task": task, **options}).model)


def evaluated(**options):
    seen = run().evaluate(**options)
    return np.array([seen.rate, seen.distortion, seen.nll, seen.mutual_information, seen.holes])


TRAINING = {
    "constraints": RE,
    "model": small,
    "objective": "geco",
    "beta": None,
    "sigma": 1.0,
    "multipliers": None,
    "steps": 3,
    "time_limit": 1.0,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "clip": 1.0,
    "seed": 0,
    "device": "cpu",
    "autocast": True,
    "every": 1,
    "checkpoint": None,
    "checkpoint_every": 2,
    "resume": None,
    "progress": False,
    "callback": None,
}
SHAPE = {"image_shape": (1, 4, 4)}
NOISE = torch.zeros(3, 2, 1, 1, 1)


def public_calls(folder):
    """The calls by name: a function and its valid arguments, as in `tests.helpers.public_calls`."""
    return {
        "image_models.train": (trained, {"task": IMAGES, **TRAINING}),
        "train on x": (trained, {"x": X, **TRAINING, "batch_size": None}),
        "image_models.make_model": (make_model, {"config": {"model": "MLPVAE", **SHAPE}, "seed": 0}),
        "image_models.MLPVAE": (MLPVAE, {**SHAPE, "latent_dim": 2, "hidden": (3,), "prior": "flow", "seed": 0}),
        "image_models.ConvVAE": (
            ConvVAE,
            {**SHAPE, "latent_dim": 2, "channels": 2, "hidden": 3, "prior": "normal", "seed": 0},
        ),
        "image_models.ConvDRAW": (
            ConvDRAW,
            {
                **SHAPE,
                "hidden_channels": 2,
                "latent_channels": 1,
                "steps": 2,
                "stride": 4,
                "kernel_size": 3,
                "shared": False,
                "cell": "lstm",
                "context_size": 1,
                "seed": 0,
            },
        ),
        "image_models.ConvDRAW.forward": (
            lambda x, noise, context: draw()(x, noise, context),
            {"x": torch.zeros(3, 1, 4, 4), "noise": NOISE, "context": None},
        ),
        "image_models.ConvDRAW.log_ratio": (
            lambda x, codes, context: draw(1).log_ratio(x, codes, context),
            {"x": torch.zeros(3, 1, 4, 4), "codes": NOISE, "context": torch.zeros(3, 1, 4, 4)},
        ),
        **{
            f"image_models.ConvDRAW.{name}": (
                lambda noise, context, name=name: getattr(draw(1), name)(noise, context),
                {"noise": NOISE, "context": torch.zeros(3, 1, 4, 4)},
            )
            for name in ("sample", "draw_codes")
        },
        "image_models.RealNVP": (RealNVP, {"dim": 3, "couplings": 2, "width": 2}),
        **{
            f"image_models.{task.__name__}": (task, {"data": IMAGES})
            for task in (PlainImages, MnistRotate, ColourMnist)
        },
        "image_models.ImageRun.evaluate": (evaluated, {"task": IMAGES, "samples": 2, "seed": 0, "pairs": 100}),
        "image_models.ImageRun.sample": (lambda n, seed: run().sample(n, seed=seed), {"n": 2, "seed": 0}),
        "image_models.ImageRun.reconstruct": (
            lambda n, task, seed: run().reconstruct(n, task, seed=seed),
            {"n": 2, "task": IMAGES, "seed": 0},
        ),
        "image_models.ImageRun.excess_over": (
            lambda curve, evaluation: run().excess_over(curve, evaluation=evaluation).gap.most,
            {"curve": curve, "evaluation": None},
        ),
        "image_models.ImageRun.excess_over_linear": (
            lambda evaluation: run().excess_over_linear(evaluation=evaluation).gap,
            {"evaluation": None},
        ),
        "image_models.ImageRun.plot": (lambda ax: run().plot(ax), {"ax": None}),
        "image_models.ImageRun.save": (lambda path: run().save(path), {"path": folder / "run.pt"}),
    }


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    return public_calls(tmp_path_factory.mktemp("files"))


def test_every_public_function_has_a_call(entries):
    assert set(callable_names(["image_models"])) - set(entries) == set()


@pytest.mark.filterwarnings("ignore")
def test_the_valid_calls_are_taken(entries):
    for function, arguments in entries.values():
        function(**valid(arguments))


@pytest.mark.parametrize("seed", [*range(5), *(slow(seed) for seed in range(5, 100))])
def test_hostile_arguments(entries, seed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(seed)
    faults = [fault for _ in range(CALLS) if (fault := attempt(entries, rng)) is not None]
    assert faults == []
