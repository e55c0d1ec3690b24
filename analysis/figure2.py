"""Figure 2 of *Taming VAEs*: reconstruction fixed points and phase transitions as beta changes.

    python -m analysis.figure2 [--data four_clusters|digits|PATH] [--betas LOW:HIGH:COUNT] ...

Top: at four temperatures below, between and above the critical ones, the data, the trajectory of every reconstruction
vector under the plain map, and the fixed points. Bottom: expected reconstruction error against beta with the detected
critical temperatures, and its second derivative with the three highest peaks. Writes PNG, PDF and an .npz of every
plotted array with its settings, and prints the table of critical temperatures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure

import constrained_vae as cv
from constrained_vae.detection import second_derivative

_TOP = 3  # peaks that are marked, as in the paper
_PANEL_MAPS = 2000  # of the plain map in a panel; where it is slower than that, the rest of the way is not drawn
_DRAWN = 60  # points of a trajectory that are drawn


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        data = _data(args.data, args.seed)
        betas = None if args.betas is None else _betas(args.betas)
        arrays, settings = compute(
            data,
            betas=betas,
            n_tiles=args.tiles,
            sigma=args.sigma,
            masses=args.masses,
            seed=args.seed,
            backend=args.backend,
            progress=not args.quiet,
        )
    except (ValueError, OSError, ImportError) as error:
        print(f"figure2: {error}", file=sys.stderr)
        return 2
    if len(arrays["betas"]) == 0:
        print("figure2: interrupted before the first temperature was solved: nothing to draw", file=sys.stderr)
        return 130
    write(args.out, arrays, settings)
    print(table(arrays))
    for suffix in ("png", "pdf", "npz"):
        print(f"wrote {args.out}.{suffix}")
    if settings["interrupted"]:
        print("interrupted: this is what had been computed", file=sys.stderr)
        return 130
    return 0


def compute(
    data: cv.datasets.DataSet,
    *,
    betas: np.ndarray | None = None,
    n_tiles: int = 64,
    sigma: float = 1.0,
    masses: str = "fixed",
    seed: int = 0,
    backend: str = "auto",
    progress: bool = False,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Every array of the figure, and the settings it was computed with. Ctrl-C ends it with what there is."""
    objective, tiling = cv.ELBO(sigma=sigma), cv.Tiling.uniform(n_tiles)
    common: dict[str, Any] = {"tiling": tiling, "weights": data.weights, "masses": masses, "backend": backend}
    if betas is None:
        betas = cv.default_betas(data.x, objective, weights=data.weights, backend=backend)
    branch = cv.sweep(data.x, objective, betas=betas, seed=seed, progress=progress, **common)
    assert isinstance(branch, cv.Branch)
    order = np.argsort(branch.betas)
    grid, error = branch.betas[order], branch.distortion[order]
    every_peak = branch.peaks(k=None) if len(branch) >= 5 else []
    arrays = {
        "betas": grid,
        "distortion": error,
        "rate": branch.rate[order],
        "n_distinct": branch.n_distinct[order],
        "second_derivative": second_derivative(grid, error) if len(branch) >= 3 else np.full(len(grid), np.nan),
        "peaks": np.array([(p.beta, p.height, *p.bracket) for p in every_peak]).reshape(-1, 4),
        "first_critical_beta": np.array(cv.first_critical_beta(data.x, objective, weights=data.weights)),
    }
    interrupted = len(branch) < len(betas)
    project = _plane(data.x)
    arrays["points"] = project(data.x)
    if not interrupted:
        try:
            _add_panels(arrays, data, objective, common, project, seed)
        except KeyboardInterrupt:
            interrupted = True
    settings = {
        "data": data.name,
        "n_points": len(data),
        "dim": int(data.x.shape[1]),
        "n_tiles": n_tiles,
        "sigma": sigma,
        "masses": masses,
        "seed": seed,
        "backend": backend,
        "panel_maps": _PANEL_MAPS,
        "version": cv.__version__,
        "interrupted": interrupted,
        "converged": branch.converged,
    }
    return arrays, settings


def panel_betas(grid: np.ndarray, critical: np.ndarray) -> list[float]:
    """Temperatures below, between and above the critical ones: geometric means of neighbours, grid ends included."""
    edges = np.array([grid[0], *np.sort(critical), grid[-1]])
    return [float(np.sqrt(low * high)) for low, high in itertools.pairwise(edges)]


def _add_panels(
    arrays: dict[str, np.ndarray],
    data: cv.datasets.DataSet,
    objective: cv.ELBO,
    common: dict[str, Any],
    project: Any,
    seed: int,
) -> None:
    """Trajectories under the plain map from starts scattered like the data, and the fixed points where they lead."""
    rng = np.random.default_rng(seed)
    mean = np.average(data.x, axis=0, weights=data.weights)
    spread = np.sqrt(np.average((data.x - mean) ** 2, axis=0, weights=data.weights))
    start = mean + spread * rng.standard_normal((len(common["tiling"]), data.x.shape[1]))
    for number, beta in enumerate(panel_betas(arrays["betas"], arrays["peaks"][:_TOP, 0])):
        path = [project(start)]

        def record(iterate: cv.Iterate, path: list[Any] = path) -> None:
            path.append(project(iterate.decoder))

        plain = cv.solve(
            data.x,
            objective.at(beta),
            start=start,
            accelerate="plain",
            max_maps=_PANEL_MAPS,
            callback=record,
            on_failure="return",
            **common,
        )
        solution = plain if plain.converged else cv.solve(data.x, objective.at(beta), start=plain, **common)
        if cv.Status.INTERRUPTED in (plain.status, solution.status):
            raise KeyboardInterrupt
        # Equal steps in log time show the slow end of a trajectory as well as its fast beginning.
        kept = np.unique(np.geomspace(1, len(path), _DRAWN).astype(int)) - 1
        arrays[f"panel{number}_beta"] = np.array(beta)
        arrays[f"panel{number}_plain_maps"] = np.array(plain.n_maps)
        arrays[f"panel{number}_paths"] = np.array(path)[kept]
        arrays[f"panel{number}_fixed_points"] = project(solution.distinct.decoder)


def draw(arrays: dict[str, np.ndarray]) -> Figure:
    """The figure, a function of its arrays alone."""
    import matplotlib.pyplot as plt

    from constrained_vae import plotting

    with plt.rc_context({"font.size": 8, "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False}):
        panels = [n for n in range(4) if f"panel{n}_beta" in arrays]
        width, height = np.ptp(arrays["points"], axis=0) + 0.24 * np.ptp(arrays["points"], axis=0).max()
        heights = [min(1.4 * height / width, 2.5) + 0.65, 2.3]  # inches: a panel of equal scales and its labels; curves
        figure = plt.figure(figsize=(6.5, sum(heights)), layout="constrained")
        top, bottom = cast("np.ndarray", figure.subfigures(2, 1, height_ratios=heights))
        axes = np.atleast_1d(top.subplots(1, max(len(panels), 1), sharex=True, sharey=True))
        for ax, n in zip(axes, panels, strict=False):
            fixed_points = arrays[f"panel{n}_fixed_points"]
            plotting.flow(arrays["points"], arrays[f"panel{n}_paths"], fixed_points, ax)
            plural = "" if len(fixed_points) == 1 else "s"
            beta = float(arrays[f"panel{n}_beta"])
            ax.set_title(rf"$\beta={beta:.3g}$, {len(fixed_points)} fixed point{plural}", fontsize=8)
            ax.set_xlabel(r"$x_1$")
        axes[0].set_ylabel(r"$x_2$")
        left, right = bottom.subplots(1, 2)
        plotting.distortion(arrays["betas"], arrays["distortion"], arrays["peaks"][:_TOP, 0], left)
        marked = arrays["peaks"][:_TOP, :2].tolist()
        plotting.second_derivative(arrays["betas"], arrays["second_derivative"], marked, right)
    return figure


def write(out: Path, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
    """PNG, PDF and the arrays with their settings."""
    out.parent.mkdir(parents=True, exist_ok=True)
    everything: dict[str, Any] = {"settings": np.array(json.dumps(settings)), **arrays}
    np.savez_compressed(f"{out}.npz", **everything)
    figure = draw(arrays)
    figure.savefig(f"{out}.png", dpi=200)
    figure.savefig(f"{out}.pdf")


def table(arrays: dict[str, np.ndarray]) -> str:
    """The table of critical temperatures: the three highest peaks, and the first transition beside its exact value.

    The peak whose grid interval holds the exact first critical temperature is its detection; it has a line of its own
    where it is not among the three highest.
    """
    exact, peaks = float(arrays["first_critical_beta"]), arrays["peaks"]
    lines = [f"{'':8}{'detected':>14}{'grid interval':>26}{'exact':>12}{'difference':>12}"]
    holds = np.flatnonzero((peaks[:, 2] <= exact) & (exact <= peaks[:, 3]))
    first = int(holds[0]) if len(holds) else -1
    for k in [*range(min(_TOP, len(peaks))), *([first] if first >= _TOP else [])]:
        beta, _, low, high = peaks[k]
        name = f"beta_c^{k + 1}" if k < _TOP else "first"
        known = f"{exact:>12.6g}{beta / exact - 1:>+12.2%}" if k == first else ""
        lines.append(f"{name:8}{beta:>14.6g}{f'[{low:.6g}, {high:.6g}]':>26}{known}")
    if first < 0:
        lines.append(f"{'first':8}{'not detected':>14}{'':26}{exact:>12.6g}")
    return "\n".join(lines)


def _plane(x: np.ndarray) -> Any:
    """Coordinates of a picture: as they are in the plane, the first two principal components in more dimensions."""
    dim = x.shape[1]
    if dim == 2:
        return lambda y: np.array(y)
    if dim == 1:
        return lambda y: np.column_stack([np.asarray(y)[:, 0], np.zeros(len(y))])
    mean = x.mean(axis=0)
    axes = np.linalg.svd(x - mean, full_matrices=False)[2][:2]
    axes = axes * np.where(axes[np.arange(2), np.abs(axes).argmax(axis=1)] < 0, -1.0, 1.0)[:, None]
    return lambda y: (y - mean) @ axes.T


def _data(name: str, seed: int) -> cv.datasets.DataSet:
    if name == "four_clusters":
        return cv.datasets.four_clusters(seed=seed)
    if name == "digits":
        return cv.datasets.digits()
    return cv.datasets.load(name)


def _betas(text: str) -> np.ndarray:
    try:
        low, high, count = text.split(":")
        grid = np.geomspace(float(low), float(high), int(count))
    except ValueError:
        raise ValueError(f"--betas wants LOW:HIGH:COUNT with 0 < LOW < HIGH, got {text!r}") from None
    if not (np.isfinite(grid).all() and 0 < grid[0] < grid[-1] and len(grid) >= 5):
        raise ValueError(f"--betas wants LOW:HIGH:COUNT with 0 < LOW < HIGH and at least 5 temperatures, got {text!r}")
    return grid


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis.figure2", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", default="four_clusters", help="four_clusters, digits, or a .npy or .csv file")
    parser.add_argument(
        "--betas", help="LOW:HIGH:COUNT, evenly spaced in log beta; default: the data's own transitions"
    )
    parser.add_argument("--tiles", type=int, default=64, help="number of latent tiles (default 64)")
    parser.add_argument("--sigma", type=float, default=1.0, help="standard deviation of the decoder (default 1)")
    parser.add_argument("--masses", choices=("fixed", "free"), default="fixed", help="prior masses of the tiles")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=("auto", *cv.backends.NAMES), default="auto")
    parser.add_argument("--out", type=Path, default=Path("analysis/figures/figure2"), help="path without its suffix")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(main())
