"""natural_multiplier(): the slope of the water-filling curve, in any unit."""

from __future__ import annotations

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.geco import natural_multiplier

GAUSSIAN = cv.datasets.gaussian((4.0, 2.0, 0.5)).x


@pytest.mark.parametrize(
    ("squared_error", "level"),
    [(0.3, 0.1), (1.2, 0.4), (1.5, 0.5), (3.0, 1.25), (5.5, 3.0), (6.5, 4.0), (9.0, 4.0), (0.0, 6.5e-4 / 3)],
)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_it_is_the_slope_at_the_threshold(squared_error, level, scale):
    """1 / (2 theta): exact for a Gaussian, in nats per squared unit; in the mean over D it is D times that."""
    expected = 0.5 / level / scale**2
    total = cv.RE.from_squared_error(squared_error * scale**2)
    mean = cv.RE.from_squared_error(squared_error * scale**2 / 3, reduction="mean")
    x = scale * GAUSSIAN + 7.0 * scale
    assert natural_multiplier(x, total) == pytest.approx(expected, rel=1e-9)
    assert natural_multiplier(x, mean) == pytest.approx(3 * expected, rel=1e-9)


def test_features_have_their_own_covariance():
    """The second axis alone has variance 2; twice of it 8, of which an error of 1 is a slope of 1/2."""
    assert natural_multiplier(GAUSSIAN, cv.FRE(1.0, [[0.0, 2.0, 0.0]])) == pytest.approx(0.5, rel=1e-9)


def test_other_constraints_begin_at_one_nat():
    classifier = cv.ClassProbabilities(np.eye(2, 3), np.zeros(2))
    assert natural_multiplier(GAUSSIAN[:2], cv.CLA(0.75, classifier, [0, 1])) == 4.0
    assert natural_multiplier(GAUSSIAN[:2], cv.CLA(1.0, classifier, [0, 1])) == 1.0


def test_weights_are_copies():
    rng = np.random.default_rng(0)
    x, counts = rng.standard_normal((30, 3)), rng.integers(0, 4, 30)
    repeated = natural_multiplier(np.repeat(x, counts, axis=0), cv.RE(0.5))
    assert natural_multiplier(x, cv.RE(0.5), weights=counts) == pytest.approx(repeated, rel=1e-12)


def test_points_that_coincide_give_one_nat():
    assert natural_multiplier(np.ones((5, 2)), cv.RE(2.0)) == 0.25
    assert natural_multiplier(np.ones((5, 2)), cv.RE(0.0)) == 1.0


def test_bad_input():
    with pytest.raises(ValueError, match="constraint must be an instance of Constraint"):
        natural_multiplier(GAUSSIAN, 0.3)
    with pytest.raises(ValueError, match="x must be finite"):
        natural_multiplier([[np.nan]], cv.RE(0.3))
