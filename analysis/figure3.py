"""Figure 3 of *Taming VAEs*: the trajectory of GECO in the information plane, above the exact frontier.

    python -m analysis.figure3 [--data four_clusters|digits|mnist|PATH] [--n N] [--kappa RMS] [--steps T] ...

Top: squared error and KL during training, with the step in colour, above the rate-distortion function of the same data,
which no model can be below (T22). The ring is the trained model on all data. Bottom: the equivalent beta for a decoder
with sigma = kappa, and the root mean square error per dimension. All values are means over windows of steps that grow
with time. Writes PNG, PDF and an .npz of every plotted array with its settings.

The default is four clusters, two latent dimensions and 20000 steps, which takes a quarter of a minute. `--data digits`
takes 300 digits and at most half a minute.

With `--model convdraw` the same is drawn for a network of images on MNIST-rotate, a conditional ConvDRAW in PyTorch:

    python -m analysis.figure3 --model convdraw [--data mnist-rotate|mnist|colour-mnist|PATH] [--compare] [--jobs 2] ...

The model is trained on MNIST of 16 x 16 pixels; `--compare` adds the model that does not see the context. lambda starts
at beta = 1. 1500 steps take about two minutes of one core for each model. Each run is kept in the folder --runs: a
finished one is read, an interrupted one is continued, and --budget sets a time after which no further one starts. The
settings, the metrics and the versions of all runs are written beside the figure, as .json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import constrained_vae as cv
from analysis import _command, _image_training, _training
from constrained_vae.cli.data_options import choice_of

_KAPPA = {"four_clusters": 0.25}  # root mean square error per dimension
_SOME = 300  # default number of images, since their frontier takes long
_IN_PLANE, _ELSEWHERE = 40, 12  # number of temperatures of the frontier, in two dimensions and in more
_COLDEST = 0.125  # lowest of these temperatures, in units of kappa^2: about where a linear code meets the constraint
_SHOWN = 0.05  # smallest squared error that is drawn, in units of kappa^2 D
_GAP, _WIDE = 1e-3, 2e-2  # certified gap of the frontier in nats, in two dimensions and in more


def main(argv: Sequence[str] | None = None) -> int:
    options = _training.parser("figure3", __doc__, steps=20_000)
    _training.add_data(options, "four_clusters", f"{_SOME} of images")
    options.add_argument("--kappa", type=float, help="root mean square error per dimension (default 0.25, images 0.1)")
    options.add_argument("--compare", action="store_true", help="with --model, also the model without its context")
    args = _image_training.parsed(options, "figure3", argv, data="mnist-rotate", steps=_image_training.STEPS)
    if args.model is not None:
        from analysis import _image_figure3

        return _image_figure3.run(args)
    if args.compare:
        options.error("--compare needs --model")
    some = _SOME if args.data in ("digits", "mnist") and args.n is None else args.n

    def work() -> _command.Computed:
        data = _training.data_set(args.data, some, choice_of(args))
        return compute(data, kappa=args.kappa, steps=args.steps, seed=args.seed, progress=not args.quiet)

    return _command.run("figure3", work, args.out, draw, table)


def compute(
    data: cv.datasets.DataSet,
    *,
    kappa: float | None = None,
    steps: int = 20_000,
    seed: int = 0,
    progress: bool = False,
) -> _command.Computed:
    """Every array of the figure, and its settings. After Ctrl-C the arrays are those computed so far."""
    kappa = _KAPPA.get(data.name, 0.1) if kappa is None else kappa
    constraint, dim = cv.RE(kappa, reduction="mean"), data.x.shape[1]
    network = _training.network(data)
    options = {"sigma": kappa, "steps": steps, "seed": seed, "progress": progress}
    run = _training.trained(data.x, constraint, keep=True, **options, **network)
    seen = run.evaluate(samples=_training.samples(len(data), 16))
    arrays = {
        **_training.trajectory(run.history),
        "dim": np.array(dim),
        "kappa": np.array(kappa),
        "multiplier": np.array(run.multipliers["RE"] / dim),
        "excursion": np.array(run.history.multipliers["RE"].max() / run.history.multipliers["RE"][-1]),
        "status": np.array(run.report["RE"].status),
        "final": np.array([seen.distortion, seen.rate, seen.distortion_error]),
        "marginal_kl": np.array([seen.marginal_kl, seen.marginal_kl_error]),
    }
    interrupted = run.stopped.startswith("interrupted")
    if not interrupted:
        curve = frontier(data, kappa, progress)
        arrays |= above(run, seen, curve)
        interrupted = curve is None or len(curve.betas) < _count(data)
    settings = _training.settings(
        data.name, interrupted, [seed], n_points=len(data), dim=dim, kappa=kappa, steps=steps, **network
    )
    return arrays, settings


def frontier(data: cv.datasets.DataSet, kappa: float, progress: bool) -> cv.RateDistortionCurve | None:
    """The rate-distortion function of the data; None if Ctrl-C comes before its first temperature is solved."""
    try:
        top = cv.nucleation_beta(data.x)
        return cv.rate_distortion(
            data.x,
            np.geomspace(top, min(_COLDEST * kappa**2, top / 2), _count(data)),
            gap=_GAP if data.x.shape[1] <= 2 else _WIDE,
            time_limit=10.0 * _count(data),
            progress=progress,
            on_failure="return",
        )
    except KeyboardInterrupt:
        return None


def _count(data: cv.datasets.DataSet) -> int:
    return _IN_PLANE if data.x.shape[1] <= 2 else _ELSEWHERE


def above(run: cv.geco.Run, seen: cv.geco.Evaluation, curve: cv.RateDistortionCurve | None) -> _command.Arrays:
    """The distortions and bounds of the frontier, (n, 3), and the distance of the model from it."""
    if curve is None:
        return {}
    low, high = curve.distortion.min(), curve.ends[0, 0]
    D = np.unique(np.concatenate([np.geomspace(low, high, 200), curve.distortion]))
    place = run.excess_over(curve, evaluation=seen)
    return {
        "frontier": np.column_stack([D, curve.bound_below(D), curve.bound_above(D)]),
        "gap": np.array([place.gap.least, place.gap.most, place.error]),
        "rigorous": np.array(place.rigorous),
        "slope": np.array(place.slope),
    }


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    dim, kappa = int(arrays["dim"]), float(arrays["kappa"])
    with plt.rc_context(_command.STYLE | {"font.size": 7}):
        figure = plt.figure(figsize=(3.5, 4.6), layout="constrained")
        axes = figure.subplot_mosaic([["plane", "plane"], ["beta", "rms"]], height_ratios=[1.6, 1])
        plane = axes["plane"]
        if "frontier" in arrays:
            D, least, most = arrays["frontier"].T
            plane.plot(D, most, color="black", lw=1.0, label="R(D) of the data")
            how = "" if arrays.get("rigorous", False) else " (heuristic)"
            plane.fill_between(D, least, color="0.9", lw=0, label=f"no model{how}")
        lines = _training.coloured(plane, arrays["distortion"], arrays["kl"], arrays["steps"])
        ring: dict[str, Any] = {"marker": "o", "ms": 5, "mfc": "none", "mec": "#D55E00", "mew": 1.2, "ls": "none"}
        plane.plot(*arrays["final"][:2], **ring, label="trained, all data", zorder=4)
        plane.axvline(dim * kappa**2, color="0.4", ls="--", lw=0.8, label=r"constraint $\kappa$")
        plane.set(xscale="log", xlabel=r"squared error  $\mathrm{E}\,\|x-g(z)\|^2$  (units of $x^2$)")
        if "frontier" in arrays:
            plane.set_xlim(left=max(arrays["frontier"][0, 0], _SHOWN * dim * kappa**2))
        plane.set(ylabel="KL  (nats)", ylim=(0, 1.08 * max(arrays["kl"].max(), arrays["final"][1])))
        figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=6, handlelength=1.6)
        _training.coloured(axes["beta"], arrays["steps"], arrays["beta"], arrays["steps"])
        if "slope" in arrays and np.isfinite(arrays["slope"]):
            exact = 1 / (2 * kappa**2 * float(arrays["slope"]))
            axes["beta"].axhline(exact, color="black", lw=0.8, ls=":")
            place = axes["beta"].get_yaxis_transform()
            axes["beta"].text(0.04, exact, "slope of R(D)", transform=place, va="bottom", fontsize=6)
        axes["beta"].set(ylabel=r"equivalent $\beta$  ($\sigma=\kappa$)")
        _training.coloured(axes["rms"], arrays["steps"], arrays["rms"], arrays["steps"])
        axes["rms"].axhline(kappa, color="0.4", ls="--", lw=0.8)
        axes["rms"].set(ylabel="error per dimension, rms")
        for ax in (axes["beta"], axes["rms"]):
            ax.set(xscale="log", yscale="log", xlabel="step of training")
            _training.plain(ax.yaxis)
        bar = figure.colorbar(lines, ax=plane, pad=0.02, aspect=25)
        bar.set_label("step of training")
        bar.outline.set_visible(False)
    return figure


def table(arrays: _command.Arrays) -> str:
    """The result of training, and its distance from the frontier."""
    dim, kappa = int(arrays["dim"]), float(arrays["kappa"])
    D, rate, error = arrays["final"]
    marginal, marginal_error = arrays["marginal_kl"]
    met = np.flatnonzero(arrays["rms"] <= kappa)
    lines = [
        f"constraint     {arrays['status']}; first at step {arrays['steps'][met[0]]}"
        if len(met)
        else f"constraint     {arrays['status']}",
        f"error          {np.sqrt(D / dim):.5f} rms per dimension, {np.sqrt(D / dim) / kappa - 1:+.2%} of kappa",
        f"squared error  {D:.5g} +- {error:.1g} in total",
        f"KL             {rate:.4f} nats, {marginal:.4f} +- {marginal_error:.4f} of it marginal",
    ]
    if "gap" in arrays:
        least, most, error = arrays["gap"]
        how = "" if arrays.get("rigorous", False) else " (heuristic bound)"
        lines.append(f"above R(D)     by {least:.4f} to {most:.4f} +- {error:.4f} nats{how}")
        lines.append(f"lambda         {float(arrays['multiplier']):.4g}, and -dR/dD {float(arrays['slope']):.4g}")
    lines.append(f"lambda at most {float(arrays['excursion']):.3g} times its final value")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
