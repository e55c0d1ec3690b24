"""Lineages: the ancestors of reconstructions along a branch, which form a tree from the lowest temperature upwards."""

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
    """A merge: several reconstructions at one temperature of a branch have one ancestor at the next higher temperature.

    Attributes
    ----------
    bracket : (float, float)
        The two temperatures; the merge lies between them.
    parts : tuple of tuple of int
        The leaves of each of the merging reconstructions, of which there are two or more.
    """

    bracket: tuple[float, float]
    parts: tuple[_Leaves, ...]

    @property
    def beta(self) -> float:
        """Geometric mean of the bracket."""
        return float(np.sqrt(self.bracket[0]) * np.sqrt(self.bracket[1]))

    @property
    def leaves(self) -> _Leaves:
        """The leaves of all parts, in order."""
        return tuple(itertools.chain.from_iterable(self.parts))


@dataclass(frozen=True, eq=False)
class Lineages:
    """Ancestors of the reconstructions at the lowest temperature, at every higher temperature of a branch.

    A reconstruction without descendant at the next lower temperature begins a lineage of its own. The attributes are
    arrays, which can be saved.

    Attributes
    ----------
    betas : (n,) array
        Temperatures, ascending.
    sites : (n, L) int array
        Number of the ancestor of every lineage among the distinct reconstructions; -1 at temperatures below the
        start of the lineage. Lineages that have merged stay together.
    starts : (L, D) array
        The reconstruction with which each lineage begins.
    shares : (L,) array
        Marginal posterior mass of this reconstruction, which is its share of the data.
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
        """Merges of the leaves, coldest first. Together with `roots` they define the tree."""
        return self._tree[0]

    @cached_property
    def roots(self) -> tuple[_Leaves, ...]:
        """Leaves of each reconstruction at the highest temperature, ordered so that the tree has no crossing lines."""
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
        """Groups of leaves sorted by their means, along the coordinate in which the means differ most."""
        if len(groups) < 2:
            return tuple(groups)
        weights = self.shares + np.finfo(np.float64).tiny
        means = np.array([np.average(self.starts[list(g)], axis=0, weights=weights[list(g)]) for g in groups])
        along = means[:, np.ptp(means, axis=0).argmax()]
        return tuple(groups[i] for i in np.argsort(along, kind="stable"))


def lineages(branch: Branch) -> Lineages:
    """Follow every reconstruction of a branch from the lowest temperature to the highest.

    With fixed masses, the ancestor of a reconstruction is the reconstruction at the next higher temperature that shares
    the largest prior mass of tiles with it. With free masses tiles can change their site (a split may take a tile of
    another site, and the tiles of a lost site join another one), so that the ancestor is the nearest reconstruction.
    Both rules agree on the branches of (T13) if the grid is so fine that reconstructions move little between
    temperatures, compared with their distances.

    Parameters
    ----------
    branch : Branch
        A branch from cooling or heating.

    Returns
    -------
    Lineages
        The ancestors of all reconstructions.

    Raises
    ------
    ValueError
        If the branch is empty.
    """
    if not len(branch):
        raise ValueError("the branch is empty: solve at least one temperature")
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
    """Number of the ancestor at the higher temperature of every distinct reconstruction at the lower, (k,)."""
    low, high = colder.distinct, hotter.distinct
    distance = cdist(low.decoder, high.decoder)
    if colder.masses_free:
        return distance.argmin(axis=1)
    shared = np.zeros((len(low), len(high)))
    np.add.at(shared, (low.index, high.index), colder.tiling.masses)
    most = shared >= shared.max(axis=1, keepdims=True) * (1 - 1e-9)  # if several are equal, the nearest is taken
    return np.where(most, distance, np.inf).argmin(axis=1)
