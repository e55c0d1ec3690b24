"""Frame: the standardised coordinates in which a problem is solved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._utils import memory
from .._utils.arrays import Array, FloatArray
from .._utils.checks import check_count, check_number, real_array
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

    Raises
    ------
    ValueError
        If the centre is no finite vector, or the scale is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> Frame(np.array([1.0]), 2.0).inward(np.array([[5.0]]))
    array([[2.]])
    """

    centre: FloatArray
    scale: float

    def __post_init__(self) -> None:
        centre = np.array(real_array(self.centre, "centre", "a (D,) array of real numbers"), dtype=np.float64)
        if centre.ndim > 1:
            raise ValueError(f"centre must have shape (D,), got shape {centre.shape}")
        object.__setattr__(self, "centre", centre)
        if not np.isfinite(centre).all() and self.scale != np.inf:
            raise ValueError(f"centre must be finite, got {centre[~np.isfinite(centre)][0]}")
        # The scale of data whose radius is out of the range of float64 is infinite; `check_radius` refuses it.
        object.__setattr__(self, "scale", check_number(self.scale, "scale", "a positive number", lambda s: s > 0))

    @classmethod
    def identity(cls, dim: int) -> Frame:
        """The frame in which points keep their coordinates.

        Raises
        ------
        ValueError
            If `dim` is no whole number of at least 1.
        """
        return cls(np.zeros(check_count(dim, "dim", most=memory.LARGEST)), 1.0)

    def inward(self, x: Array) -> Array:
        moved = x - array_namespace(x).asarray(self.centre)
        moved /= self.scale  # in place: a second array of all rows would have to be cleared first
        return moved

    def outward(self, psi: Array) -> Array:
        return psi * self.scale + array_namespace(psi).asarray(self.centre)
