"""Every backend against the loops of `testing.naive`, which know nothing of the package."""

import importlib.util
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, strategies as st

from constrained_vae._utils import chunks as chunking
from constrained_vae.backends import BackendNotAvailableError, get_backend, numba as kernels
from constrained_vae.testing import Naive, naive_bernoulli, naive_expectations, naive_jacobian
from tests.helpers.linear_form import FORMS, assert_close, assert_identical, make

KINDS = [("reference", np.float64), ("numba", np.float64), ("numba", np.float32)]

on_every_backend = pytest.mark.parametrize(("name", "dtype"), KINDS)


@on_every_backend
@given(
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 2**32 - 1),
    N=st.integers(1, 40),
    K=st.integers(1, 21),
    S=st.integers(1, 12),
    log_multiplier=st.floats(-3, 6),
    with_quadratic=st.booleans(),
    n_dead=st.integers(0, 3),
)
def test_agrees_with_the_naive_loops(name, dtype, form, seed, N, K, S, log_multiplier, with_quadratic, n_dead):
    dead = range(min(n_dead, K - 1))
    problem = make(form, seed, N, K, S, multiplier=np.exp(log_multiplier), dead=dead).astype(dtype)
    result = problem.solve(name, quadratic=problem.multiplier if with_quadratic else None)
    assert_close(result, problem.naive(), problem)
    assert result.mass.shape == (K,)
    assert result.sums.shape == (K, S)
    assert result.mass.dtype == result.sums.dtype == dtype


@on_every_backend
@pytest.mark.parametrize("form", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("S", [2, 10])
def test_agrees_with_the_energies_written_out(name, dtype, form, S):
    problem = make(form, 1, 30, 7, S, multiplier=2.5).astype(dtype)
    x, weights = (problem.arguments[k].astype(float) for k in (0, 2))
    if form == "gaussian":
        naive = naive_expectations(x, weights, problem.psi, problem.masses, 1 / (2 * 2.5))
    else:
        naive = naive_bernoulli(x, weights, problem.psi, problem.masses, 1 / 2.5)
    for quadratic in {None, problem.multiplier}:
        assert_close(problem.solve(name, quadratic), naive, problem)


# Beyond one chunk of rows, one block of rows of the matrix products, one vector of tiles, a pair of statistics.
@on_every_backend
@pytest.mark.parametrize(("N", "K", "S"), [(1037, 67, 3), (1037, 37, 11), (1501, 11, 9), (257, 513, 1), (2, 3001, 9)])
def test_sizes_that_nothing_divides(name, dtype, N, K, S, monkeypatch):
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 100 * K)
    problem = make("gaussian", 2, N, K, S, dead=[0, K - 1]).astype(dtype)
    naive = problem.naive()
    for quadratic in (None, problem.multiplier):
        assert_close(problem.solve(name, quadratic), naive, problem)


@on_every_backend
@pytest.mark.parametrize("S", [2, 10])
def test_rows_where_one_tile_takes_all(name, dtype, S):
    """Energies up to 1e300 (float32: 1e30), beyond where exponentials underflow: nothing is NaN, and zero is exact."""
    huge = {np.float64: 1e300, np.float32: 1e30}[dtype]
    phi, offset, weights = np.ones((5, S)), np.zeros(5), np.full(5, 0.2)
    b = np.array([-huge, 0.0, -huge, -1e3])
    arguments = (phi, offset, weights, np.zeros((4, S)), b, np.log(np.full(4, 0.25)))
    result = get_backend(name).expectations(*(array.astype(dtype) for array in arguments))
    eps = float(np.finfo(dtype).eps)
    assert result.mass == pytest.approx([0, 1, 0, 0], rel=8 * eps, abs=0)
    assert result.sums == pytest.approx(np.outer([0, 1, 0, 0], np.ones(S)), rel=8 * eps, abs=0)
    assert result.energy == 0
    assert result.free_energy == pytest.approx(np.log(4), rel=8 * eps)


@on_every_backend
@pytest.mark.parametrize("S", [2, 10])
def test_equal_energies_however_large(name, dtype, S):
    """The encoder is the prior where all tiles cost the same, and F = E[H] (T5)."""
    huge = {np.float64: 1e300, np.float32: 1e30}[dtype]
    masses = np.array([0.5, 0.3, 0.2])
    arguments = (np.ones((7, S)), np.zeros(7), np.full(7, 1 / 7), np.zeros((3, S)), np.full(3, -huge), np.log(masses))
    result = get_backend(name).expectations(*(array.astype(dtype) for array in arguments))
    # log pi drowns in the energy: only that the masses add up is left.
    eps = float(np.finfo(dtype).eps)
    assert float(result.mass.sum()) == pytest.approx(1, rel=8 * eps)
    assert result.free_energy == pytest.approx(huge, rel=8 * eps)
    assert result.energy == pytest.approx(huge, rel=8 * eps)
    arguments = (*arguments[:4], np.full(3, -4.0), arguments[5])
    result = get_backend(name).expectations(*(array.astype(dtype) for array in arguments))
    assert result.mass == pytest.approx(masses, rel=16 * eps)
    assert result.free_energy == pytest.approx(4, rel=16 * eps)
    assert result.energy == pytest.approx(4, rel=16 * eps)


@on_every_backend
@pytest.mark.parametrize("S", [2, 10])
def test_a_dead_tile_weighs_exactly_nothing(name, dtype, S):
    """Whatever its energy, be it the lowest of all or infinite."""
    alive = make("gaussian", 3, 20, 4, S).astype(dtype)
    phi, s, rho, v, b, log_masses = alive.arguments
    infinite = [] if name == "reference" else [-np.inf]  # NumPy warns of 0 inf, though the result is right
    for dead_b in (0.0, 1e30, -1e30, *infinite):
        arguments = (phi, s, rho, np.vstack([v, v[:1]]), np.append(b, dead_b), np.append(log_masses, -np.inf))
        result = get_backend(name).expectations(*(array.astype(dtype) for array in arguments))
        assert result.mass[-1] == 0
        assert np.all(result.sums[-1] == 0)
        expected = alive.solve(name)
        # Another K is another order of summation over tiles, nothing more.
        eps = float(np.finfo(dtype).eps)
        np.testing.assert_allclose(result.mass[:-1], expected.mass, rtol=64 * eps)
        assert result.energy == pytest.approx(expected.energy, rel=64 * eps)
        assert result.free_energy == pytest.approx(expected.free_energy, rel=64 * eps)


@pytest.mark.parametrize("S", [1, 2, 7])
def test_differences_keep_the_accuracy_of_small_energies(S):
    """At lambda = 1e10 with tiles 1e-6 away from unit data, the linear form would lose six digits more than this."""
    rng = np.random.default_rng(4)
    x = rng.uniform(-1, 1, size=(30, S))
    psi = x + 1e-6 * rng.normal(size=x.shape)
    multiplier, weights, masses = 1e10, np.full(30, 1 / 30), np.full(30, 1 / 30)
    arguments = (x, multiplier * (x**2).sum(1), weights, 2 * multiplier * psi, -multiplier * (psi**2).sum(1))
    result = get_backend("numba").expectations(*arguments, np.log(masses), quadratic=multiplier)
    naive = naive_expectations(x, weights, psi, masses, 1 / (2 * multiplier))
    # A coordinate difference is good to eps, an energy to 2 lambda |x - psi| eps sqrt(S), some 5e6 times less than
    # the eps lambda of the linear form; psi itself goes through 2 lambda psi and back, another eps or two.
    tolerance = 8 * S * multiplier * np.abs(x - psi).max() * np.finfo(float).eps
    assert result.energy == pytest.approx(naive.energy, abs=tolerance)
    assert result.free_energy == pytest.approx(naive.free_energy, abs=tolerance)


def test_not_a_number_is_not_swallowed():
    phi, *others = make("gaussian", 5, 6, 3, 2).arguments
    phi[2, 1] = np.nan
    result = get_backend("numba").expectations(phi, *others)
    assert np.isnan(result.free_energy)
    assert np.isnan(result.energy)


@on_every_backend
@given(seed=st.integers(0, 2**32 - 1), S=st.integers(1, 12), cut=st.integers(0, 60))
def test_row_blocks_add_up(name, dtype, seed, S, cut):
    problem = make("linear", seed, 60, 9, S).astype(dtype)
    phi, s, rho, *tiles = problem.arguments
    parts = [
        get_backend(name).expectations(phi[rows], s[rows], rho[rows], *tiles)
        for rows in (slice(None, cut), slice(cut, None))
        if phi[rows].size
    ]
    total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    assert_close(total, problem.naive(), problem)


# N, K, S on the numba backend's ways: one thread, chunks of rows, and one accumulator that all threads share.
ONE, CHUNKS, SHARED = "one", "chunks", "shared"
WAYS = [
    (50, 5, 2, ONE),
    (50, 5, 10, ONE),
    (70, 6007, 2, CHUNKS),
    (3001, 64, 2, CHUNKS),
    (1501, 48, 20, CHUNKS),
    (4099, 531, 40, CHUNKS),
    (1283, 11, 5003, CHUNKS),
    (67, 13001, 70, SHARED),
    (639, 1031, 101, SHARED),
    (1009, 1300, 301, SHARED),
    (211, 67, 5003, SHARED),
]


def way(N, K, S, real):
    if S <= chunking.FEW:
        chunks = chunking.of_few(N, K, S, np.dtype(real).itemsize)
    else:
        chunks, _ = chunking.of_many(N, K, S, np.dtype(real).itemsize)
    return SHARED if not chunks else ONE if chunks == 1 else CHUNKS


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("N", "K", "S", "expected"), WAYS)
def test_the_sizes_take_all_ways(N, K, S, expected, dtype):
    assert way(N, K, S, dtype) == expected


@on_every_backend
@pytest.mark.parametrize(("N", "K", "S", "_"), WAYS)
def test_same_bits_every_time_and_on_any_number_of_threads(name, dtype, N, K, S, _):
    import numba

    problem = make("gaussian", 6, N, K, S).astype(dtype)
    first = problem.solve(name, problem.multiplier)
    assert_identical(problem.solve(name, problem.multiplier), first)
    if name == "reference":
        return  # its threads are those of BLAS
    threads = numba.get_num_threads()
    try:
        for count in range(1, min(4, numba.config.NUMBA_NUM_THREADS) + 1):
            numba.set_num_threads(count)
            assert_identical(problem.solve(name, problem.multiplier), first)
    finally:
        numba.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("N", "K", "S", "_"), WAYS)
def test_every_way_agrees_with_whole_arrays(dtype, N, K, S, _):
    """Sizes are too large for naive loops; lambda is such that tiles compete for a row."""
    problem = make("gaussian", 11, N, K, S, multiplier=2 / S, dead=[K - 1]).astype(dtype)
    phi, s, rho, v, b, log_masses = (array.astype(float) for array in problem.arguments)
    H = s[:, None] - b - phi @ v.T
    logits = log_masses - H
    top = logits.max(axis=1, keepdims=True)
    q = np.exp(logits - top)
    Z = q.sum(axis=1, keepdims=True)
    q /= Z
    free_energy = -float(rho @ (top + np.log(Z))[:, 0])
    whole = Naive(rho @ q, (rho[:, None] * q).T @ phi, free_energy, float(rho @ (q * H).sum(axis=1)), q)
    assert_close(problem.solve("numba", problem.multiplier), whole, problem)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@given(
    seed=st.integers(0, 2**32 - 1),
    N=st.integers(1, 40),
    K=st.integers(1, 40),
    S=st.integers(9, 12),
    piece=st.integers(1, 9),
    tasks=st.integers(1, 9),
    rows=st.integers(1, 50),
)
def test_blocks_pieces_and_tasks_of_any_size(dtype, seed, N, K, S, piece, tasks, rows):
    """What is shared by all threads, cut as it never is at such sizes; one row and one tile are among them."""
    problem = make("gaussian", seed, N, K, S, dead=[0] if K > 1 else []).astype(dtype)
    constants = {"_SHARE": 0, "_WIDE": 0, "_SHARED_BYTES": 1, "_PIECE": piece, "_TASKS": tasks, "_ROWS": (rows, rows)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            patch.setattr(chunking, name, value)
        assert way(N, K, S, dtype) == SHARED
        assert_close(problem.solve("numba"), problem.naive(), problem)


def claim(K, S, dtype):
    """Bytes that the arrays of a map on prepared data stay below."""
    return 16_000_000 + 4 * K * S * np.dtype(dtype).itemsize


def held_by_rows_of_few(N, K, S, dtype):
    """Bytes of the four rows of q that each chunk has in compiled code."""
    return chunking.of_few(N, K, S, np.dtype(dtype).itemsize) * 4 * K * np.dtype(dtype).itemsize


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("K", [1, 10, 100, 300, 700, 1024, 2000, 4096, 9000, 20_000, 100_000])
@pytest.mark.parametrize("S", [1, 2, 3, 8, 9, 20, 64, 100, 300, 784, 20_000])
def test_memory_is_bounded_at_any_size(K, S, dtype):
    """The scratch and the copy of the tiles are given back before the result is made of the accumulators."""
    if K * S > 1e8:
        return  # more than a machine may have
    itemsize = np.dtype(dtype).itemsize
    for N in (1, 10, 100, 300, 700, 2000, 10_000, 1_000_000):
        result = K * (S + 1) * itemsize
        if S <= chunking.FEW:
            accumulated = chunking.of_few(N, K, S, np.dtype(dtype).itemsize) * 8 * K * (S + 1)
            scratch = held_by_rows_of_few(N, K, S, dtype) + (S + S % 2) * K * itemsize
        else:
            chunks, rows = chunking.of_many(N, K, S, np.dtype(dtype).itemsize)
            assert rows <= 512
            arrays, *accumulators = (
                kernels._many_arrays(chunks, rows, K, S, dtype) if chunks else kernels._shared_arrays(N, K, S, dtype)
            )
            accumulated = sum(array.nbytes for array in accumulators)
            scratch = sum(array.nbytes for array in arrays) + (K * S * itemsize if chunks else 0)
        assert accumulated + max(scratch, result) < claim(K, S, dtype), N


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("N", "K", "S"),
    [(5000, 4096, 2), (1000, 20000, 8), (100, 100_000, 3), (5000, 1024, 64), (1000, 2000, 784), (100, 50_000, 64)],
)
def test_memory_stays_within_the_bound(N, K, S, dtype):
    """What NumPy allocates at a time; all else is a few rows."""
    problem = make("gaussian", 12, N, K, S, multiplier=2 / S).astype(dtype)
    phi, s, rho, *tiles = problem.arguments
    arguments = (phi, s, rho.astype(float), *tiles)
    problem.solve("numba", problem.multiplier)  # compiles
    tracemalloc.start()
    try:
        get_backend("numba").expectations(*arguments, quadratic=problem.multiplier)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    hidden = held_by_rows_of_few(N, K, S, dtype) if S <= chunking.FEW else 0
    assert peak + hidden < claim(K, S, dtype)


@on_every_backend
@pytest.mark.parametrize("S", [2, 10])
def test_any_layout_is_accepted_and_left_alone(name, dtype, S):
    problem = make("gaussian", 7, 40, 6, S).astype(dtype)
    expected = problem.solve(name, problem.multiplier)
    copies = [array.copy() for array in problem.arguments]
    for array in problem.arguments:
        array.flags.writeable = False
    layouts = {
        "read-only": problem.arguments,
        "Fortran": tuple(np.asfortranarray(array) for array in problem.arguments),
        "strided": tuple(np.repeat(array, 2, axis=0)[::2] for array in problem.arguments),
        "reversed": tuple(array[::-1].copy()[::-1] for array in problem.arguments),
    }
    for arguments in layouts.values():
        result = problem._replace(arguments=arguments).solve(name, problem.multiplier)
        # The reference multiplies matrices in the layout given, in which order is not ours to say.
        tolerance = 0 if name == "numba" else 64 * np.finfo(dtype).eps
        for field in ("mass", "sums", "free_energy", "energy"):
            np.testing.assert_allclose(getattr(result, field), getattr(expected, field), rtol=tolerance, atol=tolerance)
    for array, copy in zip(problem.arguments, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_one_compiled_kernel_serves_read_only_and_writable_inputs():
    problem = make("gaussian", 8, 20, 3, 2)
    problem.solve("numba")
    for array in problem.arguments:
        array.flags.writeable = False
    problem.solve("numba")
    dtypes = [str(signature[0].dtype) for signature in kernels.few.signatures]
    assert len(dtypes) == len(set(dtypes))


def test_naive_jacobian_is_the_derivative_of_the_map():
    """The oracle of (T8) against central differences of the oracle of (T1), (T3), at a fixed point of it."""
    rng = np.random.default_rng(10)
    x, psi = rng.normal(size=(12, 2)), rng.normal(size=(3, 2))
    weights, masses, multiplier = rng.dirichlet(np.ones(12)), np.array([0.5, 0.3, 0.2]), 1.5

    def step(psi):
        naive = naive_expectations(x, weights, psi, masses, 1 / (2 * multiplier))
        return naive.sums / naive.mass[:, None]

    for _ in range(3000):
        psi = step(psi)
    h = 1e-5
    J = naive_jacobian(x, weights, psi, masses, multiplier)
    for column in range(6):
        kick = h * np.eye(6)[column].reshape(3, 2)
        difference = (step(psi + kick) - step(psi - kick)).ravel() / (2 * h)
        np.testing.assert_allclose(J[:, column], difference, atol=1e-8)  # h^2 times third derivatives of order ten


def test_an_unknown_backend_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'numba'.*got 'fortran'"):
        get_backend("fortran")


def test_a_missing_cupy_says_what_to_install(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "cupy" else find_spec(name, *rest)
    )
    with pytest.raises(BackendNotAvailableError, match="pip install"):
        get_backend("cupy")
    assert get_backend("auto") is kernels
