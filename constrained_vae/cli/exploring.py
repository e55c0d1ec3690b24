"""The commands that look at a data set as a whole: suggest and explore."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..datasets import DataSet
from ..objectives.elbo import ELBO
from ..phases.suggest import suggest as suggest_betas
from .outcome import Outcome, plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def suggest(args: argparse.Namespace, data: DataSet) -> Outcome:
    """Which beta, and which kappa: what stands out."""
    found = suggest_betas(
        data,
        ELBO(sigma=args.sigma, likelihood=args.likelihood),
        most=args.most,
        time_limit=args.time_limit,
        backend=args.backend,
        seed=args.seed,
        progress=not args.quiet,
    )

    def draw(ax: Axes) -> Axes:
        drawn: Axes = plotting().suggestions(found, ax)
        return drawn

    def facts() -> dict[str, Any]:
        return {"first_critical_beta": found.first_critical_beta, "transitions": found._changes}

    return Outcome(
        save=found.branch.save,
        draw=draw,
        text=lambda: str(found),
        columns=lambda: found._columns,
        facts=facts,
        converged=lambda: found.branch.complete,
    )


def explore(args: argparse.Namespace, data: DataSet) -> Outcome:
    """A page of HTML with the temperature as a slider."""
    from ..exploring.explore import explore as explore_betas  # loads Matplotlib, which few commands need

    found = explore_betas(
        data,
        ELBO(sigma=args.sigma, likelihood=args.likelihood),
        title=data.name,
        spectral=not args.no_spectral,
        time_limit=args.time_limit,
        backend=args.backend,
        seed=args.seed,
        progress=not args.quiet,
    )
    return Outcome(
        save=found.save,
        draw=lambda ax: found.plot(ax),
        text=lambda: repr(found),
        columns=lambda: found.branch._columns,
        facts=lambda: {"plateaus": [p.n_reconstructions for p in found.plateaus]},
        converged=lambda: found.branch.complete,
    )
