"""What is measured of a trained model, against formulas written out and integrals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import constrained_vae as cv
from constrained_vae.geco import VAE, train
from constrained_vae.geco.evaluation import evaluate, information, log_ratio
from constrained_vae.geco.starts import linear_floor, spectrum_of


def affine(encode, log_sigma, decode):
    """The linear VAE of one dimension: mean a x, fixed log sigma, g(z) = d z."""
    empty = VAE.initialised(cv.Frame(np.zeros(1), 1.0), 1, ())
    return empty.with_parameters(np.array([encode, 0.0, 0.0, log_sigma, decode, 0.0]))


def even(mean):
    return np.full(len(mean), 1 / len(mean))


def test_the_mixture_is_exact(rng):
    mean, log_sigma, codes = rng.standard_normal((5, 3)), 0.3 * rng.standard_normal((5, 3)), rng.standard_normal((4, 3))
    densities = norm.pdf(codes[:, None], mean, np.exp(log_sigma)).prod(axis=2).mean(axis=1)
    np.testing.assert_allclose(
        log_ratio(codes, mean, log_sigma, even(mean)),
        np.log(densities / norm.pdf(codes).prod(axis=1)),
    )


def test_the_mixture_in_blocks(rng, monkeypatch):
    mean, log_sigma, codes = rng.standard_normal((5, 3)), rng.standard_normal((5, 3)), rng.standard_normal((7, 3))
    whole = log_ratio(codes, mean, log_sigma, even(mean))
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 10)  # two codes
    np.testing.assert_allclose(log_ratio(codes, mean, log_sigma, even(mean)), whole, rtol=1e-12)


def test_two_points_by_integration():
    """Rate, distortion, marginal KL, holes and ELBO of a model of one dimension, within four standard errors."""
    x, a, log_sigma, d = np.array([[-1.0], [1.0]]), 1.5, np.log(0.4), 0.6
    sigma = np.exp(log_sigma)
    found = evaluate(affine(a, log_sigma, d), x, (cv.RE(0.3),), sigma=0.5, samples=4000, seed=1)
    assert found.rate == pytest.approx(0.5 * (a**2 + sigma**2 - 1) - log_sigma, rel=1e-12)
    distortion = (1 - a * d) ** 2 + d**2 * sigma**2
    assert abs(found.distortion - distortion) < 4 * found.distortion_error
    spread = np.sqrt(4 * (1 - a * d) ** 2 * (d * sigma) ** 2 + 2 * (d * sigma) ** 4)  # of (1 - a d - d sigma e)^2
    assert found.distortion_error == pytest.approx(spread / np.sqrt(8000), rel=0.1)
    assert found.constraints["RE"] == (pytest.approx(found.distortion - 0.09), found.distortion_error)
    assert found.nll == pytest.approx(found.distortion / (2 * 0.25) + 0.5 * np.log(2 * np.pi * 0.25), rel=1e-12)
    assert found.elbo == pytest.approx(-found.nll - found.rate)

    def mixture(z):
        return 0.5 * (norm.pdf(z, -a, sigma) + norm.pdf(z, a, sigma))

    exact = quad(lambda z: mixture(z) * np.log(mixture(z) / norm.pdf(z)), -6, 6, limit=200)[0]
    assert abs(found.marginal_kl - exact) < 4 * found.marginal_kl_error
    assert 0 < found.marginal_kl_error < 0.02
    assert found.mutual_information == pytest.approx(np.log(2), abs=0.02)  # sigma tells the points apart
    z = np.linspace(-8, 8, 100_001)
    empty = (norm.pdf(z) * (mixture(z) < 0.1 * norm.pdf(z))).sum() * (z[1] - z[0])
    assert abs(found.holes - empty) < 4 * np.sqrt(empty * (1 - empty) / 8000)
    assert found.active.tolist() == [True]


def test_a_code_of_nothing():
    """The posterior is the prior: no rate, no marginal KL, no holes, no active unit; the variance is the error."""
    x = np.array([[-1.0], [1.0], [3.0]])
    found = evaluate(affine(0.0, 0.0, 0.0), x - 1, samples=8)
    assert (found.rate, found.n_active, found.holes) == (0.0, 0, 0.0)
    assert found.marginal_kl == pytest.approx(0, abs=1e-12)
    assert found.distortion == pytest.approx(8 / 3)
    assert found.distortion_error == 0.0


def test_codes_that_name_their_points_tell_all_of_them():
    """I = log N to rounding, and never more; an average of log m over the prior alone would have an error of 0.03."""
    x = cv.datasets.digits(300).x
    model = VAE.initialised(cv.Frame(np.zeros(64), 1.0), 8, ())
    axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:8].T
    encoder = np.concatenate([axes, np.zeros((64, 8))], axis=1).ravel()
    for log_sigma in (-5.0, -2.5, -1.0):
        rest = np.concatenate([np.zeros(8), np.full(8, log_sigma), axes.T.ravel(), np.zeros(64)])
        named = model.with_parameters(np.concatenate([encoder, rest]))
        for seed in range(6):
            found = evaluate(named, x, samples=2, seed=seed)
            assert 0 < found.mutual_information <= np.log(300)
            if log_sigma == -5:
                assert found.mutual_information == pytest.approx(np.log(300), abs=3e-11)
                assert found.marginal_kl == pytest.approx(found.rate - np.log(300), abs=3e-11)
                assert found.mutual_information_error < 3e-11


def test_information_is_the_mean_of_log_own_over_mixture(rng):
    """Over many codes of two overlapping points; both estimates have the same mean."""
    mean, log_sigma = np.array([[0.5], [-0.5]]), np.array([[-0.2], [0.3]])
    points = np.arange(200_000) % 2
    codes = mean[points] + np.exp(log_sigma[points]) * rng.standard_normal((200_000, 1))
    own = norm.logpdf(codes, mean[points], np.exp(log_sigma[points])) - norm.logpdf(codes)
    plain = own[:, 0] - log_ratio(codes, mean, log_sigma, even(mean))
    told = information(codes, mean, log_sigma, even(mean))
    assert told.mean() == pytest.approx(plain.mean(), abs=4 * plain.std() / np.sqrt(200_000))
    assert told.std() < plain.std()
    assert (told >= 0).all()


def test_weights_are_copies_of_points(rng):
    """Exact means alike; estimates alike within their errors; a point without weight does not count."""
    x = rng.standard_normal((4, 1))
    model = affine(1.2, -0.5, 0.7)
    copied = evaluate(model, np.repeat(x, [3, 2, 1, 0], axis=0), (cv.RE(0.3),), samples=4000)
    found = evaluate(model, x, (cv.RE(0.3),), weights=[3, 2, 1, 0], samples=6000)
    assert found.rate == pytest.approx(copied.rate, rel=1e-12)
    for name in ("distortion", "mutual_information", "nll"):
        error = np.hypot(getattr(found, f"{name}_error"), getattr(copied, f"{name}_error"))
        assert getattr(found, name) == pytest.approx(getattr(copied, name), abs=4 * error)
    assert found.distortion_error == pytest.approx(copied.distortion_error, rel=0.5)
    assert found.constraints["RE"][0] == pytest.approx(found.distortion - 0.09)
    assert found.holes == pytest.approx(copied.holes, abs=0.02)
    curve = cv.rate_distortion(x, [0.5, 0.1], weights=[3, 2, 1, 0])
    run = train(x, cv.RE(0.5), latent_dim=1, hidden=(), steps=1)
    assert run.excess_over(curve, evaluation=found).gap.least > 0
    named = evaluate(affine(50.0, -3.0, 0.02), x, weights=[3, 2, 1, 0])
    assert named.mutual_information == pytest.approx(-np.log([1 / 2, 1 / 3, 1 / 6]) @ [1 / 2, 1 / 3, 1 / 6], abs=1e-12)


def test_bernoulli_likelihoods():
    x = cv.datasets.digits(50).x[:, 18:22]
    run = train(x, objective="elbo", likelihood="bernoulli", latent_dim=2, hidden=(8,), steps=200)
    found = run.evaluate(samples=64)
    p = x.mean(axis=0)
    nothing = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1).mean()
    assert found.nll + found.rate < nothing + 0.05
    assert found.nll < run.history.nll[0]
    assert run.history.tail().nll.mean() == pytest.approx(found.nll, rel=0.05)


def test_other_data_and_labels():
    data = cv.datasets.four_clusters()
    classifier = cv.ClassProbabilities(np.eye(4, 2), np.zeros(4))
    constraints = [cv.RE(1.0), cv.CLA(0.5, classifier, data.labels)]
    run = train(data.x, constraints, latent_dim=2, hidden=(), steps=20)
    assert set(run.evaluation.constraints) == {"RE", "CLA"}
    assert set(run.evaluate(data.x[::2]).constraints) == {"RE"}
    assert run.evaluation is run.evaluation
    assert repr(run.evaluate(seed=3)) == repr(run.evaluate(seed=3)) != repr(run.evaluation)
    with pytest.raises(ValueError, match="x must have 2 columns"):
        run.evaluate(data.x[:, :1])
    with pytest.raises(ValueError, match="samples must be a whole number of at least 2"):
        run.evaluate(samples=1)


def test_linear_floors():
    x = cv.datasets.gaussian((4.0, 2.0, 0.5), n=8).x

    def floor(constraint, x, size):
        return linear_floor(spectrum_of(constraint, x, even(x)), size)

    assert floor(cv.RE(1.0), x, 1) == pytest.approx(2.5)
    assert floor(cv.RE(1.0, reduction="mean"), x, 1) == pytest.approx(2.5 / 3)
    assert floor(cv.FRE(1.0, [[0.0, 0.0, 3.0], [1.0, 0.0, 0.0]]), x + 7, 1) == pytest.approx(4.0)
    assert floor(cv.RE(1.0), x, 3) == floor(cv.RE(1.0), x, 5) == 0
    assert np.isnan(floor(cv.FRE(1.0, cv.FourierFeatures.random(3, 4)), x, 1))
    assert np.isnan(floor(cv.PNCC(0.5, (1, 3), (1, 3)), x, 1))


def test_placement_on_a_known_frontier():
    """Two points: R(D) = log 2 - h((1 + sqrt(1 - D)) / 2); a model of known rate and error, split by hand."""
    x = np.array([[-1.0], [1.0]])
    curve = cv.rate_distortion(x, np.geomspace(0.99, 0.1, 60))
    run = train(x, cv.RE(0.5), latent_dim=2, hidden=(), steps=1)
    model = affine(1.0, np.log(0.5), 0.8)
    found = evaluate(model, x, samples=20_000)
    place = run.excess_over(curve, evaluation=found)
    p = (1 + np.sqrt(1 - found.distortion)) / 2
    exact = found.rate - (np.log(2) + p * np.log(p) + (1 - p) * np.log(1 - p))
    assert place.gap.least - 1e-3 < exact < place.gap.most + 1e-3
    assert place.rigorous
    guessed = run.excess_over(replace(curve, rigorous=np.zeros(60, dtype=bool)), evaluation=found)
    assert not guessed.rigorous
    assert not guessed.rest.rigorous
    assert "heuristic" in repr(guessed)
    m = np.sqrt(1 - found.distortion)
    assert place.slope == pytest.approx(np.arctanh(m) / (2 * m), rel=0.02)
    assert place.error == pytest.approx(place.slope * found.distortion_error)
    assert place.rest_error == pytest.approx(np.hypot(place.error, found.marginal_kl_error))
    assert place.rest.least == pytest.approx(place.gap.least - found.marginal_kl)


PAIR = np.array([[-1.0], [1.0]])


def test_a_curve_that_does_not_fit_is_refused_by_name():
    x = cv.datasets.four_clusters(8).x
    run = train(x, cv.RE(0.5), latent_dim=2, hidden=(), steps=1)
    betas = [5.0, 1.0]
    fitting = run.excess_over(cv.rate_distortion(x, betas))
    for same in (x[::-1], x + 7, x.astype(np.float32), np.repeat(x, 2, axis=0)):
        assert run.excess_over(cv.rate_distortion(same, betas)).gap.most == pytest.approx(fitting.gap.most, abs=1e-4)
    rotated = x[:, ::-1] * [1, -1]
    for other, message in (
        (2 * x, "curve and evaluation must be of the same data, got the variances"),
        (x[::2], "curve and evaluation must be of the same data, got the variances"),
        (rotated, "curve and evaluation must be of the same data, got other data of the same variance"),
    ):
        with pytest.raises(ValueError, match=message):
            run.excess_over(cv.rate_distortion(other, betas))
    bernoulli = cv.rate_distortion((x > 0) * 1.0, [0.5], cv.ELBO(likelihood="bernoulli"))
    with pytest.raises(ValueError, match="curve must be of the squared error, got one of the bernoulli likelihood"):
        run.excess_over(bernoulli)


def test_evaluation_and_curve_must_be_of_the_same_data():
    x = cv.datasets.four_clusters(8).x
    run = train(x, cv.RE(0.5), latent_dim=2, hidden=(), steps=1)
    half = run.evaluate(x[::2])
    with pytest.raises(ValueError, match="must be of the same data"):
        run.excess_over(cv.rate_distortion(x, [5.0, 1.0]), evaluation=half)
    assert run.excess_over(cv.rate_distortion(x[::2], [5.0, 1.0]), evaluation=half).gap.least > 0


def test_multiplier_of_a_placement():
    """lambda = 1 / (2 sigma^2 beta) per unit of the squared error, which a Bernoulli likelihood does not have."""
    x, curve = (PAIR + 1) / 2, cv.rate_distortion(PAIR / 2, [0.2, 0.1])
    options = {"latent_dim": 1, "hidden": (), "steps": 3}
    for likelihood, exact in (("gaussian", 1 / (2 * 0.5**2 * 0.1)), ("bernoulli", np.nan)):
        run = train(x, objective="beta", beta=0.1, sigma=0.5, likelihood=likelihood, **options)
        assert run.excess_over(curve).multiplier == pytest.approx(exact, nan_ok=True)
    run = train(x, cv.RE(0.3), likelihood="bernoulli", **options)  # a constraint on the squared error
    assert run.excess_over(curve).multiplier == pytest.approx(run.multipliers["RE"])


def test_a_run_below_the_frontier_is_warned_of():
    run = train(PAIR, cv.RE(0.5), latent_dim=1, hidden=(), steps=1)
    below = replace(run.evaluation, rate=0.1, distortion=0.1, distortion_error=0.001)
    with pytest.warns(UserWarning, match="nats below R") as caught:
        run.excess_over(cv.rate_distortion(PAIR, [0.9, 0.5, 0.2]), evaluation=below)
    assert caught[0].filename == __file__
