"""Defaults that the functions, the estimator, the command line and the figures share."""

from typing import Any

N_TILES = 64  # latent tiles: more of them move the transitions of real data little, and a map takes longer
IMAGE_MODELS: dict[str, dict[str, Any]] = {  # names of image models, and what `make_model` needs beside the shape
    "vae": {"model": "ConvVAE"},
    "vae-nvp": {"model": "ConvVAE", "prior": "flow"},
    "convdraw": {"model": "ConvDRAW"},
}
