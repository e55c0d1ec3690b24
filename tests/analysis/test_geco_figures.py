"""The figures of trained models from outside: what is in them, tables, Ctrl-C."""

import itertools

import numpy as np
import pytest

import constrained_vae as cv
from analysis import _training, figure3, figure4, figure5, geco_theory
from tests.helpers.figures import CODES, run, title

FIGURES = pytest.mark.parametrize("figure", [figure3, figure4, figure5, geco_theory], ids=title)

pytestmark = pytest.mark.usefixtures("shortened")


@FIGURES
def test_seeds(drawn, figure):
    assert drawn(figure).settings["seeds"] == ([0] if figure is figure3 else [0, 1])


@FIGURES
def test_axes_are_labelled(drawn, figure):
    for ax in figure.draw(drawn(figure).arrays).axes:
        shared = not any(label.get_visible() for label in ax.get_xticklabels()) or figure is geco_theory
        assert ax.get_ylabel() or figure in (figure5, geco_theory)
        assert ax.get_xlabel() or shared or ax.get_label() == "<colorbar>"


def test_the_way_through_the_plane_is_that_of_the_run(drawn):
    _, arrays, _, _ = drawn(figure3)
    data = _training.data_set("four_clusters", 40)
    run = _training.trained(
        data.x, cv.RE(0.5, reduction="mean"), sigma=0.5, steps=120, seed=0, **_training.network(data)
    )
    history, edges = run.history, np.append(0, arrays["steps"])
    assert edges[-1] == 120
    for name, values in (("kl", history.kl), ("distortion", history.distortion)):
        means = [values[low:high].mean() for low, high in itertools.pairwise(edges)]
        np.testing.assert_allclose(arrays[name], means)
    np.testing.assert_allclose(arrays["rms"], np.sqrt(arrays["distortion"] / 2))
    start = cv.geco.natural_multiplier(data.x, cv.RE(0.5, reduction="mean"))
    assert arrays["beta"][0] == pytest.approx(2 / (2 * 0.5**2 * start))  # for the mean of two dimensions
    seen = run.evaluate(samples=CODES)
    np.testing.assert_array_equal(arrays["final"], [seen.distortion, seen.rate, seen.distortion_error])
    assert arrays["multiplier"] == pytest.approx(run.multipliers["RE"] / 2)


def test_the_frontier_is_below(drawn):
    """(T22), and it ends where nothing is coded."""
    _, arrays, _, _ = drawn(figure3)
    D, least, most = arrays["frontier"].T
    assert (least <= most + 1e-12).all()
    assert (most - least).max() < 0.2  # eight temperatures
    assert (np.diff(most) <= 0).all()
    x = _training.data_set("four_clusters", 40).x
    assert D[-1] == pytest.approx(np.var(x, axis=0).sum())
    assert most[-1] == pytest.approx(0, abs=1e-9)
    assert arrays["gap"][1] >= -3 * arrays["gap"][2]
    assert arrays["gap"][1] == pytest.approx(arrays["final"][1] - np.interp(arrays["final"][0], D, least), abs=0.01)
    assert "above R(D)" in figure3.table(arrays)


def test_trade_offs_are_those_of_the_library(drawn):
    _, arrays, settings, _ = drawn(figure4)
    data = _training.data_set("four_clusters", 40)
    for m, options in enumerate(
        [{}, {"objective": "elbo"}, {"objective": "annealed", "beta": cv.geco.Ramp(settings["annealed_from"], 1.0, 30)}]
    ):
        run = _training.trained(
            data.x, cv.RE(1.0, reduction="mean"), sigma=1.0, steps=60, seed=1, **options, **_training.network(data)
        )
        seen = run.evaluate(samples=CODES)
        assert arrays["rate"][m, 1, 1] == seen.rate
        assert arrays["rms"][m, 1, 1] == pytest.approx(np.sqrt(seen.distortion / 2))
        assert arrays["marginal_kl"][m, 1, 1] == seen.marginal_kl
        assert arrays["status"][m, 1, 1] == run.report["RE"].status
    assert arrays["multiplier"][1] == pytest.approx(np.repeat([[2.0], [0.5]], 2, axis=1))  # 1 / (2 kappa^2)
    lines = figure4.table(arrays).splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[k, m] for k in ("0.5", "1") for m in figure4.METHODS]
    assert "not met" in lines[1]


def test_geco_is_asked_for_the_error_of_the_elbo(drawn, monkeypatch):
    _, arrays, _, _ = drawn(figure5)
    asked, train = [], cv.geco.train

    def noted(x, constraint, **options):
        asked.append((options["objective"], constraint.kappa, options["sigma"]))
        return train(x, constraint, **options)

    monkeypatch.setattr(cv.geco, "train", noted)
    again, _ = figure5.compute([_training.data_set("four_clusters", 40)], noises=(0.4, 0.2), steps=60, seeds=range(2))
    for name in ("rms", "rate", "marginal_kl", "rate_difference"):
        np.testing.assert_array_equal(again[name], arrays[name])
    sigma = arrays["sigmas"][0]
    elbo = arrays["rms"][0, 0]
    assert asked[::2] == [("elbo", sigma[k], sigma[k]) for s in range(2) for k in range(2)]
    assert asked[1::2] == [("geco", elbo[k, s], sigma[k]) for s in range(2) for k in range(2)]


def test_differences_are_those_at_the_same_error():
    """On the same line in log error nothing is left of them, whatever the errors; what is above it stays."""
    rms = np.array([[[0.1, 0.1], [0.2, 0.2], [0.4, 0.4]], [[0.11, 0.1], [0.21, 0.19], [0.4, 0.41]]])
    values = 3 - 2 * np.log(rms)
    np.testing.assert_allclose(figure5.difference(rms, values), 0, atol=1e-12)
    values[1, :, 1] += 0.25
    np.testing.assert_allclose(figure5.difference(rms, values), [[0, 0.25]] * 3, atol=1e-12)


def test_errors_that_are_off_are_told(drawn):
    _, arrays, _, _ = drawn(figure5)
    rms = arrays["rms"].copy()
    rms[0, 1] = rms[0, 0] * [[1.01, 0.99], [1.01, 1.03]]
    told = [line.strip() for line in figure5.table({**arrays, "rms": rms}).splitlines() if " off by " in line]
    assert told == ["1 of 2 of GECO's errors are off by more than 2%"]


def test_exact_curves_are_those_of_the_theory(drawn):
    """Section 5."""
    _, arrays, _, _ = drawn(geco_theory)
    exact = dict(zip(arrays["squared_errors"], arrays["exact"], strict=True))
    known = {1.2: (1.25, 2.06758), 0.3: (5, 4.147025), 3: (0.4, 0.816577), 5.5: (1 / 6, 0.143841), 1.5: (1, 1.732868)}
    for squared, values in known.items():
        assert exact[squared] == pytest.approx(values, rel=1e-5)
    assert sorted(known) == sorted(geco_theory.TABLE)
    lines = geco_theory.table(arrays).splitlines()
    assert [float(line.split()[0]) for line in lines[1:6]] == sorted(known)
    assert np.isfinite(arrays["trained"]).all(axis=(1, 2)).tolist() == [s in known for s in exact]  # both seeds


def test_linear_vaes_are_trained_by_default_settings(drawn):
    _, arrays, _, _ = drawn(geco_theory)
    k = list(arrays["squared_errors"]).index(3.0)
    data = cv.datasets.gaussian((4.0, 2.0, 0.5))
    run = cv.geco.train(data.x, cv.RE.from_squared_error(3.0), latent_dim=3, hidden=(), steps=60, seed=1)
    lam = run.history.multipliers["RE"]
    expected = run.multipliers["RE"], run.history.tail().kl.mean(), lam.max() / lam[-1]
    assert arrays["trained"][k, 1] == pytest.approx(expected)


def test_tilings(drawn):
    """The fixed point is below the model that it starts from, above the least of all codes, and made of few colours."""
    _, arrays, _, _ = drawn(geco_theory)
    lam = float(arrays["multiplier"])
    learned, fixed = (arrays[name][0] + lam * arrays[name][1] for name in ("learned", "fixed"))
    assert arrays["least"][0] <= fixed + 1e-9
    assert fixed < learned
    assert arrays["shares"].sum(axis=1) == pytest.approx([1, 1])
    data, tiling = cv.datasets.four_clusters(), cv.Tiling.gaussian(32, 2)
    run = _training.trained(data.x, cv.RE(geco_theory._KAPPA), steps=60, seed=0, **_training.network(data))
    assert lam == run.multipliers["RE"]
    solution = cv.solve(data.x, beta=1 / (2 * lam), tiling=tiling, start=run.model.decode(tiling.positions))
    assert arrays["fixed"].tolist() == [solution.rate, solution.distortion, solution.marginal_kl]
    assert len(np.unique(arrays["fixed_plane"].reshape(-1, 2).round(6), axis=0)) <= arrays["distinct"]
    assert len(np.unique(arrays["learned_plane"].reshape(-1, 2).round(6), axis=0)) > 1000
    centres = arrays["centres"]
    colours = geco_theory._colours(np.stack([centres, centres + 5]), centres)
    assert len(np.unique(colours[0], axis=0)) == 4
    assert (colours[1] > colours[0].min(axis=1, keepdims=True)).all()
    assert (colours <= 1).all()


def test_mean_and_error_leave_out_what_was_not_computed():
    values = np.array([[1.0, 3.0, np.nan], [2.0, np.nan, np.nan], [np.nan] * 3])
    mean, error = _training.mean_and_error(values)
    np.testing.assert_allclose(mean, [2, 2, np.nan])
    np.testing.assert_allclose(error, [1, np.nan, np.nan])
    assert _training.with_error(values[0], 2) == "2.00 +- 1.00"
    assert _training.with_error(values[1], 2) == "2.00"


def test_data_sets(tmp_path):
    assert len(_training.data_set("four_clusters")) == 200
    some = _training.data_set("digits", 7)
    assert (len(some), some.name, some.image_shape) == (7, "digits", (8, 8))
    np.save(tmp_path / "x.npy", np.eye(3))
    assert _training.network(_training.data_set(str(tmp_path / "x.npy")))["latent_dim"] == 8


def interrupting(monkeypatch, number):
    """Ctrl-C in the middle of a run, the first one being 0."""
    train, calls = cv.geco.train, []

    def interrupted(x, constraint, **options):
        calls.append(constraint)

        def stop(step, row):
            if len(calls) == number + 1 and step == 20:
                raise KeyboardInterrupt

        return train(x, constraint, **options, callback=stop)

    monkeypatch.setattr(cv.geco, "train", interrupted)


@FIGURES
def test_ctrl_c_in_the_first_run(tmp_path, monkeypatch, capsys, figure):
    """Figure 3 shows the way so far; of the others nothing is there."""
    interrupting(monkeypatch, 0)
    status, arrays, settings = run(figure, tmp_path)
    assert status == 130
    assert "interrupted" in capsys.readouterr().err
    if figure is not figure3:
        assert arrays is None
        return
    assert settings["interrupted"]
    assert arrays["steps"][-1] == 20
    assert "frontier" not in arrays


@pytest.mark.parametrize(("figure", "number"), [(figure4, 4), (figure5, 3), (geco_theory, 9)])
def test_ctrl_c_keeps_what_there_is(tmp_path, monkeypatch, capsys, drawn, figure, number):
    interrupting(monkeypatch, number)
    status, arrays, settings = run(figure, tmp_path)
    assert status == 130
    assert "interrupted" in capsys.readouterr().err
    assert settings["interrupted"]
    name, whole = "trained" if figure is geco_theory else "rate", drawn(figure).arrays
    got = np.isfinite(arrays[name])
    assert got.sum() == number * (3 if figure is geco_theory else 1)
    np.testing.assert_array_equal(arrays[name][got], whole[name][got])
    assert "learned_plane" not in arrays


@pytest.mark.parametrize("where", ["rate_distortion", "nucleation_beta"])
def test_ctrl_c_in_the_frontier(tmp_path, monkeypatch, where):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cv, where, interrupted)
    status, arrays, settings = run(figure3, tmp_path)
    assert (status, settings["interrupted"]) == (130, True)
    assert arrays["steps"][-1] == 120
    assert "frontier" not in arrays
