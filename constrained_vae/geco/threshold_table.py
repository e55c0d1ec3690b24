"""thresholds(): errors of simple and of best codes, from which to choose a kappa; and what makes a kappa doubtful."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils import tables
from .._utils.arrays import FloatArray, PickledByFields
from .._utils.checks import check_count, check_data, check_weights
from .._utils.frames import own_weights
from ..data.frame import Frame
from ..data.rows import check_radius, standard_frame
from ..frontier.rate_distortion import rate_distortion
from ..objectives.constraints import PNCC, RE, Constraint
from .starts import Spectrum, linear_floor
from .water_filling import covariance_eigenvalues, of_rate

_RATES = (1.0, 2.0, 4.0, 8.0, 16.0)  # of the linear VAE, in nats
_CHEAP = 1000  # numbers in the data up to which the best codes of all are computed: some seconds
_GAP = 0.01  # of these, in nats
_MAPS = 2000


@dataclass(frozen=True, eq=False, repr=False)
class Thresholds(PickledByFields):
    """Squared errors that codes of data reach, and the kappa of `RE` that each of them meets exactly.

    Attributes
    ----------
    codes : tuple of str
        What the codes are.
    rate : (n,) array
        Rates in nats; NaN where the code has no noise.
    squared_error : (n,) array
        E||x - g||^2 in total, in squared units of x.
    multiplier : (n,) array
        Slope -dR/dD, lambda per unit of the total squared error; NaN where there is none.
    dim : int
        Dimension of the data.

    Examples
    --------
    >>> from constrained_vae import geco
    >>> geco.thresholds([[-2.0], [2.0]], latent_dim=1).codes[0]
    'none'
    """

    codes: tuple[str, ...]
    rate: FloatArray
    squared_error: FloatArray
    multiplier: FloatArray
    dim: int

    @property
    def kappa(self) -> FloatArray:
        """Thresholds (n,) of `RE(kappa)`: roots of the squared errors in total, in units of x."""
        return np.sqrt(self.squared_error)

    @property
    def kappa_per_dimension(self) -> FloatArray:
        """Thresholds (n,) of `RE(kappa, "mean")`: roots of the squared errors per dimension."""
        return np.sqrt(self.squared_error / self.dim)

    def __repr__(self) -> str:
        return f"{self._title}\n{tables.as_text(self._columns)}"

    def _repr_html_(self) -> str:
        return tables.as_html(self._title, self._columns)

    def to_frame(self) -> Any:
        """The table as a pandas data frame, a row per code; ImportError where pandas is not installed.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return tables.as_frame(self._columns)

    @property
    def _title(self) -> str:
        return f"Thresholds(errors of codes of data of {self.dim} dimensions, rates in nats)"

    @property
    def _columns(self) -> tables.Columns:
        return {
            "code": self.codes,
            "rate": self.rate,
            "squared_error": self.squared_error,
            "per_dimension": self.squared_error / self.dim,
            "kappa": self.kappa,
            "kappa_per_dimension": self.kappa_per_dimension,
            "multiplier": self.multiplier,
        }


def thresholds(x: npt.ArrayLike, latent_dim: int | None = None, *, weights: npt.ArrayLike | None = None) -> Thresholds:
    """Which kappa? The squared errors that codes of the data reach, and at which rate.

    Parameters
    ----------
    x : (N, D) array_like
        Data.
    latent_dim : int, optional
        Dimension of the latent space; by default as many as the data have.
    weights : (N,) array_like, optional
        Data weights; uniform by default.

    Returns
    -------
    Thresholds
        A table of these codes. None: the mean of the data, whose kappa is their root mean square, and from which on a
        constraint is slack. The linear VAE at several rates (water-filling, section 5 of the theory). The linear code
        of this size without noise: networks can do better, a linear VAE cannot. For at most 1000 numbers: the best
        codes of all, to 0.01 nats, at the slopes of the linear VAE (T22). Every point by itself: no code needs more.

    Raises
    ------
    ValueError
        For bad input, and if all points coincide.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> table = thresholds(cv.datasets.gaussian((4.0, 2.0, 0.5)).x, latent_dim=2)
    >>> table.codes[0], round(float(table.kappa[0] ** 2), 9)  # the variance
    ('none', 6.5)
    """
    weights = own_weights(x, weights)
    x = check_data(x)
    rho = check_weights(weights, len(x))
    size = x.shape[1] if latent_dim is None else min(check_count(latent_dim, "latent_dim"), x.shape[1])
    frame = check_radius(standard_frame(x, rho, warn=False))
    ell = covariance_eigenvalues(frame.inward(x[rho > 0]), rho[rho > 0]) * frame.scale**2
    if not ell[-1] > 0:
        raise ValueError("x must have points that differ, got points that all coincide: every error is 0")
    coded, rest = ell[len(ell) - size :], float(ell[: len(ell) - size].sum())
    linear = [of_rate(coded, rate) for rate in _RATES]
    rows = [("none", 0.0, float(ell.sum()), np.nan)]
    rows += [(f"linear VAE, latent_dim={size}", code.rate, code.distortion + rest, code.multiplier) for code in linear]
    rows.append((f"linear code, latent_dim={size}", np.nan, rest, np.nan))
    _, index = np.unique(x[rho > 0], axis=0, return_inverse=True)
    p = np.bincount(index.ravel(), rho[rho > 0])
    entropy = float(-p @ np.log(p))
    levels = [code.level for code in linear if code.rate < entropy]
    if x.size <= _CHEAP and levels:
        curve = rate_distortion(x, levels, gap=_GAP, weights=rho, max_maps=_MAPS, on_failure="return")
        found = zip(curve.rate.tolist(), curve.distortion.tolist(), curve.multipliers.tolist(), strict=True)
        rows += [("best code of any kind", *numbers) for numbers in found]
    rows.append((f"each of {len(p)} points by itself", entropy, 0.0, np.nan))
    codes, rates, errors, multipliers = zip(*rows, strict=True)
    return Thresholds(codes, np.array(rates), np.array(errors), np.array(multipliers), x.shape[1])


def doubt(
    constraint: Constraint,
    x: FloatArray,
    weights: FloatArray,
    spectrum: Spectrum | None,
    latent_dim: int,
    plane: int | None = None,
) -> str:
    """What is doubtful about a threshold before training, in a sentence; empty if nothing is.

    `spectrum` is `spectrum_of` these data. All reconstructions are in a plane of `plane` dimensions, if it is given.
    """
    if isinstance(constraint, PNCC):
        return _doubt_of_correlation(constraint, x, weights)
    none, floor = linear_floor(spectrum, 0), linear_floor(spectrum, latent_dim)
    if np.isnan(floor):
        return ""
    of, allowed = "data" if isinstance(constraint, RE) else "features", constraint.allowance
    if allowed >= none:
        text = f"is at least the variance {none:.4g} of the {of}: no code is needed, lambda goes to 0"
    elif not allowed:
        text = "is 0, which no code with noise reaches: lambda goes to its upper bound"
    elif plane is not None and allowed < (least := linear_floor(spectrum, plane)):
        text = (
            f"is below {least:.4g}, the least that reconstructions in {plane} dimensions have, those of a linear layer "
            f"with {plane} inputs, so that it cannot be reached: give more of them"
        )
    elif allowed < floor:
        text = (
            f"is below {floor:.4g}, the least that a linear code of {latent_dim} dimensions has, so that it may be out "
            "of reach"
        )
    else:
        return ""
    unit = ""
    if isinstance(constraint, RE):
        unit = f" ({'total' if constraint.reduction == 'sum' else 'mean per dimension'})"
        text += "; is kappa in the right unit (reduction='sum' or 'mean')? geco.thresholds(x, latent_dim) shows which"
    return f"{constraint.name}: kappa^2 = {allowed:.4g}{unit} {text}"


def _doubt_of_correlation(constraint: PNCC, x: FloatArray, weights: FloatArray) -> str:
    """Each patch has a correlation of 1 with itself, the largest there is, or 0 with any patch if it is constant."""
    patches, _ = constraint.in_frame(Frame.identity(x.shape[1])).statistics(x)
    most = float(weights @ np.square(patches).sum(axis=1))
    if constraint.kappa <= most + 1e-9:
        return ""
    return (
        f"{constraint.name}: kappa = {constraint.kappa:.4g} is above {most:.4g}, the correlation of the data with "
        "themselves, so that it cannot be reached: constant patches have the correlation 0; lower kappa, or use larger "
        "patches"
    )


def warn_of_doubts(
    x: FloatArray,
    weights: FloatArray,
    constraints: tuple[Constraint, ...],
    spectra: dict[str, Spectrum | None],
    latent_dim: int,
    plane: int | None = None,
    *,
    stacklevel: int,
) -> None:
    """Warn of every threshold that is doubtful."""
    for constraint in constraints:
        if text := doubt(constraint, x, weights, spectra[constraint.name], latent_dim, plane):
            warnings.warn(text, stacklevel=stacklevel)
