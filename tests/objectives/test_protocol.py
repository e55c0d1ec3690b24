"""The protocol of energies (T4): derivatives of all that the package has, and an objective that it does not have."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.data.frame import Frame
from constrained_vae.objectives import constraints, energies
from constrained_vae.objectives.base import Objective
from constrained_vae.solvers.acceleration import ACCELERATORS
from constrained_vae.testing import EPS, naive_class_error, naive_from_energies, naive_squared_error

# --- derivatives of every energy --------------------------------------------------------------------------------------

IMAGE = (2, 3)
N, D = 9, 6


def everywhere(rng, shape):
    return rng.normal(size=shape)


def inside_the_unit_cube(rng, shape):
    return rng.uniform(0.1, 0.9, size=shape)


def table():
    """Every energy of the package, with the domain of its points (n, 6): rows of images of 2 x 3 pixels."""
    rng = np.random.default_rng(1)
    scores = cv.ClassProbabilities(rng.normal(size=(3, D)), rng.normal(size=3))
    cubes = cv.Features(lambda x: np.hstack([x**3, x]), lambda x, df: 3 * x**2 * df[:, :D] + df[:, D:])
    found = {
        "SquaredError": (energies.SquaredError(), everywhere),
        "CrossEntropy": (energies.CrossEntropy(), inside_the_unit_cube),
        "Divergence": (energies.Divergence(counts=False), inside_the_unit_cube),
        "Divergence of counts": (energies.Divergence(counts=True, unit=2.5), inside_the_unit_cube),
    }
    constraints = {
        "RE": (cv.RE(0.3), everywhere),
        "mean RE": (cv.RE(0.3, reduction="mean"), everywhere),
        "linear FRE": (cv.FRE(0.3, rng.normal(size=(4, D))), everywhere),
        "Fourier FRE": (cv.FRE(0.3, cv.FourierFeatures.random(D, 8, gamma=0.1)), everywhere),
        "FRE of two functions": (cv.FRE(0.3, cubes), everywhere),
        "CLA": (cv.CLA(0.9, scores, rng.integers(0, 3, N)), everywhere),
        "PNCC": (cv.PNCC(0.9, IMAGE, 2, stride=1), everywhere),
        "PNCC of channels": (cv.PNCC(0.9, (1, 3, 2), (1, 2)), everywhere),
    }
    # Energies of constraints in units of the points, and in a frame, where they come with the slope of its scale.
    frame = Frame(rng.normal(size=D), 2.5)
    plain = {name: (c.in_frame(Frame.identity(D)), draw) for name, (c, draw) in constraints.items()}
    framed = {
        f"{name} in a frame": (c.in_frame(frame), lambda rng, shape: frame.inward(everywhere(rng, shape)))
        for name, (c, _) in constraints.items()
    }
    return {**found, **plain, **framed}, {type(item) for item, _ in (*found.values(), *constraints.values())}


ENERGIES, CLASSES = table()
on_every_energy = pytest.mark.parametrize(("energy", "draw"), ENERGIES.values(), ids=ENERGIES)


def of_energies(module):
    """Public classes of a module that are energies or constraints, but for protocols."""
    return [
        (name, item)
        for name, item in vars(module).items()
        if inspect.isclass(item)
        and item.__module__ == module.__name__
        and (hasattr(item, "in_frame") or (module is energies and hasattr(item, "readout")))
        and not (name.startswith("_") or getattr(item, "_is_protocol", False))
    ]


@pytest.mark.parametrize("module", [energies, constraints], ids=lambda module: module.__name__)
def test_no_energy_is_forgotten(module):
    assert of_energies(module)
    for name, item in of_energies(module):
        assert item in CLASSES, f"add {name} to the table of test_protocol"


def slopes(function, psi, h=2e-4):
    """d function / d psi (K, D) of a function (K, D) -> (K,) of every tile, by central differences of fourth order.

    Their error is h^4 / 30 times a fifth derivative, at most 24 / 0.1^5 of the log-odds at 0.1 (slope 10): 1.3e-10, and
    eps / h times values of some 30 at most: 3e-11 or a little more. Slopes are some tenths and more, so that both are
    far below 1e-6 of them; differences of second order would leave 1e-6 of the slope at their best h, and prove less.
    """
    slope = np.empty_like(psi)
    for d in range(psi.shape[1]):
        kick = h * np.eye(psi.shape[1])[d]
        near, far = (function(psi + n * kick) - function(psi - n * kick) for n in (1, 2))
        slope[:, d] = (8 * near - far) / (12 * h)
    return slope


def assert_slopes(given, expected):
    """To 1e-6 of the length of each tile's slope: a component may be small by accident."""
    assert given.shape == expected.shape
    error, length = (np.linalg.norm(rows, axis=1) for rows in (given - expected, expected))
    assert length.min() > 1e-3
    assert (error <= 1e-6 * length).all(), (error / length).max()


@on_every_energy
def test_pullback_is_the_transposed_derivative_of_the_readout(energy, draw, rng):
    psi = draw(rng, (6, D))
    v, b = energy.readout(psi)
    dv, db = rng.normal(size=v.shape), rng.normal(size=b.shape)

    def paired(psi):
        v, b = energy.readout(psi)
        return (dv * v).sum(axis=1) + db * b

    before = psi.copy()
    assert_slopes(energy.pullback(psi, dv, db), slopes(paired, psi))
    np.testing.assert_array_equal(psi, before)
    # It is linear in the cotangents, and takes the tiles one by one.
    np.testing.assert_allclose(
        energy.pullback(psi[3:4], -2 * dv[3:4], -2 * db[3:4]), -2 * energy.pullback(psi, dv, db)[3:4], rtol=1e-12
    )


@on_every_energy
def test_expected_gradient_from_the_sums_alone(energy, draw, rng):
    """sum_i rho_i q_ia dH_ia / dpsi_a = -pullback(psi, sums, mass)_a, with H = s - b - phi.v (T2), (T4)."""
    x, psi = draw(rng, (N, D)), draw(rng, (6, D))
    weighted = rng.dirichlet(np.ones(N), size=6).T
    phi, s = (
        energy.statistics(x, slice(0, N))
        if "rows" in inspect.signature(energy.statistics).parameters
        else (energy.statistics(x))
    )

    def expected(psi):
        v, b = energy.readout(psi)
        return (weighted * (s[:, None] - b - phi @ v.T)).sum(axis=0)

    assert_slopes(-energy.pullback(psi, weighted.T @ phi, weighted.sum(axis=0)), slopes(expected, psi))


@pytest.mark.parametrize(
    "energy",
    [energies.SquaredError(), energies.CrossEntropy(), energies.Divergence(True), energies.Divergence(False, 2.5)],
    ids=["squared error", "cross-entropy", "categorical", "Poisson"],
)
def test_curvature_is_that_of_the_energy(energy, rng):
    """A Bregman energy has v = grad f: the derivative of v is the (diagonal) curvature.

    So, at x = psi, is the second derivative of H; and H is least there.
    """
    psi = inside_the_unit_cube(rng, (6, 3))
    curvature = energy.curvature(psi)
    assert curvature.shape == psi.shape
    for d in range(3):
        slope = slopes(lambda psi, d=d: energy.readout(psi)[0][:, d], psi)
        # Of the other components of v nothing depends on psi_d but rounding: eps / h of some units.
        np.testing.assert_allclose(slope, np.eye(3)[d] * curvature, rtol=1e-6, atol=1e-10)
    phi, s = energy.statistics(psi)

    def own(moved):
        v, b = energy.readout(moved)
        return s - b - (phi * v).sum(axis=1)

    np.testing.assert_allclose(slopes(own, psi), 0, atol=1e-9)
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


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "poisson", "categorical"])
def test_coordinates_flatten_the_curvature(likelihood, rng):
    """In the chart of an objective lambda grad^2 f is its `stiffness`: curvature (dpsi / du)^2; and back again."""
    objective = cv.ELBO(0.7, sigma=1.3, likelihood=likelihood)
    psi = rng.uniform(0.05, 0.95, size=(6, 3))
    u = objective.coordinates(psi)
    np.testing.assert_allclose(objective.reconstructions(u), psi, rtol=1e-12)
    slope = (objective.reconstructions(u + 1e-5) - objective.reconstructions(u - 1e-5)) / 2e-5
    np.testing.assert_allclose(objective.curvature(psi) * slope**2, objective.stiffness, rtol=1e-8)


# --- an objective of somebody else -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Poisson:
    """Counts: H = (psi - x log psi) / beta summed over dimensions, a Bregman divergence but for what x alone adds.

    So v = log psi / beta, b = -psi / beta, the decoder update is the weighted mean, and grad^2 f = 1 / psi, constant in
    the coordinates 2 sqrt(psi).
    """

    beta: float = 1.0

    equivariant = False
    quadratic = None
    allowance = 0.0
    labelled = None

    @property
    def stiffness(self) -> float:
        return 1 / self.beta

    def at(self, beta):
        return replace(self, beta=beta)

    def check(self, x):
        if x.min() < 0:
            raise ValueError("counts are not negative")

    def in_frame(self, frame):
        return self

    def statistics(self, x, rows=None):
        return x, 0 * x[:, 0]

    def offset(self, s):
        return s / self.beta

    def readout(self, psi):
        return np.log(psi) / self.beta, -psi.sum(axis=1) / self.beta

    def decoder(self, mass, sums, psi):
        alive = (mass > 0)[:, None]
        return np.where(alive, sums / np.where(alive, mass[:, None], 1.0), psi)

    def pullback(self, psi, dv, db):
        return (dv / psi - db[:, None]) / self.beta

    def coordinates(self, psi):
        return 2 * np.sqrt(psi)

    def reconstructions(self, u):
        return np.square(u / 2)

    def curvature(self, psi):
        return 1 / psi / self.beta

    def settings(self) -> dict[str, Any]:
        return {"objective": "Poisson", "beta": self.beta}


@pytest.fixture
def counts(rng):
    """Counts with two rates; their first critical beta is that of G^-1/2 Cov G^-1/2, G = diag(mean) (T9)."""
    x = rng.poisson(np.where(np.arange(60)[:, None] < 20, [9.0, 4.0, 6.0], [2.0, 5.0, 3.0])).astype(float)
    root = 1 / np.sqrt(x.mean(axis=0))
    return x, np.linalg.eigvalsh(root[:, None] * np.cov(x.T, ddof=0) * root)[-1]


def host_only(backend):
    if backend == "cupy":
        pytest.skip("this objective computes with NumPy")


@pytest.mark.parametrize("accelerate", ACCELERATORS)
@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_a_foreign_objective_is_solved(backend, accelerate, masses, counts):
    host_only(backend)
    x, critical = counts
    objective = Poisson(0.5 * critical)
    assert isinstance(objective, Objective)
    assert cv.first_critical_beta(x, objective) == pytest.approx(critical, rel=1e-12)
    # Free masses of more tiles than clusters die as 1 / n under the plain map: two tiles it is.
    options = {"tiling": cv.Tiling.uniform(2), "masses": masses, "accelerate": accelerate, "backend": backend}
    free_energies = []
    s = cv.solve(x, objective, callback=lambda iterate: free_energies.append(iterate.free_energy), **options)
    assert s.converged
    H = (s.decoder.sum(axis=1) - x @ np.log(s.decoder).T) / objective.beta
    naive = naive_from_energies(H, x, s.weights, np.log(s.tiling.masses))
    # Energies of sums of a few numbers up to 20 log 9, and sums over 60 points.
    rounding = 16 * EPS * (60 + np.abs(H).max())
    assert np.diff(free_energies).max() <= rounding
    assert free_energies[0] - free_energies[-1] > 0.01
    assert s.free_energy == pytest.approx(naive.free_energy, abs=rounding)
    assert s.energy == pytest.approx(naive.energy, abs=rounding)
    assert s.encoder == pytest.approx(naive.encoder, abs=1e-12)
    # T2: the weighted mean. The error is 1e-10 of the radius, some 5.
    np.testing.assert_allclose(s.decoder, naive.sums / naive.mass[:, None], atol=1e-8)
    assert s.distortion == pytest.approx((s.encoder * naive_squared_error(x, s.decoder)).sum() / len(x), rel=1e-12)


def test_a_foreign_objective_is_swept(counts, tmp_path):
    x, critical = counts
    branch = cv.sweep(x, Poisson(), betas=critical * np.array([0.98, 0.999, 1.001, 1.02]), n_tiles=2)
    assert branch.n_distinct.tolist() == [1, 1, 2, 2]
    branch[-1].save(tmp_path / "poisson.npz")
    with pytest.raises(ValueError, match="give objective="):
        cv.FixedPoint.load(tmp_path / "poisson.npz")
    loaded = cv.FixedPoint.load(tmp_path / "poisson.npz", Poisson())
    assert loaded.objective == branch[-1].objective
    np.testing.assert_array_equal(loaded.encoder, branch[-1].encoder)


# --- statistics that are no function of the points -------------------------------------------------------------------


def test_labels_stream_with_the_rows(backend, rng, tmp_path, monkeypatch):
    """Every block of a memory map meets its own labels, in the passes of the kernel and in those after them."""
    x, labels = rng.normal(size=(50, 2)), rng.integers(0, 3, 50)
    probabilities = cv.ClassProbabilities(rng.normal(size=(3, 2)), rng.normal(size=3))
    objective = cv.Lagrangian([cv.RE(0.5), cv.CLA(0.9, probabilities, labels)], [0.7, 2.0])
    psi = rng.normal(size=(4, 2))
    options = {"tiling": cv.Tiling.uniform(4), "start": psi, "backend": backend, "on_failure": "return", "max_maps": 1}
    s = cv.solve(x, objective, **options)
    squared = np.array(naive_squared_error(x, psi))
    wrong = np.array(naive_class_error(lambda p: probabilities(p[None])[0], labels, psi))
    naive = naive_from_energies(0.7 * squared + 2 * wrong, x, np.full(50, 1 / 50), np.log(np.full(4, 1 / 4)))
    path = tmp_path / "x.npy"
    np.save(path, x)
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 14)  # seven rows at a time
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 20)  # five
    streamed = cv.solve(np.load(path, mmap_mode="r"), objective, **options)
    for found in (s, streamed):
        # Sums over 50 points of energies below 50, in another order.
        assert found.free_energy == pytest.approx(naive.free_energy, rel=1e-12)
        np.testing.assert_allclose(found.marginal, naive.mass, atol=1e-12)
        np.testing.assert_allclose(found.encoder, naive.encoder, atol=1e-12)
        assert found.constraint_values["RE"] == pytest.approx((naive.encoder * squared).mean(axis=0).sum() - 0.25)
        assert found.constraint_values["CLA"] == pytest.approx((naive.encoder * wrong).mean(axis=0).sum() - 0.1)
        assert found.distortion == pytest.approx((naive.encoder * squared).mean(axis=0).sum(), rel=1e-12)
    whole = cv.solve(x, objective, **{**options, "max_maps": 1000})
    streamed = cv.solve(np.load(path, mmap_mode="r"), objective, **{**options, "max_maps": 1000})
    assert whole.converged
    assert streamed.converged
    assert whole.split_condition == pytest.approx(streamed.split_condition, rel=1e-6)
    np.testing.assert_allclose(whole.decoder, streamed.decoder, atol=1e-8)


def test_rows_with_labels_can_be_shared_out(backend, rng):
    """The sums of two halves, each with its own labels, are those of all."""
    x, labels, psi = rng.normal(size=(10, 2)), rng.integers(0, 3, 10), rng.normal(size=(4, 2))
    probabilities = cv.ClassProbabilities(rng.normal(size=(3, 2)), rng.normal(size=3))

    def of(rows):
        objective = cv.Lagrangian([cv.RE(0.5), cv.CLA(0.9, probabilities, labels[rows])], [0.7, 2.0])
        weights = np.full(len(labels[rows]), 0.1)
        return cv.block_expectations(x[rows], psi, objective, weights=weights, backend=backend)

    parts, whole = of(slice(0, 4)) + of(slice(4, 10)), of(slice(0, 10))
    np.testing.assert_allclose(parts.sums, whole.sums, atol=1e-14)
    assert parts.free_energy == pytest.approx(whole.free_energy, rel=1e-13)
