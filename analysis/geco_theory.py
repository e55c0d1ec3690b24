"""GECO compared with exact results: the linear VAE for many kappas, and a learned tiling beside the fixed point.

    python -m analysis.geco_theory [--seeds S] [--steps T] [--kappa KAPPA] [--n-tiles K] ...

Top: lambda and KL of linear VAEs (means of the last tenth of training) with default settings on Gaussian data with
eigenvalues 4, 2 and 1/2, and the exact curves of section 5 of the theory. Middle: the relative deviations, and the
required 1 % and 2 %; grey lines are transitions, at which a further component becomes active. Bottom: four clusters.
The plane of codes is coloured by the cluster of its reconstruction, paler at a larger distance from the cluster;
circles are one and two standard deviations of the prior. Left: the trained decoder and the means of its posteriors.
Right: the fixed point (T1), (T2) at the learned lambda, for equal tiles that start from the trained decoder. Writes
PNG, PDF and an .npz of every plotted array with its settings, and prints the table of the linear VAE.

The default is three seeds for the table, one seed for all else, and 20000 steps, which takes about two minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.optimize import brentq
from scipy.spatial import cKDTree
from tqdm.auto import tqdm

import constrained_vae as cv
from analysis import _command, _training

EIGENVALUES = (4.0, 2.0, 0.5)
TABLE = (0.3, 1.2, 1.5, 3.0, 5.5)  # kappa^2, total squared errors
_BETWEEN = (0.2, 0.5, 0.8, 2.0, 2.4, 3.8, 4.6, 6.0)
_STEPS, _SEEDS = 20_000, 3
_KAPPA, _TILES = 0.35, 512
_SIDE, _REACH = 161, 3.0  # pixels along a side of the picture of the plane of codes, and its extent
_PURE = 0.5  # distance over which a colour fades
_CLUSTERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # of Okabe and Ito


def main(argv: Sequence[str] | None = None) -> int:
    options = _training.parser("geco_theory", __doc__, steps=_STEPS, seeds=_SEEDS)
    options.add_argument(
        "--kappa", type=float, default=_KAPPA, help=f"threshold for the four clusters (default {_KAPPA})"
    )
    options.add_argument(
        "--n-tiles", type=int, default=_TILES, help=f"number of tiles of the fixed point (default {_TILES})"
    )
    args = options.parse_args(argv)

    def work() -> _command.Computed:
        return compute(
            kappa=args.kappa,
            n_tiles=args.n_tiles,
            steps=args.steps,
            seeds=_training.seeds_from(args.seed, args.seeds),
            progress=not args.quiet,
        )

    return _command.run("geco_theory", work, args.out, draw, table)


def compute(
    *,
    kappa: float = _KAPPA,
    n_tiles: int = _TILES,
    steps: int = _STEPS,
    seeds: Sequence[int] = range(_SEEDS),
    between: Sequence[float] = _BETWEEN,
    progress: bool = False,
) -> _command.Computed:
    """Every array of the figure, and its settings. After Ctrl-C the arrays are those computed so far."""
    tiling = cv.Tiling.gaussian(n_tiles, 2)
    data = cv.datasets.gaussian(EIGENVALUES)
    squared = np.sort([*TABLE, *between])
    arrays: _command.Arrays = {
        "squared_errors": squared,
        "exact": np.array([water_filling(value) for value in squared]),
        "trained": np.full((len(squared), len(seeds), 3), np.nan),
    }
    runs = [(s, k) for s in range(len(seeds)) for k in range(len(squared)) if s == 0 or squared[k] in TABLE]
    interrupted = False
    try:
        for s, k in tqdm(runs, disable=not progress, desc="linear VAE", unit="run"):
            constraint = cv.RE.from_squared_error(squared[k])
            run = _training.trained(data.x, constraint, latent_dim=3, hidden=(), steps=steps, seed=seeds[s])
            lam = run.history.multipliers["RE"]
            arrays["trained"][k, s] = run.multipliers["RE"], run.history.tail().kl.mean(), lam.max() / lam[-1]
        arrays |= tilings(kappa, tiling, steps, seeds[0])
    except KeyboardInterrupt:
        interrupted = True
        if np.isnan(arrays["trained"]).all():
            raise
    settings = _training.settings(
        "gaussian,four_clusters", interrupted, seeds, eigenvalues=EIGENVALUES, kappa=kappa, n_tiles=n_tiles, steps=steps
    )
    return arrays, settings


def water_filling(squared_error: float) -> tuple[float, float]:
    """lambda* and R* of the linear VAE for a total squared error below the variance (section 5 of the theory)."""
    ell = np.array(EIGENVALUES)
    theta = brentq(lambda t: np.minimum(ell, t).sum() - squared_error, 0, ell.max(), xtol=1e-14)
    return float(1 / (2 * theta)), float(0.5 * np.log(np.maximum(ell / theta, 1)).sum())


def tilings(kappa: float, tiling: cv.Tiling, steps: int, seed: int) -> _command.Arrays:
    """The plane of codes under a trained decoder, and under the fixed point that starts from it."""
    data = cv.datasets.four_clusters()
    run = _training.trained(data.x, cv.RE(kappa), steps=steps, seed=seed, **_training.network(data))
    lam = run.multipliers["RE"]
    assert tiling.positions is not None
    start = run.model.decode(tiling.positions)
    solution = cv.solve(data.x, beta=1 / (2 * lam), tiling=tiling, start=start, on_failure="return")
    if solution.status is cv.Status.INTERRUPTED:
        raise KeyboardInterrupt
    best = cv.global_solution(data.x, beta=1 / (2 * lam), on_failure="return")
    side = np.linspace(-_REACH, _REACH, _SIDE)
    plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    nearest = cKDTree(tiling.positions).query(plane)[1]
    centres = np.stack([data.x[data.labels == label].mean(axis=0) for label in range(len(_CLUSTERS))])
    seen = run.evaluate(samples=_training.samples(len(data), 16))
    return {
        "learned_plane": run.model.decode(plane).reshape(_SIDE, _SIDE, 2),
        "fixed_plane": solution.decoder[nearest].reshape(_SIDE, _SIDE, 2),
        "codes": run.model.encode(data.x)[0],
        "labels": np.asarray(data.labels),
        "centres": centres,
        "shares": np.array([_shares(psi, centres) for psi in (start, solution.decoder)]),
        "multiplier": np.array(lam),
        "converged": np.array(solution.converged),
        "distinct": np.array(len(solution.distinct)),
        # Rate, squared error and marginal KL of both; bounds of the smallest F = R + lambda D of all codes.
        "learned": np.array([seen.rate, seen.distortion, seen.marginal_kl]),
        "fixed": np.array([solution.rate, solution.distortion, solution.marginal_kl]),
        "least": np.array([best.certificate.lower, best.certificate.upper]),
    }


def _shares(psi: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The share of equal tiles whose reconstruction is nearest to each cluster."""
    return np.bincount(cKDTree(centres).query(psi)[1], minlength=len(centres)) / len(psi)


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    squared, found = arrays["squared_errors"], arrays["trained"]
    least, most = 0.9 * squared[0], sum(EIGENVALUES)
    line = np.geomspace(least, 0.97 * most, 300)
    exact = np.array([water_filling(value) for value in line])
    transitions = [np.minimum(EIGENVALUES, ell).sum() for ell in EIGENVALUES[1:]]
    names = ((r"$\lambda$  (nats / unit$^2$)", r"$\lambda/\lambda^*-1$  (%)", 1), ("KL  (nats)", r"KL$/R^*-1$  (%)", 2))
    planes = "learned_plane" in arrays
    rows: Any = [["lambda", "kl"], ["lambda off", "kl off"], ["learned", "fixed"]][: 2 + planes]
    with plt.rc_context(_command.STYLE | {"font.size": 7}):
        figure = plt.figure(figsize=(3.5, 3.1 + 1.8 * planes), layout="constrained")
        axes = figure.subplot_mosaic(rows, height_ratios=[1, 0.75, 1.3][: len(rows)])
        dots: dict[str, Any] = {"marker": "o", "ms": 3.2, "mfc": "none", "mec": _training.COLORS["ELBO"], "ls": "none"}
        for q, (name, (label, off_label, percent)) in enumerate(zip(("lambda", "kl"), names, strict=True)):
            ax, off = axes[name], axes[f"{name} off"]
            ax.plot(line, exact[:, q], color="black", lw=1.0, label="exact")
            off.axhspan(-percent, percent, color="0.92", lw=0)
            off.axhline(0, color="0.6", lw=0.8)
            for s in range(found.shape[1]):
                ax.plot(squared, found[:, s, q], **dots, label="" if s else "GECO, linear VAE")
                off.plot(squared, 100 * (found[:, s, q] / arrays["exact"][:, q] - 1), **dots)
            ax.set(ylabel=label, yscale="log", xscale="log")
            off.set(ylabel=off_label, xscale="log", xlabel=r"$\kappa^2$  (unit$^2$)")
            _training.plain(ax.yaxis)
            for each in (ax, off):
                each.set_xlim(least, most)
                _training.plain(each.xaxis)
                for value in transitions:
                    each.axvline(value, color="0.8", lw=0.6, zorder=0)
        axes["lambda"].legend(loc="lower left", frameon=False, fontsize=6, handlelength=1.4)
        if planes:
            _planes(arrays, axes["learned"], axes["fixed"])
    return figure


def _planes(arrays: _command.Arrays, learned: Any, fixed: Any) -> None:
    """Draw both tilings of the plane of codes, with the circles of the prior."""
    turn = np.linspace(0, 2 * np.pi, 200)
    for ax, name in ((learned, "learned"), (fixed, "fixed")):
        image = _colours(arrays[f"{name}_plane"], arrays["centres"])
        ax.imshow(image, origin="lower", extent=(-_REACH, _REACH, -_REACH, _REACH), interpolation="nearest")
        for radius in (1, 2):
            ax.plot(radius * np.cos(turn), radius * np.sin(turn), color="black", lw=0.5, ls=":")
        ax.set(xlabel="$z_1$", xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH), xticks=(-2, 0, 2), yticks=(-2, 0, 2))
    (codes,) = learned.plot(*arrays["codes"].T, ".", ms=1.5, mew=0, color="black", label="codes of the data")
    (circle,) = learned.plot([], [], color="black", lw=0.5, ls=":", label="1 and 2 prior deviations")
    patches = [Patch(color=color, lw=0, label=str(k + 1)) for k, color in enumerate(_CLUSTERS)]
    legend: dict[str, Any] = {"frameon": False, "fontsize": 6, "handlelength": 1.0, "columnspacing": 0.8}
    nearest = {"title": "nearest cluster, paler when farther", "title_fontsize": 6, "ncols": 4}
    learned.figure.legend(handles=patches, loc="outside lower left", **nearest, **legend)
    learned.figure.legend(handles=[codes, circle], loc="outside lower right", **legend)
    learned.set(ylabel="$z_2$")
    learned.set_title("trained decoder", fontsize=7)
    fixed.set_title("fixed point of tiles", fontsize=7)


def _colours(psi: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Colours (n, n, 3) of reconstructions (n, n, 2): of the nearest cluster, paler at a larger distance."""
    distance, nearest = cKDTree(centres).query(psi)
    purity = np.exp(-0.5 * (distance / _PURE) ** 2)[..., None]
    return 1 - (0.15 + 0.75 * purity) * (1 - np.array([to_rgb(color) for color in _CLUSTERS])[nearest])


def table(arrays: _command.Arrays) -> str:
    """The linear VAE compared with section 5 of the theory, and both tilings."""
    lines = [
        f"{'kappa^2':>7}{'lambda*':>10}{'lambda':>22}{'worst':>9}{'R*':>10}{'KL':>22}{'worst':>9}{'excursion':>11}"
    ]
    for k, squared in enumerate(arrays["squared_errors"]):
        (lam, rate), found = arrays["exact"][k], arrays["trained"][k]
        if squared not in TABLE or np.isnan(found).all():
            continue
        off = np.nanmax(np.abs(found[:, :2] / [lam, rate] - 1), axis=0)
        both = [_training.with_error(found[:, q], 5) for q in range(2)]
        excursion = np.nanmax(found[:, 2])
        lines.append(
            f"{squared:>7g}{lam:>10.5f}{both[0]:>22}{off[0]:>9.2%}{rate:>10.5f}{both[1]:>22}{off[1]:>9.2%}"
            f"{excursion:>11.2f}"
        )
    if "learned" not in arrays:
        return "\n".join(lines)
    lam = float(arrays["multiplier"])
    lines.append(f"Four clusters at lambda = {lam:.4g}, theta = {1 / (2 * lam):.4g}:")
    lines.append(f"{'':16}{'KL':>9}{'error':>9}{'marginal':>10}{'KL + lambda D':>15}  share of the prior by cluster")
    for name, text, shares in (("learned", "trained model", 0), ("fixed", "fixed point", 1)):
        rate, error, marginal = arrays[name]
        share = ", ".join(f"{value:.3f}" for value in arrays["shares"][shares])
        lines.append(f"{text:16}{rate:>9.4f}{error:>9.4f}{marginal:>10.4f}{rate + lam * error:>15.4f}  {share}")
    lines.append(f"{'any code':16}{'':28}{arrays['least'][0]:>15.4f}  at least")
    lines.append(f"The fixed point has {int(arrays['distinct'])} reconstructions.")
    if not arrays["converged"]:
        lines.append("The fixed point had not converged.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
