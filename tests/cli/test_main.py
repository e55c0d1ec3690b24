"""The command line from outside: what it writes, its exit codes, bad input in one line, Ctrl-C."""

import contextlib
import errno
import importlib
import io
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.backends import reference
from constrained_vae.cli import commands, main as cli, output
from constrained_vae.geco.training import Training
from tests.helpers.marks import slow

SMALL = ["--n-tiles", "2", "--backend", "reference", "--quiet"]
COMMANDS = {
    "solve": ["two_points", "--beta", "0.5", *SMALL],
    "sweep": ["two_points", "--betas", "0.2:1.5:12", *SMALL],
    "transitions": ["two_points", "--betas", "0.2:1.5", *SMALL],
    "frontier": ["two_points", "--betas", "0.2:0.9:4", "--backend", "reference", "--quiet"],
}
TRAIN = ["two_points", "--kappa", "0.8", "--latent", "1", "--hidden", "linear", "--quiet", "--steps", "40"]
KAPPA = ["--kappa", "0.8"]
ROOT = Path(cv.__file__).parents[1]
POINTS = np.array([[-1.0], [1.0]])


def run(*arguments):
    """The exit code; options that cannot be understood leave by SystemExit."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as left:
        return left.code


def read(path):
    """A JSON file that any reader takes: without NaN and Infinity."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(path.read_text(), parse_constant=refuse)


def pressed_at(monkeypatch, call, number=signal.SIGINT):
    """Press Ctrl-C, or send another signal, in that evaluation of the map; the list grows with each."""
    original, calls = reference.expectations, []

    def expectations(*arguments):
        calls.append(None)
        if len(calls) == call:
            signal.raise_signal(number)
        return original(*arguments)

    monkeypatch.setattr(reference, "expectations", expectations)
    return calls


# --- what they write --------------------------------------------------------------------------------------------------


def test_solve_writes_what_the_library_finds_and_loads(tmp_path, capsys):
    out = tmp_path / "new" / "s.npz"
    assert run("solve", *COMMANDS["solve"], "--out", out, "--plot", tmp_path / "s.png") == 0
    loaded = cv.FixedPoint.load(out)
    expected = cv.solve(POINTS, beta=0.5, n_tiles=2, backend="reference")
    np.testing.assert_array_equal(loaded.decoder, expected.decoder)
    assert repr(loaded) == repr(expected)
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    text = capsys.readouterr().out
    assert text.startswith(repr(expected))
    assert text.splitlines()[1].split() == ["tiles", "prior", "mass", "posterior", "mass", "psi[0]"]
    assert text.endswith(f"wrote {out}\nwrote {tmp_path / 's.png'}\n")


def test_json_says_what_was_asked_and_found(tmp_path):
    assert run("solve", *COMMANDS["solve"], "--out", tmp_path / "s.json") == 0
    found = read(tmp_path / "s.json")
    assert found["command"] == "solve"
    assert found["version"] == cv.__version__
    assert found["data_set"] == {"name": "two_points", "n_points": 2, "dim": 1}
    assert found["options"]["n_tiles"] == 2
    assert (found["status"], found["converged"], found["interrupted"]) == ("CONVERGED", True, False)
    assert found["rate"] == pytest.approx(0.5902900687, abs=1e-9)  # theory.md section 5, m = tanh(2 m)
    assert sorted(found["labels"]) == [0, 1]
    m = sorted(value for (value,) in found["columns"]["reconstruction"])
    assert m == pytest.approx([-0.9575040241, 0.9575040241], abs=1e-9)


def test_images_are_data(tmp_path):
    np.savez(tmp_path / "x.npz", x_train=np.full((3, 2, 2, 3), [[[[0]]], [[[51]]], [[[255]]]], dtype=np.uint8))
    assert run("solve", tmp_path / "x.npz", "--beta", "9", *SMALL, "--out", tmp_path / "s.json") == 0
    found = read(tmp_path / "s.json")
    assert (found["data_set"]["n_points"], found["data_set"]["dim"]) == (3, 12)
    # Hotter than the first transition: all data share their mean, at a distortion of 12 times their variance.
    assert found["distortion"] == pytest.approx(12 * np.var([0, 0.2, 1]))


def test_kappa_asks_for_the_multiplier(tmp_path):
    """D = 1 - m^2 = 1/2 where m = tanh(m / beta) = 2^-1/2, and lambda = 1 / (2 beta)."""
    assert run("solve", "two_points", "--kappa", 0.5**0.5, *SMALL, "--out", tmp_path / "s.json") == 0
    found = read(tmp_path / "s.json")
    assert found["status"] == "MET"
    assert found["distortion"] == pytest.approx(0.5, abs=1e-8)  # KKT residuals are asked to 1e-9
    assert found["multipliers"]["RE"] == pytest.approx(np.arctanh(0.5**0.5) / 2**0.5, abs=1e-7)
    assert run("solve", "two_points", "--kappa", 0.5**0.5, *SMALL, "--out", tmp_path / "s.npz") == 0
    objective = cv.Lagrangian([cv.RE(0.5**0.5)], [found["multipliers"]["RE"]])
    assert cv.FixedPoint.load(tmp_path / "s.npz", objective).distortion == found["distortion"]


@pytest.mark.parametrize("direction", ["down", "up"])
def test_sweep_writes_a_branch(tmp_path, capsys, direction):
    out, plot = tmp_path / "b.npz", tmp_path / "b.pdf"
    assert run("sweep", *COMMANDS["sweep"], "--direction", direction, "--out", out, "--plot", plot) == 0
    branch = cv.Branch.load(out)
    assert branch.direction == direction
    np.testing.assert_allclose(np.sort(branch.betas), np.geomspace(0.2, 1.5, 12))
    assert branch.at(1.4).distortion == pytest.approx(1.0)
    assert plot.read_bytes().startswith(b"%PDF")
    assert "first critical beta 1;" in capsys.readouterr().out


def test_a_sweep_looks_for_lower_free_energies(tmp_path):
    assert (
        run("sweep", "two_points", "--betas", "0.2:1.5:3", *SMALL, "--restarts", "1", "--out", tmp_path / "b.npz") == 0
    )
    assert cv.Branch.load(tmp_path / "b.npz").restarts == 1


def test_sweep_of_the_default_grid_as_json(tmp_path):
    assert run("sweep", "two_points", *SMALL, "--out", tmp_path / "b.json") == 0
    columns = read(tmp_path / "b.json")["columns"]
    assert len(columns["beta"]) == 240
    assert set(columns["status"]) == {"converged"}
    assert [columns["n_distinct"][0], columns["n_distinct"][-1]] == [1, 2]


def test_suggest_says_which_beta_and_which_kappa(tmp_path, capsys):
    out = tmp_path / "s.json"
    assert run("suggest", "four_clusters", "--quiet", "--most", "6", "--out", out, "--plot", tmp_path / "s.png") == 0
    assert capsys.readouterr().out.startswith("4 reconstructions (and 2, 3) stand out: beta=")
    assert read(out)["columns"]["n_reconstructions"] == [4, 2, 3]
    assert read(out)["first_critical_beta"] == pytest.approx(9.015625)


def test_explore_writes_one_page(tmp_path, capsys):
    out = tmp_path / "page.html"
    np.savetxt(tmp_path / "x.csv", np.repeat([[-3.0, 0], [3.0, 0]], 20, axis=0), delimiter=",")
    assert run("explore", tmp_path / "x.csv", "--quiet", "--out", out) == 0
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert f"wrote {out}" in capsys.readouterr().out
    for wrong in ([], ["--out", tmp_path / "page.npz"]):
        assert run("explore", "two_points", "--quiet", *wrong) == 2
        assert "--out must be an .html file" in capsys.readouterr().err


def test_transitions_are_exact(tmp_path, capsys):
    for out in (tmp_path / "t.npz", tmp_path / "t.json"):
        assert run("transitions", *COMMANDS["transitions"], "--out", out, "--plot", tmp_path / "t.svg") == 0
    with np.load(tmp_path / "t.npz") as file:
        assert abs(file["beta"][0] - 1) < 1e-9  # beta_c = a^2
        assert file["direction"].shape == (1, 1)
        assert file["kind"].tolist() == ["continuous"]
    assert read(tmp_path / "t.json")["columns"]["n_after"] == [2]
    assert "Transition(beta=1, continuous, 1 to 2 reconstructions)" in capsys.readouterr().out
    none = tmp_path / "none.png"
    assert run("transitions", "two_points", "--betas", "2:3", *SMALL, "--plot", none) == 0
    assert capsys.readouterr().out == (
        "no transitions\ncomplete down to beta=2: end of the range; exact for 2 tiles of equal masses "
        f'(masses="free" does not depend on them)\nwrote {none}\n'
    )


def test_what_is_not_known_is_null_in_json(tmp_path):
    np.savetxt(tmp_path / "x.csv", [0.0, 1.0])
    bernoulli = ["--likelihood", "bernoulli", "--betas", "0.5:2", *SMALL]  # no squared distance: no skewness (T13)
    assert run("transitions", tmp_path / "x.csv", *bernoulli, "--out", tmp_path / "t.json") == 0
    columns = read(tmp_path / "t.json")["columns"]
    assert columns["beta"] == pytest.approx([1.0], abs=1e-9)  # of 0/1 data the eigenvalue of their correlation (T9)
    assert (columns["skewness"], columns["predicted"]) == ([None], [None])


def test_frontier_places_a_model(tmp_path, capsys):
    out = tmp_path / "f.npz"
    assert run("frontier", *COMMANDS["frontier"], "--model", "1:0.3", "--out", out, "--plot", tmp_path / "f.png") == 0
    curve = cv.RateDistortionCurve.load(out)
    assert curve.gap.max() <= 1e-6
    excess = curve.excess(1.0, 0.3)
    assert f"{excess.least:.6g} to {excess.most:.6g} nats above the frontier" in capsys.readouterr().out
    assert run("frontier", *COMMANDS["frontier"], "--model", "1:0.3", "--out", tmp_path / "f.json") == 0
    assert read(tmp_path / "f.json")["excess"] == {
        "least": excess.least,
        "most": excess.most,
        "rigorous": True,
        "confidence": 1.0,
    }


def test_a_frontier_without_a_proof_is_called_heuristic(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.eye(8))
    options = ["--betas", "0.1:0.2:2", "--model", "1:0.1", "--quiet", "--out", tmp_path / "f.json"]
    assert run("frontier", tmp_path / "x.npy", *options) == 0
    text = capsys.readouterr().out
    assert "(heuristic)" in text
    assert "above the frontier (heuristic bound)" in text
    assert "rigorous" not in text
    found = read(tmp_path / "f.json")
    assert found["columns"]["bound"] == ["heuristic", "heuristic"]
    assert found["excess"]["rigorous"] is False


def test_estimate(capsys):
    assert run("estimate", 200, 4, 2, "--backend", "reference") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["map", "solve", "sweep", "rate_distortion"]
    assert run("estimate", 2, 4, 1, "--data", "two_points", "--backend", "reference") == 0
    assert capsys.readouterr().out.startswith("2 rows, 4 tiles, 1 columns, reference\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 2), "n must be a whole number of at least 1, got 0"),
        ((2, 4, 3, "--data", "two_points"), "x must have d=3 columns, got 1"),
        ((2, "many", 3), "argument K: invalid int value: 'many'"),
    ],
)
def test_an_estimate_of_no_size(capsys, arguments, message):
    assert run("estimate", *arguments, "--backend", "reference") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("goal", [["--kappa", "0.8"], ["--beta", "0.5"]])
def test_train(tmp_path, goal):
    pytest.importorskip("constrained_vae.geco")
    options = ["--latent", "1", "--hidden", "linear", "--quiet", "--plot", tmp_path / "r.png"]
    # Few steps: a constraint may not be met by then, which is what 1 says.
    assert run("train", "two_points", *goal, *options, "--steps", "40", "--out", tmp_path / "r.npz") in (0, 1)
    resumed = ["--resume", tmp_path / "r.npz", "--out", tmp_path / "r.json"]
    assert run("train", "two_points", *goal, *options, "--steps", "60", *resumed) in (0, 1)
    found = read(tmp_path / "r.json")
    assert len(found["columns"]["kl"]) == 60
    assert found["options"]["sigma"] == 1.0  # the default of this model
    assert found["converged"] == all(f["status"] in ("met", "slack") for f in found["report"].values())
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_train_writes_its_file_on_the_way(tmp_path, monkeypatch):
    """Whatever ends the process then, the steps up to the last checkpoint can be resumed."""

    class Killed(Exception):
        pass

    def step_or_die(training):
        if training.steps == 35:
            raise Killed
        return step(training)

    out = tmp_path / "r.npz"
    options = [*TRAIN, "--checkpoint-every", "30", "--out", out]
    step = Training.step
    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", step_or_die)
        with pytest.raises(Killed):
            run("train", *options)
    assert run("train", *TRAIN, "--resume", out, "--out", tmp_path / "rest.json") in (0, 1)
    assert run("train", *TRAIN, "--out", tmp_path / "whole.json") in (0, 1)
    rest, whole = (read(tmp_path / f"{name}.json")["columns"] for name in ("rest", "whole"))
    assert rest == whole
    assert len(whole["kl"]) == 40


def test_models_of_images_name_the_extra_that_they_need(capsys, monkeypatch):
    needing = re.compile(r"constrained_vae\.(image_models|cli\.image_training)\b")
    for name in filter(needing.match, list(sys.modules)):  # as if none had been imported
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(vars(cv), "image_models", raising=False)
    monkeypatch.delattr(importlib.import_module("constrained_vae.cli"), "image_training", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run("train", "digits", *KAPPA, "--model", "vae") == 2
    assert capsys.readouterr() == (
        "",
        "constrained-vae train: constrained_vae.image_models needs the package torch: "
        "pip install 'constrained-vae[torch]'\n",
    )


def test_files_of_every_kind_are_data(tmp_path):
    x = np.array([[-1.0], [1.0]])
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x, weights=[0.1, 0.9])
    np.savetxt(tmp_path / "x.csv", x)
    rates = {}
    for suffix in ("npy", "npz", "csv"):
        out = tmp_path / f"{suffix}.json"
        assert run("solve", tmp_path / f"x.{suffix}", *COMMANDS["solve"][1:], "--out", out) == 0
        rates[suffix] = read(out)["rate"]
    assert rates["npy"] == rates["csv"] == pytest.approx(0.5902900687, abs=1e-9)
    assert rates["npz"] < 0.5  # weights count


# --- how they end -----------------------------------------------------------------------------------------------------


def test_without_convergence_the_code_is_1_and_results_are_written(tmp_path, capsys):
    assert run("solve", *COMMANDS["solve"], "--max-maps", "2", "--out", tmp_path / "s.json") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "raise max_maps" in said
    assert read(tmp_path / "s.json")["status"] == "BUDGET_USED"
    assert run("sweep", *COMMANDS["sweep"], "--max-maps", "2", "--out", tmp_path / "b.npz") == 1
    assert len(cv.Branch.load(tmp_path / "b.npz")) == 12
    assert capsys.readouterr().err.count("\n") <= 6  # of many warnings only the first are printed


@pytest.mark.parametrize("command", [*COMMANDS, "train"])
def test_without_time_the_code_is_1_and_results_are_written(command, tmp_path, capsys):
    given = TRAIN if command == "train" else COMMANDS[command]
    assert run(command, *given, "--time-limit", "0", "--out", tmp_path / "found.json") == 1
    assert re.search("time.limit", capsys.readouterr().err)
    assert not read(tmp_path / "found.json")["converged"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["solve", "nowhere.npy"], "nowhere.npy"),
        (["solve", "nothing"], "one of digits"),
        (["solve", "text.csv"], "got 'x' at row 3, column 'a'"),
        (["solve", "text.npy"], "text.npy must hold an array of numbers"),
        (["solve", "words.npy"], "words.npy must hold an array of numbers: it holds text"),
        (["solve", "many.npz"], "many.npz must hold an array x of numbers, or one array alone: it holds a, b"),
        (["solve", "x.dat"], "a .npy or a .npz file"),
        (["solve", "cube.npy"], "(2, 2, 2, 2, 2)"),
        (["solve", "cut.idx"], "cut.idx must hold images in the IDX format: it ends 2 bytes too early"),
        (["solve", "bare"], "bare must hold pictures"),
        (["solve", "nan.npy"], "nan.npy: a cell is missing at row 2, column 1 (counted from 1"),
        (["solve", "empty.csv"], "it is empty"),
        (["solve", "folder.npy"], "folder.npy"),
        (["solve", "two_points", "--beta", "-1"], "beta must be positive"),
        (["solve", "two_points", "--beta", "nan"], "beta must be positive"),
        (["solve", "two_points", "--beta", "hot"], "argument --beta: invalid float value: 'hot'"),
        (["solve", "two_points", "--beta", "1", "--kappa", "1"], "not allowed with"),
        (["solve", "two_points", "--kappa", "1", "--sigma", "2"], "--sigma and --likelihood belong to --beta"),
        (["solve", "two_points", "--likelihood", "bernoulli"], "[0, 1]"),
        (["solve", "two_points", "--sigma", "0"], "sigma must be positive"),
        (["solve", "two_points", "--n-tiles", "0"], "n_tiles"),
        (["solve", "two_points", "--out", "s.txt"], ".npz or .json"),
        (["solve", "two_points", "--plot", "s.doc"], "png"),
        (["solve", "two_points", "--backend", "abacus"], "invalid choice: 'abacus'"),
        (["sweep", "two_points", "--betas", "3:1:20"], "LOW < HIGH"),
        (["sweep", "two_points", "--betas", "0:1:20"], "LOW < HIGH"),
        (["sweep", "two_points", "--betas", "1:3"], "LOW:HIGH:COUNT"),
        (["sweep", "two_points", "--betas", "1:3:1"], "at least 2"),
        (["sweep", "two_points", "--betas", "1:inf:5"], "LOW < HIGH"),
        (["transitions", "two_points", "--betas", "3:1"], "0 < lowest < highest"),
        (["transitions", "two_points", "--betas", "3"], "--betas wants LOW:HIGH"),
        (["transitions", "two_points", "--limit", "0"], "limit must be a whole number"),
        (["frontier", "two_points", "--gap", "0"], "gap must be positive"),
        (["frontier", "two_points", "--model", "1"], "RATE:DISTORTION"),
        (["frontier", "two_points", "--model=-1:2"], "neither negative nor infinite"),
        (["train", "two_points"], "one of the arguments --kappa --beta is required"),
        (
            ["train", "two_points", *KAPPA, "--task", "colour"],
            "--task belongs to --model vae or vae-nvp or convdraw, got",
        ),
        (["train", "two_points", *KAPPA, "--device", "cpu"], "--device belongs to --model vae or vae-nvp or convdraw"),
        (["train", "digits", *KAPPA, "--model", "vae", "--hidden", "9"], "--hidden belongs to --model mlp, got"),
        (
            ["train", "digits", *KAPPA, "--model", "vae", "--likelihood", "gaussian"],
            "--likelihood belongs to --model mlp",
        ),
        (
            ["train", "two_points", *KAPPA, "--likelihood", "poisson"],
            "take solve, sweep or rate_distortion, with ELBO(",
        ),
        (["train", "digits", *KAPPA, "--model", "vae", "--draws", "9"], "--draws belongs to --model convdraw, got"),
        (["train", "digits", *KAPPA, "--model", "vae", "--task", "rotate"], "--task rotate wants --model convdraw"),
        (["train", "digits", *KAPPA, "--model", "vae", "--out", "r.npz"], "--out must be a .pt or .json file"),
        (["train", "two_points", *KAPPA, "--out", "r.pt"], "--out must be a .npz or .json file"),
        (["train", "two_points", *KAPPA, "--size", "4"], "data must be images"),
        (["train", "two_points", *KAPPA, "--checkpoint-every", "0"], "checkpoint_every must be a whole number"),
        (["train", "two_points", *KAPPA, "--batch-size", "3"], "batch_size must be at most 2"),
        (["melt", "two_points"], "invalid choice: 'melt'"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    Path("text.csv").write_text("a,b\n1,2\nx,3\n")
    Path("text.npy").write_text("1,2\n")
    np.save("words.npy", np.array([["a"]]))
    np.savez("many.npz", a=np.ones(2), b=np.ones(2))
    np.save("cube.npy", np.ones((2, 2, 2, 2, 2)))
    np.save("nan.npy", np.array([[1.0], [np.nan]]))
    Path("empty.csv").write_text("")
    Path("folder.npy").mkdir()
    Path("cut.idx").write_bytes(b"\0\0")
    Path("bare").mkdir()
    if arguments[:1] != ["train"]:
        arguments = [*arguments, *["--quiet"] * bool(arguments)]
    assert run(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.startswith("constrained-vae")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("command", ["solve", "train"])
def test_a_kappa_that_is_refused_is_answered_with_the_table_of_thresholds(capsys, command):
    assert run(command, "two_points", "--kappa", "-1", "--quiet") == 2
    said = capsys.readouterr()
    assert said.out == ""
    reason, *table = said.err.splitlines()
    assert reason == f"constrained-vae {command}: kappa must be finite and at least 0, got -1.0"
    assert table == repr(cv.geco.thresholds([[-1.0], [1.0]], 1)).splitlines()


@pytest.mark.parametrize(
    ("arguments", "doubtful"),
    [
        (["solve", "--kappa", "2"], True),  # above the variance
        (["solve", "--kappa", "0.7"], False),
        (["train", "--kappa", "2", *TRAIN[3:]], True),
        (["train", "--kappa", "2", "--per-dimension", *TRAIN[3:]], True),
        (["train", "--kappa", "0.7", *TRAIN[3:]], False),
        (["train", "--beta", "0.5", *TRAIN[3:]], False),
    ],
)
def test_a_doubtful_kappa_is_printed_with_the_table_of_thresholds(capsys, arguments, doubtful):
    run(arguments[0], "two_points", *arguments[1:], *(SMALL if arguments[0] == "solve" else ()))
    assert ("Thresholds(" in capsys.readouterr().out) is doubtful


def test_training_takes_the_weights_of_the_file(capsys, tmp_path):
    """A point far away without weight is not seen: the variance is that of the two others, and 4 is above it."""
    x, weights = np.array([[-1.0], [1.0], [50.0]]), np.array([0.5, 0.5, 0.0])
    np.savez(tmp_path / "w.npz", x=x, weights=weights)
    assert run("train", str(tmp_path / "w.npz"), "--kappa", "2", *TRAIN[3:]) == 0
    assert "RE slack" in (said := capsys.readouterr().out)
    assert "each of 2 points by itself" in said


@pytest.mark.parametrize("out", ["file.csv/s.npz", "folder.npz"])
def test_what_could_not_be_written_is_refused_first(tmp_path, capsys, monkeypatch, out):
    calls = pressed_at(monkeypatch, None)
    (tmp_path / "file.csv").write_text("1\n")
    (tmp_path / "folder.npz").mkdir()
    assert run("solve", *COMMANDS["solve"], "--out", tmp_path / out) == 2
    assert out.split("/")[0] in capsys.readouterr().err
    assert not calls


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_writes_what_there_is(tmp_path, capsys, monkeypatch, command):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        total = pressed_at(patch, None)
        assert run(command, *COMMANDS[command], "--out", tmp_path / "whole.json") == 0
    whole = read(tmp_path / "whole.json")
    capsys.readouterr()
    call = {"solve": 5, "sweep": len(total) // 2, "transitions": len(total) - 2, "frontier": len(total) // 2}[command]
    pressed_at(monkeypatch, call)
    assert run(command, *COMMANDS[command], "--out", tmp_path / "part.json") == 130
    assert signal.getsignal(signal.SIGINT) is before
    part = read(tmp_path / "part.json")
    assert part["interrupted"]
    assert not whole["interrupted"]
    said = capsys.readouterr()
    assert "interrupted" in said.err
    assert f"wrote {tmp_path / 'part.json'}" in said.out
    if command == "solve":
        assert part["status"] == "INTERRUPTED"
    elif command != "transitions":
        assert 0 < len(part["columns"]["beta"]) < len(whole["columns"]["beta"])


def test_sigterm_is_treated_like_ctrl_c(tmp_path, capsys, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    pressed_at(monkeypatch, 30, signal.SIGTERM)
    assert run("sweep", *COMMANDS["sweep"], "--out", tmp_path / "b.npz") == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert 0 < len(cv.Branch.load(tmp_path / "b.npz")) < 12
    warned, ended = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"constrained-vae sweep: interrupted: \d+ of 12 temperatures were solved, down to .*", warned)
    assert ended == "constrained-vae sweep: interrupted: this is what had been computed"
    assert not cv.Branch.load(tmp_path / "b.npz").complete


@pytest.mark.parametrize("moment", ["written", "drawn", "described"])
def test_a_signal_after_the_computation_loses_nothing(tmp_path, capsys, monkeypatch, moment):
    places = {"written": (output, "save"), "drawn": (output, "draw"), "described": (commands.tables, "as_text")}
    place, name = places[moment]
    original = getattr(place, name)

    def pressed(*arguments):
        signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(place, name, pressed)
    out, plot = tmp_path / "s.json", tmp_path / "s.png"
    assert run("solve", *COMMANDS["solve"], "--out", out, "--plot", plot) == 130
    assert (read(out)["converged"], read(out)["interrupted"]) == (True, False)
    said = capsys.readouterr()
    assert said.out.endswith(f"wrote {out}\nwrote {plot}\n")
    assert said.err == "constrained-vae solve: interrupted: this is what had been computed\n"


@pytest.mark.parametrize(
    ("command", "module", "name"),
    [
        ("solve", "solvers.loop", "package"),
        ("frontier", "frontier.rate_distortion", "_curve"),
        ("train", "geco.trainer", "make_report"),
    ],
)
def test_ctrl_c_while_a_result_is_put_together_loses_nothing(tmp_path, monkeypatch, command, module, name):
    place = importlib.import_module(f"constrained_vae.{module}")
    original = getattr(place, name)

    def pressed(*arguments):
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(place, name, pressed)
    arguments = {**COMMANDS, "train": TRAIN}[command]
    assert run(command, *arguments, "--out", tmp_path / "part.json") == 130
    part = read(tmp_path / "part.json")
    assert part["interrupted"]
    assert part.get("stopped", "interrupted at step 40") == "interrupted at step 40"
    assert part.get("status", "INTERRUPTED") == "INTERRUPTED"
    assert part["columns"]


def test_ctrl_c_at_once_has_nothing_to_write(tmp_path, capsys, monkeypatch):
    pressed_at(monkeypatch, 1)
    assert run("sweep", *COMMANDS["sweep"], "--out", tmp_path / "b.npz") == 130
    assert "before there was anything to write" in capsys.readouterr().err
    assert not (tmp_path / "b.npz").exists()


# --- files, pictures and output that fail -----------------------------------------------------------------------------


def test_a_full_disk_keeps_the_old_file_and_prints_the_result(tmp_path, capsys, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("s.npz", "s.json"):
        (tmp_path / name).write_text("old")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert run("solve", *COMMANDS["solve"], "--out", tmp_path / name) == 3
        said = capsys.readouterr()
        assert "FixedPoint(" in said.out
        assert "wrote" not in said.out
        assert said.err == f"constrained-vae solve: {tmp_path / name} was not written: No space left on device\n"
        assert (tmp_path / name).read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["s.json", "s.npz"]


def test_a_picture_that_fails_loses_nothing_else(tmp_path, capsys, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no\nink")

    monkeypatch.setattr(output, "draw", fail)
    assert run("solve", *COMMANDS["solve"], "--out", tmp_path / "s.npz", "--plot", tmp_path / "s.png") == 3
    said = capsys.readouterr()
    assert said.err == f"constrained-vae solve: {tmp_path / 's.png'} was not written: RuntimeError: no ink\n"
    assert said.out.endswith(f"wrote {tmp_path / 's.npz'}\n")
    assert cv.FixedPoint.load(tmp_path / "s.npz").converged


def test_a_description_that_fails_loses_nothing_else(tmp_path, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError("no room")

    monkeypatch.setattr(commands, "first_critical_beta", fail)
    assert run("sweep", *COMMANDS["sweep"], "--out", tmp_path / "b.npz") == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "constrained-vae sweep: the result could not be printed: MemoryError: no room\n"
    assert len(cv.Branch.load(tmp_path / "b.npz")) == 12


@pytest.fixture
def unread():
    """A standard output that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    yield stream
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def test_a_reader_that_has_ended_is_no_failure(tmp_path, capsys, monkeypatch, unread):
    for stream in (unread, None):
        monkeypatch.setattr(sys, "stdout", stream)
        out = tmp_path / f"{stream is None}.npz"
        assert run("solve", *COMMANDS["solve"], "--out", out) == 0
        assert cv.FixedPoint.load(out).converged
    assert capsys.readouterr().err == ""


def test_a_standard_error_that_fails_ends_nothing(tmp_path, monkeypatch, unread):
    for stream in (unread, None):
        monkeypatch.setattr(sys, "stderr", stream)
        options = [option for option in COMMANDS["sweep"] if option != "--quiet"]
        assert run("sweep", *options, "--max-maps", "2", "--out", tmp_path / "b.npz") == 1
        assert len(cv.Branch.load(tmp_path / "b.npz")) == 12


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_output_is_one_line_and_the_file_is_there(tmp_path, capsys, monkeypatch):
    stream = open("/dev/full", "w")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run("solve", *COMMANDS["solve"], "--out", tmp_path / "s.npz") == 3
    with pytest.raises(OSError, match="No space"):
        stream.close()
    assert capsys.readouterr().err == (
        "constrained-vae solve: the result could not be printed: No space left on device\n"
    )
    assert cv.FixedPoint.load(tmp_path / "s.npz").converged


def test_an_output_in_ascii(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run("sweep", *COMMANDS["sweep"][:2], "0.2:1.5:13", *SMALL, "--out", tmp_path / "β.npz") == 0
    text = stream.buffer.getvalue().decode("ascii")
    assert "..." in text.split()
    assert text.endswith(f"wrote {tmp_path}/beta.npz\n")


@pytest.mark.parametrize(
    ("arguments", "buffered"),
    [
        (["solve", *COMMANDS["solve"], "--out"], True),
        slow(["solve", *COMMANDS["solve"], "--out"], False),
        (["--help"], True),
    ],
)
def test_as_a_program_whose_output_nobody_reads(tmp_path, arguments, buffered):
    """Nor does the interpreter complain at its end."""
    more = [tmp_path / "s.npz"] if arguments[-1] == "--out" else []
    command = [sys.executable, "-m", "constrained_vae", *arguments, *more]
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=-1, cwd=ROOT, env=environment, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    for path in more:
        assert cv.FixedPoint.load(path).converged


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [*COMMANDS, "train"])
def test_help_has_an_example_that_is_understood(capsys, command):
    assert run(command, "--help") == 0
    example = capsys.readouterr().out.splitlines()[-1]
    program, *arguments = shlex.split(example)
    assert program == "constrained-vae"
    args = cli._parser().parse_args(arguments)
    assert args.command == command
    assert args.data in ("four_clusters", "digits")


def test_as_a_program():
    """In a process of its own: the version, the codes, and nothing heavy loaded for the sake of help."""

    def process(*arguments):
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)

    done = process("-m", "constrained_vae", "--version")
    assert (done.returncode, done.stdout) == (0, f"constrained-vae {cv.__version__}\n")
    done = process("-m", "constrained_vae", "solve", "nowhere.npy")
    assert done.returncode == 2
    assert done.stderr == "constrained-vae solve: nowhere.npy: No such file or directory\n"
    call = "try: main(['solve', '--help'])\nfinally: print(*sys.modules)"
    listing = f"import sys; from constrained_vae.cli.main import main\n{call}"
    done = process("-c", listing)
    assert "example" in done.stdout
    assert {"numpy", "scipy", "numba", "matplotlib", "sklearn"}.isdisjoint(done.stdout.splitlines()[-1].split())


def test_the_entry_point_is_this():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"constrained-vae": "constrained_vae.cli.main:main"}


def test_grids():
    assert commands.beta_grid(None) is None
    np.testing.assert_allclose(commands.beta_grid("1:4:3"), [1, 2, 4])
    with pytest.raises(ValueError, match="at least 5"):
        commands.beta_grid("1:4:3", least=5)
    assert all(a < b for a, b in itertools.pairwise(commands.beta_grid("1e-3:1e3:50")))


def test_the_commands_of_all_pages_are_understood():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    commands = {page.name: set() for page in pages}
    for page in pages:
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("constrained-vae "):
                given = cli._parser().parse_args(shlex.split(line, comments=True)[1:])
                commands[page.name].add(given.command)
    assert commands["README.md"]
    assert commands["quickstart.md"]
    assert commands["guide.md"] == {*COMMANDS, "train", "estimate", "suggest", "explore", "certify", "verify"}
