"""Diagonal Gaussians on tensors: sampling, density, entropy and KL."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_NARROW, _WIDE = -6.0, 3.0  # where log sigma bends; it ends one nat beyond, at -7 and 4
_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)  # of N(0, 1), nats


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, diag sigma^2) for every row of a batch; sums are over all axes but the first.

    Attributes
    ----------
    mean, log_sigma : (B, ...) tensors
        Mean and logarithm of the standard deviation.

    Examples
    --------
    >>> import torch
    >>> Gaussian(torch.zeros(2, 3), torch.zeros(2, 3)).mean.shape
    torch.Size([2, 3])
    """

    mean: Tensor
    log_sigma: Tensor

    @classmethod
    def of(cls, output: Tensor) -> Gaussian:
        """The Gaussian that a network describes: the first half of its channels is the mean, the rest log sigma.

        log sigma is the output of the network from -6 to 3, and bends with a tanh beyond, to -7 and 4 at the ends.

        Parameters
        ----------
        output : (B, 2 C, ...) tensor
            Output of the network.
        """
        mean, u = at_least_float32(output).chunk(2, dim=1)
        inside = u.clamp(_NARROW, _WIDE)
        return cls(mean, inside + torch.tanh(u - inside))

    @classmethod
    def standard(cls, like: Tensor) -> Gaussian:
        """N(0, 1), for codes of the shape and type of a tensor."""
        zeros = torch.zeros_like(like)
        return cls(zeros, zeros)

    def sample(self, noise: Tensor) -> Tensor:
        """mean + sigma * noise, for standard normal noise (B, ...)."""
        return self.mean + self.log_sigma.exp() * noise

    def log_density(self, z: Tensor) -> Tensor:
        """log density (B,) of codes (B, ...), nats."""
        scaled = (z - self.mean) * (-self.log_sigma).exp()
        return -_total(0.5 * scaled.square() + self.log_sigma + 0.5 * math.log(2 * math.pi))

    def entropy(self) -> Tensor:
        """Differential entropy (B,), nats."""
        return _total(self.log_sigma + _ENTROPY)

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other) (B,), nats: sum of (r^2 + d^2 - 1) / 2 - log r.

        r is the ratio of the standard deviations, and d the distance of the means in units of the other's.
        """
        log_ratio = self.log_sigma - other.log_sigma
        distance = (self.mean - other.mean) * (-other.log_sigma).exp()
        return _total(0.5 * (torch.expm1(2 * log_ratio) + distance.square()) - log_ratio)


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32 if they are in half precision, as under autocast; float32 and float64 stay."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _total(terms: Tensor) -> Tensor:
    return terms.flatten(1).sum(1)
