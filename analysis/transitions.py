"""The phase transitions of a data set: exact and detected temperatures, splits, merges and hysteresis.

    python -m analysis.transitions [--data four_clusters|digits|PATH] [--betas LOW:HIGH:COUNT] ...

From top to bottom: the first two principal coordinates of the distinct reconstructions against beta, with stable
branches solid and unstable branches dotted; the largest eigenvalue of the split condition; the tree of merging
reconstructions; and, for exponential data with free masses, the hysteresis of a first-order transition with its
predicted interval from the cumulants of the data (T13, T16). Writes PNG, PDF and an .npz of every plotted array with
its settings, and prints the table of exact and detected critical temperatures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

import constrained_vae as cv
from analysis import _command
from constrained_vae._utils.defaults import N_TILES
from constrained_vae.cli.data_options import data_of
from constrained_vae.cli.values import beta_grid
from constrained_vae.phases.lineages import Lineages, lineages

_LIMIT = 8  # default for the largest number of transitions
_NEAR = np.geomspace(1e-3, 3e-2, 8)  # relative distances from a transition of additional temperatures
_FAR = 0.25  # a longer step, in units of the radius of the data, leaves a branch
_JUMP = 0.02  # a step is a jump if it is longer than this, in units of the range of the curve, and
_SUDDEN = 10  # its rate is this many times the rate of the step before, far more than at a continuous split
_ROUNDING = 1e-7  # rounding error of an eigenvalue at a transition
_TREE = ("betas", "sites", "starts", "shares")
_EXPONENTIAL = {"n_points": 400, "n_tiles": 16, "count": 160}


def main(argv: Sequence[str] | None = None) -> int:
    options = _command.branch_parser("transitions", __doc__)
    options.add_argument("--limit", type=int, default=_LIMIT, help=f"largest number of transitions (default {_LIMIT})")
    args = options.parse_args(argv)

    def work() -> _command.Computed:
        return compute(
            data_of(args),
            betas=beta_grid(args.betas, least=5),
            n_tiles=args.n_tiles,
            sigma=args.sigma,
            masses=args.masses,
            limit=args.limit,
            seed=args.seed,
            backend=args.backend,
            progress=not args.quiet,
        )

    return _command.run("transitions", work, args.out, draw, table)


def compute(
    data: cv.datasets.DataSet,
    *,
    betas: np.ndarray | None = None,
    n_tiles: int = N_TILES,
    sigma: float = 1.0,
    masses: str = "fixed",
    limit: int = _LIMIT,
    seed: int = 0,
    backend: str = "auto",
    progress: bool = False,
) -> _command.Computed:
    """Every array of the figure, and its settings.

    After Ctrl-C the arrays are those computed so far; before cooling is done KeyboardInterrupt is raised.
    """
    objective, tiling = cv.ELBO(sigma=sigma), cv.Tiling.uniform(n_tiles)
    common: dict[str, Any] = {"weights": data.weights, "masses": masses, "backend": backend}
    if betas is None:
        betas = cv.default_betas(data.x, objective, weights=data.weights, backend=backend)
    found, reached = exact_transitions(data, objective, betas, limit=limit, tiling=tiling, progress=progress, **common)
    near = np.ravel([[t.beta, t.heating_end] for t in found])[:, None] * (1 + np.concatenate([-_NEAR, _NEAR]))
    every = np.union1d(betas, near[(betas[0] < near) & (near < betas[-1])])
    both = cv.sweep(
        data.x, objective, betas=every, tiling=tiling, direction="both", seed=seed, progress=progress, **common
    )
    assert isinstance(both, tuple)
    cooling, heating = both
    if len(cooling) < len(every):
        raise KeyboardInterrupt
    interrupted = len(heating) < len(every)
    on_grid = np.flatnonzero(np.isin(every, betas)[::-1])
    peaks = cv.Branch(tuple(cooling[int(i)] for i in on_grid), "down").peaks(k=None)
    arrays = exact_arrays(found, reached, peaks)
    tree = lineages(cooling)
    arrays |= {f"tree_{name}": getattr(tree, name) for name in _TREE}

    tied: list[cv.Branch] = []
    if not interrupted:
        try:
            tied = [tied_branch(data, objective, t, betas, **common) for t in found]
        except KeyboardInterrupt:
            interrupted = True
    swept = [(cooling, tree)] + ([(heating, lineages(heating))] if len(heating) else [])
    mean, axes = cv.plotting.principal_axes(data.x, data.weights)
    for number, axis in enumerate(axes, start=1):
        solid = [piece for branch, tree in swept for piece in _tracks(branch, tree, mean, axis)]
        dotted: list[np.ndarray] = []
        for branch in tied:
            below, above = _tied_tracks(branch, mean, axis)
            solid, dotted = solid + below, dotted + above
        arrays[f"stable{number}"], arrays[f"unstable{number}"] = _joined(solid), _joined(dotted)
    tops = [_curve(branch, branch.split_condition) for branch, _ in swept]
    arrays["stable_eigenvalue"] = _joined([piece for top in tops for piece in _interrupted(top, _JUMP)])
    arrays["unstable_eigenvalue"] = _joined([_curve(branch, branch.split_condition) for branch in tied])
    if not interrupted:
        try:
            arrays |= hysteresis(backend=backend, progress=progress)
        except KeyboardInterrupt:
            interrupted = True
    settings = {
        "data": data.name,
        "n_points": len(data),
        "dim": int(data.x.shape[1]),
        "n_tiles": n_tiles,
        "sigma": sigma,
        "masses": masses,
        "limit": limit,
        "seed": seed,
        "backend": backend,
        "exponential": _EXPONENTIAL,
        "version": cv.__version__,
        "interrupted": interrupted,
        "converged": cooling.converged and heating.converged and all(b.converged for b in tied),
    }
    return arrays, settings


def exact_transitions(
    data: cv.datasets.DataSet, objective: cv.ELBO, betas: np.ndarray, *, limit: int, **options: Any
) -> tuple[list[cv.Transition], float]:
    """The transitions within a grid, hottest first, and the temperature at which the search for them ended.

    The search ends at the bottom of the grid, or at the last of `limit` transitions. Transitions above the grid count
    too, since the search passes them; so `limit` bounds the work.
    """
    first = cv.first_critical_beta(data.x, objective, weights=data.weights)
    top = max(float(betas[-1]), 1.1 * first)
    found = cv.transitions(data.x, objective, (float(betas[0]), top), limit=limit, **options)
    reached = found[-1].beta if len(found) == limit else float(betas[0])
    return [t for t in found if t.beta <= betas[-1]], reached


def exact_arrays(found: Sequence[cv.Transition], reached: float, peaks: Sequence[cv.Peak]) -> _command.Arrays:
    """The arrays of a table of transitions."""
    return {
        "exact": np.array([(t.beta, t.heating_end, t.jump, t.n_before, t.n_after) for t in found]).reshape(-1, 5),
        "kind": np.array([t.kind for t in found], dtype=str),
        "predicted": np.array([t.predicted or "unknown" for t in found], dtype=str),
        "reached": np.array(reached),
        "peaks": np.array([(p.beta, p.height, *p.bracket) for p in peaks]).reshape(-1, 4),
        "matches": cv.match_peaks(peaks, found),
    }


def tied_branch(
    data: cv.datasets.DataSet, objective: cv.ELBO, transition: cv.Transition, betas: np.ndarray, **common: Any
) -> cv.Branch:
    """The branch before a transition, continued below it with one tile per reconstruction, so that none can split.

    It begins at the transition, and ends where a reconstruction is lost or the solution jumps.
    """
    sites = transition.before.distinct
    masses = sites.masses / sites.masses.sum()
    last = sites.decoder
    left = False

    def has_left(branch: cv.Branch) -> bool:
        nonlocal last, left
        solution = branch[-1]
        moved = np.linalg.norm(solution.decoder - last, axis=1).max()
        left = (
            len(solution.distinct) < len(sites)
            or solution.status is cv.Status.SADDLE_LEFT
            or moved > _FAR * solution.frame.scale
        )
        last = solution.decoder
        return left

    # The transition itself comes first: there the solution with one tile per reconstruction is stable.
    colder = np.append(betas[betas < transition.beta * (1 - _NEAR[0])], transition.beta)
    branch = cv.sweep(
        data.x,
        objective,
        betas=colder,
        tiling=cv.Tiling(masses),
        start=sites.decoder,
        callback=has_left,
        on_failure="return",  # convergence becomes slow near a fold, where a branch may end
        **common,
    )
    assert isinstance(branch, cv.Branch)
    if len(branch) < len(colder) and not left:
        raise KeyboardInterrupt
    return branch[: len(branch) - left]


def hysteresis(
    n_points: int = _EXPONENTIAL["n_points"],
    n_tiles: int = _EXPONENTIAL["n_tiles"],
    count: int = _EXPONENTIAL["count"],
    backend: str = "auto",
    progress: bool = False,
) -> _command.Arrays:
    """The first transition of exponential data with free masses, on cooling and on heating.

    The predicted interval is from the temperature at which the collapsed solution splits, from the covariance (T9), to
    the temperature at which a second reconstruction appears in the global optimum, from the cumulants (T16).
    """
    x = cv.datasets.exponential(n_points).x
    interval = cv.first_critical_beta(x), nucleation_beta(x[:, 0])
    common: dict[str, Any] = {"tiling": cv.Tiling.uniform(n_tiles), "masses": "free", "backend": backend}
    found = cv.transitions(x, beta_range=(0.9 * interval[0], 2 * interval[1]), limit=1, **common)
    betas = np.geomspace(0.8 * interval[0], 1.25 * interval[1], count)
    both = cv.sweep(x, betas=betas, direction="both", progress=progress, **common)
    assert isinstance(both, tuple)
    cooling, heating = both
    if not found or len(heating) < count:
        raise KeyboardInterrupt
    return {
        "cooling": _curve(cooling, cooling.distortion),
        "heating": _curve(heating, heating.distortion),
        "interval": np.array(interval),
        "heating_end": np.array(found[0].heating_end),
    }


def nucleation_beta(y: np.ndarray, sigma: float = 1.0) -> float:
    """beta* = 1 / (2 sigma^2 lambda*) with lambda* = inf t^2 / (4 K(t)), K the cumulant generating function (T16).

    Parameters
    ----------
    y : (N,) array
        Data in one dimension.
    sigma : float
        Standard deviation of the decoder.
    """
    variance, y = y.var(), (y - y.mean()) / y.std()

    def slope(t: float) -> float:
        return float(t**2 / (4 * (logsumexp(t * y) - np.log(len(y)))))

    # Beyond t, K(t) <= t max|y|, so that t^2 / (4 K) >= t / (4 max|y|) exceeds the limit 1/2 at t = 0.
    t = np.geomspace(1e-3, 2 * np.abs(y).max(), 400)
    least = 0.5
    for side in (t, -t):
        i = int(np.argmin([slope(value) for value in side]))
        around = sorted((side[max(i - 1, 0)], side[min(i + 1, len(t) - 1)]))
        least = min(least, minimize_scalar(slope, bounds=around, method="bounded", options={"xatol": 1e-10}).fun)
    return float(variance / (2 * sigma**2 * least))


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    from constrained_vae import plotting

    names = [name for name in ("stable1", "stable2") if name in arrays]
    heights = [1.45] * len(names) + [1.25, 1.35] + [1.75] * ("cooling" in arrays)
    legends = {"legend.fontsize": 7, "legend.handlelength": 1.8, "legend.edgecolor": "none", "legend.borderpad": 0.2}
    with plt.rc_context(_command.STYLE | legends):
        figure = plt.figure(figsize=(3.5, sum(heights) + 0.3), layout="constrained")
        axes = figure.subplots(len(heights), 1, height_ratios=heights)
        shared = axes[: len(names) + 2]
        exact = arrays["exact"][:, 0]
        for name, ax in zip(names, shared, strict=False):
            plotting.bifurcation(arrays[name], arrays[f"un{name}"], exact, ax)
            ax.set_ylabel(f"principal component {name[-1]}\nof $\\psi$  (units of $x$)")
        plotting.split_condition(arrays["stable_eigenvalue"], arrays["unstable_eigenvalue"], exact, shared[-2])
        tree = Lineages(*(arrays[f"tree_{name}"] for name in _TREE))
        plotting.merging_tree(tree, exact, shared[-1])
        for ax in shared:
            ax.set_xlim(tree.betas[0], tree.betas[-1])
        for ax in shared[:-1]:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
        shared[0].legend(loc="lower right", bbox_to_anchor=(1.02, 0.98), ncols=3, columnspacing=1)
        titles = [""] * len(axes)
        if "cooling" in arrays:
            low, high = arrays["interval"]
            plotting.hysteresis(
                arrays["cooling"], arrays["heating"], (low, high), float(arrays["heating_end"]), axes[-1]
            )
            axes[-1].legend(loc="lower right", framealpha=0)
            titles[-1] = "exponential data, free masses"
        for letter, title, ax in zip("abcde", titles, axes, strict=False):
            ax.set_title(rf"$\bf{{{letter}}}$  {title}", loc="left", fontsize=8)
        figure.align_ylabels(axes)
    return figure


def table(arrays: _command.Arrays) -> str:
    """Exact and detected critical temperatures, hottest first, and the hysteresis of exponential data."""
    lines = [
        f"{'exact beta':>13}  {'reconstructions':<17}{'kind':<13}{'predicted':<13}{'heating ends':>13}"
        f"{'detected':>11}{'difference':>12}{'grid step':>11}"
    ]
    for i, j in arrays["matches"]:
        if j >= 0:
            beta, end, _, before, after = arrays["exact"][j]
            left = (
                f"{beta:>13.9g}  {f'{before:.0f} to {after:.0f}':<17}{arrays['kind'][j]:<13}"
                f"{arrays['predicted'][j]:<13}{end:>13.7g}"
            )
        else:
            left = f"{'none' if arrays['peaks'][i, 0] > arrays['reached'] else 'not sought':>13}{'':58}"
        lines.append(f"{left}{detection(arrays, i, j)}".rstrip())
    if not len(arrays["matches"]):
        lines.append(f"{'none':>13}{'':58}{'none':>11}")
    lines += search(arrays, float(arrays["tree_betas"][0]))
    if "interval" in arrays:
        low, high = arrays["interval"]
        end = float(arrays["heating_end"])
        lines.append(
            f"Hysteresis (exponential data, free masses): predicted from beta = {low:.7g} to {high:.7g}; heating ends "
            f"at {end:.7g} ({end / high - 1:+.1e})."
        )
    return "\n".join(lines)


def detection(arrays: _command.Arrays, i: int, j: int) -> str:
    """Columns of a table: detected temperature, its deviation from the exact temperature, step of the grid."""
    if i < 0:
        return f"{'none':>11}"
    beta, _, low, high = arrays["peaks"][i]
    difference = f"{beta / arrays['exact'][j, 0] - 1:>+12.2%}" if j >= 0 else f"{'':12}"
    return f"{beta:>11.6g}{difference}{np.sqrt(high / low) - 1:>11.2%}"


def search(arrays: _command.Arrays, bottom: float) -> list[str]:
    """A remark if the search for exact transitions did not reach the bottom of the grid, else nothing."""
    reached = float(arrays["reached"])
    if reached <= bottom * (1 + 1e-9):
        return []
    return [f"Exact transitions were looked for down to beta = {reached:.6g} only, the limit of their number."]


def _curve(branch: cv.Branch, values: np.ndarray) -> np.ndarray:
    """Points (beta, value), ascending in beta, so that the dots of coinciding dotted curves coincide."""
    order = np.argsort(branch.betas)
    return np.column_stack([branch.betas, values])[order]


def _tracks(branch: cv.Branch, tree: Lineages, mean: np.ndarray, axis: np.ndarray) -> list[np.ndarray]:
    """A coordinate of every reconstruction along its lineage until it merges with another, as curves (m, 2).

    Curves are divided at jumps.
    """
    values = [(s.distinct.decoder - mean) @ axis for s in sorted(branch, key=lambda s: s.beta)]
    shortest = _JUMP * np.ptp(np.concatenate(values))
    pieces = []
    for lineage, sites in enumerate(tree.sites.T):
        begun = np.flatnonzero(sites >= 0)
        joined = begun[(tree.sites[begun, :lineage] == sites[begun, None]).any(axis=1)]
        rows = begun[: len(begun) - len(joined) + 1]
        points = np.column_stack([tree.betas[rows], [values[i][sites[i]] for i in rows]])
        pieces += _interrupted(points, shortest)
    return pieces


def _interrupted(points: np.ndarray, shortest: float) -> list[np.ndarray]:
    """The pieces of a curve (m, 2), ascending in beta, between its jumps: steps that are long and sudden."""
    step = np.abs(np.diff(points[:, 1]))
    rate = step / np.diff(np.log(points[:, 0]))
    jump = (step[1:] > shortest) & (rate[1:] > _SUDDEN * rate[:-1])
    return np.split(points, np.flatnonzero(jump) + 2)


def _tied_tracks(branch: cv.Branch, mean: np.ndarray, axis: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A coordinate of every reconstruction of a tied branch, as stable and unstable pieces."""
    values = np.array([(s.decoder - mean) @ axis for s in branch])
    unstable = _curve(branch, branch.split_condition)[:, 1] > 1 - _ROUNDING
    change = np.flatnonzero(np.diff(unstable)) + 1
    pieces: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for column in values.T:
        for points, rows in zip(np.split(_curve(branch, column), change), np.split(unstable, change), strict=True):
            pieces[int(rows[0])].append(points)
    return pieces


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    """Curves (m, 2) in one array, with rows of NaN between them."""
    gap = np.full((1, 2), np.nan)
    return np.concatenate([part for piece in pieces for part in (piece, gap)][:-1]) if pieces else np.empty((0, 2))


if __name__ == "__main__":
    sys.exit(main())
