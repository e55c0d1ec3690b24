"""The Jacobian of the map at a fixed point (T8), its spectrum, and derivatives along the branch (T11).

With scores s_ib = (x_i - psi_b) . lambda grad^2 f(psi_b) u_b + eta_b a displacement (u, eta) of reconstructions and log
masses changes log q_ib by s_ib - sum_c q_ic s_ic, and so the next reconstruction and the log marginal posterior by

    (J (u, eta))_b = (1 / m_b) sum_i rho_i q_ib (x_i - psi_b, 1) (s_ib - sum_c q_ic s_ic).

In the metric (m lambda grad^2 f, m) it is symmetric and positive semi-definite, with the quadratic form
sum_i rho_i Var_{q_i}(s_i). So all is done in the symmetrised form, metric^1/2 J metric^-1/2, which has no units.
Nothing here solves for a fixed point: results are as good as the one put in, to first order in its error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import LinearOperator, eigsh, minres

from .. import equations
from .._utils.arrays import FloatArray
from .._utils.checks import TooLargeError, check_choice, check_count, check_instance
from ..data.rows import row_blocks
from ..latent.sites import Sites
from ..results.fixed_point import FixedPoint

_BLOCK = 2**20  # entries of a block of responsibilities, or of scaled deviations for the dense matrix
_KEPT = 2**26  # entries of data and responsibilities kept between products; above, they stream anew for each
_LARGEST = 2**26  # entries of the largest dense matrix
_DENSE = 512  # unknowns up to which the dense matrix is decomposed; above, Lanczos and MINRES
_CRITICAL = (1e-13, 1e-6)  # least and largest distance from 1 at which an eigenvalue counts as 1

_Block = tuple[FloatArray, FloatArray, FloatArray]


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
    _kept: tuple[_Block, ...] | None

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
        curvature = solution.objective.in_frame(solution.frame).curvature(psi)
        if curvature is None:
            raise NotImplementedError("the Jacobian of the map is known for Bregman energies only")
        keep = len(solution.x) * sum(psi.shape) <= _KEPT
        mass, kept = np.zeros(len(sites)), []
        for x, rho, q, _ in _rows(solution, sites):
            mass += rho @ q
            if keep:
                kept.append((x, rho, q))
        if sites.marginal is not None:  # a kernel may take less for nothing than this pass: such a site is not solved
            mass[sites.marginal == 0] = 0
        return cls(solution, sites, free, psi, np.sqrt(curvature), mass, tuple(kept) if keep else None)

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
        (n, _), (k, dim) = self.shape, self.psi.shape
        if n * n > _LARGEST:
            raise TooLargeError(
                f"the Jacobian would hold {n} x {n} entries ({n * n * 8 / 2**30:.1f} GiB): "
                "use operator() or, for a few of them, eigenpairs()"
            )
        matrix, own = np.zeros((n, n)), np.zeros((k, n // k, n // k))
        rows = max(1, _BLOCK // n)
        for x_block, rho_block, q_block in self._blocks():
            for start in range(0, len(x_block), rows):
                x, rho, q = (array[start : start + rows] for array in (x_block, rho_block, q_block))
                scores = np.ones((len(x), k, n // k))  # of unit displacements; the last of a log mass, if any
                scores[..., :dim] = self.stiffness * (x[:, None] - self.psi)
                root = scores * np.sqrt(rho[:, None] * q)[..., None]
                own += np.matmul(root.transpose(1, 2, 0), root.transpose(1, 0, 2))
                # Rounding of 1 - q_ib is felt only where the mode hardly is.
                mean = (root * np.sqrt(q)[..., None]).reshape(len(x), n)
                matrix -= mean.T @ mean
        for a in range(k):
            part = slice(a * n // k, (a + 1) * n // k)
            matrix[part, part] += own[a]
        weight = np.repeat(self._per_root_mass(), n // k)
        return weight[:, None] * matrix * weight

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

    def _blocks(self) -> Iterator[_Block]:
        """Row blocks (x, rho, q) in the frame: kept ones, or streamed anew."""
        return iter(self._kept) if self._kept is not None else (block[:3] for block in _rows(self.solution, self.sites))

    def _per_root_mass(self) -> FloatArray:
        return np.sqrt(_quotient(np.ones_like(self.mass), self.mass))

    def _scores(self, x: FloatArray, vector: FloatArray) -> FloatArray:
        """Scores s_ib of a symmetrised displacement, (rows, k)."""
        u = self._per_root_mass()[:, None] * vector
        v = self.stiffness * u[:, :-1]
        return x @ v.T + (u[:, -1] - (self.psi * v).sum(axis=1))

    def _expectation(self, x: FloatArray, change: FloatArray) -> FloatArray:
        """The symmetrised (1 / m_b) sum_i change_ib (x_i - psi_b, 1), a block's share, (k, D + 1)."""
        total = change.sum(axis=0)
        moved = self.stiffness * (change.T @ x - total[:, None] * self.psi)
        return self._per_root_mass()[:, None] * np.column_stack([moved, total])

    def _apply(self, vector: FloatArray) -> FloatArray:
        """J times a symmetrised displacement, log marginal masses included, (k, D + 1)."""
        image = np.zeros_like(vector)
        for x, rho, q in self._blocks():
            image += self._expectation(x, _change(rho, q, self._scores(x, vector)))
        return image

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
        u = self._per_root_mass()[:, None] * columns
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
    solution, sites, k = jacobian.solution, jacobian.sites, len(jacobian.sites)
    beta, quadratic = solution.beta, solution.objective.in_frame(solution.frame).quadratic

    # Per unit of log beta the encoder changes directly by H_ib - H_i, H_i = sum_c q_ic H_ic: H is like a score.
    forcing, variance = np.zeros((k, jacobian.psi.shape[1] + 1)), 0.0
    for x, rho, q, H in _rows(solution, sites):
        change = _change(rho, q, H)
        forcing += jacobian._expectation(x, change)
        variance += float(np.sum(change * H))
    rhs = jacobian._unknowns(forcing)
    z, top, critical = _solve(jacobian, rhs)
    rest = rhs - (z - jacobian._matvec(z))
    # lambda dE[d] = sum_i rho_i Var_{q_i}(H_i) + <z, (I - J) z>; in this form the error of z counts by its square.
    lam_dd = variance + float(z @ rhs + z @ rest)

    # The full change of the encoder. That of E||x - psi||^2 through psi itself is zero, for psi is the mean.
    columns, marginal, distortion = jacobian._columns(z), np.zeros(k), 0.0
    for x, rho, q, H in _rows(solution, sites):
        change = _change(rho, q, H + jacobian._scores(x, columns))
        marginal += change.sum(axis=0)
        if quadratic is None:
            square = (x * x).sum(axis=1)[:, None] - 2 * x @ jacobian.psi.T + (jacobian.psi**2).sum(axis=1)
            distortion += float(np.sum(change * square))
    if quadratic is not None:
        distortion = lam_dd / quadratic

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
    blur = np.clip(solution.error_estimate * np.sqrt(solution.objective.stiffness), *_CRITICAL)
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


def _rows(solution: FixedPoint, sites: Sites) -> Iterator[tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
    """Row blocks x (rows, D) in the frame, rho (rows,), encoder q (rows, k) and energies H (rows, k)."""
    objective = solution.objective.in_frame(solution.frame)
    v, b = objective.readout(solution.frame.inward(sites.decoder))
    size = max(1, _BLOCK // max(len(sites), v.shape[1]))
    for rows, block in row_blocks(solution.x, size):
        x = solution.frame.inward(np.asarray(block, dtype=np.float64))
        phi, s = objective.statistics(x, rows)
        H = equations.energies(phi, objective.offset(s), v, b)
        yield x, solution.weights[rows], equations.encoder(H, sites.log_masses)[0], H
