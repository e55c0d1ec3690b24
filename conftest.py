"""Doctests that need PyTorch are skipped where it is not installed; no test leaves figures open for the next one."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
NEED_TORCH = (
    ROOT / "constrained_vae" / "image_models",
    ROOT / "constrained_vae" / "cli" / "image_training.py",
    ROOT / "tests" / "helpers" / "image_models.py",
)


@pytest.fixture(autouse=True)
def closed_figures():
    """pyplot warns of more than twenty open figures."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


def pytest_collectstart(collector):
    """A module of any other place that cannot be imported is an error."""
    if not isinstance(collector, pytest.File) or find_spec("torch") is not None:
        return
    if collector.path in NEED_TORCH or NEED_TORCH[0] in collector.path.parents:
        collector.collect = lambda: pytest.skip("torch, of the extra torch, is not installed")
