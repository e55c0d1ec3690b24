"""Sweeps of the data sets of scikit-learn: this project and EM as one writes it, side by side.

    python -m analysis.benchmarks.real [--rows NAME ...] [--physics PATH] [--calls NAME ...] [--out FILE]

25 temperatures, evenly spaced in their logarithm from 1.5 times the first critical temperature down to a share of it,
and 32 tiles. EM is the plain map, jitted in JAX in float64. At every temperature it starts from the result of the one
before, with a noise of 1e-5 of the radius of the data, and ends when the root-mean-square step is below 1e-8 of that
radius. It runs a second time to the residual that our sweep reaches. All run on one thread in processes of their own;
the times are processor times without compilation, the least of several turns. Ratios are EM over ours: above 1, our
sweep takes less time. Free energies are those at the last temperature; each method may end in another local minimum.
Beside them stand k-means and a mixture of spherical Gaussians of scikit-learn, with as many centres, once: they solve
other problems, and F is that of their centres.

`--physics` adds the certified optimum of points in the plane, beside Blahut-Arimoto on a grid of 60 x 60 points, which
has a minute; "twin" takes small data like them. `--calls` adds single calls, beside k-means where it does the like.
`analysis.benchmarks.optimum` has the rate-distortion function of images and in 16 dimensions.

The numbers of maps, solutions and split conditions do not depend on the machine, apart from rounding. `--out` writes
them, and a test compares them with `results/real.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import constrained_vae as cv
from constrained_vae._utils.writing import write_text
from constrained_vae.solvers.loop import iterate
from constrained_vae.solvers.split_condition import split_condition

from ._methods import MissingError, import_jax
from ._process import elsewhere
from ._real_rows import CALLS, LAMBDAS, PEERS, blahut_arimoto, certified, plane
from .continuation import counted

COUNTS = Path(__file__).parent / "results" / "real.json"
_TEMPERATURES, _TILES = 25, 32
_KICK, _TOL = 1e-5, 1e-8  # of EM, in units of the radius of the data
_MOST_MAPS = 10**6  # of EM at one temperature
_TURNS = 3


@dataclass(frozen=True)
class Row:
    """A data set, and the lowest temperature in units of the first critical one."""

    data: str
    low: float

    @property
    def x(self) -> np.ndarray:
        return DATA[self.data]()

    @property
    def betas(self) -> np.ndarray:
        return cv.first_critical_beta(self.x) * np.geomspace(1.5, self.low, _TEMPERATURES)


def _loaded(name: str, standardised: bool = False) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        from sklearn import datasets

        x: np.ndarray = getattr(datasets, f"load_{name}")().data
        return (x - x.mean(axis=0)) / x.std(axis=0) if standardised else x

    return load


DATA: dict[str, Callable[[], np.ndarray]] = {
    "iris": _loaded("iris"),
    "wine": _loaded("wine", standardised=True),
    "breast cancer": _loaded("breast_cancer", standardised=True),
    "diabetes": _loaded("diabetes"),
    "digits": _loaded("digits"),
    "twin": lambda: cv.datasets.four_clusters(n_per_cluster=10).x,  # small, for the tests
}
ROWS = {
    f"{data}, {low:g}": Row(data, low)
    for data, low in (
        ("iris", 0.05),
        ("iris", 0.002),
        ("wine", 0.05),
        ("breast cancer", 0.05),
        ("diabetes", 0.05),
        ("digits", 0.05),
    )
}


@contextmanager
def counts() -> Iterator[dict[str, int]]:
    """Count maps (each is one call of a kernel), solutions, and split conditions."""
    found = {"maps": 0, "solutions": 0, "conditions": 0}

    def counting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found[name] += 1
            return original(*args, **kwargs)

        return call

    with (
        counted() as maps,
        mock.patch("constrained_vae.phases.continuation.iterate", counting("solutions", iterate)),
        mock.patch("constrained_vae.solvers.splits.split_condition", counting("conditions", split_condition)),
    ):
        yield found
        found["maps"] = maps[0]


def sweep(row: Row) -> tuple[cv.Branch, dict[str, int]]:
    """Our sweep, and its counts."""
    with counts() as found:
        branch = cv.sweep(row.x, betas=row.betas, n_tiles=_TILES)
    assert isinstance(branch, cv.Branch)
    return branch, found


def measure_sweep(data: str, low: float, threads: int) -> dict[str, Any]:
    """Processor seconds of our sweep, the free energy and the largest residual relative to the radius."""
    row = Row(data, low)
    cv.sweep(row.x, betas=row.betas[:12], n_tiles=_TILES)  # compiles the kernels
    seconds, branch = _least(lambda: sweep(row)[0])
    residual = max(s.residual / s.frame.scale for s in branch)
    return {"seconds": seconds, "free_energy": branch.free_energy[-1], "residual": residual}


def measure_em(data: str, low: float, tol: float, threads: int) -> dict[str, Any]:
    """Processor seconds and maps of EM to a tolerance on the step, and the free energy; or why JAX is missing."""
    row = Row(data, low)
    try:
        run = em(row.x, _TILES)
    except MissingError as error:
        return {"missing": str(error)}
    run(row.betas[:1], tol)  # compiles
    seconds, (psi, maps) = _least(lambda: run(row.betas, tol))
    return {"seconds": seconds, "free_energy": free_energy(row.x, psi, row.betas[-1]), "maps": maps}


def measure_peer(data: str, low: float, peer: str, threads: int) -> dict[str, Any]:
    """Processor seconds of k-means or of a mixture, and the free energy of its centres; or what is missing."""
    row = Row(data, low)
    x, beta = row.x, row.betas[-1]
    try:
        PEERS[peer](x[:_TILES], 2)  # imports
        seconds, psi = _least(lambda: PEERS[peer](x, _TILES))
    except MissingError as error:
        return {"missing": str(error)}
    return {"seconds": seconds, "free_energy": free_energy(x, psi, beta)}


def measure_plane(path: str | None, lam: float, grid: bool, threads: int) -> dict[str, Any]:
    """The certified optimum of points in the plane, or Blahut-Arimoto on a grid."""
    x = plane(path)
    if grid:
        return blahut_arimoto(x, lam)
    certified(x[:100], lam)  # compiles the kernels
    return certified(x, lam)


def measure_call(name: str, peer: bool, threads: int) -> dict[str, Any]:
    """Processor seconds of one of the calls, or of its peer, and its number of maps."""
    call = CALLS[name][peer]
    assert call is not None  # `main` has tested it
    call() if name.startswith("their") else cv.solve(
        np.eye(64, 12), beta=0.1, n_tiles=8, on_failure="return"
    )  # compiles
    began = time.process_time()
    found = call()
    seconds = time.process_time() - began
    return {"seconds": seconds, "maps": getattr(found, "n_maps", None), "converged": getattr(found, "converged", None)}


def em(x: np.ndarray, n_tiles: int) -> Callable[..., tuple[np.ndarray, int]]:
    """EM as a function of temperatures, tolerance and seed: the last reconstructions, and the number of maps.

    A list that is given as `path` receives the reconstructions of every temperature.
    """
    jax = import_jax()
    jnp = jax.numpy
    centred = x - x.mean(axis=0)
    radius = float(np.sqrt(np.square(centred).sum(axis=1).mean()))
    points = jnp.asarray(centred / radius)

    @jax.jit
    def converged(psi: Any, theta: float, tol: float) -> tuple[Any, int]:
        def step(state: Any) -> Any:
            psi, _, maps = state
            q = jax.nn.softmax((points @ psi.T - 0.5 * (psi * psi).sum(axis=1)) / theta, axis=1)
            mass = q.sum(axis=0)
            after = (q.T @ points) / mass[:, None]
            length = jnp.sqrt(mass @ ((after - psi) ** 2).sum(axis=1) / len(points))
            return after, length, maps + 1

        def goes_on(state: Any) -> Any:
            return (state[1] > tol) & (state[2] < _MOST_MAPS)

        psi, _, maps = jax.lax.while_loop(goes_on, step, (psi, jnp.inf, 0))
        return psi, maps

    def run(
        betas: np.ndarray, tol: float, seed: int = 0, path: list[np.ndarray] | None = None
    ) -> tuple[np.ndarray, int]:
        rng, total = np.random.default_rng(seed), 0
        psi = np.zeros((n_tiles, x.shape[1]))
        for beta in betas:
            noise = rng.standard_normal(psi.shape) / np.sqrt(x.shape[1])
            psi, maps = converged(psi + _KICK * noise, beta / radius**2, tol)
            psi, total = np.asarray(psi), total + int(maps)
            if path is not None:
                path.append(psi * radius + x.mean(axis=0))
        return psi * radius + x.mean(axis=0), total

    return run


def free_energy(x: np.ndarray, psi: np.ndarray, beta: float) -> float:
    """F of uniform tiles at reconstructions psi (K, D), in nats (T5)."""
    x, psi = x - x.mean(axis=0), psi - x.mean(axis=0)
    energies = (np.square(x).sum(axis=1)[:, None] - 2 * x @ psi.T + np.square(psi).sum(axis=1)) / (2 * beta)
    least = energies.min(axis=1)
    return float((least - np.log(np.exp(least[:, None] - energies).mean(axis=1))).mean())


def _least(work: Callable[[], Any]) -> tuple[float, Any]:
    """The least processor time of some turns, and the result."""
    seconds = []
    for _ in range(_TURNS):
        began = time.process_time()
        found = work()
        seconds.append(time.process_time() - began)
    return min(seconds), found


def line(
    name: str,
    ours: dict[str, Any],
    found: dict[str, int],
    em_to: Sequence[dict[str, Any]],
    peers: Sequence[dict[str, Any]] = (),
) -> str:
    """A row of the table."""
    text = f"{name:20}{found['maps']:>8}{ours['seconds']:>8.2f}{ours['free_energy']:>10.4f}"
    for one in em_to:
        if "missing" not in one:
            text += f"{one['maps']:>9}{one['seconds']:>8.2f}{one['seconds'] / ours['seconds']:>7.2f}"
    last = em_to[-1]
    text += "" if "missing" in last else f"{last['free_energy']:>10.4f}"
    return text + "".join(f"{one['seconds']:>8.2f}{one['free_energy']:>10.4f}" for one in peers if "missing" not in one)


def line_of_plane(lam: float, ours: dict[str, Any], grid: dict[str, Any]) -> str:
    """A row of the table of the plane: F of the grid is relative to ours."""
    proven = "proven" if ours["rigorous"] else "heuristic"
    rise = grid["free_energy"] - ours["free_energy"]
    text = f"{lam:<20g}{ours['seconds']:>8.1f}{ours['gap']:>9.0e}{proven:>10}"
    return text + f"{grid['seconds']:>10.1f}{grid['gap']:>9.0e}{rise:>+10.1e}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", choices=[*ROWS, "twin"], nargs="*", default=list(ROWS))
    parser.add_argument("--physics", metavar="PATH", help="file with an array ppzee2 of points in the plane, or twin")
    parser.add_argument("--calls", choices=CALLS, nargs="*", help="single calls; without names all")
    parser.add_argument("--out", type=Path, help="JSON file of the counts")
    args = parser.parse_args(argv)
    names = "".join(f"{name + ':':>18}" for name in PEERS)
    print(f"{'':20}{'ours:':>8}{'':18}{'EM to 1e-8:':>24}{'EM to our residual:':>24}{'':10}{names}")
    columns = 2 * f"{'maps':>9}{'s':>8}{'ratio':>7}" + f"{'F':>10}" + len(PEERS) * f"{'s':>8}{'F':>10}"
    print(f"{'':20}{'maps':>8}{'s':>8}{'F':>10}" + columns)
    records: dict[str, dict[str, int]] = {}
    missing = set[str]()
    for name in args.rows:
        row = ROWS.get(name, Row("twin", 0.02))
        _, records[name] = sweep(row)
        given = {"data": row.data, "low": row.low}
        ours = elsewhere("sweep", given, threads=1)
        em_to = [elsewhere("em", given | {"tol": tol}, threads=1) for tol in (_TOL, ours["residual"])]
        peers = [elsewhere("peer", given | {"peer": peer}, threads=1) for peer in PEERS]
        missing |= {one["missing"] for one in (*em_to, *peers) if "missing" in one}
        print(line(name, ours, records[name], em_to, peers), flush=True)
    if args.physics:
        print(f"\n{'lambda':20}{'s':>8}{'gap':>9}{'':10}{'grid: s':>10}{'gap':>9}{'F':>10}")
        path = None if args.physics == "twin" else args.physics
        for lam in LAMBDAS:
            found = [elsewhere("plane", {"path": path, "lam": lam, "grid": grid}, threads=1) for grid in (False, True)]
            print(line_of_plane(lam, *found), flush=True)
    for name in () if args.calls is None else args.calls or CALLS:
        found = [
            elsewhere("call", {"name": name, "peer": n > 0}, threads=1) for n, call in enumerate(CALLS[name]) if call
        ]
        text = "".join(f"{one['seconds']:>9.2f}" for one in found)
        ours = found[0]
        maps = "" if ours["maps"] is None else f", {ours['maps']} maps{'' if ours['converged'] else ', not converged'}"
        print(f"{name:34}{text}{maps}", flush=True)
    for text in sorted(missing):
        print(text)
    if args.out:
        write_text(args.out, json.dumps(records, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
