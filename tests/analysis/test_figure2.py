"""analysis.figure2 from outside: arrays, table, options, Ctrl-C."""

import itertools

import numpy as np
import pytest

import constrained_vae as cv
from analysis import figure2
from constrained_vae.backends import reference
from tests.helpers.figures import run


def test_arrays_are_those_of_the_library(drawn):
    _, arrays, settings, text = drawn(figure2)
    assert settings["data"] == "four_clusters"
    assert settings["n_tiles"] == 8
    np.testing.assert_allclose(arrays["betas"], np.geomspace(0.16, 11, 60))
    branch = cv.sweep(cv.datasets.four_clusters().x, betas=arrays["betas"], n_tiles=8, backend="reference")
    np.testing.assert_array_equal(arrays["distortion"], branch.distortion[::-1])
    assert [float(p) for p in branch.peaks(k=3)] == arrays["peaks"][:3, 0].tolist()
    assert "beta_c^3" in text
    assert "9.0156" in text


def test_panels_lie_below_between_and_above_and_end_at_fixed_points(drawn):
    arrays = drawn(figure2).arrays
    betas = [float(arrays[f"panel{n}_beta"]) for n in range(4)]
    critical = np.sort(arrays["peaks"][:3, 0])
    assert all(
        low < beta < high for beta, (low, high) in zip(betas, itertools.pairwise([0, *critical, 20]), strict=True)
    )
    assert [len(arrays[f"panel{n}_fixed_points"]) for n in range(4)] == [4, 3, 2, 1]
    for n in range(4):
        ends, fixed_points = arrays[f"panel{n}_paths"][-1], arrays[f"panel{n}_fixed_points"]
        distance = np.linalg.norm(ends[:, None] - fixed_points, axis=2).min(axis=1)
        assert distance.max() < 1e-5


def test_the_table_has_exact_and_detected(drawn):
    _, arrays, settings, text = drawn(figure2)
    x, grid = cv.datasets.four_clusters().x, arrays["betas"]
    found = cv.transitions(x, beta_range=(grid[0], grid[-1]), n_tiles=8, backend="reference")
    np.testing.assert_array_equal(arrays["exact"][:, 0], [t.beta for t in found])
    assert settings["exact"] == 16
    lines = text.splitlines()
    step = (11 / 0.16) ** (1 / 59) - 1
    for line, t, name in zip(lines[1:4], found, ["beta_c^3", "beta_c^2", "beta_c^1"], strict=True):
        beta = arrays["peaks"][int(name[-1]) - 1, 0]
        assert line.split() == [
            name, f"{t.beta:.9g}", "continuous", f"{beta:.6g}", f"{beta / t.beta - 1:+.2%}", f"{step:.2%}"
        ]  # fmt: skip
    assert lines[4].startswith("wrote")


def table_of(exact, peaks, matches, reached=1.0):
    """All but the head of a table."""
    arrays = {
        "betas": np.array([1.0, 20.0]),
        "first_critical_beta": np.array(9.0),
        "exact": np.array([(b, b, 0, 1, 2) for b in exact]).reshape(-1, 5),
        "kind": np.array(["continuous"] * len(exact), dtype=str),
        "peaks": np.array([(b, 1.0, 0.9 * b, 1.1 * b) for b in peaks]).reshape(-1, 4),
        "matches": np.array(matches, dtype=int).reshape(-1, 2),
        "reached": np.array(reached),
    }
    return [line.split() for line in figure2.table(arrays).splitlines()[1:]]


def test_what_was_missed_is_said_so():
    assert table_of([9.0], [], [(-1, 0)]) == [["9", "continuous", "none"]]
    # Peaks beyond the three highest are shown where they are a transition, and only there.
    rows = table_of([9.0], [2, 3, 4, 9.1, 1.5], [(3, 0), (2, -1), (1, -1), (0, -1), (4, -1)])
    assert [row[:2] for row in rows] == [
        ["9", "continuous"],
        ["beta_c^3", "none"],
        ["beta_c^2", "none"],
        ["beta_c^1", "none"],
    ]
    assert rows[0][2:4] == ["9.1", "+1.11%"]
    *rows, last = table_of([9.0, 5.0], [4, 6], [(-1, 0), (1, -1), (-1, 1), (0, -1)], reached=5.0)
    assert [row[:3] for row in rows] == [
        ["9", "continuous", "none"],
        ["beta_c^2", "none", "6"],
        ["5", "continuous", "none"],
        ["beta_c^1", "not", "sought"],
    ]
    assert " ".join(last) == "Exact transitions were looked for down to beta = 5 only, the limit of their number."
    assert table_of([], [], []) == [["none", "none"], "The first critical beta is 9, exactly.".split()]


def test_the_search_is_bounded(tmp_path, capsys, monkeypatch):
    few = ["--betas", "0.5:11:20"]
    _, arrays, _ = run(figure2, tmp_path, *few, "--exact", "2")
    assert len(arrays["exact"]) == 2
    assert "looked for down to beta = 1.57811 only" in capsys.readouterr().out
    # Of a grid below the first transition, transitions above count too, and the first critical beta is told.
    _, arrays, _ = run(figure2, tmp_path, "--betas", "0.5:3:20", "--exact", "2")
    assert len(arrays["exact"]) == 1
    assert "The first critical beta is 9.015625, exactly." in capsys.readouterr().out
    monkeypatch.setattr(figure2, "_MANY", 100)  # four clusters are large data
    assert run(figure2, tmp_path, *few)[2]["exact"] == 3


@pytest.mark.parametrize("dim", [1, 5])
def test_other_dimensions_are_drawn_in_the_plane(tmp_path, rng, dim):
    np.save(tmp_path / "x.npy", rng.normal(size=(20, dim)) * np.arange(1, dim + 1))
    options = ["--data", str(tmp_path / "x.npy"), "--betas", "0.3:40:20", "--n-tiles", "4", "--exact", "1"]
    status, arrays, settings = run(figure2, tmp_path, *options)
    assert status == 0
    assert settings["dim"] == dim
    assert arrays["axes"].tolist() == {1: ["$x_1$", ""], 5: ["principal component 1", "principal component 2"]}[dim]
    assert arrays["points"].shape == (20, 2)
    if dim > 1:  # principal components: uncorrelated, the first of largest variance
        covariance = np.cov(arrays["points"].T)
        assert covariance[0, 0] > covariance[1, 1]
        assert abs(covariance[0, 1]) < 1e-12 * covariance[0, 0]


def test_a_csv_with_text_in_it_is_refused(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("a,b\n1,2\nx,3\n")
    status, _, _ = run(figure2, tmp_path, "--data", str(tmp_path / "x.csv"))
    assert status == 2
    assert "got 'x' at row 3, column 'a'" in capsys.readouterr().err


def test_temperatures_are_those_of_the_data_unless_given(tmp_path):
    (tmp_path / "x.csv").write_text("1,2\n3,4\n5,7\n")
    options = ["--n-tiles", "3", "--backend", "reference", "--data", str(tmp_path / "x.csv")]
    status, arrays, _ = run(figure2, tmp_path, *options, small=[])
    assert status == 0
    assert len(arrays["betas"]) == 240
    low, high = arrays["betas"][[0, -1]]
    assert low < cv.first_critical_beta(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]])) < high


@pytest.mark.filterwarnings("ignore:interrupted")  # the sweep says so, and so does the command
def test_ctrl_c_in_the_sweep_keeps_what_there_is(tmp_path, monkeypatch, capsys):
    problem_map, calls = reference.expectations, itertools.count()

    def interrupted(*arguments):
        if next(calls) == 40:
            raise KeyboardInterrupt
        return problem_map(*arguments)

    monkeypatch.setattr(reference, "expectations", interrupted)
    status, arrays, settings = run(figure2, tmp_path)
    assert status == 130
    assert settings["interrupted"]
    assert 0 < len(arrays["betas"]) < 60
    assert "panel0_beta" not in arrays
    assert "interrupted" in capsys.readouterr().err


def test_ctrl_c_in_the_panels_keeps_the_sweep(tmp_path, monkeypatch, capsys):
    solve, calls = cv.solve, itertools.count()

    def interrupted(*arguments, callback=None, **options):
        def count(iterate):
            if next(calls) == 60:
                raise KeyboardInterrupt
            return callback(iterate)

        return solve(*arguments, callback=count if callback else None, **options)

    monkeypatch.setattr(cv, "solve", interrupted)
    status, arrays, settings = run(figure2, tmp_path)
    assert status == 130
    assert settings["interrupted"]
    assert len(arrays["betas"]) == 60
    assert "panel3_beta" not in arrays


@pytest.mark.slow
def test_works_on_the_digits(tmp_path):
    status, arrays, settings = run(
        figure2, tmp_path, "--data", "digits", "--betas", "0.5:0.85:40", "--n-tiles", "32", small=[]
    )
    assert status == 0
    assert settings["dim"] == 64
    # T16: the sample is skew, so that its first transition jumps; on cooling it is at the exact temperature.
    first = arrays["peaks"][arrays["peaks"][:, 0].argmax()]
    assert first[2] <= arrays["first_critical_beta"] <= first[3]
