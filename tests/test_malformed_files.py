"""Files that are not what a loader expects: they are refused in one line that names them, or harmless.

Valid files of every kind are changed at random, by their bytes and by their meaning. A file that still loads must give
an object that satisfies its invariants.
"""

import contextlib
import io
import itertools
import tracemalloc

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae import datasets, geco
from constrained_vae.cli.main import main
from constrained_vae.testing import naive_expectations
from tests.helpers import mutations
from tests.helpers.mutations import of_array, of_bytes, of_head, of_header, of_members, of_text

X = datasets.four_clusters(4).x
TRAINING = {"latent_dim": 1, "hidden": (3,), "steps": 6, "batch_size": 8}
CONSTRAINTS = [cv.RE(1.2), cv.FRE(1.2, np.eye(2))]
SAVED = (of_bytes, of_members, of_head, of_array, of_array, of_header, of_header)


def check_solution(s):
    arrays = (s.x, s.weights, s.tiling.masses, s.decoder, s.marginal, s.frame.centre)
    assert all(np.isfinite(array).all() for array in arrays)
    for masses in (s.weights, s.tiling.masses, s.marginal):
        assert masses.min() >= 0
        assert masses.sum() == pytest.approx(1, abs=1e-4)
    assert s.decoder.shape == (len(s.tiling), s.x.shape[1])
    naive = naive_expectations(s.x, s.weights, s.decoder, s.tiling.masses, s.objective.sigma**2 * s.beta)
    # The loader allows 1e-3 of F, and the rounding of float32 in units of 1 / theta.
    allowed = 2e-3 * (1 + abs(naive.free_energy)) + 1e-5 / (s.objective.sigma**2 * s.beta)
    assert s.free_energy == pytest.approx(naive.free_energy, abs=allowed)
    assert s.energy == pytest.approx(s.objective.multiplier * s.distortion, abs=allowed)
    assert s.rate >= 0
    assert s.n_maps >= 0
    assert repr(s).startswith("FixedPoint(beta=")
    assert s._repr_html_()
    assert len(s.labels) == len(s.x)


def check_branch(branch):
    assert branch.direction in ("down", "up")
    assert len(branch) > 0
    assert repr(branch).startswith("Branch(")
    for s in branch:
        check_solution(s)


def check_curve(curve):
    F = curve.rate + curve.multipliers * curve.distortion
    assert np.isfinite(np.concatenate([F, curve.lower, curve.rounding, curve.ends.ravel(), curve.betas])).all()
    assert (curve.betas > 0).all()
    assert (np.diff(curve.betas) < 0).all()
    assert (curve.gap >= -1e-5 * (1 + F)).all()
    assert repr(curve).startswith("RateDistortionCurve(")
    assert curve._repr_html_()
    assert (curve.bound_below([0.0, 1.0]) >= 0).all()
    assert all(event.low <= event.high and np.isfinite(event.where).all() for event in curve.events)


def check_run(run):
    assert len(run.history) == TRAINING["steps"]
    assert np.isfinite(run.model.parameters).all()
    assert np.isfinite(run.history.kl).all()
    assert all(value > 0 for value in run.multipliers.values())
    assert repr(run).startswith("Run(")


def check_points(data):
    assert np.isfinite(data.x).all()
    assert data.x.dtype == np.float64
    assert repr(data).startswith("DataSet(")


def resume(path):
    return geco.train(X, CONSTRAINTS, resume=path, **TRAINING)


# Suffix, loader, check of what it gives, and mutations, by the name of a valid file.
KINDS = {
    "solution": ("", cv.FixedPoint.load, check_solution, SAVED),
    "branch": ("", cv.Branch.load, check_branch, SAVED),
    "curve": ("", cv.RateDistortionCurve.load, check_curve, SAVED),
    "training": ("", resume, check_run, SAVED),
    "archive": (".npz", datasets.load, check_points, (of_bytes, of_members, of_head, of_array)),
    "array": (".npy", datasets.load, check_points, (of_bytes, of_head, of_array)),
    "table": (".csv", datasets.load, check_points, (of_bytes, of_text, of_text)),
}


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """The bytes of a valid file of every kind."""
    folder = tmp_path_factory.mktemp("valid")
    tiling = cv.Tiling.gaussian(6)
    cv.solve(X, beta=0.4, tiling=tiling, masses="free", record=True, max_maps=20, on_failure="return").save(
        folder / "solution"
    )
    cv.sweep(X, betas=[12.0, 5.0, 0.4], n_tiles=6).save(folder / "branch")
    cv.rate_distortion(X, betas=[12.0, 5.0, 0.4]).save(folder / "curve")
    geco.train(X, CONSTRAINTS, **TRAINING).save(folder / "training")
    np.savez(folder / "archive.npz", x=X, weights=np.full(16, 1 / 16), labels=np.arange(16) % 3)
    np.save(folder / "array.npy", X)
    np.savetxt(folder / "table.csv", X, delimiter=",")
    return {kind: (folder / f"{kind}{suffix}").read_bytes() for kind, (suffix, *_) in KINDS.items()}


def outcome(kind, data, folder):
    """Whether a file loads or is refused; AssertionError for anything else."""
    suffix, load, check, _ = KINDS[kind]
    path = folder / f"mutated{suffix}"
    path.write_bytes(data)
    try:
        with contextlib.redirect_stderr(io.StringIO()) as noise:
            found = load(path)
    except ValueError as error:
        assert str(path) in str(error), error
        assert "\n" not in str(error), error
        assert len(str(error)) < 1000, error
        assert "pickle=" not in str(error), error
        return "refused"
    check(found)
    assert not noise.getvalue()
    return "loaded"


def fuzz(valid, folder, seeds):
    """How many files were refused and how many loaded; every failure is told with its seed and its mutation."""
    counts, failures = {"refused": 0, "loaded": 0}, []
    choices = [(kind, mutate) for kind, (*_, changes) in KINDS.items() for mutate in changes]
    for seed in seeds:
        kind, mutate = choices[seed % len(choices)]
        data = mutate(valid[kind], np.random.default_rng(seed))
        try:
            counts[outcome(kind, data, folder)] += 1
        except Exception as error:
            failures.append(f"seed {seed}, {mutate.__name__} of {kind}: {type(error).__name__}: {str(error)[:300]}")
    assert not failures, f"{len(failures)} of {len(seeds)}, {counts}:\n" + "\n".join(failures[:40])
    return counts


@pytest.mark.filterwarnings("ignore::UserWarning:constrained_vae.geco")
def test_valid_files_load(valid, tmp_path):
    assert {kind: outcome(kind, data, tmp_path) for kind, data in valid.items()} == dict.fromkeys(KINDS, "loaded")


def test_changed_files_are_refused_or_harmless(valid, tmp_path):
    counts = fuzz(valid, tmp_path, range(190))
    assert counts["refused"] > 100
    assert counts["loaded"] > 5


@pytest.mark.slow
def test_thousands_of_changed_files_are_refused_or_harmless(valid, tmp_path):
    print(fuzz(valid, tmp_path, range(1000, 21000)))
