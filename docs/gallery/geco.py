"""
Training with GECO
==================

A linear VAE under one constraint. The multiplier ends at its exact value, 1.25 (reverse water-filling, section 5 of the
theory).
"""

import constrained_vae as cv

gaussian = cv.datasets.gaussian((4.0, 2.0, 0.5), n=500)
run = cv.geco.train(gaussian, cv.RE.from_squared_error(1.2), latent_dim=3, hidden=(), steps=1500)
run.plot()
print(run.report["RE"])
