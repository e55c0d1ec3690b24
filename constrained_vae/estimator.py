"""FixedPointVAE: fixed points as a scikit-learn estimator, which is a clusterer and a transformer."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from . import equations
from ._utils.arrays import FloatArray
from ._utils.checks import (
    check_choice,
    check_count,
    check_flag,
    check_moderate,
    check_seed,
    on_host,
    real_array,
)
from ._utils.defaults import N_TILES
from ._utils.frames import column_names, is_data_set, own_weights
from ._utils.messages import logger
from ._utils.tables import as_frame
from ._utils.threads import check_threads, with_threads
from .data.graphs import array_of, is_lazy
from .data.partitions import check_source, taken, weights_of
from .data.prepared import Block
from .latent.sites import Sites
from .objectives.elbo import ELBO
from .objectives.energies import CrossEntropy, Divergence
from .phases.branch import Branch
from .phases.criticality import first_critical_beta
from .phases.sweep import sweep
from .problems.posterior import Tiles, energies, posterior
from .results.fixed_point import FixedPoint
from .results.per_row import grouped, per_row
from .results.status import Status
from .solvers.solve import report_failure, solve

_SORT_TOL = (
    1e-6  # of the data's radius: coordinates are rounded to it for sorting, so that rounding errors do not matter
)
_START_ARGUMENTS = {"mean": None, "data": "data"}  # the argument `start` of `solve`


class FixedPointVAE(ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin, BaseEstimator):
    """A beta-VAE of high capacity at its fixed point (T1)-(T3): soft clustering with a temperature.

    The clusters are the distinct reconstructions, and the temperature beta determines their number. With equal masses
    there is one cluster above the first critical temperature (`first_critical_beta`, T9). With free masses the solution
    is a mixture of Gaussians of covariance sigma^2 beta I at a local maximum of the likelihood (T14).

    Parameters
    ----------
    beta : float or "auto"
        Temperature, relative to the decoder's variance. "auto" is half of the first critical temperature
        (`first_critical_beta`), that is theta = sigma^2 beta is half of the largest variance of the data along any
        axis, in whatever unit they are: the mean has split, and little more is resolved. `suggest` finds better ones.
    sigma : float
        Standard deviation of the Gaussian decoder, in units of X. Variance below theta = sigma^2 beta, in squared
        units, is not resolved. Standardise features of different units.
    likelihood : {"gaussian", "bernoulli", "poisson", "categorical"}
        Likelihood of the decoder, see `ELBO`: for any data, data in [0, 1], counts, and rows that sum to one. Only the
        Gaussian one uses sigma.
    n_tiles : int
        Number of latent tiles, which is the largest number of reconstructions. With free masses more tiles take longer,
        because more of them can split: on the digits at beta = 100, 32 tiles take about five times as long as 16.
    masses : {"fixed", "free"}
        Whether the prior masses of the tiles are equal ("fixed") or optimised ("free").
    start : {"mean", "data", "anneal"}
        Start from the mean with a little noise, from random data points, or from above the first transition by cooling
        (`sweep`). Cooling finds better optima with fixed masses (T17), and takes far longer if there are many
        transitions.
    restarts : int
        Moves of a tile in a row, after cooling, that must be of no use before the search for a lower free energy ends
        (`sweep`); 0 for no search. It has no meaning for another start.
    tol : float
        Tolerance on the error estimate, relative to the root-mean-square radius of the data.
    max_maps : int
        Budget of evaluations of the map.
    time_limit : float, optional
        Budget of a fit in seconds, kept as in `solve`.
    backend : {"auto", "numba", "cupy", "reference"}
        Backend that computes.
    random_state : int, RandomState or None
        Randomness of the start. Cooling is not random.
    warm_start : bool
        Whether a further `fit` starts at the reconstructions and masses of the last one, in place of `start`. It wants
        as many features and tiles as before; the data and all else may differ.
    threads : int, optional
        Largest number of threads of a call, for the kernels on the CPU and the linear algebra; by default as many as
        the libraries take. It changes no bits.

    Attributes
    ----------
    beta_ : float
        Temperature of the fit.
    solution_ : FixedPoint
        The solution, which other functions of the package take. It contains the training data, also when it is pickled.
    cluster_centers_ : (k, D) array
        Distinct reconstructions, in units of X, in lexicographic order of their coordinates. The order of
        ``solution_.distinct`` may differ.
    labels_ : (N,) int array
        Reconstruction of largest posterior mass of every training point.
    n_features_in_ : int
        Number of features D.
    feature_names_in_ : (D,) array of str
        Names of the features, if X was a data frame with names.

    See Also
    --------
    solve : The function behind the estimator, with more options.
    transitions : The temperatures at which the number of clusters changes.

    Notes
    -----
    There is no `partial_fit`: a fixed point is one of all rows together, and steps on batches would end somewhere near
    it at best. For data that do not fit into memory give a memory map or `RowBlocks` to `solve`, which goes over
    all of them in every map; for data that grow use `warm_start`.

    Examples
    --------
    >>> from constrained_vae.datasets import four_clusters
    >>> x = four_clusters(seed=0).x
    >>> vae = FixedPointVAE(beta=0.5).fit(x)
    >>> vae.cluster_centers_.shape, vae.transform(x).shape
    ((3, 2), (200, 3))
    """

    def __init__(
        self,
        beta: float | str = "auto",
        *,
        sigma: float = 1.0,
        likelihood: str = "gaussian",
        n_tiles: int = N_TILES,
        masses: str = "fixed",
        start: str = "mean",
        restarts: int = 0,
        tol: float = 1e-10,
        max_maps: int = 100_000,
        time_limit: float | None = None,
        backend: str = "auto",
        random_state: Any = 0,
        warm_start: bool = False,
        threads: int | None = None,
    ) -> None:
        self.beta = beta
        self.sigma = sigma
        self.likelihood = likelihood
        self.n_tiles = n_tiles
        self.masses = masses
        self.start = start
        self.restarts = restarts
        self.tol = tol
        self.max_maps = max_maps
        self.time_limit = time_limit
        self.backend = backend
        self.random_state = random_state
        self.warm_start = warm_start
        self.threads = threads

    def fit(self, X: npt.ArrayLike, y: Any = None, sample_weight: npt.ArrayLike | None = None) -> FixedPointVAE:
        """Solve for the reconstructions of the data.

        Parameters
        ----------
        X : (N, D) array_like, data frame, DataSet, or Dask array or dataframe
            Data.
        y : None
            Ignored.
        sample_weight : (N,) array_like, optional
            Weights of the points; they are normalised. By default those of a DataSet, or equal ones.

        Returns
        -------
        FixedPointVAE
            The fitted estimator.

        Raises
        ------
        ValueError
            For bad parameters or data.

        Warns
        -----
        NotConvergedWarning
            If the tolerance is not reached, or the time is up.
        """
        return with_threads(check_threads(self.threads), self._fitted, X, sample_weight)

    def _fitted(self, X: Any, sample_weight: Any) -> FixedPointVAE:
        sample_weight = own_weights(X, sample_weight)
        last = getattr(self, "solution_", None) if check_flag(self.warm_start, "warm_start") else None
        X = self._validated(X, reset=True)
        rho = _weights(X, sample_weight)
        check_choice(self.start, "start", (*_START_ARGUMENTS, "anneal"))
        restarts = check_count(self.restarts, "restarts", 0)
        common: dict[str, Any] = {
            "n_tiles": self.n_tiles,
            "weights": rho,
            "masses": self.masses,
            "tol": self.tol,
            "max_maps": self.max_maps,
            "time_limit": self.time_limit,
            "backend": self.backend,
            "seed": int(_generator(self.random_state).randint(2**31 - 1)),
            "on_failure": "return",
        }
        objective = ELBO(1.0, self.sigma, self.likelihood).at(self._temperature(X, rho))
        if last is not None:
            self._check_last(last, X.shape[1])
            found = [solve(X, objective, start=last, **common)]
        elif self.start == "anneal":
            found = list(cast(Branch, sweep(X, objective, betas=[objective.beta], restarts=restarts, **common)))
        else:
            found = [solve(X, objective, start=_START_ARGUMENTS[self.start], **common)]
        if not found or found[0].status is Status.INTERRUPTED:
            raise KeyboardInterrupt  # so that a grid search ends, too
        names = getattr(self, "feature_names_in_", None)
        self.solution_: FixedPoint = found[0] if names is None else replace(found[0], names=tuple(map(str, names)))
        self.beta_ = objective.beta
        report_failure(self.solution_, "warn", stacklevel=5)
        logger.info("%s", self.solution_)
        distinct, frame = self.solution_.distinct, self.solution_.frame
        rounded = np.round(frame.inward(distinct.decoder) / _SORT_TOL)
        self._order = np.lexsort(rounded.T[::-1])
        self.cluster_centers_ = distinct.decoder[self._order]
        self.labels_ = self._labels(X)
        return self

    def _check_last(self, last: FixedPoint, dim: int) -> None:
        if last.decoder.shape != (self.n_tiles, dim):
            k, d = last.decoder.shape
            raise ValueError(
                f"warm_start wants {k} tiles and {d} features as in the last fit, got n_tiles={self.n_tiles} and {dim} "
                "features: set warm_start=False, or fit a clone of the estimator"
            )

    def _temperature(self, X: FloatArray, rho: FloatArray) -> float:
        """beta, or half of the first critical temperature; 1 if all points coincide."""
        if not isinstance(self.beta, str):
            return self.beta
        if self.beta != "auto":
            raise ValueError(f"beta must be positive, or 'auto', got {self.beta!r}")
        objective = ELBO(1.0, self.sigma, self.likelihood)
        return first_critical_beta(X, objective, weights=rho, backend=self.backend) / 2 or 1.0

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.intp]:
        """Reconstruction of largest posterior mass, an index of `cluster_centers_`.

        Parameters
        ----------
        X : (n, D) array_like or data frame
            Training points or new points.

        Returns
        -------
        (n,) int array
            Labels.
        """
        check_is_fitted(self)
        return self._labels(self._validated(X))

    def predict_proba(self, X: npt.ArrayLike) -> FloatArray:
        """Posterior masses of the distinct reconstructions (T1), as `transform` returns them.

        Parameters
        ----------
        X : (n, D) array_like or data frame
            Training points or new points.

        Returns
        -------
        (n, k) array
            Masses; rows sum to 1, and `predict` returns the column of the largest.
        """
        check_is_fitted(self)
        return self._posterior(self._validated(X))

    def transform(self, X: npt.ArrayLike) -> FloatArray:
        """Posterior masses of the distinct reconstructions (T1).

        Parameters
        ----------
        X : (n, D) array_like or data frame
            Training points or new points.

        Returns
        -------
        (n, k) array
            Masses; rows sum to 1.
        """
        check_is_fitted(self)
        return self._posterior(self._validated(X))

    def inverse_transform(self, X: npt.ArrayLike) -> FloatArray:
        """Expected reconstructions E_q[g] = sum_a q_a psi_a.

        Parameters
        ----------
        X : (n, k) array_like or data frame
            Posterior masses of the distinct reconstructions, as from `transform`.

        Returns
        -------
        (n, D) array
            Reconstructions, in units of the data.

        Raises
        ------
        ValueError
            If X does not have one column per reconstruction.
        """
        check_is_fitted(self)
        _refuse_odd(X)
        with np.errstate(over="ignore"):
            q = check_moderate(check_array(X, dtype=np.float64), "X")
        if q.shape[1] != self._n_features_out:
            raise ValueError(
                f"X must hold one mass for each of the {self._n_features_out} reconstructions, as transform returns "
                f"them, got {q.shape[1]} columns"
            )
        return np.asarray(q @ self.cluster_centers_)

    def score(self, X: npt.ArrayLike, y: Any = None, sample_weight: npt.ArrayLike | None = None) -> float:
        """Mean evidence lower bound of points at beta = 1, for a model fitted at any beta (T3).

        It is sum_i rho_i [E_q log p(x_i | psi) - KL(q_i || pi)] with the encoder q of the fitted beta. The Gaussian
        decoder has log p(x | psi) = -||x - psi||^2 / (2 sigma^2) - (D / 2) log(2 pi sigma^2). Values on held-out points
        are comparable between different beta and different sigma.

        Parameters
        ----------
        X : (n, D) array_like or data frame
            Points.
        y : None
            Ignored.
        sample_weight : (n,) array_like, optional
            Weights of the points; they are normalised.

        Returns
        -------
        float
            The bound in nats per point; larger is better. It is minus infinity if a point is impossible: under the
            Bernoulli decoder one that differs from all points of the fit in a coordinate that is 0, or 1, in all of
            them; with counts and compositions one with something where all of them have nothing. The categorical
            decoder has -KL(x || psi) in place of log p(x | psi).
        """
        check_is_fitted(self)
        X = self._validated(X)
        rho = _weights(X, sample_weight)
        s = self.solution_
        points: Any = check_source(X, s.objective.check) if is_lazy(X) else X
        problem = s.problem.on(points, rho)
        unit = problem.at(s.objective.at(1.0))
        bound = -float(problem.total(_rate_and_energy, *s.code, unit.tiles(*s.code), s.decoder))
        slope = cast(ELBO, unit.objective).quadratic  # 1 / (2 sigma^2); others need no constant
        return bound if slope is None else bound - X.shape[1] / 2 * float(np.log(np.pi / slope))

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def _validated(self, X: npt.ArrayLike, reset: bool = False) -> FloatArray:
        if is_lazy(X):
            return self._lazy(X, reset)
        X = _with_names(X)
        _refuse_odd(X)
        with np.errstate(over="ignore"):  # of extended precision; what becomes infinite is refused
            array: FloatArray = validate_data(self, X, reset=reset, dtype=(np.float64, np.float32))
        return array

    def _lazy(self, X: Any, reset: bool) -> Any:
        """A Dask array of the rows; the names of the columns of a dataframe are checked as scikit-learn does."""
        array, names = array_of(X, "X")
        validate_data(
            self, as_frame({name: [0.0] for name in names}) if names else np.zeros((1, array.shape[1])), reset=reset
        )
        return array

    def _labels(self, X: FloatArray) -> Any:
        """The reconstruction of largest posterior mass of every row, (n,)."""
        if is_lazy(X):
            args = self.solution_.distinct, self._order
            return per_row(self.solution_, X, _nearest, *args, columns=None, dtype=np.intp)
        return self._posterior(X).argmax(axis=1)

    def _posterior(self, X: FloatArray) -> Any:
        """Posterior masses of the distinct reconstructions, (n, k)."""
        distinct = self.solution_.distinct
        if is_lazy(X):
            return per_row(self.solution_, X, grouped, distinct, self._order, columns=len(distinct))
        return np.concatenate([distinct.total(q)[:, self._order] for q in self.solution_.encoder_blocks(X)])


def _weights(X: Any, sample_weight: Any) -> FloatArray:
    """Weights (N,) of sum 1, also of a Dask array."""
    return weights_of(taken(X), sample_weight, "sample_weight")


def _nearest(q: FloatArray, sites: Sites, order: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    return grouped(q, sites, order).argmax(axis=1)


def _generator(random_state: Any) -> np.random.RandomState:
    if isinstance(random_state, (int, np.integer)):
        check_seed(random_state, "random_state")
    generator: np.random.RandomState = check_random_state(random_state)
    return generator


def _with_names(X: Any) -> Any:
    """What scikit-learn takes for a `DataSet` or a tensor; names of columns are kept where pandas is installed."""
    if not is_data_set(X):
        return on_host(X)
    names = column_names(X)
    if names is not None:
        with contextlib.suppress(ImportError):
            return as_frame(dict(zip(names, X.x.T, strict=True)))
    return X.x


def _refuse_odd(X: Any) -> None:
    """Raise ValueError for what scikit-learn would convert silently; everything else it refuses itself."""
    try:
        array = np.asarray(X)
    except Exception:
        return
    odd = (str, bytes, bool, np.bool_)
    mixed = array.dtype.kind == "O" and any(isinstance(item, odd) for item in array.ravel())
    if isinstance(X, np.ma.MaskedArray) or array.dtype.kind in "bMmSUT" or mixed:
        real_array(X, "X", "an (n, D) array of real numbers")


def _rate_and_energy(block: Block, tiles: Tiles, at_unit: Tiles, psi: FloatArray) -> FloatArray:
    """sum_i rho_i [KL(q_i || pi) + E_q H_i], with the encoder q at one temperature and the energies H at another.

    It is infinite if a point of positive weight has probability zero under every reconstruction.
    """
    objective = cast(ELBO, at_unit.objective)
    q, _, cost = posterior(block, tiles)
    H = energies(block, objective, at_unit.v, at_unit.b)
    if isinstance(objective.energy, (CrossEntropy, Divergence)):
        never = objective.energy.excluded(block.x, psi) | np.isneginf(tiles.log_masses)
        impossible = never.all(axis=1)
        if (block.rho[impossible] > 0).any():
            return np.asarray(np.inf)
        never[impossible] = False  # points of weight zero
        q, _ = equations.encoder(np.where(never, np.inf, cost), tiles.log_masses)
        H = np.where(never, 0.0, H)
    return equations.rate(q, tiles.log_masses, block.rho) + block.rho @ (q * H).sum(axis=1)
