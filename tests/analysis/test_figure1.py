"""analysis.figure1 from outside: what is drawn is a solution, its overlap a blend, its hole without a say."""

import re

import numpy as np
import pytest

import constrained_vae as cv
from analysis import figure1 as figure
from tests.helpers.figures import run


@pytest.fixture
def small(drawn):
    return drawn(figure).arrays, drawn(figure).settings


def test_the_table_tells_what_the_hole_costs(drawn):
    _, _, settings, text = drawn(figure)
    assert (settings["n_tiles"], settings["side"]) == (300, 4)
    assert text.startswith("Supports with 95% of the posterior mass, among 300 tiles:")
    assert re.search(r"changes the free energy of \d\.\d+ nats by -?\d(e-1[56])?\.$", text, re.MULTILINE)


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
    status, arrays, _ = run(figure, tmp_path)
    assert status == 130
    assert len(calls) == 1
    assert arrays["panels"] == 0
    assert "interrupted: this is what had been computed" in capsys.readouterr().err
    monkeypatch.setattr(figure, "overlap_and_hole", stop)
    status, arrays, _ = run(figure, tmp_path / "none")
    assert (status, arrays) == (130, None)
    assert "interrupted before there was anything to draw" in capsys.readouterr().err
