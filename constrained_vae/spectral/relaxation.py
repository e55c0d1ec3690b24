"""The first split of a data set, compared with the spectral relaxation of 2-means (T19)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils.arrays import FloatArray
from .._utils.checks import check_data, check_weights
from .._utils.frames import own_weights
from ..latent.tiling import Tiling
from ..objectives.elbo import ELBO
from ..phases.criticality import first_critical_beta
from ..results.status import Status
from ..solvers.solve import report_failure, solve

_DISTANCE = 1e-5  # relative distance below the first transition at which the split is solved for
_SIDE_TOL = 1e-3  # coordinates below this, in units of their root mean square, are too near the cut to have a side


@dataclass(frozen=True, eq=False)
class FirstSplit:
    """The first split of a data set, compared with the spectral relaxation of 2-means (T19).

    Attributes
    ----------
    beta : float
        First critical temperature.
    log_odds : (N,) array
        Posterior log odds of the two halves just below this temperature, in nats; the data are divided at 0.
    coordinate : (N,) array
        Leading eigenvector of the centred Gram matrix sqrt(rho_i rho_j) (x_i - mean).(x_j - mean), divided by
        sqrt(rho_i), with the sign of the log odds.
    degeneracy : float
        Ratio of the second to the first eigenvalue of this matrix; if it is 1, the axis of the split is not unique.

    Warns
    -----
    NotConvergedWarning
        If a budget is used up.

    Examples
    --------
    >>> first_split([[-2.0, 0.0], [-1.0, 1.0], [3.0, -1.0]]).clear
    array([ True,  True,  True])
    """

    beta: float
    log_odds: FloatArray
    coordinate: FloatArray
    degeneracy: float

    @property
    def clear(self) -> npt.NDArray[np.bool_]:
        """Whether the coordinate of a point is above 1e-3 of the root mean square of all coordinates, (N,)."""
        return np.abs(self.coordinate) > _SIDE_TOL * np.sqrt(np.mean(np.square(self.coordinate)))

    @property
    def agreement(self) -> float:
        """Share of the clear points for which log odds and coordinate have the same sign."""
        return float(np.mean((self.log_odds > 0) == (self.coordinate > 0), where=self.clear))


def first_split(
    x: Any,
    *,
    weights: Any = None,
    max_maps: int = 100_000,
    time_limit: float | None = None,
    backend: str = "auto",
) -> FirstSplit:
    """Solve for the first split of a data set, and compare it with the leading eigenvector of the Gram matrix (T19).

    The split is that of two tiles of equal mass, which is continuous (T13), just below the first transition. For a
    decoder in feature space, pass the features f(x) in place of x. Then the coordinate is that of kernel PCA with the
    kernel f(x).f(y).

    Parameters
    ----------
    x : (N, D) array_like
        Data points.
    weights : (N,) array_like, optional
        Data weights, normalised to sum 1; uniform by default.
    max_maps, time_limit
        As for `solve`; the first critical temperature is found in any case.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.

    Returns
    -------
    FirstSplit
        The two partitions and their agreement.

    Raises
    ------
    ValueError
        For bad input, or if all points coincide.

    Examples
    --------
    >>> first_split([[-2.0, 0.0], [-1.0, 1.0], [3.0, -1.0]]).agreement
    1.0
    """
    weights = own_weights(x, weights)
    x = np.asarray(check_data(x), dtype=np.float64)
    rho = check_weights(weights, len(x))
    critical = first_critical_beta(x, weights=rho, backend=backend)
    if not critical > 0:
        raise ValueError(
            "all points of x coincide, so there is no first split: x must have at least two distinct points"
        )
    objective, tiling = ELBO(beta=(1 - _DISTANCE) * critical), Tiling.uniform(2)
    s = solve(
        x,
        objective,
        tiling=tiling,
        weights=rho,
        max_maps=max_maps,
        time_limit=time_limit,
        backend=backend,
        on_failure="return",
    )
    if s.status is Status.BUDGET_USED:  # so near a transition, other ends have the partition all the same
        report_failure(s, "warn", stacklevel=3)
    first, second = s.decoder
    log_odds = (x - (first + second) / 2) @ (first - second) / s.beta
    # Eigenvectors u of the Gram matrix are singular vectors: u_i / sqrt(rho_i) = (x_i - mean).v / singular value.
    centred = x - rho @ x
    _, values, axes = np.linalg.svd(np.sqrt(rho)[:, None] * centred, full_matrices=False)
    coordinate = centred @ axes[0] / values[0]
    sign = np.sign(coordinate @ (rho * log_odds)) or 1.0
    degeneracy = float((values[1] / values[0]) ** 2) if len(values) > 1 else 0.0
    return FirstSplit(critical, log_odds, sign * coordinate, degeneracy)
