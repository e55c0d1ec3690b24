"""Parts of branch and bound beside naive sums: bounds in boxes, roundings, shifts, and boxes that cover the data."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import logsumexp

from constrained_vae.backends import reference
from constrained_vae.backends.expansions import Expansions
from constrained_vae.frontier import proof, quadratics
from tests.helpers.coverage import log_c


def expansion(dim, rng, n=7):
    """Points, log shares, centres (4, D), half sides and Expansions of boxes."""
    x, log_shares = rng.normal(size=(n, dim)), rng.normal(size=n)
    y, half = rng.normal(size=(4, dim)), np.array([0.05, 0.11, 0.08])[:dim]
    return x, log_shares, y, half, reference.expansions(reference.proof_rows(x, log_shares, 0.3), y, half)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_slopes_and_bends_are_derivatives_of_log_c(dim, rng):
    x, log_shares, y, half, found = expansion(dim, rng)
    g, h = proof._quadratic(found, 0.3, half)
    radius, step = np.linalg.norm(half), 1e-3
    for k, centre in enumerate(y):
        axes = step * np.eye(dim)
        value = lambda *shifts, at=centre: log_c(x, log_shares, 0.3, at + sum(shifts))  # noqa: E731
        gradient = [(value(a) - value(-a)) / (2 * step) for a in axes]
        hessian = [
            [(value(a, b) - value(a, -b) - value(-a, b) + value(-a, -b)) / (4 * step**2) for a in axes] for b in axes
        ]
        bends, vectors = np.linalg.eigh(radius**2 * np.array(hessian))
        np.testing.assert_allclose(h[k], bends, atol=1e-6)
        np.testing.assert_allclose(g[k], np.abs(radius * np.array(gradient) @ vectors), atol=1e-5)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_bounds_are_the_expansion_its_rise_its_skew_and_its_rounding(dim, rng, monkeypatch):
    monkeypatch.setattr(proof, "_EPS", 1e-4)  # large, so that the rounding is seen
    lam, rows, half = 0.3, 1000, np.array([1.0, 0.5, 0.25])[:dim]
    radius = np.linalg.norm(half)
    moments, rest = np.array([[0.1, 0.2], [np.inf, np.inf]]), np.array([-1.0, -30.0])
    covariances = np.stack([np.diag([0.5, 0.2, 3.0][:dim])] * 2)
    shifts = np.array([[0.1, -2.0, 0.3], [0.0, 0.0, 0.0]])[:, :dim]
    found = Expansions(np.array([-2.0, -3.0]), shifts, covariances, moments, np.array([np.inf, -2.5]), rest)
    # The rise along an axis is the largest of g t + h t^2 / 2 for |t| <= 1.
    t = np.linspace(0, 1, 100001)
    g = 2 * lam * radius * np.abs(shifts[0])
    h = (2 * lam * radius) ** 2 * np.diag(covariances[0]) - 2 * lam * radius**2
    rise = sum((a * t + b * t**2 / 2).max() for a, b in zip(g, h, strict=True))
    skew = (0.2 ** (1 / 3) + 0.1) ** 3 / 6
    spread = np.square(shifts[0]).sum() + np.trace(covariances[0])
    rounding = 1e-4 * (64 + rows + 16 * (lam * spread + 2.0)) * (1 + 2 * lam * radius * np.sqrt(spread)) ** 2
    outer = -2.5 + 1e-4 * (64 + rows + 16 * 2.5)
    wanted = np.logaddexp([-2.0 + rise + skew + rounding, outer], rest)
    np.testing.assert_allclose(proof.upper_bounds(found, rows, lam, half), wanted, rtol=1e-9)
    wanted = np.logaddexp([-2.0 + 0.7 + skew + rounding, outer], rest)
    np.testing.assert_allclose(proof.upper_bounds(found, rows, lam, half, np.array([0.7, 0.8])), wanted, rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_nothing_in_a_box_is_above_its_bound(dim, rng):
    x, log_shares, y, half, found = expansion(dim, rng)
    bounds = proof.upper_bounds(found, len(x), 0.3, half)
    values = log_c(x, log_shares, 0.3, y + half * rng.uniform(-1, 1, size=(300, 1, dim)))
    assert (values.max(axis=0) <= bounds).all()
    assert (bounds <= values.max(axis=0) + 0.1).all()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_shifts_give_the_least_bound_of_a_form_in_a_ball(dim, rng):
    """Without a gap: the maximum over a ball is the least dual bound (trust regions)."""
    g, h = np.abs(rng.normal(size=(40, dim))), np.sort(3 * rng.normal(size=(40, dim)), axis=1)
    h[:10] = -5 - np.abs(h[:10])[:, ::-1]  # an inner maximum
    g[10:14, -1] = 1e-9  # near the hard case
    shifts, bounds = quadratics.least_shifts(g, h)
    assert (shifts >= 0).all()
    assert (shifts > h[:, -1]).all()
    np.testing.assert_allclose(bounds, (g**2 / (shifts[:, None] - h)).sum(axis=1) / 2 + shifts / 2)
    t = rng.normal(size=(5000, dim))
    t *= rng.uniform(size=(5000, 1)) ** 0.3 / np.linalg.norm(t, axis=1, keepdims=True)
    t = np.concatenate([t, t / np.linalg.norm(t, axis=1, keepdims=True)])
    largest = (g @ t.T + h @ (t**2).T / 2).max(axis=1)
    assert (largest <= bounds + 1e-12).all()
    assert (bounds <= largest + 0.03 * (1 + np.abs(h).max(axis=1))).all()
    inner = (np.abs(g / h) <= 1).all(axis=1) & (np.square(g / h).sum(axis=1) < 1) & (h[:, -1] < 0)
    assert inner.any()
    np.testing.assert_allclose(shifts[inner], 0, atol=1e-9)


def test_shares_are_raised_and_the_multiplier_lowered_by_more_than_rounding(monkeypatch):
    eps = 2.0**-20
    monkeypatch.setattr(proof, "_EPS", eps)
    points, log_shares, rounding = np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([-2.0, 0.5]), np.array([1e-3, 0.0])
    raised, lowered = proof.outward(points, log_shares, rounding, 9.0, 2.0)
    off = 2.0 * 3.0 * np.array([5.0, 1.0])
    np.testing.assert_allclose(
        raised - log_shares - rounding, eps * (off + eps * off**2 + 4 * np.abs(log_shares) + 4), rtol=1e-8
    )
    assert lowered == pytest.approx(9.0 * (1 - eps * (2 + 8 + 30.0)), rel=1e-14)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_every_box_of_a_cover_has_the_bound_of_its_shift(dim, rng):
    """The formula of `verify.py`, beside the bounds of the boxes; and the boxes fill the box of the data."""
    x, log_shares, lam = rng.normal(size=(5, dim)), rng.normal(size=5), 0.4
    best = x[log_c(x, log_shares, lam, x).argmax()]
    height, covers = float(log_c(x, log_shares, lam, best)), []
    bound, where = proof.supremum(x, log_shares, np.zeros(5), lam, height, best, 1e-2, 4.0, covers)
    cover = proof.Cover(*(np.concatenate(column) for column in zip(*covers, strict=True)))
    assert cover.bounds.max() <= bound
    assert log_c(x, log_shares, lam, where) == pytest.approx(bound - 1e-2, abs=1e-9)
    assert (cover.high - cover.low).prod(axis=1).sum() == pytest.approx(np.ptp(x, axis=0).prod())
    assert (cover.low.min(axis=0) == x.min(axis=0)).all()
    assert (cover.high.max(axis=0) == x.max(axis=0)).all()
    for low, high, found, shift in zip(*cover, strict=True):
        y, square = (low + high) / 2, np.square((high - low) / 2).sum()
        if np.isnan(shift):
            logs = log_shares - lam * np.square(x - np.clip(x, low, high)).sum(axis=1)
            assert found == pytest.approx(logsumexp(logs), abs=1e-9)
            continue
        u = np.exp(log_shares - lam * np.square(x - y).sum(axis=1) - log_c(x, log_shares, lam, y))
        e = x - u @ x
        t = 2 * lam * np.sqrt(square) * np.linalg.norm(e, axis=1)
        A = (2 * lam + shift) * np.eye(dim) - 4 * lam**2 * (u[:, None] * e).T @ e
        form = 2 * lam**2 * (u @ x - y) @ np.linalg.solve(A, u @ x - y)
        skew = (np.cbrt(u @ (t**3 * np.exp(t))) + u @ (t**2 * np.exp(t))) ** 3 / 6
        assert found == pytest.approx(log_c(x, log_shares, lam, y) + form + shift * square / 2 + skew, abs=1e-9)


def test_boxes_are_wider_than_their_parts_by_the_rounding_of_centres(monkeypatch):
    """Else a point between two boxes would be in none; also where the region ends at the origin."""
    halves = []

    def expansions(rows, centres, half):
        halves.append(half)
        return reference.expansions(rows, centres, half)

    backend = SimpleNamespace(proof_rows=reference.proof_rows, expansions=expansions)
    monkeypatch.setattr(proof, "compiled", lambda: backend)
    x = np.array([[0.0, -1.0], [1.0, 0.0]])
    proof.supremum(x, np.zeros(2), np.zeros(2), 0.1, 1.0, x[0], 1.0)
    assert (halves[0] - 0.5 >= 3.9 * np.finfo(float).eps).all()


def test_a_line_of_very_many_resolutions():
    """More than twenty halvings lead to a box that is finished."""
    x, lam = np.array([[0.0], [0.4], [1e6]]), 1.0
    height = float(log_c(x, np.zeros(3), lam, [0.2]))
    bound, where = proof.supremum(x, np.zeros(3), np.zeros(3), lam, height, np.array([0.2]), 1e-6)
    assert height <= bound <= height + 1.001e-6
    assert where == pytest.approx([0.2])


def test_axes_of_flat_data_take_no_more_memory_than_the_data(rng, monkeypatch):
    """The singular vectors of rows would be a matrix of rows times rows."""
    monkeypatch.setattr(proof, "supremum", lambda *_: (0.5, np.zeros(3)))
    x = rng.normal(size=(2000, 3)) @ rng.normal(size=(3, 5))
    tracemalloc.start()
    proof.of_flat(x, np.zeros(2000), np.zeros(2000), 2.0, -1.0, x[2], 1e-3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * x.nbytes < 2000 * 2000 * 8


def test_the_multiplier_of_flat_data_is_lowered_by_the_rounding_of_their_coordinates(rng, monkeypatch):
    eps = 2.0**-20
    monkeypatch.setattr(proof, "_EPS", eps)
    called = []

    def supremum(*arguments):
        called.append(arguments)
        return 0.5, np.array([1.0, 0.0, 0.0])

    monkeypatch.setattr(proof, "supremum", supremum)
    axes = np.linalg.qr(rng.normal(size=(5, 3)))[0].T
    x = rng.normal(size=(6, 3)) @ axes
    bound, top = proof.of_flat(x, np.zeros(6), np.zeros(6), 2.0, -1.0, x[2], 1e-3)
    flat, _, _, lam, height, where, accuracy, error = called[0]
    assert (bound, height, accuracy, error) == (0.5, -1.0, 1e-3, 24.0)
    assert lam == pytest.approx(2.0 * (1 - 4 * 24.0 * eps), rel=1e-14)
    np.testing.assert_allclose(np.square(flat[:, None] - flat).sum(axis=2), np.square(x[:, None] - x).sum(axis=2))
    np.testing.assert_allclose(where, flat[2])
    assert np.linalg.norm(top) == pytest.approx(1.0)
    assert not np.isfinite(
        proof.of_flat(rng.normal(size=(40, 5)), np.zeros(40), np.zeros(40), 2.0, -1.0, x[2], 1e-3)[0]
    )


def test_a_shift_is_not_below_the_largest_bend():
    """Else the quadratic function has no bound by it; without a slope this decides."""
    h = np.array([[-2.0, 1.0], [-3.0, -0.5], [0.0, 0.0], [0.0, 1e8]])
    shifts, bounds = quadratics.least_shifts(np.zeros((4, 2)), h)
    assert (shifts > h.max(axis=1)).all()
    np.testing.assert_allclose(bounds, [0.5, 0.0, 0.0, 5e7], rtol=1e-9, atol=1e-9)
    assert (bounds >= [0.5, 0.0, 0.0, 5e7]).all()


@pytest.mark.parametrize("rows", [3, 2**14])
def test_there_is_no_proof_where_the_rounding_of_the_data_exceeds_the_resolution(rows):
    """The multiplier, lowered by the rounding, would not be positive."""
    x = np.linspace(1.0, 2.0, rows)[:, None]
    assert proof.supremum(x, np.zeros(rows), np.zeros(rows), 1e31, 0.0, x[0], 1.0)[0] == np.inf


def test_a_part_that_stays_open_is_no_proof_however_often_one_axis_is_halved(monkeypatch):
    """Numbers of boxes have 64 bits, and data on a line in three dimensions allow 90 halvings."""
    x = np.array([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    centres = []

    def expansions(rows, y, half):
        centres.append(y)
        return reference.expansions(rows, y, half)

    def bounds(found, rows, lam, half):
        return np.where(np.abs(centres[-1][:, 0] - 1.25) <= half[0], np.inf, -np.inf)

    backend = SimpleNamespace(proof_rows=reference.proof_rows, expansions=expansions)
    monkeypatch.setattr(proof, "compiled", lambda: backend)
    monkeypatch.setattr(proof, "upper_bounds", bounds)
    assert proof.supremum(x, np.zeros(2), np.zeros(2), 1.0, 0.0, x[0], 1.0)[0] == np.inf


def test_the_reference_backend_looks_at_the_deadline_more_often(monkeypatch, rng):
    """It takes ten times as long for a box and a point as the kernels."""
    x, sizes = rng.normal(size=(8, 4)), []
    expansions = reference.expansions

    def watched(rows, y, half):
        sizes.append(len(y))
        return expansions(rows, y, half)

    monkeypatch.setattr(reference, "expansions", watched)
    monkeypatch.setattr(proof, "_SLOW_WORK", 80)
    proof.supremum(x, np.zeros(8), np.zeros(8), 0.5, -5.0, x[0], 0.1)
    assert max(sizes) == 10
