"""FixedPoint and Branch: what is derived agrees with what is stored, and comes back from a file bit for bit."""

import json
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae import datasets, equations
from constrained_vae._utils import memory
from constrained_vae.testing import naive_bernoulli, naive_expectations

KINDS = ["gaussian", "free masses", "bernoulli"]


def solved(kind, **options):
    rng = np.random.default_rng(5)
    x, weights = datasets.four_clusters(8).x, rng.dirichlet(np.ones(32))
    objective = cv.ELBO(0.4, 0.9)
    if kind == "bernoulli":
        # Greys, so that no reconstruction comes to 0 or 1; these split at 0.6 and fall into clusters.
        x, objective = 0.1 + 0.8 * datasets.digits(32).x[:, 18:24], cv.ELBO(0.4, likelihood="bernoulli")
    tiling = cv.Tiling(rng.dirichlet(np.ones(12)), rng.normal(size=(12, 2)))
    masses = "free" if kind == "free masses" else "fixed"
    return cv.solve(x, objective, tiling=tiling, weights=weights, masses=masses, backend="reference", **options)


@pytest.fixture(scope="module", params=KINDS)
def s(request):
    return solved(request.param, record=True)


@pytest.fixture(scope="module", params=KINDS)
def branch(request):
    s = solved(request.param)
    return cv.sweep(
        s.x, s.objective, betas=[2, 1, 0.4], tiling=s.tiling, weights=s.weights, masses=["fixed", "free"][s.masses_free]
    )


def test_the_stored_scalars_are_those_of_the_encoder(s):
    """Against the naive loops, from decoder and masses alone."""
    assert s.converged
    x, rho, psi, masses = s.x, s.weights, s.decoder, s.tiling.masses
    if s.objective.likelihood == "gaussian":
        naive = naive_expectations(x, rho, psi, masses, s.objective.sigma**2 * s.beta)
    else:
        naive = naive_bernoulli(x, rho, psi, masses, s.beta)
    # Energies are at most 1e3 nats: 1e-12 is some eps of that.
    np.testing.assert_allclose(s.encoder, naive.encoder, atol=1e-12)
    np.testing.assert_allclose(s.marginal, naive.mass, atol=1e-12)
    assert (s.free_energy, s.energy) == pytest.approx((naive.free_energy, naive.energy), rel=1e-12)
    assert s.rate == pytest.approx(naive.free_energy - naive.energy, abs=1e-12)
    assert s.rate == pytest.approx(equations.rate(naive.encoder, np.log(masses), rho), abs=1e-12)
    assert s.distortion == pytest.approx(equations.distortion(naive.encoder, rho, x, psi), rel=1e-12)
    assert s.marginal_kl == pytest.approx(np.sum(naive.mass * np.log(naive.mass / masses)), abs=1e-12)
    assert 0 <= s.marginal_kl <= s.rate
    assert s.lagrangian == s.free_energy  # the ELBO has no thresholds
    assert s.beta == 0.4
    # It is a fixed point: (T3) to the tolerance, and (T7).
    image = naive.sums / naive.mass[:, None]
    square = naive.mass @ ((image - psi) ** 2).sum(1)
    if s.masses_free:  # and pi = m
        square += naive.mass @ np.log(naive.mass / masses) ** 2 * s.objective.sigma**2 * s.beta
    residual = np.sqrt(square)
    assert residual == pytest.approx(s.residual, abs=1e-13)
    assert residual <= s.error_estimate * (1 + 1e-6) + 1e-13
    mean = rho @ x
    spread = rho @ ((x - mean) ** 2).sum(1)
    assert s.distortion == pytest.approx(spread - naive.mass @ ((psi - mean) ** 2).sum(1), abs=1e-8)


def test_encode_reconstruct_and_labels_agree(s, monkeypatch):
    np.testing.assert_array_equal(s.encode(s.x), s.encoder)
    np.testing.assert_allclose(s.encoder.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(s.weights @ s.encoder, s.marginal, atol=1e-13)
    np.testing.assert_allclose(s.reconstruct(s.x), s.encoder @ s.decoder, atol=1e-14)
    of_site = np.array([s.encoder[:, s.distinct.index == k].sum(axis=1) for k in range(len(s.distinct))])
    np.testing.assert_array_equal(s.labels, of_site.argmax(axis=0))
    monkeypatch.setattr(memory, "BLOCK", 40)  # three rows at a time
    np.testing.assert_allclose(s.encode(s.x), s.encoder, atol=1e-14)
    np.testing.assert_array_equal(replace(s).labels, s.labels)
    new = s.x[:2] * 0.9
    np.testing.assert_allclose(s.reconstruct(new), s.encode(new) @ s.decoder, atol=1e-14)


def test_distinct_reconstructions(s):
    distinct = s.distinct
    assert 1 < len(distinct) < 12
    np.testing.assert_allclose(distinct.decoder[distinct.index], s.decoder, atol=s.tolerance)
    gaps = np.linalg.norm(distinct.decoder[:, None] - distinct.decoder, axis=2) + np.eye(len(distinct))
    assert gaps.min() > s.tolerance
    np.testing.assert_allclose(distinct.masses, np.bincount(distinct.index, s.tiling.masses), rtol=1e-14)
    np.testing.assert_allclose(distinct.marginal, np.bincount(distinct.index, s.marginal), rtol=1e-14)


def test_nothing_can_be_set(s, branch):
    with pytest.raises(FrozenInstanceError):
        s.rate_ = 0.0
    with pytest.raises(FrozenInstanceError):
        s.decoder = s.decoder
    with pytest.raises(FrozenInstanceError):
        branch.direction = "up"


def assert_same(one, two):
    for field in fields(cv.FixedPoint):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(b, a, strict=True)
        elif field.name == "tiling":
            np.testing.assert_array_equal(b.masses, a.masses)
            np.testing.assert_array_equal(b.positions, a.positions)
        elif field.name == "frame":
            np.testing.assert_array_equal(b.centre, a.centre)
            assert b.scale == a.scale
        else:
            assert b == a or (a != a and b != b), field.name
            assert isinstance(b, float | int | str | type(a))
    np.testing.assert_array_equal(two.encoder, one.encoder)
    assert repr(two) == repr(one)


def test_a_solution_comes_back_bit_for_bit(s, tmp_path):
    path = tmp_path / "any.name"
    s.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["any.name"]
    assert s.trajectory is not None
    assert_same(s, cv.FixedPoint.load(path))


@pytest.mark.filterwarnings("ignore::constrained_vae.NotConvergedWarning")
@pytest.mark.parametrize("x", [np.float32([[0], [1], [3]]), [[0], [1], [3]], np.array([[0, 1, 3.0]]).T[::-1]])
def test_other_dtypes_layouts_and_statuses_come_back(x, tmp_path):
    s = cv.solve(x, max_maps=2, n_tiles=7)
    assert s.status is cv.Status.BUDGET_USED
    assert np.isnan(s.split_condition)
    s.save(str(tmp_path / "s.npz"))
    assert_same(s, cv.FixedPoint.load(str(tmp_path / "s.npz")))


def test_a_branch_comes_back_bit_for_bit(branch, tmp_path):
    branch.save(tmp_path / "branch")
    loaded = cv.Branch.load(tmp_path / "branch")
    assert (len(loaded), loaded.direction, repr(loaded)) == (3, "down", repr(branch))
    for one, two in zip(branch, loaded, strict=True):
        assert_same(one, two)


def write_text(path):
    path.write_text("something else")


def write_npz(path):
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))


def write_npy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def write_half(path):
    solved("gaussian").save(path)
    path.write_bytes(path.read_bytes()[:300])


def write_foreign_objective(path):
    solved("gaussian").save(path)
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    header["records"][0]["objective"]["objective"] = "Lagrangian"
    with path.open("wb") as file:
        np.savez(file, **{**arrays, "header": np.array(json.dumps(header))})


@pytest.mark.parametrize("write", [write_text, write_npz, write_npy, write_half, write_foreign_objective])
def test_a_file_that_holds_something_else_is_refused(write, tmp_path):
    write(tmp_path / "file")
    for kind in (cv.FixedPoint, cv.Branch):
        with pytest.raises(ValueError):  # noqa: PT011 -- words of NumPy, some of them
            kind.load(tmp_path / "file")


def test_a_solution_is_no_branch(s, branch, tmp_path):
    s.save(tmp_path / "s")
    branch.save(tmp_path / "branch")
    with pytest.raises(ValueError, match="does not hold a saved Branch"):
        cv.Branch.load(tmp_path / "s")
    with pytest.raises(ValueError, match="does not hold a saved FixedPoint"):
        cv.FixedPoint.load(tmp_path / "branch")


def test_reprs():
    s = cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=2)
    assert repr(s).startswith("FixedPoint(beta=0.5, 2 distinct of 2 tiles, rate=0.590")
    assert "converged after" in repr(s)
    branch = cv.sweep(s.x, betas=[2.0, 0.5], n_tiles=2)
    assert repr(branch) == "Branch(2 solutions, direction='down', beta 2 to 0.5)"
    assert repr(cv.Branch((), "up")) == "Branch(0 solutions, direction='up')"


def test_a_branch_is_a_sequence_of_its_solutions(branch):
    assert len(branch) == 3
    assert list(branch) == [branch[0], branch[1], branch[2]]
    assert branch[-1] is branch.solutions[-1]
    np.testing.assert_array_equal(branch.betas, [2, 1, 0.4])
    for name in ("distortion", "rate", "free_energy", "split_condition"):
        np.testing.assert_array_equal(getattr(branch, name), [getattr(s, name) for s in branch])
    np.testing.assert_array_equal(branch.n_distinct, [len(s.distinct) for s in branch])
    assert branch.converged
    # The nearest in log beta: sqrt(2) and sqrt(0.4) part the three.
    for beta, index in ((2, 0), (1.42, 0), (1.41, 1), (0.64, 1), (0.63, 2), (0.4, 2)):
        assert branch.at(beta) is branch[index]


def test_tied_tiles_are_the_same_solution():
    """Splitting a tile changes nothing in q, F, R or D (section 5), nor does tying."""
    s = cv.solve(cv.datasets.moons(60).x, beta=0.1, n_tiles=24)
    tied = s.tied()
    assert len(tied.decoder) == len(s.distinct) < 24
    assert tied.recomputed_free_energy() == pytest.approx(s.free_energy, rel=1e-12)
    sums = np.stack([s.encoder[:, s.distinct.index == a].sum(axis=1) for a in range(len(tied.decoder))], axis=1)
    np.testing.assert_allclose(tied.encoder, sums, atol=1e-9)
    np.testing.assert_array_equal(np.concatenate(list(tied.encoder_blocks())), tied.encoder)
    assert tied.labels.tolist() == s.labels.tolist()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_solution_that_is_not_finite_can_be_shown_and_is_not_certified(value):
    """As after `dataclasses.replace` by hand; no file holds one."""
    s = cv.solve([[-1.0], [1.0]], beta=0.5, n_tiles=4)
    decoder = s.decoder.copy()
    decoder[1] = value
    for broken in (replace(s, decoder=decoder), replace(s, decoder=np.full_like(decoder, value))):
        assert repr(broken).startswith("FixedPoint(beta=0.5, ")
        assert broken._repr_html_()
        assert len(broken.labels) == 2
        with pytest.raises(ValueError, match="solution must have finite reconstructions"):
            cv.certify(broken)
    for name in ("free_energy", "energy", "distortion", "error_estimate"):
        assert repr(replace(s, **{name: value})).startswith("FixedPoint(beta=0.5, ")
