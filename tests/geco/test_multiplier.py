"""Algorithm 1 (T20): what the multiplier does at every step, and how its step size finds itself."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from constrained_vae.geco import Multiplier, Ramp


def drive(multiplier, energies):
    """Penalties and multipliers of a sequence of batch means."""
    penalties, values = [], []
    for energy in energies:
        penalties.append(multiplier.penalty(energy))
        multiplier.step()
        values.append(multiplier.value)
    return penalties, values


def test_the_algorithm_by_hand(rng):
    """lambda <- lambda exp(nu C_ma), C_ma from the first value at t = 0; the penalty has the value lambda C_ma."""
    energies, alpha, nu, kappa_squared = rng.uniform(0, 3, 50), 0.9, 0.05, 1.2
    multiplier = Multiplier(kappa_squared, initial=1.0, averaging=alpha, step_size=nu, burn_in=0)
    penalties, values = drive(multiplier, energies)
    lam, average = 1.0, None
    for energy, penalty, value in zip(energies, penalties, values, strict=True):
        c = energy - kappa_squared
        average = c if average is None else alpha * average + (1 - alpha) * c
        assert penalty == pytest.approx(lam * average, rel=1e-12, abs=1e-15)
        lam *= math.exp(nu * average)
        assert value == pytest.approx(lam, rel=1e-12)
    assert multiplier.average == pytest.approx(average, rel=1e-12)


class Dual:
    """A number with a derivative: all that a library's scalar needs for the penalty."""

    def __init__(self, value, slope):
        self.value, self.slope = value, slope

    def __float__(self):
        assert not self.slope, "read with its gradient"
        return self.value

    def detach(self):
        return Dual(self.value, 0.0)

    def __add__(self, other):
        return Dual(self.value + other, self.slope)

    def __rmul__(self, other):
        return Dual(self.value * other, self.slope * other)


def test_the_value_is_that_of_the_average_and_the_gradient_that_of_the_batch():
    multiplier = Multiplier(1.0, initial=3.0, step_size=0.0, burn_in=0)
    multiplier.penalty(2.0)
    multiplier.step()
    found = multiplier.penalty(Dual(6.0, 0.7))
    assert found.slope == pytest.approx(3.0 * 0.7, rel=1e-15)
    assert found.value == pytest.approx(3.0 * (0.99 * 1.0 + 0.01 * 5.0), rel=1e-14)


def test_scalar_arrays_pass():
    multiplier = Multiplier(1.0, burn_in=0)
    found = multiplier.penalty(np.array(2.0, dtype=np.float32))
    assert float(found) == 1.0


def test_a_constraint_that_is_met_leaves_lambda_alone():
    for nu in (None, 0.3):
        multiplier = Multiplier(0.75, initial=0.7, step_size=nu, burn_in=0)
        _, values = drive(multiplier, [0.75] * 20)
        assert set(values) == {0.7}


def test_nothing_moves_before_the_end_of_the_burn_in():
    multiplier = Multiplier(1.0, step_size=0.1, burn_in=3)
    penalties, values = drive(multiplier, [9.0, 8.0, 7.0, 2.0])
    assert penalties == pytest.approx([8.0, 7.0, 6.0, 1.0])  # raw batches, then the average from its first value
    assert values == pytest.approx([1.0, 1.0, 1.0, math.exp(0.1)])
    assert Multiplier(1.0).burn_in == 100


def test_bounds_hold_without_windup():
    multiplier = Multiplier(1.0, averaging=0.5, step_size=0.5, burn_in=0, bounds=(0.5, 4.0))
    _, values = drive(multiplier, [11.0] * 30)
    assert values[-1] == pytest.approx(4.0, rel=1e-15)
    assert multiplier.hit == 1
    drive(multiplier, [0.0] * 3)  # C_ma turns negative at the fourth: 10/16 - 15/16 < 0
    assert multiplier.hit == 1
    drive(multiplier, [0.0])
    assert multiplier.value < 4.0
    assert multiplier.hit == 0
    drive(multiplier, [0.0] * 30)
    assert (multiplier.value, multiplier.hit) == (pytest.approx(0.5), -1)


def test_bounds_by_default_are_costs_in_nats():
    assert Multiplier(4.0).bounds == (0.25e-6, 0.25e4)
    assert Multiplier(-4.0, step_size=1.0).bounds == (0.25e-6, 0.25e4)
    assert Multiplier(0.0).bounds == (1e-6, 1e4)
    assert Multiplier(0.0, initial=8.0).bounds == (8e-6, 8e4)
    assert Multiplier(1e-8, initial=1.0).bounds == (1.0, 1e12)


def test_frozen_lambda_stays_and_the_average_goes_on():
    multiplier = Multiplier(1.0, step_size=0.1, burn_in=0)
    multiplier.freeze()
    drive(multiplier, [3.0, 3.0])
    assert (multiplier.value, multiplier.average, multiplier.frozen) == (1.0, 2.0, True)
    multiplier.freeze(False)
    drive(multiplier, [3.0])
    assert multiplier.value == pytest.approx(math.exp(0.2))


def test_thresholds_move():
    ramp = Ramp(4.0, 1.0, steps=2)
    multiplier = Multiplier(ramp, initial=1.0, averaging=0.0, step_size=1.0, burn_in=0)
    _, values = drive(multiplier, [4.0, 2.0, 1.0, 1.0])
    assert values == pytest.approx([1.0] * 4)
    assert [ramp(t) for t in (0, 1, 2, 99)] == [4.0, 2.0, 1.0, 1.0]
    assert [multiplier.threshold_at(t) for t in (0, 2)] == [4.0, 1.0]


def test_a_state_goes_on_to_the_bit(rng):
    energies = rng.gamma(4.0, 0.3, 400)
    whole, first = Multiplier(1.0), Multiplier(1.0)
    drive(whole, energies)
    drive(first, energies[:200])
    second = Multiplier(1.0)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    copied = first.copy()
    drive(second, energies[200:])
    assert second.state_dict() == whole.state_dict()
    assert copied.state_dict() == first.state_dict() != whole.state_dict()
    with pytest.raises(ValueError, match="state must be what state_dict"):
        second.load_state_dict({"lambda": 1.0})


@pytest.mark.parametrize("begun", [False, True])
def test_a_state_that_training_cannot_give_is_refused_and_changes_nothing(begun):
    multiplier = Multiplier(1.0, burn_in=3)
    drive(multiplier, [1.0] * (10 if begun else 2))
    state = multiplier.state_dict()
    changes = {
        "log_ratio": [math.nan, 100.0, "0", 0],
        "average": [math.nan if begun else 0.5, math.inf, None],
        "log_energy": [math.nan if begun else 0.5],
        "share": [1.0, -0.5],
        "steps": [-1, 1.0, True],
        "hit": [2, -2, 0.0],
        "frozen": [0, None],
        "noise": [-1.0, math.nan],
        "variance": [-1e-9],
        "covariance": [math.inf],
    }
    for name, values in changes.items():
        for value in values:
            with pytest.raises(ValueError, match=r"state must be what state_dict\(\) gave, got ") as caught:
                multiplier.load_state_dict({**state, name: value})
            # All moving averages begin together; where one is alone, the message may name another.
            assert name in str(caught.value) or name == "average"
    for other in (None, {}, {**state, "more": 1.0}, {k: v for k, v in state.items() if k != "noise"}):
        with pytest.raises(
            ValueError, match=r"state must be what state_dict\(\) gave, with the names version, settings, "
        ):
            multiplier.load_state_dict(other)
    assert str(multiplier.state_dict()) == str(state)
    for hit in (-1, 0, 1):
        multiplier.load_state_dict({**state, "hit": hit})


def test_a_scheduled_threshold_begins_with_that_of_step_zero():
    """The default initial multiplier and the check of its size are of step 0, not of a later one."""
    assert Multiplier(Ramp(2.0, 1.0, 5)).initial == Multiplier(2.0).initial
    with pytest.raises(ValueError, match="threshold must be 0 or at least 1e-300 in size"):
        Multiplier(lambda step: 1e-305 if step == 0 else 1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 2.0},
        {"threshold": 1.0, "initial": 2.0},
        {"threshold": 1.0, "bounds": (0.1, 5.0)},
        {"threshold": 1.0, "step_size": 0.1},
        {"threshold": Ramp(2.0, 1.0, 5), "initial": 1.0},
    ],
)
def test_a_state_of_other_settings_or_another_version_is_refused(options):
    multiplier, other = Multiplier(1.0), Multiplier(**options)
    with pytest.raises(ValueError, match=r"state must be of a multiplier with settings \{'threshold': 1.0, "):
        multiplier.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="state must be of a multiplier with version 2, got 1"):
        multiplier.load_state_dict({**multiplier.state_dict(), "version": 1})


def test_the_representation_shows_lambda():
    multiplier = Multiplier(4.0, burn_in=0)
    assert repr(multiplier).startswith("Multiplier(lambda 0.25 at step 0; threshold=4.0, initial=0.25, averaging=0.99")
    drive(multiplier, [8.0] * 3)
    assert f"lambda {multiplier.value:.6g} at step 3" in repr(multiplier)


@pytest.mark.parametrize("nu", [None, 0.1])
def test_a_cost_is_a_value_that_moves_nothing(nu):
    multiplier = Multiplier(2.0, initial=3.0, step_size=nu, burn_in=1)
    drive(multiplier, [4.0] * 3)
    before = str(multiplier.state_dict())
    assert multiplier.cost(5.0) == multiplier.value * 3.0
    assert multiplier.cost(Dual(5.0, 0.5)).slope == multiplier.value * 0.5
    assert str(multiplier.state_dict()) == before
    assert multiplier.cost(5.0) != multiplier.penalty(5.0)  # which has the value of the average


def test_micro_batches_are_one_batch(rng):
    """Dyadic shares and energies: every state after a whole batch is that of its mean, to the bit."""
    energies = rng.integers(1, 2**10, (50, 4)) / 2**8
    whole, parts = Multiplier(1.5, burn_in=3), Multiplier(1.5, burn_in=3)
    for row in energies:
        for energy, share in zip(row, (0.25, 0.5, 0.125, 0.125), strict=True):
            parts.penalty(energy, weight=share)
            parts.step()  # within a batch lambda stays
        whole.penalty(row @ (0.25, 0.5, 0.125, 0.125))
        whole.step()
        parts_state, whole_state = parts.state_dict(), whole.state_dict()
        assert str(parts_state) == str(whole_state)
    with pytest.raises(ValueError, match=r"weight must be above 0 and at most 1, got 1\.5"):
        parts.observe(1.0, weight=1.5)
    parts.observe(1.0, weight=0.75)
    with pytest.raises(ValueError, match=r"weight must be above 0 and at most 0\.25, got 0\.5"):
        parts.observe(1.0, weight=0.5)


@pytest.mark.parametrize("energy", [np.ones(3), [1.0, 2.0], np.ones((1, 1))])
def test_energies_of_rows_are_refused(energy):
    multiplier = Multiplier(1.0)
    for call in (multiplier.penalty, multiplier.observe, multiplier.cost):
        with pytest.raises(
            ValueError, match=r"energy at step 0 must be one number, got .*: take the mean over the batch"
        ):
            call(energy)


def test_signed_energies_with_a_step_size():
    """-log p of continuous data is negative; the law of the paper takes any threshold."""
    multiplier = Multiplier(-3.0, initial=1.0, step_size=0.1, averaging=0.0, burn_in=0)
    _, values = drive(multiplier, [-1.0, -4.0])
    assert values == pytest.approx([math.exp(0.2), math.exp(0.1)], rel=1e-15)
    with pytest.raises(ValueError, match="threshold must be finite and at least 0 where no step_size is given, got -3"):
        Multiplier(-3.0)


def test_the_law_without_units_by_hand(rng):
    """log lambda changes by nu C_ma / E_ma above the threshold, by nu log(E_ma / threshold) below, from 1/100 on."""
    multiplier = Multiplier(2.0, initial=3.0, burn_in=0, averaging=0.9, bounds=(1e-9, 1e9))
    average, lam = None, 3.0
    for energy in [*rng.uniform(0, 5, 30), *[0.0] * 100, *[1e4] * 100]:
        multiplier.penalty(energy)
        average = energy if average is None else 0.9 * average + 0.1 * energy
        lam *= math.exp(multiplier.nu * (1 - 2 / average if average > 2 else math.log(max(average / 2, 0.01))))
        multiplier.step()
        assert multiplier.value == pytest.approx(lam, rel=1e-10)
    assert multiplier.nu == pytest.approx(0.1 / (4 * multiplier.response), rel=1e-15)


def test_the_law_without_units_has_the_threshold_of_its_own_step():
    """C_ma / E_ma of the step whose energy came last; the threshold of the first step would give another move."""
    multiplier = Multiplier(Ramp(4.0, 1.0, steps=2), initial=1.0, averaging=0.0, burn_in=0, bounds=(1e-9, 1e9))
    for threshold in (4.0, 2.0, 1.0, 1.0):
        before = math.log(multiplier.value)
        multiplier.penalty(5.0)
        nu = multiplier.nu
        multiplier.step()
        assert math.log(multiplier.value) - before == pytest.approx(nu * (5.0 - threshold) / 5.0, rel=1e-12)


@pytest.mark.parametrize("lag", [30, 100])
def test_descent_is_no_slower_than_ascent_from_a_factor_of_100_off(lag):
    """An error of 1 / lambda, late by `lag` steps: the steps until log lambda stays within 0.05 of the end."""

    def settled(initial):
        multiplier, energy, last = Multiplier(1.0, initial=initial), 1 / initial, 0
        for step in range(5000):
            energy += (1 / multiplier.value - energy) / (1 + lag)
            multiplier.penalty(energy)
            multiplier.step()
            last = step if abs(math.log(multiplier.value)) > 0.05 else last
        return last

    assert settled(100.0) <= settled(0.01) < 3000
    assert settled(100.0) < 1300


@pytest.mark.parametrize("power", [-40, -3, 1, 40])
def test_another_unit_of_the_energy_gives_the_same_bits(rng, power):
    energies, unit = rng.gamma(4.0, 0.3, 1000), 2.0**power
    for threshold in (1.0, 0.0):
        one = Multiplier(threshold, initial=0.7)
        other = Multiplier(threshold * unit, initial=0.7 / unit)
        np.testing.assert_array_equal(np.array(drive(other, energies * unit)[1]) * unit, drive(one, energies)[1])


def test_the_initial_multiplier_is_no_unit_of_the_response(rng):
    """An energy that costs less than a nat at the start has a logarithm, too: only differences of logarithms matter."""
    energies = rng.gamma(4.0, 0.3, 300)
    found = []
    for initial in (1e-3, 0.7, 40.0):
        multiplier = Multiplier(1.0, initial=initial, bounds=(1e-9, 1e9))
        values = np.array(drive(multiplier, energies)[1])
        found.append((multiplier.response, *values / initial))
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-9)
    assert found[0][0] != pytest.approx(1.0, abs=1e-4)


def test_no_energy_counts_as_a_hundredth_of_the_average():
    """In its logarithm; a batch without any error has a finite one."""
    multiplier = Multiplier(0.5, initial=3.0, averaging=0.9, burn_in=0)
    multiplier.observe(2.0)
    multiplier.observe(0.0)
    average = 0.9 * 2.0
    wanted = 0.9 * math.log(2.0 * 3.0) + 0.1 * math.log(0.01 * average * 3.0)
    assert multiplier.state_dict()["log_energy"] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("nu", [None, 0.02])
def test_the_unit_of_the_constraint_is_a_unit(rng, nu):
    """A mean over D dimensions with nu D, lambda_0 D and scaled bounds is the sum (T20)."""
    D, energies = 64, rng.gamma(4.0, 0.3, 500)
    total = Multiplier(1.0, initial=0.5, step_size=nu, bounds=(0.1, 5.0))
    mean = Multiplier(1.0 / D, initial=0.5 * D, step_size=None if nu is None else nu * D, bounds=(0.1 * D, 5.0 * D))
    _, of_total = drive(total, energies)
    _, of_mean = drive(mean, energies / D)
    np.testing.assert_allclose(np.array(of_mean) / D, of_total, rtol=1e-11)
    assert np.ptp(of_total) > 0.01


def plant(multiplier, steps, response, settled=2.0, noise=0.05, lag=0.0, seed=0):
    """Energies settled - response log(lambda / 2), late by `lag` steps, with noise; the multipliers on the way."""
    rng, values, mean = np.random.default_rng(seed), [], None
    for _ in range(steps):
        now = settled - response * math.log(multiplier.value / 2)
        mean = now if mean is None else mean + (now - mean) / (1 + lag)
        multiplier.penalty(max(mean + noise * rng.standard_normal(), 0.0))
        multiplier.step()
        values.append(multiplier.value)
    return np.array(values)


@pytest.mark.parametrize("response", [0.5, 1.0, 2.0, 4.0])
def test_the_response_is_estimated(rng, response):
    """From 1 as first guess, within a third, while log lambda moves to 2 from half and twice of it."""
    for initial in (1.0, 4.0):
        multiplier = Multiplier(2.0, initial=initial, burn_in=0)
        for _ in range(800):
            multiplier.penalty(2.0 * (2 / multiplier.value) ** response * math.exp(0.005 * rng.standard_normal()))
            multiplier.step()
        assert multiplier.response == pytest.approx(response, rel=1 / 3)
        assert multiplier.nu == pytest.approx(0.01 / (4 * multiplier.response), rel=1e-12)


@pytest.mark.parametrize("lag", [0.0, 100.0])
@pytest.mark.parametrize("response", [0.5, 2.0, 8.0])
def test_the_rule_damps(response, lag):
    """lambda comes to 2 and stays, with an overshoot of less than a factor of 2, whatever the response and its lag."""
    values = plant(Multiplier(2.0, initial=1.0), 20_000, response, lag=lag)
    assert values[-2000:].mean() == pytest.approx(2.0, rel=0.01)
    assert values[-2000:].std() < 0.04
    assert values.max() < 4.0


def test_too_large_a_step_oscillates():
    """A lag of 100 steps diverges where nu s > (1 - alpha) + 1 / lag (section 7), and not below half of that."""
    limit = (0.01 + 0.01) / 2.0
    calm = plant(Multiplier(2.0, initial=1.0, step_size=limit / 2), 5000, 2.0, noise=1e-3, lag=100)
    wild = plant(Multiplier(2.0, initial=1.0, step_size=limit * 1.5), 5000, 2.0, noise=1e-3, lag=100)
    assert np.ptp(np.log(calm[-1000:])) < 0.01
    assert np.ptp(np.log(wild[-1000:])) > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1.0}, "threshold must be finite and at least 0"),
        ({"threshold": math.nan}, "threshold must be finite"),
        ({"threshold": 1.0, "initial": 0.0}, "initial must be positive"),
        ({"threshold": 1.0, "averaging": 1.0}, "averaging must be at least 0 and below 1, got 1.0"),
        ({"threshold": 1.0, "step_size": -1.0}, "step_size"),
        ({"threshold": 1.0, "burn_in": -1}, "burn_in must be a whole number of at least 0"),
        ({"threshold": 1.0, "bounds": (2.0, 3.0)}, "bounds must hold the initial multiplier 1.0"),
        ({"threshold": 1.0, "bounds": (0.0, 3.0)}, "bounds must be positive"),
        ({"threshold": Ramp(1.0, 2.0, 3), "bounds": (3.0, 0.5)}, "bounds must hold"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        Multiplier(**options)


@pytest.mark.parametrize(
    ("energy", "message"), [(math.nan, "finite"), (math.inf, "finite"), (-0.1, "finite and at least 0")]
)
def test_bad_energies_name_the_step(energy, message):
    multiplier = Multiplier(1.0)
    multiplier.penalty(1.0)
    before = multiplier.state_dict()
    with pytest.raises(ValueError, match=f"at step 1 must be {message}"):
        multiplier.penalty(energy)
    assert str(multiplier.state_dict()) == str(before)
    Multiplier(1.0, step_size=0.1).penalty(-0.1)  # any number, with nu by hand


def test_the_temperatures_of_gqn():
    """The standard deviation of a pixel falls linearly from 2.0 to 0.7 over a tenth of the steps."""
    beta = Ramp.of_gqn(1000)
    deviations = [0.7 * math.sqrt(beta(step)) for step in (0, 25, 50, 100, 999)]
    assert deviations == pytest.approx([2.0, 1.675, 1.35, 0.7, 0.7], rel=1e-12)
    assert Ramp.of_gqn(3).steps == 1
    with pytest.raises(ValueError, match="steps"):
        Ramp.of_gqn(0)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0.0, 1.0, 2), "start"), ((1.0, math.inf, 2), "end"), ((1, 2, 0), "steps"), ((1, 2, 3, "sine"), "linear_in")],
)
def test_bad_ramps(arguments, name):
    with pytest.raises(ValueError, match=name):
        Ramp(*arguments)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_no_energy_and_no_threshold_have_no_unit():
    multiplier = Multiplier(0.0, initial=1.0, burn_in=0)
    for _ in range(3):
        assert multiplier.penalty(0.0) == 0.0
        multiplier.step()
    assert multiplier.value == 1.0


def test_states_have_the_version_two_and_the_threshold_of_the_first_step():
    multiplier = Multiplier(lambda step: 2.0 + step, burn_in=0)
    drive(multiplier, [3.0, 4.0, 5.0])
    state = multiplier.state_dict()
    assert (state["version"], state["settings"]["threshold"]) == (2, 2.0)


def test_freezing_is_what_freeze_does_by_default():
    multiplier = Multiplier(1.0)
    multiplier.freeze()
    assert multiplier.frozen
    multiplier.freeze(False)
    assert not multiplier.frozen
