"""ConvDRAW: its equations as they are written, its linear limit, and what it does without information."""

import pytest

torch = pytest.importorskip("torch", reason="torch, of the extra torch, is not installed")

from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from constrained_vae.image_models import MLPVAE, ConvDRAW
from tests.helpers.image_models import DRAWS, batch, random_model

every_draw = pytest.mark.parametrize("name", DRAWS)


def naive_pass(model, x, noise, context):
    """The equations with one convolution of all inputs of a cell, in every step anew; for models without strides."""

    def conv(maps, weights, bias=None):
        return F.conv2d(torch.cat(maps, 1), torch.cat(weights, 1), bias, padding=weights[0].shape[-1] // 2)

    def lstm(maps, weights, bias, c):
        i, f, o, g = conv(maps, weights, bias).chunk(4, 1)
        c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def normal(layer, h):
        mean, log_sigma = F.conv2d(h, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2).chunk(2, 1)
        assert log_sigma.min() > -6
        assert log_sigma.max() < 3
        return Normal(mean, log_sigma.exp())

    x = x - model.centre
    r = torch.zeros_like(x)
    h_e = c_e = h_d = c_d = torch.zeros(len(x), model.hidden, *x.shape[2:], dtype=x.dtype)
    kl, ratio, codes = [], 0.0, []
    seen = [] if context is None else [model.context(context)]
    for t in range(noise.shape[1]):
        core = model.cores[t] if len(model.cores) > 1 else model.cores[0]
        to_encoder, to_decoder = ([], []) if context is None else ([part] for part in core.context.weight.chunk(2))
        p = normal(core.prior, h_d)
        weights = [core.image.weight, core.error.weight, core.encoder.conv.weight, *to_encoder]
        h_e, c_e = lstm([x, x - r, h_d, h_e, *seen], weights, core.encoder.conv.bias, c_e)
        q = normal(core.posterior, h_e)
        z = q.loc + q.scale * noise[:, t]
        weights = [core.decoder.conv.weight, core.canvas.weight, *to_decoder]
        h_d, c_d = lstm([z, h_d, r, *seen], weights, core.decoder.conv.bias, c_d)
        r = r + F.conv_transpose2d(h_d, core.paint.weight, core.paint.bias, padding=core.paint.weight.shape[-1] // 2)
        kl.append(kl_divergence(q, p).flatten(1).sum(1))
        ratio = ratio + (q.log_prob(z) - p.log_prob(z)).flatten(1).sum(1)
        codes.append(z)
    return model.centre + r, torch.stack(kl, 1), ratio, torch.stack(codes, 1)


@pytest.mark.parametrize("options", [{}, {"shared": False}, {"kernel_size": 1, "steps": 1}])
@pytest.mark.parametrize("name", ["draw", "conditional draw"])
def test_the_equations(name, options, draw):
    """And the log ratio of the codes of a pass is that of the densities of this pass."""
    model = random_model(name, draw, spread=0.2, stride=1, **options)
    x, noise, context = batch(model, draw, 3)
    done = model(x, noise, context)
    mean, kl, ratio, codes = naive_pass(model, x, noise, context)
    torch.testing.assert_close(done.codes, codes, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(done.mean, mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(done.kl, kl, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model.log_ratio(x, codes, context), ratio, rtol=1e-9, atol=1e-12)


def test_one_step_of_linear_cells_and_maps_of_one_place_is_the_linear_vae(draw):
    """Its weights are products of those of ConvDRAW; KL, reconstruction and all gradients are equal."""
    model = random_model("draw of linear cells", draw, steps=1, image_shape=(1, 4, 4))
    with torch.no_grad():
        model.cores[0].prior.bias.zero_()  # so that the prior is N(0, 1)
    linear = MLPVAE((1, 4, 4), latent_dim=2, hidden=()).double()
    x, noise, _ = batch(model, draw, 6)

    def products():
        (core,) = model.cores
        matrix = {name: weights.flatten(1) for name, weights in core.named_parameters() if weights.ndim > 1}
        seen = matrix["image.weight"] + matrix["error.weight"]  # the first canvas is 0, so e = x
        of_code = matrix["decoder.conv.weight"][:, :2]  # the other columns are of the first state, 0
        paint, posterior = matrix["paint.weight"].T, matrix["posterior.weight"]
        return {
            "centre": model.centre,
            "encoder.1.weight": posterior @ seen,
            "encoder.1.bias": posterior @ core.encoder.conv.bias + core.posterior.bias,
            "decoder.0.weight": paint @ of_code,
            "decoder.0.bias": paint @ core.decoder.conv.bias + core.paint.bias,
        }

    def loss(done):
        return done.kl.mean() + 3 * (done.mean - x).square().sum() / 6

    done = model(x, noise)
    wanted = torch.func.functional_call(linear, products(), (x, noise.reshape(6, 1, 2)))
    torch.testing.assert_close(done.kl, wanted.kl, rtol=1e-12, atol=0)
    torch.testing.assert_close(done.mean, wanted.mean, rtol=1e-12, atol=1e-12)
    weights = [w for name, w in model.named_parameters() if "prior" not in name]
    found, theirs = (torch.autograd.grad(loss(one), weights, materialize_grads=True) for one in (done, wanted))
    assert sum(one.abs().max() > 0 for one in theirs) == 9  # all but those of the first states and canvas, which are 0
    for one, other in zip(found, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@every_draw
def test_codes_that_carry_nothing_have_no_rate_and_the_image_is_a_sample_of_the_prior(name, draw):
    """So its best reconstruction of all images is their mean, as that of a new model is."""
    model = random_model(name, draw)
    with torch.no_grad():
        for core in model.cores:
            for weights in (*core.prior.parameters(), *core.posterior.parameters()):
                weights.zero_()
    x, noise, context = batch(model, draw, 3)
    done = model(x, noise, context)
    assert torch.equal(done.kl, torch.zeros_like(done.kl))
    assert torch.equal(done.codes, noise)
    assert torch.equal(done.mean, model.sample(noise, context))


@every_draw
def test_a_posterior_that_is_the_prior_draws_its_samples(name, draw):
    """With the posterior's layer replaced by the prior's output: ancestral sampling and the pass are one."""
    model = random_model(name, draw)
    x, noise, context = batch(model, draw, 3)
    for core in model.cores:
        outputs = []
        core.prior.register_forward_hook(lambda layer, given, output, outputs=outputs: outputs.append(output))
        core.posterior.register_forward_hook(lambda layer, given, output, outputs=outputs: outputs[-1])
    done = model(x, noise, context)
    assert torch.equal(done.mean, model.sample(noise, context))
    assert torch.equal(done.kl, torch.zeros_like(done.kl))


@pytest.mark.parametrize(
    ("name", "wanted"), [("conditional draw", [1]), ("conditional draw of own weights", [1, 1, 1])]
)
def test_image_and_context_are_convolved_once(name, wanted, draw):
    model = random_model(name, draw)
    calls = {"image": [0] * len(model.cores), "context": [0] * len(model.cores)}
    for number, core in enumerate(model.cores):
        for layer, counts in calls.items():

            def count(*_, counts=counts, number=number):
                counts[number] += 1

            getattr(core, layer).register_forward_hook(count)
    model(*batch(model, draw, 2))
    assert calls == {"image": wanted, "context": wanted}


def test_the_context_reaches_all_priors_but_the_first(draw):
    """The first one is of the first state, which is 0."""
    model = random_model("conditional draw", draw)
    priors = []
    model.cores[0].prior.register_forward_hook(lambda layer, given, output: priors.append(output))
    _, noise, context = batch(model, draw, 2)
    model.sample(noise, context)
    model.sample(noise, draw(*context.shape))
    first, second = priors[:3], priors[3:]
    assert [torch.equal(one, other) for one, other in zip(first, second, strict=True)] == [True, False, False]


def test_maps_have_one_place_per_square_of_the_stride():
    for stride, places in ((1, (8, 4)), (2, (4, 2)), (4, (2, 1))):
        model = ConvDRAW((3, 8, 4), 2, 5, 2, stride=stride, kernel_size=3)
        assert model.code_shape == (2, 5, *places)
