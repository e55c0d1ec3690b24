"""Types of arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]  # of NumPy, or of CuPy, whose arrays have the same methods


FloatArray = npt.NDArray[np.floating[Any]]
