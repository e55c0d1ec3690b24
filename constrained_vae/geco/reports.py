"""Reports on constraints: whether each was met in the last tenth of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._utils.arrays import FloatArray
from ..objectives.constraints import FRE, RE, Constraint
from .history import History
from .multiplier import Multiplier
from .training import Training

_CLOSE = 0.02  # largest excess over the threshold of a met constraint, relative to the threshold
_CHEAP = 0.01  # cost in nats below which a constraint is slack
_BLOCKS = 20  # blocks of steps whose means are treated as independent


@dataclass(frozen=True, repr=False)
class Feasibility:
    """Result of training for one constraint.

    Attributes
    ----------
    name : str
    status : {"met", "slack", "unreachable", "not met"}
        "slack": the constraint holds at no cost. "unreachable": it does not hold although lambda is at its upper bound.
        "not met": it does not hold, since training ended too early or the constraint was only monitored.
    value, error : float
        Mean of the energy over the last tenth of the steps, with sampled codes, and its standard error.
    threshold : float
        Largest allowed energy at the end of training.
    multiplier : float
        Mean of lambda over the last tenth; NaN if the constraint was only monitored.
    best : float
        Smallest moving average of the energy during training; equal to `value` if the constraint was only monitored.
    linear_floor : float
        Smallest error of a linear code of the same size; NaN for constraints other than on a squared error.
    hit : {-1, 0, 1}
        -1 if lambda is at its lower bound, 1 if it is at its upper bound, else 0.
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

    def __repr__(self) -> str:
        text = (
            f"{self.name} {self.status}: {self.value:.5g} +- {self.error:.1g} of {self.threshold:.5g} allowed, "
            f"lambda {self.multiplier:.5g}"
        )
        if self.status in ("unreachable", "not met"):
            text += f", best seen {self.best:.5g}"
            if np.isfinite(self.linear_floor):
                text += f", a linear code of that size reaches {self.linear_floor:.5g}"
        return text + {-1: ", at its lower bound", 0: "", 1: ", at its upper bound"}[self.hit]


def linear_floor(constraint: Constraint, x: FloatArray, latent_dim: int) -> float:
    """Smallest error of a linear code of this size: the sum of all but the largest eigenvalues of the covariance.

    NaN for constraints other than on a squared error.
    """
    if isinstance(constraint, RE):
        scale = x.shape[1] if constraint.reduction == "mean" else 1
        centred = x - x.mean(axis=0, dtype=np.float64)
    elif isinstance(constraint, FRE) and constraint.quadratic:
        scale, centred = 1, constraint.features(x - x.mean(axis=0, dtype=np.float64))
    else:
        return float("nan")
    ell = np.linalg.eigvalsh(centred.T @ centred / len(x))[::-1]
    return float(ell[latent_dim:].clip(0).sum() / scale)


def make_report(
    training: Training, history: History, constraints: tuple[Constraint, ...], floors: dict[str, float]
) -> dict[str, Feasibility]:
    """The report on every constraint, by its name; empty before the first step."""
    if not len(history):
        return {}
    return {c.name: _judge(c, training, history, floors[c.name]) for c in constraints}


def _judge(constraint: Constraint, training: Training, whole: History, floor: float) -> Feasibility:
    name, tail = constraint.name, whole.tail()
    learned = next((t.multiplier for t in training.terms if t.name == name), None)
    threshold = constraint.allowance
    lam, hit, best = float("nan"), 0, float("nan")
    c = tail.values[name]
    if isinstance(learned, Multiplier):
        threshold = learned.threshold_at(max(training.steps - 1, 0))
        lam, hit = float(tail.multipliers[name].mean()), learned.hit
        seen = whole.averages[name]
        best = float(np.nanmin(seen) + threshold) if np.isfinite(seen).any() else best
    value, error = float(c.mean() + threshold), _standard_error(c)
    missed = c.mean() > max(_CLOSE * threshold, 3 * error)
    cheap = tail.kl.mean() <= _CHEAP or lam * threshold <= _CHEAP
    status = ("unreachable" if hit > 0 else "not met") if missed else ("slack" if cheap else "met")
    return Feasibility(name, status, value, error, threshold, lam, value if np.isnan(best) else best, floor, hit)


def _standard_error(values: FloatArray) -> float:
    """Standard error of the mean of correlated values, from the means of blocks; NaN for too few values."""
    blocks = [block.mean() for block in np.array_split(values, _BLOCKS)] if len(values) >= 2 * _BLOCKS else []
    return float(np.std(blocks, ddof=1) / np.sqrt(len(blocks))) if blocks else float("nan")
