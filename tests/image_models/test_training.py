"""image_models.train: one loop for every objective and model, what it writes down, and how it ends."""

from __future__ import annotations

import math
import os
import signal

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.geco import Multiplier, Ramp, natural_multiplier

torch = pytest.importorskip("torch")
from constrained_vae.image_models import MLPVAE, ConvDRAW, ConvVAE, MnistRotate, PlainImages, train
from constrained_vae.image_models.energies import as_images
from constrained_vae.image_models.optimisation import learning_rate_at

DIGITS = cv.datasets.digits(64)
RE = cv.RE(0.2, reduction="mean")
OBJECTIVES = {
    "geco": {"constraints": RE},
    "elbo": {"objective": "elbo", "sigma": 0.2},
    "beta": {"objective": "beta", "beta": 2.0, "sigma": 0.2, "constraints": RE},
    "annealed": {"objective": "annealed", "beta": Ramp.of_gqn(100), "sigma": 0.2},
}
MODELS = {
    "linear": lambda: MLPVAE((1, 8, 8), 4, hidden=()),
    "flow": lambda: MLPVAE((1, 8, 8), 4, hidden=(8,), prior="flow"),
    "ConvVAE": lambda: ConvVAE((1, 8, 8), 4, channels=4, hidden=16),
    "ConvDRAW": lambda: ConvDRAW((1, 8, 8), 4, 2, steps=2),
}


def run(constraints=None, task=DIGITS, model=None, **options):
    small = {"steps": 20, "batch_size": 16, "device": "cpu"}
    return train(task, constraints, model=model or MODELS["linear"](), **{**small, **options})


def same(a, b):
    """Whether two runs are the same to the bit."""
    for name, values in a.model.state_dict().items():
        assert torch.equal(values, b.model.state_dict()[name]), name
    np.testing.assert_array_equal(a.history.table, b.history.table)
    assert a.state["multipliers"] == b.state["multipliers"]  # as text, where NaN is NaN


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("options", OBJECTIVES.values(), ids=OBJECTIVES)
def test_every_objective_trains_every_model(options, model):
    found = run(model=model(), **options)
    assert found.stopped == "finished"
    assert np.isfinite(found.history.column("kl")).all()
    assert np.isfinite(found.history.column("gradient")).all()
    assert found.history.column("gradient").min() > 0
    if options.get("objective") == "annealed":
        np.testing.assert_allclose(found.history.equivalent_beta, [Ramp.of_gqn(100)(t) for t in range(20)])
    parts = found.history.kl_of_steps
    if parts.shape[1]:
        np.testing.assert_allclose(parts.sum(axis=1), found.history.kl, rtol=1e-12)


def test_a_run_draws_its_training():
    found = run(RE)
    assert found.plot().lines[0].get_ydata()[-1] == found.history.column("distortion")[-1]


def test_a_conditional_model_learns_an_augmented_task():
    task = MnistRotate(DIGITS)
    draw = ConvDRAW((1, 8, 8), 4, 2, steps=2, context_size=task.context_size)
    found = run(RE, task=task, model=draw)
    assert found.stopped == "finished"
    assert math.isnan(found.report["RE"].linear_floor)  # the context tells more than a linear code
    first, again = found.history, run(RE, task=task, model=draw).history
    np.testing.assert_array_equal(first.table, again.table)


def test_the_first_step_by_hand():
    """Adam's first step is -rate times the sign of the gradient of (KL + lambda C) / (1 + lambda kappa^2)."""
    start, stepped = run(RE, steps=0), run(RE, steps=1, learning_rate=1.0)
    rows = np.random.default_rng([0, 0]).permutation(64)[:16]
    x = as_images(torch.tensor(DIGITS.x[rows], dtype=torch.float32), (1, 8, 8))
    seed = int(np.random.SeedSequence([0, 0]).generate_state(1, np.uint64)[0])
    noise = torch.randn(16, 1, 4, generator=torch.Generator().manual_seed(seed))
    done = start.model(x, noise)
    energy = (x - done.mean).square().mean()
    lam = natural_multiplier(DIGITS.x, RE)
    loss = (done.kl.sum(1).mean() + lam * energy) / (1 + lam * 0.04)
    gradients = torch.autograd.grad(loss, list(start.model.parameters()))
    rate = learning_rate_at(0, 1, 1.0)
    assert rate == 0.01
    after = stepped.model.parameters()
    for before, moved, gradient in zip(start.model.parameters(), after, gradients, strict=True):
        expected = before - rate * gradient / (gradient.abs() + 1e-8)
        sure = gradient.abs() > 1e-4 * gradient.abs().max()  # elsewhere the sign is a matter of rounding
        torch.testing.assert_close(moved[sure], expected[sure], rtol=1e-4, atol=1e-6)
    row = stepped.history
    assert row.kl[0] == pytest.approx(float(done.kl.mean().detach()), rel=1e-5)
    assert row.distortion[0] == pytest.approx(64 * float(energy.detach()), rel=1e-5)
    assert row.values["RE"][0] == pytest.approx(float(energy.detach()) - 0.04, rel=1e-5)
    assert row.multipliers["RE"][0] == pytest.approx(lam, rel=1e-12)
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    assert row.column("gradient")[0] == pytest.approx(norm, rel=1e-5)
    np.testing.assert_allclose(start.model.centre.flatten(), DIGITS.x.mean(axis=0), atol=1e-7)


def test_the_learning_rate():
    rates = [learning_rate_at(t, 1000, 2.0) for t in range(1001)]
    assert rates[0] == pytest.approx(0.02, rel=1e-4)
    assert rates[49] == pytest.approx(1.0, rel=0.01)
    assert rates[500] == pytest.approx(2 * 0.55, rel=1e-9)  # half of the way from 1 to 0.1
    assert rates[-1] == pytest.approx(0.2)
    assert np.argmax(rates) in range(95, 105)
    np.testing.assert_allclose(
        run(RE, steps=5, learning_rate=0.5).history.learning_rate, [learning_rate_at(t, 5, 0.5) for t in range(5)]
    )


def test_a_long_gradient_is_shortened():
    """Adam does not see the length of the gradient but its changes: two steps differ, the first does not."""
    free, clipped = run(RE), run(RE, clip=1e-3)
    np.testing.assert_array_equal(free.history.table[0], clipped.history.table[0])  # the length before is reported
    assert (free.history.table[5] != clipped.history.table[5]).any()


def test_constraints_of_features_and_labels_are_learned():
    classifier = cv.ClassProbabilities(np.random.default_rng(0).standard_normal((10, 64)), np.zeros(10))
    several = [
        RE,
        cv.FRE(0.5, np.eye(64)[:8]),
        cv.CLA(0.2, classifier, DIGITS.labels),
        cv.PNCC(0.2, (8, 8), 4),
    ]
    found = run(several)
    assert set(found.multipliers) == {"RE", "FRE", "CLA", "PNCC"}
    assert np.isfinite(found.history.table[:, : found.history.columns.index("average RE")]).all()


def test_a_row_for_every_seventh_step():
    whole, thin = run(RE), run(RE, every=7)
    np.testing.assert_array_equal(thin.history.table, whole.history.table[::7])
    assert thin.history.steps.tolist() == [0, 7, 14]
    assert whole.history.steps.tolist() == list(range(20))
    assert thin.report["RE"].threshold == whole.report["RE"].threshold


def test_thin_histories_are_taken_up():
    whole, half = run(RE, every=4), run(RE, every=4, callback=lambda step, row: step == 10)
    assert half.history.steps.tolist() == [0, 4, 8]
    same(run(RE, every=4, resume=half), whole)


def test_thresholds_of_thin_histories_are_those_of_their_steps():
    ramp = {"RE": Multiplier(Ramp(0.5, 0.04, 10))}
    found = run(RE, every=4, multipliers=ramp).history
    np.testing.assert_allclose(
        found.per_dimension - found.values["RE"], [Ramp(0.5, 0.04, 10)(t) for t in range(0, 20, 4)]
    )


@pytest.mark.parametrize("options", OBJECTIVES.values(), ids=OBJECTIVES)
def test_an_interrupted_run_is_taken_up_to_the_bit(options, tmp_path):
    whole = run(model=MODELS["ConvDRAW"](), **options)
    half = run(model=MODELS["ConvDRAW"](), callback=lambda step, row: step == 9, **options)
    assert half.stopped == "stopped by the callback at step 9"
    same(run(model=MODELS["ConvDRAW"](), resume=half, **options), whole)
    half.save(tmp_path / "half.pt")
    same(run(model=MODELS["ConvDRAW"](), resume=tmp_path / "half.pt", every=1, **options), whole)
    assert half.state["steps"] == 9


def test_parameters_that_the_loss_does_not_use_are_taken_up():
    model = MODELS["linear"]()
    model.unused, model.fixed = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    model.fixed.requires_grad_(False)
    half = run(RE, model=model, callback=lambda step, row: step == 9)
    same(run(RE, model=model, resume=half), run(RE, model=model))
    assert torch.equal(half.model.unused, torch.ones(2))


def test_ctrl_c_gives_what_there_is():
    def interrupt(step, row):
        if step == 12:
            os.kill(os.getpid(), signal.SIGINT)

    half = run(RE, callback=interrupt)
    assert half.stopped == "interrupted at step 12"
    assert len(half.history) == 12
    same(run(RE, resume=half), run(RE))


def test_a_time_limit_ends_after_a_step():
    with pytest.warns(cv.NotConvergedWarning, match="training: time limit at step 1"):
        half = run(RE, time_limit=0.0)
    same(run(RE, resume=half), run(RE))


def test_a_loss_that_is_not_finite_keeps_the_model_of_the_step_before():
    def product(x, df):
        calls.append(len(x))
        return df * (np.nan if len(calls) > 20 else 1.0)

    calls: list[int] = []
    with pytest.warns(cv.NotConvergedWarning, match="the gradient is not finite; the model is that of the step before"):
        found = run([RE, cv.FRE(1.0, cv.Features(lambda x: 1.0 * x, product))])
    assert 5 < len(found.history) < 20
    assert all(torch.isfinite(p).all() for p in found.model.parameters())
    for constraints, message in (
        (RE, "the loss is not finite"),
        ([RE, cv.FRE(1.6, np.eye(64))], "the loss is not finite, KL and energies .*nan"),
    ):
        with pytest.warns(cv.NotConvergedWarning, match=message):
            found = run(constraints, learning_rate=1e30)
        assert found.stopped.startswith(f"not finite at step {len(found.history)}: ")
        assert np.isfinite(found.history.kl).all()


def test_a_batch_that_does_not_fit_is_named(monkeypatch):
    def full(*arguments):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ...")

    monkeypatch.setattr(MLPVAE, "forward", full)
    with pytest.raises(
        cv.TooLargeError, match=r"^batch_size 16 does not fit into the memory of the device cpu: lower it$"
    ):
        run(RE)
    monkeypatch.setattr(MLPVAE, "forward", lambda *arguments: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match"):  # other errors of PyTorch are what they are
        run(RE)


def test_nothing_that_was_given_is_changed():
    model, multiplier = MODELS["linear"](), Multiplier(RE.allowance)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    state = torch.get_rng_state()
    run(RE, model=model, multipliers={"RE": multiplier})
    for name, values in model.state_dict().items():
        assert torch.equal(values, before[name])
    assert multiplier.state_dict()["steps"] == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_seeds():
    same(run(RE), run(RE))
    assert (run(RE).history.kl != run(RE, seed=1).history.kl).any()


def test_an_epoch_takes_every_image_once():
    seen = []

    class Watched(PlainImages):
        def batch(self, rows, generator):
            seen.append(rows.numpy())
            return super().batch(rows, generator)

    run(RE, task=Watched(DIGITS), steps=8)
    first, second = np.concatenate(seen[:4]), np.concatenate(seen[4:])
    np.testing.assert_array_equal(np.sort(first), np.arange(64))
    np.testing.assert_array_equal(np.sort(second), np.arange(64))
    assert (first != second).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"task": DIGITS.x},
            r"task must be an instance of Task such as PlainImages\(datasets.digits\(\)\), got an array",
        ),
        ({"model": MODELS}, "model must be an instance of Model such as"),
        ({"model": MLPVAE((1, 4, 4))}, r"model must be for images \(1, 8, 8\) with context_size None"),
        ({"batch_size": 65}, "batch_size must be at most 64, the number of images, got 65"),
        ({"constraints": None}, "objective='geco' wants constraints"),
        ({"objective": "beta"}, "beta belongs to the objectives"),
        ({"objective": "annealed", "beta": 2.0}, "beta of an annealed objective must be an instance of Ramp"),
        ({"multipliers": {"RE": 1.0}}, "multipliers must be an instance of Multiplier"),
        ({"multipliers": {"RE": Multiplier(0.05)}}, "thresholds of their constraints, 0.04 for RE"),
        ({"device": "cuda:99"}, r"device must be there: PyTorch sees the CPU and \d+ CUDA devices, got 'cuda:99'"),
        ({"device": "abacus"}, "device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'abacus'"),
        ({"device": 3}, "device must be a string"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"steps": -1}, "steps"),
        ({"every": 0}, "every must be"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"seed": -1}, "seed"),
        ({"autocast": 1}, "autocast must be True or False"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"callback": 3}, "callback must be callable"),
        ({"constraints": cv.PNCC(0.5, (4, 4), 2)}, "wants 16 values in every row of x"),
        ({"constraints": cv.CLA(0.5, cv.ClassProbabilities(np.ones((2, 64)), np.ones(2)), [0, 1])}, "2 labels for 64"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        run(**{"constraints": RE, **options})
    assert "\n" not in str(caught.value)


def test_thresholds_of_a_wrong_unit_are_warned_of():
    with pytest.warns(UserWarning, match=r"kappa\^2 = 0.04 \(total\) is below .*right unit"):
        run(cv.RE(0.2), steps=1)
    with pytest.warns(UserWarning, match=r"kappa\^2 = 100 \(mean per dimension\) is at least the variance"):
        run(cv.RE(10.0, reduction="mean"), steps=1)


def test_thresholds_beyond_the_last_layer_are_warned_of():
    variances = np.sort(np.linalg.eigvalsh(np.cov(DIGITS.x.T, bias=True)))
    least = variances[:-8].sum()  # of reconstructions in eight dimensions
    model = MLPVAE((1, 8, 8), 16, hidden=(8, 32))
    with pytest.warns(UserWarning, match=r"the least that reconstructions in 8 dimensions have.*cannot be reached"):
        run(cv.RE.from_squared_error(0.99 * least), model=model, steps=1)
    run(cv.RE.from_squared_error(1.01 * least), model=model, steps=1)


@pytest.mark.parametrize(
    ("x", "found"),
    [(255 * DIGITS.x, "from 0 to 255"), (DIGITS.x + 1e3, "from 1000 to 1001"), (DIGITS.x / 255, "to 0.0")],
)
def test_values_that_are_not_those_of_pixels_are_warned_of(x, found):
    data = cv.datasets.DataSet(x, "units", image_shape=(8, 8))
    with pytest.warns(UserWarning, match=rf"the images have values .*{found}.*: scale the images to \[0, 1\]") as seen:
        train(data, objective="elbo", model=MODELS["linear"](), steps=1, device="cpu")
    assert seen[0].filename == __file__


def test_values_that_float32_cannot_square_are_refused():
    data = cv.datasets.DataSet(1e20 * DIGITS.x, "units", image_shape=(8, 8))
    with pytest.raises(
        ValueError, match=r"task must have images of values of at most 1e\+15 in size, got from 0 to 1e"
    ):
        run(objective="elbo", task=data)


# --- against theory ---------------------------------------------------------------------------------------------------


def test_the_linear_vae_meets_its_closed_form():
    """kappa^2 = 1.2 of eigenvalues (4, 2, 0.5): theta = 0.4, lambda* = 1.25, R = 2.0676 nats (section 5 of the theory).

    From another lambda. On 64 codes a point the KL is known to 0.3 %, once moved along the slope to kappa^2.
    """
    data = cv.datasets.gaussian((4.0, 2.0, 0.5), n=32)
    images = cv.datasets.DataSet(x=data.x, name="gaussian", image_shape=(1, 3))
    start = {"RE": Multiplier(1.2, initial=3.0, averaging=0.98)}
    model, constraint = MLPVAE((1, 1, 3), 3, hidden=()), cv.RE.from_squared_error(1.2)
    found = run(constraint, task=images, model=model, steps=1500, batch_size=256, learning_rate=2e-2, multipliers=start)
    seen = found.evaluate(samples=64)
    assert found.report["RE"].status == "met"
    assert found.multipliers["RE"] == pytest.approx(1.25, rel=0.01)
    assert seen.distortion == pytest.approx(1.2, rel=0.02)
    assert seen.rate + 1.25 * (seen.distortion - 1.2) == pytest.approx(2.0676, rel=0.01)


def water_filling(spectrum, allowed):
    """Water level and rate of independent Gaussians of these variances at an error in total."""
    levels = np.geomspace(1e-6, 1, 200_001) * spectrum.max()
    level = levels[np.argmin(np.abs(np.minimum(spectrum[:, None], levels).sum(axis=0) - allowed))]
    return level, 0.5 * np.log(np.maximum(spectrum / level, 1)).sum()


@pytest.mark.slow
def test_stationary_images_meet_water_filling_of_their_power_spectrum():
    """All circular shifts of a few patterns: a circulant covariance, whose eigenvalues are the mean power spectrum."""
    patterns = np.random.default_rng(0).standard_normal((8, 16)) @ np.exp(
        -np.abs(np.subtract.outer(np.arange(16), np.arange(16)))
    )
    patterns -= patterns.mean(axis=1, keepdims=True)
    x = np.concatenate([np.roll(patterns, shift, axis=1) for shift in range(16)])
    spectrum = (np.abs(np.fft.fft(patterns, axis=1)) ** 2).mean(axis=0) / 16
    allowed = 0.2 * spectrum.sum()
    level, rate = water_filling(spectrum, allowed)
    found = run(
        cv.RE.from_squared_error(allowed),
        task=cv.datasets.DataSet(x=x, name="stationary", image_shape=(1, 16)),
        model=MLPVAE((1, 1, 16), 16, hidden=()),
        steps=4000,
        batch_size=128,
        learning_rate=1e-2,
    )
    seen = found.evaluate(samples=64)
    assert found.multipliers["RE"] == pytest.approx(0.5 / level, rel=0.02)
    assert seen.rate + 0.5 / level * (seen.distortion - allowed) == pytest.approx(rate, rel=0.01)


@pytest.mark.slow
def test_a_convolution_over_whole_images_meets_water_filling_of_their_power_spectrum():
    """A linear ConvDRAW of one step, whose kernels are as large as the images, with a channel for every frequency.

    The maps of a convolution with smaller strides are stationary, so a channel has one sigma, and one ratio of signal
    and noise, for all frequencies. Water-filling wants one for each, so it takes a map of one place. Training comes
    slowly: D is 5 % above after 2000 steps, and 1.8 % after 6000, where the rate at equal error is 0.8 % above.
    """
    side = 4
    near = np.fft.fft(np.exp(-np.minimum(np.arange(side), side - np.arange(side)))).real
    patterns = np.random.default_rng(0).standard_normal((6, side, side))
    patterns = np.fft.ifft2(np.fft.fft2(patterns) * np.outer(near, near)).real
    patterns -= patterns.mean(axis=(1, 2), keepdims=True)
    shifts = [(i, j) for i in range(side) for j in range(side)]
    x = np.concatenate([np.roll(patterns, shift, axis=(1, 2)).reshape(6, side**2) for shift in shifts])
    spectrum = (np.abs(np.fft.fft2(patterns)) ** 2).mean(axis=0).ravel() / side**2
    allowed = 0.2 * spectrum.sum()
    level, rate = water_filling(spectrum, allowed)
    found = run(
        objective="elbo",
        sigma=math.sqrt(level),
        task=cv.datasets.DataSet(x=x, name="stationary", image_shape=(side, side)),
        model=ConvDRAW((1, side, side), side**2, side**2, steps=1, stride=side, kernel_size=1, cell="linear"),
        steps=6000,
        batch_size=len(x),
        learning_rate=3e-3,  # the noise of codes moves a product of four matrices more than two
    )
    seen = found.evaluate(samples=64)
    assert seen.distortion == pytest.approx(allowed, rel=0.03)
    assert seen.rate + 0.5 / level * (seen.distortion - allowed) == pytest.approx(rate, rel=0.015)
