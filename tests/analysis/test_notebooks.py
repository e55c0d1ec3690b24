"""The notebooks: in step with their texts, with outputs that a page can show, and executed."""

import re
from functools import cache
from importlib.util import find_spec

import jupytext
import nbformat
import pytest

from analysis.notebooks import FOLDER, NEEDS, execute, main

TEXTS = sorted(FOLDER.glob("*.py"))
NAMES = [
    "01_fixed_points",
    "02_phase_transitions",
    "03_spectral_clustering",
    "04_constraints_and_geco",
    "05_frontier",
    "06_image_models",
]
_LARGEST = 400_000  # bytes of a notebook
_MOVE = """# %%
slider.value = slider.options[-1][1]
"""

every_text = pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)


executed = cache(execute)


def committed(text):
    return nbformat.read(str(text.with_suffix(".ipynb")), as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def kinds(notebook):
    """What every cell shows: printed text, tables, pictures."""
    shown = [cell.outputs if cell.cell_type == "code" else [] for cell in notebook.cells]
    return [[output.get("name") or sorted(output.data) for output in cell] for cell in shown]


def test_there_are_six_and_each_has_both_forms():
    assert [text.stem for text in TEXTS] == NAMES
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@every_text
def test_text_and_notebook_agree(text):
    pair = [[(cell.cell_type, cell.source) for cell in nb.cells] for nb in (jupytext.read(text), committed(text))]
    assert pair[0] == pair[1], "run make notebooks"


@every_text
def test_prose_comes_first_and_asks_a_question(text):
    first = committed(text).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"\*\*Questions?:[^*]*\?\*\*", first.source)


@every_text
def test_committed_outputs_read_well(text):
    notebook = committed(text)
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    # Errors and warnings would name files of the machine that they were seen on; an address differs from run to run.
    assert {output.output_type for output in outputs(notebook)} <= {"stream", "display_data", "execute_result"}
    assert all(output.get("name", "stdout") == "stdout" for output in outputs(notebook))
    raw = text.with_suffix(".ipynb").read_text(encoding="utf-8")
    words = re.sub(r'"image/png": "[^"]*"', "", raw)
    assert not re.search(r"/home/|/root/|/tmp/|/usr/|\bat 0x[0-9a-f]+|Traceback", words)
    assert len(raw) < _LARGEST
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "executed from top to bottom"


# `make notebooks`, which CI runs, executes them once: a text that raises fails there.
@pytest.mark.slow
@every_text
def test_executes_and_shows_what_is_committed(text):
    if text.stem in NEEDS:
        pytest.importorskip(NEEDS[text.stem], reason=f"{NEEDS[text.stem]}, an extra, is not installed")
    assert kinds(executed(text)) == kinds(committed(text))


@pytest.mark.slow
def test_the_slider_redraws_its_picture(tmp_path):
    """At the end, so that no later cell has taken away what the callback draws on."""
    text = FOLDER / "02_phase_transitions.py"
    moved = tmp_path / text.name
    moved.write_text(f"{text.read_text(encoding='utf-8')}\n{_MOVE}", encoding="utf-8")
    before, after = (
        [output.data["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]
        for notebook in (executed(text), execute(moved))
    )
    assert [old != new for old, new in zip(before, after, strict=True)] == [False, True, False, False]


def test_a_cell_that_raises_ends_with_its_error(tmp_path, monkeypatch, capsys):
    (tmp_path / "wrong.py").write_text("# %%\n1 / 0\n", encoding="utf-8")
    monkeypatch.setattr("analysis.notebooks.FOLDER", tmp_path)
    assert main([]) == 1
    assert "wrong" in (error := capsys.readouterr().err)
    assert "ZeroDivisionError" in error
    assert not (tmp_path / "wrong.ipynb").exists()


def test_a_notebook_whose_extra_is_missing_is_skipped_with_the_reason(monkeypatch, capsys):
    monkeypatch.setattr("analysis.notebooks.find_spec", lambda name: None if name == "torch" else find_spec(name))
    assert main(["06_image_models"]) == 0
    assert capsys.readouterr().out == "skipped 06_image_models: it needs torch, pip install 'constrained-vae[torch]'\n"


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["07_nothing"])
    assert "there is no notebook 07_nothing" in capsys.readouterr().err
