"""The protocol that all figures keep: what their commands write, print, refuse, and how they end."""

import argparse
import signal
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import constrained_vae as cv
from analysis import (
    _command,
    constraints,
    figure1,
    figure2,
    figure3,
    figure4,
    figure5,
    frontier,
    geco_theory,
    spectral,
    transitions,
)
from tests.helpers.figures import SMALL, coarse, read, run, title
from tests.helpers.gpu import gpu_trouble
from tests.helpers.marks import slow

every_figure = pytest.mark.parametrize("figure", SMALL, ids=title)


@every_figure
def test_writes_picture_arrays_and_table(drawn, tmp_path, figure):
    out, arrays, settings, text = drawn(figure)
    assert settings["version"] == cv.__version__
    assert not settings["interrupted"]
    assert settings.get("converged", True)
    assert text.startswith(figure.table(arrays))
    written = [f"wrote {out}.{suffix}" for suffix in ("npz", "png", "pdf")]
    assert [line for line in text.splitlines() if line in written] == written
    # The picture is a function of the arrays alone, and changes none of them: these are read-only.
    with coarse():
        _command.write("name", tmp_path / "again", arrays, settings, figure.draw)
    assert (tmp_path / "again.png").read_bytes() == out.with_suffix(".png").read_bytes()


@pytest.mark.parametrize("figure", [figure3, *(slow(figure) for figure in SMALL if figure is not figure3)], ids=title)
def test_the_whole_picture(drawn, tmp_path, figure):
    """In all its pixels, and for a page; one figure stands for all, which differ in what they draw."""
    _, arrays, settings, _ = drawn(figure)
    _command.write("name", tmp_path / "sub" / "whole", arrays, settings, figure.draw)
    png, pdf = ((tmp_path / "sub" / f"whole.{suffix}").read_bytes() for suffix in ("png", "pdf"))
    assert png.startswith(b"\x89PNG")
    assert pdf.startswith(b"%PDF")
    inches = figure.draw(arrays).get_size_inches()
    width, height = (int.from_bytes(png[n : n + 4]) for n in (16, 20))  # as PNG's first chunk has them
    assert (width, height) == pytest.approx(200 * inches, abs=1)


@every_figure
def test_help_is_the_head_of_the_docstring(figure, capsys):
    with pytest.raises(SystemExit, match="0"):
        figure.main(["--help"])
    text = capsys.readouterr().out
    assert f"python -m {figure.__name__} " in text
    head = " ".join(figure.__doc__.partition("\n\n")[0].split())
    assert head in " ".join(text.split())
    assert "--out" in text
    assert "--quiet" in text


@every_figure
def test_an_unknown_option_is_refused(figure, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        figure.main(["--no-such-option", "--out", str(tmp_path / "figure")])
    assert "--no-such-option" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


BAD = {
    figure1: [
        (["--n-tiles", "9"], "n_tiles must be at least 100, to draw supports by them, got 9"),
        (["--side", "1"], "side must be at least 2 tiles, got 1"),
        (["--betas", "-1"], "betas must be positive numbers, got [-1.0]"),
        (["--n", "5000"], "n must be a whole number of at most 1797"),
        (["--data", "four_clusters"], "--data wants grey images, such as digits, got 'four_clusters'"),
    ],
    figure2: [
        (["--data", "nowhere.npy"], "nowhere.npy"),
        (["--data", "x.dat"], "a .npy or a .npz file"),
        (["--betas", "3:1:20"], "LOW < HIGH"),
        (["--betas", "1:3"], "LOW:HIGH:COUNT"),
        (["--betas", "1:3:2"], "at least 5"),
        (["--sigma", "0"], "sigma must be positive"),
        (["--n-tiles", "0"], "n_tiles"),
        (["--exact", "0"], "limit must be a whole number of at least 1"),
        (["--backend", "cupy"], "CuPy"),
    ],
    transitions: [
        (["--data", "nowhere.npy"], "nowhere.npy"),
        (["--betas", "3:1:20"], "LOW < HIGH"),
        (["--sigma", "0"], "sigma must be positive"),
        (["--n-tiles", "0"], "n_tiles"),
        (["--limit", "0"], "limit must be a whole number of at least 1"),
    ],
    spectral: [
        (["--count", "2"], "count must be at least 3 temperatures, got 2"),
        (["--data", "two_points"], "--data wants data with labels of at least two classes, which --labels names"),
        (["--n-tiles", "0"], "n_tiles"),
    ],
    constraints: [
        (["--data", "nowhere.npy"], "nowhere.npy"),
        (["--data", "four_clusters"], "--data wants grey images with labels, such as digits, got 'four_clusters'"),
        (["--n", "0"], "n must be a whole number of at least 1"),
        (["--n", "3000"], "n must be a whole number of at most 1797"),
        (["--rate", "0"], "rate must be between 0 and 1.099"),
        (["--rate", "1.4"], "rate must be between 0 and 1.099"),
        (["--n-tiles", "0"], "n_tiles"),
        (["--share", "1"], "share must be between 0 and 1"),
        (["--ratio", "1.5"], "ratio must be between 0 and 1"),
        (["--features", "0"], "n_features must be"),
        (["--patch", "9"], "patch must fit into the image"),
        (["--stride", "0"], "stride must be"),
    ],
    frontier: [
        (["--data", "nowhere.npy"], "nowhere.npy"),
        (["--betas", "3:1:20"], "LOW < HIGH"),
        (["--starts", "0"], "starts must be a whole number of at least 1"),
        (["--gap", "0"], "gap must be positive"),
    ],
    figure3: [
        (["--data", "nowhere.npy"], "nowhere.npy"),
        (["--n", "1"], "--n must be from 2 to 200"),
        (["--kappa", "-1"], "kappa must be"),
        (["--steps", "-1"], "steps must be"),
    ],
    figure4: [
        (["--kappas", "0.1;0.2"], "--kappas wants numbers separated by commas"),
        (["--kappas", "0"], "must be positive"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--seed", "-1"], "seed must be"),
    ],
    figure5: [
        (["--noise", "0.2"], "at least two different numbers"),
        (["--noise", "0,1"], "at least two different numbers"),
        (["--data", "four_clusters,nowhere.csv"], "nowhere.csv"),
    ],
    geco_theory: [
        (["--n-tiles", "0"], "n_tiles"),
        (["--kappa", "-1"], "kappa must be"),
    ],
}


@pytest.mark.parametrize(
    ("figure", "options", "words"),
    [
        pytest.param(figure, options, words, id=f"{title(figure)} {' '.join(options)}")
        for figure, cases in BAD.items()
        for options, words in cases
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, capsys, figure, options, words):
    if "cupy" in options and gpu_trouble() is None:
        pytest.skip("CuPy works here")
    status, arrays, _ = run(figure, tmp_path, *options)
    error = capsys.readouterr().err
    assert status == 2
    assert arrays is None
    assert error.startswith(f"{title(figure)}: ")
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("some", [False, True])
def test_a_computation_that_ends_early(tmp_path, capsys, number, code, some):
    """With something to draw it is drawn and the exit code says so; without, a line says so."""

    def compute():
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if not some:
                raise
        return {"x": np.arange(3.0)}, {"interrupted": True}

    status = _command.run("name", compute, tmp_path / "figure", lambda arrays: plt.figure(), lambda arrays: "a table")
    assert status == code
    out, error = capsys.readouterr()
    if some:
        assert error == "name: interrupted: this is what had been computed\n"
        assert out.startswith("a table\n")
        assert read(tmp_path / "figure")[1] == {"interrupted": True}
    else:
        assert error == "name: interrupted before there was anything to draw\n"
        assert (out, list(tmp_path.iterdir())) == ("", [])


def test_a_picture_that_fails_loses_nothing_else(tmp_path, capsys):
    def draw(arrays):
        raise ValueError("no ink")

    out = tmp_path / "figure"
    status = _command.run("name", lambda: ({"x": np.arange(3.0)}, {}), out, draw, lambda arrays: "a table")
    assert status == 3
    said = capsys.readouterr()
    assert said.out == f"a table\nwrote {out}.npz\n"
    assert said.err == "".join(f"name: {out}.{suffix} was not written: no ink\n" for suffix in ("png", "pdf"))
    np.testing.assert_array_equal(read(out)[0]["x"], np.arange(3.0))


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_computed(tmp_path, capsys):
    def compute():
        raise AssertionError

    (tmp_path / "file").write_text("text")
    out = tmp_path / "file" / "figure"
    assert _command.run("name", compute, out, lambda arrays: plt.figure(), lambda arrays: "a table") == 2
    assert capsys.readouterr().err == f"name: {tmp_path / 'file'}: File exists\n"


def test_every_figure_is_here():
    """A module with `draw` and `main` is a figure."""
    folder = _command.Path(_command.__file__).parent
    modules = {path.stem for path in folder.glob("[!_]*.py") if "\ndef main(" in path.read_text(encoding="utf-8")}
    assert modules - {"notebooks"} == {title(figure) for figure in SMALL} == {title(figure) for figure in BAD}


def test_the_options_of_a_figure_of_a_branch():
    options = _command.branch_parser("figure2", "Head\nof it.\n\nMore.")
    assert isinstance(options, argparse.ArgumentParser)
    assert options.description == "Head\nof it."
    assert options.parse_args([]).out == Path("analysis/figures/figure2")


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ([], "analysis"),
        (["--quiet"], "analysis"),
        (["--data", "four_clusters"], "analysis"),
        (["--data", "mine.csv"], "build"),
        (["--n-tiles", "8"], "build"),
        (["--data", "mine.csv", "--out", "elsewhere/figure2"], "elsewhere"),
    ],
)
def test_a_committed_picture_is_not_replaced_by_one_of_other_data(arguments, folder):
    out = _command.branch_parser("figure2", "Head.").parse_args(arguments).out
    assert (out.parts[0], out.name) == (folder, "figure2")


def test_a_picture_with_the_same_pixels_is_not_written_again(tmp_path):
    def figure(width):
        drawn = plt.figure(figsize=(1, 1))
        drawn.subplots().plot([0, 1], lw=width)
        return drawn

    path = tmp_path / "p.png"
    _command.write_png(str(path), figure(1))
    written = path.read_bytes()
    figure(1).savefig(path, dpi=200, metadata={"Software": "another release"})  # the same pixels, another header
    other = path.read_bytes()
    assert other != written
    _command.write_png(str(path), figure(1))
    assert path.read_bytes() == other
    _command.write_png(str(path), figure(5))
    assert path.read_bytes() not in (written, other)
    path.write_bytes(b"no picture")
    _command.write_png(str(path), figure(1))
    assert path.read_bytes() == written


@pytest.mark.parametrize(
    ("columns", "labels"), [(("a", "$b"), ["a", "\\$b"]), (None, ["$x_1$", "$x_2$"]), (("a",), ["a", ""])]
)
def test_axes_have_the_names_of_columns(columns, labels):
    x = np.zeros((2, 2 if columns is None else len(columns)))
    assert _command.plane_names(cv.datasets.DataSet(x, "t", columns=columns)).tolist() == labels


@pytest.mark.parametrize("figure", [figure1, slow(constraints)], ids=title)
def test_images_of_ones_own(tmp_path, figure):
    digits = cv.datasets.digits(40)
    images = 3 * digits.x.reshape(40, 8, 8)[:, 1:7]
    np.savez(tmp_path / "own.npz", data=images, target=digits.labels)
    small = [*SMALL[figure], "--n", "30"]
    status, arrays, settings = run(figure, tmp_path, "--data", str(tmp_path / "own.npz"), small=small)
    assert (status, settings["data"], settings["n_points"]) == (0, "own", 30)
    assert arrays["image_shape"].tolist() == [6, 8]
    assert arrays["levels"].tolist() == [0, images[:30].max()]


def test_a_table_with_labels_in_the_spectral_figure(tmp_path, capsys):
    points = cv.datasets.four_clusters(6)
    lines = [f"{a},{b},{a - b},kind {k}" for (a, b), k in zip(points.x, points.labels, strict=True)]
    (tmp_path / "own.csv").write_text("\n".join(["a,b,c,kind", *lines]))
    small = ["--n-tiles", "4", "--count", "3", "--data", str(tmp_path / "own.csv"), "--labels", "kind"]
    status, arrays, settings = run(spectral, tmp_path, "--standardize", small=small)
    assert (status, settings["sets"], arrays["sets"].tolist()) == (0, ["own"], ["own"])
    np.testing.assert_array_equal(arrays["own_partition_truth"], points.labels)
    assert "kernels.png" not in capsys.readouterr().out  # the set is not in the plane
