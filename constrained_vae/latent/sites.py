"""Sites: groups of tiles that share one reconstruction.

If a tile is divided into two with the same reconstruction, the encoder (summed over the two), F, R and D do not change.
Therefore coincident tiles are evaluated as one site with their summed mass, without approximation. A site records its
tiles, since only a site of two or more tiles can split (T9).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from .._utils.arrays import FloatArray, PickledByFields
from ..equations import log_masses

_MANY = 64  # rows from which a search of their neighbours is faster than all pairs
_AXES = 8  # axes of this search
_SAMPLE = 256  # rows by which these axes are chosen


@dataclass(frozen=True, eq=False)
class Sites(PickledByFields):
    """Distinct reconstructions and the tiles that share them.

    Attributes
    ----------
    decoder : (k, D) array
        One reconstruction per site.
    index : (K,) int array
        Number of the site of every tile.
    tile_masses : (K,) array
        Prior masses of the tiles.
    marginal : (k,) array or None
        Marginal posterior of the sites, None if it is unknown.

    Examples
    --------
    >>> sites = Sites.of_tiles(np.array([[1.0], [2.0], [1.0]]), np.full(3, 1 / 3))
    >>> sites.index, sites.masses.round(3)
    (array([0, 1, 0]), array([0.667, 0.333]))
    """

    decoder: FloatArray
    index: npt.NDArray[np.intp]
    tile_masses: FloatArray
    marginal: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.decoder)

    @property
    def masses(self) -> FloatArray:
        """Summed prior mass of every site, (k,)."""
        return _total(self.index, self.tile_masses, len(self))

    @property
    def log_masses(self) -> FloatArray:
        """Logarithms of `masses`, (k,), in nats; minus infinity for a site without prior mass."""
        return log_masses(self.masses)

    @property
    def counts(self) -> npt.NDArray[np.intp]:
        """Number of tiles of every site, (k,)."""
        return np.bincount(self.index, minlength=len(self)).astype(np.intp, copy=False)

    @classmethod
    def of_tiles(cls, decoder: FloatArray, tile_masses: FloatArray) -> Sites:
        """Sites of exactly coincident tiles, in the order of their first tiles."""
        _, first, inverse = np.unique(decoder, axis=0, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))
        return cls(decoder[np.sort(first)], rank[inverse.ravel()], tile_masses)

    def with_masses(self, masses: FloatArray) -> Sites:
        """The sites with new masses (free masses); the tiles of a site have equal masses."""
        return replace(self, tile_masses=(masses / self.counts)[self.index])

    def merged(self, tolerance: float) -> Sites:
        """Merge sites within `tolerance` at their mean, weighted by marginal posterior (or by prior, if unknown)."""
        group = coincident(self.decoder, tolerance)
        k = int(group.max()) + 1
        if k == len(self):
            return self
        mass = self.masses if self.marginal is None else self.marginal
        weight = mass + np.finfo(np.float64).tiny
        total = _total(group, weight, k)
        # The mean is computed relative to the first member, so that exactly coincident sites are not moved.
        first = self.decoder[np.unique(group, return_index=True)[1]]
        shift = np.zeros_like(first)
        np.add.at(shift, group, weight[:, None] * (self.decoder - first[group]))
        marginal = None if self.marginal is None else _total(group, self.marginal, k)
        return Sites(first + shift / total[:, None], group[self.index], self.tile_masses, marginal)

    def without(self, dead: npt.NDArray[np.bool_]) -> Sites:
        """Remove dead sites (free masses); their tiles join the site of largest marginal mass, which must be known."""
        if not dead.any() or self.marginal is None:
            return self
        keep = np.flatnonzero(~dead)
        number = np.full(len(self), np.searchsorted(keep, self.marginal.argmax()))
        number[keep] = np.arange(len(keep))
        rest = Sites(self.decoder[keep], number[self.index], self.tile_masses, self.marginal[keep])
        return rest.with_masses(self.masses[keep] / self.masses[keep].sum())

    def with_mass(self, least: float) -> Sites:
        """The sites with a prior or posterior mass above `least`; the tiles of each other site join the nearest one.

        F depends on a tile of prior and posterior mass m by about m nats, since without it -sum_i rho_i log Z_i rises
        by -sum_i rho_i log(1 - q_i), about m.
        """
        mass = self.masses if self.marginal is None else np.maximum(self.masses, self.marginal)
        kept = np.flatnonzero(mass > least)
        if len(kept) in (0, len(self)):
            return self
        number = np.empty(len(self), dtype=np.intp)
        number[kept] = np.arange(len(kept))
        for a in np.flatnonzero(mass <= least):
            number[a] = np.square(self.decoder[kept] - self.decoder[a]).sum(axis=1).argmin()
        marginal = None if self.marginal is None else _total(number, self.marginal, len(kept))
        return Sites(self.decoder[kept], number[self.index], self.tile_masses, marginal)

    def total(self, q: FloatArray) -> FloatArray:
        """Posterior masses q (n, K) of the tiles, summed over the tiles of every site: (n, k)."""
        order = np.argsort(self.index, kind="stable")  # brings the tiles of a site side by side
        first = np.searchsorted(self.index[order], np.arange(len(self)))
        return np.add.reduceat(q[:, order], first, axis=1)

    def can_split(self, free: bool) -> npt.NDArray[np.bool_]:
        """Which sites can split: those with two or more tiles; with free masses all, if any site has two or more."""
        several = self.counts > 1
        return np.full(len(self), several.any()) if free else several

    def split(self, site: int, displacement: FloatArray, free: bool) -> Sites:
        """Split a site into two parts of equal mass (as nearly as the tiles allow) with the same centroid (T13)."""
        index, tile_masses = self.index.copy(), self.tile_masses.copy()
        if self.counts[site] < 2:  # free masses: take a tile of another site, whose mass remains
            donor = int(self.counts.argmax())
            spared = np.flatnonzero(index == donor)[-1]
            index[spared] = site
            moved = Sites(self.decoder, index, tile_masses)
            index, tile_masses = index, moved.with_masses(self.masses).tile_masses
        tiles = np.flatnonzero(index == site)
        if free:
            tile_masses[tiles] = tile_masses[tiles].sum() / len(tiles)
        cumulative = np.cumsum(tile_masses[tiles])
        # The first part is as near to half of the mass as possible, and both parts have at least one tile. If two cuts
        # are equally near up to rounding, such as 1 : 2 and 2 : 1, the first one is taken.
        excess = np.abs(cumulative[:-1] - cumulative[-1] / 2)
        cut = 1 + int(np.flatnonzero(excess <= excess.min() + 1e-9 * cumulative[-1])[0])
        index[tiles[cut:]] = len(self)
        if free:
            for half in (tiles[:cut], tiles[cut:]):
                tile_masses[half] = cumulative[-1] / 2 / len(half)
        first, second = tile_masses[tiles[:cut]].sum(), tile_masses[tiles[cut:]].sum()
        lever = 2 / (first + second) if first + second > 0 else 1.0
        decoder = np.concatenate([self.decoder, self.decoder[site : site + 1] - lever * first * displacement])
        decoder[site] += lever * second * displacement
        return Sites(decoder, index, tile_masses)


def _total(group: npt.NDArray[np.intp], values: FloatArray, k: int) -> FloatArray:
    return np.bincount(group, values, minlength=k).astype(np.float64, copy=False)


def coincident(decoder: FloatArray, tolerance: float) -> npt.NDArray[np.intp]:
    """Group of every row of (K, D): in their order, each ungrouped row forms a group with all within `tolerance`."""
    leader = np.arange(len(decoder))
    if len(decoder) < 2:
        return leader
    # Rows are within `tolerance` only if no gap above `tolerance` separates them along the coordinate of widest spread.
    along = decoder[:, (decoder.max(axis=0) - decoder.min(axis=0)).argmax()]
    order = np.argsort(along, kind="stable")
    along = along[order]
    apart = along[1:] - along[:-1] > tolerance
    if apart.all():
        return leader
    for run in np.split(order, np.flatnonzero(apart) + 1):
        left = np.sort(run)
        if len(left) > _MANY and np.isfinite(tolerance) and np.isfinite(decoder[left]).all():
            _group_many(decoder, left, tolerance, leader)
            continue
        while len(left) > 1:
            near = np.square(decoder[left] - decoder[left[0]]).sum(axis=1) <= tolerance**2
            near[0] = True  # also where the row, or the tolerance, is not a number
            leader[left[near]] = left[0]
            left = left[~near]
    return np.unique(leader, return_inverse=True)[1].astype(np.intp, copy=False)


def _group_many(
    decoder: FloatArray, rows: npt.NDArray[np.intp], tolerance: float, leader: npt.NDArray[np.intp]
) -> None:
    """Group many rows (n,) of (K, D): only rows that are near on a few axes are compared in all dimensions."""
    # A projection on orthonormal axes shortens distances. On the principal axes of some of the rows, which two steps of
    # subspace iteration find well enough, it does so least.
    few = decoder[rows[:: max(1, len(rows) // _SAMPLE)]]
    centre = few.mean(axis=0)
    few = few - centre
    axes = np.random.default_rng(0).standard_normal((decoder.shape[1], _AXES))
    for _ in range(2):
        axes = np.linalg.qr(few.T @ (few @ axes))[0]
    some = (decoder[rows] - centre) @ axes
    rounding = 1e-12 * np.abs(decoder[rows]).max() + np.finfo(np.float64).tiny
    reach = tolerance * (1 + 1e-9) + rounding
    alone = np.isinf(cKDTree(some).query(some, k=2, distance_upper_bound=reach)[0][:, 1])
    rows, some = rows[~alone], some[~alone]
    if not len(rows):
        return
    tree, free = cKDTree(some), np.ones(len(rows), dtype=bool)
    for first in range(len(rows)):
        if free[first]:
            near = np.sort(tree.query_ball_point(some[first], reach))
            near = near[free[near]]
            near = near[np.square(decoder[rows[near]] - decoder[rows[first]]).sum(axis=1) <= tolerance**2]
            leader[rows[near]], free[near] = rows[first], False
