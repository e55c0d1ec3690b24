"""Feature maps f: R^D -> R^S with their vector-Jacobian products, for the constraints FRE, CLA and PNCC.

A feature map is a callable, f(x) of shape (n, S) for points x of shape (n, D), with a method

    pullback(x, df) -> (n, D)       the vector-Jacobian products df_i . f'(x_i) for cotangents df (n, S)

Both receive NumPy arrays. `Features` combines two functions of your own into a feature map. A feature map may also have
a method `in_frame(frame)`, which returns the same map as a function of points in the coordinates of a `Frame`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from .._utils import memory
from .._utils.arrays import FloatArray
from .._utils.checks import (
    check_array,
    check_count,
    check_image_shape,
    check_moderate,
    check_names,
    check_number,
    check_seed,
    check_vector,
    shown,
)
from ..data.frame import Frame
from .modules import ModuleFeatures, is_module, linear_steps

_CONTRAST_TOL = 1e-6  # a patch of less contrast than this, relative to the largest value of its image, is constant


class MissingProductError(ValueError):
    """A feature map or classifier has no vector-Jacobian product; the message says how to supply it.

    Examples
    --------
    >>> from constrained_vae import FRE, solve_constrained
    >>> solve_constrained([[0.0], [1.0]], FRE(0.1, np.sin))
    Traceback (most recent call last):
    constrained_vae.objectives.features.MissingProductError: ...
    """


@runtime_checkable
class FeatureMap(Protocol):
    """A callable with its vector-Jacobian product.

    Examples
    --------
    >>> isinstance(LinearFeatures([[1.0, 2.0]]), FeatureMap)
    True
    """

    def __call__(self, x: FloatArray, /) -> FloatArray: ...
    def pullback(self, x: FloatArray, df: FloatArray, /) -> FloatArray: ...


@dataclass(frozen=True)
class Features:
    """A feature map that consists of two functions: f and its vector-Jacobian product.

    Parameters
    ----------
    function : callable
        Maps x (n, D) to f(x) (n, S), row by row.
    product : callable
        Maps x (n, D) and df (n, S) to an array (n, D) with the rows df_i . f'(x_i).

    Raises
    ------
    MissingProductError
        If one of the two functions is not callable.

    Examples
    --------
    >>> squares = Features(lambda x: x**2, lambda x, df: 2 * x * df)
    >>> squares.pullback(np.array([[3.0]]), np.array([[1.0]]))
    array([[6.]])
    """

    function: Callable[[FloatArray], Any]
    product: Callable[[FloatArray, FloatArray], Any]

    def __post_init__(self) -> None:
        if not (callable(self.function) and callable(self.product)):
            raise MissingProductError(
                "Features wants two functions, f(x) -> (n, S) and product(x, df) -> (n, D) with rows df_i . f'(x_i), "
                f"got function={shown(self.function)} and product={shown(self.product)}"
            )

    def __call__(self, x: FloatArray) -> FloatArray:
        return np.asarray(self.function(x), dtype=np.float64)

    def pullback(self, x: FloatArray, df: FloatArray) -> FloatArray:
        return np.asarray(self.product(x, df), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class LinearFeatures:
    """Linear features f(x) = A x.

    Parameters
    ----------
    matrix : (S, D) array_like
        The matrix A, in units of the features per unit of x.

    Raises
    ------
    ValueError
        If the matrix is not two-dimensional and finite.

    Examples
    --------
    >>> f = LinearFeatures([[1.0, 2.0]])
    >>> f(np.array([[3.0, 4.0]]))
    array([[11.]])
    >>> f.pullback(np.array([[3.0, 4.0]]), np.array([[1.0]]))  # A^T u
    array([[1., 2.]])
    """

    matrix: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", check_moderate(check_array(self.matrix, "matrix", (None, None)), "matrix"))

    def __repr__(self) -> str:
        return "LinearFeatures({} x {})".format(*self.matrix.shape)

    def in_frame(self, frame: Frame) -> LinearFeatures:
        """The same map, up to a constant, as a function of points in the frame."""
        return LinearFeatures(frame.scale * self.matrix)

    def __call__(self, x: FloatArray) -> FloatArray:
        return x @ self.matrix.T

    def pullback(self, x: FloatArray, df: FloatArray) -> FloatArray:
        return df @ self.matrix


@dataclass(frozen=True, eq=False)
class FourierFeatures:
    """f(x) = sqrt(2 / S) cos(W x + c); with random W and c, f(x) . f(y) approximates a Gaussian kernel.

    Parameters
    ----------
    frequencies : (S, D) array_like
        The frequencies W, in inverse units of x.
    phases : (S,) array_like
        The phases c.

    Raises
    ------
    ValueError
        If there is not one phase per row of finite frequencies.

    Examples
    --------
    >>> f = FourierFeatures([[0.0]], [0.0])  # sqrt(2) cos 0
    >>> f(np.array([[3.0]])).round(6)
    array([[1.414214]])
    """

    frequencies: FloatArray
    phases: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "frequencies",
            check_moderate(check_array(self.frequencies, "frequencies", (None, None)), "frequencies"),
        )
        object.__setattr__(self, "phases", check_moderate(check_vector(self.phases, "phases"), "phases"))
        if len(self.phases) != len(self.frequencies):
            raise ValueError(f"phases must be {len(self.frequencies)}, one per frequency, got {len(self.phases)}")

    def __repr__(self) -> str:
        return "FourierFeatures({} of {} dimensions)".format(*self.frequencies.shape)

    @classmethod
    def random(cls, dim: int, n_features: int = 256, gamma: float = 1.0, seed: int = 0) -> FourierFeatures:
        """Random Fourier features of the kernel exp(-gamma ||x - y||^2) (Rahimi and Recht 2007, NIPS 20).

        Parameters
        ----------
        dim : int
            Dimension of x.
        n_features : int
            Number of features S; the error of the kernel decreases as S^-1/2.
        gamma : float
            Parameter of the kernel, in inverse squared units of x.
        seed : int
            Seed of the random frequencies and phases.

        Raises
        ------
        ValueError
            For bad input.
        """
        rng = np.random.default_rng(check_seed(seed))
        dim = check_count(dim, "dim", most=memory.LARGEST)
        shape = check_count(n_features, "n_features", most=memory.LARGEST // dim), dim
        frequencies = np.sqrt(
            2 * check_number(gamma, "gamma", "positive and at most 1e200", lambda g: 0 < g <= 1e200)
        ) * rng.standard_normal(shape)
        return cls(frequencies, rng.uniform(0, 2 * np.pi, shape[0]))

    def in_frame(self, frame: Frame) -> FourierFeatures:
        """The same map as a function of points in the frame, so that an offset costs no accuracy."""
        phases = self.phases + self.frequencies @ np.broadcast_to(frame.centre, self.frequencies.shape[1])
        return FourierFeatures(frame.scale * self.frequencies, phases % (2 * np.pi))

    def _angles(self, x: FloatArray) -> FloatArray:
        return x @ self.frequencies.T + self.phases

    def __call__(self, x: FloatArray) -> FloatArray:
        return np.sqrt(2 / len(self.phases)) * np.cos(self._angles(x))

    def pullback(self, x: FloatArray, df: FloatArray) -> FloatArray:
        return -np.sqrt(2 / len(self.phases)) * (df * np.sin(self._angles(x))) @ self.frequencies


@dataclass(frozen=True, eq=False)
class ClassProbabilities:
    """Class probabilities softmax(A x + a) of a linear classifier.

    Parameters
    ----------
    coefficients : (S, D) array_like
        The coefficients A, in inverse units of x.
    intercepts : (S,) array_like
        The intercepts a.
    classes : (S,) array_like, optional
        Names of the classes; by default their numbers, from 0.

    Raises
    ------
    ValueError
        If there is not one intercept, and one class, per row of finite coefficients.

    Examples
    --------
    >>> ClassProbabilities([[-1.0], [1.0]], [0.0, 0.0])(np.array([[0.0]]))
    array([[0.5, 0.5]])
    """

    coefficients: FloatArray
    intercepts: FloatArray
    classes: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "coefficients",
            check_moderate(check_array(self.coefficients, "coefficients", (None, None)), "coefficients"),
        )
        object.__setattr__(
            self, "intercepts", check_moderate(check_vector(self.intercepts, "intercepts"), "intercepts")
        )
        if len(self.intercepts) != len(self.coefficients):
            raise ValueError(f"intercepts must be {len(self.coefficients)}, one per class, got {len(self.intercepts)}")
        classes = np.arange(len(self.intercepts)) if self.classes is None else check_names(self.classes, "classes")
        if classes.shape != self.intercepts.shape:
            raise ValueError(f"classes must be {len(self.intercepts)}, one per intercept, got shape {classes.shape}")
        object.__setattr__(self, "classes", classes)

    def __repr__(self) -> str:
        return "ClassProbabilities({} classes, {} dimensions)".format(*self.coefficients.shape)

    @classmethod
    def of(cls, classifier: Any) -> ClassProbabilities:
        """Class probabilities of a fitted scikit-learn `LogisticRegression`, or of a pipeline of linear steps and one.

        Raises
        ------
        ValueError
            If it is not fitted, or if its probabilities are not a softmax of linear scores (one-vs-rest).
        """
        if hasattr(classifier, "steps"):
            last, matrix, offset = linear_steps(classifier)
            own = cls.of(last)
            return cls(own.coefficients @ matrix, own.intercepts + own.coefficients @ offset, own.classes)
        if not hasattr(classifier, "coef_"):
            fitted = hasattr(classifier, "classes_")
            raise ValueError(
                f"classifier must be {'' if fitted else 'fitted, '}a LogisticRegression, got {shown(classifier)}: "
                f"{'' if fitted else 'call its fit(x, labels) first, or '}give Features(probabilities, product)"
            )
        coefficients, intercepts = np.atleast_2d(classifier.coef_), np.ravel(classifier.intercept_)
        intercepts = np.broadcast_to(intercepts, len(coefficients))
        if len(coefficients) == 1:  # two classes, one score
            coefficients = np.concatenate([0 * coefficients, coefficients])
            intercepts = np.concatenate([0 * intercepts, intercepts])
        found = cls(coefficients, intercepts, np.asarray(classifier.classes_))
        at = np.random.default_rng(0).standard_normal((16, coefficients.shape[1]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of names of columns
            given = classifier.predict_proba(at)
        if not np.allclose(found(at), given, rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"the probabilities of {classifier!r} are no softmax of its linear scores: fit a multinomial "
                "LogisticRegression, or give Features(probabilities, product)"
            )
        return found

    def in_frame(self, frame: Frame) -> ClassProbabilities:
        """The same map as a function of points in the frame, so that an offset costs no accuracy."""
        intercepts = self.intercepts + self.coefficients @ np.broadcast_to(frame.centre, self.coefficients.shape[1])
        return ClassProbabilities(frame.scale * self.coefficients, intercepts, self.classes)

    def __call__(self, x: FloatArray) -> FloatArray:
        return np.asarray(softmax(x @ self.coefficients.T + self.intercepts, axis=1))

    def pullback(self, x: FloatArray, df: FloatArray) -> FloatArray:
        c = self(x)
        return (c * (df - (c * df).sum(axis=1, keepdims=True))) @ self.coefficients


@dataclass(frozen=True)
class NormalisedPatches:
    """Centred patches of images, scaled to unit length, so that f(x) . f(y) is the mean correlation of the patches.

    A constant patch becomes zero, so that its correlation with every patch is zero. A patch counts as constant if its
    contrast is below 1e-6 of the largest value of its image. Patches of images with channels contain all channels.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, channels)
        Shape of the images; a row of x holds the pixels of an image in C order.
    patch : (int, int)
        Height and width of a patch.
    stride : int, optional
        Distance of neighbouring patches, by default the size of a patch, so that patches tile the image. If patches do
        not end at the border of the image, one more row or column of patches is added there.

    Raises
    ------
    ValueError
        If the patch does not fit into the image, or holds a single value.

    Examples
    --------
    >>> f = NormalisedPatches((2, 2), (2, 2))
    >>> x = np.array([[0.0, 1.0, 2.0, 3.0]])
    >>> round((f(x) @ f(5 * x + 1).T).item(), 9)  # invariant under brightness and contrast
    1.0
    """

    image_shape: tuple[int, ...]
    patch: tuple[int, int]
    stride: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", check_image_shape(self.image_shape))
        if math.prod(self.image_shape) > memory.LARGEST:
            raise ValueError(f"image_shape must have at most {memory.LARGEST} pixels, got {self.image_shape}")
        patch = tuple(self.patch) if isinstance(self.patch, (tuple, list)) else (self.patch, self.patch)
        if len(patch) != 2:
            raise ValueError(f"patch must be a size or (height, width), got {shown(self.patch)}")
        object.__setattr__(self, "patch", tuple(check_count(n, "patch", most=memory.LARGEST) for n in patch))
        if any(p > n for p, n in zip(self.patch, self.image_shape, strict=False)):
            raise ValueError(f"patch must fit into the image, got {self.patch} for images of {self.image_shape[:2]}")
        if np.prod(self.patch) * (self.image_shape[2] if len(self.image_shape) == 3 else 1) < 2:
            raise ValueError("patch must hold two values or more: a single value minus its mean is always zero")
        if self.stride is not None:
            object.__setattr__(self, "stride", check_count(self.stride, "stride"))

    @cached_property
    def _pixels(self) -> npt.NDArray[np.intp]:
        """Numbers of the pixels of every patch, (P, p)."""
        first = []
        for n, p in zip(self.image_shape, self.patch, strict=False):
            starts = np.arange(0, n - p + 1, self.stride or p)
            first.append(starts if starts[-1] == n - p else np.append(starts, n - p))
        numbers = np.arange(np.prod(self.image_shape)).reshape(self.image_shape)
        patches = [numbers[i : i + self.patch[0], j : j + self.patch[1]].ravel() for i in first[0] for j in first[1]]
        return np.array(patches)

    def _normalised(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Unit patches (n, P, p) and their lengths (n, P, 1), which are infinite for constant patches."""
        if x.shape[1] != np.prod(self.image_shape):
            raise ValueError(
                f"images of shape {self.image_shape} have {np.prod(self.image_shape)} values, got {x.shape[1]}"
            )
        patches = x[:, self._pixels]
        patches = patches - patches.mean(axis=2, keepdims=True)
        length = np.sqrt(np.square(patches).sum(axis=2, keepdims=True))
        constant = length <= _CONTRAST_TOL * np.abs(x).max(axis=1)[:, None, None]
        length = np.where(constant, np.inf, length)
        return patches / length, length

    def __call__(self, x: FloatArray) -> FloatArray:
        unit, _ = self._normalised(x)
        return unit.reshape(len(x), -1) / np.sqrt(len(self._pixels))

    def pullback(self, x: FloatArray, df: FloatArray) -> FloatArray:
        unit, length = self._normalised(x)
        slope = df.reshape(unit.shape)
        slope = slope - unit * (unit * slope).sum(axis=2, keepdims=True)
        slope = (slope - slope.mean(axis=2, keepdims=True)) / length / np.sqrt(len(self._pixels))
        dx = np.zeros_like(x)
        for j, pixels in enumerate(self._pixels.T):  # no pixel has the same position in two patches
            dx[:, pixels] += slope[:, :, j]
        return dx


def as_features(value: Any, name: str = "features") -> FeatureMap:
    """The value if it is a feature map; `LinearFeatures` of a matrix; of a PyTorch module a map with its own gradients.

    Raises
    ------
    MissingProductError
        If the value is a callable without vector-Jacobian product.
    ValueError
        If the value is neither a feature map nor a matrix.
    """
    if isinstance(value, FeatureMap) and not isinstance(value, type):
        return value
    if is_module(value):
        return ModuleFeatures(value, probabilities=name == "classifier")
    if callable(value):
        raise MissingProductError(
            f"{name} must come with its vector-Jacobian product, got {shown(value)}: give Features(function, product) "
            "with product(x, df) -> (n, D), the rows df_i . f'(x_i), or a callable with a method `pullback`"
        )
    return LinearFeatures(check_moderate(check_array(value, name, (None, None)), name))


def check_features(features: FeatureMap, x: FloatArray, name: str) -> int:
    """The number S of features of a map, after a check of its value and its product at one or two points."""
    x = np.array(x[:2], dtype=np.float64)
    try:
        f = features(x)
        shape = np.shape(f)
        if len(shape) != 2 or len(f) != len(x) or not shape[1]:
            raise ValueError(f"of points of shape {x.shape} they are of shape {shape}, wanted ({len(x)}, S)")
        product = np.shape(features.pullback(x, np.ones_like(f)))
    except (ValueError, IndexError, TypeError) as error:
        raise ValueError(f"{name}: features of points of dimension {x.shape[1]} failed: {error}") from error
    if product != x.shape:
        raise ValueError(f"{name}: the vector-Jacobian product must have the shape {x.shape} of x, got {product}")
    if isinstance(features, Features):
        _check_product(features, x, name)
    return int(shape[1])


def _check_product(features: Features, x: FloatArray, name: str) -> None:
    """Raise ValueError if a product disagrees with differences of the function in each of three random directions."""
    rng, wrong = np.random.default_rng(0), []
    for _ in range(3):
        f = features(x)
        direction, df = rng.standard_normal(x.shape), rng.standard_normal(f.shape)
        h = 1e-4 * (1 + np.abs(x).max()) / np.abs(direction).max()
        found = (df * (features(x + h * direction) - features(x - h * direction))).sum(axis=1) / (2 * h)
        given = (direction * features.pullback(x, df)).sum(axis=1)
        wrong.append(np.abs(given - found) > 0.1 * (np.abs(given) + np.abs(found)) + 1e-3)
    if np.all(wrong, axis=0).any():
        raise ValueError(
            f"{name}: the vector-Jacobian product disagrees with finite differences of the function: check "
            "product(x, df), whose rows must be df_i . f'(x_i)"
        )
