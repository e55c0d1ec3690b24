"""Signature of data: a few numbers by which it is noticed that two results are of different data.

They are the radius of the data, and means of cosines and sines of random projections of the standardised data. They do
not depend on the order and the type of the rows, on copies of a row that are given as weights, and on the origin, of
which R(D) does not depend either. Data that differ by less than the tolerance have the same R(D) to this tolerance.
"""

from __future__ import annotations

import numpy as np

from .._utils import memory
from .._utils.arrays import FloatArray

_PROJECTIONS = 16
_FREQUENCY = 3.0  # of the projections, per radius of the data
_TOLERANCE = 1e-5
LENGTH = 1 + 2 * _PROJECTIONS


def of(x: FloatArray, rho: FloatArray, scale: float = 1.0) -> FloatArray:
    """The signature (LENGTH,) of data scale * x, for points (N, D) with weights (N,) of sum 1."""
    centre = rho @ x.astype(np.float64, copy=False)
    directions = _FREQUENCY * np.random.default_rng(x.shape[1]).standard_normal((x.shape[1], _PROJECTIONS))
    count = memory.rows_of_block(x.shape[1])
    blocks = [slice(start, start + count) for start in range(0, len(x), count)]
    radius = float(np.sqrt(sum(rho[rows] @ np.square(x[rows] - centre).sum(axis=1) for rows in blocks)))
    waves = np.zeros(2 * _PROJECTIONS)
    for rows in blocks:
        angles = (x[rows] - centre) / (radius or 1.0) @ directions
        waves += rho[rows] @ np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([[scale * radius], waves])


def difference(first: FloatArray, second: FloatArray) -> str:
    """How two signatures differ, in words; empty if they do not."""
    if abs(first[0] - second[0]) > _TOLERANCE * max(first[0], second[0]):
        return f"the variances {first[0] ** 2:.6g} and {second[0] ** 2:.6g}"
    return "other data of the same variance" if np.abs(first - second)[1:].max() > _TOLERANCE else ""
