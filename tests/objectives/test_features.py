"""Feature maps: their values against formulas written out, their products, and what they refuse."""

import inspect

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier

import constrained_vae as cv
from constrained_vae.objectives import features
from constrained_vae.objectives.features import as_features, check_features
from constrained_vae.testing import EPS, naive_correlation_error


def table():
    rng = np.random.default_rng(3)
    return {
        "LinearFeatures": cv.LinearFeatures(rng.normal(size=(4, 6))),
        "FourierFeatures": cv.FourierFeatures.random(6, 8, gamma=0.2, seed=1),
        "ClassProbabilities": cv.ClassProbabilities(rng.normal(size=(3, 6)), rng.normal(size=3)),
        "NormalisedPatches": cv.NormalisedPatches((2, 3), (2, 2), 1),
        "NormalisedPatches of channels": cv.NormalisedPatches((1, 3, 2), (1, 2)),
        "Features": cv.Features(np.tanh, lambda x, df: df / np.cosh(x) ** 2),
    }


MAPS = table()
on_every_map = pytest.mark.parametrize("f", MAPS.values(), ids=MAPS)


def test_no_map_is_forgotten():
    known = {type(f) for f in MAPS.values()}
    for name, item in vars(features).items():
        protocol = getattr(item, "_is_protocol", False)
        if inspect.isclass(item) and item.__module__ == features.__name__ and hasattr(item, "pullback"):
            assert protocol or item in known, f"add {name} to the table of test_features"


@on_every_map
def test_products_are_those_of_the_slopes(f, rng):
    """df . f'(x) along a random direction, by differences of fourth order: h^4 = 2e-15 and eps / h = 1e-12 of values
    and fifth derivatives of order 1, so that 1e-9 of products of order 1 is a loose bound."""
    x, direction = rng.normal(size=(7, 6)), rng.normal(size=(7, 6))
    df, h = rng.normal(size=f(x).shape), 2e-4
    near, far = (f(x + n * h * direction) - f(x - n * h * direction) for n in (1, 2))
    slope = (8 * near - far) / (12 * h)
    product = f.pullback(x, df)
    assert product.shape == x.shape
    np.testing.assert_allclose((product * direction).sum(axis=1), (df * slope).sum(axis=1), atol=1e-9)


@on_every_map
def test_maps_take_points_one_by_one_and_change_none(f, rng):
    x = rng.normal(size=(7, 6))
    x.setflags(write=False)
    df = rng.normal(size=f(x).shape)
    df.setflags(write=False)
    np.testing.assert_allclose(f(x)[2:5], f(x[2:5]), rtol=1e-13, atol=1e-15)  # a product of matrices may sum otherwise
    np.testing.assert_allclose(f.pullback(x, df)[2:5], f.pullback(x[2:5], df[2:5]), rtol=1e-12, atol=1e-14)


def test_values(rng):
    x, A, a = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)), rng.normal(size=4)
    np.testing.assert_allclose(cv.LinearFeatures(A)(x), np.einsum("sd,nd->ns", A, x), rtol=1e-13)
    cosines = [[np.sqrt(2 / 4) * np.cos(A[s] @ x[n] + a[s]) for s in range(4)] for n in range(5)]
    np.testing.assert_allclose(cv.FourierFeatures(A, a)(x), cosines, rtol=1e-13, atol=1e-15)
    scores = np.exp(x @ A.T + a)
    np.testing.assert_allclose(cv.ClassProbabilities(A, a)(x), scores / scores.sum(axis=1, keepdims=True), rtol=1e-12)
    assert cv.ClassProbabilities(A, a).classes.tolist() == [0, 1, 2, 3]


def test_random_fourier_features_make_a_gaussian_kernel(rng):
    x, gamma, n_features = rng.normal(size=(20, 3)), 0.3, 20_000
    f = cv.FourierFeatures.random(3, n_features, gamma, seed=5)(x)
    kernel = np.exp(-gamma * np.square(x[:, None] - x).sum(axis=2))
    # Every entry is a mean of so many terms of variance at most 1: 5 of its standard deviations.
    np.testing.assert_allclose(f @ f.T, kernel, atol=5 / np.sqrt(n_features))


def test_random_fourier_features_come_from_their_seed(rng):
    x = rng.normal(size=(4, 3))
    one, same, other = (cv.FourierFeatures.random(3, 16, seed=seed)(x) for seed in (2, 2, 3))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01


def test_matrices_are_copied(rng):
    A = rng.normal(size=(2, 3))
    f, before = cv.LinearFeatures(A), A.copy()
    A[:] = 0
    np.testing.assert_array_equal(f.matrix, before)


# --- classifiers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("named", [False, True])
def test_probabilities_of_a_fitted_classifier(n_classes, named, rng):
    x, labels = rng.normal(size=(200, 4)), rng.integers(0, n_classes, 200)
    x[np.arange(200), labels % 4] += 1.5
    if named:
        labels = np.array(["cow", "ape", "dog", "elk", "bee"])[labels]
    classifier = LogisticRegression().fit(x, labels)
    found = cv.ClassProbabilities.of(classifier)
    at = 3 * rng.normal(size=(50, 4))
    np.testing.assert_allclose(found(at), classifier.predict_proba(at), rtol=1e-9, atol=1e-12)
    assert found.classes.tolist() == sorted(set(labels.tolist()))


def test_a_classifier_without_intercept(rng):
    x, labels = rng.normal(size=(100, 4)), np.arange(100) % 3
    classifier = LogisticRegression(fit_intercept=False).fit(x, labels)
    np.testing.assert_allclose(cv.ClassProbabilities.of(classifier)(x), classifier.predict_proba(x), rtol=1e-9)


def test_classifiers_that_are_refused(rng):
    x, labels = rng.normal(size=(100, 4)), np.arange(100) % 3
    with pytest.raises(ValueError, match=r"must be fitted.*fit\(x, labels\)"):
        cv.ClassProbabilities.of(LogisticRegression())
    with pytest.raises(ValueError, match="no softmax of its linear scores: fit a multinomial"):
        cv.ClassProbabilities.of(SGDClassifier(loss="log_loss", random_state=0).fit(x, labels))  # one versus rest
    one_vs_rest = OneVsRestClassifier(LogisticRegression()).fit(x, labels)
    with pytest.raises(ValueError, match="LogisticRegression") as refused:
        cv.ClassProbabilities.of(one_vs_rest)
    assert "must be fitted" not in str(refused.value)  # for it is


def test_one_versus_rest_of_two_classes_is_a_softmax(rng):
    x, labels = rng.normal(size=(100, 4)), np.arange(100) % 2
    classifier = SGDClassifier(loss="log_loss", random_state=0).fit(x, labels)
    np.testing.assert_allclose(cv.ClassProbabilities.of(classifier)(x), classifier.predict_proba(x), atol=1e-9)


def test_probabilities_of_huge_scores_are_finite():
    f = cv.ClassProbabilities([[1e4], [-1e4]], [0.0, 0.0])
    np.testing.assert_array_equal(f(np.array([[1.0], [-1.0]])), [[1, 0], [0, 1]])
    np.testing.assert_array_equal(f.pullback(np.array([[1.0]]), np.array([[1.0, 0.0]])), [[0.0]])


# --- normalised patches -----------------------------------------------------------------------------------------------

SHAPES = [
    ((4, 4), (2, 2), None),
    ((5, 4), (2, 3), None),
    ((5, 6), (3, 2), 1),
    ((4, 5, 3), (2, 2), 2),
    ((1, 5), (1, 2), 4),
]


@pytest.mark.parametrize(("image_shape", "patch", "stride"), SHAPES)
def test_products_are_mean_correlations_of_patches(image_shape, patch, stride, rng):
    """f(x) . f(y) against Pearson's correlation patch by patch: at the border, with channels, any stride."""
    x, y = rng.normal(size=(2, 5, int(np.prod(image_shape))))
    f = cv.NormalisedPatches(image_shape, patch, stride)
    expected = 1 - np.array(naive_correlation_error(x, y, image_shape, patch, stride))
    np.testing.assert_allclose(f(x) @ f(y).T, expected, atol=1e-13)
    np.testing.assert_allclose((f(x) ** 2).sum(axis=1), 1, rtol=1e-13)


@given(st.integers(0, 2**32 - 1), st.floats(-100, 100), st.floats(1e-3, 1e3), st.sampled_from(SHAPES[:1] + SHAPES[3:4]))
def test_patches_are_blind_to_their_brightness_and_contrast(seed, brightness, contrast, shape):
    """Each tiling patch with its own; slopes are those over the contrast (the chain rule)."""
    rng = np.random.default_rng(seed)
    image_shape, patch, stride = shape
    f = cv.NormalisedPatches(image_shape, patch, stride)
    x = rng.normal(size=(3, *image_shape))
    up = np.ones((3, *image_shape))
    top, left = slice(0, patch[0]), slice(0, patch[1])  # this patch one way, the others another
    moved = 2 * x + 3
    moved[:, top, left] = contrast * x[:, top, left] + brightness
    up *= 2
    up[:, top, left] = contrast
    if image_shape[1] % patch[1]:  # the last column of patches overlaps its neighbour
        moved, up = contrast * x + brightness, np.full_like(up, contrast)
    flat = [array.reshape(3, -1) for array in (x, moved, up)]
    # Brightness is rounded to eps of itself, in units of the contrast of a patch of normal numbers, 0.1 or more.
    tolerance = 100 * EPS * (1 + abs(brightness) / contrast)
    np.testing.assert_allclose(f(flat[1]), f(flat[0]), atol=tolerance)
    df = rng.normal(size=f(flat[0]).shape)
    slopes = f.pullback(flat[0], df)
    np.testing.assert_allclose(
        f.pullback(flat[1], df) * flat[2], slopes, atol=100 * tolerance * (1 + np.abs(slopes).max())
    )


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e6, 1e-12])
def test_constant_patches_are_zero_and_push_nothing(value, rng):
    """0.1 times 9 over 9 is not 0.1: the rounding of the mean is no contrast."""
    x = rng.normal(size=(2, 6, 6)) * (value or 1.0)
    x[0, :3, :3] = value
    x[1] = value
    f = cv.NormalisedPatches((6, 6), (3, 3))
    x = x.reshape(2, -1)
    found = f(x).reshape(2, 4, 9)
    assert np.isfinite(found).all()
    assert (found[0, 0] == 0).all()
    assert (found[1] == 0).all()
    np.testing.assert_allclose((found[0, 1:] ** 2).sum(axis=1), 1 / 4, rtol=1e-12)
    product = f.pullback(x, rng.normal(size=(2, 36)))
    assert np.isfinite(product).all()
    assert (product.reshape(2, 6, 6)[0, :3, :3] == 0).all()
    assert (product[1] == 0).all()
    assert (product.reshape(2, 6, 6)[0, 3:] != 0).all()


def test_patches_that_are_moved_back_to_the_border():
    """Five pixels and patches of two: at 0, 2 and, moved back, 3. All pixels count, the fourth one twice."""
    x = np.array([[0.0, 1.0, 0.0, 1.0, 3.0]])
    f = cv.NormalisedPatches((1, 5), (1, 2))
    np.testing.assert_allclose(f(x), np.array([[-1, 1, -1, 1, -1, 1]]) / np.sqrt(6), rtol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4,), (2, 2)), r"image_shape must be \(height, width\)"),
        (((4, 4, 3, 1), (2, 2)), "image_shape must be"),
        ((16, (2, 2)), "image_shape must be"),
        (((4, 0), (2, 2)), "image_shape must be a whole number"),
        (((4, 4), (5, 2)), r"patch must fit into the image, got \(5, 2\) for images of \(4, 4\)"),
        (((4, 4), (2, 5)), "patch must fit"),
        (((4, 4), (2, 2, 2)), "patch must be a size or"),
        (((4, 4), (1, 1)), "two values or more"),
        (((4, 4), (0, 2)), "patch must be a whole number"),
        (((4, 4), (2, 2), 0), "stride must be a whole number"),
        (((4, 4), (2, 2), 1.5), "stride must be a whole number"),
    ],
)
def test_bad_shapes_of_patches(arguments, message):
    with pytest.raises(ValueError, match=message):
        cv.NormalisedPatches(*arguments)


def test_one_pixel_of_several_channels_is_a_patch(rng):
    assert cv.NormalisedPatches((3, 3, 3), (1, 1))(rng.normal(size=(2, 27))).shape == (2, 27)


def test_images_of_another_size_are_refused(rng):
    with pytest.raises(ValueError, match=r"\(4, 4\) have 16 values, got 15"):
        cv.NormalisedPatches((4, 4), (2, 2))(rng.normal(size=(2, 15)))


# --- what is a feature map --------------------------------------------------------------------------------------------


def test_a_callable_without_its_product_is_told_what_to_supply():
    for value in (np.tanh, lambda x: x**2, cv.LinearFeatures, LogisticRegression):
        with pytest.raises(cv.MissingProductError, match=r"vector-Jacobian product.*product\(x, df\) -> \(n, D\)"):
            as_features(value)
    with pytest.raises(cv.MissingProductError, match="wants two functions"):
        cv.Features(np.tanh, None)
    with pytest.raises(cv.MissingProductError, match="wants two functions"):
        cv.Features(np.eye(2), np.tanh)
    assert issubclass(cv.MissingProductError, ValueError)


def test_a_matrix_is_the_linear_map_and_maps_stay_what_they_are(rng):
    assert isinstance(as_features([[1.0, 2.0]]), cv.LinearFeatures)
    for f in MAPS.values():
        assert as_features(f) is f
    for wrong in ([1.0, 2.0], "cos", [[np.nan]], None):
        with pytest.raises(ValueError, match="features must "):
            as_features(wrong)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (
            cv.Features(lambda x: x.sum(axis=1), lambda x, df: x),
            r"of points of shape \(2, 3\) they are of shape \(2,\)",
        ),
        (cv.Features(lambda x: x[:1], lambda x, df: x), r"shape \(1, 3\), wanted \(2, S\)"),
        (cv.Features(lambda x: x[:, :0], lambda x, df: x), r"shape \(2, 0\), wanted \(2, S\)"),
        (cv.Features(np.tanh, lambda x, df: df[:, :2]), r"product must have the shape \(2, 3\) of x, got \(2, 2\)"),
        (cv.Features(np.tanh, lambda x, df: df.sum()), r"product must have the shape \(2, 3\) of x, got \(\)"),
        (cv.LinearFeatures(np.eye(4)), "features of points of dimension 3 failed"),
        (cv.FourierFeatures.random(4, 8), "features of points of dimension 3 failed"),
        (cv.Features(lambda x: x[:, 5:6], lambda x, df: df), r"wanted \(2, S\)|failed"),
        (cv.Features(lambda x: x[:, 5], lambda x, df: df), "failed"),
    ],
)
def test_features_of_the_wrong_shape(f, message, rng):
    with pytest.raises(ValueError, match=message):
        check_features(f, rng.normal(size=(5, 3)), "FRE")


def test_features_are_counted(rng):
    assert check_features(cv.FourierFeatures.random(3, 8), rng.normal(size=(5, 3)), "FRE") == 8
    one = rng.normal(size=(1, 3))  # a single point will do
    assert check_features(cv.LinearFeatures(np.eye(3)), one, "FRE") == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cv.LinearFeatures([1.0, 2.0]), "matrix must have shape"),
        (lambda: cv.FourierFeatures(np.eye(2), [0.0]), "phases must be 2, one per frequency, got 1"),
        (lambda: cv.FourierFeatures(np.eye(2), [0.0, np.nan]), "phases must be finite"),
        (lambda: cv.FourierFeatures.random(3, 0), "n_features must be a whole number"),
        (lambda: cv.FourierFeatures.random(0, 3), "dim must be a whole number"),
        (lambda: cv.FourierFeatures.random(3, 3, gamma=0), "gamma must be positive"),
        (lambda: cv.FourierFeatures.random(3, 3, seed=-1), "seed must be a whole number"),
        (lambda: cv.ClassProbabilities(np.eye(2), [0.0]), "intercepts must be 2, one per class, got 1"),
        (lambda: cv.ClassProbabilities(np.eye(2), [0.0, 0.0], ["a"]), "classes must be 2, one per intercept"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()
