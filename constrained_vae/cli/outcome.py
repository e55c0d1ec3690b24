"""Outcome: what a command has computed, and what can be made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._utils.arrays import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of a command: functions that save it, draw it, and describe it in the JSON file and in print."""

    save: Callable[[Path], None]
    draw: Callable[[Axes], Axes]
    text: Callable[[], str]
    columns: Callable[[], Mapping[str, Any]]
    facts: Callable[[], Mapping[str, Any]]
    converged: Callable[[], bool] = lambda: True


def outcome_of_training(run: Any, text: Callable[[], str], facts: Callable[[], Mapping[str, Any]]) -> Outcome:
    """The outcome of a training run, of either kind, with its text and what was evaluated."""
    report = run.report

    def all_facts() -> Mapping[str, Any]:
        return {"stopped": run.stopped, **facts(), "report": {name: asdict(found) for name, found in report.items()}}

    return Outcome(
        save=run.save,
        draw=lambda ax: plotting().training(run.history, ax),
        text=text,
        columns=lambda: {name: run.history.column(name) for name in run.history.columns},
        facts=all_facts,
        converged=lambda: run.stopped == "finished" and all(r.status in ("met", "slack") for r in report.values()),
    )


def table_of_thresholds(x: FloatArray, latent_dim: int | None, weights: FloatArray | None = None) -> str:
    """The table of thresholds, or why there is none; of codes of all sizes where no size is given."""
    from .. import geco

    try:
        return repr(geco.thresholds(x, latent_dim, weights=weights))
    except ValueError as error:
        return f"there is no table of thresholds: {error}"


def plotting() -> Any:
    """The sub-package of that name: it imports Matplotlib, which most commands do not need."""
    from .. import plotting

    return plotting
