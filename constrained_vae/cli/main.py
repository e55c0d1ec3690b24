"""constrained-vae: solve, sweep, transitions, frontier and train on the command line.

Exit codes: 0 done, 1 not converged, 2 bad input, 130 interrupted, with what had been computed. What takes long to
import is imported when a command runs, so that `--help` is there at once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .. import __version__
from . import endings

if TYPE_CHECKING:
    from ..datasets import DataSet
    from .commands import Outcome

_DATA = "a set by name (four_clusters, digits, ...), or a .npy, .npz or .csv file with a point per row"
_BETAS = "LOW:HIGH:COUNT temperatures, evenly spaced in log beta"
_LISTED = 5  # warnings that are printed


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Its arguments; those of the process by default.

    Returns
    -------
    int
        The exit code, see the head of this module.

    Raises
    ------
    SystemExit
        After `--help` and `--version`, and where options cannot be understood (code 2).
    """
    args = _parser().parse_args(argv)
    prog = f"constrained-vae {args.command}"
    try:
        with _noticing_ctrl_c() as pressed, _telling(prog) as told:
            from ..datasets import find
            from ..results.status import NotConvergedWarning
            from . import commands

            data = find(args.data, seed=args.seed)
            _check_paths(args.out, args.plot)
            outcome: Outcome = getattr(commands, args.command)(args, data)
        converged = outcome.converged and not any(issubclass(kind, NotConvergedWarning) for kind in told)
        interrupted = outcome.interrupted or bool(pressed)
        if len(told) > _LISTED:
            print(f"{prog}: and {len(told) - _LISTED} more warnings", file=sys.stderr)
        _publish(args, data, outcome, {"converged": converged, "interrupted": interrupted})
    except endings.EXPECTED as error:
        return endings.explained(prog, error, "write")
    if interrupted:
        return endings.partial(prog)
    return endings.DONE if converged else endings.NOT_CONVERGED


# --- what goes in and what comes out ----------------------------------------------------------------------------------


def _check_paths(out: Path | None, plot: Path | None) -> None:
    """Make the folders, and refuse what could not be written after a long computation."""
    if out is not None and out.suffix not in (".npz", ".json"):
        raise ValueError(f"--out wants a .npz or .json file, got {out}")
    if plot is not None:
        from matplotlib.figure import Figure

        kinds = Figure().canvas.get_supported_filetypes()
        if plot.suffix[1:] not in kinds:
            raise ValueError(f"--plot wants a file of one of the kinds {', '.join(sorted(kinds))}, got {plot}")
    for path in (out, plot):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The draft of a .npz file is written beside it.
            places = [path] * path.exists() + [path.parent] * (path.suffix == ".npz" or not path.exists())
            if path.is_dir() or not all(os.access(place, os.W_OK) for place in places):
                raise ValueError(f"{path} cannot be written")


def _publish(args: argparse.Namespace, data: DataSet, outcome: Outcome, ending: dict[str, bool]) -> None:
    """Print, write and draw."""
    print(outcome.text)
    if args.out is not None and args.out.suffix == ".npz":
        outcome.save(args.out)
    elif args.out is not None:
        about = {"name": data.name, "n_points": data.x.shape[0], "dim": data.x.shape[1]}
        options = {name: v for name, v in vars(args).items() if name not in ("command", "out", "plot", "quiet")}
        head = {"command": args.command, "version": __version__, "data_set": about, "options": options}
        everything = {**head, **ending, **outcome.facts, "columns": outcome.columns}
        args.out.write_text(json.dumps(_plain(everything), indent=1, allow_nan=False) + "\n")
    if args.plot is not None:
        from matplotlib.figure import Figure

        ax = outcome.draw(Figure(figsize=(5, 3.5), layout="constrained").subplots())
        if ax.get_legend_handles_labels()[1]:
            ax.legend(frameon=False, fontsize="small")
        assert isinstance(ax.figure, Figure)
        ax.figure.savefig(args.plot, dpi=200)
    for path in filter(None, (args.out, args.plot)):
        print(f"wrote {path}")


def _plain(value: Any) -> Any:
    """What JSON knows; numbers that are not finite are null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@contextmanager
def _telling(prog: str) -> Iterator[list[type[Warning]]]:
    """The first few warnings are told as they come, in a line each; the kinds of all are in the list."""
    from tqdm import tqdm

    told: list[type[Warning]] = []

    def tell(message: Warning | str, category: type[Warning], *where: Any) -> None:
        told.append(category)
        if len(told) <= _LISTED:
            tqdm.write(f"{prog}: {endings.one_line(message)}", file=sys.stderr)  # beside a progress bar

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = tell  # type: ignore[assignment]
        yield told


@contextmanager
def _noticing_ctrl_c() -> Iterator[list[int]]:
    """Computations end at Ctrl-C with what there is; whether it was pressed is in the list."""
    pressed: list[int] = []

    def handle(number: int, frame: Any) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


# --- options ----------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # in one line, where argparse would print the usage as well
        self.exit(endings.BAD_INPUT, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> _Parser:
    shared = _Parser(add_help=False)
    shared.add_argument("data", metavar="DATA", help=_DATA)
    shared.add_argument("--sigma", type=float, default=1.0, help="standard deviation of the decoder (%(default)s)")
    shared.add_argument("--likelihood", choices=("gaussian", "bernoulli"), default="gaussian")
    shared.add_argument("--seed", type=int, default=0, help="of named data sets and random starts (%(default)s)")
    shared.add_argument("--out", type=Path, metavar="FILE", help="results: .npz, which the library loads, or .json")
    shared.add_argument("--plot", type=Path, metavar="FILE", help="a picture: .png, .pdf, .svg, ...")
    shared.add_argument("--quiet", action="store_true", help="no progress bar")

    backend = _Parser(add_help=False)
    backend.add_argument("--backend", choices=("auto", "reference", "numba", "cupy"), default="auto")

    solver = _Parser(add_help=False, parents=[backend])
    solver.add_argument("--tiles", type=int, default=256, help="number of latent tiles (%(default)s)")
    solver.add_argument("--masses", choices=("fixed", "free"), default="fixed", help="prior masses of the tiles")
    solver.add_argument("--tol", type=float, default=1e-10, help="relative tolerance (%(default)s)")
    solver.add_argument("--max-maps", type=int, default=100_000, help="budget of every solution (%(default)s)")

    result = _Parser(prog="constrained-vae", description="Exact theory of beta-VAEs and constrained VAEs.")
    result.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = result.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, text: str, example: str, *parents: _Parser) -> _Parser:
        return commands.add_parser(
            name,
            parents=[shared, *parents],
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example:\n  constrained-vae {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    made = command("solve", "one fixed point", "four_clusters --beta 0.5 --out s.npz --plot s.png", solver)
    goal = made.add_mutually_exclusive_group()
    goal.add_argument("--beta", type=float, default=1.0, help="temperature (%(default)s)")
    goal.add_argument("--kappa", type=float, help="instead: the multiplier with which E||x - psi||^2 = kappa^2")

    made = command("sweep", "annealing through temperatures", "digits --betas 0.3:1:60 --tiles 32 --plot d.png", solver)
    made.add_argument("--betas", help=f"{_BETAS}; by default those of the data's own transitions")
    made.add_argument("--direction", choices=("down", "up"), default="down", help="cooling or heating")

    made = command("transitions", "exact critical temperatures", "four_clusters --betas 0.2:12 --out t.json", solver)
    made.add_argument("--betas", metavar="LOW:HIGH", help="range; by default that of the data's own transitions")
    made.add_argument("--limit", type=int, help="at most so many, hottest first")

    example = "four_clusters --betas 0.1:9:12 --model 2.0:0.1 --plot f.png"
    made = command("frontier", "the rate-distortion function, certified", example, backend)
    made.add_argument("--betas", help=f"{_BETAS}; by default from nucleation to 0.95 of the entropy")
    made.add_argument("--gap", type=float, default=1e-6, help="nats between bounds that are asked for (%(default)s)")
    made.add_argument("--time-limit", type=float, default=60.0, help="seconds per temperature (%(default)s)")
    made.add_argument("--model", metavar="RATE:DISTORTION", help="a trained model, to be placed above the frontier")

    made = command("train", "GECO, or a beta-VAE", "four_clusters --kappa 0.5 --steps 5000 --out run.npz")
    goal = made.add_mutually_exclusive_group(required=True)
    goal.add_argument("--kappa", type=float, help="constraint E||x - g(z)||^2 <= kappa^2, lambda learned")
    goal.add_argument("--beta", type=float, help="instead: a fixed temperature")
    made.add_argument("--per-dimension", action="store_true", help="kappa^2 is a mean over dimensions, not their sum")
    made.add_argument("--latent", type=int, default=2, help="dimension of the latent space (%(default)s)")
    made.add_argument("--hidden", default="64,64", help="widths of the hidden layers, or linear (%(default)s)")
    made.add_argument("--steps", type=int, default=20_000, help="in all (%(default)s)")
    made.add_argument("--resume", metavar="FILE", help="go on from what --out has written before")
    return result
