"""The API reference: a page of the package and one of each public module, by pdoc (``make docs``)."""

import dataclasses
import inspect
import sys
import typing
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pdoc

import constrained_vae as cv


def write(folder: Path) -> None:
    """Write the pages of all public names, of image models if PyTorch is there; whatever pdoc warns of is an error."""
    if find_spec("torch"):
        cv.__all__.append("image_models")
    else:
        vars(cv)["image_models"] = None  # pdoc executes the stub, which imports it
    modules = [name for name in cv.__all__ if inspect.ismodule(getattr(cv, name))]
    for module in (cv, *(getattr(cv, name) for name in modules)):
        prepare(module)
    others = rf"!constrained_vae[.](?!({'|'.join(modules)})$)"
    pdoc.render.configure(docformat="numpy", footer_text=f"constrained-vae {cv.__version__}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc("constrained_vae", others, output_directory=folder)


def prepare(module: ModuleType) -> None:
    """Say what pdoc would not find out: which names are public, those imported when first used, and some types."""
    if not hasattr(module, "__all__"):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        vars(module)["__all__"] = [name for name in own if not name.startswith("_")]
    for name in vars(module)["__all__"]:
        value = getattr(module, name)
        setattr(module, name, value)
        if inspect.isclass(value):
            inherited = dataclasses.is_dataclass(value) and any(map(dataclasses.is_dataclass, value.__mro__[1:]))
            if inherited or hasattr(value, "_fields"):
                make = value.__init__ if inherited else value.__new__
                make.__annotations__ |= typing.get_type_hints(value)
        elif hasattr(value, "__signature__"):  # a strategy: its type is a name in a module of Hypothesis's own
            value.__signature__ = value.__signature__.replace(return_annotation=inspect.Signature.empty)
            del value.__wrapped__


if __name__ == "__main__":
    write(Path(sys.argv[1]))
