"""What the figures of GECO and the ELBO at the same error have in common: differences, picture and table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis import _command, _training

METHODS = ("ELBO", "GECO")
_LABELS = {"rate": "KL", "marginal_kl": "marginal KL"}
_MISSED = 0.02  # relative deviation of an error from its threshold above which it is reported


def increasing(noises: Sequence[float]) -> list[float]:
    """The noises of the option --noise in their order."""
    found = sorted(noises)
    if len(set(found)) < 2 or not found[0] > 0:
        raise ValueError(f"--noise wants at least two different numbers above 0, got {found}")
    return found


def difference(rms: np.ndarray, values: np.ndarray) -> np.ndarray:
    """GECO minus ELBO (noises, seeds) of values (2, noises, seeds), corrected for the difference of their errors."""
    log_error, curve = (_training.mean_and_error(v[0])[0] for v in (np.log(rms), values))
    slope = np.gradient(curve, log_error)
    return values[1] - values[0] - slope[:, None] * np.log(rms[1] / rms[0])


def draw(arrays: _command.Arrays) -> Figure:
    """The figure, from its arrays alone."""
    import matplotlib.pyplot as plt

    names = arrays["names"]
    with plt.rc_context(_command.STYLE | {"font.size": 7}):
        figure = plt.figure(figsize=(3.5, 3.7), layout="constrained")
        axes = figure.subplots(2, len(names), sharex="col", squeeze=False, height_ratios=[1.3, 1])
        for d, name in enumerate(names):
            top, bottom = axes[:, d]
            error = _training.mean_and_error(arrays["rms"][d, 0])[0]
            for quantity in _shown(arrays):
                open_, label = quantity == "marginal_kl", _LABELS[quantity]
                for m, method in enumerate(METHODS):
                    color = _training.COLORS[method]
                    style: dict[str, Any] = {
                        "color": color,
                        "mfc": "white" if open_ else color,
                        "ms": 6 - 3 * m,
                        "lw": 0.8,
                    }
                    mean, spread = _training.mean_and_error(arrays[quantity][d, m])
                    style |= {"marker": _training.MARKERS[method], "ls": ":" if open_ else "-"}
                    own = _training.mean_and_error(arrays["rms"][d, m])[0]
                    top.errorbar(own, mean, np.nan_to_num(spread), **style, label=f"{method}, {label}")
                mean, spread = _training.mean_and_error(arrays[f"{quantity}_difference"][d])
                style = {"color": "black", "mfc": "white" if open_ else "black", "ms": 4, "marker": "o", "ls": "none"}
                shift = 1.0 if len(_shown(arrays)) == 1 else 1.03 if open_ else 0.97
                bottom.errorbar(error * shift, mean, np.nan_to_num(spread), **style, elinewidth=0.8, label=label)
            top.set(title=str(name).replace("_", " "), ylim=(0, None))
            top.title.set_fontsize(7)
            bottom.axhline(0, color="0.6", lw=0.8, zorder=0)
            bottom.set(xscale="log", xlabel="error per dimension, rms")
            bottom.set_xticks(error[np.isfinite(error)], [f"{e:.2g}" for e in error if np.isfinite(e)])
            bottom.xaxis.set_minor_locator(NullLocator())
        axes[0, 0].set_ylabel("nats")
        axes[1, 0].set_ylabel("GECO less ELBO  (nats)")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
        axes[1, -1].legend(loc="best", frameon=False, fontsize=6)
    return figure


def _shown(arrays: _command.Arrays) -> list[str]:
    """The quantities that are compared; the runs of image models have no marginal KL."""
    return [quantity for quantity in _LABELS if quantity in arrays]


def table(arrays: _command.Arrays) -> str:
    """Means over seeds with their standard errors, and differences of pairs."""
    lines, shown = [], _shown(arrays)
    for d, name in enumerate(arrays["names"]):
        lines.append(f"{name}, log N = {np.log(arrays['points'][d]):.3f} nats")
        lines.append(f"{'sigma':>8}  {'':6}{'error, rms':>22}" + "".join(f"{_LABELS[name]:>20}" for name in shown))
        for k, sigma in enumerate(arrays["sigmas"][d]):
            if np.isnan(arrays["rate"][d, :, k]).all():
                continue
            for m, method in enumerate(METHODS):
                columns = "".join(f"{_training.with_error(arrays[name][d, m, k], 3):>20}" for name in shown)
                error = _training.with_error(arrays["rms"][d, m, k], 5)
                lines.append(f"{sigma:>8.4g}  {method:6}{error:>22}{columns}")
            less = (_training.with_error(arrays[f"{name}_difference"][d, k], 3) for name in shown)
            lines.append(f"{'':10}{'less ELBO':28}" + "".join(f"{text:>20}" for text in less))
            off = np.abs(arrays["rms"][d, 1, k] / arrays["rms"][d, 0, k] - 1)
            if missed := int((off > _MISSED).sum()):
                lines.append(f"{'':10}{missed} of {len(off)} of GECO's errors are off by more than {_MISSED:.0%}")
    return "\n".join(lines)
