"""Hysteresis of a split: where the split branch ends on heating, and where the free energies of the branches cross."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.interpolate import KroghInterpolator
from scipy.optimize import brentq

from .continuation import Continuation, Split, State

RESOLUTION = 3e-7  # relative accuracy of the temperature at which heating ends; a narrower hysteresis is not resolved
_LOCAL = 1e-4  # relative width up to which the expansion (T13) decides the kind, if the parts are close to each other
_CLOSE = 1e-2  # such parts explain at most this share of the variance of their site along the unstable axis
_EXTRAPOLATED = 4  # number of states from which the loss of a mass is extrapolated
_EQUAL = 1e-9  # relative difference of free energies that is nothing at the resolution
_MAX_STEP = 0.2  # longest relative step of heating
_MAX_RATIO = 100.0  # a branch that exists at this multiple of its transition counts as endless
_LOST = 1e-10  # mass of a part that is gone: far less than it has at one resolution below its end
_EXCHANGE_STEP = 1e-5  # longest relative step in which tiles may change hands


class Hysteresis(NamedTuple):
    """The end of the split branch on heating; NaN where there is none.

    Attributes
    ----------
    kind : {"continuous", "first-order"}
    end : float
        Temperature at which the split branch ends.
    crossing : float
        Temperature at which the free energies of both branches are equal.
    jump : float
        Fall of the distortion at the transition, in squared units of x.
    """

    kind: str
    end: float
    crossing: float
    jump: float


class _Pair(NamedTuple):
    """The split and the unsplit branch at one temperature."""

    split: State
    whole: State

    @property
    def beta(self) -> float:
        return self.split.beta

    @property
    def apart(self) -> bool:
        """Whether the split branch still has more reconstructions; a part that has lost its mass is none."""
        return len(self.split.sites.with_mass(_LOST)) > len(self.whole.sites.with_mass(_LOST))

    @property
    def usable(self) -> bool:
        """Whether both solutions are accurate enough to say anything about the branches."""
        return self.split.acceptable and self.whole.acceptable

    @property
    def excess(self) -> float:
        """F of the split branch minus F of the unsplit branch, in nats."""
        return self.split.solution.free_energy - self.whole.solution.free_energy

    def heated(self, branch: Continuation, beta: float) -> _Pair:
        """Both branches at another temperature; tiles of an unstable site may change hands, as in a sweep."""
        whole = self.whole if beta < self.whole.beta else branch.step(self.whole, beta)
        return _Pair(branch.step(self.split, beta, split=True), whole)


def hysteresis(branch: Continuation, split: Split, predicted: str | None, width: float) -> Hysteresis:
    """Heat the split branch, in small steps along both branches, until the parts are one reconstruction.

    Parameters
    ----------
    branch : Continuation
    split : Split
    predicted : {"continuous", "first-order"} or None
        The kind that the expansion predicts (T13).
    width : float
        Relative width of the hysteresis that the expansion predicts.
    """
    at, beta, last = split.at, split.beta, _Pair(split.after, split.at)
    if not last.apart:  # one half has joined a neighbouring reconstruction
        return Hysteresis("first-order", np.nan, np.nan, _fall(branch, last, beta))
    if predicted == "continuous" and not last.heated(branch, beta * (1 + RESOLUTION)).apart:
        return Hysteresis("continuous", beta, beta, 0.0)
    # Near the transition tiles change hands, which decides how far the branch goes: approach it from below.
    for distance in (1e-4, 1e-5, RESOLUTION):
        nearer = last.heated(branch, beta * (1 - distance))
        last = nearer if nearer.beta > last.beta and nearer.apart else last
    jump = at.solution.distortion - last.split.solution.distortion
    pairs, end = _followed(branch, last, beta)
    excess = end / beta - 1
    if predicted == "continuous" and not excess > _LOCAL and jump <= _CLOSE * _variance(branch, at):
        return Hysteresis("continuous", beta, beta, 0.0)
    if predicted == "first-order" and width <= _LOCAL and not excess > 2 * RESOLUTION:
        # Of a cubic and a quartic term: free energies are equal at 8/9 of the way to the end, or at the end for p = 0.
        excess, share = float(np.fmax(excess, width)), 1.0 if branch.options.free else 8 / 9
        return Hysteresis("first-order", beta * (1 + excess), beta * (1 + share * excess), max(jump, 0.0))
    if excess <= 2 * RESOLUTION:
        return Hysteresis("continuous", beta, beta, 0.0)
    return Hysteresis("first-order", end, _crossing(branch, pairs, end), jump)


def _fall(branch: Continuation, pair: _Pair, beta: float) -> float:
    """Fall of the distortion at the transition, from a state as near to it as it exists."""
    nearer = pair.heated(branch, beta * (1 - RESOLUTION)).split
    split = nearer if len(nearer.sites) == len(pair.split.sites) else pair.split
    return pair.whole.solution.distortion - split.solution.distortion


def _variance(branch: Continuation, at: State) -> float:
    """Share in E||x - psi||^2 of the site that splits, along its unstable axis, in squared units of x."""
    assert at.condition is not None  # `Continuation.split` needs it
    deviation = at.condition.deviation * branch.problem.data.frame.scale
    mass = at.solution.marginal[at.sites.index == at.condition.site].sum()
    return float(mass * deviation @ deviation)


def _followed(branch: Continuation, start: _Pair, beta: float) -> tuple[list[_Pair], float]:
    """Both branches from a start below beta, and the temperature at which the split branch ends.

    Steps grow while the split branch exists. A step after which it does not, or in which tiles change hands, is undone
    and made shorter, until it is below the resolution. So the branch is that of a sweep in small steps, where tiles
    leave an unstable part in halves, as in (T13). The end is NaN if solutions near it did not converge, and infinite
    for an energy whose branches need not end.
    """
    pairs, step, found = [start], beta * (1 + RESOLUTION) / start.beta - 1, True
    endless = branch.problem.framed.quadratic is None  # under a squared error the data have one centre if they are hot
    while step >= RESOLUTION:
        last = pairs[-1]
        if endless and last.beta > _MAX_RATIO * beta:
            return pairs, np.inf
        heated = last.heated(branch, last.beta * (1 + step))
        found = heated.usable
        exchanged = not branch.options.free and _shares(heated) != _shares(last)
        if found and heated.apart and not (exchanged and step > _EXCHANGE_STEP):
            pairs.append(heated)
            step = min(2 * step, _MAX_STEP)
        else:
            step /= 4
    if not found:
        return pairs, _loss_of_mass(pairs) if branch.options.free else np.nan
    return pairs, max(pairs[-1].beta, beta)


def _loss_of_mass(pairs: list[_Pair]) -> float:
    """Where the lightest part of the split branch loses its mass, extrapolated from converged states near it.

    The mass is a smooth function of log beta, which is extrapolated as polynomials of degrees three and two. The result
    is NaN if they differ.
    """
    last = pairs[-_EXTRAPOLATED:]
    mass = np.array([np.inf if pair.split.sites.marginal is None else pair.split.sites.marginal.min() for pair in last])
    places = np.log([pair.beta for pair in last])
    if len(last) < _EXTRAPOLATED or not (np.diff(mass) < 0).all():
        return np.nan
    end, rougher = (float(KroghInterpolator(mass[n:], places[n:])(0.0)) for n in (0, 1))
    return float(np.exp(end)) if places[-1] <= end and abs(end - rougher) <= 10 * RESOLUTION else np.nan


def _shares(pair: _Pair) -> list[int]:
    return sorted(pair.split.sites.counts.tolist())


def _crossing(branch: Continuation, pairs: list[_Pair], end: float) -> float:
    """Where the free energies are equal, between two neighbouring pairs or at the end; NaN if they do not cross.

    A free mass that vanishes at the end leaves a difference of F of second order in the distance to it.
    """
    for low, high in pairwise(pairs):
        if low.excess < 0 <= high.excess:
            known = {float(np.log(pair.beta)): pair.excess for pair in (low, high)}

            def excess(log_beta: float, low: _Pair = low, known: dict[float, float] = known) -> float:
                there = known.get(log_beta)
                return low.heated(branch, float(np.exp(log_beta))).excess if there is None else there

            return float(np.exp(brentq(excess, *known, xtol=1e-10)))
    last = pairs[-1]
    return end if 0 < -last.excess <= _EQUAL * (1 + abs(last.whole.solution.free_energy)) else np.nan
