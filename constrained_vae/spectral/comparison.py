"""Comparison of the partition of a solution with those of spectral clustering, k-means and Gaussian mixtures (T18)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from .._utils import deadline, memory
from .._utils.blas import single_threaded
from .._utils.checks import (
    TooLargeError,
    check_count,
    check_flag,
    check_names,
    check_seed,
    check_sequence,
    check_time_limit,
    shown,
)
from .._utils.interrupts import deferred_interrupts
from ..data.graphs import is_lazy
from ..phases.branch import Branch
from ..results.fixed_point import FixedPoint
from ..results.status import NotConvergedWarning
from .partitions import BASELINES, UNDETERMINED, BranchComparison, SpectralComparison
from .pieces import pieces, spectral_partition
from .random_walk import affinity, spectrum

_AFFINITIES = ("posterior", "rbf")
_STARTS = 10  # random starts of k-means


@overload
def compare_spectral(
    solution: FixedPoint,
    n_clusters: int | None = None,
    affinities: Sequence[str] = _AFFINITIES,
    *,
    labels: Any = None,
    seed: int = 0,
    time_limit: float | None = None,
    progress: bool = False,
) -> SpectralComparison: ...
@overload
def compare_spectral(
    solution: Branch,
    n_clusters: int | None = None,
    affinities: Sequence[str] = _AFFINITIES,
    *,
    labels: Any = None,
    seed: int = 0,
    time_limit: float | None = None,
    progress: bool = False,
) -> BranchComparison: ...
def compare_spectral(
    solution: FixedPoint | Branch,
    n_clusters: int | None = None,
    affinities: Sequence[str] = _AFFINITIES,
    *,
    labels: Any = None,
    seed: int = 0,
    time_limit: float | None = None,
    progress: bool = False,
) -> SpectralComparison | BranchComparison:
    """Compare the partition of a solution, or of every solution of a branch, with clusterings by scikit-learn (T18).

    Parameters
    ----------
    solution : FixedPoint or Branch
        Result of `solve` or `sweep` for N points.
    n_clusters : int, optional
        Number of clusters of the other methods; by default the number of distinct reconstructions, at most N.
    affinities : sequence of {"posterior", "rbf"}
        Affinities of the spectral clusterings. "posterior" is diag(rho) P of the solution. "rbf" is the kernel
        exp(-lambda ||x - y||^2) with the lambda of the solution; it ignores the weights. (`SpectralClustering` ignores
        the affinity of a point with itself.) Where an affinity underflows, its graph is in pieces: as many pieces as
        clusters are the clusters, more clusters divide the pieces whose walks mix most slowly, and fewer clusters are
        not determined.
    labels : (N,) array_like, optional
        True classes, with which every partition is compared.
    seed : int
        Seed of the clusterings.
    time_limit : float, optional
        Budget in seconds, which is looked at between two clusterings; their imports do not count.
    progress : bool
        Show a progress bar over a branch.

    Returns
    -------
    SpectralComparison or BranchComparison
        A BranchComparison for a branch, with scores at every temperature. When the time is up, further clusterings are
        left out, as if they were not determined, and so are further temperatures.

    Raises
    ------
    ValueError
        For bad input; for "rbf" if the energy is not a squared distance, since then there is no lambda.
    TooLargeError
        For "posterior" above 2^27 pairs of points, since scikit-learn needs the whole affinity.

    Warns
    -----
    NotConvergedWarning
        If a solution has not converged, its partition is that of the last point; and if the time is up.
    UserWarning
        If an affinity does not determine the clusters, because its graph is in more pieces up to rounding, or the
        eigenvalue of the last cluster is equal to the next one.

    Examples
    --------
    >>> from constrained_vae import datasets, solve
    >>> data = datasets.four_clusters()
    >>> r = compare_spectral(solve(data.x, beta=0.2, n_tiles=16), labels=data.labels)
    >>> r.ari["posterior"], r.true_ari["solution"], r.eigengap_k
    (1.0, 1.0, 4)
    """
    if not isinstance(solution, (FixedPoint, Branch)):
        raise ValueError(
            f"solution must be a FixedPoint or a Branch such as solve(x) or sweep(x), got {shown(solution)}"
        )
    solutions = (solution,) if isinstance(solution, FixedPoint) else solution.solutions
    if not solutions:
        raise ValueError("the branch is empty: solve at least one temperature")
    n = len(solutions[0].weights)
    if is_lazy(solutions[0].x) and n * solutions[0].x.shape[1] > memory.LARGEST:
        raise TooLargeError(
            f"k-means and mixtures need the {n} rows at once: solve a sample of them, for example x[::100].compute(), "
            "or take spectrum(solution), which makes one pass"
        )
    names = (affinities,) if isinstance(affinities, str) else tuple(check_sequence(affinities, "affinities", str))
    if not set(names) <= set(_AFFINITIES) or len(set(names)) < len(names):
        raise ValueError(f"affinities must be some of {_AFFINITIES}, each once, got {shown(affinities)}")
    if n_clusters is not None and check_count(n_clusters, "n_clusters") > n:
        raise ValueError(f"n_clusters must be at most {n}, the number of points, got {n_clusters}")
    if "rbf" in names and any(multiplier(s) is None for s in solutions):
        raise ValueError(
            f"the kernel exp(-lambda ||x - y||^2) needs a squared distance as energy, got {solutions[0].objective!r}: "
            'leave it out, affinities=("posterior",)'
        )
    classes = None if labels is None else check_names(labels, "labels")
    if classes is not None and classes.shape != (n,):
        raise ValueError(f"labels must be {n}, one per data point, got shape {classes.shape}")
    seed, progress = check_seed(seed), check_flag(progress, "progress")
    time_limit = check_time_limit(time_limit)
    for s in solutions:
        if not s.converged:
            text = f"the solution at beta={s.beta:.6g} has not converged, {s.ending}"
            warnings.warn(text, NotConvergedWarning, stacklevel=2)
    baselines: dict[int, dict[str, npt.NDArray[np.intp]]] = {}  # by number of clusters, on which alone they depend
    in_pieces: list[str] = []

    def compare(s: FixedPoint) -> SpectralComparison:
        distinct = len(s.distinct)
        k = min(distinct, n) if n_clusters is None else n_clusters
        partitions = {"solution": np.asarray(s.labels)}
        for name in names:
            partitions[name], count = _spectral(name, s, k, seed)
            if partitions[name][0] == UNDETERMINED and count:
                in_pieces.append(f"the {name} affinity at beta={s.beta:.6g} ({count} pieces for {k} clusters)")
        if k not in baselines:
            baselines[k] = {name: _baseline(name, s, k, seed) for name in BASELINES}
        return SpectralComparison(s.beta, distinct, k, names, partitions | baselines[k], spectrum(s), classes)

    found: list[SpectralComparison] = []
    with deadline.within(time_limit), tqdm(solutions, disable=not progress, desc="comparing", unit="beta") as bar:
        for s in bar:
            if found and deadline.passed():
                break
            with deadline.finishing():  # the first comparison is always made, if only of the solution itself
                found.append(single_threaded(compare, s))  # threads that wait for each other would be much slower
    if len(found) < len(solutions) or found[-1].partitions[BASELINES[-1]][0] == UNDETERMINED:
        text = f"time_limit={time_limit:g}: clusterings were left out from beta={found[-1].beta:.6g} on"
        warnings.warn(text, NotConvergedWarning, stacklevel=2)
    if in_pieces:
        more = f" and {len(in_pieces) - 2} more" if len(in_pieces) > 2 else ""
        warnings.warn(
            "a graph in pieces, or with equal eigenvalues, may not determine its clusters, and scores are NaN: "
            f"{', '.join(in_pieces[:2])}{more}; give that n_clusters, or take a higher beta",
            stacklevel=2,
        )
    return found[0] if isinstance(solution, FixedPoint) else BranchComparison(tuple(found))


def multiplier(solution: FixedPoint) -> float | None:
    """lambda of the energy lambda ||x - psi||^2, in inverse squared units of x; None for any other energy.

    Examples
    --------
    >>> from constrained_vae import solve
    >>> multiplier(solve([[-1.0], [1.0]], beta=0.5))
    1.0
    """
    quadratic = solution.problem.framed.quadratic
    return None if quadratic is None else quadratic / solution.frame.scale**2


def _spectral(name: str, solution: FixedPoint, k: int, seed: int) -> tuple[npt.NDArray[np.intp], int]:
    """Partition by spectral clustering, -1 for every point if it is not determined, and the number of pieces.

    Without time left the number is 0.
    """
    with deadline.paused(), deferred_interrupts():
        from sklearn.metrics.pairwise import rbf_kernel

    n = len(solution.weights)
    if deadline.passed():
        return np.full(n, UNDETERMINED), 0
    if k in (1, n):  # one cluster, or one per point
        return np.arange(n) * (k > 1), 1
    graph = (
        affinity(solution) if name == "posterior" else rbf_kernel(np.asarray(solution.x), gamma=multiplier(solution))
    )
    found = spectral_partition(graph, k, seed)
    return np.full(n, UNDETERMINED) if found is None else found, pieces(graph)[0]


def _baseline(name: str, solution: FixedPoint, k: int, seed: int) -> npt.NDArray[np.intp]:
    """Partition by k-means with the data weights, or by a mixture of Gaussians with full covariances without them.

    It is -1 for every point without time left.
    """
    with deadline.paused(), deferred_interrupts():
        from sklearn.cluster import KMeans
        from sklearn.mixture import GaussianMixture

    if deadline.passed():
        return np.full(len(solution.weights), UNDETERMINED)
    x = np.asarray(solution.x, dtype=np.float64)
    if name == "kmeans":
        return (
            KMeans(k, n_init=_STARTS, random_state=seed).fit(x, sample_weight=solution.weights).labels_.astype(np.intp)
        )
    return np.asarray(GaussianMixture(k, random_state=seed).fit_predict(x), dtype=np.intp)
