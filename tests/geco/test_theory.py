"""Trained models against exact answers: the linear VAE (section 5), the frontier (T22), kappas that are not active."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.geco import Ramp, natural_multiplier, train
from tests.helpers.marks import slow

GAUSSIAN = cv.datasets.gaussian((4.0, 2.0, 0.5))  # 4000 points, covariance exactly diag(4, 2, 0.5)
# kappa^2 -> lambda*, R* in nats
EXACT = {1.2: (1.25, 2.06758), 0.3: (5.0, 4.147025), 3.0: (0.4, 0.816577), 5.5: (1 / 6, 0.143841)}
TRANSITION = {1.5: (1.0, 1.732868)}


def water_filling(theta, ell=(4.0, 2.0, 0.5)):
    """Distortion and rate of a Gaussian (section 5)."""
    ell = np.array(ell)
    return np.minimum(ell, theta).sum(), 0.5 * np.log(np.maximum(ell / theta, 1)).sum()


def check_linear_vae(squared_error, exact, seed):
    """With default settings: lambda within 1 %, KL within 2 %, no excursion of lambda beyond 30 times."""
    run = train(GAUSSIAN.x, cv.RE.from_squared_error(squared_error), latent_dim=3, hidden=(), seed=seed)
    tail, lam = run.history.tail(), run.history.multipliers["RE"]
    assert tail.multipliers["RE"].mean() == pytest.approx(exact[0], rel=0.01)
    assert tail.kl.mean() == pytest.approx(exact[1], rel=0.02)
    assert tail.distortion.mean() == pytest.approx(squared_error, rel=0.01)
    assert 1 / 30 < lam.min() / lam[-1]
    assert lam.max() / lam[-1] < 30
    assert run.report["RE"].status == "met"
    return run


def test_linear_vae():
    """Of the last unit no more than the noise is coded at this kappa; every other one is slow."""
    check_linear_vae(1.2, EXACT[1.2], seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("squared_error", "exact"), EXACT.items())
def test_linear_vae_from_every_seed(squared_error, exact, seed):
    check_linear_vae(squared_error, exact, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("squared_error", "exact"), TRANSITION.items())
def test_linear_vae_on_a_transition(squared_error, exact, seed):
    check_linear_vae(squared_error, exact, seed)


def heavy_tails():
    """Student-t data, whose farthest point is at fifty times the scale."""
    return np.random.default_rng(0).standard_t(2, (2000, 3)) * [2, 1.4, 0.7]


def from_sklearn(name, standardised):
    """A table of scikit-learn; raw columns have units from 0.001 to 1000."""
    import sklearn.datasets

    x = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)[0]
    x = x[:, x.std(axis=0) > 0]
    return (x - x.mean(axis=0)) / x.std(axis=0) if standardised else x


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        heavy_tails,
        *(
            pytest.param(partial(from_sklearn, name, standardised), id=f"{name}{', standardised' * standardised}")
            for name in ("digits", "wine", "breast_cancer", "diabetes")
            for standardised in (False, True)
        ),
    ],
)
def test_linear_vae_on_data_from_outside(data):
    """A linear VAE sees the covariance alone: the slope and rate of water-filling at 0.3 of the variance."""
    x = data()
    ell = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    kappa = cv.RE.from_squared_error(0.3 * ell.sum())
    lam = natural_multiplier(x, kappa)
    D, R = water_filling(0.5 / lam, ell)
    assert pytest.approx(kappa.allowance, rel=1e-9) == D
    run = train(x, kappa, latent_dim=min(x.shape[1], 40), hidden=())
    assert run.multipliers["RE"] == pytest.approx(lam, rel=0.02)
    assert run.history.tail().kl.mean() == pytest.approx(R, rel=0.02)
    assert run.report["RE"].status == "met"


@pytest.mark.slow
def test_linear_vae_evaluated():
    """On all points: the marginal posterior of Gaussian data is the prior, two of three units are active."""
    run = train(GAUSSIAN.x, cv.RE.from_squared_error(3.0), latent_dim=3, hidden=(), steps=6000)
    found = run.evaluate(samples=8)
    D, R = water_filling(1.25)
    assert found.rate == pytest.approx(R, rel=0.05)
    assert found.distortion == pytest.approx(D, rel=0.02)
    assert found.constraints["RE"][0] == pytest.approx(found.distortion - 3.0, rel=1e-9)
    assert found.n_active == 2
    assert abs(found.marginal_kl) < 0.03
    assert found.mutual_information == pytest.approx(R, abs=0.06)
    assert found.holes < 0.01
    # -log p(x) of an ELBO at beta = 1 is at least the entropy of the data under sigma = 1; here just its parts.
    assert found.elbo == pytest.approx(-found.rate - found.distortion / 2 - 1.5 * np.log(2 * np.pi), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "theta"),
    [
        slow({"objective": "elbo", "sigma": 1.1}, 1.21),
        ({"objective": "beta", "beta": 3.0, "sigma": 0.5}, 0.75),
        ({"objective": "annealed", "beta": Ramp(20.0, 1.25, 2000)}, 1.25),
    ],
)
def test_linear_vae_at_a_temperature(options, theta):
    """theta = sigma^2 beta: water-filling without any constraint; one is only watched."""
    run = train(GAUSSIAN.x, cv.RE(1.0), latent_dim=3, hidden=(), steps=5000, **options)
    D, R = water_filling(theta)
    tail = run.history.tail()
    assert tail.distortion.mean() == pytest.approx(D, rel=0.01)
    assert tail.kl.mean() == pytest.approx(R, rel=0.02)
    assert run.report["RE"].status == "not met"
    assert np.isnan(run.report["RE"].multiplier)
    assert run.history.equivalent_beta[-1] == pytest.approx(theta / run.sigma**2)


@pytest.mark.filterwarnings("ignore:RE. kappa.2 = 8 .* is at least the variance:UserWarning")
def test_a_slack_constraint_costs_nothing():
    """lambda and KL go to 0 where kappa^2 exceeds the variance (T21)."""
    run = train(GAUSSIAN.x, cv.RE.from_squared_error(8.0), latent_dim=3, hidden=(), steps=10_000)
    tail = run.history.tail()
    assert tail.multipliers["RE"].max() < 1e-3
    assert tail.kl.mean() < 1e-3
    assert run.report["RE"].status == "slack"
    assert "slack" in repr(run)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:RE. kappa.2 = 6.5 .* is at least the variance:UserWarning")
def test_a_constraint_that_just_holds_is_slack():
    """kappa^2 = tr Cov: lambda comes to rest below 1 / (2 ell_1), from where nothing is coded."""
    run = train(GAUSSIAN.x, cv.RE.from_squared_error(6.5), latent_dim=3, hidden=(), steps=15_000)
    assert run.history.tail().multipliers["RE"].max() < 1 / 8
    assert run.history.tail().kl.mean() < 0.01
    assert run.report["RE"].status == "slack"


@pytest.mark.filterwarnings("ignore:RE. kappa.2 = 2 .* cannot be reached:UserWarning")
def test_an_unreachable_constraint_is_said_to_be():
    """One latent dimension leaves 2.5 of the variance: lambda ends at its bound, and the report knows the floor."""
    with pytest.warns(cv.NotConvergedWarning, match=r"RE unreachable: .*a linear code of that size reaches 2\.5"):
        run = train(GAUSSIAN.x, cv.RE.from_squared_error(2.0), latent_dim=1, hidden=())
    found = run.report["RE"]
    assert (found.status, found.hit) == ("unreachable", 1)
    assert run.history.bounds["RE"][-1] == 1
    assert run.history.multipliers["RE"][-1] == pytest.approx(1e4 / 2.0)
    assert found.linear_floor == pytest.approx(2.5, rel=1e-9)
    assert 2.4 < found.best < 2.7
    assert found.value == pytest.approx(2.5, rel=0.03)
    assert "at its upper bound" in repr(found)


@pytest.mark.slow
def test_several_constraints_are_met_together():
    """RE and the accuracy of a classifier, each with its own multiplier; a third one holds by itself."""
    data = cv.datasets.four_clusters()
    classifier = cv.ClassProbabilities([[-1.0, 1.0], [-1.0, -1.0], [1.0, 2.0], [1.0, -2.0]], np.zeros(4))
    easy = cv.FRE(2.0, [[0.0, 1.0]], name="height")
    wanted = [cv.RE(0.5), cv.CLA(0.8, classifier, data.labels), easy]
    run = train(data.x, wanted, latent_dim=2, hidden=(16,), steps=12_000)
    status = {name: found.status for name, found in run.report.items()}
    assert status == {"RE": "met", "CLA": "met", "height": "slack"}
    tail = run.history.tail()
    assert tail.values["RE"].mean() == pytest.approx(0, abs=0.02 * 0.25)
    assert tail.values["height"].mean() < -1
    # One moment of a training whose batches hold 128 of 200 points, not the mean over a tenth of it.
    assert run.evaluation.constraints["RE"][0] == pytest.approx(0, abs=0.1 * 0.25)


@pytest.mark.parametrize("kappa", [slow(1.5), slow(0.7), 0.3])
def test_four_clusters_lie_above_the_frontier(frontier, kappa):
    """Within three standard errors at every kappa (T22), and not far."""
    data, curve = frontier
    run = train(data.x, cv.RE(kappa), latent_dim=2, hidden=(32,), steps=4000)
    assert run.report["RE"].status == "met"
    place = run.excess_over(curve)
    assert place.gap.most >= -3 * place.error
    assert place.gap.least <= 1.0
    assert place.gap.least <= place.gap.most
    assert place.rest.most == pytest.approx(place.gap.most - place.marginal_kl, abs=1e-12)
    assert place.marginal_kl >= -3 * place.marginal_kl_error
    assert place.rest.most >= -3 * place.rest_error
    assert place.multiplier == pytest.approx(run.multipliers["RE"], rel=0.05)


@pytest.fixture(scope="module")
def frontier():
    data = cv.datasets.four_clusters()
    return data, cv.rate_distortion(data.x, np.geomspace(9.0, 0.02, 16), gap=1e-4)
