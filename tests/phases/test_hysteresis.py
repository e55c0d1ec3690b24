"""Where split branches end on heating and where free energies cross: closed forms, and a naive follower of branches."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from sklearn.datasets import load_iris

import constrained_vae as cv
from constrained_vae.phases import hysteresis
from constrained_vae.phases.continuation import Continuation
from constrained_vae.testing import naive_branch
from tests.helpers.marks import slow


def end_of_two_points(p):
    """Where the smaller part loses its mass: sup c = 1 (T16) for points of weights p and 1 - p at distance 2."""
    return 2 * (1 - 2 * p) / np.log((1 - p) / p)


@pytest.mark.parametrize("p", [0.45, 0.3, slow(0.1), slow(0.01), slow(1e-3)])
@pytest.mark.parametrize("order", [1, -1])
def test_two_points_of_unequal_weights_and_free_masses(p, order):
    """Either order of the points and either of them the lighter one; p is below 1/2."""
    first = 4 * p * (1 - p)
    for weights in ([p, 1 - p], [1 - p, p]):
        (t,) = cv.transitions(
            [[-order], [order]],
            None,
            (first / 2, 2 * first),
            weights=weights,
            masses="free",
            n_tiles=4,
        )
        assert t.beta == pytest.approx(first, rel=1e-9)
        assert t.kind == t.predicted == "first-order"
        assert t.heating_end == pytest.approx(end_of_two_points(p), rel=3e-6)
        assert t.crossing == pytest.approx(end_of_two_points(p), rel=3e-6)  # there the new part has no mass


@pytest.mark.slow
@pytest.mark.parametrize("p", [1e-3, 1e-4])
def test_under_a_squared_error_heating_ends_however_far_it_goes(p):
    """A light point keeps its reconstruction up to 70 and 540 times the temperature at which it gets it."""
    (t,) = cv.transitions([[0.0], [1.0]], weights=[1 - p, p], masses="free", n_tiles=4, limit=1)
    assert t.heating_end == pytest.approx(end_of_two_points(p) / 4, rel=3e-6)


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("scale", [30.0, 3000.0])
@pytest.mark.filterwarnings("ignore::constrained_vae.NotConvergedWarning")  # the radius is far above the split
def test_two_far_pairs_split_as_each_alone_would(scale, shift):
    x = np.array([[scale + 1], [scale - 1], [-scale + 0.9], [-scale - 0.9]]) + shift
    found = cv.transitions(x, beta_range=(0.3, 2), n_tiles=8)
    assert [t.kind for t in found] == ["continuous", "continuous"]
    assert [t.beta for t in found] == pytest.approx([1, 0.81], rel=1e-6)
    assert [t.heating_end for t in found] == [t.beta for t in found]


@pytest.mark.parametrize("excess", [0.002, slow(0.01), slow(0.05)])
def test_a_small_skewness_makes_a_small_hysteresis(excess):
    """Two points of weights 1/2 + excess and 1/2 - excess on 64 tiles: the branch outlives the transition (T13)."""
    weights = [0.5 + excess, 0.5 - excess]
    (t,) = cv.transitions([[-1.0], [1.0]], None, (0.5, 2), weights=weights, n_tiles=64, limit=1)
    assert t.kind == t.predicted == "first-order"
    # With shares p and 1 - p of the tiles the expansion ends at 3 s^2 (1 - 2 p)^2 / (8 B), most for one tile: p = 1/64.
    skewness = 2 * excess / np.sqrt(0.25 - excess**2)
    p = np.arange(1, 32) / 64
    width = 3 * skewness**2 * (1 - 2 * p) ** 2 / (8 * (2 - 6 * p * (1 - p)))
    assert 0 < t.heating_end / t.beta - 1 <= 1.05 * width.max()
    assert t.beta < t.crossing <= t.heating_end


def heated(t, tiling, n=40, **options):
    """The naive follower from below a transition to a little above the end of its hysteresis; and its betas."""
    width = t.heating_end / t.beta - 1
    below = np.geomspace(t.beta * (1 - 1e-3), t.heating_end * (1 - 1e-3 * width), n)
    betas = np.append(below, t.heating_end * (1 + 0.02 * width))
    return naive_branch(t.before.x, betas, t.after.decoder, t.after.tiling.masses, tol=1e-10, **options)


DATA = {
    "exponential": np.random.default_rng(0).exponential(size=(30, 1)),
    "normal": np.random.default_rng(1).normal(size=(40, 1)),
    "student": np.random.default_rng(2).standard_t(3, size=(40, 2)),
}


@pytest.mark.parametrize("name", ["exponential", slow("normal"), slow("student")])
def test_heating_ends_and_free_energies_cross_where_plain_maps_in_small_steps_say(name):
    x, tiling = DATA[name], cv.Tiling.uniform(6)
    for t in cv.transitions(x, tiling=tiling, limit=2):
        if not np.isfinite(t.heating_end):
            continue
        branch = heated(t, tiling)
        assert (branch.n_distinct()[:-1] > t.n_before).all()
        assert branch.n_distinct()[-1] == t.n_before
        above = slice(np.searchsorted(branch.betas, t.beta), -1)  # below it the unsplit solution is unstable
        betas = branch.betas[above]
        whole = naive_branch(x, betas[::-1], t.before.decoder, tiling.masses, tol=1e-10)
        excess = branch.free_energy[above] - whole.free_energy[::-1]
        apart = np.abs(betas / t.crossing - 1) > 1e-4
        np.testing.assert_array_equal(np.sign(excess[apart]), np.sign(betas - t.crossing)[apart])


@pytest.mark.slow
def test_tiles_change_hands_on_heating():
    """Iris on 64 tiles: 56 and 8 tiles become 60 and 4, 62 and 2, 63 and 1; tied, they stay only up to +0.88 %."""
    x, tiling = load_iris().data, cv.Tiling.uniform(64)
    (t,) = cv.transitions(x, tiling=tiling, limit=1)
    assert t.heating_end > 1.0115 * t.beta
    # How many tiles an exchange leaves depends on the steps. No sweep outlives the branch, some arrive at its end.
    lasts = []
    for step in (1e-4, 3e-5):
        betas = np.exp(np.arange(np.log(t.beta * (1 - 5e-5)), np.log(1.0125 * t.beta), step))
        up = cv.sweep(x, betas=betas, direction="up", start=t.after, tiling=tiling)
        lasts.append(betas[up.n_distinct > 1].max())
    assert max(lasts) <= t.heating_end * (1 + 3e-5)
    assert min(lasts) > 1.0115 * t.beta


class _Known:
    """A state with a growth and with reconstructions, as the steps of heating read it."""

    def __init__(self, log_beta, growth, *decoder):
        self.log_beta, self.beta, self.growth = log_beta, float(np.exp(log_beta)), growth
        self.sites = SimpleNamespace(decoder=np.array([decoder]))


@pytest.mark.parametrize("end", [0.5, 1e-3, 1e-6])
def test_a_fold_is_predicted_from_three_states(end):
    states = [_Known(-d, -np.inf, 3 - np.sqrt(d), 1 + 2 * np.sqrt(d)) for d in (3 * end, 2 * end, end)]
    assert hysteresis._to_fold(states) == pytest.approx(end, rel=1e-6)
    assert hysteresis._to_fold(states[1:]) == np.inf
    straight = [_Known(place, -np.inf, place, 0.0) for place in (0.0, 0.1, 0.3)]
    assert hysteresis._to_fold(straight) == np.inf
    # The step ends short of the fold, unless a failed step says that the branch ends before it.
    assert hysteresis._cautious(states, 1.0, np.inf) == pytest.approx(0.9 * end, rel=1e-5)
    assert hysteresis._cautious(states, 1.0, (1 + end / 2) * states[-1].beta) == pytest.approx(end / 4)


def test_the_place_of_an_instability_is_predicted_and_passed_in_a_step_in_which_tiles_may_change_hands():
    def states(*places):
        return [_Known(place, -2 * (1e-2 - place) + (1e-2 - place) ** 2, 0.0, place) for place in places]

    assert hysteresis._to_instability(states(0.0)) == np.inf
    assert hysteresis._to_instability(states(0.0, 2e-3)) == pytest.approx(8e-3, rel=1e-2)
    assert hysteresis._to_instability(states(0.0, 2e-3, 5e-3)) == pytest.approx(5e-3, rel=1e-3)
    assert hysteresis._to_instability(states(5e-3, 2e-3)) == np.inf  # it falls
    assert hysteresis._cautious(states(0.0, 2e-3, 5e-3), 1.0, np.inf) == pytest.approx(0.9 * 5e-3, rel=1e-3)
    near = states(0.0, 2e-3, 1e-2 - 3e-6)
    assert hysteresis._cautious(near, 1.0, np.inf) == hysteresis._EXCHANGE_STEP
    assert hysteresis._cautious(near, 1e-6, np.inf) == 1e-6


def test_heating_takes_few_solutions():
    """A third of those of steps that grow and shrink without a prediction."""
    x = np.random.default_rng(0).exponential(size=(30, 1))
    solutions = []
    solve = Continuation.solve

    def counted(self, beta, *args, **kwargs):
        solutions.append(beta)
        return solve(self, beta, *args, **kwargs)

    with mock.patch.object(Continuation, "solve", counted):
        (t,) = cv.transitions(x, n_tiles=64, limit=1)
    above = [beta for beta in solutions if beta > t.beta * (1 + 1e-7)]
    assert t.kind == "first-order"
    assert len(above) <= 120
