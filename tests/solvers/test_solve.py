"""solve() and sweep(): how they end, what they count, what they keep, and that they are reproducible."""

import itertools
import pickle
import warnings

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.backends import get_backend
from constrained_vae.solvers.acceleration import ACCELERATORS
from constrained_vae.testing import EPS, curie_weiss, naive_bernoulli, naive_expectations

PAIR = np.array([[-1.0], [1.0]])
on_every_accelerator = pytest.mark.parametrize("accelerate", ACCELERATORS)
either_masses = pytest.mark.parametrize("masses", ["fixed", "free"])


@pytest.fixture
def cloud(rng):
    """Forty points in 3-D around an offset, read-only."""
    x = rng.normal(size=(40, 3)) * [2, 1, 0.5] + [1, -2, 3]
    x.flags.writeable = False
    return x


def pair(beta, backend="auto", tiles=2, start=PAIR, **options):
    return cv.solve(PAIR, beta=beta, n_tiles=tiles, start=start, backend=backend, **options)


# --- how an iteration ends --------------------------------------------------------------------------------------------


@on_every_accelerator
def test_converged(backend, accelerate):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s = pair(0.5, backend, accelerate=accelerate, on_failure="raise")
    assert s.status is cv.Status.CONVERGED
    assert s.converged
    assert s.error_estimate <= 1e-10
    assert s.residual <= s.error_estimate


@on_every_accelerator
@pytest.mark.parametrize("limit", [{"max_maps": 1}, {"max_maps": 5}, {"time_limit": 0}])
def test_budget_used(backend, accelerate, limit):
    s = pair(0.9, backend, start=[[-0.1], [0.2]], accelerate=accelerate, on_failure="return", **limit)
    assert s.status is cv.Status.BUDGET_USED
    assert not s.converged
    assert s.n_maps == limit.get("max_maps", 1)  # the first map is always done: a result needs one
    naive = naive_expectations(PAIR, [0.5, 0.5], s.decoder, [0.5, 0.5], 0.9)  # what there is belongs together
    assert s.free_energy == pytest.approx(naive.free_energy, rel=1e-13)
    assert s.marginal == pytest.approx(naive.mass, rel=1e-13)


def test_what_happens_without_convergence():
    options = {"start": [[-0.1], [0.2]], "max_maps": 3}
    with pytest.warns(cv.NotConvergedWarning, match=r"beta=0\.9: stopped before convergence: raise max_maps"):
        s = pair(0.9, **options)
    with pytest.raises(cv.NotConvergedError, match="max_maps") as caught:
        pair(0.9, on_failure="raise", **options)
    np.testing.assert_array_equal(caught.value.solution.decoder, s.decoder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pair(0.9, on_failure="return", **options).status is cv.Status.BUDGET_USED
    with pytest.warns(cv.NotConvergedWarning) as record:
        cv.sweep(PAIR, betas=[0.8, 0.9], start=[[-0.1], [0.2]], n_tiles=2, max_maps=3)
    assert len(record) == 2
    with pytest.raises(cv.NotConvergedError):
        cv.sweep(PAIR, betas=[0.8], n_tiles=2, max_maps=3, on_failure="raise")


@pytest.mark.parametrize("max_maps", range(3, 12))
@pytest.mark.parametrize("accelerate", ["plain", "lbfgs"])
def test_the_error_of_a_saddle_is_not_that_of_the_point_after_the_kick(max_maps, accelerate):
    """Cut short on the way from the mean, known exactly, to the branch, far away.

    The error estimate is honest to a factor 4 once the iteration is under way; the first steps may only not claim
    convergence.
    """
    problem, exact = curie_weiss(1.0, 0.5)
    s = pair(problem.beta, start=[[0.0], [0.0]], max_maps=max_maps, accelerate=accelerate, on_failure="return")
    error = float(np.sqrt(np.mean((np.sort(s.decoder[:, 0]) - exact.psi) ** 2)))
    if s.status is cv.Status.BUDGET_USED:
        assert s.error_estimate > 1e-3 * error


@on_every_accelerator
def test_stopped_by_the_callback(backend, accelerate):
    seen = []
    s = pair(
        0.9, backend, accelerate=accelerate, callback=lambda i: seen.append(i) or len(seen) == 3, on_failure="return"
    )
    assert s.status is cv.Status.STOPPED
    assert not s.converged
    assert len(seen) == 3
    assert s.n_maps == seen[-1].n_maps
    assert s.free_energy == seen[-1].free_energy
    assert s.residual == seen[-1].residual
    np.testing.assert_array_equal(s.decoder, seen[-1].decoder)
    with pytest.warns(cv.NotConvergedWarning, match="callback"):
        pair(0.9, backend, accelerate=accelerate, callback=lambda i: True)


@on_every_accelerator
@either_masses
def test_a_saddle_is_left(backend, accelerate, masses):
    """From exactly the mean, a fixed point at any beta."""
    problem, exact = curie_weiss(1.0, 0.6)
    s = pair(problem.beta, backend, tiles=4, start=np.zeros((4, 1)), accelerate=accelerate, masses=masses)
    assert s.status is cv.Status.SADDLE_LEFT
    assert s.converged
    assert np.sort(s.decoder[:, 0]) == pytest.approx(np.repeat(exact.psi, 2), rel=1e-9)
    above = pair(1.2, backend, tiles=4, start=np.zeros((4, 1)), accelerate=accelerate, masses=masses)
    assert above.status is cv.Status.CONVERGED
    assert above.decoder == pytest.approx(0, abs=1e-15)
    assert above.split_condition == pytest.approx(1 / 1.2, rel=1e-12)


@on_every_accelerator
def test_a_saddle_of_single_tiles_is_left(backend, accelerate):
    """A rectangle split along its short side: no site can split, yet there is a way down, along the long one."""
    x = np.array([(s * 2.0, t * 1.0) for s in (-1, 1) for t in (-1, 1)])
    problem, exact = curie_weiss(1.0, 0.9)  # along the short side the fixed point is that of two points
    saddle = np.column_stack([np.zeros(2), exact.psi])
    tiling = cv.Tiling.uniform(2)
    s = cv.solve(x, beta=problem.beta, tiling=tiling, start=saddle, accelerate=accelerate, backend=backend)
    assert s.status is cv.Status.SADDLE_LEFT
    _, long = curie_weiss(2.0, 0.9 / 4)
    assert np.sort(s.decoder[:, 0]) == pytest.approx(long.psi, rel=1e-9)
    assert s.decoder[:, 1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("masses", ["fixed", "free"])
@pytest.mark.parametrize("before", ["fixed", "free"])
def test_results_are_those_of_the_tiling_they_name(cloud, before, masses):
    """A start lends its masses only where masses are free."""
    options = {"beta": 0.5, "tiling": cv.Tiling.uniform(8)}
    s = cv.solve(cloud, masses=masses, start=cv.solve(cloud, masses=before, **options), **options)
    assert s.weights @ s.encoder == pytest.approx(s.marginal, abs=1e-12)
    if masses == "fixed":
        np.testing.assert_array_equal(s.tiling.masses, 1 / 8)


def test_ctrl_c_goes_through_where_failures_are_raised():
    def interrupt(iterate):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pair(0.5, callback=interrupt, on_failure="raise")


def test_an_error_can_be_pickled():
    with pytest.raises(cv.NotConvergedError) as caught:
        pair(0.5, max_maps=2, on_failure="raise")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    np.testing.assert_array_equal(copy.solution.decoder, caught.value.solution.decoder)


def test_a_single_tile_stays_on_its_saddle(backend):
    """Nothing to split: the answer of one tile is the mean at any beta; the eigenvalue says that it would split."""
    s = cv.solve(PAIR, beta=0.5, n_tiles=1, backend=backend)
    assert s.status is cv.Status.CONVERGED
    assert s.decoder == pytest.approx(0, abs=1e-15)
    assert s.split_condition == pytest.approx(2, rel=1e-12)


def test_dead_tiles(backend):
    """A far reconstruction, or a tile of prior mass zero, holds no posterior mass and keeps its place."""
    for masses, far in (([1 / 3, 1 / 3, 1 / 3], 700.0), ([0.5, 0.5, 0.0], 7.0)):
        s = cv.solve(PAIR, beta=0.1, tiling=cv.Tiling(masses), start=[[-1.0], [1.0], [far]], backend=backend)
        assert s.status is cv.Status.DEAD_TILES
        assert s.converged
        assert s.marginal[2] == 0
        assert s.decoder[2, 0] == far
        assert s.decoder[:2, 0] == pytest.approx(curie_weiss(1.0, 0.1)[1].psi, rel=1e-9)
        assert s.marginal_kl == pytest.approx(-np.log(1 - masses[2]), rel=1e-9)


def test_free_masses_put_dead_tiles_to_use(backend):
    s = cv.solve(PAIR, beta=0.1, masses="free", n_tiles=3, start=[[-1.0], [1.0], [700.0]], backend=backend)
    assert s.status is cv.Status.CONVERGED
    assert np.abs(s.decoder).max() < 1.1
    assert s.tiling.masses.sum() == pytest.approx(1, rel=1e-14)
    assert s.marginal_kl == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("accelerate", ["squarem", "anderson", "lbfgs"])
def test_critical(backend, accelerate):
    """A millionth below beta_c rounding, some 1e-15, is magnified by 1 / (1 - contraction factor) = 1 / 2e-6."""
    problem, exact = curie_weiss(1.0, 1 - 1e-6)
    options = {"accelerate": accelerate, "tol": 1e-13}
    s = pair(problem.beta, backend, on_failure="return", **options)
    assert s.status is cv.Status.CRITICAL
    assert not s.converged
    error = float(np.sqrt(np.mean((np.sort(s.decoder[:, 0]) - exact.psi) ** 2)))
    assert 1e-13 < s.error_estimate < 1e-8
    assert error < 4 * s.error_estimate
    with pytest.warns(cv.NotConvergedWarning, match="too close to a transition"):
        pair(problem.beta, backend, **options)


@pytest.mark.parametrize("accelerate", ["squarem", "anderson", "lbfgs"])
@pytest.mark.parametrize("tol", [1e-10, 1e-13])
def test_at_the_transition_itself(backend, accelerate, tol):
    """F is flat as psi^4 there: below 1e-4 it says nothing more. What is called converged is right all the same."""
    s = pair(1.0, backend, accelerate=accelerate, tol=tol, max_maps=2000, on_failure="return")
    assert np.abs(s.decoder).max() < 1e-3
    if s.converged:
        assert np.abs(s.decoder).max() <= tol
    else:
        assert s.error_estimate > tol


def test_a_saddle_too_shallow_to_leave_is_critical(backend):
    """Past the transition by 1e-14: the branch is 1.7e-7 away, the gain in F 1e-28."""
    s = pair(1 - 1e-14, backend, start=[[0.0], [0.0]], on_failure="return")
    assert s.status is cv.Status.CRITICAL
    assert s.error_estimate > 1e-10  # so says the status


@pytest.mark.parametrize("accelerate", ["squarem", "anderson", "lbfgs"])
@pytest.mark.parametrize("distance", [1e-2, 1e-6])
def test_the_branch_is_reached_from_the_saddle_however_near_the_transition(backend, accelerate, distance):
    problem, exact = curie_weiss(1.0, 1 - distance)
    s = pair(problem.beta, backend, start=[[0.0], [0.0]], accelerate=accelerate, on_failure="return")
    assert np.sort(s.decoder[:, 0]) == pytest.approx(exact.psi, abs=1e-9 + 1e-14 / distance)


@pytest.mark.parametrize("at", [1, 2, 7])
def test_interrupted(backend, at):
    """Ctrl-C keeps the last point."""
    seen = []

    def interrupt(iterate):
        seen.append(iterate)
        if len(seen) == at:
            raise KeyboardInterrupt

    s = pair(0.95, backend, callback=interrupt, on_failure="return")
    assert s.status is cv.Status.INTERRUPTED
    assert s.n_maps == seen[-1].n_maps
    np.testing.assert_array_equal(s.decoder, seen[-1].decoder)


class Interrupted:
    """A backend that is interrupted in one of its passes."""

    def __init__(self, backend, at=None):
        self.expectations_of, self.at, self.calls = get_backend(backend).expectations, at, 0

    def expectations(self, *arguments, **keywords):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return self.expectations_of(*arguments, **keywords)


def test_an_interrupted_sweep_keeps_its_branch(backend, monkeypatch):
    """Whenever the interrupt comes: only what was solved in full is there."""

    def sweep(at=None):
        passes = Interrupted(backend, at)
        with monkeypatch.context() as patch:
            patch.setattr(get_backend(backend), "expectations", passes.expectations)
            branch = cv.sweep(PAIR, betas=[0.5, 0.8, 1.2], n_tiles=4, backend=backend, on_failure="return")
        return branch, passes.calls

    whole, calls = sweep()
    assert len(whole) == 3
    lengths = []
    for at in range(whole[0].n_maps + 1, calls + 1):
        branch, _ = sweep(at)
        lengths.append(len(branch))
        for one, two in zip(branch, whole, strict=False):
            np.testing.assert_array_equal(one.decoder, two.decoder)
    assert lengths == sorted(lengths)
    assert set(lengths) == {1, 2}


def test_an_interrupted_sweep_both_ways(backend, monkeypatch):
    passes = Interrupted(backend, at=8)
    monkeypatch.setattr(get_backend(backend), "expectations", passes.expectations)
    down, up = cv.sweep(PAIR, betas=[0.5, 0.8, 1.2], direction="both", n_tiles=4, backend=backend, on_failure="return")
    assert (len(down), len(up)) == (1, 0)


def test_a_sweep_stopped_by_its_callback(backend):
    with pytest.warns(cv.NotConvergedWarning, match="stopped by the callback"):
        branch = cv.sweep(PAIR, betas=[0.5, 0.8, 1.2], callback=lambda b: len(b) == 2, n_tiles=4, backend=backend)
    assert branch.betas.tolist() == [1.2, 0.8]


# --- what is counted and kept -----------------------------------------------------------------------------------------


@on_every_accelerator
@either_masses
def test_maps_are_counted(backend, accelerate, masses, cloud, monkeypatch):
    """n_maps is the number of passes over the data, whatever they are for: it is what accelerators are compared by."""
    passes, module = Interrupted(backend), get_backend(backend)
    monkeypatch.setattr(module, "expectations", passes.expectations)
    if hasattr(module, "steps"):
        steps = module.steps

        def counted(*arguments):
            found = steps(*arguments)
            passes.calls += found.maps if found else 0
            return found

        monkeypatch.setattr(module, "steps", counted)
    s = cv.solve(
        cloud,
        beta=1.0,
        n_tiles=5,
        accelerate=accelerate,
        masses=masses,
        backend=backend,
        max_maps=300,
        on_failure="return",
    )
    assert s.n_maps == passes.calls > 10


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_recorded_iterates_are_those_of_the_plain_map(backend, likelihood, rng):
    x = rng.uniform(0.1, 0.9, size=(15, 2))
    weights, masses, start = rng.dirichlet(np.ones(15)), np.array([0.5, 0.3, 0.2]), rng.uniform(0.2, 0.8, size=(3, 2))
    beta = 0.02 if likelihood == "gaussian" else 0.5
    calls = []
    s = cv.solve(
        x,
        cv.ELBO(beta, likelihood=likelihood),
        tiling=cv.Tiling(masses),
        weights=weights,
        start=start,
        accelerate="plain",
        max_maps=12,
        record=True,
        callback=calls.append,
        backend=backend,
        on_failure="return",
    )
    assert s.trajectory.shape == (12, 3, 2)
    naive_map = naive_bernoulli if likelihood == "bernoulli" else naive_expectations
    psi = start
    for iterate, call in zip(s.trajectory, calls, strict=True):
        # A map at these beta magnifies an error by less than ten; most of that is contracted away again.
        np.testing.assert_allclose(iterate, psi, rtol=0, atol=1e-11)
        np.testing.assert_array_equal(call.decoder, iterate)
        naive = naive_map(x, weights, psi, masses, beta)
        assert call.free_energy == pytest.approx(naive.free_energy, abs=1e-10)
        image = naive.sums / naive.mass[:, None]
        residual = np.sqrt(naive.mass @ np.square(image - psi).sum(axis=1))
        assert call.residual == pytest.approx(residual, rel=1e-6, abs=1e-10)
        psi = image
    assert [call.n_maps for call in calls] == list(range(1, 13))
    np.testing.assert_array_equal(s.trajectory[-1], s.decoder)


@on_every_accelerator
def test_the_trajectory_ends_at_the_solution(accelerate, cloud):
    s = cv.solve(cloud, beta=1.0, n_tiles=6, accelerate=accelerate, record=True)
    np.testing.assert_array_equal(s.trajectory[-1], s.decoder)
    assert len(s.trajectory) <= s.n_maps
    assert cv.solve(cloud, beta=1.0, n_tiles=6).trajectory is None


# --- reproducibility --------------------------------------------------------------------------------------------------


def everything(s):
    return (
        s.decoder,
        s.marginal,
        s.tiling.masses,
        s.encoder,
        s.free_energy,
        s.energy,
        s.distortion,
        s.residual,
        s.error_estimate,
        s.n_maps,
        s.status,
    )


def assert_same_bits(one, two):
    for a, b in zip(everything(one), everything(two), strict=True):
        np.testing.assert_array_equal(a, b)


@on_every_accelerator
@either_masses
def test_same_bits_from_run_to_run(backend, accelerate, masses, cloud):
    def run():
        return cv.solve(
            cloud,
            beta=0.8,
            n_tiles=7,
            accelerate=accelerate,
            masses=masses,
            backend=backend,
            seed=5,
            max_maps=400,
            on_failure="return",
        )

    assert_same_bits(run(), run())


def test_same_bits_of_a_sweep(backend, cloud):
    one, two = (cv.sweep(cloud, betas=[0.5, 1, 5], n_tiles=8, backend=backend) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("start", [None, "data"])
def test_the_seed_decides_random_starts(start, cloud):
    def first(seed):
        return cv.solve(
            cloud,
            beta=1.0,
            n_tiles=6,
            start=start,
            seed=seed,
            max_maps=1,
            record=True,
            on_failure="return",
        ).trajectory[0]

    np.testing.assert_array_equal(first(1), first(1))
    assert np.abs(first(1) - first(2)).max() > 1e-4


@either_masses
def test_backends_agree(backend, masses, cloud):
    """The same minimum to ten times the tolerance, from the same start."""
    one, two = (
        cv.solve(cloud, beta=1.5, n_tiles=5, masses=masses, start=cloud[:5], backend=name)
        for name in (backend, "reference")
    )
    assert one.converged
    radius = float(np.sqrt(cloud.var(axis=0).sum()))
    np.testing.assert_allclose(one.decoder, two.decoder, rtol=0, atol=1e-9 * radius)
    assert one.free_energy == pytest.approx(two.free_energy, rel=1e-13)
    assert one.rate == pytest.approx(two.rate, rel=1e-8)


# --- data at the door -------------------------------------------------------------------------------------------------


def test_starts(cloud):
    tiling = cv.Tiling.uniform(6)

    def first(start):
        return cv.solve(
            cloud, beta=1.0, tiling=tiling, start=start, max_maps=1, record=True, on_failure="return"
        ).trajectory[0]

    mean, radius = cloud.mean(axis=0), float(np.sqrt(cloud.var(axis=0).sum()))
    spread = np.linalg.norm(first(None) - mean, axis=1) / radius
    assert spread.max() < 0.1  # noise of 1e-2 of the radius
    assert spread.min() > 1e-4
    chosen = first("data")
    assert np.abs(chosen[:, None] - cloud).max(axis=2).min(axis=1) == pytest.approx(0, abs=1e-14 * radius)
    given = cloud[3:9] * 1.5
    np.testing.assert_allclose(first(given), given, rtol=1e-14)
    np.testing.assert_allclose(first(given.tolist()), given, rtol=1e-14)
    solution = cv.solve(cloud, beta=1.0, tiling=tiling)
    np.testing.assert_allclose(first(solution), solution.decoder, rtol=1e-14, atol=1e-14)
    for wrong in (given[:5], given[:, :2], "mean", [[np.nan] * 3] * 6):
        with pytest.raises(ValueError, match=r"start|finite"):
            first(wrong)


@either_masses
def test_a_start_from_a_solution_is_there_at_once(backend, masses, cloud):
    """Its masses come along where they are free."""
    options = {"beta": 1.0, "tiling": cv.Tiling.uniform(5), "masses": masses, "backend": backend}
    s = cv.solve(cloud, **options)
    again = cv.solve(cloud, start=s, **options)
    assert again.n_maps < s.n_maps / 2
    assert again.free_energy == pytest.approx(s.free_energy, rel=1e-12)
    np.testing.assert_allclose(again.tiling.masses, s.tiling.masses, atol=1e-8)


def test_points_of_weight_zero_have_no_say(backend, cloud):
    """Not on the solution, nor on the frame, the tolerance or the data chosen for a start."""
    far = np.vstack([cloud, [[1e9, 0, 0]]])
    options = {"beta": 1.0, "tiling": cv.Tiling.uniform(4), "start": "data", "backend": backend}
    weights = np.append(np.ones(40), 0.0)
    one, two = cv.solve(far, weights=weights, **options), cv.solve(cloud, **options)
    np.testing.assert_allclose(one.decoder, two.decoder, rtol=0, atol=1e-8)
    assert one.rate == pytest.approx(two.rate, rel=1e-9)
    assert len(one.encoder) == 41


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_a_memory_map_gives_the_same_to_1e_12(backend, likelihood, tmp_path, rng, monkeypatch):
    """Read in several blocks, in order; the sums over points are grouped otherwise, nothing more."""
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 150)  # rows of 3: 50 at a time
    x = rng.uniform(size=(333, 3))
    path = tmp_path / "x.npy"
    np.save(path, x)
    mapped = np.load(path, mmap_mode="r")
    objective = cv.ELBO(0.02 if likelihood == "gaussian" else 0.3, likelihood=likelihood)
    start = rng.uniform(0.2, 0.8, size=(4, 3))
    options = {"tiling": cv.Tiling.uniform(4), "start": start, "weights": rng.uniform(size=333), "backend": backend}
    one, two = (
        cv.solve(data, objective, accelerate="plain", max_maps=30, on_failure="return", **options)
        for data in (mapped, x)
    )
    np.testing.assert_allclose(one.decoder, two.decoder, rtol=1e-12)
    np.testing.assert_allclose(one.encoder, two.encoder, rtol=0, atol=1e-12)
    for name in ("free_energy", "rate", "distortion"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-12)
    solved = [cv.solve(data, objective, **options) for data in (mapped, x)]
    np.testing.assert_allclose(solved[0].decoder, solved[1].decoder, rtol=0, atol=1e-9)
    sweeps = [cv.sweep(data, objective, betas=[objective.beta], **options)[0] for data in (mapped, x)]
    np.testing.assert_allclose(sweeps[0].decoder, sweeps[1].decoder, rtol=0, atol=1e-9)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_single_precision_is_as_accurate_as_stated(backend, likelihood, rng):
    """Energies to 6e-8 radius^2 / (sigma^2 beta), reconstructions to about 1e-5 of the radius."""
    x = np.concatenate([0.1 * rng.normal(size=(60, 2)) + centre for centre in ([0.3, 0.3], [0.7, 0.4])]).clip(0, 1)
    radius = float(np.sqrt(x.var(axis=0).sum()))
    objective = cv.ELBO(0.01 if likelihood == "gaussian" else 0.1, likelihood=likelihood)
    options = {"tiling": cv.Tiling.uniform(2), "start": [[0.2, 0.2], [0.8, 0.4]], "backend": backend, "tol": 1e-5}
    single = cv.solve(x, objective, dtype=np.float32, **options)
    double = cv.solve(x, objective, **{**options, "tol": 1e-12})
    assert single.converged
    assert single.decoder.dtype == np.float64
    np.testing.assert_allclose(single.decoder, double.decoder, rtol=0, atol=2e-5 * radius)
    # The sum of two terms, s and b + phi.v, of several times the mean energy.
    assert single.free_energy == pytest.approx(double.free_energy, abs=8 * 6e-8 * radius**2 / objective.beta + 1e-5)
    with pytest.raises(ValueError, match="float64 or float32"):
        cv.solve(x, objective, dtype=np.float16, **options)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_inputs_are_left_alone(backend, likelihood, dtype, rng):
    """Read-only inputs are accepted, writable ones not written to."""
    objective = cv.ELBO(0.1, likelihood=likelihood)
    x, weights, start, masses = (
        rng.uniform(size=(20, 2)),
        rng.uniform(size=20),
        rng.uniform(size=(4, 2)),
        np.ones(4) / 4,
    )
    inputs = (x, weights, start, masses)
    copies = [array.copy() for array in inputs]
    for writeable in (True, False):
        for array in inputs:
            array.flags.writeable = writeable
        for masses_kind in ("fixed", "free"):
            options = {"weights": weights, "start": start, "tiling": cv.Tiling(masses), "masses": masses_kind}
            options |= {"dtype": dtype, "backend": backend, "max_maps": 50, "on_failure": "return"}
            s = cv.solve(x, objective, **options)
            cv.sweep(x, objective, betas=[0.2, 0.1], **options)
            s.encode(x), s.reconstruct(x)
        for array, copy in zip(inputs, copies, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_bernoulli_reconstructions_of_exactly_0_and_1(backend):
    """Coordinates settled at 0 or 1 take no part any more; no warning, no NaN (T4)."""
    x = np.array([[0.0], [1.0]])
    for accelerate, tol in itertools.product(ACCELERATORS, (1e-10, 1e-14)):
        s = cv.solve(
            x,
            cv.ELBO(0.05, likelihood="bernoulli"),
            tiling=cv.Tiling([0.7, 0.3]),
            start=[[0.6], [0.3]],
            tol=tol,
            accelerate=accelerate,
            backend=backend,
            max_maps=3000,
        )
        assert s.converged
        assert np.sort(s.decoder[:, 0]) == pytest.approx([0, 1], abs=1e-6)


@pytest.mark.parametrize("x", [[[2.0, 3.0]], [[2.0, 3.0]] * 4])
def test_data_without_any_spread(backend, x):
    for masses in ("fixed", "free"):
        s = cv.solve(x, beta=0.1, n_tiles=3, masses=masses, backend=backend)
        assert s.converged
        np.testing.assert_allclose(s.decoder, np.tile(x[0], (3, 1)), rtol=4 * EPS)
        assert s.rate == pytest.approx(0, abs=1e-14)
        assert s.distortion == pytest.approx(0, abs=1e-28)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accelerate": "newton"}, "accelerate"),
        ({"masses": "loose"}, "masses"),
        ({"on_failure": "ignore"}, "on_failure"),
        ({"tol": 0.0}, "tol"),
        ({"max_maps": 0}, "max_maps"),
        ({"max_maps": 2.5}, "max_maps"),
        ({"time_limit": -1.0}, "time_limit"),
        ({"time_limit": float("nan")}, "time_limit"),
        ({"beta": -1.0}, "beta"),
        ({"backend": "fortran"}, "backend"),
        ({"weights": [1.0, 2.0, 3.0]}, "weights"),
        ({"weights": [1.0, -1.0]}, "weights"),
    ],
)
def test_bad_options_say_so(options, message):
    with pytest.raises(ValueError, match=message):
        cv.solve(PAIR, **options)
    if "beta" not in options:
        with pytest.raises(ValueError, match=message):
            cv.sweep(PAIR, **options)
