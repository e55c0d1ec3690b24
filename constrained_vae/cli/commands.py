"""The commands of the command line.

A command is a function of options and data that computes, and returns a function without arguments that makes the
`Outcome`. A signal ends the first and leaves a part of the result; the second is not disturbed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._utils import tables
from .._utils.writing import write_npz
from ..datasets import DataSet
from ..frontier.rate_distortion import RateDistortionCurve, rate_distortion
from ..latent.tiling import Tiling
from ..multipliers.dual import solve_constrained
from ..objectives.constraints import RE
from ..objectives.elbo import ELBO
from ..phases.branch import Branch
from ..phases.criticality import first_critical_beta
from ..phases.sweep import sweep as sweep_betas
from ..phases.transitions import Transitions, transitions as find_transitions
from ..results.fixed_point import FixedPoint
from ..solvers.solve import solve as solve_fixed_point
from .values import beta_grid, hidden_widths, pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..geco.runs import Run


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of a command: a text to print, and functions that write and draw the result."""

    text: str
    save: Callable[[Path], None]
    draw: Callable[[Axes], Axes]
    columns: Mapping[str, Any]  # of the JSON file
    facts: Mapping[str, Any] = field(default_factory=dict)
    converged: bool = True


Described = Callable[[], Outcome]


def solve(args: argparse.Namespace, data: DataSet) -> Described:
    """One fixed point, at a temperature or for a threshold."""
    solution: FixedPoint
    if args.kappa is None:
        solution = solve_fixed_point(data.x, _objective(args), beta=args.beta, seed=args.seed, **_solver(args, data))
    elif args.sigma != 1 or args.likelihood != "gaussian":
        raise ValueError("--sigma and --likelihood belong to --beta: under --kappa the squared error has a multiplier")
    else:
        solution = solve_constrained(data.x, RE(args.kappa), **_solver(args, data))
    return lambda: _of_solution(args, solution)


def _of_solution(args: argparse.Namespace, solution: Any) -> Outcome:
    sites = solution.distinct
    names = ("beta", "rate", "distortion", "free_energy", "marginal_kl", "residual", "error_estimate", "n_maps")
    facts = {name: getattr(solution, name) for name in names}
    if args.kappa is not None:
        facts |= {"multipliers": solution.multipliers, "constraint_values": solution.constraint_values}
    return Outcome(
        text=f"{solution}\n{tables.as_text(solution._columns)}",
        save=solution.save,
        draw=lambda ax: _plotting().reconstructions(solution, ax),
        columns={"reconstruction": sites.decoder, "prior_mass": sites.masses, "posterior_mass": sites.marginal},
        facts={**facts, "status": solution.status.name, "labels": solution.labels},
        converged=solution.converged,
    )


def sweep(args: argparse.Namespace, data: DataSet) -> Described:
    """The solutions along a range of temperatures."""
    betas, objective = beta_grid(args.betas), _objective(args)
    branch = sweep_betas(
        data.x, objective, betas=betas, direction=args.direction, seed=args.seed, **_solver(args, data)
    )
    assert isinstance(branch, Branch)  # of one direction
    if not len(branch):
        raise KeyboardInterrupt
    return lambda: _of_branch(args, data, branch)


def _of_branch(args: argparse.Namespace, data: DataSet, branch: Branch) -> Outcome:
    objective = _objective(args)
    first = first_critical_beta(data.x, objective, weights=data.weights, backend=args.backend)
    peaks = [float(peak) for peak in branch.peaks()] if len(branch) >= 5 else []
    low, high = branch.betas.min(), branch.betas.max()

    def draw(ax: Axes) -> Axes:
        order = branch.betas.argsort()
        critical = [first] if low <= first <= high else []
        return _plotting().distortion(branch.betas[order], branch.distortion[order], critical, peaks, ax)

    return Outcome(
        text=f"{branch}\n{tables.as_text(branch._columns)}\n"
        f"first critical beta {first:.9g}; highest peaks at {', '.join(f'{beta:.4g}' for beta in peaks) or 'none'}",
        save=branch.save,
        draw=draw,
        columns=branch._columns,
        facts={"first_critical_beta": first, "peaks": peaks},
        converged=branch.converged,
    )


def transitions(args: argparse.Namespace, data: DataSet) -> Described:
    """The exact critical temperatures."""
    beta_range = None if args.betas is None else pair(args.betas, "--betas wants LOW:HIGH")
    found = find_transitions(data.x, _objective(args), beta_range, limit=args.limit, **_solver(args, data))
    return lambda: _of_transitions(found)


def _of_transitions(found: Transitions) -> Outcome:
    names = ("beta", "kind", "n_before", "n_after", "predicted", "skewness", "excess_kurtosis", "heating_end")
    columns = {name: [getattr(t, name) for t in found] for name in (*names, "crossing", "jump", "direction")}

    def save(path: Path) -> None:
        arrays = {name: np.array(["" if v is None else v for v in values]) for name, values in columns.items()}
        write_npz(path, None, arrays)

    def draw(ax: Axes) -> Axes:
        if found:
            return _plotting().staircase(found, ax)
        ax.set_title("no transitions")
        return ax

    return Outcome(
        text="\n".join([*map(repr, found)] or ["no transitions"])
        + f"\ncomplete down to beta={found.complete_to:.6g}: {found.ended}",
        save=save,
        draw=draw,
        columns=columns,
        facts={"complete_to": found.complete_to, "ended": found.ended},
    )


def frontier(args: argparse.Namespace, data: DataSet) -> Described:
    """The rate-distortion function, and the distance of a model from it."""
    model = None if args.model is None else pair(args.model, "--model wants RATE:DISTORTION")
    if model is not None and not all(0 <= value < math.inf for value in model):
        raise ValueError(f"--model wants RATE:DISTORTION, neither negative nor infinite, got {args.model!r}")
    curve = rate_distortion(
        data.x,
        beta_grid(args.betas),
        _objective(args),
        gap=args.gap,
        time_limit=args.time_limit,
        weights=data.weights,
        backend=args.backend,
        progress=not args.quiet,
    )
    return lambda: _of_curve(args, curve, model)


def _of_curve(args: argparse.Namespace, curve: RateDistortionCurve, model: tuple[float, float] | None) -> Outcome:
    text, facts = f"{curve}\n{tables.as_text(curve._columns)}", {}
    if model is not None:
        excess = curve.excess(*model)
        how = "" if excess.rigorous else " (heuristic bound)"
        text += f"\nthe model is {excess.least:.6g} to {excess.most:.6g} nats above the frontier{how}"
        facts = {"excess": asdict(excess)}

    def draw(ax: Axes) -> Axes:
        models = {} if model is None else {"the model": np.array(model[::-1])}
        unit = {"unit": "nats"} if args.likelihood == "bernoulli" else {}
        return _plotting().rate_distortion(curve, models, ax=ax, **unit)

    return Outcome(text, curve.save, draw, curve._columns, facts)


def train(args: argparse.Namespace, data: DataSet) -> Described:
    """A trained model."""
    from .. import geco

    if data.weights is not None and np.ptp(data.weights) > 1e-12:
        raise ValueError(f"{data.name} has weights, which training does not support")
    given: dict[str, Any] = {"objective": "beta", "beta": args.beta}
    if args.kappa is not None:
        given = {"constraints": RE(args.kappa, "mean" if args.per_dimension else "sum")}
    run = geco.train(
        data.x,
        latent_dim=args.latent,
        hidden=hidden_widths(args.hidden),
        sigma=args.sigma,
        likelihood=args.likelihood,
        steps=args.steps,
        seed=args.seed,
        resume=args.resume,
        progress=not args.quiet,
        **given,
    )
    if not len(run.history):
        raise KeyboardInterrupt
    return lambda: _of_run(run)


def _of_run(run: Run) -> Outcome:
    seen, report = run.evaluation, run.report
    return Outcome(
        text=f"{run}\nrate {seen.rate:.6g} nats, distortion {seen.distortion:.6g} on the training data",
        save=run.save,
        draw=lambda ax: _plotting().training(run.history, ax),
        columns={name: run.history.column(name) for name in run.history.columns},
        facts={
            "stopped": run.stopped,
            "rate": seen.rate,
            "distortion": seen.distortion,
            "report": {name: asdict(found) for name, found in report.items()},
        },
        converged=run.stopped == "finished" and all(found.status in ("met", "slack") for found in report.values()),
    )


def _objective(args: argparse.Namespace) -> ELBO:
    return ELBO(sigma=args.sigma, likelihood=args.likelihood)


def _solver(args: argparse.Namespace, data: DataSet) -> dict[str, Any]:
    """Keyword arguments that all solvers of fixed points take."""
    own = {name: getattr(args, name) for name in ("masses", "tol", "max_maps", "backend")}
    return {"tiling": Tiling.uniform(args.tiles), "weights": data.weights, "progress": not args.quiet, **own}


def _plotting() -> Any:
    from .. import plotting  # imports Matplotlib, which most commands do not need

    return plotting
