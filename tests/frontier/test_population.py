"""Bounds of R(D) of the source: Gaussian and discrete sources with exact answers, a naive lower end, and bad input."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import constrained_vae as cv
from constrained_vae.frontier import held_out
from constrained_vae.frontier.coverage import Coverage
from constrained_vae.frontier.population import PopulationBounds
from constrained_vae.problems.problem import Problem
from tests.helpers.closed_forms import binary_entropy

ROWS = 30_000  # of a Gaussian source, all together
RATES = np.array([0.5, 1.0])
APART = {1: 0.08, 2: 0.15, 4: 0.25}  # nats between the ends at a rate of 1 nat


def gaussian(dim, seed, fitted, rows=ROWS, **options):
    """Bounds of N(0, I) at `RATES`, where F = R + D / 2 by water-filling (section 5), and this F."""
    x = np.random.default_rng(seed).standard_normal((rows, dim))
    betas = np.exp(-2 * RATES / dim)
    curve = cv.rate_distortion(
        x[:fitted], betas, gap=2e-2, on_failure="return", held_out=x[fitted:], seed=seed, **options
    )
    return curve.population, RATES + dim / 2


def between(bounds, F):
    return bool(((bounds.lower <= F) & (F <= bounds.upper)).all())


@pytest.fixture(scope="module")
def curve():
    """Of 300 rows of N(0, 1), and 3000 that are held out."""
    x = np.random.default_rng(3).standard_normal((3300, 1))
    return cv.rate_distortion(x[:300], [0.8, 0.4, 0.2], gap=1e-2, held_out=x[300:])


@pytest.mark.parametrize(("dim", "seed"), [(1, 0), (1, 2), (2, 1)])
def test_water_filling_is_between_the_ends(dim, seed):
    """A fifth of the rows of the slow test, and a code of 500 rows: eight seeds were at most 3.4 times as far apart."""
    bounds, F = gaussian(dim, seed, 500, rows=6000)
    assert between(bounds, F)
    assert bounds.rigorous.all()
    assert (bounds.upper - bounds.lower)[1] < 4 * APART[dim]
    assert (bounds.tuning_rows, bounds.rest_rows) == (1100, 4400)


def test_water_filling_is_not_between_the_ends_if_the_supremum_is_missed(monkeypatch):
    """So that the test above can fail: the coverage four radii from the mean takes the place of its supremum."""
    monkeypatch.setattr(Coverage, "maxima", lambda self, starts, **_: (0 * starts[:1] + 4, self(0 * starts[:1] + 4)))
    monkeypatch.setattr(held_out, "is_provable", lambda *_: False)
    bounds, F = gaussian(1, 0, 200, rows=2000)
    assert (bounds.lower > F).all()
    assert not bounds.rigorous.any()


@pytest.mark.parametrize(("p", "apart"), [(0.5, 0.03), (0.2, 0.14)])
def test_two_points(p, apart):
    """The code is that of the source (section 5). A floor equal to the Z of a light point costs p log 2 at most."""
    rng, beta = np.random.default_rng(0), 0.3
    y = np.where(rng.uniform(size=(20_000, 1)) < p, -1.0, 1.0)
    curve = cv.rate_distortion([[-1.0], [1.0]], [beta], weights=[p, 1 - p], gap=1e-8, held_out=y)
    m = 1.0
    for _ in range(200):
        m = np.tanh(m / beta)
    D, R = 1 - m**2, binary_entropy(p) - binary_entropy((1 + m) / 2)
    bounds = curve.population
    assert between(bounds, R + D / (2 * beta))
    assert (bounds.upper - bounds.lower)[0] < apart
    at = 2 * p * (1 - p)
    exact = binary_entropy(p) - binary_entropy((1 + np.sqrt(1 - at)) / 2)
    assert bounds.bound_below(at) <= exact <= bounds.bound_above(at)
    assert bounds.codes[0, 1] == 0
    assert bounds.codes[0, 0] == pytest.approx(4 * p * (1 - p), abs=0.05)


def test_the_lower_end_is_that_of_loops_over_a_grid(rng):
    """min over y of mean - z standard error of log alpha + 1 - alpha exp(-lambda |x - y|^2), to the 1e-3 of a proof."""
    x, y = rng.standard_normal((200, 1)), rng.standard_normal((400, 1))
    solution = cv.global_solution(x, beta=0.3, gap=1e-2)
    problem = Problem.make(x, cv.ELBO(beta=0.3), None, "reference")
    inward = problem.data.frame.inward
    dual = held_out._Code.of(problem, solution).dual(inward(y[:100]), 0.1)
    lower, proven = dual.lower_end(inward(y[100:]), 1.96)
    assert proven
    spread = dual.smoothing * 0.3  # of N(psi, spread) in the units of x
    Z = sum(
        mass * np.sqrt(2 * np.pi * 0.3) * multivariate_normal(psi, spread + 0.3).pdf(y[100:])
        for psi, mass in zip(solution.decoder, solution.tiling.masses, strict=True)
    )
    alpha = 1 / (np.exp(dual.log_a) * (1 + Z / np.exp(dual.log_floor)))
    ends, means = [], []
    for at in np.linspace(y.min(), y.max(), 4001):
        g = np.log(alpha) + 1 - alpha * np.exp(-((y[100:, 0] - at) ** 2) / 0.6)
        ends.append(g.mean() - 1.96 * g.std(ddof=1) / np.sqrt(300))
        means.append(g.mean())
    assert min(ends) - 5e-3 <= lower <= ends[int(np.argmin(means))] + 1e-6


def test_bounds_of_rates_hold_water_filling_and_models_are_placed(curve):
    """R = log(1 / D) / 2; the best code of the source is not proven to be better than the best, nor worse by much."""
    D = np.array([[0.3, 0.5], [0.7, 0.9]])
    exact, bounds = 0.5 * np.log(1 / D), curve.population
    assert (bounds.bound_below(D) <= exact).all()
    assert (bounds.bound_above(D) >= exact).all()
    assert (bounds.bound_above(D) - bounds.bound_below(D)).max() < 0.3
    assert bounds.bound_above(0.01) == np.inf
    assert bounds.bound_below(5.0) == 0
    excess = curve.excess(0.5 * np.log(1 / 0.4), 0.4, population=True)
    assert excess.least <= 0 <= excess.most < 0.3
    assert (excess.rigorous, excess.confidence) == (True, 0.975)
    assert repr(excess).endswith("nats, each at 97.5 %, rigorous)")
    assert curve.excess(1.0, 0.4).confidence == 1
    with pytest.warns(UserWarning, match=r"nats below R\(D\) of the source, where no model can be"):
        curve.excess(0.01, 0.2, population=True)
    with pytest.raises(ValueError, match="population must be False for a curve without bounds of the source: "):
        replace(curve, population=None).excess(1.0, 0.4, population=True)


def test_a_run_is_placed_above_the_source_by_an_evaluation_on_the_held_out_rows():
    x = np.random.default_rng(5).standard_normal((2500, 1))
    x, y, other = x[:100], x[100:300], x[300:500]
    run = cv.geco.train(x, cv.RE.from_squared_error(0.4), latent_dim=1, hidden=(), steps=50)
    curve = cv.rate_distortion(x, [0.8, 0.4], gap=1e-2, held_out=y)
    found = run.excess_over(curve, evaluation=run.evaluate(y))
    seen = run.evaluate(y)
    assert found.gap == curve.excess(seen.rate, seen.distortion, population=True)
    assert found.rest.confidence == found.gap.confidence == 0.975
    assert found.gap.most > 0
    assert run.excess_over(curve).gap.confidence == 1
    with pytest.raises(ValueError, match="must be of the same data"):
        run.excess_over(curve, evaluation=run.evaluate(other))


def test_ends_depend_on_confidence_and_seed_as_they_say():
    x = np.random.default_rng(0).standard_normal((1200, 2))
    arguments = (x[:200], [0.5])
    options = {"gap": 1e-2, "held_out": x[200:]}
    one, same, other, sure = (
        cv.rate_distortion(*arguments, **options, **more).population
        for more in ({}, {"seed": 0}, {"seed": 1}, {"confidence": 0.999})
    )
    assert (one.lower, one.upper) == (same.lower, same.upper)
    assert one.lower != other.lower
    assert one.upper == pytest.approx(other.upper, rel=1e-12)
    assert sure.lower < one.lower < one.upper < sure.upper


def test_units_and_origin_do_not_count():
    x = np.random.default_rng(0).standard_normal((1200, 2))
    one = cv.rate_distortion(x[:200], [0.5], gap=1e-2, held_out=x[200:]).population
    y = 1000 * x + 5
    two = cv.rate_distortion(y[:200], [0.5e6], gap=1e-2, held_out=y[200:]).population
    assert two.lower == pytest.approx(one.lower, abs=1e-6)
    assert two.upper == pytest.approx(one.upper, abs=1e-6)
    np.testing.assert_allclose(two.codes[:, 0], 1e6 * one.codes[:, 0], rtol=1e-6)


def test_in_many_dimensions_it_is_heuristic_and_says_so():
    x = np.random.default_rng(0).standard_normal((1200, 4))
    bounds = cv.rate_distortion(x[:200], [0.7], gap=1e-2, held_out=x[200:]).population
    assert not bounds.rigorous.any()
    for text in (repr(bounds), bounds._repr_html_()):
        assert "heuristic" in text
    assert between(bounds, 2 * np.log(1 / 0.7) + 2)


def test_files_and_texts(curve, tmp_path):
    assert repr(curve).endswith(", bounds of the source)")
    assert "each at 97.5 %" in curve.population._repr_html_()
    curve.save(tmp_path / "curve.npz")
    again = cv.RateDistortionCurve.load(tmp_path / "curve.npz")
    assert repr(again.population) == repr(curve.population)
    assert again.excess(1.0, 0.4, population=True) == curve.excess(1.0, 0.4, population=True)
    without = replace(curve, population=None)
    without.save(tmp_path / "without.npz")
    assert cv.RateDistortionCurve.load(tmp_path / "without.npz").population is None
    arrays = curve.to_arrays()
    for name, change, message in (
        ("multipliers", lambda a: -a, "multipliers must be at least"),
        ("lower", lambda a: a - 100, r"lower must be at least 0\.0"),
        ("upper", lambda a: a[:-1], r"upper must have the shape \(3,\)"),
        ("codes", lambda a: a[:-1], r"codes must have the shape \(4, 2\)"),
        ("signature", lambda a: a * np.nan, "signature must be finite"),
        ("confidence", lambda a: a + 1, "confidence must be below 1"),
        ("confidence", lambda a: a[None], "confidence must have the shape"),
        ("rest_rows", lambda a: 0 * a, "rest_rows must be .* got 0"),
    ):
        name = f"population_{name}"
        with pytest.raises(ValueError, match=message):
            cv.RateDistortionCurve.from_arrays({**arrays, name: change(arrays[name])})
    with pytest.raises(ValueError, match="must include 'lower'"):
        cv.RateDistortionCurve.from_arrays({k: v for k, v in arrays.items() if k != "population_lower"})
    with pytest.raises(ValueError, match="at one temperature at least"):
        PopulationBounds.from_arrays({**curve.population.to_arrays(), "multipliers": np.zeros(0)})


def test_a_curve_that_ends_early_has_the_bounds_so_far():
    x = np.random.default_rng(0).standard_normal((400, 1))
    with pytest.warns(cv.NotConvergedWarning, match="stopped by the callback"):
        curve = cv.rate_distortion(x[:200], [0.8, 0.4], gap=1e-2, held_out=x[200:], callback=lambda s: True)
    assert len(curve.betas) == len(curve.population.lower) == 1
    with pytest.warns(cv.NotConvergedWarning):
        curve = cv.rate_distortion(x[:200], [0.8, 0.4], held_out=x[200:], time_limit=0.0)
    assert len(curve.betas) == 1
    assert curve.population is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": np.zeros((200, 2))}, "held_out must have 1 dimensions like x, got 2"),
        ({"held_out": np.zeros((99, 1))}, "held_out must have at least 100 rows, got 99"),
        ({"held_out": np.zeros(200)}, r"held_out must have shape \(N, D\)"),
        ({"held_out": np.full((200, 1), np.nan)}, "held_out must be finite"),
        ({"held_out": np.full((200, 1), 1e300)}, "held_out must lie within"),
        ({"held_out": np.linspace(0, 1, 120)[::-1, None]}, "held_out must be other rows than x, got the same"),
        ({"held_out": np.zeros((200, 1)), "confidence": 1.0}, "confidence must be at least 0.5 and below 1"),
        ({"held_out": np.zeros((200, 1)), "seed": -1}, "seed"),
        (
            {"held_out": np.zeros((200, 1)), "objective": cv.ELBO(likelihood="bernoulli")},
            "held_out wants a Gaussian objective",
        ),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        cv.rate_distortion(np.linspace(0, 1, 120)[:, None], [0.1], **options)


# --- real sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "fitted"), [(1, 8000), (2, 3000), (4, 3000)])
def test_fifty_gaussian_sources(dim, fitted):
    """Both ends at 97.5 % at both temperatures: at least 44 of 50, and as near to each other as `APART` on average."""
    found = [gaussian(dim, seed, fitted) for seed in range(50)]
    assert sum(between(bounds, F) for bounds, F in found) >= 44
    assert np.mean([(bounds.upper - bounds.lower)[1] for bounds, _ in found]) <= APART[dim]


@pytest.mark.slow
def test_a_hundred_thousand_rows_need_less_than_two_gigabytes():
    x = np.random.default_rng(0).standard_normal((100_000, 16))
    tracemalloc.start()
    curve = cv.rate_distortion(x[:4000], [0.8], gap=0.1, held_out=x[4000:], on_failure="return")
    assert tracemalloc.get_traced_memory()[1] < 2e9
    tracemalloc.stop()
    assert curve.population.lower < curve.population.upper
