"""Reverse water-filling from a level, an error or a rate, against the closed form (section 5)."""

from __future__ import annotations

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.geco.water_filling import at_level, covariance_eigenvalues, of_distortion, of_rate
from constrained_vae.testing import water_filling

ELL = np.array([2.0, 4.0, 0.5, 0.0])


@pytest.mark.parametrize("level", [4.0, 3.0, 2.0, 1.0, 0.3, 0.01])
def test_level_error_and_rate_are_one_code(level):
    D, R = water_filling(ELL[:3], level)
    code = at_level(ELL, level)
    assert (code.distortion, code.rate) == (pytest.approx(D), pytest.approx(R))
    assert code.multiplier == 0.5 / level
    assert of_distortion(ELL, D).level == pytest.approx(level, rel=1e-14)
    assert of_rate(ELL, R).level == pytest.approx(level, rel=1e-14)


def test_nothing_is_coded_from_the_variance_on():
    for code in (of_distortion(ELL, 6.5), of_distortion(ELL, 100.0), of_rate(ELL, 0.0)):
        assert (code.level, code.rate, code.distortion) == (4.0, 0.0, 6.5)


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**20])
def test_a_power_of_two_as_unit_changes_no_bit(scale):
    assert of_distortion(ELL * scale**2, 1.2 * scale**2).level == of_distortion(ELL, 1.2).level * scale**2


def test_eigenvalues_of_the_covariance():
    x = cv.datasets.gaussian((4.0, 2.0, 0.5), n=8).x
    assert covariance_eigenvalues(x + 7) == pytest.approx([0.5, 2.0, 4.0])
