"""A small VAE with Gaussian latents, on NumPy or CuPy arrays, with an explicit backward pass.

Encoder and decoder are multilayer perceptrons; without hidden layers the model is the linear VAE. The encoder returns
the mean and log sigma of q(z | x) = N(mean, diag sigma^2). A code is z = mean + sigma * noise; its prior is N(0, 1).
log sigma is bounded, so that one outlier has a finite share of loss and gradient: it is the output of the network from
-10 to 0, the log sigma of the prior, and bends with a tanh beyond, to -20 and 1 at the ends.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .._utils import memory
from .._utils.arrays import Array, FloatArray, PickledByFields
from .._utils.checks import (
    TooLargeError,
    check_choice,
    check_count,
    check_data,
    check_dtype,
    check_moderate,
    check_seed,
    shown,
)
from .._utils.device import array_namespace, to_host
from ..data.frame import Frame
from ..data.rows import check_reach

LIKELIHOODS = ("gaussian", "bernoulli")
_NARROW, _WIDE, _BELOW, _ABOVE = -10.0, 0.0, 10.0, 1.0  # where log sigma bends, and how far it goes beyond
_GELU = math.sqrt(2 / math.pi), 0.044715

Trace = tuple[Array, Array | None]  # an activation, and its derivative


def check_likelihood(value: Any) -> str:
    """The likelihood of a network; for those of counts and compositions, what there is instead."""
    if isinstance(value, str) and value in ("poisson", "categorical"):
        raise ValueError(
            f"likelihood must be 'gaussian' or 'bernoulli' for a network, got {value!r}: of counts and compositions "
            f"take solve, sweep or rate_distortion, with ELBO(likelihood={value!r})"
        )
    return check_choice(value, "likelihood", LIKELIHOODS)


@dataclass(frozen=True, eq=False)
class Pass:
    """Results of a forward pass of n points, which the backward pass needs.

    Attributes
    ----------
    mean, log_sigma, code : (n, L) arrays
        Mean and log sigma of q(z | x), and the sampled z.
    reconstruction : (n, D) array
        Reconstructions in the coordinates of `VAE.output_frame`.
    kl : scalar array
        Mean of KL(q(z | x) || N(0, 1)), nats.
    """

    mean: Array
    log_sigma: Array
    code: Array
    reconstruction: Array
    kl: Array
    variance: Array
    bend: Array  # derivative of log sigma in the output of the network
    inner: list[Trace]  # inputs of the layers of the encoder
    outer: list[Trace]  # inputs of the layers of the decoder


@dataclass(frozen=True, eq=False)
class VAE(PickledByFields):
    """Architecture and parameters of a model; `initialised` makes a model with random weights.

    Attributes
    ----------
    dim, latent_dim : int
        Dimensions D of the data and L of the codes.
    hidden : tuple of int
        Widths of the hidden layers of the encoder; the decoder has the same widths in reverse order.
    activation : {"tanh", "relu", "gelu"}
        Activation of hidden layers; "gelu" is the tanh approximation (Hendrycks and Gimpel 2016, arXiv:1606.08415).
    likelihood : {"gaussian", "bernoulli"}
        Reconstructions are unrestricted for "gaussian" and within [0, 1] for "bernoulli".
    frame : Frame
        Centre and scale that standardise the inputs of the encoder and, for "gaussian", the reconstructions.
    parameters : (P,) array
        All weights and biases, layer by layer.

    Raises
    ------
    ValueError
        If `latent_dim` or a width is no whole number of at least 1; TooLargeError if the network would have
        too many parameters.

    Examples
    --------
    >>> from constrained_vae import RE, geco
    >>> run = geco.train([[-2.0], [2.0]], RE(1.0), latent_dim=1, hidden=(), steps=40)
    >>> run.model.dim, run.model.latent_dim
    (1, 1)
    """

    dim: int
    latent_dim: int
    hidden: tuple[int, ...]
    activation: str
    likelihood: str
    frame: Frame
    parameters: Array

    def __post_init__(self) -> None:
        check_count(self.dim, "dim")
        check_count(self.latent_dim, "latent_dim")
        object.__setattr__(self, "hidden", check_hidden(self.hidden))
        check_choice(self.activation, "activation", ACTIVATIONS)
        check_likelihood(self.likelihood)
        if (count := sum((n_in + 1) * n_out for n_in, n_out in self.shapes)) > memory.LARGEST:
            raise TooLargeError(
                f"latent_dim and hidden must give at most {memory.LARGEST} parameters, got {shown(count)} of "
                f"latent_dim={shown(self.latent_dim)} and hidden={shown(self.hidden)}: give smaller numbers"
            )

    @classmethod
    def initialised(
        cls,
        frame: Frame,
        latent_dim: int,
        hidden: tuple[int, ...] = (),
        *,
        activation: str = "tanh",
        likelihood: str = "gaussian",
        seed: int = 0,
        dtype: Any = None,
    ) -> VAE:
        """A model with random weights of variance 1 / (inputs of the layer), or 2 / (inputs of the layer) for ReLU.

        Its reconstructions are as near to the centre of the data as the data are: the weights of the last layer of a
        Gaussian decoder are divided by the root of its outputs in addition.

        Parameters
        ----------
        frame : Frame
            Centre (D,) and scale of the data.
        latent_dim, hidden, activation, likelihood
            See the attributes.
        seed : int
            Seed of the weights.
        dtype : {float64, float32}
            Type of the parameters; by default float64.

        Raises
        ------
        ValueError
            For bad input.
        """
        centre = np.asarray(frame.centre)
        empty = cls(centre.size, latent_dim, hidden, activation, likelihood, frame, np.empty(0))
        rng, parts = np.random.default_rng(check_seed(seed)), []
        gain = math.sqrt(2) if activation == "relu" else 1.0
        for number, (n_in, n_out) in enumerate(empty.shapes):
            last = number in (len(empty.hidden), len(empty.shapes) - 1)
            weights = rng.standard_normal((n_in, n_out)) * ((1.0 if last else gain) / math.sqrt(n_in))
            if number == len(empty.shapes) - 1 and likelihood == "gaussian":
                weights /= math.sqrt(n_out)  # in the frame the squared radius of the data is 1 in total
            parts += [weights.ravel(), np.zeros(n_out)]
        if likelihood == "bernoulli":
            mean = centre.clip(0.01, 0.99)
            parts[-1] = np.log(mean / (1 - mean))
        return empty.with_parameters(np.concatenate(parts).astype(check_dtype(dtype)))

    def with_parameters(self, parameters: Array) -> VAE:
        """A model of the same architecture with other parameters (P,), which are not copied.

        Raises
        ------
        ValueError
            As for a new `VAE`.
        """
        return VAE(self.dim, self.latent_dim, self.hidden, self.activation, self.likelihood, self.frame, parameters)

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """Numbers of inputs and outputs of every layer, first of the encoder, then of the decoder."""
        inner = (self.dim, *self.hidden, 2 * self.latent_dim)
        outer = (self.latent_dim, *self.hidden[::-1], self.dim)
        return [*itertools.pairwise(inner), *itertools.pairwise(outer)]

    @cached_property
    def layers(self) -> list[tuple[Array, Array]]:
        """Weights (inputs, outputs) and biases (outputs,) of every layer: views of the parameters."""
        return self._views(self.parameters)

    def _views(self, flat: Array) -> list[tuple[Array, Array]]:
        views, start = [], 0
        for n_in, n_out in self.shapes:
            middle, stop = start + n_in * n_out, start + (n_in + 1) * n_out
            views.append((flat[start:middle].reshape(n_in, n_out), flat[middle:stop]))
            start = stop
        return views

    @property
    def plane(self) -> int | None:
        """Dimension of the plane that holds all reconstructions of a Gaussian decoder, whose last layer is linear."""
        return (self.hidden or (self.latent_dim,))[0] if self.likelihood == "gaussian" else None

    @property
    def output_frame(self) -> Frame:
        """The frame whose coordinates the reconstructions of `forward` have."""
        return self.frame if self.likelihood == "gaussian" else Frame.identity(self.dim)

    @cached_property
    def _xp(self) -> Any:
        """The array library of the parameters."""
        return array_namespace(self.parameters)

    # --- forward, backward -------------------------------------------------------------------------------------------

    def forward(self, x: Array, noise: Array) -> Pass:
        """Encode points, sample codes and decode the codes.

        Parameters
        ----------
        x : (n, D) array
            Points in the standardised coordinates of the data.
        noise : (n, L) array
            Noise of variance 1.
        """
        xp, depth = self._xp, len(self.hidden) + 1
        inner, both = self._through(x, self.layers[:depth])
        mean, (log_sigma, bend) = both[:, : self.latent_dim], _bounded(xp, both[:, self.latent_dim :])
        sigma = xp.exp(log_sigma)
        variance = sigma * sigma
        code = mean + sigma * noise
        outer, psi = self._through(code, self.layers[depth:])
        kl = (0.5 * (mean * mean + variance - 1) - log_sigma).sum() / len(x)
        psi = _sigmoid(xp, psi) if self.likelihood == "bernoulli" else psi
        return Pass(mean, log_sigma, code, psi, kl, variance, bend, inner, outer)

    def backward(self, done: Pass, slopes: Array, out: Array | None = None) -> Array:
        """Gradient in the parameters of the mean KL plus a function of the reconstructions.

        Parameters
        ----------
        done : Pass
            Result of `forward` for the batch.
        slopes : (n, D) array
            Gradient of the function in the reconstructions; it may be overwritten.
        out : (P,) array, optional
            Array for the result.

        Returns
        -------
        (P,) array
            Gradient, in nats per unit of the parameters; this is `out` if given.
        """
        gradient = self._xp.empty_like(self.parameters) if out is None else out
        views, depth, n = self._views(gradient), len(self.hidden) + 1, len(done.mean)
        if self.likelihood == "bernoulli":
            slopes = slopes * (done.reconstruction * (1 - done.reconstruction))
        d_code = self._back(slopes, done.outer, self.layers[depth:], views[depth:]) @ self.layers[depth][0].T
        d_inner = self._xp.empty((n, 2 * self.latent_dim), dtype=gradient.dtype)
        d_inner[:, : self.latent_dim] = d_code + done.mean / n
        d_inner[:, self.latent_dim :] = (d_code * (done.code - done.mean) + (done.variance - 1) / n) * done.bend
        self._back(d_inner, done.inner, self.layers[:depth], views[:depth])
        return gradient

    def _through(self, x: Array, layers: list[tuple[Array, Array]]) -> tuple[list[Trace], Array]:
        """Inputs of all layers with the derivatives of their activations, and the output of the last layer."""
        trace: list[Trace] = [(x, None)]
        for weights, bias in layers[:-1]:
            value = trace[-1][0] @ weights
            value += bias
            trace.append(_ACTIVATE[self.activation](self._xp, value))
        weights, bias = layers[-1]
        value = trace[-1][0] @ weights
        value += bias
        return trace, value

    def _back(self, slopes: Array, trace: list[Trace], layers: list[Any], views: list[Any]) -> Array:
        """Write the gradients into the views; the gradient in the input of the second layer."""
        for (value, bend), (weights, _), (d_weights, d_bias) in zip(
            trace[::-1], layers[::-1], views[::-1], strict=True
        ):
            self._xp.matmul(value.T, slopes, out=d_weights)
            slopes.sum(axis=0, out=d_bias)
            if bend is not None:
                slopes = slopes @ weights.T
                slopes *= bend
        return slopes

    # --- in units of the data, in blocks of rows ---------------------------------------------------------------------

    def encode(self, x: Any) -> tuple[FloatArray, FloatArray]:
        """Mean and log sigma (n, L) of q(z | x) of points (n, D).

        Raises
        ------
        ValueError
            If the points are not finite or have another dimension.
        """
        x = check_data(x)
        if x.shape[1] != self.dim:
            raise ValueError(f"x must have {self.dim} columns like the data trained on, got {x.shape[1]}")
        check_reach(x, self.frame)
        depth = len(self.hidden) + 1
        found = [
            to_host(self._through(self._inside(self.frame.inward(block)), self.layers[:depth])[1])
            for block in self._blocks(np.asarray(x, dtype=np.float64))
        ]
        both = np.concatenate(found)
        return both[:, : self.latent_dim], _bounded(np, both[:, self.latent_dim :])[0]

    def decode(self, code: Any) -> FloatArray:
        """Reconstructions (n, D), in units of x, of codes (n, L).

        Raises
        ------
        ValueError
            If the codes are not finite or have another dimension.
        """
        code = check_moderate(check_data(code, "code"), "code")
        if code.shape[1] != self.latent_dim:
            raise ValueError(f"code must have {self.latent_dim} columns, got {code.shape[1]}")
        depth, found = len(self.hidden) + 1, []
        for block in self._blocks(code):
            value = to_host(self._through(self._inside(block), self.layers[depth:])[1]).astype(np.float64)
            found.append(_sigmoid(np, value) if self.likelihood == "bernoulli" else value)
        return self.output_frame.outward(np.concatenate(found))

    def reconstruct(self, x: Any) -> FloatArray:
        """Reconstructions (n, D) of points from the means of their codes, in units of x."""
        return self.decode(self.encode(x)[0])

    def sample(self, n: int, seed: int = 0) -> FloatArray:
        """Reconstructions (n, D) of n codes from the prior.

        Raises
        ------
        ValueError
            If n or the seed is no whole number.
        """
        rng = np.random.default_rng(check_seed(seed))
        n = check_count(n, "n", most=memory.LARGEST // max(self.latent_dim, self.dim))
        return self.decode(rng.standard_normal((n, self.latent_dim)))

    def _inside(self, block: FloatArray) -> Array:
        return self._xp.asarray(block, dtype=self.parameters.dtype)

    def _blocks(self, x: FloatArray) -> Iterator[FloatArray]:
        rows = memory.rows_of_block(max(self.dim, *self.hidden, 2 * self.latent_dim))  # of the widest layer
        return (x[start : start + rows] for start in range(0, len(x), rows))


def check_hidden(hidden: Any) -> tuple[int, ...]:
    """Validated widths of hidden layers."""
    if not isinstance(hidden, (tuple, list)):
        raise ValueError(f"hidden must be a tuple of widths, () for the linear VAE, got {shown(hidden)}")
    return tuple(check_count(width, "hidden") for width in hidden)


def _tanh(xp: Any, u: Array) -> Trace:
    value = xp.tanh(u)
    return value, 1 - value * value


def _relu(xp: Any, u: Array) -> Trace:
    positive = u > 0
    return u * positive, positive


def _gelu(xp: Any, u: Array) -> Trace:
    """u (1 + tanh w) / 2 with w = a (u + b u^3)."""
    a, b = _GELU
    square = u * u
    t = xp.tanh(a * u * (1 + b * square))
    return 0.5 * u * (1 + t), 0.5 * (1 + t) + 0.5 * a * u * (1 - t * t) * (1 + 3 * b * square)


def _bounded(xp: Any, u: Array) -> tuple[Array, Array]:
    """log sigma between its bounds, and its derivative in u."""
    inside = u.clip(_NARROW, _WIDE)
    reach = xp.where(u < _NARROW, _BELOW, _ABOVE).astype(u.dtype)
    share = xp.tanh((u - inside) / reach)
    return inside + reach * share, 1 - share * share


def _sigmoid(xp: Any, u: Array) -> Array:
    return 0.5 * (1 + xp.tanh(0.5 * u))


_ACTIVATE: dict[str, Callable[[Any, Array], Trace]] = {"tanh": _tanh, "relu": _relu, "gelu": _gelu}
ACTIVATIONS = tuple(_ACTIVATE)
