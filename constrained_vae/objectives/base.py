"""The protocols of an objective: what a user hands over, and what a solver asks of it in the frame of the data."""

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
        Whether the energies may be measured in the standard frame of the data, x -> (x - centre) / scale.
    allowance : float
        What the thresholds of constraints take off the Lagrangian, in nats.
    labelled : int or None
        The number of data points, where the energies know more of them than x, such as their labels.
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
        """The energies for points that are measured in a frame; their values are unchanged."""

    def settings(self) -> dict[str, Any]:
        """What `save` writes, enough to recognise the objective."""


class FramedObjective(Protocol):
    """Energies in the one linear form (T4), multipliers included, for points in the frame of the data.

    An objective of a user needs no `expected`, and its `decoder` no argument `inverse`, unless it has constraints whose
    decoder update has no closed form.

    Attributes
    ----------
    quadratic : float or None
        The multiplier of ||x - psi||^2 where there is no other energy, so that a kernel may compute it as one.
    stiffness : float
        Curvature of the energy in `coordinates`. Its inverse square root is the resolution, the distance below which
        reconstructions do not differ.
    """

    @property
    def quadratic(self) -> float | None: ...
    @property
    def stiffness(self) -> float: ...
    def statistics(self, x: Array, rows: slice | None = None) -> tuple[Array, Array]:
        """Statistics phi (n, S) and s of points, independent of the multipliers.

        `rows` says which rows of the data solved for x holds; None for other points.
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
