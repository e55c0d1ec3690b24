"""Stands in for PyTorch where it is not installed, so that the docstrings of the image models can be read there."""

from __future__ import annotations

import abc
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import Any


class _Kind(abc.ABCMeta):
    """A class that has every attribute and can be subscribed, as annotations and decorators want it."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Kind(name, (), {"__call__": lambda self, function=None, *more: function})

    def __getitem__(cls, item: Any) -> Any:
        return cls

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return super().__call__()


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(_Kind(self.__name__, (), {}), name)


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return spec_from_loader(name, self, is_package=True) if name.partition(".")[0] == "torch" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def for_torch() -> Iterator[None]:
    """Within it ``import torch`` works; after it there is no PyTorch again."""
    finder = _Finder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if isinstance(sys.modules.get("torch"), _Module):
            for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
                del sys.modules[name]


def image_models() -> ModuleType:
    """The module `constrained_vae.image_models`, whose functions cannot be called if PyTorch is missing."""
    if find_spec("torch"):
        return importlib.import_module("constrained_vae.image_models")
    with for_torch():
        return importlib.import_module("constrained_vae.image_models")
