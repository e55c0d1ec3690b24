"""Constraints: their energies against loops over points and tiles, thresholds, units, frames, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.linear_model import LogisticRegression

import constrained_vae as cv
from constrained_vae import equations
from constrained_vae.data.frame import Frame
from constrained_vae.testing import (
    EPS,
    naive_class_error,
    naive_correlation_error,
    naive_feature_error,
    naive_squared_error,
)

SHAPE, D = (2, 3), 6


def case(kind, rng, n=7, k=4):
    """A constraint of each kind on images of 2 x 3 pixels, with points, reconstructions and its energies (n, k)."""
    x, psi = rng.normal(size=(n, D)), rng.normal(size=(k, D))
    if kind == "RE":
        return cv.RE(0.4), x, psi, naive_squared_error(x, psi)
    if kind == "mean RE":
        return cv.RE(0.4, reduction="mean"), x, psi, np.array(naive_squared_error(x, psi)) / D
    if kind == "linear FRE":
        A = rng.normal(size=(4, D))
        return cv.FRE(0.4, A), x, psi, naive_feature_error(lambda p: A @ p, x, psi)
    if kind == "Fourier FRE":
        f = cv.FourierFeatures.random(D, 8, gamma=0.1)
        direct = lambda p: np.cos(f.frequencies @ p + f.phases) / 2  # noqa: E731  sqrt(2 / 8)
        return cv.FRE(0.4, f), x, psi, naive_feature_error(direct, x, psi)
    if kind == "FRE of two functions":
        f = cv.Features(np.tanh, lambda x, df: df / np.cosh(x) ** 2)
        return cv.FRE(0.4, f), x, psi, naive_feature_error(np.tanh, x, psi)
    if kind == "CLA":
        A, a, labels = rng.normal(size=(3, D)), rng.normal(size=3), rng.integers(0, 3, n)
        direct = lambda p: np.exp(A @ p + a) / np.exp(A @ p + a).sum()  # noqa: E731
        return cv.CLA(0.4, cv.ClassProbabilities(A, a), labels), x, psi, naive_class_error(direct, labels, psi)
    assert kind == "PNCC"
    return cv.PNCC(0.4, SHAPE, 2, stride=1), x, psi, naive_correlation_error(x, psi, SHAPE, (2, 2), 1)


KINDS = ["RE", "mean RE", "linear FRE", "Fourier FRE", "FRE of two functions", "CLA", "PNCC"]


def plain(constraint, dim=D):
    """The energy of points in their own units."""
    return constraint.in_frame(Frame.identity(dim))


def energies(constraint, x, psi, frame=None):
    """H (n, k) of points and reconstructions in units of the data, evaluated in a frame."""
    frame = Frame.identity(x.shape[1]) if frame is None else frame
    energy = constraint.in_frame(frame)
    phi, s = energy.statistics(frame.inward(x), slice(0, len(x)))
    return equations.energies(phi, s, *energy.readout(frame.inward(psi)))


@pytest.mark.parametrize("kind", KINDS)
def test_energies_are_those_written_out(kind, rng):
    constraint, x, psi, expected = case(kind, rng)
    # Terms of up to some 50 cancel in the linear form.
    np.testing.assert_allclose(energies(constraint, x, psi), expected, atol=1e-13)
    assert isinstance(constraint, cv.Constraint)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_energies_do_not_depend_on_the_frame(kind, scale, rng):
    constraint, x, psi, expected = case(kind, rng)
    frame = Frame(rng.normal(size=D), scale)
    np.testing.assert_allclose(energies(constraint, x, psi, frame), expected, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_products_in_a_frame_are_those_of_its_units(kind, rng):
    """Gradient of the mean energy: d / d(inward psi) = scale d / d psi."""
    constraint, x, psi, _ = case(kind, rng)
    frame = Frame(rng.normal(size=D), 7.0)
    weights = rng.dirichlet(np.ones(len(x)), size=len(psi)).T

    def gradient(energy, x, psi):
        phi, _ = energy.statistics(x, slice(0, len(x)))
        return -energy.pullback(psi, weights.T @ phi, weights.sum(axis=0))

    inside = gradient(constraint.in_frame(frame), frame.inward(x), frame.inward(psi))
    np.testing.assert_allclose(inside, 7 * gradient(plain(constraint), x, psi), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_blocks(kind, rng):
    """Row blocks know which rows they are, and no constraint writes into what it is given."""
    constraint, x, psi, _ = case(kind, rng)
    for array in (x, psi):
        array.setflags(write=False)
    energy = plain(constraint)
    phi, s = energy.statistics(x, slice(0, 7))
    for rows in (slice(0, 3), slice(3, 7)):
        part, offset = energy.statistics(x[rows], rows)
        np.testing.assert_allclose(part, phi[rows], rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(offset, s[rows], rtol=1e-13)
    v, b = energy.readout(psi)
    energy.pullback(psi, v, b)
    assert v.shape == (4, phi.shape[1])
    assert b.shape == (4,)


@pytest.mark.parametrize("far", [2.0**20, -(2.0**30)])
def test_what_all_features_have_in_common_costs_no_digits(far, rng):
    """f + a large constant: only differences matter, which are rounded to eps of it and not of its square."""
    x, psi = rng.normal(size=(2, 5, D))
    shifted = cv.Features(lambda x: far + np.tanh(x), lambda x, df: df / np.cosh(x) ** 2)
    frame = Frame(rng.normal(size=D), 0.7)
    found = energies(cv.FRE(0.1, shifted), x, psi, frame)
    np.testing.assert_allclose(found, naive_feature_error(np.tanh, x, psi), atol=100 * EPS * abs(far))


def test_feasible_where_at_most_zero(rng):
    """C = H - allowance: ||x - psi||^2 - kappa^2, kappa - l.c(psi), kappa - mean correlation."""
    for kind in KINDS:
        constraint, *_ = case(kind, rng)
        similarity = isinstance(constraint, (cv.CLA, cv.PNCC))
        assert constraint.allowance == pytest.approx(1 - 0.4 if similarity else 0.4**2, rel=1e-15)
        assert constraint.kappa == 0.4
        wide = kind == "linear FRE"  # four rows for six dimensions
        assert constraint.bounded is not (similarity or wide)


@pytest.mark.parametrize("kind", ["RE", "mean RE", "linear FRE"])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_curvature_of_a_squared_distance(kind, scale, rng):
    """2 tr(F^T F) / D; of RE exactly, of a linear map from random cotangents: 32 of them give it to a factor."""
    constraint, *_ = case(kind, rng)
    inside = constraint.in_frame(Frame(np.zeros(D), scale))
    exact = {"RE": 2.0, "mean RE": 2.0 / D}
    if kind in exact:
        assert inside.mean_curvature == pytest.approx(exact[kind] * scale**2, rel=1e-15)
    else:
        A = constraint.features.matrix
        assert inside.mean_curvature == pytest.approx(2 * (A**2).sum() / D * scale**2, rel=0.5)


# --- what is printed -------------------------------------------------------------------------------------------------


def test_the_target_is_printed_in_both_units():
    assert repr(cv.RE.from_squared_error(1.5)) == "RE(kappa=1.22474: squared error 1.5 in total)"
    assert repr(cv.RE(0.1, reduction="mean")) == "RE(kappa=0.1: squared error 0.01 per dimension)"
    assert "kappa=0.5: squared error 0.25 of LinearFeatures(2 x 3)" in repr(cv.FRE(0.5, np.ones((2, 3))))
    probabilities = cv.ClassProbabilities(np.eye(3), np.zeros(3))
    assert (
        repr(cv.CLA(0.9, probabilities, [0, 1]))
        == "CLA(kappa=0.9, ClassProbabilities(3 classes, 3 dimensions), 2 labels)"
    )
    assert "kappa=0.8" in repr(cv.PNCC(0.8, (4, 4), 2))
    assert "(2, 2)" in repr(cv.PNCC(0.8, (4, 4), 2))


@given(st.floats(0, 1e9))
def test_a_squared_error_comes_back(squared_error):
    for reduction in ("sum", "mean"):
        constraint = cv.RE.from_squared_error(squared_error, reduction)
        assert constraint.allowance == pytest.approx(squared_error, rel=4 * EPS)
        assert constraint.reduction == reduction


# --- PNCC ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(-10, 10), st.floats(0.01, 100))
def test_correlations_are_blind_to_brightness_and_contrast(seed, brightness, contrast):
    """Of every tiling patch, and of reconstructions as of data; but not to a change of sign."""
    rng = np.random.default_rng(seed)
    x, psi = rng.normal(size=(2, 3, 4, 4))
    pncc = cv.PNCC(0.5, (4, 4), (2, 2))
    moved = psi.copy()
    moved[:, :2, 2:] = contrast * psi[:, :2, 2:] + brightness
    moved[:, 2:, :2] -= brightness
    here, there, other = (
        energies(pncc, a.reshape(3, 16), b.reshape(3, 16)) for a, b in ((x, psi), (x, moved), (moved, x))
    )
    tolerance = 1000 * EPS * (1 + abs(brightness) / min(contrast, 1))
    np.testing.assert_allclose(there, here, atol=tolerance)
    np.testing.assert_allclose(other.T, here, atol=tolerance)
    np.testing.assert_allclose(energies(pncc, x.reshape(3, 16), -psi.reshape(3, 16)) - 1, 1 - here, atol=1e-13)


def test_constant_patches_correlate_with_nothing(rng):
    x = rng.normal(size=(2, 4, 4))
    x[0, :2] = 0.1
    x = x.reshape(2, 16)
    pncc = cv.PNCC(0.5, (4, 4), 2)
    np.testing.assert_allclose(np.diag(energies(pncc, x, x)), [0.5, 0.0], atol=1e-14)  # two patches of four are lost
    black = np.zeros((1, 16))
    np.testing.assert_array_equal(energies(pncc, x, black), np.ones((2, 1)))
    np.testing.assert_array_equal(plain(pncc, 16).pullback(black, rng.normal(size=(1, 16)), np.ones(1)), black)


# --- CLA -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("named", [False, True])
def test_classifiers_that_were_fitted(n_classes, named, rng):
    """Of every point the probability of its own label, by whatever name."""
    x, labels = rng.normal(size=(60, 4)), rng.permutation(60) % n_classes
    x[np.arange(60), labels] += 2
    labels = np.array(["dog", "ape", "cow"])[labels] if named else labels * 7 - 3
    classifier = LogisticRegression().fit(x, labels)
    cla, psi = cv.CLA(0.9, classifier, labels), rng.normal(size=(5, 4))
    probabilities = classifier.predict_proba(psi)
    column = {label: j for j, label in enumerate(classifier.classes_.tolist())}
    expected = 1 - probabilities[:, [column[label] for label in labels.tolist()]].T
    np.testing.assert_allclose(energies(cla, x, psi), expected, rtol=1e-9)
    # Not all classes need be there; a list will do.
    some = cv.CLA(0.9, classifier, labels[:3].tolist())
    np.testing.assert_allclose(energies(some, x[:3], psi), expected[:3], rtol=1e-9)


def test_classes_come_in_any_order(rng):
    inner = cv.ClassProbabilities(rng.normal(size=(3, 4)), rng.normal(size=3), ["dog", "ape", "cow"])
    x, psi = rng.normal(size=(4, 4)), rng.normal(size=(5, 4))
    found = energies(cv.CLA(0.9, inner, ["cow", "dog", "ape", "ape"]), x, psi)
    np.testing.assert_allclose(found, 1 - inner(psi)[:, [2, 0, 1, 1]].T, rtol=1e-12)


def test_any_callable_with_its_product_classifies(rng):
    inner = cv.ClassProbabilities(rng.normal(size=(3, 4)), rng.normal(size=3))
    x, psi, labels = rng.normal(size=(6, 4)), rng.normal(size=(5, 4)), np.array([0, 1, 2, 2, 1, 0])
    mine = cv.CLA(0.9, cv.Features(inner, inner.pullback), labels)
    np.testing.assert_array_equal(energies(mine, x, psi), energies(cv.CLA(0.9, inner, labels), x, psi))
    np.testing.assert_array_equal(
        energies(cv.CLA(0.9, mine.classifier, labels.astype(float)), x, psi), energies(mine, x, psi)
    )
    mine.check(x)
    with pytest.raises(ValueError, match=r"labels go up to class 3, but the classifier has 3, from 0"):
        cv.CLA(0.9, mine.classifier, [0, 3]).check(x)


def test_labels_are_of_the_data_alone(rng):
    cla, x, *_ = case("CLA", rng)
    with pytest.raises(ValueError, match="labels of the data points that were solved for, and of no others"):
        plain(cla).statistics(x)
    assert cla.labelled == 7
    assert cv.RE(1.0).labelled is None


# --- bad input -------------------------------------------------------------------------------------------------------

PROBABILITIES = cv.ClassProbabilities(np.eye(3), np.zeros(3))
MAKERS = {
    "RE": cv.RE,
    "FRE": lambda kappa: cv.FRE(kappa, np.eye(3)),
    "CLA": lambda kappa: cv.CLA(kappa, PROBABILITIES, [0, 1]),
    "PNCC": lambda kappa: cv.PNCC(kappa, (4, 4), 2),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("kappa", [-0.1, np.nan, np.inf, "wide", None])
def test_bad_thresholds(make, kappa):
    with pytest.raises(ValueError, match="kappa must be"):
        make(kappa)


@pytest.mark.parametrize("name", ["CLA", "PNCC"])
def test_a_similarity_is_at_most_one(name):
    assert MAKERS[name](1.0).allowance == 0
    with pytest.raises(ValueError, match=rf"kappa must be at most 1, the largest {name} there is, got 1\.01"):
        MAKERS[name](1.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cv.RE(1.0, reduction="median"), r"reduction must be one of \('sum', 'mean'\), got 'median'"),
        (lambda: cv.RE.from_squared_error(-1.0), "squared_error must be finite and at least 0"),
        (lambda: cv.CLA(0.9, PROBABILITIES, [0, 3]), r"labels must be classes of the classifier.*got .*3"),
        (lambda: cv.CLA(0.9, PROBABILITIES, ["a"]), "labels must be classes of the classifier"),
        (lambda: cv.CLA(0.9, PROBABILITIES, [0.5]), "labels must be classes of the classifier"),
        (lambda: cv.CLA(0.9, PROBABILITIES, [np.nan]), "labels must be finite"),
        (lambda: cv.CLA(0.9, PROBABILITIES, [-1]), "labels must be classes of the classifier"),
        (lambda: cv.CLA(0.9, PROBABILITIES, []), "labels must be a vector of classes"),
        (lambda: cv.CLA(0.9, PROBABILITIES, [[0, 1]]), "labels must be a vector of classes"),
        (lambda: cv.CLA(0.9, PROBABILITIES, None), "labels must be a vector of classes"),
        (lambda: cv.CLA(0.9, LogisticRegression(), [0]), r"classifier must be fitted"),
        (lambda: cv.PNCC(0.9, (4, 4), 5), r"patch must fit into the image, got \(5, 5\) for images of \(4, 4\)"),
        (lambda: cv.PNCC(0.9, 16, 2), "image_shape must be"),
        (lambda: cv.PNCC(0.9, (4, 4), 2, stride=0), "stride must be"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("label", [-1, 0.5, np.nan, "a", np.inf])
def test_labels_of_a_classifier_without_names_are_numbers(label):
    classifier = cv.Features(PROBABILITIES, PROBABILITIES.pullback)
    with pytest.raises(
        ValueError, match=r"labels must be (classes of the classifier, whole numbers from 0|finite), got"
    ):
        cv.CLA(0.9, classifier, [label])


def test_a_patch_may_be_a_list():
    assert plain(cv.PNCC(0.9, (4, 4), [2, 2]), 16).statistics(np.eye(16))[0].shape == (16, 16)


@pytest.mark.parametrize(
    "make", [lambda f: cv.FRE(0.1, f), lambda f: cv.CLA(0.9, f, [0, 1])], ids=["features", "classifier"]
)
def test_a_callable_without_its_product(make, request):
    name = request.node.callspec.id
    with pytest.raises(
        cv.MissingProductError, match=rf"^{name} must come with its.*give Features\(function, product\)"
    ):
        make(np.tanh)


def test_data_that_do_not_fit(rng):
    x = rng.normal(size=(5, 4))
    with pytest.raises(ValueError, match=r"FRE: features of points of dimension 4 failed"):
        cv.FRE(0.1, np.eye(3)).check(x)
    with pytest.raises(ValueError, match=r"image_shape \(2, 3\) wants 6 values in every row of x, got 4"):
        cv.PNCC(0.9, (2, 3), 2).check(x)
    with pytest.raises(ValueError, match=r"CLA: features of points of dimension 4 failed"):
        cv.CLA(0.9, PROBABILITIES, [0, 1]).check(x)
    with pytest.raises(ValueError, match=r"mine: .*product must have the shape \(2, 4\)"):
        cv.FRE(0.1, cv.Features(np.tanh, lambda x, df: df[:, :1]), name="mine").check(x)


# --- values of the user ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_constraints_and_lagrangians_carry_no_state_of_a_solver(kind, rng):
    """A solve leaves no trace in them; what a solver needs is made anew for each frame."""
    constraint, x, *_ = case(kind, rng)
    lagrangian = cv.Lagrangian(constraint, 2.0, box=(-9, 9))
    before = (dict(vars(constraint)), dict(vars(lagrangian)))
    cv.solve(x, lagrangian, n_tiles=2, max_maps=3, on_failure="return")
    for value in (constraint, lagrangian):
        assert not hasattr(value, "frame")
        assert not hasattr(value, "stiffness")
    known = {"_classes", "_map", "names", "labelled", "bounded"}  # values that follow from the fields alone
    assert set(vars(constraint)) - known == set(before[0]) - known
    assert set(vars(lagrangian)) - known == set(before[1]) - known
    assert np.isfinite(lagrangian.in_frame(Frame(np.ones(D), 2.0)).stiffness)
