"""Training: the training step of every objective, with a state that can be saved and restored bit for bit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils.arrays import Array, FloatArray
from .._utils.device import array_namespace, numbers, to_host
from .._utils.files import check_contents, entry
from ..objectives.constraints import RE, Constraint
from ..objectives.elbo import ELBO
from ..objectives.energies import CrossEntropy
from .adam import Adam
from .evaluation import gaussian_nll
from .history import History, make_history
from .loop import NotFiniteError
from .loss_terms import Term
from .multiplier import Multiplier
from .networks import VAE
from .states import check_history, check_multipliers
from .weighing import columns, learned_of, measure, stake, weight_of

_LONG, _FALL = 6000, 2  # the learning rate at step t is proportional to (1 + t / _LONG)^-_FALL


@dataclass(eq=False)
class Training:
    """Model, optimiser, multipliers and random state during training.

    An epoch has N draws: every point once, or with weights N w times, rounded at random (systematic sampling). Batches
    are drawn without replacement from them; the order of an epoch depends on the seed and its number.
    """

    model: VAE
    x: Array  # (N, D), in the standardised coordinates of the data
    distortion: Term
    likelihood: Term | None  # None for the Gaussian likelihood, which follows from the distortion
    terms: list[Term]  # terms with a multiplier, and terms that are only monitored
    batch_size: int
    learning_rate: float
    beta: Callable[[int], float] | None
    weights: FloatArray  # (N,), of sum 1, on the host
    seed: int
    sigma: float
    steps: int = 0
    rows: list[list[float]] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        x: FloatArray,
        model: VAE,
        constraints: Sequence[Constraint],
        learned: dict[str, Multiplier],
        weight: Callable[[int], ELBO] | None,
        **settings: Any,
    ) -> Training:
        """Training on data (N, D) on the host; its arrays are moved to the device of the parameters of the model.

        Constraints without a multiplier are monitored. `weight` is the ELBO at a step, which weights the likelihood.
        """
        xp, out = array_namespace(model.parameters), model.output_frame
        dtype = model.parameters.dtype
        target = xp.asarray(out.inward(x), dtype=dtype)
        error = Term.make(RE(0.0), target, out)
        entropy = Term.make(CrossEntropy(), target, out) if model.likelihood == "bernoulli" else None
        terms = [Term.make(constraint, target, out, learned.get(constraint.name)) for constraint in constraints]
        if weight is not None:
            terms.append((entropy or error).weighing("ELBO", lambda step: weight(step).multiplier))
        return cls(
            model=model,
            x=xp.asarray(model.frame.inward(x), dtype=dtype),
            distortion=error,
            likelihood=entropy,
            terms=terms,
            beta=None if weight is None else lambda step: weight(step).beta,
            **settings,
        )

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.seed, 1])
        self.adam = Adam(self.model.parameters)
        self._xp: Any = array_namespace(self.x)
        self._gradient = self._xp.empty_like(self.model.parameters)
        self._epoch: int = -1
        self._order: Array = self._xp.empty(0, dtype=int)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers that `step` returns, in their order."""
        return ("kl", "distortion", "nll", "learning_rate", *["beta"] * (self.beta is not None), *columns(self.terms))

    def history(self, constraints: tuple[Constraint, ...]) -> History:
        """The history of all steps so far."""
        return make_history(self.columns, self.rows, dim=self.model.dim, sigma=self.sigma, constraints=constraints)

    def step(self) -> list[float]:
        """One step of the network and of every multiplier (T20); the measurements, in the order of `columns`.

        Raises
        ------
        NotFiniteError
            If the loss or its gradient is not finite; parameters and random state are then unchanged.
        """
        before = self.rng.bit_generator.state
        try:
            with np.errstate(all="ignore"):
                return self._step()
        except NotFiniteError:
            self.rng.bit_generator.state = before
            raise

    def _step(self) -> list[float]:
        model, n = self.model, self.batch_size
        batch = self.batch()
        noise = self.rng.standard_normal((n, model.latent_dim))
        done = model.forward(self.x[batch], self._xp.asarray(noise, dtype=self.x.dtype))
        watched = [self.distortion, *([self.likelihood] if self.likelihood else []), *self.terms]
        found: dict[Any, tuple[Array, Array]] = {}
        for term in watched:
            if term.key not in found:
                found[term.key] = term.at(batch, done.reconstruction)
        kl, *means = numbers(done.kl, *(found[term.key][0].sum() / n for term in watched))
        if not np.isfinite([kl, *means]).all():
            raise NotFiniteError(f"the loss is not finite, KL {kl} and energies {means}")
        energies = dict(zip(watched, means, strict=True))
        slopes: Array | None = None
        for term in self.terms:
            if (lam := weight_of(term, self.steps)) is not None:
                part = found[term.key][1] * (lam / n)
                slopes = part if slopes is None else slopes + part
        assert slopes is not None  # at least one term of a loss has a multiplier
        gradient = model.backward(done, slopes, out=self._gradient)
        if not math.isfinite(float(gradient @ gradient)):
            raise NotFiniteError("the gradient is not finite")
        gradient /= stake(self.terms, self.steps)

        rate = self.learning_rate / (1 + self.steps / _LONG) ** _FALL
        row = [kl, energies[self.distortion], self.nll(energies), rate]
        if self.beta is not None:
            row.append(self.beta(self.steps))
        for term in self.terms:
            row += measure(term, energies[term], self.steps)
        self.adam.step(gradient, rate)
        for multiplier in learned_of(self.terms).values():
            multiplier.step()
        self.steps += 1
        self.rows.append(row)
        return row

    def nll(self, energies: dict[Term, float]) -> float:
        """Mean of -log p(x | z) over a batch, from its mean energies by term."""
        if self.likelihood is not None:
            return energies[self.likelihood]
        return gaussian_nll(energies[self.distortion], self.sigma, self.model.dim)

    def batch(self) -> Array:
        """Indices of the data points in the batch of this step."""
        per_epoch = len(self.x) // self.batch_size
        epoch, place = divmod(self.steps, per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, 2, epoch])
            order = rng.permutation(len(self.x))
            if np.ptp(self.weights) > 0:
                order = systematic(self.weights, rng.random())[order]
            self._epoch, self._order = epoch, self._xp.asarray(order)
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]

    def state(self) -> tuple[dict[str, FloatArray], dict[str, Any]]:
        """Everything that changes in training: arrays, and numbers for JSON."""
        arrays = {
            "parameters": to_host(self.model.parameters).copy(),
            "adam_mean": to_host(self.adam.mean).copy(),
            "adam_square": to_host(self.adam.square).copy(),
            "history": np.array(self.rows, dtype=np.float64).reshape(len(self.rows), len(self.columns)),
        }
        learned = {name: multiplier.state_dict() for name, multiplier in learned_of(self.terms).items()}
        return arrays, {"steps": self.steps, "rng": self.rng.bit_generator.state, "multipliers": learned}

    def restore(self, arrays: dict[str, FloatArray], numbers: dict[str, Any]) -> None:
        """Continue from a state; ValueError if it is not one of such a training, which is then unchanged."""
        steps, rng, learned = self._checked(arrays, numbers)
        xp = self._xp
        self.model.parameters[...] = xp.asarray(arrays["parameters"])
        self.adam.mean[...] = xp.asarray(arrays["adam_mean"])
        self.adam.square[...] = xp.asarray(arrays["adam_square"])
        self.adam.steps = self.steps = steps
        self.rows = arrays["history"].tolist()
        self.rng.bit_generator.state = rng
        for name, multiplier in learned_of(self.terms).items():
            multiplier.load_state_dict(learned[name])

    def _checked(self, arrays: dict[str, FloatArray], numbers: dict[str, Any]) -> tuple[int, dict[str, Any], Any]:
        """Steps, state of the random generator and states of the multipliers, if all of a state fits this training."""
        for name, least in (("parameters", -np.inf), ("adam_mean", -np.inf), ("adam_square", 0.0)):
            check_contents(arrays[name], name, self.model.parameters.shape, least)
            if arrays[name].dtype != self.model.parameters.dtype:
                raise ValueError(f"{name} must be of type {self.model.parameters.dtype}, got {arrays[name].dtype}")
        steps, learned = entry(numbers, "steps", int), entry(numbers, "multipliers", dict)
        check_history(arrays["history"], self.columns, steps)
        check_multipliers(learned, learned_of(self.terms), steps)
        return steps, _checked_generator(entry(numbers, "rng", dict)), learned


def systematic(weights: FloatArray, start: float) -> npt.NDArray[np.intp]:
    """N of N rows, row i floor(N w_i) or ceil(N w_i) times and N w_i times on average over starts in [0, 1)."""
    n = len(weights)
    ends = np.cumsum(weights) * (n / weights.sum())
    last = int(np.flatnonzero(weights)[-1])  # rounding of the last end must not reach rows without weight
    return np.searchsorted(ends, np.arange(n) + start, side="right").clip(max=last)


def _checked_generator(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a random generator, if NumPy takes it and gives the same back."""
    generator = np.random.default_rng(0).bit_generator
    with contextlib.suppress(ValueError, TypeError, LookupError, ArithmeticError, AttributeError):
        generator.state = state
        if generator.state == state:
            return state
    raise ValueError("rng must be the state of the random generator")
