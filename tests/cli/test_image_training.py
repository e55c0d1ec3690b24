"""The command train for models of images: what it writes and prints, and what is left after an interruption."""

import json
import signal

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.cli import main as cli

torch = pytest.importorskip("torch", reason="torch, of the extra torch, is not installed")
from constrained_vae.cli import image_training
from constrained_vae.image_models import ConvDRAW, ConvVAE, train
from constrained_vae.image_models.training import Training

DIGITS = cv.datasets.digits(60)
SMALL = {
    "vae": ["--model", "vae", "--latent", "3"],
    "vae-nvp": ["--model", "vae-nvp", "--latent", "3"],
    "convdraw": ["--model", "convdraw", "--latent", "2", "--draws", "2"],
}
KAPPA = ["--kappa", "0.2", "--per-dimension"]
OPTIONS = ["--steps", "12", "--batch-size", "16", "--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images(tmp_path):
    """A file of training and test images, as of MNIST."""
    path = tmp_path / "images.npz"
    pixels = np.rint(255 * DIGITS.x.reshape(-1, 8, 8)).astype(np.uint8)
    np.savez(path, x_train=pixels[:40], y_train=DIGITS.labels[:40], x_test=pixels[40:], y_test=DIGITS.labels[40:])
    return path


def run(data, *options):
    return cli.main(["train", str(data), *map(str, options)])


def read(path):
    return json.loads(path.read_text())


def stop_at(monkeypatch, step, stop):
    """Call a function in that step of training."""
    original = Training.step

    def step_or_stop(training):
        if training.steps == step:
            stop()
        return original(training)

    monkeypatch.setattr(Training, "step", step_or_stop)


def state(path):
    return torch.load(path, weights_only=True)["state"]


def same(a, b):
    assert a["steps"] == b["steps"]
    assert a["multipliers"] == b["multipliers"]
    assert torch.equal(a["history"].nan_to_num(), b["history"].nan_to_num())
    assert all(torch.equal(a["model"][name], values) for name, values in b["model"].items())


@pytest.mark.parametrize("model", SMALL)
def test_every_model_is_trained_and_evaluated_on_both_parts(model, images, tmp_path, capsys):
    out = tmp_path / "run.json"
    # So few steps do not meet a constraint, which is what 1 says.
    assert run(images, *SMALL[model], *KAPPA, *OPTIONS, "--out", out, "--plot", tmp_path / "run.png") == 1
    said, found = capsys.readouterr().out, read(out)
    assert said.startswith("ImageRun(Conv")
    assert f"\ntraining images: rate {found['rate']:.6g} nats" in said
    assert f"\ntest images: rate {found['test']['rate']:.6g} nats" in said
    assert (" by step)" in said) is (model == "convdraw")
    assert len(found["columns"]["kl"]) == 12
    assert (found["sigma"], found["options"]["task"]) == (0.2, "plain")
    for numbers in (found, found["test"]):
        assert sum(numbers["rates"]) == pytest.approx(numbers["rate"], rel=1e-12)
        assert numbers["per_dimension"] == pytest.approx(numbers["distortion"] / 64, rel=1e-12)
        bits = (numbers["rate"] + numbers["nll"]) / (64 * np.log(2)) + 8
        assert numbers["bits_per_dimension"] == pytest.approx(bits, rel=1e-12)
    assert found["test"]["distortion"] != found["distortion"]
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_it_is_the_model_of_the_library(images, tmp_path, capsys):
    run(images, *SMALL["convdraw"], *KAPPA, *OPTIONS, "--seed", "3", "--out", tmp_path / "run.pt")
    data = cv.datasets.load(images)
    model = ConvDRAW((1, 8, 8), latent_channels=2, steps=2, seed=3)
    constraint = cv.RE(0.2, reduction="mean")
    # At an error of kappa^2 per dimension the likelihood is best for this sigma.
    expected = train(data, constraint, model=model, sigma=0.2, steps=12, batch_size=16, seed=3, device="cpu")
    same(state(tmp_path / "run.pt"), expected.state)
    assert f"rate {expected.evaluate(data, samples=2).rate:.6g} nats" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sigma"),
    [
        (["--kappa", "1.6"], 0.2),  # in total: 1.6 / sqrt(64)
        (["--kappa", "1.6", "--sigma", "0.5"], 0.5),
        (["--beta", "2"], 1.0),
        (["--beta", "2", "--sigma", "0.5"], 0.5),
    ],
)
def test_sigma_fits_the_threshold_unless_it_is_given(options, sigma, tmp_path):
    run("digits", *SMALL["vae"], *OPTIONS[2:], "--steps", "2", *options, "--out", tmp_path / "run.pt")
    settings = json.loads(torch.load(tmp_path / "run.pt", weights_only=True)["settings"])
    assert settings["sigma"] == pytest.approx(sigma, rel=1e-15)
    assert settings["objective"] == ("geco" if "--kappa" in options else "beta")


@pytest.mark.parametrize(("task", "model", "channels"), [("rotate", "convdraw", 1), ("colour", "vae", 3)])
def test_tasks(task, model, channels, tmp_path):
    goal = ["--kappa", "0.05", "--per-dimension"]
    options = ["--task", task, *SMALL[model], *goal, *OPTIONS, "--size", "4", "--out", tmp_path / "run.pt"]
    assert run("digits", *options) == 1
    settings = json.loads(torch.load(tmp_path / "run.pt", weights_only=True)["settings"])
    assert settings["model"]["image_shape"] == [channels, 4, 4]
    assert settings["model"].get("context_size") == (5 if task == "rotate" else None)
    run("digits", *options[:-1], tmp_path / "run.json")
    assert read(tmp_path / "run.json")["test"] is None


def test_large_sets_are_evaluated_in_part(monkeypatch):
    monkeypatch.setattr(image_training, "_EVALUATED", 7)
    some = image_training._some(DIGITS)
    assert some.x.shape == (7, 64)
    assert {tuple(row) for row in some.x} < {tuple(row) for row in DIGITS.x}


def test_ctrl_c_writes_what_there_is_and_the_rest_is_the_same_to_the_bit(images, tmp_path, capsys, monkeypatch):
    options = [*SMALL["convdraw"], *KAPPA, *OPTIONS, "--out"]
    assert run(images, *options, tmp_path / "whole.pt") == 1
    with monkeypatch.context() as patch:
        stop_at(patch, 5, lambda: signal.raise_signal(signal.SIGINT))
        assert run(images, *options, tmp_path / "cut.pt") == 130
    assert 0 < state(tmp_path / "cut.pt")["steps"] < 12
    assert "this is what had been computed" in capsys.readouterr().err
    assert run(images, *options, tmp_path / "rest.pt", "--resume", tmp_path / "cut.pt") == 1
    same(state(tmp_path / "rest.pt"), state(tmp_path / "whole.pt"))


def test_the_file_is_written_on_the_way(images, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def kill():
        raise Killed

    stop_at(monkeypatch, 11, kill)
    options = [*SMALL["vae"], *KAPPA, *OPTIONS, "--checkpoint-every", "4"]
    with pytest.raises(Killed):
        run(images, *options, "--out", tmp_path / "run.pt")
    assert state(tmp_path / "run.pt")["steps"] == 8
    with pytest.raises(Killed):
        run(images, *options, "--out", tmp_path / "run.json")
    assert not (tmp_path / "run.json").exists()


def test_without_a_step_nothing_is_written(images, tmp_path, capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    stop_at(monkeypatch, 0, interrupted)
    assert run(images, *SMALL["vae"], *KAPPA, *OPTIONS, "--out", tmp_path / "run.json") == 130
    assert "before there was anything to write" in capsys.readouterr().err
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["four_clusters", "--model", "vae"], "data must be images, got DataSet('four_clusters'"),
        (["digits", "--model", "convdraw", "--device", "cuda:99"], "device must be there"),
        (["digits", "--model", "convdraw", "--device", "abacus"], "device must be 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        (["digits", "--model", "convdraw", "--batch-size", "9999"], "batch_size must be at most 1797"),
        (["digits", "--model", "vae", "--size", "6"], "sides that are multiples of 4"),
        (["digits", "--model", "vae", "--latent", "0"], "latent_dim must be a whole number"),
        (["digits", "--model", "vae", "--resume", "nowhere.pt"], "nowhere.pt: No such file"),
        (["damaged.npz", "--model", "vae"], "damaged.npz must hold"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(options, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.zeros((3, 4, 4), dtype=np.uint8)
    np.savez("damaged.npz", x_train=pixels, x_test=pixels.astype(np.int64))  # told before the training
    assert run(*options, *KAPPA, "--steps", "2", "--quiet") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert said.err.startswith("constrained-vae train: ")
    assert said.err.count("\n") == 1


def test_a_slack_constraint_is_printed_with_the_table_of_thresholds(tmp_path, capsys):
    run("digits", *SMALL["vae"], "--kappa", "9", *OPTIONS)
    assert "Thresholds(" in capsys.readouterr().out


def test_the_config_of_a_vae(capsys, tmp_path):
    run("digits", *SMALL["vae-nvp"], *KAPPA, *OPTIONS[2:], "--steps", "1", "--out", tmp_path / "run.pt")
    settings = json.loads(torch.load(tmp_path / "run.pt", weights_only=True)["settings"])
    assert settings["model"] == ConvVAE((1, 8, 8), latent_dim=3, prior="flow").config
