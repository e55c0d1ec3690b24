"""The GPU backend on a GPU: against the CPU, twice for its bits, at its limits. Elsewhere skipped, with the reason."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import constrained_vae as cv
from constrained_vae._utils.checks import TooLargeError
from constrained_vae.backends import get_backend
from constrained_vae.equations import Expectations
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers.loop import ACCELERATORS
from constrained_vae.solvers.split_condition import split_condition
from tests.helpers.linear_form import FORMS, assert_close, assert_identical, make

pytestmark = pytest.mark.gpu

DTYPES = [np.float32, np.float64]
FIELDS = ("mass", "sums", "free_energy", "energy")


@pytest.fixture(scope="module")
def cp():
    return pytest.importorskip("cupy")


@pytest.fixture(scope="module")
def gpu():
    return get_backend("cupy")


def on_host(result):
    """The same expectations as NumPy arrays and floats."""
    return Expectations(
        result.mass.get(), result.sums.get(), float(result.free_energy.get()), float(result.energy.get())
    )


def solve(gpu, problem, quadratic=None):
    return on_host(gpu.expectations(*problem.arguments, quadratic=quadratic))


# One row, one tile, one statistic; fewer tiles than a team, a warp, a block; sizes that nothing divides; many passes
# over the tiles; many shares of rows; the last S of the fused kernels and the first of the matrix products.
SIZES = [
    (1, 1, 1),
    (1, 5, 2),
    (3000, 1, 2),
    (1037, 67, 3),
    (257, 513, 1),
    (100, 10_007, 2),
    (20_011, 7, 2),
    (501, 131, 16),
    (501, 131, 17),
    (1, 1, 40),
    (1501, 37, 100),
]


@pytest.mark.parametrize(("N", "K", "S"), SIZES)
def test_one_map_agrees_with_the_cpu(gpu, N, K, S):
    """To 1e-12 in float64; the reference is the formula written out, and shares no kernel with either backend."""
    problem = make("gaussian", 1, N, K, S, dead=[0, K - 1] if K > 4 else [])
    expected = get_backend("reference").expectations(*problem.arguments)
    scale = np.abs(problem.arguments[0]).max()
    for quadratic in (None, problem.multiplier):
        result = solve(gpu, problem, quadratic)
        np.testing.assert_allclose(result.mass, expected.mass, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(result.sums, expected.sums, rtol=1e-12, atol=1e-12 * scale)
        assert result.free_energy == pytest.approx(expected.free_energy, rel=1e-12)
        assert result.energy == pytest.approx(expected.energy, rel=1e-12)


@pytest.mark.parametrize(("N", "K", "S"), SIZES)
def test_one_map_in_single_precision(gpu, N, K, S):
    """Where lambda R^2 eps is far below 1, reconstructions agree to 1e-5 of the scale of the data."""
    problem = make("gaussian", 2, N, K, S)
    exact = get_backend("reference").expectations(*problem.arguments)
    phi = problem.arguments[0]
    for quadratic in (None, problem.multiplier):
        result = solve(gpu, problem.astype(np.float32), quadratic)
        assert result.mass.dtype == result.sums.dtype == np.float32
        there = exact.mass > 1e-30  # what is less may have been flushed to zero
        decoder = result.sums[there] / result.mass[there, None]
        expected = exact.sums[there] / exact.mass[there, None]
        np.testing.assert_allclose(decoder, expected, rtol=0, atol=1e-5 * np.abs(phi).max())


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=200)
@given(
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 2**32 - 1),
    N=st.integers(1, 60),
    K=st.integers(1, 40),
    S=st.sampled_from([1, 2, 3, 5, 9, 16, 17]),
    log_multiplier=st.floats(-3, 12),
    with_quadratic=st.booleans(),
    n_dead=st.integers(0, 3),
)
def test_agrees_with_the_naive_loops(gpu, dtype, form, seed, N, K, S, log_multiplier, with_quadratic, n_dead):
    dead = list(range(min(n_dead, K - 1)))
    problem = make(form, seed, N, K, S, multiplier=np.exp(log_multiplier), dead=dead).astype(dtype)
    result = solve(gpu, problem, problem.multiplier if with_quadratic else None)
    assert_close(result, problem.naive(), problem)
    assert np.all(result.mass[dead] == 0)
    assert np.all(result.sums[dead] == 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("N", "K", "S"), [(100_000, 500, 2), (5000, 3000, 16), (5000, 300, 64)])
def test_same_bits_every_time(gpu, dtype, N, K, S):
    problem = make("gaussian", 3, N, K, S).astype(dtype)
    first = solve(gpu, problem, problem.multiplier)
    for _ in range(4):
        assert_identical(solve(gpu, problem, problem.multiplier), first)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("S", [2, 17])
def test_rows_where_one_tile_takes_all(gpu, dtype, S):
    huge = {np.float64: 1e300, np.float32: 1e30}[dtype]
    b = np.array([-huge, 0.0, -huge, -1e3])
    arguments = (np.ones((5, S)), np.zeros(5), np.full(5, 0.2), np.zeros((4, S)), b, np.log(np.full(4, 0.25)))
    result = on_host(gpu.expectations(*(array.astype(dtype) for array in arguments)))
    eps = float(np.finfo(dtype).eps)
    assert result.mass == pytest.approx([0, 1, 0, 0], rel=8 * eps, abs=0)
    assert result.energy == 0
    assert result.free_energy == pytest.approx(np.log(4), rel=8 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("S", [2, 17])
def test_equal_energies_however_large(gpu, dtype, S):
    huge = {np.float64: 1e300, np.float32: 1e30}[dtype]
    log_masses = np.log([0.5, 0.3, 0.2])
    arguments = (np.ones((7, S)), np.zeros(7), np.full(7, 1 / 7), np.zeros((3, S)), np.full(3, -huge), log_masses)
    result = on_host(gpu.expectations(*(array.astype(dtype) for array in arguments)))
    eps = float(np.finfo(dtype).eps)
    assert result.mass.sum(dtype=float) == pytest.approx(1, rel=8 * eps)
    assert result.free_energy == pytest.approx(huge, rel=8 * eps)
    assert result.energy == pytest.approx(huge, rel=8 * eps)


def test_the_exponential_of_float32_is_good_to_some_eps(gpu):
    """q of two tiles at known distances, over all that is not flushed: 2^x alone adds 2 eps, and the energies eps x."""
    x = np.linspace(0, 59, 500)
    b = -x.astype(np.float32)
    arguments = (np.ones((1, 1)), np.zeros(1), np.ones(1), np.zeros((500, 1)), b, np.zeros(500))
    mass = on_host(gpu.expectations(*(array.astype(np.float32) for array in arguments))).mass
    exact = np.exp(b.astype(float))
    eps = float(np.finfo(np.float32).eps)
    np.testing.assert_array_less(np.abs(mass / (exact / exact.sum()) - 1), (8 + 2 * x) * eps)


def test_matrix_products_have_all_their_bits(gpu):
    """With the 11 bits of TF32 this would be wrong by some 1e-3."""
    problem = make("linear", 4, 2000, 300, 64, multiplier=0.1)
    result = solve(gpu, problem.astype(np.float32))
    exact = get_backend("reference").expectations(*problem.arguments)
    np.testing.assert_allclose(result.mass, exact.mass, rtol=3e-5)


@pytest.mark.parametrize("S", [2, 40])
def test_device_arrays_stay_and_host_arrays_stream(cp, gpu, monkeypatch, S):
    problem = make("gaussian", 5, 5000, 60, S)
    on_device = tuple(cp.asarray(array) for array in problem.arguments)
    whole = gpu.expectations(*on_device)
    assert all(isinstance(getattr(whole, field), cp.ndarray) for field in FIELDS)
    assert_identical(on_host(gpu.expectations(*problem.arguments)), on_host(whole))  # one block: the same bits
    monkeypatch.setattr(gpu, "_TRANSFER", 1001 * 8 * S)
    parts = on_host(gpu.expectations(*problem.arguments))
    for field in FIELDS:
        expected = getattr(on_host(whole), field)
        np.testing.assert_allclose(getattr(parts, field), expected, rtol=1e-12, atol=1e-14)


def test_expectations_of_row_blocks_add_up(cp, gpu):
    problem = make("linear", 6, 900, 30, 3)
    phi, s, rho, *tiles = (cp.asarray(array) for array in problem.arguments)
    rows = (slice(0, 311), slice(311, None))
    one, other = (gpu.expectations(phi[i], s[i], rho[i], *tiles) for i in rows)
    assert_close(on_host(one + other), problem.naive(), problem)


def test_reference_backend_runs_on_device_arrays(cp, gpu):
    problem = make("gaussian", 7, 3000, 50, 5)
    on_device = tuple(cp.asarray(array) for array in problem.arguments)
    expected, result = get_backend("reference").expectations(*on_device), gpu.expectations(*on_device)
    for field in FIELDS:
        one, other = (float_or_host(getattr(given_, field)) for given_ in (result, expected))
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def float_or_host(value):
    return value.get() if hasattr(value, "get") else value


@pytest.mark.parametrize("S", [2, 17])
def test_any_layout_is_accepted_and_left_alone(cp, gpu, S):
    problem = make("gaussian", 8, 40, 6, S)
    expected = solve(gpu, problem)
    copies = [array.copy() for array in problem.arguments]
    for array in problem.arguments:
        array.flags.writeable = False
    layouts = {
        "read-only": problem.arguments,
        "Fortran": tuple(np.asfortranarray(array) for array in problem.arguments),
        "strided": tuple(np.repeat(array, 2, axis=0)[::2] for array in problem.arguments),
        "device, Fortran": tuple(cp.asfortranarray(cp.asarray(array)) for array in problem.arguments),
        "device, strided": tuple(cp.repeat(cp.asarray(array), 2, axis=0)[::2] for array in problem.arguments),
    }
    for arguments in layouts.values():
        assert_identical(on_host(gpu.expectations(*arguments)), expected)
    for array, copy in zip(problem.arguments, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_arrays_that_are_refused_by_name(cp, gpu):
    phi, s, rho, *tiles = make("linear", 9, 10, 4, 2).arguments
    with pytest.raises(ValueError, match="weights must have shape"):
        gpu.expectations(phi, s, rho[1:], *tiles)
    with pytest.raises(ValueError, match="statistics must hold real numbers"):
        gpu.expectations(phi.astype(complex), s, rho, *tiles)
    with pytest.raises(ValueError, match="offset must be a NumPy or CuPy array"):
        gpu.expectations(phi, list(s), rho, *tiles)


def test_an_array_on_another_gpu_is_refused(cp, gpu):
    if cp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    phi, s, *others = make("linear", 9, 10, 4, 2).arguments
    with cp.cuda.Device(1):
        elsewhere = cp.asarray(s)
    with pytest.raises(ValueError, match="offset lies on GPU 1"):
        gpu.expectations(phi, elsewhere, *others)


@pytest.mark.parametrize("S", [2, 64])
def test_too_little_memory_names_the_size_and_a_way_out(cp, gpu, S):
    problem = make("linear", 10, 20_000, 300, S)
    on_device = tuple(cp.asarray(array) for array in problem.arguments)
    pool = cp.get_default_memory_pool()
    pool.free_all_blocks()
    before = pool.get_limit()
    pool.set_limit(size=pool.used_bytes() + 2**16)
    try:
        with pytest.raises(TooLargeError, match=rf"20000 rows, 300 tiles and {S} statistics.*row blocks"):
            gpu.expectations(*on_device)
    finally:
        pool.set_limit(size=before)
    gpu.expectations(*on_device)  # and nothing is left broken


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_keep_to_registers_on_this_device(gpu, dtype):
    for S in (1, 2, 4, 8, 16, 17):
        gpu.expectations(*make("linear", 11, 50, 7, S).astype(dtype).arguments)
    names = set()
    for options in list(gpu_options(gpu)):
        for name in ("pack", "encode", "accumulate", "collect", "encode_products", "collect_products"):
            if ("products" in name) == ("-DSTATISTICS=0" in options) or name in ("pack", "collect"):
                kernel = gpu._kernel(options, name)
                assert kernel.local_size_bytes == 0, f"{name} with {options} spills"
                names.add(name)
    assert len(names) == 6


def gpu_options(gpu):
    """Compiler options of a kernel per kind of thread."""
    for S in (1, 2, 4, 8, 16, 17):
        for dtype in DTYPES:
            plan = gpu.geometry(50, 7, S, np.dtype(dtype).itemsize)
            yield gpu.options(plan, dtype, False)


# --- the whole solver -------------------------------------------------------------------------------------------------

either_masses = pytest.mark.parametrize("masses", ["fixed", "free"])
either_likelihood = pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
GRIDS = {"gaussian": (0.02, 0.25), "bernoulli": (0.2, 1.1)}  # across the first transitions


@pytest.fixture
def x(rng):
    """Three clouds in the unit cube."""
    return np.concatenate([0.07 * rng.normal(size=(200, 3)) + centre for centre in (0.2, 0.5, 0.8)]).clip(0, 1)


def assert_same_solution(one, two):
    """Of two points that converged each its own way: F is stationary, all else is good to the tolerance, 1e-10."""
    assert one.converged
    assert one.free_energy == pytest.approx(two.free_energy, rel=1e-11)
    assert one.split_condition == pytest.approx(two.split_condition, abs=1e-7)
    assert one.distortion == pytest.approx(two.distortion, rel=1e-7)
    assert isinstance(one.decoder, np.ndarray)
    np.testing.assert_allclose(one.decoder, two.decoder, rtol=0, atol=1e-8)
    np.testing.assert_allclose(one.marginal, two.marginal, rtol=0, atol=1e-7)


@pytest.mark.parametrize("accelerate", ACCELERATORS)
@either_masses
def test_solutions_are_those_of_the_reference(gpu, x, accelerate, masses):
    """From converged reconstructions nearby, so that all end in the same minimum."""
    options = {"tiling": cv.Tiling.uniform(6), "masses": masses}
    start = cv.solve(x, beta=0.02, backend="reference", **options)
    one, two = (
        cv.solve(x, beta=0.019, start=start, accelerate=accelerate, backend=name, **options)
        for name in ("cupy", "reference")
    )
    assert_same_solution(one, two)


@either_masses
@either_likelihood
def test_sweeps_are_those_of_the_reference(gpu, x, masses, likelihood):
    options = {"betas": np.geomspace(*GRIDS[likelihood], 6), "tiling": cv.Tiling.uniform(5), "masses": masses}
    one, two = (cv.sweep(x, cv.ELBO(likelihood=likelihood), backend=name, **options) for name in ("cupy", "reference"))
    assert one.n_distinct.max() > 1
    for a, b in zip(one, two, strict=True):
        assert_same_solution(a, b)


def test_a_sweep_has_the_same_bits_every_time(gpu, x):
    one, two = (cv.sweep(x, betas=[0.03, 0.1], n_tiles=5, backend="cupy") for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.decoder, b.decoder)
        assert (a.free_energy, a.n_maps) == (b.free_energy, b.n_maps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_data_are_uploaded_once_in_a_sweep(gpu, x, monkeypatch, dtype):
    sizes, move = [], gpu._on_device

    def counted(array, *others):
        sizes.extend([array.size] if isinstance(array, np.ndarray) else [])
        return move(array, *others)

    monkeypatch.setattr(gpu, "_on_device", counted)
    branch = cv.sweep(x, betas=[0.03, 0.1], n_tiles=5, dtype=dtype, tol=1e-5, backend="cupy")
    assert sum(s.n_maps for s in branch) > 20
    assert sorted(size for size in sizes if size > 5 * 3) == [len(x), x.size]


@either_likelihood
def test_data_beyond_the_free_memory_stream(gpu, x, monkeypatch, likelihood):
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 300)  # a hundred rows at a time
    options = {"start": x[:4], "tiling": cv.Tiling.uniform(4), "max_maps": 30, "on_failure": "return"}
    objective = cv.ELBO(GRIDS[likelihood][0], likelihood=likelihood)
    kept = cv.solve(x, objective, backend="cupy", accelerate="plain", **options)
    monkeypatch.setattr(gpu, "free_memory", lambda: x.nbytes)
    streamed = cv.solve(x, objective, backend="cupy", accelerate="plain", **options)
    np.testing.assert_allclose(streamed.decoder, kept.decoder, rtol=1e-11)


def test_the_free_memory_is_that_of_the_device(cp, gpu):
    free, total = cp.cuda.runtime.memGetInfo()
    assert free <= gpu.free_memory() <= total


@pytest.mark.parametrize("D", [3, 140])
def test_the_split_condition_is_that_of_the_reference(gpu, rng, D):
    """With covariances, and beyond 128 dimensions by Lanczos."""
    x, psi = rng.normal(size=(500, D)), rng.normal(size=(7, D)) / np.sqrt(D)
    one, two = (
        split_condition(Problem.make(x, cv.ELBO(0.5), None, name, None), psi, np.log(np.full(7, 1 / 7)))
        for name in ("cupy", "reference")
    )
    assert one.top == pytest.approx(two.top, rel=1e-10)
    assert one.site == two.site
    np.testing.assert_allclose(one.axis, two.axis, rtol=0, atol=1e-6)


def test_the_map_stays_on_the_device(cp, gpu, x):
    problem = Problem.make(x, cv.ELBO(0.1), None, "cupy", None)
    psi, log_masses = problem.data.to_device(x[:4]), problem.data.to_device(np.log(np.full(4, 0.25)))
    assert problem.data.to_device(psi) is psi
    result = problem.expectations(psi, log_masses)
    for array in (result.mass, result.sums, result.free_energy, result.energy, problem.updated_decoder(psi, result)):
        assert isinstance(array, cp.ndarray)
        assert array.dtype == np.float64


def test_arrays_of_host_and_device_are_not_mixed(cp, gpu):
    phi, *others = make("linear", 9, 10, 4, 2).arguments
    with pytest.raises(ValueError, match=r"must lie together.*statistics on a device"):
        get_backend("reference").expectations(cp.asarray(phi), *others)
