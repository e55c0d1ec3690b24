"""Frame: the standardised coordinates in which a problem is solved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._utils.arrays import Array, FloatArray
from .._utils.device import array_namespace


@dataclass(frozen=True)
class Frame:
    """Standardised coordinates (x - centre) / scale, so that offset and unit of the data do not affect the accuracy.

    Attributes
    ----------
    centre : (D,) array
        Origin of the frame, in units of x.
    scale : float
        Unit of the frame, in units of x.

    Examples
    --------
    >>> import numpy as np
    >>> Frame(np.array([1.0]), 2.0).inward(np.array([[5.0]]))
    array([[2.]])
    """

    centre: FloatArray
    scale: float

    @classmethod
    def identity(cls, dim: int) -> Frame:
        """The frame in which points keep their coordinates."""
        return cls(np.zeros(dim), 1.0)

    def inward(self, x: Array) -> Array:
        return (x - array_namespace(x).asarray(self.centre)) / self.scale

    def outward(self, psi: Array) -> Array:
        return psi * self.scale + array_namespace(psi).asarray(self.centre)
