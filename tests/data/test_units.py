"""Data in extreme units: right while the square of their radius is representable, and refused by name beyond."""

import numpy as np
import pytest

import constrained_vae as cv

X = np.array([[-1.0], [1.0], [5.0], [5.0]])
TWO = cv.Tiling.uniform(2)


@pytest.mark.parametrize("unit", [1e-140, 1e150])
def test_every_temperature_goes_by_the_square_of_the_unit(unit):
    x, square = unit * X, unit**2
    for function in (cv.first_critical_beta, cv.nucleation_beta, cv.default_betas):
        np.testing.assert_allclose(function(x) / square, function(X), rtol=1e-6)
    s, t = cv.solve(x, beta=square, tiling=TWO), cv.solve(X, beta=1, tiling=TWO)
    assert [s.free_energy, s.distortion / square] == pytest.approx([t.free_energy, t.distortion], rel=1e-12)
    assert cv.certify(s).gap == pytest.approx(cv.certify(t).gap, abs=1e-7)
    (only,) = cv.transitions(x, tiling=TWO, limit=1)
    assert only.beta == pytest.approx(cv.first_critical_beta(x), rel=1e-9)


CALLS = {
    "solve": cv.solve,
    "sweep": cv.sweep,
    "transitions": cv.transitions,
    "first_critical_beta": cv.first_critical_beta,
    "default_betas": cv.default_betas,
    "nucleation_beta": cv.nucleation_beta,
    "hysteresis_interval": cv.hysteresis_interval,
    "global_solution": cv.global_solution,
    "rate_distortion": cv.rate_distortion,
    "first_split": cv.first_split,
    "solve_constrained": lambda x: cv.solve_constrained(x, [cv.RE(0.1)]),
    "FixedPointVAE": lambda x: cv.FixedPointVAE().fit(x),
    "geco.train": lambda x: cv.geco.train(x, cv.RE(0.1), latent_dim=1, steps=1),
}


@pytest.mark.parametrize("unit", [1e-310, 1e-150, 1e152, 3e307])
@pytest.mark.parametrize("name", CALLS)
def test_data_whose_squares_are_not_representable_are_refused_by_name(name, unit):
    with pytest.raises(ValueError, match=r"^x must have a radius between 1e-141 and 1e\+151.*rescale the data"):
        CALLS[name](unit * X)


def test_a_temperature_far_from_the_data_is_refused_with_both():
    with pytest.raises(ValueError, match=r"data with a radius of .*e-100 leave the range .*beta=1e\+200"):
        cv.solve(1e-100 * X, beta=1e200)
    with pytest.raises(ValueError, match=r"sigma\^2 beta must be .* rescale the data"):
        cv.solve(X, cv.ELBO(sigma=1e-160))
    with pytest.raises(ValueError, match="kappa must have a square"):
        cv.RE(1e160)


@pytest.mark.parametrize("unit", [1e-300, 1e-150, 1e150, 1e300])
def test_sums_over_blocks_are_finite_or_refused(unit):
    """Without a frame they are in the units of x; in that of the data every unit is the same."""
    if unit > 1e200:
        with pytest.raises(ValueError, match=r"the energies of x under .* give frame="):
            cv.block_expectations(unit * X, unit * X[:2], cv.ELBO())
    else:
        beta = np.clip(unit, 1e-150, 1e150) ** 2
        assert np.isfinite(cv.block_expectations(unit * X, unit * X[:2], cv.ELBO(beta)).sums).all()


def test_equal_points_have_no_radius_at_any_unit():
    for value in (0.0, 1e-300, 1e300):
        assert cv.solve(np.full((3, 2), value), tiling=TWO).distortion == 0
        assert cv.first_critical_beta(np.full((3, 2), value)) == 0
