"""The commands of the command line: functions of options and data that compute, and return an `Outcome`.

A signal ends what they compute. What an outcome describes is computed when it is asked for, after the file is saved.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._utils import tables
from .._utils.checks import shown
from .._utils.writing import write_npz
from ..datasets import DataSet, resized
from ..frontier.rate_distortion import rate_distortion
from ..multipliers.dual import solve_constrained
from ..objectives.constraints import RE
from ..objectives.elbo import ELBO
from ..phases.branch import Branch
from ..phases.criticality import first_critical_beta
from ..phases.sweep import sweep as sweep_betas
from ..phases.transitions import transitions as find_transitions
from ..results.fixed_point import FixedPoint
from ..results.status import Status
from ..solvers.solve import solve as solve_fixed_point
from .exploring import explore as explore, suggest as suggest
from .outcome import Outcome, outcome_of_training, plotting, table_of_thresholds
from .output import is_archive
from .values import beta_grid, hidden_widths, pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def solve(args: argparse.Namespace, data: DataSet) -> Outcome:
    """One fixed point, at a temperature or for a threshold."""
    solution: FixedPoint
    if args.kappa is None:
        solution = solve_fixed_point(data, _objective(args), beta=args.beta, seed=args.seed, **_solver(args, data))
    elif args.sigma != 1 or args.likelihood != "gaussian":
        raise ValueError("--sigma and --likelihood belong to --beta: under --kappa the squared error has a multiplier")
    else:
        solution = solve_constrained(data, _constraint(args, data), **_solver(args, data))

    def columns() -> Mapping[str, Any]:
        sites = solution.distinct
        return {"reconstruction": sites.decoder, "prior_mass": sites.masses, "posterior_mass": sites.marginal}

    def facts() -> Mapping[str, Any]:
        names = ("beta", "rate", "distortion", "free_energy", "marginal_kl", "residual", "error_estimate", "n_maps")
        met = () if args.kappa is None else ("multipliers", "constraint_values")
        found = {name: getattr(solution, name) for name in (*names, *met, "labels")}
        agreement = {} if data.labels is None else {"agreement": _agreement(solution, data)}
        return {**found, **agreement, "status": solution.status.name}

    def text() -> str:
        table = f"{solution}\n{tables.as_text(solution._columns)}"
        if data.labels is not None:
            table += f"\nadjusted Rand index with the labels: {_agreement(solution, data):.4g}"
        doubtful = args.kappa is not None and solution.status in (Status.SLACK, Status.UNREACHABLE)
        return f"{table}\n{table_of_thresholds(data.x, None, data.weights)}" if doubtful else table

    return Outcome(
        save=solution.save,
        draw=lambda ax: plotting().reconstructions(solution, ax),
        text=text,
        columns=columns,
        facts=facts,
        converged=lambda: bool(solution.converged),
    )


def sweep(args: argparse.Namespace, data: DataSet) -> Outcome:
    """The solutions along a range of temperatures."""
    betas, objective = beta_grid(args.betas), _objective(args)
    options = {"direction": args.direction, "restarts": args.restarts, "seed": args.seed}
    branch = sweep_betas(data, objective, betas=betas, **options, **_solver(args, data))
    assert isinstance(branch, Branch)  # of one direction
    if not len(branch):
        raise KeyboardInterrupt

    @functools.cache
    def facts() -> dict[str, Any]:
        first = first_critical_beta(data.x, objective, weights=data.weights, backend=args.backend)
        return {
            "first_critical_beta": first,
            "peaks": [*map(float, branch.peaks(variable="log_beta"))] if len(branch) >= 5 else [],
        }

    def draw(ax: Axes) -> Axes:
        order, first = branch.betas.argsort(), facts()["first_critical_beta"]
        critical = [first] if branch.betas.min() <= first <= branch.betas.max() else []
        return plotting().distortion(branch.betas[order], branch.distortion[order], critical, facts()["peaks"], ax)

    def text() -> str:
        peaks = ", ".join(f"{beta:.4g}" for beta in facts()["peaks"]) or "none"
        first = f"first critical beta {facts()['first_critical_beta']:.9g}"
        return f"{branch}\n{tables.as_text(branch._columns)}\n{first}; highest peaks in log beta at {peaks}"

    return Outcome(branch.save, draw, text, lambda: branch._columns, facts, lambda: branch.converged)


def transitions(args: argparse.Namespace, data: DataSet) -> Outcome:
    """The exact critical temperatures."""
    beta_range = None if args.betas is None else pair(args.betas, "--betas wants LOW:HIGH")
    found = find_transitions(data, _objective(args), beta_range, limit=args.limit, **_solver(args, data))

    def columns() -> Mapping[str, list[Any]]:
        names = ("beta", "kind", "n_before", "n_after", "predicted", "skewness", "excess_kurtosis", "heating_end")
        return {name: [getattr(t, name) for t in found] for name in (*names, "crossing", "jump", "direction")}

    def save(path: Path) -> None:
        arrays = {name: np.array(["" if v is None else v for v in values]) for name, values in columns().items()}
        write_npz(path, None, arrays)

    def draw(ax: Axes) -> Axes:
        if found:
            return plotting().staircase(found, ax)
        ax.set_title("no transitions")
        return ax

    def text() -> str:
        listed = "\n".join(map(repr, found)) or "no transitions"
        return f"{listed}\n{found.scope}"

    facts = {"complete_to": found.complete_to, "ended": found.ended, "tiles": found.tiles}
    return Outcome(save, draw, text, columns, lambda: facts)


def frontier(args: argparse.Namespace, data: DataSet) -> Outcome:
    """The rate-distortion function, and the distance of a model from it."""
    model = None if args.model is None else pair(args.model, "--model wants RATE:DISTORTION")
    if model is not None and not all(0 <= value < math.inf for value in model):
        raise ValueError(f"--model wants RATE:DISTORTION, neither negative nor infinite, got {shown(args.model)}")
    curve = rate_distortion(
        data,
        beta_grid(args.betas),
        _objective(args),
        gap=args.gap,
        max_maps=args.max_maps,
        time_limit=args.time_limit,
        weights=data.weights,
        backend=args.backend,
        progress=not args.quiet,
    )
    excess = None if model is None else curve.excess(*model)

    def draw(ax: Axes) -> Axes:
        models = {} if model is None else {"the model": np.array(model[::-1])}
        unit = {"unit": "nats"} if args.likelihood != "gaussian" else {}
        return plotting().rate_distortion(curve, models, ax=ax, **unit)

    def text() -> str:
        table = f"{curve}\n{tables.as_text(curve._columns)}"
        if excess is None:
            return table
        how = "" if excess.rigorous else " (heuristic bound)"
        return f"{table}\nthe model is {excess.least:.6g} to {excess.most:.6g} nats above the frontier{how}"

    facts = {} if excess is None else {"excess": asdict(excess)}
    return Outcome(curve.save, draw, text, lambda: curve._columns, lambda: facts)


def train(args: argparse.Namespace, data: DataSet) -> Outcome:
    """A trained model."""
    if args.size is not None:
        data = resized(data, args.size)
    given: dict[str, Any] = {"objective": "beta", "beta": args.beta}
    if args.kappa is not None:
        given = {"constraints": _constraint(args, data)}
    given |= {name: getattr(args, name) for name in ("time_limit", "batch_size", "checkpoint_every", "seed", "resume")}
    given |= {"checkpoint": args.out if is_archive(args.out) else None, "progress": not args.quiet}
    if args.model == "mlp":
        return _train_compact(args, data, given)
    from . import image_training  # imports PyTorch, which no other command needs

    return image_training.train(args, data, given)


def _train_compact(args: argparse.Namespace, data: DataSet, given: dict[str, Any]) -> Outcome:
    """A model of the package's own trainer."""
    from .. import geco
    from ..geco.starts import spectrum_of
    from ..geco.threshold_table import doubt

    run = geco.train(
        data.x,
        latent_dim=args.latent,
        hidden=None if args.hidden is None else hidden_widths(args.hidden),
        weights=data.weights,
        sigma=args.sigma,
        likelihood=args.likelihood,
        steps=args.steps,
        **given,
    )
    if not len(run.history):
        raise KeyboardInterrupt

    def text() -> str:
        seen = run.evaluation
        found = f"{run}\nrate {seen.rate:.6g} nats, distortion {seen.distortion:.6g} on the training data"
        return found + (f"\n{table_of_thresholds(data.x, args.latent, data.weights)}" if doubtful() else "")

    def doubtful() -> bool:
        return any(
            run.report[c.name].status in ("slack", "unreachable")
            or doubt(c, run.x, run.weights, spectrum_of(c, run.x, run.weights), args.latent, run.model.plane)
            for c in run.constraints
        )

    def facts() -> Mapping[str, Any]:
        return {"rate": run.evaluation.rate, "distortion": run.evaluation.distortion}

    return outcome_of_training(run, text, facts)


def _agreement(solution: FixedPoint, data: DataSet) -> float:
    """The adjusted Rand index of the partition of a solution and the classes of the data."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(data.labels, solution.labels))


def _constraint(args: argparse.Namespace, data: DataSet) -> RE:
    """The constraint of --kappa; if it is refused, the table of thresholds is a note of the error."""
    try:
        return RE(args.kappa, "mean" if getattr(args, "per_dimension", False) else "sum")
    except ValueError as error:
        error.add_note(table_of_thresholds(data.x, getattr(args, "latent", None), data.weights))
        raise


def _objective(args: argparse.Namespace) -> ELBO:
    return ELBO(sigma=args.sigma, likelihood=args.likelihood)


def _solver(args: argparse.Namespace, data: DataSet) -> dict[str, Any]:
    """Keyword arguments that all solvers of fixed points take."""
    own = {name: getattr(args, name) for name in ("masses", "tol", "max_maps", "time_limit", "backend")}
    return {"n_tiles": args.n_tiles, "weights": data.weights, "progress": not args.quiet, **own}
