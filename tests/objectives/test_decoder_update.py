"""The inner minimisation (T2): every tile to its own minimum, downhill, within bounds; and its differences."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize

import constrained_vae as cv
from constrained_vae._utils import deadline
from constrained_vae.objectives.decoder_update import hessians, minimise, readout_slopes
from constrained_vae.testing import EPS

UNBOUNDED = (-np.inf, np.inf)


def quadratics(rng, k, dim, spread=30.0):
    """k functions |psi - c|^2_A / 2 with condition numbers up to the spread: value, gradient, c and A."""
    c = 0.5 * rng.normal(size=(k, dim))
    basis = np.linalg.qr(rng.normal(size=(k, dim, dim)))[0]
    A = np.einsum("kij,kj,klj->kil", basis, np.exp(rng.uniform(0, np.log(spread), size=(k, dim))), basis)

    def value(psi, tiles):
        return np.einsum("ni,nij,nj->n", psi - c[tiles], A[tiles], psi - c[tiles]) / 2

    def gradient(psi, tiles):
        return np.einsum("nij,nj->ni", A[tiles], psi - c[tiles])

    return value, gradient, c, A


def test_without_time_there_is_no_step():
    value, gradient, _, _ = quadratics(np.random.default_rng(0), 3, 2)
    start = np.ones((3, 2))
    with deadline.within(0.0):
        assert (minimise(value, gradient, start, 1.0) == start).all()
        with pytest.raises(deadline.TimeUp):
            hessians(gradient, start)
        with pytest.raises(deadline.TimeUp):
            readout_slopes(lambda psi: (psi, psi.sum(axis=1)), start)


def rosenbrock(scale):
    """One valley per tile, of a steepness of its own, (1 - u)^2 + s (v - u^2)^2; the minimum is at (1, 1)."""

    def value(psi, tiles):
        u, v = psi.T
        return (1 - u) ** 2 + scale[tiles] * (v - u**2) ** 2

    def gradient(psi, tiles):
        u, v = psi.T
        slope = 2 * scale[tiles] * (v - u**2)
        return np.stack([-2 * (1 - u) - 2 * u * slope, slope], axis=1)

    return value, gradient


def by_scipy(value, gradient, start, tile, bounds):
    """One tile by L-BFGS-B, as tight as it goes."""
    number = np.array([tile])
    low, high = (np.broadcast_to(bound, start.shape) for bound in bounds)
    found = minimize(
        lambda p: float(value(p[None], number)[0]),
        start,
        jac=lambda p: gradient(p[None], number)[0],
        bounds=list(zip(low, high, strict=True)),
        options={"ftol": 0, "gtol": 1e-12, "maxiter": 10_000, "maxfun": 100_000},
    )
    return found.x, found.fun


@pytest.mark.parametrize("dim", [1, 2, 7, 40])
def test_quadratics(dim, rng):
    value, gradient, c, _ = quadratics(rng, 5, dim)
    found = minimise(value, gradient, rng.normal(size=(5, dim)), 5.0)
    # The gradient is followed to some eps of its scale, or to where the value no longer tells.
    np.testing.assert_allclose(found, c, atol=1e-12)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_the_unit_of_the_value_plays_no_part(unit, rng):
    value, gradient, c, _ = quadratics(rng, 5, 4)
    start = rng.normal(size=(5, 4))
    # A value far below 1 is compared with 1: what remains is decided by the gradient alone.
    found = minimise(lambda p, t: unit * value(p, t), lambda p, t: unit * gradient(p, t), start, 5.0 * unit)
    np.testing.assert_allclose(found, c, atol=1e-10)


def test_a_start_at_the_minimum_stays_to_the_bit(rng):
    value, gradient, c, _ = quadratics(rng, 5, 3)
    np.testing.assert_array_equal(minimise(value, gradient, c, 5.0), c)


def test_a_curved_valley(rng):
    value, gradient = rosenbrock(np.array([1.0, 10.0, 100.0]))
    start = np.array([[-1.2, 1.0], [0.0, 0.0], [-1.2, 1.0]])
    before = start.copy()
    found = minimise(value, gradient, start, 20.0)
    np.testing.assert_allclose(found, 1, atol=1e-8)
    np.testing.assert_array_equal(start, before)


def test_tiles_do_not_feel_each_other(rng):
    """Beside tiles that are there already, or far away, each goes its own way."""
    value, gradient = rosenbrock(np.array([1.0, 10.0, 100.0]))
    start = np.array([[-1.2, 1.0], [1.0, 1.0], [0.5, 3.0]])
    together = minimise(value, gradient, start, 20.0)
    for tile in range(3):
        number = np.array([tile])
        alone = minimise(
            lambda p, t, n=number: value(p, n[t]), lambda p, t, n=number: gradient(p, n[t]), start[number], 20.0
        )
        np.testing.assert_allclose(together[number], alone, atol=1e-10)


@pytest.mark.parametrize("dim", [2, 6])
@pytest.mark.parametrize("box", [(-0.3, 0.4), (0.0, 5.0), (-10.0, 10.0)])
def test_bounded_quadratics(dim, box, rng):
    value, gradient, _, _ = quadratics(rng, 6, dim)
    start = rng.uniform(max(box[0], -1), min(box[1], 1), size=(6, dim))
    found = minimise(value, gradient, start, 5.0, box)
    for tile in range(6):
        expected, least = by_scipy(value, gradient, start[tile], tile, box)
        np.testing.assert_allclose(found[tile], expected, atol=1e-7)  # what L-BFGS-B reaches
        assert value(found[tile][None], np.array([tile]))[0] <= least + 64 * EPS * (1 + abs(least))
    assert found.min() >= box[0]
    assert found.max() <= box[1]


def test_a_bounded_valley():
    """The unconstrained minimum (1, 1) is outside: the bound v <= 0.5 or u <= 0.6 holds at the end."""
    value, gradient = rosenbrock(np.array([1.0, 10.0, 100.0]))
    for box in ((-2.0, np.array([2.0, 0.5])), (np.array([-2.0, -1.0]), np.array([0.6, 2.0]))):
        start = np.array([[-1.2, 0.4], [0.0, 0.0], [0.5, 0.2]])
        found = minimise(value, gradient, start, 20.0, box)
        for tile in range(3):
            expected, _ = by_scipy(value, gradient, start[tile], tile, box)
            np.testing.assert_allclose(found[tile], expected, atol=1e-6)


def free_gradient(gradient, psi, tiles, box):
    g = gradient(psi, tiles)
    return np.where(((psi <= box[0]) & (g > 0)) | ((psi >= box[1]) & (g < 0)), 0.0, g)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([1e-4, 1.0, 1e4]))
def test_the_value_never_rises_and_the_gradient_vanishes(seed, bounded, unit):
    """Sums of waves, with many minima, saddles and maxima, short against the first step."""
    rng = np.random.default_rng(seed)
    W, c, a = 3 * rng.normal(size=(9, 3)), rng.uniform(0, 6, size=9), unit * rng.normal(size=(4, 9))

    def value(psi, tiles):
        return (a[tiles] * np.cos(psi @ W.T + c)).sum(axis=1) + 0.05 * unit * np.square(psi).sum(axis=1)

    def gradient(psi, tiles):
        return -(a[tiles] * np.sin(psi @ W.T + c)) @ W + 0.1 * unit * psi

    box = (-0.7, 0.8) if bounded else UNBOUNDED
    start, tiles = rng.uniform(-0.7, 0.8, size=(4, 3)), np.arange(4)
    seen = []
    found = minimise(lambda p, t: seen.append((p, t, value(p, t))) or seen[-1][2], gradient, start, 3.0 * unit, box)
    before, after = value(start, tiles), value(found, tiles)
    assert (after <= before + 64 * EPS * (1 + np.abs(before))).all()
    # Nor was any point on the way lower than the end: rises are never accepted.
    for points, numbers, values in seen:
        assert (after[numbers] <= values + 64 * EPS * (1 + np.abs(values))).all()
        assert ((points >= box[0]) & (points <= box[1])).all()
    assert np.abs(free_gradient(gradient, found, tiles, box)).max() < 1e-6 * unit
    assert ((found >= box[0]) & (found <= box[1])).all()
    # No maximum is mistaken for an end: where no bound holds, it is a minimum.
    for tile in np.flatnonzero(((found > box[0]) & (found < box[1])).all(axis=1)):
        g = (np.square(gradient(start[tile][None], np.array([tile])))).sum()
        H = hessians(lambda p, t, tile=tile: gradient(p, np.full(len(p), tile)), found[tile][None])[0]
        assert g < 1e-12 * unit**2 or np.linalg.eigvalsh(H)[0] > -1e-6 * unit


def test_coordinates_that_are_known_change_the_way_and_not_the_end(rng):
    """A^-1/2 of the curvatures, of all tiles: quadratics are done in a step or two, valleys as before."""
    value, gradient, c, A = quadratics(rng, 5, 7, spread=1e6)
    values, vectors = np.linalg.eigh(A)
    inverse = (vectors / np.sqrt(values)[:, None]) @ vectors.transpose(0, 2, 1)
    start, calls = rng.normal(size=(5, 7)), []
    found = minimise(lambda p, t: calls.append(len(t)) or value(p, t), gradient, start, 1e3, inverse=inverse)
    # Gradients are followed to eps of their scale: of the least curvature, 1e-3 of the mean, little is left.
    np.testing.assert_allclose(found, c, atol=1e-9)
    assert len(calls) <= 8
    value, gradient = rosenbrock(np.array([1.0, 10.0, 100.0]))
    start = np.array([[-1.2, 1.0], [0.0, 0.0], [-1.2, 1.0]])
    root = rng.normal(size=(3, 2, 2)) / 5
    inverse = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(2)  # symmetric, and not those at all
    np.testing.assert_allclose(minimise(value, gradient, start, 20.0, inverse=inverse), 1, atol=1e-8)


def test_flat_directions_are_not_followed(rng):
    """What the value does not depend on stays, and neither hangs nor runs away."""
    A = rng.normal(size=(2, 5))
    c = rng.normal(size=(3, 2))

    def value(psi, tiles):
        return np.square(psi @ A.T - c[tiles]).sum(axis=1) / 2

    def gradient(psi, tiles):
        return (psi @ A.T - c[tiles]) @ A

    start = rng.normal(size=(3, 5))
    found = minimise(value, gradient, start, 3.0)
    np.testing.assert_allclose(found @ A.T, c, atol=1e-11)
    flat = np.linalg.svd(A)[2][2:]
    np.testing.assert_allclose((found - start) @ flat.T, 0, atol=1e-9)


def test_no_slope_no_step(rng):
    start = rng.normal(size=(3, 5))
    found = minimise(lambda p, t: 0 * p[:, 0], lambda p, t: 0 * p, start, 1.0)
    np.testing.assert_array_equal(found, start)


def test_a_start_on_a_maximum_or_in_a_corner(rng):
    """Where the gradient is zero there is nothing to go by; beside it, negative curvature leads away."""

    def value(psi, tiles):
        return ((psi**2 - 1) ** 2).sum(axis=1)

    def gradient(psi, tiles):
        return 4 * psi * (psi**2 - 1)

    np.testing.assert_allclose(np.abs(minimise(value, gradient, np.full((1, 2), 1e-3), 4.0)), 1, atol=1e-9)
    corner = minimise(value, gradient, np.array([[0.1, 0.1]]), 4.0, (0.1, 0.5))
    np.testing.assert_array_equal(corner, [[0.5, 0.5]])


# --- differences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 4096])
def test_hessians(rows, rng):
    """Of waves, analytically; the difference formula errs by h^4 = 1e-14 and eps / h = 1e-12."""
    W, c, a = rng.normal(size=(9, 3)), rng.uniform(0, 6, size=9), rng.normal(size=(4, 9))
    psi = rng.normal(size=(4, 3))

    def gradient(psi, tiles):
        return -(a[tiles] * np.sin(psi @ W.T + c)) @ W

    exact = -np.einsum("ks,ks,sd,se->kde", a, np.cos(psi @ W.T + c), W, W)
    found = hessians(gradient, psi, rows)
    np.testing.assert_allclose(found, exact, atol=1e-9)
    np.testing.assert_array_equal(found, found.transpose(0, 2, 1))


def test_slopes_of_a_readout(rng):
    f = cv.FourierFeatures.random(3, 8, gamma=0.3)
    psi = rng.normal(size=(4, 3))
    exact = -np.sqrt(2 / 8) * np.sin(psi @ f.frequencies.T + f.phases)[:, :, None] * f.frequencies
    found = readout_slopes(cv.FRE(0.1, cv.Features(f, f.pullback)).in_frame(cv.Frame.identity(3)).readout, psi)
    np.testing.assert_allclose(found, 2 * exact, atol=1e-9)
