"""What a solution says of its own accuracy: estimated error, split condition, and data beside a large offset."""

import warnings

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae import datasets
from constrained_vae.solvers.split_condition import split_condition

FOUR = datasets.four_clusters(n_per_cluster=5)


def error_in_long_double(s):
    """Distance of the reconstructions from the fixed point that plain maps in long double reach from them."""
    x, rho, lam = (np.asarray(a, np.longdouble) for a in (s.x, s.weights, 0.5 / s.beta))
    sites = s.distinct
    psi, pi, rho = sites.decoder.astype(x.dtype), sites.masses.astype(x.dtype), rho / rho.sum()
    for _ in range(3000):
        energy = lam * np.square(x[:, None] - psi).sum(axis=2)
        q = pi / pi.sum() * np.exp(energy.min(axis=1, keepdims=True) - energy)
        q = rho[:, None] * q / q.sum(axis=1, keepdims=True)
        before, psi = psi, q.T @ x / q.sum(axis=0)[:, None]
        if np.abs(psi - before).max() <= 1e-18 * np.abs(x).max():
            break
    return float(np.sqrt(q.sum(axis=0) @ np.square(sites.decoder - psi).sum(axis=1)))


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is no longer than double here")
@pytest.mark.parametrize("tol", [1e-6, 1e-10, 1e-14])
@pytest.mark.parametrize(
    ("beta", "unit", "offset"),
    [(20.0, 1.0, 0.1), (2.0, 1.0, 0.1), (0.2, 1e3, 0.1), (2.0, 1.0, 1e8), (20.0, 1.0, 1e8 + 0.3)],
)
def test_the_error_estimate_holds_to_the_last_digit(beta, unit, offset, tol):
    """Twice the estimate is left, because rounding errors may add up along one direction."""
    x = unit * FOUR.x + offset * unit
    s = cv.solve(x, beta=beta * unit**2, n_tiles=4, tol=tol)
    assert s.converged
    assert error_in_long_double(s) <= 2 * s.error_estimate
    assert s.error_estimate <= (max(tol, 1e-12) + 1e-15 * offset) * s.frame.scale


def test_the_top_eigenvalue_is_that_of_the_decoder_or_unknown():
    """Started at the mean, which is unstable, and stopped after every number of maps on the way."""
    seen = 0
    for n in range(1, 60):
        s = cv.solve(FOUR.x, beta=0.5, n_tiles=8, start=np.zeros((8, 2)), max_maps=n, on_failure="return")
        if not np.isnan(s.split_condition):
            sites, seen = s.distinct, seen + 1
            condition = split_condition(s.problem, s.frame.inward(sites.decoder), sites.log_masses)
            assert s.split_condition == pytest.approx(condition.top, rel=1e-9)
    assert seen > 0


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_data_beside_a_large_offset_warn_of_lost_digits(unit):
    """From eps offset > 1e-7 radius on; the free energy is that of the rounded data, whose decoder loses digits."""
    x = unit * FOUR.x
    radius = np.sqrt(np.square(x - x.mean(axis=0)).sum(axis=1).mean())
    solve = {"beta": unit**2, "tiling": cv.Tiling.uniform(4)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cv.solve(x + 1e8 * radius, **solve)
    far = x + 1e12 * radius
    with pytest.warns(UserWarning, match="it has lost digits"):
        s = cv.solve(far, **solve)
    with pytest.warns(UserWarning, match="it has lost digits"):
        cv.first_critical_beta(far)
    exact = cv.solve(far - 1e12 * radius, **solve)  # this difference is exact
    assert s.free_energy == pytest.approx(exact.free_energy, abs=1e-12)
    assert np.abs((s.decoder - 1e12 * radius) - exact.decoder).max() <= 2 * s.error_estimate


def test_rows_that_differ_by_rounding_alone_warn_and_equal_rows_do_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cv.solve(np.full((5, 2), 1e17), n_tiles=2)
        cv.solve(np.full((5, 2), 0.1), n_tiles=2)
    with pytest.warns(UserWarning, match="it has lost digits"):
        cv.solve([[1e17], [1e17 + 16]], n_tiles=2)
