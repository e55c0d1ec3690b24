"""Docstrings of every public name, by those of numpydoc's rules that pyproject.toml lists."""

import inspect
import tomllib
from dataclasses import is_dataclass
from functools import cached_property
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from types import FunctionType

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

import constrained_vae as cv
from tests.helpers.raising import raises

PYPROJECT = Path(cv.__file__).parents[1] / "pyproject.toml"
METHODS = (FunctionType, property, cached_property, classmethod, staticmethod)
CHECKS = set(tomllib.loads(PYPROJECT.read_text())["tool"]["numpydoc_validation"]["checks"])


def with_methods(path, thing):
    yield path
    for name, value in vars(thing).items() if inspect.isclass(thing) else ():
        if not name.startswith("_") and isinstance(value, METHODS):
            yield f"{path}.{name}"


def public_names(names=cv.__all__):
    """All functions and classes, those of the public modules too, and their own methods and properties."""
    for name in names:
        thing = getattr(cv, name)
        if not inspect.ismodule(thing):
            yield from with_methods(name, thing)
            continue
        for inner in getattr(thing, "__all__", vars(thing)):
            value = getattr(thing, inner)
            if not inner.startswith("_") and getattr(value, "__module__", "").startswith(thing.__name__):
                yield from with_methods(f"{name}.{inner}", value)


def answered_otherwise(path):
    """Rules that habits of this project answer in another way.

    The fields of a frozen result are told as its attributes; protocols, abstract classes, enumerations and exceptions
    are not called. In a class or a room a sentence with shapes and units may do without sections, but no section is
    half filled; and what the methods of a protocol mean is told once, where the linter asks for it (D102).
    """
    thing = attrgetter(path)(cv)
    sections = NumpyDocString(inspect.getdoc(thing) or "")
    if inspect.isclass(thing):
        told = {entry.name for section in ("Parameters", "Attributes") for entry in sections[section]}
        names = {name for entry in told for name in entry.split(", ")}
        own = {name for name in vars(thing).get("__annotations__", ()) if not name.startswith("_")}
        result = (is_dataclass(thing) or hasattr(thing, "_fields")) and own <= names
        uncalled = getattr(thing, "_is_protocol", False) or issubclass(thing, (cv.Status, BaseException))
        uncalled = uncalled or inspect.isabstract(thing)
        return {"PR01"} if result or uncalled else set()
    if "." not in path:
        return set()
    method = inspect.isclass(attrgetter(path.rpartition(".")[0])(cv))
    return {"RT01"} | ({"GL08"} if method else set()) | (set() if sections["Parameters"] else {"PR01"})


EXTRA = ["image_models"] if find_spec("torch") else []


@pytest.mark.docstrings
@pytest.mark.parametrize("path", [*public_names([*cv.__all__, *EXTRA])])
def test_docstring(path):
    found = [error for error in validate(f"constrained_vae.{path}")["errors"] if error[0] in CHECKS]
    assert [error for error in found if error[0] not in answered_otherwise(path)] == []


# Methods of protocols, which solvers call: what they raise is told once, by the protocol.
INNER = {"check", "in_frame", "statistics", "offset", "readout", "pullback", "decoder", "reconstructions", "curvature"}
# The first handles the error of a backend that cannot run, the second asks a check of data that have passed it.
WITHOUT_ERRORS = {"backends.compiled", "FixedPoint.labels"}
PATHS = [*public_names([*cv.__all__, *EXTRA])]


def defined(path):
    """A public name as its class or module holds it: a property is not computed, a class method is not bound."""
    holder, _, last = path.rpartition(".")
    place = attrgetter(holder)(cv) if holder else cv
    return vars(place)[last] if inspect.isclass(place) else getattr(place, last)


def is_member(path):
    """Whether a name is that of a method or a property."""
    holder = path.rpartition(".")[0]
    return bool(holder) and inspect.isclass(attrgetter(holder)(cv))


FUNCTIONS = [path for path in PATHS if inspect.isfunction(attrgetter(path)(cv)) and not is_member(path)]


@pytest.mark.docstrings
@pytest.mark.parametrize("path", FUNCTIONS)
def test_a_function_has_its_sections(path):
    """What it takes, what it returns, and an example. Of methods a sentence may tell this."""
    function = attrgetter(path)(cv)
    sections = NumpyDocString(inspect.getdoc(function))
    signature = inspect.signature(function)
    if signature.parameters:
        assert sections["Parameters"]
    if signature.return_annotation not in (None, "None", signature.empty):
        assert sections["Returns"] or sections["Yields"]
    assert sections["Examples"]


@pytest.mark.docstrings
@pytest.mark.parametrize("path", PATHS)
def test_what_is_raised_is_told(path):
    """Of methods and properties: what they raise themselves, or by a check that they call."""
    member = is_member(path)
    if path in WITHOUT_ERRORS or (member and path.rpartition(".")[2] in INNER):
        return
    if raises(defined(path), depth=1 if member else 2):
        assert NumpyDocString(inspect.getdoc(attrgetter(path)(cv)) or "")["Raises"]
