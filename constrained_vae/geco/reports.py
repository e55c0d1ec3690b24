"""Reports on constraints: whether each was met in the last tenth of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._utils.arrays import FloatArray
from ..objectives.constraints import Constraint
from .history import History
from .multiplier import Multiplier
from .starts import Spectrum, linear_floor

_CLOSE = 0.02  # largest excess over the threshold of a met constraint, relative to the threshold
_CHEAP = 0.01  # cost in nats below which a constraint is slack
_SETTLED = 0.02  # of the KL: largest cost of a violation, and largest drift of the KL
_STEADY = 0.05  # largest drift of log lambda
_BLOCKS = 20  # blocks of steps whose means are treated as independent


@dataclass(frozen=True, repr=False)
class Feasibility:
    """Result of training for one constraint.

    Attributes
    ----------
    name : str
    status : {"met", "slack", "unsettled", "unreachable", "not met"}
        "met": the constraint holds, and lambda and KL are at rest. "slack": it holds at no cost: the KL is about 0, or
        the threshold is at least the variance of the data, or lambda vanished while another constraint is paid for.
        "unsettled": it holds, but lambda times C is not about 0, or lambda or KL still drift: train longer.
        "unreachable": it does not hold although lambda is at its upper bound. "not met": it does not hold, since
        training ended too early or the constraint was only monitored.
    value, error : float
        Mean of the energy over the last tenth of the steps, with sampled codes, and its standard error.
    threshold : float
        Largest allowed energy, that of the constraint.
    multiplier : float
        Mean of lambda over the last tenth; NaN if the constraint was only monitored.
    best : float
        Smallest moving average of the energy during training; equal to `value` if the constraint was only monitored.
    linear_floor : float
        Smallest error of a linear code of the same size; NaN for constraints other than on a squared error.
    hit : {-1, 0, 1}
        -1 if lambda is at its lower bound, 1 if it is at its upper bound, else 0.
    gap : float
        lambda times the mean of C over the last tenth, in nats: 0 at the end of GECO (T21); NaN if only monitored.
    log_drift, kl_drift : float
        Means of log lambda and of the KL over the last twentieth of the steps (at least 2 / (1 - alpha) steps), less
        those over the twentieth before. For a constraint that is only monitored the first is NaN.

    Examples
    --------
    >>> from constrained_vae import RE, geco
    >>> run = geco.train([[-2.0], [2.0]], RE(1.0), latent_dim=1, hidden=(), steps=40)
    >>> run.report['RE'].threshold  # kappa^2
    1.0
    """

    name: str
    status: str
    value: float
    error: float
    threshold: float
    multiplier: float
    best: float
    linear_floor: float
    hit: int
    gap: float
    log_drift: float
    kl_drift: float

    def __repr__(self) -> str:
        text = (
            f"{self.name} {self.status}: {self.value:.5g}{_known(' +- ', self.error, '.1g')} of {self.threshold:.5g} "
            f"allowed{_known(', lambda ', self.multiplier, '.5g')}"
        )
        if self.status in ("unreachable", "not met"):
            text += f", best seen {self.best:.5g}"
            if np.isfinite(self.linear_floor):
                text += f", a linear code of that size reaches {self.linear_floor:.5g}"
        if self.status == "unsettled":
            text += (
                f", lambda C {self.gap:.2g} nats, drift of log lambda {self.log_drift:+.2g}, of KL {self.kl_drift:+.2g}"
            )
        return text + {-1: ", at its lower bound", 0: "", 1: ", at its upper bound"}[self.hit]


def _known(text: str, value: float, form: str) -> str:
    """A text and a number, or nothing if the number is not known."""
    return "" if np.isnan(value) else f"{text}{value:{form}}"


def make_report(
    history: History,
    constraints: tuple[Constraint, ...],
    multipliers: dict[str, Multiplier],
    spectra: dict[str, Spectrum | None],
    latent_dim: int,
) -> dict[str, Feasibility]:
    """The report on every constraint, by its name; empty before the first step."""
    if not len(history):
        return {}
    return {
        c.name: _judge(
            c, multipliers, history, linear_floor(spectra[c.name], latent_dim), linear_floor(spectra[c.name], 0)
        )
        for c in constraints
    }


def _judge(
    constraint: Constraint, multipliers: dict[str, Multiplier], whole: History, floor: float, variance: float
) -> Feasibility:
    """The verdict on one constraint, from the last tenth of the steps."""
    name, tail, threshold = constraint.name, whole.tail(), constraint.allowance
    learned = multipliers.get(name)
    thresholds = np.full(len(whole), threshold)
    if learned is not None and callable(learned.threshold):
        thresholds = np.array([learned.threshold_at(step) for step in whole.steps.tolist()])
    energy = tail.values[name] + thresholds[-len(tail) :]
    value, error = float(energy.mean()), _standard_error(energy)
    kl = float(tail.kl.mean())
    lam, hit, best, gap, drift, kl_drift = float("nan"), 0, value, float("nan"), float("nan"), _drift(tail.kl)
    settled, idle = True, kl <= _CHEAP or (value <= threshold and threshold >= variance)
    if learned is not None:
        seen = whole.averages[name] + thresholds
        lam, hit = float(tail.multipliers[name].mean()), learned.hit
        best = float(np.nanmin(seen)) if np.isfinite(seen).any() else best
        # lambda needs about 4 / (1 - alpha) steps for a correction: over fewer no drift is seen.
        recent = whole.tail(max(0.1, 4 / (1 - learned.averaging) / (1 + whole.last)))
        gap, drift = lam * (value - threshold), _drift(np.log(recent.multipliers[name]))
        close = max(_CHEAP, _SETTLED * kl)
        kl_drift = _drift(recent.kl)
        trend = kl_drift * np.linspace(-1, 1, len(recent))
        noise = 2 * _standard_error(recent.kl - trend)  # of a difference of two halves
        still = abs(kl_drift) <= close + 3 * noise
        # Among several constraints one is slack whose multiplier has vanished while another one is paid for.
        others = [other for key, other in multipliers.items() if key != name]
        paid = any(other.value * abs(other.threshold_at(whole.last)) > _CHEAP for other in others)
        vanished = lam * threshold <= _CHEAP
        idle = idle or (still and paid and vanished)
        rests = abs(drift) <= _STEADY or (paid and abs(drift) * lam * threshold <= close)
        settled = still and rests and not vanished and abs(gap) <= close + 3 * lam * error
    if value - threshold > max(_CLOSE * threshold, 3 * error):
        status = "unreachable" if hit > 0 else "not met"
    else:
        status = "slack" if idle else "met" if settled else "unsettled"
    return Feasibility(name, status, value, error, threshold, lam, best, floor, hit, gap, drift, kl_drift)


def _drift(values: FloatArray) -> float:
    """Mean of the second half less that of the first; 0 for a single value."""
    half = len(values) // 2
    return float(values[half:].mean() - values[:half].mean()) if half else 0.0


def _standard_error(values: FloatArray) -> float:
    """Standard error of the mean of correlated values, from the means of blocks; NaN for too few values."""
    blocks = [block.mean() for block in np.array_split(values, _BLOCKS)] if len(values) >= 2 * _BLOCKS else []
    return float(np.std(blocks, ddof=1) / np.sqrt(len(blocks))) if blocks else float("nan")
