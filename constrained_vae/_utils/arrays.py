"""Types of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = Any  # a NumPy or CuPy array


FloatArray = npt.NDArray[np.floating[Any]]
