"""analysis.benchmarks from outside: every method computes the same map; what the table, the JSON and the picture say.

No test asserts a time that was measured: where times matter they are made up.
"""

import argparse
import json
import math
import warnings

import numpy as np
import pytest

from analysis.benchmarks import _floor, _methods, _process, _tasks, map as benchmark
from analysis.benchmarks._methods import METHODS, Case, MissingError
from constrained_vae.testing import naive_expectations
from tests.helpers.marks import slow

N, K = 60, 7
SOFT = [name for name in METHODS if name != "kmeans"]


@pytest.fixture(autouse=True)
def restore():
    """The threads of BLAS, which a k-means benchmark leaves as k-means sets them."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    with ThreadpoolController().limit():
        yield


class Weighted(Case):
    """Points of unequal weight, which only a mixture cannot have."""

    @property
    def weights(self):
        weights = np.arange(1.0, len(self.x) + 1)
        return weights / weights.sum()


def case_for(name, *size):
    return (Case if name == "mixture" else Weighted).make(*size)


def prepared(name, case):
    try:
        return METHODS[name].prepare(case, 2)
    except MissingError as error:
        pytest.skip(str(error))


def oracle(case):
    masses = np.full(len(case.psi), 1 / len(case.psi))
    return naive_expectations(case.x, case.weights, case.psi, masses, 1 / (2 * case.multiplier))


def check(result, case):
    """Sums of N terms of at most a few nats or units, some ulps each: 1e-5 leaves float32 a factor of ten."""
    exact = oracle(case)
    tolerance = 1e-12 if case.dtype == np.float64 else 1e-5
    given = {name: np.asarray(value.get() if hasattr(value, "get") else value) for name, value in result.items()}
    assert given["mass"].dtype == case.dtype
    np.testing.assert_allclose(given["mass"], exact.mass, atol=tolerance)
    if "sums" in given:
        np.testing.assert_allclose(given["sums"], exact.sums, atol=tolerance)
    else:
        # The mixture adds ten ulps of float64 to the masses that it divides by.
        np.testing.assert_allclose(given["decoder"], exact.sums / exact.mass[:, None], atol=10 * tolerance)
    for name in ("free_energy", "energy"):
        if name in given:
            assert float(given[name]) == pytest.approx(getattr(exact, name), abs=10 * tolerance)
    assert "free_energy" in given


@pytest.mark.parametrize("dtype", benchmark.DTYPES)
@pytest.mark.parametrize("D", [2, 12])
@pytest.mark.parametrize("name", SOFT)
def test_methods_compute_the_map(name, D, dtype):
    case = case_for(name, N, K, D, dtype)
    evaluate = prepared(name, case)
    for _ in range(2):  # an evaluation leaves nothing behind for the next
        check(evaluate(), case)


@pytest.mark.parametrize("rows", [1, 7, 59, 1000])
@pytest.mark.parametrize("name", ["torch", "torch-blocks", "jax", "jax-blocks"])
def test_methods_compute_the_map_in_blocks(name, rows, monkeypatch):
    monkeypatch.setattr(_methods, "_BLOCKS", (rows * K,))
    monkeypatch.setattr(_methods, "_WHOLE", rows * K)
    case = case_for(name, N, K, 3, "float64")
    check(prepared(name, case)(), case)


@pytest.mark.parametrize("dtype", benchmark.DTYPES)
def test_kmeans_is_one_lloyd_step(dtype):
    """As the public estimator makes it, and as a loop over points does."""
    from sklearn.cluster import KMeans

    case = Case.make(N, K, 3, dtype)
    evaluate = prepared("kmeans", case)
    evaluate()
    result = evaluate()
    x, psi = case.x.astype(dtype), case.psi.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one iteration does not converge
        public = KMeans(K, init=psi, n_init=1, max_iter=1, algorithm="lloyd").fit(x)
    # The estimator centres its data: some ulps of numbers of size one.
    tolerance = 100 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(result["decoder"], public.cluster_centers_, atol=tolerance)
    nearest = np.array([min(range(K), key=lambda a: math.dist(row, psi[a])) for row in x])
    assert set(nearest) == set(range(K))  # no tile is empty
    for a in range(K):
        assert result["mass"][a] == pytest.approx(np.mean(nearest == a), rel=tolerance)
        np.testing.assert_allclose(result["decoder"][a], x[nearest == a].mean(axis=0), atol=tolerance)


def test_blocks_are_the_fastest(monkeypatch):
    """With a clock that calls the third of four block sizes the fastest."""
    case, seen = Case.make(N, K, 2, "float64"), []
    monkeypatch.setattr(_methods, "_BLOCKS", (70, 140, 210, 280, 10**6))
    monkeypatch.setattr(_methods, "wall_clock", lambda evaluate: abs(evaluate() - 200))

    def prepare(some, block):
        seen.append(block)
        assert len(some.x) <= N
        return lambda: block

    assert _methods._fastest(case, prepare) == 210
    assert seen == [70, 140, 210, 280]  # the last is more than there is


def test_a_missing_library_is_a_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingError, match=r"PyTorch is not installed .*constrained-vae\[bench\]"):
        METHODS["torch"].prepare(Case.make(4, 2, 2, "float64"), 1)
    assert "not installed" in _tasks.measure("torch", [4, 2, 2], "float64", 1)["missing"]


@pytest.mark.parametrize(("D", "operations"), [(2, 7), (8, 25), (9, 38), (12, 50)])
def test_floor_adds_exponentials_and_arithmetic(D, operations, monkeypatch):
    monkeypatch.setattr(_floor, "_exp_rate", lambda *_: 10.0)
    monkeypatch.setattr(_floor, "_multiply_add_rate", lambda *_: 100.0)
    monkeypatch.setattr(_floor, "_product_rate", lambda *_: 100.0)
    assert _floor.floor(3, 5, D, "float64", 2)["seconds"] == pytest.approx(15 / 10 + 15 * operations / 100)


@pytest.mark.parametrize("dtype", ["float64", slow("float32")])
def test_floor_kernels_do_what_they_count(dtype):
    """The fixed point of x = -exp(x), of y = y / 2 + 1 / 2, and the two matrix products."""
    real = np.dtype(dtype).type
    eps = np.finfo(dtype).eps
    buffers = np.full((2, 16), -0.5, dtype)
    _floor._exponentials(buffers, 1)
    np.testing.assert_allclose(buffers, -np.exp(real(-0.5)), rtol=4 * eps)
    chains = _floor._CHAINS_64 if dtype == "float64" else _floor._CHAINS_32
    buffers = np.full((2, 16), 0.5, dtype)
    chains(buffers, 1)
    assert np.all(buffers == 1 - real(0.5) ** (_floor._LENGTH + 1))  # exact in both precisions
    rng = np.random.default_rng(0)
    v, phi, weighted = (rng.normal(size=shape).astype(dtype) for shape in ((3, 5), (2, 4, 3), (2, 4, 4)))
    q, sums = np.zeros((2, 4, 5), dtype), np.zeros((2, 4, 5), dtype)
    _floor._products(v, phi, weighted, q, sums, 2)
    np.testing.assert_allclose(q, phi @ v, atol=20 * eps)
    np.testing.assert_allclose(sums, weighted.transpose(0, 2, 1) @ (phi @ v), atol=100 * eps)


def test_worker_measures_in_a_process_of_its_own():
    arguments = {"method": "numba", "size": [200, 16, 2], "dtype": "float64"}
    result = _process.elsewhere("measure", arguments, 1)
    assert len(result["seconds"]) >= 3
    assert min(result["seconds"]) > 0
    assert result["extra_bytes"] is None or result["extra_bytes"] >= 0
    growth = _process.elsewhere("growth", {"method": "numba", "sizes": [[9, 4, 2], [8, 4, 2]], "dtype": "float32"}, 1)
    assert [len(column) for column in growth["seconds"]] == [5, 5]
    with pytest.raises(RuntimeError, match="no such method"):
        _process.elsewhere("measure", arguments | {"method": "no such method"}, 1)


@pytest.mark.parametrize(("each", "times"), [(0.01, 25), (0.25, 4), (0.5, 3), (3.0, 3), (5.0, 2), (50.0, 1)])
def test_evaluations_are_repeated_within_reason(each, times):
    assert _tasks._timings(lambda: each) == [each] * times


def test_extra_memory_is_what_the_map_takes():
    if _tasks._extra_bytes(lambda: None) is None:
        pytest.skip("this system does not tell the peak of a process")

    def allocate():
        np.ones(4_000_000)  # 32 MB, freed at once

    assert _tasks._extra_bytes(allocate) == pytest.approx(32e6, abs=1e6)
    assert _tasks._extra_bytes(lambda: None) < 1e6


SECONDS = {"numba": [1.0, 2.0, 3.0], "mixture": [30.0, 20.0, 40.0], "jax": [5.0]}


def made_up(task, arguments, threads):
    """A measurement that says what it was asked for, in place of a process."""
    assert threads == 3
    size = arguments.get("size", [1, 1, 1])
    if task == "floor":
        return {"seconds": 0.5, "exp_rate": 2e9, "operation": "multiply-adds", "operation_rate": 3e9}
    if task == "growth":
        sizes = np.array(arguments["sizes"], float)
        return {"seconds": [[2.0 * t, t, 0.5 * t] for t in sizes.prod(axis=1) * 1e-6]}
    if arguments["method"] not in SECONDS:
        return {"missing": f"no {arguments['method']} here"}
    return {"seconds": SECONDS[arguments["method"]], "extra_bytes": 1_000_000 * size[2]}


@pytest.fixture
def results():
    methods = ["numba", "mixture", "torch", "jax"]
    return benchmark.compute(
        [[100, 10, 2], [50, 10, 64]], ["float64", "float32"], methods, 2, 3, benchmark.growth_series(True), run=made_up
    )


def test_results_hold_medians_ratios_and_fractions(results):
    assert results == json.loads(json.dumps(results))
    assert results["missing"] == {"torch": "no torch here"}
    assert len(results["maps"]) == 2 * 2 * 4  # sizes, dtypes, three methods and the floor
    by_name = {record["method"]: record for record in results["maps"] if record["size"] == [50, 10, 64]}
    assert list(by_name) == ["numba", "floor", "mixture", "jax"]
    assert by_name["mixture"]["seconds"] == {"median": 30.0, "lower": 22.5, "upper": 37.5, "count": 6}
    assert by_name["mixture"]["ratio"]["median"] == 15
    assert by_name["numba"]["floor_fraction"]["median"] == 0.25
    assert by_name["numba"]["extra_bytes"] == 64_000_000
    assert by_name["floor"]["exp_rate"] == 2e9
    assert results["versions"]["numba"]
    assert set(results["machine"]) >= {"cpu", "cores"}
    growth = {(g["series"], g["dtype"]): g for g in results["growth"]}
    assert len(growth) == 10
    for grown in growth.values():  # times made proportional to N K D
        assert grown["exponent"] == pytest.approx(1)
        assert grown["off_line"] < 1e-10


def test_ratios_are_taken_within_a_round():
    """A second round on a machine ten times slower changes no ratio."""
    rounds = [
        {"numba": {"seconds": [slow]}, "jax": {"seconds": [2 * slow]}, "floor": {"seconds": [slow / 2]}}
        for slow in (1.0, 10.0)
    ]
    jax = benchmark.summary([1, 1, 1], "float64", rounds)[1]
    assert jax["ratio"] == {"median": 2, "lower": 2, "upper": 2, "count": 2}
    assert jax["floor_fraction"]["median"] == 0.25


def test_methods_on_a_gpu_are_compared_there():
    seconds = {"numba": 8.0, "floor": 4.0, "cupy": 2.0, "gpu floor": 1.0, "torch-cuda": 6.0}
    records = benchmark.summary([1, 1, 1], "float64", [{name: {"seconds": [s]} for name, s in seconds.items()}])
    ratios = {record["method"]: record["ratio"]["median"] for record in records}
    assert ratios == {"numba": 1, "floor": 0.5, "cupy": 1, "gpu floor": 0.5, "torch-cuda": 3}
    assert records[-1]["floor_fraction"]["median"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("varied", [0, 1, 2])
def test_growth_tells_exponents_and_straight_lines(varied):
    series = np.full((5, 3), 7)
    series[:, varied] = n = 2 ** np.arange(3, 8)
    quadratic = benchmark.fit(series.tolist(), (0.1 * n**2).tolist())
    assert quadratic["exponent"] == pytest.approx(2)
    assert quadratic["off_line"] > 0.1
    with_overhead = benchmark.fit(series.tolist(), (3.0 + 0.1 * n).tolist())
    assert with_overhead["exponent"] < 0.9
    assert with_overhead["off_line"] < 1e-10


def test_series_grow_in_one_size():
    for quick in (True, False):
        for name, series in benchmark.growth_series(quick).items():
            varied = np.ptp(series, axis=0) > 0
            assert varied.tolist() == [name[0] == axis for axis in "NKD"]


def test_table_shows_every_record(results):
    table = benchmark.table(results)
    lines = table.splitlines()
    assert "without torch: no torch here" in lines
    row = next(line for line in lines if "mixture" in line and "50, 10, 64" in line and "float32" in line)
    assert row.split()[-6:] == ["30000.00", "[22500.00,", "37500.00]", "15.00", "2%", "64.0"]
    row = next(line for line in lines if " numba " in line and "100, 10, 2 float64" in line)
    assert row.endswith("25%      2.0 (16.0)")
    assert "2.00 G exponentials/s, 3.0 G multiply-adds/s" in table
    assert sum("growth" in line or line.startswith(("N at", "K at", "D ")) for line in lines) == 11


def test_writes_json_and_picture(results, tmp_path):
    benchmark.write(tmp_path / "new", results)
    assert json.loads((tmp_path / "new" / "results" / "map.json").read_text()) == results
    assert (tmp_path / "new" / "figures" / "map.png").read_bytes().startswith(b"\x89PNG")


def test_picture_draws_the_results(results):
    from analysis.benchmarks._picture import draw

    figure = draw(results)
    above, below = figure.axes
    drawn = {tuple(line.get_xdata()) for line in above.lines}
    assert {(500.0, 500.0), (2000.0,), (30000.0,), (5000.0,)} == drawn  # floor, ours, the others, in milliseconds
    assert [text.get_text() for text in above.get_yticklabels()] == ["100, 10, 2", "50, 10, 64"]
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels == ["this project", "floor", "GaussianMixture", "JAX"]
    ours, floor = below.lines[:2]
    series = next(g for g in results["growth"] if g["series"] == "N at D = 2" and g["dtype"] == "float64")
    np.testing.assert_allclose(ours.get_ydata(), 1e3 * np.array(series["seconds"]))
    entries = np.prod(np.array(series["sizes"])[:, :2], axis=1)
    np.testing.assert_allclose(floor.get_ydata(), 500.0 / 1000 * entries)


def test_picture_without_growth_or_floor(results):
    from analysis.benchmarks._picture import draw

    maps = [record for record in results["maps"] if record["method"] == "mixture"]
    draw(results | {"maps": maps, "growth": []}).canvas.draw()


def test_options(monkeypatch, tmp_path, capsys):
    asked = {}
    compute = benchmark.compute

    def recorded(sizes, dtypes, methods, rounds, threads, growth):
        asked.update(sizes=sizes, dtypes=dtypes, methods=methods, rounds=rounds, threads=threads)
        return compute(sizes, dtypes, methods, rounds, 3, {}, run=made_up)

    monkeypatch.setattr(benchmark, "compute", recorded)
    options = ["--sizes", "3,4,5", "6,7,8", "--rounds", "2", "--methods", "numba", "--dtypes", "float32"]
    assert benchmark.main([*options, "--threads", "1", "--out", str(tmp_path)]) == 0
    assert asked == {
        "sizes": [[3, 4, 5], [6, 7, 8]],
        "dtypes": ["float32"],
        "methods": ["numba"],
        "rounds": 2,
        "threads": 1,
    }
    assert (tmp_path / "results" / "map.json").exists()
    written = []
    monkeypatch.setattr(benchmark, "write", lambda out, results: written.append(out))
    benchmark.main(["--quick"])
    assert asked["rounds"] == 1
    benchmark.main(["--methods", "numba"])
    assert not written  # nor is a committed result overwritten by part of one
    benchmark.main([])
    assert asked["sizes"] == [list(size) for size in benchmark.SIZES]
    assert [out.name for out in written] == ["benchmarks"]
    assert "ms per map" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["1,2", "1,2,0", "a,b,c", "1,2,3,4", "1.5,2,3", ""])
def test_bad_sizes_are_named(text, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match="three positive integers, got"):
        benchmark.parse_size(text)
    with pytest.raises(SystemExit):
        benchmark.main(["--sizes", text])
    assert "a size is N,K,D" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--rounds", "0"], ["--threads", "-1"], ["--methods", "what"]])
def test_bad_options_are_named(option, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(option)
    assert option[1] in capsys.readouterr().err
