"""FixedPoint: the frozen result of `solve`, and the quantities that are derived from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from os import PathLike
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .. import equations
from .._utils import memory, tables
from .._utils.arrays import Array, FloatArray, PickledByFields
from .._utils.checks import TooLargeError
from .._utils.pictures import picture
from ..data.frame import Frame
from ..data.graphs import is_lazy
from ..data.partitions import taken
from ..data.prepared import Block
from ..data.rows import RowBlocks, Rows, blocks_of, check_rows
from ..latent.sites import Sites
from ..latent.tiling import Tiling
from ..objectives.base import Objective
from ..problems.posterior import Posterior, Tiles, posterior
from ..problems.problem import Problem
from . import per_row, storage
from .status import Status

S = TypeVar("S", bound="FixedPoint")

_NO_MASS = float(np.finfo(np.float64).eps)  # lost in the rounding of the total mass, 1, and of F
_MAX_COORDINATES = 4  # coordinates of a reconstruction in a table


class NotConvergedError(RuntimeError):
    """Raised instead of `NotConvergedWarning` if `on_failure="raise"`. `.solution` is the unfinished solution.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> try:
    ...     cv.solve([[-1.0], [1.0]], beta=0.5, tiling=cv.Tiling.uniform(2), max_maps=2, on_failure="raise")
    ... except cv.NotConvergedError as error:
    ...     print(error.solution.status.name)
    BUDGET_USED
    """

    def __init__(self, message: str, solution: FixedPoint) -> None:
        super().__init__(message, solution)  # both, so that it can be pickled
        self.solution = solution

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, eq=False, repr=False)
class FixedPoint(PickledByFields):
    """A solution of the fixed-point equations (T1)-(T2).

    Its own arrays are read-only. `x` is the array of the caller, not a copy: quantities that are computed later, such
    as encoder and labels, use the values that it has then.

    Attributes
    ----------
    x : (N, D) array, RowBlocks or Dask array
        The data, as given.
    weights : (N,) array
        Data weights rho, summing to 1.
    objective : Objective
        Objective in units of the data.
    tiling : Tiling
        Prior masses, which are optimised if masses are free.
    decoder : (K, D) array
        Reconstruction vectors psi, in units of x.
    marginal : (K,) array
        Marginal posterior m.
    free_energy, energy : float
        F = R + E[H] and E[H], in nats, without the constants kappa.
    distortion : float
        E||x - psi||^2 in squared units of x, for any objective.
    residual : float
        sqrt(sum_a m_a ||T(psi)_a - psi_a||^2), in units of x, of the undamped map at the decoder. If masses are free,
        the sum includes their step, theta m_a (log m_a - log pi_a)^2 with theta = sigma^2 beta (Bernoulli: beta / 4).
    error_estimate : float
        Estimated distance to the fixed point in the same norm (T10). It is the length of the Newton step by conjugate
        gradients, plus an estimate of the error of this step, and at least the error that the rounding of the map
        makes. If the run ended early, or no metric is known in which the Jacobian is symmetric, it is
        residual / (1 - contraction factor) with the last measured factor, and infinite if that is not known. The
        rounding of the coordinates of the decoder is added: eps times their root mean square, which is large beside a
        large offset. Whether a solution has converged is decided without it.
    split_condition : float
        Largest eigenvalue of the split condition (T9) at the decoder; NaN if the run ended before it was computed
        there. It bounds the contraction factor from above. A value of 1 or more means that a site with a single tile
        would split if it had two.
    n_maps : int
        Number of evaluations of the map, and of products with its Jacobian.
    status : Status
        Why the iteration ended.
    masses_free : bool
        Whether the masses were optimised.
    frame : Frame
        Standardised coordinates in which the problem was solved.
    expected : tuple of float
        E[C_k] of the constraints of a `Lagrangian`, in their order; `constraint_values` has them by name.
    trajectory : (n, K, D) array or None
        The iterates, if they were recorded.
    names : tuple of str, or None
        Names of the columns of x, if it was a data frame or a `DataSet` with names.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> s = cv.solve([[-1.0], [1.0]], beta=0.5, tiling=cv.Tiling.uniform(2))
    >>> s
    FixedPoint(beta=0.5, 2 distinct of 2 tiles, rate=0.59029 nats, distortion=0.083186, converged after ...)
    >>> s.encoder.shape
    (2, 2)
    """

    x: FloatArray | RowBlocks
    weights: FloatArray
    objective: Objective
    tiling: Tiling
    decoder: FloatArray
    marginal: FloatArray
    free_energy: float
    energy: float
    distortion: float
    residual: float
    error_estimate: float
    split_condition: float
    n_maps: int
    status: Status
    masses_free: bool
    frame: Frame
    expected: tuple[float, ...] = ()
    trajectory: FloatArray | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for array in (self.weights, self.decoder, self.marginal, self.trajectory):
            if array is not None:
                array.setflags(write=False)

    def __repr__(self) -> str:
        return (
            f"FixedPoint(beta={self.beta:.6g}, {len(self.distinct)} distinct of {len(self.tiling)} tiles, "
            f"rate={self.rate:.6g} nats, distortion={self.distortion:.6g}, {self.status.name.lower()} "
            f"after {self.n_maps} maps, {self.accuracy})"
        )

    def _repr_html_(self) -> str:
        return tables.as_html(repr(self), self._columns)

    @property
    def _columns(self) -> tables.Columns:
        """The distinct reconstructions, by falling posterior mass, with their first coordinates."""
        sites = self.distinct
        assert sites.marginal is not None
        order = np.argsort(-sites.marginal, kind="stable")
        shown = range(min(_MAX_COORDINATES, sites.decoder.shape[1]))
        counts, masses, marginal = (values[order] for values in (sites.counts, sites.masses, sites.marginal))
        columns = {"tiles": counts, "prior mass": masses, "posterior mass": marginal}
        for d in shown:
            name = f"psi[{d}]" if self.names is None else self.names[d]
            columns[f"psi[{name}]" if name in columns else name] = sites.decoder[order, d]
        return columns

    @property
    def accuracy(self) -> str:
        """The error estimate, formatted for `repr` and warnings."""
        return f"error {self.error_estimate:.1e}"

    @property
    def ending(self) -> str:
        """How the search for the solution ended, and what to try if it failed, as text."""
        return self.status.value

    @property
    def beta(self) -> float:
        """Temperature of the objective."""
        return self.objective.beta

    @property
    def converged(self) -> bool:
        """Whether the solver reached its goal, for `solve` an estimated error below the tolerance."""
        return self.status.converged

    @property
    def rate(self) -> float:
        """Rate R = I(x; tile) + KL(m || pi) in nats (T5), computed as F - E[H] with the rounding of these two."""
        return max(self.free_energy - self.energy, 0.0)

    @property
    def lagrangian(self) -> float:
        """F minus the constants lambda kappa^2 of the constraints; F itself for the ELBO (T5)."""
        return self.free_energy - self.objective.allowance

    @property
    def multipliers(self) -> dict[str, float]:
        """Multipliers lambda_k in force, by the names of the constraints; empty for an ELBO."""
        return getattr(self.objective, "named_multipliers", {})

    @property
    def constraint_values(self) -> dict[str, float]:
        """E[C_k] by name, each in its own units; a constraint holds where it is at most 0."""
        return dict(zip(self.multipliers, self.expected, strict=True))

    @property
    def active(self) -> dict[str, bool]:
        """Whether a constraint is active, lambda_k > 0, by name."""
        return {name: value > 0 for name, value in self.multipliers.items()}

    @property
    def marginal_kl(self) -> float:
        """KL(m || pi) in nats (T15)."""
        return max(float(equations.marginal_kl(self.marginal, self.tiling.masses)), 0.0)

    @property
    def tolerance(self) -> float:
        """Distance, in units of x, below which two reconstructions coincide."""
        stiffness = self.problem.framed.stiffness / self.frame.scale / self.frame.scale
        return same_distance(self.frame.scale, stiffness, self.error_estimate)

    @cached_property
    def problem(self) -> Problem:
        """The problem of this solution, in its frame and in float64, for passes over the data on the host."""
        rows = Rows(taken(self.x), self.weights, self.frame, np.dtype(np.float64), keep=False, names=self.names)
        # The blocks of a Dask array may be prepared for the solver already.
        return Problem.of(rows, self.objective, "auto" if is_lazy(self.x) else "reference")

    @cached_property
    def distinct(self) -> Sites:
        """Reconstructions that coincide to tolerance, with their summed prior and posterior masses.

        A tile without mass, neither prior nor posterior, is no reconstruction: it is counted with the nearest one.
        """
        sites = Sites(self.decoder, np.arange(len(self.decoder)), self.tiling.masses, self.marginal)
        return sites.with_mass(_NO_MASS).merged(self.tolerance)

    @cached_property
    def encoder(self) -> FloatArray:
        """Posterior masses q (N, K).

        Raises
        ------
        TooLargeError
            If it has more than 2^27 entries: use `encode` on blocks of rows.
        """
        return self.encode(self.x)

    @cached_property
    def labels(self) -> npt.NDArray[np.intp]:
        """Distinct reconstruction of largest posterior mass per data point, (N,)."""
        if is_lazy(self.x):
            labels: Any = per_row.per_row(self, self.x, per_row.nearest, self.distinct, columns=None, dtype=np.intp)
            return labels
        return np.concatenate([self.distinct.total(q).argmax(axis=1) for q in self.encoder_blocks()])

    def encoder_blocks(self, x: npt.ArrayLike | RowBlocks | None = None) -> Iterator[FloatArray]:
        """The encoder in blocks of rows (n, K), of the data or of new points, if the whole encoder is too large."""
        return (q for q, *_ in self._posteriors(self.problem if x is None else self._problem_of(x)))

    def extended_as(self, kind: type[S], **more: Any) -> S:
        """The same solution as an instance of a subclass, with additional fields or other values of some fields."""
        known = {f.name: getattr(self, f.name) for f in fields(FixedPoint)}
        return kind(**(known | more))

    def tied(self) -> FixedPoint:
        """The same solution with one tile for each distinct reconstruction, with the summed mass of its tiles.

        F, R and D are the same. The posterior masses of coincident tiles are added up.
        """
        sites = self.distinct
        assert sites.marginal is not None
        tiling = Tiling(sites.masses / sites.masses.sum())
        return replace(self, decoder=sites.decoder, tiling=tiling, marginal=sites.marginal, trajectory=None)

    def encode(self, x: npt.ArrayLike | RowBlocks) -> FloatArray:
        """Posterior masses of the tiles for new points (n, D): q (n, K), whose rows sum to 1 (T1).

        Raises
        ------
        ValueError
            If the points have another dimension than the decoder, or the likelihood does not admit them.
        TooLargeError
            If the result has more than 2^27 entries: encode blocks of rows.
        """
        if is_lazy(x):
            masses: Any = per_row.per_row(self, x, per_row.masses, columns=len(self.decoder))
            return masses
        problem = self._problem_of(x)
        if len(problem.data) * len(self.decoder) > memory.LARGEST:
            raise TooLargeError(
                f"the encoder would hold {len(problem.data)} x {len(self.decoder)} masses "
                f"({len(problem.data) * len(self.decoder) * 8 / 2**30:.1f} GiB): call encode on blocks of rows"
            )
        return np.concatenate([q for q, *_ in self._posteriors(problem)])

    def reconstruct(self, x: npt.ArrayLike | RowBlocks) -> FloatArray:
        """Expected reconstructions E_q[psi | x] of new points, (n, D), in units of x.

        Raises
        ------
        ValueError
            If the points have another dimension, or are not finite.
        """
        if is_lazy(x):
            decoder = self.decoder
            means: Any = per_row.per_row(self, x, per_row.reconstructed, decoder, columns=decoder.shape[1])
            return means
        return np.concatenate([q @ self.decoder for q, *_ in self._posteriors(self._problem_of(x))])

    def recomputed_free_energy(self) -> float:
        """F from one pass over the current data, in float64."""
        return float(self.problem.total(_free_energy, *self.code))

    def _problem_of(self, x: npt.ArrayLike | RowBlocks) -> Problem:
        """The problem for new points; for the data of the solution its own problem, which may include labels."""
        if x is self.x:
            return self.problem
        x = check_rows(x)
        if x.shape[1] != self.decoder.shape[1]:
            raise ValueError(f"x must have {self.decoder.shape[1]} columns like the data solved for, got {x.shape[1]}")
        for _, block in blocks_of(x):
            self.objective.check(block)
        return self.problem.on(x)

    @property
    def code(self) -> tuple[FloatArray, FloatArray]:
        """Reconstructions (K, D) in the frame of `problem`, and log prior masses (K,): arguments of its passes."""
        return self.frame.inward(self.decoder), equations.log_masses(self.tiling.masses)

    def _posteriors(self, problem: Problem) -> Iterator[Posterior]:
        """Blocks of the encoder (rows, K), in the order of the rows."""
        return problem.posteriors(*self.code)

    def plot(self, image_shape: tuple[int, ...] | None = None, ax: Any = None) -> Any:
        """Draw data and reconstructions, along the first principal axes of data of more than two dimensions.

        Parameters
        ----------
        image_shape : tuple of int, optional
            Height and width of data that are images, and perhaps channels: the reconstructions are drawn as images.
        ax : Axes, optional
            Axes to draw on; new Axes by default.

        Returns
        -------
        Axes
            The given Axes, or new ones.
        """
        if image_shape is not None:
            return picture("images", self, image_shape, ax=ax)
        return picture("reconstructions", self, ax)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the solution and its data to a .npz file; `FixedPoint.load` reads it.

        Raises
        ------
        TooLargeError
            If the solution does not fit into a file.
        """
        arrays = {name: getattr(self, name) for name in ("x", "weights", "decoder", "marginal", "trajectory")}
        storage.save(path, "FixedPoint", [vars(self)], arrays)

    @classmethod
    def load(cls, path: str | PathLike[str], objective: Objective | None = None) -> FixedPoint:
        """Read a solution that `save` wrote.

        Parameters
        ----------
        path : path
            A file that `save` wrote.
        objective : Objective, optional
            Objective of the solution. It is needed for a `Lagrangian`, because only an `ELBO` is in the file.

        Raises
        ------
        ValueError
            If the file does not contain a solution, is damaged or from a newer version, or if the objective is missing
            or another one. F is compared with that of the arrays, unless this takes long.
        """
        return storage.load(path, "FixedPoint", FixedPoint, objective)[0][0]


def _free_energy(block: Block, tiles: Tiles) -> Array:
    return equations.free_energy(posterior(block, tiles).log_partition, block.rho)


def same_distance(radius: float, stiffness: float, error: float) -> float:
    """Distance below which reconstructions coincide: far below the radius and the resolution stiffness^-1/2."""
    least = 1e-6 * (min(radius, stiffness**-0.5) if stiffness > 0 else radius)
    return float(np.clip(10 * error, least, 1e3 * least))
