"""The energies of a loss (T4) as tensors: RE natively, other constraints through their readout and its pullback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.frame import Frame
from ..geco.multiplier import Multiplier
from ..objectives.constraint_energies import Energy
from ..objectives.constraints import RE, Constraint
from .gaussians import at_least_float32


@dataclass(frozen=True, eq=False)
class ImageTerm:
    """One energy of a loss, of images and the means that a model gives for them.

    Attributes
    ----------
    name : str
    allowance : float
        Threshold that is subtracted from the energy of a constraint; 0 for a likelihood.
    multiplier : Multiplier, callable or None
        A `Multiplier` that learns lambda, a function step -> lambda, or None if the energy is only monitored.
    energy : Energy or float
        The energy of a row, or the factor of the squared error.
    """

    name: str
    allowance: float
    multiplier: Multiplier | Callable[[int], float] | None
    energy: Energy | float

    @classmethod
    def make(cls, constraint: Constraint, dim: int, multiplier: Multiplier | None = None) -> ImageTerm:
        """The term of a constraint on rows of this dimension."""
        energy: Energy | float
        if isinstance(constraint, RE):
            energy = 1 / dim if constraint.reduction == "mean" else 1.0
        else:
            energy = constraint.in_frame(Frame.identity(dim))
        return cls(constraint.name, constraint.allowance, multiplier, energy)

    @classmethod
    def likelihood(cls, multiplier: Callable[[int], float]) -> ImageTerm:
        """The squared error with a given multiplier: the Gaussian likelihood, up to a constant."""
        return cls("ELBO", 0.0, multiplier, 1.0)

    def at(self, rows: np.ndarray, x: Tensor, mean: Tensor, distortion: Tensor) -> Tensor:
        """Energies (B,) of these rows of the data, x and mean (B, C, H, W), with their `squared_error` (B,)."""
        if isinstance(self.energy, float):
            return self.energy * distortion
        here = numbers(as_rows(x))
        phi, s = self.energy.statistics(here, rows)  # type: ignore[arg-type]  # an index serves as well as a slice
        return _Readout.apply(as_rows(mean), self.energy, phi, s)


def squared_error(x: Tensor, mean: Tensor) -> Tensor:
    """||x - mean||^2 in total (B,), in float32 at least."""
    return (x - at_least_float32(mean)).square().flatten(1).sum(1)


def as_rows(x: Tensor) -> Tensor:
    """Images (B, C, H, W) as rows (B, D) of data, in which the channels of a pixel are neighbours."""
    return x.permute(0, 2, 3, 1).flatten(1)


def as_images(rows: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Rows (B, D) of data as images (B, C, H, W)."""
    channels, height, width = image_shape
    return rows.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


class _Readout(torch.autograd.Function):
    """H(x, psi) = s - b(psi) - phi . v(psi), row by row, of an energy in NumPy; NaN if some psi is not finite.

    An error would end one of several processes, and leave the others waiting for it; NaN reaches all of them.
    """

    @staticmethod
    def forward(ctx: Any, psi: Tensor, energy: Energy, phi: np.ndarray, s: np.ndarray) -> Tensor:
        here = numbers(psi)
        ctx.energy, ctx.phi, ctx.here = energy, phi, here
        if not np.isfinite(here).all():
            return torch.full_like(at_least_float32(psi[:, 0]), torch.nan)
        v, b = energy.readout(here)
        return torch.as_tensor(s - b - (phi * v).sum(axis=1)).to(at_least_float32(psi))

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None, None]:
        if not np.isfinite(ctx.here).all():
            return torch.full(ctx.here.shape, torch.nan).to(slopes), None, None, None
        each = numbers(slopes)
        gradient = -ctx.energy.pullback(ctx.here, each[:, None] * ctx.phi, each)
        return torch.as_tensor(gradient).to(slopes), None, None, None


def numbers(values: Tensor) -> np.ndarray:
    """The values in float64 on the host, as feature maps take them."""
    return values.detach().to("cpu", torch.float64).numpy()
