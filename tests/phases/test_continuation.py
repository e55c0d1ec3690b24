"""The branch between its transitions: exact where it is known, and smooth wherever one looks."""

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import qmc

import constrained_vae as cv
from constrained_vae.latent.sites import Sites
from constrained_vae.phases.continuation import Continuation, Split, with_spare_tiles
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers.loop import Options
from constrained_vae.testing import curie_weiss

TWO = cv.Tiling.uniform(2)


def continuation(x, tiling, free=False, **options):
    return Continuation(Problem.make(x, cv.ELBO(), None, "auto"), tiling, Options(free), **options)


@pytest.mark.parametrize("masses", ["fixed", "free"])
@pytest.mark.parametrize("near", [1e-2, 1e-3, 5e-4, 1e-4])
def test_curie_weiss_up_to_the_transition(masses, near, backend):
    """Inside the kick too, where the branch is reached from below."""
    problem, exact = curie_weiss(1.7, 1 - near)
    options = {"tiling": TWO, "masses": masses, "backend": backend, "on_failure": "return"}
    s = cv.sweep(problem.x, betas=[problem.beta, 4.0], **options).at(problem.beta)
    # With free masses I - J is as small as m^4 there, about 1e-7 at the nearest: the estimate says what that costs.
    error = 1e-8 if masses == "fixed" else max(1e-8, 3 * s.error_estimate)
    assert sorted(s.decoder.ravel()) == pytest.approx(list(exact.psi), rel=1e-8, abs=error)
    assert s.distortion == pytest.approx(exact.distortion, rel=1e-8)
    assert s.rate == pytest.approx(exact.rate, abs=1e-8)
    above = curie_weiss(1.7, 1 + near)[0]
    assert len(cv.sweep(above.x, betas=[above.beta], tiling=TWO, masses=masses)[0].distinct) == 1


def test_states_held_together_do_not_split():
    path = continuation([[-1.0], [1.0]], TWO)
    state = path.collapsed(1.1)
    held = path.step(state, float(np.exp(-0.5)))
    assert len(held.sites) == 1
    assert held.growth == pytest.approx(0.5)  # its eigenvalue is beta_c / beta
    split, end = path.cool(state, float(np.exp(-0.5)))
    assert isinstance(split, Split)
    assert split.at.log_beta == pytest.approx(0, abs=path.accuracy)
    assert len(split.after.sites) == len(end.sites) == 2
    assert end.growth < 0


def test_tiles_are_lent_to_the_site_that_splits():
    """Free masses: all that a tile says is how many there are."""
    sites = Sites(np.arange(3.0)[:, None], np.array([0, 1, 1, 1, 1, 2]), np.array([0.3, 0.1, 0.1, 0.1, 0.1, 0.3]))
    provided = with_spare_tiles(sites, 0)
    np.testing.assert_array_equal(provided.counts, [4, 1, 1])
    np.testing.assert_allclose(provided.masses, sites.masses)
    np.testing.assert_array_equal(with_spare_tiles(provided, 2).counts, [1, 1, 4])


@pytest.mark.slow
@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_axes_of_a_gaussian_open_one_by_one(masses):
    """Reverse water-filling: nothing spreads along the axis of variance l until theta = l (section 5).

    The set is symmetric under every change of sign, so that it is not skew; its tails are those of 512 points.
    """
    z = np.abs(ndtri(qmc.Sobol(3, seed=0).random(512)))
    signs = np.stack(np.meshgrid([1, -1], [1, -1], [1, -1]), axis=-1).reshape(8, 1, 3)
    x = (signs * z).reshape(-1, 3)
    x *= np.sqrt(np.array([4, 2, 0.5]) / np.square(x).mean(axis=0))
    betas = [0.44, 0.5 * 1.1, 1.9, 2 * 1.03, 2.5]
    branch = cv.sweep(x, betas=betas, n_tiles=24, masses=masses, on_failure="return")
    spread = {s.beta: np.sqrt(s.distinct.marginal @ np.square(s.distinct.decoder)) for s in branch}
    assert spread[2.5][0] > 1
    assert (spread[2 * 1.03][1:] < 1e-6).all()
    assert spread[1.9][1] > 0.1
    assert spread[0.5 * 1.1][2] < 1e-6
    if masses == "fixed":  # with free masses every tile is a reconstruction of its own by then, and none can split
        assert spread[0.44][2] > 0.05


def test_predicted_masses_do_not_overflow():
    """Far below a transition light masses grow by factors that exp cannot represent: warnings are errors here."""
    x = np.repeat(np.random.default_rng(0).standard_normal((6, 2)), 4, axis=0)
    betas, six = 1e-4 * np.geomspace(1, 3, 4), cv.Tiling.uniform(6)
    found = cv.sweep(x, betas=betas, masses="free", tiling=six, predict=True, on_failure="return")
    for s in found:
        assert s.tiling.masses.sum() == pytest.approx(1, rel=1e-12)
        assert s.free_energy <= np.log(6) + 1e-9  # each point its own site
