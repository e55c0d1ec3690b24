"""Small image models of every kind."""

import torch

from constrained_vae.image_models import make_model

IMAGE = 1, 8, 8
VAES = {
    "mlp": {"model": "MLPVAE", "latent_dim": 3, "hidden": [7]},
    "mlp with a flow": {"model": "MLPVAE", "latent_dim": 3, "hidden": [7, 5], "prior": "flow"},
    "linear": {"model": "MLPVAE", "latent_dim": 3, "hidden": []},
    "conv": {"model": "ConvVAE", "latent_dim": 3, "channels": 2, "hidden": 7},
    "conv with a flow": {"model": "ConvVAE", "latent_dim": 3, "channels": 2, "hidden": 7, "prior": "flow"},
}
_DRAW = {"model": "ConvDRAW", "hidden_channels": 3, "latent_channels": 2, "steps": 3}
DRAWS = {
    "draw": _DRAW,
    "draw of own weights": {**_DRAW, "shared": False, "stride": 2},
    "draw without strides": {**_DRAW, "stride": 1, "steps": 2},
    "draw of linear cells": {**_DRAW, "cell": "linear", "kernel_size": 1},
    "conditional draw": {**_DRAW, "context_size": 2},
    "conditional draw of own weights": {**_DRAW, "context_size": 2, "shared": False, "kernel_size": 5},
}
MODELS = VAES | DRAWS


def small_model(name, image_shape=IMAGE, seed=0, **options):
    """A new model in float64, of the name of a configuration, with other options than those."""
    return make_model({**MODELS[name], "image_shape": list(image_shape), **options}, seed).double()


def random_model(name, draw, spread=0.3, image_shape=IMAGE, **options):
    """A model whose weights are all random, so that no part of it is near the identity or 0."""
    model = small_model(name, image_shape, **options)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(spread * draw(*weights.shape))
    model.centre.copy_(draw(*image_shape))
    return model


def batch(model, draw, size):
    """Images, noise and contexts; None for models without a context."""
    context = None if model.context_size is None else draw(size, *model.context_shape)
    return draw(size, *model.image_shape), draw(size, *model.code_shape), context
