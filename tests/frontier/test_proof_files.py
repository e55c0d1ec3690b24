"""Proofs in files: verified by the lone program, and refused after every change that makes them false."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.cli.main import main
from tests.helpers.attacks import free_energy

pytest.importorskip("flint", reason="proofs are verified with python-flint")

from constrained_vae.frontier import proof_files as proofs, verify as verifier

FILE = Path(verifier.__file__)


def proof_of(x, beta, accuracy=1e-6, weights=None, tmp_path=None):
    """The proof of the optimum, as read from its file, and the solution."""
    s = cv.global_solution(x, beta=beta, weights=weights, gap=1e-5)
    if tmp_path is None:
        return json.loads(json.dumps(proofs.made(s, s.certificate.gap, accuracy))), s
    cv.certify(s).save(tmp_path / "proof.json", accuracy=accuracy)
    return json.loads((tmp_path / "proof.json").read_text()), s


def holds(proof, x, weights=None):
    """Whether a proof is verified, and not refused."""
    try:
        verifier.verify(proof, x, weights)
    except verifier.NotProved:
        return False
    return True


def cloud(rng, n, dim):
    return rng.normal(size=(n, dim)) + 3.0 * rng.integers(0, 2, size=(n, dim))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("unit", "offset"), [(1.0, 0.0), (1000.0, 0.0), (1.0, 1e6), (1e-110, 0.0), (1e110, 0.0)])
def test_proofs_hold_in_every_unit(dim, unit, offset, rng, tmp_path):
    x = unit * cloud(rng, 14 - 3 * dim, dim) + offset
    beta = 0.3 * cv.first_critical_beta(x)
    proof, s = proof_of(x, beta, tmp_path=tmp_path)
    lower, upper = verifier.verify(proof, x)
    assert upper - lower <= 1.2e-5 + 1e-8 * (offset > 0)
    assert lower <= s.free_energy + 1e-9
    assert upper == pytest.approx(s.free_energy, abs=1e-9)
    assert s.certificate.lower <= upper + 1e-12
    assert not holds(proof, np.nextafter(x, np.inf))  # the hash


def test_proofs_with_weights(rng):
    x, w = cloud(rng, 15, 2), rng.uniform(0.0, 1.0, 15)
    w[3] = 0.0
    proof, _ = proof_of(x, 0.5, weights=w)
    assert holds(proof, x)
    assert holds(proof, x, w)
    assert not holds(proof, x, np.ones(15))
    changed = copy.deepcopy(proof)
    changed["weights"][0] *= 1.01
    changed["weights"][3] = 0.1
    assert not holds(changed, x)


def test_a_solution_far_from_the_optimum_has_a_proof_of_its_gap(rng, tmp_path):
    x = cloud(rng, 12, 2)
    bounds = cv.certify(cv.solve(x, beta=0.1, n_tiles=3, on_failure="return"))
    bounds.save(tmp_path / "p.json")
    lower, upper = verifier.verify(json.loads((tmp_path / "p.json").read_text()), x)
    assert bounds.gap > 0.1
    assert upper - lower == pytest.approx(bounds.gap, abs=1e-5)


# --- what must be refused ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case():
    """Data in the plane, the proof of a code, and the least F of many other codes."""
    rng = np.random.default_rng(5)
    x = cloud(rng, 7, 2)
    proof, s = proof_of(x, 0.4)
    assert holds(proof, x)
    return x, proof, s


def test_a_changed_hash_is_refused(case):
    x, proof, _ = case
    digest = proof["data"]["sha256"]
    assert not holds(proof | {"data": {**proof["data"], "sha256": digest[::-1]}}, x)
    assert not holds(proof, x[::-1])


@pytest.mark.parametrize("seed", range(8))
def test_a_moved_reconstruction_is_refused(case, seed):
    x, proof, s = case
    rng, changed = np.random.default_rng(seed), copy.deepcopy(proof)
    step = rng.normal(size=2)
    a = seed % len(proof["code"]["masses"])
    moved = np.array(proof["code"]["reconstructions"][a]) + 1e-2 * s.frame.scale * step / np.linalg.norm(step)
    changed["code"]["reconstructions"][a] = moved.tolist()
    assert not holds(changed, x)


def without(proof, k):
    cover = {name: [*values[:k], *values[k + 1 :]] for name, values in proof["cover"].items()}
    return proof | {"cover": cover}


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 8))
def test_a_box_that_is_dropped_shrunk_or_lowered_is_refused(case, share):
    x, proof, _ = case
    k = int(share * len(proof["cover"]["boxes"]))
    assert not holds(without(proof, k), x)
    for side in range(4):
        changed = copy.deepcopy(proof)
        box = changed["cover"]["boxes"][k]
        box[side] += (1 if side < 2 else -1) * 1e-6 * (box[2 + side % 2] - box[side % 2])
        assert not holds(changed, x)
    changed = copy.deepcopy(proof)
    changed["cover"]["bounds"][k] -= 1e-6
    assert not holds(changed, x)


@pytest.mark.parametrize("seed", range(100))
def test_what_is_still_proved_is_true(case, seed):
    """Numbers of the proof are changed by chance; the bounds that are still proved hold for the best code known."""
    x, proof, _ = case
    rng, changed = np.random.default_rng(seed), copy.deepcopy(proof)
    entry = [
        ("upper",), ("lower",), ("objective", "multiplier"), ("code", "reconstructions"), ("code", "masses"),
        ("cover", "boxes"), ("cover", "bounds"), ("cover", "shifts"),
    ][seed % 8]  # fmt: skip
    holder, name = changed, entry[-1]
    for part in entry[:-1]:
        holder = holder[part]
    step = 10 ** rng.uniform(-9, 0) * rng.choice([-1, 1])
    if isinstance(holder[name], float):
        holder[name] *= 1 + step
    else:
        values = holder[name]
        k = int(rng.integers(len(values)))
        if isinstance(values[k], list):
            values, k = values[k], int(rng.integers(len(values[k])))
        values[k] = None if rng.random() < 0.1 else (values[k] or 0.0) + step
    try:
        lower, upper = verifier.verify(changed, x)
    except verifier.NotProved:
        return
    lam = changed["objective"]["multiplier"]
    best = cv.global_solution(x, beta=0.5 / lam, gap=1e-9)
    assert lower <= best.free_energy
    assert upper >= best.certificate.lower
    masses = np.array(changed["code"]["masses"])
    psi = np.array(changed["code"]["reconstructions"])
    assert upper >= free_energy(x, np.full(len(x), 1 / len(x)), psi, masses / masses.sum(), lam) - 1e-12


@pytest.mark.parametrize(
    "wrong", [None, [], {}, 1, "x", {"kind": "constrained_vae proof", "format": 1}, {"kind": "x", "format": 1}]
)
def test_other_files_are_refused(case, wrong):
    assert not holds(wrong, case[0])


@pytest.mark.parametrize("value", [None, "a", [], [[1.0]], float("nan"), float("inf"), 1e400, True, {}, -1.0, 0.0])
@pytest.mark.parametrize(
    "place", ["data.dimensions", "objective.multiplier", "code.masses", "cover.boxes", "cover.bounds", "weights"]
)
def test_entries_of_another_kind_are_refused(case, place, value):
    if place == "weights" and value is None:
        return  # uniform
    x, proof, _ = case
    changed = copy.deepcopy(proof)
    holder = changed
    *path, last = place.split(".")
    for part in path:
        holder = holder[part]
    holder[last] = value
    assert not holds(changed, x)


def test_other_dimensions_energies_and_certificates_are_named(rng, tmp_path):
    x = rng.normal(size=(5, 4))
    with pytest.raises(ValueError, match="at most 3 dimensions, got 4"):
        cv.certify(cv.solve(x, n_tiles=2)).save(tmp_path / "p.json")
    with pytest.raises(ValueError, match="squared error only"):
        cv.certify(
            cv.solve((x[:, :2] > 0).astype(float), cv.ELBO(likelihood="bernoulli"), n_tiles=2, on_failure="return")
        ).save(tmp_path / "p.json")
    with pytest.raises(ValueError, match=r"only a certificate of certify\(solution\)"):
        cv.global_solution(x[:, :1], beta=1.0).certificate.save(tmp_path / "p.json")
    with pytest.raises(ValueError, match="accuracy must be"):
        cv.certify(cv.solve(x[:, :1], n_tiles=2)).save(tmp_path / "p.json", accuracy=0.0)


# --- the program ------------------------------------------------------------------------------------------------------


def test_the_program_is_short_and_imports_nothing_of_ours():
    lines = FILE.read_text().splitlines()
    assert len(lines) <= 250
    assert not [line for line in lines if line.startswith(("from .", "from constrained", "import constrained"))]


def test_a_copy_verifies_alone(case, tmp_path):
    x, proof, _ = case
    shutil.copy(FILE, tmp_path / "verify.py")
    (tmp_path / "proof.json").write_text(json.dumps(proof))
    np.save(tmp_path / "x.npy", x)
    np.savetxt(tmp_path / "x.csv", x, fmt="%.17g", delimiter=",")

    def run(*arguments):
        env = {**os.environ, "PYTHONSAFEPATH": "1"}
        command = [sys.executable, "verify.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    for name in ("x.npy", "x.csv"):
        done = run("proof.json", name)
        assert (done.returncode, done.stdout[:26]) == (0, "proved: F* is between " + repr(proof["lower"])[:4])
    proof = copy.deepcopy(proof)
    proof["cover"]["bounds"][2] -= 1e-3
    (tmp_path / "proof.json").write_text(json.dumps(proof))
    done = run("proof.json", "x.npy")
    assert done.returncode == 1
    assert done.stdout.startswith("not proved: in box 2, [")
    assert run("x.npy", "proof.json").returncode == 2


def test_the_command_line(case, tmp_path, capsys):
    data, solution, proof = (str(tmp_path / name) for name in ("x.npy", "s.npz", "p.json"))
    np.save(data, case[0])
    assert (
        main(["solve", data, "--beta", "0.4", "--n-tiles", "4", "--masses", "free", "--out", solution, "--quiet"]) == 0
    )
    assert main(["certify", solution, "--out", proof]) == 0
    assert main(["verify", proof, data]) == 0
    assert "proved: F* is between" in capsys.readouterr().out
    assert main(["verify", proof, "two_points"]) == 1
    assert "their hash differs" in capsys.readouterr().out
    assert main(["certify", solution]) == 0
    assert main(["certify", solution, "--out", data]) == 2
    assert main(["verify", data, data]) == 2


def test_digits_are_refused_by_name(case, tmp_path):
    x = cv.datasets.digits(10).x
    changed = {**case[1], "data": {"sha256": verifier.data_hash(x), "points": 10, "dimensions": 64}}
    with pytest.raises(verifier.NotProved, match="64 dimensions"):
        verifier.verify(changed, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["four_clusters", "rings"])
def test_all_points_of_the_figure_of_the_frontier(name):
    """The temperatures are the default ones, as in `analysis/frontier.py`."""
    x = getattr(cv.datasets, name)().x
    solutions = []
    cv.rate_distortion(x, gap=1e-5, callback=lambda s: solutions.append(s) and False)
    assert len(solutions) == 40
    for s in solutions:
        lower, upper = verifier.verify(proofs.made(s, s.certificate.gap, 8e-5), x)
        assert upper - lower <= 1e-4
        assert lower <= s.free_energy <= upper
