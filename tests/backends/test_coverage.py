"""The kernels of the coverage against sums in extended precision; the proof against values everywhere in a box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from constrained_vae.backends import get_backend
from constrained_vae.frontier.proof import outward, upper_bounds

_LONG = np.longdouble
_EPS = float(np.finfo(np.float64).eps)
on_every_backend = pytest.mark.parametrize("name", ["reference", "numba"])


def problem(seed, N, n, S, log_lam, unit=1.0, offset=0.0):
    """Rows, log shares, lambda and points, some of which are rows; shares over several decades."""
    rng = np.random.default_rng(seed)
    x = unit * rng.normal(size=(N, S)) + offset
    y = x[rng.integers(0, N, n)] + unit * rng.choice([0.0, 0.1, 1.0], size=(n, 1)) * rng.normal(size=(n, S))
    return x, rng.normal(scale=3, size=N), np.exp(log_lam) / unit**2, y


def naive(x, shares, lam, y):
    """log c, and the mean of the rows, by differences in extended precision."""
    H = _LONG(lam) * np.stack([np.square(x.astype(_LONG) - point).sum(axis=1) for point in y.astype(_LONG)])
    logits = shares.astype(_LONG) - H
    top = logits.max(axis=1, keepdims=True)
    u = np.exp(logits - top)
    total = u.sum(axis=1, keepdims=True)
    return (top + np.log(total))[:, 0], (u / total) @ x.astype(_LONG), (u / total * (H + np.abs(shares))).sum(axis=1)


def linear_form(x, lam, y):
    return lam * np.square(x).sum(axis=1), 2 * lam * y, -lam * np.square(y).sum(axis=1)


@on_every_backend
@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    N=st.integers(1, 200),
    n=st.integers(1, 40),
    S=st.integers(1, 12),
    log_lam=st.floats(-4, 12),
    unit=st.sampled_from([1.0, 1e3, 1e-140, 1e140]),
    offset=st.sampled_from([0.0, 1e8]),
)
def test_differences_are_good_to_their_own_rounding(name, seed, N, n, S, log_lam, unit, offset):
    """With the stated bound: (512 + N / 64) eps, the energies to (S + 4) eps, the value to 8 eps."""
    x, shares, lam, y = problem(seed, N, n, S, log_lam, unit, unit * offset)
    offset, v, b = linear_form(x, lam, y)
    offset[0] = max(offset[0], 2e3)  # steep, so that differences are asked for
    y = v / (2 * lam)
    values, means = get_backend(name).coverage(x, offset, shares, v, b, lam)
    exact, mean, size = naive(x, shares, lam, y)
    allowed = _EPS * (512 + N / 64 + 8 * np.abs(exact) + (S + 4) * size)
    assert (np.abs(values - exact) <= allowed).all()
    reach = np.abs(x - x[0]).max() + np.abs(x).max()
    assert (np.abs(means - mean) <= (allowed[:, None] + 2 * N * _EPS) * reach).all()
    assert get_backend(name).coverage(x, offset, shares, v, b, lam, with_means=False)[1] is None


@on_every_backend
@pytest.mark.parametrize(("N", "n", "S"), [(1500, 70, 1), (1500, 70, 2), (3000, 33, 4), (1100, 67, 9), (600, 65, 30)])
@pytest.mark.parametrize("log_lam", [0.0, 6.0])
@pytest.mark.parametrize("quadratic", [True, False])
def test_many_rows(name, N, n, S, log_lam, quadratic):
    """Beyond one chunk of rows, one batch of points; rows in a sorted order, so that runs are left out."""
    x, shares, lam, y = problem(5, N, n, S, log_lam)
    x = x[np.argsort(x[:, 0])]
    arguments = linear_form(x, lam, y)
    exact, mean, size = naive(x, shares, lam, y)
    values, means = get_backend(name).coverage(x, arguments[0], shares, *arguments[1:], lam if quadratic else None)
    allowed = _EPS * (512 + N / 64 + 2 * (S + 8) * (size + arguments[0].max()))
    assert (np.abs(values - exact) <= allowed).all()
    assert (np.abs(means - mean) <= 10 * (allowed[:, None] + N * _EPS)).all()


@pytest.mark.parametrize("steep", [False, True])
def test_the_gpu_computes_the_same(emulated, steep):
    """Its results are on the host, like the arguments."""
    x, shares, lam, y = problem(7, 300, 40, 3, 8.0 if steep else -1.0)
    offset, v, b = linear_form(x, lam, y)
    exact, mean, _ = naive(x, shares, lam, y)
    values, means = emulated.coverage(x, offset, shares, v, b, lam)
    assert type(values) is type(means) is np.ndarray
    np.testing.assert_allclose(values, exact.astype(float), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(means, mean.astype(float), rtol=1e-9, atol=1e-9)
    assert emulated.coverage(x, offset, shares, v, b, lam, with_means=False)[1] is None


def test_the_bits_do_not_depend_on_the_other_points():
    x, shares, lam, y = problem(3, 900, 50, 3, 1.0)
    offset, v, b = linear_form(x, lam, y)
    kernel = get_backend("numba").coverage
    one = kernel(x, offset, shares, v, b, lam)
    for found in (kernel(x, offset, shares, v, b, lam), kernel(x, offset, shares, v, b, lam, with_means=False)):
        np.testing.assert_array_equal(found[0], one[0])


@on_every_backend
@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    N=st.integers(1, 150),
    dim=st.integers(1, 3),
    log_lam=st.floats(-3, 9),
    log_side=st.floats(-9, 1),
    unit=st.sampled_from([1.0, 1e3, 1e-140, 1e140]),
    offset=st.sampled_from([0.0, 1e8]),
)
def test_nothing_in_a_box_is_above_its_bound(name, seed, N, dim, log_lam, log_side, unit, offset):
    """The values in extended precision, at corners, edges and inside; and the bound is not far above them."""
    x, shares, lam, y = problem(seed, N, 17, dim, log_lam, unit, unit * offset)
    rng = np.random.default_rng(seed)
    half = np.exp(log_side) * rng.uniform(0.5, 1, size=dim) / np.sqrt(2 * lam)
    raised, lowered = outward(x, shares, np.zeros(N), lam)
    backend = get_backend(name)
    found = backend.expansions(backend.proof_rows(x, raised, lowered), y, half)
    bounds = upper_bounds(found, N, lowered, half)
    steps = np.concatenate([rng.choice([-1, 0, 1], size=(9, dim)), rng.uniform(-1, 1, size=(9, dim))])
    for step in steps:
        inside = y + step * half
        exact = naive(x, shares, lam, inside)[0]
        # Points so far from the origin round by more than a small box is wide, and the values with them.
        assert (exact <= bounds + 8 * np.sqrt(lam) * _EPS * np.abs(x).max() * (1 + np.sqrt(np.abs(exact)))).all()
    centre = naive(x, shares, lam, y)[0]
    if log_side < -5 and offset == 0:
        assert (bounds <= centre + 0.1 * (1 + 3 * np.sqrt(np.abs(centre)))).all()


@on_every_backend
@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    N=st.integers(1, 600),
    dim=st.integers(1, 2),
    log_lam=st.floats(-3, 9),
    side=st.floats(0.01, 0.5),
    degree=st.integers(2, 14),
    unit=st.sampled_from([1.0, 1e3, 1e-140, 1e140]),
    offset=st.sampled_from([0.0, 1e3]),
)
def test_c_is_its_polynomial_to_the_remainder(name, seed, N, dim, log_lam, side, degree, unit, offset):
    """With log c in extended precision, at corners, edges and inside; the polynomial is summed term by term."""
    x, shares, lam, y = problem(seed, N, 17, dim, log_lam, unit, unit * offset)
    rng = np.random.default_rng(seed)
    half = side * rng.uniform(0.5, 1, size=dim) / np.sqrt(2 * lam)
    backend = get_backend(name)
    found = backend.polynomials(backend.proof_rows(x, shares, lam), y, half, degree)
    assert found.coefficients.shape == (17, degree + 1, degree + 1 if dim == 2 else 1)
    centre = naive(x, shares, lam, y)[0]
    for z in np.concatenate([rng.choice([-1, 0, 1], size=(6, dim)), rng.uniform(-1, 1, size=(6, dim))]):
        with np.errstate(under="ignore"):
            exact = np.exp(naive(x.astype(_LONG), shares, lam, y + _LONG(1) * half * z)[0] - centre)
        powers = [z[d] ** np.arange(degree + 1) for d in range(dim)] + [np.ones(1)] * (2 - dim)
        value = np.einsum("nkl,k,l->n", found.coefficients, *powers)
        tilt = np.exp(_LONG(lam) * np.square(_LONG(1) * half * z).sum())
        rounding = 1e-14 * (degree + N + np.abs(shares).max()) * found.sizes
        rest = np.exp(found.rest - centre) * tilt
        assert (np.abs(exact * tilt - value) <= found.remainders + rounding + rest).all()
        assert (exact * tilt <= found.sizes + rounding + rest).all()
        assert (found.rest < centre - 20).all()  # little is left out
    assert (np.abs(found.values - centre) <= 1e-14 * (N + np.abs(centre)) + np.exp(found.rest - centre)).all()


def test_bounds_are_close_by_the_third_power_of_the_side():
    """At the maximum of one cluster: the slope is zero, and the third moment decides."""
    x = np.random.default_rng(0).normal(size=(400, 2))
    x = np.concatenate([x, -x])
    shares, y = np.full(800, -np.log(800)), np.zeros((1, 2))
    excess, backend = [], get_backend("numba")
    for side in (0.02, 0.01, 0.005):
        raised, lowered = outward(x, shares, np.zeros(800), 0.3)
        found = backend.expansions(backend.proof_rows(x, raised, lowered), y, np.full(2, side))
        excess.append(float(upper_bounds(found, 800, lowered, np.full(2, side))[0] - found.values[0]))
    assert excess[0] < 2e-5
    assert 6 < excess[0] / excess[1] < 10
    assert 6 < excess[1] / excess[2] < 10
