"""Metamorphic properties (theory.md section 5) and monotone descent (T6), on every backend.

Equivariances are tested on a few plain maps from a given start, every iterate included: so no near-tie between two
branches can turn rounding into another, equally good solution.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

import constrained_vae as cv
from constrained_vae.solvers.acceleration import ACCELERATORS
from constrained_vae.testing import EPS, naive_bernoulli, naive_expectations, small_problems

N_MAPS = 4
# Half of what the profile has, as every test is run on every backend.
fewer = settings(max_examples=max(10, settings.default.max_examples // 2))
masses_kinds = st.sampled_from(["fixed", "free"])


def plain_maps(problem, backend, masses="fixed", sigma=1.0, n_maps=N_MAPS, likelihood="gaussian"):
    """The point after `n_maps` evaluations of the map, with all iterates; discards what converges before that."""
    s = cv.solve(
        problem.x,
        cv.ELBO(problem.beta, sigma=sigma, likelihood=likelihood),
        tiling=cv.Tiling(problem.masses),
        weights=problem.weights,
        masses=masses,
        start=problem.start,
        accelerate="plain",
        tol=1e-15,
        max_maps=n_maps,
        record=True,
        backend=backend,
        on_failure="return",
    )
    assume(len(s.trajectory) == n_maps)
    return s


def assert_same(moved, plain, problem, offset=0.0, scale=1.0, extra=0.0):
    """Every quantity that must be as before, and the iterates brought back by x -> (x - offset) / scale.

    `extra` is the relative error that moving the data itself made; reconstructions of light tiles are averages over few
    points, no less well known than others.
    """
    tolerance = problem.rounding(N_MAPS) + extra
    assume(tolerance < 1e-6)
    nats = tolerance * (1 + problem.energies)
    np.testing.assert_allclose((moved.trajectory - offset) / scale, plain.trajectory, rtol=0, atol=tolerance)
    np.testing.assert_allclose(moved.encoder, plain.encoder, rtol=0, atol=nats)
    np.testing.assert_allclose(moved.marginal, plain.marginal, rtol=0, atol=nats)
    np.testing.assert_allclose(moved.tiling.masses, plain.tiling.masses, rtol=0, atol=nats)
    assert moved.free_energy == pytest.approx(plain.free_energy, rel=0, abs=nats)
    assert moved.rate == pytest.approx(plain.rate, rel=0, abs=nats)
    assert moved.distortion / scale**2 == pytest.approx(plain.distortion, rel=0, abs=nats * 2 * problem.beta)
    assert moved.residual / scale == pytest.approx(plain.residual, rel=0, abs=2 * nats)


# --- equivariances ----------------------------------------------------------------------------------------------------


@fewer
@given(masses=masses_kinds, problem=small_problems(), t=st.floats(-100, 100))
def test_translation(backend, masses, problem, t):
    moved = replace(problem, x=problem.x + t, start=problem.start + t)
    extra = 16 * EPS * abs(t) * (1 + problem.multiplier) * max(1, problem.rounding(N_MAPS) / EPS)
    assert_same(
        plain_maps(moved, backend, masses), plain_maps(problem, backend, masses), problem, offset=t, extra=extra
    )


@fewer
@given(masses=masses_kinds, problem=small_problems(), seed=st.integers(0, 2**32 - 1))
def test_rotation_and_reflection(backend, masses, problem, seed):
    dim = problem.x.shape[1]
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]
    moved = plain_maps(replace(problem, x=problem.x @ Q, start=problem.start @ Q), backend, masses)
    plain = plain_maps(problem, backend, masses)
    object.__setattr__(moved, "trajectory", moved.trajectory @ Q.T)
    assert_same(moved, plain, problem)


@fewer
@given(masses=masses_kinds, problem=small_problems(), log_scale=st.floats(-5, 5), sigma=st.floats(0.1, 10))
def test_scaling(backend, masses, problem, log_scale, sigma):
    """x -> s x with beta -> s^2 beta leaves q, R, F and sends D -> s^2 D; so does sigma^2 beta as one."""
    scale = 10**log_scale
    moved = replace(problem, x=problem.x * scale, start=problem.start * scale, beta=problem.beta * (scale / sigma) ** 2)
    assert_same(
        plain_maps(moved, backend, masses, sigma=sigma), plain_maps(problem, backend, masses), problem, scale=scale
    )


@fewer
@given(masses=masses_kinds, problem=small_problems(least_tiles=2), data=st.data())
def test_permuting_tiles(backend, masses, problem, data):
    order = np.array(data.draw(st.permutations(range(len(problem.masses)))))
    moved = plain_maps(replace(problem, masses=problem.masses[order], start=problem.start[order]), backend, masses)
    plain = plain_maps(problem, backend, masses)
    back = np.argsort(order)
    for name in ("trajectory", "encoder"):
        object.__setattr__(moved, name, np.take(getattr(moved, name), back, axis=1))
    object.__setattr__(moved, "marginal", moved.marginal[back])
    object.__setattr__(moved, "tiling", cv.Tiling(moved.tiling.masses[back]))
    assert_same(moved, plain, problem)


@fewer
@given(masses=masses_kinds, problem=small_problems(), data=st.data())
def test_permuting_and_duplicating_points(backend, masses, problem, data):
    """Duplicates share the weight, in whatever shares and order."""
    n = len(problem.x)
    order = np.array(data.draw(st.permutations(range(2 * n))))
    share = data.draw(st.floats(0, 1))
    twice = replace(
        problem,
        x=np.concatenate([problem.x, problem.x])[order],
        weights=np.concatenate([share * problem.weights, (1 - share) * problem.weights])[order],
    )
    moved, plain = plain_maps(twice, backend, masses), plain_maps(problem, backend, masses)
    object.__setattr__(moved, "encoder", moved.encoder[np.argsort(order)][:n])
    assert_same(moved, plain, problem)


@fewer
@given(masses=masses_kinds, problem=small_problems(least_tiles=2), share=st.floats(0.1, 0.9), data=st.data())
def test_splitting_a_tile(backend, masses, problem, share, data):
    """Two tiles at one place, of the mass of one between them, change nothing in q, F, R, D."""
    split = data.draw(st.integers(0, len(problem.masses) - 1))
    first = np.where(np.arange(len(problem.masses)) == split, share, 1.0) * problem.masses
    moved = plain_maps(
        replace(
            problem,
            masses=np.append(first, (1 - share) * problem.masses[split]),
            start=np.vstack([problem.start, problem.start[split]]),
        ),
        backend,
        masses,
    )
    plain = plain_maps(problem, backend, masses)
    np.testing.assert_array_equal(moved.trajectory[:, split], moved.trajectory[:, -1])
    encoder, marginal, pi = moved.encoder[:, :-1].copy(), moved.marginal[:-1].copy(), moved.tiling.masses[:-1].copy()
    for whole, part in (
        (encoder, moved.encoder[:, -1:]),
        (marginal, moved.marginal[-1:]),
        (pi, moved.tiling.masses[-1:]),
    ):
        whole[..., split] += part[..., 0]
    object.__setattr__(moved, "encoder", encoder)
    object.__setattr__(moved, "marginal", marginal)
    object.__setattr__(moved, "tiling", cv.Tiling(pi))
    object.__setattr__(moved, "trajectory", moved.trajectory[:, :-1])
    assert_same(moved, plain, problem)


@fewer
@given(problem=small_problems(bernoulli=True), data=st.data())
def test_bernoulli_knows_no_order_of_pixels_and_no_colour(backend, problem, data):
    """Permuted pixels, and 0 and 1 exchanged: the cross-entropy is the same."""
    order = np.array(data.draw(st.permutations(range(problem.x.shape[1]))))
    moved = replace(problem, x=1 - problem.x[:, order], start=1 - problem.start[:, order])
    one = plain_maps(moved, backend, likelihood="bernoulli")
    two = plain_maps(problem, backend, likelihood="bernoulli")
    # A map averages over points: a change delta of psi returns as at most lambda delta / (psi (1 - psi)). After one map
    # psi may be 0 or 1 itself. Two maps are compared, from a start within [0.05, 0.95].
    tolerance = 1e4 * EPS / problem.beta
    np.testing.assert_allclose(1 - one.trajectory[:2], two.trajectory[:2][..., order], rtol=0, atol=tolerance)
    np.testing.assert_allclose(one.free_energy, two.free_energy, rtol=1e-9)


@pytest.mark.parametrize(("offset", "scale"), [(1e6, 1.0), (0.0, 1e100), (-1e-94, 1e-100)])
@fewer
@given(problem=small_problems())
def test_offset_and_units_cost_no_accuracy(backend, offset, scale, problem):
    """The encoder of the plain data to 1e-6. (The offset data itself is rounded: to 1e6 eps = 2e-10 of the radius.)"""
    moved = replace(problem, x=problem.x * scale + offset, start=problem.start * scale + offset)
    one = plain_maps(replace(moved, beta=problem.beta), backend, sigma=scale)
    two = plain_maps(problem, backend)
    assume(problem.rounding(N_MAPS) < 1e-12)  # growth of up to about 100 remains
    np.testing.assert_allclose(one.encoder, two.encoder, rtol=0, atol=1e-6)
    assert one.free_energy == pytest.approx(two.free_energy, abs=1e-6)
    assert one.rate == pytest.approx(two.rate, abs=1e-6)
    np.testing.assert_allclose((one.decoder - offset) / scale, two.decoder, rtol=0, atol=1e-6)


def test_offset_and_units_in_a_whole_annealing(backend):
    """The same branch to 1e-6, through splits and all."""
    data = cv.datasets.four_clusters(n_per_cluster=8)
    betas = np.array([10.0, 7.0, 2.0, 1.0, 0.2])
    plain = cv.sweep(data.x, betas=betas, n_tiles=16, backend=backend)
    assert plain.n_distinct.tolist() == [1, 2, 2, 3, 4]  # transitions near 9.02, 1.58 and 0.32
    for offset, scale in ((1e6, 1.0), (0.0, 1e100), (0.0, 1e-100)):
        moved = cv.sweep(
            data.x * scale + offset,
            cv.ELBO(sigma=scale),
            betas=betas,
            n_tiles=16,
            backend=backend,
        )
        for one, two in zip(moved, plain, strict=True):
            np.testing.assert_allclose(one.encoder, two.encoder, rtol=0, atol=1e-6)
            assert one.rate == pytest.approx(two.rate, rel=1e-6, abs=1e-6)
            assert one.distortion / scale**2 == pytest.approx(two.distortion, rel=1e-6)


# --- descent ----------------------------------------------------------------------------------------------------------


def divergence(p, psi, likelihood):
    """d_f(p, psi), data first: squared error, or the Kullback-Leibler divergence of Bernoulli variables; (K,)."""
    if likelihood == "gaussian":
        return np.square(p - psi).sum(axis=-1)

    def part(a, b):
        return np.where(a > 0, a * np.log(np.where(a > 0, a, 1) / np.where(a > 0, b, 1)), 0)

    return (part(p, psi) + part(1 - p, 1 - psi)).sum(axis=-1)


@pytest.mark.parametrize(
    ("likelihood", "masses"), [("gaussian", "fixed"), ("gaussian", "free"), ("bernoulli", "fixed")]
)
@fewer
@given(data=st.data())
def test_every_plain_step_descends_by_what_T6_promises(backend, likelihood, masses, data):
    """F(psi) - F(T(psi)) >= lambda sum m d_f(T, psi), with KL(m || pi) more where masses are free.

    The free energies are the solver's, the masses and images those of the naive map, which the iterates must follow.
    """
    problem = data.draw(small_problems(bernoulli=likelihood == "bernoulli", relative_beta=(0.05, 2.0)))
    lam = 1 / problem.beta if likelihood == "bernoulli" else problem.multiplier
    iterates = []
    cv.solve(
        problem.x,
        cv.ELBO(problem.beta, likelihood=likelihood),
        tiling=cv.Tiling(problem.masses),
        weights=problem.weights,
        masses=masses,
        start=problem.start,
        accelerate="plain",
        tol=1e-15,
        max_maps=6,
        backend=backend,
        callback=iterates.append,
        on_failure="return",
    )
    naive_map = naive_bernoulli if likelihood == "bernoulli" else naive_expectations
    psi, pi = problem.start, problem.masses
    growth = problem.rounding(1) if likelihood == "gaussian" else 1e4 * EPS / problem.beta
    for before, after in itertools.pairwise(iterates):
        if after.n_maps != before.n_maps + 1 or np.ptp(before.decoder - psi) > 1e-9:
            break  # converged and gone on to the split condition, or rounding has grown
        naive = naive_map(problem.x, problem.weights, psi, pi, problem.beta)
        assert before.free_energy == pytest.approx(naive.free_energy, abs=1e-7 * (1 + lam))
        image = np.where(naive.mass[:, None] > 0, naive.sums / np.where(naive.mass > 0, naive.mass, 1)[:, None], psi)
        if after is iterates[1]:
            known = (naive.mass == 0) | (
                naive.mass > 1e-290
            )  # the naive map divides denormal numbers, which have no digits
            np.testing.assert_allclose(after.decoder[known], image[known], rtol=0, atol=growth + 1e-12)
        promised = lam * naive.mass @ divergence(image, psi, likelihood)
        if masses == "free":
            promised += math.fsum(m * math.log(m / p) for m, p in zip(naive.mass, pi, strict=True) if m > 0)
            pi = naive.mass / naive.mass.sum()
        rounding = EPS * (16 + len(problem.x)) * (1 + abs(before.free_energy) + problem.energies + 10 * lam)
        assert before.free_energy - after.free_energy >= promised * (1 - 1e-9) - rounding - growth * promised
        psi = after.decoder


@pytest.mark.parametrize("accelerate", ACCELERATORS)
@fewer
@given(likelihood=st.sampled_from(["gaussian", "bernoulli"]), masses=st.sampled_from(["fixed", "free"]), data=st.data())
def test_free_energy_never_rises(backend, accelerate, likelihood, masses, data):
    """From the first iterate to the last, through ties and kicks, whoever proposes."""
    problem = data.draw(small_problems(bernoulli=likelihood == "bernoulli", relative_beta=(0.02, 1.2)))
    free_energies = []
    s = cv.solve(
        problem.x,
        cv.ELBO(problem.beta, likelihood=likelihood),
        tiling=cv.Tiling(problem.masses),
        weights=problem.weights,
        masses=masses,
        start=problem.start,
        accelerate=accelerate,
        max_maps=150,
        backend=backend,
        callback=lambda iterate: free_energies.append(iterate.free_energy),
        on_failure="return",
    )
    # F is a mean of log Z_i, each with the rounding of its energies (in the frame: lambda radius^2 times the square of
    # the reach) and of a sum over tiles; and of a sum over points. Two of them are compared.
    reach = problem.energies if likelihood == "gaussian" else 40 / problem.beta  # -log psi down to about e^-40
    rounding = 4 * EPS * (len(problem.x) + len(problem.masses) + (problem.x.shape[1] + 3) * (1 + reach))
    assert np.diff(free_energies).max(initial=0.0) <= rounding
    assert free_energies[-1] == s.free_energy
