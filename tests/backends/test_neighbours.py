"""Lists of near tiles: the sums are those over all tiles, with the same bits whatever the lists have been through."""

import copy
import math
import pickle

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

import constrained_vae as cv
from constrained_vae.backends import neighbours
from constrained_vae.backends.neighbours import Neighbours
from constrained_vae.problems.problem import Problem
from tests.helpers.squared_maps import ZERO, SquaredMap

# Compiling the kernels takes ten seconds for each precision.
on_both_precisions = pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)])


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """Lists are used for few rows and tiles, too, and for any share of pairs that count."""
    for name, value in (("_SMALL", 0), ("_FEWEST", 1), ("_DENSE", math.inf), ("_MOST_LIGHT", 1)):
        monkeypatch.setattr(neighbours, name, value)


class Case(SquaredMap):
    def sums(self, kept):
        """Mass, sums and totals with the given lists; where they end in the kernel of all tiles, None."""
        return kept.expectations(self.rho, self.psi.astype(self.phi.dtype), self.log_pi, self.lam)

    def naive(self):
        """The same numbers over all tiles, and the least energy up to the log mass of every row."""
        q, totals, top = self.of_all_tiles()
        weighted = self.rho[:, None] * q
        return weighted.sum(axis=0), weighted.T @ self.phi.astype(float), totals, -top.min()


def make(seed, N=700, K=40, S=6, lam=50.0, dtype=np.float64, dead=0, idle=0, repeated=False, outlier=0.0):
    """Points in clusters with tiles among them; dead tiles, rows without weight, rows that repeat, one row far away."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(K, S))
    phi = centres[rng.integers(K, size=N)] + 0.2 * rng.normal(size=(N, S))
    phi[-1] += outlier
    if repeated:
        phi[: N // 2] = phi[0]
    rho, masses = rng.uniform(0.1, 1, size=N), rng.uniform(0.1, 1, size=K)
    rho[:idle] = 0
    masses[:dead] = 0
    phi = phi.astype(dtype)
    phi.setflags(write=False)
    return Case(phi, rho / rho.sum(), centres, masses / masses.sum(), float(dtype(lam)))


def assert_close(found, case):
    """Agreement up to the rounding of the energies of the pairs that count, and of light tiles down to zero."""
    mass, sums, totals = found
    naive_mass, naive_sums, naive_totals, steepest = case.naive()
    real, (N, S) = case.phi.dtype.type, case.phi.shape
    eps = np.finfo(real).eps
    logs = np.log(case.masses[case.masses > 0]).min()
    delta = (S + 8) * eps * (steepest - ZERO[real] - logs)  # of a logit
    relative = 4 * delta + (N + 100) * eps + (2.0**-44 if real is np.float64 else 2.0**-20)
    radius = 1 + float(np.abs(case.phi).max())
    absolute = math.exp(ZERO[real] + 1)
    np.testing.assert_array_less(np.abs(mass - naive_mass), relative * naive_mass + absolute)
    excess = np.abs(sums - naive_sums) - (relative * naive_mass + absolute)[:, None] * radius
    assert excess.max() <= 0
    # The energies round relative to themselves; E also sums -q log q of what is left out.
    size = abs(naive_totals).max() + steepest * case.rho.max() + math.log(len(mass)) + 1
    assert np.all(np.abs(totals - naive_totals) <= relative * size)


def walk(case, rng, steps, size):
    """The case at a sequence of points: mostly small steps, a few tiles that jump, other temperatures and masses."""
    for _ in range(steps):
        psi = case.psi + size * 10.0 ** rng.uniform(-6, 0) * rng.normal(size=case.psi.shape)
        psi[rng.integers(len(psi), size=2)] += rng.uniform(0, 1) * rng.normal(size=case.psi.shape[1])
        masses = case.masses * np.exp(0.3 * rng.normal(size=len(psi)))
        lam = float(case.phi.dtype.type(case.lam * math.exp(0.3 * rng.normal())))
        case = case._replace(psi=psi, masses=masses / masses.sum(), lam=lam)
        yield case
        yield case  # an iteration may come back to the same point


@on_both_precisions
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    N=st.integers(1, 600),
    K=st.integers(8, 50),
    S=st.integers(5, 12),
    log_lam=st.floats(0, 9),
    size=st.floats(0, 0.5),
    dead=st.integers(0, 5),
    idle=st.integers(0, 100),
    repeated=st.booleans(),
    outlier=st.sampled_from([0.0, 30.0, 1e4]),
)
@example(seed=1, N=600, K=50, S=5, log_lam=5, size=0.01, dead=3, idle=5, repeated=True, outlier=1e4)
def test_sums_are_those_over_all_tiles_and_do_not_depend_on_the_lists(dtype, seed, size, log_lam, idle, N, **sizes):
    case, rng = (
        make(seed, N=N, lam=math.exp(log_lam), dtype=dtype, idle=min(idle, N - 1), **sizes),
        np.random.default_rng(seed),
    )
    kept = Neighbours(case.phi)
    for point in (case, *walk(case, rng, 3, size)):
        found, fresh = point.sums(kept), point.sums(Neighbours(case.phi))
        if found is None:  # lists that lasted for one map only
            kept._waiting = 0
            found = point.sums(kept)
        assert (found is None) == (fresh is None)
        if fresh is None:
            continue
        for one, other in zip(found, fresh, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
        if outlier_allows(point):
            assert_close(found, point)


def outlier_allows(case):
    """Whether rounding leaves something to compare: energies below 1 / (100 eps) nats."""
    return case.lam * float(np.abs(case.phi).max()) ** 2 * case.phi.shape[1] * np.finfo(case.phi.dtype).eps < 1e-2


def used(case, steps=4, size=1e-3, seed=5):
    """Lists that have done some maps, and the last of these."""
    kept = Neighbours(case.phi)
    case.sums(kept)
    for point in walk(case, np.random.default_rng(seed), steps, size):
        point.sums(kept)
    return kept, point


def test_lists_leave_out_nearly_everything():
    case = make(2, N=2000, K=200, S=12, lam=300.0)
    kept, _ = used(case)
    (lists,) = kept._lists
    assert lists.maps > 4, "lists last while tiles move little"
    assert lists.length.min() > 0
    assert lists.length.mean() < 60


@pytest.mark.parametrize("wrong", ["moved", "beyond"])
def test_a_bound_that_is_too_good_is_noticed(monkeypatch, wrong):
    """The tests above can fail: without the movement of the tiles, or with a larger bound, pairs are lost."""
    case = make(3, N=2000, K=200, S=8)
    kept = Neighbours(case.phi)
    case.sums(kept)
    case.sums(kept)
    (lists,) = kept._lists
    psi = case.psi + 0.05 * np.random.default_rng(0).normal(size=case.psi.shape)
    if wrong == "moved":
        psi = psi[::-1].copy()  # tiles change their places
        monkeypatch.setattr(neighbours, "_lengths", lambda x: np.zeros(len(x), np.float32))
    else:
        lists.length[:], lists.beyond[:] = 1, np.inf
    after = case._replace(psi=psi)
    found, right = after.sums(kept), after.sums(Neighbours(case.phi))
    assert np.abs(found[0] - right[0]).max() > 1e-9


def test_a_light_tile_moves_as_it_would_with_all_rows(monkeypatch):
    case = make(4, N=900, K=30, S=6, lam=40.0)
    psi = case.psi.copy()
    far = case.phi[np.square(case.phi).sum(axis=1).argmax()]
    psi[0] = far * (1 + 1.7 / np.linalg.norm(far))  # a mass of about exp(-100)
    case = case._replace(psi=psi)
    mass, sums, _ = case.sums(Neighbours(case.phi))
    naive_mass, naive_sums, *_ = case.naive()
    assert 1e-200 < naive_mass[0] < 1e-20
    np.testing.assert_allclose(sums[0] / mass[0], naive_sums[0] / naive_mass[0], rtol=1e-9)
    monkeypatch.setattr(neighbours, "_LIGHT", 0.0)
    mass, *_ = case.sums(Neighbours(case.phi))
    assert mass[0] == 0, "without a second look it would be dead"


@on_both_precisions
def test_same_bits_on_any_number_of_threads(dtype):
    case = make(6, N=5000, K=64, S=9, lam=200.0, dtype=dtype)
    threads, results = numba.get_num_threads(), []
    try:
        for count in range(1, min(3, numba.config.NUMBA_NUM_THREADS) + 1):
            numba.set_num_threads(count)
            kept, point = used(case)
            results.append(point.sums(kept))
    finally:
        numba.set_num_threads(threads)
    for result in results:
        for one, other in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


def test_it_is_done_where_it_pays(monkeypatch):
    case = make(7, N=4096, K=256, S=6, lam=300.0)
    monkeypatch.undo()
    assert case.sums(Neighbours(case.phi)) is not None
    equal = case._replace(psi=np.zeros_like(case.psi))
    nowhere = case._replace(masses=np.zeros(256))
    few = case._replace(phi=case.phi[:500], rho=case.rho[:500])
    not_finite = case._replace(psi=np.where(case.psi == case.psi[0, 0], np.nan, case.psi))
    far = case._replace(psi=case.psi + 1e3 * (np.arange(256) < 100)[:, None])  # too many light tiles
    for other in (case._replace(lam=0.1), equal, nowhere, few, not_finite, far):
        assert other.sums(Neighbours(other.phi)) is None
    kept = Neighbours(case.phi)
    tried = [far.sums(kept) is None and kept._waiting for _ in range(5)]
    assert tried == [0, 2, 1, 0, 6], "after every failure it waits longer"


def test_copies_and_interrupted_maps_have_no_lists(monkeypatch):
    case = make(8, N=1000, K=32, S=6, lam=100.0)
    kept, point = used(case)
    expected = point.sums(kept)
    for other in (copy.copy(kept), copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        assert not other._lists
        assert all(map(np.array_equal, point.sums(other), expected))

    def interrupted(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    original = neighbours.map_parallel
    monkeypatch.setattr(neighbours, "map_parallel", interrupted)
    with pytest.raises(KeyboardInterrupt):
        point.sums(kept)
    assert not kept._lists
    monkeypatch.setattr(neighbours, "map_parallel", original)
    assert all(map(np.array_equal, point.sums(kept), expected))


def test_memory_is_bounded():
    case = make(9, N=3000, K=400, S=6, lam=1000.0)
    kept, _ = used(case)
    (lists,) = kept._lists
    arrays = [value for value in vars(lists).values() if isinstance(value, np.ndarray) and value is not case.phi]
    assert sum(array.nbytes for array in arrays) < 3000 * (60 + 8 + 6 * 100) + 16 * 400 * 6
    assert all(array.size < 3000 * 400 / 4 for array in arrays)


def data(seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(128, 7))
    return centres[rng.integers(128, size=2048)] + 0.15 * rng.normal(size=(2048, 7))


@pytest.mark.parametrize("masses", ["fixed", "free"])
@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1000.0, 3e4)])
def test_a_solve_takes_the_same_maps(masses, unit, offset):
    """Every map of a solve is that of the reference, in any unit, with weights and an outlier, and F never rises."""
    x = data()
    x[0] += 20
    x = unit * x + offset
    rho = np.random.default_rng(1).uniform(0.5, 2, size=len(x))
    points = []
    original = Problem.expectations

    def spied(problem, psi, log_masses):
        points.append((problem, psi.copy(), log_masses.copy(), original(problem, psi, log_masses)))
        return points[-1][-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Problem, "expectations", spied)
        energies = []
        cv.solve(
            x, beta=0.01 * unit**2, n_tiles=64, weights=rho, masses=masses, start="data", accelerate="plain",
            max_maps=12, on_failure="return", callback=lambda it: energies.append(it.free_energy) and False,
        )  # fmt: skip
    (block,) = points[-1][0].data.blocks()
    assert block.kept._lists, "the lists are in use"
    assert np.all(np.diff(energies) <= 1e-12 * np.abs(energies[0]))
    reference = Problem.make(x, cv.ELBO(0.01 * unit**2), rho, "reference")
    for _, psi, log_masses, found in points[::4]:
        expected = original(reference, psi, log_masses)
        heavy = expected.mass > 1e-12
        np.testing.assert_allclose(found.mass[heavy], expected.mass[heavy], rtol=1e-10)
        np.testing.assert_allclose(found.sums[heavy], expected.sums[heavy], rtol=1e-10, atol=1e-13)
        assert found.free_energy == pytest.approx(expected.free_energy, rel=1e-12)
        assert found.energy == pytest.approx(expected.energy, rel=1e-11)


def test_streamed_rows_have_no_lists(tmp_path):
    x = data()
    np.save(tmp_path / "x.npy", x)
    for streamed in (np.load(tmp_path / "x.npy", mmap_mode="r"), cv.RowBlocks([x])):
        problem = Problem.make(streamed, cv.ELBO(0.01), None, "numba")
        assert all(block.kept is None for block in problem.data.blocks())
