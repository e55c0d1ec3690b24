"""Results as tables: HTML for notebooks, text for terminals, data frames."""

import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae._utils import tables

POINTS = [[-1.0], [1.0]]


class Cells(HTMLParser):
    """The rows of a page's tables, and what stands in bold."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.open, self.title = [], [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] == "b":
            self.title += data
        else:
            self.rows[-1].append(data)


@pytest.fixture(scope="module", params=[[0.4, 0.6], [0.6, 0.4]], ids=str)
def solution(request):
    return cv.solve(POINTS, beta=0.5, weights=request.param, n_tiles=2, masses="free")


@pytest.fixture(scope="module")
def branch():
    return cv.sweep(POINTS, betas=np.geomspace(0.2, 1.5, 30), n_tiles=2)


def test_a_solution_shows_its_reconstructions_heaviest_first(solution):
    page = Cells(solution._repr_html_())
    assert page.title == repr(solution)
    head, *rows = page.rows
    assert head == ["tiles", "prior mass", "posterior mass", "psi[0]"]
    masses = [float(row[2]) for row in rows]
    assert masses == sorted(masses, reverse=True)
    np.testing.assert_allclose(sorted(masses), np.sort(solution.distinct.marginal), rtol=1e-5)
    heaviest = solution.distinct.decoder[solution.distinct.marginal.argmax(), 0]
    assert float(rows[0][3]) == pytest.approx(heaviest, rel=1e-5)


def test_many_coordinates_are_cut_off(rng):
    s = cv.solve(rng.normal(size=(5, 9)), beta=100.0, n_tiles=2)
    assert Cells(s._repr_html_()).rows[0][3:] == ["psi[0]", "psi[1]", "psi[2]", "psi[3]"]


def test_a_branch_shows_both_ends(branch):
    page = Cells(branch._repr_html_())
    assert page.title == repr(branch)
    head, *rows = page.rows
    assert head[:2] == ["beta", "distortion"]
    assert len(rows) == 13
    assert rows[6] == ["…"] * len(head)
    shown = [float(row[0]) for row in rows if row[0] != "…"]
    np.testing.assert_allclose(shown, np.r_[branch.betas[:6], branch.betas[-6:]], rtol=1e-5)
    assert Cells(cv.Branch((), "up")._repr_html_()).rows[0] == head


def test_a_branch_says_how_many_have_not_converged():
    x = cv.datasets.four_clusters().x
    failed = cv.sweep(x, betas=[5.0, 10.0], n_tiles=2, max_maps=2, on_failure="return")
    n = sum(not s.converged for s in failed)
    assert n > 0
    assert repr(failed).endswith(f", {n} not converged)")


def test_a_curve_shows_bounds_and_rate():
    curve = cv.rate_distortion(POINTS, betas=[0.9, 0.5])
    page = Cells(curve._repr_html_())
    assert page.title == repr(curve)
    assert repr(curve).startswith("RateDistortionCurve(2 temperatures, beta 0.9 to 0.5, rate ")
    assert f"gap at most {curve.gap.max():.1e} nats" in repr(curve)
    assert page.rows[0] == ["beta", "multiplier", "distortion", "rate", "gap", "bound", "n_sites"]
    assert [float(row[3]) for row in page.rows[1:]] == pytest.approx(curve.rate, rel=1e-5)
    assert [row[6] for row in page.rows[1:]] == ["2", "2"]


def test_cells_are_escaped_and_short():
    page = tables.as_html("a < b", {"<i>": ["&"], "x": [np.float64(1 / 3)], "none": [float("nan")], "n": [np.int64(7)]})
    assert "<i>" not in page
    cells = Cells(page)
    assert cells.title == "a < b"
    assert cells.rows == [["<i>", "x", "none", "n"], ["&", "0.333333", "7"]]  # NaN is an empty cell


def test_text_is_aligned():
    text = tables.as_text({"beta": [0.5, 10.0], "status": ["met", "slack"]})
    assert text.splitlines() == ["beta  status", " 0.5     met", "  10   slack"]


def test_to_frame(branch):
    pandas = pytest.importorskip("pandas")
    frame = branch.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == [
        "beta", "distortion", "rate", "free_energy", "n_distinct", "split_condition", "n_maps", "status"
    ]  # fmt: skip
    np.testing.assert_array_equal(frame["beta"], branch.betas)
    np.testing.assert_array_equal(frame["rate"], branch.rate)
    assert set(frame["status"]) == {"converged"}


def test_without_pandas_a_frame_is_refused_by_name(branch, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # None makes an import fail
    with pytest.raises(ImportError, match="pip install pandas"):
        branch.to_frame()


def test_bits():
    assert cv.bits(np.log(2)) == pytest.approx(1)
    np.testing.assert_allclose(cv.bits(np.log([2.0, 4.0, 8.0])), [1, 2, 3])
