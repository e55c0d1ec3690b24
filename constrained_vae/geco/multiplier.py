"""Multiplier: Algorithm 1 of *Taming VAEs* for one constraint, in log lambda, with a step that sets itself (T20)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .._utils.arrays import Array
from .._utils.checks import check_callable, check_count, check_non_negative, check_positive

Threshold = float | Callable[[int], float]

_NATS = (1e-6, 1e4)  # what a threshold may cost, lambda times threshold, by default
_MEMORY = 10  # times that of the moving average: over so long the response is estimated
_QUIET = 1e-6  # least variance of batch means that is believed, relative to the squared energy
_SLIGHT, _STRONG = 0.5, 4.0  # least and largest response, relative to the energy


@dataclass(eq=False)
class Multiplier:
    """The Lagrange multiplier of one constraint E[H] <= threshold, moved by gradient ascent in its logarithm.

    At every step `penalty` takes the batch mean of the energy H, updates the moving average C_ma of
    C = H - threshold, and gives lambda (C + stop_gradient(C_ma - C)): the value of the average with the gradient of the
    batch. After the step of the network, `step` sets lambda <- lambda exp(nu C_ma). Nothing else moves it.

    The step nu obeys the damping rule nu s = (1 - alpha) / 4, s = -dE[H] / d log lambda being the response of the
    energy. It is estimated by a regression of batch means on log lambda, which the noise of a batch cannot bias, since
    it acts on later lambdas only. Where log lambda has hardly moved, the energy itself stands in for it, which is exact
    for a linear VAE whose components are all active.

    Parameters
    ----------
    threshold : float or callable
        kappa^2 for errors, 1 - kappa for accuracies (`allowance` of a constraint); or a schedule, step -> threshold,
        such as `Ramp`.
    initial : float
        lambda at the start, in nats per unit of the energy.
    averaging : float
        alpha, in [0, 1).
    step_size : float, optional
        nu; by default from the damping rule.
    burn_in : int, optional
        Steps before the average begins and lambda may move; by default 1 / (1 - alpha).
    bounds : (float, float), optional
        Least and largest lambda; by default so that the threshold costs from 1e-6 to 1e4 nats. lambda stops there, and
        leaves as soon as the constraint changes sign.

    Raises
    ------
    ValueError
        For bad input; later for an energy that is not finite, or that is negative while nu is to be found.

    Examples
    --------
    In a loop of PyTorch (of JAX alike, outside of what is compiled), a batch at a time::

        multiplier = Multiplier(threshold=kappa**2)
        for x in batches:
            error = ((x - decoder(z)) ** 2).sum(1).mean()
            loss = kl + multiplier.penalty(error)
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            multiplier.step()

    A network that answers at once, with an error of 1 / lambda:

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
        if not 0 <= check_non_negative(self.averaging, "averaging") < 1:
            raise ValueError(f"averaging must be at least 0 and below 1, got {self.averaging}")
        if self.step_size is not None:
            self.step_size = check_non_negative(self.step_size, "step_size")
        if self.burn_in is None:
            self.burn_in = round(1 / (1 - self.averaging))
        check_count(self.burn_in, "burn_in", 0)
        if self.bounds is None:
            cost = self.threshold_at(0) or 1.0
            self.bounds = min(_NATS[0] / cost, self.initial), max(_NATS[1] / cost, self.initial)
        low, high = (check_positive(bound, "bounds") for bound in self.bounds)
        if not low <= self.initial <= high:
            raise ValueError(f"bounds must hold the initial multiplier {self.initial}, got ({low}, {high})")
        self.bounds = low, high
        self._state = _State(log_value=math.log(self.initial))

    def threshold_at(self, step: int) -> float:
        """The threshold in force at a step."""
        return check_non_negative(self.threshold(step), "threshold") if callable(self.threshold) else self.threshold

    @property
    def value(self) -> float:
        """lambda, in nats per unit of the energy."""
        return math.exp(self._state.log_value)

    @property
    def average(self) -> float:
        """C_ma; NaN before the end of the burn-in."""
        return self._state.average

    @property
    def hit(self) -> int:
        """-1 where lambda is held at its lower bound, 1 at the upper one, else 0."""
        return self._state.hit

    @property
    def frozen(self) -> bool:
        """Whether lambda stays where it is."""
        return self._state.frozen

    def freeze(self, frozen: bool = True) -> None:
        """Leave lambda where it is from now on (or no longer); the average goes on."""
        self._state.frozen = frozen

    def penalty(self, energy: Array) -> Array:
        """lambda (C + stop_gradient(C_ma - C)) of the batch mean of the energy, once every step.

        Parameters
        ----------
        energy : float or scalar array
            Of any library in which a number may be added to it.

        Returns
        -------
        float or scalar array
            Like the energy, with lambda times its gradient.
        """
        number = energy.detach() if hasattr(energy, "detach") else energy  # PyTorch warns where a gradient is read over
        return self.value * (energy + self.observe(float(number)))

    def observe(self, energy: float) -> float:
        """Take note of the batch mean of the energy; what is to be added to it for the value of the penalty."""
        state, energy = self._state, float(energy)
        if not math.isfinite(energy) or (energy < 0 and self.step_size is None):
            wanted = "finite" if self.step_size is not None else "finite and at least 0 where no step_size is given"
            raise ValueError(f"energy must be {wanted}, got {energy} at step {state.steps}")
        c = energy - self.threshold_at(state.steps)
        if state.steps >= (self.burn_in or 0):
            began = math.isnan(state.average)
            state.average = c if began else self.averaging * state.average + (1 - self.averaging) * c
            self._learn(energy, began)
        state.steps += 1
        return (c if math.isnan(state.average) else state.average) - energy

    def step(self) -> None:
        """lambda <- lambda exp(nu C_ma), within the bounds; nothing before the end of the burn-in, or while frozen."""
        state = self._state
        if state.frozen or math.isnan(state.average) or self.bounds is None:
            return
        low, high = map(math.log, self.bounds)
        wanted = state.log_value + self.nu * state.average
        state.log_value = min(max(wanted, low), high)
        state.hit = int(wanted > high) - int(wanted < low)

    @property
    def nu(self) -> float:
        """The step of log lambda per unit of C_ma in force."""
        if self.step_size is not None:
            return self.step_size
        response = self.response
        return (1 - self.averaging) / (4 * response) if response > 0 else 0.0

    @property
    def response(self) -> float:
        """s = -dE[H] / d log lambda, in units of the energy: the mean of a Gaussian posterior, within bounds.

        Its prior has the energy (or the threshold, where that is larger) as mean and standard deviation.
        """
        state = self._state
        prior = max(state.energy, self.threshold_at(state.steps))
        if not prior > 0:
            return 0.0
        n, noise = _MEMORY / (1 - self.averaging), state.noise / prior**2 + _QUIET
        found = prior * (noise - n * state.covariance / prior) / (noise + n * state.variance)
        return min(max(found, _SLIGHT * prior), _STRONG * prior)

    def _learn(self, energy: float, began: bool) -> None:
        """Moments of batch means and log lambda over the memory, and the noise of a batch about the moving average."""
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
        """The same settings and state, on their own from now on."""
        other = replace(self)
        other.load_state_dict(self.state_dict())
        return other

    def state_dict(self) -> dict[str, Any]:
        """All that changes in training, as plain numbers."""
        return {f.name: getattr(self._state, f.name) for f in fields(self._state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another multiplier of the same settings was.

        Raises
        ------
        ValueError
            If the numbers are not those of `state_dict`.
        """
        try:
            self._state = _State(**state)
        except TypeError as error:
            raise ValueError(f"state must be what state_dict() gave, got {sorted(state)}") from error


@dataclass
class _State:
    """What changes in training."""

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
