"""The package as imported: light, complete, in any order."""

import importlib.metadata
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import constrained_vae as cv
from tests.helpers.without_torch import HIDE

HEAVY = {"cupy", "dask", "distributed", "numba", "sklearn", "matplotlib", "torch"}


def run(code):
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(cv.__file__).parents[1], check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_package_its_light_parts_and_the_trainer_load_nothing_heavy():
    """One interpreter takes one step after the other, and prints what it has loaded of these."""
    steps = "import constrained_vae as cv", "cv.Tiling, cv.ELBO, cv.Peak, cv.Sites, cv.equations", "cv.geco.train"
    code = ["import sys"]
    for step in steps:
        code += [step, f"print(*({HEAVY} & set(sys.modules)), 'after', {step!r})"]
    assert run("\n".join(code)) == " ".join(f"after {step}" for step in steps).split()


def test_image_models_name_the_extra_that_they_need():
    code = """
import constrained_vae as cv
for statement in ("import constrained_vae.image_models", "cv.image_models", "from constrained_vae import *"):
    try:
        exec(statement)
    except ImportError as error:
        print(error)
"""
    words = "constrained_vae.image_models needs the package torch: pip install 'constrained-vae[torch]'".split()
    assert run(HIDE + code) == [*words, *words]


def test_names_of_the_trainer_are_documented():
    assert all(getattr(cv.geco, name).__doc__ for name in cv.geco.__all__)


def test_all_is_sorted_and_complete():
    assert cv.__all__ == sorted(set(cv.__all__))
    assert set(cv.__all__) | {"__version__"} == set(dir(cv))


# A fresh interpreter each time would take long: one forgets the package, but not what it depends on.
FORGET = """
import sys
def forget():
    for module in [name for name in sys.modules if name.partition(".")[0] == "constrained_vae"]:
        del sys.modules[module]
"""


def test_every_name_can_be_had_in_any_order():
    code = """
for reverse in (False, True):
    forget()
    import constrained_vae as cv
    print(*[getattr(cv, name) and name for name in sorted(cv.__all__, reverse=reverse)])
"""
    assert run(FORGET + code) == [*cv.__all__, *reversed(cv.__all__)]


def test_a_name_can_be_had_first():
    """Some that lie at the far end of the imports stand for all."""
    names = ["solve", "sweep", "backends", "datasets", "solve_constrained", "rate_distortion", "spectral", "geco"]
    code = f"""
for name in {names}:
    forget()
    exec(f"from constrained_vae import {{name}}")
    print(name)
"""
    assert run(FORGET + code) == names


@pytest.mark.parametrize("name", cv.__all__)
def test_names_are_what_they_say_and_documented(name):
    thing = getattr(cv, name)
    assert thing.__doc__
    assert thing.__name__ in (name, f"constrained_vae.{name}")


def test_no_module_has_the_name_of_a_public_function():
    for package in (
        cv,
        cv.spectral,
        cv.geco,
        cv.backends,
        cv.testing,
        cv.datasets,
    ):  # of the public packages: others export nothing
        modules = {path.stem for path in Path(package.__file__).parent.glob("*.py")}
        functions = {name for name in getattr(package, "__all__", ()) if not inspect.ismodule(getattr(package, name))}
        assert modules.isdisjoint(functions)


def test_unknown_names():
    with pytest.raises(AttributeError, match="No constrained_vae attribute nothing"):
        _ = cv.nothing


def test_version():
    """One version, that of the metadata, which is made from the tags of git: tests/test_distribution.py."""
    assert cv.__version__ == importlib.metadata.version("constrained-vae")
    assert re.match(r"\d+\.\d+", cv.__version__)


NAMED = [getattr(cv, name) for name in cv.__all__]
INSIDE = [
    thing
    for module in filter(inspect.ismodule, NAMED)
    for name, thing in vars(module).items()
    if inspect.isroutine(thing) and name[0] != "_" and (thing.__module__ == module.__name__ or module is cv.datasets)
]


@pytest.mark.parametrize("thing", [*NAMED, *INSIDE], ids=lambda thing: thing.__name__)
def test_everything_public_has_an_example(thing):
    if thing in (cv.datasets.mnist, cv.plotting.training):
        return  # the one wants an optional package, the other a training run
    assert ">>> " in thing.__doc__
