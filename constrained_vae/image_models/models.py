"""The protocol of image models, and models by their configuration."""

from __future__ import annotations

import abc
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from .._utils import memory
from .._utils.checks import TooLargeError, check_choice, check_count, check_seed, shown

WIDEST = 2**16  # channels and widths

Layers = TypeVar("Layers", bound=tuple[nn.Module | None, ...])

_SMALL = 0.1  # factor of the first weights of layers that begin near 0


@dataclass(frozen=True, eq=False)
class Pass:
    """What a model makes of a batch.

    Attributes
    ----------
    mean : (B, C, H, W) tensor
        Mean of the pixels' Gaussian.
    kl : (B, T) tensor
        KL of every step, in nats. With Gaussian priors each is exact given the codes of the steps before it. With a
        RealNVP prior it is -H[q] - log p(z) of the sampled code, which can be negative.
    codes : (B, *code_shape) tensor
        The sampled codes.

    Examples
    --------
    >>> import torch
    >>> from constrained_vae.image_models import MLPVAE
    >>> model = MLPVAE((1, 8, 8), latent_dim=4, hidden=(16,))
    >>> noise = torch.zeros(5, *model.code_shape)
    >>> found = model(torch.zeros(5, 1, 8, 8), noise)
    >>> found.mean.shape, found.kl.shape
    (torch.Size([5, 1, 8, 8]), torch.Size([5, 1]))
    """

    mean: Tensor
    kl: Tensor
    codes: Tensor


class Model(nn.Module, abc.ABC):
    """A VAE of images whose codes are drawn in T steps; `make_model` makes one from its `config`.

    The class of a model says in its docstring what it computes. Calls are pure functions of their arguments: the noise
    comes from outside. All tensors have the type of the parameters, float32 unless the model was converted.

    Attributes
    ----------
    image_shape : (C, H, W)
        Channels, height and width of an image.
    code_shape : (T, ...)
        Shape of the codes of one image, and of the standard normal noise from which they are made.
    context_size : int or None
        Channels of the context, which a conditional model receives as a tensor (B, context_size, H, W); None for a
        model without one.
    centre : (C, H, W) tensor
        Mean of the images, at which a new model's outputs lie: zero until the one who trains the model writes it here,
        ``model.centre.copy_(mean)``.

    Examples
    --------
    >>> from constrained_vae.image_models import MLPVAE
    >>> model = MLPVAE((1, 8, 8), latent_dim=4, hidden=(16,))
    >>> isinstance(model, Model), model.image_shape
    (True, (1, 8, 8))
    """

    _kinds: ClassVar[dict[str, type[Model]]] = {}
    centre: Tensor

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not cls.__name__.startswith("_"):
            Model._kinds[cls.__name__] = cls

    def __init__(self, image_shape: tuple[int, int, int], code_shape: tuple[int, ...], **options: Any) -> None:
        super().__init__()
        self.image_shape, self.code_shape = image_shape, code_shape
        self.context_size: int | None = options.get("context_size")
        self._options = options
        self.register_buffer("centre", torch.zeros(image_shape))

    @property
    def config(self) -> dict[str, Any]:
        """Name of the class and its arguments, as JSON has them; with `make_model` the same architecture."""
        return {"model": type(self).__name__, "image_shape": list(self.image_shape), **self._options}

    @property
    def plane(self) -> int | None:
        """Dimension of a plane that holds all reconstructions, the number of inputs of a linear last layer; or None."""
        return None

    @abc.abstractmethod
    def forward(self, x: Tensor, noise: Tensor, context: Tensor | None = None) -> Pass:
        """Encode images, sample their codes and decode them.

        Parameters
        ----------
        x : (B, C, H, W) tensor
            Images.
        noise : (B, *code_shape) tensor
            Standard normal noise.
        context : (B, context_size, H, W) tensor, optional
            Contexts of the images, for a conditional model.
        """

    @abc.abstractmethod
    def sample(self, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), the pixels' mean, of codes that are drawn from the prior.

        Parameters
        ----------
        noise : (B, *code_shape) tensor
            Standard normal noise.
        context : (B, context_size, H, W) tensor, optional
            Contexts, for a conditional model.
        """

    @abc.abstractmethod
    def draw_codes(self, noise: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Codes (B, *code_shape) that are drawn from the prior, those of `sample`, and log p(z) (B,), in nats.

        Parameters
        ----------
        noise : (B, *code_shape) tensor
            Standard normal noise.
        context : (B, context_size, H, W) tensor, optional
            Contexts, for a conditional model.
        """

    @abc.abstractmethod
    def log_ratio(self, x: Tensor, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """log q(z | x) - log p(z) (B,) of given codes, in nats.

        Parameters
        ----------
        x : (B, C, H, W) tensor
            Images.
        codes : (B, *code_shape) tensor
            Codes.
        context : (B, context_size, H, W) tensor, optional
            Contexts of the images, for a conditional model.
        """

    def check(self, context: Tensor | None, **tensors: Tensor | None) -> None:
        """Raise ValueError unless x, noise or codes, and the context, have the shapes and the type of this model."""
        if self.context_size is None and context is not None:
            raise ValueError(f"context must be None for a model without a context, got {shown(context)}")
        shapes = {"x": self.image_shape, "noise": self.code_shape, "codes": self.code_shape}
        if self.context_size is not None:
            tensors, shapes = {**tensors, "context": context}, {**shapes, "context": self.context_shape}
        size: int | None = None
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor) or tensor.dtype != self.centre.dtype:
                raise ValueError(f"{name} must be a tensor of {self.centre.dtype} like the model, got {shown(tensor)}")
            batch = ("B" if size is None else size, *shapes[name])
            size = len(tensor) if size is None and tensor.ndim else size
            if not size or tensor.shape != (size, *shapes[name]):
                raise ValueError(f"{name} must have shape ({', '.join(map(str, batch))}), got {tuple(tensor.shape)}")

    @property
    def context_shape(self) -> tuple[int, ...]:
        """Shape (context_size, H, W) of the context of one image, for a conditional model."""
        return (self.context_size or 0, *self.image_shape[1:])


def make_model(config: dict[str, Any], seed: int = 0) -> Model:
    """A new model of the architecture that a `config` describes.

    Parameters
    ----------
    config : dict
        The name of the class under "model", and arguments of the class; `Model.config` of the model to make again.
    seed : int
        Seed of the first weights.

    Returns
    -------
    Model
        With new parameters.

    Raises
    ------
    ValueError
        If there is no such model, or for bad arguments.

    Examples
    --------
    >>> from constrained_vae.image_models import make_model
    >>> model = make_model({"model": "MLPVAE", "image_shape": [1, 8, 8], "latent_dim": 4})
    >>> model.code_shape
    (1, 4)
    """
    if not isinstance(config, dict):
        raise ValueError(f"config must be a dictionary such as Model.config, got {shown(config)}")
    kind = Model._kinds[check_choice(config.get("model"), "model of config", tuple(Model._kinds))]
    options = {name: value for name, value in config.items() if name != "model"}
    try:
        inspect.signature(kind).bind(**options, seed=seed)
    except TypeError as error:
        raise ValueError(f"config must hold arguments of {kind.__name__}: {error}") from None
    return kind(**options, seed=seed)


def check_shape(image_shape: Any, stride: int = 1) -> tuple[int, int, int]:
    """The shape (C, H, W) of an image whose sides are multiples of the stride."""
    if not isinstance(image_shape, (tuple, list)) or len(image_shape) != 3:
        raise ValueError(f"image_shape must be (channels, height, width), got {shown(image_shape)}")
    channels, height, width = (check_count(length, "image_shape") for length in image_shape)
    if height % stride or width % stride:
        raise ValueError(
            f"image_shape must have sides that are multiples of {stride}, the stride, got {shown(image_shape)}"
        )
    if math.prod((channels, height, width)) > memory.LARGEST:
        raise TooLargeError(f"image_shape must have at most {memory.LARGEST} entries, got {shown(image_shape)}")
    return channels, height, width


def made(make: Callable[[], Layers], seed: int) -> Layers:
    """Layers on the CPU, with first weights from a seed; the global random generators remain as they are."""
    seed = check_seed(seed)
    check_parameters(make)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the generators of GPUs too
        return make()


def check_parameters(make: Callable[[], Iterable[nn.Module | None]]) -> None:
    """Raise TooLargeError if layers have more parameters than an array may have entries; they get no memory."""
    with torch.device("meta"):
        count = sum(weights.numel() for layer in make() if layer is not None for weights in layer.parameters())
    if count > memory.LARGEST:
        raise TooLargeError(f"a model must have at most {memory.LARGEST} parameters, got {count}: give smaller sizes")


def small(layer: nn.Module) -> nn.Module:
    """The layer with weights a tenth as large and without bias: its first outputs are near 0."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(_SMALL if parameter.ndim > 1 else 0.0)
    return layer
