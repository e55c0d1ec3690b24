"""The rate of several constraints: it never rises when a threshold is relaxed, and tiles go where they are used."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import constrained_vae as cv
from constrained_vae.multipliers.search import Search

TWO = np.array([[-1.0], [1.0]])
RARE = np.array([[-0.3], [3.5]])  # with weights 0.95 and 0.05, of two classes
STEEP = cv.ClassProbabilities([[-1.0], [1.0]], [2.0, -2.0])


def check_never_rises(x, classifier, labels, kappas, **options):
    """For thresholds from tight to loose: all hold, and the rate does not rise, to 2e-3 of it, see `relaxation`.

    The tolerance is that of the end of a branch: 2e-3 of a scale, times less than 0.1 nats per scale.
    """
    rates = []
    for kappa in kappas:
        constraints = [cv.RE(1.2), cv.CLA(kappa, classifier, labels)]
        s = cv.solve_constrained(x, constraints, n_tiles=8, on_failure="return", **options)
        assert s.status in (cv.Status.MET, cv.Status.JUMP, cv.Status.SLACK)
        assert max(s.constraint_values.values()) <= 1e-8
        if s.status is cv.Status.JUMP:
            assert max(s.sides[0].constraint_values.values()) > 0
            assert s.sides[1].free_energy == s.free_energy
        rates.append(s.rate)
    assert all(loose <= tight * (1 + 2e-3) for tight, loose in itertools.pairwise(rates)), rates
    return rates


@pytest.mark.slow
@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_the_rate_never_rises_when_a_threshold_is_relaxed(masses):
    """Where a class is rare, the branch on which a classifier tells it apart ends before CLA just holds.

    Beyond its end is the single reconstruction, right for all of the frequent class. The search must not climb from
    there to a multiplier of 450, where the constraints hold at 0.728 nats.
    """
    _, loose = check_never_rises(RARE, STEEP, [0, 1], (0.955, 0.95), weights=[0.95, 0.05], masses=masses)
    assert loose < (0.088 if masses == "fixed" else 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("masses", ["fixed", "free"])
@pytest.mark.parametrize(("dim", "spread", "distance"), [(1, 1.0, 3.0), (2, 0.5, 5.0), (1, 0.3, 5.0)])
def test_the_rate_never_rises_on_a_grid(dim, spread, distance, masses, monkeypatch):
    """152 + 8 points; no search takes more than 1000 solutions."""
    counts, seen = [], Search.seen

    def counting(self, state):
        counts.append(id(self))
        seen(self, state)

    monkeypatch.setattr(Search, "seen", counting)
    x = spread * np.random.default_rng(0).standard_normal((160, dim))
    x[152:, 0] += distance
    labels = (np.arange(160) >= 152).astype(int)
    kappas = (0.97, 0.96, 0.955, 0.95, 0.94)
    check_never_rises(x, LogisticRegression(max_iter=1000).fit(x, labels), labels, kappas, masses=masses)
    assert len(counts) < 1000 * len(kappas)


def test_one_classifier_alone_never_costs_more_when_it_is_relaxed():
    """Two of 40 points are of the second class. The last threshold holds at rate zero, 0.955 is skipped by a jump."""
    x = np.random.default_rng(0).standard_normal((40, 1))
    x[38:] += 3
    labels = (np.arange(40) >= 38).astype(int)
    classifier = LogisticRegression(C=100.0).fit(x, labels)
    kappas = (0.98, 0.96, 0.955, 0.95)
    found = [
        cv.solve_constrained(x, cv.CLA(k, classifier, labels), n_tiles=8, box=(-4, 7), on_failure="return")
        for k in kappas
    ]
    assert [s.status.name for s in found] == ["MET", "MET", "JUMP", "SLACK"]
    rates = [s.rate for s in found]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("tiles", [8, 16])
def test_tiles_go_where_they_are_used(tiles):
    """The rate of two points without error, sum rho log(rho / pi) + H(rho), is least with one tile for the rare one.

    Splits make halves, 4 and 12 of 16 tiles, which cost 0.340 nats instead of 0.200.
    """
    rho = np.array([0.95, 0.05])
    constraints = [cv.RE.from_squared_error(1e-3), cv.FRE(2.0, [[1.0]])]
    s = cv.solve_constrained(TWO, constraints, weights=rho, n_tiles=tiles)
    assert s.status is cv.Status.MET
    assert sorted(s.distinct.counts) == [1, tiles - 1]
    assert s.rate < rho @ -np.log([(tiles - 1) / tiles, 1 / tiles])
