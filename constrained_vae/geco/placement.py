"""Placement: the distance of a trained model from the exact frontier of its data (T22)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .._utils.arrays import FloatArray
from .._utils.checks import check_instance
from ..data import signature
from ..frontier.curve import RateDistortionCurve
from ..frontier.excess import Excess


@dataclass(frozen=True)
class Placement:
    """Distance of a trained model from the rate-distortion function R(D) of its data, in nats (T22).

    Attributes
    ----------
    gap : Excess
        KL - R(D), at least and at most: R(D) is known between bounds. For an evaluation on the held-out rows of the
        curve, R(D) is that of their source (T24).
    error : float
        Standard error of the gap, from the standard errors of distortion and rate.
    marginal_kl, marginal_kl_error : float
        KL(m || prior), a part of the gap, and its standard error.
    rest : Excess
        The other part of the gap, I(x; z) - R(D).
    rest_error : float
        Standard error of the rest, from the errors of distortion and marginal KL.
    slope : float
        -dR/dD of the frontier at the distortion of the model; NaN outside of the solved range.
    multiplier : float
        lambda of the model, per unit of the total squared error; NaN if its loss does not have this error, as that of
        a Bernoulli likelihood.
    rigorous : bool
        Whether the bounds of R(D) are proven; otherwise `gap.most` and `rest.most` are heuristic.

    Examples
    --------
    >>> from constrained_vae import RE, geco, rate_distortion
    >>> run = geco.train([[-2.0], [2.0]], RE(1.0), latent_dim=1, hidden=(), steps=40)
    >>> place = run.excess_over(rate_distortion([[-2.0], [2.0]], betas=[3.0, 1.0]))
    >>> place.gap.least <= place.gap.most  # nats between which KL - R(D) is known to be
    True
    """

    gap: Excess
    error: float
    marginal_kl: float
    marginal_kl_error: float
    rest: Excess
    rest_error: float
    slope: float
    multiplier: float

    @property
    def rigorous(self) -> bool:
        """Whether the bounds of the gap are proven."""
        return self.gap.rigorous


def place(
    curve: RateDistortionCurve,
    data: FloatArray,
    *,
    rate: float,
    rate_error: float = 0.0,
    distortion: float,
    distortion_error: float,
    marginal_kl: float,
    marginal_kl_error: float,
    multiplier: float,
    stacklevel: int,
) -> Placement:
    """The distance of a model with these numbers from a curve, whose data must have the signature `data`.

    If the held-out rows of the curve have this signature, it is the distance from R(D) of their source.
    """
    check_instance(curve, "curve", RateDistortionCurve, "rate_distortion(x)")
    unseen = curve.population is not None and not signature.difference(curve.population.signature, data)
    if not unseen:
        _check_fits(curve, data)
    gap = curve._excess(
        rate, distortion, distortion_error, stacklevel=stacklevel + 1, rate_error=rate_error, population=unseen
    )
    log_slope = np.interp(
        distortion, curve.distortion[::-1], np.log(curve.multipliers[::-1]), left=np.nan, right=np.nan
    )
    slope = float(np.exp(log_slope))
    steep = slope if np.isfinite(slope) else float(curve.multipliers.max())
    error = float(np.hypot(steep * distortion_error, rate_error))
    return Placement(
        gap=gap,
        error=error,
        marginal_kl=marginal_kl,
        marginal_kl_error=marginal_kl_error,
        rest=replace(gap, least=gap.least - marginal_kl, most=gap.most - marginal_kl),
        rest_error=float(np.hypot(steep * distortion_error, marginal_kl_error)),
        slope=slope,
        multiplier=multiplier,
    )


def _check_fits(curve: RateDistortionCurve, data: FloatArray) -> None:
    """Raise ValueError unless the curve is of the squared error and of the data of the evaluation."""
    if curve.likelihood != "gaussian":
        raise ValueError(
            f"curve must be of the squared error, got one of the {curve.likelihood} likelihood: compute it with "
            "rate_distortion(x) and a Gaussian objective"
        )
    if difference := signature.difference(curve.signature, data):
        raise ValueError(
            f"curve and evaluation must be of the same data, got {difference}: compute the curve from the data of the "
            "evaluation, by default the training data, in the same unit, or with them as held_out"
        )
