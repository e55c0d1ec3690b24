"""Exact transitions against closed forms, against a Jacobian written out here, and on data whose kinds are known."""

import importlib
import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize_scalar

import constrained_vae as cv
from constrained_vae.phases.criticality import critical_beta
from constrained_vae.phases.expansion import predicted_kind
from constrained_vae.phases.sweep import default_grid
from constrained_vae.solvers.pose import pose
from tests.helpers.marks import slow

transitions = cv.transitions
transition_search = importlib.import_module("constrained_vae.phases.transitions")
TWO = cv.Tiling.uniform(2)


def dense_jacobian(x, rho, psi, pi, lam, free):
    """J of (T8) for the squared error, symmetrised, written out tile by tile; unknowns psi and, free, log pi."""
    H = lam * np.square(x[:, None] - psi).sum(axis=2)
    q = pi * np.exp(H.min(axis=1)[:, None] - H)
    q /= q.sum(axis=1, keepdims=True)
    m = rho @ q
    (K, D), n = psi.shape, psi.size
    J = np.zeros((n + K, n + K))
    for b in range(K):
        for c in range(K):
            w = rho * q[:, b] * ((b == c) - q[:, c]) / m[b]
            xb, xc = x - psi[b], x - psi[c]
            rows, columns = slice(b * D, b * D + D), slice(c * D, c * D + D)
            J[rows, columns] = 2 * lam * (w[:, None] * xb).T @ xc
            J[rows, n + c] = w @ xb
            J[n + b, columns] = 2 * lam * (w @ xc)
            J[n + b, n + c] = (b == c) - (rho * q[:, b] / m[b]) @ q[:, c]
    root = np.sqrt(np.concatenate([np.repeat(2 * lam * m, D), m]))
    J = root[:, None] * J / root
    return J if free else J[:n, :n]


def eigenvalues(solution, doubled, free):
    """Of the Jacobian at a solution with one tile per distinct reconstruction, some of them doubled; ascending."""
    sites = solution.distinct
    pi, index = sites.masses, np.concatenate([np.arange(len(sites)), doubled]).astype(int)
    share = pi / (1 + np.bincount(doubled, minlength=len(pi)))
    args = (sites.decoder[index], share[index], solution.objective.multiplier, free)
    J = dense_jacobian(solution.x, solution.weights, *args)
    assert np.abs(J - J.T).max() <= 1e-6 * np.abs(J).max()
    return np.linalg.eigvalsh((J + J.T) / 2)


@pytest.mark.parametrize(("a", "sigma"), [(1.0, 1.0), (0.37, 3.0), (5.0, 0.5), (2e3, 1.0)])
@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_two_points(a, sigma, masses):
    """Curie and Weiss: beta_c = a^2 / sigma^2, continuous, into equal halves, and no other transition."""
    exact = (a / sigma) ** 2
    (t,) = transitions([[-a], [a]], cv.ELBO(sigma=sigma), (0.1 * exact, 2 * exact), tiling=TWO, masses=masses)
    assert t.beta == pytest.approx(exact, rel=1e-9)
    assert t.bracket[0] < t.beta < t.bracket[1]
    assert (t.kind, t.predicted, t.jump) == ("continuous", "continuous", 0.0)
    assert (t.n_before, t.n_after, t.tiles_before, t.tiles_after) == (1, 2, 2, (1, 1))
    assert t.heating_end == t.crossing == t.beta
    assert abs(t.direction) == pytest.approx([1.0])
    assert t.excess_kurtosis == pytest.approx(-2)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), dim=st.sampled_from([1, 2, 5]))
def test_the_first_is_the_top_eigenvalue_of_the_covariance(seed, dim):
    rng = np.random.default_rng(seed)
    x, rho = rng.normal(size=(40, dim)) * rng.uniform(0.5, 2, dim) + 5, rng.dirichlet(np.full(40, 5.0))
    values, vectors = np.linalg.eigh(np.cov(x.T, aweights=rho, ddof=0).reshape(dim, dim))
    (t,) = transitions(x, cv.ELBO(sigma=2.0), (values[-1] / 8, values[-1] / 2), tiling=TWO, weights=rho, limit=1)
    assert t.beta == pytest.approx(values[-1] / 4, rel=1e-9)
    assert abs(t.direction @ vectors[:, -1]) == pytest.approx(1, abs=1e-9)


def test_digits_and_binarised_digits():
    x = cv.datasets.digits().x
    first = np.linalg.eigvalsh(np.cov(x.T, ddof=0))[-1]
    (t,) = transitions(x, beta_range=(0.95 * first, first * 1.1), n_tiles=4, limit=1)
    assert t.beta == pytest.approx(first, rel=1e-9)
    binary = (x > 0.5).astype(float)
    varied = binary[:, np.ptp(binary, axis=0) > 0]
    first = np.linalg.eigvalsh(np.corrcoef(varied.T))[-1]
    bernoulli = cv.ELBO(likelihood="bernoulli")
    (t,) = transitions(binary, bernoulli, (0.95 * first, first * 1.1), n_tiles=4, limit=1)
    assert t.beta == pytest.approx(first, rel=1e-9)
    assert t.predicted is None


@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_four_clusters_have_three(masses, backend):
    """The whole Jacobian, the parting tile doubled, has the eigenvalue 1 at each and none above; between them none."""
    x, free = cv.datasets.four_clusters(seed=0).x, masses == "free"
    found = transitions(x, beta_range=(0.2, 12), n_tiles=64, masses=masses, backend=backend)
    assert [t.n_after for t in found] == [2, 3, 4]
    assert [t.kind for t in found] == ["continuous"] * 3
    trivial = 1 if free else 0  # a doubled tile may exchange mass with itself: an eigenvalue exactly 1 (T8)
    for t in found:
        values = eigenvalues(t.before, [t.reconstruction], free)
        assert values[-1 - trivial :] == pytest.approx(1, abs=1e-7)
        assert values[-2 - trivial] < 1 - 1e-4
    for above, below in itertools.pairwise(found):
        for beta in np.geomspace(above.beta * (1 - 2e-3), below.beta * (1 + 1e-6), 20):
            start = above.after.distinct
            tiling = cv.Tiling(start.masses)
            s = cv.solve(x, beta=float(beta), tiling=tiling, start=start.decoder, masses=masses, on_failure="return")
            values = eigenvalues(s, range(len(start)), free)
            assert values[-1 - trivial * len(start)] < 1


def exponential(n=2000):
    """Equal-probability points of the exponential distribution."""
    return -np.log1p(-(np.arange(n) + 0.5) / n)[:, None]


def test_kinds_for_skew_data():
    """Two equal tiles split continuously; more, or free masses, jump, and heating ends where c reaches 1 (T16)."""
    x = exponential()
    y, first = x[:, 0] - x.mean(), x.var()
    (t,) = transitions(x, beta_range=(first / 2, 2 * first), tiling=TWO, limit=1)
    assert (t.kind, t.predicted) == ("continuous", "continuous")
    assert t.skewness == pytest.approx((y**3).mean() / first**1.5, rel=1e-9)
    assert t.excess_kurtosis == pytest.approx((y**4).mean() / first**2 - 3, rel=1e-9)
    for masses in ("fixed", "free"):
        (t,) = transitions(x, beta_range=(first / 2, 2 * first), n_tiles=8, masses=masses, limit=1)
        assert (t.kind, t.predicted) == ("first-order", "first-order")
        assert t.beta == pytest.approx(first, rel=1e-9)
        assert t.beta < t.crossing <= t.heating_end
        assert t.jump > 0.1
        assert t.before.distortion - t.after.distortion == pytest.approx(t.jump, rel=0.01)
    inverse = minimize_scalar(lambda s: s**2 / (4 * np.log(np.mean(np.exp(s * y)))), bounds=(0.01, 5)).fun
    assert t.heating_end == pytest.approx(1 / (2 * inverse), rel=1e-3)
    # With free masses the new part is born with no mass: there the free energies meet (T16).
    assert t.crossing == pytest.approx(t.heating_end, rel=1e-5)


@pytest.mark.parametrize("number", [0, slow(1), slow(2)])
def test_heating_ends_where_small_steps_say(number):
    """A part of little mass is lost by a long step that a short one would not lose it by."""
    options = {"tiling": cv.Tiling.uniform(16), "masses": "free"}
    t = transitions(exponential(200), beta_range=(0.3, 3), **options)[number]
    state = t.after
    for beta in [*np.geomspace(t.beta, t.heating_end * (1 - 1e-5), 60), t.heating_end * (1 + 1e-4)]:
        assert len(state.distinct) > t.n_before
        state = cv.solve(state.x, beta=float(beta), start=state, on_failure="return", **options)
    assert len(state.distinct) <= t.n_before


def test_free_energies_cross_where_it_is_said():
    x = exponential(200)
    (t,) = transitions(x, beta_range=(0.5, 2), n_tiles=8, limit=1)
    collapsed = cv.solve(x, beta=t.crossing, n_tiles=1)
    ordered = cv.solve(x, beta=t.crossing, n_tiles=8, start=t.after)
    assert len(ordered.distinct) == 2
    assert ordered.free_energy == pytest.approx(collapsed.free_energy, abs=1e-8)


@pytest.mark.parametrize("masses", ["fixed", "free"])
@pytest.mark.parametrize(
    ("x", "parts"),
    [(np.eye(3), 3), (np.eye(4), 4), (np.array([[1, 1], [1, -1], [-1, 1], [-1, -1.0]]), 4)],
    ids=["triangle", "simplex", "square"],
)
def test_symmetric_data_split_at_once(x, parts, masses):
    """A degenerate eigenvalue splits into as many parts as there are points; the run does not stay on the saddle."""
    first = np.linalg.eigvalsh(np.cov(x.T, ddof=0))[-1]
    (t,) = transitions(x, beta_range=(0.3 * first, 2 * first), n_tiles=12, masses=masses)
    assert t.beta == pytest.approx(first, rel=1e-9)
    assert t.n_after == parts
    assert sum(t.tiles_after) == 12
    assert t.after.split_condition < 1
    assert t.predicted is None  # the expansion knows one direction only


@pytest.mark.filterwarnings("ignore::constrained_vae.NotConvergedWarning")  # of the end of heating
@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_a_transition_at_which_the_unsplit_branch_ends(masses):
    """Corners of a cube: the four reconstructions after the first split lose their stability where each splits."""
    x = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
    first, second = transitions(x, beta_range=(0.6, 1.2), n_tiles=64, masses=masses)
    assert (first.beta, first.n_after) == (pytest.approx(1, rel=1e-12), 4)
    assert (second.beta, second.n_after) == (pytest.approx(0.7296905079, rel=1e-9), 8)


def test_transitions_closer_than_the_kick_are_told_apart():
    """Two pairs, far from each other, whose own splits are 1e-4 apart: each is found where it is."""
    x = np.array([[-101.0], [-99.0], [100 - np.sqrt(1.0001)], [100 + np.sqrt(1.0001)]])
    found = transitions(x, beta_range=(0.9, 1.1), n_tiles=8)
    assert [t.beta for t in found] == pytest.approx([1.0001, 1.0], rel=1e-9)
    assert [(t.n_before, t.n_after) for t in found] == [(2, 3), (3, 4)]


@pytest.mark.parametrize(
    ("skewness", "kurtosis", "masses", "free", "kind"),
    [
        (0.5, 0.0, [0.5, 0.5], False, "continuous"),
        (0.5, 0.0, [0.4, 0.6], False, "first-order"),
        (0.5, 0.0, [1 / 3] * 3, False, "first-order"),
        (0.5, 0.0, [1.0], True, "first-order"),
        (0.0, -0.1, [1.0], True, "continuous"),
        (0.0, 0.1, [1.0], True, "first-order"),
        (0.0, 0.5, [0.25] * 4, False, "continuous"),
        (0.0, 20.0, [0.05] * 20, False, "first-order"),
        (np.nan, np.nan, [1.0], True, None),
    ],
)
def test_prediction(skewness, kurtosis, masses, free, kind):
    assert predicted_kind(skewness, kurtosis, np.array(masses), free) == kind


@given(st.floats(-1, 8), st.floats(0.05, 0.5))
def test_prediction_of_symmetric_data_is_the_sign_of_the_expansion(kurtosis, p):
    """-dF of two parts displaced by -(1 - p), p, at the fourth order of (T13)."""
    t, m = np.array([-(1 - p), p]), np.array([p, 1 - p])
    moment = {n: m @ t**n for n in (1, 2, 4)}
    assert moment[1] == pytest.approx(0, abs=1e-15)
    gain = kurtosis * moment[4] / 24 - (kurtosis + 2) * moment[2] ** 2 / 8
    if abs(gain) > 1e-12:
        assert (predicted_kind(0.0, kurtosis, m, False) == "first-order") == (gain > 0)


def test_options_and_ends():
    x = cv.datasets.four_clusters(seed=0).x
    some = {"beta_range": (0.2, 12), "tiling": cv.Tiling.uniform(8)}
    assert len(transitions(x, limit=1, **some)) == 1
    seen = []
    assert len(transitions(x, callback=lambda found: seen.append(len(found)) or len(found) == 2, **some)) == 2
    assert seen == [1, 2]

    def stop(found):
        raise KeyboardInterrupt

    with pytest.warns(cv.NotConvergedWarning, match="interrupted: transitions below"):
        assert len(transitions(x, callback=stop, **some)) == 1
    assert [t.n_after for t in transitions(x, n_tiles=8)] == [2, 3, 4]  # the default range
    below = transitions(x, beta_range=(1.0, 2.0), n_tiles=8)
    assert [t.n_before for t in below] == [2]
    assert repr(below[0]).startswith("Transition(beta=1.5781")


def test_where_there_is_none():
    x = cv.datasets.four_clusters(seed=0).x
    assert transitions(x, beta_range=(10, 20)) == []
    assert transitions(x, beta_range=(0.2, 12), n_tiles=1) == []
    assert transitions(np.ones((5, 2)), beta_range=(0.1, 1)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_range": (2, 1)}, "beta_range must be two temperatures, 0 < lowest < highest, got (2, 1)"),
        ({"beta_range": (0, 1)}, "0 < lowest < highest"),
        ({"beta_range": (1, 2, 3)}, "beta_range must be two temperatures"),
        ({"beta_range": (1, np.nan)}, "beta_range must be finite"),
        ({"masses": "both"}, "masses must be one of"),
        ({"limit": 0}, "limit must be a whole number of at least 1"),
        ({"callback": 3}, "callback must be callable"),
        ({"tiling": 8}, "tiling must be an instance of Tiling"),
        ({"tol": 0.0}, "tol must be positive"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        transitions([[0.0], [1.0]], **({"beta_range": (0.1, 1)} | options))


def test_moments_are_those_of_the_site(rng):
    x = rng.gamma(2.0, size=(500, 1))
    (t,) = transitions(x, beta_range=(0.5 * x.var(), 2 * x.var()), tiling=TWO, limit=1)
    assert t.skewness * t.direction[0] == pytest.approx(((x - x.mean()) ** 3).mean() / x.std() ** 3)


@pytest.mark.slow
def test_ten_transitions_of_the_digits():
    """The first five as an independent trial of the same protocol found them."""
    found = transitions(cv.datasets.digits().x[:300], beta_range=(0.3, 1), masses="free", limit=10)
    assert len(found) == 10
    assert [t.beta for t in found[:5]] == pytest.approx([0.794297, 0.768881, 0.718598, 0.693969, 0.662944], abs=1e-6)
    for t in found:
        values = eigenvalues(t.before, [t.reconstruction], free=True)
        assert values[-2:] == pytest.approx(1, abs=1e-7)
        assert values[-3] < 1


def peak(beta, low, high):
    return cv.Peak(beta, 1.0, 0, (low, high))


def at(*betas):
    found = [object.__new__(cv.Transition) for _ in betas]
    for transition, beta in zip(found, betas, strict=True):
        object.__setattr__(transition, "beta", beta)
    return found


def test_matching_peaks():
    """On a grid of powers of 2: at most two steps apart, the nearest first, each once; hottest first."""
    peaks = [peak(4.0, 2.0, 8.0), peak(256.0, 128.0, 512.0)]

    def matched(*betas):
        return cv.match_peaks(peaks, at(*betas)).tolist()

    assert matched(250.0, 4.1) == [[1, 0], [0, 1]]
    assert matched(4.1, 250.0) == [[1, 1], [0, 0]]
    assert matched(16.0) == [[1, -1], [0, 0]]  # the bracket widened by a step
    assert matched(16.1) == [[1, -1], [-1, 0], [0, -1]]
    assert matched(0.99) == [[1, -1], [0, -1], [-1, 0]]
    assert matched(300.0, 5.0, 3.9) == [[1, 0], [-1, 1], [0, 2]]
    assert matched() == [[1, -1], [0, -1]]
    assert cv.match_peaks([], at(2.0, 3.0)).tolist() == [[-1, 1], [-1, 0]]
    assert cv.match_peaks([], []).shape == (0, 2)


def test_the_highest_peaks_are_the_transitions_to_a_step_of_the_grid():
    """The paper's detection on 240 temperatures, four clusters: each within its bracket."""
    x = cv.datasets.four_clusters(seed=0).x
    peaks, found = cv.sweep(x, n_tiles=64).peaks(k=3), cv.transitions(x, n_tiles=64)
    matches = cv.match_peaks(peaks, found)
    assert (matches >= 0).all()
    assert len(matches) == len(found) == 3
    for i, j in matches:
        low, high = peaks[i].bracket
        assert low < found[j].beta < high


# --- parts ------------------------------------------------------------------------------------------------------------


def test_the_range_by_default_is_that_of_the_default_grid(rng, monkeypatch):
    called = []
    monkeypatch.setattr(transition_search, "_list", lambda *arguments: called.append(arguments))
    x = rng.normal(size=(20, 2))
    found = cv.transitions(x, n_tiles=2)
    problem = pose(x, None, n_tiles=2).problem
    grid = default_grid(problem, critical_beta(problem))
    start, beta_range = called[0][1:3]
    assert beta_range == (grid[0], grid[-1])
    assert beta_range[0] == found.complete_to < 0.1 * beta_range[1]
    assert start > cv.first_critical_beta(x)


def test_points_that_coincide_have_no_transitions(monkeypatch):
    monkeypatch.setattr(transition_search, "_list", lambda *_: pytest.fail("nothing is to be listed"))
    assert list(cv.transitions(np.ones((4, 2)), beta_range=(0.1, 1.0), n_tiles=2)) == []


def test_the_site_that_moves_farthest_in_a_jump_and_its_direction():
    index = np.array([0, 0, 1])
    before = SimpleNamespace(decoder=np.array([[0.0, 0.0], [5.0, 5.0]]), index=index)
    after = SimpleNamespace(decoder=np.array([[0.0, 1.0], [5.0, 5.0], [3.0, -4.0]]), index=np.array([0, 2, 1]))
    branch = SimpleNamespace(problem=SimpleNamespace(framed=SimpleNamespace(coordinates=lambda psi: psi)))
    event = SimpleNamespace(at=SimpleNamespace(sites=before), after=SimpleNamespace(sites=after))
    site, direction = transition_search._moved(branch, event)
    assert site == 0
    assert direction == pytest.approx([0.6, -0.8])
    event.after.sites = before
    assert transition_search._moved(branch, event)[1].tolist() == [0.0, 0.0]


def test_the_bar_shows_how_far_the_log_temperature_has_fallen(monkeypatch):
    """From a temperature above the first transition, 1, to the lowest one; nothing is shown unless it is asked for."""
    bars = []

    class Bar:
        def __init__(self, total, disable, **_):
            self.total, self.length, self.disable, self.n, self.moves = total, total, disable, 0.0, []
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def update(self, move):
            self.n += move
            self.moves.append(move)

        def set_postfix_str(self, *_, **__): ...
        def refresh(self): ...

    monkeypatch.setattr(transition_search, "tqdm", Bar)
    for progress in ({}, {"progress": True}):
        transitions([[-1.0], [1.0]], beta_range=(0.5, 2.0), tiling=TWO, backend="reference", **progress)
    quiet, shown = bars
    assert (quiet.disable, shown.disable) == (True, False)
    first, last = np.log(1.01), np.log(0.5)
    assert shown.length == shown.n == pytest.approx(first - last)
    assert min(shown.moves) >= 0
    assert max(shown.moves) < 0.2
