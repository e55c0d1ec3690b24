"""What is measured of image models, against formulas and the evaluation of the compact VAEs; places above frontiers."""

from __future__ import annotations

import math

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.geco.evaluation import information

torch = pytest.importorskip("torch")
from constrained_vae.image_models import (
    MLPVAE,
    ColourMnist,
    ConvDRAW,
    MnistRotate,
    PlainImages,
    evaluation,
    train,
)
from constrained_vae.image_models.energies import as_images

DIGITS = cv.datasets.digits(300)
FEW = cv.datasets.digits(60)
RE = cv.RE(0.2, reduction="mean")


def trained(model, task=FEW, steps=30, constraints=RE, **options):
    return train(task, constraints, model=model, steps=steps, batch_size=30, device="cpu", **options)


def draw(seed=0):
    return ConvDRAW((1, 8, 8), 8, 2, steps=2, seed=seed)


def test_one_step_against_formulas():
    """Rate, information and marginal KL of Gaussian posteriors; distortion and likelihood by other codes."""
    run = trained(MLPVAE((1, 8, 8), 3, hidden=(8,)), steps=200, learning_rate=1e-2, sigma=0.3)
    seen, model = run.evaluate(samples=200), run.model
    x = as_images(torch.tensor(FEW.x, dtype=torch.float32), (1, 8, 8))
    with torch.no_grad():
        q = model._posterior(x)
        mean, log_sigma = (part.flatten(1).double().numpy() for part in (q.mean, q.log_sigma))
    rate = 0.5 * (mean**2 + np.exp(2 * log_sigma) - 1) - log_sigma
    assert seen.rate == pytest.approx(rate.sum(axis=1).mean(), rel=1e-5)
    assert seen.rate_error < 1e-6  # rounding
    assert seen.rates.shape == (1,)
    rng = np.random.default_rng(5)
    own = rng.integers(60, size=20_000)
    codes = mean[own] + np.exp(log_sigma[own]) * rng.standard_normal((20_000, 3))
    told = information(codes, mean, log_sigma, np.full(60, 1 / 60))
    difference = abs(seen.mutual_information - told.mean())
    assert difference < 4 * math.hypot(seen.mutual_information_error, told.std() / math.sqrt(20_000))
    assert 0 < seen.marginal_kl == pytest.approx(seen.rate - seen.mutual_information)
    with torch.no_grad():
        decoded = model._decode(torch.tensor(codes[:, None], dtype=torch.float32)).flatten(1).double().numpy()
    errors = np.square(FEW.x[own] - decoded).sum(axis=1)
    assert abs(seen.distortion - errors.mean()) < 4 * math.hypot(
        seen.distortion_error, errors.std() / math.sqrt(20_000)
    )
    assert seen.nll == pytest.approx(seen.distortion / 0.18 + 32 * math.log(2 * math.pi * 0.09), rel=1e-12)
    assert seen.bits_per_dimension == pytest.approx((seen.nll + seen.rate) / 64 / math.log(2) + 8, rel=1e-12)
    assert seen.constraints["RE"][0] == pytest.approx(seen.distortion / 64 - 0.04, rel=1e-6)


def test_teacher_forcing_of_all_pairs_is_the_mixture():
    """A model of one step, measured as if it had several."""
    run = trained(MLPVAE((1, 8, 8), 3, hidden=(8,)), steps=200, learning_rate=1e-2)
    exact = run.evaluate()
    with torch.inference_mode():
        forced, error, _ = evaluation._mixed_pairs(run.model, evaluation._Random(run.model, run.task, 1), 60)
    assert error > 0
    assert abs(forced - exact.mutual_information) < 4 * math.hypot(error, exact.mutual_information_error)


@pytest.mark.parametrize("prior", ["normal", "flow"])
def test_active_units_and_holes_against_formulas(prior):
    """m(z) and p(z) by PyTorch's own distributions, at other codes of the prior; for the flow through its inverse."""
    torch.manual_seed(1)
    options = {"objective": "elbo", "sigma": 0.1, "learning_rate": 1e-2}
    run = trained(MLPVAE((1, 8, 8), 3, hidden=(8,), prior=prior), steps=200, **options)
    seen, model = run.evaluate(samples=100), run.model
    x = as_images(torch.tensor(FEW.x, dtype=torch.float32), (1, 8, 8))
    normal = torch.distributions.Normal(0.0, 1.0)
    with torch.no_grad():
        q = model._posterior(x)
        u = torch.randn(4000, 3)
        z, log_det = (
            (u, 0.0) if prior == "normal" else (model.flow.inward(u), model.flow.outward(model.flow.inward(u))[1])
        )
        log_prior = normal.log_prob(u).sum(1) + log_det
        each = torch.distributions.Normal(q.mean[:, 0], q.log_sigma[:, 0].exp()).log_prob(z[:, None]).sum(2)
        holes = (each.logsumexp(1) - math.log(60) - log_prior < math.log(0.1)).double().mean().item()
    assert 0.05 < holes < 0.95
    assert seen.holes == pytest.approx(holes, abs=4 * math.sqrt(holes * (1 - holes) * (1 / 4000 + 1 / 6000)))
    np.testing.assert_array_equal(seen.active, (q.mean.var(0, correction=0) > 0.01).numpy())
    assert seen.active.shape == (1, 3)
    assert seen.n_active > 0
    forced = evaluation._mixed_pairs(model, evaluation._Random(model, run.task, 1), 60)[2]  # as of several steps
    assert forced == pytest.approx(holes, abs=4 * math.sqrt(holes * (1 - holes) / 60))


def test_a_model_that_codes_nothing_has_no_active_unit_and_no_hole():
    for model in (MLPVAE((1, 8, 8), 3, hidden=()), draw()):
        with torch.no_grad():
            for values in model.parameters():
                values.zero_()
        seen = trained(model, steps=0).evaluate()
        assert (seen.n_active, seen.holes) == (0, 0.0)
        assert seen.mutual_information == pytest.approx(0, abs=1e-6)
        assert f"0 of {math.prod(model.code_shape)} units active, holes=0)" in repr(seen)


def test_information_is_at_most_log_n_and_not_measured_where_it_costs_too_much():
    run = trained(draw(), steps=60, learning_rate=1e-2)
    seen = run.evaluate()
    assert 0 <= seen.mutual_information <= math.log(60)
    assert seen.marginal_kl == seen.rate - seen.mutual_information
    assert seen.rates.shape == (2,)
    assert seen.rates.sum() == pytest.approx(seen.rate, rel=1e-12)
    assert seen.rate_error > 0
    few = run.evaluate(pairs=59 * 60)
    assert math.isnan(few.mutual_information)
    assert math.isnan(few.marginal_kl)
    assert math.isnan(few.holes)
    assert 0 <= seen.holes <= 1
    np.testing.assert_array_equal(few.active, seen.active)
    assert seen.active.shape == run.model.code_shape
    assert few.rate == seen.rate


def test_evaluation_on_other_images():
    labels = cv.CLA(0.1, cv.ClassProbabilities(np.zeros((10, 64)), np.zeros(10)), FEW.labels)
    run = trained(MLPVAE((1, 8, 8), 3, hidden=(8,)), constraints=[RE, labels])
    held_out = run.evaluate(cv.datasets.DataSet(x=DIGITS.x[60:], name="rest", image_shape=(8, 8)))
    assert set(held_out.constraints) == {"RE"}
    assert set(run.evaluation.constraints) == {"RE", "CLA"}
    assert run.evaluation.constraints["CLA"][0] == pytest.approx(0.9 - 0.9, abs=1e-6)  # all classes alike: 1 - 1/10
    assert held_out.distortion != run.evaluation.distortion
    with pytest.raises(ValueError, match=r"task must have images \(1, 8, 8\) as in training, got \(3, 8, 8\)"):
        run.evaluate(ColourMnist(FEW))
    with pytest.raises(ValueError, match="samples must be a whole number of at least 2"):
        run.evaluate(samples=1)
    with pytest.raises(ValueError, match="task must be an instance of Task"):
        run.evaluate(FEW.x)


def test_evaluation_and_samples_repeat_and_change_nothing():
    run = trained(draw())
    before = {name: values.clone() for name, values in run.model.state_dict().items()}
    assert repr(run.evaluate()) == repr(run.evaluate())
    np.testing.assert_array_equal(run.sample(5), run.sample(5))
    assert (run.sample(5) != run.sample(5, seed=1)).any()
    assert run.sample(70).shape == (70, 64)
    x, mean = run.reconstruct(4)
    np.testing.assert_allclose(x, FEW.x[:4], rtol=1e-6)
    assert np.square(x - mean).mean() < 1
    for name, values in run.model.state_dict().items():
        assert torch.equal(values, before[name])


def test_a_conditional_model_has_samples_and_a_rate():
    task = MnistRotate(FEW)
    run = trained(ConvDRAW((1, 8, 8), 4, 2, steps=2, context_size=task.context_size), task=task)
    seen = run.evaluation
    assert math.isnan(seen.marginal_kl)
    assert seen.rate > 0
    assert run.sample(7).shape == (7, 64)
    for place in (lambda: run.excess_over(None), run.excess_over_linear):
        with pytest.raises(
            ValueError, match="PlainImages to be compared with a frontier, got MnistRotate, which has a"
        ):
            place()


def test_augmented_images_have_no_frontier():
    run = trained(MLPVAE((3, 8, 8), 3, hidden=(8,)), task=ColourMnist(FEW))
    with pytest.raises(ValueError, match="got ColourMnist, which draws its images anew at every step"):
        run.excess_over_linear()


def test_the_distance_from_the_best_linear_vae():
    """Reverse water-filling of the covariance by bisection of the water level, at the distortion of the model."""
    run = trained(MLPVAE((1, 8, 8), 3, hidden=(8,)), steps=200, learning_rate=1e-2)
    found, distortion = run.excess_over_linear(), run.evaluation.distortion
    ell = np.linalg.eigvalsh(np.cov(FEW.x.T, bias=True)).clip(1e-30)
    low, high = 0.0, ell.max()
    for _ in range(200):
        level = 0.5 * (low + high)
        low, high = (level, high) if np.minimum(ell, level).sum() < distortion else (low, level)
    rate = 0.5 * np.log(np.maximum(ell / level, 1)).sum()
    assert rate > 0.1
    assert found.gap == pytest.approx(run.evaluation.rate - rate, rel=1e-9)
    assert found.slope == pytest.approx(0.5 / level, rel=1e-9)
    assert found.error == pytest.approx(found.slope * run.evaluation.distortion_error, rel=1e-3)  # the rate is exact
    assert found.multiplier == pytest.approx(run.multipliers["RE"] / 64)


def test_the_best_linear_vae_codes_nothing_at_the_variance():
    """A model that codes nothing has the rate 0 at the variance, as the best linear VAE."""
    model = MLPVAE((1, 8, 8), 3, hidden=())
    with torch.no_grad():
        for values in model.parameters():
            values.zero_()
    run = trained(model, steps=0)
    found = run.excess_over_linear()
    assert run.evaluation.distortion == pytest.approx(FEW.x.var(axis=0).sum(), rel=1e-5)
    assert found.gap == pytest.approx(0, abs=1e-5)
    assert math.isnan(found.multiplier)  # there was no step
    with pytest.raises(ValueError, match="evaluation must be of the training images, got the variances"):
        run.excess_over_linear(evaluation=run.evaluate(DIGITS))
    with pytest.raises(ValueError, match="evaluation must be an instance of ImageEvaluation"):
        run.excess_over_linear(evaluation=3)


@pytest.mark.slow
def test_no_model_is_below_the_frontier():
    """(T22) on 300 digits: KL >= R(D) for every model without a context, and I <= log N; most are far above."""
    curve = cv.rate_distortion(DIGITS.x, [1.0, 0.5, 0.25, 0.12], gap=1e-2)
    models = {
        "MLP": MLPVAE((1, 8, 8), 8, hidden=(64,)),
        "flow": MLPVAE((1, 8, 8), 8, hidden=(64,), prior="flow"),
        "linear": MLPVAE((1, 8, 8), 8, hidden=()),
        "ConvDRAW": ConvDRAW((1, 8, 8), 16, 4, steps=3),
    }
    for name, model in models.items():
        for options in ({"constraints": cv.RE(0.17, reduction="mean")}, {"objective": "elbo", "sigma": 0.5}):
            steps = 400 if name == "ConvDRAW" else 1500
            run = train(DIGITS, model=model, steps=steps, batch_size=60, learning_rate=3e-3, device="cpu", **options)
            seen = run.evaluate(samples=16, pairs=0)
            found = run.excess_over(curve, evaluation=seen)
            assert found.gap.most > -3 * found.error, (name, options, found)
            assert not seen.mutual_information > math.log(300)


def test_a_curve_of_other_images_is_refused():
    run = trained(MLPVAE((1, 8, 8), 3, hidden=(8,)), task=PlainImages(FEW))
    curve = cv.rate_distortion(FEW.x, [100.0, 10.0], gap=0.1)
    found = run.excess_over(curve)
    assert found.gap.most > 0
    assert found.marginal_kl == run.evaluation.marginal_kl
    assert found.multiplier == pytest.approx(run.multipliers["RE"] / 64)
    with pytest.raises(ValueError, match="curve and evaluation must be of the same data"):
        run.excess_over(cv.rate_distortion(DIGITS.x, [100.0], gap=0.1))
    with pytest.raises(ValueError, match="curve must be an instance of RateDistortionCurve"):
        run.excess_over(3)
