"""Which reconstruction came from which: a branch read as a tree, from the coldest temperature up."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist

from .._utils.arrays import FloatArray
from ..results.fixed_point import FixedPoint
from .branch import Branch

_Leaves = tuple[int, ...]


@dataclass(frozen=True)
class Merge:
    """Reconstructions that are several at one temperature of a branch and one at the next higher.

    Attributes
    ----------
    bracket : (float, float)
        These two temperatures: the merge is known to a step of the grid.
    parts : tuple of tuple of int
        The leaves behind each of the parts, two parts or more.
    """

    bracket: tuple[float, float]
    parts: tuple[_Leaves, ...]

    @property
    def beta(self) -> float:
        """Geometric mean of the bracket."""
        return float(np.sqrt(self.bracket[0] * self.bracket[1]))

    @property
    def leaves(self) -> _Leaves:
        """Those of all parts, side by side."""
        return tuple(itertools.chain.from_iterable(self.parts))


@dataclass(frozen=True, eq=False)
class Lineages:
    """The ancestors, at every higher temperature, of the reconstructions at the lowest.

    A reconstruction that has no descendant at the next lower temperature starts a lineage of its own. Plain arrays, so
    that they can be saved and drawn later.

    Attributes
    ----------
    betas : (n,) array
        Temperatures, ascending.
    sites : (n, L) int array
        Number of the ancestor of every lineage among the distinct reconstructions; -1 where it has not begun. Lineages
        that meet stay together.
    starts : (L, D) array
        The reconstruction with which each lineage begins.
    shares : (L,) array
        Its marginal posterior mass: the share of the data that it holds.
    """

    betas: FloatArray
    sites: npt.NDArray[np.intp]
    starts: FloatArray
    shares: FloatArray

    @property
    def leaves(self) -> _Leaves:
        """The lineages that begin at the lowest temperature."""
        return tuple(np.flatnonzero(self.sites[0] >= 0).tolist()) if len(self.sites) else ()

    @cached_property
    def merges(self) -> tuple[Merge, ...]:
        """Every merge of the leaves, coldest first; with the `roots`, the whole tree."""
        return self._tree[0]

    @cached_property
    def roots(self) -> tuple[_Leaves, ...]:
        """What is apart still at the highest temperature; their leaves in this order let a tree be drawn uncrossed."""
        return self._tree[1]

    @cached_property
    def _tree(self) -> tuple[tuple[Merge, ...], tuple[_Leaves, ...]]:
        groups: list[_Leaves] = [(leaf,) for leaf in self.leaves]
        merges = []
        for low, high, sites in zip(self.betas[:-1], self.betas[1:], self.sites[1:], strict=True):
            met: dict[int, list[_Leaves]] = {}
            for group in groups:
                met.setdefault(int(sites[group[0]]), []).append(group)
            if len(met) == len(groups):
                continue
            groups = []
            for parts in met.values():
                if len(parts) > 1:
                    merges.append(Merge((float(low), float(high)), self._in_order(parts)))
                groups.append(merges[-1].leaves if len(parts) > 1 else parts[0])
        return tuple(merges), self._in_order(groups)

    def _in_order(self, groups: list[_Leaves]) -> tuple[_Leaves, ...]:
        """Groups of leaves sorted by their means, along the coordinate in which these lie widest apart."""
        if len(groups) < 2:
            return tuple(groups)
        weights = self.shares + np.finfo(np.float64).tiny
        means = np.array([np.average(self.starts[list(g)], axis=0, weights=weights[list(g)]) for g in groups])
        along = means[:, np.ptp(means, axis=0).argmax()]
        return tuple(groups[i] for i in np.argsort(along, kind="stable"))


def lineages(branch: Branch) -> Lineages:
    """Follow every reconstruction of a branch from the lowest temperature to the highest.

    The ancestor of a reconstruction is the one at the next higher temperature that has most tiles in common with it, by
    prior mass. Free masses do not keep tiles where they are (a split may borrow one from elsewhere, and a lost site
    hands its own on), so there it is the nearest one. Both agree on the branches of (T13) as long as the steps of the
    grid are small beside the distance of two reconstructions.

    Parameters
    ----------
    branch : Branch
        From cooling or heating, at two temperatures or more if there is to be something to follow.

    Raises
    ------
    ValueError
        If the branch is empty.
    """
    if not len(branch):
        raise ValueError("the branch is empty: there is nothing to follow")
    solutions = sorted(branch, key=lambda s: s.beta)
    coldest = solutions[0].distinct
    rows = [np.arange(len(coldest))]
    starts, shares = [coldest.decoder], [_marginal(solutions[0])]
    for colder, hotter in itertools.pairwise(solutions):
        parent = _parents(colder, hotter)
        childless = np.setdiff1d(np.arange(len(hotter.distinct)), parent)
        rows.append(np.concatenate([np.where(rows[-1] >= 0, parent[rows[-1]], -1), childless]))
        starts.append(hotter.distinct.decoder[childless])
        shares.append(_marginal(hotter)[childless])
    sites = np.full((len(rows), len(rows[-1])), -1, dtype=np.intp)
    for i, row in enumerate(rows):
        sites[i, : len(row)] = row
    betas = np.array([s.beta for s in solutions])
    return Lineages(betas, sites, np.concatenate(starts), np.concatenate(shares))


def _marginal(solution: FixedPoint) -> FloatArray:
    sites = solution.distinct
    return np.bincount(sites.index, solution.marginal, minlength=len(sites)).astype(np.float64, copy=False)


def _parents(colder: FixedPoint, hotter: FixedPoint) -> npt.NDArray[np.intp]:
    """Of every distinct reconstruction at the lower temperature, its ancestor's number at the higher, (k,)."""
    low, high = colder.distinct, hotter.distinct
    distance = cdist(low.decoder, high.decoder)
    if colder.masses_free:
        return distance.argmin(axis=1)
    shared = np.zeros((len(low), len(high)))
    np.add.at(shared, (low.index, high.index), colder.tiling.masses)
    most = shared >= shared.max(axis=1, keepdims=True) * (1 - 1e-9)  # of equal ones the nearest
    return np.where(most, distance, np.inf).argmin(axis=1)
