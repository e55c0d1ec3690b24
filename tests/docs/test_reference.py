"""The API reference is built without a warning, and every public name is in it."""

import inspect
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import constrained_vae as cv

pytest.importorskip("pdoc", reason="pdoc, of the extras docs and test, is not installed")


def test_every_public_name_has_its_place(tmp_path):
    # In a process of its own: where types are told for type checkers alone, pdoc imports them into our modules.
    command = [sys.executable, "-m", "docs.reference", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(cv.__file__).parents[1], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    anchors = {page.stem: set(re.findall(r'id="([^"]+)"', page.read_text())) for page in tmp_path.rglob("*.html")}
    modules = {name for name in cv.__all__ if inspect.ismodule(getattr(cv, name))}
    modules |= {"image_models"} if find_spec("torch") else set()
    assert {"index", "constrained_vae", *modules} == set(anchors)
    assert set(cv.__all__) - modules <= anchors["constrained_vae"]
    for name in modules:
        assert set(getattr(getattr(cv, name), "__all__", ())) <= anchors[name]
    assert {"FixedPoint.distinct", "Branch.peaks"} <= anchors["constrained_vae"]
    assert {"flow", "rate_distortion"} <= anchors["plotting"]
