"""Times one map: of this project, of alternatives in other libraries, and the floor of the machine.

    python -m analysis.benchmarks.map [--sizes N,K,D ...] [--dtypes ...] [--methods ...] [--rounds R] [--quick]

Every measurement has its own process. In each round every method is measured once, one after another, so that a
disturbance of the machine affects all of them. Ratios and fractions of the floor are taken within a round, and their
medians are shown. All methods may use the same number of threads. The docstrings of `_methods` and `_floor` describe
the methods and the floor. A full run writes results/map.json and figures/map.png beside this file; a partial run writes
files only with --out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from constrained_vae._utils.writing import write_picture, write_text

from ._methods import METHODS
from ._process import elsewhere

SIZES = ((10000, 1024, 2), (100000, 4096, 2), (10000, 1024, 64), (50000, 1024, 64), (2000, 2000, 784))
QUICK = ((1000, 128, 2), (1000, 128, 64))
DTYPES = ("float64", "float32")
_FLOORS = {"numba": "floor", "cupy": "gpu floor"}  # the methods of this project, with the floor of their device
_VERSIONS = ("constrained-vae", "numpy", "scipy", "numba", "scikit-learn", "torch", "jax", "jaxlib", "cupy")

Run = Callable[[str, dict[str, Any], int], dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    sizes = [list(size) for size in args.sizes or (QUICK if args.quick else SIZES)]
    rounds = args.rounds or (1 if args.quick else 3)
    full = not (args.quick or args.sizes) and set(args.methods) == set(METHODS) and set(args.dtypes) == set(DTYPES)
    results = compute(sizes, args.dtypes, args.methods, rounds, args.threads, growth_series(args.quick))
    print(table(results))
    if out := args.out or (Path(__file__).parent if full else None):
        write(out, results)
        print(f"wrote {out / 'results' / 'map.json'} and {out / 'figures' / 'map.png'}")
    return 0


def growth_series(quick: bool = False) -> dict[str, list[list[int]]]:
    """Series of sizes in which one of N, K and D grows, D in the range where matrix products are used."""
    steps = [2**n for n in range(3 if quick else 5)]
    N, K = (500, 64) if quick else (10000, 512)
    return {
        "N at D = 2": [[N * n, 2 * K, 2] for n in steps],
        "N at D = 64": [[N // 2 * n, 2 * K, 64] for n in steps],
        "K at D = 2": [[N, K * n, 2] for n in steps],
        "K at D = 64": [[N // 2, K * n, 64] for n in steps],
        "D": [[N // 4, 2 * K, 32 * n] for n in steps],
    }


def compute(
    sizes: Sequence[Sequence[int]],
    dtypes: Sequence[str],
    methods: Sequence[str],
    rounds: int,
    threads: int,
    growth: dict[str, list[list[int]]],
    run: Run = elsewhere,
) -> dict[str, Any]:
    """All measurements, as types of JSON; times in seconds, memory in bytes, rates per second."""
    missing: dict[str, str] = {}
    maps = []
    for size in sizes:
        for dtype in dtypes:
            taken: list[dict[str, Any]] = []
            for number in range(rounds):
                _say(f"{tuple(size)} {dtype}: round {number + 1} of {rounds}")
                taken.append({})
                for method in methods:
                    if method in missing:
                        continue
                    common = {"size": size, "dtype": dtype}
                    result = run("measure", common | {"method": method}, threads)
                    if "missing" in result:
                        missing[method] = result["missing"]
                        _say(f"without {method}: {missing[method]}")
                        continue
                    taken[-1][method] = result
                    if method in _FLOORS:
                        floor = run("floor", common | {"gpu": method == "cupy"}, threads)
                        taken[-1][_FLOORS[method]] = floor | {"seconds": [floor["seconds"]]}
            maps += summary(size, dtype, taken)
    grown = []
    for name, series in growth.items() if "numba" in methods else ():
        for dtype in dtypes:
            _say(f"growth in {name}, {dtype}")
            result = run("growth", {"method": "numba", "sizes": series, "dtype": dtype}, threads)
            seconds = [float(np.median(column)) for column in result["seconds"]]
            grown.append({"series": name, "dtype": dtype, "sizes": series, "seconds": seconds} | fit(series, seconds))
    return {
        "machine": machine(),
        "versions": versions(),
        "threads": threads,
        "rounds": rounds,
        "missing": missing,
        "maps": maps,
        "growth": grown,
    }


def summary(size: Sequence[int], dtype: str, rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A record per method: seconds, ratio to this project, fraction of the floor, with quartiles over the rounds."""
    medians = [{name: float(np.median(result["seconds"])) for name, result in each.items()} for each in rounds]
    records = []
    for name, example in rounds[0].items():
        ours = "cupy" if name == _FLOORS["cupy"] or (name in METHODS and METHODS[name].on_gpu) else "numba"
        record: dict[str, Any] = {"size": list(size), "dtype": dtype, "method": name}
        record["seconds"] = _quartiles([s for each in rounds for s in each[name]["seconds"]])
        if ours in medians[0]:
            record["ratio"] = _quartiles([each[name] / each[ours] for each in medians])
            record["floor_fraction"] = _quartiles([each[_FLOORS[ours]] / each[name] for each in medians])
        if example.get("extra_bytes") is not None:
            record["extra_bytes"] = int(np.median([each[name]["extra_bytes"] for each in rounds]))
        for rate in ("exp_rate", "operation_rate"):
            if rate in example:
                record[rate] = float(np.median([each[name][rate] for each in rounds]))
                record["operation"] = example["operation"]
        records.append(record)
    return records


def memory_claim(size: Sequence[int], dtype: str) -> int:
    """Upper bound in bytes of the extra memory of a map of this project: 16 MB + 4 K D itemsize."""
    return 16_000_000 + 4 * size[1] * size[2] * np.dtype(dtype).itemsize


def fit(series: list[list[int]], seconds: list[float]) -> dict[str, float]:
    """Exponent of the growth, and largest relative distance of the times from the best straight line a + b n."""
    varied = np.argmax(np.ptp(series, axis=0))
    n, t = np.array(series, float)[:, varied], np.array(seconds)
    exponent = np.polynomial.Polynomial.fit(np.log(n), np.log(t), 1).convert().coef[1]
    design = np.column_stack([1 / t, n / t])  # minimises relative errors
    line = design @ np.linalg.lstsq(design, np.ones(len(t)), rcond=None)[0]
    return {"exponent": float(exponent), "off_line": float(np.abs(line - 1).max())}


def table(results: dict[str, Any]) -> str:
    """The results as text; the row of a map ends with its extra memory and, for this project, the bound of it."""
    machine, versions = results["machine"], ", ".join(f"{name} {of}" for name, of in results["versions"].items())
    lines = [f"{machine['cpu']}, {machine['cores']} cores, {results['threads']} threads; {versions}"]
    lines += [f"without {method}: {why}" for method, why in results["missing"].items()]
    lines.append(
        f"{'N, K, D':>15} {'dtype':8} {'method':17}{'ms per map':>11} {'quartiles':>21}{'ratio':>8}{'of floor':>9}"
        f"{'extra MB':>9}"
    )
    for record in results["maps"]:
        size, low, high = ", ".join(map(str, record["size"])), record["seconds"]["lower"], record["seconds"]["upper"]
        lines.append(
            f"{size:>15} {record['dtype']:8} {record['method']:17}{1e3 * record['seconds']['median']:11.2f} "
            f"{f'[{1e3 * low:.2f}, {1e3 * high:.2f}]':>21}"
            + (
                f"{record['ratio']['median']:8.2f}{record['floor_fraction']['median']:9.0%}"
                if "ratio" in record
                else ""
            )
            + (f"{record['extra_bytes'] / 1e6:9.1f}" if "extra_bytes" in record else "")
            + (f" ({memory_claim(record['size'], record['dtype']) / 1e6:.1f})" if record["method"] == "numba" else "")
            + (
                f"  {record['exp_rate'] / 1e9:.2f} G exponentials/s, {record['operation_rate'] / 1e9:.1f} G "
                f"{record['operation']}/s"
                if "exp_rate" in record
                else ""
            )
        )
    if results["growth"]:
        lines.append(
            f"{'growth of ours in':17} {'dtype':8} {'sizes':>32}{'exponent':>9}  furthest from a straight line"
        )
    for grown in results["growth"]:
        first, last = (",".join(map(str, grown["sizes"][end])) for end in (0, -1))
        lines.append(
            f"{grown['series']:17} {grown['dtype']:8} {f'{first} to {last}':>32}{grown['exponent']:9.2f}"
            f"{grown['off_line']:8.1%}"
        )
    return "\n".join(lines)


def write(out: Path, results: dict[str, Any]) -> None:
    """Write the JSON file and its picture."""
    import matplotlib

    matplotlib.use("Agg")
    from ._picture import draw

    for folder in ("results", "figures"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_text(out / "results" / "map.json", json.dumps(results, indent=1) + "\n")
    write_picture(out / "figures" / "map.png", draw(results))


def machine() -> dict[str, Any]:
    """The processor, and the number of its cores that may be used."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in _lines(info) if line.startswith("model name")]
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    vectors = "AVX-512" if any("avx512f" in line for line in _lines(info)) else None
    found = {"cpu": names[0] if names else platform.machine(), "cores": cores, "system": platform.system()}
    return found | ({"vectors": vectors} if vectors else {})


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _quartiles(values: Sequence[float]) -> dict[str, float]:
    lower, median, upper = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "lower": float(lower), "upper": float(upper), "count": len(values)}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse_size(text: str) -> tuple[int, ...]:
    try:
        size = tuple(map(int, text.split(",")))
    except ValueError:
        size = ()
    if len(size) != 3 or min(size) < 1:
        raise argparse.ArgumentTypeError(f"a size is N,K,D, three positive integers, got {text!r}")
    return size


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wanted a positive integer, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.benchmarks.map", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--sizes", type=parse_size, nargs="+", metavar="N,K,D", help="default: the five of the table")
    parser.add_argument("--dtypes", choices=DTYPES, nargs="+", default=DTYPES)
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS), help="default: all available")
    parser.add_argument("--rounds", type=_positive, help="processes per method and size (default 3, quick 1)")
    parser.add_argument("--threads", type=_positive, default=2, help="threads of every method (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a test")
    parser.add_argument("--out", type=Path, help="folder of results/map.json and figures/map.png")
    return parser


if __name__ == "__main__":
    sys.exit(main())
