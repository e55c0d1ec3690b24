"""analysis.frontier from outside: excesses, picture, table, Ctrl-C."""

import re
from dataclasses import replace

import numpy as np
import pytest

import constrained_vae as cv
from analysis import frontier as figure
from tests.helpers.figures import run

BETAS = np.geomspace(0.004, 8, 12)
KINDS = ("8", "32", "128", "free")
KEYS = (*(f"annealed_{kind}" for kind in KINDS), "quenched_32", "quenched_free")


@pytest.fixture
def small(drawn):
    return drawn(figure)[:3]


def rows(arrays, key):
    return figure._solutions(arrays, f"four_clusters_{key}")


def test_settings(small):
    _, arrays, settings = small
    assert (settings["data"], settings["starts"]) == (["four_clusters"], 3)
    assert arrays["names"].tolist() == ["four_clusters"]
    assert arrays["four_clusters_shape"].tolist() == [200, 2]


def test_the_frontier_is_that_of_the_library(small):
    _, arrays, _ = small
    curve = cv.rate_distortion(cv.datasets.four_clusters().x, BETAS)
    np.testing.assert_array_equal(arrays["four_clusters_curve_betas"], curve.betas)
    for name in ("rate", "distortion", "lower"):  # both within the gap; D, where F is flat, to its root
        tolerance = 1e-2 if name == "distortion" else 1e-3
        np.testing.assert_allclose(arrays[f"four_clusters_curve_{name}"], getattr(curve, name), atol=tolerance)


def test_solutions_are_where_they_should_be(small):
    """On cooling at every other temperature; quenched at every fourth of those, so many starts each."""
    _, arrays, _ = small
    annealed = arrays["four_clusters_curve_betas"][1::2]
    assert len(annealed) == 6
    for kind in KINDS:
        np.testing.assert_array_equal(rows(arrays, f"annealed_{kind}")["beta"], annealed)
    for kind in ("32", "free"):
        np.testing.assert_array_equal(rows(arrays, f"quenched_{kind}")["beta"], np.repeat(annealed[[1, 5]], 3))
    assert len(np.unique(rows(arrays, "quenched_32")["rate"])) == 6  # starts differ


def test_excesses_are_above_the_frontier(small):
    """R + lambda D = F, so that both excesses follow from the solution and the bounds; neither is negative (T22)."""
    _, arrays, _ = small
    curve = figure._curve(arrays, "four_clusters")
    for key in KEYS:
        found = rows(arrays, key)
        assert found["converged"].all()
        assert found["excess"].min() > -1e-9
        at = np.searchsorted(-curve.betas, -found["beta"])
        F = found["rate"] + found["distortion"] / (2 * found["beta"])
        np.testing.assert_allclose(found["excess_F"], F - curve.lower[at], atol=1e-9)
        np.testing.assert_allclose(found["excess"], found["rate"] - curve.bound_below(found["distortion"]), atol=1e-12)
        assert (found["excess"] <= found["excess_F"] + 1e-9).all()


def test_what_finite_tilings_cost(small):
    """Two reconstructions of equal shares, then four, are the optimum, and 8 tiles have them as well.

    Where the clusters fall apart uniform tiles lack some, the more the fewer, and free masses next to nothing. Just
    above, four are metastable: not least in F, but still on R(D).
    """
    _, arrays, _ = small
    cost = {kind: rows(arrays, f"annealed_{kind}") for kind in KINDS}
    tiny = 1e-5  # the gap, and what the tolerance of solutions leaves
    for kind in KINDS:
        assert cost[kind]["excess"][:5].max() < tiny
        assert cost[kind]["excess_F"][:4].max() < tiny
        assert cost[kind]["excess_F"][4] > 1e-3
    coldest = [cost[kind]["excess"][-1] for kind in KINDS]
    assert coldest[0] > coldest[1] > 2 * coldest[2] > 0.02
    assert coldest[3] < tiny
    assert rows(arrays, "quenched_32")["excess"].min() > 1e-3  # shares of random starts are unequal
    assert rows(arrays, "quenched_free")["excess"].max() < tiny


def test_the_picture_has_its_panels(small):
    _, arrays, _ = small
    drawn = figure.draw(arrays)
    upper, lower = drawn.axes
    assert "200 points" in upper.get_title(loc="left")
    assert upper.get_xlim() == lower.get_xlim()
    assert lower.get_yscale() == "log"
    assert "nats" in upper.get_ylabel()
    assert "nats" in lower.get_ylabel()
    assert "units" in lower.get_xlabel()
    (legend,) = drawn.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[-6:] == [
        *("8 tiles", "32 tiles", "128 tiles", "free masses"),
        "within the gap",
        "quenched",
    ]
    # A band is in the legend where it can be seen; otherwise the line says how near the bounds are.
    beside = ["certified band", "frontier $R(D)$"]
    assert texts[:-6] == beside or re.fullmatch(r"frontier .*, certified to .* nats", texts[0])
    D = rows(arrays, "annealed_8")["distortion"]
    for ax in drawn.axes:
        assert any(np.array_equal(line.get_xdata(), D) for line in ax.lines)
    # What the certificate cannot tell from zero has no place on a logarithmic axis.
    gap = float(arrays["gap"])
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in lower.lines])
    assert np.nanmin(drawn) > gap > lower.get_ylim()[0]


def test_table(small):
    _, arrays, _ = small
    lines = figure.table(arrays).splitlines()
    found = {tuple(line.split(", ")[1:2] + line.split(", ")[2].split()[:1]): line.split()[-4:] for line in lines[1:-1]}
    assert set(found) == {tuple(key.split("_")) for key in KEYS}
    for (how, kind), numbers in found.items():
        excess, F = (rows(arrays, f"{how}_{kind}")[name] for name in ("excess", "excess_F"))
        expected = [np.median(excess), excess.max(), np.median(F), F.max()]
        assert [float(number) for number in numbers] == pytest.approx(expected, rel=0.06)  # two digits
    assert "gaps up to" in lines[-1]
    missed = arrays["four_clusters_annealed_8"].copy()
    missed[2, -1] = False
    assert "1 of 6 did not converge" in figure.table({**arrays, "four_clusters_annealed_8": missed})


@pytest.mark.parametrize("when", ["at once", "frontier", "second set", "annealing"])
def test_ctrl_c_keeps_what_there_is(tmp_path, monkeypatch, capsys, when):
    rate_distortion, solve, calls = cv.rate_distortion, cv.solve, []

    def frontier(x, betas, **options):
        calls.append(x)
        if when == "at once" or (when == "second set" and len(calls) == 2):
            raise KeyboardInterrupt
        curve = rate_distortion(x, betas, **options)
        return replace(curve, complete=when != "frontier")

    def solved(x, **options):
        solution = solve(x, **options)
        if when == "annealing" and len(options["tiling"]) == 32:
            object.__setattr__(solution, "status", cv.Status.INTERRUPTED)
        return solution

    monkeypatch.setattr(cv, "rate_distortion", frontier)
    monkeypatch.setattr(cv, "solve", solved)
    options = ["--betas", "0.5:8:5", "--starts", "1"]
    if when != "second set":
        options += ["--data", "four_clusters"]
    status, arrays, settings = run(figure, tmp_path, *options, small=[])
    assert status == 130
    assert "interrupted" in capsys.readouterr().err
    if when == "at once":
        assert arrays is None
        return
    assert settings["interrupted"]
    assert settings["data"] == ["four_clusters"]
    present = {key for key in KEYS if f"four_clusters_{key}" in arrays}
    assert present == {"frontier": set(), "annealing": {"annealed_8"}, "second set": set(KEYS)}[when]
