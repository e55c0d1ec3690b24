"""RealNVP: a prior whose density is that of noise through affine couplings (Dinh et al. 2017, arXiv:1605.08803)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._utils.checks import check_count
from .gaussians import Gaussian, at_least_float32
from .models import WIDEST, check_parameters

_REACH = 3.0  # bound of the log-scales of one coupling
_MOST_COUPLINGS = 1000


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

    Examples
    --------
    >>> import torch
    >>> RealNVP(dim=4, couplings=2).log_prob(torch.zeros(3, 4)).shape
    torch.Size([3])
    """

    def __init__(self, dim: int, couplings: int = 6, width: int = 64) -> None:
        super().__init__()
        dim, width = check_count(dim, "dim", 2, most=WIDEST), check_count(width, "width", most=WIDEST)
        self.sizes = [dim // 2, dim - dim // 2]
        count = check_count(couplings, "couplings", most=_MOST_COUPLINGS)
        sizes = [self.sizes[:: 1 if number % 2 == 0 else -1] for number in range(count)]
        check_parameters(lambda: [_network(kept, moved, width) for kept, moved in sizes])
        self.networks = nn.ModuleList(_network(kept, moved, width) for kept, moved in sizes)

    def outward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The noise u (B, L) of codes z (B, L), and log |det du/dz| (B,)."""
        log_det = z.new_zeros(len(z))
        for number, network in enumerate(self.networks):
            kept, moved = self._halves(z, number)
            shift, log_scale = _affine(network(kept))
            z = self._joined(kept, moved * log_scale.exp() + shift, number)
            log_det = log_det + log_scale.sum(1)
        return z, log_det

    def inward(self, u: Tensor) -> Tensor:
        """The codes z (B, L) of noise u (B, L): the inverse of `outward`."""
        for number, network in reversed(list(enumerate(self.networks))):
            kept, moved = self._halves(u, number)
            shift, log_scale = _affine(network(kept))
            u = self._joined(kept, (moved - shift) * (-log_scale).exp(), number)
        return u

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) (B,) of codes (B, ...) of L entries each, nats."""
        u, log_det = self.outward(z.flatten(1))
        return Gaussian.standard(u).log_density(u) + log_det

    def sample(self, noise: Tensor) -> Tensor:
        """Codes (B, ...) drawn with standard normal noise (B, ...)."""
        return self.inward(noise.flatten(1)).reshape(noise.shape)

    def _halves(self, z: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """What the coupling of this number keeps of z, and what it moves."""
        first, second = z.split(self.sizes, dim=1)
        return (first, second) if number % 2 == 0 else (second, first)

    @staticmethod
    def _joined(kept: Tensor, moved: Tensor, number: int) -> Tensor:
        return torch.cat((kept, moved) if number % 2 == 0 else (moved, kept), dim=1)


def _network(kept: int, moved: int, width: int) -> nn.Sequential:
    """Shift and log-scale of the half that moves, both 0 at the start."""
    last = nn.Linear(width, 2 * moved)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(kept, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)


def _affine(output: Tensor) -> tuple[Tensor, Tensor]:
    """Shift t and bounded log-scale s of the output of a network."""
    shift, u = at_least_float32(output).chunk(2, dim=1)
    return shift, _REACH * nn.functional.softsign(u / _REACH)
