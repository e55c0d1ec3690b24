"""analysis.figure1 from outside: what is drawn is a solution, its overlap a blend, its hole without a say."""

import json
import re

import numpy as np
import pytest

import constrained_vae as cv
from analysis import figure1 as figure

SMALL = ["--tiles", "300", "--side", "4", "--n", "80", "--betas", "0.5", "0.1", "--quiet"]


@pytest.fixture(autouse=True)
def close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def small():
    return figure.compute(n_tiles=300, side=4, n=80, betas=(0.8, 0.1))


def test_writes_picture_arrays_and_table(tmp_path, capsys):
    out = tmp_path / "sub" / "figure"
    assert figure.main([*SMALL, "--out", str(out)]) == 0
    with np.load(out.with_suffix(".npz")) as file:
        arrays = {name: file[name] for name in file.files}
    settings = json.loads(str(arrays.pop("settings")))
    assert (settings["n_tiles"], settings["side"], settings["interrupted"]) == (300, 4, False)
    png = out.with_suffix(".png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert out.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    text = capsys.readouterr().out
    assert text.startswith("Supports with 95% of the posterior mass, among 300 tiles:")
    assert re.search(r"changes the free energy of \d\.\d+ nats by -?\d(e-1[56])?\.$", text, re.MULTILINE)
    assert figure.table(arrays) in text
    # A function of the arrays alone.
    figure._command.write(tmp_path / "again", arrays, settings, figure.draw)
    assert (tmp_path / "again.png").read_bytes() == png


def test_the_reconstruction_of_an_overlap_is_a_blend_of_the_points_that_share_it(small):
    arrays, _ = small
    np.testing.assert_allclose(arrays["weights"].sum(axis=0), 1, atol=1e-12)
    # At a fixed point a reconstruction is the mean with these weights (T3).
    np.testing.assert_allclose(arrays["weights"].T @ arrays["points"], arrays["sites"], atol=1e-8)
    one, two, three = arrays["supports"][:3]
    first, last = one & two, two & three
    assert first.any()
    assert last.any()
    assert not (one & three).any()
    for tiles, (a, b) in ((first, (0, 1)), (last, (2, 1))):
        (site,) = np.unique(arrays["site"][tiles])
        weights = arrays["weights"][:, site]
        assert weights[a] > weights[b] > 0.3
        assert weights[[a, b]].sum() > 0.98
    # Of each point the support holds 95 % of the posterior, and no tile fewer would.
    solution = cv.solve(
        figure.POINTS, beta=0.2, tiling=cv.Tiling.gaussian(300, 2), start=arrays["decoder"], on_failure="return"
    )
    for posterior, support in zip(solution.encoder, arrays["supports"], strict=True):
        assert posterior[support].sum() >= 0.95 - 1e-9
        assert posterior[support].max() > posterior[~support].max()


def test_the_hole_holds_no_posterior_mass_wherever_its_reconstructions_are(small):
    arrays, _ = small
    dead = arrays["dead"]
    assert 0.02 < dead.mean() < 0.15
    assert not arrays["supports"][:, dead].any()
    np.testing.assert_allclose(arrays["decoder"][dead], arrays["start"][dead], rtol=1e-13)  # back and forth in a frame
    for hole in (arrays["decoder"][dead], arrays["moved"]):
        distance = np.linalg.norm(hole[:, None] - arrays["points"], axis=2)
        assert distance.min() > 0.9 * arrays["reach"]
    assert np.linalg.norm(arrays["moved"] - arrays["decoder"][dead], axis=1).min() > 10
    # Equal but for the rounding of one more step of the live tiles.
    assert arrays["free_energies"][0] == pytest.approx(arrays["free_energies"][1], abs=1e-14)
    # KL(m || pi) is at least what the hole costs, -log of the prior mass that is left.
    assert arrays["marginal_kl"] >= -np.log(1 - dead.mean()) - 1e-12


def test_manifolds_of_digits_are_smooth_and_get_sharper(small):
    arrays, settings = small
    x = cv.datasets.digits(80).x
    first = cv.first_critical_beta(x)
    assert settings["betas"] == [0.8, 0.1]
    for number, relative in enumerate((0.8, 0.1)):
        assert arrays[f"panel{number}_beta"] == pytest.approx(relative * first)
        holes = arrays[f"panel{number}_holes"]
        np.testing.assert_array_equal(holes, np.flatnonzero(arrays[f"panel{number}_coverage"] < 0.5))
    assert arrays["panel0_distinct"] <= arrays["panel1_distinct"]
    assert arrays["panel0_rate"] < arrays["panel1_rate"]
    assert np.median(arrays["panel0_n_points"]) > np.median(arrays["panel1_n_points"])
    tiles = arrays["panel0_decoder"].reshape(4, 4, 64)
    beside = np.linalg.norm(np.diff(tiles, axis=1), axis=2).mean()
    every = np.linalg.norm(tiles.reshape(16, 1, 64) - tiles.reshape(16, 64), axis=2).mean()
    assert beside < every
    # Tiles of the first column decode what lies to the left on the first principal axis.
    _, axes = cv.plotting.principal_axes(x)
    across = arrays["panel0_decoder"].reshape(4, 4, 64).mean(axis=0) @ axes[0]
    assert across[0] < across[-1]


def test_interrupted(monkeypatch, tmp_path, capsys):
    """Once the top is done its picture is drawn; before that there is nothing."""
    calls = []

    def stop(*args):
        calls.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "manifold", stop)
    assert figure.main([*SMALL, "--out", str(tmp_path / "figure")]) == 130
    assert len(calls) == 1
    with np.load(tmp_path / "figure.npz") as file:
        assert file["panels"] == 0
    assert "interrupted: this is what had been computed" in capsys.readouterr().err
    monkeypatch.setattr(figure, "overlap_and_hole", stop)
    assert figure.main([*SMALL, "--out", str(tmp_path / "none")]) == 130
    assert not (tmp_path / "none.npz").exists()
    assert "interrupted before there was anything to draw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tiles", "9"], "n_tiles must be at least 100, to draw supports by them, got 9"),
        (["--side", "1"], "side must be at least 2 tiles, got 1"),
        (["--betas", "-1"], r"betas must be positive numbers, got \[-1.0\]"),
        (["--n", "5000"], "n must be at most 1797"),
    ],
)
def test_bad_input(options, message, tmp_path, capsys):
    assert figure.main([*SMALL, *options, "--out", str(tmp_path / "figure")]) == 2
    assert re.search(f"figure1: {message}", capsys.readouterr().err)
    assert not (tmp_path / "figure.npz").exists()
