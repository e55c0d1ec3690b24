"""The cost of local optima and finite tilings: solutions compared with the certified rate-distortion frontier.

    python -m analysis.frontier [--data four_clusters|rings|digits|PATH] [--betas LOW:HIGH:COUNT] ...

The data are four clusters, rings and 300 digits. Upper panels: the frontier in its certified band, which is mostly
narrower than the line. Lower panels: upper bounds of the distance of solutions from the frontier, in nats (T22). Lines
are annealed solutions, each started from the solution at the temperature before: 8, 32 and 128 uniform tiles, and free
masses with a tile for every data point. No optimum needs more tiles (Lindsay 1983, Ann. Statist. 11), so the excess
with free masses is due to local optima only. Dots are quenched solutions from 20 random starts at data points. Grey is
the gap of the certificate. Writes PNG, PDF and an .npz of every plotted array with its settings, and prints a table.

The frontier is solved at 40 temperatures. Annealed solutions are computed at every second of them, quenched solutions
at every eighth, and with free masses, where they take longest, at the three hottest of these. In annealed solutions
reconstructions split when the solver leaves a saddle. Locating every split, as `sweep` does, leads to branches that are
better at some temperatures and worse at others, and takes far longer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm.auto import tqdm

import constrained_vae as cv
from analysis import _command
from constrained_vae.cli.data_options import DATA, add_data_options, choice_of
from constrained_vae.cli.values import beta_grid
from constrained_vae.datasets.tables import Choice, rechosen

_SETS = ("four_clusters", "rings", "digits")
_DIGITS = 300
_STARTS = 20
_GAP = 1e-6  # nats
_EVERY = 2  # annealed solutions are at every second temperature of the frontier
_RARE = 4  # quenched solutions are at every fourth temperature of the annealed ones
_TOL = 1e-5  # tolerance of solutions, relative to the radius of the data
_FLOOR = 0.3  # lower end of the axis of the excess, in units of the gap
_QUENCHED = {"32": None, "free": 3}  # kinds with quenched solutions, and at how many temperatures, hottest first
COLUMNS = ("beta", "distortion", "rate", "excess", "excess_F", "converged")  # columns of the arrays of solutions
_STYLES: dict[str, dict[str, Any]] = {  # colours of Okabe and Ito, as in constrained_vae.plotting
    "8": {"color": "#E69F00", "ls": "-.", "label": "8 tiles"},
    "32": {"color": "#D55E00", "ls": "--", "label": "32 tiles"},
    "128": {"color": "#009E73", "ls": ":", "label": "128 tiles"},
    "free": {"color": "#0072B2", "ls": "-", "label": "free masses"},
}


def main(argv: Sequence[str] | None = None) -> int:
    args = _options().parse_args(argv)

    def work() -> _command.Computed:
        names = _SETS if args.data is None else (args.data,)
        return compute(
            [_data_set(name, args.seed, choice_of(args)) for name in names],
            betas=beta_grid(args.betas, least=5),
            starts=args.starts,
            gap=args.gap,
            seed=args.seed,
            backend=args.backend,
            progress=not args.quiet,
        )

    return _command.run("frontier", work, args.out, draw, table)


def _options() -> argparse.ArgumentParser:
    result = _command.parser("frontier", __doc__)
    text = f"four_clusters, rings, digits ({_DIGITS} of them); default: these three"
    result.add_argument("--data", help=f"{DATA}; {text}")
    add_data_options(result)
    text = "LOW:HIGH:COUNT, evenly spaced in log beta; default: from one reconstruction to 0.95 of the entropy"
    result.add_argument("--betas", help=text)
    result.add_argument("--starts", type=int, default=_STARTS, help=f"number of random starts (default {_STARTS})")
    result.add_argument("--gap", type=float, default=_GAP, help=f"certified gap in nats (default {_GAP:g})")
    result.add_argument("--seed", type=int, default=0, help="seed of the data sets, and of the first start")
    _command.add_backend(result)
    return result


def _data_set(name: str, seed: int, choice: Mapping[str, Any]) -> cv.datasets.DataSet:
    if name == "digits":
        return rechosen(cv.datasets.digits(_DIGITS), Choice(**choice))
    return cv.datasets.find(name, seed=seed, **choice)


def compute(
    data_sets: Sequence[cv.datasets.DataSet],
    *,
    betas: np.ndarray | None = None,
    starts: int = _STARTS,
    gap: float = _GAP,
    seed: int = 0,
    backend: str = "auto",
    progress: bool = False,
) -> _command.Computed:
    """Every array of the figure, and its settings. After Ctrl-C the arrays are those computed so far.

    For every data set these are the fields of its curve, and a row of `COLUMNS` for every solution. The excess over
    R(D) and the excess of F over its minimum are upper bounds, in nats.
    """
    if starts < 1:
        raise ValueError(f"starts must be a whole number of at least 1, got {starts}")
    arrays: _command.Arrays = {}
    names: list[str] = []
    interrupted = False
    try:
        for data in data_sets:
            for name, values in _parts(data, betas, range(seed, seed + starts), gap, backend, progress):
                arrays[f"{data.name}_{name}"] = values
                if name == "shape":  # the last array that a panel needs
                    names.append(data.name)
    except KeyboardInterrupt:
        interrupted = True
        if not names:
            raise
    arrays |= {"names": np.array(names, dtype=str), "gap": np.array(gap)}
    settings = {
        "data": names,
        "starts": starts,
        "kinds": list(_STYLES),
        "gap": gap,
        "tol": _TOL,
        "seed": seed,
        "backend": backend,
        "version": cv.__version__,
        "interrupted": interrupted,
        "converged": all(bool(a[:, -1].all()) for key, a in arrays.items() if key.endswith(tuple(_STYLES))),
    }
    return arrays, settings


def _parts(
    data: cv.datasets.DataSet, betas: np.ndarray | None, seeds: range, gap: float, backend: str, progress: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """The names and values of the arrays of a data set, one after another as they are computed."""
    common: dict[str, Any] = {"weights": data.weights, "backend": backend, "on_failure": "return"}
    curve = cv.rate_distortion(data.x, betas, gap=gap, progress=progress, **common)
    for name, array in curve.to_arrays().items():
        yield f"curve_{name}", array
    yield "shape", np.array(data.x.shape)
    if not curve.complete:
        raise KeyboardInterrupt
    annealed = curve.betas[::-_EVERY][::-1]  # includes the coldest temperature
    quenched = annealed[::-_RARE][::-1]
    lower = dict(zip(curve.betas, curve.lower, strict=True))
    mean = np.average(data.x, axis=0, weights=data.weights)

    def row(solution: cv.FixedPoint) -> tuple[float, ...]:
        if solution.status is cv.Status.INTERRUPTED:
            raise KeyboardInterrupt
        D, R = solution.distortion, solution.rate
        above = curve.excess(R, D).most, solution.free_energy - lower[solution.beta]
        return (solution.beta, D, R, *above, solution.converged)

    for kind in _STYLES:
        n_tiles = len(data) if kind == "free" else int(kind)
        options = {**common, "tiling": cv.Tiling.uniform(n_tiles), "tol": _TOL}
        options["masses"] = "free" if kind == "free" else "fixed"
        bar: dict[str, Any] = {"desc": f"{data.name}, {kind}", "unit": "beta", "disable": not progress}
        start: Any = np.repeat(mean[None], n_tiles, axis=0)
        rows = []
        for beta in tqdm(annealed, **bar):
            start = cv.solve(data.x, beta=beta, start=start, **options)
            rows.append(row(start))
        yield f"annealed_{kind}", np.array(rows)
        if kind in _QUENCHED:
            rows = []
            for beta in tqdm(quenched[: _QUENCHED[kind]], **bar):
                rows += [row(cv.solve(data.x, beta=beta, start="data", seed=s, **options)) for s in seeds]
            yield f"quenched_{kind}", np.array(rows)


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    from constrained_vae import plotting

    names, gap = arrays["names"].tolist(), float(arrays["gap"])
    floor = _FLOOR * gap
    with plt.rc_context(_command.STYLE | {"font.size": 7, "legend.edgecolor": "none"}):
        figure = plt.figure(figsize=(3.5, 0.5 + 2.5 * len(names)), layout="constrained")
        axes = figure.subplots(2 * len(names), 1, height_ratios=[1.0, 1.5] * len(names))
        for name, upper, lower in zip(names, axes[::2], axes[1::2], strict=True):
            curve = _curve(arrays, name)
            plotting.rate_distortion(curve, ax=upper)
            if upper.get_legend() is not None:
                upper.get_legend().remove()
            unknown = np.maximum(curve.gap, gap)
            lower.fill_between(
                curve.distortion,
                floor,
                unknown,
                color="0.85",
                lw=0,
                label="within the gap",
            )
            for kind, style in _STYLES.items():
                lines: dict[str, Any] = {**style, "lw": 1.2, "zorder": 2.5}
                dots: dict[str, Any] = {"color": style["color"], "marker": "o", "ms": 2.2, "mew": 0, "alpha": 0.6}
                for how, look in (("annealed", lines), ("quenched", dots | {"ls": "none", "zorder": 5})):
                    if found := _solutions(arrays, f"{name}_{how}_{kind}"):
                        upper.plot(found["distortion"], found["rate"], **look)
                        # Nothing is drawn where the solution is at the frontier up to the gap.
                        seen = np.where(found["excess"] > gap, found["excess"], np.nan)
                        lower.plot(found["distortion"], seen, **look)
            n, dim = arrays[f"{name}_shape"]
            how = "" if curve.rigorous.all() else ", heuristic gap"
            upper.set_title(f"{name.replace('_', ' ')}: {n} points, {dim} dimensions{how}", loc="left", fontsize=7)
            upper.set(xlabel="", ylim=(0, None))
            upper.tick_params(labelbottom=False)
            label = r"distortion $D$  (units of $x^2$)"
            lower.set(xscale="log", xlim=upper.get_xlim(), xlabel=label, yscale="log", ylim=(floor, None))
            lower.set_ylabel("nats above the\nfrontier, at most")
        shown = [pair for ax in axes[:2] for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
        legend = {label: handle for handle, label in shown}
        (legend["quenched"],) = axes[1].plot([], [], "o", color="0.4", ms=2.5, mew=0)
        figure.legend(
            legend.values(), legend.keys(), loc="outside upper center", ncols=2, handlelength=2.2, columnspacing=1.2
        )
        figure.align_ylabels(axes)
    return figure


def _curve(arrays: _command.Arrays, name: str) -> cv.RateDistortionCurve:
    prefix = f"{name}_curve_"
    return cv.RateDistortionCurve.from_arrays(
        {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    )


def _solutions(arrays: _command.Arrays, key: str) -> _command.Arrays:
    """The columns of the solutions of a kind by name; empty if these were not computed before Ctrl-C."""
    return dict(zip(COLUMNS, arrays[key].T, strict=True)) if key in arrays else {}


def table(arrays: _command.Arrays) -> str:
    """Median and largest excess of every kind of solution over R(D), and of its F over the minimum of F."""
    lines = [f"{'nats above, at most':38}{'R(D): median':>14}{'largest':>10}{'F: median':>14}{'largest':>10}"]
    for name in arrays["names"]:
        for key in (f"{how}_{kind}" for kind in _STYLES for how in ("annealed", "quenched")):
            if not (found := _solutions(arrays, f"{name}_{key}")):
                continue
            about = f"{name}, {key.replace('_', ', ')}" + (" masses" if key.endswith("free") else " tiles")
            R, F = (f"{np.median(found[column]):>14.2g}{found[column].max():>10.2g}" for column in COLUMNS[3:5])
            lines.append(f"{about:38}{R}{F}")
            if failed := int((found["converged"] == 0).sum()):
                lines.append(f"    {failed} of {len(found['converged'])} did not converge")
        curve = _curve(arrays, name)
        how = "" if curve.rigorous.all() else " (heuristic)"
        lines.append(f"{name}, frontier: gaps up to {curve.gap.max():.1e} nats{how} at {len(curve.betas)} temperatures")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
