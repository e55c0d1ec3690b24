"""What every image model promises: its KL, its log ratio, its samples, its beginnings and its refusals."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch, of the extra torch, is not installed")

import constrained_vae as cv
from constrained_vae.image_models import MLPVAE, ConvDRAW, ConvVAE, Model, make_model
from tests.helpers.image_models import MODELS, batch, random_model, small_model

every_model = pytest.mark.parametrize("name", MODELS)


def equal(one, other):
    return torch.equal(one.mean, other.mean) and torch.equal(one.kl, other.kl) and torch.equal(one.codes, other.codes)


@every_model
def test_shapes(name, draw):
    model = random_model(name, draw)
    x, noise, context = batch(model, draw, 5)
    done = model(x, noise, context)
    assert done.mean.shape == x.shape
    assert done.kl.shape == (5, model.code_shape[0])
    assert done.codes.shape == (5, *model.code_shape)
    assert model.log_ratio(x, done.codes, context).shape == (5,)
    assert model.sample(noise, context).shape == x.shape


@every_model
def test_the_kl_is_the_mean_log_ratio_of_posterior_and_prior(name, draw):
    """E sum_t KL_t = E[log q(z | x) - log p(z)], the chain rule, over the codes of one image."""
    model, n = random_model(name, draw), 4000
    x, noise, context = batch(model, draw, n)
    x = x[:1].expand_as(x)
    context = context if context is None else context[:1].expand_as(context)
    with torch.no_grad():
        done = model(x, noise, context)
        kl, ratio = done.kl.sum(1), model.log_ratio(x, done.codes, context)
    difference = ratio - kl
    assert kl.mean() > 0.4
    assert difference.std() > 0.1  # both are the same only on average
    assert abs(difference.mean()) < 4 * difference.std() / n**0.5


@every_model
def test_codes_of_the_prior_are_those_of_the_samples_with_their_density(name, draw):
    """log q - log p of a code is log q of the posterior, by hand, less the density that came with the code."""
    model = random_model(name, draw)
    x, noise, context = batch(model, draw, 4)
    with torch.no_grad():
        codes, log_prior = model.draw_codes(noise, context)
        assert codes.shape == noise.shape
        assert log_prior.shape == (4,)
        if "draw" in name:  # without x the posterior is the prior
            mean, steps = model._draw(lambda t, p: codes[:, t], 4, None, context)
            expected = sum(torch.distributions.Normal(s.p.mean, s.p.log_sigma.exp()).log_prob(s.z) for s in steps)
            expected = expected.sum((1, 2, 3))
        else:
            mean = model._decode(codes)
            q = model._posterior(x)
            normal = torch.distributions.Normal(q.mean, q.log_sigma.exp())
            expected = normal.log_prob(codes).sum((1, 2)) - model.log_ratio(x, codes)
        torch.testing.assert_close(log_prior, expected, rtol=1e-7, atol=1e-7)  # a flow of random weights stretches
        torch.testing.assert_close(mean, model.sample(noise, context))


@every_model
def test_samples_depend_on_the_noise_and_the_context_alone(name, draw):
    model = random_model(name, draw)
    x, noise, context = batch(model, draw, 2)
    first = model.sample(noise, context)
    assert torch.equal(model.sample(noise, context), first)
    assert not torch.equal(model.sample(draw(*noise.shape), context), first)
    if context is not None:
        assert not torch.equal(model.sample(noise, draw(*context.shape)), first)
    model(x, noise, context)  # leaves nothing behind
    assert torch.equal(model.sample(noise, context), first)
    first.sum().backward()
    unused = [name for name, weights in model.named_parameters() if weights.grad is None]
    assert any("encoder" in name for name in unused)
    assert not any("decoder" in name for name in unused)


@pytest.mark.parametrize("name", [name for name in MODELS if "flow" not in name])  # whose samples have outliers
def test_reconstructions_fill_their_plane(name, draw):
    model = random_model(name, draw)
    _, noise, context = batch(model, draw, 200)
    with torch.no_grad():
        images = model.sample(noise, context).flatten(1)
    values = torch.linalg.svdvals(images - images.mean(0))
    assert int((values > 1e-9 * values[0]).sum()) == min(model.plane, 64)


@pytest.mark.parametrize("name", [name for name in MODELS if "flow" in name])
def test_samples_of_a_flow_are_its_own(name, draw):
    model, codes = random_model(name, draw), []
    model.decoder.register_forward_pre_hook(lambda layer, given: codes.append(given[0]))
    _, noise, _ = batch(model, draw, 4)
    model.sample(noise)
    assert (codes[0] - noise[:, 0]).abs().max() > 0.1
    # Six couplings of random weights, each of which may stretch a rounding by e^3.
    torch.testing.assert_close(model.flow.outward(codes[0])[0], noise[:, 0], rtol=0, atol=1e-9)


@every_model
def test_a_pass_is_a_function_of_its_arguments_and_rows_do_not_meet(name, draw):
    model = random_model(name, draw)
    given = batch(model, draw, 4)
    before = [None if tensor is None else tensor.clone() for tensor in given]
    whole = model(*given)
    assert equal(model(*given), whole)
    assert all(one is other or torch.equal(one, other) for one, other in zip(given, before, strict=True))
    part = model(*(None if tensor is None else tensor[2:] for tensor in given))
    torch.testing.assert_close(part.mean, whole.mean[2:], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(part.kl, whole.kl[2:], rtol=1e-12, atol=1e-12)


@every_model
def test_every_weight_has_a_gradient(name, draw):
    """The weights with no gradient are those of an input that is 0: the first state, and the first canvas."""
    model = random_model(name, draw)
    x, noise, context = batch(model, draw, 4)
    done = model(x, noise, context)
    (done.kl.sum() + (done.mean - x).square().sum()).backward()
    still = {name for name, weights in model.named_parameters() if not weights.grad.abs().max() > 0}
    assert still <= {"cores.0.prior.weight", "cores.0.canvas.weight", "cores.0.encoder.conv.weight"}
    assert not still or "own weights" in name


@every_model
@pytest.mark.parametrize("image_shape", [(1, 8, 8), (3, 16, 8)])
def test_a_new_model_gives_the_centre_and_its_codes_carry_nothing(name, draw, image_shape):
    """So that the first error is about the variance of the data, and the first KL about 0."""
    model = small_model(name, image_shape)
    centre = draw(*image_shape)
    model.centre.copy_(centre)
    x, noise, context = batch(model, draw, 50)
    x = centre + 0.3 * x
    with torch.no_grad():
        done = model(x, noise, context)
    error, variance = (done.mean - x).square().mean(), (x - centre).square().mean()
    assert error.item() == pytest.approx(variance.item(), rel=0.1)
    if "flow" not in name:  # whose KL is of the sampled code
        assert 0 <= done.kl.sum(1).mean() < 0.01 * noise[0].numel()
    log_ratio = model.log_ratio(x, done.codes, context)
    assert abs(log_ratio.mean()) < 0.1


@every_model
def test_the_same_model_from_its_configuration_and_state(name, draw):
    model = random_model(name, draw)
    other = make_model(json.loads(json.dumps(model.config)), seed=7).double()
    assert type(other) is type(model)
    assert other.config == model.config
    other.load_state_dict(model.state_dict())
    given = batch(model, draw, 3)
    assert equal(other(*given), model(*given))
    assert isinstance(model, Model)


@every_model
def test_first_weights_are_of_the_seed_and_no_global_generator_is_touched(name):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, same, other = (torch.cat([w.flatten() for w in small_model(name, seed=k).parameters()]) for k in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@every_model
def test_float32_is_the_default(name):
    model = make_model({**MODELS[name], "image_shape": [1, 8, 8]})
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    given = batch(model, lambda *shape: torch.zeros(shape), 2)
    done = model(*given)
    assert {done.mean.dtype, done.kl.dtype, done.codes.dtype} == {torch.float32}


@every_model
def test_in_half_precision_canvas_codes_and_kl_are_single(name):
    model = make_model({**MODELS[name], "image_shape": [1, 8, 8]})
    given = batch(model, lambda *shape: torch.ones(shape), 2)
    with torch.autocast("cpu", torch.bfloat16):
        done = model(*given)
        ratio = model.log_ratio(given[0], done.codes, given[2])
    assert {done.mean.dtype, done.kl.dtype, done.codes.dtype, ratio.dtype} == {torch.float32}
    torch.testing.assert_close(done.mean, model(*given).mean, rtol=0, atol=0.02)  # 8 bits of outputs of about 1


@every_model
def test_gradients_in_half_precision_are_those_of_single_to_its_digits(name):
    """Backward through bfloat16, as `train` does it on a GPU: a gradient in float32, with some per cent of error."""
    model = make_model({**MODELS[name], "image_shape": [1, 8, 8]})
    generator = torch.Generator().manual_seed(1)
    given = batch(model, lambda *shape: torch.rand(shape, generator=generator), 4)

    def gradient(half):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            done = model(*given)
        loss = done.kl.sum() + (given[0] - done.mean).square().sum()
        parts = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
        assert {part.dtype for part in parts} == {torch.float32}
        return torch.cat([part.flatten() for part in parts])

    single = gradient(False)
    assert (gradient(True) - single).norm() < 0.03 * single.norm()


def test_sides_of_the_usual_images():
    for side in (8, 16, 28, 32):
        x = torch.zeros(2, 3, side, side)
        for model in (MLPVAE(x.shape[1:]), ConvVAE(x.shape[1:], channels=2), ConvDRAW(x.shape[1:], 2, 2, 2)):
            assert model(x, torch.zeros(2, *model.code_shape)).mean.shape == x.shape


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "config must be a dictionary such as Model.config, got None"),
        ({}, "model of config must be one of .*, got None"),
        ({"model": "VAE"}, "model of config must be one of .*'MLPVAE'.*, got 'VAE'"),
        ({"model": "MLPVAE", "hiden": [3]}, "config must hold arguments of MLPVAE: got an unexpected keyword argument"),
        ({"model": "MLPVAE", "image_shape": (8, 8)}, r"image_shape must be \(channels, height, width\), got \(8, 8\)"),
        ({"model": "MLPVAE", "image_shape": (1, 8, 0)}, "image_shape must be a whole number of at least 1, got 0"),
        ({"model": "MLPVAE", "latent_dim": 0}, "latent_dim must be a whole number of at least 1, got 0"),
        ({"model": "MLPVAE", "latent_dim": 1, "prior": "flow"}, "dim must be a whole number of at least 2, got 1"),
        ({"model": "MLPVAE", "hidden": 3}, "hidden must be a tuple of widths"),
        ({"model": "MLPVAE", "hidden": [0]}, "hidden must be a whole number of at least 1, got 0"),
        ({"model": "MLPVAE", "prior": "vamp"}, "prior must be one of .*, got 'vamp'"),
        ({"model": "ConvVAE", "image_shape": (1, 8, 10)}, "image_shape must have sides that are multiples of 4"),
        ({"model": "ConvVAE", "channels": 1.5}, "channels must be a whole number of at least 1, got 1.5"),
        ({"model": "ConvVAE", "hidden": -1}, "hidden must be a whole number of at least 1, got -1"),
        ({"model": "ConvDRAW", "stride": 3}, "image_shape must have sides that are multiples of 3"),
        ({"model": "ConvDRAW", "stride": 0}, "stride must be a whole number of at least 1, got 0"),
        ({"model": "ConvDRAW", "steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"model": "ConvDRAW", "steps": 10**6}, "steps must be a whole number of at most 1000, got 1000000"),
        ({"model": "ConvDRAW", "hidden_channels": 0}, "hidden_channels must be a whole number of at least 1, got 0"),
        ({"model": "ConvDRAW", "latent_channels": "4"}, "latent_channels must be a whole number of at least 1"),
        ({"model": "ConvDRAW", "kernel_size": 4}, "kernel_size must be odd, got 4"),
        ({"model": "ConvDRAW", "shared": 1}, "shared must be True or False, got 1"),
        ({"model": "ConvDRAW", "cell": "gru"}, "cell must be one of .*, got 'gru'"),
        ({"model": "ConvDRAW", "context_size": 0}, "context_size must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_configurations(config, message):
    if isinstance(config, dict) and "model" in config:
        config = {"image_shape": [1, 8, 8], **config}
    with pytest.raises(ValueError, match=message) as error:
        make_model(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", [-1, 1.5, None])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        MLPVAE((1, 8, 8), seed=seed)


@pytest.mark.parametrize(
    "config",
    [
        {"model": "MLPVAE", "image_shape": [3, 2**13, 2**13]},
        {"model": "MLPVAE", "image_shape": [3, 1000, 1000]},
        {"model": "ConvVAE", "image_shape": [1, 8, 8], "hidden": 2**16, "channels": 2**10},
        {"model": "ConvDRAW", "image_shape": [1, 8, 8], "hidden_channels": 2**16, "kernel_size": 31},
        {"model": "ConvDRAW", "image_shape": [1, 2**20, 2**20], "stride": 2**20},
    ],
)
def test_models_too_large_are_refused_before_they_have_memory(config):
    with pytest.raises(cv.TooLargeError, match="must have at most 134217728"):
        make_model(config)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mlp", {"x": torch.zeros(2, 8, 8)}, r"x must have shape \(B, 1, 8, 8\), got \(2, 8, 8\)"),
        ("mlp", {"x": torch.zeros(0, 1, 8, 8)}, r"x must have shape \(B, 1, 8, 8\), got \(0, 1, 8, 8\)"),
        ("mlp", {"x": torch.tensor(1.0)}, r"x must have shape \(B, 1, 8, 8\), got \(\)"),
        ("conv", {"x": torch.zeros(2, 3, 8, 8)}, r"x must have shape \(B, 1, 8, 8\), got \(2, 3, 8, 8\)"),
        ("draw", {"x": np.zeros((2, 1, 8, 8))}, "x must be a tensor of torch.float32 like the model, got an array"),
        ("draw", {"x": torch.zeros(2, 1, 8, 8).double()}, "x must be a tensor of torch.float32 .* torch.float64"),
        ("draw", {"x": torch.zeros(2, 1, 8, 8).byte()}, "x must be a tensor of torch.float32 .* torch.uint8"),
        (
            "draw",
            {"noise": torch.zeros(3, 3, 2, 2, 2)},
            r"noise must have shape \(2, 3, 2, 2, 2\), got \(3, 3, 2, 2, 2\)",
        ),
        ("conv", {"noise": torch.zeros(2, 3)}, r"noise must have shape \(2, 1, 3\), got \(2, 3\)"),
        ("mlp", {"context": torch.zeros(2, 1)}, "context must be None for a model without a context, got an array"),
        ("conditional draw", {"context": None}, "context must be a tensor of torch.float32 like the model, got None"),
        ("conditional draw", {"context": torch.zeros(2, 2)}, r"context must have shape \(2, 2, 8, 8\), got \(2, 2\)"),
    ],
)
def test_bad_batches(name, change, message):
    model = make_model({**MODELS[name], "image_shape": [1, 8, 8]})
    x, noise, context = batch(model, lambda *shape: torch.zeros(shape), 2)
    given = {"x": x, "noise": noise, "context": context} | change
    with pytest.raises(ValueError, match=message) as error:
        model(**given)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message.replace("noise", "codes")):
        model.log_ratio(given["x"], given["noise"], given["context"])


@pytest.mark.parametrize(
    ("noise", "context", "message"),
    [
        (
            torch.zeros(2, 3, 2, 2),
            torch.zeros(2, 2, 8, 8),
            r"noise must have shape \(B, 3, 2, 2, 2\), got \(2, 3, 2, 2\)",
        ),
        (torch.zeros(2, 3, 2, 2, 2), None, "context must be a tensor of torch.float32 like the model, got None"),
        (
            torch.zeros(2, 3, 2, 2, 2),
            torch.zeros(1, 2, 8, 8),
            r"context must have shape \(2, 2, 8, 8\), got \(1, 2, 8, 8",
        ),
    ],
)
def test_bad_noise_for_samples(noise, context, message):
    model = make_model({**MODELS["conditional draw"], "image_shape": [1, 8, 8]})
    with pytest.raises(ValueError, match=message):
        model.sample(noise, context)


def test_the_models_are_reached_from_the_package():
    assert cv.image_models.make_model is make_model
    assert "image_models" not in cv.__all__  # `from constrained_vae import *` works without the extra
