"""Pictures of training, and of models beside the rate-distortion function."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from .._utils.checks import (
    check_instance,
    check_text,
    real_array,
    shown,
)
from ..frontier.curve import RateDistortionCurve
from .arguments import (
    axes_or_new,
    literal,
    table,
)
from .axes import readable_ticks
from .style import (
    BAND,
    CURVE,
    MODELS,
)

_VISIBLE = 0.01  # share of the highest rate above which a band can be seen
_BAND_POINTS = 400  # distortions at which a band is drawn, in addition to those that were solved


def training(run: Any, ax: Axes | None = None) -> Axes:
    """Distortion, KL and multipliers against the steps of training.

    Parameters
    ----------
    run : Run or History
        Result of `geco.train`, or its attribute `history`.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If `run` is neither a run nor its history.

    Examples
    --------
    >>> from constrained_vae import RE, geco
    >>> run = geco.train([[-2.0], [2.0]], RE(1.0), latent_dim=1, hidden=(), steps=40)
    >>> training(run.history).get_xlabel()
    'step'
    """
    history = getattr(run, "history", run)
    ax = axes_or_new(ax)
    if not all(hasattr(history, name) for name in ("distortion", "kl", "multipliers")):
        raise ValueError(f"run must be a run or its history, such as train(x, ...), got {shown(run)}")
    curves = {r"distortion (units of $x^2$)": history.distortion, "KL (nats)": history.kl}
    curves |= {rf"$\lambda$ of {literal(name)}": values for name, values in history.multipliers.items()}
    for color, (label, values) in zip(cycle([CURVE, *MODELS]), curves.items()):
        ax.plot(np.arange(len(history)), values, color=color, lw=0.8, label=label)
    ax.set(yscale="log", xlabel="step")
    ax.legend(frameon=False, fontsize="small")
    return ax


def rate_distortion(
    curve: RateDistortionCurve,
    models: Mapping[str, Any] | None = None,
    unit: str = "units of $x^2$",
    ax: Axes | None = None,
) -> Axes:
    """Rate-distortion function of a data set between certified bounds, with models of the same data (T22).

    The line is the upper bound, which some code attains. The band extends from the upper to the lower bound; no code is
    below the band. If some of its bounds are not proven, its label says that it is heuristic.

    Parameters
    ----------
    curve : RateDistortionCurve
        Result of `rate_distortion`, in nats.
    models : mapping of str to model, optional
        Names of models, and what they are: a result of `geco.train`, `solve` or `sweep`, or points (distortion, rate in
        nats), (2,) or (n, 2).
    unit : str
        Unit of the distortion, for the label of the axis; with a Bernoulli decoder it is nats.
    ax : Axes, optional
        Axes to draw on; new Axes by default.

    Returns
    -------
    Axes
        The one that was given, or a new one.

    Raises
    ------
    ValueError
        If `curve` is no curve, `models` is no dict of names and points (distortion, rate), or the unit is
        unknown.

    Examples
    --------
    >>> import constrained_vae as cv
    >>> curve = cv.rate_distortion([[-1.0], [1.0]], betas=[0.9, 0.5])
    >>> rate_distortion(curve, {"a model": np.array([0.5, 0.7])}).get_ylabel()
    'rate $R$  (nats)'
    """
    check_instance(curve, "curve", RateDistortionCurve, "rate_distortion(x)")
    check_text(unit, "unit")
    if models is not None and not isinstance(models, Mapping):
        raise ValueError(f"models must be a dict of names and points (distortion, rate), got {shown(models)}")
    ax = axes_or_new(ax)
    solved = curve.distortion[curve.distortion > 0]
    D = np.union1d(np.geomspace(solved.min(), max(solved.max(), curve.ends[0, 0]), _BAND_POINTS), solved)
    above = curve.bound_above(D)
    below, how = curve.bound_below(D), "certified" if curve.rigorous.all() else "heuristic"
    width = float(np.max(above - below, where=np.isfinite(above), initial=0.0))
    visible = width > _VISIBLE * float(curve.rate.max())
    label = f"{how} band" if visible else ""  # a band that cannot be seen has no place in a legend
    ax.fill_between(D, below, above, color=BAND, lw=0, zorder=2, label=label)
    line = "frontier $R(D)$" if visible else f"frontier $R(D)$, {how} to {max(width, 0.0):.0e} nats"
    ax.plot(D, above, color=CURVE, lw=1.2, zorder=3, label=line)
    for number, (name, points) in enumerate((models or {}).items()):
        marker: dict[str, Any] = {"marker": "os^Dv"[number % 5], "color": MODELS[number % len(MODELS)], "ls": "none"}
        points = _placed(points)
        points = table(np.atleast_2d(real_array(points, f"models[{name!r}]", "points")), f"models[{name!r}]")
        ax.plot(*points.T, **marker, ms=3, zorder=4, label=literal(name))
    ax.set(xscale="log", xlabel=f"distortion $D$  ({unit})", ylabel="rate $R$  (nats)")
    readable_ticks(ax)
    if models:
        ax.legend(frameon=False, fontsize="small")
    return ax


def _placed(model: Any) -> Any:
    """Points (distortion, rate) of a model, which is a run, an evaluation, a solution or a branch; or what it is."""
    model = getattr(model, "evaluation", model)
    if hasattr(model, "distortion") and hasattr(model, "rate"):
        return np.column_stack([model.distortion, model.rate])
    return model
