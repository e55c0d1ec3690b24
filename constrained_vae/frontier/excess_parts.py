"""excess_parts(): what of the distance of a model from the frontier is due to its parts (T5), (T14), (T22)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster

from .. import equations
from .._utils import tables
from .._utils.arrays import FloatArray
from .._utils.checks import check_instance, check_number, check_time_limit, finite_array
from .._utils.ward import ward_tree
from ..latent.tiling import Tiling
from ..results.fixed_point import FixedPoint
from ..results.status import NotConvergedWarning
from ..solvers.solve import solve
from .data_passes import DataPasses
from .hierarchy import means_of_groups
from .masses import best_masses
from .optimum import CertifiedFixedPoint, global_solution

_SUM = 1e-6  # how far the sum of a row of an encoder may be from 1


@dataclass(frozen=True, repr=False)
class ExcessParts:
    """Parts of R + lambda D of a model above the optimum, in nats; each is at least 0.

    Attributes
    ----------
    amortisation : float
        What the encoder loses: mean KL(q || q*), with q* the best encoder of the decoder and the prior masses (T1).
    marginal_kl : float
        What the prior masses lose: F falls so much with the best masses of the same reconstructions. It is at least
        KL(m || pi), m the marginal posterior of the best encoder (T6), (T15).
    local_optimum : float
        What the reconstructions lose: how much less F the best code found has that has as many tiles, with free masses.
        At least so much: there may be a better code.
    finite_tiles : float
        The rest, up to the optimum with any number of tiles; at most so much is due to the number of tiles. It is 0 if
        the optimum that is found has no more reconstructions than the model has tiles.
    gap : float
        By how much the optimum may be below the one that is found; the rest may be larger by it (T14).
    rigorous : bool
        Whether the gap is proven (see `Certificate`).

    Examples
    --------
    >>> ExcessParts(amortisation=0.5, marginal_kl=0.25, local_optimum=0.0, finite_tiles=0.125, gap=0.0).total
    0.875
    """

    amortisation: float
    marginal_kl: float
    local_optimum: float
    finite_tiles: float
    gap: float
    rigorous: bool = False

    @property
    def total(self) -> float:
        """Sum of the parts, in nats: R + lambda D of the model minus F of the best code that is known."""
        return self.amortisation + self.marginal_kl + self.local_optimum + self.finite_tiles

    @property
    def _columns(self) -> tables.Columns:
        names = ("amortisation", "marginal_kl", "local_optimum", "finite_tiles")
        return {"part": [name.replace("_", " ") for name in names], "nats": [getattr(self, name) for name in names]}

    def __repr__(self) -> str:
        return (
            f"ExcessParts(amortisation={self.amortisation:.4g}, marginal_kl={self.marginal_kl:.4g}, "
            f"local_optimum>={self.local_optimum:.4g}, finite_tiles<={self.finite_tiles:.4g} nats, "
            f"gap={self.gap:.1e} nats, {'rigorous' if self.rigorous else 'heuristic'})"
        )

    def _repr_html_(self) -> str:
        return tables.as_html(repr(self), self._columns)


def excess_parts(
    solution: FixedPoint,
    encoder: npt.ArrayLike | None = None,
    *,
    gap: float = 1e-6,
    time_limit: float | None = 60.0,
) -> ExcessParts:
    """Which part of a model's excess is due to its encoder, its prior masses, its reconstructions, and its few tiles.

    R + lambda D of the model falls in four steps to the least that any code has: with the best encoder (T1), with the
    best masses, with the best reconstructions that are found for as many tiles, and with as many tiles as it takes. At
    the lambda that is the slope of R(D) at the model's D, the sum is the excess of the curve,
    `RateDistortionCurve.excess`; elsewhere it is less.

    Parameters
    ----------
    solution : FixedPoint
        Reconstructions, prior masses and data of the model, with an `ELBO`; it need not have converged.
    encoder : (N, K) array_like, optional
        Posterior masses of the model, whose rows sum to 1; by default the best ones, `solution.encoder`.
    gap : float
        Requested gap of the optimum, in nats.
    time_limit : float, optional
        Budget of the search for the optimum, in seconds; as many again for that with as many tiles.

    Returns
    -------
    ExcessParts
        The parts, in nats.

    Raises
    ------
    ValueError
        For bad input, as a row of the encoder that does not sum to 1, or has mass on a tile of prior mass zero.

    Warns
    -----
    NotConvergedWarning
        If the gap of the optimum is not met in time.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> x = [[-3.0], [-1.0], [1.0], [3.0]]
    >>> parts = excess_parts(cv.solve(x, beta=0.5, n_tiles=2))  # two tiles where the optimum has four
    >>> parts.amortisation, round(parts.marginal_kl, 6), parts.finite_tiles > 0.1
    (0.0, 0.0, True)
    """
    check_instance(solution, "solution", FixedPoint, "solve(x)")
    if not np.isfinite(solution.decoder).all():
        raise ValueError("solution must have finite reconstructions, but its decoder holds NaN or infinite numbers")
    gap = check_number(gap, "gap", "positive, and at most 1 nat", lambda nats: 0 < nats <= 1)
    time_limit = check_time_limit(time_limit)
    amortisation = 0.0 if encoder is None else _amortisation(solution, encoder)
    data = DataPasses(solution.problem)
    psi, masses = solution.code[0], solution.tiling.masses
    best = best_masses(data.affinities(psi), masses, 0.1 * gap)
    F = data.free_energy(psi, masses)
    weighed = min(data.free_energy(psi[best > 0], best[best > 0]), F)
    options: dict[str, Any] = {"weights": solution.weights, "time_limit": time_limit, "on_failure": "return"}
    optimum = global_solution(solution.x, solution.objective, gap=gap, **options)
    few = optimum.free_energy
    if len(optimum.decoder) > len(masses):
        starts = [(solution.decoder[best > 0], best[best > 0]), _joined(optimum, len(masses))]
        few = min(
            solve(
                solution.x,
                solution.objective,
                tiling=Tiling(mass / mass.sum()),
                masses="free",
                start=start,
                **options,
            ).free_energy
            for start, mass in starts
        )
    if not optimum.converged:
        text = f"the parts hold to a gap of {optimum.certificate.gap:.1e} nats, not {gap:g} as asked: raise time_limit"
        warnings.warn(text, NotConvergedWarning, stacklevel=2)
    few = min(few, weighed)
    least = min(optimum.free_energy, few)
    certificate = optimum.certificate
    return ExcessParts(
        amortisation=amortisation,
        marginal_kl=F - weighed,
        local_optimum=weighed - few,
        finite_tiles=few - least,
        gap=max(least - certificate.lower, 0.0),
        rigorous=certificate.rigorous,
    )


def _amortisation(solution: FixedPoint, encoder: npt.ArrayLike) -> float:
    """The mean of KL(q || q*) for an encoder (N, K), in nats."""
    given = finite_array(encoder, "encoder")
    shape = len(solution.weights), len(solution.decoder)
    if given.shape != shape:
        raise ValueError(f"encoder must have a row per point and a column per tile, {shape}, got {given.shape}")
    if (given < 0).any() or (np.abs(given.sum(axis=1) - 1) > _SUM).any():
        raise ValueError(
            "encoder must have rows of masses that sum to 1, got "
            f"{'a negative mass' if (given < 0).any() else 'another sum'}: divide each row by its sum"
        )
    if given[:, solution.tiling.masses == 0].any():
        raise ValueError("encoder must have no mass on tiles of prior mass zero, where R would be infinite")
    total, first = 0.0, 0
    log_masses = equations.log_masses(solution.tiling.masses)
    for _, log_Z, H in solution.problem.posteriors(*solution.code):
        rows = slice(first, first + len(H))
        q, first = given[rows] / given[rows].sum(axis=1, keepdims=True), first + len(H)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(q > 0, np.log(q) - log_masses + H + log_Z[:, None], 0.0)
        total += float(solution.weights[rows] @ (q * logs).sum(axis=1))
    return max(total, 0.0)


def _joined(optimum: CertifiedFixedPoint, count: int) -> tuple[FloatArray, FloatArray]:
    """Means (n, D) and masses (n,) of at most so many groups of the reconstructions of the optimum."""
    psi, masses = optimum.decoder, optimum.tiling.masses
    group = fcluster(ward_tree(psi), count, "maxclust") - 1
    return means_of_groups(psi, masses, group)
