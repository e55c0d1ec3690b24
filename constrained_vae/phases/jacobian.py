"""The Jacobian of the map at a fixed point, and its spectrum (T8).

A displacement (u, eta) of reconstructions and log masses has the scores s_ib = (x_i - psi_b) . lambda grad^2 f(psi_b)
u_b + eta_b. It changes log q_ib by s_ib - sum_c q_ic s_ic. It changes the next reconstruction and the log marginal
posterior by

    (J (u, eta))_b = (1 / m_b) sum_i rho_i q_ib (x_i - psi_b, 1) (s_ib - sum_c q_ic s_ic).

In the metric (m lambda grad^2 f, m) the Jacobian is symmetric and positive semi-definite, with the quadratic form
sum_i rho_i Var_{q_i}(s_i). All computations use the symmetrised form, metric^1/2 J metric^-1/2, which has no units. The
errors of the results are of first order in the error of the fixed point that was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator, eigsh

from .._utils import deadline, memory
from .._utils.arrays import FloatArray
from .._utils.checks import (
    TooLargeError,
    check_array,
    check_choice,
    check_count,
    check_flag,
    check_instance,
    check_moderate,
)
from .._utils.eigenvectors import eigh
from ..data.prepared import Block, Kept
from ..latent.sites import Sites
from ..problems.posterior import Tiles, posterior
from ..results.fixed_point import FixedPoint
from ..solvers.symmetrised import assembled, dense_sums

_MAX_DENSE_UNKNOWNS = 512  # with more unknowns Lanczos and MINRES replace the decomposition of the dense matrix

_Rows = tuple[FloatArray, FloatArray, FloatArray]  # x (n, D) in the frame, rho (n,) and q (n, k) of a block


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Eigenpairs of a Jacobian, largest eigenvalue first.

    Attributes
    ----------
    values : (n,) array
        Eigenvalues. A displacement by an eigenvector changes F by (1 - eigenvalue) / 2 nats to second order. The
        exception is a shift of all log masses: it has the eigenvalue 0 and does not change F.
    decoder : (n, k, D) array
        Displacements of the distinct reconstructions, in units of x. Together with `log_masses` they have length 1 in
        the metric.
    log_masses : (n, k) array
        Displacements of the log prior masses; zero where masses are fixed.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> s = cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    >>> pairs = cv.Jacobian.at(s).eigenpairs()
    >>> pairs.values.round(6)  # (beta_c / beta) (1 - m^2), m = tanh(2 m) (docs/theory.md section 5)
    array([0.166372])
    """

    values: FloatArray
    decoder: FloatArray
    log_masses: FloatArray


class Symmetrised(NamedTuple):
    """The sites as the symmetrised form metric^1/2 J metric^-1/2 needs them, in the frame.

    Displacements are (k, D + 1) arrays that hold the log masses in the last column.
    """

    psi: FloatArray  # (k, D)
    stiffness: FloatArray  # (k, D), the square root of lambda grad^2 f
    per_root_mass: FloatArray  # (k,), m^-1/2

    def scores(self, x: FloatArray, vector: FloatArray) -> FloatArray:
        """Scores s_ib of a symmetrised displacement, (rows, k)."""
        u = self.per_root_mass[:, None] * vector
        v = self.stiffness * u[:, :-1]
        return x @ v.T + (u[:, -1] - (self.psi * v).sum(axis=1))

    def expectation(self, x: FloatArray, change: FloatArray) -> FloatArray:
        """The share of a block in the symmetrised (1 / m_b) sum_i change_ib (x_i - psi_b, 1), (k, D + 1)."""
        total = change.sum(axis=0)
        moved = self.stiffness * (change.T @ x - total[:, None] * self.psi)
        return self.per_root_mass[:, None] * np.column_stack([moved, total])


@dataclass(frozen=True, eq=False, repr=False)
class Jacobian:
    """The Jacobian of the map at a fixed point (T8), as an operator on displacements of its k sites.

    Unknowns are ordered by site: its D coordinates and, where masses are free, its log prior mass. A shift of all log
    masses has the eigenvalue 0, because it does not change the encoder. The rows and columns of sites without posterior
    mass, and of coordinates of curvature zero (settled at 0 or 1), are zero.

    Attributes
    ----------
    solution : FixedPoint
    sites : Sites
        The distinct reconstructions, in units of x; `sites.index` has the number of the site of every tile.
    free : bool
        Whether log masses are among the unknowns.
    psi : (k, D) array
        Reconstructions of the sites, in the frame of the solution.
    stiffness : (k, D) array
        Square root of lambda grad^2 f(psi), in the frame.
    mass : (k,) array
        Marginal posterior of the sites.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> s = cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    >>> Jacobian.at(s)
    Jacobian(2 sites, masses='fixed', shape=(2, 2))
    """

    solution: FixedPoint
    sites: Sites
    free: bool
    psi: FloatArray
    stiffness: FloatArray
    mass: FloatArray
    _kept: Kept

    @classmethod
    def at(cls, solution: FixedPoint, *, masses: str | None = None, merge: bool = True) -> Jacobian:
        """The Jacobian at a solution, from one pass over the data.

        Parameters
        ----------
        solution : FixedPoint
            A fixed point.
        masses : {"fixed", "free"}, optional
            Whether the prior masses are part of the map; by default as in the solution.
        merge : bool
            Merge coincident tiles. Otherwise every further tile of a site adds the eigenvalues of its split modes (T9)
            and, with free masses, an eigenvalue that is exactly 1.

        Raises
        ------
        ValueError
            If `solution` is not a FixedPoint.
        NotImplementedError
            If the energy of the objective is not a Bregman divergence.

        Examples
        --------
        >>> from constrained_vae import solve
        >>> s = solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
        >>> Jacobian.at(s).eigenpairs(1).values.round(6)  # (beta_c / beta)(1 - m^2), m = 0.957504
        array([0.166372])
        """
        check_instance(solution, "solution", FixedPoint, "solve(x)")
        if masses is None:
            masses = "free" if solution.masses_free else "fixed"
        free = check_choice(masses, "masses", ("fixed", "free")) == "free"
        tiles = Sites(solution.decoder, np.arange(len(solution.decoder)), solution.tiling.masses, solution.marginal)
        sites = solution.distinct if check_flag(merge, "merge") else tiles
        psi = solution.frame.inward(sites.decoder)
        problem = solution.problem
        curvature = problem.framed.curvature(psi)
        if curvature is None:
            raise NotImplementedError("the Jacobian of the map is known for Bregman energies only")
        kept = problem.kept(_rows, psi, sites.log_masses)
        mass = kept.total(_mass)
        if sites.marginal is not None:  # kernels may round a mass to zero that this pass does not: the site is dead
            mass[sites.marginal == 0] = 0
        return cls(solution, sites, free, psi, np.sqrt(curvature), mass, kept)

    def __repr__(self) -> str:
        return f"Jacobian({len(self.sites)} sites, masses={'free' if self.free else 'fixed'!r}, shape={self.shape})"

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n) with n = k D for fixed masses, n = k (D + 1) for free masses."""
        return (self.psi.size + self.free * len(self.psi),) * 2

    def product(self, decoder: npt.ArrayLike, log_masses: npt.ArrayLike | None = None) -> tuple[FloatArray, FloatArray]:
        """J times a displacement of the sites (k, D), in units of x, and of their log masses (k,), zero by default.

        Returns the displacement of the next reconstructions, in units of x, and of the log marginal posterior, which is
        the next log mass if masses are free.

        Raises
        ------
        ValueError
            If a displacement has another shape, or numbers too large for float64.
        """
        k, dim = self.psi.shape
        u = check_moderate(check_array(decoder, "decoder", (k, dim)), "decoder")
        eta = np.zeros(k) if log_masses is None else check_array(log_masses, "log_masses", (k,))
        root = np.sqrt(self.mass)[:, None]
        vector = np.column_stack([root * self.stiffness * u / self.solution.frame.scale, root[:, 0] * eta])
        return self._displacement(self._apply(vector))

    def operator(self) -> LinearOperator:
        """The symmetrised form metric^1/2 J metric^-1/2; its products stream over the rows in O(N k (D + 1))."""
        return LinearOperator(self.shape, matvec=self._matvec, rmatvec=self._matvec, dtype=np.float64)

    def dense(self) -> FloatArray:
        """The symmetrised form as an (n, n) array; raises TooLargeError above 2^26 entries.

        Raises
        ------
        TooLargeError
            If the matrix would be too large; `eigenpairs` needs none.
        """
        n, _ = self.shape
        if n * n > memory.LARGEST // 2:
            raise TooLargeError(
                f"the Jacobian would hold {n} x {n} entries ({n * n * 8 / 2**30:.1f} GiB): "
                "use operator() or, for a few eigenvalues, eigenpairs()"
            )
        sums = self._kept.total(_dense, self.psi, self.stiffness, n)
        return assembled(sums, self._symmetrised.per_root_mass)

    def eigenpairs(self, count: int = 1) -> Eigenpairs:
        """The `count` largest eigenvalues, at most n, with their eigenvectors.

        A fixed point is a non-degenerate minimum over the positions (and free masses) of its sites iff the largest
        eigenvalue is below 1 (T8). This eigenvalue is the contraction factor of the plain map with coincident tiles
        tied (T10). The sign of an eigenvector makes its largest symmetrised component positive. Lanczos starts from a
        fixed vector.

        Raises
        ------
        ValueError
            If `count` is no whole number of at least 1.
        """
        values, vectors = self._leading(min(check_count(count, "count"), self.shape[0]))
        vectors = vectors * np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(values))] < 0, -1.0, 1.0)
        parts = [self._displacement(self._columns(vector)) for vector in vectors.T]
        return Eigenpairs(values, np.stack([u for u, _ in parts]), np.stack([eta for _, eta in parts]))

    # --- in the frame, symmetrised; (k, D + 1) arrays hold the log masses in the last column ------------------------

    @property
    def _small(self) -> bool:
        """Whether the dense matrix is decomposed."""
        return self.shape[0] <= _MAX_DENSE_UNKNOWNS

    @property
    def _symmetrised(self) -> Symmetrised:
        return Symmetrised(self.psi, self.stiffness, np.sqrt(quotient(np.ones_like(self.mass), self.mass)))

    def _apply(self, vector: FloatArray) -> FloatArray:
        """J times a symmetrised displacement, log masses included, (k, D + 1)."""
        deadline.check()
        return self._kept.total(_product, self._symmetrised, vector)

    def _columns(self, vector: FloatArray) -> FloatArray:
        """The unknowns (n,) as a (k, D + 1) array; displacements of fixed log masses are zero."""
        columns = vector.reshape(len(self.psi), -1)
        return columns if self.free else np.column_stack([columns, np.zeros(len(columns))])

    def _unknowns(self, columns: FloatArray) -> FloatArray:
        return columns[:, : columns.shape[1] - (not self.free)].ravel()

    def _matvec(self, vector: FloatArray) -> FloatArray:
        return self._unknowns(self._apply(self._columns(vector)))

    def _displacement(self, columns: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The displacements (k, D), in units of x, and of log masses, (k,), of a symmetrised displacement."""
        u = self._symmetrised.per_root_mass[:, None] * columns
        return quotient(u[:, :-1], self.stiffness) * self.solution.frame.scale, u[:, -1]

    def _leading(self, count: int) -> tuple[FloatArray, FloatArray]:
        """The largest eigenvalues, descending, and orthonormal eigenvectors (n, count) of the symmetrised form."""
        n = self.shape[0]
        if self._small or count == n:
            values, vectors = eigh(self.dense())
        else:
            start = np.random.default_rng(0).standard_normal(n)
            if not self._matvec(start).any():  # with a single site the map is constant, and Lanczos fails for J = 0
                return np.zeros(count), np.eye(n, count)
            values, vectors = eigsh(self.operator(), k=count, v0=start, which="LA")
        order = np.argsort(-values, kind="stable")[:count]
        return values[order], vectors[:, order]


def quotient(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient that is 0 where the denominator is 0: dead sites, settled coordinates and critical modes do not move."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def encoder_change(rho: FloatArray, q: FloatArray, scores: FloatArray) -> FloatArray:
    """Change of rho_i q_ib, (rows, k), if log pi_b - H_ib changes by the scores."""
    return np.multiply(rho[:, None] * q, scores - (q * scores).sum(axis=1, keepdims=True))


def _rows(block: Block, tiles: Tiles) -> _Rows:
    return block.x, block.rho, posterior(block, tiles).q


def _mass(rows: _Rows) -> FloatArray:
    _, rho, q = rows
    return rho @ q


def _dense(rows: _Rows, psi: FloatArray, stiffness: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    return dense_sums(*rows, psi, stiffness, n)


def _product(rows: _Rows, form: Symmetrised, vector: FloatArray) -> FloatArray:
    x, rho, q = rows
    return form.expectation(x, encoder_change(rho, q, form.scores(x, vector)))
