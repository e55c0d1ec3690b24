"""Constraints of Table 1 of *Taming VAEs*: reconstruction error, feature error, classifier accuracy, correlation.

A constraint is C(x, psi) = H(x, psi) - allowance, and it holds if E[C] <= 0. Its energy H has the linear form (T4) with
multiplier one, H(x, psi) = s(x) - b(psi) - phi(x) . v(psi). A new constraint consists of two classes.

The first class is the constraint in the units of the data, a `Constraint`. Its base class `_Constraint` supplies name,
kappa, and None for labelled:

    name, kappa        name in results, and threshold
    allowance          the value of E[H] up to which the constraint holds
    quadratic          True if H is a squared distance of linear maps with phi = x: the weighted mean minimises it
    bounded            True if H alone has a minimiser; otherwise it needs a box or a squared error in addition (T2)
    labelled           number of data points for which H uses more than x, such as labels; None if it uses x alone
    check(x)           raises ValueError if the constraint does not admit the points x
    in_frame(frame)    the energy H as a function of points in the coordinates of the frame, (x - centre) / scale

The second class is this energy, an `Energy`, for N points x and K reconstructions psi in the coordinates of the frame.
The values of H are the same as in the units of the data:

    statistics(x, rows)      phi (N, S) and s (N,); `rows` is the slice of the data that x holds, None for other points
    readout(psi)             v (K, S) and b (K,)
    pullback(psi, dv, db)    gradients (K, D) of dv_a . v(psi_a) + db_a b(psi_a), with constant dv (K, S) and db (K,)
    mean_curvature           mean curvature of H at the origin of the frame: exact if H is a squared distance, otherwise
                             an estimate, which sets the scale of steps

`RE` and `ScaledSquaredError` are the shortest example. The tests compare `pullback` with differences of `readout`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from .._utils.arrays import Array, FloatArray
from .._utils.checks import check_choice, check_names, check_non_negative, check_text
from ..data.frame import Frame
from .constraint_energies import (
    ClassError,
    Energy,
    FeatureError,
    LinearError,
    PatchError,
    ScaledSquaredError,
)
from .features import (
    ClassProbabilities,
    FeatureMap,
    LinearFeatures,
    NormalisedPatches,
    as_features,
    check_features,
)


@runtime_checkable
class Constraint(Protocol):
    """The members that a Lagrangian needs of a constraint; the head of this module documents them.

    Examples
    --------
    >>> isinstance(RE(0.3), Constraint)
    True
    """

    @property
    def name(self) -> str: ...
    @property
    def kappa(self) -> float: ...
    @property
    def allowance(self) -> float: ...
    @property
    def quadratic(self) -> bool: ...
    @property
    def bounded(self) -> bool: ...
    @property
    def labelled(self) -> int | None: ...
    def check(self, x: Array) -> None: ...
    def in_frame(self, frame: Frame) -> Energy: ...


@dataclass(frozen=True, eq=False, repr=False)
class _Constraint:
    """Base class of the constraints, with their common fields: threshold and name in results."""

    kappa: float
    name: str = field(default="", kw_only=True)

    labelled: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kappa", check_non_negative(self.kappa, "kappa"))
        if self.kappa * self.kappa == np.inf:
            raise ValueError(f"kappa must have a square that float64 represents, got {self.kappa}: rescale the data")
        object.__setattr__(self, "name", check_text(self.name, "name") or type(self).__name__)


@dataclass(frozen=True, eq=False, repr=False)
class RE(_Constraint):
    """Reconstruction error: E||x - psi||^2 <= kappa^2, in total or (`reduction="mean"`) per dimension.

    Parameters
    ----------
    kappa : float
        Square root of the allowed squared error, in units of x.
    reduction : {"sum", "mean"}
        Whether squares are summed or averaged over the D dimensions. The multiplier of the mean is D times that of the
        sum.
    name : str
        Name of the constraint in results; "RE" by default.

    Raises
    ------
    ValueError
        If kappa is negative or not finite, or the reduction is unknown.

    Examples
    --------
    >>> RE.from_squared_error(1.5)
    RE(kappa=1.22474: squared error 1.5 in total)
    """

    reduction: str = "sum"

    quadratic = True
    bounded = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.reduction, "reduction", ("sum", "mean"))

    @classmethod
    def from_squared_error(cls, squared_error: float, reduction: str = "sum") -> RE:
        """The constraint E||x - psi||^2 <= squared_error, in squared units of x, in total or per dimension."""
        return cls(float(np.sqrt(check_non_negative(squared_error, "squared_error"))), reduction)

    def __repr__(self) -> str:
        per = "in total" if self.reduction == "sum" else "per dimension"
        return f"RE(kappa={self.kappa:.6g}: squared error {self.allowance:.6g} {per})"

    @property
    def allowance(self) -> float:
        return self.kappa**2

    def check(self, x: Array) -> None:
        pass

    def in_frame(self, frame: Frame) -> ScaledSquaredError:
        return ScaledSquaredError(frame.scale**2 / (frame.centre.size if self.reduction == "mean" else 1))


@dataclass(frozen=True, eq=False, repr=False)
class _Mapped(_Constraint):
    """Base class of constraints on features of reconstructions; `_map` is the feature map."""

    bounded: ClassVar[bool] = True
    quadratic: ClassVar[bool] = False

    @property
    def _map(self) -> FeatureMap:
        raise NotImplementedError

    def check(self, x: FloatArray) -> None:
        check_features(self._map, x, self.name)


@dataclass(frozen=True, eq=False, repr=False)
class FRE(_Mapped):
    """Feature reconstruction error: E||f(x) - f(psi)||^2 <= kappa^2.

    Parameters
    ----------
    kappa : float
        Square root of the allowed squared error, in units of the features.
    features : (S, D) array_like, LinearFeatures, FourierFeatures, Features, torch.nn.Module or other FeatureMap
        The feature map f with its vector-Jacobian product; a matrix stands for the linear map. Of a PyTorch module,
        which gets rows of x, a copy in evaluation mode and float64 is made, and products are its own gradients.
    name : str
        Name of the constraint in results; "FRE" by default.

    Raises
    ------
    ValueError
        If kappa is negative or not finite; when solving, if the features do not fit the data.
    MissingProductError
        If `features` is a callable without vector-Jacobian product.

    Examples
    --------
    >>> FRE(0.5, np.eye(2))
    FRE(kappa=0.5: squared error 0.25 of LinearFeatures(2 x 2))
    """

    features: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "features", as_features(self.features))

    def __repr__(self) -> str:
        return f"FRE(kappa={self.kappa:.6g}: squared error {self.allowance:.6g} of {self.features!r})"

    @property
    def _map(self) -> FeatureMap:
        return cast(FeatureMap, self.features)

    @property
    def allowance(self) -> float:
        return self.kappa**2

    @property
    def quadratic(self) -> bool:  # type: ignore[override]
        return isinstance(self.features, LinearFeatures)

    @cached_property
    def bounded(self) -> bool:  # type: ignore[override]
        """Whether every direction changes the features; assumed for maps that are not linear."""
        matrix = getattr(self.features, "matrix", None)
        return matrix is None or bool(np.linalg.matrix_rank(matrix) == matrix.shape[1])

    def in_frame(self, frame: Frame) -> Energy:
        return (LinearError if self.quadratic else FeatureError).of(self._map, frame)


@dataclass(frozen=True, eq=False, repr=False)
class _Similarity(_Mapped):
    """Base class of constraints E[similarity] >= kappa; similarity = p(x) . f(psi) <= 1, and H = 1 - similarity."""

    bounded = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kappa > 1:
            raise ValueError(f"kappa must be at most 1, the largest {self.name} there is, got {self.kappa}")

    @property
    def allowance(self) -> float:
        return 1 - self.kappa


@dataclass(frozen=True, eq=False, repr=False)
class CLA(_Similarity):
    """Classifier accuracy: E[l(x) . c(psi)] >= kappa, the mean probability of the class of x, given by c at psi.

    Alone it has no minimiser, because the scores of the classifier push psi to infinity. It needs an RE in addition, a
    box or an anchor.

    Parameters
    ----------
    kappa : float
        Smallest accepted mean probability, between 0 and 1.
    classifier : LogisticRegression, Pipeline, ClassProbabilities, Features, torch.nn.Module or other FeatureMap
        The fitted classifier c, which returns the probabilities of the classes. A pipeline of scikit-learn may have any
        linear steps, such as a scaler, before the LogisticRegression. A PyTorch module gets rows of x and
        returns scores, of which the softmax is taken, or probabilities.
    labels : (N,) array_like
        The class of every data point. If the classifier does not name its classes, a label is the number of the class,
        from 0.
    name : str
        Name of the constraint in results; "CLA" by default.

    Raises
    ------
    ValueError
        If kappa is not between 0 and 1, or a label is not a class; when solving, if there is not one label per point.
    MissingProductError
        If `classifier` is a callable without vector-Jacobian product.

    Examples
    --------
    >>> CLA(0.9, ClassProbabilities([[-2.0], [2.0]], [0.0, 0.0]), labels=[0, 1]).labelled  # points
    2
    """

    classifier: Any
    labels: npt.NDArray[Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        classifier = self.classifier
        if hasattr(classifier, "predict_proba"):
            classifier = ClassProbabilities.of(classifier)
        object.__setattr__(self, "classifier", as_features(classifier, "classifier"))
        object.__setattr__(self, "labels", check_names(self.labels, "labels"))
        self._classes  # noqa: B018  (raises ValueError if a label is not a class)

    def __repr__(self) -> str:
        return f"CLA(kappa={self.kappa:.6g}, {self.classifier!r}, {len(self.labels)} labels)"

    @cached_property
    def _classes(self) -> npt.NDArray[np.intp]:
        """The number of the class of every label, (N,)."""
        classes = getattr(self.classifier, "classes", None)
        if classes is None:
            numeric = self.labels.dtype.kind in "biuf"
            with np.errstate(invalid="ignore"):  # NaN and infinity are no classes
                numbers = self.labels.astype(np.intp) if numeric else np.full(len(self.labels), -1)
            wrong = (numbers != self.labels) | (numbers < 0)
        else:
            order = np.argsort(classes)
            place = np.searchsorted(classes, self.labels, sorter=order).clip(0, len(classes) - 1)
            numbers = order[place]
            wrong = classes[numbers] != self.labels
        if wrong.any():
            known = "whole numbers from 0" if classes is None else f"one of {np.asarray(classes).tolist()}"
            raise ValueError(
                f"labels must be classes of the classifier, {known}, got {self.labels[wrong].tolist()[0]!r}"
            )
        return numbers.astype(np.intp, copy=False)

    @property
    def _map(self) -> FeatureMap:
        return cast(FeatureMap, self.classifier)

    @property
    def labelled(self) -> int:  # type: ignore[override]
        return len(self.labels)

    def check(self, x: FloatArray) -> None:
        count = check_features(self._map, x, self.name)
        if self._classes.max() >= count:
            raise ValueError(f"labels go up to class {self._classes.max()}, but the classifier has {count}, from 0")

    def in_frame(self, frame: Frame) -> Energy:
        energy = ClassError.of(self._map, frame)
        return replace(energy, name=self.name, classes=self._classes)


@dataclass(frozen=True, eq=False, repr=False)
class PNCC(_Similarity):
    """Patch normalised cross-correlation: E[NCC] >= kappa, where NCC is the mean correlation of patches of x and psi.

    NCC does not depend on brightness and contrast of the patches. Therefore its maximisers form flat sets, and the
    constraint needs an RE in addition, a box or an anchor. A constant patch has correlation zero with every patch, so
    that the NCC of an image with constant patches with itself is below 1.

    Parameters
    ----------
    kappa : float
        Smallest accepted mean correlation, between 0 and 1.
    image_shape : (H, W) or (H, W, channels)
        Shape of the images; a row of x holds an image in C order.
    patch : int or (int, int)
        Size of a patch.
    stride : int, optional
        Distance of neighbouring patches, by default the size of a patch, so that patches tile the image.
    name : str
        Name of the constraint in results; "PNCC" by default.

    Raises
    ------
    ValueError
        If kappa is not between 0 and 1, or a patch does not fit; when solving, if the rows of x have another size.

    Examples
    --------
    >>> PNCC(0.8, (8, 8), 4).kappa
    0.8
    """

    image_shape: tuple[int, ...]
    patch: int | tuple[int, int]
    stride: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._map  # noqa: B018  (raises ValueError if a patch does not fit)

    def __repr__(self) -> str:
        return f"PNCC(kappa={self.kappa:.6g}, {self._map!r})"

    @cached_property
    def _map(self) -> NormalisedPatches:
        return NormalisedPatches(self.image_shape, cast(Any, self.patch), self.stride)  # accepts a single size

    def check(self, x: FloatArray) -> None:
        if x.shape[1] != np.prod(self._map.image_shape):
            raise ValueError(
                f"image_shape {self._map.image_shape} wants {np.prod(self._map.image_shape)} values in every row of x, "
                f"got {x.shape[1]}"
            )

    def in_frame(self, frame: Frame) -> Energy:
        return PatchError.of(self._map, frame)
