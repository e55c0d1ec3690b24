"""SpectralComparison, BranchComparison: partitions side by side, at one temperature or along a branch (T18)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils import tables
from .._utils.arrays import FloatArray
from .._utils.interrupts import deferred_interrupts
from .._utils.pictures import picture
from .random_walk import eigengap

BASELINES = ("kmeans", "mixture")
UNDETERMINED = -1  # label of every point in a partition that does not exist


@dataclass(frozen=True, eq=False)
class SpectralComparison:
    """The partition of a solution, compared with those of spectral clustering, k-means and a Gaussian mixture.

    Attributes
    ----------
    beta : float
        Temperature of the solution.
    n_distinct : int
        Number of distinct reconstructions of the solution.
    n_clusters : int
        Number of clusters of the other methods.
    affinities : tuple of str
        Affinities of the spectral clusterings.
    partitions : dict of (N,) int arrays
        Partitions with the names "solution" (the distinct reconstruction of largest posterior mass), the names of the
        affinities, "kmeans" and "mixture". A spectral partition that the affinity does not determine, or one for which
        there was no time, is -1 everywhere, and its scores are NaN.
    eigenvalues : (k,) array
        Non-zero eigenvalues of the walk P, descending (T18).
    labels : (N,) array or None
        True classes, None if they were not given.

    Examples
    --------
    >>> from constrained_vae import compare_spectral, solve
    >>> s = solve([[-2.0], [-1.8], [1.8], [2.0]], beta=0.5, n_tiles=4)
    >>> compared = compare_spectral(s)
    >>> compared.n_distinct, compared.ari["posterior"]
    (2, 1.0)
    """

    beta: float
    n_distinct: int
    n_clusters: int
    affinities: tuple[str, ...]
    partitions: dict[str, npt.NDArray[np.intp]]
    eigenvalues: FloatArray
    labels: npt.NDArray[Any] | None

    @property
    def eigengap_k(self) -> int:
        """Number of clusters according to the eigengap of P."""
        return eigengap(self.eigenvalues)

    @cached_property
    def ari(self) -> dict[str, float]:
        """Adjusted Rand index of the solution with spectral clustering, by affinity."""
        return self._scores("adjusted_rand_score", self.partitions["solution"], self.affinities)

    @cached_property
    def ami(self) -> dict[str, float]:
        """Adjusted mutual information of the solution with spectral clustering, by affinity."""
        return self._scores("adjusted_mutual_info_score", self.partitions["solution"], self.affinities)

    @cached_property
    def baseline_ari(self) -> dict[str, float]:
        """Adjusted Rand index of the solution with "kmeans" and "mixture"."""
        return self._scores("adjusted_rand_score", self.partitions["solution"], BASELINES)

    @cached_property
    def baseline_ami(self) -> dict[str, float]:
        """Adjusted mutual information of the solution with "kmeans" and "mixture"."""
        return self._scores("adjusted_mutual_info_score", self.partitions["solution"], BASELINES)

    @cached_property
    def true_ari(self) -> dict[str, float]:
        """Adjusted Rand index of every partition with the true classes; empty if these were not given."""
        return {} if self.labels is None else self._scores("adjusted_rand_score", self.labels, tuple(self.partitions))

    @cached_property
    def true_ami(self) -> dict[str, float]:
        """Adjusted mutual information of every partition with the true classes; empty if these were not given."""
        names = tuple(self.partitions)
        return {} if self.labels is None else self._scores("adjusted_mutual_info_score", self.labels, names)

    @cached_property
    def contingency(self) -> dict[str, npt.NDArray[np.int64]]:
        """Contingency tables: points per cluster of the solution (rows) and of another partition or class ("truth")."""
        with deferred_interrupts():
            from sklearn.metrics.cluster import contingency_matrix

        others = {name: labels for name, labels in self.partitions.items() if name != "solution"}
        others |= {} if self.labels is None else {"truth": self.labels}
        return {name: contingency_matrix(self.partitions["solution"], other) for name, other in others.items()}

    def _scores(self, score: str, reference: npt.NDArray[Any], names: tuple[str, ...]) -> dict[str, float]:
        with deferred_interrupts():
            from sklearn import metrics

        def of(labels: npt.NDArray[np.intp]) -> float:
            return np.nan if labels[0] == UNDETERMINED else float(getattr(metrics, score)(reference, labels))

        return {name: of(self.partitions[name]) for name in names}

    def _repr_html_(self) -> str:
        scores = {"solution": 1.0, **self.ari, **self.baseline_ari}
        columns: dict[str, Any] = {"partition": list(self.partitions)}
        columns["clusters"] = [len(np.unique(labels)) for labels in self.partitions.values()]
        columns["ARI with the solution"] = [scores[name] for name in self.partitions]
        if self.true_ari:
            columns["ARI with the truth"] = [self.true_ari[name] for name in self.partitions]
        facts = [("beta", f"{self.beta:.6g}"), ("clusters by the eigengap", str(self.eigengap_k))]
        return tables.as_html("SpectralComparison", columns, facts)

    def plot(self, ax: Any = None) -> Any:
        """Draw the labels of all partitions side by side; the Axes."""
        return picture("partitions", self, ax)

    def __repr__(self) -> str:
        agree = "".join(f", {name} ARI {value:.4g}" for name, value in self.ari.items() if np.isfinite(value))
        truth = f", truth ARI {self.true_ari['solution']:.4g}" if self.true_ari else ""
        return (
            f"SpectralComparison(beta={self.beta:.6g}, {self.n_distinct} reconstructions, {self.n_clusters} clusters, "
            f"eigengap {self.eigengap_k}{agree}{truth})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class BranchComparison:
    """`SpectralComparison` at every temperature of a branch; scores are arrays over the temperatures.

    Attributes
    ----------
    comparisons : tuple of SpectralComparison
        The comparisons in the order of the branch.

    Examples
    --------
    >>> from constrained_vae import compare_spectral, sweep
    >>> branch = sweep([[-2.0], [-1.8], [1.8], [2.0]], betas=[5.0, 0.5], n_tiles=4)
    >>> compare_spectral(branch).n_distinct
    array([1, 2])
    """

    comparisons: tuple[SpectralComparison, ...]

    def __len__(self) -> int:
        return len(self.comparisons)

    def __getitem__(self, index: int) -> SpectralComparison:
        return self.comparisons[index]

    def __repr__(self) -> str:
        return f"BranchComparison({len(self)} temperatures, beta {self.betas[0]:.4g} to {self.betas[-1]:.4g})"

    def plot(self, ax: Any = None) -> Any:
        """Draw the agreement of the partitions against temperature; the Axes."""
        return picture("agreement", self, ax)

    @property
    def betas(self) -> FloatArray:
        """Temperatures (n,)."""
        return np.array([c.beta for c in self.comparisons])

    @property
    def n_distinct(self) -> npt.NDArray[np.intp]:
        """Numbers of distinct reconstructions (n,)."""
        return np.array([c.n_distinct for c in self.comparisons], dtype=np.intp)

    @property
    def n_clusters(self) -> npt.NDArray[np.intp]:
        """Numbers of clusters of the other methods (n,)."""
        return np.array([c.n_clusters for c in self.comparisons], dtype=np.intp)

    @property
    def eigengap_k(self) -> npt.NDArray[np.intp]:
        """Numbers of clusters according to the eigengap of P (n,)."""
        return np.array([c.eigengap_k for c in self.comparisons], dtype=np.intp)

    @property
    def eigenvalues(self) -> FloatArray:
        """Largest eigenvalues of P, (n, k), descending; all further eigenvalues are zero."""
        spectra = [c.eigenvalues for c in self.comparisons]
        width = max(map(len, spectra))
        return np.array([np.pad(values, (0, width - len(values))) for values in spectra])

    @cached_property
    def ari(self) -> dict[str, FloatArray]:
        """Adjusted Rand index of the solution with spectral clustering, an array (n,) per affinity."""
        return self._arrays("ari")

    @cached_property
    def ami(self) -> dict[str, FloatArray]:
        """See `SpectralComparison.ami`."""
        return self._arrays("ami")

    @cached_property
    def baseline_ari(self) -> dict[str, FloatArray]:
        """See `SpectralComparison.baseline_ari`."""
        return self._arrays("baseline_ari")

    @cached_property
    def baseline_ami(self) -> dict[str, FloatArray]:
        """See `SpectralComparison.baseline_ami`."""
        return self._arrays("baseline_ami")

    @cached_property
    def true_ari(self) -> dict[str, FloatArray]:
        """See `SpectralComparison.true_ari`."""
        return self._arrays("true_ari")

    @cached_property
    def true_ami(self) -> dict[str, FloatArray]:
        """See `SpectralComparison.true_ami`."""
        return self._arrays("true_ami")

    def _arrays(self, name: str) -> dict[str, FloatArray]:
        rows = [getattr(c, name) for c in self.comparisons]
        return {key: np.array([row[key] for row in rows]) for key in rows[0]}
