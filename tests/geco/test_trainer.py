"""geco.train: one loop for every objective, what it reports, and how it is taken up again."""

from __future__ import annotations

import json
import os
import signal
import warnings
from dataclasses import replace

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.geco import Multiplier, Ramp, natural_multiplier, train
from constrained_vae.geco.training import systematic
from tests.helpers.device import namespace as device_namespace, upload
from tests.helpers.marks import slow
from tests.helpers.mutations import with_array, with_header

DATA = cv.datasets.gaussian((4.0, 2.0, 0.5), n=32)  # 256 points, covariance exactly diag(4, 2, 0.5)
SMALL = {"latent_dim": 2, "hidden": (8,), "steps": 30, "batch_size": 32}
OBJECTIVES = {
    "geco": {"constraints": cv.RE(1.0)},
    "elbo": {"objective": "elbo", "sigma": 0.7},
    "beta": {"objective": "beta", "beta": 2.0, "constraints": cv.RE(1.0)},
    "annealed": {"objective": "annealed", "beta": Ramp(10.0, 1.0, 100)},
}


def run(constraints=None, x=DATA.x, **options):
    return train(x, constraints, **{**SMALL, **options})


def same(a, b):
    """Whether two runs are the same to the bit."""
    np.testing.assert_array_equal(a.model.parameters, b.model.parameters)
    np.testing.assert_array_equal(a.history.table, b.history.table)
    assert json.dumps(a.state[1]) == json.dumps(b.state[1])  # as text, where NaN is NaN


# --- the loop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OBJECTIVES.values(), ids=OBJECTIVES)
def test_seeds(options):
    first = run(**options)
    same(first, run(**options))
    assert (first.model.parameters != run(**options, seed=1).model.parameters).any()
    assert first.stopped == "finished"
    assert len(first.history) == 30


def test_the_first_step_by_hand():
    """Adam's first step is -rate times the sign of the gradient of KL + lambda C at the first batch.

    lambda is 1 / (2 theta) with the water level theta = 1/3, at which three components make an error of 1. The gradient
    is divided by 1 + lambda kappa^2.
    """
    start, stepped = run(cv.RE(1.0), steps=0), run(cv.RE(1.0), steps=1)
    rows = np.random.default_rng([0, 2, 0]).permutation(256)[:32]
    noise = np.random.default_rng([0, 1]).standard_normal((32, 2))
    frame, x = start.model.frame, DATA.x[rows]
    done = start.model.forward(frame.inward(x), noise)
    error = x - frame.outward(done.reconstruction)
    slopes = 1.5 * -2 * frame.scale * error / 32
    gradient = start.model.backward(done, slopes) / 2.5
    moved = stepped.model.parameters - start.model.parameters
    np.testing.assert_allclose(moved, -5e-3 * gradient / (np.abs(gradient) + 1e-8), rtol=1e-6, atol=1e-9)
    history = stepped.history
    assert history.kl[0] == pytest.approx(done.kl)
    assert history.distortion[0] == pytest.approx(np.square(error).sum(axis=1).mean())
    assert history.values["RE"][0] == pytest.approx(history.distortion[0] - 1.0)


def test_an_epoch_takes_every_point_once():
    frame = DATA.x.copy()
    seen = []
    step = cv.geco.training.Training.batch

    def recorded(self):
        seen.append(step(self))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv.geco.training.Training, "batch", recorded)
        run(cv.RE(1.0), steps=16)
    first, second = np.concatenate(seen[:8]), np.concatenate(seen[8:])
    np.testing.assert_array_equal(np.sort(first), np.arange(256))
    np.testing.assert_array_equal(np.sort(second), np.arange(256))
    assert (first != second).any()
    np.testing.assert_array_equal(DATA.x, frame)


def test_what_is_written_down():
    both = [cv.RE(1.0), cv.FRE(0.5, np.eye(3)[:1])]
    history = run(both, sigma=0.5).history
    assert set(history.multipliers) == set(history.values) == set(history.averages) == {"RE", "FRE"}
    assert {len(values) for values in history.bounds.values()} == {30}
    np.testing.assert_allclose(history.values["RE"], history.distortion - 1, rtol=1e-12)
    np.testing.assert_allclose(history.per_dimension, history.distortion / 3)
    np.testing.assert_allclose(history.nll, 2 * history.distortion + 1.5 * np.log(2 * np.pi * 0.25), rtol=1e-12)
    np.testing.assert_allclose(history.equivalent_beta, 2 / history.multipliers["RE"], rtol=1e-12)
    np.testing.assert_allclose(history.learning_rate, 5e-3 / (1 + np.arange(30) / 6000) ** 2)
    assert len(history.tail()) == 3
    assert len(history[10:]) == 20
    history = run(**OBJECTIVES["annealed"]).history
    np.testing.assert_allclose(history.equivalent_beta, [Ramp(10.0, 1.0, 100)(t) for t in range(30)])
    np.testing.assert_allclose(history.multipliers["ELBO"], 1 / (2 * history.equivalent_beta))
    assert np.isnan(run(cv.FRE(0.5, np.eye(3)[:1])).history.equivalent_beta).all()


def test_lambda_follows_the_averages():
    """The multiplier of the trainer is the one of the algorithm, fed with the batch means."""
    found = run(cv.RE(1.0), steps=300)
    by_hand = Multiplier(1.0, initial=natural_multiplier(DATA.x, cv.RE(1.0)))
    for c, lam, average in zip(
        found.history.values["RE"], found.history.multipliers["RE"], found.history.averages["RE"], strict=True
    ):
        assert lam == by_hand.value
        by_hand.penalty(c + 1.0)
        assert average == pytest.approx(by_hand.average, rel=1e-12, nan_ok=True)
        by_hand.load_state_dict({**by_hand.state_dict(), "average": average})
        by_hand.step()
    assert found.history.multipliers["RE"][-1] != by_hand.initial


def test_mean_and_sum_are_units():
    """The mean over D with nu D, lambda_0 D and scaled bounds trains the same model, to rounding."""
    settings = {"step_size": 1e-3, "bounds": (0.5, 30.0), "burn_in": 5}
    of_sum = {"RE": Multiplier(1.0, **settings)}
    of_mean = {"RE": Multiplier(1 / 3, initial=3.0, step_size=3e-3, bounds=(1.5, 90.0), burn_in=5)}
    one = run(cv.RE(1.0), multipliers=of_sum, steps=200)
    other = run(cv.RE(np.sqrt(1 / 3), reduction="mean"), multipliers=of_mean, steps=200)
    np.testing.assert_allclose(other.history.multipliers["RE"] / 3, one.history.multipliers["RE"], rtol=1e-7)
    np.testing.assert_allclose(other.model.parameters, one.model.parameters, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(other.history.equivalent_beta, one.history.equivalent_beta, rtol=1e-7)
    assert of_sum["RE"].value == 1.0  # given multipliers are not touched


def in_another_unit(scale, offset=0.0, reduction="sum", steps=1000):
    """The run of DATA in another unit; its numbers that have a unit are in the unit of DATA again."""
    kappa = scale * (1.0 if reduction == "sum" else 1 / np.sqrt(3))
    found = run(cv.RE(kappa, reduction=reduction), x=scale * DATA.x + offset, steps=steps)
    per = scale**2 if reduction == "sum" else scale**2 / 3
    history = found.history
    numbers = [history.kl, history.multipliers["RE"] * per, history.averages["RE"] / per, history.distortion / scale**2]
    return np.array(numbers), found


@pytest.mark.parametrize("power", [-30, slow(-4), slow(1), 30])
def test_a_power_of_two_as_unit_gives_the_same_bits(power):
    (plain, one), (scaled, other) = in_another_unit(1.0), in_another_unit(2.0**power)
    np.testing.assert_array_equal(scaled, plain)
    np.testing.assert_array_equal(other.model.parameters, one.model.parameters)
    assert other.report["RE"].status == one.report["RE"].status


@pytest.mark.parametrize(
    "unit",
    [slow({"scale": 1e-3}), slow({"scale": 30.0}), {"scale": 1e3, "offset": 5e4}, {"reduction": "mean"}],
    ids=str,
)
def test_unit_origin_and_reduction_do_not_change_the_trajectory(unit):
    """To 1e-9 after 1000 steps, from roundings of 1e-15 (of the offset: 1e-14) at the start."""
    (plain, _), (other, _) = in_another_unit(1.0), in_another_unit(**{"scale": 1.0, **unit})
    np.testing.assert_allclose(other, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("factor", [1e3, slow(1e-3)])
def test_a_start_a_thousand_off_comes_back(factor):
    """Adam does not keep the network where a larger lambda has put it: lambda* = 1.25 of section 5, within 5 %."""
    start = Multiplier(1.2, initial=1.25 * factor, bounds=(1e-8, 1e8))
    x = cv.datasets.gaussian((4.0, 2.0, 0.5)).x
    found = train(x, cv.RE.from_squared_error(1.2), latent_dim=3, hidden=(), steps=4000, multipliers={"RE": start})
    assert found.multipliers["RE"] == pytest.approx(1.25, rel=0.05)
    assert found.report["RE"].status == "met"


def test_points_of_weight_two_are_points_twice():
    """Frame, start and batches: every draw of an epoch is one of the repeated points as often."""
    counts = np.arange(256) % 3
    found = run(cv.RE(1.0), weights=counts, steps=0)
    repeated = run(cv.RE(1.0), x=np.repeat(DATA.x, counts, axis=0), steps=0)
    np.testing.assert_allclose(found.model.frame.centre, repeated.model.frame.centre, atol=1e-12)
    assert found.model.frame.scale == pytest.approx(repeated.model.frame.scale, rel=1e-12)
    expected = 256 * counts / counts.sum()
    drawn = np.array(
        [np.bincount(systematic(counts / counts.sum(), u), minlength=256) for u in np.linspace(0, 0.99, 100)]
    )
    assert (np.abs(drawn - expected) < 1).all()
    np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=0.02)  # a hundred starts: to a hundredth, twice
    np.testing.assert_array_equal(systematic(np.full(7, 1 / 7), 0.3), np.arange(7))


def test_weights_are_learned_from_and_belong_to_the_settings():
    """Points without weight are not seen: the error on the others is what kappa allows."""
    x = np.concatenate([DATA.x, 50 + DATA.x])
    weights = np.repeat([1.0, 0.0], 256)
    found = run(cv.RE(1.0), x=x, weights=weights)
    alone = run(cv.RE(1.0))
    np.testing.assert_allclose(found.model.frame.centre, alone.model.frame.centre, atol=1e-12)
    assert found.history.multipliers["RE"][0] == pytest.approx(1.5, rel=1e-9)
    assert found.history.distortion.max() < 20
    same(run(cv.RE(1.0), x=x, weights=2 * weights, steps=30, resume=found), found)
    seen, other = found.evaluation, found.evaluate(x)  # the second one is of data that may be others
    assert seen.distortion == found.evaluate(weights=weights).distortion != other.distortion
    assert other.distortion == found.evaluate(weights=np.ones(512)).distortion
    with pytest.raises(ValueError, match="resume wants the data and settings of before, got other weights"):
        run(cv.RE(1.0), x=x, resume=found)


def test_one_threshold():
    with pytest.raises(
        ValueError, match=r"thresholds of their constraints, 1 for RE, got 2\.25: change kappa, or give Mu"
    ):
        run(cv.RE(1.0), multipliers={"RE": Multiplier(2.25)})
    exact = np.nextafter(1.0, 2.0)
    run(cv.RE(1.0), multipliers={"RE": Multiplier(exact)}, steps=1)  # the same but for rounding
    found = run(cv.RE(1.0), multipliers={"RE": Multiplier(Ramp(8.0, 4.0, 20))}, steps=100)
    assert found.report["RE"].threshold == 1.0
    assert found.report["RE"].status == "not met"
    assert found.report["RE"].value == pytest.approx(found.history.tail().distortion.mean(), rel=1e-12)


def test_schedules_for_kappa():
    found = run(cv.RE(1.0), multipliers={"RE": Multiplier(Ramp(4.0, 1.0, 20))})
    np.testing.assert_allclose(
        found.history.distortion - found.history.values["RE"], [Ramp(4.0, 1.0, 20)(t) for t in range(30)]
    )
    assert found.report["RE"].threshold == 1.0


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", OBJECTIVES.values(), ids=OBJECTIVES)
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_a_hundred_and_a_hundred_are_two_hundred(options, likelihood, tmp_path):
    options = {**options, "likelihood": likelihood, "x": np.clip(0.5 + DATA.x / 4, 0, 1)}
    if "constraints" in options:
        options["constraints"] = cv.RE(0.3)
    whole, half = run(**options, steps=200), run(**options, steps=100)
    same(run(**options, steps=200, resume=half), whole)
    half.save(tmp_path / "half.npz")
    same(run(**options, steps=200, resume=tmp_path / "half.npz"), whole)
    assert len(half.history) == 100
    same(run(**options, steps=100, resume=half), half)


def test_checkpoints_are_written_on_the_way(tmp_path):
    path, seen = tmp_path / "state.npz", []
    options = {"constraints": cv.RE(1.0), "checkpoint": path, "checkpoint_every": 10}
    whole = run(**options, callback=lambda step, row: seen.append(path.exists()))
    assert seen == [False] * 9 + [True] * 21
    same(run(cv.RE(1.0), resume=path), whole)
    assert [found.name for found in tmp_path.iterdir()] == ["state.npz"]


@pytest.mark.parametrize("where", ["nowhere/state.npz", "."])
def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_first_step(tmp_path, where):
    def never(step, row):
        raise AssertionError(step)

    with pytest.raises(OSError, match=str(tmp_path)):
        run(cv.RE(1.0), checkpoint=tmp_path / where, callback=never)
    with pytest.raises(ValueError, match=r"checkpoint must be the path of a file, got 3"):
        run(cv.RE(1.0), checkpoint=3, callback=never)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_checkpoint_that_fails_does_not_end_training(tmp_path, comes_back):
    folder = tmp_path / "folder"
    folder.mkdir()

    def change(step, row):
        if step == 5:
            folder.rmdir()
        if step == 25 and comes_back:
            folder.mkdir()

    with pytest.warns(UserWarning, match="checkpoint of step") as warned:
        found = run(cv.RE(1.0), checkpoint=folder / "state.npz", checkpoint_every=10, callback=change)
    same(found, run(cv.RE(1.0)))
    first, *last = (str(warning.message) for warning in warned)
    assert first.startswith("the checkpoint of step 10 was not written ([Errno 2] No such file or directory: '")
    assert first.endswith("; training goes on")
    assert {warning.filename for warning in warned} == {__file__}
    if comes_back:
        assert last == []
        same(run(cv.RE(1.0), resume=folder / "state.npz"), found)
    else:
        (text,) = last
        assert text.startswith("the checkpoint of step 30 was not written")
        assert text.endswith("the result has the state all the same: save it elsewhere")


def test_trainings_with_one_checkpoint_do_not_meet(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    options = {"checkpoint": tmp_path / "state.npz", "checkpoint_every": 1}
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, cv.RE(1.0), seed=seed, **options) for seed in range(2)]
    for seed, found in enumerate(runs):
        same(found.result(), run(cv.RE(1.0), seed=seed))
    assert os.listdir(tmp_path) == ["state.npz"]


def test_interrupted_runs_give_what_there_is():
    def interrupt(step, row):
        if step == 12:
            os.kill(os.getpid(), signal.SIGINT)

    half = run(cv.RE(1.0), callback=interrupt)
    assert half.stopped == f"interrupted at step {len(half.history)}"
    assert len(half.history) in (12, 13)
    same(run(cv.RE(1.0), resume=half), run(cv.RE(1.0)))


def test_ctrl_c_waits_for_the_end_of_a_step(monkeypatch):
    backward = cv.geco.VAE.backward
    calls = []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return backward(*arguments, **options)

    monkeypatch.setattr(cv.geco.VAE, "backward", interrupted)
    half = run(cv.RE(1.0))
    assert len(half.history) == 7
    same(run(cv.RE(1.0), resume=half), run(cv.RE(1.0)))


def test_runs_train_in_threads_and_beside_other_handlers():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(run, cv.RE(1.0)).result()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        same(run(cv.RE(1.0)), there)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_callback_sees_every_step_and_stops():
    seen = []

    def look(step, row):
        seen.append((step, row["kl"], row["multiplier RE"]))
        return step == 8

    found = run(cv.RE(1.0), callback=look)
    assert found.stopped == "stopped by the callback at step 8"
    assert [kl for _, kl, _ in seen] == found.history.kl.tolist()
    assert [step for step, *_ in seen] == list(range(1, 9))


def test_resuming_something_else(tmp_path):
    half = run(cv.RE(1.0), steps=5)
    with pytest.raises(ValueError, match=r"resume wants the data and settings of before, got seed 1 \(was 0\)"):
        run(cv.RE(1.0), seed=1, resume=half)
    for options in ({"constraints": cv.RE(1.1)}, {"hidden": (9,)}, {"x": DATA.x + 1}, {"learning_rate": 1.0}):
        with pytest.raises(ValueError, match="resume wants the data"):
            run(**{"constraints": cv.RE(1.0), "resume": half, **options})
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match="does not hold a saved state of training"):
        run(cv.RE(1.0), resume=tmp_path / "other.npz")


def test_contents_of_data_and_constraints_belong_to_the_settings(tmp_path):
    """A matrix, labels, a classifier or the order of the rows: what prints alike is not the same."""
    labels = (DATA.x[:, 0] > 0).astype(int)
    one, other = (cv.ClassProbabilities(slope * np.eye(2, 3), np.zeros(2)) for slope in (1.0, 2.0))
    swapped = DATA.x[[1, 0, *range(2, len(DATA.x))]]
    for before, after, words in (
        ({"constraints": cv.FRE(1.0, np.eye(3))}, {"constraints": cv.FRE(1.0, 2 * np.eye(3))}, "other arrays"),
        ({"constraints": cv.CLA(0.5, one, labels)}, {"constraints": cv.CLA(0.5, one, 1 - labels)}, "other arrays"),
        ({"constraints": cv.CLA(0.5, one, labels)}, {"constraints": cv.CLA(0.5, other, labels)}, "other arrays"),
        ({"constraints": cv.RE(1.0)}, {"constraints": cv.RE(1.0), "x": swapped}, "other data"),
    ):
        half = run(**before, steps=5)
        half.save(tmp_path / "half.npz")
        for source in (half, tmp_path / "half.npz"):
            with pytest.raises(ValueError, match=f"resume wants the data and settings of before, got {words}"):
                run(**after, resume=source)
        same(run(**before, resume=tmp_path / "half.npz"), run(**before))


def test_a_damaged_state_is_refused_before_anything_changes(tmp_path):
    half = run(cv.RE(1.0), steps=5)
    half.save(tmp_path / "half")
    data = (tmp_path / "half").read_bytes()
    for name, change, message in (
        ("parameters", lambda a: a[:1], "parameters must have the shape"),
        ("parameters", lambda a: a * np.nan, "parameters must be finite"),
        ("parameters", np.float32, "parameters must be of type float64, got float32"),
        ("adam_mean", lambda a: np.append(a, 0.0), "adam_mean must have the shape"),
        ("adam_square", lambda a: a - 1, "adam_square must be at least 0"),
        ("history", lambda a: a[1:], "history must have 5 steps of 9 numbers, got"),
        ("history", lambda a: -a, "history must hold positive multipliers"),
        ("history", lambda a: a * np.nan, "history must hold numbers, got NaN"),
    ):
        (tmp_path / "changed").write_bytes(with_array(data, name, change))
        with pytest.raises(ValueError, match=f"changed does not hold a saved state of training: {message}"):
            run(cv.RE(1.0), resume=tmp_path / "changed")
    for change, message in (
        ({"steps": 6}, "history must have 6 steps"),
        ({"steps": -1}, "history must have -1 steps"),
        ({"steps": "5"}, "steps in its header must be of type int"),
        ({"multipliers": {}}, r"multipliers must be of \['RE'\], got \[\]"),
        ({"multipliers": {"RE": {}}}, r"state must be what state_dict\(\) gave"),
        ({"rng": {}}, "rng must be the state of the random generator"),
        ({"rng": half.state[1]["rng"] | {"uinteger": -1}}, "rng must be the state of the random generator"),
    ):
        (tmp_path / "changed").write_bytes(with_header(data, lambda header, more=change: header["state"].update(more)))
        with pytest.raises(ValueError, match=f"changed does not hold a saved state of training: {message}"):
            run(cv.RE(1.0), resume=tmp_path / "changed")
    early = half.state[1]["multipliers"]["RE"] | {"steps": 4}
    broken = replace(half, state=(half.state[0], half.state[1] | {"multipliers": {"RE": early}}))
    with pytest.raises(
        ValueError, match="resume does not hold a saved state of training: the multiplier of RE must have 5"
    ):
        run(cv.RE(1.0), resume=broken)


def test_a_number_that_is_not_finite_stops_and_keeps_the_last_good_state():
    with pytest.warns(cv.NotConvergedWarning, match=r"not finite at step \d+: .* is not finite"):
        found = run(cv.RE(1.0), learning_rate=1e200)
    assert found.stopped.startswith(f"not finite at step {len(found.history)}: ")
    assert np.isfinite(found.model.parameters).all()
    assert np.isfinite(found.history.column("kl")).all()
    same(run(cv.RE(1.0), learning_rate=1e200, steps=len(found.history)), found)


def test_a_gradient_that_is_not_finite_is_never_taken():
    calls = []

    def product(x, df):
        calls.append(len(x))
        return df * (np.nan if len(calls) > 20 else 1.0)

    with pytest.warns(cv.NotConvergedWarning, match="the gradient is not finite; the model is that of the step before"):
        found = run([cv.RE(1.0), cv.FRE(1.0, cv.Features(lambda x: 1.0 * x, product))])
    assert 5 < len(found.history) < 20
    assert np.isfinite(found.model.parameters).all()
    assert found.state[1]["multipliers"]["FRE"]["steps"] == len(found.history)


def test_evaluation_moves_nothing():
    half = run(cv.RE(1.0), steps=100)
    before = {name: array.copy() for name, array in half.state[0].items()}, str(half.state[1])
    half.evaluate()
    half.evaluate(DATA.x[:50], samples=3, seed=4)
    half.model.sample(10)
    np.random.default_rng(0)
    for name, array in half.state[0].items():
        np.testing.assert_array_equal(array, before[0][name])
    assert str(half.state[1]) == before[1]
    same(run(cv.RE(1.0), steps=200, resume=half), run(cv.RE(1.0), steps=200))


def test_progress_shows_distortion_kl_and_lambda(capsys):
    run(cv.RE(1.0), steps=50, progress=True)
    shown = capsys.readouterr().err
    assert all(f"{name}=" in shown for name in ("D", "KL", "RE"))


# --- elsewhere -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("dtype", [None, np.float32])
def test_arrays_of_a_device(likelihood, dtype, tmp_path):
    """On a stand-in that refuses what CuPy refuses the bits are those of the host, checkpoints included."""
    x = cv.datasets.digits(40).x[:, 20:24]
    options = {**SMALL, "likelihood": likelihood, "dtype": dtype, "activation": "gelu", "steps": 20}
    both = [cv.RE(0.2, reduction="mean"), cv.FRE(0.2, cv.FourierFeatures.random(4, 8))]
    here, there = train(x, both, **options), train(upload(x), both, **options)
    assert there.model.parameters.__array_namespace__() is device_namespace
    np.testing.assert_array_equal(there.model.parameters.get(), here.model.parameters)
    np.testing.assert_array_equal(there.history.table, here.history.table)
    there.save(tmp_path / "state.npz")
    same(
        train(x, both, **{**options, "steps": 30}, resume=tmp_path / "state.npz"),
        train(x, both, **{**options, "steps": 30}),
    )
    assert repr(there.evaluate()) == repr(here.evaluate())
    elbo = {**options, "objective": "elbo"}
    np.testing.assert_array_equal(train(upload(x), **elbo).model.parameters.get(), train(x, **elbo).model.parameters)


@pytest.mark.gpu
def test_arrays_of_cupy():
    import cupy

    here, there = run(cv.RE(1.0)), run(cv.RE(1.0), x=cupy.asarray(DATA.x))
    # Sums of another order, thirty steps of Adam, which magnifies rounding where a gradient is near zero.
    np.testing.assert_allclose(there.model.parameters.get(), here.model.parameters, atol=1e-6)
    np.testing.assert_allclose(there.history.kl, here.history.kl, rtol=1e-6)


# --- what is refused, and warned of ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 257}, "batch_size must be at most 256, the number of points, got 257"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"constraints": None}, "objective='geco' wants constraints such as RE"),
        ({"constraints": [cv.RE(1.0), cv.RE(2.0)]}, "constraints must have names of their own"),
        ({"constraints": 1.0}, "constraints must be an instance of Constraint"),
        ({"objective": "vae"}, "objective must be one of"),
        ({"objective": "beta"}, "beta belongs to the objectives 'beta' and 'annealed', got beta=None for 'beta'"),
        ({"beta": 2.0}, "beta belongs to the objectives 'beta' and 'annealed', got beta=2.0 for 'geco'"),
        ({"objective": "annealed", "beta": 2.0}, "beta of an annealed objective must be an instance of Ramp"),
        ({"objective": "beta", "beta": Ramp(2.0, 1.0, 5)}, "wants objective='annealed'"),
        ({"objective": "beta", "beta": -1.0}, "beta must be positive"),
        (
            {"multipliers": {"FRE": Multiplier(1.0)}},
            r"multipliers must be named like constraints, \['RE'\], got \['FRE'\]",
        ),
        (
            {"objective": "elbo", "multipliers": {"RE": Multiplier(1.0)}},
            "with objective='geco' alone, got 'elbo'",
        ),
        ({"multipliers": {"RE": 1.0}}, "multipliers must be an instance of Multiplier"),
        ({"likelihood": "bernoulli"}, r"the Bernoulli likelihood wants data in \[0, 1\]"),
        ({"likelihood": "poisson"}, "take solve, sweep or rate_distortion"),
        ({"activation": "sine"}, "activation must be one of"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"steps": -1}, "steps"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"seed": -1}, "seed"),
        ({"dtype": np.int64}, "dtype must be float64 or float32"),
        ({"callback": 3}, "callback must be callable"),
        ({"x": [[np.nan, 1.0]]}, "x must be finite"),
        ({"constraints": cv.PNCC(0.5, (2, 2), 2)}, "wants 4 values in every row of x"),
        ({"constraints": cv.CLA(0.5, cv.ClassProbabilities(np.ones((2, 3)), np.ones(2)), [0, 1])}, "2 labels for 256"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        run(**{"constraints": cv.RE(1.0), **options})


@pytest.mark.parametrize(
    ("constraint", "hidden", "message"),
    [
        (cv.RE(2.6), (8,), r"kappa\^2 = 6.76 \(total\) is at least the variance 6.5 of the data.*right unit"),
        (cv.RE(1.5, reduction="mean"), (8,), r"kappa\^2 = 2.25 \(mean per dimension\) is at least the variance 2.167"),
        (cv.RE(0.6), (8,), r"is below 0.5, the least that a linear code of 2 dimensions has, so that it may be out"),
        (cv.RE(0.6), (), "so that it cannot be reached"),
        (cv.RE(0.6), (1, 8), r"is below 2.5, the least that reconstructions in 1 dimensions have"),
    ],
)
def test_thresholds_of_a_wrong_unit_are_warned_of(constraint, hidden, message):
    with pytest.warns(UserWarning, match=message):
        run(constraint, hidden=hidden, steps=1)


def test_default_layers_reach_what_the_code_reaches():
    """Both layers are as wide as the mean and log sigma of a code, 64 at least."""
    assert train(DATA.x, cv.RE(1.0), latent_dim=3, steps=0).model.hidden == (64, 64)
    wide = train(DATA.x, cv.RE(1.0), latent_dim=100, steps=0)
    assert wide.model.hidden == (200, 200)
    assert wide.settings["learning_rate"] == 0.025 / 200**0.5


def test_a_threshold_within_reach_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(cv.RE(1.0), steps=1)
