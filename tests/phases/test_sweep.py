"""sweep(): known transitions are found where (T9) puts them, and the thermodynamics (T7) holds along the way."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import brentq

import constrained_vae as cv
from constrained_vae import datasets
from constrained_vae.backends import reference
from tests.helpers.marks import fastest_backend

FOUR = datasets.four_clusters()


@pytest.fixture(scope="module")
def both():
    """Cooling and heating on the default grid with the default tiling."""
    return cv.sweep(FOUR.x, direction="both")


def fixed_point(psi, masses, beta, x=FOUR.x):
    """The plain iteration, written out: psi (k, D) and the responsibilities (N, k) there."""
    for _ in range(10_000):
        logits = np.log(masses) - ((x[:, None] - psi) ** 2).sum(2) / (2 * beta)
        q = np.exp(logits - logits.max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
        previous, psi = psi, q.T @ x / q.sum(0)[:, None]
        if np.abs(psi - previous).max() < 1e-13:
            return psi, q
    raise AssertionError("the plain iteration did not converge")


def crossing(psi, masses, low, high):
    """Where the largest variance of any site's data comes to equal beta (T9), along the branch through psi."""

    def excess(beta):
        _, q = fixed_point(np.array(psi), np.array(masses), beta)
        return max(np.linalg.eigvalsh(np.cov(FOUR.x.T, aweights=w, ddof=0))[-1] for w in q.T) - beta

    return brentq(excess, low, high, xtol=1e-12)


@pytest.fixture(scope="module")
def crossings():
    """The three critical temperatures of the four clusters, from covariances along the iterated branch."""
    return [
        crossing([[-3, 1.25], [-3, -1.25], [3, 0]], [0.25, 0.25, 0.5], 0.25, 0.5),
        crossing([[-3, 0], [3, 0]], [0.5, 0.5], 1.2, 2.0),
        crossing([[0, 0]], [1.0], 7.0, 11.0),
    ]


def test_the_critical_temperatures_are_those_of_the_construction(crossings):
    """Exact at the top; the others up to the overlap of left and right, exp(-2 * 9 / beta) at beta = 1.6."""
    assert crossings[2] == pytest.approx(FOUR.critical_beta, rel=1e-10)
    assert crossings[1] == pytest.approx(1.25**2 + 0.125**2, rel=1e-3)
    assert crossings[0] == pytest.approx(0.55**2 + 0.125**2, rel=1e-3)


@pytest.mark.parametrize("k", [3, None])
@pytest.mark.parametrize("variable", ["beta", "log_beta"])
@pytest.mark.parametrize("way", [0, 1])
def test_the_peaks_are_exactly_the_three_transitions(both, crossings, k, variable, way):
    """Each within one step of the grid; no peak besides."""
    peaks = both[way].peaks(k, variable)
    assert len(peaks) == 3
    for peak, exact in zip(sorted(peaks, key=float), crossings, strict=True):
        assert peak.bracket[0] <= exact <= peak.bracket[1]
    assert [peak.beta for peak in both[way].peaks()] == [peak.beta for peak in sorted(both[way].peaks(), key=float)]


@pytest.mark.parametrize("way", [0, 1])
def test_reconstructions_split_and_merge_at_the_transitions(both, crossings, way):
    branch = both[way]
    assert branch.converged
    assert branch.direction == ("down", "up")[way]
    assert (np.diff(branch.betas) < 0).all() if way == 0 else (np.diff(branch.betas) > 0).all()
    expected = 4 - (branch.betas[:, None] > crossings).sum(axis=1)
    np.testing.assert_array_equal(branch.n_distinct, expected)
    assert set(branch.n_distinct) == {1, 2, 3, 4}
    assert (branch.split_condition < 1).all()  # stable (T9)


def test_heating_retraces_continuous_transitions(both):
    down, up = both
    np.testing.assert_array_equal(up.betas, down.betas[::-1])
    assert up[0].n_maps < 10  # it starts where cooling ended
    # F is stationary: errors count squared, and 1e-12 is some thousand eps. D is linear in them, 2 radius tol = 2e-9.
    np.testing.assert_allclose(up.free_energy, down.free_energy[::-1], rtol=1e-12)
    np.testing.assert_allclose(up.distortion, down.distortion[::-1], atol=1e-8)


def test_the_top_eigenvalue_is_the_covariance_of_the_collapsed_data(both):
    down = both[0]
    collapsed = down.n_distinct == 1
    expected = FOUR.critical_beta / down.betas[collapsed]
    np.testing.assert_allclose(down.split_condition[collapsed], expected, rtol=1e-12)


def test_distortion_falls_and_rate_rises_on_cooling(both):
    down = both[0]
    slack = 1e-8  # errors of D as above; the rate goes with lambda D
    assert (np.diff(down.distortion) < slack).all()
    assert (np.diff(down.rate) > -slack).all()
    assert (np.diff(down.free_energy) > 0).all()  # F rises with lambda, at the rate D > 0 (T7)
    assert down.rate[0] == pytest.approx(0, abs=1e-12)
    assert down.distortion[0] == pytest.approx(FOUR.x.var(axis=0).sum(), rel=1e-12)
    assert np.log(3) < down.rate[-1] < np.log(4)  # four clusters that still overlap


@pytest.mark.parametrize("masses", ["fixed", "free"])
@pytest.mark.parametrize("beta", [6.0, 2.5, 1.0, 0.5, 0.25])
def test_the_derivative_of_the_free_energy_is_the_distortion(masses, beta):
    """dF/dlambda = D and dR = -lambda dD (T7), by central differences within a phase."""
    h = 1e-4
    lam = np.array([1 - h, 1, 1 + h]) / (2 * beta)
    low, here, high = cv.sweep(FOUR.x, betas=1 / (2 * lam), n_tiles=16, masses=masses, tol=1e-12)
    # h^2 times third derivatives; eps F / h.
    slope = (high.free_energy - low.free_energy) / (lam[2] - lam[0])
    assert slope == pytest.approx(here.distortion, rel=1e-6)
    change = high.distortion - low.distortion
    assert change < 0 or here.beta > 9
    assert high.rate - low.rate == pytest.approx(-lam[1] * change, rel=1e-6, abs=1e-10)


def test_sigma_scales_the_temperature():
    """Only theta = sigma^2 beta matters (T3)."""
    betas = np.geomspace(12, 1, 12)
    one = cv.sweep(FOUR.x, betas=betas, n_tiles=16)
    two = cv.sweep(FOUR.x, cv.ELBO(sigma=2.0), betas=betas / 4, n_tiles=16)
    np.testing.assert_allclose(two.distortion, one.distortion, rtol=1e-9)
    np.testing.assert_array_equal(two.n_distinct, one.n_distinct)
    np.testing.assert_allclose(cv.default_betas(FOUR.x, cv.ELBO(sigma=2.0)), cv.default_betas(FOUR.x) / 4, rtol=1e-14)


def test_the_branch_below_a_transition_is_the_iterated_one(both):
    for beta, start, masses in (
        (5.0, [[-3, 0], [3, 0]], [0.5, 0.5]),
        (0.7, [[-3, 1.25], [-3, -1.25], [3, 0]], [0.25, 0.25, 0.5]),
    ):
        s = both[0].at(beta)
        psi, _ = fixed_point(np.array(start), np.array(masses), s.beta)
        found = s.distinct.decoder
        order, expected = (np.lexsort(y.T.round(6)) for y in (found, psi))  # zeros have rounding errors of any sign
        np.testing.assert_allclose(found[order], psi[expected], atol=1e-9)
        np.testing.assert_allclose(np.sort(s.distinct.masses), np.sort(masses), rtol=1e-12)


def test_free_masses_follow_the_data():
    """Clusters of unequal weight: the masses come to equal the marginal posterior, marginal KL 0 (T15)."""
    weights = np.repeat([0.35, 0.25, 0.3, 0.1], 50) / 50
    down, up = cv.sweep(FOUR.x, weights=weights, betas=np.geomspace(12, 0.1, 25), masses="free", direction="both")
    for branch in (down, up):
        assert branch.converged
        assert all(s.masses_free and s.marginal_kl < 1e-12 for s in branch)
    last = down[-1].distinct
    assert len(last) == 4
    assert len(down[0].distinct) == 1
    np.testing.assert_allclose(np.sort(last.masses), [0.1, 0.25, 0.3, 0.35], atol=1e-2)
    fixed = cv.sweep(FOUR.x, weights=weights, betas=np.geomspace(12, 0.1, 25))
    assert (down.free_energy <= fixed.free_energy + 1e-12).all()  # the more freedom the better


def test_bernoulli_sweep_of_binarised_digits():
    x = np.round(datasets.digits(40).x)
    objective = cv.ELBO(likelihood="bernoulli")
    critical = cv.first_critical_beta(x, objective)
    betas = critical * np.array([1.05, 0.95, 0.8, 0.6, 0.4])
    branch = cv.sweep(x, objective, betas=betas, n_tiles=8)
    assert branch.converged
    assert branch.n_distinct[0] == 1
    assert (branch.n_distinct[1:] > 1).all()
    assert (np.diff(branch.n_distinct) >= 0).all()
    assert (np.diff(branch.rate) > 0).all()
    for s in branch:
        assert s.decoder.min() >= 0
        assert s.decoder.max() <= 1
        assert s.rate == pytest.approx(s.free_energy - s.energy)


# --- the default grid -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "last"),
    [
        (datasets.two_points(2.0), 4.0),
        (datasets.two_points(2.0, weight=0.2), 2.56),
        # The first corner to leave splits at 1/2, the edge of length sqrt(3) after it at 3/4: no later than the first.
        (datasets.simplex(3), 0.5),
        # Scales 9 + s^2, 1.25^2 + s^2, 0.55^2 + s^2; a gap of 20 parts them from single clusters at s^2.
        (datasets.four_clusters(), 0.55**2 + 0.125**2),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_default_grid_spans_the_transitions(data, last):
    """From 1.25 times the first down to half the last before the last gap wider than a factor 8."""
    grid = cv.default_betas(data.x, weights=data.weights)
    assert len(grid) == 240
    np.testing.assert_allclose(np.diff(np.log(grid)), np.log(grid[-1] / grid[0]) / 239, rtol=1e-9)
    assert grid[-1] == pytest.approx(1.25 * data.critical_beta, rel=1e-12)
    assert grid[0] == pytest.approx(last / 2, rel=1e-9)
    assert len(cv.default_betas(data.x, count=7)) == 7


@pytest.mark.parametrize(("ratio", "bottom"), [(16.0, 16.0 / 2), (9.0, 9.0 / 2), (7.0, 0.5)])
def test_the_default_grid_of_a_rectangle(ratio, bottom):
    """Splits at a^2, then twice at 1, then none: the grid ends in the last gap above 8, else below the last split."""
    x = np.array([(s * np.sqrt(ratio), t) for s in (-1, 1) for t in (-1, 1)])
    assert cv.default_betas(x)[[0, -1]] == pytest.approx([bottom, 1.25 * ratio], rel=1e-12)


def test_the_default_grid_goes_by_the_weights(rng):
    """Points of weight zero have no say, and equal points share their weights."""
    weights = rng.dirichlet(np.ones(len(FOUR.x)))
    grid = cv.default_betas(FOUR.x, weights=weights)
    mean = weights @ FOUR.x
    top = np.linalg.eigvalsh((weights[:, None] * (FOUR.x - mean)).T @ (FOUR.x - mean))[-1]
    assert grid[-1] == pytest.approx(1.25 * top, rel=1e-12)
    with_a_dead_point = cv.default_betas(np.vstack([FOUR.x, [[50.0, 50.0]]]), weights=np.append(weights, 0.0))
    np.testing.assert_allclose(with_a_dead_point, grid, rtol=1e-9)


def test_the_default_grid_of_many_points_is_read_off_a_sample():
    """Of 1000 points, seeded: within a few percents of the whole, and the same every time."""
    many = datasets.four_clusters(n_per_cluster=500)
    grid = cv.default_betas(many.x)
    np.testing.assert_array_equal(cv.default_betas(many.x), grid)
    assert grid[-1] == pytest.approx(1.25 * many.critical_beta, rel=1e-12)
    assert grid[0] == pytest.approx(cv.default_betas(FOUR.x)[0], rel=0.2)  # variances of 250 points: 9 % each


# --- the sweep itself -----------------------------------------------------------------------------------------------


def small(**options):
    return cv.sweep(FOUR.x, **{"betas": np.geomspace(12, 0.2, 8), "tiling": cv.Tiling.uniform(16), **options})


def test_betas_in_any_order_count_once():
    branch = small(betas=[0.5, 12.0, 2.0, 2.0])
    np.testing.assert_array_equal(branch.betas, [12.0, 2.0, 0.5])
    np.testing.assert_array_equal(small(betas=[0.5, 12.0, 2.0], direction="up").betas, [0.5, 2.0, 12.0])


def test_up_is_the_second_half_of_both():
    up, (_, expected) = small(direction="up"), small(direction="both")
    assert isinstance(up, cv.Branch)
    for name in ("betas", "distortion", "free_energy", "n_distinct"):
        np.testing.assert_array_equal(getattr(up, name), getattr(expected, name))


def test_up_from_a_given_start_does_not_cool():
    start = cv.solve(FOUR.x, beta=0.2, n_tiles=16, start="data", seed=3)
    up = small(direction="up", start=start)
    assert up[0].free_energy <= start.free_energy + 1e-12
    assert up[0].n_maps < 50
    assert up.n_distinct[-1] == 1


def test_the_same_bits_every_time():
    one, two = small(), small()
    for name in ("distortion", "rate", "split_condition"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(one[-1].decoder, two[-1].decoder)


@pytest.mark.parametrize(("direction", "stop"), [("down", 3), ("both", 3), ("both", 8 + 3), ("up", 3)])
def test_a_callback_sees_the_branch_grow_and_stops_it(direction, stop):
    seen = []

    def callback(branch):
        seen.append((branch.direction, len(branch)))
        return len(seen) == stop

    with pytest.warns(cv.NotConvergedWarning, match=r"stopped by the callback: 3 of 8 temperatures .* beta="):
        result = small(direction=direction, callback=callback)
    whole = [("down", n) for n in range(1, 9)] + [("up", n) for n in range(1, 9)]
    if direction == "up":  # of cooling to where heating starts nothing is seen
        whole = whole[8:]
    assert seen == whole[:stop]
    lengths = [len(branch) for branch in (result if direction == "both" else (result,))]
    assert lengths == {("down", 3): [3], ("both", 3): [3, 0], ("both", 11): [8, 3], ("up", 3): [3]}[direction, stop]
    assert [branch.complete for branch in (result if direction == "both" else (result,))] == [n == 8 for n in lengths]


def test_a_callback_that_stops_after_the_last_temperature_has_cut_nothing_short():
    branch = small(callback=lambda so_far: len(so_far) == 8)
    assert branch.complete
    assert "incomplete" not in repr(branch)


@pytest.mark.parametrize("direction", ["down", "up", "both"])
@pytest.mark.parametrize("how", ["callback", "interrupt"])
def test_a_sweep_that_was_cut_short_says_so_everywhere(tmp_path, direction, how):
    def callback(branch):
        if how == "interrupt" and len(branch) == 3:
            raise KeyboardInterrupt
        return len(branch) == 3

    with pytest.warns(cv.NotConvergedWarning, match="stopped|interrupted"):
        result = small(direction=direction, callback=callback)
    branch = result[0] if direction == "both" else result
    assert len(branch) == 3
    assert not branch.complete
    assert not branch[:2].complete
    assert repr(branch).endswith("incomplete)")
    assert "incomplete" in branch._repr_html_()
    branch.save(tmp_path / "part.npz")
    assert not cv.Branch.load(tmp_path / "part.npz").complete
    with pytest.raises(cv.NotConvergedError if how == "callback" else KeyboardInterrupt):
        small(direction=direction, callback=callback, on_failure="raise")
    whole = small(direction="down", start=branch) if direction == "down" else small(direction="down")
    assert whole.complete
    whole.save(tmp_path / "whole.npz")
    assert cv.Branch.load(tmp_path / "whole.npz").complete


def test_heating_that_did_not_begin_says_so(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("constrained_vae.phases.sweep.Annealing.cool", interrupted)
    with pytest.warns(cv.NotConvergedWarning, match="interrupted: heating did not begin"):
        branch = small(direction="up")
    assert len(branch) == 0
    assert not branch.complete


@pytest.mark.parametrize("where", [1, 2, 3, 5, 20, 100])
def test_an_interruption_returns_what_there_is(monkeypatch, where):
    """Whatever it interrupts, be it the first map of a temperature."""
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == where:
            raise KeyboardInterrupt
        return reference.expectations(*arguments)

    monkeypatch.setattr(
        "constrained_vae.problems.problem.get_backend", lambda name: SimpleNamespace(expectations=interrupted)
    )
    with pytest.warns(cv.NotConvergedWarning, match="interrupted: "):
        branch = small()
    assert isinstance(branch, cv.Branch)
    assert len(calls) == where
    assert not branch.complete
    assert len(branch) < 8
    assert branch.converged


def test_failures_are_reported_for_every_temperature():
    with pytest.warns(cv.NotConvergedWarning, match=r"beta=\d.*raise max_maps") as record:
        branch = small(max_maps=3)
    assert len(record) == sum(not s.converged for s in branch) > 3
    assert len(branch) == 8
    with pytest.raises(cv.NotConvergedError) as failure:
        small(max_maps=3, on_failure="raise")
    assert failure.value.solution.status is cv.Status.BUDGET_USED
    assert not small(max_maps=3, on_failure="return").converged


X4 = cv.datasets.four_clusters(seed=0).x[::2]
EIGHT = cv.Tiling.uniform(8)


@fastest_backend
def test_cooling_does_not_depend_on_the_grid(backend):
    """Digits jump (T13): wherever the grid lies, they jump at the same temperatures into the same state."""
    x = cv.datasets.digits().x[:120]
    options = {"tiling": cv.Tiling.uniform(16), "backend": backend}
    fine = cv.sweep(x, betas=np.geomspace(0.62, 1, 21), **options)
    coarse = cv.sweep(x, betas=[0.62, 0.81, 0.9], **options)
    late = cv.sweep(x, betas=[0.62], **options)
    assert fine[-1].beta == coarse[-1].beta == late[-1].beta == 0.62
    assert len(fine[-1].distinct) > 3
    for other in (coarse, late):
        assert other[-1].free_energy == pytest.approx(fine[-1].free_energy, rel=1e-10)
        np.testing.assert_allclose(other[-1].decoder, fine[-1].decoder, atol=1e-7)


@pytest.mark.parametrize("direction", ["down", "up"])
@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_a_saved_branch_is_continued(direction, masses, tmp_path):
    betas = np.geomspace(0.5, 10, 15)
    options = {"tiling": EIGHT, "masses": masses, "direction": direction}
    start = None if direction == "down" else cv.sweep(X4, betas=betas, tiling=EIGHT, masses=masses)[-1]
    whole = cv.sweep(X4, betas=betas, start=start, **options)
    half = cv.sweep(X4, betas=whole.betas[:8], start=start, **options)
    half.save(tmp_path / "half.npz")
    again = cv.sweep(X4, betas=betas, start=cv.Branch.load(tmp_path / "half.npz"), **options)
    np.testing.assert_array_equal(again.betas, whole.betas)
    np.testing.assert_allclose(again.distortion, whole.distortion, rtol=1e-8)
    np.testing.assert_array_equal(again.n_distinct, whole.n_distinct)
    assert [s.n_maps for s in again[:8]] == [s.n_maps for s in half]  # these were not solved again


def test_a_branch_is_continued_in_its_own_direction_only():
    down = cv.sweep(X4, betas=[1.0, 2.0], tiling=EIGHT)
    for start, direction in ((down, "up"), (down, "both"), (down[:0], "down")):
        with pytest.raises(ValueError, match="a branch is continued in its own direction"):
            cv.sweep(X4, betas=[0.5, 1.0], tiling=EIGHT, start=start, direction=direction)


@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_a_predicted_branch_is_the_same(masses):
    """With fewer maps, most of which certify the error in both."""
    options = {"betas": np.geomspace(0.4, 8, 40), "tiling": EIGHT, "masses": masses}
    plain, predicted = cv.sweep(X4, **options), cv.sweep(X4, predict=True, **options)
    np.testing.assert_allclose(predicted.distortion, plain.distortion, rtol=1e-9)
    np.testing.assert_array_equal(predicted.n_distinct, plain.n_distinct)


def test_slope_of_the_distortion_against_differences():
    """On smooth stretches, to the error of the differences: step^2 of the third derivative."""
    betas = 1.2 * np.exp(np.linspace(-0.01, 0.01, 21))
    branch = cv.sweep(X4, betas=betas, tiling=EIGHT)
    assert len(set(branch.n_distinct)) == 1
    inner = slice(1, -1)
    slope = np.gradient(branch.distortion, branch.betas)
    np.testing.assert_allclose(branch.d_distortion[inner], slope[inner], rtol=1e-5)
    bend = np.gradient(slope[inner], branch.betas[inner])
    np.testing.assert_allclose(branch.d2_distortion[2:-2], bend[1:-1], rtol=1e-2)
    np.testing.assert_allclose(branch.d2_distortion, branch.d2_distortion[10], rtol=0.2)
    with pytest.raises(ValueError, match="at least three temperatures, got 2"):
        _ = branch[:2].d2_distortion


def test_the_default_grid_goes_on_below_an_outlier(rng):
    """Four blobs and one far point: the gap below its temperature separates it from the data, not the blobs."""
    blobs = np.concatenate([rng.normal(size=(50, 2)) + centre for centre in ([0, 0], [4, 0], [0, 5], [6, 6])])
    betas = cv.default_betas(np.append(blobs, [[300.0, 0.0]], axis=0))
    assert betas[-1] > 400
    assert betas[0] < 0.5 * min(cv.first_critical_beta(blob) for blob in np.split(blobs, 4))
    # Without the outlier the range is that of the blobs alone, and with clear clusters it still ends in their gap.
    assert betas[0] == pytest.approx(cv.default_betas(blobs)[0], rel=0.5)
