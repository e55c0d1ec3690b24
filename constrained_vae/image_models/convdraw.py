"""ConvDRAW: images drawn on a canvas in T steps (Gregor et al. 2016, arXiv:1604.08772), with or without a context."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from .._utils.checks import check_choice, check_count, check_flag
from .cells import CELLS, State
from .gaussians import Gaussian
from .models import WIDEST, Model, Pass, check_shape, made, small

_MOST_STEPS = 1000
_LARGEST_KERNEL = 31


class ConvDRAW(Model):
    """A VAE whose code is drawn in T steps, each with a prior and a posterior that know the steps before.

    From the canvas r = 0 and states h = 0, the steps t = 1..T are, for an image x without `centre`::

        p_t = N(conv h_D)                              prior
        e   = x - r                                    error
        h_E = ConvLSTM(h_E; x, e, h_D, context)        encoder
        q_t = N(conv h_E)                              posterior
        z_t ~ q_t,  or p_t for a sample of the model
        h_D = ConvLSTM(h_D; z_t, r, context)           decoder
        r   = r + conv h_D                             canvas

    The mean of the pixels is centre + r. The KL is the sum of KL(q_t || p_t), each exact given the codes before t.

    States and codes are maps of H / stride by W / stride places. A strided convolution brings x, e and r to this size,
    and a transposed one brings h_D to the size of the canvas; the side of their kernels is stride + kernel_size - 1.
    The convolutions of x and of the context are the same in all steps that share their weights, and are done once.

    A conditional model sees its context in the encoder and in the decoder, and from the second step on in the prior,
    which knows it through h_D. The context is a tensor of maps, for instance an image, and an angle as two constant
    maps of its cosine and sine. Two convolutions with a GELU between them encode it.

    Parameters
    ----------
    image_shape : (C, H, W)
        Shape of an image; H and W are multiples of the stride.
    hidden_channels : int
        Channels of the states h_E and h_D.
    latent_channels : int
        Channels of the code of a step.
    steps : int
        Number of steps T.
    stride : int
        Side of the square of pixels for which there is one place in the maps of states and codes.
    kernel_size : int
        Side of the kernels of all convolutions between maps of states and codes, odd.
    shared : bool
        Whether all steps share their weights; if not, every step has its own.
    cell : {"lstm", "linear"}
        `ConvLSTM`; or `LinearCell`, with which the model is linear and has exact answers.
    context_size : int, optional
        Channels of the context of a conditional model.
    seed : int
        Seed of the first weights.

    Raises
    ------
    ValueError
        For bad input.

    Examples
    --------
    >>> import torch
    >>> from constrained_vae.image_models import ConvDRAW
    >>> model = ConvDRAW((1, 16, 16), hidden_channels=8, steps=3)
    >>> model.code_shape
    (3, 4, 4, 4)
    >>> model.sample(torch.randn(2, *model.code_shape)).shape
    torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        hidden_channels: int = 32,
        latent_channels: int = 4,
        steps: int = 4,
        *,
        stride: int = 4,
        kernel_size: int = 3,
        shared: bool = True,
        cell: str = "lstm",
        context_size: int | None = None,
        seed: int = 0,
    ) -> None:
        hidden = check_count(hidden_channels, "hidden_channels", most=WIDEST)
        latent = check_count(latent_channels, "latent_channels", most=WIDEST)
        steps, stride = check_count(steps, "steps", most=_MOST_STEPS), check_count(stride, "stride")
        kernel_size = check_count(kernel_size, "kernel_size", most=_LARGEST_KERNEL)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}")
        shared, cell = check_flag(shared, "shared"), check_choice(cell, "cell", tuple(CELLS))
        if context_size is not None:
            context_size = check_count(context_size, "context_size", most=WIDEST)
        channels, height, width = image_shape = check_shape(image_shape, stride)
        super().__init__(
            image_shape,
            (steps, latent, height // stride, width // stride),
            hidden_channels=hidden,
            latent_channels=latent,
            steps=steps,
            stride=stride,
            kernel_size=kernel_size,
            shared=shared,
            cell=cell,
            context_size=context_size,
        )
        self.hidden = hidden
        core = partial(_Core, channels, hidden, latent, stride, kernel_size, cell, context_size is not None)
        self.cores, self.context = made(
            lambda: (
                nn.ModuleList(core() for _ in range(1 if shared else steps)),
                None if context_size is None else _encoder_of_context(context_size, hidden, stride, kernel_size),
            ),
            seed,
        )

    @property
    def plane(self) -> int:
        _, _, height, width = self.code_shape
        return self.hidden * height * width * len(self.cores)

    def forward(self, x: Tensor, noise: Tensor, context: Tensor | None = None) -> Pass:
        self.check(context, x=x, noise=noise)
        mean, steps = self._draw(lambda t, q: q.sample(noise[:, t]), len(x), x, context)
        kl = torch.stack([step.q.kl(step.p) for step in steps], 1)
        return Pass(mean, kl, torch.stack([step.z for step in steps], 1))

    def sample(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        return self._sample(noise, context)[0]

    def draw_codes(self, noise: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _, steps = self._sample(noise, context)
        log_prior = torch.stack([step.p.log_density(step.z) for step in steps]).sum(0)
        return torch.stack([step.z for step in steps], 1), log_prior

    def log_ratio(self, x: Tensor, codes: Tensor, context: Tensor | None = None) -> Tensor:
        self.check(context, x=x, codes=codes)
        _, steps = self._draw(lambda t, q: codes[:, t], len(x), x, context)
        return torch.stack([step.q.log_density(step.z) - step.p.log_density(step.z) for step in steps]).sum(0)

    def _sample(self, noise: Tensor, context: Tensor | None) -> tuple[Tensor, list[_Step]]:
        self.check(context, noise=noise)
        return self._draw(lambda t, p: p.sample(noise[:, t]), len(noise), None, context)

    def _draw(
        self, code: Callable[[int, Gaussian], Tensor], size: int, x: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, list[_Step]]:
        """Means of the pixels of a batch of this size, drawn with the codes z_t = code(t, q_t); without x, q is p."""
        x = None if x is None else x - self.centre
        seen = None if self.context is None else self.context(context)
        cores = cast("list[_Core]", list(self.cores))
        drives = [core.drives(x, seen) for core in cores]
        nothing = self.centre.new_zeros(size, self.hidden, *self.code_shape[2:])
        encoder = decoder = State(nothing, nothing)
        r, steps = self.centre.new_zeros(size, *self.image_shape), []
        for t in range(self.code_shape[0]):
            core, (to_encoder, to_decoder) = cores[t % len(cores)], drives[t % len(cores)]
            q = p = Gaussian.of(core.prior(decoder.h))
            if x is not None:
                encoder = core.encoder(decoder.h, to_encoder + core.error(x - r), encoder)
                q = Gaussian.of(core.posterior(encoder.h))
            z = code(t, q)
            decoder = core.decoder(z, to_decoder + core.canvas(r), decoder)
            r = r + core.paint(decoder.h)
            steps.append(_Step(q, p, z))
        return self.centre + r, steps


class _Step(NamedTuple):
    """Posterior, prior and code of one step."""

    q: Gaussian
    p: Gaussian
    z: Tensor


class _Core(nn.Module):
    """The layers of a step; the biases of the gates are in the cells."""

    def __init__(
        self, channels: int, hidden: int, latent: int, stride: int, kernel_size: int, cell: str, conditional: bool
    ) -> None:
        super().__init__()
        kind = CELLS[cell]
        gates = kind.gates * hidden
        within = partial(nn.Conv2d, kernel_size=kernel_size, padding=kernel_size // 2)
        self.encoder, self.decoder = kind(hidden, hidden, kernel_size), kind(latent, hidden, kernel_size)
        self.image, self.error, self.canvas = (_down(channels, gates, stride, kernel_size) for _ in range(3))
        self.context = within(hidden, 2 * gates, bias=False) if conditional else None
        self.prior, self.posterior = (small(within(hidden, 2 * latent)) for _ in range(2))
        self.paint = small(_up(hidden, channels, stride, kernel_size))

    def drives(self, x: Tensor | None, context: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
        """What encoder and decoder receive in every step: of the image, and of the encoding of the context."""
        of_image = 0.0 if x is None else self.image(x)
        if self.context is None:
            return of_image, 0.0
        to_encoder, to_decoder = self.context(context).chunk(2, 1)
        return of_image + to_encoder, to_decoder


def _down(channels: int, outputs: int, stride: int, kernel_size: int) -> nn.Conv2d:
    """A convolution from pixels to maps."""
    return nn.Conv2d(channels, outputs, stride + kernel_size - 1, stride, kernel_size // 2, bias=False)


def _up(inputs: int, channels: int, stride: int, kernel_size: int) -> nn.ConvTranspose2d:
    """A transposed convolution from maps to pixels."""
    return nn.ConvTranspose2d(inputs, channels, stride + kernel_size - 1, stride, kernel_size // 2)


def _encoder_of_context(context_size: int, hidden: int, stride: int, kernel_size: int) -> nn.Sequential:
    """Two convolutions: from pixels to maps, and among the maps."""
    within = nn.Conv2d(hidden, hidden, kernel_size, padding=kernel_size // 2)
    return nn.Sequential(_down(context_size, hidden, stride, kernel_size), nn.GELU(), within)
