"""The checks that all public functions share: what they take, what they refuse, and in which words."""

import decimal
import fractions
import math

import numpy as np
import pytest

from constrained_vae._utils import checks


@pytest.mark.parametrize(
    "value",
    [2, 2.0, np.float32(2), np.int64(2), np.uint8(2), np.array(2.0), np.longdouble(2), fractions.Fraction(4, 2)],
)
def test_numbers_of_every_kind_are_taken(value):
    for check in (checks.check_positive, checks.check_non_negative):
        assert check(value, "beta") == 2.0
        assert type(check(value, "beta")) is float


class NoRepr:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (True, "True"),
        (np.bool_(True), "np.True_"),
        ("1e-6", "'1e-6'"),
        (b"1", "b'1'"),
        (1j, "1j"),
        (None, "None"),
        (np.timedelta64(1), "np.timedelta64\\(1\\)"),
        (decimal.Decimal(1), "Decimal"),
        (10**400, "10{20}.*\\.\\.\\."),
        (10**5000, "an object of type int"),  # Python refuses to print it
        (math.nan, "nan"),
        (math.inf, "inf"),
        (np.ones(2), r"an array of float64, shape \(2,\)"),
        ("two\nlines", r"'two\\nlines'"),
        (NoRepr(), "an object of type NoRepr"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_positive_number_is_refused_in_one_line(value, told):
    with pytest.raises(ValueError, match=f"^beta must be positive and finite, got {told}") as caught:
        checks.check_positive(value, "beta")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_limits_tolerances_counts_and_flags():
    assert checks.check_time_limit(None) is None
    assert checks.check_time_limit(np.int64(5)) == 5.0
    assert checks.check_time_limit(math.inf) == math.inf
    assert checks.check_tolerance(1e-2) == 0.01
    assert checks.check_count(np.int32(3), "n") == 3
    assert checks.check_seed(2**32 - 1) == 2**32 - 1
    assert checks.check_flag(np.True_, "progress") is True
    for call, message in (
        (lambda: checks.check_time_limit(-1), "time_limit must be a number of seconds, at least 0, got -1"),
        (lambda: checks.check_time_limit(True), "got True"),
        (lambda: checks.check_tolerance(0.011), "tol must be positive and at most 0.01"),
        (lambda: checks.check_count(1.0, "n"), "n must be a whole number of at least 1, got 1.0"),
        (lambda: checks.check_count(True, "n"), "n must be a whole number"),
        (lambda: checks.check_count(9, "n", 1, 8), "n must be a whole number of at most 8, got 9"),
        (lambda: checks.check_seed(2**32), "seed must be a whole number of at most 4294967295"),
        (lambda: checks.check_flag(1, "progress"), "progress must be True or False, got 1"),
        (
            lambda: checks.check_flag(np.array([True, False]), "progress"),
            "progress must be True or False, got an array",
        ),
        (lambda: checks.check_path(2), "path must be the path of a file, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["1", "2"], "texts"),
        ([True, False], "truth values"),
        (np.array([1j, 2]), "complex numbers"),
        (np.array(["2026-01-01"], dtype="M8[D]"), "dates"),
        (np.array([1], dtype="m8[s]"), "durations"),
        ([1.0, None], "None at 1"),
        (np.array([1.0, "2"], dtype=object), "'2' at 1"),
        ([[1.0], [1.0, 2.0]], "list that is no rectangular array"),
        ("12", "'12'"),
        ({1.0}, "{1.0}"),
    ],
)
def test_arrays_of_something_else_are_refused(values, told):
    with pytest.raises(ValueError, match=f"^weights must be a vector of numbers, got {told}"):
        checks.check_vector(values, "weights")


def test_masked_and_sparse_arrays_are_refused():
    from scipy.sparse import csr_array

    with pytest.raises(ValueError, match="x must not be masked"):
        checks.check_data(np.ma.masked_array([[1.0, 999.0]], mask=[[False, True]]))
    with pytest.raises(ValueError, match=r"make it dense with \.toarray\(\)"):
        checks.check_data(csr_array(np.eye(2)))


def test_numbers_in_objects_and_in_extended_precision_are_taken():
    np.testing.assert_array_equal(checks.check_vector(np.array([1, 2.5], dtype=object), "w"), [1, 2.5])
    np.testing.assert_array_equal(checks.check_vector(np.array([0.25], dtype=np.longdouble), "w"), [0.25])
    with pytest.raises(ValueError, match="w must be finite, got inf at 0"):
        checks.check_vector(np.array([np.longdouble("1e400")]), "w")


def test_arrays_are_copies_and_shapes_are_told():
    given = np.ones((2, 3))
    checks.check_array(given, "a", (None, 3))[:] = 0
    assert given.all()
    with pytest.raises(ValueError, match=r"a must have shape \(2, n\), not empty, got shape \(2, 0\)"):
        checks.check_array(np.ones((2, 0)), "a", (2, None))
    with pytest.raises(ValueError, match=r"a must be finite, got nan at \(1, 0\)"):
        checks.check_array([[0.0], [math.nan]], "a", (2, 1))


def test_labels_are_whole_numbers():
    assert checks.check_labels([0.0, 2.0], 2).tolist() == [0, 2]
    for labels, told in (
        ([0.5, 1.0], "labels must be whole numbers, got 0.5 at 0"),
        ([0, math.nan], "finite, got nan"),
    ):
        with pytest.raises(ValueError, match=told):
            checks.check_labels(labels, 2)


def test_callbacks_answer_with_a_truth_value():
    assert not checks.asks_to_stop(None, 1)
    assert not checks.asks_to_stop(lambda n: None, 1)
    assert checks.asks_to_stop(lambda n: n, 1)
    with pytest.raises(ValueError, match=r"callback must return a true value to stop.*got an array of float64"):
        checks.asks_to_stop(lambda: np.zeros(2))


def test_labels_from_data_frames_are_taken():
    """Object columns of texts or numbers, categories, and truth values; mixed and missing ones are refused."""
    pandas = pytest.importorskip("pandas")
    for labels in (np.array(["a", "b"], dtype=object), pandas.Series(["a", "b"]), pandas.Categorical(["a", "b"])):
        assert checks.check_names(labels, "labels").tolist() == ["a", "b"]
    assert checks.check_names(np.array([1, 2], dtype=object), "labels").tolist() == [1, 2]
    assert checks.check_names([True, False], "labels").tolist() == [True, False]
    for labels in (["a", None], np.array(["a", 1], dtype=object), [[0, 1]], [], np.ma.array([0, 1])):
        with pytest.raises(ValueError, match="labels must be a vector of classes"):
            checks.check_names(labels, "labels")
    with pytest.raises(ValueError, match="labels must be finite, got nan"):
        checks.check_names([0.0, np.nan], "labels")
