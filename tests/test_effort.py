"""estimate(): the structure of its ranges, and its model of memory; times are not tested, as machines differ."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae import effort
from constrained_vae._utils import memory, progress
from constrained_vae.backends import reference
from constrained_vae.problems.problem import Problem
from constrained_vae.solvers import recorder, timing
from constrained_vae.solvers.options import Options

FLOAT64 = np.dtype(np.float64)


@pytest.fixture
def linear(monkeypatch):
    """The sizes that were measured on a machine on which a map takes 1 us, and 1 ns for each of N K (D + 8)."""
    asked = []  # sizes

    def measured(n, k, d, backend, dtype):
        asked.append((n, k, d))
        return 1e-6 + 1e-9 * n * k * (d + 8)

    monkeypatch.setattr(timing, "_measured", measured)
    monkeypatch.setattr(effort, "_tried_frontier", lambda *_: (2.0, 1.5))
    return asked


def test_the_four_efforts():
    found = cv.estimate(2000, 8, 3, backend="reference")
    assert list(found.efforts) == ["map", "solve", "sweep", "rate_distortion"]
    assert (found.n, found.k, found.d, found.distinct, found.backend) == (2000, 8, 3, 2000, "reference")
    for one in found.efforts.values():
        assert 0 < one.least <= one.most < np.inf
        assert one.bytes >= 8 * 2000 * 3
    assert found.map.least == found.map.most < found.solve.least
    assert found.solve.least < found.sweep.least
    assert found.solve.most < found.sweep.most


def test_the_same_call_measures_nothing(monkeypatch):
    first = cv.estimate(300, 4, 2)
    monkeypatch.setattr(timing, "Problem", None)
    assert cv.estimate(300, 4, 2) == first


@pytest.mark.parametrize("size", [(1000, 16, 2), (10**7, 64, 2), (10**5, 64, 784), (10**6, 10**6, 10), (10, 10, 10**6)])
def test_a_map_is_extrapolated_linearly(linear, size):
    n, k, d = size
    assert timing.map_seconds(n, k, d, "numba", FLOAT64) == pytest.approx(1e-9 * n * k * (d + 8), rel=0.05)
    for rows, tiles, columns in linear:  # what was run is small
        assert rows * columns <= 2**22
        assert tiles * columns <= 2**21


@pytest.mark.parametrize("size", [(50, 2, 1), (5000, 64, 2), (10**6, 64, 64), (10**8, 4096, 784)])
@pytest.mark.parametrize("axis", range(3))
def test_more_rows_tiles_and_columns_take_more(linear, size, axis):
    more = list(size)
    more[axis] *= 20
    one, other = cv.estimate(*size), cv.estimate(*more)
    for name, small in one.efforts.items():
        if not (name == "rate_distortion" and axis == 1):  # the global optimum has as many tiles as it needs
            large = other.efforts[name]
            assert small.least < large.least
            assert small.most < large.most
            assert small.bytes < large.bytes


SIZES = [(1000, 64, 2), (20_000, 256, 2), (200_000, 16, 3), (30_000, 64, 8), (20_000, 64, 16), (1797, 64, 64)]
LARGE = [(20_000, 128, 64), (2000, 16, 784), (2000, 2048, 100), (300, 512, 1000), (1000, 500, 300)]
MANY_TILES = [(1000, 500, 2), (1000, 4000, 5)]


@pytest.mark.parametrize(
    ("size", "dtype"),
    [*((size, np.float64) for size in SIZES + LARGE + MANY_TILES), *((size, np.float32) for size in SIZES[1:])],
)
def test_the_memory_of_a_map_is_what_is_allocated(size, dtype):
    """To a fifth, from the data to the new reconstructions, on the CPU kernels."""
    n, k, d = size
    rng = np.random.default_rng(0)
    log_masses = np.full(k, -np.log(k))

    def peak():
        x, psi = rng.normal(size=(n, d)), rng.normal(size=(k, d))
        problem = Problem.make(x, None, None, "numba", dtype)
        problem.updated_decoder(psi, problem.expectations(psi, log_masses))
        return tracemalloc.get_traced_memory()[1]

    peak()  # loads the kernel, which would count
    tracemalloc.start()
    try:
        allocated = peak()
    finally:
        tracemalloc.stop()
    assert 1 / 1.2 < memory.of_map(n, k, d, np.dtype(dtype).itemsize) / allocated < 1.2


def test_a_solution_needs_no_more_than_is_said():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 2))
    cv.solve(x[:600], beta=0.3, n_tiles=4)
    tracemalloc.start()
    try:
        cv.solve(x, beta=0.3, n_tiles=32, max_maps=30, on_failure="return")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak + x.nbytes < memory.of_solve(3000, 32, 2)


# --- data -------------------------------------------------------------------------------------------------------------


def test_data_tell_how_many_rows_are_distinct(linear):
    x = np.random.default_rng(0).integers(3, size=(4000, 2)).astype(float)
    found = cv.estimate(4000, 4, 2, x=x)
    assert found.distinct == 9
    assert found.map.most < cv.estimate(4000, 4, 2).map.most / 10
    assert "9 of them distinct" in repr(found)
    assert cv.estimate(8000, 4, 2, x=x).distinct == 18  # some of the rows stand for all


@pytest.mark.parametrize(
    ("seen", "expected"), [([60, 90, 120], (40, 480)), ([30, 400, 500], (25, 1000)), ([9, 90, 3000], (9, 3000))]
)
def test_the_numbers_of_maps_are_those_of_some_rows(monkeypatch, linear, seen, expected):
    """From two thirds to four times, and within those of any data if the rows are."""
    monkeypatch.setattr(effort, "_solved", lambda *_: (0.0, seen))
    x = np.random.default_rng(0).normal(size=(40, 2))
    assert effort._tried(Problem.make(x, None, None, "reference"), 40, 4, 2, "reference").maps == expected


def test_data_narrow_the_ranges(monkeypatch, linear):
    """The number of maps is a few times that of the sample, and not any that was ever seen."""
    monkeypatch.setattr(effort, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    x = cv.datasets.four_clusters().x
    found, other = cv.estimate(200, 8, 2, x=x), cv.estimate(200, 8, 2)
    for name in ("solve", "sweep", "rate_distortion"):
        one, wide = found.efforts[name], other.efforts[name]
        assert one.most / one.least < wide.most / wide.least


@pytest.mark.parametrize("done", [True, False])
def test_some_rows_show_how_long_the_frontier_takes(monkeypatch, done):
    """Twice the time that is expected: exactly, or at least where the time limit ends them."""
    clock = iter([0.0, 2 * effort._frontier_seconds(2, 1, "reference")])
    monkeypatch.setattr(effort, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    if not done:
        monkeypatch.setattr(effort, "_FRONTIER_SECONDS", 0.0)
    found = effort._tried_frontier(np.array([[-1.0], [1.0]]), np.full(2, 0.5), "reference")
    assert found == (pytest.approx(2), effort._SPREAD_OF_TRIAL if done else effort._SPREAD)


def test_an_interrupted_trial_ends_the_estimate(linear, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    x = np.random.default_rng(0).normal(size=(50, 2))
    monkeypatch.setattr(reference, "expectations", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cv.estimate(50, 4, 2, x=x, backend="reference")


def test_coincident_points(linear):
    found = cv.estimate(10, 4, 2, x=np.ones((10, 2)))
    assert found.distinct == 1
    assert found.solve.least > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be a whole number of at least 1"),
        ({"k": 1.5}, "k must be a whole number"),
        ({"d": -1}, "d must be a whole number"),
        ({"x": np.zeros((3, 3))}, "x must have d=2 columns, got 3"),
        ({"x": np.arange(22.0).reshape(11, 2)}, "x must be the n=10 rows or some of them, got 11 rows"),
        ({"dtype": int}, "dtype must be float64 or float32"),
        ({"backend": "abacus"}, "backend must be"),
    ],
)
def test_bad_input(linear, arguments, message):
    with pytest.raises(ValueError, match=message):
        cv.estimate(**{"n": 10, "k": 4, "d": 2, **arguments})


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2e-7, "0.2 us"),
        (3.14e-5, "31 us"),
        (0.012, "12 ms"),
        (0.9999, "1 s"),
        (59.0, "59 s"),
        (90.0, "1.5 min"),
        (7200.0, "2 h"),
        (1e7, "116 days"),
    ],
)
def test_times_are_shown_in_their_unit(seconds, text):
    assert cv.Effort(seconds, seconds, 0).time == text


def test_text_and_html(linear):
    found = cv.estimate(1000, 16, 2)
    table = str(found)
    assert [line.split()[0] for line in table.splitlines()[2:]] == list(found.efforts)
    for one in found.efforts.values():
        assert one.time in table
        assert f"<td>{one.time}</td>" in found._repr_html_()
    assert memory.text(found.map.bytes) in repr(found)


# --- progress bars ----------------------------------------------------------------------------------------------------


def test_the_time_left_follows_from_the_share_that_is_done():
    assert progress.left_of_share(10.0, 0.25, (1.0, 2.0)) == ", 30 s to 2.5 min left"
    assert progress.left_of_share(10.0, 0.99, (0.0, 1.0)) == ", less than 1 s left"
    assert progress.left_of_share(10.0, 0.5, (0.0, 1.0)) == ", up to 10 s left"


@pytest.mark.parametrize(("elapsed", "share"), [(1.0, 0.5), (10.0, 0.0)])
def test_no_time_left_is_shown_at_the_beginning(elapsed, share):
    assert progress.left_of_share(elapsed, share, (1.0, 2.0)) == ""


@pytest.mark.parametrize(
    ("maps", "text"), [(10, ", 15 s to 16 min left"), (100, ", up to 15 min left"), (2000, ", up to 1.1 h left")]
)
def test_the_time_left_of_a_solution_is_that_of_the_estimate(monkeypatch, maps, text):
    """A map takes a second: 25 to 1000 of them, and beyond these three times as many as there have been."""
    now = [0.0]
    monkeypatch.setattr(recorder.time, "monotonic", lambda: now[0])
    one = recorder.Recorder(Options(progress=True), None, None)
    one.n_maps, now[0] = maps, float(maps)
    assert one._left() == text


@pytest.mark.parametrize("call", [cv.solve, cv.sweep, cv.rate_distortion])
def test_bars_of_long_work_show_the_time_left(monkeypatch, capsys, linear, call):
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.0)
    options = {"beta": 0.5} if call is cv.solve else {"betas": [0.9, 0.5, 0.3]}
    options |= {} if call is cv.rate_distortion else {"n_tiles": 2}
    call([[-1.0], [1.0]], **options, progress=True)
    assert " left" in capsys.readouterr().err
    assert not linear  # nothing is timed for it


# --- sizes that are refused -------------------------------------------------------------------------------------------


def test_a_size_beyond_the_memory_is_refused_with_the_same_numbers(monkeypatch, linear):
    x = np.random.default_rng(0).normal(size=(50_000, 16))
    found = cv.estimate(50_000, 8, 16)
    needed = found.map.bytes
    monkeypatch.setattr(memory, "physical", lambda: needed - 1.0)
    with pytest.raises(
        cv.TooLargeError,
        match=f"50000 rows, 8 tiles and 16 columns needs {memory.text(needed)}, a solution takes "
        f"{found.solve.time}, and",
    ):
        cv.solve(x, n_tiles=8)
    monkeypatch.setattr(memory, "physical", lambda: float(needed))
    cv.solve(x, n_tiles=8, beta=100.0, max_maps=2, on_failure="return")


def test_rows_that_repeat_need_no_memory(monkeypatch, linear):
    x = np.random.default_rng(0).integers(2, size=(50_000, 4)).astype(float)
    monkeypatch.setattr(memory, "physical", lambda: memory.of_map(50_000, 8, 4) - 1.0)
    cv.solve(x, n_tiles=8, beta=100.0, max_maps=2, on_failure="return")
    assert cv.estimate(50_000, 8, 4, x=x).map.bytes < memory.of_map(50_000, 8, 4) / 2


def test_memory_maps_are_refused_by_their_blocks(monkeypatch, linear, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5000, 2)))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr(memory, "BLOCK", 2**8)
    monkeypatch.setattr(memory, "physical", lambda: 2.0**16)
    cv.solve(x, n_tiles=2, beta=10.0, max_maps=2, on_failure="return")
    with pytest.raises(cv.TooLargeError, match="take fewer tiles"):
        cv.solve(x, n_tiles=2000)
