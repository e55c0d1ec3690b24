"""ELBO: the objective of a beta-VAE, with energy and multiplier in the linear form (T3), (T4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .. import equations
from .._utils.arrays import Array
from .._utils.checks import check_choice, check_positive
from ..data.frame import Frame
from .energies import CrossEntropy, Divergence, SquaredError

LIKELIHOODS = ("gaussian", "bernoulli", "poisson", "categorical")
_SUM_TOL = 1e-6  # of rows that must sum to one


@dataclass(frozen=True)
class ELBO:
    """The beta-weighted evidence lower bound, free energy F = R + lambda E[d] (T3)-(T5).

    In rate-distortion theory F is the Lagrangian of the rate R with slope lambda. In deterministic annealing the
    temperature is 1 / lambda = 2 theta with theta = sigma^2 beta.

    Parameters
    ----------
    beta : float
        Temperature of the beta-VAE; the ELBO proper is beta = 1.
    sigma : float
        Standard deviation of the Gaussian decoder, in units of x. Other decoders ignore it.
    likelihood : {"gaussian", "bernoulli", "poisson", "categorical"}
        Gaussian: energy ||x - psi||^2 / (2 sigma^2 beta). Bernoulli: -log p(x | psi) / beta, data in [0, 1]. Poisson:
        -log p(x | psi) / beta, counts of at least 0. Categorical: KL(x || psi) / beta, rows of at least 0 that sum to
        one. With the categorical energy and free masses F is the Lagrangian of the information bottleneck (Tishby,
        Pereira and Bialek 1999): rows are p(y | x), weights p(x), and F = I(X; T) + (I(X; Y) - I(T; Y)) / beta.

    Raises
    ------
    ValueError
        If beta or sigma is not positive and finite, or the likelihood is unknown.

    Examples
    --------
    >>> ELBO(beta=0.5).multiplier
    1.0
    """

    beta: float = 1.0
    sigma: float = 1.0
    likelihood: str = "gaussian"

    labelled = None
    unit = 1.0  # of the points that the energy gets, in units of the data

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", check_positive(self.beta, "beta"))
        object.__setattr__(self, "sigma", check_positive(self.sigma, "sigma"))
        check_choice(self.likelihood, "likelihood", LIKELIHOODS)
        if not (0 < self.multiplier < np.inf):
            raise ValueError(
                f"sigma^2 beta must be a representable positive number, got {self}: rescale the data, by the "
                "square of whose unit it goes"
            )

    @cached_property
    def energy(self) -> SquaredError | CrossEntropy | Divergence:
        if self.likelihood == "gaussian":
            return SquaredError()
        return CrossEntropy() if self.likelihood == "bernoulli" else Divergence(self.likelihood == "poisson", self.unit)

    @cached_property
    def multiplier(self) -> float:
        """Slope lambda of the rate-distortion function: 1 / (2 sigma^2 beta) for Gaussian decoders, else 1 / beta."""
        return 0.5 / self.beta / self.sigma / self.sigma if self.likelihood == "gaussian" else 1.0 / self.beta

    @property
    def equivariant(self) -> bool:
        return self.energy.equivariant

    @property
    def homogeneous(self) -> bool:
        """Whether the data may be scaled, though not moved: a frame has its origin at 0 (counts, compositions)."""
        return self.energy.homogeneous

    @cached_property
    def quadratic(self) -> float | None:
        """The multiplier if the energy is a squared distance, so that a kernel may compute it as one; else None."""
        return self.multiplier if self.likelihood == "gaussian" else None

    @cached_property
    def stiffness(self) -> float:
        """lambda grad^2 f in `coordinates`: 1/theta = 1/(sigma^2 beta) for Gaussian decoders, 4/beta for Bernoulli.

        Its inverse square root is the resolution: reconstructions that are nearer are almost equivalent.
        """
        return self.multiplier * self.energy.stiffness

    @property
    def allowance(self) -> float:
        """The constants sum_c lambda_c kappa_c^2 of constraints in the Lagrangian; 0 for the ELBO."""
        return 0.0

    def at(self, beta: float) -> ELBO:
        """The same objective at another temperature."""
        return replace(self, beta=beta)

    def check(self, x: Array) -> None:
        """Raise ValueError if the likelihood does not admit the data."""
        if self.likelihood == "bernoulli" and (x.min() < 0 or x.max() > 1):
            raise ValueError(
                f"the Bernoulli likelihood wants data in [0, 1], got values from {x.min():.4g} to {x.max():.4g}: "
                "rescale them, or use likelihood='gaussian'"
            )
        if self.homogeneous and x.min() < 0:
            raise ValueError(
                f"the {self.likelihood} likelihood wants data of at least 0, got {x.min():.4g}: use "
                "likelihood='gaussian' for data of both signs"
            )
        if self.likelihood == "categorical":
            sums = x.sum(axis=1, dtype=np.float64)
            if (wrong := ~(np.abs(sums - 1) <= _SUM_TOL)).any():
                raise ValueError(
                    f"the categorical likelihood wants rows that sum to one, got a row with the sum "
                    f"{sums[wrong][0]:.6g}: divide each row by its sum, which may be its weight"
                )

    def in_frame(self, frame: Frame) -> ELBO:
        """The same objective for data measured in the frame; energies are unchanged."""
        if self.likelihood == "gaussian" and not 0 < self.multiplier * frame.scale * frame.scale < np.inf:
            raise ValueError(
                f"energies ||x - psi||^2 / (2 sigma^2 beta) of data with a radius of {frame.scale:.2g} leave the range "
                f"of float64 with {self}: give a sigma^2 beta that is nearer to the square of that radius"
            )
        if self.homogeneous:
            return _Scaled(self.beta, self.sigma, self.likelihood, frame.scale)
        return replace(self, sigma=self.sigma / frame.scale)

    def statistics(self, x: Array, rows: slice | None = None) -> tuple[Array, Array]:
        return self.energy.statistics(x)

    def offset(self, s: Array) -> Array:
        return self.multiplier * s

    def readout(self, psi: Array) -> tuple[Array, Array]:
        v, b = self.energy.readout(psi)
        v *= self.multiplier
        b *= self.multiplier
        return v, b

    def decoder(self, mass: Array, sums: Array, psi: Array) -> Array:
        """Weighted means (T3); a tile without posterior mass keeps its reconstruction."""
        means = equations.decoder(sums, mass, psi)
        # Means of data in [0, 1] leave that interval by rounding.
        return means.clip(0, 1) if self.likelihood == "bernoulli" else means

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        """Transposed derivative of the readout, dv . d(v) + db d(b), (K, D)."""
        return self.multiplier * self.energy.pullback(psi, dv, db)

    def coordinates(self, psi: Array) -> Array:
        """Coordinates of reconstructions in which the curvature of the energy is the constant `stiffness`."""
        return self.energy.coordinates(psi)

    def reconstructions(self, u: Array) -> Array:
        """The reconstructions at any coordinates, inside the domain of the energy."""
        return self.energy.reconstructions(u)

    def curvature(self, psi: Array) -> Array:
        """Diagonal (K, D) of lambda grad^2 f(psi), as in the Jacobian (T8)."""
        return self.multiplier * self.energy.curvature(psi)

    def settings(self) -> dict[str, Any]:
        """The settings that `save` writes and `load` reads."""
        return {"objective": "ELBO", "beta": self.beta, "sigma": self.sigma, "likelihood": self.likelihood}


@dataclass(frozen=True)
class _Scaled(ELBO):
    """The objective for points in a frame of another unit, whose origin is 0."""

    unit: float = 1.0
