"""Figure 1 of *Taming VAEs* from computed solutions: blurred reconstructions, holes, and manifolds of decoded digits.

    python -m analysis.figure1 [--n-tiles K] [--side M] [--betas B B B] [--n N] ...

Top left: the tiles of a two-dimensional Gaussian latent space. Colours show the posterior supports Omega_i of three of
five data points (the fewest tiles with 95 % of a posterior) and their overlaps. Black is a hole: tiles that no data
point uses. Top right: the data and the reconstructions of the tiles. Reconstructions in an overlap are weighted
averages of the points that share it (lines). The inset shows the reconstructions of the hole at two positions so far
from all data that their posterior mass is zero in double precision. The free energy is the same at both, so nothing
constrains them.

Bottom: digits decoded on a grid of tiles of equal mass in a two-dimensional Gaussian latent space, at three
temperatures (beta and the rate are above each panel). The start is smooth in the latent space: the plane of the first
two principal components. Tiles with a red corner are holes: their posterior mass is less than half of their prior mass.

Writes PNG, PDF and an .npz of every plotted array with its settings, and prints the numbers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.spatial import cKDTree
from scipy.special import ndtri
from tqdm.auto import tqdm

import constrained_vae as cv
from analysis import _command

POINTS = np.array([[-0.8, 0.5], [0.0, 0.65], [0.8, 0.5], [0.95, -1.2], [-0.95, -1.2]])
_SHOWN = 3  # number of points whose supports are shown
_BETA = 0.2  # temperature at which two reconstructions share the second point; each averages two points
_HELD = 0.95  # posterior mass of a support
_SPREAD = 0.7  # length in x of the start per unit of the latent space
_EDGE, _RISE = 1.1, 0.8  # position along _AXIS at which the start leaves the data, and the width of this step
_AXIS = np.array([0.86, 0.51])  # direction in the latent space in which the hole lies
_UNDERFLOW = 745.0  # nats above which exp(-nats) is 0 in double precision
_BETAS = (0.7, 0.2, 0.04)  # temperatures of the digits, in units of the first critical temperature
_TOL = 1e-6  # tolerance for the digits, relative to the radius of the data
_COLORS = ("#0072B2", "#E69F00", "#CC79A7")  # of Okabe and Ito
_REST, _HOLE = "#DDDDDD", "black"


def main(argv: Sequence[str] | None = None) -> int:
    args = _options().parse_args(argv)

    def work() -> _command.Computed:
        return compute(
            n_tiles=args.n_tiles,
            side=args.side,
            betas=args.betas,
            data=_command.images_of(args),
            backend=args.backend,
            progress=not args.quiet,
        )

    return _command.run("figure1", work, args.out, draw, table)


def _options() -> argparse.ArgumentParser:
    result = _command.parser("figure1", __doc__)
    result.add_argument("--n-tiles", type=int, default=1600, help="number of latent tiles at the top (default 1600)")
    result.add_argument("--side", type=int, default=12, help="tiles along a side of the grid of digits (default 12)")
    text = "temperatures of the digits, in units of the first critical temperature (default {} {} {})".format(*_BETAS)
    result.add_argument("--betas", type=float, nargs="+", default=list(_BETAS), help=text)
    _command.add_images(result, "grey images for the bottom")
    _command.add_backend(result)
    return result


def compute(
    *,
    n_tiles: int = 1600,
    side: int = 12,
    betas: Sequence[float] = _BETAS,
    data: cv.datasets.DataSet | None = None,
    backend: str = "auto",
    progress: bool = False,
) -> _command.Computed:
    """Every array of the figure, and its settings.

    After Ctrl-C the arrays are those computed so far; before the top is done KeyboardInterrupt is raised.
    """
    if n_tiles < 100:
        raise ValueError(f"n_tiles must be at least 100, to draw supports by them, got {n_tiles}")
    if side < 2:
        raise ValueError(f"side must be at least 2 tiles, got {side}")
    if not len(betas) or not all(np.isfinite(beta) and beta > 0 for beta in betas):
        raise ValueError(f"betas must be positive numbers, got {list(betas)}")
    data = cv.datasets.digits() if data is None else data
    arrays = overlap_and_hole(n_tiles, backend)
    converged, interrupted, done = True, False, 0
    try:
        first = cv.first_critical_beta(data.x, backend=backend)
        for relative in tqdm(betas, disable=not progress, unit="beta"):
            solution = manifold(data, relative * first, side, backend)
            converged &= solution.converged
            arrays |= _described(solution, done)
            done += 1
    except KeyboardInterrupt:
        interrupted = True
    arrays |= {"image_shape": np.array(data.image_shape), "panels": np.array(done)}
    arrays["levels"] = np.array([data.x.min(), data.x.max()])
    settings = {
        "n_tiles": n_tiles,
        "beta": _BETA,
        "held": _HELD,
        "side": side,
        "betas": [float(beta) for beta in betas],
        "data": data.name,
        "n_points": len(data),
        "backend": backend,
        "version": cv.__version__,
        "interrupted": interrupted,
        "converged": converged,
    }
    return arrays, settings


def overlap_and_hole(n_tiles: int, backend: str) -> _command.Arrays:
    """A solution of five points with supports, blur and a hole, and the solution with the hole decoded elsewhere."""
    tiling = cv.Tiling.gaussian(n_tiles, 2)
    z = cast("np.ndarray", tiling.positions)
    reach = np.sqrt(2 * _BETA * _UNDERFLOW)  # distance d at which exp(-lambda d^2) becomes 0
    out = np.clip((z @ _AXIS - _EDGE) / _RISE, 0, 1)
    rise = out * out * (3 - 2 * out)
    start = _SPREAD * z + 1.2 * reach * rise[:, None] * _AXIS
    options: dict[str, Any] = {"beta": _BETA, "tiling": tiling, "backend": backend}
    solution = _finished(cv.solve(POINTS, start=start, **options))
    dead = solution.marginal == 0
    turned = solution.decoder.copy()
    turned[dead] = turned[dead] @ np.array([[0.0, -1.0], [1.0, 0.0]])  # a quarter turn about the origin
    moved = _finished(cv.solve(POINTS, start=turned, **options))
    q, sites = solution.encoder, solution.distinct
    live = np.flatnonzero(sites.marginal > 0)  # type: ignore[operator]
    joint = np.stack([q[:, sites.index == a].sum(axis=1) for a in live], axis=1) / len(POINTS)  # (N, k)
    found = cv.diagnostics.blur(solution)
    return {
        "points": POINTS,
        "positions": z,
        "dead": dead,
        "start": start,
        "decoder": solution.decoder,
        "supports": np.stack([_support(row, tiling.masses) for row in q]),
        "sites": sites.decoder[live],
        "weights": joint / joint.sum(axis=0),
        "site": np.where(dead, -1, np.searchsorted(live, sites.index)),
        "n_points": found.n_points,
        "moved": moved.decoder[dead],
        "free_energies": np.array([solution.free_energy, moved.free_energy]),
        "marginal_kl": np.array(solution.marginal_kl),
        "reach": np.array(reach),
    }


def _finished(solution: cv.FixedPoint) -> cv.FixedPoint:
    if solution.status is cv.Status.INTERRUPTED:
        raise KeyboardInterrupt
    return solution


def _support(posterior: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """The tiles of highest posterior density with a given share of the posterior, (K,); ties are all in or all out."""
    density = posterior / masses
    order = np.argsort(-density, kind="stable")
    held = np.cumsum(posterior[order])
    last = density[order[np.searchsorted(held, _HELD)]]
    return density >= last * (1 - 1e-6)


def manifold(data: cv.datasets.DataSet, beta: float, side: int, backend: str) -> cv.FixedPoint:
    """The solution for digits with side x side tiles of equal mass, from the plane of two principal components."""
    middle = ndtri((np.arange(side) + 0.5) / side)
    z = np.stack(np.meshgrid(middle, -middle), axis=-1).reshape(-1, 2)  # rows from the top of the picture
    mean, axes = cv.plotting.principal_axes(data.x)
    scale = ((data.x - mean) @ axes.T).std(axis=0)
    tiling = cv.Tiling(np.full(len(z), 1 / len(z)), z)
    start = mean + (z * scale) @ axes
    objective = cv.ELBO(beta=beta)
    found = cv.solve(data.x, objective, tiling=tiling, start=start, tol=_TOL, backend=backend, on_failure="return")
    return _finished(found)


def _described(solution: cv.FixedPoint, number: int) -> _command.Arrays:
    found = cv.diagnostics.blur(solution)
    return {
        f"panel{number}_beta": np.array(solution.beta),
        f"panel{number}_decoder": solution.decoder,
        f"panel{number}_coverage": cv.diagnostics.coverage(solution),
        f"panel{number}_holes": cv.diagnostics.holes(solution),
        f"panel{number}_distinct": np.array(len(solution.distinct)),
        f"panel{number}_rate": np.array(solution.rate),
        f"panel{number}_marginal_kl": np.array(solution.marginal_kl),
        f"panel{number}_n_points": found.n_points,
        f"panel{number}_distance": found.distance,
        f"panel{number}_converged": np.array(solution.converged),
    }


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    panels = int(arrays["panels"])
    columns = min(max(panels, 1), 3)
    rows = -(-panels // columns)
    tile = 6.96 / columns
    heights = [2.95, rows * (tile + 0.3)] if panels else [2.95]
    with plt.rc_context(_command.STYLE | {"font.size": 9}):
        figure = plt.figure(figsize=(7.0, sum(heights)))
        total = sum(heights)
        top = figure.add_gridspec(1, 2, left=0.07, right=0.83, bottom=1 - 2.5 / total, top=1 - 0.25 / total, wspace=0.2)
        axes = cast("np.ndarray", top.subplots())
        _latent(arrays, axes[0])
        _data_space(arrays, axes[1])
        if panels:
            low, high = 0.02 / total, (heights[1] - 0.3) / total
            grid = figure.add_gridspec(
                rows, columns, left=0.005, right=0.995, bottom=low, top=high, wspace=0.03, hspace=0.26
            )
            axes = grid.subplots(squeeze=False).ravel()
            for ax in axes[panels:]:
                ax.set_axis_off()
            for number, ax in enumerate(axes[:panels]):
                _digits(arrays, number, ax)
            handles, labels = axes[panels - 1].get_legend_handles_labels()
            place = (0.995, (heights[1] + 0.08) / total)
            style: dict[str, Any] = {"frameon": False, "fontsize": 8, "handletextpad": 0.1, "borderpad": 0}
            figure.legend(handles, labels, loc="center right", bbox_to_anchor=place, **style)
    return figure


def _latent(arrays: _command.Arrays, ax: Any) -> None:
    """Draw every point of the plane in the colour of its nearest tile; overlaps of supports are striped."""
    reach = 2.9
    side = np.linspace(-reach, reach, 400)
    spots = np.stack(np.meshgrid(side, side), axis=-1)
    tile = cKDTree(arrays["positions"]).query(spots.reshape(-1, 2))[1].reshape(400, 400)
    image = np.empty((400, 400, 3))
    image[:] = to_rgb(_REST)
    inside = [arrays["supports"][i][tile] for i in range(_SHOWN)]
    several = np.sum(inside, axis=0) > 1
    stripe = (np.add.outer(np.arange(400), np.arange(400)) // 9) % 2 == 0
    for i, (support, color) in enumerate(zip(inside, _COLORS, strict=True)):
        lower = np.any(inside[:i], axis=0) if i else np.zeros_like(several)
        image[support & (~several | (stripe if not i else np.where(lower, ~stripe, stripe)))] = to_rgb(color)
    image[arrays["dead"][tile]] = to_rgb(_HOLE)
    image[np.linalg.norm(spots, axis=-1) > reach] = 1
    ax.imshow(image, origin="lower", extent=(-reach, reach, -reach, reach), interpolation="nearest")
    ax.yaxis.labelpad = 0
    ax.set(xlabel="$z_1$  (prior deviations)", ylabel="$z_2$", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
    ax.set_title("latent space", pad=3)
    for text, spot in _labels(arrays):
        color = "white" if text == "hole" else "black"
        style: dict[str, Any] = (
            {} if text == "hole" else {"bbox": {"fc": "white", "ec": "none", "pad": 0.8, "alpha": 0.8}}
        )
        ax.text(*spot, text, ha="center", va="center", fontsize=8, color=color, **style)


def _labels(arrays: _command.Arrays) -> list[tuple[str, np.ndarray]]:
    """The labels of the parts of the latent space, and their positions: the means of their tiles."""
    z, supports = arrays["positions"], arrays["supports"][:_SHOWN]
    parts: _command.Arrays = {}
    for pattern in np.unique(supports.T, axis=0):
        owners = np.flatnonzero(pattern)
        if len(owners):
            name = r" $\cap$ ".join(rf"$\Omega_{i + 1}$" for i in owners)
            parts[name] = (supports == pattern[:, None]).all(axis=0) & ~arrays["dead"]
    rest = ", ".join(rf"$\Omega_{i + 1}$" for i in range(_SHOWN, len(arrays["supports"])))
    parts[rest] = ~supports.any(axis=0) & ~arrays["dead"]
    parts["hole"] = arrays["dead"]
    return [
        (name, z[tiles].mean(axis=0) * (1.15 if name == "hole" else 1.4))
        for name, tiles in parts.items()
        if tiles.any()
    ]


def _data_space(arrays: _command.Arrays, ax: Any) -> None:
    points, sites = arrays["points"], arrays["sites"]
    for a, site in enumerate(sites):
        for i in np.flatnonzero(arrays["weights"][:, a] > 0.1):  # thick lines for large weights
            color = _COLORS[i] if i < _SHOWN else "0.6"
            ax.plot(*np.stack([points[i], site]).T, color=color, lw=3 * arrays["weights"][i, a], zorder=1)
    ax.scatter(*sites.T, s=18, color="#D55E00", edgecolors="white", linewidths=0.5, zorder=3, label="reconstructions")
    colors = [*_COLORS, *["0.6"] * (len(points) - _SHOWN)]
    ax.scatter(*points.T, s=26, marker="s", c=colors, edgecolors="black", linewidths=0.5, zorder=2, label="data")
    for number, point in enumerate(points, start=1):
        ax.annotate(f"$x_{number}$", point, (0, 5), textcoords="offset points", ha="center", fontsize=9)
    ax.set(xlim=(-1.35, 1.35), ylim=(-1.6, 1.1), xticks=(-1, 0, 1), yticks=(-1, 0, 1), aspect="equal")
    ax.set(xlabel="first coordinate of $x$", ylabel="second coordinate of $x$")
    ax.yaxis.labelpad = 0
    ax.set_title("data space", pad=3)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8, handletextpad=0.2)
    inset = ax.inset_axes((1.12, 0.1, 0.42, 0.42))
    wide = np.concatenate([arrays["decoder"][arrays["dead"]], arrays["moved"]])
    inset.scatter(*arrays["decoder"][arrays["dead"]].T, s=2, color=_HOLE, linewidths=0)
    inset.scatter(*arrays["moved"].T, s=3, marker="^", facecolors="none", edgecolors=_HOLE, linewidths=0.3)
    inset.scatter(*points.T, s=3, marker="s", color="#0072B2", linewidths=0)
    low, high = np.minimum(wide.min(axis=0), -3) - 2, np.maximum(wide.max(axis=0), 3) + 2
    inset.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=(0, 20), yticks=(-20, 0))
    inset.tick_params(labelsize=7, length=1.5, pad=1)
    inset.set_title("decoded from\nthe hole", fontsize=8, pad=1.5)
    for side in ("top", "right"):
        inset.spines[side].set_visible(True)


def _digits(arrays: _command.Arrays, number: int, ax: Any) -> None:
    height, width = map(int, arrays["image_shape"])
    images = arrays[f"panel{number}_decoder"]
    side = round(len(images) ** 0.5)
    sheet = images.reshape(side, side, height, width).transpose(0, 2, 1, 3).reshape(side * height, side * width)
    ax.imshow(sheet, cmap="gray_r", vmin=arrays["levels"][0], vmax=arrays["levels"][1], interpolation="nearest")
    empty = arrays[f"panel{number}_holes"]
    ax.scatter(
        (empty % side) * width,
        (empty // side) * height,
        s=9,
        marker="s",
        color="#D55E00",
        linewidths=0,
        zorder=5,
        label="a tile without data, a hole",
    )
    for spine in ax.spines.values():
        spine.set_visible(False)
    for edge in range(1, side):
        ax.axhline(edge * height - 0.5, color="white", lw=0.3)
        ax.axvline(edge * width - 0.5, color="white", lw=0.3)
    ax.set(xticks=[], yticks=[], xlim=(-0.5, side * width - 0.5), ylim=(side * height - 0.5, -0.5))
    beta, rate = float(arrays[f"panel{number}_beta"]), float(arrays[f"panel{number}_rate"])
    title = rf"$\beta$ = {beta:.3g}, {rate:.2f} nats" + f", {int(arrays[f'panel{number}_distinct'])} distinct"
    ax.set_title(title, fontsize=9, pad=3, linespacing=1.1)


def table(arrays: _command.Arrays) -> str:
    """The contents of the figure in numbers."""
    dead, reach = arrays["dead"], float(arrays["reach"])
    before, after = arrays["free_energies"]
    lines = [f"Supports with {_HELD:.0%} of the posterior mass, among {len(dead)} tiles:"]
    for a, site in enumerate(arrays["sites"]):
        shares = ", ".join(f"{w:.3f} x_{i + 1}" for i, w in enumerate(arrays["weights"][:, a]) if w > 0.005)
        tiles = int((arrays["site"] == a).sum())
        lines.append(f"  {tiles:>5} tiles decode to ({site[0]:+.4f}, {site[1]:+.4f}) = {shares}")
    moved = np.linalg.norm(arrays["moved"] - arrays["decoder"][dead], axis=1)
    lines += [
        f"  {int(dead.sum()):>5} tiles, {dead.mean():.1%} of the prior, are a hole: they decode to points more than "
        f"{reach:.1f} away from all data.",
        f"Moving them by {moved.min():.1f} to {moved.max():.1f} changes the free energy of {before:.6f} nats by "
        f"{after - before:.1g}.",
        f"The marginal KL, {float(arrays['marginal_kl']):.4f} nats, is the cost of the hole and of uneven shares.",
        "",
        f"{'beta':>10}{'rate':>9}{'distinct':>10}{'holes':>7}{'marginal KL':>13}{'points averaged':>17}"
        f"{'nearest digit':>15}",
    ]
    for number in range(int(arrays["panels"])):
        panel = {
            key: arrays[f"panel{number}_{key}"]
            for key in ("beta", "rate", "distinct", "holes", "marginal_kl", "n_points", "distance", "converged")
        }
        lines.append(
            f"{float(panel['beta']):>10.4g}{float(panel['rate']):>9.4f}{int(panel['distinct']):>10}"
            f"{len(panel['holes']):>7}{float(panel['marginal_kl']):>13.4f}{np.nanmedian(panel['n_points']):>17.4g}"
            f"{np.median(panel['distance']):>15.4g}" + ("" if panel["converged"] else "  (did not converge)")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
