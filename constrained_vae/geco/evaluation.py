"""Evaluation of a trained model on data: rate, distortion, ELBO, marginal KL, active units and holes (T15), (T22)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from .._utils import memory
from .._utils.arrays import FloatArray
from .._utils.checks import check_count, check_positive, check_seed, check_weights
from ..data import signature
from ..data.frame import Frame
from ..objectives.constraints import Constraint
from ..objectives.energies import CrossEntropy
from .loss_terms import Term
from .networks import VAE

_PAIRS = 2**26  # pairs of a code and a data point at which the mixture is computed
_LEAST_CODES = 1000  # at which the mixture is computed, however many data points there are
ACTIVE = 0.01  # variance of the mean of an active unit over the data (Burda et al. 2016, arXiv:1509.00519)
HOLE = 0.1  # ratio of marginal posterior to prior below which a code is in a hole


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Results of a model on data, in nats and units of x; errors are standard errors from the sampling of codes.

    Attributes
    ----------
    rate : float
        Mean KL(q(z | x) || prior), summed over all latent dimensions; exact.
    distortion, distortion_error : float
        E||x - g(z)||^2 in total, z sampled from q(z | x).
    nll, nll_error : float
        E[-log p(x | z)].
    mutual_information, mutual_information_error : float
        I(x; z), nats: the mean of log q(z | x) - log m(z), where the marginal posterior m is the exact mixture of
        q(z | x) over these data. It is from 0 to log N (to the entropy of the weights).
    constraints : dict of (float, float)
        E[C] and its error, by the name of the constraint.
    active : (L,) array of bool
        Latent dimensions whose mean has a variance of more than 0.01 over the data.
    holes : float
        Prior probability of the codes at which the marginal posterior is less than a tenth of the prior.
    signature : (33,) array
        Numbers by which `Run.excess_over` notices a curve of other data.

    Examples
    --------
    >>> from constrained_vae import RE, geco
    >>> run = geco.train([[-2.0], [2.0]], RE(1.0), latent_dim=1, hidden=(), steps=40)
    >>> found = run.evaluate()
    >>> found.rate > 0, len(found.active)
    (True, 1)
    """

    rate: float
    distortion: float
    distortion_error: float
    nll: float
    nll_error: float
    mutual_information: float
    mutual_information_error: float
    constraints: dict[str, tuple[float, float]]
    active: npt.NDArray[np.bool_]
    holes: float
    signature: FloatArray

    def __repr__(self) -> str:
        return (
            f"Evaluation(rate={self.rate:.6g} nats, distortion={self.distortion:.6g} +- {self.distortion_error:.1g}, "
            f"elbo={self.elbo:.6g}, marginal_kl={self.marginal_kl:.4g} +- {self.marginal_kl_error:.1g}, "
            f"{self.n_active} of {len(self.active)} units active, holes={self.holes:.3g})"
        )

    @property
    def elbo(self) -> float:
        """E[log p(x | z)] - KL, nats, at beta = 1."""
        return -self.nll - self.rate

    @property
    def marginal_kl(self) -> float:
        """KL(marginal posterior || prior) = rate - I(x; z), nats."""
        return self.rate - self.mutual_information

    @property
    def marginal_kl_error(self) -> float:
        """Standard error of the marginal KL; that of the mutual information, since the rate is exact."""
        return self.mutual_information_error

    @property
    def n_active(self) -> int:
        """Number of active units."""
        return int(self.active.sum())


def evaluate(
    model: VAE,
    x: FloatArray,
    constraints: tuple[Constraint, ...] = (),
    *,
    sigma: float = 1.0,
    weights: Any = None,
    samples: int = 16,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a model on data. The model is unchanged; random numbers depend on `seed` only.

    Parameters
    ----------
    model : VAE
    x : (N, D) array
    constraints : sequence of Constraint
        Constraints with labels fit only the data that the model was trained on.
    sigma : float
        Standard deviation of the Gaussian decoder.
    weights : (N,) array_like, optional
        Weights of the points; uniform by default.
    samples : int
        Codes per data point, at least 2.
    seed : int
    """
    samples = check_count(samples, "samples", 2, most=memory.LARGEST // max(x.size, 1))
    sigma = check_positive(sigma, "sigma")
    rng = np.random.default_rng([check_seed(seed), 3])
    rho = check_weights(weights, len(x))
    mean, log_sigma = (part.astype(np.float64) for part in model.encode(x))
    rate = float(rho @ (0.5 * (mean**2 + np.exp(2 * log_sigma) - 1) - log_sigma).sum(axis=1))
    N, L = mean.shape
    plain = Frame.identity(model.dim)
    host = np.asarray(x, dtype=np.float64)
    terms = [Term.make(constraint, host, plain) for constraint in constraints]
    if model.likelihood == "bernoulli":
        terms.append(Term.make(CrossEntropy(), host, plain))
    measured = np.empty((samples, 1 + len(terms), N))
    codes = np.empty((samples, N, L))
    for k in range(samples):
        codes[k] = mean + np.exp(log_sigma) * rng.standard_normal((N, L))
        psi = model.decode(codes[k])
        measured[k, 0] = np.square(host - psi).sum(axis=1)
        for number, term in enumerate(terms, 1):
            measured[k, number] = term.at(slice(None), psi)[0]
    means = measured.mean(axis=0) @ rho
    # Data points are given and codes are random: only the spread over codes counts.
    errors = np.sqrt(measured.var(axis=0, ddof=1) @ rho**2 / samples)
    if model.likelihood == "bernoulli":
        nll, nll_error = means[-1], errors[-1]
    else:
        nll = gaussian_nll(means[0], sigma, model.dim)
        nll_error = errors[0] / (2 * sigma**2)

    known, known_error, holes = mixed(codes, mean, log_sigma, rho, rng)
    return Evaluation(
        rate=rate,
        distortion=float(means[0]),
        distortion_error=float(errors[0]),
        nll=float(nll),
        nll_error=float(nll_error),
        mutual_information=known,
        mutual_information_error=known_error,
        constraints={c.name: (float(means[k] - c.allowance), float(errors[k])) for k, c in enumerate(constraints, 1)},
        active=rho @ (mean - rho @ mean) ** 2 > ACTIVE,
        holes=holes,
        signature=signature.of(host, rho),
    )


def gaussian_nll(distortion: float, sigma: float, dim: int) -> float:
    """Mean of -log N(x; g, sigma^2) over x of this dimension, nats, from the mean of the squared error in total."""
    return distortion / (2 * sigma**2) + dim / 2 * math.log(2 * math.pi * sigma**2)


def mixed(
    codes: FloatArray, mean: FloatArray, log_sigma: FloatArray, rho: FloatArray, rng: np.random.Generator
) -> tuple[float, float, float]:
    """I(x; z), its standard error, and holes, from codes (samples, N, L) of the mixture of N(mean, sigma^2), (N, L).

    The mixture is computed at some of the codes, which are chosen at random.
    """
    samples, _, L = codes.shape
    heavy = np.flatnonzero(rho)
    mixture = mean[heavy], log_sigma[heavy], rho[heavy]
    count = codes_of_mixture(len(rho), samples * len(heavy))
    chosen = rng.permutation(samples * len(heavy))[:count]
    told = information(codes[:, heavy].reshape(-1, L)[chosen], *mixture)
    known, error = mean_information(told, chosen % len(heavy), rho[heavy])
    empty = log_ratio(rng.standard_normal((count, L)), *mixture) < math.log(HOLE)
    return known, error, float(empty.mean())


def codes_of_mixture(points: int, most: int) -> int:
    """Number of codes at which a mixture over so many points is computed."""
    return min(max(_LEAST_CODES, _PAIRS // points), most)


def mean_information(told: FloatArray, own: npt.NDArray[np.intp], rho: FloatArray) -> tuple[float, float]:
    """I(x; z) and its standard error, from what codes of the points `own` (n,) tell of them; at most the entropy."""
    shares = rho[own] / rho[own].sum()
    known = min(float(shares @ told), float(-rho @ np.log(rho)))  # the mean has a rounding error
    return known, float(np.sqrt(shares**2 @ (told - known) ** 2))


def log_ratio(codes: FloatArray, mean: FloatArray, log_sigma: FloatArray, rho: FloatArray) -> FloatArray:
    """Log ratio (n,) of the mixture of rho_j N(mean_j, sigma_j^2) over the data points to N(0, 1), at codes (n, L)."""
    parts = _log_parts(codes, mean, log_sigma, rho)
    return np.concatenate([logsumexp(part, axis=1) for part in parts]) + 0.5 * (codes**2).sum(axis=1)


def information(codes: FloatArray, mean: FloatArray, log_sigma: FloatArray, rho: FloatArray) -> FloatArray:
    """What a code tells of its data point, (n,), in nats: KL of the points given the code to their weights rho.

    It is the mean of log q(z | x) - log m(z) over the points that may have this code, less noisy than the value at the
    point from which the code was drawn. With equal weights it is log N less an entropy, so from 0 to log N.
    """
    return np.concatenate([told_by(part, rho) for part in _log_parts(codes, mean, log_sigma, rho)])


def told_by(log_parts: FloatArray, rho: FloatArray) -> FloatArray:
    """KL (n,) of the points given a code to their weights rho, from log rho_j q(z | x_j), (n, N), up to a constant."""
    log_shares = log_parts - logsumexp(log_parts, axis=1, keepdims=True)
    return np.asarray((np.exp(log_shares) * (log_shares - np.log(rho))).sum(axis=1))


def _log_parts(codes: FloatArray, mean: FloatArray, log_sigma: FloatArray, rho: FloatArray) -> Iterator[FloatArray]:
    """log rho_j N(z; mean_j, sigma_j^2) for blocks of codes z, (b, N), without the constant of the unit Gaussian."""
    precision = np.exp(-2 * log_sigma)
    readout = np.concatenate([-0.5 * precision, mean * precision], axis=1)  # (N, 2 L)
    offset = (-0.5 * mean**2 * precision - log_sigma).sum(axis=1) + np.log(rho)
    rows = memory.rows_of_block(len(mean))
    for start in range(0, len(codes), rows):
        z = codes[start : start + rows]
        yield np.concatenate([z**2, z], axis=1) @ readout.T + offset
