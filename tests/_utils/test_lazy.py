"""Names that are imported when they are first used."""

import importlib
import sys

import pytest

SOURCE = """
import signal
signal.raise_signal(signal.SIGINT)
answer = 42
"""


def test_ctrl_c_during_an_import_is_raised_after_it(tmp_path, monkeypatch):
    package = tmp_path / "lazy_example"
    package.mkdir()
    attach = (
        "from constrained_vae._utils.lazy import attach\n__getattr__, __dir__, __all__ = attach(__name__, __file__)"
    )
    (package / "__init__.py").write_text(attach)
    (package / "__init__.pyi").write_text("from .module import answer as answer")
    (package / "module.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        example = importlib.import_module("lazy_example")
        assert example.__all__ == ["answer"]
        with pytest.raises(KeyboardInterrupt):
            _ = example.answer
        assert sys.modules["lazy_example.module"].answer == 42
        assert example.answer == 42
        with pytest.raises(AttributeError):
            _ = example.question
    finally:
        for name in ("lazy_example", "lazy_example.module"):
            sys.modules.pop(name, None)
