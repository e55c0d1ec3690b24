"""`sample.spanning_sample` for rows in blocks that other machines have: a few numbers per block and round travel.

A row is drawn in two steps: the block in which a number falls on the scale of all weights, and the row in this block.
Rows of the last draw are in random order inside of their blocks alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils.arrays import FloatArray
from .frame import Frame


@dataclass(frozen=True, eq=False)
class Draws:
    """The points (n, D) of the rounds so far, in the frame, and the sums of the shares that followed from them."""

    frame: Frame
    points: tuple[FloatArray, ...]
    totals: tuple[float, ...] = ()

    def shares(self, x: FloatArray, rho: FloatArray) -> Iterator[FloatArray]:
        """After every round the shares rho_i d_i^2 (n,) of the squared distances to the nearest point so far."""
        x, nearest = self.frame.inward(np.asarray(x, np.float64)), np.full(len(x), np.inf)
        for points in self.points:
            approach(nearest, x, points)
            yield rho * nearest

    def importance(self, x: FloatArray, rho: FloatArray) -> FloatArray:
        """The weight of every row (n,), plus its shares in every round."""
        known = zip(self.shares(x, rho), self.totals, strict=False)
        return rho + sum(share / total for share, total in known)


def approach(nearest: FloatArray, x: FloatArray, chosen: FloatArray) -> None:
    """Lower squared distances (n,) of rows (n, D) to those from the nearest chosen point, in place."""
    other = np.vstack([-2 * chosen.T, np.square(chosen).sum(axis=1)])
    square = np.square(x).sum(axis=1)
    distance = square + (np.column_stack([x, np.ones(len(x))]) @ other).min(axis=1)
    # What is left of equal points is rounding of the squares, and no distance.
    rounding = (8 + x.shape[1]) * np.finfo(np.float64).eps * square
    np.minimum(nearest, np.where(distance > rounding, distance, 0.0), out=nearest)


def sample(
    source: Any, weights: FloatArray, frame: Frame, count: int, rounds: int, draws: int
) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Numbers of at most `count` rows, ascending, and weights for them; see `spanning_sample`.

    `source` has the method `each` of `Partitions`.
    """

    def each(part: Any, *args: Any) -> list[Any]:
        found: list[Any] = source.each(part, *args, weights=weights)
        return found

    if sum(each(_count)) <= count:
        parts = each(_heavy)
        return _joined(parts, 0), _joined(parts, 1)
    rng = np.random.default_rng(0)
    known = Draws(frame, (sum(each(_mean, frame))[None],))
    for _ in range(rounds):
        sums = np.array(each(_share_and_weight, known))
        total = float(sums[:, 0].sum())
        if not total > 0:  # every row has been drawn, or equals one
            break
        known = replace(known, totals=(*known.totals, total))
        if len(known.totals) == rounds:
            break
        levels = np.cumsum(sums[:, 0] / total + sums[:, 1])
        at = (np.arange(draws) + rng.random(draws)) / draws * levels[-1]
        known = replace(
            known, points=(*known.points, np.concatenate(each(_drawn, known, _by_block(at, levels, source))))
        )
    factor, certain = 0.0, 0.0
    while True:
        parts = np.array(each(_rest, known, factor)).sum(axis=0)
        better = (count - parts[0]) / parts[1]
        if factor and parts[0] == certain:
            break
        factor, certain = better, parts[0]
    levels = np.cumsum(each(_probable, known, factor))
    at = (np.arange(count) + rng.random()) / count * levels[-1]
    parts = each(_chosen, known, factor, _by_block(at, levels, source))
    index, weight = _joined(parts, 0), _joined(parts, 1)
    return index, weight / weight.sum()


def _joined(parts: list[Any], n: int) -> Any:
    return np.concatenate([part[n] for part in parts])


def _by_block(at: FloatArray, levels: FloatArray, source: Any) -> dict[int, FloatArray]:
    """The numbers that fall into every block, by its first row, less what the blocks before it have."""
    block = np.searchsorted(levels, at, side="right").clip(max=len(levels) - 1)
    before = np.concatenate([[0.0], levels[:-1]])
    return {int(source.offsets[n]): at[block == n] - before[n] for n in np.unique(block)}


def _count(x: FloatArray, start: int, rho: FloatArray) -> int:
    return int(np.count_nonzero(rho))


def _heavy(x: FloatArray, start: int, rho: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray]:
    heavy = np.flatnonzero(rho)
    return start + heavy, rho[heavy]


def _mean(x: FloatArray, start: int, rho: FloatArray, frame: Frame) -> FloatArray:
    return rho @ frame.inward(np.asarray(x, np.float64))


def _share_and_weight(x: FloatArray, start: int, rho: FloatArray, known: Draws) -> tuple[float, float]:
    *_, share = known.shares(x, rho)
    return float(share.sum()), float(rho.sum())


def _drawn(x: FloatArray, start: int, rho: FloatArray, known: Draws, at: dict[int, FloatArray]) -> FloatArray:
    *_, share = known.shares(x, rho)
    rows = np.unique(_fallen(share / known.totals[-1] + rho, at.get(start, ())))
    return known.frame.inward(np.asarray(x[rows], np.float64))


def _fallen(weight: FloatArray, at: Any) -> npt.NDArray[np.intp]:
    """The rows into which numbers fall."""
    return np.searchsorted(np.cumsum(weight), at, side="right").clip(max=len(weight) - 1)


def _rest(x: FloatArray, start: int, rho: FloatArray, known: Draws, factor: float) -> tuple[float, float]:
    """The number of rows whose importance times the factor is at least 1, and the importance of the others."""
    importance = known.importance(x, rho)
    certain = importance * factor >= 1
    return float(np.count_nonzero(certain)), float(importance[~certain].sum())


def _probable(x: FloatArray, start: int, rho: FloatArray, known: Draws, factor: float) -> float:
    return float(np.minimum(1.0, factor * known.importance(x, rho)).sum())


def _chosen(
    x: FloatArray, start: int, rho: FloatArray, known: Draws, factor: float, at: dict[int, FloatArray]
) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """The numbers of the drawn rows, ascending, and their weights over their probabilities."""
    if start not in at:
        return np.empty(0, np.intp), np.empty(0)
    probability = np.minimum(1.0, factor * known.importance(x, rho))
    order = np.random.default_rng(start).permutation(len(x))
    rows = np.unique(order[_fallen(probability[order], at[start])])
    return start + rows, rho[rows] / probability[rows]
