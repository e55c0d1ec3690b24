"""Detection of critical temperatures on a grid (T12): peaks of the second derivative of the distortion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

from .._utils.arrays import FloatArray
from .._utils.checks import check_choice, check_count

_HEIGHT_TOL = 1e-6  # peaks below this fraction of the highest peak are rounding


@dataclass(frozen=True)
class Peak:
    """A detected kink of the distortion.

    Attributes
    ----------
    beta : float
        Grid temperature of the peak.
    height : float
        |d^2 D / d variable^2| at the peak. It grows as 1 / step, so that heights are comparable on one grid only.
    index : int
        Index of the peak on the grid in ascending order of beta.
    bracket : tuple of float
        The neighbouring grid temperatures. The kink lies between them; the grid does not resolve it further.

    Examples
    --------
    >>> float(Peak(beta=0.5, height=2.0, index=3, bracket=(0.4, 0.6)))
    0.5
    """

    beta: float
    height: float
    index: int
    bracket: tuple[float, float]

    def __float__(self) -> float:
        return self.beta


def second_derivative(t: FloatArray, values: FloatArray) -> FloatArray:
    """Three-point second derivative on an uneven grid t (n,), exact for parabolas; NaN at both ends.

    It is 2 (s_+ - s_-) / (h_+ + h_-), with the slopes s and the steps h to the right and to the left.
    """
    slope = np.diff(values) / np.diff(t)
    result = np.full(len(t), np.nan)
    result[1:-1] = 2 * np.diff(slope) / (t[2:] - t[:-2])
    return result


def find_kinks(
    betas: FloatArray,
    distortion: FloatArray,
    k: int | None = 3,
    variable: str = "beta",
    separation: int = 4,
    prominence: float = 0.5,
) -> list[Peak]:
    """Local maxima of |d^2 D / d variable^2|, highest first (T12).

    A kink of D makes one peak of height (jump of slope) / step; a first-order jump makes two neighbouring peaks. Both
    are one transition. Therefore peaks closer than `separation` steps count as one.

    Parameters
    ----------
    betas, distortion : (n,) arrays
        Ascending temperatures and the expected reconstruction error at them.
    k : int or None
        Number of peaks to return; all if None.
    variable : {"beta", "log_beta"}
        Variable of the derivative: "beta" favours kinks at small beta, "log_beta" kinks at large beta.
    separation : int
        Smallest distance of two peaks, in grid steps.
    prominence : float
        Smallest prominence of a peak, as a fraction of its height. It excludes ripples on a slope.

    Returns
    -------
    list of Peak
        The peaks, highest first.

    Raises
    ------
    ValueError
        If there are fewer than five temperatures, or if they are not ascending.
    """
    check_choice(variable, "variable", ("beta", "log_beta"))
    if k is not None:
        check_count(k, "k")
    if len(betas) < 5 or (np.diff(betas) <= 0).any():
        raise ValueError(
            f"betas must be at least five distinct, ascending temperatures, got {len(betas)}: solve a finer grid"
        )
    t = betas if variable == "beta" else np.log(betas)
    height = np.abs(second_derivative(t, distortion))[1:-1]
    found, properties = find_peaks(height, distance=separation, prominence=0)
    # The second derivative that rounding of D alone can cause, over the shorter of the two steps.
    shorter = np.minimum(np.diff(t)[1:], np.diff(t)[:-1])
    rounding = 64 * np.finfo(np.float64).eps * np.abs(distortion).max() / shorter**2
    least = np.maximum(prominence * height[found], _HEIGHT_TOL * height.max(initial=0.0))
    least = np.maximum(least, rounding[found])
    found = found[properties["prominences"] >= least]
    ranked = found[np.argsort(-height[found], kind="stable")][:k] + 1
    return [
        Peak(float(betas[i]), float(height[i - 1]), int(i), (float(betas[i - 1]), float(betas[i + 1]))) for i in ranked
    ]
