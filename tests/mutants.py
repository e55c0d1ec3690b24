"""Mutants: small changes of the code that solves and proves, each of which some test should notice.

    make mutants                        # 300 mutants, drawn by a seed
    make mutants ARGS=--all             # all of them; what was run before is not run again
    make mutants ARGS="--seconds 3600"  # as many as fit into an hour

First all tests of the folders below run once, to see which test runs which line. The files have no compiled kernels.
Then one number, operator or condition is changed at a time in a copy of the package, and tests that run its line are
run: the fastest, and those that run the fewest lines. A line outside of functions has the tests of the whole file. A
mutant is killed if one of them fails, or does not end. Survivors are printed with their line: a new test must kill
them, or `mutants_triaged.txt` says why they change no result. Such mutants are not run, and the share of killed mutants
is of the others. Results are in build/mutants; remove the folder after the code has changed. The package `pytest-cov`
is needed.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "mutants"
CODE = [
    "solvers/loop.py", "solvers/convergence.py", "solvers/split_condition.py", "phases/transitions.py",
    "frontier/optimum.py", "frontier/coverage.py", "frontier/proof.py", "frontier/local_polynomials.py",
    "frontier/quadratics.py", "frontier/verify.py", "geco/multiplier.py",
]  # fmt: skip
TRIAGED = Path(__file__).with_name("mutants_triaged.txt")
TESTS = ["tests/solvers", "tests/phases", "tests/frontier", "tests/geco/test_multiplier.py", "tests/latent"]
_SLOWEST = 40.0  # seconds of the tests that a mutant is given
_MOST_TESTS = 120
_FILE_LIMIT = 420.0  # seconds in which a file of tests must end, to be used
_COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
_OPERATIONS = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Pow: "*", ast.FloorDiv: "*", ast.Mod: "*"}
_NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """A change of the text of a file from one offset to another."""

    path: str
    line: int
    start: int
    end: int
    old: str
    new: str
    source: str  # the line, without its indentation
    in_function: bool
    number: int = 1  # among the same changes of this line

    @property
    def name(self) -> str:
        """The same as long as the file is."""
        return f"{self.path}:{self.line}:{self.start}: {self.old} -> {self.new}"

    @property
    def lasting_name(self) -> str:
        """The same as long as the line is."""
        again = f" #{self.number}" if self.number > 1 else ""
        return f"{self.path} | {self.source} | {self.old} -> {self.new}{again}"


def mutants_of(path: str) -> list[Mutant]:
    """All mutants of a file of the package."""
    seen: Counter[tuple[int, str, str]] = Counter()
    found = []
    for mutant in sorted(_changes(path), key=lambda mutant: mutant.start):
        key = mutant.line, mutant.old, mutant.new
        seen[key] += 1
        found.append(replace(mutant, number=seen[key]))
    return found


def triaged() -> dict[str, str]:
    """Why mutants change no result, by their lasting names."""
    lines = [line for line in TRIAGED.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.rsplit(" | ", 1) for line in lines)


def _changes(path: str) -> Iterator[Mutant]:
    text = (ROOT / "constrained_vae" / path).read_text()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = text.splitlines()
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    within = {line for node in functions for line in range(node.body[0].lineno, (node.end_lineno or 0) + 1)}

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    def span(node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)

    def change(node: ast.expr, start: int, end: int, new: str) -> Mutant:
        source = lines[node.lineno - 1].strip()
        return Mutant(path, node.lineno, start, end, text[start:end], new, source, node.lineno in within)

    def between(left: ast.expr, right: ast.expr, new: str) -> Mutant:
        """The operator between two operands; brackets and spaces beside it stay."""
        start, end = span(left)[1], span(right)[0]
        gap = text[start:end]
        operator = gap.strip(" ()\n")
        start += gap.index(operator)
        return change(left, start, start + len(operator), new)

    for node in _changeable(tree):
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            yield between(node.left, node.comparators[0], _COMPARISONS[type(node.ops[0])])
        elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            yield between(node.left, node.right, _OPERATIONS[type(node.op)])
        elif isinstance(node, ast.BoolOp):
            new = "or" if isinstance(node.op, ast.And) else "and"
            yield between(node.values[0], node.values[1], new)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            start = span(node)[0]
            yield change(node, start, start + (4 if isinstance(node.op, ast.Not) else 1), "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            yield change(node, *span(node), repr(_other(node.value)))
        elif isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in _NAMES:
                end = span(called)[1]
                yield change(node, end - len(name), end, _NAMES[name])
        elif isinstance(node, ast.IfExp):
            yield change(node, *span(node.test), f"not ({text[slice(*span(node.test))]})")


def _other(value: bool | int | float) -> bool | int | float:
    """Another constant: the other truth value, the next integer, twice the number, 1 for 0.0."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else 2 * value or 1.0


def _changeable(tree: ast.AST) -> Iterator[ast.expr]:
    """Expressions of a file in their order, without annotations, decorators, f-strings and the raising of errors."""
    left_out: set[int] = set()
    for node in ast.walk(tree):
        hidden: list[ast.AST | None] = []
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            hidden = [node.returns, *node.decorator_list]
        elif isinstance(node, ast.ClassDef):
            hidden = [*node.decorator_list]
        elif isinstance(node, (ast.AnnAssign, ast.arg)):
            hidden = [node.annotation]
        elif isinstance(node, (ast.JoinedStr, ast.Raise)):
            hidden = [node]
        for part in hidden:
            if part is not None:
                left_out.update(id(inner) for inner in ast.walk(part))
    return (node for node in ast.walk(tree) if isinstance(node, ast.expr) and id(node) not in left_out)


# --- which test runs which line ---------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """Of the tests, which run on one thread."""
    return {**os.environ, "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def tests_by_line(seconds: float, parts: list[Path]) -> dict[str, dict[int, list[tuple[float, str]]]]:
    """For every file and line the tests that run it, with their seconds, the fastest first; kept in a file."""
    known = BUILD / "tests_by_line.json"
    if known.exists():
        read = json.loads(known.read_text())
        return {path: {int(line): tests for line, tests in lines.items()} for path, lines in read.items()}
    from coverage import CoverageData

    BUILD.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[int, list[tuple[float, str]]]] = {}
    files = [file for part in parts for file in ([part] if part.is_file() else sorted(part.glob("test_*.py")))]
    end = time.monotonic() + seconds
    for file in files:
        data, times = BUILD / "coverage", BUILD / "times.xml"
        data.unlink(missing_ok=True)
        name = file.relative_to(ROOT).as_posix()
        command = [
            sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--cov=constrained_vae",
            "--cov-context=test",
            "--cov-report=", f"--junitxml={times}", name,
        ]  # fmt: skip
        limit = min(_FILE_LIMIT, end - time.monotonic())
        try:
            subprocess.run(
                command, cwd=ROOT, env=environment() | {"COVERAGE_FILE": str(data)}, timeout=limit, check=False,
                capture_output=True,
            )  # fmt: skip
            spent = {
                f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}": float(case.get("time", 0))
                for case in ET.parse(times).iter("testcase")
                if not len(case)  # it passes
            }
        except (subprocess.TimeoutExpired, OSError, ET.ParseError):
            print(f"{name} takes too long, or does not run: its tests are not used", flush=True)
            continue
        seen = CoverageData(str(data))
        seen.read()
        for path in CODE:
            measured = next((f for f in seen.measured_files() if f.endswith(f"constrained_vae/{path}")), None)
            for line, contexts in seen.contexts_by_lineno(measured).items() if measured else ():
                tests = {context.partition("|")[0] for context in contexts} & spent.keys()
                found.setdefault(path, {}).setdefault(line, []).extend((spent[test], test) for test in tests)
        print(f"{name}: {len(spent)} tests, {sum(spent.values()):.0f} s", flush=True)
    for lines in found.values():
        for tests in lines.values():
            tests.sort()
    known.write_text(json.dumps(found))
    return found


# --- mutants ----------------------------------------------------------------------------------------------------------


def copied(folder: Path) -> Path:
    """A copy of the package and its tests, with the compiled kernels."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("constrained_vae", "tests", "analysis", "docs"):
        shutil.copytree(ROOT / part, folder / part)
    for part in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / part, folder)
    return folder


class Choice:
    """Which tests are run for a mutant."""

    def __init__(self, by_line: dict[str, dict[int, list[tuple[float, str]]]]) -> None:
        self.by_line = by_line
        self.lines = Counter(test for lines in by_line.values() for tests in lines.values() for _, test in tests)

    def tests(self, mutant: Mutant) -> tuple[list[str], float]:
        """Tests that run the line, the fastest first, and their seconds; half of them run the fewest lines."""
        lines = self.by_line.get(mutant.path, {})
        found = lines.get(mutant.line, [])
        if not mutant.in_function:
            found = sorted({tuple(test) for tests in lines.values() for test in tests})
        special = sorted(found, key=lambda test: (self.lines[test[1]], test[0]))
        chosen: dict[str, float] = {}
        for order in (special, found):
            total = 0.0
            for seconds, test in order[: _MOST_TESTS // 2]:
                if total + seconds > _SLOWEST / 2:
                    break
                chosen[test] = seconds
                total += seconds
        return sorted(chosen, key=lambda test: chosen[test]), sum(chosen.values())


def outcome(mutant: Mutant, choice: Choice, copy: Path) -> str:
    """Whether tests kill a mutant of the copy: killed, timeout, survived, or uncovered if there is no test."""
    chosen, total = choice.tests(mutant)
    if not chosen:
        return "uncovered"
    file = copy / "constrained_vae" / mutant.path
    text = file.read_text()
    try:
        file.write_text(text[: mutant.start] + mutant.new + text[mutant.end :])
        command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *chosen]
        env = environment() | {"PYTHONPATH": os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(command, cwd=copy, env=env, timeout=60 + 3 * total, capture_output=True, check=False)
        return "survived" if done.returncode == 0 else "killed"
    except subprocess.TimeoutExpired:
        return "timeout"
    finally:
        file.write_text(text)


def main() -> int:
    """Run mutants that were not run before, and print those that survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="all mutants instead of a sample")
    parser.add_argument("--count", type=int, default=300, help="size of the sample (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (%(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="time after which no mutant is begun")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants at the same time (%(default)s)")
    parser.add_argument("--code", nargs="+", default=CODE, help="files of the package, such as geco/multiplier.py")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="folders or files of tests, such as tests/solvers")
    parser.add_argument("--list", action="store_true", help="print the mutants, and run none")
    args = parser.parse_args()
    mutants = [mutant for path in args.code for mutant in mutants_of(path)]
    reasons = triaged()
    for name in sorted(reasons.keys() - {mutant.lasting_name for mutant in mutants}):
        if name.partition(" | ")[0] in args.code:
            print(f"no such mutant any more, see {TRIAGED.name}: {name}", flush=True)
    random.Random(args.seed).shuffle(mutants)  # a larger sample holds a smaller one
    mutants = mutants if args.all else mutants[: args.count]
    drawn = len(mutants)
    mutants = [mutant for mutant in mutants if mutant.lasting_name not in reasons]
    if args.list:
        print("\n".join(mutant.name for mutant in mutants))
        return 0
    end = time.monotonic() + args.seconds
    choice = Choice(tests_by_line(args.seconds, [ROOT / part for part in args.tests]))
    results = BUILD / "results.jsonl"
    known = dict(json.loads(line) for line in results.read_text().splitlines()) if results.exists() else {}
    copies: Queue[Path] = Queue()
    for number in range(args.jobs):
        copies.put(copied(BUILD / f"copy{number}"))

    def run(mutant: Mutant) -> None:
        if time.monotonic() > end:
            return
        copy = copies.get()
        known[mutant.name] = outcome(mutant, choice, copy)
        copies.put(copy)
        with open(results, "a") as file:
            file.write(json.dumps([mutant.name, known[mutant.name]]) + "\n")
        print(f"{known[mutant.name]:9} {mutant.name}", flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(run, [mutant for mutant in mutants if mutant.name not in known]))
    done = {mutant.name: known[mutant.name] for mutant in mutants if mutant.name in known}
    killed = sum(how in ("killed", "timeout") for how in done.values())
    share = f"{killed} of {len(done)} killed ({killed / max(len(done), 1):.0%})"
    print(
        f"\n{share}; {len(mutants) - len(done)} were not run, {drawn - len(mutants)} change no result. These survived:"
    )
    print("\n".join(f"  {how:9} {name}" for name, how in done.items() if how in ("survived", "uncovered")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
