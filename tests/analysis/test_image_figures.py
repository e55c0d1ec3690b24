"""Figures 3, 4 and 5 with image models on tiny digits: what they write, and how runs are kept, resumed and refused."""

import contextlib
import functools
import io
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch, of the extra torch, is not installed")

import constrained_vae as cv
from analysis import (
    _command,
    _image_figure3,
    _image_figure4,
    _image_figure5,
    _image_models,
    _image_training,
    figure3,
    figure4,
    figure5,
)
from analysis._image_training import Job
from constrained_vae import image_models
from constrained_vae.geco.water_filling import covariance_eigenvalues, of_distortion
from tests.helpers.figures import coarse, read, title

_SMALL = ["--quiet", "--size", "8", "--n", "60", "--steps", "12"]
_USUAL = dict(_image_training.IMAGE_MODELS)
_TINY = {
    "vae": {"model": "ConvVAE", "latent_dim": 3, "channels": 2, "hidden": 7},
    "vae-nvp": {"model": "ConvVAE", "latent_dim": 3, "channels": 2, "hidden": 7, "prior": "flow"},
    "convdraw": {"model": "ConvDRAW", "hidden_channels": 3, "latent_channels": 2, "steps": 2},
}
OPTIONS = {
    figure3: ["--model", "convdraw", "--data", "digits-rotate", "--compare", "--kappa", "0.2"],
    figure4: ["--model", "vae,vae-nvp,convdraw", "--data", "digits", "--kappas", "0.2"],
    figure5: ["--model", "vae", "--data", "digits", "--seeds", "2"],
}
PARTS = {figure3: _image_figure3, figure4: _image_figure4, figure5: _image_figure5}
RUNS = {figure3: 2, figure4: 7, figure5: 8}
every_figure = pytest.mark.parametrize("figure", OPTIONS, ids=title)


def command(figure, folder, *options):
    """Exit code, arrays and settings of a figure with small options; its runs are in the folder `runs`."""
    out = folder / "figure"
    small = [*OPTIONS[figure], *_SMALL, "--runs", str(folder / "runs"), "--out", str(out)]
    with coarse():
        status = figure.main([*small, *options])
    return status, *read(out)


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """Models are tiny."""
    with pytest.MonkeyPatch.context() as patch:
        for family, config in _TINY.items():
            patch.setitem(_image_training.IMAGE_MODELS, family, config)
        yield


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Folder, arrays, settings and text of a figure, made when first asked for."""

    @functools.cache
    def make(figure):
        folder = tmp_path_factory.mktemp(title(figure))
        with contextlib.redirect_stdout(io.StringIO()) as text:
            status, arrays, settings = command(figure, folder)
        assert status == 0
        for array in arrays.values():
            array.flags.writeable = False
        return folder, arrays, settings, text.getvalue()

    return make


@pytest.fixture
def again(drawn, tmp_path):
    """A copy of the folder of a figure, whose runs may be removed."""

    def copy(figure):
        shutil.copytree(drawn(figure)[0], tmp_path / "again")
        return tmp_path / "again"

    return copy


@pytest.fixture
def trained(monkeypatch):
    """The trainings of image models from here on, as their constraint and options."""
    calls, train = [], image_models.train

    def noted(task, constraint, **options):
        calls.append((constraint, options))
        return train(task, constraint, **options)

    monkeypatch.setattr(image_models, "train", noted)
    return calls


@every_figure
def test_files_of_a_figure(drawn, figure, tmp_path):
    folder, arrays, settings, text = drawn(figure)
    suffixes = [".npz", ".png", ".pdf", ".json", *["-samples.png"] * (figure is figure4)]
    assert text.startswith(PARTS[figure].table(arrays))
    assert text.splitlines()[-len(suffixes) :] == [f"wrote {folder / 'figure'}{suffix}" for suffix in suffixes]
    assert "not computed" not in text
    assert not settings["interrupted"]
    assert json.loads((folder / "figure.json").read_text()) == settings
    assert len(settings["runs"]) == RUNS[figure]
    for name, record in settings["runs"].items():
        assert {"settings", "metrics", "versions"} <= set(record)
        assert record["settings"]["steps"] == 12
        assert (folder / "runs" / f"{name}.npz").exists()
        assert (folder / "runs" / f"{name}.pt").exists()
    # Pictures are functions of the arrays alone, and change none of them: these are read-only.
    draw = PARTS[figure].draw
    with coarse():
        _command.write("name", tmp_path / "redrawn", arrays, settings, draw)
    assert (tmp_path / "redrawn.png").read_bytes() == (folder / "figure.png").read_bytes()


@every_figure
def test_axes_are_labelled(drawn, figure):
    drawing = PARTS[figure].draw(drawn(figure)[1])
    assert any(ax.get_xlabel() for ax in drawing.axes)
    assert sum(bool(ax.get_ylabel()) for ax in drawing.axes) >= 2
    assert drawing.get_size_inches()[0] == 3.5


@every_figure
def test_finished_runs_are_read(again, drawn, figure, trained):
    status, arrays, settings = command(figure, again(figure))
    assert (status, trained) == (0, [])
    for name, array in drawn(figure)[1].items():
        np.testing.assert_array_equal(arrays[name], array)
    assert settings == drawn(figure)[2]


@contextlib.contextmanager
def interrupted(trained, number):
    """Ctrl-C in the middle of a run, the first one being 1."""
    noted = image_models.train

    def train(task, constraint, **options):
        def stop(step, row):
            if len(trained) == number and step == 6:
                raise KeyboardInterrupt

        return noted(task, constraint, **{**options, "callback": stop})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_models, "train", train)
        yield


def test_an_interrupted_command_goes_on_run_by_run(drawn, tmp_path, capsys, trained):
    with interrupted(trained, 3):
        status, arrays, settings = command(figure4, tmp_path)
    assert status == 130
    assert settings["interrupted"]
    assert (len(settings["runs"]), len(settings["missing"])) == (2, 5)
    assert np.isfinite(arrays["rate"]).sum() == 2
    printed = capsys.readouterr()
    assert "interrupted" in printed.err
    assert printed.out.count("not computed: ") == 5
    trained.clear()
    status, arrays, _ = command(figure4, tmp_path)
    assert (status, len(trained)) == (0, 5)
    assert [options["resume"] is None for _, options in trained] == [False, True, True, True, True]
    for name, array in drawn(figure4)[1].items():
        np.testing.assert_array_equal(arrays[name], array)  # one thread: the same bits


def test_after_an_interruption_no_run_starts(tmp_path, trained):
    with interrupted(trained, 2):
        status, arrays, settings = command(figure5, tmp_path)
    assert (status, len(trained)) == (130, 2)  # neither that of the ELBO nor those of GECO
    assert len(settings["runs"]) == 1
    assert np.isfinite(arrays["rate"]).sum() == 1


def test_after_the_budget_no_run_starts(again, tmp_path, capsys, trained):
    folder = again(figure4)
    gone = folder / "runs" / "convdraw-geco-0.2-0.npz"
    gone.unlink()
    status, arrays, settings = command(figure4, folder, "--budget", "0")
    assert (status, trained) == (130, [])
    assert settings["missing"] == [gone.stem]
    assert np.isnan(arrays["rate"]).sum() == 3  # this one, and the annealed ones that are not asked for
    assert f"not computed: {gone.stem}" in capsys.readouterr().out
    assert command(figure4, tmp_path / "new", "--budget", "0") == (130, None, None)
    assert "interrupted before there was anything to draw" in capsys.readouterr().err


@every_figure
def test_pictures_of_a_part_of_the_runs(again, figure, capsys):
    folder = again(figure)
    for path in sorted((folder / "runs").glob("*.npz"))[1:]:
        path.unlink()
    status, _, settings = command(figure, folder, "--budget", "0")
    assert status == 130
    assert len(settings["runs"]) == 1
    assert "not computed: " in capsys.readouterr().out


def test_runs_with_other_settings_are_refused(again, capsys):
    folder = again(figure4)
    assert command(figure4, folder, "--steps", "30")[0] == 2
    message = capsys.readouterr().err
    assert "vae-geco-0.2-0.npz is a run with steps 12, not 30: give another folder as --runs, or remove it" in message
    for path in (folder / "runs").glob("*.npz"):
        path.unlink()
    assert command(figure4, folder, "--steps", "30")[0] == 2
    message = capsys.readouterr().err
    assert "vae-geco-0.2-0.pt is a run with steps 12, not 30: give another folder as --runs, or remove it" in message
    assert message.count("\n") == 1


def test_results_are_those_of_the_library(drawn):
    folder, arrays, _, _ = drawn(figure4)
    data = _image_training.images("digits", 8, 60)
    x, held_out = _image_training.parts(data)
    assert (len(x), len(held_out)) == (54, 6)
    assert {row.tobytes() for row in data.x} == {row.tobytes() for part in (x, held_out) for row in part.x}
    model = image_models.make_model({**_TINY["convdraw"], "image_shape": [1, 8, 8]})
    options = {"objective": "annealed", "beta": cv.geco.Ramp.of_gqn(12)}
    run = image_models.train(x, model=model, sigma=0.2, steps=12, batch_size=32, device="cpu", **options)
    seen, test = run.evaluate(), run.evaluate(held_out)
    place = 2, 2, 0, 0  # ConvDRAW, annealed
    assert arrays["rate"][place] == pytest.approx(seen.rate, rel=1e-5)  # here on more threads
    assert arrays["rms"][place] == pytest.approx(np.sqrt(seen.per_dimension), rel=1e-5)
    assert arrays["test_rms"][place] == pytest.approx(np.sqrt(test.per_dimension), rel=1e-5)
    assert arrays["multiplier"][place] == pytest.approx(1 / (2 * 0.2**2))
    gap = seen.rate - of_distortion(covariance_eigenvalues(x.x), seen.distortion).rate
    assert arrays["above_linear"][place] == pytest.approx(gap, rel=1e-5)
    assert arrays["samples"].shape == (3, 1, 8, 8, 8, 1)
    with np.load(folder / "runs" / "convdraw-annealed-0.2-0.npz") as file:
        assert file["kl"][-1] == pytest.approx(run.history.kl[-1], rel=1e-4)


def test_geco_starts_as_the_figure_says(drawn, tmp_path):
    """In figure 4 from the slope of the best linear VAE, in figure 5 from the ELBO with the error of the ELBO."""
    data = _image_training.images("digits", 8, 60)
    x, constraint = _image_training.parts(data)[0].x, cv.RE(0.2, reduction="mean")
    for beta, start in ((None, cv.geco.natural_multiplier(x, constraint) / 64), (0.5, 1 / 0.2**2)):
        folder = tmp_path / str(beta)
        folder.mkdir()
        job = Job("vae", "GECO", 0.2, 0.2, 0, 3, beta=beta)
        _image_models.train(job, data, folder)
        assert 1 / (2 * 0.2**2 * _image_training.read(job, data, folder).arrays["beta"][0]) == pytest.approx(start)
    arrays, runs = drawn(figure5)[1], drawn(figure5)[2]["runs"]
    for k, s in ((0, 0), (0, 1), (1, 0), (1, 1)):
        sigma = arrays["sigmas"][0, k]
        settings = runs[f"vae-geco-{sigma:.4g}-{s}"]["settings"]
        assert settings["kappa"] == arrays["rms"][0, 0, k, s]
        assert (settings["sigma"], settings["beta"]) == (sigma, 1)


def test_the_way_is_that_of_the_runs(drawn):
    _, arrays, _, text = drawn(figure3)
    assert arrays["names"].tolist() == ["ConvDRAW, with its context", "ConvDRAW, without a context"]
    assert arrays["steps"][-1] == 12
    assert arrays["beta"][:, 0] == pytest.approx(1)
    assert arrays["rates"].sum(axis=1) == pytest.approx(arrays["rate"])
    assert len(text.splitlines()[0]) <= 120
    settings = [record["settings"] for record in drawn(figure3)[2]["runs"].values()]
    assert [s["task"] for s in settings] == ["rotate", "turned"]


def test_models_without_a_context_learn_the_same_images():
    data = _image_training.images("digits-rotate", 8, 20)
    torch = pytest.importorskip("torch")
    rows = torch.arange(5)
    conditional, alone = (
        kind(data).batch(rows, torch.Generator().manual_seed(3))
        for kind in (_image_models.TASKS["rotate"], _image_models.TASKS["turned"])
    )
    assert torch.equal(conditional.x, alone.x)
    assert alone.context is None
    assert _image_models.TASKS["turned"](data).context_size is None


def test_the_best_linear_model(drawn):
    x = _image_training.parts(_image_training.images("digits", 8, 60))[0].x
    curve = _image_figure4.linear(x, 0.1)
    assert curve[0] == pytest.approx([np.sqrt(np.var(x, axis=0).mean()), 0])
    eigenvalues = covariance_eigenvalues(x)
    for rms, rate in curve[[50, 200, -1]]:
        assert rate == pytest.approx(of_distortion(eigenvalues, 64 * rms**2).rate)
    np.testing.assert_array_equal(drawn(figure4)[1]["linear"][0], curve[0])


def test_images_by_name(tmp_path):
    np.save(tmp_path / "squares.npy", np.random.default_rng(0).integers(0, 255, (9, 12, 12, 3), dtype=np.uint8))
    data = _image_training.images(str(tmp_path / "squares.npy"), 4)
    assert (len(data), data.image_shape) == (9, (4, 4, 3))
    assert _image_training.images("colour-digits", 16, 5).image_shape == (8, 8)  # not made larger
    assert [_image_training.task_name(name) for name in ("mnist", "mnist-rotate", "colour-mnist")] == [
        "plain",
        "rotate",
        "colour",
    ]
    assert _image_training.dim(_image_training.images("colour-digits", 8, 5), "colour") == 192


def test_images_are_shown_in_their_places():
    import matplotlib.pyplot as plt

    grey = np.zeros((1, 2, 2, 2, 1))
    grey[0, 1, 0, 1] = 0.5
    grey[0, 0] = np.nan
    _, ax = plt.subplots()
    _command.show_images(ax, grey)
    (shown,) = ax.images
    expected = np.ones((2, 5))
    expected[:, 3:] = [[0, 0.5], [0, 0]]
    np.testing.assert_allclose(np.asarray(shown.get_array())[:, :, 1], expected)
    colours = np.random.default_rng(0).random((2, 1, 3, 3, 3))
    _command.show_images(ax, colours)
    page = np.asarray(ax.images[-1].get_array())
    assert page.shape == (7, 3, 3)
    np.testing.assert_allclose(page[4:], colours[1, 0])


BAD = [
    (figure4, ["--model", "gan"], "--model wants vae, vae-nvp, convdraw separated by commas, got 'gan'"),
    (figure4, ["--data", "digits-rotate"], "--data digits-rotate has a context, which needs --model convdraw"),
    (figure3, ["--data", "digits"], "--compare wants data with a context such as mnist-rotate, got digits"),
    (figure4, ["--steps", "0"], "--steps must be at least 1, got 0"),
    (figure4, ["--kappas", "-0.1"], "kappa must be"),
    (figure4, ["--size", "6"], "image_shape must have sides that are multiples of 4"),
    (figure4, ["--n", "1"], "--n must be from 2 to 1797"),
    (figure4, ["--jobs", "0"], "--jobs must be at least 1, got 0"),
    (figure4, ["--budget", "-1"], "--budget must be a number of minutes, at least 0, got -1"),
    (figure4, ["--budget", "nan"], "--budget must be a number of minutes, at least 0, got nan"),
    (figure5, ["--noise", "0.4"], "--noise wants at least two different numbers above 0, got [0.4]"),
    (figure5, ["--data", "nowhere"], "path must be that of"),
]


@pytest.mark.parametrize(("figure", "options", "message"), BAD)
def test_bad_options(tmp_path, capsys, figure, options, message):
    assert command(figure, tmp_path, *options) == (2, None, None)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("option", ["--size=8", "--runs=x", "--budget=1", "--jobs=2", "--compare"])
def test_options_of_image_models_need_a_model(capsys, option):
    with pytest.raises(SystemExit, match="2"):
        figure3.main([option])
    assert f"{option.partition('=')[0]} needs --model" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    for family, config in _USUAL.items():  # in other processes the models are the usual ones
        monkeypatch.setitem(_image_training.IMAGE_MODELS, family, config)
    one, two = (command(figure4, tmp_path / jobs, "--jobs", jobs) for jobs in "12")
    assert one[0] == two[0] == 0
    for name, array in one[1].items():
        np.testing.assert_array_equal(two[1][name], array)
