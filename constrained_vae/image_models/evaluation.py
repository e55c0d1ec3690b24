"""Evaluation of a trained model of images: rate by step, distortion, marginal KL, holes; samples (T15), (T22)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logsumexp
from torch import Tensor

from .._utils import memory
from .._utils.arrays import FloatArray
from .._utils.checks import check_count, check_seed
from ..data import signature
from ..geco.evaluation import (
    ACTIVE,
    HOLE,
    codes_of_mixture,
    gaussian_nll,
    information,
    log_ratio,
    mean_information,
    told_by,
)
from ..objectives.constraints import Constraint
from .energies import ImageTerm, as_rows, numbers, squared_error
from .models import Model
from .tasks import Batch, Task

_BLOCK = 256  # images at a time
_LEAST_CODES = 64  # of a model of several steps, whose information is measured


@dataclass(frozen=True, eq=False, repr=False)
class ImageEvaluation:
    """Results of a model on images, in nats and units of x; errors are standard errors from the sampling of codes.

    Attributes
    ----------
    rate, rate_error : float
        Mean KL, summed over all steps; exact for a model of one step with a normal prior.
    rates : (T,) array
        The parts of the rate by step.
    distortion, distortion_error : float
        E||x - mean||^2 in total, with sampled codes.
    nll, nll_error : float
        E[-log p(x | z)].
    mutual_information, mutual_information_error : float
        I(x; z), nats: the mean of log q(z | x) - log m(z) with the mixture m of q(z | x) over these images, from 0 to
        log N. NaN for models with a context, and for models of several steps with more pairs of codes and images than
        `evaluate` was allowed.
    active : (*code_shape) array of bool
        Entries of the code whose mean has a variance of more than 0.01 over the images; of a model of several steps,
        the mean given the means of the steps before.
    holes : float
        Prior probability of the codes at which m(z) is less than a tenth of the prior p(z); NaN where I is.
    constraints : dict of (float, float)
        E[C] and its error, by the name of the constraint.
    dim : int
        Number D of values of an image.
    signature : (33,) array
        Numbers by which `ImageRun.excess_over` notices a curve of other images.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> from constrained_vae.image_models import MLPVAE, train
    >>> model = MLPVAE((1, 8, 8), latent_dim=4, hidden=(16,))
    >>> run = train(cv.datasets.digits(100), cv.RE(0.2, reduction="mean"), model=model, steps=5, device="cpu")
    >>> run.evaluation.rates.shape
    (1,)
    """

    rate: float
    rate_error: float
    rates: FloatArray
    distortion: float
    distortion_error: float
    nll: float
    nll_error: float
    mutual_information: float
    mutual_information_error: float
    active: npt.NDArray[np.bool_]
    holes: float
    constraints: dict[str, tuple[float, float]]
    dim: int
    signature: FloatArray

    def __repr__(self) -> str:
        return (
            f"ImageEvaluation(rate={self.rate:.6g} +- {self.rate_error:.1g} nats, distortion={self.distortion:.6g} +- "
            f"{self.distortion_error:.1g}, bits_per_dimension={self.bits_per_dimension:.4g}, "
            f"marginal_kl={self.marginal_kl:.4g} +- {self.marginal_kl_error:.1g}, "
            f"{self.n_active} of {self.active.size} units active, holes={self.holes:.3g})"
        )

    @property
    def per_dimension(self) -> float:
        """Squared error per dimension; the paper's kappas for images are thresholds of its root."""
        return self.distortion / self.dim

    @property
    def elbo(self) -> float:
        """E[log p(x | z)] - KL, nats, at beta = 1."""
        return -self.nll - self.rate

    @property
    def bits_per_dimension(self) -> float:
        """-ELBO in bits per dimension, for images in [0, 1] of 256 levels: a level has the width 1/256, 8 bits."""
        return -self.elbo / (self.dim * math.log(2)) + 8

    @property
    def marginal_kl(self) -> float:
        """KL(marginal posterior || prior) = rate - I(x; z), nats; NaN where I is."""
        return self.rate - self.mutual_information

    @property
    def marginal_kl_error(self) -> float:
        """Standard error of the marginal KL, from those of rate and information."""
        return math.hypot(self.rate_error, self.mutual_information_error)

    @property
    def n_active(self) -> int:
        """Number of active entries of the code."""
        return int(self.active.sum())


@torch.inference_mode()
def evaluate(
    model: Model,
    task: Task,
    constraints: tuple[Constraint, ...] = (),
    *,
    sigma: float = 1.0,
    samples: int = 4,
    seed: int = 0,
    pairs: int = 2**15,
) -> ImageEvaluation:
    """Evaluate a model on the images of a task, one draw of them if they are augmented.

    Parameters
    ----------
    model : Model
    task : Task
    constraints : sequence of Constraint
        Constraints with labels fit only the images that the model was trained on.
    sigma : float
        Standard deviation of a pixel.
    samples : int
        Codes per image, at least 2.
    seed : int
        Seed of codes and augmentation.
    pairs : int
        Pairs of a code and an image up to which the information of a model of several steps is measured, and its
        holes: each pair takes a pass of the model.
    """
    random = _Random(model, task, seed)
    N, T = len(task), model.code_shape[0]
    dim = math.prod(model.image_shape)
    terms = [ImageTerm.make(constraint, dim) for constraint in constraints]
    columns = T + 1 + len(terms)
    samples = check_count(samples, "samples", 2, most=max(2, memory.LARGEST // (N * columns)))
    pairs = check_count(pairs, "pairs", 0)
    measured = np.empty((samples, columns, N))
    images = np.empty((N, dim))
    for rows, batch in random.batches():
        images[rows] = numbers(as_rows(batch.x))
        for k in range(samples):
            done = model(batch.x, random.noise(len(rows)), batch.context)
            distortion = squared_error(batch.x, done.mean)
            energies = [term.at(rows, batch.x, done.mean, distortion) for term in terms]
            measured[k][:, rows] = numbers(torch.stack([*done.kl.T, distortion, *energies]))
    means, rate = measured.mean(axis=(0, 2)), measured[:, :T].sum(axis=1)

    def error(values: FloatArray) -> float:
        # Images are given and codes are random: only the spread over codes counts.
        return math.sqrt(values.var(axis=0, ddof=1).mean() / (N * samples))

    known, known_error, holes = _mixed(model, random, samples, pairs)
    return ImageEvaluation(
        rate=float(rate.mean()),
        rate_error=error(rate),
        rates=means[:T],
        distortion=float(means[T]),
        distortion_error=error(measured[:, T]),
        nll=gaussian_nll(float(means[T]), sigma, dim),
        nll_error=error(measured[:, T]) / (2 * sigma**2),
        mutual_information=known,
        mutual_information_error=known_error,
        active=_active(model, random),
        holes=holes,
        constraints={
            c.name: (float(means[k] - c.allowance), error(measured[:, k])) for k, c in enumerate(constraints, T + 1)
        },
        dim=dim,
        signature=signature.of(images, np.full(N, 1 / N)),
    )


@torch.inference_mode()
def sample(model: Model, task: Task, n: int, seed: int = 0) -> FloatArray:
    """Means (n, D) of images whose codes are drawn from the prior; a conditional model has contexts of the task."""
    random = _Random(model, task, seed)
    n = check_count(n, "n", most=memory.LARGEST // math.prod(model.image_shape))
    context = random.batch(np.arange(n) % len(task)).context
    noise = random.noise(n).split(_BLOCK)
    contexts = [None] * len(noise) if context is None else context.split(_BLOCK)
    return numbers(as_rows(torch.cat([model.sample(*block) for block in zip(noise, contexts, strict=True)])))


@torch.inference_mode()
def reconstruct(model: Model, task: Task, n: int, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """The first n images of the task and their reconstructions from sampled codes, both (n, D)."""
    random = _Random(model, task, seed)
    batch = random.batch(np.arange(check_count(n, "n", most=len(task))))
    done = model(batch.x, random.noise(n), batch.context)
    x, mean = (numbers(as_rows(values)) for values in (batch.x, done.mean))
    return x, mean


class _Random:
    """Batches of a task on the device of a model, and noise, from one seed."""

    def __init__(self, model: Model, task: Task, seed: int) -> None:
        self.model, self.task = model, task.to(model.centre.device)
        self.generator = torch.Generator().manual_seed(check_seed(seed))
        self.rng = np.random.default_rng([check_seed(seed), 4])

    def batch(self, rows: np.ndarray) -> Batch:
        batch = self.task.batch(torch.as_tensor(rows), self.generator)
        x, context = (None if v is None else v.to(self.model.centre) for v in (batch.x, batch.context))
        assert x is not None
        return Batch(x, context)

    def batches(self) -> Iterator[tuple[np.ndarray, Batch]]:
        for start in range(0, len(self.task), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(self.task)))
            yield rows, self.batch(rows)

    def noise(self, n: int) -> Tensor:
        return torch.randn(n, *self.model.code_shape, generator=self.generator).to(self.model.centre)


def _mixed(model: Model, random: _Random, samples: int, pairs: int) -> tuple[float, float, float]:
    """I(x; z), its standard error, and holes, by the mixture of the posteriors of all images; NaN if not measured."""
    N = len(random.task)
    if model.context_size is not None:
        return math.nan, math.nan, math.nan
    if model.code_shape[0] == 1:
        return _mixed_gaussians(model, random, samples)
    count = min(N, pairs // N)
    return (math.nan,) * 3 if count < min(N, _LEAST_CODES) else _mixed_pairs(model, random, count)


def _mixed_gaussians(model: Model, random: _Random, samples: int) -> tuple[float, float, float]:
    """The same for a model of one step, whose posteriors are Gaussians and known in closed form."""
    mean, log_sigma = _posteriors(model, random)
    N, L = mean.shape
    rho, count = np.full(N, 1 / N), codes_of_mixture(N, samples * N)
    own = random.rng.integers(N, size=count)
    codes = mean[own] + np.exp(log_sigma[own]) * random.rng.standard_normal((count, L))
    known = mean_information(information(codes, mean, log_sigma, rho), own, rho)
    drawn, log_prior = model.draw_codes(random.noise(count))
    z = numbers(drawn).reshape(count, L)
    log_normal = -0.5 * (np.square(z).sum(axis=1) + L * math.log(2 * math.pi))
    log_mixed = log_ratio(z, mean, log_sigma, rho) + log_normal - numbers(log_prior)
    return *known, _share_of_holes(log_mixed)


def _mixed_pairs(model: Model, random: _Random, count: int) -> tuple[float, float, float]:
    """The same from codes of some images, and as many of the prior: each is given to the posteriors of all images."""
    N = len(random.task)
    rho = np.full(N, 1 / N)
    own = np.sort(random.rng.permutation(N)[:count])
    codes = (model(random.batch(own[k : k + 1]).x, random.noise(1)).codes for k in range(count))
    told = np.array([told_by(_log_ratios(model, random, code)[None], rho)[0] for code in codes])
    of_prior = (model.draw_codes(random.noise(1))[0] for _ in range(count))
    log_mixed = np.array([logsumexp(_log_ratios(model, random, code)) - math.log(N) for code in of_prior])
    return *mean_information(told, own, rho), _share_of_holes(log_mixed)


def _log_ratios(model: Model, random: _Random, code: Tensor) -> FloatArray:
    """log q(z | x_j) - log p(z), (N,), of one code (1, *code_shape) and all images x_j."""
    parts = [model.log_ratio(batch.x, code.expand(len(rows), *code.shape[1:])) for rows, batch in random.batches()]
    return numbers(torch.cat(parts))


def _share_of_holes(log_mixed: FloatArray) -> float:
    """Share of the codes of the prior, (n,), at which log m(z) / p(z) is that of a hole."""
    return float((log_mixed < math.log(HOLE)).mean())


def _active(model: Model, random: _Random) -> npt.NDArray[np.bool_]:
    """Active entries of the code, those whose mean varies."""
    sums, squares = np.zeros(model.code_shape), np.zeros(model.code_shape)
    for rows, batch in random.batches():
        zero = torch.zeros(len(rows), *model.code_shape).to(batch.x)
        means = numbers(model(batch.x, zero, batch.context).codes)
        sums, squares = sums + means.sum(axis=0), squares + np.square(means).sum(axis=0)
    N = len(random.task)
    return np.asarray(squares / N - np.square(sums / N) > ACTIVE)


def _posteriors(model: Model, random: _Random) -> tuple[FloatArray, FloatArray]:
    """Mean and log sigma (N, L) of the codes of all images, mean + sigma * noise in a model of one step."""
    found = []
    for rows, batch in random.batches():
        zero = torch.zeros(len(rows), *model.code_shape).to(batch.x)
        mean, one = (model(batch.x, noise).codes.flatten(1).double() for noise in (zero, zero + 1))
        found.append(torch.stack([mean, (one - mean).log()]).cpu().numpy())
    mean, log_sigma = np.concatenate(found, axis=1)
    return mean, log_sigma
