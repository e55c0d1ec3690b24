"""natural_multiplier(): where lambda begins, in every unit of the data (T20)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._utils.arrays import FloatArray
from .._utils.checks import check_data, check_instance, check_weights
from .._utils.frames import own_weights
from ..data.rows import check_radius, standard_frame
from ..objectives.constraints import FRE, RE, Constraint
from .water_filling import covariance_eigenvalues, of_distortion

_LEAST_SHARE = 1e-4  # of the variance: the smallest error at which the slope of the curve is taken


def natural_multiplier(x: Any, constraint: Constraint, *, weights: Any = None) -> float:
    """The multiplier with which the best linear code of unlimited size meets a constraint: a start for GECO.

    For `RE` this is the slope -dR/dD of the water-filling curve of the covariance at kappa^2; for `FRE` the same for
    the features of the data. From the variance on, it is the multiplier below which nothing is coded. Below 1e-4 of the
    variance it is the slope at 1e-4. For other constraints it is one nat over the threshold. In another unit of the
    data the multiplier is the same number of nats.

    Parameters
    ----------
    x : (N, D) array_like
        Data.
    constraint : Constraint
        `RE`, `FRE`, `CLA`, `PNCC` or another one.
    weights : (N,) array_like, optional
        Weights of the points; by default equal.

    Returns
    -------
    float
        lambda, in nats per unit of the energy of the constraint.

    Raises
    ------
    ValueError
        For bad input.

    References
    ----------
    Section 5 and (T20) of the theory.

    Examples
    --------
    In a training loop of one's own: ``Multiplier(kappa**2, initial=natural_multiplier(x, RE(kappa)))``.

    >>> import constrained_vae as cv
    >>> x = cv.datasets.gaussian((4.0, 2.0, 0.5)).x
    >>> round(natural_multiplier(x, cv.RE.from_squared_error(1.2)), 12)
    1.25
    >>> round(natural_multiplier(1000 * x, cv.RE.from_squared_error(1.2e6)) * 1e6, 12)
    1.25
    """
    check_instance(constraint, "constraint", Constraint, "RE(0.3)")
    weights = own_weights(x, weights)
    host = np.asarray(check_data(x), dtype=np.float64)
    constraint.check(host)
    return start_of(constraint, spectrum_of(constraint, host, check_weights(weights, len(host))))


def start_of(constraint: Constraint, spectrum: Spectrum | None) -> float:
    """The natural multiplier of a constraint for data with this spectrum."""
    return one_nat(constraint.allowance) if spectrum is None else spectrum.slope(constraint.allowance)


def one_nat(threshold: float) -> float:
    """The multiplier at which a threshold is worth one nat; 1 for a threshold of 0."""
    return 1 / abs(threshold) if threshold else 1.0


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of the covariance that a squared error sees, in ascending order, and their unit as an energy."""

    eigenvalues: FloatArray
    unit: float
    linear: bool  # whether the features of the data are linear

    def floor(self, latent_dim: int) -> float:
        """Smallest energy of a linear code of this size; of size 0 the variance of the data. NaN for other features."""
        if not self.linear:
            return float("nan")
        return self.unit * float(self.eigenvalues[: max(len(self.eigenvalues) - latent_dim, 0)].sum())

    def slope(self, allowance: float) -> float:
        """-dR/dE of the water-filling curve at an energy."""
        variance = float(self.eigenvalues.sum())
        if not variance:  # the points coincide
            return one_nat(allowance)
        share = max(allowance / self.unit, _LEAST_SHARE * variance)
        return of_distortion(self.eigenvalues, share).multiplier / self.unit


def spectrum_of(constraint: Constraint, x: FloatArray, weights: FloatArray) -> Spectrum | None:
    """The spectrum of the data for `RE`, of their features for `FRE`; None for other constraints.

    It is computed in the standard frame, so that its bits do not depend on the unit of the data.
    """
    if not isinstance(constraint, (RE, FRE)):
        return None
    points = x if isinstance(constraint, RE) else np.asarray(constraint.features(x), dtype=np.float64)
    frame = check_radius(standard_frame(points, weights, warn=False))
    dim = x.shape[1] if isinstance(constraint, RE) and constraint.reduction == "mean" else 1
    return Spectrum(covariance_eigenvalues(frame.inward(points), weights), frame.scale**2 / dim, constraint.quadratic)


def linear_floor(spectrum: Spectrum | None, latent_dim: int) -> float:
    """Smallest error of a linear code of this size: the sum of all but the largest eigenvalues of the covariance.

    NaN for constraints other than on a squared error of linear maps.
    """
    return float("nan") if spectrum is None else spectrum.floor(latent_dim)
