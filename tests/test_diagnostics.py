"""Holes, blur, overlap and the report, against naive loops and what is known of quenched and annealed solutions."""

from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings

import constrained_vae as cv
from constrained_vae import diagnostics
from constrained_vae._utils import memory
from constrained_vae.testing.strategies import EPS, small_problems


def solved(problem, **options):
    tiling = cv.Tiling(problem.masses)
    options = {"start": problem.start, "max_maps": 300, "on_failure": "return", **options}
    return cv.solve(problem.x, beta=problem.beta, tiling=tiling, weights=problem.weights, **options)


@settings(max_examples=60, deadline=None)
@given(small_problems())
def test_every_number_against_loops(problem):
    s = solved(problem)
    q, rho, pi = s.encoder, problem.weights, problem.masses
    mass = rho @ q
    rounding = 64 * EPS * (len(rho) + len(pi))
    # The marginal of the last map, whose step the error estimate bounds.
    loose = rounding + 10 * np.sqrt(s.error_estimate)
    np.testing.assert_allclose(diagnostics.coverage(s), mass / pi, atol=min(loose, 1) / pi.min())
    kl = sum(m * np.log(m / p) for m, p in zip(s.marginal, pi, strict=True) if m > 0)
    assert diagnostics.marginal_kl(s) == pytest.approx(max(kl, 0), abs=rounding)
    found = diagnostics.blur(s)
    for a in range(len(pi)):
        nearest = min(np.linalg.norm(s.decoder[a] - x) for x in problem.x)
        # Coincident tiles are measured at their mean.
        assert found.distance[a] == pytest.approx(nearest, abs=2 * s.tolerance + rounding)
        if mass[a] > 1e-100:
            w = rho * q[:, a] / mass[a]
            entropy = -sum(v * np.log(v) for v in w if v > 0)
            # Where tiles coincide but for the tolerance, w does up to lambda |x| times that.
            close = 1e-9 + 100 * s.tolerance * problem.multiplier * np.abs(problem.x).max()
            assert found.entropy[a] == pytest.approx(entropy, abs=close)
    dead = np.isnan(found.entropy)
    assert (mass[dead] < 1e-100).all()
    assert (found.entropy[~dead] >= 0).all()
    assert found.n_points[~dead].max() <= len(rho) * (1 + 1e-9)


def test_a_quench_leaves_holes_annealing_fewer_and_the_optimum_none():
    """Digits at lambda = 30 lambda_c (T15), (T17)."""
    data = cv.datasets.digits(60)
    beta, tiling = cv.first_critical_beta(data.x) / 30, cv.Tiling.uniform(32)
    annealed = cv.sweep(data.x, betas=[beta], tiling=tiling)[0]
    best = cv.global_solution(data.x, beta=beta)
    assert annealed.converged
    assert best.converged
    for seed in range(3):
        quenched = cv.solve(data.x, beta=beta, tiling=tiling, seed=seed)
        assert len(diagnostics.holes(quenched)) > 2 * len(diagnostics.holes(annealed))
        assert diagnostics.marginal_kl(quenched) > diagnostics.marginal_kl(annealed) > 0
        assert quenched.free_energy > annealed.free_energy
    assert len(diagnostics.holes(best)) == 0
    # m = pi up to the certified gap: KL(m || pi) is at most log sup c (T14).
    assert diagnostics.marginal_kl(best) <= best.certificate.gap + 1e-12


def test_annealing_is_no_theorem():
    """Clusters of unequal size halve the tiles unequally to their data: here annealing leaves more marginal KL."""
    rng = np.random.default_rng(1)
    centres, counts = [(-3, 1.25), (-3, -1.25), (3, 0.55), (3, -0.55)], (140, 30, 20, 10)
    x = np.concatenate([c + 0.125 * rng.standard_normal((n, 2)) for c, n in zip(centres, counts, strict=True)])
    beta, tiling = cv.first_critical_beta(x) / 30, cv.Tiling.uniform(64)
    annealed = cv.sweep(x, betas=[beta], tiling=tiling)[0]
    quenched = cv.solve(x, beta=beta, tiling=tiling, start="data", on_failure="return")
    assert diagnostics.marginal_kl(annealed) > 2 * diagnostics.marginal_kl(quenched) > 0


def test_a_dead_tile_is_a_hole_of_no_entropy():
    x = np.array([[-1.0], [1.0]])
    s = cv.solve(x, beta=0.01, n_tiles=4, start=[[-1.0], [1.0], [1.0], [40.0]])
    assert s.status is cv.Status.DEAD_TILES
    assert diagnostics.holes(s).tolist() == [3]
    assert diagnostics.active_tiles(s).tolist() == [0, 1, 2]
    assert diagnostics.coverage(s)[3] == 0
    found = diagnostics.blur(s)
    assert np.isnan(found.entropy[3])
    assert found.distance[3] == pytest.approx(39, rel=1e-12)
    np.testing.assert_allclose(found.n_points[:3], 1, atol=1e-12)
    np.testing.assert_allclose(diagnostics.overlap_matrix(s), np.diag([1.0, 1.0, 0.0]), atol=1e-15)
    assert diagnostics.marginal_kl(s) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(1), abs=1e-9)
    assert "nan" in repr(diagnostics.report(s))


def test_the_threshold_of_holes_and_tiles_without_prior_mass():
    x = np.array([[-1.0], [1.0]])
    s = cv.solve(x, beta=0.05, tiling=cv.Tiling([0.2, 0.8, 0.0]), start=[[-1.0], [1.0], [0.0]], weights=[0.5, 0.5])
    assert diagnostics.coverage(s)[:2] == pytest.approx([2.5, 0.625], rel=1e-6)
    assert np.isnan(diagnostics.coverage(s)[2])
    assert diagnostics.holes(s).tolist() == []
    assert diagnostics.holes(s, 0.7).tolist() == [1]
    assert diagnostics.active_tiles(s, 0.7).tolist() == [0]


def test_blur_above_and_below_the_transitions():
    """The mean of all points, then of a pair of clusters, then of one; their posteriors overlap by percents."""
    data = cv.datasets.four_clusters()
    for beta, count in [(20.0, 200), (2.0, 100), (0.1, 50)]:
        s = cv.sweep(data.x, betas=[beta], n_tiles=16)[0]
        np.testing.assert_allclose(diagnostics.blur(s).n_points, count, rtol=0.05)


def test_points_without_weight_have_no_say_and_rows_may_stream(monkeypatch, rng):
    x = rng.normal(size=(200, 2))
    weights = np.ones(200)
    weights[::2] = 0
    options = {"beta": 0.2, "tiling": cv.Tiling.uniform(8)}
    some = cv.solve(x, weights=weights, **options)
    kept = cv.solve(x[1::2], start=some, **options)
    streamed = cv.solve(cv.RowBlocks(lambda: iter(np.array_split(x[1::2], 9))), start=kept, **options)
    monkeypatch.setattr(memory, "BLOCK", 100)
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 64)
    expected = diagnostics.blur(kept)
    for s in (some, streamed):
        np.testing.assert_allclose(diagnostics.blur(s).entropy, expected.entropy, atol=1e-6)
        np.testing.assert_allclose(diagnostics.blur(s).distance, expected.distance, atol=1e-6)


def test_distances_far_from_the_origin_are_differences():
    x = np.array([[1e6 - 1.0], [1e6 + 1.0]])
    s = cv.solve(x, beta=0.5, n_tiles=2)
    assert diagnostics.blur(s).distance == pytest.approx(1 - 0.9575040240772687, abs=1e-8)


class Cells(HTMLParser):
    """Texts of the cells of a table, and whether tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells.append(data)


def test_the_report():
    data = cv.datasets.digits(100)
    s = cv.solve(data.x, beta=0.3, n_tiles=32, on_failure="return")
    r = cv.report(s)
    text = repr(r)
    facts = dict(r.facts)
    assert facts["rate"] == f"{s.rate:.4g} nats"
    assert facts["marginal KL"] == f"{s.marginal_kl:.4g} nats"
    assert facts["reconstructions"].startswith(f"{len(s.distinct)} distinct; ")
    assert facts["holes (m < 0.5 pi)"].startswith(f"{len(diagnostics.holes(s))} of 32 tiles, prior mass ")
    assert len(r.rows) + r.omitted == len(s.distinct)
    assert max(map(len, text.splitlines())) <= 200
    for row in r.rows:
        assert "  ".join(row[:1]) in text
    masses = [float(row[3]) for row in r.rows]
    assert masses == sorted(masses, reverse=True)
    page = Cells(r._repr_html_())
    assert page.open == []
    assert set(r.header) <= set(page.cells)
    assert {value for _, value in r.facts} <= set(page.cells)
    assert f"and {r.omitted} more" in page.cells


def test_html_is_escaped():
    """Signs of less-than in the names of facts."""
    s = cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    assert "holes (m &lt; 0.5 pi)" in cv.report(s)._repr_html_()


@pytest.mark.parametrize(
    "name", ["marginal_kl", "coverage", "holes", "active_tiles", "blur", "overlap_matrix", "report"]
)
def test_bad_input(name):
    with pytest.raises(ValueError, match="solution must be an instance of FixedPoint such as"):
        getattr(diagnostics, name)(np.ones((3, 2)))


def test_bad_threshold():
    s = cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    for function in (diagnostics.holes, diagnostics.active_tiles, diagnostics.report):
        with pytest.raises(ValueError, match="threshold must be positive"):
            function(s, threshold=0.0)
