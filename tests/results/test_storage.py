"""Files of solutions: whatever a solver gives comes back, and what is no solution is refused with the reason."""

import itertools
import re

import numpy as np
import pytest

import constrained_vae as cv
from tests.helpers.mutations import with_array, with_header

X = cv.datasets.four_clusters(4).x
OPTIONS = {
    "fixed": {},
    "free": {"masses": "free", "record": True},
    "float32": {"dtype": "float32"},
    "one map": {"max_maps": 1},
    "free, three maps": {"masses": "free", "max_maps": 3},
    "stopped": {"callback": lambda iterate: True},
}
pytestmark = pytest.mark.filterwarnings("ignore::constrained_vae.NotConvergedWarning")


def comes_back(s, path, objective=None):
    s.save(path)
    again = type(s).load(path, objective)
    pairs = zip(s, again, strict=True) if isinstance(s, cv.Branch) else [(s, again)]
    for one, two in pairs:
        for name in ("decoder", "marginal", "weights", "trajectory"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        np.testing.assert_array_equal(np.asarray(one.x), two.x)
        for name in ("free_energy", "energy", "distortion", "residual", "error_estimate", "split_condition", "n_maps"):
            np.testing.assert_equal(getattr(one, name), getattr(two, name))
        assert (one.status, one.expected, one.masses_free) == (two.status, two.expected, two.masses_free)
    assert repr(again) == repr(s)


def check_units(path, units, offsets, betas, dims=(1, 3), counts=(1, 7)):
    """Data of any unit and offset, at temperatures far below and above the transitions, with every option."""
    rng, found = np.random.default_rng(3), set()
    for unit, offset, beta, dim, n in itertools.product(units, offsets, betas, dims, counts):
        x = (rng.normal(size=(n, dim)) + offset) * unit
        for options in OPTIONS.values():
            try:
                s = cv.solve(x, beta=beta * unit**2, n_tiles=int(rng.integers(1, 6)), backend="reference", **options)
            except ValueError:  # one point, in a unit of which nothing tells the size
                assert n == 1
                continue
            comes_back(s, path)
            found.add(s.status.name)
    return found


@pytest.mark.filterwarnings("ignore:x lies at")
def test_solutions_in_any_unit_come_back(tmp_path):
    found = check_units(tmp_path / "s", (1e-100, 1e3), (0.0, 1e8), (1e-3, 0.5), dims=(2,), counts=(5,))
    assert {"CONVERGED", "BUDGET_USED", "STOPPED"} <= found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:x lies at")
def test_many_solutions_in_any_unit_come_back(tmp_path):
    found = check_units(
        tmp_path / "s",
        units=(1e-100, 1e-3, 1.0, 1e3, 1e100),
        offsets=(0.0, 1e3, 1e8),
        betas=(1e-12, 1e-3, 0.5, 10.0, 1e12),
        dims=(1, 2, 5),
        counts=(1, 2, 20),
    )
    assert {"CONVERGED", "BUDGET_USED", "STOPPED", "CRITICAL", "DEAD_TILES"} <= found


def test_every_kind_of_solution_comes_back(tmp_path):
    digits = cv.datasets.digits(24).x[:, 16:24]
    path, bernoulli = tmp_path / "s", cv.ELBO(0.05, likelihood="bernoulli")
    np.save(tmp_path / "x.npy", X)
    for x in (digits, (digits > 0.5).astype(int)):
        for options in OPTIONS.values():
            comes_back(cv.solve(x, bernoulli, n_tiles=6, **options), path)
    for x in (X.astype(np.float32), np.load(tmp_path / "x.npy", mmap_mode="r"), cv.RowBlocks([X[:5], X[5:]]), X[::-1]):
        comes_back(cv.solve(x, beta=0.1, n_tiles=4), path)
    weights = np.arange(len(X)) % 2
    comes_back(cv.solve(X, beta=0.1, tiling=cv.Tiling.gaussian(4), weights=weights), path)
    comes_back(cv.solve(X, beta=0.1, n_tiles=16).tied(), path)
    for objective in (
        cv.Lagrangian([cv.RE(0.3), cv.FRE(0.3, np.diag([1.0, 2.0]))], [1.0, 0.1]),
        cv.Lagrangian(cv.RE(0.3), 0.0),
    ):
        for options in OPTIONS.values():
            comes_back(cv.solve(X, objective, n_tiles=4, **{"max_maps": 40, **options}), path, objective)
    for kappa in (0.01, 1.0, 9.0):  # unreachable with three tiles, met, slack
        s = cv.solve_constrained(X, cv.RE(kappa), n_tiles=3)
        s.save(path)
        assert cv.FixedPoint.load(path, s.objective).status is s.status
    certified = cv.global_solution(X, beta=5.0)
    certified.save(path)
    assert cv.FixedPoint.load(path).error_estimate == certified.error_estimate
    for branch in (
        cv.sweep(X, betas=[12.0, 5.0, 0.4], n_tiles=4),
        cv.sweep(X, betas=[0.4, 5.0], n_tiles=4, direction="up", masses="free", max_maps=3),
        cv.sweep(X, betas=[12.0, 5.0, 0.4], n_tiles=4, dtype="float32")[::-2],
        cv.sweep(digits, bernoulli, betas=[1.0, 0.1], n_tiles=4),
    ):
        comes_back(branch, path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The bytes of a solution with positions and trajectory, of a branch, and of a Bernoulli solution."""
    folder = tmp_path_factory.mktemp("files")
    cv.solve(X, beta=0.4, tiling=cv.Tiling.gaussian(4), record=True).save(folder / "s")
    cv.sweep(X, betas=[12.0, 5.0, 0.4], n_tiles=4).save(folder / "b")
    cv.solve(X / 8 + 0.5, cv.ELBO(0.05, likelihood="bernoulli"), n_tiles=4).save(folder / "p")
    return {name: (folder / name).read_bytes() for name in "sbp"}


def test_a_changed_solution_is_refused_with_the_reason(files, tmp_path):
    def record(**more):
        return lambda data: with_header(data, lambda header: header["records"][0].update(more))

    def objective(**more):
        return lambda data: with_header(data, lambda header: header["records"][0]["objective"].update(more))

    def top(**more):
        return lambda data: with_header(data, lambda header: header.update(more))

    def array(name, change):
        return lambda data: with_array(data, name, change)

    cases = [
        ("s", record(n_maps=-1), "n_maps must be finite and at least 0, got -1"),
        ("s", record(n_maps=0.5), "n_maps in its header must be of type int"),
        ("s", record(residual=-1.0), "residual must be finite and at least 0"),
        ("s", record(error_estimate=float("nan")), "error_estimate must be finite and at least 0, got nan"),
        ("s", record(free_energy=float("inf")), "free_energy must be finite, got inf"),
        ("s", record(energy=float("nan")), "energy must be finite, got nan"),
        ("s", record(energy=100.0), "the rate F - E[H] must be at least 0, got -"),
        ("s", record(energy=0.1), "energy must be lambda times the distortion"),
        ("s", record(free_energy=9.0), "the free energy was 9, with its arrays and this objective it is"),
        ("s", record(status="GOOD"), "status must be one of CONVERGED,"),
        ("s", record(expected=[1.0]), "expected must have a value for every constraint"),
        ("s", record(expected=[None]), "expected must hold finite numbers"),
        ("s", objective(beta=-1.0), "beta must be positive and finite, got -1.0"),
        ("s", objective(beta=0.2), "energy must be lambda times the distortion"),
        ("s", objective(likelihood="laplace"), "likelihood must be one of"),
        ("s", objective(likelihood="bernoulli"), "centre and scale are not those of the data"),
        ("p", array("x", lambda x: x + 1), "the Bernoulli likelihood wants data in [0, 1]"),
        ("s", top(records=[]), "it must have one record, got 0"),
        ("s", top(masses_free=1), "masses_free in its header must be of type bool"),
        ("s", array("x", lambda x: x[:-1]), "weights must have the shape (15,), got (16,)"),
        ("s", array("x", lambda x: x[:, :1]), "decoder must have the shape (1, any, 1)"),
        ("s", array("x", lambda x: 2 * x), "centre and scale are not those of the data"),
        ("s", array("x", lambda x: x.astype(complex)), "the array 'x' holds complex numbers instead of real numbers"),
        ("s", array("weights", lambda w: 2 * w), "weights must sum to 1, got 2"),
        ("s", array("weights", lambda w: -w), "weights must be at least 0.0"),
        ("s", array("marginal", lambda m: m[::-1] * 0.5), "marginal must sum to 1, got 0.5"),
        ("s", array("masses", lambda m: m * 1.1), "masses must sum to 1, got 1.1"),
        ("s", array("decoder", lambda psi: psi * 1.5), "the free energy was"),
        ("s", array("decoder", lambda psi: psi * np.nan), "decoder must be finite, got nan"),
        ("s", array("decoder", lambda psi: psi * 1e250), "decoder must be near the data"),
        ("s", array("positions", lambda p: p[:-1]), "positions must have the shape (4, any), got (3, 2)"),
        ("s", array("trajectory", lambda t: t[:, :-1]), "trajectory must have the shape (any, 4, 2)"),
        ("s", array("scale", lambda s: -s), "scale must be at least"),
        ("s", array("scale", lambda s: 2 * s), "centre and scale are not those of the data"),
        ("s", array("centre", lambda c: c + 1), "centre and scale are not those of the data"),
        ("b", top(direction="sideways"), "direction must be one of ('down', 'up'), got 'sideways'"),
        ("b", top(records=[]), "it must have one record or more, got 0"),
        ("b", array("decoder", lambda psi: psi[::-1]), "the free energy was"),
        ("b", array("decoder", lambda psi: psi[:2]), "decoder must have the shape (3, any, 2), got (2, 4, 2)"),
        ("p", array("decoder", lambda psi: psi + 1), "decoder must be within [0, 1] for the Bernoulli likelihood"),
    ]
    for name, change, message in cases:
        (tmp_path / "file").write_bytes(change(files[name]))
        kind = cv.Branch if name == "b" else cv.FixedPoint
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            kind.load(tmp_path / "file")
        assert str(caught.value).startswith(f"{tmp_path / 'file'} does not hold a saved {kind.__name__}: ")


def test_a_distortion_that_rounds_below_zero_is_zero(tmp_path):
    """Where every point has its own reconstruction, the energy is a difference of equal numbers."""
    found = []
    for seed in range(12):
        s = cv.solve(np.random.default_rng(seed).normal(size=(3, 2)), beta=1e-3, n_tiles=4, backend="reference")
        assert s.distortion >= 0
        comes_back(s, tmp_path / "s")
        found.append(s.energy)
    assert min(found) < 0  # so that the test can fail
