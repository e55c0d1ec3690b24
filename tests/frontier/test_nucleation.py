"""The temperature of nucleation against closed forms, to rounding, and against a grid of the quotient (T16)."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae._utils import deadline
from constrained_vae.frontier.coverage import Coverage
from constrained_vae.testing import nucleation_theta, unequal_points

# From symmetry, where c is flat to rounding, to a minority that rounding hides from the covariance.
_SHARES = (0.5, 0.5 - 1e-9, 0.5 - 1e-7, 0.499999, 0.49999, 0.4999, 0.499, 0.49, 0.3, 0.9, 1e-2, 1e-6, 1e-12)


@pytest.mark.filterwarnings("ignore:.*has lost digits:UserWarning")  # the radius of a light point far from the origin
@pytest.mark.parametrize(("a", "offset", "every"), [(1.0, 0.0, 1), (1000.0, 0.0, 5), (1.0, 1e5, 4)])
def test_two_points(a, offset, every):
    for p in _SHARES[::every]:
        found = cv.nucleation_beta([[offset - a], [offset + a]], weights=[1 - p, p])
        assert found == pytest.approx(nucleation_theta(a, p), rel=1e-10), p


@pytest.mark.parametrize("p", [0.4999, 0.3, 0.01])
def test_two_points_just_below_it(p):
    """The optimum of free masses has two reconstructions below the temperature, with the exact F, and one above."""
    theta = cv.nucleation_beta([[-1.0], [1.0]], weights=[1 - p, p])
    problem, exact = unequal_points(1.0, p, 0.99 * theta)
    s = cv.global_solution(problem.x, beta=problem.beta, weights=problem.weights, gap=1e-10)
    assert s.free_energy == pytest.approx(exact.rate + exact.distortion / (2 * problem.beta), abs=1e-10)
    assert len(s.distinct) > 1
    assert len(cv.global_solution(problem.x, beta=1.0001 * theta, weights=problem.weights, gap=1e-10).distinct) == 1


def test_largest_quotient_of_cumulants(rng):
    """sup over t of 2 K(t) / t^2 in one dimension, on a fine grid and then a parabola through its three best points."""
    for n in (3, 5, 8, 40):
        x = np.append(rng.exponential(size=n), 3.0)
        w = rng.uniform(0.1, 1, size=n + 1)
        w /= w.sum()
        z = x - w @ x
        t = np.concatenate([-np.geomspace(60, 1e-3, 40_000), np.geomspace(1e-3, 60, 40_000)])
        K = np.log1p(w @ np.expm1(np.outer(z, t)))
        quotient = 2 * K / t**2
        i = int(quotient.argmax())
        rise = (quotient[i + 1] - quotient[i - 1]) ** 2 / (8 * (2 * quotient[i] - quotient[i + 1] - quotient[i - 1]))
        assert cv.nucleation_beta(x[:, None], weights=w) == pytest.approx(quotient[i] + max(rise, 0), rel=1e-9)


@pytest.mark.parametrize("p", [0.5, 0.499, 0.3, 0.01])
def test_one_bernoulli_unit(p):
    """At lambda = 1 log c is zero for every psi: sum_x p(x) p(x | psi) / p(x) = 1."""
    beta = cv.nucleation_beta([[0.0], [1.0]], cv.ELBO(likelihood="bernoulli"), weights=[1 - p, p])
    assert beta == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("dim", [3, 10])
def test_one_hot_data(dim):
    """By symmetry the first other code has one site per point, m of the way from the mean to it: a one-line maximum."""
    m = np.linspace(1e-4, 1 - 1e-9, 20_000)[:, None]
    d = (1 - 1 / dim) * m[:, 0] ** 2  # divergence of a site from the mean
    own, other = m[:, 0] * (1 - 1 / dim), -m[:, 0] / dim  # a_i / 2 of the own point, and of the others
    low, high = np.full(len(m), 1e-3), np.full(len(m), 1e3)
    for _ in range(60):  # c = 1, by bisection in log lambda
        lam = np.sqrt(low * high)
        log_c = np.logaddexp(2 * lam * own - np.log(dim), 2 * lam * other + np.log1p(-1 / dim)) - lam * d
        low, high = np.where(log_c > 0, low, lam), np.where(log_c > 0, lam, high)
    assert cv.nucleation_beta(np.eye(dim)) == pytest.approx(float((1 / (2 * low)).max()), rel=1e-7)


def test_climbs_look_at_the_deadline(monkeypatch):
    """The search for maxima takes all of the time, and the climbs end at once: what is left is the lower bound."""
    x, now = np.array([[-1.0], [1.0], [4.5]]), [0.0]
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: now[0]))
    maxima = Coverage.maxima

    def slow(self, starts):
        found = maxima(self, starts)
        now[0] = 2.0
        return found

    monkeypatch.setattr(Coverage, "maxima", slow)
    with pytest.warns(cv.NotConvergedWarning, match="time_limit=1: nucleation happens at beta=.* or above"):
        assert cv.nucleation_beta(x, time_limit=1.0) == cv.first_critical_beta(x)
