"""The number of reconstructions of the optimum on the line, bounded both ways."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

import constrained_vae as cv
from constrained_vae.frontier.reconstructions import Line, _zeros, bounds_of_number
from tests.helpers.marks import slow


def bounds(x, beta, gap=1e-9, weights=None):
    s = cv.global_solution(np.reshape(x, (-1, 1)), beta=beta, weights=weights, gap=gap, on_failure="return")
    return cv.certify(s).reconstructions()


@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1e-120, 0.0), (1e100, 0.0), (1.0, 1e6)])
@pytest.mark.parametrize(("ratio", "number"), [(3.0, 1), (1.01, 1), (0.999, 2), (0.9, 2), (0.1, 2), (1e-9, 2)])
def test_two_points_split_at_one(ratio, number, unit, offset):
    """psi = +-m with m = tanh(m / beta)."""
    assert bounds([offset - unit, offset + unit], ratio * unit**2) == (number, number)


@pytest.mark.parametrize("p", [0.3, 0.1, 0.02])
def test_two_points_of_unequal_weight(p):
    """The second reconstruction has mass below 1 / (2 lambda*), lambda* = log((1 - p) / p) / (4 (1 - 2 p))."""
    beta = 2 * (1 - 2 * p) / np.log((1 - p) / p)
    for ratio, number in ((1.02, 1), (0.98, 2)):
        assert bounds([-1.0, 1.0], ratio * beta, weights=[p, 1 - p]) == (number, number)


def test_at_the_transition_it_is_a_range():
    assert bounds([-1.0, 1.0], 1.0) == (1, 2)


@pytest.mark.parametrize("seed", [0, slow(1), slow(2), 3])
def test_rough_solutions_are_around_the_number(seed):
    """The number at a gap of 1e-11; with the gap forgotten, the bounds of rough solutions would be wrong."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=3) * 3.0
    x = centres[rng.integers(0, 3, 40)] + rng.normal(size=40) * rng.uniform(0.2, 1.0)
    rho = rng.dirichlet(np.full(40, 3.0))
    beta = float(np.var(x)) * 10 ** rng.uniform(-2.2, -0.5)
    low, high = bounds(x, beta, 1e-11, rho)
    assert low == high
    for maps in (5, 40, 2000):
        options = {"weights": rho, "max_maps": maps, "on_failure": "return", "masses": "free", "start": "data"}
        rough = cv.solve(x[:, None], beta=beta, n_tiles=30, seed=seed, **options)
        below, above = cv.certify(rough).reconstructions()
        assert below <= low <= above


@pytest.mark.parametrize("apart", [0.01, 0.1, 0.3])
def test_two_reconstructions_where_the_optimum_has_one(apart):
    """Leaving one out is no loss above the transition."""
    line = Line(np.array([-1.0, 1.0]), np.full(2, 0.5), np.array([-apart, apart]), np.full(2, 0.5), 0.5 / 1.02)
    low, high = bounds_of_number(line)
    assert low == 1 <= high


def c_of(x, rho, psi, masses, lam, y):
    """c (m,) at points, by a sum of logarithms."""
    log_Z = logsumexp(np.log(masses) - lam * np.square(x[:, None] - psi), axis=1)
    return np.exp(logsumexp(np.log(rho) - log_Z - lam * np.square(y[:, None] - x), axis=1))


@pytest.mark.parametrize("gap", [1e-2, 1e-5])
def test_c_of_the_optimum_is_within_the_distance(gap, rng):
    x, rho, lam = rng.normal(size=25), rng.dirichlet(np.ones(25)), 4.0
    options = {"beta": 0.5 / lam, "weights": rho, "on_failure": "return"}
    best = cv.global_solution(x[:, None], gap=1e-12, **options)
    y = np.linspace(x.min(), x.max(), 301)
    exact = c_of(x, rho, best.decoder[:, 0], best.tiling.masses, lam, y)
    tight = 0.0
    for seed in range(20):
        other = np.random.default_rng(seed)
        psi = best.decoder[:, 0] + other.normal(size=len(best.decoder)) * gap**0.5 * 0.2
        masses = best.tiling.masses * np.exp(other.normal(size=len(psi)) * gap**0.5 * 0.2)
        line = Line(x, rho, psi, masses / masses.sum(), lam)
        known = line.cells(y, y, 2, np.log(line.supremum([(x.min(), x.max())], 1e-9)))
        distance = known.upper_star - known.upper
        assert (exact <= known.upper_star + 1e-9).all()
        assert (np.abs(exact - line.c(y)) <= distance + 1e-9).all()
        tight = max(tight, (np.abs(exact - line.c(y)) / distance).max())
    assert tight > 0.1


def test_bounds_of_cells_hold_everywhere_in_them(rng):
    x, rho, psi, masses = rng.normal(size=20), rng.dirichlet(np.ones(20)), rng.normal(size=4), rng.dirichlet(np.ones(4))
    line = Line(np.sort(x), rho[np.argsort(x)], psi, masses, 3.0)
    low = rng.uniform(-3, 3, 200)
    high = low + 10.0 ** rng.uniform(-6, 0.5, 200)
    t = np.linspace(0, 1, 41)
    for order in (2, 4):
        found = line.cells(low, high, order)
        y = low[:, None] + (high - low)[:, None] * t
        c = c_of(x, rho, psi, masses, 3.0, y.ravel()).reshape(y.shape)
        assert (c.max(axis=1) <= found.upper * (1 + 1e-12)).all()
        assert (found.values <= c[:, 20] * (1 + 1e-12)).all()
        narrow = high - low < 1e-4
        assert (found.upper[narrow] <= c.max(axis=1)[narrow] * (1 + 1e-7)).all()
        for sign, known in ((1, found.signs), (0, found.slopes)):
            u = 6.0**0.5 * (x - y[..., None])
            n = order + 1 - sign
            terms = np.polynomial.hermite_e.hermeval(u, np.eye(n + 1)[n]) * np.exp(-(u**2) / 2)
            derivative = terms @ (rho / np.exp(logsumexp(np.log(masses) - 3.0 * np.square(x[:, None] - psi), axis=1)))
            assert (known != 0).any()
            assert (np.sign(derivative) == known[:, None])[known != 0].all()


def test_zeros_from_signs():
    assert _zeros(np.array([1.0, 1.0]), np.zeros(2)) == 0
    assert _zeros(np.array([-1.0, 0.0, 0.0, 1.0, 0.0, -1.0]), np.array([0.0, 1.0, 1.0, 0.0, -1.0, 0.0])) == 2
    assert _zeros(np.array([-1.0, 0.0, 0.0, 1.0]), np.array([0.0, 1.0, -1.0, 0.0])) == np.inf
    assert _zeros(np.array([0.0]), np.zeros(1)) == np.inf


def test_equal_points_and_weights_of_zero():
    assert bounds([2.0, 2.0, 2.0], 0.1) == (1, 1)
    assert bounds([-1.0, 1.0, 1.0, -1.0, 50.0], 0.9, weights=[1.0, 1.0, 1.0, 1.0, 0.0]) == (2, 2)


def test_only_of_a_solution_on_the_line(rng):
    with pytest.raises(ValueError, match="one dimension"):
        cv.certify(cv.global_solution(rng.normal(size=(5, 2)), beta=1.0)).reconstructions()
    other = cv.global_solution([[0.0], [1.0], [1.0]], cv.ELBO(likelihood="bernoulli", beta=0.5))
    with pytest.raises(ValueError, match="another energy"):
        cv.certify(other).reconstructions()
    with pytest.raises(ValueError, match="certify"):
        cv.global_solution([[0.0], [1.0]], beta=1.0).certificate.reconstructions()
