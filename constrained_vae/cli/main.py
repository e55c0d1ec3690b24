"""The command line `constrained-vae`: one command for each question.

A command computes, then writes the file, then draws the picture, and prints at last; none of the three needs another
one. Exit codes: 0 done; 1 not converged, or not proved; 2 bad input; 3 computed, but the file, the picture or the text
could not be written; 130 and 143 interrupted by Ctrl-C or SIGTERM (results up to then are written). Modules that are
slow to import are imported when a command runs, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .. import __version__
from .._utils.defaults import IMAGE_MODELS, N_TILES
from . import endings
from .data_options import DATA, add_data_options, data_of
from .signals import Signals

if TYPE_CHECKING:
    from ..datasets import DataSet
    from .outcome import Outcome

_BETAS = "LOW:HIGH:COUNT temperatures, evenly spaced in log beta"
_MODELS = "mlp, a compact network; of images, with the extra torch: vae, vae-nvp (with a learned prior), convdraw"
_SIGMA = "standard deviation of the decoder (1; of images under --kappa the one that fits the threshold)"
_LIKELIHOODS = ("gaussian", "bernoulli", "poisson", "categorical")
_LISTED = 5  # number of warnings that are printed


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments of the command; by default the arguments of the process.

    Returns
    -------
    int
        Exit code, see the docstring of this module.

    Raises
    ------
    SystemExit
        After `--help` and `--version`, and if the options are invalid (code 2).
    """
    with endings.tolerant_errors(), Signals() as signals:
        try:
            args = _parser().parse_args(argv)
        finally:
            endings.flush()  # of --help
        run = _answer if args.command in ("estimate", "certify", "verify") else _run
        return run(args, f"constrained-vae {args.command}", signals)


def _run(args: argparse.Namespace, prog: str, signals: Signals) -> int:
    """Run the command of the parsed arguments; the exit code."""
    with contextlib.ExitStack() as stack:
        try:
            kinds = stack.enter_context(_printing_warnings(prog))
            with signals.computing():
                if args.command == "train":
                    from . import values

                    values.complete(args)
                if getattr(args, "scheduler", None) is not None:
                    from . import folders

                    folders.connected(args.scheduler, stack)
                data = data_of(args)  # before anything slow is loaded, so that a wrong file is answered at once
                from ..results.status import NotConvergedWarning
                from . import commands, output

                output.check(args)
                outcome: Outcome = getattr(commands, args.command)(args, data)
        except BaseException as error:
            return endings.explained(prog, error, "write", signals)
        converged = outcome.converged() and not any(issubclass(kind, NotConvergedWarning) for kind in kinds)
        whole = _publish(
            args, prog, data, outcome, {"converged": converged, "interrupted": bool(signals.numbers)}, signals
        )
        if len(kinds) > _LISTED:
            endings.say(f"{prog}: and {len(kinds) - _LISTED} more warnings", sys.stderr)
    return endings.ended(prog, whole, converged, signals)


def _answer(args: argparse.Namespace, prog: str, signals: Signals) -> int:
    """Run a command that only prints, and may write a file itself; the exit code."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_printing_warnings(prog))
            with signals.computing():
                from . import questions

                text, good = getattr(questions, args.command)(args)
        except BaseException as error:
            return endings.explained(prog, error, "write", signals)
        return endings.ended(prog, endings.printed(prog, lambda: text, [], signals), good, signals)


def _publish(
    args: argparse.Namespace,
    prog: str,
    data: DataSet,
    outcome: Outcome,
    ending: dict[str, bool],
    signals: Signals,
) -> bool:
    """Write the file, draw the picture and print the text; whether all of it is done."""
    from . import output

    steps = {
        args.out: lambda: output.save(args, data, outcome, ending, signals),
        args.plot: lambda: output.draw(args.plot, outcome, signals),
    }
    files = {path: endings.written(prog, path, step) for path, step in steps.items() if path is not None}
    names = [f"wrote {path}" for path, there in files.items() if there]
    printed = endings.printed(prog, outcome.text, names, signals)
    return printed and all(files.values())


# --- warnings ---------------------------------------------------------------------------------------------------------


@contextmanager
def _printing_warnings(prog: str) -> Iterator[list[type[Warning]]]:
    """Print the first few warnings as they occur, in a line each; the list has the categories of all warnings."""
    from tqdm import tqdm

    kinds: list[type[Warning]] = []

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        kinds.append(category)
        if len(kinds) <= _LISTED:
            tqdm.write(f"{prog}: {endings.one_line(message)}", file=sys.stderr)  # keeps a progress bar intact

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield kinds


# --- options ----------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # one line; the method of argparse also prints the usage
        self.exit(endings.BAD_INPUT, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> _Parser:
    shared = _Parser(add_help=False)
    shared.add_argument("data", metavar="DATA", help=DATA)
    shared.add_argument(
        "--seed", type=int, default=0, help="seed of named data sets and of random starts (%(default)s)"
    )
    shared.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="file of results: .npz (for a model of images .pt), which the library can load, or .json",
    )
    shared.add_argument("--plot", type=Path, metavar="FILE", help="a picture: .png, .pdf, .svg, ...")
    shared.add_argument("--quiet", action="store_true", help="no progress bar")
    add_data_options(shared)

    backend = _Parser(add_help=False)
    backend.add_argument("--backend", choices=("auto", "reference", "numba", "cupy"), default="auto")

    exact = _Parser(add_help=False, parents=[backend])
    exact.add_argument("--sigma", type=float, default=1.0, help="standard deviation of the decoder (%(default)s)")
    exact.add_argument("--likelihood", choices=_LIKELIHOODS, default="gaussian")

    solver = _Parser(add_help=False, parents=[exact])
    solver.add_argument("--n-tiles", type=int, default=N_TILES, help="number of latent tiles (%(default)s)")
    solver.add_argument("--masses", choices=("fixed", "free"), default="fixed", help="prior masses of the tiles")
    solver.add_argument("--tol", type=float, default=1e-10, help="relative tolerance (%(default)s)")
    solver.add_argument("--max-maps", type=int, default=100_000, help="budget of maps for every solution (%(default)s)")
    solver.add_argument("--time-limit", type=float, help="seconds after which what there is is written; code 1")

    text = "of a cluster of Dask, which reads and computes a folder of Parquet or Zarr: tcp://HOST:8786"
    solver.add_argument("--scheduler", metavar="ADDRESS", help=text)

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
    goal.add_argument("--kappa", type=float, help="instead of --beta: find the multiplier for E||x - psi||^2 = kappa^2")

    made = command(
        "sweep", "annealing through temperatures", "digits --betas 0.3:1:60 --n-tiles 32 --plot d.png", solver
    )
    made.add_argument("--betas", help=f"{_BETAS}; by default they span the transitions of the data")
    made.add_argument("--direction", choices=("down", "up"), default="down", help="cooling or heating")
    text = "look for lower free energies, until so many moves of a tile in a row are of no use (%(default)s: do not)"
    made.add_argument("--restarts", type=int, default=0, help=text)

    made = command("transitions", "exact critical temperatures", "four_clusters --betas 0.2:12 --out t.json", solver)
    made.add_argument("--betas", metavar="LOW:HIGH", help="range; by default it spans the transitions of the data")
    made.add_argument("--limit", type=int, help="largest number of transitions, hottest first")

    made = command("suggest", "which beta, and which kappa: what stands out in the data", "four_clusters", exact)
    made.add_argument("--most", type=int, default=12, help="largest number of reconstructions (%(default)s)")
    made.add_argument("--time-limit", type=float, help="seconds after which what there is is written; code 1")

    made = command("explore", "a page with the temperature as a slider", "four_clusters --out page.html", exact)
    made.add_argument("--no-spectral", action="store_true", help="without the comparison with spectral clustering")
    made.add_argument("--time-limit", type=float, help="seconds after which what there is is written; code 1")

    example = "four_clusters --betas 0.1:9:12 --model 2.0:0.1 --plot f.png"
    made = command("frontier", "the rate-distortion function, certified", example, exact)
    made.add_argument("--betas", help=f"{_BETAS}; by default from nucleation to 0.95 of the entropy")
    made.add_argument("--gap", type=float, default=1e-6, help="largest difference of the bounds, in nats (%(default)s)")
    made.add_argument("--max-maps", type=int, default=100_000, help="budget of maps for every solution (%(default)s)")
    made.add_argument("--time-limit", type=float, help="seconds after which what there is is written; code 1")
    made.add_argument("--model", metavar="RATE:DISTORTION", help="a trained model, to compare with the frontier")

    _add_train(command("train", "GECO, or a beta-VAE", "four_clusters --kappa 0.5 --steps 5000 --out run.npz"))

    text = "time and memory of a map, a solution, a sweep and R(D), before they are run"
    made = commands.add_parser("estimate", parents=[backend], help=text, description=f"{text[0].upper()}{text[1:]}.")
    for name, metavar, what in (("n", "N", "data points"), ("k", "K", "latent tiles"), ("d", "D", "dimensions")):
        made.add_argument(name, metavar=metavar, type=int, help=f"number of {what}")
    made.add_argument("--data", metavar="DATA", help=f"the data, or some of them, which narrow the ranges: {DATA}")
    made.add_argument("--seed", type=int, default=0, help="seed of named data sets (%(default)s)")
    add_data_options(made)

    text = "bounds of the global optimum for a saved solution, and a file that proves them"
    made = commands.add_parser("certify", help=text, description=f"{text[0].upper()}{text[1:]}.")
    made.add_argument("solution", metavar="SOLUTION", type=Path, help="a .npz file that solve has written")
    made.add_argument("--out", type=Path, metavar="FILE", help="the proof, a .json file for the command verify")
    made.add_argument("--accuracy", type=float, default=1e-6, help="of the proof, in nats (%(default)s)")
    made.add_argument("--time-limit", type=float, help="seconds after which the bounds are those found by then")

    text = "whether a proof holds for data, rounding included; code 1 if not"
    made = commands.add_parser("verify", help=text, description=f"{text[0].upper()}{text[1:]}.")
    made.add_argument("proof", metavar="PROOF", type=Path, help="a .json file that certify has written")
    made.add_argument("data", metavar="DATA", help=DATA)
    made.add_argument("--seed", type=int, default=0, help="seed of named data sets (%(default)s)")
    add_data_options(made)
    return result


def _add_train(made: _Parser) -> None:
    """The options of the command train; those that not all models have are None by default."""
    goal = made.add_mutually_exclusive_group(required=True)
    goal.add_argument("--kappa", type=float, help="constraint E||x - g(z)||^2 <= kappa^2, lambda learned")
    goal.add_argument("--beta", type=float, help="instead of --kappa: a fixed temperature")
    made.add_argument("--per-dimension", action="store_true", help="kappa^2 is the mean over dimensions, not the sum")
    made.add_argument("--model", choices=("mlp", *IMAGE_MODELS), default="mlp", help=_MODELS)
    made.add_argument("--task", choices=("plain", "rotate", "colour"), help="what a model of images learns (plain)")
    made.add_argument("--size", type=int, help="height and width to which images are made smaller")
    made.add_argument("--latent", type=int, help="dimension of the code (2, of images 64; convdraw: its channels, 4)")
    made.add_argument("--hidden", help="mlp: widths of the hidden layers, or linear (two of 64, or of twice --latent)")
    made.add_argument("--draws", type=int, help="convdraw: number of steps in which an image is drawn (4)")
    made.add_argument("--sigma", type=float, help=_SIGMA)
    made.add_argument("--likelihood", choices=_LIKELIHOODS, help="mlp: of the decoder, gaussian (default) or bernoulli")
    made.add_argument("--steps", type=int, help="total number of steps (20000, of images 10000)")
    made.add_argument("--batch-size", type=int, help="points of a step (128, of images 64)")
    made.add_argument("--device", help="models of images: auto (a GPU if there is one), cpu, cuda or cuda:N")
    made.add_argument("--time-limit", type=float, help="seconds after which what there is is written; code 1")
    made.add_argument(
        "--checkpoint-every", type=int, default=1000, help="--out is also written every so many steps (%(default)s)"
    )
    made.add_argument("--resume", metavar="FILE", help="continue from a file that --out has written")
