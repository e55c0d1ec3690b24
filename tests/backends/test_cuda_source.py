"""The CUDA kernels without a GPU: launch geometry, compilation by NVRTC, and the same source run on the CPU."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from constrained_vae._utils.checks import TooLargeError
from constrained_vae.backends import reference
from constrained_vae.backends.geometry import (
    _PARTIAL,
    _PRODUCTS,
    COLLECT_THREADS,
    COLUMN_THREADS,
    FEW,
    SHARED,
    THREADS,
    arguments,
    geometry,
    options,
)
from constrained_vae.equations import Expectations
from tests.helpers.cuda_emulation import SOURCE, Compiler, compiled, fake_cupy, libraries, signatures
from tests.helpers.linear_form import FORMS, assert_close, assert_identical, make
from tests.helpers.marks import slow

# By default the emulated kernels are run in one case each: that takes a compilation for every precision, number of
# statistics and form of the energies. float32 is covered by small random problems.
DTYPES = [slow(np.float32), np.float64]

# --- geometry -------------------------------------------------------------------------------------------------------

SIZES = [
    *[(N, K, S) for N in (1, 2, 100_000, 10_000_000) for K in (1, 2, 37, 4096, 100_000) for S in (1, 2, 7, 16, 17)],
    (1, 1_000_000, 784),
    (2000, 2000, 784),
    (10_000_000, 1, 3072),
]


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize(("N", "K", "S"), SIZES)
def test_geometry_fits_the_device_and_the_sizes(N, K, S, itemsize):
    plan = geometry(N, K, S, itemsize)
    group, words, padded = plan.macros["GROUP"], plan.words, plan.padded
    assert plan.team in (1, 2, 4, 8, 16, 32)
    assert padded >= K
    assert padded % (group * plan.team) == 0  # no thread of a team reads beyond the last tile
    assert padded < K + max(group * plan.team, 4)
    assert 1 <= plan.encode_blocks < 2**31
    assert THREADS * 16 <= SHARED  # the sums of a block over its threads
    if S <= FEW:
        assert words == S + 1
        assert plan.rows == 0
        tiles, stage, held = (plan.macros[name] for name in ("TILES", "STAGE", "COLUMNS"))
        assert tiles % (group * 32) == 0
        assert (S + 2) * tiles * itemsize + THREADS * 16 <= SHARED
        row = -(-(S + 2) * itemsize // 16) * 16
        assert stage * row + COLUMN_THREADS * 8 <= SHARED
        assert stage >= COLUMN_THREADS  # even teams of one thread have a row each
        assert COLUMN_THREADS % plan.column_team == 0
        shares, sets = plan.accumulate_grid
        assert (sets - 1) * held * plan.column_team < K <= sets * held * plan.column_team
        assert 1 <= shares <= N
        assert 1 <= sets <= 65535
        assert shares == 1 or shares * (S + 1) * padded * 8 <= _PARTIAL
        assert plan.encode_blocks <= -(-N // (THREADS // plan.team * plan.macros["ROWS"]))
    else:
        assert words >= S + 1
        assert words % 4 == padded % 4 == plan.share % 4 == 0
        assert plan.rows % plan.share == 0
        assert plan.rows < N + plan.share
        assert plan.rows * padded <= _PRODUCTS or plan.rows == plan.share


@given(N=st.integers(1, 10**8), K=st.integers(1, 10**6), S=st.integers(1, 2000), itemsize=st.sampled_from([4, 8]))
def test_tiles_are_laid_out_alike_for_any_number_of_rows(N, K, S, itemsize):
    """So that row blocks of different heights share one array of tiles and one compilation."""
    one, other = geometry(N, K, S, itemsize), geometry(1, K, S, itemsize)
    for name in ("macros", "words", "padded", "team", "column_team"):
        assert getattr(one, name) == getattr(other, name)


def test_large_maps_keep_a_large_device_busy():
    """At least eight blocks for each of 132 multiprocessors, in both passes and both precisions."""
    for itemsize in (4, 8):
        plan = geometry(100_000, 4096, 2, itemsize)
        assert plan.encode_blocks >= 8 * 132
        assert np.prod(plan.accumulate_grid) >= 8 * 132


def test_more_tiles_than_a_launch_can_number():
    with pytest.raises(TooLargeError, match="tiles"):
        geometry(1, 10**8, 1, 4)


def test_arguments_have_the_widths_of_the_kernels():
    array = np.zeros(3, np.float32)
    given_back = arguments(3, True, 2.5, np.float64(1), array)
    assert [type(value) for value in given_back] == [np.int64, np.int64, np.float64, np.float64, np.ndarray]
    assert given_back[-1] is array
    assert {kind for kinds in signatures().values() for kind in kinds} == {"Index", "double", "real*", "double*"}


def test_options_say_what_the_source_asks_for():
    names = {option.partition("=")[0] for option in options(geometry(9, 9, 2, 4), np.float32, True)}
    documented = re.findall(
        r"\b[A-Z]{4,}\b", SOURCE.read_text().partition("// Macros fix")[2].partition("using real")[0]
    )
    assert {"--std", "--fmad"} | {f"-D{name}" for name in documented} == names


# --- compilation ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=libraries() or [None], ids=lambda path: path.name if path else "no NVRTC")
def compiler(request):
    if request.param is None:
        pytest.skip("NVRTC is not installed: pip install 'constrained-vae[test]'")
    return Compiler(request.param)


def compile_for(compiler, architecture, S, dtype, differences):
    """What CuPy does, and the resources that the assembler reports for each kernel."""
    plan = geometry(1000, 4096, S, np.dtype(dtype).itemsize)
    cupys = ("-ftz=true", "--device-as-default-execution-space", f"-arch={architecture}")
    given = (*options(plan, dtype, differences), *cupys, "--ptxas-options=-v")
    binary, log = compiler.compile(SOURCE.read_text(), given)
    assert binary.startswith(b"\x7fELF")
    assert not re.search("warning|error", log), log
    found = re.findall(
        r"entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers([^\n]*)",
        log,
        re.S,
    )
    return {name: ([int(n) for n in numbers], rest) for name, *numbers, rest in found}


def check_compilation(compiler, architecture, dtype, sizes):
    threads = {"encode": THREADS, "encode_products": THREADS, "accumulate": COLUMN_THREADS, "pack": 256}
    seen = set()
    for S in sizes:
        for differences in (False, True) if S <= FEW else (False,):
            for name, ((frame, *spills, registers), rest) in compile_for(
                compiler, architecture, S, dtype, differences
            ).items():
                assert frame == 0, f"{name} at S = {S} keeps {frame} bytes per thread in memory, not in registers"
                assert spills == [0, 0]
                assert registers * threads.get(name, COLLECT_THREADS) <= 65536, f"a block of {name} cannot be launched"
                if shared := re.search(r"(\d+) bytes smem", rest):
                    assert int(shared[1]) <= SHARED
                seen.add(name)
    assert seen == set(signatures())


# The widest of each kind of thread that the geometry knows, and matrix products.
@pytest.mark.parametrize("architecture", [slow("sm_80"), "sm_90"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiles_without_warnings_or_spills(compiler, architecture, dtype):
    check_compilation(compiler, architecture, dtype, (2, 4, 8, 16, 17))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_size_compiles_without_warnings_or_spills(compiler, architecture, dtype):
    check_compilation(compiler, architecture, dtype, range(1, FEW + 2))


def test_the_compiler_reports_what_would_be_wrong(compiler):
    with pytest.raises(RuntimeError, match="undefined"):
        compiler.compile("__global__ void f() { g(); }", [])


# --- the same source on the CPU -------------------------------------------------------------------------------------


def on_host(result):
    """The same expectations as NumPy arrays and floats."""
    return Expectations(result.mass.get(), result.sums.get(), float(result.free_energy), float(result.energy))


def solve(backend, *arguments_, **options_):
    return on_host(backend.expectations(*arguments_, **options_))


def both_forms(problem):
    return (None,) if problem.multiplier is None else (None, problem.multiplier)


# One row, one tile; fewer tiles than threads of a team, than a warp, than a block; rows and tiles that nothing divides.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("N", "K", "S"),
    [
        (1037, 67, 2),
        slow(1, 1, 1),
        slow(1, 5, 2),
        slow(300, 1, 2),
        slow(777, 3, 2),
        slow(41, 513, 2),
        slow(130, 130, 9),
        slow(67, 19, 16),
    ],
)
def test_fused_kernels_agree_with_the_naive_loops(emulated, dtype, N, K, S):
    problem = make("gaussian", 1, N, K, S, dead=[0, K - 1] if K > 4 else []).astype(dtype)
    naive = problem.naive()
    for quadratic in both_forms(problem):
        result = solve(emulated, *problem.arguments, quadratic=quadratic)
        assert_close(result, naive, problem)
        assert result.mass.shape == (K,)
        assert result.sums.shape == (K, S)
        assert result.mass.dtype == result.sums.dtype == dtype
        assert result.sums.flags.c_contiguous
    names = [name for name, _, _ in emulated.cupy.launches[-5:]]
    assert names == ["pack", "encode", "accumulate", "collect", "collect"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("N", "K", "S"), [(600, 37, 17), slow(600, 37, 20), slow(1, 1, 17), slow(3, 67, 17), slow(1037, 5, 64)]
)
def test_product_kernels_agree_with_the_naive_loops(emulated, dtype, N, K, S, monkeypatch):
    monkeypatch.setattr("constrained_vae.backends.geometry._SHARE", 256)
    problem = make("gaussian", 2, N, K, S, dead=[0] if K > 4 else []).astype(dtype)
    naive = problem.naive()
    for entries in (2**25, 1):  # one row block; as many as there are shares
        monkeypatch.setattr("constrained_vae.backends.geometry._PRODUCTS", entries)
        assert_close(solve(emulated, *problem.arguments, quadratic=problem.multiplier), naive, problem)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(max_examples=20)
@given(
    form=st.sampled_from(FORMS),
    seed=st.integers(0, 2**32 - 1),
    N=st.integers(1, 40),
    K=st.integers(1, 21),
    S=st.sampled_from([2, 17]),
    log_multiplier=st.floats(-3, 6),
    with_quadratic=st.booleans(),
    n_dead=st.integers(0, 3),
)
def test_any_small_problem(emulated, dtype, form, seed, N, K, S, log_multiplier, with_quadratic, n_dead):
    dead = range(min(n_dead, K - 1))
    problem = make(form, seed, N, K, S, multiplier=np.exp(log_multiplier), dead=dead).astype(dtype)
    result = solve(emulated, *problem.arguments, quadratic=problem.multiplier if with_quadratic else None)
    assert_close(result, problem.naive(), problem)
    assert np.all(result.mass[list(dead)] == 0)
    assert np.all(result.sums[list(dead)] == 0)


def cut(emulated, monkeypatch, macros=(), **changes):
    """Let the geometry be cut otherwise, where the sizes of a test would never need it."""

    def other(*sizes):
        plan = geometry(*sizes)
        return dataclasses.replace(plan, macros=plan.macros | dict(macros), **changes)

    monkeypatch.setattr(emulated, "geometry", other)


@pytest.mark.parametrize("quadratic", [1.0, slow(None)])
def test_many_passes_over_tiles_and_many_stages_of_rows(emulated, monkeypatch, quadratic):
    """Few tiles fit at once, one block encodes all rows, shares are unequal and longer than a stage."""
    problem = make("gaussian", 3, 401, 300, 2, dead=[7])
    naive = problem.naive()
    cut(emulated, monkeypatch, {"TILES": 128, "STAGE": 32}, encode_blocks=1, accumulate_grid=(3, 2))
    assert_close(solve(emulated, *problem.arguments, quadratic=quadratic), naive, problem)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_with_fewer_blocks_than_rows(emulated, dtype, monkeypatch):
    problem = make("gaussian", 4, 50, 70, 17, dead=[69]).astype(dtype)
    for blocks in (1, 9):
        cut(emulated, monkeypatch, encode_blocks=blocks)
        assert_close(solve(emulated, *problem.arguments), problem.naive(), problem)


def in_turn(load, monkeypatch, order, source=None):
    """Results of maps that use every barrier, with threads taking their turns in that order; text where one fails."""
    backend, results = load(order), []
    if source is not None:
        monkeypatch.setattr(backend, "_module", lambda options: backend.cupy.RawModule(source, options))
    # Many passes and stages; many shares of rows; teams smaller than a block; matrix products.
    for N, K, S, shares in [(300, 140, 1, 1), (300, 140, 1, 40), (300, 3, 1, 40), (40, 70, 17, 0)]:
        small = {} if S > FEW else {"TILES": 64, "GROUP": 2, "STAGE": 128}
        cut(backend, monkeypatch, small, encode_blocks=2, accumulate_grid=(shares, 1))
        problem = make("gaussian", 5, N, K, S)
        try:
            result = solve(backend, *problem.arguments)
        except AssertionError as error:
            results.append(str(error))
        else:
            fields = (result.mass, result.sums, result.free_energy, result.energy)
            results.append(b"".join(np.asarray(field).tobytes() for field in fields))
    return results


def test_no_thread_depends_on_the_turns_of_the_others(load, monkeypatch):
    """Bits that change with the order of threads would betray a barrier too few."""
    forwards = in_turn(load, monkeypatch, 0)
    assert all(isinstance(result, bytes) for result in forwards), forwards
    assert in_turn(load, monkeypatch, 1) == forwards
    assert in_turn(load, monkeypatch, 5) == forwards


@pytest.mark.slow
@pytest.mark.parametrize("which", range(8))
def test_every_barrier_is_missed(load, monkeypatch, which):
    """The test above can fail: without any one barrier, the order of threads does matter."""
    source = SOURCE.read_text()
    barriers = [match.span() for match in re.finditer(r"__syncthreads\(\);", source)]
    assert len(barriers) == 8
    start, stop = barriers[which]
    without = source[:start] + source[stop:]
    assert in_turn(load, monkeypatch, 0, without) != in_turn(load, monkeypatch, 1, without)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("S", [2, 17])
def test_rows_where_one_tile_takes_all(emulated, dtype, S):
    """Energies up to 1e300 (float32: 1e30), beyond where exponentials underflow: nothing is NaN, and zero is exact."""
    huge = {np.float64: 1e300, np.float32: 1e30}[dtype]
    b = np.array([-huge, 0.0, -huge, -1e3])
    arguments = (np.ones((5, S)), np.zeros(5), np.full(5, 0.2), np.zeros((4, S)), b, np.log(np.full(4, 0.25)))
    result = solve(emulated, *(array.astype(dtype) for array in arguments))
    eps = float(np.finfo(dtype).eps)
    assert result.mass == pytest.approx([0, 1, 0, 0], rel=8 * eps, abs=0)
    assert result.sums == pytest.approx(np.outer([0, 1, 0, 0], np.ones(S)), rel=8 * eps, abs=0)
    assert result.energy == 0
    assert result.free_energy == pytest.approx(np.log(4), rel=8 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("S", [2, 17])
def test_equal_energies_however_large(emulated, dtype, S):
    huge = {np.float64: 1e300, np.float32: 1e30}[dtype]
    masses = np.array([0.5, 0.3, 0.2])
    arguments = [np.ones((7, S)), np.zeros(7), np.full(7, 1 / 7), np.zeros((3, S)), np.full(3, -huge), np.log(masses)]
    eps = float(np.finfo(dtype).eps)
    result = solve(emulated, *(array.astype(dtype) for array in arguments))
    assert float(result.mass.sum()) == pytest.approx(1, rel=8 * eps)
    assert result.free_energy == pytest.approx(huge, rel=8 * eps)
    assert result.energy == pytest.approx(huge, rel=8 * eps)
    arguments[4] = np.full(3, -4.0)
    result = solve(emulated, *(array.astype(dtype) for array in arguments))
    # A logit log pi + b of a few bits is good to a few eps, and so are mass and energy.
    assert result.mass == pytest.approx(masses, rel=32 * eps)
    assert result.free_energy == pytest.approx(4, rel=32 * eps)
    assert result.energy == pytest.approx(4, rel=32 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("S", [2, 17])
def test_a_dead_tile_weighs_exactly_nothing(emulated, dtype, S):
    """Whatever its energy, be it the lowest of all or infinite."""
    alive = make("gaussian", 3, 20, 4, S).astype(dtype)
    phi, s, rho, v, b, log_masses = alive.arguments
    expected = solve(emulated, *alive.arguments)
    for dead_b in (0.0, 1e30, -1e30, -np.inf, np.inf):
        arguments = (phi, s, rho, np.vstack([v, v[:1]]), np.append(b, dead_b), np.append(log_masses, -np.inf))
        result = solve(emulated, *(array.astype(dtype) for array in arguments))
        assert result.mass[-1] == 0
        assert np.all(result.sums[-1] == 0)
        eps = float(np.finfo(dtype).eps)
        np.testing.assert_allclose(result.mass[:-1], expected.mass, rtol=64 * eps)
        assert result.energy == pytest.approx(expected.energy, rel=64 * eps)
        assert result.free_energy == pytest.approx(expected.free_energy, rel=64 * eps)


@pytest.mark.parametrize(("dtype", "nats"), [slow(np.float32, 60), (np.float64, 650)])
@pytest.mark.parametrize("S", [slow(1), 2, 17])
def test_what_is_flushed_to_zero(emulated, dtype, nats, S):
    """exp(-59) of the largest counts, exp(-61) does not; in double exp(-649) and exp(-651)."""
    b = np.array([0.0, 1 - nats, -1 - nats])
    arguments = (np.ones((1, S)), np.zeros(1), np.ones(1), np.zeros((3, S)), b, np.zeros(3))
    mass = solve(emulated, *(array.astype(dtype) for array in arguments)).mass
    assert mass[1] == pytest.approx(np.exp(1.0 - nats), rel=1e-4 if dtype == np.float32 else 1e-11)
    assert mass[2] == 0


def test_differences_keep_the_accuracy_of_small_energies(emulated):
    """At lambda = 1e10 with tiles 1e-6 away from unit data, the linear form would lose six digits."""
    rng = np.random.default_rng(4)
    x = rng.uniform(-1, 1, size=(30, 2))
    psi = x + 1e-6 * rng.normal(size=x.shape)
    multiplier, rho = 1e10, np.full(30, 1 / 30)
    s, v, b = multiplier * (x**2).sum(1), 2 * multiplier * psi, -multiplier * (psi**2).sum(1)
    result = solve(emulated, x, s, rho, v, b, np.log(rho), quadratic=multiplier)
    H = multiplier * ((x[:, None] - psi) ** 2).sum(-1)
    q = np.exp(-H) / np.exp(-H).sum(1, keepdims=True)
    # As for a difference of the coordinates as given, three times: both coordinates are multiplied by u once more.
    tolerance = 3 * 16 * multiplier * np.abs(x - psi).max() * np.finfo(float).eps
    assert result.energy == pytest.approx((rho[:, None] * q * H).sum(), abs=tolerance)


@pytest.mark.parametrize("S", [2, 17])
def test_not_a_number_is_not_swallowed(emulated, S):
    phi, *others = make("gaussian", 5, 6, 3, S).arguments
    phi[2, 1] = np.nan
    result = solve(emulated, phi, *others)
    assert np.isnan(result.free_energy)
    assert np.isnan(result.energy)


# --- the Python around them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("S", [2, 17])
def test_numpy_arrays_are_moved_in_row_blocks(emulated, monkeypatch, S):
    problem = make("gaussian", 8, 100, 6, S)
    whole = solve(emulated, *problem.arguments)
    monkeypatch.setattr(emulated, "_TRANSFER", 33 * 8 * S)
    emulated.cupy.launches.clear()
    parts = solve(emulated, *problem.arguments)
    assert [name for name, _, _ in emulated.cupy.launches].count("pack") == 1
    assert sum(name.startswith("encode") for name, _, _ in emulated.cupy.launches) == 4
    for field in ("mass", "sums", "free_energy", "energy"):  # the same sums in another order
        np.testing.assert_allclose(getattr(parts, field), getattr(whole, field), rtol=1e-13, atol=1e-15)


def test_results_add_up_and_stay_on_the_device(emulated):
    problem = make("linear", 9, 60, 5, 2)
    phi, s, rho, *tiles = (emulated.cupy.asarray(array) for array in problem.arguments)
    parts = [emulated.expectations(phi[i], s[i], rho[i], *tiles) for i in (np.s_[:23], np.s_[23:])]
    total = parts[0] + parts[1]
    for array in (total.mass, total.sums, total.free_energy, total.energy):
        assert isinstance(array, emulated.cupy.ndarray)
    assert_close(on_host(total), problem.naive(), problem)


@pytest.mark.parametrize("S", [2, 17])
def test_any_layout_is_accepted_and_left_alone(emulated, S):
    problem = make("gaussian", 7, 40, 6, S)
    expected = solve(emulated, *problem.arguments)
    copies = [array.copy() for array in problem.arguments]
    layouts = {
        "read-only": problem.arguments,
        "Fortran": tuple(np.asfortranarray(array) for array in problem.arguments),
        "strided": tuple(np.repeat(array, 2, axis=0)[::2] for array in problem.arguments),
        "reversed": tuple(array[::-1].copy()[::-1] for array in problem.arguments),
        "long": tuple(array.astype(np.longdouble) for array in problem.arguments),
        "device, Fortran": tuple(emulated.cupy.asarray(array).copy(order="F") for array in problem.arguments),
    }
    for array in problem.arguments:
        array.flags.writeable = False
    for arguments_ in layouts.values():
        assert_identical(solve(emulated, *arguments_), expected)
    for array, copy in zip(problem.arguments, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_whole_numbers_are_converted(emulated):
    problem = make("bernoulli", 7, 30, 4, 2)
    phi, *others = problem.arguments
    assert_identical(solve(emulated, phi.astype(np.int8), *others), solve(emulated, phi, *others))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("statistics", lambda x: x.astype(complex), "statistics must hold real numbers, got dtype complex128"),
        ("statistics", lambda x: x[:, 0], r"statistics must have shape \(N, S\)"),
        ("statistics", lambda x: x[:0], r"statistics must have shape \(N, S\).*nothing zero"),
        ("weights", lambda x: x[1:], r"weights must have shape \(10,\).*got \(9,\)"),
        ("offset", lambda x: x.tolist(), "offset must be a NumPy or CuPy array, got list"),
        ("v", lambda x: x.T, r"v must have shape \(4, 2\).*got \(2, 4\)"),
        ("log_masses", lambda x: x[:-1], r"log_masses must have shape \(4,\)"),
    ],
)
def test_arrays_that_are_refused_by_name(emulated, name, change, message):
    names = ("statistics", "offset", "weights", "v", "b", "log_masses")
    given_ = dict(zip(names, make("linear", 1, 10, 4, 2).arguments, strict=True))
    given_[name] = change(given_[name])
    with pytest.raises(ValueError, match=message):
        solve(emulated, **given_)


def test_an_array_on_another_gpu_is_refused(emulated):
    phi, s, *others = make("linear", 1, 10, 4, 2).arguments
    elsewhere = emulated.cupy.asarray(s)
    elsewhere.device = type("Device", (), {"id": 1})
    with pytest.raises(ValueError, match=r"offset lies on GPU 1.*GPU 0 is the current one.*Device\(1\)"):
        solve(emulated, phi, elsewhere, *others)


def test_too_little_memory_names_the_size_and_a_way_out(emulated, monkeypatch):
    def refuse(*_):
        raise emulated.cupy.cuda.memory.OutOfMemoryError("Out of memory allocating 123 bytes")

    monkeypatch.setattr(emulated.cupy, "empty", refuse)
    with pytest.raises(TooLargeError, match=r"10 rows, 4 tiles and 2 statistics.*1.07 GB are free.*row blocks"):
        solve(emulated, *make("linear", 1, 10, 4, 2).arguments)


@pytest.mark.parametrize("name", ["CUPY_TF32", "NVIDIA_TF32_OVERRIDE"])
def test_matrix_products_of_reduced_precision_are_refused(emulated, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(ValueError, match=name):
        solve(emulated, *make("linear", 1, 10, 4, 17).arguments)
    solve(emulated, *make("linear", 1, 10, 4, 2).arguments)  # no such products
    monkeypatch.setenv(name, "0")
    solve(emulated, *make("linear", 1, 10, 4, 17).arguments)


def test_one_compilation_serves_all_sizes(emulated):
    emulated._kernel.cache_clear()
    emulated._module.cache_clear()
    for N, K in [(10, 3), (300, 40), (5, 600)]:
        solve(emulated, *make("linear", 1, N, K, 2).arguments)
    assert emulated._module.cache_info().currsize == 1


def test_the_emulator_finds_what_a_gpu_would_suffer_silently(folder):
    """A barrier that some threads skip, and a write beyond the end of an array."""
    module = fake_cupy(folder)
    array = module.zeros(64)
    kernel = 'extern "C" __global__ void pack(const Index n, double* out) { using Index = long long; BODY }'
    for body, message in [
        ("if (threadIdx.x < 40) __syncthreads();", "barrier that others never reach"),
        ("out[n] = 1;", "wrote beyond the end"),
    ]:
        code = "using Index = long long;\n" + kernel.replace("BODY", body)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.helpers.cuda_emulation.signatures", lambda: {"pack": ["Index", "double*"]})
            with pytest.raises(AssertionError, match=message):
                module._launch(code, ("-DREAL=double",), "pack", (1,), (64,), (np.int64(64), array))
    assert compiled.cache_info().currsize > 0


def test_reference_backend_agrees(emulated):
    """Two implementations that share no line, beyond the sizes of the naive loops."""
    problem = make("gaussian", 12, 900, 50, 2)
    expected = reference.expectations(*problem.arguments)
    for quadratic in both_forms(problem):
        result = solve(emulated, *problem.arguments, quadratic=quadratic)
        for field in ("mass", "sums", "free_energy", "energy"):
            np.testing.assert_allclose(getattr(result, field), getattr(expected, field), rtol=1e-11, atol=1e-14)
