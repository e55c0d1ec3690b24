"""natural_multiplier(): where lambda begins, in every unit of the data (T20)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._utils.arrays import FloatArray
from .._utils.checks import check_data, check_instance, check_weights
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
    host = np.asarray(check_data(x), dtype=np.float64)
    constraint.check(host)
    weights = check_weights(weights, len(host))
    if isinstance(constraint, RE):
        return _slope(host, weights, constraint.allowance, host.shape[1] if constraint.reduction == "mean" else 1)
    if isinstance(constraint, FRE):
        return _slope(np.asarray(constraint.features(host), dtype=np.float64), weights, constraint.allowance, 1)
    return one_nat(constraint.allowance)


def one_nat(threshold: float) -> float:
    """The multiplier at which a threshold is worth one nat; 1 for a threshold of 0."""
    return 1 / abs(threshold) if threshold else 1.0


def _slope(points: FloatArray, weights: FloatArray, allowance: float, dim: int) -> float:
    """-dR/dE of the water-filling curve, where the energy E is the squared error over `dim`."""
    frame = check_radius(standard_frame(points, weights, warn=False))  # so that the bits do not depend on the unit
    total = allowance * dim / frame.scale**2
    eigenvalues = covariance_eigenvalues(frame.inward(points), weights)
    if not eigenvalues.any():  # the points coincide
        return one_nat(allowance)
    curve = of_distortion(eigenvalues, max(total, _LEAST_SHARE * float(eigenvalues.sum())))
    return curve.multiplier * dim / frame.scale**2
