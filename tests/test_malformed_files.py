"""Files that are not what a loader expects: they are refused in one line that names them, or harmless.

Valid files of every kind are changed at random, by their bytes and by their meaning. A file that still loads must give
an object that satisfies its invariants.
"""

import contextlib
import gzip
import io
import itertools
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import constrained_vae as cv
from constrained_vae import datasets, geco
from constrained_vae._utils import memory
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


def check_images(data):
    check_points(data)
    assert 2 <= len(data.image_shape) <= 3
    assert math.prod(data.image_shape) == data.x.shape[1]


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
    "images": (".npz", datasets.images, check_images, (of_bytes, of_members, of_head, of_array)),
    "idx": (".idx", datasets.load, check_images, (of_bytes, of_bytes)),
    "packed": (".idx.gz", datasets.load, check_images, (of_bytes,)),
    "batch": (".bin", datasets.load, check_images, (of_bytes,)),
    "picture": (".png", lambda path: datasets.images(path.parent), check_images, (of_bytes, of_bytes)),
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
    grey = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.savez(folder / "images.npz", x_train=grey, y_train=[1, 2])
    (folder / "idx.idx").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + grey.tobytes())
    (folder / "packed.idx.gz").write_bytes(gzip.compress((folder / "idx.idx").read_bytes()))
    (folder / "batch.bin").write_bytes(bytes(2 * 3073))
    Image.fromarray(grey[0]).save(folder / "picture.png")
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
        message = str(error)
    else:
        check(found)
        assert not noise.getvalue()
        return "loaded"
    assert str(path) in message, message
    assert "\n" not in message, message
    assert len(message) < 1000, message
    assert "pickle=" not in message, message
    return "refused"


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
    counts = fuzz(valid, tmp_path, range(250))
    assert counts["refused"] > 100
    assert counts["loaded"] > 5


@pytest.mark.slow
def test_thousands_of_changed_files_are_refused_or_harmless(valid, tmp_path):
    print(fuzz(valid, tmp_path, range(1000, 4000)))


def traced(call):
    """What a call raises, and the peak of the memory that it takes, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"does not hold a saved FixedPoint|must hold") as caught:
            call()
        return caught.value, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_members_that_nobody_asks_for_are_not_read(valid, tmp_path):
    """64 MB of zeros in a file of 70 kB."""
    bomb = mutations.npy(np.zeros(2**23))
    for name in ("other.npy", "../x.npy"):
        (tmp_path / "bomb").write_bytes(mutations.packed(mutations.unpacked(valid["solution"]) | {name: bomb}))
        tracemalloc.start()
        check_solution(cv.FixedPoint.load(tmp_path / "bomb"))
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()


def test_heads_that_do_not_fit_are_not_believed(valid, tmp_path):
    members = mutations.unpacked(valid["solution"])
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%s,), }\n"
    for shape, body in ((b"1099511627776", b""), (b"8", bytes(2**25)), (b"2", b"")):  # 8 TB; 32 MB of zeros; too few
        text = head % shape
        members["decoder.npy"] = b"\x93NUMPY\x01\x00" + bytes([len(text), 0]) + text + body
        (tmp_path / "file").write_bytes(mutations.packed(members))
        error, peak = traced(lambda: cv.FixedPoint.load(tmp_path / "file"))
        assert "decoder" in str(error)
        assert "does not fit" in str(error)
        assert peak < 2**22
        (tmp_path / "x.npy").write_bytes(members["decoder.npy"])
        assert traced(lambda: datasets.load(tmp_path / "x.npy"))[1] < 2**22


@pytest.mark.parametrize("kind", ["solution", "archive", "array"])
def test_no_more_is_read_than_there_is_memory(kind, valid, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "physical", lambda: 200)
    suffix, load, *_ = KINDS[kind]
    (tmp_path / f"large{suffix}").write_bytes(valid[kind])
    with pytest.raises(cv.TooLargeError, match=rf"large{suffix} .*: its arrays have 0\.0 GiB, the memory of this"):
        load(tmp_path / f"large{suffix}")


@pytest.mark.parametrize("kind", ["solution", "branch", "curve", "training"])
def test_files_of_a_newer_version_are_refused(kind, valid, tmp_path):
    for number, message in (
        (2, "format 2, this version reads format 1 .a newer version"),
        ("1", "format in its header"),
    ):
        changed = mutations.with_header(valid[kind], lambda header, number=number: header | {"format": number})
        (tmp_path / "file").write_bytes(changed)
        with pytest.raises(ValueError, match=message):
            KINDS[kind][1](tmp_path / "file")


def test_the_command_line_says_what_is_wrong_with_a_file_in_one_line(valid, tmp_path, capsys):
    """Files of data and states of training, changed in any way, end with exit code 2 and one line, or are harmless."""
    common = ["--quiet"]
    train = ["train", "two_points", "--latent", "1", "--hidden", "linear", "--kappa", "0.9", *common]
    assert main([*train, "--steps", "4", "--out", str(tmp_path / "state.npz")]) in (0, 1)
    valid = valid | {"state": (tmp_path / "state.npz").read_bytes()}
    commands = {
        kind: ["solve", str(tmp_path / f"file{KINDS[kind][0]}"), "--beta", "0.5", "--n-tiles", "2", *common]
        for kind in ("archive", "array", "table")
    }
    commands["state"] = [*train, "--steps", "4", "--resume", str(tmp_path / "file.npz")]
    capsys.readouterr()
    changes = itertools.cycle(
        [(kind, mutate) for kind in commands for mutate in (of_bytes, of_text, of_array, of_head)]
    )
    codes = []
    for seed, (kind, mutate) in zip(range(64), changes, strict=False):
        if (mutate is of_text) != (kind == "table"):
            continue
        path = next(part for part in commands[kind] if part.startswith(str(tmp_path)))
        Path(path).write_bytes(mutate(valid[kind], np.random.default_rng(seed)))
        codes.append(main(commands[kind]))
        if codes[-1] == 2:
            said = capsys.readouterr().err
            assert path in said
            assert said.count("\n") == 1
    assert set(codes) <= {0, 1, 2}
    assert codes.count(2) > len(codes) / 2
