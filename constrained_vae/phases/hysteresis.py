"""Hysteresis of a split: where the split branch ends on heating, and where the free energies of the branches cross."""

from __future__ import annotations

from collections.abc import Sequence
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
_GROWTH = 4  # factor of a step after one that has succeeded
_APPROACH = 0.9  # share of the distance to the end, as the branch predicts it, of the longest step
_SMOOTH = 3  # states from which the branch is extrapolated
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
    """The split and the unsplit branch at one temperature, or the unsplit one at a colder temperature."""

    split: State
    whole: State

    @property
    def beta(self) -> float:
        return self.split.beta

    @property
    def apart(self) -> bool:
        """Whether the split branch still has more reconstructions; a part that has lost its mass is none.

        Where it has more than the unsplit branch has at a colder temperature, it also has more than at its own: tiles
        of the unsplit branch are held together, so that its reconstructions become fewer on heating, if anything.
        """
        return len(self.split.sites.with_mass(_LOST)) > len(self.whole.sites.with_mass(_LOST))

    @property
    def usable(self) -> bool:
        """Whether both solutions are accurate enough to say anything about the branches."""
        return self.split.acceptable and self.whole.acceptable

    @property
    def excess(self) -> float:
        """F of the split branch minus F of the unsplit branch at the same temperature, in nats."""
        return self.split.solution.free_energy - self.whole.solution.free_energy

    def heated(self, branch: Continuation, beta: float, path: Sequence[State] = ()) -> _Pair:
        """The split branch at another temperature; tiles of an unstable site may change hands, as in a sweep.

        It starts from the extrapolation of a path of states that ends there, if there are several. The unsplit branch
        follows if masses are free, which may vanish, or if it takes its reconstructions to tell whether both are apart.
        """
        predicted = branch.extrapolated(path, float(np.log(beta))) if len(path) > 1 else None
        if predicted is None:
            split = branch.step(self.split, beta, split=True)
        else:
            split = branch.solve(beta, self.split.sites, predicted, split=True)
        pair = _Pair(split, self.whole)
        return pair if pair.apart and not branch.options.free else pair.level(branch)

    def level(self, branch: Continuation, whole: State | None = None) -> _Pair:
        """Both branches at the temperature of the split one, unless it is colder; the other starts from `whole`."""
        whole = whole or self.whole
        return _Pair(self.split, whole if self.beta <= whole.beta else branch.step(whole, self.beta))


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
    smooth, failed = [start.split], np.inf  # states since tiles last changed hands, and where a step failed
    while step >= RESOLUTION:
        last = pairs[-1]
        if endless and last.beta > _MAX_RATIO * beta:
            return pairs, np.inf
        heated = last.heated(branch, last.beta * (1 + step), smooth)
        found = heated.usable
        exchanged = not branch.options.free and _shares(heated) != _shares(last)
        if found and heated.apart and not (exchanged and step > _EXCHANGE_STEP):
            pairs.append(heated)
            same = np.array_equal(heated.split.sites.index, last.split.sites.index)
            smooth = [*smooth[1 - _SMOOTH :], heated.split] if same else [heated.split]
            step = min((2 if branch.options.free else _GROWTH) * step, _MAX_STEP)
            failed = np.inf if exchanged or heated.beta >= failed else failed
        else:
            failed = heated.beta
            step /= 4
        if not branch.options.free:
            step = _cautious(smooth, step, failed)
    if not found:
        return pairs, _loss_of_mass(pairs) if branch.options.free else np.nan
    return pairs, max(pairs[-1].beta, beta)


def _cautious(states: list[State], step: float, failed: float) -> float:
    """A step that ends short of where the smooth branch is about to end, as its last states tell it.

    Parts become unstable where the growth, nearly a straight line in log beta, is zero; the step that passes this place
    is short enough for tiles to change hands. Where a step has failed nearer than a predicted end, the end is sought
    below that.
    """
    gap = failed / states[-1].beta - 1
    unstable, fold = _to_instability(states), _to_fold(states)
    if unstable < fold and 2 * unstable < _EXCHANGE_STEP:
        return min(step, _EXCHANGE_STEP)
    nearest = min(unstable, fold)
    if nearest < gap:
        return min(step, max(_APPROACH * nearest, 2 * RESOLUTION))
    return step if step < gap else gap / 2


def _to_instability(states: list[State]) -> float:
    """Distance in log beta to where the growth is zero, from up to three states; infinite if it does not rise."""
    growth = np.array([state.growth for state in states[-3:]])
    if len(growth) < 2 or not growth[-1] > growth[-2] > -np.inf:
        return np.inf
    places = np.array([state.log_beta for state in states[-3:]]) - states[-1].log_beta
    straight = max(float(growth[-1] * places[-2] / (growth[-1] - growth[-2])), 0.0)
    if len(growth) == 3 and growth[1] > growth[0] > -np.inf:
        curved = float(KroghInterpolator(growth, places)(0.0))
        if straight / 2 < curved < 2 * straight:
            return curved
    return straight


def _to_fold(states: list[State]) -> float:
    """Distance in log beta to a fold, from three states; infinite if they show none ahead.

    Near a fold the reconstructions are psi* - c sqrt(log beta* - log beta). So their mean velocities between the states
    are as 1 / (sqrt(d_1) + sqrt(d_2)) to 1 / (sqrt(d_2) + sqrt(d_3)), where d_i are the distances of the states.
    """
    if len(states) < 3:
        return np.inf
    first, middle, last = states[-3:]
    a, b = last.log_beta - first.log_beta, last.log_beta - middle.log_beta
    early = float(np.linalg.norm(middle.sites.decoder - first.sites.decoder)) / (a - b)
    late = float(np.linalg.norm(last.sites.decoder - middle.sites.decoder)) / b

    def excess(d: float) -> float:
        return early * (np.sqrt(a + d) + np.sqrt(b + d)) - late * (np.sqrt(b + d) + np.sqrt(d))

    return float(brentq(excess, 0.0, 1.0)) if excess(0.0) > 0 > excess(1.0) else np.inf


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
    low = pairs[0]
    for pair in pairs[1:]:
        high = pair.level(branch, low.whole)
        if low.excess < 0 <= high.excess:
            return _between(branch, low, high)
        low = high
    return end if 0 < -low.excess <= _EQUAL * (1 + abs(low.whole.solution.free_energy)) else np.nan


def _between(branch: Continuation, low: _Pair, high: _Pair) -> float:
    """Where the free energies are equal between two pairs of which one has an excess below zero."""
    known = {float(np.log(pair.beta)): pair.excess for pair in (low, high)}

    def excess(log_beta: float) -> float:
        there = known.get(log_beta)
        return low.heated(branch, float(np.exp(log_beta))).level(branch).excess if there is None else there

    return float(np.exp(brentq(excess, *known, xtol=1e-10)))
