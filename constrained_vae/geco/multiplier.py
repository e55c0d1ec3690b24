"""Multiplier: Algorithm 1 of *Taming VAEs* for one constraint, in log lambda, with an automatic step size (T20)."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from .._utils.arrays import Array
from .._utils.checks import (
    check_array,
    check_callable,
    check_count,
    check_flag,
    check_non_negative,
    check_number,
    check_positive,
    shown,
)

Threshold = float | Callable[[int], float]

_NATS = (1e-6, 1e4)  # default bounds of lambda times threshold
_MEMORY = 10  # memory of the estimate of the response, in units of the memory of the moving average
_QUIET = 1e-6  # smallest variance of batch means that is assumed, relative to the squared energy
_SLIGHT, _STRONG = 0.5, 4.0  # smallest and largest response, relative to the energy


@dataclass(eq=False)
class Multiplier:
    """The Lagrange multiplier of one constraint E[H] <= threshold, moved by gradient ascent in its logarithm.

    At every step `penalty` takes the batch mean of the energy H, updates the moving average C_ma of
    C = H - threshold, and returns lambda (C + stop_gradient(C_ma - C)), which has the value of the average and the
    gradient of the batch. After the step of the network, `step` sets lambda <- lambda exp(nu C_ma). Nothing else
    changes lambda.

    The step size nu follows the damping rule nu s = (1 - alpha) / 4, where s = -dE[H] / d log lambda is the response of
    the energy. The response is estimated by a regression of batch means on log lambda. The noise of a batch does not
    bias it, since this noise affects only later values of lambda. If log lambda has hardly changed, the response is
    taken to be the energy itself, which is exact for a linear VAE whose components are all active.

    Parameters
    ----------
    threshold : float or callable
        kappa^2 for errors, 1 - kappa for accuracies (the `allowance` of a constraint); or a schedule, a function
        step -> threshold such as `Ramp`.
    initial : float
        Initial lambda, in nats per unit of the energy.
    averaging : float
        Weight alpha of the past in the moving average, in [0, 1).
    step_size : float, optional
        Step size nu; by default it follows from the damping rule.
    burn_in : int, optional
        Number of steps before the moving average begins and lambda may change; by default 1 / (1 - alpha).
    bounds : (float, float), optional
        Smallest and largest lambda; by default lambda times the threshold is from 1e-6 to 1e4 nats. At a bound lambda
        stays until C_ma changes sign.

    Raises
    ------
    ValueError
        For bad input, for an energy that is not finite, and for a negative energy if nu follows from the damping rule.

    Examples
    --------
    In a training loop of PyTorch, one call per batch (in JAX likewise, outside of compiled functions)::

        multiplier = Multiplier(threshold=kappa**2)
        for x in batches:
            error = ((x - decoder(z)) ** 2).sum(1).mean()
            loss = kl + multiplier.penalty(error)
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            multiplier.step()

    A network that adapts at once, with an error of 1 / lambda:

    >>> multiplier = Multiplier(threshold=0.5)
    >>> for _ in range(5000):
    ...     loss = multiplier.penalty(1 / multiplier.value)
    ...     multiplier.step()
    >>> round(multiplier.value, 3)
    2.0
    """

    threshold: Threshold
    initial: float = 1.0
    averaging: float = 0.99
    step_size: float | None = None
    burn_in: int | None = None
    bounds: tuple[float, float] | None = None
    _state: _State = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if callable(self.threshold):
            check_callable(self.threshold, "threshold")
        else:
            self.threshold = check_non_negative(self.threshold, "threshold")
        self.initial = check_positive(self.initial, "initial")
        wanted = "at least 0 and below 1"
        self.averaging = check_number(self.averaging, "averaging", wanted, lambda share: 0 <= share < 1)
        if self.step_size is not None:
            self.step_size = check_non_negative(self.step_size, "step_size")
        if self.burn_in is None:
            self.burn_in = round(1 / (1 - self.averaging))
        self.burn_in = check_count(self.burn_in, "burn_in", 0)
        if self.bounds is None:
            cost = self.threshold_at(0) or 1.0
            if _NATS[1] / cost == math.inf:
                raise ValueError(f"threshold must be 0 or at least 1e-300, got {cost}")
            self.bounds = min(_NATS[0] / cost, self.initial), max(_NATS[1] / cost, self.initial)
        low, high = (check_positive(bound, "bounds") for bound in check_array(self.bounds, "bounds", (2,)))
        if not low <= self.initial <= high:
            raise ValueError(f"bounds must hold the initial multiplier {self.initial}, got ({low}, {high})")
        self.bounds = low, high
        self._state = _State(log_value=math.log(self.initial))

    def threshold_at(self, step: int) -> float:
        """The threshold at a step."""
        step = check_count(step, "step", 0)
        return check_non_negative(self.threshold(step), "threshold") if callable(self.threshold) else self.threshold

    @property
    def value(self) -> float:
        """lambda, in nats per unit of the energy."""
        return math.exp(self._state.log_value)

    @property
    def average(self) -> float:
        """The moving average C_ma; NaN before the end of the burn-in."""
        return self._state.average

    @property
    def hit(self) -> int:
        """-1 if lambda is at its lower bound, 1 if it is at its upper bound, else 0."""
        return self._state.hit

    @property
    def frozen(self) -> bool:
        """Whether lambda is kept constant."""
        return self._state.frozen

    def freeze(self, frozen: bool = True) -> None:
        """Keep lambda constant from now on, or let it change again; the average is updated in both cases."""
        self._state.frozen = check_flag(frozen, "frozen")

    def penalty(self, energy: Array) -> Array:
        """lambda (C + stop_gradient(C_ma - C)) for the batch mean of the energy. Call it once per step.

        Parameters
        ----------
        energy : float or scalar array
            Batch mean, of any array library in which numbers can be added to it.

        Returns
        -------
        float or scalar array
            Of the type of the energy, with lambda times the gradient of the energy.
        """
        number: Any = energy.detach() if hasattr(energy, "detach") else energy  # a tensor with a gradient warns
        with contextlib.suppress(TypeError, ValueError):  # `observe` refuses what is no number
            plain = isinstance(number, (numbers.Number, np.bool_))
            number = float(number) if hasattr(number, "__float__") and not plain else number
        return self.value * (energy + self.observe(number))

    def observe(self, energy: float) -> float:
        """Update the averages with the batch mean of the energy; C_ma minus this mean, for the value of the penalty."""
        state, signed = self._state, self.step_size is not None
        wanted = "finite" if signed else "finite and at least 0 where no step_size is given"
        energy = check_number(
            energy, f"energy at step {state.steps}", wanted, lambda C: math.isfinite(C) and (signed or C >= 0)
        )
        c = energy - self.threshold_at(state.steps)
        if state.steps >= (self.burn_in or 0):
            began = math.isnan(state.average)
            state.average = c if began else self.averaging * state.average + (1 - self.averaging) * c
            self._learn(energy, began)
        state.steps += 1
        return (c if math.isnan(state.average) else state.average) - energy

    def step(self) -> None:
        """Set lambda <- lambda exp(nu C_ma) within the bounds, but not during the burn-in or while frozen."""
        state = self._state
        if state.frozen or math.isnan(state.average) or self.bounds is None:
            return
        low, high = map(math.log, self.bounds)
        wanted = state.log_value + self.nu * state.average
        state.log_value = min(max(wanted, low), high)
        state.hit = int(wanted > high) - int(wanted < low)

    @property
    def nu(self) -> float:
        """The step size of log lambda per unit of C_ma."""
        if self.step_size is not None:
            return self.step_size
        response = self.response
        return (1 - self.averaging) / (4 * response) if response > 0 else 0.0

    @property
    def response(self) -> float:
        """Estimate of s = -dE[H] / d log lambda, in units of the energy: a Gaussian posterior mean, within bounds.

        The mean and the standard deviation of its prior are the larger of energy and threshold.
        """
        state = self._state
        prior = max(state.energy, self.threshold_at(state.steps))
        if not prior > 0:
            return 0.0
        n, noise = _MEMORY / (1 - self.averaging), state.noise / prior**2 + _QUIET
        found = prior * (noise - n * state.covariance / prior) / (noise + n * state.variance)
        return min(max(found, _SLIGHT * prior), _STRONG * prior)

    def _learn(self, energy: float, began: bool) -> None:
        """Update the moments of batch means and log lambda, and the variance of batch means about their average."""
        state = self._state
        if began:
            state.energy = state.mean_energy = energy
            state.mean_log = state.log_value
            return
        fast, slow = 1 - self.averaging, (1 - self.averaging) / _MEMORY
        by_log, by_energy = state.log_value - state.mean_log, energy - state.mean_energy
        state.noise += fast * ((energy - state.energy) ** 2 - state.noise)
        state.energy += fast * (energy - state.energy)
        state.mean_log += slow * by_log
        state.mean_energy += slow * by_energy
        state.variance += slow * ((1 - slow) * by_log**2 - state.variance)
        state.covariance += slow * ((1 - slow) * by_log * by_energy - state.covariance)

    def copy(self) -> Multiplier:
        """An independent multiplier with the same settings and state."""
        other = replace(self)
        other.load_state_dict(self.state_dict())
        return other

    def state_dict(self) -> dict[str, Any]:
        """All numbers that change in training."""
        return {f.name: getattr(self._state, f.name) for f in fields(self._state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another multiplier with the same settings.

        Raises
        ------
        ValueError
            If the names or the values are not those of `state_dict`; the multiplier is then unchanged.
        """
        names = [f.name for f in fields(_State)]
        if not isinstance(state, dict) or set(state) != set(names):
            raise ValueError(
                f"state must be what state_dict() gave, with the names {', '.join(names)}, got {shown(state)}"
            )
        found = _State(**state)
        for name, fits in found.fits(*map(math.log, self.bounds or (1.0, 1.0))).items():
            if not fits:
                raise ValueError(f"state must be what state_dict() gave, got {name} = {shown(state[name])}")
        self._state = found


@dataclass
class _State:
    """The numbers that change in training."""

    log_value: float
    average: float = math.nan
    steps: int = 0
    hit: int = 0
    frozen: bool = False
    energy: float = math.nan  # moving average, like C_ma
    noise: float = 0.0  # variance of batch means
    mean_log: float = math.nan  # moments over the memory
    mean_energy: float = math.nan
    variance: float = 0.0
    covariance: float = 0.0

    def fits(self, low: float, high: float) -> dict[str, bool]:
        """Whether each of the numbers is one that training can give, for these bounds of log lambda."""
        begun = self.average == self.average  # not NaN: the burn-in is over
        known = dict.fromkeys(("log_value", "noise", "variance", "covariance"), True)
        known |= dict.fromkeys(("average", "energy", "mean_log", "mean_energy"), begun)
        fits = {name: _is(float, getattr(self, name), math.isfinite if k else math.isnan) for name, k in known.items()}
        fits["log_value"] = _is(float, self.log_value, lambda value: low <= value <= high)
        for name in ("noise", "variance"):
            fits[name] = fits[name] and getattr(self, name) >= 0
        fits["steps"] = _is(int, self.steps, lambda value: value >= 0)
        fits["hit"] = _is(int, self.hit, lambda value: value in (-1, 0, 1))
        fits["frozen"] = isinstance(self.frozen, bool)
        return fits


def _is(kind: type, value: Any, condition: Callable[[Any], bool]) -> bool:
    """Whether a value has a type, is no bool, and satisfies a condition."""
    return isinstance(value, kind) and not isinstance(value, bool) and condition(value)
