"""Which functions of the package raise an error themselves, or by a function of the package that they call."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap

# Calls that a function makes, and those that these make: `check_data(x)` in a function that `coverage` calls.
DEPTH = 2


@functools.cache
def _tree(function):
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def _is_ours(thing):
    return str(getattr(thing, "__module__", "")).startswith("constrained_vae") and not _is_made(thing)


def _is_made(thing):
    """Whether a class made this function, as dataclasses and protocols make `__init__`: it has no source."""
    return inspect.isfunction(thing) and thing.__code__.co_filename.startswith("<")


def _called(node, names):
    if isinstance(node, ast.Name):
        return names.get(node.id)
    return getattr(_called(node.value, names), node.attr, None) if isinstance(node, ast.Attribute) else None


def _constructors(kind):
    """What runs when an instance is made."""
    made = (vars(kind).get(name) for name in ("__init__", "__post_init__"))
    return [function for function in made if inspect.isfunction(function) and _is_ours(function)]


def functions(thing):
    """The functions that run when something public is called: one, or those of a constructor."""
    if inspect.isclass(thing):
        return _constructors(thing)
    for inner in ("__func__", "fget", "func"):  # methods of a class, properties, cached properties
        thing = getattr(thing, inner, None) or thing
    thing = inspect.unwrap(thing) if callable(thing) else thing
    return [thing] if inspect.isfunction(thing) and _is_ours(thing) else []


def raises(thing, depth=DEPTH):
    """Whether something public raises by itself or, so many calls deep, by what it calls."""
    for function in functions(thing):
        nodes = list(ast.walk(_tree(function)))
        if any(isinstance(node, ast.Raise) and node.exc is not None for node in nodes):
            return True
        called = (_called(node.func, function.__globals__) for node in nodes if isinstance(node, ast.Call))
        if depth and any(raises(other, depth - 1) for other in called if _is_ours(other)):
            return True
    return False
