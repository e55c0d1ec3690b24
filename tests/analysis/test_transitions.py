"""analysis.transitions from outside: curves, table, options, Ctrl-C."""

import re

import numpy as np
import pytest

import constrained_vae as cv
from analysis import transitions as figure
from tests.helpers import figures
from tests.helpers.figures import run

N = 60


def curves(points):
    """The pieces between rows of NaN."""
    gaps = np.flatnonzero(np.isnan(points[:, 0]))
    return [piece[~np.isnan(piece[:, 0])] for piece in np.split(points, gaps)]


def test_arrays_and_table_are_those_of_the_library(drawn):
    _, arrays, settings, text = drawn(figure)
    assert (settings["data"], settings["n_tiles"]) == ("four_clusters", 8)
    x, tiling = cv.datasets.four_clusters().x, cv.Tiling.uniform(8)
    found = cv.transitions(x, beta_range=(0.2, 11), tiling=tiling)
    np.testing.assert_array_equal(arrays["exact"][:, 0], [t.beta for t in found])
    branch = cv.sweep(x, betas=np.geomspace(0.2, 11, N), tiling=tiling)
    np.testing.assert_allclose(arrays["peaks"][:, 0], [p.beta for p in branch.peaks(k=None)], rtol=1e-12)
    lines = text.splitlines()
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[:4]] == [
        ["exact beta", "reconstructions", "kind", "predicted", "heating ends", "detected", "difference", "grid step"],
        *(
            [
                f"{t.beta:.9g}",
                f"{t.n_before} to {t.n_after}",
                *["continuous"] * 2,
                f"{t.beta:.7g}",
                f"{p.beta:.6g}",
                f"{p.beta / t.beta - 1:+.2%}",
                f"{(11 / 0.2) ** (1 / (N - 1)) - 1:.2%}",
            ]
            for t, p in zip(found, sorted(branch.peaks(), key=lambda p: -p.beta), strict=True)
        ),
    ]
    assert lines[4].startswith("Hysteresis (exponential data, free masses): predicted from beta = 1 to ")


def test_branches_of_four_clusters(drawn):
    """Known by symmetry: what is unstable lies half way between what is stable."""
    arrays = drawn(figure).arrays
    first, second, third = arrays["exact"][:, 0]
    # Of the collapsed solution the eigenvalue is the first critical beta over beta, below the transition as above.
    collapsed = curves(arrays["unstable_eigenvalue"])[0]
    np.testing.assert_allclose(collapsed[:, 1], first / collapsed[:, 0], rtol=1e-9)
    assert [c[-1, 0] for c in curves(arrays["unstable_eigenvalue"])] == pytest.approx([first, second, third])
    assert all(c[0, 0] == pytest.approx(0.2) for c in curves(arrays["unstable_eigenvalue"]))
    stable = np.concatenate(curves(arrays["stable_eigenvalue"]))
    assert stable[:, 1].max() < 1
    assert stable[:, 1].max() > 1 - 2e-3  # it comes near the transitions
    # Unstable: one at the mean, then two, then three with the right pair between its clusters.
    sides = curves(arrays["unstable1"])
    assert len(sides) == 1 + 2 + 3
    np.testing.assert_allclose(sides[0][:, 1], 0, atol=1e-9)
    assert sorted(round(c[0, 1]) for c in sides) == [-3, -3, -3, 0, 3, 3]
    heights = curves(arrays["unstable2"])
    assert sorted(round(c[0, 1], 2) for c in heights) == pytest.approx([-1.25, 0, 0, 0, 0, 1.25], abs=0.02)
    # Stable, on cooling and on heating: four at the lowest temperature, one at the highest.
    for name, ends in (("stable1", [-3, -3, 3, 3]), ("stable2", [-1.25, -0.5, 0.5, 1.25])):
        pieces = curves(arrays[name])
        lowest = sorted(c[0, 1] for c in pieces if c[0, 0] == pytest.approx(0.2))
        np.testing.assert_allclose(lowest, np.repeat(ends, 2), atol=0.05)
        assert [c[-1, 1] for c in pieces if c[-1, 0] == pytest.approx(11)] == pytest.approx([0, 0], abs=1e-9)
        # A line for each of the four, uninterrupted to where it joins another.
        assert len(pieces) == 2 * 4
        for piece in pieces:
            others = np.concatenate([other for other in pieces if other is not piece])
            assert piece[-1, 0] == pytest.approx(11) or (others == piece[-1]).all(axis=1).any()


def test_first_order_branches_are_interrupted_where_they_jump(shortened):
    """Cooling at the exact temperature, heating where that branch ends; in between two curves, and the unstable one."""
    data = cv.datasets.exponential(100)
    arrays, _ = figure.compute(data, betas=np.geomspace(0.8, 4, 40), n_tiles=8, masses="free", limit=1)
    assert "stable2" not in arrays  # one dimension
    ((beta, end, *_),) = arrays["exact"]
    assert arrays["kind"].tolist() == arrays["predicted"].tolist() == ["first-order"]
    assert end > 1.5 * beta
    pieces = curves(arrays["stable1"])
    inside = [sorted(c[(c[:, 0] > 1.1 * beta) & (c[:, 0] < 0.9 * end)][:, 1].round(6).tolist()) for c in pieces]
    assert any(piece and np.ptp(piece) == 0 for piece in inside)  # collapsed still, on cooling
    assert any(piece and np.ptp(piece) > 0.1 for piece in inside)  # apart still, on heating
    for piece in pieces:
        steps = np.abs(np.diff(piece[:, 1]))[(piece[:-1, 0] < beta) & (beta <= piece[1:, 0])]
        assert (steps < 0.1).all()
    figure.draw(arrays).canvas.draw()


def test_hysteresis_is_as_predicted():
    """(T13), (T16): cooling jumps where the covariance says, heating ends where the cumulants say."""
    loop = figures.loop()
    assert loop["interval"][0] == pytest.approx(1)
    assert loop["heating_end"] == pytest.approx(loop["interval"][1], rel=1e-4)
    inside = (loop["cooling"][:, 0] > 1.01) & (loop["cooling"][:, 0] < 0.99 * loop["heating_end"])
    np.testing.assert_allclose(loop["cooling"][inside, 1], 1)
    assert (loop["heating"][inside, 1] < 0.999).all()
    np.testing.assert_allclose(loop["heating"][:, 0], loop["cooling"][:, 0])
    outside = (loop["cooling"][:, 0] < 0.99) | (loop["cooling"][:, 0] > 1.01 * loop["heating_end"])
    np.testing.assert_allclose(loop["heating"][outside, 1], loop["cooling"][outside, 1], rtol=1e-6)


@pytest.mark.parametrize("p", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_nucleation_of_two_points(p, sigma):
    """lambda* = log((1 - p) / p) / (Delta^2 (1 - 2 p)), and 2 / Delta^2 for equal weights."""
    y = np.repeat([7.0, 3.0], [round(20 * p), round(20 * (1 - p))])
    exact = 2 / 16 if p == 0.5 else np.log((1 - p) / p) / (16 * (1 - 2 * p))
    for sign in (1, -1):
        assert figure.nucleation_beta(sign * y, sigma) == pytest.approx(1 / (2 * sigma**2 * exact), rel=1e-9)


def test_the_table_tells_what_was_missed_on_either_side():
    arrays = {
        "exact": np.array([[9.0, 9.5, 0.1, 1, 3], [4.0, 4.0, 0, 3, 4]]),
        "kind": np.array(["first-order", "continuous"]),
        "predicted": np.array(["first-order", "unknown"]),
        "peaks": np.array([[9.1, 1.0, 8.1, 10.0], [6.0, 1.0, 5.0, 7.0], [2.0, 1.0, 1.0, 4.0]]),
        "matches": np.array([[0, 0], [1, -1], [-1, 1], [2, -1]]),
        "reached": np.array(4.0),
        "tree_betas": np.array([1.0, 10.0]),
    }
    assert [re.split(r"\s{2,}", line.strip()) for line in figure.table(arrays).splitlines()[1:]] == [
        ["9", "1 to 3", "first-order", "first-order", "9.5", "9.1", "+1.11%", "11.11%"],
        ["none", "6", "18.32%"],
        ["4", "3 to 4", "continuous", "unknown", "4", "none"],
        ["not sought", "2", "100.00%"],
        ["Exact transitions were looked for down to beta = 4 only, the limit of their number."],
    ]


def test_a_limit_is_told(tmp_path, capsys, shortened):
    _, arrays, settings = run(figure, tmp_path, "--limit", "1")
    out = capsys.readouterr().out
    assert settings["limit"] == 1
    assert len(arrays["exact"]) == 1
    assert "looked for down to beta = 9.01562 only" in out
    assert out.count("not sought") == 2


def test_no_transition_at_all(tmp_path, capsys, shortened):
    status, arrays, _ = run(figure, tmp_path, "--betas", "10:20:6", "--n-tiles", "4")
    assert status == 0
    assert arrays["exact"].shape == (0, 5)
    assert arrays["unstable1"].shape == (0, 2)
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "none"
    # A single tile cannot split: what there is of a transition is an eigenvalue above 1.
    status, arrays, _ = run(figure, tmp_path, "--betas", "5:20:6", "--n-tiles", "1")
    assert status == 0
    assert arrays["exact"].shape == (0, 5)


def test_transitions_above_the_grid_are_passed_not_shown(shortened):
    arrays, _ = figure.compute(cv.datasets.four_clusters(), betas=np.geomspace(0.5, 3, 20), n_tiles=8, limit=2)
    assert arrays["exact"][:, 3:].tolist() == [[2, 3]]
    assert arrays["reached"] == arrays["exact"][0, 0]


def test_coincident_points_have_no_transitions(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((5, 2)))
    status, _, _ = run(figure, tmp_path, "--data", str(tmp_path / "x.npy"), small=[])
    assert status == 2
    assert "all points of x coincide" in capsys.readouterr().err


@pytest.mark.parametrize("when", ["cooling", "heating", "tied", "hysteresis"])
def test_ctrl_c_keeps_what_there_is(tmp_path, monkeypatch, capsys, shortened, when):
    sweep = cv.sweep

    def interrupted(*arguments, **options):
        branches = sweep(*arguments, **options)
        if when == "tied" and "start" in options:
            return branches[:1]
        if when in ("cooling", "heating") and options.get("direction") == "both":
            return (branches[0][:3], branches[1][:0]) if when == "cooling" else (branches[0], branches[1][:5])
        return branches

    def stop(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cv, "sweep", interrupted)
    if when == "hysteresis":
        monkeypatch.setattr(figure, "hysteresis", stop)
    status, arrays, settings = run(figure, tmp_path, "--betas", "0.2:11:16")
    assert status == 130
    assert "interrupted" in capsys.readouterr().err
    if when == "cooling":
        assert arrays is None
        return
    assert settings["interrupted"]
    assert "cooling" not in arrays
    assert len(arrays["matches"]) == 3
    assert len(arrays["unstable1"]) == 0 or when == "hysteresis"
