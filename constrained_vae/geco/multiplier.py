"""Multiplier: Algorithm 1 of *Taming VAEs* for one constraint, in log lambda, with an automatic step size (T20)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

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
from .._utils.tensors import at_least_single, plain_number
from .starts import one_nat

Threshold = float | Callable[[int], float]

_NATS = (1e-6, 1e4)  # default bounds of lambda times threshold
_MEMORY = 10  # memory of the estimate of the response, in units of the memory of the moving average
_QUIET = 1e-6  # smallest variance of log batch means that is assumed
_SLIGHT, _STRONG = 0.5, 4.0  # smallest and largest response
_LEAST_RATIO = 0.01  # of energy and threshold; below it lambda falls no faster, since the logarithm has no end
_LEAST = 1e-300  # smallest size of a threshold but 0
_ROUNDING = 1e-9  # of the sum of the shares of micro-batches
_VERSION = 2  # of the state


@dataclass(eq=False, repr=False)
class Multiplier:
    """The Lagrange multiplier of one constraint E[H] <= threshold, moved by gradient ascent in its logarithm.

    At every step `penalty` takes the batch mean of the energy H, updates the moving average C_ma of
    C = H - threshold, and returns lambda (C + stop_gradient(C_ma - C)), which has the value of the average and the
    gradient of the batch. After the step of the network, `step` changes lambda; nothing else does.

    With a given step size nu the law is that of the paper, lambda <- lambda exp(nu C_ma), for energies of any sign. By
    default the energy is at least 0, and the exponent has no unit: nu C_ma / E_ma where C_ma > 0, with the moving
    average E_ma = C_ma + threshold of the energy, and nu log(E_ma / threshold) below, with a ratio of 1/100 or more.
    So lambda rises by at most e^nu a step while the network has not learned yet, and falls no slower than it rises.

    The step size nu then follows the damping rule nu r = (1 - alpha) / 4, where r = -d log E[H] / d log lambda is the
    response of the energy. The response is estimated by a regression of log batch means on log lambda. The noise of a
    batch does not bias it, since this noise affects only later values of lambda. If log lambda has hardly changed, the
    response is taken to be 1, which is exact for a linear VAE whose components are all active. While a network learns,
    its error falls as lambda rises and r seems larger than it is. This makes a rise slow, which is safe. A fall has no
    such danger, and where C_ma < 0 a response above 1 counts as 1.

    Parameters
    ----------
    threshold : float or callable
        kappa^2 for errors, 1 - kappa for accuracies (the `allowance` of a constraint); or a schedule, a function
        step -> threshold such as `Ramp`.
    initial : float, optional
        Initial lambda, in nats per unit of the energy; by default 1 / threshold, one nat over the threshold. A better
        start for a reconstruction error is `natural_multiplier`.
    averaging : float
        Weight alpha of the past in the moving average, in [0, 1).
    step_size : float, optional
        Step size nu of the law of the paper; by default nu follows from the damping rule.
    burn_in : int, optional
        Number of steps before the moving average begins and lambda may change; by default 1 / (1 - alpha).
    bounds : (float, float), optional
        Smallest and largest lambda; by default lambda times the threshold is from 1e-6 to 1e4 nats (for a threshold of
        0, lambda over the initial lambda). At a bound lambda stays until C_ma changes sign.

    Raises
    ------
    ValueError
        For bad input, for an energy that is not finite, and for a negative energy or threshold without `step_size`.

    Examples
    --------
    In a training loop of PyTorch, one call per batch (in JAX likewise, outside of compiled functions)::

        multiplier = Multiplier(threshold=kappa**2)
        for x in batches:
            error = ((x - decoder(z)) ** 2).sum(1).mean()
            loss = kl + multiplier.penalty(error)
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            multiplier.step()

    Take the mean over the batch. If the gradients of n micro-batches are accumulated, each one gives its share,
    ``penalty(error, weight=1 / n)``, and `step` is called after the last one. `cost` values a batch for validation,
    and moves nothing. Several processes that train one network agree on the mean of their batches before.

    A network that adapts at once, with an error of 1 / lambda:

    >>> multiplier = Multiplier(threshold=0.5)
    >>> for _ in range(5000):
    ...     loss = multiplier.penalty(1 / multiplier.value)
    ...     multiplier.step()
    >>> round(multiplier.value, 3)
    2.0
    """

    threshold: Threshold
    initial: float | None = None
    averaging: float = 0.99
    step_size: float | None = None
    burn_in: int | None = None
    bounds: tuple[float, float] | None = None
    _state: _State = field(init=False)
    _start: float = field(init=False)  # the initial lambda
    _log_bounds: tuple[float, float] = field(init=False)  # of log lambda, relative to the initial lambda

    def __post_init__(self) -> None:
        if self.step_size is not None:
            self.step_size = check_non_negative(self.step_size, "step_size")
        if callable(self.threshold):
            check_callable(self.threshold, "threshold")
        else:
            self.threshold = self._checked_threshold(self.threshold)
        first = self.threshold_at(0)
        if 0 < abs(first) < _LEAST:
            raise ValueError(f"threshold must be 0 or at least {_LEAST:.0e} in size, got {first}")
        self.initial = check_positive(one_nat(first) if self.initial is None else self.initial, "initial")
        wanted = "at least 0 and below 1"
        self.averaging = check_number(self.averaging, "averaging", wanted, lambda share: 0 <= share < 1)
        if self.burn_in is None:
            self.burn_in = round(1 / (1 - self.averaging))
        self.burn_in = check_count(self.burn_in, "burn_in", 0)
        if self.bounds is None:
            nat = one_nat(first) if first else self.initial
            self.bounds = min(_NATS[0] * nat, self.initial), max(_NATS[1] * nat, self.initial)
        low, high = (check_positive(bound, "bounds") for bound in check_array(self.bounds, "bounds", (2,)))
        if not low <= self.initial <= high:
            raise ValueError(f"bounds must hold the initial multiplier {self.initial}, got ({low}, {high})")
        self.bounds = low, high
        self._start, self._log_bounds = self.initial, (math.log(low / self.initial), math.log(high / self.initial))
        self._state = _State()

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"Multiplier(lambda {self.value:.6g} at step {self._state.steps}; {settings})"

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments from which the multiplier was made, with their defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    def threshold_at(self, step: int) -> float:
        """The threshold at a step.

        Raises
        ------
        ValueError
            If `step` is no whole number of at least 0.
        """
        step = check_count(step, "step", 0)
        return self._checked_threshold(self.threshold(step)) if callable(self.threshold) else self.threshold

    def _checked_threshold(self, value: Any) -> float:
        """A threshold; it may be negative if the step size is given."""
        if self.step_size is not None:
            return check_number(value, "threshold", "finite")
        return check_number(value, "threshold", "finite and at least 0 where no step_size is given", _not_negative)

    @property
    def value(self) -> float:
        """lambda, in nats per unit of the energy."""
        return self._start * math.exp(self._state.log_ratio)  # the unit is in the first factor alone

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
        """Keep lambda constant from now on, or let it change again; the average is updated in both cases.

        Raises
        ------
        ValueError
            If `frozen` is neither True nor False.
        """
        self._state.frozen = check_flag(frozen, "frozen")

    def penalty(self, energy: Array, weight: float = 1.0) -> Array:
        """lambda (C + stop_gradient(C_ma - C)) for the batch mean of the energy. Call it once per step.

        Parameters
        ----------
        energy : float or scalar array
            Batch mean, of any array library in which numbers can be added to it. A tensor of PyTorch in half precision,
            which lambda times the energy would leave, becomes one of float32.
        weight : float
            Share of the batch that this is the mean of: below 1 for a micro-batch, see `observe`.

        Returns
        -------
        float or scalar array
            Of the type of the energy, with lambda times the gradient of the energy.
        """
        energy = at_least_single(energy)
        return self.value * (energy + self.observe(plain_number(energy), weight))

    def cost(self, energy: Array) -> Array:
        """lambda (energy - threshold), in nats, of the mean of a batch for validation: neither average nor lambda move.

        Parameters
        ----------
        energy : float or scalar array
            Batch mean, see `penalty`.
        """
        energy = at_least_single(energy)
        self._checked_energy(plain_number(energy))
        return self.value * (energy + -self.threshold_at(self._state.steps))

    def observe(self, energy: float, weight: float = 1.0) -> float:
        """Update the averages with the batch mean of the energy; C_ma minus this mean, for the value of the penalty.

        Parameters
        ----------
        energy : float
            Batch mean.
        weight : float
            Share of the batch, above 0. Averages move once the shares of the micro-batches make up 1, with the mean of
            the whole batch, and before that `step` leaves lambda alone.

        Raises
        ------
        ValueError
            If the energy is not finite, or the weight not above 0 or more than what remains of the batch.
        """
        state, energy = self._state, self._checked_energy(energy)
        open_share = 1 - state.share
        weight = check_number(
            weight, "weight", f"above 0 and at most {open_share:.6g}", lambda w: 0 < w <= open_share + _ROUNDING
        )
        c = energy - self.threshold_at(state.steps)
        state.part += weight * energy
        state.share += weight
        if state.share >= 1 - _ROUNDING:
            self._move(state.part / state.share)
            state.part = state.share = 0.0
        return (c if math.isnan(state.average) else state.average) - energy

    def _checked_energy(self, energy: Any) -> float:
        """The mean of a batch; it may be negative if the step size is given."""
        name = f"energy at step {self._state.steps}"
        if getattr(energy, "shape", ()) != () or isinstance(energy, (list, tuple)):
            raise ValueError(f"{name} must be one number, got {shown(energy)}: take the mean over the batch")
        if self.step_size is not None:
            return check_number(energy, name, "finite")
        return check_number(energy, name, "finite and at least 0 where no step_size is given", _not_negative)

    def _move(self, energy: float) -> None:
        """Count a step, and after the burn-in update the averages with the mean of its batch."""
        state = self._state
        if state.steps >= (self.burn_in or 0):
            c = energy - self.threshold_at(state.steps)
            began = math.isnan(state.average)
            state.average = c if began else self.averaging * state.average + (1 - self.averaging) * c
            if self.step_size is None:
                self._learn(energy, began)
        state.steps += 1

    def step(self) -> None:
        """Move log lambda within the bounds, but not during the burn-in, within a batch, or while frozen."""
        state = self._state
        if state.frozen or state.share or math.isnan(state.average):
            return
        low, high = self._log_bounds
        wanted = state.log_ratio + self.nu * self._excess
        state.log_ratio = min(max(wanted, low), high)
        state.hit = int(wanted > high) - int(wanted < low)

    @property
    def _excess(self) -> float:
        """C_ma if the step size is given, else C_ma / E_ma above 0 and log(E_ma / threshold) below."""
        average, threshold = self._state.average, self.threshold_at(max(self._state.steps - 1, 0))
        if self.step_size is not None:
            return average
        if average >= 0:
            return average / (average + threshold) if average else 0.0
        return math.log(max(1 + average / threshold, _LEAST_RATIO))

    @property
    def nu(self) -> float:
        """The step size of log lambda: per unit of C_ma if it was given, else per relative excess of the energy."""
        if self.step_size is not None:
            return self.step_size
        response = self.response if self._state.average >= 0 else min(self.response, 1.0)
        return (1 - self.averaging) / (4 * response)

    @property
    def response(self) -> float:
        """Estimate of r = -d log E[H] / d log lambda: a Gaussian posterior mean, within bounds.

        The mean and the standard deviation of its prior are 1.
        """
        state = self._state
        n, noise = _MEMORY / (1 - self.averaging), state.noise + _QUIET
        found = (noise - n * state.covariance) / (noise + n * state.variance)
        return min(max(found, _SLIGHT), _STRONG)

    def _learn(self, energy: float, began: bool) -> None:
        """Update the moments of log energy and log lambda, and the variance of log energies about their average."""
        state = self._state
        least = (state.average + self.threshold_at(state.steps)) * _LEAST_RATIO
        nats = max(energy, least) * self._start  # a number without unit
        log_energy = math.log(nats) if nats > 0 else 0.0
        if began:
            state.log_energy = state.mean_log_energy = log_energy
            state.mean_log = state.log_ratio
            return
        fast, slow = 1 - self.averaging, (1 - self.averaging) / _MEMORY
        by_log, by_energy = state.log_ratio - state.mean_log, log_energy - state.mean_log_energy
        state.noise += fast * ((log_energy - state.log_energy) ** 2 - state.noise)
        state.log_energy += fast * (log_energy - state.log_energy)
        state.mean_log += slow * by_log
        state.mean_log_energy += slow * by_energy
        state.variance += slow * ((1 - slow) * by_log**2 - state.variance)
        state.covariance += slow * ((1 - slow) * by_log * by_energy - state.covariance)

    def copy(self) -> Multiplier:
        """An independent multiplier with the same settings and state."""
        other = replace(self)
        other.load_state_dict(self.state_dict())
        return other

    def state_dict(self) -> dict[str, Any]:
        """All numbers that change in training, and the version and the settings they belong to, as JSON has them."""
        settings = {**self.settings, "threshold": self.threshold_at(0), "bounds": list(self.bounds or ())}
        return {"version": _VERSION, "settings": settings} | asdict(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another multiplier with the same settings.

        Raises
        ------
        ValueError
            If version, settings, names or values are not those of `state_dict`; the multiplier is then unchanged.
        """
        own = self.state_dict()
        if not isinstance(state, dict) or set(state) != set(own):
            raise ValueError(
                f"state must be what state_dict() gave, with the names {', '.join(own)}, got {shown(state)}"
            )
        for name in ("version", "settings"):
            if state[name] != own[name] or isinstance(state[name], bool):
                raise ValueError(f"state must be of a multiplier with {name} {own[name]}, got {shown(state[name])}")
        found = _State(**{f.name: state[f.name] for f in fields(_State)})
        for name, fits in found.fits(*self._log_bounds, estimated=self.step_size is None).items():
            if not fits:
                raise ValueError(f"state must be what state_dict() gave, got {name} = {shown(state[name])}")
        self._state = found


@dataclass
class _State:
    """The numbers that change in training."""

    log_ratio: float = 0.0  # log of lambda over the initial lambda
    average: float = math.nan
    steps: int = 0
    hit: int = 0
    frozen: bool = False
    log_energy: float = math.nan  # moving average, like C_ma
    noise: float = 0.0  # variance of batch means
    mean_log: float = math.nan  # moments over the memory
    mean_log_energy: float = math.nan
    variance: float = 0.0
    covariance: float = 0.0
    part: float = 0.0  # sum over the micro-batches of a batch that is not complete
    share: float = 0.0

    def fits(self, low: float, high: float, *, estimated: bool) -> dict[str, bool]:
        """Whether each of the numbers is one that training can give, for these bounds and this kind of step size."""
        begun = self.average == self.average  # not NaN: the burn-in is over
        known = dict.fromkeys(("log_ratio", "noise", "variance", "covariance", "part", "share"), True)
        known |= {"average": begun} | dict.fromkeys(("log_energy", "mean_log", "mean_log_energy"), begun and estimated)
        fits = {name: _is(float, getattr(self, name), math.isfinite if k else math.isnan) for name, k in known.items()}
        fits["log_ratio"] = _is(float, self.log_ratio, lambda value: low <= value <= high)
        fits["share"] = _is(float, self.share, lambda value: 0 <= value < 1)
        for name in ("noise", "variance"):
            fits[name] = fits[name] and getattr(self, name) >= 0
        fits["steps"] = _is(int, self.steps, lambda value: value >= 0)
        fits["hit"] = _is(int, self.hit, lambda value: value in (-1, 0, 1))
        fits["frozen"] = isinstance(self.frozen, bool)
        return fits


def _is(kind: type, value: Any, condition: Callable[[Any], bool]) -> bool:
    """Whether a value has a type, is no bool, and satisfies a condition."""
    return isinstance(value, kind) and not isinstance(value, bool) and condition(value)


def _not_negative(value: float) -> bool:
    return 0 <= value < math.inf
