"""Tiling: prior masses of the latent tiles, and their positions in the latent space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from .._utils import memory
from .._utils.arrays import FloatArray, PickledByFields
from .._utils.checks import check_array, check_count, check_masses, check_seed, shown
from .._utils.defaults import N_TILES


@dataclass(frozen=True, eq=False)
class Tiling(PickledByFields):
    """A partition of the latent space into K tiles Omega_a, on each of which the decoder is constant.

    The solution depends on the masses only. The positions are for pictures and for smooth initial decoders.

    Parameters
    ----------
    masses : (K,) array_like
        Prior masses pi(Omega_a), non-negative, summing to 1.
    positions : (K, dim) array_like, optional
        A point of the latent space inside each tile.

    Raises
    ------
    ValueError
        If masses are negative or do not sum to 1, or if there is not one finite position per mass.

    Examples
    --------
    >>> Tiling.uniform(4).masses
    array([0.25, 0.25, 0.25, 0.25])
    """

    masses: FloatArray
    positions: FloatArray | None = None

    def __post_init__(self) -> None:
        masses = check_masses(self.masses)
        masses.setflags(write=False)
        object.__setattr__(self, "masses", masses)
        if self.positions is not None:
            positions = check_array(self.positions, "positions", (len(masses), None))
            positions.setflags(write=False)
            object.__setattr__(self, "positions", positions)

    def __len__(self) -> int:
        return len(self.masses)

    def __repr__(self) -> str:
        kind = "uniform" if np.ptp(self.masses) == 0 else "given"
        where = "" if self.positions is None else f", positions in {self.positions.shape[1]}-D"
        return f"Tiling({len(self)} tiles, {kind} masses{where})"

    @classmethod
    def uniform(cls, n_tiles: int = N_TILES) -> Tiling:
        """K tiles of equal prior mass 1/K.

        Raises
        ------
        ValueError
            If `n_tiles` is no whole number of at least 1.
        """
        n_tiles = check_count(n_tiles, "n_tiles", most=memory.LARGEST)
        return cls(np.full(n_tiles, 1.0 / n_tiles))

    @classmethod
    def gaussian(cls, n_tiles: int = N_TILES, dim: int = 2, seed: int = 0) -> Tiling:
        """K tiles of equal mass, with positions that follow a standard Gaussian prior in `dim` dimensions.

        In one dimension the positions are the medians of K bins of equal probability. In two dimensions they form a
        spiral with the golden angle, whose radii are the Rayleigh quantiles. In more dimensions they are a scrambled
        quasi-random (Sobol) set, mapped by the normal quantile function.

        Raises
        ------
        ValueError
            If `n_tiles`, `dim` or the seed is no whole number, or there are too many tiles.
        """
        dim, seed = check_count(dim, "dim"), check_seed(seed)
        n_tiles = check_count(n_tiles, "n_tiles")
        if n_tiles * dim > memory.LARGEST:
            raise ValueError(f"n_tiles times dim must be at most {memory.LARGEST}, got {shown(n_tiles)} and {dim}")
        middle = (np.arange(n_tiles) + 0.5) / n_tiles
        if dim == 1:
            positions = ndtri(middle)[:, None]
        elif dim == 2:
            radius, angle = np.sqrt(-2 * np.log1p(-middle)), np.arange(n_tiles) * np.pi * (3 - np.sqrt(5))
            positions = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
        else:
            points = qmc.Sobol(dim, seed=np.random.default_rng(seed)).random_base2(
                max(1, int(n_tiles - 1).bit_length())
            )
            positions = ndtri(np.clip(points[:n_tiles], 1e-12, 1 - 1e-12))
        return cls(np.full(n_tiles, 1.0 / n_tiles), positions)
