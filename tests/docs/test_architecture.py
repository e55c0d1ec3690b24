"""The picture of the architecture says what is there: every file of the package, and the layers that are checked."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def listed(block):
    """The files of a drawn tree, as paths."""
    folders, found = [], []
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        del folders[depth:]
        if name.endswith("/"):
            folders.append(name)
        else:
            found.append("".join(folders) + name)
    return found


def test_every_file_of_the_package_is_in_the_picture_and_nothing_else():
    package = ROOT / "constrained_vae"
    there = {
        path for path in package.rglob("*") if path.suffix in (".py", ".cu", ".html") and path.name != "__init__.py"
    }
    (tree,) = (block for block in BLOCKS if block.startswith("constrained_vae/"))
    drawn = [path for path in listed(tree) if path != "constrained_vae/__init__.py"]
    assert sorted(drawn) == sorted(path.relative_to(ROOT).as_posix() for path in there)


def test_the_layers_are_those_that_import_linter_checks():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    (drawn,) = (block for block in BLOCKS if block.startswith("__main__"))
    assert [set(line.split()) for line in drawn.splitlines()] == [set(layer.split(" : ")) for layer in layers]


@pytest.mark.parametrize(
    ("question", "file"),
    [
        ("the decision that it has converged", "convergence"),
        ("a split", "splits"),
        ("a constraint to copy", "constraints"),
        ("the transitions", "transitions"),
        ("the sweep", "sweep"),
        ("the bound of R(D)", "rate_distortion"),
    ],
)
def test_one_guess_is_enough(question, file):
    """A newcomer finds the answer by the name of a file."""
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {question} |"))
    assert f"{file}.py" in row
    assert list((ROOT / "constrained_vae").rglob(f"{file}.py"))


def test_the_tests_that_a_claim_names_are_there():
    """In the last column of the tables of claims; and every item of the theory is a claim."""
    page = (ROOT / "docs" / "checked.md").read_text()
    rows = [line.rsplit("|", 2)[1] for line in page.splitlines() if line.startswith("|")]
    named = {name for row in rows for name in re.findall(r"`([\w/]*test_\w+\.py)`", row)}
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()] == []
    assert {f"[T{number}](theory.md#t{number})" for number in range(1, 25)} <= set(re.findall(r"\[T\d+\]\(.*?\)", page))
