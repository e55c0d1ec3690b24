"""Passes over the affinities exp(-H_ia) of rows to reconstructions, for the best prior masses.

Two classes have the same methods: `partition(masses)` gives Z (N,), up to a factor for each row, `slope(Z)` gives c
(k,), `plain(masses)` the marginal posterior, and `products(Z)` the overlaps sum_i rho_i S_ia S_ib (k, k), where S_ia is
exp(-H_ia) / Z_i. `Affinities` takes energies of any kind, in blocks of rows, and keeps few affinities.
`CompiledAffinities` is for very many of a squared distance in a few dimensions: kernels leave out what cannot count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import ModuleType

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from .. import equations
from .._utils.arrays import FloatArray

_LEAST_Z = 1e-150  # least Z_i in the Newton model: S_ik and its square must be representable
_SPARSE = 1e-12  # entries rho_i S_ia that are smaller than this over N are left out: they change c_a by less than it
_DENSE = 0.1  # share of other entries from which the dense product is faster
_KEPT = 2**25  # affinities that are kept; more are computed anew in every pass
_COMPILED_DIMENSIONS = 4  # up to which kernels leave out rows and reconstructions

Energies = FloatArray | Callable[[], Iterable[FloatArray]]  # (N, k), or its blocks of rows in their order


class Affinities:
    """The affinities G = exp(-H), scaled by row, in blocks of rows, which are kept if they are few."""

    def __init__(self, energies: Energies, rho: FloatArray, count: int) -> None:
        self._energies, self.rho, self.count = energies, rho, count
        self._kept: list[tuple[slice, FloatArray]] | None = None

    def _blocks(self) -> Iterator[tuple[slice, FloatArray]]:
        """Energies (n, k) of some rows."""
        first = 0
        for H in self._energies() if callable(self._energies) else [self._energies]:
            yield slice(first, first + len(H)), H
            first += len(H)

    def affinities(self) -> Iterable[tuple[slice, FloatArray]]:
        """G (n, k) of some rows."""
        if self._kept is not None:
            return self._kept
        made = ((part, np.exp(H.min(axis=1, keepdims=True) - H)) for part, H in self._blocks())
        if len(self.rho) * self.count > _KEPT:
            return made
        self._kept = list(made)
        return self._kept

    def partition(self, masses: FloatArray) -> FloatArray:
        """Z (N,) of masses, up to the scales of the rows."""
        return np.concatenate([G @ masses for _, G in self.affinities()])

    def slope(self, Z: FloatArray) -> FloatArray:
        """c (k,) of the reconstructions."""
        parts = (self.rho[part] @ (G / np.maximum(Z[part], _LEAST_Z)[:, None]) for part, G in self.affinities())
        return np.asarray(sum(parts, np.zeros(self.count)))

    def plain(self, masses: FloatArray) -> FloatArray:
        """The marginal posterior, at which F is not larger (T6)."""
        logs = equations.log_masses(masses)
        parts = (self.rho[part] @ equations.encoder(H, logs)[0] for part, H in self._blocks())
        return np.asarray(sum(parts, np.zeros(self.count)))

    def products(self, Z: FloatArray) -> FloatArray:
        """sum_i rho_i S_ia S_ib (k, k). At low temperature most S are negligible."""
        matrix = np.zeros((self.count, self.count))
        for part, G in self.affinities():
            rho = self.rho[part, None]
            S = G / np.maximum(Z[part], _LEAST_Z)[:, None]
            weighted = np.sqrt(rho) * S
            some = rho * S > _SPARSE / len(self.rho)
            if np.count_nonzero(some) < _DENSE * some.size:
                narrow = csr_array(np.where(some, weighted, 0.0))
                matrix += (narrow.T @ narrow).toarray()
            else:
                matrix += weighted.T @ weighted
        return matrix


class CompiledAffinities:
    """Affinities exp(-lambda ||x_i - psi_a||^2), whose sums are those of the kernels of the coverage.

    The rows are in an order as of `near_order`.
    """

    def __init__(self, x: FloatArray, rho: FloatArray, psi: FloatArray, lam: float, backend: ModuleType) -> None:
        self._sites = near_order(psi, backend)
        self.x, self.rho, self.psi, self.lam, self.backend = x, rho, psi[self._sites], lam, backend
        self._largest = self._log_partition(np.ones(len(psi)))  # log of all affinities of a row together

    @staticmethod
    def pay(x: FloatArray, count: int, backend: ModuleType) -> bool:
        """Whether so many reconstructions of a squared distance have so many affinities that this is faster."""
        return len(x) * count > _KEPT and x.shape[1] <= _COMPILED_DIMENSIONS and hasattr(backend, "overlaps")

    def _log_partition(self, masses: FloatArray) -> FloatArray:
        """log Z (N,)."""
        inner = masses[self._sites]
        some = inner > 0
        return np.asarray(self.backend.log_sums(self.psi[some], np.log(inner[some]), self.lam, self.x))

    def _log_slope(self, log_Z: FloatArray) -> FloatArray:
        """log c (k,)."""
        found = np.empty(len(self.psi))
        found[self._sites] = self.backend.log_sums(self.x, np.log(self.rho) - log_Z, self.lam, self.psi)
        return found

    def _log_floored(self, Z: FloatArray) -> FloatArray:
        return np.asarray(np.log(np.maximum(Z, _LEAST_Z)) + self._largest)

    def partition(self, masses: FloatArray) -> FloatArray:
        """Z (N,) of masses, up to the scales of the rows."""
        return np.exp(self._log_partition(masses) - self._largest)

    def slope(self, Z: FloatArray) -> FloatArray:
        """c (k,) of the reconstructions."""
        return np.exp(self._log_slope(self._log_floored(Z)))

    def plain(self, masses: FloatArray) -> FloatArray:
        """The marginal posterior, at which F is not larger (T6)."""
        logs = equations.log_masses(masses) + self._log_slope(self._log_partition(masses))
        return np.exp(logs)

    def products(self, Z: FloatArray) -> FloatArray:
        """sum_i rho_i S_ia S_ib (k, k), without entries as in `Affinities`."""
        log_rho = np.log(self.rho)
        limit = np.log(_SPARSE / len(self.rho)) - float(log_rho.max()) / 2
        matrix = np.empty((len(self.psi), len(self.psi)))
        logs = log_rho - 2 * self._log_floored(Z)
        matrix[np.ix_(self._sites, self._sites)] = self.backend.overlaps(self.x, logs, self.lam, self.psi, limit)
        return matrix


def near_order(points: FloatArray, backend: ModuleType) -> npt.NDArray[np.intp]:
    """An order in which near points are together."""
    order = backend.order(points)
    return np.arange(len(points)) if order is None else np.asarray(order)
