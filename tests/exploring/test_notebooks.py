"""explore() in JupyterLab, in Notebook, in a notebook that is not trusted, and under the policy of VS Code."""

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import constrained_vae as cv
from tests.helpers.chromium import browser, opened

ROOT = Path(cv.__file__).parents[1]
CELL = """import sys
sys.path.insert(0, {root!r})
import constrained_vae as cv
cv.explore(cv.sweep(cv.datasets.four_clusters(12).x, betas=[9.5, 3, 1.2, 0.5, 0.2], n_tiles=8), spectral=False)"""
# The frame has the same origin as the page around it.
INSIDE = "document.querySelector('iframe[title=explorer]').contentDocument"
# The longest time from a move of the slider until it is painted, that is until the script after the next frame, and the
# number of different texts. JupyterLab may load the frame once more, so that its document is looked up for every move.
FOLLOWS = f"""new Promise(done => {{
  const seen = new Set();
  let slowest = 0, moves = 0;
  const move = () => {{
    const before = performance.now(), inside = {INSIDE}, slider = inside.getElementById("beta");
    slider.value = moves % 5;
    slider.dispatchEvent(new inside.defaultView.Event("input"));
    requestAnimationFrame(() => setTimeout(() => {{
      slowest = Math.max(slowest, performance.now() - before);
      seen.add(inside.getElementById("now").textContent);
      if (++moves < 20) move(); else done([slowest, seen.size]);
    }}, 0));
  }};
  move();
}})"""
NOW = f"{INSIDE}.getElementById('now').textContent"


@pytest.fixture(scope="module")
def explorer():
    x = cv.datasets.four_clusters(12).x
    return cv.explore(cv.sweep(x, betas=np.geomspace(9.5, 0.2, 5), n_tiles=8), spectral=False)


def notebook(folder, outputs=()):
    """A file with one cell that explores; with outputs it is as somebody else has saved it."""
    cell = {"cell_type": "code", "metadata": {}, "execution_count": None, "source": CELL.format(root=str(ROOT))}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    page = {"nbformat": 4, "nbformat_minor": 4, "metadata": {"kernelspec": kernel}}
    (folder / "e.ipynb").write_text(json.dumps({**page, "cells": [{**cell, "outputs": list(outputs)}]}))


@contextlib.contextmanager
def serving(program, folder):
    """The address of a Jupyter server of a folder, with settings of its own."""
    if importlib.util.find_spec(program) is None:
        pytest.skip(f"{program} is not installed: pip install {program}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    environment = {**os.environ, **{name: str(folder / f".{name}") for name in names}}
    options = ["--no-browser", "--allow-root", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"]
    command = [sys.executable, "-m", program, *options, f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/api", timeout=5):
                break
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # a server may wait for its kernel, which ends with it
            process.kill()
            process.wait()


@pytest.mark.slow
@browser
@pytest.mark.parametrize(("program", "place"), [("jupyterlab", "lab/tree/e.ipynb"), ("notebook", "notebooks/e.ipynb")])
def test_a_notebook_follows_the_slider(tmp_path, program, place):
    notebook(tmp_path)
    with serving(program, tmp_path) as address, opened(f"{address}/{place}", tmp_path / "profile") as page:
        editor = "document.querySelector('.jp-Notebook .jp-Cell .cm-content')"
        page.wait(f"{editor} && document.querySelector('.jp-Notebook-ExecutionIndicator[data-status=idle]') !== null")
        while page.evaluate("document.querySelector('.jp-InputPrompt').textContent") == "[ ]:":  # until a key is heard
            page.evaluate(f"{editor}.focus()")
            page.press("Enter", 13, modifiers=8)
            time.sleep(0.5)
        page.wait(f"{INSIDE}.body.dataset.painted")
        slowest, seen = page.evaluate(FOLLOWS)
        print(f"{program}: the slowest move was painted after {slowest:.0f} ms")
        assert seen == 5
        page.evaluate(f"{INSIDE}.getElementById('beta').focus()")
        before = page.evaluate(NOW)
        page.press("ArrowLeft", 37)
        page.wait(f"{NOW} !== {json.dumps(before)}")
        assert page.evaluate("document.querySelector('.jp-OutputArea img').clientWidth") > 100  # under the frame


@pytest.mark.slow
@browser
def test_a_notebook_that_is_not_trusted_shows_the_picture(tmp_path, explorer):
    data = explorer._repr_mimebundle_()
    notebook(tmp_path, [{"output_type": "execute_result", "metadata": {}, "execution_count": 1, "data": data}])
    with (
        serving("jupyterlab", tmp_path) as address,
        opened(f"{address}/lab/tree/e.ipynb", tmp_path / "profile") as page,
    ):
        assert page.wait("document.querySelector('.jp-OutputArea img').naturalWidth") > 100
        assert page.evaluate("document.querySelectorAll('.jp-OutputArea iframe').length") == 0


# What VS Code allows the outputs of a notebook at its strictest, with its setting notebook.experimental.enableCsp.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src https: http: data:; font-src https:; connect-src https:; child-src https: data:;"
)


@browser
@pytest.mark.parametrize(("kind", "dark"), [("vscode-dark", True), ("vscode-high-contrast-light", False)])
def test_the_outputs_of_vs_code_follow_the_slider(tmp_path, explorer, kind, dark):
    """Not VS Code itself: a page with its policy, into which the output is put by a script, as there."""
    put = f"document.getElementById('output').innerHTML = {json.dumps(explorer._repr_html_())};".replace("<", "\\u003c")
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    body = f'<body data-vscode-theme-kind="{kind}"><div id="output"></div><script>{put}</script></body>'
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><html><head>{head}</head>{body}</html>")
    with opened((tmp_path / "page.html").as_uri(), tmp_path / "profile") as page:
        page.wait(f"{INSIDE}.body.dataset.painted")
        assert page.evaluate(FOLLOWS)[1] == 5
        assert page.evaluate(f"'dark' in {INSIDE}.documentElement.dataset") is dark
