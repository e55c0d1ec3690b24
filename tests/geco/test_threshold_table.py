"""Which kappa? Tables against closed forms, and thresholds that are doubtful before training."""

from __future__ import annotations

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.geco import thresholds, train
from constrained_vae.testing import water_filling


def rows(table, code):
    return [i for i, name in enumerate(table.codes) if name.startswith(code)]


def test_codes_of_a_gaussian():
    """Variance, water-filling of two of three components, and the component that has no latent."""
    table = thresholds(cv.datasets.gaussian((4.0, 2.0, 0.5)).x, latent_dim=2)
    assert table.squared_error[rows(table, "none")] == pytest.approx([6.5])
    linear = rows(table, "linear VAE")
    assert table.rate[linear] == pytest.approx([1, 2, 4, 8, 16])
    for i in linear:
        D, R = water_filling([4.0, 2.0], 0.5 / table.multiplier[i])
        assert (table.squared_error[i], table.rate[i]) == (pytest.approx(D + 0.5), pytest.approx(R))
    assert table.squared_error[rows(table, "linear code")] == pytest.approx([0.5])
    assert not rows(table, "best")  # 12 000 numbers
    (last,) = rows(table, "each of 4000 points")
    assert (table.rate[last], table.squared_error[last]) == (pytest.approx(np.log(4000)), 0)


def test_the_best_codes_of_few_points():
    """Four points of weights p, far apart: R = D = 0 nearly at the entropy, and above R(D) nowhere by 0.01 nats."""
    x, p = 10.0 * np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]), np.array([0.4, 0.3, 0.2, 0.1])
    table = thresholds(x, weights=p)
    entropy = -p @ np.log(p)
    best = rows(table, "best")
    assert len(best) == 1  # 1 nat; 2 are more than the entropy
    exact = cv.rate_distortion(x, [0.5 / table.multiplier[best[0]]], weights=p)
    assert exact.lower[0] - 1e-9 <= table.rate[best[0]] + table.multiplier[best[0]] * table.squared_error[best[0]]
    assert table.rate[best[0]] + table.multiplier[best[0]] * table.squared_error[best[0]] <= exact.lower[0] + 0.01
    assert table.rate[-1] == pytest.approx(entropy)
    assert table.squared_error[0] == pytest.approx(p @ np.square(x - p @ x).sum(axis=1))
    empty = thresholds([*x, [1e6, 0.0]], weights=[*p, 0.0])  # a point without weight
    assert repr(empty) == repr(table)


def test_kappa_of_a_row_is_met_with_equality():
    """`RE(kappa)` and `RE(kappa, "mean")` of a row allow just its squared error, in any unit."""
    x = cv.datasets.gaussian((4.0, 2.0, 0.5), n=8).x
    table, scaled = thresholds(x), thresholds(1024 * x)
    for i, error in enumerate(table.squared_error):
        assert cv.RE(table.kappa[i]).allowance == pytest.approx(error)
        assert cv.RE(table.kappa_per_dimension[i], "mean").allowance == pytest.approx(error / 3)
    np.testing.assert_allclose(scaled.kappa, 1024 * table.kappa, rtol=1e-6, atol=1e-9)


def test_text_html_and_frame():
    table = thresholds(cv.datasets.four_clusters(8).x, 1)
    assert len(repr(table).splitlines()) == len(table.codes) + 2
    assert table._repr_html_().count("<tr>") == len(table.codes) + 1
    frame = table.to_frame()
    assert list(frame["code"]) == list(table.codes)
    assert list(frame["kappa"]) == list(table.kappa)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0], [1.0]],), "x must have points that differ"),
        (([[1.0], [2.0]], 0), "latent_dim"),
        (([1.0, 2.0],), "x must have shape"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        thresholds(*arguments)


# --- doubtful thresholds ----------------------------------------------------------------------------------------------


def warned(x, constraint, match, **options):
    with pytest.warns(UserWarning, match=match) as caught:
        train(x, constraint, **{"latent_dim": 1, "hidden": (2,), "steps": 0} | options)
    assert caught[0].filename == __file__


def test_correlations_above_that_of_the_data_with_themselves():
    """Half of the patches of these images are constant: no model has a correlation above 1/2."""
    x = np.zeros((4, 4, 4))
    x[:, :2] = np.random.default_rng(0).uniform(size=(4, 2, 4))
    x = x.reshape(4, 16)
    warned(x, cv.PNCC(0.51, (4, 4), 2), r"PNCC: kappa = 0.51 is above 0.5, the correlation of the data with themselves")
    train(x, cv.PNCC(0.5, (4, 4), 2), latent_dim=1, hidden=(2,), steps=0)  # no warning
    digits = cv.datasets.digits(300)
    patches = digits.x.reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4)
    share = np.mean(np.ptp(patches, axis=1) > 0)  # of patches that are not constant
    warned(digits.x, cv.PNCC(share + 0.001, digits.image_shape, 2), f"is above {share:.4g}")
    train(digits.x, cv.PNCC(share - 0.001, digits.image_shape, 2), latent_dim=1, hidden=(2,), steps=0)


def test_an_error_of_zero():
    warned(np.eye(3), cv.RE(0.0), "which no code with noise reaches", latent_dim=3)


def test_errors_of_linear_features():
    """Twice the first axis, of variance 4: 16 without any code, and 0 with one latent dimension."""
    x = cv.datasets.gaussian((4.0, 2.0, 0.5), n=8).x
    features = np.diag([2.0, 1.0, 0.0])
    warned(x, cv.FRE(18.01**0.5, features), "FRE: kappa.2 = 18.01 is at least the variance 18 of the features")
    warned(x, cv.FRE(1.9**0.5, features), "FRE: kappa.2 = 1.9 is below 2, .* may be out of reach")
    train(x, cv.FRE(2.1**0.5, features), latent_dim=1, hidden=(2,), steps=0)
