"""Diagonal Gaussians on tensors: against torch.distributions, and their bounds."""

import pytest

torch = pytest.importorskip("torch", reason="torch, of the extra torch, is not installed")

from hypothesis import given, strategies as st
from torch.distributions import Independent, Normal, kl_divergence

from constrained_vae.image_models import Gaussian

SHAPE = 5, 3, 2, 2


def theirs(gaussian):
    """The same, of the library."""
    return Independent(Normal(gaussian.mean, gaussian.log_sigma.exp()), gaussian.mean.ndim - 1)


def test_all_is_as_the_library_has_it(draw):
    q, p = (Gaussian(draw(*SHAPE), draw(*SHAPE)) for _ in range(2))
    z = draw(*SHAPE)
    torch.testing.assert_close(q.kl(p), kl_divergence(theirs(q), theirs(p)), rtol=1e-12, atol=0)
    torch.testing.assert_close(q.log_density(z), theirs(q).log_prob(z), rtol=1e-12, atol=0)
    torch.testing.assert_close(q.entropy(), theirs(q).entropy(), rtol=1e-12, atol=0)
    standard = Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 3)
    torch.testing.assert_close(Gaussian.standard(z).log_density(z), standard.log_prob(z), rtol=1e-12, atol=0)


def test_the_kl_is_the_mean_of_the_log_ratio_and_0_at_equality(draw):
    q, p = (Gaussian(draw(1, 4), draw(1, 4)) for _ in range(2))
    z = q.sample(draw(20_000, 4))
    ratio = q.log_density(z) - p.log_density(z)
    error = ratio.std() / 20_000**0.5
    assert abs(ratio.mean() - q.kl(p)) < 4 * error
    assert q.kl(q).item() == 0.0


def test_gradients(draw):
    numbers = [draw(2, 3).requires_grad_() for _ in range(5)]
    gradcheck = torch.autograd.gradcheck
    assert gradcheck(lambda a, b, c, d, z: Gaussian(a, b).kl(Gaussian(c, d)), numbers)
    assert gradcheck(lambda a, b, c, d, z: Gaussian(a, b).log_density(z), numbers)
    assert gradcheck(lambda a, b, c, d, z: Gaussian(a, b).sample(z), numbers)
    # Also where log sigma bends, at -6 and 3, and beyond.
    output = torch.tensor([[0.3, 0.1, 0.2, 0.4, -6.5, -5.0, 2.0, 3.5]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda u: Gaussian.of(u).log_sigma, [output])


def test_log_sigma_is_the_output_between_its_bends_and_bounded_beyond():
    u = torch.tensor([-1e30, -7.0, -6.0, -1.0, 0.0, 3.0, 4.0, 1e30], dtype=torch.float64)
    gaussian = Gaussian.of(torch.cat((torch.arange(8.0), u))[None])
    torch.testing.assert_close(gaussian.mean[0], torch.arange(8.0, dtype=torch.float64))
    wanted = [-7.0, -6 - torch.tensor(1.0).tanh(), -6.0, -1.0, 0.0, 3.0, 3 + torch.tensor(1.0).tanh(), 4.0]
    torch.testing.assert_close(gaussian.log_sigma[0], torch.tensor(wanted, dtype=torch.float64))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4))
def test_every_output_has_a_finite_kl_of_at_least_0_in_float32(numbers):
    """Also where one of both is as narrow as it can be, and the other as wide: e^22 / 2 is far from the largest."""
    q, p = (Gaussian.of(torch.tensor([numbers[k : k + 2]], dtype=torch.float32)) for k in (0, 2))
    near = Gaussian(p.mean, q.log_sigma)
    rounding = 1e-13  # where both are equal to seven digits
    assert -rounding <= near.kl(p).item() < 1e10
    assert q.kl(p).item() >= -rounding
    assert q.kl(q).item() == 0.0


def test_the_kl_of_neighbours_is_not_lost_to_rounding():
    """Of log sigmas that differ by r it is r^2 to first order, also in float32, where exp(2 r) - 1 has three digits."""
    q, p = Gaussian(torch.zeros(1, 1), torch.full((1, 1), 1e-4)), Gaussian.standard(torch.zeros(1, 1))
    assert q.kl(p).item() == pytest.approx(1e-8, rel=1e-3)


def test_half_precision_becomes_single():
    """The sum of many small terms would be lost in the eight digits of bfloat16."""
    gaussian = Gaussian.of(torch.ones(2, 4, dtype=torch.bfloat16))
    assert {gaussian.mean.dtype, gaussian.log_sigma.dtype} == {torch.float32}
