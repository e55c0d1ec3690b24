"""Leaving out tiles that cannot matter: the sums are those over all tiles, to what is proven and what is rounded."""

import math

import numba
import numpy as np
import pytest
from hypothesis import assume, example, given, strategies as st

import constrained_vae as cv
from constrained_vae.backends import get_backend, pruning
from constrained_vae.testing import naive_expectations
from tests.helpers.squared_maps import ZERO, SquaredMap

on_both_precisions = pytest.mark.parametrize("dtype", [np.float64, np.float32])


class Case(SquaredMap):
    @property
    def tiles(self):
        (_, S), K = self.phi.shape, len(self.psi)
        tiles = np.zeros((S + S % 2, K), self.phi.dtype)
        tiles[:S] = self.psi.T
        return tiles

    @property
    def arguments(self):
        return self.phi, self.rho, self.tiles, self.log_pi, self.lam

    def pruned(self):
        """The pruned sums, whether they pay or not."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (("_SMALL", 0), ("_SHORT", 1), ("_PAYS", math.inf)):
                patch.setattr(pruning, name, value)
            return pruning.expectations(*self.arguments)

    def dense(self):
        """Sums, totals and encoder of all tiles, in float64 and from differences."""
        q, totals, _ = self.of_all_tiles()
        weighted = self.rho[:, None] * q
        sums = np.vstack([self.phi.T.astype(float) @ weighted, weighted.sum(axis=0)])
        return sums, totals, q


def make(seed, N, K, S, lam, dtype=np.float64, spread=0.0, far=1.0, dead=0, idle=0, ordered=True, duplicates=False):
    """Points in three clusters of a width of 1 - spread or less, tiles about them; dead tiles, rows without weight."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(3, S))[rng.integers(3, size=N)] + (1 - spread) * rng.normal(size=(N, S))
    psi = far * rng.normal(size=(K, S))
    if duplicates:
        phi, psi = np.round(phi), np.round(psi)
    phi, psi = phi.astype(dtype), psi.astype(dtype)
    rho, masses = rng.uniform(0.1, 1, size=N), rng.uniform(0.1, 1, size=K)
    rho[: min(idle, N - 1)] = 0
    masses[: min(dead, K - 1)] = 0
    if ordered:
        phi = phi[pruning.order(phi)]
    return Case(phi, rho / rho.sum(), psi, masses / masses.sum(), float(dtype(lam)))


def assert_close(given, expected, q, case, kernels=1):
    """Agreement to rounding and to the proven bounds, which are below it; `expected` may itself be that of a kernel.

    An energy has a relative error of (S + 3) eps, and those that matter, q > exp(-650), are at most 650 + max(-log Z)
    by q = pi exp(-H) / Z. So a logit errs by delta, an encoder entry by a factor of 1 + 2 delta, and some eps from exp
    (8 allowed), from summing K entries, and from summing the 64 rows of a run; rows are summed in float64.
    """
    (sums, totals), (naive_sums, naive_totals) = given, expected
    (N, S), K, real = case.phi.shape, len(case.psi), case.phi.dtype.type
    eps, weight = float(np.finfo(real).eps), case.rho.sum()
    tol, relative_loss = (2.0**-60, 2.0**-48) if real is np.float64 else (2.0**-33, 2.0**-21)
    nearest = np.square(case.phi[:, None].astype(float) - case.psi[np.isfinite(case.log_pi)]).sum(axis=2).min(axis=1)
    reach = case.lam * nearest.max() - case.log_pi[np.isfinite(case.log_pi)].min()  # bounds -log Z and -log pi
    delta = (S + 5) * eps * float(reach - ZERO[real])
    assert delta < 0.1, "a case where rounding leaves nothing to compare"
    relative = 3 * delta + (8 + K + 64) * eps + N * np.finfo(float).eps + relative_loss
    relative, absolute = kernels * relative, weight * math.exp(ZERO[real] + 1)
    magnitude = (case.rho[:, None] * np.abs(case.phi)).T.astype(float) @ q
    np.testing.assert_array_less(np.abs(sums[S] - naive_sums[S]), relative * naive_sums[S] + absolute)
    limit = relative * magnitude + (absolute + relative_loss * naive_sums[S]) * (1 + np.abs(case.phi).max())
    np.testing.assert_array_less(np.abs(sums[:S] - naive_sums[:S]), limit)
    F, E = naive_totals
    row = (S + 5) * eps * float(reach) + (8 + K) * eps  # what a row's log Z errs by
    L = math.log(K / tol)
    assert abs(totals[0] - F) <= kernels * weight * (row + N * np.finfo(float).eps * (1 + reach) + 2 * tol)
    lost = tol * (weight * L + max(2 * E, weight * reach))
    assert abs(totals[1] - E) <= relative * (E + weight * (1 + math.log(K))) + lost + weight * K * math.exp(ZERO[real])


@on_both_precisions
@given(
    seed=st.integers(0, 2**32 - 1),
    N=st.integers(1, 300),
    K=st.integers(1, 40),
    S=st.integers(1, 5),
    log_lam=st.floats(-7, 11),
    spread=st.floats(0, 1),
    far=st.floats(0, 10),
    dead=st.integers(0, 5),
    idle=st.integers(0, 100),
    ordered=st.booleans(),
    duplicates=st.booleans(),
)
@example(seed=1, N=200, K=30, S=2, log_lam=3, spread=0.9, far=3, dead=3, idle=5, ordered=True, duplicates=False)
@example(seed=2, N=129, K=1, S=1, log_lam=9, spread=0.5, far=1, dead=0, idle=0, ordered=True, duplicates=False)
@example(seed=3, N=1, K=7, S=3, log_lam=2, spread=0, far=1, dead=0, idle=0, ordered=False, duplicates=False)
def test_agrees_with_the_sums_over_all_tiles(dtype, log_lam, **sizes):
    case = make(lam=math.exp(log_lam if dtype is np.float64 else min(log_lam, 6)), dtype=dtype, **sizes)
    reach = case.lam * np.square(np.abs(case.phi).max() + np.abs(case.psi).max()) * case.phi.shape[1]
    assume(reach * np.finfo(dtype).eps < 1e-3)  # else rounding leaves nothing to compare
    *expected, q = case.dense()
    assert_close(case.pruned(), expected, q, case)


@on_both_precisions
@pytest.mark.parametrize("lam", [0.1, 30.0, 1000.0])
def test_agrees_with_the_naive_loops(dtype, lam):
    case = make(4, 150, 20, 2, lam, dtype, spread=0.7, idle=3)
    naive = naive_expectations(
        case.phi.astype(float), case.rho, case.psi.astype(float), np.exp(case.log_pi.astype(float)), 1 / (2 * case.lam)
    )
    expected = np.vstack([naive.sums.T, naive.mass]), np.array([naive.free_energy, naive.energy])
    assert_close(case.pruned(), expected, naive.encoder, case)


# Powers of two, so that the readout 2 lambda psi is exact and both kernels have the same reconstructions.
@on_both_precisions
@pytest.mark.parametrize(("S", "lam"), [(1, 2.0**11), (2, 4.0), (2, 2.0**9), (2, 2.0**14), (3, 2.0**11)])
def test_agrees_with_the_kernel_of_all_tiles(dtype, S, lam, monkeypatch):
    case = make(5, 5001, 300, S, lam, dtype, spread=0.5)
    pruned = case.pruned()
    monkeypatch.setattr(pruning, "_SMALL", math.inf)
    x, psi = case.phi.astype(float), case.psi.astype(float)
    offset, v, b = (a.astype(dtype) for a in (lam * (x**2).sum(1), 2 * lam * psi, -lam * (psi**2).sum(1)))
    full = get_backend("numba").expectations(case.phi, offset, case.rho, v, b, case.log_pi, lam)
    expected = np.vstack([full.sums.T, full.mass]), np.array([full.free_energy, full.energy])
    assert_close(pruned, expected, case.dense()[2], case, kernels=2)


@on_both_precisions
def test_more_tiles_than_the_buffer_holds(dtype):
    """Their exponentials are taken twice."""
    K = 2 * pruning._BUFFER // (64 * np.dtype(dtype).itemsize)
    case = make(6, 150, K, 2, 0.1, dtype)
    assert pruning._cost(*pruning._arguments(*case.arguments), pruning._limits(case.phi, case.log_pi), 2) > 1
    *expected, q = case.dense()
    assert_close(case.pruned(), expected, q, case)


@on_both_precisions
def test_a_tile_of_little_mass_moves_as_it_would_with_all_rows(dtype):
    """Its mass is far below what its rows may lose, yet its reconstruction is right; below exp(-650) it is dead."""
    case = make(7, 2000, 20, 2, 20.0, dtype, spread=0.8)
    top = case.phi[:, 0].max()
    distances = np.sqrt(-np.array([0.3, 0.6, 0.9, 1.5]) * ZERO[dtype] / case.lam)  # beyond the outermost point
    far = np.column_stack([top + distances, np.full(4, case.phi[case.phi[:, 0].argmax(), 1])])
    psi = np.vstack([case.psi, far]).astype(dtype)
    psi[0] = case.phi[case.phi[:, 0].argmax()]  # so that the outermost point has a tile of its own
    case = case._replace(psi=psi, masses=np.full(len(psi), 1 / len(psi)))
    *expected, q = case.dense()
    sums, totals = case.pruned()
    assert_close((sums, totals), expected, q, case)
    assert np.all(sums[2, -4:-1] > 0)
    assert np.all(sums[2, -4:-1] < 1e-6 if dtype is np.float32 else 1e-60)
    assert np.all(sums[:, -1] == 0)


def test_the_first_pass_alone_would_not_do(monkeypatch):
    """In the case above the limits of some tiles are in fact lowered, again and again."""
    passes = []
    run = pruning._chunks_parallel

    def counted(*arguments):
        passes.append(int(arguments[6].sum()))
        run(*arguments)

    monkeypatch.setattr(pruning, "_chunks_parallel", counted)
    test_a_tile_of_little_mass_moves_as_it_would_with_all_rows(np.float64)
    assert len(passes) == 3
    assert passes == sorted(passes, reverse=True)
    passes.clear()
    test_agrees_with_the_naive_loops(np.float64, 0.1)  # no tile is poor here
    assert len(passes) == 1


@on_both_precisions
@given(seed=st.integers(0, 2**32 - 1), K=st.integers(1, 60), S=st.integers(1, 4), log_lam=st.floats(-5, 12))
def test_no_tile_is_left_out_that_could_matter(dtype, seed, K, S, log_lam):
    """Of each tile left out, the encoder is below its limit at every corner of the box and at points within."""
    rng = np.random.default_rng(seed)
    lam, width = dtype(math.exp(log_lam)), 10.0 ** rng.uniform(-4, 1)
    ends = np.sort(rng.normal(size=S) + width * rng.uniform(size=(2, S)), axis=0)
    if rng.integers(2):
        ends[1] = ends[0]  # all points coincide
    box, psi = ends.astype(dtype), rng.normal(size=(K, S)).astype(dtype)
    log_pi = np.log(rng.dirichlet(np.ones(K))).astype(dtype)
    limits = rng.uniform(-80, -1, size=K).astype(dtype)
    kept = search(box, psi, log_pi, lam, limits)
    corners = np.array(np.meshgrid(*box.astype(float).T)).reshape(S, -1).T
    inside = box[0] + rng.uniform(size=(50, S)) * (box[1] - box[0])
    points = np.vstack([corners, inside, box.mean(axis=0, keepdims=True)])
    logits = log_pi - lam * np.square(points[:, None] - psi.astype(float)).sum(axis=2)
    # With float64 boxes the margin is for the rounding of this line, not of the search.
    margin = 8 * (S + 3) * np.finfo(float).eps * np.abs(logits).max(axis=0)
    worst = (logits - logits.max(axis=1, keepdims=True)).max(axis=0)
    must = worst >= limits + margin
    assert set(np.flatnonzero(must)) <= set(kept)


@on_both_precisions
def test_the_search_leaves_out_what_it_can(dtype):
    """Next to none is kept where runs are small, and not one tile with a gap below its limit, computed naively."""
    rng = np.random.default_rng(8)
    psi = rng.uniform(-1, 1, size=(400, 2)).astype(dtype)
    log_pi, limits = np.full(400, -math.log(400), dtype), np.full(400, -50, dtype)
    for centre in rng.uniform(-0.8, 0.8, size=(20, 2)):
        box = np.vstack([centre - 0.02, centre + 0.02]).astype(dtype)
        kept = search(box, psi, log_pi, dtype(1000), limits)
        farthest = np.square(np.maximum(psi - box[0], box[1] - psi)).sum(axis=1)
        b = int(farthest.argmin())
        corners = np.array(np.meshgrid(*box.astype(float).T)).reshape(2, -1).T
        squares = np.square(corners[:, None] - psi.astype(float)).sum(axis=2)
        gap = 1000 * (squares[:, [b]] - squares).max(axis=0)
        # Rounding, for which the search allows, is some 1000 eps of distances up to 3.
        assert set(kept) <= set(np.flatnonzero(gap >= -50 - 2e5 * np.finfo(dtype).eps))
        assert len(kept) < 40


def search(box, psi, log_pi, lam, limits):
    scratch, kept = np.empty((2, len(psi)), psi.dtype), np.empty(len(psi), np.int32)
    n = pruning._search(box, np.ascontiguousarray(psi.T), log_pi, lam, limits, scratch, kept)
    assert np.all(np.diff(kept[:n]) > 0)
    return kept[:n]


@on_both_precisions
@pytest.mark.parametrize("S", [1, 2, 3])
def test_same_bits_every_time_and_on_any_number_of_threads(dtype, S):
    case = make(9, 9001, 64, S, 3000.0, dtype, far=2.0)
    first = case.pruned()
    threads = numba.get_num_threads()
    try:
        for count in range(1, min(4, numba.config.NUMBA_NUM_THREADS) + 1):
            numba.set_num_threads(count)
            for given, expected in zip(case.pruned(), first, strict=True):
                np.testing.assert_array_equal(given, expected, strict=True)
    finally:
        numba.set_num_threads(threads)


def test_it_is_done_where_it_pays():
    """Small boxes and low temperature; otherwise None, and the kernel of all tiles is called."""
    cold = make(10, 5000, 300, 2, 2000.0)
    sums, totals = pruning.expectations(*cold.arguments)
    assert sums.shape == (3, 300)
    assert totals.shape == (2,)
    shuffled = cold._replace(phi=np.random.default_rng(11).permutation(cold.phi))
    shuffled.phi[:64] = shuffled.phi[0]  # one compact run says nothing of the others
    for case in (cold._replace(lam=0.1), shuffled, make(10, 300, 300, 2, 2000.0), make(10, 5000, 1, 2, 2000.0)):
        assert pruning.expectations(*case.arguments) is None
    few = cold._replace(masses=np.where(np.arange(300) < 250, 0, 1 / 50))
    assert pruning.expectations(*few.arguments) is not None  # tiles without mass are left out everywhere
    nowhere = cold._replace(masses=np.zeros(300))
    assert pruning.expectations(*nowhere.arguments) is None


def test_tiles_that_coincide_all_matter():
    case = make(12, 5000, 300, 2, 2000.0)
    assert pruning.expectations(*case._replace(psi=np.zeros((300, 2))).arguments) is None


@on_both_precisions
def test_tiles_without_mass_and_rows_without_weight_weigh_exactly_nothing(dtype):
    case = make(13, 1000, 50, 2, 500.0, dtype, dead=9)
    case.rho[::3] = 0
    sums, totals = case.pruned()
    assert np.all(sums[:, :9] == 0)
    heavy = case.rho > 0
    less = case._replace(phi=case.phi[heavy], rho=case.rho[heavy], psi=case.psi[9:], masses=case.masses[9:])
    *expected, q = less.dense()
    assert_close((sums[:, 9:], totals), expected, q, less)


@pytest.mark.parametrize("where", ["phi", "psi"])
def test_not_a_number_is_not_swallowed(where):
    case = make(14, 1000, 50, 2, 500.0)
    getattr(case, where)[20, 1] = np.nan
    assert np.isnan(case.pruned()[1]).all()


def test_inputs_may_be_read_only_and_are_left_alone():
    case = make(15, 1000, 50, 2, 500.0, dead=2)
    expected = case.pruned()
    arguments = [array.copy() if isinstance(array, np.ndarray) else array for array in case.arguments]
    for array in arguments[:4]:
        array.flags.writeable = False
    alive = pruning._pruned(*pruning._arguments(arguments[0], arguments[1], arguments[2][:, 2:], arguments[3][2:], 500))
    np.testing.assert_array_equal(alive[0], expected[0][:, 2:])
    for array, original in zip(arguments, case.arguments, strict=True):
        np.testing.assert_array_equal(array, original)


def test_one_compiled_kernel_serves_all_inputs_of_a_precision():
    make(16, 200, 5, 2, 1.0).pruned()
    dtypes = [str(signature[0].dtype) for signature in pruning._chunks_parallel.in_threads.signatures]
    assert len(dtypes) == len(set(dtypes))


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("S", [1, 2, 3, 8])
def test_memory_is_bounded_for_any_sizes(S, itemsize):
    """What a pass holds, written out, is at most 16 MB and 4 K S numbers; too many tiles are declined."""
    real = {4: np.float32, 8: np.float64}[itemsize]
    for K in (1, 100, 1024, 4096, 50000, 10**5, 10**6, 10**7):
        chunks = pruning._chunks(np.broadcast_to(real(0), (10**6, S)), K)
        accumulators = (chunks + 1) * (S + 1) * K * 8
        tiles_of_a_chunk = K * (2 * itemsize + 2 * 4 + (S + 2) * itemsize)
        buffer = min(K, pruning._BUFFER // (64 * itemsize)) * 64 * itemsize
        assert 0 <= chunks <= 64
        assert chunks == 0 or accumulators + chunks * (tiles_of_a_chunk + buffer) <= 2**24 + 4 * K * S * itemsize
        if S <= 3:
            assert chunks >= (8 if K <= 4096 else 1 if K <= 50000 else 0)


@given(seed=st.integers(0, 2**32 - 1), N=st.integers(1, 2000), S=st.integers(1, 4), levels=st.integers(0, 3))
def test_order_is_a_permutation(seed, N, S, levels):
    """Also of points many of which, or all, coincide; and the same one every time."""
    phi = np.random.default_rng(seed).normal(size=(N, S))
    phi = np.round(phi * levels) if levels else phi
    before = phi.copy()
    permutation = pruning.order(phi)
    np.testing.assert_array_equal(np.sort(permutation), np.arange(N))
    np.testing.assert_array_equal(pruning.order(np.asfortranarray(phi)), permutation)
    np.testing.assert_array_equal(phi, before)


@on_both_precisions
@pytest.mark.parametrize(("N", "S"), [(2**14, 2), (10007, 2), (30000, 3), (5000, 1)])
def test_runs_of_ordered_rows_are_compact(dtype, N, S):
    """Of uniform points in a cube, those of a run fill a box of not much more than their share, and so do groups."""
    phi = np.random.default_rng(17).uniform(size=(N, S)).astype(dtype)
    phi = phi[pruning.order(phi)]
    for rows in (64, 64 * pruning._GROUP):
        parts = [phi[i : i + rows] for i in range(0, N - rows + 1, rows)]
        widths = np.array([part.max(axis=0) - part.min(axis=0) for part in parts])
        assert np.median(widths.prod(axis=1)) < 1.5 * rows / N
        assert widths.max() < 4 * (rows / N) ** (1 / S)


def test_a_solve_at_low_temperature_leaves_tiles_out(monkeypatch):
    """The problem sorts its rows once; one map is that of the reference on the rows as they came."""
    from constrained_vae.problems.problem import Problem

    rng = np.random.default_rng(0)
    x, psi = rng.normal(size=(4096, 2)), rng.normal(size=(256, 2))
    log_masses = np.full(256, -np.log(256))
    asked = []
    original = pruning.expectations
    monkeypatch.setattr(pruning, "expectations", lambda *args: asked.append(original(*args)) or asked[-1])
    problem, plain = (Problem.make(x, cv.ELBO(0.002), None, backend, None) for backend in ("numba", "reference"))
    (block,) = problem.data.blocks()
    assert block.rows is None
    assert not np.array_equal(problem.data.frame.outward(block.x), x)
    psi = problem.data.frame.inward(psi)
    one, other = (p.expectations(psi, log_masses) for p in (problem, plain))
    assert asked[0] is not None
    np.testing.assert_allclose(one.mass, other.mass, rtol=1e-11, atol=1e-18)
    np.testing.assert_allclose(one.sums, other.sums, rtol=1e-11, atol=1e-16)
    assert one.free_energy == pytest.approx(other.free_energy, rel=1e-12)
    assert one.energy == pytest.approx(other.energy, rel=1e-11)
