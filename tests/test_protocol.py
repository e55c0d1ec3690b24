"""The protocol of energies (T4): tried on one that the package does not have, and derivatives of all that it has.

FRE, the feature reconstruction error lambda ||f(x) - f(psi)||^2 with random Fourier features f(x) = cos(W x + c), has
statistics f(x), readout v = 2 lambda f(psi), b = -lambda ||f(psi)||^2 and no closed decoder update: that is an inner
minimisation, which needs the marginal posterior m and the sums sum_i rho_i q_ia f(x_i) alone.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from closed_forms import EPS
from naive import naive_from_energies

import constrained_vae as cv
from constrained_vae import constraints
from constrained_vae.acceleration import ACCELERATORS


class Fourier:
    """Features f(x) = cos(W x + c), shape (n, S), and their derivatives."""

    def __init__(self, W, c):
        self.W, self.c = W, c

    def __call__(self, x):
        return np.cos(x @ self.W.T + self.c)

    def jacobian(self, x):
        """f'(x), (n, S, D)."""
        return -np.sin(x @ self.W.T + self.c)[:, :, None] * self.W

    @classmethod
    def random(cls, rng, n_features=7, dim=2):
        return cls(rng.normal(size=(n_features, dim)), rng.uniform(0, 2 * np.pi, size=n_features))


class Linear:
    """Features A x."""

    def __init__(self, A):
        self.A = A

    def __call__(self, x):
        return x @ self.A.T

    def jacobian(self, x):
        return np.broadcast_to(self.A, (len(x), *self.A.shape))


class FeatureError:
    """||f(x) - f(psi)||^2 at multiplier one, in the form of `constrained_vae.constraints`."""

    def __init__(self, features):
        self.features = features

    def statistics(self, x):
        f = self.features(x)
        return f, (f * f).sum(axis=1)

    def readout(self, psi):
        f = self.features(psi)
        return 2 * f, -(f * f).sum(axis=1)

    def pullback(self, psi, dv, db):
        """One vector-Jacobian product: 2 f'(psi)^T (dv - db f(psi))."""
        return 2 * np.einsum("ksd,ks->kd", self.features.jacobian(psi), dv - db[:, None] * self.features(psi))

    def curvature(self, psi):
        return None

    def update(self, mass, sums, psi, steps=60):
        """Minimise sum_i rho_i q_ia H_ia over each psi_a from where it is, all tiles at once (T2).

        Newton steps on the gradient that `pullback` gives, with the absolute value of its (differenced) derivative; a
        step is taken only where the error falls, or cannot tell and the gradient does.
        """
        alive = mass > 0
        share = np.where(alive, mass, 1.0)[:, None]
        target = sums / share

        def error(psi):
            return np.square(self.features(psi) - target).sum(axis=1)

        def gradient(psi):
            return -self.pullback(psi, target, np.ones(len(psi)))

        length = np.ones(len(psi))
        best, slope = error(psi), gradient(psi)
        for _ in range(steps):
            kicks = 1e-5 * np.eye(psi.shape[1])
            hessian = np.stack([(gradient(psi + kick) - gradient(psi - kick)) / 2e-5 for kick in kicks], axis=2)
            values, vectors = np.linalg.eigh((hessian + hessian.transpose(0, 2, 1)) / 2)
            bend = np.maximum(np.abs(values), 1e-6)
            step = np.einsum("kde,ke,kfe,kf->kd", vectors, 1 / bend, vectors, slope)
            tried = psi - length[:, None] * step
            now, slope_there = error(tried), gradient(tried)
            level = np.abs(now - best) <= 64 * EPS * (1 + best)
            flatter = np.square(slope_there).sum(axis=1) < np.square(slope).sum(axis=1)
            better = alive & np.where(level, flatter, now < best)
            if not better.any() and length.min() < 1e-3:
                break
            psi, slope = (np.where(better[:, None], new, old) for new, old in ((tried, psi), (slope_there, slope)))
            best = np.where(better, now, best)
            length = np.where(better, 1.0, length / 4)
        return psi


@dataclass(frozen=True)
class FRE:
    """F = R + lambda E||f(x) - f(psi)||^2, as `constrained_vae.objectives` asks for it; lambda = 1 / (2 beta)."""

    energy: FeatureError
    beta: float = 1.0

    equivariant = False
    quadratic = None
    allowance = 0.0

    @property
    def multiplier(self) -> float:
        return 0.5 / self.beta

    @property
    def stiffness(self) -> float:
        return 2 * self.multiplier

    def at(self, beta):
        return replace(self, beta=beta)

    def check(self, x):
        pass

    def in_frame(self, frame):
        return self

    def statistics(self, x, rows=None):
        return self.energy.statistics(x)

    def offset(self, s):
        return self.multiplier * s

    def readout(self, psi):
        v, b = self.energy.readout(psi)
        return self.multiplier * v, self.multiplier * b

    def decoder(self, mass, sums, psi):
        return self.energy.update(mass, sums, psi)

    def coordinates(self, psi):
        return psi

    def reconstructions(self, u):
        return u

    def curvature(self, psi):
        return None

    def settings(self) -> dict[str, Any]:
        return {"objective": "FRE", "beta": self.beta}


@pytest.fixture
def fourier(rng):
    """Points in the plane, features of them, tiles and a start."""
    x = rng.normal(size=(50, 2)) * 0.8
    objective = FRE(FeatureError(Fourier.random(rng)), beta=0.15)
    masses = np.array([0.4, 0.3, 0.2, 0.1])
    return x, objective, {"tiling": cv.Tiling(masses), "start": rng.normal(size=(4, 2)) * 0.5}


def naive_fre(x, objective, psi, masses):
    """F, the mean squared error of the points, the expected gradient per tile (T2) and m, written out."""
    f, g, n = objective.energy.features(x), objective.energy.features(psi), len(x)
    H = np.square(f[:, None] - g).sum(axis=2) * objective.multiplier  # (N, K)
    naive = naive_from_energies(H, f, np.full(n, 1 / n), np.log(masses))
    weighted = naive.encoder / n
    distortion = (weighted * np.square(x[:, None] - psi).sum(axis=2)).sum()
    slope = (
        -2
        * objective.multiplier
        * np.einsum("na,nas,asd->ad", weighted, f[:, None] - g, objective.energy.features.jacobian(psi))
    )
    return naive, distortion, slope


# --- FRE through solve() ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accelerate", ACCELERATORS)
@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_fre_is_solved(backend, accelerate, masses, fourier):
    """The free energy never rises, T2 holds at the end, and the distortion is that of the points, not the features."""
    x, objective, options = fourier
    free_energies = []
    s = cv.solve(
        x,
        objective,
        masses=masses,
        accelerate=accelerate,
        backend=backend,
        tol=1e-8,
        max_maps=3000,
        callback=lambda iterate: free_energies.append(iterate.free_energy),
        **options,
    )
    assert s.converged
    naive, distortion, slope = naive_fre(x, objective, s.decoder, s.tiling.masses)
    # Energies lambda (|f|^2 + |g|^2), of which two free energies are compared.
    rounding = 4 * EPS * (len(x) + 10 * objective.multiplier * 2 * 7)
    assert np.diff(free_energies).max() <= rounding
    assert free_energies[0] - free_energies[-1] > 0.1
    assert s.free_energy == pytest.approx(naive.free_energy, abs=rounding)
    assert s.energy == pytest.approx(naive.energy, abs=rounding)
    assert s.distortion == pytest.approx(distortion, rel=1e-12)
    assert s.marginal == pytest.approx(naive.mass, abs=1e-12)
    assert s.encoder == pytest.approx(naive.encoder, abs=1e-12)
    # An error of 1e-8 of psi, times a second derivative of lambda 2 |f'|^2 m, some 100 at most.
    assert np.abs(slope).max() < 1e-6
    if masses == "free":
        assert s.tiling.masses == pytest.approx(s.marginal, abs=1e-6)
    assert np.isnan(s.top_eigenvalue)  # the split condition is known for Bregman energies only


def test_fre_iterates_are_those_of_the_naive_map(backend, fourier):
    x, objective, options = fourier
    s = cv.solve(
        x, objective, accelerate="plain", max_maps=5, record=True, on_failure="return", backend=backend, **options
    )
    psi = options["start"]
    assert len(s.trajectory) == 5
    for iterate in s.trajectory:
        np.testing.assert_allclose(iterate, psi, rtol=0, atol=1e-7)  # the inner minimisation ends on a flat bottom
        naive, _, _ = naive_fre(x, objective, psi, options["tiling"].masses)
        psi = objective.energy.update(naive.mass, naive.sums, psi)


def test_fre_along_a_sweep(backend, fourier):
    """The result of one temperature starts the next; F falls on cooling less than R would, dF = D_f dlambda (T7)."""
    x, objective, options = fourier
    betas = np.geomspace(0.1, 0.2, 8)
    branch = cv.sweep(x, objective, betas=betas, tol=1e-8, backend=backend, on_failure="raise", **options)
    lam = 0.5 / branch.betas
    energy = np.array([s.energy for s in branch]) / lam
    # Trapezoidal rule over steps of 10 % in lambda: an error of some 1e-2^2 of each step's change.
    middle = (energy[1:] + energy[:-1]) / 2
    np.testing.assert_allclose(np.diff(branch.free_energy), middle * np.diff(lam), rtol=5e-3)


@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_fre_of_an_invertible_linear_map_is_the_gaussian_elbo_of_mapped_data(backend, masses, rng):
    x, A = rng.normal(size=(40, 3)), rng.normal(size=(3, 3)) + 2 * np.eye(3)
    beta, start = 4.0, rng.normal(size=(5, 3))
    options = {"tiling": cv.Tiling.uniform(5), "masses": masses, "backend": backend}
    few = {"accelerate": "plain", "max_maps": 6, "record": True, "on_failure": "return"}
    one = cv.solve(x, FRE(FeatureError(Linear(A)), beta), start=start, **options, **few)
    two = cv.solve(x @ A.T, beta=beta, start=start @ A.T, **options, **few)
    np.testing.assert_allclose(
        one.trajectory @ A.T, two.trajectory, rtol=0, atol=1e-6
    )  # inner minimisation, 1e-8 a map
    assert one.free_energy == pytest.approx(two.free_energy, rel=1e-9)

    end = cv.solve(x, FRE(FeatureError(Linear(A)), beta), start=two.decoder @ np.linalg.inv(A).T, tol=1e-8, **options)
    gaussian = cv.solve(x @ A.T, beta=beta, start=two.decoder, tol=1e-8, **options)
    assert end.converged
    assert gaussian.converged
    np.testing.assert_allclose(end.decoder @ A.T, gaussian.decoder, rtol=0, atol=1e-5)
    for name in ("free_energy", "rate", "energy"):
        assert getattr(end, name) == pytest.approx(getattr(gaussian, name), rel=1e-7)
    # ... except the distortion, which each measures in its own space.
    squared = np.square(x[:, None] - end.decoder).sum(axis=2)
    assert end.distortion == pytest.approx((end.encoder * squared).sum() / len(x), rel=1e-12)
    assert end.distortion != pytest.approx(gaussian.distortion, rel=0.01)


def test_what_fre_cannot_do_says_so(fourier, tmp_path):
    x, objective, options = fourier
    with pytest.raises(NotImplementedError, match="Bregman"):
        cv.first_critical_beta(x, objective)
    s = cv.solve(x, objective, tol=1e-6, **options)
    s.save(tmp_path / "fre.npz")
    with pytest.raises(ValueError, match="cannot be read back"):
        cv.FixedPoint.load(tmp_path / "fre.npz")


# --- derivatives of every energy --------------------------------------------------------------------------------------


def everywhere(rng, shape):
    return rng.normal(size=shape)


def inside_the_unit_cube(rng, shape):
    return rng.uniform(0.05, 0.95, size=shape)


# Every energy of the package, with its domain; and FRE of this file.
ENERGIES = {
    "SquaredError": (constraints.SquaredError(), everywhere),
    "CrossEntropy": (constraints.CrossEntropy(), inside_the_unit_cube),
    "FRE": (FeatureError(Fourier.random(np.random.default_rng(1), dim=3)), everywhere),
    "linear FRE": (FeatureError(Linear(np.random.default_rng(2).normal(size=(4, 3)))), everywhere),
}
on_every_energy = pytest.mark.parametrize(("energy", "draw"), ENERGIES.values(), ids=ENERGIES)


def test_no_energy_is_forgotten():
    known = {type(energy) for energy, _ in ENERGIES.values()}
    for name, item in vars(constraints).items():
        if inspect.isclass(item) and item.__module__ == constraints.__name__ and hasattr(item, "readout"):
            assert item in known, f"add {name} to ENERGIES"


def central(function, psi, h=1e-5):
    """d function / d psi_kd by central differences, function (K, D) -> (K,) tile by tile; error h^2 and eps / h."""
    slope = np.empty_like(psi)
    for d in range(psi.shape[1]):
        kick = h * np.eye(psi.shape[1])[d]
        slope[:, d] = (function(psi + kick) - function(psi - kick)) / (2 * h)
    return slope


@on_every_energy
def test_pullback_is_the_transposed_derivative_of_the_readout(energy, draw, rng):
    psi = draw(rng, (6, 3))
    v, b = energy.readout(psi)
    dv, db = rng.normal(size=v.shape), rng.normal(size=b.shape)

    def paired(psi):
        v, b = energy.readout(psi)
        return (dv * v).sum(axis=1) + db * b

    given = energy.pullback(psi, dv, db)
    assert given.shape == psi.shape
    # h^2 times third derivatives, up to 2 / 0.05^3 = 2e4 for the log-odds: 1e-6 of slopes of 20 and more there.
    np.testing.assert_allclose(given, central(paired, psi), rtol=1e-5, atol=1e-7)


@on_every_energy
def test_expected_gradient_from_the_sums_alone(energy, draw, rng):
    """sum_i rho_i q_ia dH_ia / dpsi_a = -pullback(psi, sums, mass)_a, with H = s - b - phi.v (T2), (T4)."""
    x, psi = draw(rng, (9, 3)), draw(rng, (6, 3))
    weighted = rng.dirichlet(np.ones(54)).reshape(9, 6)
    phi, s = energy.statistics(x)

    def expected(psi):
        v, b = energy.readout(psi)
        return (weighted * (s[:, None] - b - phi @ v.T)).sum(axis=0)

    given = -energy.pullback(psi, weighted.T @ phi, weighted.sum(axis=0))
    np.testing.assert_allclose(given, central(expected, psi), rtol=1e-5, atol=1e-7)


@on_every_energy
def test_curvature_is_that_of_the_energy(energy, draw, rng):
    """A Bregman energy has v = grad f: the derivative of v is the (diagonal) curvature; else there is None.

    So, at x = psi, is the second derivative of H; and H is least there.
    """
    psi = draw(rng, (6, 3))
    curvature = energy.curvature(psi)
    if curvature is None:
        return
    assert curvature.shape == psi.shape
    for d in range(3):
        slope = central(lambda psi, d=d: energy.readout(psi)[0][:, d], psi)
        np.testing.assert_allclose(slope, np.eye(3)[d] * curvature, rtol=1e-5, atol=1e-7)
    phi, s = energy.statistics(psi)

    def own(moved):
        v, b = energy.readout(moved)
        return s - b - (phi * v).sum(axis=1)

    np.testing.assert_allclose(central(own, psi), 0, atol=1e-7)
    for d in range(3):
        kick = 1e-4 * np.eye(3)[d]
        bend = (own(psi + kick) - 2 * own(psi) + own(psi - kick)) / 1e-8
        np.testing.assert_allclose(bend, curvature[:, d], rtol=1e-4, atol=1e-5)  # h^2 f'''' and eps / h^2


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_objectives_carry_the_multiplier(likelihood, rng):
    """H = ||x - psi||^2 / (2 sigma^2 beta) or -log p(x | psi) / beta (T3), (T4), and lambda grad^2 f (T8)."""
    x, psi = rng.uniform(0.1, 0.9, size=(5, 3)), rng.uniform(0.1, 0.9, size=(4, 3))
    objective = cv.ELBO(0.7, sigma=1.3, likelihood=likelihood)
    phi, s = objective.statistics(x)
    v, b = objective.readout(psi)
    H = objective.offset(s)[:, None] - b - phi @ v.T
    if likelihood == "gaussian":
        expected = np.square(x[:, None] - psi).sum(axis=2) / (2 * 1.3**2 * 0.7)
        curvature = np.full((4, 3), 1 / (1.3**2 * 0.7))
    else:
        expected = -(x[:, None] * np.log(psi) + (1 - x[:, None]) * np.log1p(-psi)).sum(axis=2) / 0.7
        curvature = 1 / (0.7 * psi * (1 - psi))
    np.testing.assert_allclose(H, expected, rtol=1e-12)
    np.testing.assert_allclose(objective.curvature(psi), curvature, rtol=1e-12)
    mass = rng.uniform(size=4)
    mass[1] = 0
    image = objective.decoder(mass, mass[:, None] * psi[::-1], psi)
    np.testing.assert_allclose(image, np.where(mass[:, None] > 0, psi[::-1], psi), rtol=1e-12)  # a dead tile stays


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_coordinates_flatten_the_curvature(likelihood, rng):
    """In the chart of an objective lambda grad^2 f is its `stiffness`: curvature (dpsi / du)^2; and back again."""
    objective = cv.ELBO(0.7, sigma=1.3, likelihood=likelihood)
    psi = rng.uniform(0.05, 0.95, size=(6, 3))
    u = objective.coordinates(psi)
    np.testing.assert_allclose(objective.reconstructions(u), psi, rtol=1e-12)
    slope = (objective.reconstructions(u + 1e-5) - objective.reconstructions(u - 1e-5)) / 2e-5
    np.testing.assert_allclose(objective.curvature(psi) * slope**2, objective.stiffness, rtol=1e-8)


# --- CLA: statistics that are no function of the points ---------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """-(one-hot label) . log c(psi) beside the squared error: what is known of the data, not of points anywhere.

    Scores c(psi) = softmax(A psi). The decoder is held where it is: only the streaming of labels is on trial.
    """

    labels: np.ndarray
    scores: np.ndarray
    beta: float = 1.0

    equivariant = False
    quadratic = None
    allowance = 0.0
    stiffness = 1.0

    def at(self, beta):
        return replace(self, beta=beta)

    def check(self, x):
        pass

    def in_frame(self, frame):
        return self

    def statistics(self, x, rows=None):
        labels = np.eye(self.scores.shape[0])[self.labels[rows]]
        return np.hstack([x, labels]), (x * x).sum(axis=1)

    def offset(self, s):
        return s / self.beta

    def readout(self, psi):
        logits = psi @ self.scores.T
        log_c = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return np.hstack([2 * psi, log_c]) / self.beta, -(psi * psi).sum(axis=1) / self.beta

    def decoder(self, mass, sums, psi):
        return psi

    def coordinates(self, psi):
        return psi

    def reconstructions(self, u):
        return u

    def curvature(self, psi):
        return None

    def settings(self):
        return {}


def test_labels_stream_with_the_rows(backend, rng, tmp_path, monkeypatch):
    """Every block of a memory map meets its own labels."""
    x, labels = rng.normal(size=(50, 2)), rng.integers(0, 3, 50)
    objective = Labelled(labels, rng.normal(size=(3, 2)), 0.5)
    psi = rng.normal(size=(4, 2))
    options = {"tiling": cv.Tiling.uniform(4), "start": psi, "backend": backend, "on_failure": "return", "max_maps": 1}
    s = cv.solve(x, objective, **options)
    v, _ = objective.readout(psi)
    H = (np.square(x[:, None] - psi).sum(axis=2)) / objective.beta - v[:, 2:].T[labels]
    naive = naive_from_energies(H, x, np.full(50, 1 / 50), np.log(np.full(4, 1 / 4)))
    assert s.free_energy == pytest.approx(naive.free_energy, rel=1e-12)
    assert s.marginal == pytest.approx(naive.mass, abs=1e-12)
    path = tmp_path / "x.npy"
    np.save(path, x)
    monkeypatch.setattr("constrained_vae.rows._BLOCK", 14)  # seven rows at a time
    streamed = cv.solve(np.load(path, mmap_mode="r"), objective, **options)
    assert streamed.free_energy == pytest.approx(s.free_energy, rel=1e-12)
    assert streamed.marginal == pytest.approx(s.marginal, abs=1e-12)
