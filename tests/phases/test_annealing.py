"""The cooling branch with splits located to a resolution: where they are exactly, and what finding them costs."""

import functools
import itertools

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.phases.annealing import Annealing
from constrained_vae.phases.continuation import Continuation
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers.options import Options

FOUR, EIGHT = cv.datasets.four_clusters().x, cv.Tiling.uniform(8)


@functools.cache
def exact(free):
    """The exact transitions of the four clusters, as `transitions` finds them."""
    masses = "free" if free else "fixed"
    return [t.beta for t in cv.transitions(FOUR, tiling=EIGHT, masses=masses, beta_range=(0.25, 12))]


def cooled(x, beta, resolution, tiling=EIGHT, free=False):
    """The last state, and all states on the way, of cooling from above the first transition."""
    branch, seen = Continuation(Problem.make(x, cv.ELBO(), None, "auto"), tiling, Options(free)), []
    annealing = Annealing(branch, resolution, seen.append)
    return annealing.cool(branch.collapsed(1.01 * cv.first_critical_beta(x)), beta), seen


def splits(seen):
    """The temperatures at which tiles are split: the state there is left for another one at the same temperature."""
    return [after.beta for before, after in itertools.pairwise(seen) if after.beta == before.beta]


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("resolution", [1e-2, 1e-3, 1e-4, 1e-6])
def test_splits_are_where_they_are_exactly(resolution, free):
    """A split is carried out one resolution below its transition, to half a resolution, after few solutions."""
    end, seen = cooled(FOUR, 0.25, resolution, free=free)
    assert end.solution.converged
    assert end.solution.error_estimate <= 1e-10 * end.solution.frame.scale
    assert len(end.sites) == len(exact(free)) + 1 == 4
    found = splits(seen)
    for beta in exact(free):  # the error of the secants is far below the other half of a resolution
        assert np.abs(np.log(beta / np.array(found)) - resolution).min() <= 0.6 * resolution
    assert len(seen) <= 8 * len(found)  # with Brent's method a split took a dozen


def pairs(first, second):
    """Two far pairs of points, of which one splits at first^2 and the other at second^2."""
    return np.array([[-100.0, first], [-100.0, -first], [100.0, second], [100.0, -second]])


@pytest.mark.parametrize(("resolution", "steps"), [(1e-3, [2, 4]), (1e-5, [2, 3, 4])])
def test_splits_within_the_resolution_are_taken_together(resolution, steps):
    # The critical temperatures differ by 2e-4 of themselves. Four tiles: two for each pair, which halves exactly.
    end, seen = cooled(pairs(1.0, 1.0001), 0.5, resolution, cv.Tiling.uniform(4))
    assert sorted({len(state.sites) for state in seen if state.beta < 10}) == steps
    assert len(end.sites) == 4


def test_a_temperature_within_the_resolution_of_a_split():
    """It is reached from below: tanh(m / beta) = m has the solution m = 0.0547 at beta = 0.999 (section 5)."""
    branch = cv.sweep([[-1.0], [1.0]], betas=[1.1, 0.999], n_tiles=2, resolution=1e-2)
    m = np.abs(branch[-1].decoder).max()
    assert np.tanh(m / 0.999) == pytest.approx(m, rel=1e-8)
    assert m > 0.05


@pytest.mark.parametrize("resolution", [0, -1e-3, 0.2, np.nan, "fine", None])
def test_a_resolution_is_positive_and_small(resolution):
    with pytest.raises(ValueError, match=r"resolution must be positive and at most 0\.1, got"):
        cv.sweep([[-1.0], [1.0]], betas=[1.0], n_tiles=2, resolution=resolution)


def test_progress_says_how_far_a_sweep_is(capsys):
    cv.sweep([[-1.0], [1.0]], betas=[2.0, 0.5], n_tiles=2, progress=True)
    said = capsys.readouterr().err
    assert "sweep down" in said
    assert "beta=0.5, 2 reconstructions" in said
