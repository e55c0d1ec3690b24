"""sweep(restarts=...): moves of tiles lower F as far as enumeration finds, and nothing of a sweep is lost."""

import itertools

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae import datasets
from constrained_vae.latent.sites import Sites
from constrained_vae.phases import tile_moves
from constrained_vae.phases.continuation import Continuation
from constrained_vae.solvers.options import Options
from constrained_vae.solvers.pose import pose

POINTS, WEIGHTS = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 7.0], [9.0, 6.0]]), np.array([0.55, 0.25, 0.12, 0.08])
FOUR = datasets.four_clusters(n_per_cluster=10).x


def free_energy(x, weights, psi, masses, beta):
    """F of tiles (T5), written out."""
    H = ((x[:, None] - psi) ** 2).sum(axis=2) / (2 * beta)
    return float(-weights @ np.log(np.exp(-H) @ masses))


def test_shares_of_the_tiles_are_those_of_enumeration():
    """Cold points have tiles of their own: F = -sum_i rho_i log(n_i / K), of which enumeration finds the least.

    The energies between the points are at least 36 / (2 beta) = 90 nats, so that the rest is below rounding.
    """
    n_tiles, betas = 10, [60.0, 10.0, 1.0, 0.2]
    counts = [n for n in itertools.product(range(1, n_tiles), repeat=4) if sum(n) == n_tiles]
    best = min(-WEIGHTS @ np.log(np.array(n) / n_tiles) for n in counts)
    plain, found = (cv.sweep(POINTS, betas=betas, n_tiles=n_tiles, weights=WEIGHTS, restarts=n) for n in (0, 4))
    assert plain.free_energy[-1] > best + 0.01  # halves of halves are not the best shares
    assert found.free_energy[-1] == pytest.approx(best, abs=1e-10)
    assert (found.free_energy <= plain.free_energy + 1e-12).all()
    assert found.converged


def test_the_predicted_change_is_that_of_f(backend, rng):
    """The ranking's F of a moved tile is that of the tiles after the move, before any response.

    Rounding: F is a mean of logarithms of sums of K terms, with energies of about 10 nats, so 1e-12 is ample.
    """
    x, weights, masses = rng.standard_normal((20, 2)), rng.random(20), rng.random(6)
    weights, masses = weights / weights.sum(), masses / masses.sum()
    tiling = cv.Tiling(masses)
    posed = pose(
        x, None, sigma=None, n_tiles=None, tiling=tiling, weights=weights, masses="fixed", backend=backend,
        dtype=None, on_failure="warn",
    )  # fmt: skip
    problem = Continuation(posed.problem, tiling, Options(False, "lbfgs", 1e-10, 1000)).problem_at(0.3)
    sites = Sites(rng.standard_normal((3, 2)), np.array([0, 0, 1, 1, 1, 2]), masses)
    places, last = rng.standard_normal((4, 2)), np.array([1, 4, 5])
    v, b = problem.framed.readout(problem.data.to_device(places))
    given = np.arange(3), masses[last], masses[last] / sites.masses
    change = problem.total(tile_moves._changes, sites.decoder, sites.log_masses, v, b, *given)
    frame = problem.data.frame

    def exact(psi):
        return free_energy(x, weights, frame.outward(psi), masses, 0.3)

    for (giver, tile), place in itertools.product(enumerate(last), range(4)):
        psi = sites.decoder[sites.index].copy()
        before = exact(psi)
        psi[tile] = places[place]
        assert float(change[giver, place]) == pytest.approx(exact(psi) - before, abs=1e-12)


@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_no_temperature_ends_higher(masses):
    betas = np.geomspace(12, 0.02, 9)
    plain, found = (cv.sweep(FOUR, betas=betas, n_tiles=12, masses=masses, restarts=n) for n in (0, 3))
    assert found.converged
    assert (found.free_energy <= plain.free_energy + 1e-9).all()
    best = [cv.solve(FOUR, beta=betas[-1], n_tiles=12, masses=masses, start="data", seed=s) for s in range(4)]
    assert found.free_energy[-1] <= min(s.free_energy for s in best) + 1e-9


def test_the_unit_and_the_origin_change_nothing():
    """The search is that of the frame: rounding of the centre, 1e6 eps = 2e-10, decides about F alone."""
    betas = np.geomspace(12, 0.02, 6)
    one = cv.sweep(FOUR, betas=betas, n_tiles=12, restarts=2)
    other = cv.sweep(1000 * FOUR + 1e6, betas=1e6 * betas, n_tiles=12, restarts=2)
    np.testing.assert_allclose(other.free_energy, one.free_energy, atol=1e-8)


def test_the_same_bits_every_time():
    one, other = (cv.sweep(FOUR, betas=[1.0, 0.05], n_tiles=8, restarts=2) for _ in range(2))
    assert all(np.array_equal(a.decoder, b.decoder) for a, b in zip(one, other, strict=True))


def test_heating_and_both_directions_search_too():
    down, up = cv.sweep(FOUR, betas=[3.0, 0.3, 0.05], n_tiles=8, restarts=2, direction="both")
    assert len(down) == len(up) == 3
    assert up.restarts == down.restarts == 2
    assert up.converged
    assert down.converged


@pytest.mark.parametrize("objective", [cv.ELBO(likelihood="bernoulli"), cv.Lagrangian([cv.RE(kappa=0.1)], [1.0])])
def test_other_objectives(objective, rng):
    x = (rng.random((12, 3)) > 0.5).astype(float)
    plain, found = (cv.sweep(x, objective, betas=[1.2, 0.3, 0.1], n_tiles=6, restarts=n) for n in (0, 2))
    assert found.converged
    assert (found.free_energy <= plain.free_energy + 1e-9).all()


def test_restarts_are_saved_and_shown(tmp_path):
    branch = cv.sweep(FOUR, betas=[12.0, 0.05], n_tiles=6, restarts=2)
    branch.save(tmp_path / "branch.npz")
    loaded = cv.Branch.load(tmp_path / "branch.npz")
    assert loaded.restarts == branch[:1].restarts == 2
    assert "restarts=2" in repr(loaded)
    assert "restarts" not in repr(cv.sweep(FOUR, betas=[12.0], n_tiles=6))


def test_ctrl_c_keeps_what_is_done(monkeypatch):
    """A press during the search at the second temperature keeps the solution of the protocol there."""
    calls = itertools.count()

    def pressed(self, state):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return state

    monkeypatch.setattr(tile_moves.TileMoves, "improved", pressed)
    with pytest.warns(cv.NotConvergedWarning, match="interrupted: 2 of 3"):
        branch = cv.sweep(FOUR, betas=[12.0, 1.0, 0.1], n_tiles=6, restarts=2)
    assert len(branch) == branch.restarts == 2
    assert not branch.complete


def test_a_callback_sees_the_search_and_stops_it():
    seen = []
    branch = cv.sweep(FOUR, betas=[12.0, 1.0, 0.1], n_tiles=6, restarts=2, callback=lambda b: seen.append(len(b)) or 0)
    assert seen[:3] == [1, 2, 3]
    assert set(seen[3:]) <= {3}
    with pytest.warns(cv.NotConvergedWarning, match="stopped by the callback"):
        stopped = cv.sweep(FOUR, betas=[12.0, 1.0, 0.1], n_tiles=6, restarts=2, callback=lambda b: len(b) == 2)
    assert len(stopped) == 2
    assert stopped[0].free_energy == branch[0].free_energy


def test_a_limit_ends_the_search_with_solutions():
    """Within an instant only the point after one map at the first temperature is there."""
    with pytest.warns(cv.NotConvergedWarning):
        branch = cv.sweep(FOUR, betas=np.geomspace(12, 0.02, 50), n_tiles=12, restarts=50, time_limit=0.2)
    assert 0 < len(branch) <= 50
    assert all(s.converged for s in branch[:-1])


@pytest.mark.parametrize("restarts", [-1, 1.5, "ten", None, True])
def test_bad_numbers_are_refused_by_name(restarts):
    with pytest.raises(ValueError, match="restarts must be a whole number"):
        cv.sweep(FOUR, betas=[1.0], n_tiles=4, restarts=restarts)
