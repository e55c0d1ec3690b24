"""The protocols of an objective: in units of the data, as users give it, and in the frame, as solvers evaluate it."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from .._utils.arrays import Array
from ..data.frame import Frame


@runtime_checkable
class Objective(Protocol):
    """Energies and multipliers in units of the data; `in_frame` gives the form in which a solver evaluates them.

    Attributes
    ----------
    beta : float
        Temperature.
    equivariant : bool
        Whether the energies may be evaluated in the standard frame of the data, x -> (x - centre) / scale.
    allowance : float
        Constants of the thresholds of constraints in the Lagrangian, in nats.
    labelled : int or None
        The number of data points if the energies depend on labels of the data points; None if they depend on x only.
    """

    @property
    def beta(self) -> float: ...
    @property
    def equivariant(self) -> bool: ...
    @property
    def allowance(self) -> float: ...
    @property
    def labelled(self) -> int | None: ...
    def at(self, beta: float) -> Objective:
        """The same objective at another temperature."""

    def check(self, x: Array) -> None:
        """Raise ValueError for points (n, D) that the energies do not admit."""

    def in_frame(self, frame: Frame) -> FramedObjective:
        """The energies as functions of points in a frame; their values are unchanged."""

    def settings(self) -> dict[str, Any]:
        """The settings that `save` writes, from which the objective can be recognised."""


class FramedObjective(Protocol):
    """Energies in the linear form (T4), multipliers included, for points in the frame of the data.

    An objective with constraints also has the method `expected`. If `curvature` returns None, `decoder` also takes the
    argument `inverse`. See `FramedLagrangian` for both.

    Attributes
    ----------
    quadratic : float or None
        The multiplier of ||x - psi||^2 if this is the whole energy, so that a kernel may compute it as a squared
        distance; else None.
    stiffness : float
        Curvature of the energy in `coordinates`. Its inverse square root is the resolution: reconstructions that are
        nearer are almost equivalent.
    """

    @property
    def quadratic(self) -> float | None: ...
    @property
    def stiffness(self) -> float: ...
    def statistics(self, x: Array, rows: slice | None = None) -> tuple[Array, Array]:
        """Statistics phi (n, S) and s of points, independent of the multipliers.

        `rows` are the rows of the data in x; None if x contains other points.
        """

    def offset(self, s: Array) -> Array:
        """Offsets s_i (n,) from the second statistic, multipliers included."""

    def readout(self, psi: Array) -> tuple[Array, Array]:
        """Readout v (K, S), b (K,) of reconstructions, multipliers included."""

    def decoder(self, mass: Array, sums: Array, psi: Array) -> Array:
        """The decoder update T(psi) (T2) from the expectations at psi; a tile of mass zero keeps its reconstruction."""

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        """Transposed derivative of the readout, dv . d(v) + db d(b), (K, D)."""

    def coordinates(self, psi: Array) -> Array:
        """Coordinates of reconstructions in which the curvature of the energy is the constant `stiffness`."""

    def reconstructions(self, u: Array) -> Array:
        """The reconstructions at given coordinates, inside the domain of the energies."""

    def curvature(self, psi: Array) -> Array | None:
        """Diagonal (K, D) of lambda grad^2 f of a Bregman divergence; None for any other energy."""
