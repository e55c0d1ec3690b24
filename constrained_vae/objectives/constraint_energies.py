"""Energies of the constraints for points in the coordinates of a frame; `constraints` documents their form."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from .._utils.arrays import Array, FloatArray
from ..data.frame import Frame
from .features import FeatureMap


class Energy(Protocol):
    """An energy in the linear form (T4) with multiplier one, for points in the coordinates of a frame."""

    @property
    def mean_curvature(self) -> float: ...
    def statistics(self, x: Array, rows: slice | None = None) -> tuple[Array, Array]: ...
    def readout(self, psi: Array) -> tuple[Array, Array]: ...
    def pullback(self, psi: Array, dv: Array, db: Array) -> Array: ...


@dataclass(frozen=True)
class ScaledSquaredError:
    """The energy factor ||x - psi||^2."""

    factor: float

    @property
    def mean_curvature(self) -> float:
        return 2 * self.factor

    def statistics(self, x: Array, rows: slice | None = None) -> tuple[Array, Array]:
        return x, self.factor * (x * x).sum(axis=1)

    def readout(self, psi: Array) -> tuple[Array, Array]:
        return 2 * self.factor * psi, -self.factor * (psi * psi).sum(axis=1)

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        return 2 * self.factor * (dv - db[:, None] * psi)


@dataclass(frozen=True, eq=False)
class FeatureEnergy:
    """Base class of energies of features f, which are functions of points in the frame."""

    features: FeatureMap
    dim: int

    @classmethod
    def of(cls, features: FeatureMap, frame: Frame) -> Self:
        """The energy for a feature map of points in the units of the data."""
        moved = getattr(features, "in_frame", None)
        return cls(FramedFeatures(features, frame) if moved is None else moved(frame), frame.centre.size)

    @cached_property
    def origin(self) -> FloatArray:
        """f at the origin of the frame, (1, S)."""
        return self.features(np.zeros((1, self.dim)))

    @cached_property
    def mean_curvature(self) -> float:
        """2 tr(F^T F) / D with the Jacobian F of the features at the origin of the frame, from 32 random cotangents."""
        signs = np.random.default_rng(0).choice((-1.0, 1.0), size=(32, self.origin.shape[1]))
        slopes = self.features.pullback(np.zeros((32, self.dim)), signs)
        return 2 * float(np.square(slopes).mean())


@dataclass(frozen=True)
class FramedFeatures:
    """A feature map as a function of points in a frame; its values and products are float64."""

    features: FeatureMap
    frame: Frame

    def __call__(self, x: FloatArray) -> FloatArray:
        f = np.asarray(self.features(self.frame.outward(x)), dtype=np.float64)
        if len(x) > 1 and not np.isfinite(f).all():
            row = int(np.flatnonzero(~np.isfinite(f).all(axis=1))[0])
            raise ValueError(f"features must be finite, got {f[row]} from {self.features!r} in row {row} of a block")
        return f

    def pullback(self, x: FloatArray, df: FloatArray) -> FloatArray:
        return self.frame.scale * np.asarray(self.features.pullback(self.frame.outward(x), df), dtype=np.float64)


class FeatureError(FeatureEnergy):
    """The energy ||f(x) - f(psi)||^2; the value of f at the origin is subtracted from both, for accuracy."""

    def _centred(self, x: Array) -> FloatArray:
        return self.features(x) - self.origin

    def statistics(self, x: Array, rows: slice | None = None) -> tuple[Array, Array]:
        f = self._centred(x)
        return f, (f * f).sum(axis=1)

    def readout(self, psi: Array) -> tuple[Array, Array]:
        f = self._centred(psi)
        return 2 * f, -(f * f).sum(axis=1)

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        return 2 * self.features.pullback(psi, dv - db[:, None] * self._centred(psi))


class LinearError(FeatureEnergy):
    """The energy ||F (x - psi)||^2 of a linear map F; its statistic is x."""

    def statistics(self, x: Array, rows: slice | None = None) -> tuple[Array, Array]:
        f = self.features(x)
        return x, (f * f).sum(axis=1)

    def readout(self, psi: Array) -> tuple[Array, Array]:
        f = self.features(psi)
        return 2 * self.features.pullback(psi, f), -(f * f).sum(axis=1)

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        return 2 * self.features.pullback(psi, self.features(dv) - db[:, None] * self.features(psi))


class SimilarityEnergy(FeatureEnergy):
    """Base class of energies 1 - p(x) . f(psi); the subclass defines the statistic p(x)."""

    def readout(self, psi: Array) -> tuple[Array, Array]:
        return self.features(psi), np.zeros(len(psi))

    def pullback(self, psi: Array, dv: Array, db: Array) -> Array:
        return self.features.pullback(psi, dv)


@dataclass(frozen=True, eq=False)
class ClassError(SimilarityEnergy):
    """The energy 1 - l(x) . c(psi), with the one-hot labels l of the data points."""

    name: str = ""
    classes: npt.NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    def statistics(self, x: Array, rows: slice | None = None) -> tuple[Array, Array]:
        if rows is None:
            raise ValueError(
                f"{self.name} knows the labels of the data points that were solved for, and of no others: use the "
                "attribute `encoder` of the solution for these points"
            )
        one_hot = np.zeros((len(x), self.origin.shape[1]))
        one_hot[np.arange(len(x)), self.classes[rows]] = 1
        return one_hot, np.ones(len(x))


class PatchError(SimilarityEnergy):
    """The energy 1 - f(x) . f(psi), one minus the mean correlation of the normalised patches."""

    def statistics(self, x: Array, rows: slice | None = None) -> tuple[Array, Array]:
        return self.features(x), np.ones(len(x))
