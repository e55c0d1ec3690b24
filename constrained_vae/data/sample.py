"""spanning_sample(): a weighted sample of the rows that misses no structure with a share of the variance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._utils.arrays import FloatArray
from . import partition_sample
from .rows import Rows

_ROUNDS = 5  # each finds the structure at a further, smaller scale
_DRAWS = 64  # rows drawn in a round


def spanning_sample(rows: Rows, count: int) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Numbers of at most `count` different rows, ascending, and weights for them, which sum to 1.

    A uniform sample misses a rare point, which may have nearly all of the variance. So a row is taken with a
    probability in proportion to its weight plus its shares rho_i d_i^2 of the squared distances to the nearest of some
    rows: at first to the mean, in each further round to all rows that were drawn by these shares before (the rounds are
    those of k-means||, Bahmani et al. 2012, "Scalable k-means++"). A taken row weighs rho_i over its probability, so
    that weighted sums estimate those over all rows without bias (Horvitz and Thompson), and a row that is taken for
    certain keeps its weight. If no more than `count` rows have a weight, they are the sample.
    """
    if hasattr(rows.source, "executor"):  # `Partitions`
        return partition_sample.sample(rows.source, rows.weights, rows.frame, count, _ROUNDS, _DRAWS)
    heavy = np.flatnonzero(rows.weights > 0)
    if len(heavy) <= count:
        return heavy, rows.weights[heavy]
    rng = np.random.default_rng(0)
    importance, nearest = rows.weights.copy(), np.full(len(rows), np.inf)
    drawn = np.add.reduce([rho @ np.asarray(x, np.float64) for _, x, rho in rows.blocks(rows.dim)])[None]
    for _ in range(_ROUNDS):
        _approach(nearest, rows, drawn)
        share = rows.weights * nearest
        if not share.any():  # every row has been drawn, or equals one
            break
        share /= share.sum()
        importance += share
        drawn = rows.take(np.unique(_draw(share + rows.weights, _DRAWS, rng)))
    probability = _probabilities(importance[heavy], count)
    # The rows are in random order, so that no period in them agrees with that of the intervals.
    order = rng.permutation(len(heavy))
    chosen = np.unique(order[_draw(probability[order], count, rng, together=True)])
    weight = rows.weights[heavy[chosen]] / probability[chosen]
    return heavy[chosen], weight / weight.sum()


def _draw(weight: FloatArray, n: int, rng: np.random.Generator, together: bool = False) -> npt.NDArray[np.intp]:
    """One draw by weight in each of n equal intervals of their sum; `together`: at the same place in each interval."""
    level = np.cumsum(weight)
    at = (np.arange(n) + rng.random(1 if together else n)) / n * level[-1]
    return np.searchsorted(level, at, side="right").clip(max=len(weight) - 1)


def _probabilities(importance: FloatArray, count: int) -> FloatArray:
    """Probabilities min(1, c importance) with the sum `count`."""
    certain = np.zeros(len(importance), dtype=bool)
    while True:
        rest = (count - certain.sum()) / importance[~certain].sum()
        probability = np.where(certain, 1.0, rest * importance)
        if not (probability > 1).any():
            return probability
        certain |= probability >= 1


def _approach(nearest: FloatArray, rows: Rows, chosen: FloatArray) -> None:
    """Lower the squared distances of all rows, (N,), to those from the nearest chosen point, in place."""
    for part, block, _ in rows.blocks(max(rows.dim, len(chosen))):
        partition_sample.approach(nearest[part], np.asarray(block, np.float64), chosen)
