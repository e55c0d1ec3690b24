"""Energies of tensors: values and gradients are those of the compact trainer, and lambda weighs them as (T20) says."""

from __future__ import annotations

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.geco import Multiplier
from constrained_vae.geco.loss_terms import Term

torch = pytest.importorskip("torch")
from constrained_vae.image_models.energies import ImageTerm, as_images, as_rows, squared_error

SHAPE = (2, 4, 3)  # channels, height, width
DIM = 24


def constraints(rng):
    """Each of the constraints, for images of SHAPE whose rows hold the channels of a pixel as neighbours."""
    classifier = cv.ClassProbabilities(rng.standard_normal((3, DIM)), rng.standard_normal(3))
    return {
        "RE": cv.RE(0.5),
        "mean": cv.RE(0.5, reduction="mean"),
        "FRE": cv.FRE(0.5, cv.FourierFeatures.random(DIM, 8)),
        "linear FRE": cv.FRE(0.5, rng.standard_normal((5, DIM))),
        "CLA": cv.CLA(0.5, classifier, rng.integers(3, size=20)),
        "PNCC": cv.PNCC(0.5, (4, 3, 2), (2, 3)),
    }


@pytest.mark.parametrize("name", ["RE", "mean", "FRE", "linear FRE", "CLA", "PNCC"])
def test_energies_and_gradients_are_those_of_the_compact_trainer(name, rng):
    constraint = constraints(rng)[name]
    x, psi, slopes = rng.random((20, DIM)), rng.random((6, DIM)), rng.standard_normal(6)
    rows = np.array([3, 3, 19, 0, 7, 11])
    values, gradients = Term.make(constraint, x, cv.Frame.identity(DIM)).at(rows, psi)
    images, mean = (as_images(torch.tensor(part), SHAPE) for part in (x[rows], psi))
    mean.requires_grad_()
    found = ImageTerm.make(constraint, DIM).at(rows, images, mean, squared_error(images, mean))
    (found * torch.tensor(slopes)).sum().backward()
    scale = np.abs(gradients).max()  # of the numbers that were added; rounding of some hundred operations
    np.testing.assert_allclose(found.detach(), values, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(as_rows(mean.grad), slopes[:, None] * gradients, rtol=1e-12, atol=1e-12 * scale)


def test_rows_hold_the_channels_of_a_pixel_as_neighbours(rng):
    rows = rng.random((5, DIM))
    images = as_images(torch.tensor(rows), SHAPE)
    assert images.shape == (5, *SHAPE)
    np.testing.assert_array_equal(images[2, 1, 3, 0], rows[2].reshape(4, 3, 2)[3, 0, 1])
    np.testing.assert_array_equal(as_rows(images), rows)


def test_half_precision_is_left_before_squares_are_added():
    """A mean in bfloat16 has an error of float32; 1000 squares of 16 would lose it, 3 digits, and overflow float16."""
    x = torch.full((1, 1, 1000, 256), 16.0)
    for kind in (torch.bfloat16, torch.float16):
        error = squared_error(x, torch.zeros_like(x, dtype=kind))
        assert error.dtype == torch.float32
        assert float(error) == 256 * 256_000  # exactly, as a sum of powers of two


def test_the_penalty_has_the_value_of_the_average_and_the_gradient_of_the_batch():
    """lambda C_ma and lambda dE (T20), through 30 steps, in float64."""
    multiplier = Multiplier(1.2, initial=3.0, averaging=0.9, burn_in=0)
    weight, average = torch.tensor(2.0, dtype=torch.float64, requires_grad=True), None
    for step in range(30):
        energy = (weight - step / 10) ** 2 + 0.1
        c = float(energy.detach()) - 1.2
        average = c if average is None else 0.9 * average + 0.1 * c
        lam = multiplier.value
        penalty = multiplier.penalty(energy)
        (slope,) = torch.autograd.grad(penalty, weight)
        assert float(penalty.detach()) == pytest.approx(lam * average, rel=1e-12, abs=1e-12)
        assert float(slope) == pytest.approx(lam * 2 * (2.0 - step / 10), rel=1e-12, abs=1e-12)
        multiplier.step()


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_an_energy_in_half_precision_is_weighed_in_float32(kind):
    """50 000 times 1.96 is beyond float16, and is rounded by bfloat16 to 3 digits."""
    energy = torch.tensor(1.96, dtype=getattr(torch, kind), requires_grad=True)
    multiplier = Multiplier(1.0, initial=5e4, burn_in=0, bounds=(1.0, 1e6))
    exact = float(energy.detach())
    penalty = multiplier.penalty(energy)
    assert penalty.dtype == torch.float32
    assert float(penalty.detach()) == pytest.approx(5e4 * (exact - 1), rel=1e-6)
    assert float(multiplier.cost(energy).detach()) == pytest.approx(5e4 * (exact - 1), rel=1e-6)
