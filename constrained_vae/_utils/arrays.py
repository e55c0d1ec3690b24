"""Types of arrays, and dataclasses whose arrays stay read-only in pickles and copies."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]  # of NumPy, or of CuPy, whose arrays have the same methods
FloatArray = npt.NDArray[np.floating[Any]]


def is_lazy(x: Any) -> bool:
    """Whether a value is an array, a dataframe or a series of Dask."""
    return type(x).__module__.partition(".")[0] in ("dask", "dask_expr") and hasattr(x, "__dask_graph__")


class PickledByFields:
    """Mixin of dataclasses: pickles and copies have the fields alone, and read-only arrays stay read-only.

    NumPy makes every array of a pickle or a deep copy writable. Cached properties, which may hold modules or views of
    the arrays, are computed anew when they are needed.
    """

    def __getstate__(self) -> tuple[dict[str, Any], list[str]]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return values, [n for n, v in values.items() if isinstance(v, np.ndarray) and not v.flags.writeable]

    def __setstate__(self, state: tuple[dict[str, Any], list[str]]) -> None:
        values, read_only = state
        for name in read_only:
            values[name].setflags(write=False)
        self.__dict__.update(values)
