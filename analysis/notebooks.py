"""Executes the notebooks: every `notebooks/NAME.py` is a source text, and `NAME.ipynb` has its outputs.

    python -m analysis.notebooks [NAME ...]

Executes the source texts with the present interpreter and writes the notebooks. A notebook whose extra is not installed
is skipped. Edit either the text, or the notebook in JupyterLab, where Jupytext keeps both equal.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

_ROOT = Path(__file__).parents[1]
FOLDER = _ROOT / "notebooks"
NEEDS = {"06_image_models": "torch"}  # extras, which have the name of their package
_LONGEST = 120  # largest time for a cell, in seconds


def main(argv: Sequence[str] | None = None) -> int:
    texts = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
    parser = argparse.ArgumentParser(prog="python -m analysis.notebooks", description="Execute the notebooks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(texts)}; default: all")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(texts):
        parser.error(f"there is no notebook {', '.join(sorted(unknown))}: choose from {', '.join(texts)}")
    for name in args.names or texts:
        if name in NEEDS and find_spec(NEEDS[name]) is None:
            print(f"skipped {name}: it needs {NEEDS[name]}, pip install 'constrained-vae[{NEEDS[name]}]'")
            continue
        begin = time.perf_counter()
        try:
            notebook = execute(texts[name])
        except CellExecutionError as error:
            print(f"notebooks: {name}: {error}", file=sys.stderr)
            return 1
        nbformat.write(notebook, texts[name].with_suffix(".ipynb"))
        print(f"wrote {name}.ipynb in {time.perf_counter() - begin:.0f} s")
    return 0


def execute(text: Path) -> nbformat.NotebookNode:
    """The notebook of a source text, with outputs.

    Parameters
    ----------
    text : Path
        Source text in the percent format of Jupytext.

    Raises
    ------
    CellExecutionError
        If a cell raises.
    """
    notebook = jupytext.read(text)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # fixed, so that equal notebooks are equal files
    # Without kernel folders the only kernel is the running interpreter; "ipc" communicates by files, not open ports.
    kernels = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=kernels, transport="ipc")
    NotebookClient(
        notebook,
        km=manager,
        timeout=_LONGEST,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(_ROOT)}},
    ).execute(cleanup_kc=True, env=os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"})
    return notebook


if __name__ == "__main__":
    sys.exit(main())
