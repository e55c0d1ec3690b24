"""RealNVP: it is invertible, its density is one, and it begins as the identity."""

import math
from functools import partial

import pytest

torch = pytest.importorskip("torch", reason="torch, of the extra torch, is not installed")

from constrained_vae.image_models import Gaussian, RealNVP


def flow(draw, dim, couplings=4, width=8, spread=0.4):
    """A flow with random weights, in float64."""
    made = RealNVP(dim, couplings, width).double()
    with torch.no_grad():
        for weights in made.parameters():
            weights.copy_(spread * draw(*weights.shape))
    return made


@pytest.mark.parametrize("dim", [2, 5])
def test_both_ways_are_inverse_and_the_determinant_is_that_of_the_jacobian(draw, dim):
    made, z = flow(draw, dim), draw(20, dim)
    u, log_det = made.outward(z)
    assert (u - z).abs().max() > 0.1
    # Rounding of the 4 couplings, each of which stretches it by exp(s) at most.
    torch.testing.assert_close(made.inward(u), z, rtol=0, atol=1e-12)
    torch.testing.assert_close(made.outward(made.inward(z))[0], z, rtol=0, atol=1e-12)
    for row, found in zip(z, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: made.outward(v[None])[0][0], row)
        sign, wanted = torch.linalg.slogdet(jacobian)
        assert sign == 1
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_the_density_integrates_to_1(draw):
    made = flow(draw, 2)
    side = torch.linspace(-10, 10, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    density = made.log_prob(grid).exp()
    assert density.reshape(801, 801)[[0, -1]].max() < 1e-9  # nothing beyond the edges
    # The density has kinks, so the rectangle rule has an error of the square of the spacing, about 6e-4.
    assert density.sum().item() * (side[1] - side[0]).item() ** 2 == pytest.approx(1.0, abs=1e-3)


def test_samples_are_the_codes_of_their_noise(draw):
    made, noise = flow(draw, 4), draw(9, 2, 2)
    z = made.sample(noise)
    u, log_det = made.outward(z.flatten(1))
    torch.testing.assert_close(u, noise.flatten(1), rtol=0, atol=1e-12)
    wanted = Gaussian.standard(noise).log_density(noise) + log_det
    torch.testing.assert_close(made.log_prob(z), wanted, rtol=1e-12, atol=0)


def test_a_new_one_is_the_identity(draw):
    z = draw(7, 1, 5)
    made = RealNVP(5, couplings=3).double()
    assert torch.equal(made.sample(z), z)
    assert torch.equal(made.log_prob(z), Gaussian.standard(z).log_density(z))
    # All the same it learns: the last layers have gradients.
    made.log_prob(z).sum().backward()
    assert all(network[-1].weight.grad.abs().max() > 0 for network in made.networks)


def test_log_scales_are_bounded(draw):
    made = flow(draw, 4, couplings=1, spread=1e6)
    u, log_det = made.outward(draw(9, 4))
    assert u.isfinite().all()
    assert log_det.abs().max().item() == pytest.approx(6.0, rel=1e-3)  # two entries move, each by 3 at most


def test_the_density_is_that_of_zuko_with_the_same_weights(draw):
    zuko = pytest.importorskip("zuko", reason="zuko, of the extra test-torch, is not installed")
    made, z = flow(draw, 5), draw(30, 5)
    # Their log-scale is a softsign too, with the logarithm of the smallest slope as its bound.
    affine = partial(zuko.transforms.MonotonicAffineTransform, slope=math.exp(-3))
    transforms = []
    for number, network in enumerate(made.networks):
        kept = (torch.arange(5) < 2) ^ (number % 2 == 1)
        other = zuko.flows.coupling.GeneralCouplingTransform(5, mask=kept, univariate=affine, hidden_features=(8, 8))
        weights = [weights.clone() for weights in network.parameters()]
        # They have shift and scale of an entry side by side, and we have all shifts before all scales.
        weights[-2:] = [of_last.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1) for of_last in weights[-2:]]
        torch.nn.utils.vector_to_parameters(torch.cat([w.flatten() for w in weights]), other.double().parameters())
        transforms.append(other)
    zeros, ones = torch.zeros(5).double(), torch.ones(5).double()
    base = zuko.lazy.UnconditionalDistribution(zuko.distributions.DiagNormal, zeros, ones, buffer=True)
    wanted = zuko.flows.Flow(transforms, base)().log_prob(z)
    torch.testing.assert_close(made.log_prob(z), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1,), "dim must be a whole number of at least 2, got 1"),
        ((4, 0), "couplings must be a whole number of at least 1, got 0"),
        ((4, 2, 2**16), "a model must have at most 134217728 parameters, got"),
        ((4, 2, 0.5), "width must be a whole number of at least 1, got 0.5"),
    ],
)
def test_bad_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        RealNVP(*arguments)
