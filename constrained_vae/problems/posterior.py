"""The E-step of a block of rows: energies and encoder of the tiles (T1), (T4)."""

from __future__ import annotations

from typing import NamedTuple

from .. import equations
from .._utils.arrays import Array
from ..data.prepared import Block
from ..objectives.base import FramedObjective


class Tiles(NamedTuple):
    """The reconstructions and their prior masses, as passes over the data need them.

    Attributes
    ----------
    objective : FramedObjective
    v, b : (K, S), (K,) arrays
        Readout of the reconstructions (T4).
    log_masses : (K,) array
        Log prior masses, in nats; minus infinity for a tile without prior mass.
    """

    objective: FramedObjective
    v: Array
    b: Array
    log_masses: Array


class Posterior(NamedTuple):
    """Encoder q (n, K) of the rows of a block, log Z (n,), and the energies H (n, K), in nats."""

    q: Array
    log_partition: Array
    energies: Array


def energies(block: Block, objective: FramedObjective, v: Array, b: Array) -> Array:
    """Energies H (n, K) of the rows of a block, in nats (T4)."""
    return equations.energies(block.phi, block.offset(objective), v, b, objective.quadratic)


def posterior(block: Block, tiles: Tiles) -> Posterior:
    """The E-step (T1) of a block."""
    H = energies(block, tiles.objective, tiles.v, tiles.b)
    return Posterior(*equations.encoder(H, tiles.log_masses), H)


def responsibilities(block: Block, tiles: Tiles) -> Array:
    """rho_i q_ia of the rows of a block, (n, K)."""
    return block.rho[:, None] * posterior(block, tiles).q
