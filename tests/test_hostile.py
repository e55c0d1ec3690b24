"""Every public function takes a hostile argument correctly, or refuses it by name in our own words."""

import re
import signal
import traceback
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae.testing import hostile_arrays, hostile_values, naive_expectations
from tests.helpers.marks import slow
from tests.helpers.public_calls import X, branch, callable_names, curve, public_calls, run, solution, valid

PACKAGE = str(Path(cv.__file__).parent)
CALLS = 100  # of one test
SECONDS = 20  # for one call
ODD = {  # taken by a conversion that nobody asked for
    "a number as text",
    "a list of text",
    "text",
    "lines of text",
    "bytes",
    "a complex number",
    "a truth value",
    "a truth value of NumPy",
    "an array of truth values",
    "no time",
    "a NumPy date",
    "a date",
    "records",
    "truth values",
    "complex",
    "dates",
    "durations",
    "masked",
    "objects and text",
    "objects and None",
    "a NaN",
    "an infinity",
}
# NaN or infinity has a meaning in or out.
LOOSE = ("plotting.", "bits", "RateDistortionCurve.bound_above", "PopulationBounds.bound_above")
NAMED = (ValueError, cv.BackendNotAvailableError, cv.NotConvergedError, cv.NoMinimiserError, cv.MissingProductError)


class Hangs(BaseException):
    pass


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "x.npy", X)
    np.savez(folder / "images.npz", x_test=np.arange(36, dtype=np.uint8).reshape(3, 3, 4), y_test=[0, 1, 0])
    for thing, name in ((solution(), "s"), (branch(), "b"), (curve(), "c"), (run(), "r")):
        thing.save(folder / f"{name}.npz")
    return public_calls(folder)


def test_every_public_function_has_a_call(entries):
    assert set(callable_names()) - set(entries) == set()


@pytest.mark.filterwarnings("ignore")
def test_the_valid_calls_are_taken(entries):
    for name, (function, arguments) in entries.items():
        if name != "ClassProbabilities.of":  # its valid argument is a fitted classifier
            problem = unsound(function(**valid(arguments)))
            assert problem is None, (name, problem)


LONG = (3, 11)  # seeds of some calls that take a second each


@pytest.mark.parametrize("seed", [slow(seed) if seed in LONG or seed >= 20 else seed for seed in range(220)])
def test_hostile_arguments(entries, seed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(seed)
    faults = [fault for _ in range(CALLS) if (fault := attempt(entries, rng)) is not None]
    plt.close("all")
    assert faults == []


def attempt(entries, rng):
    """One call with one or two hostile arguments; what is wrong with its outcome, or None."""
    name = list(entries)[rng.integers(len(entries))]
    function, arguments = entries[name]
    given = valid(arguments)
    numeric = {argument for argument, value in given.items() if type(value) in (int, float, np.ndarray)}
    hostile = {}
    for argument in rng.permutation(list(given))[: 1 + (rng.random() < 0.25)]:
        values = hostile_values()
        if isinstance(given[argument], np.ndarray) and rng.random() < 0.6:
            values = hostile_arrays(given[argument])
        kind = list(values)[rng.integers(len(values))]
        given[argument], hostile[str(argument)] = values[kind], kind
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fault = outcome(function, given, hostile, numeric)
    if fault is None:
        strange = [w for w in seen if not issubclass(w.category, UserWarning)]
        if strange:
            fault = f"warning {strange[0].category.__name__}: {strange[0].message}"
    if fault is not None and name.startswith(LOOSE) and fault.startswith(("takes", "numbers", "NaN")):
        return None
    return None if fault is None else (name, hostile, fault)


def outcome(function, given, hostile, numeric):
    def late(number, frame):
        raise Hangs

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        result = function(**given)
        taken = [name for name, kind in hostile.items() if name in numeric and kind in ODD]
        return f"takes {taken}" if taken else unsound(result)
    except Hangs:
        return "it takes too long"
    except OSError as error:
        return None if {"path", "source", "checkpoint", "resume"} & set(hostile) else f"raises {error!r}"
    except Exception as error:
        return refusal(error, hostile)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refusal(error, hostile):
    """What is wrong with an error."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error)
    where = f"{type(error).__name__}: {text[:200]} ({place.filename.removeprefix(PACKAGE)}:{place.lineno})"
    callers = "".join(frame.filename for frame in traceback.extract_tb(error.__traceback__))
    if "sklearn" in callers and set(hostile) & {"X", "sample_weight", "random_state"}:
        return None  # the checks that scikit-learn makes of every estimator, in its own words
    if {hostile.get("callback"), hostile.get("threshold")} & {"a type", "a function of nothing"}:
        return None  # an error of the function itself, which goes through
    if not isinstance(error, NAMED):
        return f"raises {where}"
    if "\n" in text or len(text) > 500:
        return f"takes several lines: {where}"
    if not place.filename.startswith(PACKAGE):
        return f"is raised elsewhere: {where}"
    words = set(re.findall(r"\w+", text))
    if {"path", "resume"} & set(hostile) and re.search(r"does not hold|must hold", text):
        return None  # the message begins with the file
    synonyms = {
        "weights": {"x"},
        "x": {"weights"},
        "frequencies": {"phases"},
        "coefficients": {"intercepts"},
        "decoder": {"masses", "energies"},
        "name": {"backend"},
        "sample_weight": {"weights"},
        "random_state": {"seed"},
        "X": {"x", "weights", "sample_weight"},
        "masses": {"positions"},
        "beta_range": {"beta"},
        "betas": {"beta"},
    }
    if not any({name, *synonyms.get(name, ())} & words for name in hostile):
        return f"does not name its argument: {where}"
    return None


def unsound(result):
    """What is wrong with a result, or None."""
    text = repr(result)  # never raises
    del text
    if isinstance(result, cv.FixedPoint):
        return unsound_solution(result)
    if isinstance(result, cv.Transition):
        return unsound(result.beta) or unsound(result.before) or unsound(result.after)
    if isinstance(result, cv.RateDistortionCurve):
        return None if (result.gap >= -1e-9).all() and np.isfinite(result.lower).all() else "bounds that contradict"
    if isinstance(result, (cv.Branch, list, tuple)):
        return next(filter(None, map(unsound, result)), None)
    if isinstance(result, cv.FixedPointVAE):
        return unsound(result.solution_)
    if isinstance(result, cv.geco.Run):
        return None if np.isfinite(result.model.parameters).all() else "parameters that are not finite"
    if isinstance(result, float):
        return None if not np.isnan(result) else "NaN"
    if isinstance(result, np.ndarray) and result.dtype.kind == "f":
        return None if np.isfinite(result).all() else "numbers that are not finite"
    return None


def unsound_solution(s):
    x = np.asarray(s.x, dtype=float)
    if not np.isfinite(s.decoder).all():
        return "a decoder that is not finite"
    if not s.weights.sum() == pytest.approx(1) or not s.tiling.masses.sum() == pytest.approx(1):
        return "weights or masses that do not sum to 1"
    if not (s.rate >= -1e-9 and s.distortion >= 0 and s.energy > -np.inf and s.error_estimate >= 0):
        return f"R = {s.rate}, D = {s.distortion}, E = {s.energy}, error {s.error_estimate}"
    if s.free_energy != pytest.approx(s.rate + s.energy, rel=1e-9, abs=1e-9):
        return f"F = {s.free_energy} is not R + E = {s.rate + s.energy}"
    np.testing.assert_allclose(s.encoder.sum(axis=1), 1, rtol=1e-9)
    if isinstance(s.objective, cv.ELBO) and s.objective.likelihood == "gaussian":
        return wrong_solution(s, x)
    return None


def wrong_solution(s, x):
    """What is wrong with a solution by the naive oracle, in the frame of the data, or None."""
    centre, scale = s.frame.centre, s.frame.scale
    theta = s.objective.sigma**2 * s.beta / scale**2
    if theta < 1e-12:
        return None  # the oracle has no digits left
    psi = (s.decoder - centre) / scale
    exact = naive_expectations((x - centre) / scale, s.weights, psi, s.tiling.masses, theta)
    # Rounding of the energies, which grows with an offset that has eaten digits of the data; single precision.
    rounding = 1e-9 * max(1, 1 / theta) * (1 + np.abs(centre).max() / scale) + 1e-5 * (s.tolerance > 1e-7 * scale)
    if abs(exact.free_energy - s.free_energy) > rounding or abs(exact.energy - s.energy) > rounding:
        return f"F, E = {s.free_energy}, {s.energy}; by loops {exact.free_energy}, {exact.energy}"
    if abs(s.distortion / scale**2 - 2 * theta * exact.energy) > rounding * max(1, theta):
        return f"D = {s.distortion}, by loops {2 * theta * exact.energy * scale**2}"
    if (
        np.abs(exact.encoder - s.encoder).max() > 1e-6 + rounding
        or np.abs(exact.mass - s.marginal).max() > 1e-6 + rounding
    ):
        return "an encoder or a marginal posterior that is not that of the equations"
    alive = exact.mass > 1e-9
    moved = exact.sums[alive] / exact.mass[alive, None] - psi[alive]
    residual = float(np.sqrt(exact.mass[alive] @ np.square(moved).sum(axis=1)))
    if not isinstance(s, cv.CertifiedFixedPoint) and abs(residual - s.residual / scale) > 1e-6 + rounding:
        return f"a residual of {s.residual / scale} radii, by loops {residual}"
    return None
