"""Branch and bound with polynomials beside the sums over the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import constrained_vae as cv
from constrained_vae.backends import get_backend
from constrained_vae.backends.expansions import Polynomials
from constrained_vae.frontier import local_polynomials, proof
from constrained_vae.frontier.data_passes import DataPasses
from tests.helpers.coverage import log_c

on_both = pytest.mark.parametrize("name", ["reference", "numba"])


def polynomials(name, x, shares, lam, y, half):
    backend = get_backend(name)
    return backend.polynomials(backend.proof_rows(x, shares, lam), y, half, 14)


def value(coefficients, z):
    """Polynomials (n,) at z (D,), term by term."""
    first, second = (
        z[0] ** np.arange(coefficients.shape[1]),
        (z[1:] if len(z) > 1 else 0.0) ** np.arange(coefficients.shape[2]),
    )
    return np.einsum("nkl,k,l->n", coefficients, first, np.ravel(second))


@pytest.mark.parametrize("dim", [1, 2])
def test_a_moved_polynomial_has_the_same_values(dim, rng):
    a = rng.normal(size=(3, 6, 6 if dim == 2 else 1))
    child = np.array([0.5, -0.5])[:dim]
    moved = local_polynomials._moved(a, child)
    for z in rng.uniform(-1, 1, size=(10, dim)):
        np.testing.assert_allclose(value(moved, z), value(a, child + z / 2), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("side", [1.0, 0.25])
def test_nothing_in_a_part_is_above_its_bound(dim, side, rng):
    x, shares, lam = rng.normal(size=(40, dim)), rng.normal(size=40), 2.0
    y, half = rng.normal(size=(30, dim)), np.array([0.25, 0.15])[:dim]
    found = polynomials("reference", x, shares, lam, y, half)
    coefficients, origin = found.coefficients, np.zeros((30, dim))
    for _ in range(round(-np.log2(side))):
        child = rng.choice([-0.5, 0.5], size=dim)
        coefficients, origin = local_polynomials._moved(coefficients, child), origin + child * 2.0**-_
    energy = lam * half**2
    values, rises = local_polynomials._bounded(coefficients, origin, found.remainders, energy, side)
    centre = y + half * origin
    np.testing.assert_allclose(values + found.values, log_c(x, shares, lam, centre), atol=1e-9)
    z = np.concatenate([rng.choice([-1, 0, 1], size=(20, dim)), rng.uniform(-1, 1, size=(60, dim))])
    inside = log_c(x, shares, lam, centre[:, None] + side * half * z)
    excess = values + found.values + rises - inside.max(axis=1)
    assert (excess > -1e-12).all()


def test_bounds_at_a_maximum_are_close_by_the_third_power_of_the_side(rng):
    x = rng.normal(size=(400, 2))
    x, shares, lam, half = np.concatenate([x, -x]), np.full(800, -np.log(800)), 0.3, np.array([0.3, 0.2])
    origin = np.array([[0.5, -0.5]])
    found = polynomials("reference", x, shares, lam, -half * origin, half)
    coefficients, rises = found.coefficients, []
    for child in (origin[0], np.zeros(2), np.zeros(2)):
        coefficients = local_polynomials._moved(coefficients, child)
        rises.append(local_polynomials._bounded(coefficients, origin, 0.0, lam * half**2, 0.5 ** len(rises) / 2)[1])
    assert 6 < rises[0] / rises[1] < 10
    assert 6 < rises[1] / rises[2] < 10


@on_both
@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**32 - 1),
    N=st.integers(2, 300),
    dim=st.integers(1, 2),
    log_lam=st.floats(-2, 5),
    unit=st.sampled_from([1.0, 1e3, 1e-140, 1e140]),
    offset=st.sampled_from([0.0, 1e6]),
    log_accuracy=st.floats(-18, -1),
)
def test_bounds_with_and_without_polynomials(name, seed, N, dim, log_lam, unit, offset, log_accuracy):
    """Both are at least the supremum, and above it by the accuracy at most."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, dim)) * rng.choice([0.01, 1.0], size=(N, 1))
    x[N // 2 :] = x[: N - N // 2]  # repeated rows
    x = unit * (x + offset)
    shares, lam, accuracy = rng.normal(size=N), np.exp(log_lam) / unit**2, np.exp(log_accuracy) + 1e-6 * offset**0
    start = x[shares.argmax()]
    height = float(log_c(x, shares, lam, start))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "compiled", lambda: get_backend(name))
        direct, _ = proof.supremum(x, shares, np.zeros(N), lam, height, start, accuracy, 0.0)
        patch.setattr(local_polynomials, "_MANY", 1)
        bound, where = proof.supremum(x, shares, np.zeros(N), lam, height, start, accuracy, 0.0)
    assert bound == pytest.approx(direct, abs=1.01 * accuracy + 1e-9)
    top = log_c(x, shares, lam, where)
    assert bound >= max(top, height)
    assert bound <= top + accuracy + 1e-9 * (1 + offset)
    y = np.concatenate([x, x[rng.integers(0, N, 200)] + rng.normal(size=(200, dim)) * (2 * lam) ** -0.5])
    assert (log_c(x, shares, lam, y) <= bound + 1e-12).all()


@pytest.fixture
def few_are_many(monkeypatch):
    monkeypatch.setattr(local_polynomials, "_MANY", 1)
    return monkeypatch


def bound(x, shares, lam, accuracy, start):
    height = float(log_c(x, shares, lam, start))
    return proof.supremum(x, shares, np.zeros(len(x)), lam, height, start, accuracy)[0]


def test_parts_are_limited_and_the_proof_goes_on_without_polynomials(few_are_many, rng):
    x, shares = rng.normal(size=(50, 2)), np.zeros(50)
    few_are_many.setattr(local_polynomials, "_MOST_PARTS", 10)
    limited = bound(x, shares, 1.0, 1e-6, x[0])
    few_are_many.setattr(local_polynomials, "_MANY", 10**9)
    assert limited == pytest.approx(bound(x, shares, 1.0, 1e-6, x[0]), abs=1.01e-6)


@on_both
@pytest.mark.parametrize("dim", [1, 2])
def test_a_far_point_does_not_spoil_the_polynomials_of_its_run(name, dim, few_are_many, rng):
    """exp |t| of a point at 2000 resolutions leaves the range of float64, while its share of c is below it."""
    few_are_many.setattr(proof, "compiled", lambda: get_backend(name))
    x, shares = rng.normal(size=(60, dim)), np.zeros(60)
    x[0] = 2000.0
    y, half = np.zeros((1, dim)), np.full(dim, 0.4)
    found = polynomials(name, x, shares, 0.5, y, half)
    without = polynomials(name, x[1:], shares[1:], 0.5, y, half)
    np.testing.assert_allclose(found.remainders, without.remainders, rtol=1e-12)
    np.testing.assert_allclose(found.sizes, without.sizes, rtol=1e-12)
    assert bound(x, shares, 0.5, 1e-3, x[1]) < np.inf


@on_both
def test_boxes_are_halved_until_their_polynomials_are_accurate(name, few_are_many, rng):
    """In the first boxes the remainder of points at some resolutions exceeds the accuracy."""
    few_are_many.setattr(proof, "compiled", lambda: get_backend(name))
    x, shares = rng.uniform(0.0, 15.9, size=(60, 2)), np.zeros(60)
    x[:2] = [0.0, 0.0], [15.9, 15.9]  # the half sides come to be nearly half of the resolution
    seen, compute = [], get_backend(name).polynomials

    def watched(*arguments):
        found = compute(*arguments)
        seen.extend(found.remainders)
        return found

    few_are_many.setattr(get_backend(name), "polynomials", watched)
    accuracy = 1e-8
    by_polynomials = bound(x, shares, 0.5, accuracy, x[-1])
    assert max(seen) > accuracy
    few_are_many.setattr(local_polynomials, "_MANY", 10**9)
    assert by_polynomials == pytest.approx(bound(x, shares, 0.5, accuracy, x[-1]), abs=1.01 * accuracy)


@pytest.mark.parametrize(
    ("rows", "accuracy", "side", "dim", "pays"),
    [
        (10**6, 1e-8, 0.4, 2, True),
        (10**4, 1e-8, 0.4, 2, False),
        (10**6, 1e-8, 0.6, 2, False),
        (10**6, 1e-8, 0.4, 3, False),
        (10**6, 1e-10, 0.4, 2, False),  # the terms that kernels leave out count
        (10**8, 1e-8, 0.4, 2, False),  # the rounding of the sums counts
    ],
)
def test_where_polynomials_pay(rows, accuracy, side, dim, pays):
    peak = local_polynomials.Peak(0.0, np.zeros(dim), accuracy)
    assert peak.pays(rows, 0.5, np.full(dim, side)) == pays


def test_the_data_are_read_for_fewer_boxes_at_once_if_they_are_many(few_are_many, rng):
    """A look at the deadline comes after so much work."""
    few_are_many.setattr(local_polynomials, "_WORK", 100)
    backend, sizes = get_backend("reference"), []

    class Watched:
        @staticmethod
        def polynomials(rows, centres, half, degree):
            sizes.append(len(centres))
            return backend.polynomials(rows, centres, half, degree)

    x = rng.normal(size=(50, 1))
    peak = local_polynomials.Peak(10.0, x[0], 1e-3)
    rows = backend.proof_rows(x, np.zeros(50), 0.5)
    assert peak.shown(Watched, rows, np.zeros((5, 1)), np.array([0.1])).all()
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("dim", [1, 2])
def test_bounds_of_many_points(dim, monkeypatch, rng):
    """The kernels of many rows: runs of rows are left out, and enter the bound."""
    x = rng.normal(size=(17_000, dim))
    s = cv.solve(x, beta=0.3, n_tiles=5, max_maps=30, on_failure="return")
    data = DataPasses(s.problem)
    psi = data.problem.data.frame.inward(s.decoder)
    coverage, _ = data.coverage(psi, s.tiling.masses)
    bound, _ = coverage.bound(data.x, psi, 1e-3)
    monkeypatch.setattr(local_polynomials, "_MANY", 10**9)
    assert bound == pytest.approx(coverage.bound(data.x, psi, 1e-3)[0], abs=1.01e-3)


@pytest.mark.parametrize("dim", [1, 2])
def test_a_bound_holds_remainder_rounding_and_what_is_left_out(dim, monkeypatch):
    """Of a constant polynomial with a large eps; the box is halved only if its bound exceeds the ceiling."""
    eps, lam, rows, half = 1e-6, 0.7, 1000, np.array([0.3, 0.2])[:dim]
    monkeypatch.setattr(local_polynomials, "_EPS", eps)
    monkeypatch.setattr(local_polynomials, "_MOST_HALVINGS", 0)
    monkeypatch.setattr(local_polynomials, "_LARGEST_ERROR", 1.0)
    coefficients = np.zeros((1, 15, 15 if dim == 2 else 1))
    coefficients[0, 0, 0] = 1.0
    found = Polynomials(np.array([-3.0]), coefficients, np.array([0.02]), np.array([2.0]), np.array([-9.0]))
    t = 0.02 + eps * (1024 + rows + 128 * 14) * 2.0
    slack = eps * (64 + rows + 16 * (3.0 + 3.0 + lam * half @ half))
    bound = np.logaddexp(-3.0 + t + t**3 / 3 + slack, -9.0)
    for margin in (1e-12, -1e-12):
        peak = local_polynomials.Peak(-3.0, np.zeros(dim), bound + 3.0 + margin)
        assert peak._shown(found, np.zeros((1, dim)), half, lam, rows).tolist() == [margin > 0]
        assert peak.parts == (1 if margin > 0 else 1 + 2**dim)
    # The same, three times as large: only the value changes.
    energy, origin = lam * half**2, np.full((1, dim), 0.5)
    terms = np.array([[1.0, 0.2, 0.03], [0.1, 0.04, 0.0], [0.05, 0.0, 0.0]])
    coefficients[0, :3, :3] = terms[:, : 3 if dim == 2 else 1]
    value, rise = local_polynomials._bounded(coefficients, origin, np.array([0.01]), energy, 0.5)
    other, same = local_polynomials._bounded(3 * coefficients, origin, np.array([0.03]), energy, 0.5)
    assert other - value == pytest.approx(np.log(3))
    assert same == pytest.approx(rise, rel=1e-12)
    assert np.isnan(local_polynomials._bounded(-coefficients, origin, np.array([0.01]), energy, 0.5)[0])


@pytest.mark.parametrize("dim", [1, 2])
def test_parts_cover_the_box_that_they_divide(dim, monkeypatch):
    """Of a box that stays open: at every level their centres are those of a grid of the box."""
    seen, half = {}, np.array([0.3, 0.2])[:dim]

    def never(coefficients, origin, error, energy, side):
        seen.setdefault(side, []).append(origin)
        return np.zeros(len(origin)), np.full(len(origin), np.inf)

    monkeypatch.setattr(local_polynomials, "_bounded", never)
    monkeypatch.setattr(local_polynomials, "_MOST_HALVINGS", 2)
    coefficients, nothing = np.ones((1, 15, 15 if dim == 2 else 1)), np.array([-np.inf])
    found = Polynomials(np.zeros(1), coefficients, np.zeros(1), np.ones(1), nothing)
    assert not local_polynomials.Peak(0.0, np.zeros(dim), 1.0)._shown(found, np.zeros((1, dim)), half, 1.0, 9).any()
    for level in range(3):
        line = (np.arange(2**level) + 0.5) * 2.0 ** (1 - level) - 1
        grid = np.stack(np.meshgrid(*[line] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
        found_there = np.concatenate(seen[0.5**level])
        np.testing.assert_array_equal(found_there[np.lexsort(found_there.T[::-1])], grid)


def test_the_rise_of_a_quadratic_function_is_exact_up_to_the_third_power():
    """Without slope and energy: 2 a + 2 b in the ball around a square, and the allowance for the logarithm."""
    b = np.zeros((1, 15, 15))
    b[0, 0, 0], b[0, 2, 0], b[0, 0, 2] = 1.0, 0.05, 0.02
    _, rises = local_polynomials._bounded(b, np.zeros((1, 2)), np.array([0.001]), np.zeros(2), 1.0)
    assert rises[0] == pytest.approx(0.1 + 0.04 + 0.001 + 0.071**3 / 3, rel=1e-12)
    _, rises = local_polynomials._bounded(b[:, :, :1], np.zeros((1, 1)), np.array([0.001]), np.zeros(1), 1.0)
    assert rises[0] == pytest.approx(0.05 + 0.001 + 0.051**3 / 3, rel=1e-12)


@pytest.mark.parametrize("dim", [1, 2])
def test_rises_are_those_of_the_formula(dim, rng):
    """Item by item: slopes and bends of either sign, a tail of higher terms, and the largest values on a fine grid."""
    n, side, energy = 20, 0.5, np.array([0.3, 0.2])[:dim]
    order = np.add.outer(np.arange(15), np.arange(15 if dim == 2 else 1))
    b = 0.05 * rng.normal(size=(n, *order.shape)) / 3.0**order
    b[:, 0, 0] = rng.uniform(0.5, 2, size=n)
    origin, error = rng.choice([-0.5, 0.5], size=(n, dim)), rng.uniform(0, 0.01, size=n)
    values, rises = local_polynomials._bounded(b, origin, error, energy, side)
    s = np.linspace(0, dim**0.5, 20001)
    for k in range(n):
        a, m = b[k], b[k, 0, 0]
        if dim == 1:
            g, B = a[1] / m, np.array([[2 * a[2, 0] / m]])
        else:
            g, B = np.array([a[1, 0], a[0, 1]]) / m, np.array([[2 * a[2, 0], a[1, 1]], [a[1, 1], 2 * a[0, 2]]]) / m
        higher = np.abs(a[order > 2]).sum() / m
        G, Q, t = np.abs(g).sum(), np.abs(B).sum() / 2, higher + error[k] / m
        linear = g - 2 * energy * side * origin[k]
        h, axes = np.linalg.eigh(B - np.outer(g, g) - np.diag(2 * energy * side**2))
        top = sum((abs(v @ linear) * s + bend * s**2 / 2).max() for v, bend in zip(axes.T, h, strict=True))
        assert rises[k] == pytest.approx(top + t + G * (Q + t) + (G + Q + t) ** 3 / 3, abs=1e-8)
        assert values[k] == pytest.approx(np.log(m) - energy @ origin[k] ** 2, abs=1e-13)
