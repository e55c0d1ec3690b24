"""Defaults that the functions, the estimator, the command line and the figures share."""

N_TILES = 64  # latent tiles: more of them move the transitions of real data little, and a map takes longer
