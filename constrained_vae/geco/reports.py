"""Whether constraints were met, from the last tenth of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._utils.arrays import FloatArray
from ..objectives.constraints import FRE, RE, Constraint
from .history import History
from .multiplier import Multiplier
from .training import Training

_CLOSE = 0.02  # of the threshold: what a met constraint may miss it by
_CHEAP = 0.01  # nats: a constraint that costs less is slack
_BLOCKS = 20  # of steps, whose means are taken for independent


@dataclass(frozen=True, repr=False)
class Feasibility:
    """What became of one constraint.

    Attributes
    ----------
    name : str
    status : {"met", "slack", "unreachable", "not met"}
        "slack" where it holds and nothing is paid for it, "unreachable" where it does not hold and lambda is at its
        upper bound, "not met" where training ended too soon, or the constraint was only watched.
    value, error : float
        Mean of the energy over the last tenth of the steps, its codes sampled, and its standard error.
    threshold : float
        What was allowed at the end.
    multiplier : float
        Mean of lambda over the last tenth; NaN where it was only watched.
    best : float
        Least moving average of the energy that was seen; of one that was only watched, `value`.
    linear_floor : float
        Least error of a linear code of that size, NaN for constraints other than a squared error.
    hit : {-1, 0, 1}
        Whether lambda is held at a bound.
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
    """Least error of a linear code of that size: the sum of the other eigenvalues of the covariance; NaN for others."""
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
    """That of a mean of correlated values, from means of blocks; NaN of too few."""
    blocks = [block.mean() for block in np.array_split(values, _BLOCKS)] if len(values) >= 2 * _BLOCKS else []
    return float(np.std(blocks, ddof=1) / np.sqrt(len(blocks))) if blocks else float("nan")
