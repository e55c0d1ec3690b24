"""VAEs whose code is drawn in one step, with multilayer perceptrons or convolutions."""

from __future__ import annotations

import itertools
import math
from typing import Any

from torch import Tensor, nn

from .._utils.checks import check_choice, check_count, shown
from .flows import RealNVP
from .gaussians import Gaussian
from .models import WIDEST, Model, Pass, check_shape, made, small

PRIORS = ("normal", "flow")
_HALVED = 4, 2, 1  # kernel, stride and padding with which sides become half as long, and in the decoder twice


class _VAE(Model):
    """Encoder, decoder and prior; the classes below make the networks.

    The encoder turns images (B, C, H, W) into mean and log sigma (B, 2 L), the decoder turns codes (B, L) into
    images, or rows of their pixels.
    """

    encoder: nn.Module
    decoder: nn.Module
    flow: RealNVP | None

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, prior: str, **options: Any) -> None:
        check_choice(prior, "prior", PRIORS)
        options = {"latent_dim": latent_dim, **options, "prior": prior}
        super().__init__(image_shape, (1, latent_dim), **options)

    def forward(self, x: Tensor, noise: Tensor, context: Tensor | None = None) -> Pass:
        self.check(context, x=x, noise=noise)
        q = self._posterior(x)
        z = q.sample(noise)
        return Pass(self._decode(z), self._kl(q, z)[:, None], z)

    def sample(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        self.check(context, noise=noise)
        return self._decode(self._code(noise))

    def draw_codes(self, noise: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.check(context, noise=noise)
        z = self._code(noise)
        return z, self._log_prior(z)

    def log_ratio(self, x: Tensor, codes: Tensor, context: Tensor | None = None) -> Tensor:
        self.check(context, x=x, codes=codes)
        return self._posterior(x).log_density(codes) - self._log_prior(codes)

    def _posterior(self, x: Tensor) -> Gaussian:
        """q(z | x) with codes (B, 1, L)."""
        q = Gaussian.of(self.encoder(x - self.centre))
        return Gaussian(q.mean[:, None], q.log_sigma[:, None])

    def _decode(self, z: Tensor) -> Tensor:
        return self.centre + self.decoder(z[:, 0]).reshape(-1, *self.image_shape)

    def _code(self, noise: Tensor) -> Tensor:
        """A code of the prior."""
        return noise if self.flow is None else self.flow.sample(noise)

    def _log_prior(self, z: Tensor) -> Tensor:
        """log p(z) (B,)."""
        return Gaussian.standard(z).log_density(z) if self.flow is None else self.flow.log_prob(z)

    def _kl(self, q: Gaussian, z: Tensor) -> Tensor:
        """KL(q || p) (B,), exact for the normal prior; for a flow the cross-entropy is that of the sampled code."""
        return q.kl(Gaussian.standard(z)) if self.flow is None else -q.entropy() - self.flow.log_prob(z)


class MLPVAE(_VAE):
    """A VAE of multilayer perceptrons with GELU; without hidden layers it is the linear VAE.

    Parameters
    ----------
    image_shape : (C, H, W)
        Shape of an image.
    latent_dim : int
        Dimension L of the code.
    hidden : tuple of int
        Widths of the hidden layers of the encoder; the decoder has the same widths in reverse order.
    prior : {"normal", "flow"}
        N(0, 1), or a `RealNVP`.
    seed : int
        Seed of the first weights.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> import torch
    >>> from constrained_vae.image_models import MLPVAE
    >>> model = MLPVAE((1, 8, 8), latent_dim=4)
    >>> done = model(torch.rand(5, 1, 8, 8), torch.randn(5, *model.code_shape))
    >>> done.mean.shape, done.kl.shape
    (torch.Size([5, 1, 8, 8]), torch.Size([5, 1]))
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int = 64,
        hidden: tuple[int, ...] = (256, 256),
        *,
        prior: str = "normal",
        seed: int = 0,
    ) -> None:
        image_shape, latent_dim = check_shape(image_shape), check_count(latent_dim, "latent_dim", most=WIDEST)
        if not isinstance(hidden, (tuple, list)):
            raise ValueError(f"hidden must be a tuple of widths, () for the linear VAE, got {shown(hidden)}")
        hidden = tuple(check_count(width, "hidden", most=WIDEST) for width in hidden)
        super().__init__(image_shape, latent_dim, prior, hidden=list(hidden))
        size = math.prod(image_shape)
        self.encoder, self.decoder, self.flow = made(
            lambda: (
                _network(nn.Flatten(), *_perceptron(size, *hidden, 2 * latent_dim)),
                _network(*_perceptron(latent_dim, *hidden[::-1], size)),
                _flow(prior, latent_dim),
            ),
            seed,
        )

    @property
    def plane(self) -> int:
        hidden: list[int] = self._options["hidden"]
        return (*hidden, self._options["latent_dim"])[0]


class ConvVAE(_VAE):
    """A VAE of two strided convolutions and a hidden layer, with GELU; the decoder mirrors the encoder.

    Parameters
    ----------
    image_shape : (C, H, W)
        Shape of an image; H and W are multiples of 4.
    latent_dim : int
        Dimension L of the code.
    channels : int
        Channels after the first convolution; the second one has twice as many.
    hidden : int
        Width of the hidden layer.
    prior : {"normal", "flow"}
        N(0, 1), or a `RealNVP`.
    seed : int
        Seed of the first weights.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> from constrained_vae.image_models import ConvVAE
    >>> ConvVAE((1, 28, 28), prior="flow").code_shape
    (1, 64)
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int = 64,
        channels: int = 32,
        hidden: int = 256,
        *,
        prior: str = "normal",
        seed: int = 0,
    ) -> None:
        image_shape, latent_dim = check_shape(image_shape, 4), check_count(latent_dim, "latent_dim", most=WIDEST)
        channels, hidden = check_count(channels, "channels", most=WIDEST), check_count(hidden, "hidden", most=WIDEST)
        super().__init__(image_shape, latent_dim, prior, channels=channels, hidden=hidden)
        colours, height, width = image_shape
        maps = 2 * channels, height // 4, width // 4
        self.encoder, self.decoder, self.flow = made(
            lambda: (
                _network(
                    nn.Conv2d(colours, channels, *_HALVED),
                    nn.GELU(),
                    nn.Conv2d(channels, 2 * channels, *_HALVED),
                    nn.GELU(),
                    nn.Flatten(),
                    *_perceptron(math.prod(maps), hidden, 2 * latent_dim),
                ),
                _network(
                    *_perceptron(latent_dim, hidden, math.prod(maps)),
                    nn.GELU(),
                    nn.Unflatten(1, maps),
                    nn.ConvTranspose2d(2 * channels, channels, *_HALVED),
                    nn.GELU(),
                    nn.ConvTranspose2d(channels, colours, *_HALVED),
                ),
                _flow(prior, latent_dim),
            ),
            seed,
        )

    @property
    def plane(self) -> int:
        _, height, width = self.image_shape
        return int(self._options["channels"]) * (height // 2) * (width // 2)


def _flow(prior: str, latent_dim: int) -> RealNVP | None:
    return RealNVP(latent_dim) if prior == "flow" else None


def _perceptron(*sizes: int) -> list[nn.Module]:
    """Layers of these numbers of inputs and outputs, with GELU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return layers[:-1]


def _network(*layers: nn.Module) -> nn.Sequential:
    """The layers in sequence, the last one `small`."""
    return nn.Sequential(*layers[:-1], small(layers[-1]))
