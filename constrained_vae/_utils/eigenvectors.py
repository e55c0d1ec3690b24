"""Eigenvectors of symmetric matrices."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from .arrays import FloatArray


def eigh(matrices: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues (..., n), ascending, and eigenvectors (..., n, n) of finite symmetric matrices (..., n, n).

    NumPy divides and conquers. With some kernels of OpenBLAS this does not converge for a matrix of which many
    eigenvalues nearly coincide, as those of I - J are near 1. QR iterations, which take longer, converge there.
    """
    try:
        return np.linalg.eigh(matrices)
    except np.linalg.LinAlgError:
        if not np.isfinite(matrices).all():
            raise
    n = matrices.shape[-1]
    found = [scipy.linalg.eigh(matrix, driver="ev") for matrix in matrices.reshape(-1, n, n)]
    values, vectors = (np.stack(part) for part in zip(*found, strict=True))
    return values.reshape(matrices.shape[:-1]), vectors.reshape(matrices.shape)
