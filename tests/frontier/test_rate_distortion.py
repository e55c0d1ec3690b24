"""The rate-distortion function of a data set: closed forms, the band that holds it, and models placed against it."""

from __future__ import annotations

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.backends import reference
from tests.helpers.closed_forms import binary_entropy
from tests.helpers.mutations import with_array


@pytest.mark.parametrize("p", [0.5, 0.3, 0.1])
def test_two_points(p):
    """R(D) = h(p) - h((1 + sqrt(1 - D / a^2)) / 2), a = 1 (section 5): points within the gap above it, lines below."""
    weights = [p, 1 - p]
    top = cv.nucleation_beta([[-1.0], [1.0]], weights=weights)
    lam = 0.5 if p == 0.5 else np.log((1 - p) / p) / (4 * (1 - 2 * p))
    assert 1 / (2 * top) == pytest.approx(lam, rel=1e-6)
    curve = cv.rate_distortion([[-1.0], [1.0]], np.geomspace(0.999 * top, 0.05 * top, 30), weights=weights, gap=1e-7)
    exact = np.array([binary_entropy(p) - binary_entropy((1 + np.sqrt(1 - D)) / 2) for D in curve.distortion])
    np.testing.assert_allclose(curve.rate, exact, atol=1e-6)
    assert curve.gap.max() <= 1e-7
    D = np.linspace(0.01, 4 * p * (1 - p), 50)
    between = np.array([binary_entropy(p) - binary_entropy((1 + np.sqrt(1 - d)) / 2) for d in D])
    assert (curve.bound_below(D) <= between + 1e-9).all()
    assert (curve.bound_above(D) >= between - 1e-9).all()
    assert (curve.bound_above(D) - curve.bound_below(D)).max() < 0.01
    assert curve.ends == pytest.approx(np.array([[4 * p * (1 - p), 0], [0, binary_entropy(p)]]), abs=1e-12)


def test_gaussian_bins_fill_with_water():
    """R = log(l / D) / 2 of a Gaussian, from the means of 400 bins, to 0.5 %."""
    x = cv.datasets.gaussian((1.0,), n=400).x
    variance = float(x.var())
    curve = cv.rate_distortion(x, variance * np.array([0.9, 0.5, 0.2, 0.05]))
    np.testing.assert_allclose(curve.rate, 0.5 * np.log(variance / curve.distortion), rtol=5e-3)
    np.testing.assert_allclose(curve.distortion, curve.betas, rtol=5e-3)  # D = theta


def test_nucleation_is_above_the_split_and_annealing_jumps_between():
    data = cv.datasets.exponential(400)
    split, nucleated = cv.first_critical_beta(data.x), cv.nucleation_beta(data.x)
    assert nucleated > 1.01 * split
    for beta, sites in ((1.001 * nucleated, 1), (0.999 * nucleated, 2)):
        assert len(cv.global_solution(data.x, beta=beta, gap=1e-9 * 20).distinct) >= sites
    (first,) = cv.transitions(data.x, masses="free", n_tiles=16, limit=1)
    assert first.kind == "first-order"
    assert split <= first.heating_end <= nucleated * (1 + 1e-6)  # that of two halves, not yet of the best


def test_the_default_grid_spans_the_curve():
    x = cv.datasets.four_clusters().x[::8]
    seen = []
    curve = cv.rate_distortion(x, gap=1e-5, callback=lambda s: seen.append(s.rate))
    assert len(curve.betas) == 40
    assert curve.rate[0] < 0.05
    assert curve.rate[-1] > 0.9 * np.log(len(x))
    assert (np.diff(curve.rate) > -1e-5).all()
    assert (np.diff(curve.distortion) < 1e-5).all()
    assert curve.gap.max() <= 1e-5
    assert len(seen) == 40


def test_models_are_placed(tmp_path):
    """No solution of any tiling is below; one that codes nothing is that far above."""
    data = cv.datasets.rings(80)
    betas = cv.first_critical_beta(data.x) * np.geomspace(1.2, 0.02, 15)
    curve = cv.rate_distortion(data.x, betas)
    for tiles, relative in ((4, 0.3), (32, 0.1), (8, 0.02)):
        s = cv.solve(data.x, beta=relative * betas[0] / 1.2, n_tiles=tiles, start="data")
        excess = curve.excess(s.rate, s.distortion)
        assert excess.most >= excess.least
        assert excess.most >= -1e-9
    D, R = curve.distortion[8], curve.rate[8]
    assert curve.excess(R, D).most == pytest.approx(0, abs=1e-5)
    assert curve.excess(R + 1, D).least == pytest.approx(1, abs=1e-5)
    curve.save(tmp_path / "curve.npz")
    again = cv.RateDistortionCurve.load(tmp_path / "curve.npz")
    assert again.excess(R, D) == curve.excess(R, D)
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match="does not hold"):
        cv.RateDistortionCurve.load(tmp_path / "other.npz")


def test_arrays_that_are_no_curve_are_refused_with_the_reason(tmp_path):
    curve = cv.rate_distortion(cv.datasets.four_clusters(4).x, [12.0, 5.0, 0.4])
    arrays = curve.to_arrays()
    assert len(arrays["event_kinds"]) > 0
    for name, change, message in (
        ("betas", lambda a: a[::-1], "betas must fall"),
        ("betas", lambda a: a[:0], r"multipliers must have the shape \(0,\), got \(3,\)"),
        ("betas", lambda a: -a, "betas must be at least"),
        ("multipliers", lambda a: a * [1, 2, 1], "multipliers must be proportional to 1 / betas"),
        ("distortion", lambda a: -a, "distortion must be at least 0"),
        ("rate", lambda a: a - 1, "rate must be at least 0"),
        ("lower", lambda a: a + 0.1, r"lower \+ rounding must be at most rate \+ multiplier"),
        ("lower", lambda a: a * np.nan, "lower must be finite, got nan"),
        ("rounding", lambda a: a + 1, r"lower \+ rounding must be at most"),
        ("rounding", lambda a: a[:-1], r"rounding must have the shape \(3,\), got \(2,\)"),
        ("n_sites", lambda a: a - 1, "n_sites must be at least 1, got 0"),
        ("ends", lambda a: a[0], r"ends must have the shape \(2, 2\)"),
        (
            "event_kinds",
            lambda a: np.full(len(a), "birth"),
            "event_kinds must be of nucleation, split, loss, merger, got 'b",
        ),
        ("event_betas", lambda a: a[:, ::-1], "event_betas must hold the lower temperature first"),
        ("event_places", lambda a: a[:-1], r"event_places must have the shape"),
        ("signature", lambda a: a[:-1], r"signature must have the shape \(33,\)"),
        ("likelihood", lambda a: "gamma", r"likelihood must be one of .* got 'gamma'"),
    ):
        with pytest.raises(ValueError, match=message):
            cv.RateDistortionCurve.from_arrays({**arrays, name: change(arrays[name])})
    with pytest.raises(ValueError, match="the arrays of a curve must include 'lower', got betas, "):
        cv.RateDistortionCurve.from_arrays({name: array for name, array in arrays.items() if name != "lower"})
    curve.save(tmp_path / "curve")
    assert repr(cv.RateDistortionCurve.load(tmp_path / "curve")) == repr(curve)
    (tmp_path / "changed").write_bytes(with_array((tmp_path / "curve").read_bytes(), "lower", lambda a: a + 1))
    with pytest.raises(
        ValueError, match=r"changed does not hold a saved RateDistortionCurve: lower \+ rounding must be at most"
    ):
        cv.RateDistortionCurve.load(tmp_path / "changed")


def test_bernoulli():
    x = (cv.datasets.digits(40).x > 0.5).astype(float)
    objective = cv.ELBO(likelihood="bernoulli")
    top = cv.nucleation_beta(x, objective)
    assert top >= cv.first_critical_beta(x, objective) * (1 - 1e-9)
    curve = cv.rate_distortion(x, top * np.array([1.05, 0.7, 0.4]), objective, gap=1e-4)
    assert curve.rate[0] == pytest.approx(0, abs=1e-9)
    assert curve.rate[2] > curve.rate[1] > 0.1
    assert curve.gap.max() <= 1e-4
    assert curve.ends[1, 0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([[0.0], [0.0]],), {}, "all points of x coincide"),
        (([[0.0], [1.0]], [-1.0]), {}, "beta"),
        (([[0.0], [1.0]], [1.0], 3), {}, "objective"),
        (([[0.0], [1.0]], [0.1]), {"gap": 0}, "gap"),
        (([[0.0], [1.0]], [0.1]), {"callback": 3}, "callback"),
    ],
)
def test_bad_input(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        cv.rate_distortion(*arguments, **options)


def test_excess_wants_numbers():
    curve = cv.rate_distortion([[-1.0], [1.0]], [0.5])
    with pytest.raises(ValueError, match="rate"):
        curve.excess(-1.0, 0.5)
    with pytest.raises(ValueError, match="distortion"):
        curve.excess(1.0, np.nan)
    with pytest.raises(ValueError, match="distortion_error"):
        curve.excess(1.0, 0.5, distortion_error=-1)


def test_a_model_below_the_frontier_is_warned_of():
    """R = log 2 - h((1 + sqrt(1 - D)) / 2) = 0.5903 nats at D = 0.083186; the causes that are usual are named."""
    curve = cv.rate_distortion([[-1.0], [1.0]], np.geomspace(0.9, 0.1, 20))
    D, R = 0.083186, 0.5903
    assert abs(curve.excess(R, D).most) < 2e-3  # no warning, nor at the errors of measurement
    curve.excess(0.9 * R, D, distortion_error=0.02)
    with pytest.warns(UserWarning, match=r"nats below R\(D\), .* not in bits, .* not their mean, .* data"):
        curve.excess(0.9 * R, D)
    with pytest.warns(UserWarning, match="nats below") as caught:
        curve.excess(R, D / 64)  # a mean over dimensions for a sum
    assert caught[0].filename == __file__


@pytest.mark.filterwarnings("ignore::constrained_vae.NotConvergedWarning")
def test_ctrl_c_ends_it_wherever_it_comes(monkeypatch):
    """Also inside a search, which by itself returns the best it has: one more map evaluates that, and no more."""
    original, calls = reference.expectations, 0

    def expectations(*arguments):
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return original(*arguments)

    def solved(betas=(0.9, 0.5, 0.2)):
        try:
            return len(cv.rate_distortion([[-1.0], [1.0]], betas, backend="reference").betas)
        except KeyboardInterrupt:
            return 0

    monkeypatch.setattr(reference, "expectations", expectations)
    at = None
    assert solved() == 3
    ends = []
    for at in range(1, calls + 1):
        calls = 0
        ends.append(solved())
        assert calls <= at + 1
    assert set(ends) == {0, 1, 2}
    for at in (1, 2, 3):  # in search of the default temperatures
        calls = 0
        assert solved(None) == 0
        assert calls <= at + 1


# --- real sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "data", [cv.datasets.four_clusters(), cv.datasets.rings(), cv.datasets.digits(300)], ids=lambda data: data.name
)
def test_the_whole_frontier_to_the_default_gap(data):
    """40 temperatures down to a rate of 0.95 log N; in two dimensions proven."""
    proven = []
    curve = cv.rate_distortion(data.x, callback=lambda s: proven.append(s.certificate.rigorous))
    assert curve.gap.max() <= 1e-6 * (1 + 1e-9)
    assert curve.rate[-1] >= 0.95 * np.log(len(data.x))
    assert all(proven) is (data.x.shape[1] <= 2)


@pytest.mark.slow
def test_a_thousand_points_on_a_line():
    """Proven from half to 100 times the first critical multiplier."""
    x = cv.datasets.exponential(1000).x
    proven = []
    betas = cv.first_critical_beta(x) * np.geomspace(2, 0.01, 40)
    curve = cv.rate_distortion(x, betas, callback=lambda s: proven.append(s.certificate.rigorous))
    assert curve.gap.max() <= 1e-6 * (1 + 1e-9)
    assert all(proven)


@pytest.mark.slow
def test_three_dimensions_fill_with_water():
    """The symmetric set of 4000 points is a Gaussian to 3 % in rate at its distortion, up to a nat."""
    data = cv.datasets.gaussian((4.0, 2.0, 0.5))
    assert data.x.shape == (4000, 3)
    curve = cv.rate_distortion(data.x, [3.5, 2.5, 2.0, 1.5, 1.05], gap=1e-3)
    variances = np.array([4.0, 2.0, 0.5])
    theta = np.linspace(4, 0.5, 100_000)
    D, R = (
        np.minimum(variances, theta[:, None]).sum(axis=1),
        0.5 * np.log(np.maximum(variances / theta[:, None], 1)).sum(1),
    )
    np.testing.assert_allclose(curve.rate, np.interp(curve.distortion, D[::-1], R[::-1]), rtol=0.03)
    assert 0.9 < curve.rate[-1] < 1.1


@pytest.mark.slow
def test_noise_around_a_circle():
    """20 000 points of the test source of free-support methods: below ten starts of a solver with 100 tiles, proven."""
    rng = np.random.default_rng(0)
    n, lam = 20_000, 10.0
    angle = rng.uniform(0, 2 * np.pi, n)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(size=(n, 2)) * np.sqrt(0.5 / lam)
    best = cv.global_solution(x, beta=0.5 / lam, time_limit=600)
    assert best.certificate.rigorous
    assert best.certificate.gap <= 1e-6
    options = {"tiling": cv.Tiling.uniform(100), "masses": "free", "start": "data", "accelerate": "plain"}
    for seed in range(10):
        s = cv.solve(x, beta=0.5 / lam, seed=seed, tol=1e-5, max_maps=300, on_failure="return", **options)
        assert s.free_energy >= best.free_energy


@pytest.mark.slow
@pytest.mark.parametrize("grey", [False, True])
def test_bernoulli_digits(grey):
    """300 of them, black and white or grey."""
    x = cv.datasets.digits(300).x
    x = x / x.max() if grey else (x > x.max() / 2).astype(float)
    objective = cv.ELBO(likelihood="bernoulli")
    top = cv.nucleation_beta(x, objective)
    curve = cv.rate_distortion(x, top * np.geomspace(1.05, 0.3, 6), objective, gap=1e-5)
    assert curve.gap.max() <= 1e-5 * (1 + 1e-9)
    assert (np.diff(curve.rate) > -1e-5).all()
    for seed in range(3):
        options = {"tiling": cv.Tiling.uniform(64), "start": "data", "max_maps": 500, "on_failure": "return"}
        s = cv.solve(x, objective.at(curve.betas[3]), seed=seed, **options)
        assert s.free_energy >= curve.lower[3]
