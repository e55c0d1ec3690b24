"""The package as imported: light, complete, in any order."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import constrained_vae as cv

HEAVY = {"cupy", "numba", "sklearn", "matplotlib"}


def run(code):
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(cv.__file__).parents[1], check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_loads_nothing_heavy():
    assert HEAVY.isdisjoint(run("import sys, constrained_vae; print(*sys.modules)"))


def test_the_light_rooms_load_nothing_heavy():
    code = "import sys, constrained_vae as cv; cv.Tiling, cv.ELBO, cv.Peak, cv.Sites, cv.equations; print(*sys.modules)"
    assert HEAVY.isdisjoint(run(code))


def test_the_trainer_loads_nothing_heavy():
    assert HEAVY.isdisjoint(run("import sys, constrained_vae as cv; cv.geco.train; print(*sys.modules)"))


def test_names_of_the_trainer_are_documented():
    assert all(getattr(cv.geco, name).__doc__ for name in cv.geco.__all__)


def test_all_is_sorted_and_complete():
    names = cv.__all__
    # Constants, classes, the rest, as the linter has it.
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert set(names) == set(cv._ROOM_OF) | set(cv._MODULES)
    assert len(cv._ROOM_OF) == sum(map(len, cv._ROOMS.values()))
    assert set(names) | {"__version__"} == set(dir(cv))


@pytest.mark.parametrize("reverse", [False, True])
def test_every_name_can_be_had_in_any_order(reverse):
    code = f"import constrained_vae as cv\nfor name in sorted(cv.__all__, reverse={reverse}): print(getattr(cv, name))"
    assert run(code)


# A fresh interpreter for every name would take a minute: a few rooms at the far end of the imports stand for all.
@pytest.mark.parametrize("name", ["solve", "sweep", "backends", "datasets"])
def test_a_name_can_be_had_first(name):
    run(f"from constrained_vae import {name}")


@pytest.mark.parametrize("name", cv.__all__)
def test_names_are_what_they_say_and_documented(name):
    thing = getattr(cv, name)
    assert thing.__doc__
    assert thing.__name__ in (name, f"constrained_vae.{name}")


def test_no_module_has_the_name_of_a_public_function():
    modules = {path.stem for path in Path(cv.__file__).parent.rglob("*.py")}
    assert modules.isdisjoint(cv._ROOM_OF)


def test_unknown_names():
    with pytest.raises(AttributeError, match="module 'constrained_vae' has no attribute 'nothing'"):
        _ = cv.nothing


def test_version():
    """One version: that of the metadata where the package is installed, and of pyproject.toml where it is not."""
    tomllib = pytest.importorskip("tomllib")
    pyproject = Path(cv.__file__).parents[1] / "pyproject.toml"
    assert cv.__version__ == tomllib.loads(pyproject.read_text())["project"]["version"]
    try:
        assert cv.__version__ == importlib.metadata.version("constrained-vae")
    except importlib.metadata.PackageNotFoundError:
        pass
