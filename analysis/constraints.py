"""Constraints of *Taming VAEs* at equal rate: digits under RE, FRE, CLA with RE, and PNCC with RE.

    python -m analysis.constraints [--rate NATS] [--n-tiles K] [--n N] [--share S] ...

Top: digits, and their most probable reconstructions under every Lagrangian at the same rate. (The energies are those of
these reconstructions, not of their averages over the posterior.) Bottom: the thresholds kappa that are met, against the
multiplier lambda, from above the first transition (rings) to the matched rate (dots). Writes PNG, PDF and an .npz of
every plotted array with its settings, and prints a table.

Every Lagrangian is annealed at constant ratios of its multipliers; each temperature starts from the solution before it.
The ratio of the multipliers of a pair follows from the energies of the mean of the data, of which the second is a given
share.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from scipy.optimize import brentq
from scipy.spatial.distance import pdist
from sklearn.linear_model import LogisticRegression
from tqdm.auto import tqdm

import constrained_vae as cv
from analysis import _command

NAMES = ("RE", "FRE", "CLA", "PNCC")
_PAIRS = ("CLA", "PNCC")  # constraints that are combined with RE
_TOL = 1e-6  # tolerance of solutions, relative to the radius of the data: far below the resolution of a picture
_ABOVE = 1.1  # first temperature, in units of the first critical temperature
_RATIO = 0.88  # ratio of successive temperatures
_COLDEST = 1e-3  # temperature at which the search for the rate ends, in units of the first critical temperature
_MATCHED = 1e-5  # largest difference from the rate, in nats
_RESOLUTION = 1e-6  # relative difference of two temperatures between which the rate is known to jump
_SHOWN = 10  # digits in a row
_STYLES: dict[str, dict[str, Any]] = {  # colours of Okabe and Ito, as in constrained_vae.plotting
    "RE": {"color": "black", "ls": "-", "lw": 1.4},
    "FRE": {"color": "#009E73", "ls": "-", "lw": 1.4},
    "CLA": {"color": "#D55E00", "ls": "--", "lw": 1.2},
    "PNCC": {"color": "#0072B2", "ls": "-.", "lw": 1.2},
}


def main(argv: Sequence[str] | None = None) -> int:
    args = _options().parse_args(argv)

    def work() -> _command.Computed:
        return compute(
            _command.images_of(args, labelled=True),
            rate=args.rate,
            n_tiles=args.n_tiles,
            share=args.share,
            n_features=args.features,
            patch=args.patch,
            stride=args.stride,
            ratio=args.ratio,
            seed=args.seed,
            backend=args.backend,
            progress=not args.quiet,
        )

    return _command.run("constraints", work, args.out, draw, table)


def _options() -> argparse.ArgumentParser:
    result = _command.parser("constraints", __doc__)
    _command.add_images(result, "grey images with labels")
    result.add_argument("--rate", type=float, default=float(np.log(10)), help="matched rate in nats (default log 10)")
    result.add_argument("--n-tiles", type=int, default=32, help="number of latent tiles (default 32)")
    text = "share of CLA and PNCC in the energy of the mean of the data, the rest is RE (default 0.5)"
    result.add_argument("--share", type=float, default=0.5, help=text)
    result.add_argument(
        "--features", type=int, default=256, help="number of random Fourier features of FRE (default 256)"
    )
    result.add_argument("--patch", type=int, default=4, help="size of the patches of PNCC (default 4)")
    result.add_argument("--stride", type=int, help="distance of the patches (default: their size)")
    text = f"ratio of successive temperatures on cooling (default {_RATIO})"
    result.add_argument("--ratio", type=float, default=_RATIO, help=text)
    result.add_argument("--seed", type=int, default=0, help="seed of the random features")
    _command.add_backend(result)
    return result


def compute(
    data: cv.datasets.DataSet,
    *,
    rate: float = float(np.log(10)),
    n_tiles: int = 32,
    share: float = 0.5,
    n_features: int = 256,
    patch: int = 4,
    stride: int | None = None,
    ratio: float = _RATIO,
    seed: int = 0,
    backend: str = "auto",
    progress: bool = False,
) -> _command.Computed:
    """Every array of the figure, and its settings. After Ctrl-C the arrays are those computed so far."""
    tiling = cv.Tiling.uniform(n_tiles)
    most = np.log(min(n_tiles, len(data)))
    if not 0 < rate < most:
        raise ValueError(
            f"rate must be between 0 and {most:.4g} nats, the largest rate of the tiles and points, got {rate}"
        )
    for name, value in (("share", share), ("ratio", ratio)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}")
    judge = Judge.of(data, n_features, patch, stride, seed)
    shown = _one_of_each_class(data)
    arrays = {
        "rate": np.array(rate),
        "shown": shown,
        "digits": data.x[shown],
        "image_shape": np.array(data.image_shape),
        "levels": np.array([data.x.min(), data.x.max()]),
    }
    common: dict[str, Any] = {"tiling": tiling, "tol": _TOL, "backend": backend, "on_failure": "return"}
    solved: list[str] = []
    converged, interrupted = True, False
    try:
        for name in NAMES:
            followed = _Annealing(data.x, judge.lagrangian(name, share, common), common, ratio, progress, name)
            cooling, matched = followed.to_rate(rate)
            path = [*(s for s in cooling if s.beta > matched.beta), matched]
            betas = np.array([s.beta for s in path])
            # Above the first transition nothing depends on the temperature, so the curve extends up to it.
            known = np.append(followed.first, betas)
            order = np.argsort(-known, kind="stable")
            multipliers = np.array([followed.lagrangian.at(beta).values for beta in known])
            for number, constraint in enumerate(followed.lagrangian.constraints):
                kappa = np.array([judge.met(constraint, s.expected[number]) for s in path])
                curve = np.column_stack([multipliers[:, number], np.append(kappa[0], kappa)])
                arrays[f"{name}_curve{number}"] = curve[order]
            arrays[f"{name}_betas"] = betas
            arrays[f"{name}_rates"] = np.array([s.rate for s in path])
            arrays[f"{name}_first"] = multipliers[0]
            arrays[f"{name}_skipped"] = np.array(followed.skipped)
            arrays[f"{name}_multipliers"] = multipliers[-1]
            arrays[f"{name}_scores"] = np.array(judge.scores(matched))
            arrays[f"{name}_distinct"] = np.array(len(matched.distinct))
            arrays[f"{name}_converged"] = np.array([s.converged for s in path])
            arrays[f"{name}_reconstructions"] = matched.distinct.decoder[matched.labels[shown]]
            converged &= all(s.converged for s in path)
            solved.append(name)
    except KeyboardInterrupt:
        interrupted = True
        if not solved:
            raise
    settings = {
        "data": data.name,
        "n_points": len(data),
        "n_tiles": n_tiles,
        "rate": rate,
        "share": share,
        "n_features": n_features,
        "gamma": judge.gamma,
        "patch": patch,
        "stride": stride,
        "ratio": ratio,
        "classifier_accuracy": judge.accuracy,
        "seed": seed,
        "backend": backend,
        "version": cv.__version__,
        "solved": solved,
        "interrupted": interrupted,
        "converged": converged,
    }
    return arrays, settings


@dataclass(frozen=True, eq=False)
class Judge:
    """The constraints of a data set, with thresholds of zero error or full similarity."""

    x: np.ndarray
    constraints: dict[str, cv.Constraint]
    gamma: float
    accuracy: float

    @classmethod
    def of(cls, data: cv.datasets.DataSet, n_features: int, patch: int, stride: int | None, seed: int) -> Judge:
        """The constraints RE, FRE, CLA and PNCC of a data set.

        FRE uses random features of a Gaussian kernel whose width is the median distance of the data. CLA uses a
        logistic regression that is fitted to the same digits.
        """
        assert data.labels is not None
        assert data.image_shape is not None
        gamma = float(1 / (2 * np.median(pdist(data.x)) ** 2))
        features = cv.FourierFeatures.random(data.x.shape[1], n_features, gamma, seed)
        classifier = LogisticRegression(max_iter=10_000).fit(data.x, data.labels)
        constraints: tuple[cv.Constraint, ...] = (
            cv.RE(0.0, reduction="mean"),
            cv.FRE(0.0, features),
            cv.CLA(1.0, classifier, data.labels),
            cv.PNCC(1.0, data.image_shape, patch, stride),
        )
        accuracy = float(classifier.score(data.x, data.labels))
        return cls(data.x, dict(zip(NAMES, constraints, strict=True)), gamma, accuracy)

    def lagrangian(self, name: str, share: float, common: dict[str, Any]) -> cv.Lagrangian:
        """The Lagrangian with one nat of energy at the mean of the data at beta = 1.

        Constraints without a minimiser of their own (T2) are combined with RE.
        """
        error, chosen = self.constraints["RE"], self.constraints[name]
        # With a single tile, and a multiplier for RE only, the reconstruction is the mean.
        probe = cv.Lagrangian([error, chosen], [1.0, 0.0])
        at_mean = cv.solve(self.x, probe, **{**common, "tiling": cv.Tiling.uniform(1)}).expected
        if chosen.bounded:
            return cv.Lagrangian(chosen, 1 / at_mean[1])
        return cv.Lagrangian([error, chosen], [(1 - share) / at_mean[0], share / at_mean[1]])

    def met(self, constraint: cv.Constraint, excess: float) -> float:
        """The threshold that is met with equality, from E[C] at a threshold of zero error or full similarity."""
        return 1 - excess if constraint.kappa else float(np.sqrt(excess))

    def scores(self, solution: cv.FixedPoint) -> list[float]:
        """The thresholds of all four constraints that a solution of any Lagrangian meets with equality."""
        q, psi = solution.encoder, solution.decoder
        values = []
        for constraint in self.constraints.values():
            energy = constraint.in_frame(cv.Frame.identity(self.x.shape[1]))
            phi, s = energy.statistics(self.x, slice(0, len(self.x)))
            v, b = energy.readout(psi)
            values.append(self.met(constraint, float((q * (s[:, None] - b - phi @ v.T)).sum(axis=1).mean())))
        return values


def _one_of_each_class(data: cv.datasets.DataSet) -> np.ndarray:
    """The first point of each class, in the order of the classes."""
    return np.unique(np.asarray(data.labels), return_index=True)[1][:_SHOWN]


class _Annealing:
    """Solutions of a Lagrangian along the temperature; reconstructions split when they become unstable (T9)."""

    def __init__(
        self, x: np.ndarray, lagrangian: cv.Lagrangian, common: dict[str, Any], ratio: float, progress: bool, name: str
    ) -> None:
        self.x, self.lagrangian, self.common, self.ratio = x, lagrangian, common, ratio
        self.bar = tqdm(desc=name, unit="beta", disable=not progress)
        self.first = cv.first_critical_beta(x, lagrangian, backend=common["backend"])
        self.skipped = False

    def solve(self, beta: float, start: Any) -> cv.FixedPoint:
        solution = cv.solve(self.x, self.lagrangian.at(beta), start=start, **self.common)
        if solution.status is cv.Status.INTERRUPTED:
            raise KeyboardInterrupt
        self.bar.set_postfix_str(f"rate {solution.rate:.4f} nats", refresh=False)
        self.bar.update()
        return solution

    def to_rate(self, rate: float) -> tuple[list[cv.FixedPoint], cv.FixedPoint]:
        """Solutions on cooling until the rate exceeds a given rate, and the solution with that rate or the nearest."""
        with self.bar:
            mean = np.repeat(self.x.mean(axis=0)[None], len(self.common["tiling"]), axis=0)
            cooling = [self.solve(_ABOVE * self.first, mean)]
            while cooling[-1].rate < rate and cooling[-1].beta > _COLDEST * self.first:
                cooling.append(self.solve(self.ratio * cooling[-1].beta, cooling[-1]))
            return cooling, self._matched(cooling[-1], rate)

    def _matched(self, end: cv.FixedPoint, rate: float) -> cv.FixedPoint:
        """The solution with the given rate on heating from the end of cooling.

        On heating reconstructions merge but seldom split, so the rate rarely jumps.
        """
        known = {float(np.log(end.beta)): end}

        def excess(log_beta: float) -> float:
            if log_beta not in known:
                nearest = min(known, key=lambda other: abs(other - log_beta))
                known[log_beta] = self.solve(float(np.exp(log_beta)), known[nearest])
            difference = known[log_beta].rate - rate
            return 0.0 if abs(difference) <= _MATCHED else difference

        low = high = float(np.log(end.beta))
        while excess(high) > 0:
            low, high = high, high - np.log(self.ratio)
        if excess(low) > 0:
            brentq(excess, low, high, xtol=_RESOLUTION)
        matched = min(known.values(), key=lambda s: abs(s.rate - rate))
        self.skipped = abs(matched.rate - rate) > _MATCHED
        return matched


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    solved = [name for name in NAMES if f"{name}_reconstructions" in arrays]
    rows = [arrays["digits"], *(arrays[f"{name}_reconstructions"] for name in solved)]
    heights = [0.48 * len(rows) + 0.05, 3.3]
    with plt.rc_context(_command.STYLE | {"font.size": 7}):
        figure = plt.figure(figsize=(3.5, sum(heights)), layout="constrained")
        top, bottom = cast("np.ndarray", figure.subfigures(2, 1, height_ratios=heights))
        axes = top.subplots(len(rows), 1)
        for ax, images, name in zip(axes, rows, ["", *solved], strict=True):
            _strip(images, tuple(arrays["image_shape"]), arrays["levels"], ax)
            text = (
                _caption(arrays, name)
                if name
                else f"data; below, most probable reconstructions at a rate of {float(arrays['rate']):.3f} nats"
            )
            ax.set_title(text, loc="left", fontsize=6, pad=2)
        _curves(arrays, solved, bottom)
    return figure


def _strip(images: np.ndarray, shape: tuple[int, ...], levels: np.ndarray, ax: Any) -> None:
    """Draw images (n, D) side by side, one pixel apart; white is the least value of the data, and black the largest."""
    height, width = shape
    strip = np.full((height, len(images) * (width + 1) - 1), np.nan)
    for i, image in enumerate(images):
        strip[:, i * (width + 1) : i * (width + 1) + width] = image.reshape(shape)
    ax.imshow(strip, cmap="gray_r", vmin=levels[0], vmax=levels[1], interpolation="nearest", aspect="equal")
    ax.set_axis_off()


def _caption(arrays: _command.Arrays, name: str) -> str:
    """Title of a row of reconstructions: constraints, multipliers and scores."""
    error, _, label, correlation = arrays[f"{name}_scores"]
    multipliers = ", ".join(f"{value:.3g}" for value in arrays[f"{name}_multipliers"])
    bold = " + ".join(rf"$\bf{{{about}}}$" for about in _about(name))
    return rf"{bold}  $\lambda$={multipliers}; pixel error {error:.3f}, label {label:.2f}, NCC {correlation:.2f}"


def _curves(arrays: _command.Arrays, solved: list[str], figure: Any) -> None:
    """Draw lambda against kappa: the error per pixel of every Lagrangian with RE, and each of the other energies."""
    axes = figure.subplot_mosaic([["RE", "RE"], ["FRE", "similarity"]])
    for name in solved:
        for number, about in enumerate(_about(name)):
            ax = axes["similarity" if about in _PAIRS else about]
            curve, color = arrays[f"{name}_curve{number}"], _STYLES[name]["color"]
            ax.plot(*curve.T[::-1], **_STYLES[name], label=name if name == about else f"{name} with {about}")
            alone = name == "FRE"  # its panel has space for the legend of the markers
            ring: dict[str, Any] = {"mfc": "white", "mec": color, "label": "first transition" if alone else ""}
            ax.plot(curve[0, 1], arrays[f"{name}_first"][number], "o", ms=4, ls="none", **ring)
            dot = f"{arrays[f'{name}_rates'][-1]:.3f} nats" if alone else ""
            ax.plot(*curve[-1, ::-1], "o", ms=4, ls="none", color=color, label=dot)
    axes["RE"].set(xlabel=r"threshold $\kappa$: pixel error", ylabel=r"$\lambda$ of RE  (nats / pixel value$^2$)")
    axes["FRE"].set(xlabel=r"$\kappa$: feature error", ylabel=r"$\lambda$ of FRE  (nats)")
    axes["similarity"].set(xlabel=r"$\kappa$: similarity", ylabel=r"$\lambda$ of CLA, PNCC  (nats)")
    for key, place in (("RE", "lower left"), ("FRE", "upper right"), ("similarity", "upper left")):
        ax = axes[key]
        ax.set_yscale("log")
        if ax.lines:
            ax.legend(loc=place, frameon=False, fontsize=6, handlelength=1.6, handletextpad=0.4, borderaxespad=0)
            low, high = ax.get_ylim()
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 6 * low else (1, 1.5, 2, 3, 4, 5, 7)))
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())


def table(arrays: _command.Arrays) -> str:
    """The scores of every Lagrangian at the matched rate, its multipliers and its first transition."""
    lines = [
        f"{'':6}{'lambda':<23}{'rate':>9}{'pixel error':>13}{'feature error':>15}{'label':>8}{'NCC':>8}"
        f"{'distinct':>10}  first transition"
    ]
    for name in (name for name in NAMES if f"{name}_reconstructions" in arrays):
        met, first = (
            ", ".join(f"{about} {value:.4g}" for about, value in zip(_about(name), values, strict=True))
            for values in (arrays[f"{name}_multipliers"], arrays[f"{name}_first"])
        )
        pixel, feature, label, correlation = arrays[f"{name}_scores"]
        lines.append(
            f"{name:6}{met:<23}{arrays[f'{name}_rates'][-1]:>9.5f}{pixel:>13.4f}{feature:>15.4f}{label:>8.3f}"
            f"{correlation:>8.3f}{arrays[f'{name}_distinct']:>10}  {first}"
        )
        if arrays[f"{name}_skipped"]:
            lines.append(f"{'':6}no solution of {float(arrays['rate']):.5f} nats was found: this is the nearest one")
        if failed := int((~arrays[f"{name}_converged"]).sum()):
            lines.append(f"{'':6}{failed} of {len(arrays[f'{name}_converged'])} temperatures did not converge")
    return "\n".join(lines)


def _about(name: str) -> tuple[str, ...]:
    """The names of the constraints of a Lagrangian, in their order."""
    return ("RE", name) if name in _PAIRS else (name,)


if __name__ == "__main__":
    sys.exit(main())
