"""RealNVP: a prior whose density is that of noise through affine couplings (Dinh et al. 2017, arXiv:1605.08803)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._utils.checks import check_count
from .gaussians import Gaussian, at_least_float32

_REACH = 3.0  # bound of the log-scales of one coupling


class RealNVP(nn.Module):
    """The density p(z) = N(u; 0, 1) |det du/dz|, where z goes to u through a sequence of affine couplings.

    A coupling keeps one half of z and moves the other half to z exp(s) + t, where s and t are functions of the half
    that it keeps. The halves change places from one coupling to the next. s is bounded to (-3, 3) by a softsign.

    It is our own and not that of a library, such as zuko, for two reasons. A new one is the identity, so a VAE with
    this prior begins as the VAE with a standard normal prior; and it needs no dependency.

    Parameters
    ----------
    dim : int
        Dimension L of the codes, at least 2.
    couplings : int
        Number of couplings.
    width : int
        Width of the two hidden layers of the network of every coupling.

    Raises
    ------
    ValueError
        For bad input.
    """

    def __init__(self, dim: int, couplings: int = 6, width: int = 64) -> None:
        super().__init__()
        dim, width = check_count(dim, "dim", 2), check_count(width, "width")
        numbers = range(check_count(couplings, "couplings"))
        self.couplings = nn.ModuleList(_Coupling(dim, width, first_kept=number % 2 == 0) for number in numbers)

    def outward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The noise u (B, L) of codes z (B, L), and log |det du/dz| (B,)."""
        log_det = z.new_zeros(len(z))
        for coupling in self.couplings:
            z, log_scale = coupling(z)
            log_det = log_det + log_scale.sum(1)
        return z, log_det

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) (B,) of codes (B, ...) of L entries each, nats."""
        u, log_det = self.outward(z.flatten(1))
        return Gaussian.standard(u).log_density(u) + log_det

    def sample(self, noise: Tensor) -> Tensor:
        """Codes (B, ...) of standard normal noise (B, ...), by the inverse of the couplings."""
        z = noise.flatten(1)
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z)
        return z.reshape(noise.shape)


class _Coupling(nn.Module):
    """u = (kept, moved exp(s) + t) with (t, s) = network(kept)."""

    def __init__(self, dim: int, width: int, first_kept: bool) -> None:
        super().__init__()
        self.sizes, self.first_kept = (dim // 2, dim - dim // 2), first_kept
        kept, moved = self.sizes if first_kept else self.sizes[::-1]
        last = nn.Linear(width, 2 * moved)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(kept, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The image u of codes z, and the log-scales of the half that moves."""
        kept, moved = self._halves(z)
        shift, log_scale = self._affine(kept)
        return self._joined(kept, moved * log_scale.exp() + shift), log_scale

    def inverse(self, u: Tensor) -> Tensor:
        """The codes z of which u is the image."""
        kept, moved = self._halves(u)
        shift, log_scale = self._affine(kept)
        return self._joined(kept, (moved - shift) * (-log_scale).exp())

    def _affine(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        shift, u = at_least_float32(self.network(kept)).chunk(2, dim=1)
        return shift, _REACH * nn.functional.softsign(u / _REACH)

    def _halves(self, z: Tensor) -> tuple[Tensor, Tensor]:
        first, second = z.split(self.sizes, dim=1)
        return (first, second) if self.first_kept else (second, first)

    def _joined(self, kept: Tensor, moved: Tensor) -> Tensor:
        return torch.cat((kept, moved) if self.first_kept else (moved, kept), dim=1)
