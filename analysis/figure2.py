"""Figure 2 of *Taming VAEs*: reconstruction fixed points and phase transitions as beta changes.

    python -m analysis.figure2 [--data four_clusters|digits|PATH] [--betas LOW:HIGH:COUNT] ...

Top: the data, the trajectory of every reconstruction vector under the plain map, and the fixed points, at four
temperatures below, between and above the critical temperatures. Bottom: the expected reconstruction error against beta
and its second derivative, with the exact critical temperatures (grey lines) and the three highest peaks (triangles),
from which the paper detects critical temperatures. Writes PNG, PDF and an .npz of every plotted array with its
settings, and prints the table of exact and detected critical temperatures.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure

import constrained_vae as cv
from analysis import _command
from analysis.transitions import detection, exact_arrays, exact_transitions, search
from constrained_vae._utils.defaults import N_TILES
from constrained_vae.cli.data_options import data_of
from constrained_vae.cli.values import beta_grid
from constrained_vae.phases.peaks import second_derivative

_TOP = 3  # number of marked peaks, as in the paper
_EXACT = 16  # largest number of exact transitions
_EXACT_OF_MANY = 3  # largest number of exact transitions in large data, where each takes seconds
_MANY = 100_000  # data with more entries than this are large
_PANEL_MAPS = 2000  # iterations of the plain map in a panel; the rest of a slower trajectory is not drawn
_DRAWN = 60  # points of a trajectory that are drawn


def main(argv: Sequence[str] | None = None) -> int:
    options = _command.branch_parser("figure2", __doc__)
    text = f"largest number of exact transitions, hottest first (default {_EXACT}, in large data {_EXACT_OF_MANY})"
    options.add_argument("--exact", type=int, help=text)
    args = options.parse_args(argv)

    def work() -> _command.Computed:
        return compute(
            data_of(args),
            betas=beta_grid(args.betas, least=5),
            exact=args.exact,
            n_tiles=args.n_tiles,
            sigma=args.sigma,
            masses=args.masses,
            seed=args.seed,
            backend=args.backend,
            progress=not args.quiet,
        )

    return _command.run("figure2", work, args.out, draw, table)


def compute(
    data: cv.datasets.DataSet,
    *,
    betas: np.ndarray | None = None,
    exact: int | None = None,
    n_tiles: int = N_TILES,
    sigma: float = 1.0,
    masses: str = "fixed",
    seed: int = 0,
    backend: str = "auto",
    progress: bool = False,
) -> _command.Computed:
    """Every array of the figure, and its settings. After Ctrl-C the arrays are those computed so far."""
    objective, tiling = cv.ELBO(sigma=sigma), cv.Tiling.uniform(n_tiles)
    common: dict[str, Any] = {"tiling": tiling, "weights": data.weights, "masses": masses, "backend": backend}
    if betas is None:
        betas = cv.default_betas(data.x, objective, weights=data.weights, backend=backend)
    branch = cv.sweep(data.x, objective, betas=betas, seed=seed, progress=progress, **common)
    assert isinstance(branch, cv.Branch)
    if not len(branch):
        raise KeyboardInterrupt
    order = np.argsort(branch.betas)
    grid, error = branch.betas[order], branch.distortion[order]
    peaks = branch.peaks(k=None) if len(branch) >= 5 else []
    interrupted = len(branch) < len(betas)
    if exact is None:
        exact = _EXACT if data.x.size <= _MANY else _EXACT_OF_MANY
    found: list[cv.Transition] = []
    reached = np.inf
    if not interrupted:
        found, reached = exact_transitions(data, objective, grid, limit=exact, progress=progress, **common)
    arrays = {
        "betas": grid,
        "distortion": error,
        "rate": branch.rate[order],
        "n_distinct": branch.n_distinct[order],
        "second_derivative": second_derivative(grid, error) if len(branch) >= 3 else np.full(len(grid), np.nan),
        **exact_arrays(found, reached, peaks),
        "first_critical_beta": np.array(cv.first_critical_beta(data.x, objective, weights=data.weights)),
    }
    project = _plane(data)
    arrays["points"], arrays["axes"] = project(data.x), _command.plane_names(data)
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
        "exact": exact,
        "seed": seed,
        "backend": backend,
        "panel_maps": _PANEL_MAPS,
        "version": cv.__version__,
        "interrupted": interrupted,
        "converged": branch.converged,
    }
    return arrays, settings


def panel_betas(grid: np.ndarray, critical: np.ndarray) -> list[float]:
    """Temperatures below, between and above the critical ones: geometric means of neighbours, with the grid ends."""
    edges = np.array([grid[0], *np.sort(critical), grid[-1]])
    return [float(np.sqrt(low * high)) for low, high in itertools.pairwise(edges)]


def _add_panels(
    arrays: _command.Arrays,
    data: cv.datasets.DataSet,
    objective: cv.ELBO,
    common: dict[str, Any],
    project: Any,
    seed: int,
) -> None:
    """Add trajectories under the plain map, from starts distributed like the data, and the fixed points they reach."""
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
        # Equal steps in log time show both the fast beginning and the slow end of a trajectory.
        kept = np.unique(np.geomspace(1, len(path), _DRAWN).astype(int)) - 1
        arrays[f"panel{number}_beta"] = np.array(beta)
        arrays[f"panel{number}_plain_maps"] = np.array(plain.n_maps)
        arrays[f"panel{number}_paths"] = np.array(path)[kept]
        arrays[f"panel{number}_fixed_points"] = project(solution.distinct.decoder)


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    from constrained_vae import plotting

    with plt.rc_context(_command.STYLE):
        panels = [n for n in range(4) if f"panel{n}_beta" in arrays]
        width, height = np.ptp(arrays["points"], axis=0) + 0.24 * np.ptp(arrays["points"], axis=0).max()
        heights = [min(1.4 * height / width, 2.5) + 0.65, 2.6]  # inches: a panel of equal scales and its labels; curves
        figure = plt.figure(figsize=(6.5, sum(heights)), layout="constrained")
        top, bottom = cast("np.ndarray", figure.subfigures(2, 1, height_ratios=heights))
        axes = np.atleast_1d(top.subplots(1, max(len(panels), 1), sharex=True, sharey=True))
        names = arrays["axes"].tolist()
        for ax, n in zip(axes, panels, strict=False):
            fixed_points = arrays[f"panel{n}_fixed_points"]
            plotting.flow(arrays["points"], arrays[f"panel{n}_paths"], fixed_points, ax)
            plural = "" if len(fixed_points) == 1 else "s"
            beta = float(arrays[f"panel{n}_beta"])
            ax.set_title(rf"$\beta={beta:.3g}$, {len(fixed_points)} fixed point{plural}", fontsize=8)
            ax.set_xlabel(names[0])
        axes[0].set_ylabel(names[1])
        handles = axes[0].get_legend_handles_labels()
        top.legend(*handles, loc="outside upper center", ncols=3, frameon=False, handletextpad=0.2)
        left, right = bottom.subplots(1, 2)
        betas, exact, peaks = arrays["betas"], arrays["exact"][:, 0], arrays["peaks"][:_TOP]
        plotting.distortion(betas, arrays["distortion"], exact, peaks[:, 0], left)
        if len(exact) or len(peaks):
            left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, handlelength=1.5, edgecolor="none")
        plotting.second_derivative(betas, arrays["second_derivative"], peaks[:, :2].tolist(), exact, right)
    return figure


def table(arrays: _command.Arrays) -> str:
    """Exact and detected critical temperatures, hottest first: all exact ones, and the three highest peaks."""
    lines = [f"{'':8}{'exact beta':>12}  {'kind':<13}{'detected':>11}{'difference':>12}{'grid step':>11}"]
    shown = [(i, j) for i, j in arrays["matches"] if j >= 0 or i < _TOP]
    for i, j in shown:
        name = f"beta_c^{i + 1}" if 0 <= i < _TOP else ""
        if j >= 0:
            exact, kind = f"{arrays['exact'][j, 0]:.9g}", arrays["kind"][j]
        else:
            exact, kind = "none" if arrays["peaks"][i, 0] > arrays["reached"] else "not sought", ""
        lines.append(f"{name:8}{exact:>12}  {kind:<13}{detection(arrays, i, j)}".rstrip())
    if not shown:
        lines.append(f"{'':8}{'none':>12}{'':15}{'none':>11}")
    first = float(arrays["first_critical_beta"])
    if not np.isclose(arrays["exact"][:, 0], first, rtol=1e-6).any():  # above the grid, or not searched for
        lines.append(f"The first critical beta is {first:.9g}, exactly.")
    return "\n".join(lines + search(arrays, float(arrays["betas"][0])))


def _plane(data: cv.datasets.DataSet) -> Any:
    """The projection to the plane of a picture: the first two principal components if D > 2."""
    dim = data.x.shape[1]
    if dim == 2:
        return lambda y: np.array(y)
    if dim == 1:
        return lambda y: np.column_stack([np.asarray(y)[:, 0], np.zeros(len(y))])
    mean, axes = cv.plotting.principal_axes(data.x, data.weights)
    return lambda y: (y - mean) @ axes.T


if __name__ == "__main__":
    sys.exit(main())
