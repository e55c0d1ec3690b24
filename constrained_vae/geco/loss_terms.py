"""Term: an energy of the loss, computed for the rows of a batch (T4), with its multiplier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .._utils.arrays import Array
from .._utils.device import array_namespace, to_host
from ..data.frame import Frame
from ..objectives.constraint_energies import Energy
from ..objectives.constraints import RE, Constraint
from ..objectives.energies import CrossEntropy
from .multiplier import Multiplier


@dataclass(frozen=True, eq=False)
class Term:
    """One energy H(x, psi) = s - b - phi . v of a loss.

    Attributes
    ----------
    name : str
    constraint : Constraint or CrossEntropy
        The constraint or likelihood that defines the energy.
    energy : Energy
        The energy in the standardised coordinates of the reconstructions.
    phi, s : (N, S), (N,) arrays
        Statistics of the data.
    multiplier : Multiplier, callable or None
        A `Multiplier` that learns lambda, a function step -> lambda, or None if the energy is only monitored.
    """

    name: str
    constraint: Constraint | CrossEntropy
    energy: Energy | CrossEntropy
    phi: Array
    s: Array
    multiplier: Multiplier | Callable[[int], float] | None = None

    @classmethod
    def make(
        cls, constraint: Constraint | CrossEntropy, x: Array, frame: Frame, multiplier: Multiplier | None = None
    ) -> Term:
        """The term of data (N, D) in the standardised coordinates of the frame."""
        xp = array_namespace(x)
        if isinstance(constraint, CrossEntropy):
            return cls("ELBO", constraint, constraint, *constraint.statistics(x), multiplier)
        energy = constraint.in_frame(frame)
        points = x if isinstance(constraint, RE) else to_host(x)  # feature maps take NumPy arrays
        phi, s = (xp.asarray(part, dtype=x.dtype) for part in energy.statistics(points, slice(0, len(x))))
        return cls(constraint.name, constraint, energy, phi, s, multiplier)

    @property
    def allowance(self) -> float:
        """Threshold that is subtracted from the energy of a constraint; 0 for a likelihood."""
        return 0.0 if isinstance(self.constraint, CrossEntropy) else self.constraint.allowance

    def weighing(self, name: str, multiplier: Callable[[int], float]) -> Term:
        """The same energy with another name and multiplier."""
        return replace(self, name=name, multiplier=multiplier)

    @property
    def key(self) -> Any:
        """A key that is equal for terms with equal energies, so that these are computed once."""
        if isinstance(self.constraint, RE):
            return RE, self.constraint.reduction
        return CrossEntropy if isinstance(self.constraint, CrossEntropy) else self.name

    def at(self, rows: Array | slice, psi: Array) -> tuple[Array, Array]:
        """Energies (n,) of rows of the data for reconstructions psi (n, D), and their gradients (n, D) in psi."""
        xp, phi, s = self._xp, self.phi[rows], self.s[rows]
        if isinstance(self.constraint, (RE, CrossEntropy)):
            v, b = self.energy.readout(psi)
            slopes = self.energy.pullback(psi, phi, xp.ones(len(psi), dtype=psi.dtype))
        else:  # feature maps take NumPy arrays
            here = to_host(psi)
            v, b = (xp.asarray(part, dtype=psi.dtype) for part in self.energy.readout(here))
            slopes = self.energy.pullback(here, to_host(phi), np.ones(len(here)))
        return s - b - (phi * v).sum(axis=1), -xp.asarray(slopes, dtype=psi.dtype)

    @cached_property
    def _xp(self) -> Any:
        return array_namespace(self.phi)
