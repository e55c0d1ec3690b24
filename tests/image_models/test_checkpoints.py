"""Files of the state of image models: written as a whole, read without trust, refused for something else."""

from __future__ import annotations

import numpy as np
import pytest

import constrained_vae as cv

torch = pytest.importorskip("torch")
from constrained_vae.image_models import MLPVAE, ColourMnist, train

DIGITS = cv.datasets.digits(64)
RE = cv.RE(0.2, reduction="mean")


def run(constraints=RE, task=DIGITS, model=None, **options):
    small = {"steps": 10, "batch_size": 16, "device": "cpu"}
    return train(task, constraints, model=model or MLPVAE((1, 8, 8), 4, hidden=(8,)), **{**small, **options})


def half(**options):
    return run(callback=lambda step, row: step == 5, **options)


def same(a, b):
    for name, values in a.model.state_dict().items():
        assert torch.equal(values, b.model.state_dict()[name]), name
    np.testing.assert_array_equal(a.history.table, b.history.table)


def test_a_file_has_tensors_and_numbers_alone(tmp_path):
    half().save(tmp_path / "half.pt")
    held = torch.load(tmp_path / "half.pt", weights_only=True)
    assert held["kind"] == "state of training of an image model"
    assert held["state"]["steps"] == 5
    assert held["state"]["history"].shape[0] == 5
    assert [found.name for found in tmp_path.iterdir()] == ["half.pt"]


def test_checkpoints_are_written_on_the_way(tmp_path):
    path, seen = tmp_path / "state.pt", []
    whole = run(checkpoint=path, checkpoint_every=4, callback=lambda step, row: seen.append(path.exists()))
    assert seen == [False] * 3 + [True] * 7
    same(run(resume=path), whole)


def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_first_step(tmp_path):
    def never(step, row):
        raise AssertionError(step)

    with pytest.raises(OSError, match=str(tmp_path)):
        run(checkpoint=tmp_path / "nowhere" / "state.pt", callback=never)
    with pytest.raises(ValueError, match="checkpoint must be the path of a file, got 3"):
        run(checkpoint=3, callback=never)


def test_something_else_is_refused_by_name(tmp_path):
    before = half()
    before.save(tmp_path / "half.pt")
    other = cv.datasets.DataSet(x=DIGITS.x[::-1], name="other", image_shape=(8, 8))
    for options, words in (
        ({"task": other}, "other data"),
        ({"constraints": cv.RE(0.21, reduction="mean")}, "constraints"),
        ({"constraints": cv.FRE(1.0, np.eye(64))}, "constraints"),
        ({"seed": 1}, r"seed 1 \(was 0\)"),
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"clip": 1.0}, r"clip 1.0 \(was inf\)"),
        ({"every": 2}, r"every 2 \(was 1\)"),
        ({"batch_size": 8}, r"batch_size 8 \(was 16\)"),
        ({"model": MLPVAE((1, 8, 8), 4, hidden=(9,))}, r"model .*'hidden': .9.* .was .*'hidden': .8."),
        ({"model": MLPVAE((1, 8, 8), 4, hidden=(8,)).double()}, r"dtype torch.float64 \(was torch.float32\)"),
    ):
        for source, where in ((before, ""), (tmp_path / "half.pt", "half.pt")):
            with pytest.raises(
                ValueError, match=f"resume wants the data and settings of before, got {words}"
            ) as caught:
                run(**{"resume": source, **options})
            assert str(caught.value).endswith(where)
    colours = run(task=ColourMnist(DIGITS), model=MLPVAE((3, 8, 8), 4, hidden=(8,)), steps=1)
    with pytest.raises(ValueError, match=r"got task PlainImages .was ColourMnist., shape"):
        run(resume=colours)


def test_other_initial_weights_do_not_matter(tmp_path):
    """What is continued is the state; its model need not be made with the same seed."""
    same(run(resume=half(), model=MLPVAE((1, 8, 8), 4, hidden=(8,), seed=7)), run())


def test_a_run_goes_on_longer_than_was_planned():
    """Every step has the learning rate of the steps that were planned when it was made."""
    short, long = run(), run(steps=25)
    longer = run(steps=25, resume=short)
    np.testing.assert_array_equal(longer.history.table[:10], short.history.table)
    np.testing.assert_array_equal(longer.history.learning_rate[10:], long.history.learning_rate[10:])
    assert (longer.stopped, longer.settings) == ("finished", long.settings)
    same(run(steps=25, resume=run(steps=25, resume=short, callback=lambda step, row: step == 17)), longer)
    same(run(steps=5, resume=short), short)  # there is nothing to do
    assert run(steps=0).settings["steps"] == 0


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "it is no file of torch.save"),
        (b"PK\x03\x04 nothing", "it is no file of torch.save"),
        ({"kind": "cake", "format": 1}, "it is the file of a cake"),
        ({"kind": "state of training of an image model", "format": 9}, "it has format 9, this version reads format 1"),
        ([1, 2], "kind in its header must be of type str"),
        (print, "it is no file of torch.save"),  # a pickle that would call a function
    ],
)
def test_other_files_are_refused(tmp_path, contents, message):
    path = tmp_path / "other.pt"
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    else:
        torch.save(contents, path)
    with pytest.raises(
        ValueError, match=rf"other\.pt does not hold a saved state of training of an image model: {message}"
    ) as caught:
        run(resume=path)
    assert "\n" not in str(caught.value)


def test_a_part_of_a_file_is_refused(tmp_path):
    half().save(tmp_path / "half.pt")
    data = (tmp_path / "half.pt").read_bytes()
    for length in (10, len(data) // 2, len(data) - 1):
        (tmp_path / "part.pt").write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"part\.pt does not hold a saved state of training of an image model"):
            run(resume=tmp_path / "part.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model"), "model in its header must be of type dict"),
        (lambda s: s["model"].pop("centre"), "model must have the tensors .*centre"),
        (lambda s: s["model"].update(centre=torch.zeros(1, 4, 4)), r"centre must have the shape \(1, 8, 8\)"),
        (lambda s: s["model"]["centre"].mul_(np.nan), "centre must be finite"),
        (lambda s: s["model"].update(centre=s["model"]["centre"].double()), "centre must be a tensor of torch.float32"),
        (lambda s: s["adam_mean"].pop(), r"adam_mean must have \d+ tensors, got"),
        (lambda s: s["adam_square"][0].sub_(1), "adam_square must be at least 0"),
        (lambda s: s.update(history=s["history"][1:]), "history must have 5 steps"),
        (lambda s: s["history"].mul_(np.nan), "history must hold numbers"),
        (lambda s: s.update(steps=6), "history must have 6 steps"),
        (lambda s: s.update(steps=-1), "history must have"),
        (lambda s: s.update(multipliers="{}"), r"multipliers must be of \['RE'\], got \[\]"),
        (lambda s: s.update(multipliers="{"), "Expecting"),
        (lambda s: s.update(multipliers='{"RE": {}}'), r"state must be what state_dict\(\) gave"),
        (lambda s: s.update(multipliers="[1]"), "multipliers in its header must be of type dict"),
    ],
)
def test_a_damaged_state_is_refused(tmp_path, change, message):
    half().save(tmp_path / "half.pt")
    held = torch.load(tmp_path / "half.pt", weights_only=True)
    change(held["state"])
    torch.save(held, tmp_path / "changed.pt")
    with pytest.raises(ValueError, match=rf"changed\.pt does not hold a saved .*: {message}") as caught:
        run(resume=tmp_path / "changed.pt")
    assert "\n" not in str(caught.value)
