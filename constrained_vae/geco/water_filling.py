"""Reverse water-filling: the best linear code of data with a given covariance (section 5 of the theory)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._utils.arrays import FloatArray


@dataclass(frozen=True, eq=False)
class WaterFilling:
    """The linear VAE at one water level theta, for eigenvalues of a covariance: each component keeps an error.

    Attributes
    ----------
    level : float
        theta, the error of every component that is coded.
    errors : (D,) array
        Squared error of each component, the smaller one of its eigenvalue and theta.
    rates : (D,) array
        Rate of each component, in nats.
    """

    level: float
    errors: FloatArray
    rates: FloatArray

    @property
    def distortion(self) -> float:
        """Total squared error."""
        return float(self.errors.sum())

    @property
    def rate(self) -> float:
        """Total rate, in nats."""
        return float(self.rates.sum())

    @property
    def multiplier(self) -> float:
        """Slope -dR/dD = 1 / (2 theta), lambda of the total squared error."""
        return 0.5 / self.level


def covariance_eigenvalues(x: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Variances (D,) of data (N, D) along their principal axes, in ascending order; the weights (N,) have the sum 1."""
    if weights is None:
        centred = x - x.mean(axis=0, dtype=np.float64)
        return np.asarray(np.linalg.eigvalsh(centred.T @ centred / len(x)).clip(0))
    centred = x - weights @ x
    return np.asarray(np.linalg.eigvalsh((centred.T * weights) @ centred).clip(0))


def at_level(eigenvalues: FloatArray, level: float) -> WaterFilling:
    """The code at a water level, which is positive."""
    errors = np.minimum(eigenvalues, level).clip(0)
    return WaterFilling(level, errors, 0.5 * np.log(np.maximum(eigenvalues / level, 1)))


def of_distortion(eigenvalues: FloatArray, distortion: float) -> WaterFilling:
    """The code with a total squared error, which is positive; from the variance on, nothing is coded.

    Where k components are coded, k theta and the sum of the other eigenvalues are the error; k is the first that fits.
    """
    ell, tails = _descending(eigenvalues)
    levels = (distortion - tails) / np.arange(1, len(ell) + 1)
    return _first(eigenvalues, ell, levels)


def of_rate(eigenvalues: FloatArray, rate: float) -> WaterFilling:
    """The code of a total rate in nats, at least 0.

    Where k components are coded, log theta is the mean of their log eigenvalues less 2 R / k; k is the first that fits.
    """
    ell, _ = _descending(eigenvalues)
    count = np.arange(1, len(ell) + 1)
    levels = np.exp((np.cumsum(np.log(ell)) - 2 * rate) / count)
    return _first(eigenvalues, ell, levels)


def _descending(eigenvalues: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The positive eigenvalues in descending order, and the sum of those after each."""
    ell = np.sort(eigenvalues[eigenvalues > 0])[::-1]
    return ell, np.concatenate([np.cumsum(ell[::-1])[::-1][1:], [0.0]])


def _first(eigenvalues: FloatArray, ell: FloatArray, levels: FloatArray) -> WaterFilling:
    """The code at the first level, of k coded components, that is not below the eigenvalue after the k-th one."""
    fits = levels >= np.append(ell[1:], 0.0)
    return at_level(eigenvalues, min(float(levels[fits.argmax()]), float(ell[0])))
