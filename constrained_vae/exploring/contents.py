"""What the page of an explorer shows: the branch as numbers that JSON has, from the coldest temperature up."""

from __future__ import annotations

import base64
import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from .._utils.arrays import FloatArray
from ..phases.branch import Branch
from ..phases.criticality import critical_beta
from ..phases.peaks import second_derivative
from ..phases.suggest import Plateau
from ..plotting.solutions import all_rows, principal_axes
from ..results.fixed_point import FixedPoint
from ..spectral.comparison import compare_spectral

_POINTS = 1200  # most data points that are drawn
_SHOWN = 32  # most reconstructions, of largest mass, that are drawn as images
_LABELS = 90  # number of labels that a letter can stand for
_COMPARED = 16  # most temperatures at which a solution is compared with spectral clustering
_CLUSTERS = 12  # most reconstructions for which it is


def contents(
    branch: Branch,
    plateaus: tuple[Plateau, ...],
    image_shape: tuple[int, ...] | None,
    names: tuple[str, ...] | None,
    spectral: bool,
) -> dict[str, Any]:
    """Everything that the page draws. Lists have an entry per temperature unless they are about the data."""
    solutions = [branch.solutions[i] for i in np.argsort(branch.betas, kind="stable")]
    betas, distortion = (np.array([getattr(s, name) for s in solutions]) for name in ("beta", "distortion"))
    x = all_rows(solutions[0])
    drawn = np.sort(np.random.default_rng(0).permutation(len(x))[:_POINTS])
    plane = _Plane(x, solutions[0].weights, names)
    orders = [np.argsort(-_marginal(s), kind="stable") for s in solutions]
    first = critical_beta(solutions[0].problem)
    curvature = second_derivative(np.log(betas), distortion) if len(betas) >= 3 else np.full(len(betas), np.nan)
    points = plane.of(x[drawn])
    return {
        "beta": _rounded(betas),
        "distortion": _rounded(distortion),
        "rate": _rounded(np.array([s.rate for s in solutions])),
        "second": _rounded(np.abs(curvature)),
        "n": [len(order) for order in orders],
        "critical": first if betas[0] <= first <= betas[-1] else None,
        "plateaus": [{"low": p.low, "high": p.high, "n": p.n_reconstructions} for p in plateaus],
        "begin": int(np.abs(betas - plateaus[0].beta).argmin()) if plateaus else len(betas) // 2,
        "points": _rounded(points),
        "extent": _rounded(np.array([points[:, 0].min(), points[:, 0].max(), points[:, 1].min(), points[:, 1].max()])),
        "axes": plane.axes,
        "plane_caption": plane.caption + ("" if len(drawn) == len(x) else f", {len(drawn)} of {len(x)} points"),
        "psi": [_rounded(_weighed(plane, s, order)) for s, order in zip(solutions, orders, strict=True)],
        "labels": [_letters(s, order, x, drawn) for s, order in zip(solutions, orders, strict=True)],
        "agreement": _agreement(solutions) if spectral else [],
        "images": None if image_shape is None else _images(solutions, orders, image_shape),
    }


class _Plane:
    """The plane that is drawn: the first two coordinates, or the first two principal axes of more dimensions."""

    def __init__(self, x: FloatArray, weights: FloatArray, names: tuple[str, ...] | None) -> None:
        dim = x.shape[1]
        self.mean: FloatArray = np.zeros(dim)
        self.basis: FloatArray = np.eye(2, dim)
        if dim > 2:
            self.mean, axes = principal_axes(x, weights)
            self.basis = np.concatenate([axes, np.zeros((2 - len(axes), dim))])
        own = [f"coordinate {n}" for n in (1, 2)] if names is None or dim > 2 else [*names, ""][:2]
        self.axes = ["principal component 1", "principal component 2"] if dim > 2 else own[:dim] + [""] * (2 - dim)
        self.caption = "Data in the colour of their reconstruction; reconstructions, as large as their share"

    def of(self, points: FloatArray) -> FloatArray:
        return np.asarray((points - self.mean) @ self.basis.T)


def _marginal(solution: FixedPoint) -> FloatArray:
    marginal = solution.distinct.marginal
    assert marginal is not None
    return marginal


def _weighed(plane: _Plane, solution: FixedPoint, order: npt.NDArray[np.intp]) -> FloatArray:
    """Places and masses of the distinct reconstructions (k, 3), of largest mass first."""
    sites = solution.distinct
    return np.column_stack([plane.of(sites.decoder[order]), _marginal(solution)[order]])


def _letters(solution: FixedPoint, order: npt.NDArray[np.intp], x: FloatArray, drawn: npt.NDArray[np.intp]) -> str:
    """The reconstruction of every drawn point as a letter; the rank of its mass is the code of the letter less 35."""
    ranks = np.empty(len(order), dtype=np.intp)
    ranks[order] = np.arange(len(order))
    best = [solution.distinct.total(q).argmax(axis=1) for q in solution.encoder_blocks(x[drawn])]
    codes = 35 + ranks[np.concatenate(best)] % _LABELS
    return "".join("#" if code == 92 else chr(code) for code in codes)  # a backslash takes two letters in JSON


def _agreement(solutions: list[FixedPoint]) -> list[list[float]]:
    """Numbers of some temperatures, and adjusted Rand indices with spectral clustering by the posterior there."""
    eligible = [i for i, s in enumerate(solutions) if 1 < len(s.distinct) <= min(_CLUSTERS, len(s.weights) - 1)]
    chosen = sorted({eligible[i] for i in np.linspace(0, len(eligible) - 1, _COMPARED).astype(int)}) if eligible else []
    found: list[list[float]] = []
    for i in chosen:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of partitions that are not determined, which are left out
            value = compare_spectral(solutions[i], affinities=("posterior",)).ari["posterior"]
        found += [[i, round(value, 4)]] if math.isfinite(value) else []
    return found


def _images(solutions: list[FixedPoint], orders: list[npt.NDArray[np.intp]], shape: tuple[int, ...]) -> dict[str, Any]:
    """The reconstructions as grey levels or colours from 0 to 255, in base 64."""
    shown = [s.distinct.decoder[order[:_SHOWN]] for s, order in zip(solutions, orders, strict=True)]
    low, high = min(float(psi.min()) for psi in shown), max(float(psi.max()) for psi in shown)
    levels = [np.round(255 * (psi - low) / ((high - low) or 1.0)).astype(np.uint8) for psi in shown]
    rows = [base64.b64encode(level.tobytes()).decode() for level in levels]
    return {"shape": [*shape, 1][:3], "rows": rows}


def _rounded(values: FloatArray) -> list[Any]:
    """Numbers with five digits, and None for NaN, as nested lists."""
    if values.ndim > 1:
        return [_rounded(row) for row in values]
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values.tolist()]
