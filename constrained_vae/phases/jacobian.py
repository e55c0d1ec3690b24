"""The Jacobian of the map at a fixed point (T8), its spectrum, and derivatives along the branch (T11).

With scores s_ib = (x_i - psi_b) . lambda grad^2 f(psi_b) u_b + eta_b a displacement (u, eta) of reconstructions and log
masses changes log q_ib by s_ib - sum_c q_ic s_ic, and so the next reconstruction and the log marginal posterior by

    (J (u, eta))_b = (1 / m_b) sum_i rho_i q_ib (x_i - psi_b, 1) (s_ib - sum_c q_ic s_ic).

In the metric (m lambda grad^2 f, m) it is symmetric and positive semi-definite, with the quadratic form
sum_i rho_i Var_{q_i}(s_i). So all is done in the symmetrised form, metric^1/2 J metric^-1/2, which has no units.
Nothing here solves for a fixed point: results are as good as the one put in, to first order in its error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator, eigsh, minres

from .._utils import memory
from .._utils.arrays import FloatArray
from .._utils.checks import TooLargeError, check_choice, check_count, check_instance
from ..data.prepared import Block, tree_sum
from ..latent.sites import Sites
from ..problems.posterior import Tiles, posterior
from ..results.fixed_point import FixedPoint

_DENSE = 512  # unknowns up to which the dense matrix is decomposed; above, Lanczos and MINRES
_CRITICAL = (1e-13, 1e-6)  # least and largest distance from 1 at which an eigenvalue counts as 1

_Rows = tuple[FloatArray, FloatArray, FloatArray]  # x (n, D) in the frame, rho (n,) and q (n, k) of a block


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Eigenpairs of a Jacobian, largest eigenvalue first.

    Attributes
    ----------
    values : (n,) array
        Eigenvalues. A displacement by an eigenvector changes F by (1 - eigenvalue) / 2 nats to second order (a shift of
        all log masses, of eigenvalue 0, by nothing).
    decoder : (n, k, D) array
        Displacements of the distinct reconstructions, in units of x, of length 1 in the metric with those below.
    log_masses : (n, k) array
        Displacements of their log prior masses; zero where masses are fixed.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> s = cv.solve([[-1.0], [1.0]], beta=0.5, tiling=cv.Tiling.uniform(2))
    >>> pairs = cv.Jacobian.at(s).eigenpairs()
    >>> pairs.values.round(6)  # (beta_c / beta) (1 - m^2), m = tanh(2 m) (theory.md section 5)
    array([0.166372])
    """

    values: FloatArray
    decoder: FloatArray
    log_masses: FloatArray


class _Symmetrised(NamedTuple):
    """What the symmetrised form metric^1/2 J metric^-1/2 needs of the sites, in the frame.

    Displacements are (k, D + 1) arrays that hold the log masses in the last column.
    """

    psi: FloatArray  # (k, D)
    stiffness: FloatArray  # (k, D), the root of lambda grad^2 f
    per_root_mass: FloatArray  # (k,), m^-1/2

    def scores(self, x: FloatArray, vector: FloatArray) -> FloatArray:
        """Scores s_ib of a symmetrised displacement, (rows, k)."""
        u = self.per_root_mass[:, None] * vector
        v = self.stiffness * u[:, :-1]
        return x @ v.T + (u[:, -1] - (self.psi * v).sum(axis=1))

    def expectation(self, x: FloatArray, change: FloatArray) -> FloatArray:
        """The symmetrised (1 / m_b) sum_i change_ib (x_i - psi_b, 1), a block's share, (k, D + 1)."""
        total = change.sum(axis=0)
        moved = self.stiffness * (change.T @ x - total[:, None] * self.psi)
        return self.per_root_mass[:, None] * np.column_stack([moved, total])


@dataclass(frozen=True, eq=False, repr=False)
class Jacobian:
    """The Jacobian of the map at a fixed point (T8), as an operator on displacements of its k sites.

    Unknowns are ordered by site: its D coordinates and, where masses are free, its log prior mass. A shift of all log
    masses has the eigenvalue 0, for the encoder does not see it. Sites without posterior mass and coordinates of
    curvature zero (settled at 0 or 1) take no part: their rows and columns are zero.

    Attributes
    ----------
    solution : FixedPoint
    sites : Sites
        The distinct reconstructions, in units of x; `sites.index` leads from tiles to them.
    free : bool
        Whether log masses are among the unknowns.
    psi : (k, D) array
        Their reconstructions in the frame of the solution.
    stiffness : (k, D) array
        Square root of lambda grad^2 f(psi), in the frame.
    mass : (k,) array
        Marginal posterior.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> s = cv.solve([[-1.0], [1.0]], beta=0.5, tiling=cv.Tiling.uniform(2))
    >>> Jacobian.at(s)
    Jacobian(2 sites, masses='fixed', shape=(2, 2))
    """

    solution: FixedPoint
    sites: Sites
    free: bool
    psi: FloatArray
    stiffness: FloatArray
    mass: FloatArray
    _kept: Iterable[_Rows]

    @classmethod
    def at(cls, solution: FixedPoint, *, masses: str | None = None, merge: bool = True) -> Jacobian:
        """The Jacobian at a solution, in one pass.

        Parameters
        ----------
        solution : FixedPoint
            Where.
        masses : {"fixed", "free"}, optional
            Whether the prior masses are part of the map; as they were solved for by default.
        merge : bool
            Merge coincident tiles. Otherwise each further tile of a site adds the eigenvalues of its split modes (T9),
            and with free masses one that is exactly 1.

        Raises
        ------
        ValueError
            For anything but a FixedPoint.
        NotImplementedError
            If the energy of the objective is no Bregman divergence.

        Examples
        --------
        >>> from constrained_vae import Tiling, solve
        >>> s = solve([[-1.0], [1.0]], beta=0.5, tiling=Tiling.uniform(2))
        >>> Jacobian.at(s).eigenpairs(1).values.round(6)  # (beta_c / beta)(1 - m^2), m = 0.957504
        array([0.166372])
        """
        check_instance(solution, "solution", FixedPoint, "solve(x)")
        if masses is None:
            masses = "free" if solution.masses_free else "fixed"
        free = check_choice(masses, "masses", ("fixed", "free")) == "free"
        tiles = Sites(solution.decoder, np.arange(len(solution.decoder)), solution.tiling.masses, solution.marginal)
        sites = solution.distinct if merge else tiles
        psi = solution.frame.inward(sites.decoder)
        problem = solution.problem
        curvature = problem.framed.curvature(psi)
        if curvature is None:
            raise NotImplementedError("the Jacobian of the map is known for Bregman energies only")
        kept = problem.kept(_rows, psi, sites.log_masses)
        mass = tree_sum(rho @ q for _, rho, q in kept)
        if sites.marginal is not None:  # a kernel may take less for nothing than this pass: such a site is not solved
            mass[sites.marginal == 0] = 0
        return cls(solution, sites, free, psi, np.sqrt(curvature), mass, kept)

    def __repr__(self) -> str:
        return f"Jacobian({len(self.sites)} sites, masses={'free' if self.free else 'fixed'!r}, shape={self.shape})"

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n), n = k D with fixed masses, k (D + 1) with free ones."""
        return (self.psi.size + self.free * len(self.psi),) * 2

    def product(self, decoder: Any, log_masses: Any = None) -> tuple[FloatArray, FloatArray]:
        """J times a displacement of the sites (k, D), in units of x, and of their log masses (k,), none by default.

        Returns that of the next reconstructions, in units of x, and that of the log marginal posterior, with free
        masses the next log masses. Raises ValueError for displacements of another shape.
        """
        k, dim = self.psi.shape
        u, eta = np.asarray(decoder), np.zeros(k) if log_masses is None else np.asarray(log_masses)
        if u.shape != (k, dim) or eta.shape != (k,):
            raise ValueError(
                f"displacements of the {k} sites must have shapes {(k, dim)} and {(k,)}, got {u.shape} and {eta.shape}"
            )
        root = np.sqrt(self.mass)[:, None]
        vector = np.column_stack([root * self.stiffness * u / self.solution.frame.scale, root[:, 0] * eta])
        return self._displacement(self._apply(vector))

    def operator(self) -> LinearOperator:
        """The symmetrised form metric^1/2 J metric^-1/2; its products stream over the rows in O(N k (D + 1))."""
        return LinearOperator(self.shape, matvec=self._matvec, rmatvec=self._matvec, dtype=np.float64)

    def dense(self) -> FloatArray:
        """The symmetrised form as an (n, n) array, from the deviations; TooLargeError above 2^26 entries."""
        (n, _), k = self.shape, len(self.psi)
        if n * n > memory.LARGEST // 2:
            raise TooLargeError(
                f"the Jacobian would hold {n} x {n} entries ({n * n * 8 / 2**30:.1f} GiB): "
                "use operator() or, for a few of them, eigenpairs()"
            )
        own, matrix = tree_sum(
            self._dense_part(x[i : i + rows], rho[i : i + rows], q[i : i + rows])
            for x, rho, q in self._kept
            for rows in [memory.rows_of_block(n)]
            for i in range(0, len(x), rows)
        )
        for a in range(k):
            part = slice(a * n // k, (a + 1) * n // k)
            matrix[part, part] += own[a]
        weight = np.repeat(self._symmetrised.per_root_mass, n // k)
        return weight[:, None] * matrix * weight

    def _dense_part(self, x: FloatArray, rho: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What some rows add to the blocks of single sites (k, n / k, n / k), and to all of the matrix (n, n)."""
        (n, _), (k, dim) = self.shape, self.psi.shape
        scores = np.ones((len(x), k, n // k))  # of unit displacements; the last of a log mass, if any
        scores[..., :dim] = self.stiffness * (x[:, None] - self.psi)
        root = scores * np.sqrt(rho[:, None] * q)[..., None]
        own = np.matmul(root.transpose(1, 2, 0), root.transpose(1, 0, 2))
        # Rounding of 1 - q_ib is felt only where the mode hardly is.
        mean = (root * np.sqrt(q)[..., None]).reshape(len(x), n)
        return own, -(mean.T @ mean)

    def eigenpairs(self, count: int = 1) -> Eigenpairs:
        """The `count` largest eigenvalues, at most all n, with their eigenvectors.

        A fixed point is a non-degenerate minimum over the positions (and free masses) of its sites iff the largest is
        below 1 (T8); it is the contraction factor of the plain map with coincident tiles tied (T10). The sign of an
        eigenvector makes its largest symmetrised component positive; Lanczos starts from a fixed vector.
        """
        values, vectors = self._leading(min(check_count(count, "count"), self.shape[0]))
        vectors = vectors * np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(values))] < 0, -1.0, 1.0)
        parts = [self._displacement(self._columns(vector)) for vector in vectors.T]
        return Eigenpairs(values, np.stack([u for u, _ in parts]), np.stack([eta for _, eta in parts]))

    # --- in the frame, symmetrised; (k, D + 1) arrays hold the log masses in the last column ------------------------

    @property
    def _symmetrised(self) -> _Symmetrised:
        return _Symmetrised(self.psi, self.stiffness, np.sqrt(_quotient(np.ones_like(self.mass), self.mass)))

    def _apply(self, vector: FloatArray) -> FloatArray:
        """J times a symmetrised displacement, log marginal masses included, (k, D + 1)."""
        form = self._symmetrised
        return tree_sum(form.expectation(x, _change(rho, q, form.scores(x, vector))) for x, rho, q in self._kept)

    def _columns(self, vector: FloatArray) -> FloatArray:
        """(k, D + 1) of the unknowns (n,); fixed log masses do not move."""
        columns = vector.reshape(len(self.psi), -1)
        return columns if self.free else np.column_stack([columns, np.zeros(len(columns))])

    def _unknowns(self, columns: FloatArray) -> FloatArray:
        return columns[:, : columns.shape[1] - (not self.free)].ravel()

    def _matvec(self, vector: FloatArray) -> FloatArray:
        return self._unknowns(self._apply(self._columns(vector)))

    def _displacement(self, columns: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Displacements in units of x, (k, D), and of log masses, (k,), of a symmetrised one."""
        u = self._symmetrised.per_root_mass[:, None] * columns
        return _quotient(u[:, :-1], self.stiffness) * self.solution.frame.scale, u[:, -1]

    def _leading(self, count: int) -> tuple[FloatArray, FloatArray]:
        """The largest eigenvalues, descending, and orthonormal eigenvectors (n, count), symmetrised."""
        n = self.shape[0]
        if n <= _DENSE or count == n:
            values, vectors = np.linalg.eigh(self.dense())
        else:
            start = np.random.default_rng(0).standard_normal(n)
            if not self._matvec(start).any():  # one site alone: the map is constant, which Lanczos cannot digest
                return np.zeros(count), np.eye(n, count)
            values, vectors = eigsh(self.operator(), k=count, v0=start, which="LA")
        order = np.argsort(-values, kind="stable")[:count]
        return values[order], vectors[:, order]


@dataclass(frozen=True, eq=False)
class Tangent:
    """Derivatives with respect to beta along the branch through a fixed point (T7), (T11).

    Times beta they are those with respect to log beta, times -beta / lambda those with respect to lambda.

    Attributes
    ----------
    sites : Sites
        The distinct reconstructions; `sites.index` leads from tiles to them.
    decoder : (k, D) array
        d psi / d beta of each, in units of x.
    log_marginal : (k,) array
        d log m / d beta of each; with free masses that of the log prior masses too.
    distortion : float
        d E||x - psi||^2 / d beta, in squared units of x, whatever the objective.
    rate, energy, free_energy : float
        Of R, E[H] and F, in nats: dR = -lambda dE[d], dF / d lambda = E[d].
    top_eigenvalue : float
        Largest eigenvalue of the Jacobian over these sites.
    critical : bool
        Whether an eigenvalue is 1 to the accuracy of the solution: the branch has no derivative along that mode, or
        more than one. The mode is left out of all derivatives, and the residual says what went with it.
    residual : float
        Of the linear equation, relative to its right-hand side, in the metric.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> s = cv.solve([[-1.0], [1.0]], beta=0.5, tiling=cv.Tiling.uniform(2))
    >>> d = cv.tangent(s)
    >>> bool(abs(d.rate + d.distortion / (2 * s.beta)) < 1e-9)  # dR = -lambda dD (T7)
    True
    """

    sites: Sites
    decoder: FloatArray
    log_marginal: FloatArray
    distortion: float
    rate: float
    energy: float
    free_energy: float
    top_eigenvalue: float
    critical: bool
    residual: float


def tangent(at: FixedPoint | Jacobian) -> Tangent:
    """Derivatives along the branch of fixed points, (I - J) d theta = dT, coincident tiles merged (T11).

    The energies of the objective must be proportional to 1 / beta, as those of `ELBO` are.

    Parameters
    ----------
    at : FixedPoint or Jacobian
        Where; with the Jacobian at hand it need not be computed anew.

    Returns
    -------
    Tangent
        Derivatives with respect to beta.

    Raises
    ------
    ValueError
        For anything else.
    NotImplementedError
        If the energy of the objective is no Bregman divergence.

    Examples
    --------
    >>> from constrained_vae import Tiling, solve
    >>> s = solve([[-1.0], [1.0]], beta=0.5, tiling=Tiling.uniform(2))
    >>> round(tangent(s).distortion, 6)  # D = 1 - m^2, m = tanh(m / beta): 8 m^2 (1 - m^2) / (1 - 2 (1 - m^2))
    0.731896
    """
    jacobian = at if isinstance(at, Jacobian) else Jacobian.at(at)
    solution, sites = jacobian.solution, jacobian.sites
    beta, problem = solution.beta, solution.problem
    code = jacobian.psi, sites.log_masses

    # Per unit of log beta the encoder changes directly by H_ib - H_i, H_i = sum_c q_ic H_ic: H is like a score.
    forcing, variance = problem.total(_forcing, *code, jacobian._symmetrised)
    rhs = jacobian._unknowns(forcing)
    z, top, critical = _solve(jacobian, rhs)
    rest = rhs - (z - jacobian._matvec(z))
    # lambda dE[d] = sum_i rho_i Var_{q_i}(H_i) + <z, (I - J) z>; in this form the error of z counts by its square.
    lam_dd = float(variance + z @ rhs + z @ rest)

    # The full change of the encoder. That of E||x - psi||^2 through psi itself is zero, for psi is the mean.
    columns = jacobian._columns(z)
    marginal, change = problem.total(_full_change, *code, jacobian._symmetrised, columns)
    distortion = float(change) if problem.framed.quadratic is None else lam_dd / problem.framed.quadratic

    norm = float(np.linalg.norm(rhs))
    return Tangent(
        sites=sites,
        decoder=jacobian._displacement(columns)[0] / beta,
        log_marginal=_quotient(marginal, jacobian.mass) / beta,
        distortion=distortion * solution.frame.scale**2 / beta,
        rate=-lam_dd / beta,
        energy=(lam_dd - solution.energy) / beta,
        free_energy=-solution.energy / beta,
        top_eigenvalue=top,
        critical=critical,
        residual=float(np.linalg.norm(rest)) / norm if norm else 0.0,
    )


def _solve(jacobian: Jacobian, rhs: FloatArray) -> tuple[FloatArray, float, bool]:
    """z with (I - J) z = rhs, symmetrised, but for critical modes; the top eigenvalue; whether a mode is critical.

    The leading modes, for small problems all, are solved for one by one: the slowest of a near transition is then out
    of the way of MINRES, which is also at home on saddles and, but for the residual, on what is left of critical modes.
    """
    n = len(rhs)
    values, vectors = jacobian._leading(n if n <= _DENSE else 1)
    # An error of the fixed point, in units of the resolution stiffness^-1/2, is about that of the eigenvalues.
    solution = jacobian.solution
    error = solution.error_estimate / solution.frame.scale
    blur = np.clip(error * np.sqrt(solution.problem.framed.stiffness), *_CRITICAL)
    at_one: npt.NDArray[np.bool_] = np.abs(1 - values) <= blur
    inverse = _quotient(np.ones_like(values), np.where(at_one, 0.0, 1 - values))
    operator = LinearOperator((n, n), matvec=lambda u: u - jacobian._matvec(u), dtype=np.float64)
    z = np.zeros(n)
    for _ in range(2):  # the second time refines
        rest = rhs - operator.matvec(z)
        along = vectors.T @ rest
        z = z + vectors @ (inverse * along)
        if n > _DENSE:
            z = z + minres(operator, rest - vectors @ along, rtol=1e-10)[0]
    return z, float(values[0]), bool(at_one.any())


def _quotient(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient that is 0 where the denominator is 0: dead sites, settled coordinates and critical modes stay put."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def _change(rho: FloatArray, q: FloatArray, scores: FloatArray) -> FloatArray:
    """Change of rho_i q_ib where log pi_b - H_ib changes by the scores, (rows, k)."""
    return np.multiply(rho[:, None] * q, scores - (q * scores).sum(axis=1, keepdims=True))


def _rows(block: Block, tiles: Tiles) -> _Rows:
    return block.x, block.rho, posterior(block, tiles).q


def _forcing(block: Block, tiles: Tiles, form: _Symmetrised) -> tuple[FloatArray, Any]:
    """dT / d log beta at fixed reconstructions, symmetrised (k, D + 1), and sum_i rho_i Var_{q_i}(H_i)."""
    q, _, H = posterior(block, tiles)
    change = _change(block.rho, q, H)
    return form.expectation(block.x, change), np.sum(change * H)


def _full_change(block: Block, tiles: Tiles, form: _Symmetrised, columns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """d m / d log beta (k,) for a displacement of the sites, and that of E||x - psi||^2 at fixed psi."""
    q, _, H = posterior(block, tiles)
    x, psi = block.x, form.psi
    change = _change(block.rho, q, H + form.scores(x, columns))
    squares = (x * x).sum(axis=1)[:, None] - 2 * x @ psi.T + (psi**2).sum(axis=1)
    return change.sum(axis=0), np.sum(change * squares)
