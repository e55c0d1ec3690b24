"""The Lagrangian (T1), (T2), (T5): what it is the same as, that it never rises, and where it ends."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings, strategies as st
from scipy.optimize import root
from sklearn.decomposition import KernelPCA
from sklearn.linear_model import LogisticRegression

import constrained_vae as cv
from constrained_vae import equations
from constrained_vae.solvers.acceleration import ACCELERATORS
from constrained_vae.testing import EPS, multiplier_of_error, naive_slope
from tests.helpers.mixtures import KINDS, all_kinds, mixture, mixtures, ways_to_keep

FEW = settings.default.max_examples // 12  # examples of each pair of constraints, which are 15


def title(kinds):
    return " + ".join(kinds)


def solve(m, **options):
    start = options.pop("start", m.start)
    return cv.solve(m.x, m.lagrangian, tiling=cv.Tiling(m.masses), weights=m.weights, start=start, **options)


def descent(m, **options):
    """Free energies of all accepted points of a short run, and its result."""
    free_energies = []
    s = solve(m, callback=lambda i: free_energies.append(i.free_energy), on_failure="return", **options)
    return np.array(free_energies), s


def distance(one, other):
    """sqrt(sum_a m_a ||psi_a - psi'_a||^2), the norm of `error_estimate`."""
    return float(np.sqrt(other.marginal @ np.square(one.decoder - other.decoder).sum(axis=1)))


# --- it never rises --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", all_kinds(), ids=title)
def test_the_lagrangian_never_rises(kinds):
    """From map to map, whatever constraints, accelerator, masses; also if they are held by a box or an anchor.

    The tolerance is the rounding of two free energies, see `Mixture.rounding`: some 1e-12, of falls of a few nats.
    """

    @settings(max_examples=FEW, phases=(Phase.generate,))  # a problem is no simpler for a smaller seed
    @given(mixtures(kinds), st.sampled_from([*ACCELERATORS]), st.sampled_from(["fixed", "free"]))
    def holds(m, accelerate, masses):
        free_energies, s = descent(m, accelerate=accelerate, masses=masses, max_maps=5)
        assert len(free_energies) > 1
        assert np.diff(free_energies).max() <= m.rounding
        assert free_energies[-1] < free_energies[0] - 1e-6
        assert s.free_energy == pytest.approx(m.naive(s.decoder, s.tiling.masses).free_energy, abs=m.rounding)

    holds()


def test_the_start_is_moved_into_the_box(rng):
    """Outside of it the free energy may be lower than anywhere inside: that is no point of the descent."""
    m = mixture(3, ("RE",), "box")
    x = 4 * (m.x - 0.5) + 0.5
    free_energies = []
    s = cv.solve(
        x,
        m.lagrangian,
        tiling=cv.Tiling(m.masses),
        start=x[:3],
        callback=lambda i: free_energies.append((i.free_energy, i.decoder.min(), i.decoder.max())),
    )
    values, lows, highs = np.array(free_energies).T
    assert s.converged
    assert np.diff(values).max() <= m.rounding
    assert lows.min() >= 0.2 - 1e-12
    assert highs.max() <= 0.8 + 1e-12


def test_a_box_that_does_not_hold_the_mean():
    """All reconstructions in the nearest corner, from the first point of a sweep to the last."""
    x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    objective = cv.Lagrangian(cv.RE(0.1), 2.0, box=(2.0, 3.0))
    s = cv.solve(x, objective, n_tiles=2)
    np.testing.assert_allclose(s.decoder, 2, rtol=1e-14)
    branch = cv.sweep(x, objective, betas=[0.5, 1.0, 2.0], n_tiles=2)
    for solution in branch:
        np.testing.assert_allclose(solution.decoder, 2, rtol=1e-14)


# --- where it ends ---------------------------------------------------------------------------------------------------

# Correlations are blind to the contrast of a patch but not to whether there is any: beside classes, or in a box, their
# infimum may lie at a patch that is all but constant, and is not attained. There descent is all that can be asked.
ATTAINED = [
    (kinds, kept)
    for kinds in all_kinds()
    for kept in ways_to_keep(kinds)
    if not (set(kinds) == {"CLA", "PNCC"} or (kinds, kept) == (("PNCC",), "box"))
]


@pytest.mark.parametrize(("kinds", "kept"), ATTAINED, ids=str)
def test_the_expected_gradient_vanishes(kinds, kept):
    """T2, from free energies of loops over points and tiles; at the bounds of a box it points outward.

    Errors of 1e-10 of a radius below 1 times curvatures of some 100, and of differences 1e-9.
    """
    m = mixture(7, kinds, kept)
    s = solve(m)
    assert s.converged
    naive = m.naive(s.decoder)
    assert s.free_energy == pytest.approx(naive.free_energy, abs=m.rounding)
    assert s.energy == pytest.approx(naive.energy, abs=m.rounding)
    np.testing.assert_allclose(s.encoder, naive.encoder, atol=1e-12)
    np.testing.assert_allclose(s.marginal, naive.mass, atol=1e-12)
    gradient = naive_slope(lambda psi: m.naive(psi).free_energy, s.decoder)
    if kept == "box":
        low, high = s.decoder <= 0.2 + 1e-14, s.decoder >= 0.8 - 1e-14
        assert s.decoder.min() >= 0.2 - 1e-14
        assert s.decoder.max() <= 0.8 + 1e-14
        gradient = np.where(low, gradient.clip(None, 0), np.where(high, gradient.clip(0), gradient))
    assert np.abs(gradient).max() < 1e-7
    # E[C_k], each in its own units: the energies of the naive encoder.
    expected = np.einsum("n,na,cna->c", m.weights, naive.encoder, m.energies(s.decoder))
    for constraint, energy in zip(m.lagrangian.constraints, expected, strict=False):
        assert s.constraint_values[constraint.name] == pytest.approx(energy - constraint.allowance, abs=1e-12)
    assert s.energy == pytest.approx(float(m.values @ expected), rel=1e-11)
    assert s.rate == pytest.approx(naive.free_energy - naive.energy, abs=2 * m.rounding)
    anchored = m.lagrangian.anchor * expected[-1] if kept == "anchor" else 0.0
    of_constraints = sum(s.multipliers[name] * value for name, value in s.constraint_values.items())
    assert s.lagrangian == pytest.approx(s.rate + of_constraints + anchored, abs=2 * m.rounding)  # (T5)


@pytest.mark.parametrize("kinds", [("RE", "CLA"), ("RE", "PNCC"), ("FRE",), ("linear FRE", "PNCC")], ids=title)
def test_free_masses_are_those_of_the_posterior(kinds):
    m = mixture(11, kinds)
    s = solve(m, masses="free")
    assert s.converged
    np.testing.assert_allclose(s.tiling.masses, s.marginal, atol=1e-8)
    gradient = naive_slope(lambda psi: m.naive(psi, s.tiling.masses).free_energy, s.decoder)
    assert np.abs(gradient).max() < 1e-6


@pytest.mark.parametrize("kinds", [("RE",), ("FRE", "linear FRE"), ("RE", "CLA"), ("RE", "PNCC")], ids=title)
def test_every_backend_descends_to_the_same_end(backend, kinds):
    m = mixture(5, kinds)
    free_energies, s = descent(m, backend=backend)
    assert s.converged
    assert np.diff(free_energies).max() <= m.rounding
    other = solve(m, backend="reference")
    assert s.free_energy == pytest.approx(other.free_energy, abs=m.rounding)
    np.testing.assert_allclose(s.decoder, other.decoder, atol=1e-8)


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS], ids=title)
def test_kernels_agree_with_the_loops(backend, kinds):
    """Mass, free energy, energy of one pass at a random point; and the sums are those of the statistics."""
    m = mixture(9, kinds, "anchor")
    masses = m.masses
    found = cv.block_expectations(m.x, m.start, m.lagrangian, masses=masses, weights=m.weights, backend=backend)
    naive = m.naive(m.start)
    assert found.free_energy == pytest.approx(naive.free_energy, abs=m.rounding)
    assert found.energy == pytest.approx(naive.energy, abs=m.rounding)
    np.testing.assert_allclose(found.mass, naive.mass, atol=1e-12)
    frame = cv.Frame(np.zeros(6), 1.0)
    phi, _ = m.lagrangian.in_frame(frame).statistics(m.x, slice(0, 6))
    np.testing.assert_allclose(found.sums, (m.weights[:, None] * naive.encoder).T @ phi, atol=1e-12)


@pytest.mark.parametrize("kinds", all_kinds(), ids=title)
def test_product_of_a_mixture_is_the_gradient_of_the_free_energy(kinds):
    """dF / dpsi = -pullback(psi, sums, mass) (T2), in the units of a frame."""
    m = mixture(13, kinds, "anchor")
    frame = cv.Frame(m.x.mean(axis=0), 0.4)
    objective, psi = m.lagrangian.in_frame(frame), frame.inward(m.start)
    phi, s = objective.statistics(frame.inward(m.x), slice(0, 6))
    found = equations.expectations(phi, objective.offset(s), m.weights, *objective.readout(psi), np.log(m.masses))
    gradient = -objective.pullback(psi, found.sums, found.mass)
    # Fourth-order differences of h = 1e-3: 1e-12 times fifth derivatives below 1e4.
    expected = 0.4 * naive_slope(lambda psi: m.naive(psi).free_energy, m.start)
    np.testing.assert_allclose(gradient, expected, atol=1e-7)


# --- errors are honest -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "kept"),
    [(("FRE",), None), (("RE", "CLA"), None), (("FRE", "PNCC"), None), (("CLA",), "anchor"), (("RE", "FRE"), "box")],
    ids=str,
)
@pytest.mark.parametrize("accelerate", ["plain", "lbfgs"])
def test_the_error_estimate_is_honest(kinds, kept, accelerate):
    """A loose solution is as far from a tight one that starts from it as it says, or a few times that.

    The estimate is of first order: at a tolerance of 1e-3 what it leaves out is a part of the error itself.
    """
    for seed in range(4):
        m = mixture(seed, kinds, kept)
        loose = solve(m, tol=1e-3, accelerate=accelerate)
        tight = solve(m, tol=1e-12, start=loose.decoder, on_failure="return")
        assert tight.error_estimate < 1e-9
        assert loose.error_estimate <= 1e-3 * loose.frame.scale
        assert distance(loose, tight) <= 3 * loose.error_estimate + tight.error_estimate


UNDERESTIMATED = "one run in ten ends where rounding hides a slow mode, and says less than a third of its error"


@pytest.mark.parametrize(
    ("n_tiles", "beside"),
    [
        (2, 0.0),
        (2, 0.3),
        (5, 0.0),
        pytest.param(5, 0.3, marks=pytest.mark.xfail(strict=False, reason=UNDERESTIMATED)),
    ],
)
def test_features_in_single_precision_are_an_error_that_is_told(beside, n_tiles, rng):
    """As networks have them. The map is rounded to some 1e-7 there: no map is seen to move any more, and yet the end is
    as far from the true one as the estimate says, or that is infinite."""
    x, W = rng.normal(size=(30, 2)), rng.normal(size=(6, 2))

    def solved(kind, **options):
        def function(x):
            return np.tanh(x.astype(kind) @ W.T.astype(kind))

        def product(x, df):
            return (df.astype(kind) * (1 - function(x) ** 2)) @ W.astype(kind)

        objective = cv.Lagrangian([cv.FRE(0.2, cv.Features(function, product)), cv.RE(1.0)], [5.0, beside])
        return cv.solve(x, objective, n_tiles=n_tiles, on_failure="return", **options)

    rough = solved(np.float32, start=x[:n_tiles])
    fine = solved(np.float64, start=rough.decoder)
    assert fine.converged
    assert rough.free_energy == pytest.approx(fine.free_energy, abs=1e-6)
    assert distance(rough, fine) <= 3 * rough.error_estimate + fine.error_estimate


# --- ELBO ------------------------------------------------------------------------------------------------------------

NUMBERS = ("rate", "distortion", "free_energy", "energy", "marginal_kl", "split_condition")


def assert_same(one, other, **tolerance):
    for name in NUMBERS:
        assert getattr(one, name) == pytest.approx(getattr(other, name), **tolerance), name
    for name in ("decoder", "encoder", "marginal"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-8)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.status is other.status
    assert len(one.distinct) == len(other.distinct)
    assert one.tolerance == pytest.approx(other.tolerance, rel=1e-3)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("masses", ["fixed", "free"])
@pytest.mark.parametrize(("beta", "sigma"), [(0.4, 1.0), (0.15, 1.6), (3.0, 1.0)])
def test_re_is_the_gaussian_elbo(reduction, masses, beta, sigma, rng):
    """In everything but the value of the Lagrangian, which is lower by lambda kappa^2; two solutions of error 1e-10."""
    x = rng.normal(size=(40, 3))
    lam = 1 / (2 * sigma**2 * beta) * (3 if reduction == "mean" else 1)
    options = {"tiling": cv.Tiling.uniform(4), "masses": masses, "start": "data"}
    one = cv.solve(x, cv.ELBO(beta, sigma), **options)
    two = cv.solve(x, cv.Lagrangian([cv.RE(0.7, reduction=reduction)], [lam]), **options)
    assert one.converged
    assert_same(two, one, rel=1e-9, abs=1e-12)
    assert one.lagrangian == one.free_energy
    assert two.lagrangian == two.free_energy - lam * 0.7**2
    assert two.multipliers == {"RE": lam}
    assert one.multipliers == one.constraint_values == one.active == {}
    mean = 3 if reduction == "mean" else 1
    assert two.constraint_values == {"RE": pytest.approx(one.distortion / mean - 0.49, rel=1e-9)}
    assert two.active == {"RE": True}
    new = rng.normal(size=(5, 3))
    np.testing.assert_allclose(two.encode(new), one.encode(new), atol=1e-8)
    np.testing.assert_allclose(two.reconstruct(new), one.reconstruct(new), atol=1e-8)


def test_re_takes_the_same_maps_and_kernel_as_the_elbo(rng, monkeypatch):
    """The same iterates, and `quadratic` for the kernel: no more work."""
    x, start = rng.normal(size=(40, 3)), rng.normal(size=(4, 3))
    options = {"tiling": cv.Tiling.uniform(4), "start": start, "accelerate": "plain", "record": True, "max_maps": 30}
    options["on_failure"] = "return"
    one, two = (cv.solve(x, o, **options) for o in (cv.ELBO(0.5), cv.Lagrangian(cv.RE(0.1), 1.0)))
    assert one.n_maps == two.n_maps
    np.testing.assert_allclose(two.trajectory, one.trajectory, atol=1e-11)  # eps, grown by 30 maps
    frame = cv.Frame(np.zeros(3), 2.0)
    framed = cv.Lagrangian([cv.RE(0.1), cv.RE(0.2, reduction="mean")], [1.0, 6.0], beta=2.0).in_frame(frame)
    assert framed.quadratic == pytest.approx((1.0 + 6.0 / 3) / 2 * 2.0**2, rel=1e-14)
    assert framed.stiffness == pytest.approx(2 * framed.quadratic, rel=1e-14)
    phi, _ = framed.statistics(x, slice(0, 40))
    assert phi.shape == (40, 3)  # x once


def test_re_along_the_temperature_is_the_gaussian_elbo(rng):
    """Sweeps, the first critical temperature, the nearest split, derivatives, exact transitions and their kinds."""
    x = rng.normal(size=(30, 2)) * [2.0, 1.0]
    elbo, lagrangian = cv.ELBO(sigma=0.8), cv.Lagrangian(cv.RE(0.1), 1 / (2 * 0.8**2))
    tiling = cv.Tiling.uniform(6)
    critical = cv.first_critical_beta(x, elbo)
    assert cv.first_critical_beta(x, lagrangian) == pytest.approx(critical, rel=1e-12)
    assert cv.first_critical_beta(x, lagrangian.at(7.0)) == pytest.approx(critical, rel=1e-12)
    np.testing.assert_allclose(cv.default_betas(x, lagrangian), cv.default_betas(x, elbo), rtol=1e-9)
    betas = critical * np.geomspace(0.2, 1.1, 8)
    one, two = (cv.sweep(x, objective, betas=betas, tiling=tiling) for objective in (elbo, lagrangian))
    for a, b in zip(two, one, strict=True):
        assert_same(a, b, rel=1e-8, abs=1e-9)
        assert a.multipliers["RE"] == pytest.approx(1 / (2 * 0.8**2 * a.beta), rel=1e-14)
    np.testing.assert_allclose(two.d_distortion, one.d_distortion, rtol=1e-6)
    assert cv.nearest_split(two[3]).beta == pytest.approx(cv.nearest_split(one[3]).beta, rel=1e-8)
    found = [cv.transitions(x, o, (0.4 * critical, 2 * critical), tiling=tiling) for o in (elbo, lagrangian)]
    assert len(found[0]) == len(found[1]) > 1
    for a, b in zip(*found, strict=True):
        # Near a merger F of the pair and of the merged sites differ by the square of the distance in log beta, which is
        # rounding up to a distance of 1e-8.
        assert b.beta == pytest.approx(a.beta, rel=1e-8 if a.kind == "merger" else 1e-9)
        assert (b.kind, b.tiles_after) == (a.kind, a.tiles_after)
        assert b.heating_end == pytest.approx(a.heating_end, rel=1e-5, nan_ok=True)
        # Third and fourth moments about a reconstruction that is known to 1e-10.
        assert b.skewness == pytest.approx(a.skewness, rel=1e-6, abs=1e-8, nan_ok=True)
        assert b.excess_kurtosis == pytest.approx(a.excess_kurtosis, rel=1e-6, nan_ok=True)
        assert b.predicted == a.predicted


@pytest.mark.parametrize("squared_error", [0.9, 0.5, 0.1, 1e-3])
def test_two_points_have_the_error_that_is_asked_for(squared_error):
    """lambda from D = a^2 (1 - m^2): the constraint is met, E[C] = 0."""
    lam = multiplier_of_error(1.5, 1.5**2 * squared_error)
    objective = cv.Lagrangian(cv.RE.from_squared_error(1.5**2 * squared_error), lam)
    s = cv.solve([[-1.5], [1.5]], objective, n_tiles=2, tol=1e-12)
    assert s.constraint_values["RE"] == pytest.approx(0, abs=1e-9)
    assert s.lagrangian == pytest.approx(s.rate, abs=1e-8)


# --- FRE (T19) -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masses", ["fixed", "free"])
def test_fre_of_an_invertible_map_is_re_of_mapped_data(backend, masses, rng):
    """Fixed point by fixed point; the distortion is measured in the space of the data all the same."""
    x, A = rng.normal(size=(40, 3)), rng.normal(size=(3, 3)) + 2 * np.eye(3)
    start = x[:4]
    options = {"tiling": cv.Tiling.uniform(4), "masses": masses, "backend": backend}
    one = cv.solve(x, cv.Lagrangian(cv.FRE(0.2, A), 0.3), start=start, **options)
    two = cv.solve(x @ A.T, cv.Lagrangian(cv.RE(0.2), 0.3), start=start @ A.T, **options)
    for s in (one, two):
        assert s.converged
    np.testing.assert_allclose(one.decoder @ A.T, two.decoder, atol=1e-8)
    np.testing.assert_allclose(one.encoder, two.encoder, atol=1e-8)
    for name in ("free_energy", "rate", "energy", "lagrangian"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-9)
    assert one.constraint_values["FRE"] == pytest.approx(two.constraint_values["RE"], rel=1e-9)
    # A^-1 B and the covariance of the mapped data have the same eigenvalues (T9).
    assert one.split_condition == pytest.approx(two.split_condition, rel=1e-6)
    squared = np.square(x[:, None] - one.decoder).sum(axis=2)
    assert one.distortion == pytest.approx((one.encoder * squared).sum() / len(x), rel=1e-12)


def test_the_maps_of_a_linear_fre_are_those_of_mapped_data(rng):
    x, A = rng.normal(size=(40, 3)), rng.normal(size=(3, 3)) + 2 * np.eye(3)
    options = {"tiling": cv.Tiling.uniform(4), "accelerate": "plain", "max_maps": 10, "record": True}
    options["on_failure"] = "return"
    one = cv.solve(x, cv.Lagrangian(cv.FRE(0.2, A), 0.3), start=x[:4], **options)
    two = cv.solve(x @ A.T, cv.Lagrangian(cv.RE(0.2), 0.3), start=x[:4] @ A.T, **options)
    np.testing.assert_allclose(one.trajectory @ A.T, two.trajectory, atol=1e-11)
    critical = np.linalg.eigvalsh(np.cov(A @ x.T, ddof=0))[-1] * 2 * 0.3
    assert cv.first_critical_beta(x, cv.Lagrangian(cv.FRE(0.2, A), 0.3)) == pytest.approx(critical, rel=1e-6)


@pytest.mark.parametrize("beside", [False, True])
def test_fewer_linear_features_than_dimensions(beside, rng):
    """Directions that A does not see are flat: reconstructions are means there, as closed form and as minimisation."""
    x, A = rng.normal(size=(40, 4)), rng.normal(size=(2, 4))
    constraints, multipliers = [cv.FRE(0.2, A)], [2.0]
    if beside:
        constraints, multipliers = [*constraints, cv.RE(0.5)], [2.0, 0.5]
    s = cv.solve(x, cv.Lagrangian(constraints, multipliers), n_tiles=3, start="data")
    assert s.converged
    q = s.encoder / s.encoder.sum(axis=0)
    np.testing.assert_allclose(s.decoder, q.T @ x, atol=1e-8)
    stacked = np.vstack([np.sqrt(2.0) * A, np.sqrt(0.5) * np.eye(4)]) if beside else np.sqrt(2.0) * A
    mapped = cv.solve(x @ stacked.T, cv.Lagrangian(cv.RE(0.0), 1.0), n_tiles=3, start=s.decoder @ stacked.T)
    assert s.free_energy == pytest.approx(mapped.free_energy, rel=1e-10)
    # By minimisation: the same map without its name, started at the solution, stays.
    unnamed = cv.Features(lambda x: x @ A.T, lambda x, df: df @ A)
    constraints[0] = cv.FRE(0.2, unnamed)
    other = cv.solve(x, cv.Lagrangian(constraints, multipliers), n_tiles=3, start=s.decoder)
    assert other.converged
    np.testing.assert_allclose(other.decoder @ A.T, s.decoder @ A.T, atol=1e-8)
    assert other.free_energy == pytest.approx(s.free_energy, rel=1e-10)


def collapsed_condition(x, f, start):
    """psi_0 = argmin ||mean f - f(psi)||^2, and the eigenvalues and axis of M^-1 F^T Cov_f F (T19), by dense algebra.

    f(x) = sqrt(2 / S) cos(W x + c), with f' and f'' written out.
    """
    W, c = f.frequencies, f.phases
    size = np.sqrt(2 / len(c))
    values = size * np.cos(x @ W.T + c)
    mean = values.mean(axis=0)

    def parts(psi):
        angle = W @ psi + c
        F = -size * np.sin(angle)[:, None] * W  # (S, D)
        gap = mean - size * np.cos(angle)
        bend = -size * np.einsum("s,sd,se->de", gap * np.cos(angle), W, W)  # gap . f''
        return gap, F, F.T @ F - bend

    solved = root(lambda psi: -parts(psi)[1].T @ parts(psi)[0], start, jac=lambda psi: parts(psi)[2], tol=1e-14)
    psi = solved.x
    gap, F, M = parts(psi)
    assert np.abs(F.T @ gap).max() < 1e-12
    assert np.linalg.eigvalsh(M)[0] > 0
    values, vectors = np.linalg.eig(np.linalg.solve(M, F.T @ np.cov(values.T, ddof=0) @ F))
    top = values.real.argmax()
    return psi, values.real[top], vectors[:, top].real


@pytest.mark.parametrize(("gamma", "seed", "n_features"), [(0.1, 0, 64), (0.05, 1, 40), (0.2, 2, 256)])
def test_first_transition_of_random_fourier_features(gamma, seed, n_features, rng):
    """2 lambda lambda_max(M^-1 F^T Cov_f F) = 1, in the space of the data (T19)."""
    x = rng.normal(size=(60, 3)) * [1.2, 0.8, 0.5]
    f = cv.FourierFeatures.random(3, n_features, gamma, seed)
    psi, top, axis = collapsed_condition(x, f, x.mean(axis=0))
    objective = cv.Lagrangian(cv.FRE(0.1, f), 4.0)
    critical = cv.first_critical_beta(x, objective)
    assert critical == pytest.approx(2 * 4.0 * top, rel=1e-6)
    # There the sweep splits, and not above: two tiles split where the eigenvalue is 1, whatever the order.
    betas = critical * np.array([1.1, 1 + 1e-5, 1 - 1e-5])
    branch = cv.sweep(x, objective, betas=betas, n_tiles=2)
    assert branch.n_distinct.tolist() == [1, 1, 2]
    for collapsed in branch[:2]:
        np.testing.assert_allclose(collapsed.decoder, np.stack([psi, psi]), atol=1e-8)
        assert collapsed.split_condition == pytest.approx(2 * 4.0 / collapsed.beta * top, rel=1e-6)
        assert collapsed.rate < 1e-12
    split = cv.nearest_split(branch[1])
    assert split.beta == pytest.approx(critical, rel=1e-6)
    assert abs(split.direction @ axis) == pytest.approx(np.linalg.norm(axis), rel=1e-6)
    assert branch[2].free_energy < 2 * 4.0 / branch[2].beta  # nothing runs away


def test_the_exact_transition_is_that_of_the_condition(rng):
    x = rng.normal(size=(40, 2)) * [1.2, 0.6]
    f = cv.FourierFeatures.random(2, 32, 0.1, 3)
    objective = cv.Lagrangian(cv.FRE(0.1, f), 4.0)
    critical = cv.first_critical_beta(x, objective)
    (first,) = cv.transitions(x, objective, (0.5 * critical, 2 * critical), n_tiles=2, limit=1)
    assert first.beta == pytest.approx(2 * 4.0 * collapsed_condition(x, f, x.mean(axis=0))[1], rel=1e-6)
    assert (first.n_before, first.n_after) == (1, 2)


def test_with_the_decoder_in_feature_space_it_is_kernel_pca(rng):
    """ELBO on f(x): the first critical beta is the top eigenvalue of the centred kernel over N, the axis its vector."""
    x = rng.normal(size=(60, 3))
    f = cv.FourierFeatures.random(3, 100, 0.2, 1)(x)
    pca = KernelPCA(2, kernel="precomputed", eigen_solver="dense").fit(f @ f.T)
    assert cv.first_critical_beta(f) == pytest.approx(pca.eigenvalues_[0] / 60, rel=1e-10)
    critical = cv.first_critical_beta(f)
    collapsed = cv.solve(f, beta=1.01 * critical, n_tiles=2)
    scores = (f - f.mean(axis=0)) @ cv.nearest_split(collapsed).direction
    component = pca.eigenvectors_[:, 0]
    assert abs(scores @ component) == pytest.approx(np.linalg.norm(scores), rel=1e-9)


# --- sweeps and results ----------------------------------------------------------------------------------------------


def test_a_sweep_moves_all_multipliers_together():
    """lambda / beta; the result of one temperature starts the next, and dF = sum_k E[H_k] dlambda_k (T7)."""
    m = mixture(2, ("RE", "CLA"))
    betas = np.geomspace(0.5, 0.6, 6)
    branch = cv.sweep(m.x, m.lagrangian, betas=betas, tiling=cv.Tiling(m.masses), weights=m.weights, start=m.start)
    assert branch.converged
    lam = np.array([list(s.multipliers.values()) for s in branch])
    np.testing.assert_allclose(lam, np.array(m.lagrangian.multipliers) / branch.betas[:, None], rtol=1e-14)
    allowances = np.array([c.allowance for c in m.lagrangian.constraints])
    np.testing.assert_allclose([s.lagrangian for s in branch], branch.free_energy - lam @ allowances, rtol=1e-13)
    H = np.array([list(s.constraint_values.values()) for s in branch]) + allowances
    # Trapezoidal rule over steps of 4 % in lambda: 1e-3 squared or so of each step's change.
    np.testing.assert_allclose(
        np.diff(branch.free_energy), (np.diff(lam, axis=0) * (H[1:] + H[:-1]) / 2).sum(axis=1), rtol=5e-3
    )
    assert m.lagrangian.at(0.5).values.tolist() == [2 * value for value in m.lagrangian.multipliers]
    assert m.lagrangian.at(2.0).at(1.0).values.tolist() == list(m.lagrangian.multipliers)


def test_labels_of_a_solution_are_those_of_its_own_data(rng):
    """A fitted classifier with names for its classes: the encoder knows the labels of x, and of no other points."""
    names = np.array(["ape", "cow", "dog"])
    number = np.arange(60) % 3
    x = rng.normal(size=(60, 2)) + 2 * np.eye(3)[number, :2]
    classifier = LogisticRegression().fit(x, names[number])
    objective = cv.Lagrangian([cv.RE(1.0), cv.CLA(0.9, classifier, names[number])], [0.5, 6.0])
    s = cv.solve(x, objective, n_tiles=3, start=np.array([x[number == c].mean(axis=0) for c in range(3)]))
    assert s.converged
    c = classifier.predict_proba(s.decoder)
    H = 0.5 * np.square(x[:, None] - s.decoder).sum(axis=2) + 6 * (1 - c.T[number])
    q = np.exp(-H) / np.exp(-H).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(s.encoder, q, atol=1e-10)
    right = (q * c.T[number]).sum() / 60
    assert s.constraint_values["CLA"] == pytest.approx(0.9 - right, rel=1e-9)
    np.testing.assert_array_equal(s.labels, s.distinct.index[q.argmax(axis=1)])
    for ask in (s.encode, s.reconstruct):
        with pytest.raises(
            ValueError, match="CLA knows the labels of the data points that were solved for, and of no others"
        ):
            ask(x[:3])


def test_a_solution_is_read_back_where_its_objective_is_given(tmp_path):
    m = mixture(1, ("RE", "CLA"))
    s, path = solve(m), tmp_path / "s.npz"
    s.save(path)
    with pytest.raises(ValueError, match="of which only a part is in the file: give objective="):
        cv.FixedPoint.load(path)
    for other in (m.lagrangian.constraints[:1], m.lagrangian.constraints[::-1]):
        with pytest.raises(ValueError, match=r"was solved under .* got the objective"):
            cv.FixedPoint.load(path, cv.Lagrangian(other, m.lagrangian.multipliers[: len(other)]))
    loaded = cv.FixedPoint.load(path, m.lagrangian.at(7.0))
    for name in ("multipliers", "constraint_values", "active", "lagrangian", "error_estimate", "status"):
        assert getattr(loaded, name) == getattr(s, name)
    np.testing.assert_array_equal(loaded.decoder, s.decoder)
    np.testing.assert_array_equal(loaded.encoder, s.encoder)
    branch = cv.sweep(m.x, m.lagrangian, betas=[1.0, 2.0], n_tiles=2)
    branch.save(path)
    for one, two in zip(cv.Branch.load(path, m.lagrangian), branch, strict=True):
        assert one.multipliers == two.multipliers


def test_same_bits_from_run_to_run():
    m = mixture(1, ("RE", "PNCC"))
    one, two = solve(m), solve(m)
    np.testing.assert_array_equal(one.decoder, two.decoder)
    assert one.free_energy == two.free_energy


def test_a_constraint_that_is_not_paid_for_changes_nothing(rng):
    """Multipliers of zero: slack constraints beside others, and alone, where nothing is worth a nat."""
    m = mixture(4, ("RE", "FRE"))
    re, fre = m.lagrangian.constraints
    one = cv.solve(m.x, cv.Lagrangian([re, fre], [2.0, 0.0]), n_tiles=3, start=m.start)
    two = cv.solve(m.x, cv.Lagrangian(re, 2.0), n_tiles=3, start=m.start)
    np.testing.assert_allclose(one.decoder, two.decoder, atol=1e-8)
    assert one.free_energy == pytest.approx(two.free_energy, rel=1e-12)
    assert one.active == {"RE": True, "FRE": False}
    assert np.isfinite(one.constraint_values["FRE"])
    nothing = cv.solve(m.x, cv.Lagrangian(re, 0.0), n_tiles=3)
    assert nothing.rate == pytest.approx(0, abs=1e-14)
    assert nothing.active == {"RE": False}


# --- units and offsets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 2.0**20])
@pytest.mark.parametrize("unit", [2.0**-20, 1.0, 2.0**20])
def test_units_and_offsets_cost_no_accuracy(offset, unit, rng):
    """RE and linear FRE: x -> s (x + t), lambda -> lambda / s^2. Points of ten bits move without rounding.

    In the frame all is the same again but for the rounding of its centre, eps of the offset; the decoder cannot be
    better than that in units of x.
    """
    x, A = np.round(rng.normal(size=(30, 3)) * 1024) / 1024, rng.normal(size=(2, 3))
    options = {"tiling": cv.Tiling.uniform(4)}

    def objective(unit):
        return cv.Lagrangian([cv.RE(0.5 * unit), cv.FRE(0.2 * unit, A)], [0.6 / unit**2, 0.9 / unit**2])

    one = cv.solve(x, objective(1.0), start=x[:4], **options)
    two = cv.solve(unit * (x + offset), objective(unit), start=unit * (x[:4] + offset), **options)
    assert two.converged
    assert two.free_energy == pytest.approx(one.free_energy, rel=1e-11)
    assert two.rate == pytest.approx(one.rate, rel=1e-9)
    np.testing.assert_allclose(two.decoder / unit - offset, one.decoder, atol=1e-9 + 4 * EPS * offset)
    for name in ("RE", "FRE"):
        assert two.constraint_values[name] / unit**2 == pytest.approx(one.constraint_values[name], rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 2.0**20])
@pytest.mark.parametrize("unit", [2.0**-20, 1.0, 2.0**20])
def test_units_and_offsets_of_curved_features(offset, unit, rng):
    """Fourier features of s (x + t) with frequencies W / s and phases c - W t.

    Angles of W t, some 1e6, come back modulo rounding: eps times that, 1e-9, of features and hence of all results.
    """
    x = np.round(rng.normal(size=(30, 2)) * 1024) / 1024
    f = cv.FourierFeatures.random(2, 24, 0.1, 4)
    moved = cv.FourierFeatures(f.frequencies / unit, f.phases - f.frequencies @ np.full(2, offset))
    options = {"tiling": cv.Tiling.uniform(3)}
    one = cv.solve(x, cv.Lagrangian(cv.FRE(0.2, f), 9.0), start=x[:3], **options)
    two = cv.solve(
        unit * (x + offset),
        cv.Lagrangian(cv.FRE(0.2, moved), 9.0),
        start=unit * (x[:3] + offset),
        on_failure="return",
        **options,
    )
    # The map itself is no smoother than its angles: the end is known to their rounding, and the error says so.
    assert two.converged or two.error_estimate < 1e-6 * unit
    assert two.free_energy == pytest.approx(one.free_energy, rel=1e-12 if offset == 0 else 1e-8)
    np.testing.assert_allclose(two.decoder / unit - offset, one.decoder, atol=1e-8 if offset == 0 else 1e-6)


# --- bad input -------------------------------------------------------------------------------------------------------

RE = cv.RE(0.3)
PROBABILITIES = cv.ClassProbabilities(np.eye(3), np.zeros(3))
CLA = cv.CLA(0.9, PROBABILITIES, [0, 1, 2, 0])
PNCC = cv.PNCC(0.9, (1, 3), (1, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cv.Lagrangian(RE, -1.0), "multipliers must be finite and at least 0, got -1"),
        (lambda: cv.Lagrangian([RE, RE], [1.0, np.nan]), "multipliers must be finite, got nan"),
        (lambda: cv.Lagrangian([RE], [1.0, 2.0]), "multipliers must be one per constraint, got 2 for 1"),
        (lambda: cv.Lagrangian([RE, RE], 1.0), "multipliers must be one per constraint, got 1 for 2"),
        (lambda: cv.Lagrangian([], []), "constraints must be at least one"),
        (lambda: cv.Lagrangian(RE, "many"), "multipliers must be"),
        (lambda: cv.Lagrangian(RE, None), "multipliers must be"),
        (lambda: cv.Lagrangian(cv.RE, 1.0), "constraints must be an instance of Constraint such as RE"),
        (lambda: cv.Lagrangian([RE, 3.0], [1.0, 1.0]), "constraints must be an instance of Constraint"),
        (lambda: cv.Lagrangian(cv.ELBO(), 1.0), "constraints must be an instance of Constraint"),
        (lambda: cv.Lagrangian(RE, 1.0, beta=0.0), "beta must be positive"),
        (lambda: cv.Lagrangian(RE, 1.0).at(-1.0), "beta must be positive"),
        (lambda: cv.Lagrangian(RE, 1.0, anchor=-1.0), "anchor must be finite and at least 0"),
        (lambda: cv.Lagrangian(RE, 1.0, box=1.0), r"box must be \(low, high\)"),
        (lambda: cv.Lagrangian(RE, 1.0, box=(0.0, 1.0, 2.0)), r"box must be \(low, high\)"),
        (lambda: cv.Lagrangian(RE, 1.0, box=(1.0, 0.0)), "low < high"),
        (lambda: cv.Lagrangian(RE, 1.0, box=(1.0, 1.0)), "low < high"),
        (lambda: cv.Lagrangian(RE, 1.0, box=(0.0, np.inf)), "box must be finite"),
        (lambda: cv.Lagrangian(RE, 1.0, box=(np.zeros((2, 2)), 1.0)), "box must be"),
        (lambda: cv.Lagrangian(RE, 1.0, box=(np.zeros(2), np.ones(3))), "box must be"),
        (lambda: cv.Lagrangian(RE, 1.0, box=("a", "b")), "box must be"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_multipliers_may_be_any_numbers():
    for given_ in (2, 2.0, np.float32(2), np.array(2.0), [2.0], np.array([2.0]), (np.int64(2),)):
        assert cv.Lagrangian(RE, given_).multipliers == (2.0,)


@pytest.mark.parametrize("constraints", [[CLA], [PNCC], [CLA, PNCC]], ids=["CLA", "PNCC", "both"])
def test_what_has_no_minimiser_wants_a_box_or_an_anchor(constraints):
    names = " and ".join(c.name for c in constraints)
    with pytest.raises(cv.NoMinimiserError, match=rf"^{names} alone would.*box=\(low, high\).*anchor="):
        cv.Lagrangian(constraints, [1.0] * len(constraints))
    assert issubclass(cv.NoMinimiserError, ValueError)
    for options in ({"box": (0.0, 1.0)}, {"anchor": 0.01}):
        assert cv.Lagrangian(constraints, [1.0] * len(constraints), **options).names == tuple(
            c.name for c in constraints
        )
    assert cv.Lagrangian([*constraints, RE], [1.0] * (len(constraints) + 1)).anchor == 0


def test_what_bounds_nothing_does_not_count():
    """An RE of multiplier zero, or linear features of fewer dimensions, hold no classifier's scores back."""
    with pytest.raises(cv.NoMinimiserError, match="anchor="):
        cv.Lagrangian([RE, CLA], [0.0, 1.0])
    with pytest.raises(cv.NoMinimiserError, match="anchor="):
        cv.Lagrangian([cv.FRE(0.1, np.eye(3)[:2]), CLA], [1.0, 1.0])


def test_namesakes_are_numbered():
    assert cv.Lagrangian([RE, cv.RE(0.1), PNCC, cv.RE(0.2)], [1.0] * 4).names == ("RE", "RE_2", "PNCC", "RE_3")
    assert cv.Lagrangian([RE, cv.RE(0.1, name="fine")], [1.0] * 2).names == ("RE", "fine")
    s = cv.solve([[-1.0], [1.0]], cv.Lagrangian([RE, cv.RE(0.1)], [0.5, 0.5]), n_tiles=2)
    assert s.multipliers == {"RE": 0.5, "RE_2": 0.5}
    assert s.constraint_values["RE_2"] - s.constraint_values["RE"] == pytest.approx(0.3**2 - 0.1**2)


def test_no_two_names_are_the_same():
    constraints = [RE, cv.RE(0.1), cv.RE(0.2, name="RE_2")]
    assert len(set(cv.Lagrangian(constraints, [1.0] * 3).names)) == 3


def test_it_prints_what_is_in_force():
    text = repr(cv.Lagrangian([RE, PNCC], [1.0, 3.0], beta=2.0))
    assert "0.5 RE(kappa=0.3" in text
    assert "1.5 PNCC(kappa=0.9" in text
    assert "beta=2" in text


@pytest.mark.parametrize("door", ["solve", "sweep", "first_critical_beta", "transitions"])
@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (cv.Lagrangian([RE, CLA], [1.0, 1.0]), "labels must be one per data point, got 4 for 5 points"),
        (cv.Lagrangian(cv.FRE(0.1, np.eye(4)), 1.0), "FRE: features of points of dimension 3 failed"),
        (cv.Lagrangian([RE, cv.PNCC(0.9, (2, 2), 2)], [1.0, 1.0]), r"image_shape \(2, 2\) wants 4 values"),
        (
            cv.Lagrangian([RE, cv.CLA(0.9, PROBABILITIES, [0] * 5), CLA], [1.0] * 3),
            r"constraints must know the same data points, got labels of \[4, 5\]",
        ),
        (cv.Lagrangian(RE, 1.0, box=(np.zeros(2), np.ones(2))), "box must"),
    ],
)
def test_data_that_do_not_fit(door, objective, message, rng):
    options = {"betas": [1.0]} if door == "sweep" else {"beta_range": (0.1, 1.0)} if door == "transitions" else {}
    with pytest.raises(ValueError, match=message):
        getattr(cv, door)(rng.normal(size=(5, 3)), objective, **options)
